// fix ID group metriplectic [integrator energy_conserving|euler_maruyama] [entropy equilibrium T seed]
//                           [thermostat T tau] [inner STEPS] [rates yes|no]
//
// The time step of gnn_metriplectic/dynamics/integrators.py. The group is what moves; entropy changes in
// all particles that pair_style metriplectic covers.

#ifndef LMP_FIX_METRIPLECTIC_H
#define LMP_FIX_METRIPLECTIC_H

#include "fix.h"

#include "aligned.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace metriplectic {
class Isochore;
class PairList;
struct Thermo;
}    // namespace metriplectic

namespace LAMMPS_NS {

class FixMetriplectic : public Fix {
 public:
  FixMetriplectic(class LAMMPS *, int, char **);
  ~FixMetriplectic() override;

  int setmask() override;
  void post_constructor() override;
  void init() override;
  void setup(int) override;
  void initial_integrate(int) override;
  void pre_exchange() override;
  void final_integrate() override;
  void post_run() override;

  double compute_scalar() override;
  double compute_vector(int) override;
  double memory_usage() override;

  void grow_arrays(int) override;
  void copy_arrays(int, int, int) override;
  void set_arrays(int) override;
  int pack_exchange(int, double *) override;
  int unpack_exchange(int, double *) override;
  void write_restart(FILE *) override;
  void restart(char *) override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 private:
  using Values = metriplectic::Array<double>;

  double *entropy() const;
  double mass(int i) const;
  bool covered(int i) const;

  void forward(Values &values, int width, int velocities = 0);
  void reverse(Values &values, int width);
  double *zeroed(Values &values, int width);

  void locate();
  void find_pairs();
  void verlet();
  void look_at_leap(int i, double time);
  void check_start();
  void draw_entropies();
  void update_thermo();
  void set_state(int i, double s, const metriplectic::Thermo &state);
  void share(bool with_friction);
  void guard(int i, double entropy);
  void step_energy_conserving();
  void midpoint_sweeps();
  void find_entropies();
  void finish_step(bool rates);
  void tally(bool rates);

  class PairMetriplectic *pair;
  std::unique_ptr<metriplectic::PairList> pairs;

  bool energy_conserving, rates_wanted, entropies_pending;
  double draw_temperature;
  std::uint64_t draw_seed;
  double bath_temperature, bath_time;    // k_B T; no bath where the time is zero
  int inner;                             // steps of Verlet in a step
  bigint outside;                        // states beyond the tables on this rank
  bool warned, starting = false;

  double **carried;    // internal energy so far in the step: per particle, migrating

  // by particle, ghosts included where a pair needs both ends
  Values place, velocity, middle, volume, bound, shared, thermal, energy, sums, blocks, net, impulse, kicked;
  std::vector<std::uint32_t> number;
  std::vector<metriplectic::Isochore> isochores;    // of owned particles, at their volumes

  double *message;    // what is communicated, so many numbers a particle, the first of them velocities
  int message_width, message_velocities;
};

}    // namespace LAMMPS_NS

#endif
