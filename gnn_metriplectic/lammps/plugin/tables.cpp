#include "tables.h"

#include "json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

using LAMMPS_NS::json;

namespace metriplectic {

namespace {

constexpr const char *FORMAT = "gnn_metriplectic tables";
constexpr int VERSION = 2;

std::string in_words(double x)
{
  char text[32];
  std::snprintf(text, sizeof(text), "%g", x);
  return text;
}

/// An object within the file, whose errors name the file and the key.
class Entry {
 public:
  Entry(const json &content, std::string file, std::string name) :
      content(content), file(std::move(file)), name(std::move(name))
  {
  }

  [[noreturn]] void fail(const std::string &key, const std::string &what) const
  {
    throw std::runtime_error(file + ": " + name + key + " " + what);
  }

  const json &get(const std::string &key) const
  {
    if (!content.contains(key)) fail(key, "is missing");
    return content[key];
  }

  Entry part(const std::string &key) const
  {
    const json &value = get(key);
    if (!value.is_object()) fail(key, "is not an object");
    return {value, file, name + key + "."};
  }

  double number(const std::string &key, bool positive) const
  {
    const json &value = get(key);
    if (!value.is_number()) fail(key, "is not a number");
    const double x = value.get<double>();
    if (!std::isfinite(x) || (positive && !(x > 0.0)))
      fail(key, "is " + in_words(x) + "; it must be a " + (positive ? "positive" : "finite") + " number");
    return x;
  }

  void interval(const std::string &key, double out[2]) const
  {
    std::vector<int> shape;
    const std::vector<double> ends = numbers(key, 1, shape);
    if (shape[0] != 2 || !(ends[0] < ends[1])) fail(key, "is not a range from less to more");
    out[0] = ends[0];
    out[1] = ends[1];
  }

  /// Nested lists of numbers of a depth, flattened, and their shape.
  std::vector<double> numbers(const std::string &key, int depth, std::vector<int> &shape) const
  {
    std::vector<double> flat;
    shape.assign(depth, -1);
    collect(get(key), key, 0, depth, shape, flat);
    return flat;
  }

  std::vector<double> table(const std::string &key, int columns, int &nodes) const
  {
    std::vector<int> shape;
    std::vector<double> flat = numbers(key, 2, shape);
    if (shape[1] != columns || shape[0] < 2 || (nodes > 0 && shape[0] != nodes))
      fail(key, "has shape " + std::to_string(shape[0]) + " x " + std::to_string(shape[1]) + "; expected " +
                    (nodes > 0 ? std::to_string(nodes) : std::string("n")) + " x " + std::to_string(columns));
    nodes = shape[0];
    return flat;
  }

 private:
  void collect(const json &value, const std::string &key, int level, int depth, std::vector<int> &shape,
               std::vector<double> &flat) const
  {
    if (level == depth) {
      if (!value.is_number()) fail(key, "holds something that is not a number");
      flat.push_back(value.get<double>());
      if (!std::isfinite(flat.back())) fail(key, "has numbers that are not finite");
      return;
    }
    if (!value.is_array()) fail(key, "is not a table of " + std::to_string(depth) + " dimensions");
    const int size = static_cast<int>(value.size());
    if (shape[level] < 0) shape[level] = size;
    if (shape[level] != size) fail(key, "has rows of different lengths");
    for (const json &row : value) collect(row, key, level + 1, depth, shape, flat);
  }

