// pair_style metriplectic SEED [range error|warn|clamp]; pair_coeff * * model.json
//
// Holds the tables, the noise's seed and the neighbour list. Its forces depend on entropies and on the
// stage of the time step, so that fix metriplectic, without which it does not run, computes them.

#ifndef LMP_PAIR_METRIPLECTIC_H
#define LMP_PAIR_METRIPLECTIC_H

#include "pair.h"

#include <cstdint>
#include <memory>
#include <string>

namespace metriplectic {
class Tables;
}

namespace LAMMPS_NS {

class PairMetriplectic : public Pair {
 public:
  enum Range { ERROR, WARN, CLAMP };

  explicit PairMetriplectic(class LAMMPS *);
  ~PairMetriplectic() override;

  void compute(int, int) override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;

  /// Whether particles of a type have this pair style.
  bool covers(int type) const { return setflag[type][type] != 0; }
  const metriplectic::Tables &model() const { return *tables; }
  /// Stops where a periodic box is below twice the cutoff.
  void check_box();

  std::uint64_t seed = 0;
  Range range = ERROR;

 private:
  void allocate();
  std::string read_everywhere(const std::string &file);

  std::unique_ptr<metriplectic::Tables> tables;
  std::string source;    // of the tables
};

}    // namespace LAMMPS_NS

#endif
