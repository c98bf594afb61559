// Counter-based normal numbers of pairs: those of gnn_metriplectic/geometry/noise.py.
//
// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011),
// keyed by the seed and counted by (smaller tag, larger tag, step), then Box and Muller.

#ifndef METRIPLECTIC_NOISE_H
#define METRIPLECTIC_NOISE_H

#include <cstdint>

namespace metriplectic {

/// Four uniform numbers in (0, 1) of one counter.
void uniforms(std::uint64_t seed, const std::uint32_t counter[4], double out[4]);

/// Four standard normal numbers for each of n pairs of particles numbered from 0, antisymmetric in the pair.
void pair_normals(std::uint64_t seed, std::uint32_t step, int n, const std::uint32_t *first,
                  const std::uint32_t *second, double *const normals[4]);

}    // namespace metriplectic

#endif
