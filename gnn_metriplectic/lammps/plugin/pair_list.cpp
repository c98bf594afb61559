#include "pair_list.h"

#include "noise.h"

#include <algorithm>
#include <cmath>

namespace metriplectic {

namespace {

/// Zero where two particles coincide, whose direction is nothing.
inline double inverse_length(double squared)
{
  return squared > 0.0 ? 1.0 / std::sqrt(squared) : 0.0;
}

template <typename T> void make_room(std::vector<T> &values, std::size_t size)
{
  if (values.size() < size) values.resize(size + size / 8);
}

// four numbers side by side, in one register
typedef double Lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

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

inline double sum(const Lanes &x)
{
  return (x[0] + x[2]) + (x[1] + x[3]);
}

}    // namespace

PairList::PairList(const Tables &tables) : tables(tables)
{
  for (auto *values : {&shear, &bulk, &heat, &flow, &normals[0], &normals[1], &normals[2], &normals[3]})
    values->resize(CHUNK);
  for (auto &values : number) values.resize(CHUNK);
}

void PairList::Geometry::fit(std::size_t size)
{
  if (first.size() >= size) return;
  for (auto *indices : {&first, &second}) make_room(*indices, size);
  arrow.resize(LANES * first.size());
}

double PairList::memory() const
{
  double doubles = 0.0, words = 0.0;
  for (const Geometry *g : {&now, &before}) {
    doubles += g->arrow.capacity();
    words += 2.0 * g->first.capacity();
  }
  for (const auto *values : {&distance, &drag, &drag_along, &given}) doubles += values->capacity();
  return doubles * sizeof(double) + words * sizeof(int);
}

void PairList::fit_interactions()
{
  for (auto *values : {&drag, &drag_along}) make_room(*values, now.first.size());
  make_room(given, LANES * now.first.size());
}

void PairList::restart(bool keep)
{
  if (keep) std::swap(now, before);
  else before.count = 0;
  now.count = 0;
}

void PairList::add(int i, const int *neighbors, int mask, int count, const double *const *x)
{
  const double reach = tables.cutoff * tables.cutoff;
  now.fit(static_cast<std::size_t>(now.count) + count);
  make_room(distance, now.first.size());
  const double xi = x[i][0], yi = x[i][1], zi = x[i][2];
  int n = now.count;
  for (int k = 0; k < count; ++k) {
    const int j = neighbors[k] & mask;
    const double dx = xi - x[j][0], dy = yi - x[j][1], dz = zi - x[j][2];
    const double square = dx * dx + dy * dy + dz * dz;
    // written in any case and kept if near: no branch to mispredict
    now.first[n] = i;
    now.second[n] = j;
    at(now.arrow.data(), n) = Lanes{dx, dy, dz, square};
    n += square < reach;
  }
  now.count = n;
}

void PairList::add_before(int i, const int *neighbors, int mask, int count, const double *const *x,
                          const double *motion, double dt)
{
  const double reach = tables.cutoff * tables.cutoff, to_rho = 1.0 / tables.cutoff;
  before.fit(static_cast<std::size_t>(before.count) + count);
  const double *u = motion + 6 * static_cast<std::size_t>(i) + 3;
  for (int k = 0; k < count; ++k) {
    const int j = neighbors[k] & mask;
    const double *w = motion + 6 * static_cast<std::size_t>(j) + 3;
    const double dx = x[i][0] - x[j][0] - dt * (u[0] - w[0]);
    const double dy = x[i][1] - x[j][1] - dt * (u[1] - w[1]);
    const double dz = x[i][2] - x[j][2] - dt * (u[2] - w[2]);
    const double square = dx * dx + dy * dy + dz * dz;
    if (square >= reach) continue;
    const double inverse = inverse_length(square);
    double value, by_rho;
    tables.weight(square * inverse * to_rho, value, by_rho);
    const int n = before.count++;
    before.first[n] = i;
    before.second[n] = j;
    at(before.arrow.data(), n) = Lanes{inverse * dx, inverse * dy, inverse * dz, by_rho * to_rho};
  }
}

void PairList::weigh(double *density)
{
  const int n = now.count;
  const double to_rho = 1.0 / tables.cutoff;
  double weights[CHUNK], inverse[CHUNK], slope[CHUNK];
  for (int start = 0; start < n; start += CHUNK) {
    const int count = std::min(CHUNK, n - start);
    double *arrow = now.arrow.data() + static_cast<std::size_t>(start) * LANES, *r = distance.data() + start;
#pragma omp simd
    for (int k = 0; k < count; ++k) {
      const double length = std::sqrt(arrow[LANES * k + 3]);
      inverse[k] = length > 0.0 ? 1.0 / length : 0.0;
      r[k] = length;
      double by_rho;
      tables.weight(length * to_rho, weights[k], by_rho);
      slope[k] = by_rho * to_rho;
    }
    const int *i = now.first.data() + start, *j = now.second.data() + start;
    for (int k = 0; k < count; ++k) {
      Lanes &e = at(arrow, k);
      e *= inverse[k];
      e[3] = slope[k];
      density[i[k]] += weights[k];
      density[j[k]] += weights[k];
    }
  }
}

// A^2 = s (1 - rho^2)^2 exp 2 L with L = sum_k phi_k (g_ik + g_jk), g_0 = 1; likewise B^2 and K^2.
// Of the slopes only k_B / C times them is wanted: A^2 2 M with M = sum_k phi_k (h_ik + h_jk), h = k_B / C dg/dT,
// and for K^2 the difference of the two ends.
template <int RANK> void PairList::coefficients(const Particles &particles, int start, int count)
{
  const int rank = RANK ? RANK : tables.rank, columns = rank * LANES, features = columns - LANES;
  const double to_rho = 1.0 / tables.cutoff;
  const Lanes sign = {1.0, 1.0, -1.0, 0.0};
  for (int k = 0; k < count; ++k) {
    double place;
    const double *c = tables.radial.locate(distance[start + k] * to_rho, place);
    const double *a = particles.thermal + static_cast<std::size_t>(now.first[start + k]) * 2 * features;
    const double *b = particles.thermal + static_cast<std::size_t>(now.second[start + k]) * 2 * features;
    const Lanes t = {place, place, place, place};
    const auto phi = [&](int row) {
      const double *p = c + row * LANES;
      return lanes(p) + t * (lanes(p + columns) + t * (lanes(p + 2 * columns) + t * lanes(p + 3 * columns)));
    };
    Lanes log = phi(0), ito = {};
    log += log;
    for (int row = 1; row < rank; ++row) {
      const Lanes p = phi(row);
      log += p * (at(a, row - 1) + at(b, row - 1));
      ito += p * (at(a + features, row - 1) + sign * at(b + features, row - 1));
    }
    shear[k] = log[0];
    bulk[k] = log[1];
    heat[k] = log[2];
    drag[start + k] = ito[0];
    drag_along[start + k] = ito[1];
    flow[k] = ito[2];
  }
}

/// A^2, B^2, K^2, drag and mean heat flow of a chunk.
void PairList::conduct(const Particles &particles, int start, int count)
{
  if (tables.rank == 5)
    coefficients<5>(particles, start, count);
  else
    coefficients<0>(particles, start, count);
  const double to_rho = 1.0 / tables.cutoff, by_dimension = 1.0 / tables.dimension;
  const double sa = tables.squared[0], sb = tables.squared[1], sk = tables.squared[2];
  const double *shared = particles.shared;
  const int *i = now.first.data() + start, *j = now.second.data() + start;
  double *a2 = shear.data(), *b2 = bulk.data(), *k2 = heat.data(), *q = flow.data();
  double *x = drag.data() + start, *y = drag_along.data() + start;
  const double *r = distance.data() + start;
#pragma omp simd
  for (int k = 0; k < count; ++k) {
    const double rho = r[k] * to_rho;
    double window = 1.0 - rho * rho;
    window = window > 0.0 ? window * window : 0.0;
    a2[k] = sa * window * exp_of(2.0 * a2[k]);
    b2[k] = sb * window * exp_of(2.0 * b2[k]);
    k2[k] = sk * window * exp_of(2.0 * k2[k]);
    const double bi = shared[SHARED * i[k] + BETA], bj = shared[SHARED * j[k] + BETA];
    // the drag is half the tensor of (beta_i + beta_j) A^2 + k_B (dA^2/dT_i / C_i + dA^2/dT_j / C_j)
    const double a = a2[k] * (bi + bj + 2.0 * x[k]), b = b2[k] * (bi + bj + 2.0 * y[k]);
    x[k] = 0.25 * a;
    y[k] = 0.25 * a + 0.5 * by_dimension * (b - a);
    q[k] = k2[k] * (bi - bj + 2.0 * q[k]);
  }
}

/// Random impulses of a chunk, and random beside mean heat.
void PairList::shake(const Particles &particles, const Noise &noise, int start, int count)
{
  for (int k = 0; k < count; ++k) {
    number[0][k] = particles.number[now.first[start + k]];
    number[1][k] = particles.number[now.second[start + k]];
  }
  double *const out[4] = {normals[0].data(), normals[1].data(), normals[2].data(), normals[3].data()};
  pair_normals(noise.seed, noise.step, count, number[0].data(), number[1].data(), out);
  const double scale = std::sqrt(2.0 * tables.k_B * noise.dt), by_dimension = 1.0 / tables.dimension, dt = noise.dt;
  const double flat = tables.dimension == 3 ? 1.0 : 0.0;
  const double *n0 = out[0], *n1 = out[1], *n2 = out[2], *last = out[tables.dimension];
  const double *a2 = shear.data(), *b2 = bulk.data(), *k2 = heat.data(), *q = flow.data();
  double across[CHUNK], beside[CHUNK], jump[CHUNK];
#pragma omp simd
  for (int k = 0; k < count; ++k) {
    across[k] = scale * std::sqrt(0.5 * a2[k]);
    beside[k] = scale * std::sqrt(a2[k] + by_dimension * (b2[k] - a2[k])) - across[k];
    jump[k] = dt * q[k] + scale * std::sqrt(k2[k]) * last[k];
  }
  for (int k = 0; k < count; ++k) {
    const Lanes e = at(now.arrow.data(), start + k), xi = {n0[k], n1[k], flat * n2[k], 0.0};
    Lanes &to = at(given.data(), start + k);
    to = across[k] * xi + beside[k] * sum(e * xi) * e;
    to[3] = jump[k];
  }
}

void PairList::kick(const Particles &particles, const Noise &noise, double *sums)
{
  fit_interactions();
  const double half_dt = 0.5 * noise.dt;
  const double *strength = particles.shared + STRENGTH;
  for (int start = 0; start < now.count; start += CHUNK) {
    const int count = std::min(CHUNK, now.count - start);
    conduct(particles, start, count);
    shake(particles, noise, start, count);
    for (int k = start; k < start + count; ++k) {
      const std::size_t i = now.first[k], j = now.second[k];
      const Lanes e = at(now.arrow.data(), k), along = drag_along[k] * e;
      const double f = -half_dt * e[3] * (strength[SHARED * i] + strength[SHARED * j]);
      const Lanes random = at(given.data(), k);
      Lanes diagonal = drag[k] + along * e;
      diagonal[3] = 0.0;
      const Lanes side = Lanes{along[0], along[0], along[1], 0.0} * Lanes{e[1], e[2], e[2], 0.0};
      // the reversible impulse goes along in the last lanes
      const Lanes impulse{random[0], random[1], random[2], f * e[0]};
      const Lanes more{0.0, 0.0, 0.0, f * e[1]}, most{0.0, 0.0, 0.0, f * e[2]};
      double *a = sums + 12 * i, *b = sums + 12 * j;
      at(a, 0) += impulse;
      at(b, 0) -= impulse;
      at(a, 1) += diagonal + more;
      at(b, 1) += diagonal - more;
      at(a, 2) += side + most;
      at(b, 2) += side - most;
    }
  }
}

void PairList::rub(const double *v, double *forces) const
{
  const int *first = now.first.data(), *second = now.second.data();
  const double *arrow = now.arrow.data(), *p = drag.data(), *q = drag_along.data();
  for (int k = 0; k < now.count; ++k) {
    const Lanes e = at(arrow, k), u = at(v, first[k]) - at(v, second[k]);
    const Lanes force = p[k] * u + q[k] * sum(e * u) * e;
    at(forces, first[k]) -= force;
    at(forces, second[k]) += force;
  }
}

void PairList::book(const double *v, const double *friction, double dt, double *sums) const
{
  for (int k = 0; k < before.count; ++k) {
    const int i = before.first[k], j = before.second[k];
    const Lanes e = at(before.arrow.data(), k), u = at(v, i) - at(v, j);
    const double rate = e[3] * sum(e * u);
    sums[LANES * static_cast<std::size_t>(i)] += rate;
    sums[LANES * static_cast<std::size_t>(j)] += rate;
  }
  for (int k = 0; k < now.count; ++k) {
    const int i = now.first[k], j = now.second[k];
    const Lanes e = at(now.arrow.data(), k), random = at(given.data(), k);
    const Lanes u = at(v, i) - at(v, j), w = at(friction, i) - at(friction, j);
    const double along = sum(e * u), rate = e[3] * along, passed = random[3];
    // half the work against friction and random force
    const Lanes force = (dt * drag[k]) * w + (dt * drag_along[k] * sum(e * w)) * e - random;
    const double heated = 0.5 * sum(force * u);
    at(sums, i) += Lanes{0.0, rate, heated + passed, 0.0};
    at(sums, j) += Lanes{0.0, rate, heated - passed, 0.0};
  }
}

void PairList::push(const double *shared, double *forces) const
{
  const double *strength = shared + STRENGTH;
  for (int k = 0; k < now.count; ++k) {
    const std::size_t i = now.first[k], j = now.second[k];
    const Lanes e = at(now.arrow.data(), k);
    const Lanes force = -e[3] * (strength[SHARED * i] + strength[SHARED * j]) * e;
    at(forces, now.first[k]) += force;
    at(forces, now.second[k]) -= force;
  }
}

void PairList::drift(const Particles &particles, const double *v, const double *inverse_mass, double *sums,
                     const Noise *noise, double *random_sums)
{
  fit_interactions();
  const int dimension = tables.dimension;
  for (int start = 0; start < now.count; start += CHUNK) {
    const int count = std::min(CHUNK, now.count - start);
    conduct(particles, start, count);
    if (noise) shake(particles, *noise, start, count);
    for (int c = 0; c < count; ++c) {
      const int k = start + c;
      const std::size_t i = now.first[k], j = now.second[k];
      const Lanes e = at(now.arrow.data(), k), u = at(v, now.first[k]) - at(v, now.second[k]);
      const double along = sum(e * u);
      const Lanes g = drag[k] * u + drag_along[k] * along * e;
      // G = x I + y e e
      const double x = 0.5 * shear[c], y = x + (bulk[c] - shear[c]) / dimension;
      const double created = 0.5 * tables.k_B * (dimension * x + y) * (inverse_mass[i] + inverse_mass[j]);
      const double heated = 0.5 * sum(g * u) - created;
      const double variance = 0.25 * (x * sum(u * u) + y * along * along) + heat[c];
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
      at(random_sums, now.first[k]) += Lanes{random[0], random[1], random[2], shaken + jump};
      at(random_sums, now.second[k]) += Lanes{-random[0], -random[1], -random[2], shaken - jump};
    }
  }
}

void PairList::stress(const double *v, const double *shared, double virial[6], double **by_particle) const
{
  const double *strength = shared + STRENGTH;
  for (int k = 0; k < now.count; ++k) {
    const std::size_t i = now.first[k], j = now.second[k];
    const Lanes e = at(now.arrow.data(), k), u = at(v, now.first[k]) - at(v, now.second[k]);
    const double central = -e[3] * (strength[SHARED * i] + strength[SHARED * j]) - drag_along[k] * sum(e * u);
    const Lanes force = central * e - drag[k] * u, r = distance[k] * e;
    // friction across the pair has a torque, and LAMMPS holds six numbers: those that the faces of a box with tilts xy,
    // xz and yz work against, the flux of x-momentum along y and so on
    const double part[6] = {r[0] * force[0],
                            r[1] * force[1],
                            r[2] * force[2],
                            r[1] * force[0],
                            r[2] * force[0],
                            r[2] * force[1]};
    for (int m = 0; m < 6; ++m) virial[m] += part[m];
    if (!by_particle) continue;
    for (int m = 0; m < 6; ++m) {
      by_particle[i][m] += 0.5 * part[m];
      by_particle[j][m] += 0.5 * part[m];
    }
  }
}

}    // namespace metriplectic