  const json &content;
  std::string file, name;
};

CubicTable read_spline(const Entry &entry)
{
  double ends[2];
  entry.interval("interval", ends);
  int nodes = 0;
  const std::vector<double> value = entry.table("value", 1, nodes);
  return {ends[0], ends[1], 1, value, entry.table("slope", 1, nodes)};
}

/// Splines of A, B and K. The file has [lane][row], of which the first so many rows go, doubled, into spare lanes.
CubicTable read_lanes(const Entry &entry, int rows, int spare, int columns)
{
  double ends[2];
  entry.interval("interval", ends);
  int nodes = 0;
  std::vector<double> parts[2];
  const char *const names[2] = {"value", "slope"};
  for (int part = 0; part < 2; ++part) {
    const std::vector<double> table = entry.table(names[part], 3 * rows, nodes);
    parts[part].assign(static_cast<std::size_t>(nodes) * columns, 0.0);
    for (int n = 0; n < nodes; ++n)
      for (int lane = 0; lane < 3; ++lane)
        for (int row = 0; row < rows; ++row) {
          const double x = table[(static_cast<std::size_t>(n) * 3 + lane) * rows + row];
          double *to = parts[part].data() + static_cast<std::size_t>(n) * columns;
          if (row < spare)
            to[LANES * lane + 3] = 2.0 * x;
          else
            to[LANES * (row - spare) + lane] = x;
        }
  }
  return {ends[0], ends[1], columns, parts[0], parts[1]};
}

// powers of t in the six functions that take values, slopes and second derivatives at 0, then at 1
constexpr double QUINTIC[6][6] = {{1.0, 0.0, 0.0, -10.0, 15.0, -6.0}, {0.0, 1.0, 0.0, -6.0, 8.0, -3.0},
                                  {0.0, 0.0, 0.5, -1.5, 1.5, -0.5},   {0.0, 0.0, 0.0, 10.0, -15.0, 6.0},
                                  {0.0, 0.0, 0.0, -4.0, 7.0, -3.0},   {0.0, 0.0, 0.0, 0.5, -1.0, 0.5}};

}    // namespace

CubicTable::CubicTable(double start, double stop, int columns, const std::vector<double> &value,
                       const std::vector<double> &slope) : start(start), stop(stop), columns(columns)
{
  const int intervals = static_cast<int>(value.size()) / columns - 1;
  const double width = (stop - start) / intervals;
  per_width = 1.0 / width;
  last = intervals;
  last_cell = intervals - 1;
  coefficients.resize(static_cast<std::size_t>(intervals) * 4 * columns);
  for (int n = 0; n < intervals; ++n)
    for (int k = 0; k < columns; ++k) {
      const std::size_t left = static_cast<std::size_t>(n) * columns + k, right = left + columns;
      const double rise = value[right] - value[left];
      const double a = width * slope[left], b = width * slope[right];
      double *c = coefficients.data() + static_cast<std::size_t>(n) * 4 * columns + k;
      c[0] = value[left];
      c[columns] = a;
      c[2 * columns] = 3.0 * rise - 2.0 * a - b;
      c[3 * columns] = a + b - 2.0 * rise;
    }
}

EquationOfState::EquationOfState(const double entropy[2], const double log_volume[2], int nodes_entropy,
                                 int nodes_volume, const std::vector<double> &nodes) :
    entropy_range{entropy[0], entropy[1]}, log_volume_range{log_volume[0], log_volume[1]},
    cells_entropy(nodes_entropy - 1), cells_volume(nodes_volume - 1)
{
  width_entropy = (entropy[1] - entropy[0]) / cells_entropy;
  width_volume = (log_volume[1] - log_volume[0]) / cells_volume;
  per_width_entropy = 1.0 / width_entropy;
  per_width_volume = 1.0 / width_volume;
  coefficients.assign(static_cast<std::size_t>(cells_entropy) * cells_volume * POWERS * WIDE, 0.0);
  const double scale_s[3] = {1.0, width_entropy, width_entropy * width_entropy};
  const double scale_x[3] = {1.0, width_volume, width_volume * width_volume};
  for (int i = 0; i < cells_entropy; ++i)
    for (int j = 0; j < cells_volume; ++j) {
      // powers of t along ln V are the rows, powers of s along S the columns
      double *c = &coefficients[(static_cast<std::size_t>(i) * cells_volume + j) * POWERS * WIDE];
      for (int a = 0; a < 6; ++a)
        for (int b = 0; b < 6; ++b) {
          const std::size_t node = static_cast<std::size_t>(i + a / 3) * nodes_volume + (j + b / 3);
          const double value = nodes[node * 9 + (a % 3) * 3 + b % 3] * scale_s[a % 3] * scale_x[b % 3];
          for (int p = 0; p < 6; ++p)
            for (int q = 0; q < 6; ++q) c[q * WIDE + p] += value * QUINTIC[a][p] * QUINTIC[b][q];
        }
    }
}

Isochore::Isochore(const EquationOfState &law, double volume) : log_volume(log_of(volume)), law(&law), volume(volume)
{
  const double clamped = std::min(std::max(log_volume, law.log_volume_range[0]), law.log_volume_range[1]);
  const double scaled = (clamped - law.log_volume_range[0]) / law.width_volume;
  column = std::min(std::max(static_cast<int>(scaled), 0), law.cells_volume - 1);
  t = scaled - column;
  beyond = log_volume - clamped;
}

namespace {

/// U and its derivatives by s, at a place in the cell.
inline void evaluate(const double *p, double s, double &u, double &u_s, double &u_ss)
{
  u = p[0] + s * (p[1] + s * (p[2] + s * (p[3] + s * (p[4] + s * p[5]))));
  u_s = p[1] + s * (2.0 * p[2] + s * (3.0 * p[3] + s * (4.0 * p[4] + s * 5.0 * p[5])));
  u_ss = 2.0 * p[2] + s * (6.0 * p[3] + s * (12.0 * p[4] + s * 20.0 * p[5]));
}

}    // namespace

void Isochore::load(int i)
{
  constexpr int POWERS = EquationOfState::POWERS;
  cell = i;
  const double *c = &law->coefficients[(static_cast<std::size_t>(i) * law->cells_volume + column) * POWERS * WIDE];
  Wide value = wide(c + (POWERS - 1) * WIDE), by_t = {};
  for (int q = POWERS - 2; q >= 0; --q) {
    by_t = by_t * t + value;
    value = value * t + wide(c + q * WIDE);
  }
  by_t *= law->per_width_volume;
  wide(slope) = by_t;
  wide(energy) = value + beyond * by_t;
}

inline Isochore::Point Isochore::along(double entropy)
{
  const double per_width = law->per_width_entropy;
  const double clamped = std::min(std::max(entropy, law->entropy_range[0]), law->entropy_range[1]);
  const double scaled = (clamped - law->entropy_range[0]) * per_width;
  const int i = std::min(std::max(static_cast<int>(scaled), 0), law->cells_entropy - 1);
  if (i != cell) load(i);
  const double s = scaled - i, step = entropy - clamped;
  double u, u_s, u_ss;
  evaluate(energy, s, u, u_s, u_ss);
  u_s *= per_width;
  u_ss *= per_width * per_width;
  return {s, step, u + step * (u_s + 0.5 * step * u_ss), u_s + step * u_ss, u_ss};
}

inline Thermo Isochore::state(const Point &p) const
{
  double by_log_volume, first, second;
  evaluate(slope, p.s, by_log_volume, first, second);
  const double step = p.step * law->per_width_entropy;
  by_log_volume += step * (first + 0.5 * step * second);
  return {p.u, p.u_s, -by_log_volume / volume, p.u_s / p.u_ss};
}

Thermo Isochore::at(double entropy)
{
  return state(along(entropy));
}

bool Isochore::advance(Search &search)
{
  constexpr double tolerance = 4.0 * 2.220446049250313e-16;
  const Thermo known = search.state;
  // Newton's step in units of the heat capacity; the curvature of U makes it Halley's
  const double missing = search.energy - known.energy;
  const double step = std::min(std::max(missing / (known.temperature * known.heat_capacity), -1.0), 4.0);
  search.entropy += known.heat_capacity * step / (1.0 + 0.5 * step);
  const Point point = along(search.entropy);
  const double error = std::fabs(search.energy - point.u), size = std::fabs(search.energy) + std::fabs(point.u);
  // at round-off, or no longer improving just above it
  search.found =
      error <= tolerance * size || (search.error >= 0.0 && error < 1e3 * tolerance * size && error >= search.error);
  search.error = error;
  search.state = search.found ? state(point) : Thermo{point.u, point.u_s, 0.0, point.u_s / point.u_ss};
  return !search.found && std::isfinite(search.entropy);
}

bool EquationOfState::inside(double entropy, double log_volume) const
{
  const double room_s = 1e-12 * (entropy_range[1] - entropy_range[0]);
  const double room_x = 1e-12 * (log_volume_range[1] - log_volume_range[0]);
  return entropy >= entropy_range[0] - room_s && entropy <= entropy_range[1] + room_s &&
         log_volume >= log_volume_range[0] - room_x && log_volume <= log_volume_range[1] + room_x;
}

bool EquationOfState::draw(double volume, double temperature, double k_B, double uniform, double &entropy) const
{
  Isochore isochore(*this, volume);
  double mode = 0.5 * (entropy_range[0] + entropy_range[1]);
  Thermo known;
  for (int iteration = 0;; ++iteration) {
    known = isochore.at(mode);
    if (!(known.temperature > 0.0) || iteration == 100) return false;
    const double step = std::log(temperature / known.temperature);
    mode += known.heat_capacity * std::min(std::max(step, -2.0), 2.0);
    if (std::fabs(step) < 1e-6) break;
  }
  // the distribution function on a grid, inverted linearly
  constexpr int POINTS = 801;
  const double spread = std::sqrt(k_B * known.heat_capacity), h = 16.0 * spread / (POINTS - 1);
  const double start = mode - 8.0 * spread, highest = mode - known.energy / temperature;
  double total[POINTS], density = 0.0;
  for (int k = 0; k < POINTS; ++k) {
    const double s = start + k * h, last = density;
    density = std::exp((s - isochore.at(s).energy / temperature - highest) / k_B);
    total[k] = k == 0 ? 0.0 : total[k - 1] + 0.5 * (last + density);
  }
  const double target = uniform * total[POINTS - 1];
  const int right = std::max(1, static_cast<int>(std::lower_bound(total, total + POINTS - 1, target) - total));
  entropy = start + h * (right - 1 + (target - total[right - 1]) / (total[right] - total[right - 1]));
  return true;
}

Tables::Tables(const std::string &text, const std::string &file)
{
  const json content = json::parse(text, nullptr, false);
  if (content.is_discarded()) throw std::runtime_error(file + " is not JSON (cut short, or another file)");
  if (!content.is_object() || !content.contains("format") || content["format"] != FORMAT)
    throw std::runtime_error(file + " is not a file of tables: its format is not '" + FORMAT + "'");
  const Entry entry(content, file, "");
  if (entry.number("version", false) > VERSION)
    throw std::runtime_error(file + " has version " + in_words(entry.number("version", false)) +
                             " and this plugin reads up to " + std::to_string(VERSION) +
                             ": update gnn-metriplectic and build the plugin again");
  if (content.contains("solvent"))
    entry.fail("solvent", "is in the model, and this plugin has none: run the model in Python with gnnm-simulate");
  dimension = static_cast<int>(entry.number("dimension", true));
  if (dimension != 2 && dimension != 3)
    entry.fail("dimension", "is " + std::to_string(dimension) + "; it must be 2 or 3");
  cutoff = entry.number("cutoff", true);
  dt = entry.number("dt", true);
  mass = entry.number("mass", true);
  k_B = entry.number("k_B", true);
  sweeps = static_cast<int>(entry.part("integrator").number("sweeps", true));
  kernel = read_spline(entry.part("kernel"));
  const std::vector<double> nothing(2, 0.0);
  potential =
      content.contains("potential") ? read_spline(entry.part("potential")) : CubicTable(0.0, 1.0, 1, nothing, nothing);
  double unused;
  weight(0.0, weight_at_zero, unused);

  const Entry state = entry.part("equation_of_state");
  double entropy[2], log_volume[2];
  state.interval("entropy", entropy);
  state.interval("log_volume", log_volume);
  std::vector<int> shape;
  const std::vector<double> nodes = state.numbers("nodes", 3, shape);
  if (shape[0] < 2 || shape[1] < 2 || shape[2] != 9) state.fail("nodes", "is not a table of n x n x 9 numbers");
  law = EquationOfState(entropy, log_volume, shape[0], shape[1], nodes);

  const Entry friction = entry.part("friction");
  const int rank = static_cast<int>(friction.number("rank", true));
  if (rank < 2) friction.fail("rank", "is " + std::to_string(rank) + "; it must be at least 2");
  const std::vector<double> scales = friction.numbers("squared", 1, shape);
  if (shape[0] != 3) friction.fail("squared", "must hold the three scales of A, B and K");
  std::fill(squared, squared + LANES, 0.0);
  for (int lane = 0; lane < 3; ++lane) {
    if (!(scales[lane] > 0.0)) friction.fail("squared", "must be positive");
    squared[lane] = scales[lane];
  }
  // at least three rows, whose spare lanes hold phi_0
  columns = std::max(2, rank / 2) * WIDE;
  radial = read_lanes(friction.part("radial"), rank, 1, columns);
  thermal = read_lanes(friction.part("thermal"), rank - 1, 0, columns);
}

void Tables::thermal_features(double temperature, double multiple, double *value, double *slope) const
{
  const double x = log_of(temperature);
  const bool inside = x >= thermal.start && x <= thermal.stop;
  double t;
  const double *c = thermal.locate(x, t);
  const double scale = inside ? multiple * thermal.per_width : 0.0;
  for (int k = 0; k < columns; k += WIDE) {
    const Wide c1 = wide(c + columns + k), c2 = wide(c + 2 * columns + k), c3 = wide(c + 3 * columns + k);
    wide(value + k) = wide(c + k) + t * (c1 + t * (c2 + t * c3));
    wide(slope + k) = scale * (c1 + t * (2.0 * c2 + 3.0 * t * c3));
  }
}

}    // namespace metriplectic
