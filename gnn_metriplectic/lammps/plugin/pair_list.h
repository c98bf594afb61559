// The interacting pairs of a configuration and the sums over them, free of LAMMPS.
//
// Vectors of particles have four numbers, which are a register: three components, and one to spare or for a number that
// goes with them. Memory is what limits the rate, so that of a pair as little as possible is kept: no vector e_ij, as
// r_i - r_j is at hand, and its length goes into what multiplies it. What only the computation of a pair needs lives
// in buffers of CHUNK pairs, which stay in the cache. Sums go to both ends; those of ghosts are added to their owners
// by the caller.

#ifndef METRIPLECTIC_PAIR_LIST_H
#define METRIPLECTIC_PAIR_LIST_H

#include "aligned.h"
#include "tables.h"

#include <cstdint>

namespace metriplectic {

/// What the ends of a pair tell each other, 4 numbers a particle: P V^2, beta = (1 - k_B / C) / T, T, k_B / C.
enum { STRENGTH, BETA, TEMPERATURE, BY_CAPACITY, SHARED };

/// Numbers a particle of `PairList::add`, and of `PairList::kick`.
constexpr int CROWDED = 2, KICKED = 16;

/// What the pairs need of each particle, ghosts included.
struct Particles {
  const double *shared;           // see above
  const double *thermal;          // g_k, then (k_B / C) dg_k/dT, Tables::columns each
  const std::uint32_t *number;    // tag - 1
};

/// The random numbers of a step.
struct Noise {
  std::uint64_t seed;
  std::uint32_t step;
  double dt;
};

class PairList {
 public:
  explicit PairList(const Tables &tables);

  /// Starts anew, with particles at places (LANES numbers each) that stay until the next start.
  void restart(const double *place);
  /// Adds the neighbours (less the bits beyond the mask) of particle i that are within the cutoff, and to the CROWDED
  /// sums of both ends W and half of phi of pairs: of all pairs only after `finish`, as they are taken some at a time,
  /// while they are in the cache.
  void add(int i, const int *neighbors, int mask, int count, double *sums);
  void finish(double *sums) { weigh(size, sums); }
  double memory() const;

  /// Friction, random impulses and heats of a step, kept for `rub` and `book`. Adds KICKED numbers a particle: the
  /// random impulse in 0 1 2, the reversible force times a time in 3 7 11, the drag matrix in 4 5 6 (xx yy zz) and 8 9
  /// 10 (xy xz yz), the friction force at velocities v in 12 13 14.
  void kick(const Particles &particles, const Noise &noise, double time, const double *v, double *sums);
  /// Adds the friction forces at velocities v; the fourth number is nothing.
  void rub(const double *v, double *forces) const;
  /// Adds at velocities v the rate W' e.v, and the work a time of the potential: two numbers of LANES.
  void book(const double *v, double *sums) const;
  /// Adds the rate W' e.v, and the works of the potential in a time, of friction and noise in dt, with the heats: two
  /// numbers of LANES. At velocities v; friction: those at which its force was taken.
  void book(const double *v, const double *friction, double dt, double time, double *sums) const;

  /// Adds the reversible forces; the fourth number is nothing.
  void push(const double *shared, double *forces) const;
  /// Friction at velocities v, kept for `stress`. Adds the mean friction force, the rate of energy and the variance of
  /// energy over 2 k_B, all by M grad S + k_B div M: 5 numbers a particle. With noise, adds the random impulses and the
  /// heat that they leave: 4 numbers a particle.
  void drift(const Particles &particles, const double *v, const double *inverse_mass, double *sums, const Noise *noise,
             double *random_sums);
  /// Adds r_ij (x) of the reversible and mean friction forces, xx yy zz xy xz yz, and half of it to either end
  /// (where it is not null).
  void stress(const double *v, const double *shared, double virial[6], double **by_particle) const;

 private:
  static constexpr int CHUNK = 512;

  void fit(std::size_t room);
  /// Distances, W' and phi' of pairs up to the given one, from where it stopped last; adds to both ends as `add` says.
  void weigh(int stop, double *sums);
  template <int BLOCKS> void coefficients(const Particles &particles, int start, int count);
  void conduct(const Particles &particles, int start, int count);
  void fit_interactions();
  void shake(const Particles &particles, const Noise &noise, int start, int count);

  const Tables &tables;
  const double *place = nullptr;
  int size = 0, weighed = 0;
  Array<int> first, second;
  Array<double> distance, slope, tension;    // W' / r and phi' / r
  Array<double> drag, drag_along;            // F = -(drag + drag_along r r) v
  Array<double> given;                       // random impulse on the first, all heat into it from the second
  // of a chunk
  Array<double> inverse_square, shear, bulk, heat, flow, normals[4];
  Array<std::uint32_t> number[2];
};

}    // namespace metriplectic

#endif
