// Elementary functions without branches or calls, so that loops over them become vector code with
// any compiler, and give the same bits on every rank and machine of one kind. Errors below 1e-15.

#ifndef METRIPLECTIC_VECTOR_MATH_H
#define METRIPLECTIC_VECTOR_MATH_H

#include <cstdint>
#include <cstring>

namespace metriplectic {

// Numbers side by side, in one register (or two halves of one).
constexpr int LANES = 4, WIDE = 8;
typedef double Lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));
typedef double Wide __attribute__((vector_size(WIDE * sizeof(double)), aligned(sizeof(double)), may_alias));

inline const Wide &wide(const double *x)
{
  return *reinterpret_cast<const Wide *>(x);
}

inline Wide &wide(double *x)
{
  return *reinterpret_cast<Wide *>(x);
}

inline double from_bits(std::uint64_t bits)
{
  double x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

inline std::uint64_t to_bits(double x)
{
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof(x));
  return bits;
}

// 1.5 * 2^52: added to a number below 2^51, it leaves the nearest integer in the low bits
constexpr double ROUNDER = 6755399441055744.0;

/// Natural logarithm of a positive normal number.
inline double log_of(double x)
{
  // x = 2^n m with m in [sqrt(1/2), sqrt(2))
  const std::uint64_t shifted = to_bits(x) - 0x3fe6a09e667f3bcdULL;
  const std::int64_t whole = static_cast<std::int64_t>(shifted) >> 52;
  const double m = from_bits(to_bits(x) - (static_cast<std::uint64_t>(whole) << 52));
  const double n = from_bits(static_cast<std::uint64_t>(whole) + to_bits(ROUNDER)) - ROUNDER;
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double p = 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  p = p * z + 1.0;
  return n * 0.693147180559945286 + 2.0 * s * p;
}

/// Exponential; arguments are held within [-700, 700].
inline double exp_of(double x)
{
  x = x < -700.0 ? -700.0 : x;
  x = x > 700.0 ? 700.0 : x;
  const double shifted = x * 1.44269504088896339 + ROUNDER;
  const double n = shifted - ROUNDER;
  const double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p * from_bits((to_bits(shifted) + 1023) << 52);
}

/// Sine and cosine of 2 pi v for v in [0, 1].
inline void sincos_turn(double v, double &sine, double &cosine)
{
  const double shifted = 4.0 * v + ROUNDER;
  const double quarter = shifted - ROUNDER;
  const std::uint64_t quadrant = to_bits(shifted);
  const double a = 6.283185307179586477 * (v - 0.25 * quarter);
  const double z = a * a;
  double s = 1.0 / 355687428096000.0;
  s = s * z - 1.0 / 1307674368000.0;
  s = s * z + 1.0 / 6227020800.0;
  s = s * z - 1.0 / 39916800.0;
  s = s * z + 1.0 / 362880.0;
  s = s * z - 1.0 / 5040.0;
  s = s * z + 1.0 / 120.0;
  s = s * z - 1.0 / 6.0;
  s = a + a * z * s;
  double c = 1.0 / 20922789888000.0;
  c = c * z - 1.0 / 87178291200.0;
  c = c * z + 1.0 / 479001600.0;
  c = c * z - 1.0 / 3628800.0;
  c = c * z + 1.0 / 40320.0;
  c = c * z - 1.0 / 720.0;
  c = c * z + 1.0 / 24.0;
  c = c * z - 0.5;
  c = c * z + 1.0;
  const bool odd = quadrant & 1;
  const double sine_sign = (quadrant & 2) ? -1.0 : 1.0;
  const double cosine_sign = ((quadrant + 1) & 2) ? -1.0 : 1.0;
  sine = sine_sign * (odd ? c : s);
  cosine = cosine_sign * (odd ? s : c);
}

}    // namespace metriplectic

#endif
