#include "noise.h"

#include "vector_math.h"

#include <cmath>

namespace metriplectic {

namespace {

constexpr int CHUNK = 128;

/// Ten rounds on n counters at a time; they become the random words.
inline void philox(int n, std::uint32_t k0, std::uint32_t k1, std::uint32_t *c0, std::uint32_t *c1, std::uint32_t *c2,
                   std::uint32_t *c3)
{
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int k = 0; k < n; ++k) {
      const std::uint64_t p0 = static_cast<std::uint64_t>(c0[k]) * 0xD2511F53U;
      const std::uint64_t p1 = static_cast<std::uint64_t>(c2[k]) * 0xCD9E8D57U;
      c0[k] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[k] ^ k0;
      c2[k] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[k] ^ k1;
      c1[k] = static_cast<std::uint32_t>(p1);
      c3[k] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
}

inline double uniform(std::uint32_t word)
{
  // 2^52 + word, exactly, then less 2^52: faster than a conversion
  const double whole = from_bits(0x4330000000000000ULL | word) - 4503599627370496.0;
  return (whole + 0.5) * 0x1p-32;
}

}    // namespace

void uniforms(std::uint64_t seed, const std::uint32_t counter[4], double out[4])
{
  std::uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
  philox(1, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), c, c + 1, c + 2, c + 3);
  for (int k = 0; k < 4; ++k) out[k] = uniform(c[k]);
}

void pair_normals(std::uint64_t seed, std::uint32_t step, int n, const std::uint32_t *first,
                  const std::uint32_t *second, double *const normals[4])
{
  std::uint32_t c0[CHUNK], c1[CHUNK], c2[CHUNK], c3[CHUNK];
  for (int start = 0; start < n; start += CHUNK) {
    const int count = n - start < CHUNK ? n - start : CHUNK;
    const std::uint32_t *i = first + start, *j = second + start;
#pragma omp simd
    for (int k = 0; k < count; ++k) {
      c0[k] = i[k] < j[k] ? i[k] : j[k];
      c1[k] = i[k] < j[k] ? j[k] : i[k];
      c2[k] = step;
      c3[k] = 0;
    }
    philox(count, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), c0, c1, c2, c3);
    const std::uint32_t *radial[2] = {c0, c2}, *angular[2] = {c1, c3};
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t *u = radial[half], *v = angular[half];
      double *even = normals[2 * half] + start, *odd = normals[2 * half + 1] + start;
#pragma omp simd
      for (int k = 0; k < count; ++k) {
        const double radius = std::sqrt(-2.0 * log_of(uniform(u[k])));
        const double signed_radius = i[k] < j[k] ? radius : -radius;
        double sine, cosine;
        sincos_turn(uniform(v[k]), sine, cosine);
        even[k] = signed_radius * cosine;
        odd[k] = signed_radius * sine;
      }
    }
  }
}

}    // namespace metriplectic
