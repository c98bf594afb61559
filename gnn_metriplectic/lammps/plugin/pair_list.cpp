#include "pair_list.h"

#include "noise.h"

#include <algorithm>
#include <cmath>

namespace metriplectic {

namespace {

template <typename T> void make_room(Array<T> &values, std::size_t size)
{
  if (values.size() < size) values.resize(size + size / 8);
}

inline const Lanes &lanes(const double *x)
{
  return *reinterpret_cast<const Lanes *>(x);
}

inline Lanes &lanes(double *x)
{
  return *reinterpret_cast<Lanes *>(x);
}

/// The numbers of a particle or pair.
inline const Lanes &at(const double *x, int k)
{
  return lanes(x + static_cast<std::ptrdiff_t>(k) * LANES);
}

inline Lanes &at(double *x, int k)
{
  return lanes(x + static_cast<std::ptrdiff_t>(k) * LANES);
}

/// Asks for the numbers of the particle that a loop comes to so many pairs later. Partners are all over the memory, and
/// what a loop waits for is them: a processor looks only a few pairs ahead by itself.
constexpr int AHEAD = 32;

inline void expect(const double *x, int width, const int *j)
{
  const double *record = x + static_cast<std::ptrdiff_t>(j[AHEAD]) * width;
  for (int k = 0; k < width; k += 8) __builtin_prefetch(record + k);
}

inline double sum(const Lanes &x)
{
  return (x[0] + x[2]) + (x[1] + x[3]);
}

/// Calls f(i, begin, end) for the pairs of each first particle, which are side by side: sums to it stay in registers.
template <typename F> inline void by_first(const int *first, int start, int stop, F &&f)
{
  for (int begin = start; begin < stop;) {
    const int i = first[begin];
    int end = begin + 1;
    while (end < stop && first[end] == i) ++end;
    f(i, begin, end);
    begin = end;
  }
}

}    // namespace

PairList::PairList(const Tables &tables) : tables(tables)
{
  for (auto *values :
       {&inverse_square, &shear, &bulk, &heat, &flow, &normals[0], &normals[1], &normals[2], &normals[3]})
    values->resize(CHUNK);
  for (auto &values : number) values.resize(CHUNK);
}

void PairList::fit(std::size_t room)
{
  if (first.size() >= room) return;
  make_room(first, room);
  for (auto *values : {&distance, &slope, &tension}) values->resize(first.size());
  // zeros where the last pairs look ahead
  second.resize(first.size() + AHEAD);
}

double PairList::memory() const
{
  double doubles = 0.0;
  for (const auto *values : {&distance, &slope, &tension, &drag, &drag_along, &given}) doubles += values->capacity();
  return doubles * sizeof(double) + (first.capacity() + second.capacity()) * sizeof(int);
}

void PairList::fit_interactions()
{
  for (auto *values : {&drag, &drag_along}) make_room(*values, first.size());
  make_room(given, LANES * first.size());
}

void PairList::restart(const double *places)
{
  place = places;
  size = weighed = 0;
}

void PairList::add(int i, const int *neighbors, int mask, int count, double *sums)
{
  const double reach = tables.cutoff * tables.cutoff;
  fit(static_cast<std::size_t>(size) + count);
  const double *a = place + static_cast<std::ptrdiff_t>(i) * LANES;
  int n = size;
  for (int k = 0; k < count; ++k) {
    const int j = neighbors[k] & mask;
    const double *b = place + static_cast<std::ptrdiff_t>(j) * LANES;
    const double dx = a[0] - b[0], dy = a[1] - b[1], dz = a[2] - b[2];
    const double square = dx * dx + dy * dy + dz * dz;
    // written in any case and kept if near: no branch to mispredict
    first[n] = i;
    second[n] = j;
    distance[n] = square;
    n += square < reach;
  }
  size = n;
  if (n - weighed >= CHUNK) weigh(n, sums);
}

void PairList::weigh(int stop, double *sums)
{
  const double to_rho = 1.0 / tables.cutoff;
  double weights[CHUNK], bonds[CHUNK];
  for (int start = weighed; start < stop; start += CHUNK) {
    const int count = std::min(CHUNK, stop - start);
    double *r = distance.data() + start, *slopes = slope.data() + start, *tensions = tension.data() + start;
#pragma omp simd
    for (int k = 0; k < count; ++k) {
      const double length = std::sqrt(r[k]);
      r[k] = length;
      double by_rho;
      tables.weight(length * to_rho, weights[k], by_rho);
      const double scale = length > 0.0 ? to_rho / length : 0.0;
      slopes[k] = by_rho * scale;
      tables.bond(length * to_rho, bonds[k], by_rho);
      tensions[k] = by_rho * scale;
    }
    const int *j = second.data() + start;
    by_first(first.data() + start, 0, count, [&](int i, int begin, int end) {
      double own = 0.0, bound = 0.0;
      for (int k = begin; k < end; ++k) {
        const double half = 0.5 * bonds[k];
        double *to = sums + CROWDED * static_cast<std::size_t>(j[k]);
        own += weights[k];
        bound += half;
        to[0] += weights[k];
        to[1] += half;
      }
      double *to = sums + CROWDED * static_cast<std::size_t>(i);
      to[0] += own;
      to[1] += bound;
    });
  }
  weighed = stop;
}

// A^2 = s (1 - rho^2)^2 exp 2 L with L = sum_k phi_k (g_ik + g_jk), g_0 = 1; likewise B^2 and K^2.
// Of the slopes only k_B / C times them is wanted: A^2 2 M with M = sum_k phi_k (h_ik + h_jk), h = k_B / C dg/dT,
// and for K^2 the difference of the two ends.
template <int BLOCKS> void PairList::coefficients(const Particles &particles, int start, int count)
{
  const int blocks = BLOCKS ? BLOCKS : tables.columns / WIDE, columns = blocks * WIDE;
  const double to_rho = 1.0 / tables.cutoff;
  const Wide sign = {1.0, 1.0, -1.0, 0.0, 1.0, 1.0, -1.0, 0.0};
  for (int k = 0; k < count; ++k) {
    expect(particles.thermal, 2 * columns, second.data() + start + k);
    double place;
    const double *c = tables.radial.locate(distance[start + k] * to_rho, place);
    const double *a = particles.thermal + static_cast<std::size_t>(first[start + k]) * 2 * columns;
    const double *b = particles.thermal + static_cast<std::size_t>(second[start + k]) * 2 * columns;
    Wide log = {}, ito = {};
    double zeroth[4];
    for (int block = 0; block < blocks; ++block, c += WIDE, a += WIDE, b += WIDE) {
      const Wide phi =
          wide(c) + place * (wide(c + columns) + place * (wide(c + 2 * columns) + place * wide(c + 3 * columns)));
      log += phi * (wide(a) + wide(b));
      ito += phi * (wide(a + columns) + sign * wide(b + columns));
      // the spare lanes of the first rows hold 2 phi_0
      if (block < 2) {
        zeroth[2 * block] = phi[3];
        zeroth[2 * block + 1] = phi[7];
      }
    }
    shear[k] = zeroth[0] + log[0] + log[4];
    bulk[k] = zeroth[1] + log[1] + log[5];
    heat[k] = zeroth[2] + log[2] + log[6];
    drag[start + k] = ito[0] + ito[4];
    drag_along[start + k] = ito[1] + ito[5];
    flow[k] = ito[2] + ito[6];
  }
}

/// A^2, B^2, K^2, drag and mean heat flow of a chunk.
void PairList::conduct(const Particles &particles, int start, int count)
{
  if (tables.columns == 2 * WIDE)
    coefficients<2>(particles, start, count);
  else
    coefficients<0>(particles, start, count);
  const double to_rho = 1.0 / tables.cutoff, by_dimension = 1.0 / tables.dimension;
  const double sa = tables.squared[0], sb = tables.squared[1], sk = tables.squared[2];
  const double *shared = particles.shared;
  const int *i = first.data() + start, *j = second.data() + start;
  double *a2 = shear.data(), *b2 = bulk.data(), *k2 = heat.data(), *q = flow.data();
  double *x = drag.data() + start, *y = drag_along.data() + start;
  double *inverse = inverse_square.data();
  const double *r = distance.data() + start;
#pragma omp simd
  for (int k = 0; k < count; ++k) {
    const double rho = r[k] * to_rho;
    inverse[k] = r[k] > 0.0 ? 1.0 / (r[k] * r[k]) : 0.0;
    double window = 1.0 - rho * rho;
    window = window > 0.0 ? window * window : 0.0;
    a2[k] = sa * window * exp_of(2.0 * a2[k]);
    b2[k] = sb * window * exp_of(2.0 * b2[k]);
    k2[k] = sk * window * exp_of(2.0 * k2[k]);
    const double bi = shared[SHARED * i[k] + BETA], bj = shared[SHARED * j[k] + BETA];
    // the drag is half the tensor of (beta_i + beta_j) A^2 + k_B (dA^2/dT_i / C_i + dA^2/dT_j / C_j)
    const double a = a2[k] * (bi + bj + 2.0 * x[k]), b = b2[k] * (bi + bj + 2.0 * y[k]);
    x[k] = 0.25 * a;
    y[k] = (0.25 * a + 0.5 * by_dimension * (b - a)) * inverse[k];
    q[k] = k2[k] * (bi - bj + 2.0 * q[k]);
  }
}

/// Random impulses of a chunk, and random beside mean heat.
void PairList::shake(const Particles &particles, const Noise &noise, int start, int count)
{
  for (int k = 0; k < count; ++k) {
    number[0][k] = particles.number[first[start + k]];
    number[1][k] = particles.number[second[start + k]];
  }
  double *const out[4] = {normals[0].data(), normals[1].data(), normals[2].data(), normals[3].data()};
  pair_normals(noise.seed, noise.step, count, number[0].data(), number[1].data(), out);
  const double scale = std::sqrt(2.0 * tables.k_B * noise.dt), by_dimension = 1.0 / tables.dimension, dt = noise.dt;
  const double flat = tables.dimension == 3 ? 1.0 : 0.0;
  const double *n0 = out[0], *n1 = out[1], *n2 = out[2], *last = out[tables.dimension];
  const double *a2 = shear.data(), *b2 = bulk.data(), *k2 = heat.data(), *q = flow.data();
  const double *inverse = inverse_square.data();
  double across[CHUNK], beside[CHUNK], jump[CHUNK];
#pragma omp simd
  for (int k = 0; k < count; ++k) {
    across[k] = scale * std::sqrt(0.5 * a2[k]);
    beside[k] = (scale * std::sqrt(a2[k] + by_dimension * (b2[k] - a2[k])) - across[k]) * inverse[k];
    jump[k] = dt * q[k] + scale * std::sqrt(k2[k]) * last[k];
  }
  for (int k = 0; k < count; ++k) {
    expect(place, LANES, second.data() + start + k);
    const Lanes r = at(place, first[start + k]) - at(place, second[start + k]), xi = {n0[k], n1[k], flat * n2[k], 0.0};
    Lanes &to = at(given.data(), start + k);
    to = across[k] * xi + beside[k] * sum(r * xi) * r;
    to[3] = jump[k];
  }
}

void PairList::kick(const Particles &particles, const Noise &noise, double time, const double *v, double *sums)
{
  fit_interactions();
  const double *strength = particles.shared + STRENGTH;
  for (int start = 0; start < size; start += CHUNK) {
    const int count = std::min(CHUNK, size - start);
    conduct(particles, start, count);
    shake(particles, noise, start, count);
    by_first(first.data(), start, start + count, [&](int i, int begin, int end) {
      const double own = strength[SHARED * static_cast<std::size_t>(i)];
      const Lanes vi = at(v, i);
      Lanes random_sum = {}, diagonal_sum = {}, side_sum = {}, push_sum = {}, friction_sum = {};
      for (int k = begin; k < end; ++k) {
        const std::size_t j = second[k];
        expect(v, LANES, second.data() + k);
        expect(sums, KICKED, second.data() + k);
        const Lanes r = at(place, i) - at(place, second[k]), along = drag_along[k] * r;
        const Lanes push = -time * (slope[k] * (own + strength[SHARED * j]) + tension[k]) * r;
        const Lanes random = at(given.data(), k);
        const Lanes diagonal = drag[k] + along * r, u = vi - at(v, second[k]);
        const Lanes friction = drag[k] * u + sum(r * u) * along;
        const Lanes side = Lanes{along[0], along[0], along[1], 0.0} * Lanes{r[1], r[2], r[2], 0.0};
        random_sum += random;
        diagonal_sum += diagonal;
        side_sum += side;
        push_sum += push;
        friction_sum += friction;
        double *b = sums + KICKED * j;
        at(b, 0) -= Lanes{random[0], random[1], random[2], push[0]};
        at(b, 1) += Lanes{diagonal[0], diagonal[1], diagonal[2], -push[1]};
        at(b, 2) += Lanes{side[0], side[1], side[2], -push[2]};
        at(b, 3) += friction;
      }
      double *a = sums + KICKED * static_cast<std::size_t>(i);
      at(a, 0) += Lanes{random_sum[0], random_sum[1], random_sum[2], push_sum[0]};
      at(a, 1) += Lanes{diagonal_sum[0], diagonal_sum[1], diagonal_sum[2], push_sum[1]};
      at(a, 2) += Lanes{side_sum[0], side_sum[1], side_sum[2], push_sum[2]};
      at(a, 3) -= friction_sum;
    });
  }
}

void PairList::rub(const double *v, double *forces) const
{
  const double *p = drag.data(), *q = drag_along.data();
  by_first(first.data(), 0, size, [&](int i, int begin, int end) {
    const Lanes own = at(v, i), here = at(place, i);
    Lanes sum_of = {};
    for (int k = begin; k < end; ++k) {
      expect(place, LANES, second.data() + k);
      expect(v, LANES, second.data() + k);
      expect(forces, LANES, second.data() + k);
      const Lanes r = here - at(place, second[k]), u = own - at(v, second[k]);
      const Lanes force = p[k] * u + q[k] * sum(r * u) * r;
      sum_of += force;
      at(forces, second[k]) += force;
    }
    at(forces, i) -= sum_of;
  });
}

void PairList::book(const double *v, double *sums) const
{
  by_first(first.data(), 0, size, [&](int i, int begin, int end) {
    const Lanes own = at(v, i), here = at(place, i);
    Lanes sum_of = {};
    for (int k = begin; k < end; ++k) {
      expect(place, LANES, second.data() + k);
      expect(v, LANES, second.data() + k);
      expect(sums, LANES, second.data() + k);
      const double along = sum((here - at(place, second[k])) * (own - at(v, second[k])));
      // half the work of a potential goes to either end
      const Lanes rate = {slope[k] * along, 0.5 * tension[k] * along, 0.0, 0.0};
      sum_of += rate;
      at(sums, second[k]) += rate;
    }
    at(sums, i) += sum_of;
  });
}

void PairList::book(const double *v, const double *friction, double dt, double time, double *sums) const
{
  by_first(first.data(), 0, size, [&](int i, int begin, int end) {
    const Lanes own = at(v, i), own_friction = at(friction, i), here = at(place, i);
    Lanes sum_of = {};
    for (int k = begin; k < end; ++k) {
      const int j = second[k];
      expect(place, LANES, second.data() + k);
      expect(v, LANES, second.data() + k);
      expect(friction, LANES, second.data() + k);
      expect(sums, LANES, second.data() + k);
      const Lanes r = here - at(place, j), random = at(given.data(), k);
      const Lanes u = own - at(v, j), w = own_friction - at(friction, j);
      const double along = sum(r * u), rate = slope[k] * along, passed = random[3];
      // half the work against friction, random force and potential goes to either end
      const Lanes force = (dt * drag[k]) * w + (dt * drag_along[k] * sum(r * w)) * r - random;
      const double heated = 0.5 * (sum(force * u) + time * tension[k] * along);
      sum_of += Lanes{rate, heated + passed, 0.0, 0.0};
      at(sums, j) += Lanes{rate, heated - passed, 0.0, 0.0};
    }
    at(sums, i) += sum_of;
  });
}

void PairList::push(const double *shared, double *forces) const
{
  const double *strength = shared + STRENGTH;
  by_first(first.data(), 0, size, [&](int i, int begin, int end) {
    const double own = strength[SHARED * static_cast<std::size_t>(i)];
    const Lanes here = at(place, i);
    Lanes sum_of = {};
    for (int k = begin; k < end; ++k) {
      const std::size_t j = second[k];
      expect(place, LANES, second.data() + k);
      expect(shared, SHARED, second.data() + k);
      expect(forces, LANES, second.data() + k);
      const double pull = slope[k] * (own + strength[SHARED * j]) + tension[k];
      const Lanes force = pull * (here - at(place, second[k]));
      sum_of += force;
      at(forces, second[k]) += force;
    }
    at(forces, i) -= sum_of;
  });
}

void PairList::drift(const Particles &particles, const double *v, const double *inverse_mass, double *sums,
                     const Noise *noise, double *random_sums)
{
  fit_interactions();
  const int dimension = tables.dimension;
  for (int start = 0; start < size; start += CHUNK) {
    const int count = std::min(CHUNK, size - start);
    conduct(particles, start, count);
    if (noise) shake(particles, *noise, start, count);
    for (int c = 0; c < count; ++c) {
      const int k = start + c;
      const std::size_t i = first[k], j = second[k];
      const Lanes r = at(place, first[k]) - at(place, second[k]), u = at(v, first[k]) - at(v, second[k]);
      const double along = sum(r * u);
      const Lanes g = drag[k] * u + drag_along[k] * along * r;
      // G = x I + y e e
      const double x = 0.5 * shear[c], y = x + (bulk[c] - shear[c]) / dimension;
      const double created = 0.5 * tables.k_B * (dimension * x + y) * (inverse_mass[i] + inverse_mass[j]);
      const double heated = 0.5 * sum(g * u) - created;
      const double variance = 0.25 * (x * sum(u * u) + y * along * along * inverse_square[c]) + heat[c];
      double *a = sums + 5 * i, *b = sums + 5 * j;
      for (int d = 0; d < 3; ++d) {
        a[d] -= g[d];
        b[d] += g[d];
      }
      a[3] += heated + flow[c];
      b[3] += heated - flow[c];
      a[4] += variance;
      b[4] += variance;
      if (!noise) continue;
      // impulse, and the heat that comes from it and from the random flow
      const Lanes random = at(given.data(), k);
      const double shaken = -0.5 * sum(random * u), jump = random[3] - noise->dt * flow[c];
      at(random_sums, first[k]) += Lanes{random[0], random[1], random[2], shaken + jump};
      at(random_sums, second[k]) += Lanes{-random[0], -random[1], -random[2], shaken - jump};
    }
  }
}

void PairList::stress(const double *v, const double *shared, double virial[6], double **by_particle) const
{
  const double *strength = shared + STRENGTH;
  for (int k = 0; k < size; ++k) {
    const std::size_t i = first[k], j = second[k];
    const Lanes r = at(place, first[k]) - at(place, second[k]), u = at(v, first[k]) - at(v, second[k]);
    const double pull = slope[k] * (strength[SHARED * i] + strength[SHARED * j]) + tension[k];
    const double central = -pull - drag_along[k] * sum(r * u);
    const Lanes force = central * r - drag[k] * u;
    // friction across the pair has a torque, and LAMMPS holds six numbers: those that the faces of a box with tilts xy,
    // xz and yz work against, the flux of x-momentum along y and so on
    const double part[6] = {r[0] * force[0], r[1] * force[1], r[2] * force[2],
                            r[1] * force[0], r[2] * force[0], r[2] * force[1]};
    for (int m = 0; m < 6; ++m) virial[m] += part[m];
    if (!by_particle) continue;
    for (int m = 0; m < 6; ++m) {
      by_particle[i][m] += 0.5 * part[m];
      by_particle[j][m] += 0.5 * part[m];
    }
  }
}

}    // namespace metriplectic
