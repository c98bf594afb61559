// The interacting pairs of a configuration and the sums over them, free of LAMMPS.
//
// Vectors of particles and pairs have four numbers, which are a register: three components, and one to spare or for a
// number that goes with them. What only the computation of a pair needs lives in buffers of CHUNK pairs, which stay
// in the cache. Sums go to both ends; those of ghosts are added to their owners by the caller.

#ifndef METRIPLECTIC_PAIR_LIST_H
#define METRIPLECTIC_PAIR_LIST_H

#include "tables.h"

#include <cstdint>
#include <vector>

namespace metriplectic {

/// What the ends of a pair tell each other, 4 numbers a particle: P V^2, beta = (1 - k_B / C) / T, T, k_B / C.
enum { STRENGTH, BETA, TEMPERATURE, BY_CAPACITY, SHARED };

/// What the pairs need of each particle, ghosts included.
struct Particles {
  const double *shared;           // see above
  const double *thermal;          // g_k, then (k_B / C) dg_k/dT, [rank - 1][LANES] each
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

  /// Starts anew. Where particles kept their places in the arrays since, the pairs so far become those before the step.
  void restart(bool keep);
  /// Adds the neighbours (less the bits beyond the mask) of particle i that are within the cutoff.
  void add(int i, const int *neighbors, int mask, int count, const double *const *x);
  /// Adds those that were within the cutoff before the step. motion: velocities, then those at which positions changed
  /// over dt, 6 numbers a particle.
  void add_before(int i, const int *neighbors, int mask, int count, const double *const *x, const double *motion,
                  double dt);
  double memory() const;

  /// Distances, directions, W' of all pairs; adds W to both ends' density.
  void weigh(double *density);

  /// Friction, random impulses and heats of a step, kept for `rub` and `book`. Adds 12 numbers a particle: the random
  /// impulse in 0 1 2, dt/2 times the reversible force in 3 7 11, the drag matrix in 4 5 6 (xx yy zz) and 8 9 10 (xy xz yz).
  void kick(const Particles &particles, const Noise &noise, double *sums);
  /// Adds the friction forces at velocities v; the fourth number is nothing.
  void rub(const double *v, double *forces) const;
  /// Adds the rates W' e.v before and after the step, and the heats, of the work at velocities v; friction: the
  /// velocities at which its force was taken. The fourth number is nothing.
  void book(const double *v, const double *friction, double dt, double *sums) const;

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

  /// Pairs of a configuration.
  struct Geometry {
    int count = 0;
    std::vector<int> first, second;
    std::vector<double> arrow;    // e_ij, dW/dr
    void fit(std::size_t size);
  };

  template <int RANK> void coefficients(const Particles &particles, int start, int count);
  void conduct(const Particles &particles, int start, int count);
  void fit_interactions();
  void shake(const Particles &particles, const Noise &noise, int start, int count);

  const Tables &tables;
  Geometry now, before;
  std::vector<double> distance;
  std::vector<double> drag, drag_along;    // F = -(drag + drag_along e e) v
  std::vector<double> given;               // random impulse on the first, all heat into it from the second
  // of a chunk
  std::vector<double> shear, bulk, heat, flow, normals[4];
  std::vector<std::uint32_t> number[2];
};

}    // namespace metriplectic

#endif
