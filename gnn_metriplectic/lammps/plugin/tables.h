// A model as tables: the content of model.json (gnn_metriplectic/models/table_file.py), ready to evaluate.
//
// Splines are held as polynomials of each interval, all the columns of an interval side by side. A, B and K and a spare
// one fill the LANES of a register.

#ifndef METRIPLECTIC_TABLES_H
#define METRIPLECTIC_TABLES_H

#include "aligned.h"
#include "vector_math.h"

#include <string>
#include <vector>

namespace metriplectic {

/// Cubic polynomials on a uniform grid, several columns at once.
class CubicTable {
 public:
  CubicTable() = default;
  /// Hermite interpolation of values and slopes at the nodes, [nodes * columns] each.
  CubicTable(double start, double stop, int columns, const std::vector<double> &value,
             const std::vector<double> &slope);

  /// The four coefficients of the interval of x, each a row of columns, and the place in it from 0 to 1.
  const double *locate(double x, double &t) const
  {
    double scaled = (x - start) * per_width;
    scaled = scaled > 0.0 ? scaled : 0.0;
    int cell = static_cast<int>(scaled < last ? scaled : last);
    cell = cell < last_cell ? cell : last_cell;
    t = (scaled < last ? scaled : last) - cell;
    return coefficients.data() + static_cast<std::size_t>(cell) * 4 * columns;
  }

  double start = 0.0, stop = 1.0;
  double per_width = 1.0;    // intervals per unit of x
  int columns = 1;

 private:
  double last = 1.0;
  int last_cell = 0;
  Array<double> coefficients;
};

/// State of a particle.
struct Thermo {
  double energy, temperature, pressure, heat_capacity;
};

/// S with U(S) = energy, from an entropy and its state on.
struct Search {
  double energy, entropy;
  Thermo state;           // all of it when found, pressure only then
  double error = -1.0;    // of the last step
  bool found = false;
};

/// U(S, ln V) on the rectangle of the tables, and its continuation: quadratic in S, linear in ln V.
class EquationOfState {
 public:
  EquationOfState() = default;
  EquationOfState(const double entropy[2], const double log_volume[2], int nodes_entropy, int nodes_volume,
                  const std::vector<double> &nodes);

  bool inside(double entropy, double log_volume) const;

  /// S drawn from p(S) ~ exp[(S - U(S, V) / T) / k_B] with a uniform number; false where no S has the temperature T.
  bool draw(double volume, double temperature, double k_B, double uniform, double &entropy) const;

  double entropy_range[2] = {0.0, 1.0}, log_volume_range[2] = {0.0, 1.0};

 private:
  friend class Isochore;
  static constexpr int POWERS = 6;    // of s and t in a cell, [POWERS][WIDE]
  int cells_entropy = 0, cells_volume = 0;
  double width_entropy = 1.0, width_volume = 1.0, per_width_entropy = 1.0, per_width_volume = 1.0;
  Array<double> coefficients;
};

/// U along S at one volume. Beyond the rectangle U goes on from its nearest point.
class Isochore {
 public:
  Isochore() = default;
  Isochore(const EquationOfState &law, double volume);

  Thermo at(double entropy);
  /// A step of Halley's method towards U(S) = energy; true while there are more to come. Taken in turn for several
  /// particles, as each step waits for the last.
  bool advance(Search &search);

  double log_volume = 0.0;

 private:
  /// U along S, and the place of an entropy: in the cell, and beyond the rectangle.
  struct Point {
    double s, step, u, u_s, u_ss;
  };
  Point along(double entropy);
  Thermo state(const Point &point) const;
  void load(int cell);

  const EquationOfState *law = nullptr;
  int column = 0, cell = -1;    // along ln V and S
  double volume = 1.0, t = 0.0, beyond = 0.0;
  // powers of s of U and of dU/d ln V in the cell
  double energy[WIDE], slope[WIDE];
};

class Tables {
 public:
  /// From the text of a file; throws std::runtime_error with a sentence that names the file and the key.
  Tables(const std::string &text, const std::string &file);

  /// W and dW/drho at rho = r / cutoff.
  void weight(double rho, double &value, double &slope) const
  {
    double t;
    const double *c = kernel.locate(rho, t);
    value = c[0] + t * (c[1] + t * (c[2] + t * c[3]));
    slope = kernel.per_width * (c[1] + t * (2.0 * c[2] + 3.0 * t * c[3]));
  }

  /// phi and dphi/drho of a pair, zero without a pair potential.
  void bond(double rho, double &value, double &slope) const
  {
    double t;
    const double *c = potential.locate(rho, t);
    value = c[0] + t * (c[1] + t * (c[2] + t * c[3]));
    slope = potential.per_width * (c[1] + t * (2.0 * c[2] + 3.0 * t * c[3]));
  }

  /// g_k of A, B and K and a multiple of dg_k/d ln T, `columns` each.
  void thermal_features(double temperature, double multiple, double *value, double *slope) const;

  int dimension, sweeps;
  int columns;    // of `radial` and `thermal`
  double cutoff, dt, mass, k_B;
  double weight_at_zero;
  double squared[LANES];    // scales of A^2, B^2, K^2
  CubicTable kernel;        // W
  CubicTable potential;     // phi
  // [k - 1][LANES] for k from 1 to rank - 1, and rows of zeros up to whole multiples of WIDE
  CubicTable radial;     // phi_k; 2 phi_0 of A, B and K in the spare lanes of the first three rows
  CubicTable thermal;    // g_k, in ln T
  EquationOfState law;
};

}    // namespace metriplectic

#endif
