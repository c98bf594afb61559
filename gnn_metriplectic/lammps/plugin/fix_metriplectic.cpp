#include "fix_metriplectic.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "group.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include "noise.h"
#include "pair_list.h"
#include "pair_metriplectic.h"
#include "tables.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;
using namespace FixConst;
using metriplectic::BETA;
using metriplectic::BY_CAPACITY;
using metriplectic::KICKED;
using metriplectic::LANES;
using metriplectic::SHARED;
using metriplectic::STRENGTH;
using metriplectic::TEMPERATURE;

namespace {

enum { VOLUME_OUT, TEMPERATURE_OUT, PRESSURE_OUT, ENERGY_OUT, CAPACITY_OUT, RATE_OUT, OUTPUTS };
constexpr const char *ENTROPY = "entropy";

/// Inverse of the symmetric matrix xx yy zz xy xz yz, in place.
void invert(double *m)
{
  const double xx = m[0], yy = m[1], zz = m[2], xy = m[3], xz = m[4], yz = m[5];
  const double a = yy * zz - yz * yz, b = xz * yz - xy * zz, c = xy * yz - xz * yy;
  const double scale = 1.0 / (xx * a + xy * b + xz * c);
  m[0] = scale * a;
  m[1] = scale * (xx * zz - xz * xz);
  m[2] = scale * (xx * yy - xy * xy);
  m[3] = scale * b;
  m[4] = scale * c;
  m[5] = scale * (xy * xz - xx * yz);
}

}    // namespace

FixMetriplectic::FixMetriplectic(LAMMPS *lmp, int narg, char **arg) :
    Fix(lmp, narg, arg), pair(nullptr), energy_conserving(true), rates_wanted(false), entropies_pending(false),
    draw_temperature(0.0), draw_seed(0), bath_temperature(0.0), bath_time(0.0), inner(1), outside(0), warned(false),
    carried(nullptr), message(nullptr), message_width(0), message_velocities(0)
{
  for (int k = 3; k < narg;) {
    const std::string key = arg[k];
    const int left = narg - k - 1;
    if (key == "integrator" && left >= 1) {
      const std::string value = arg[k + 1];
      if (value != "energy_conserving" && value != "euler_maruyama")
        error->all(FLERR, "fix metriplectic: integrator is {}; choose energy_conserving or euler_maruyama", value);
      energy_conserving = value == "energy_conserving";
      k += 2;
    } else if (key == "entropy" && left >= 3 && std::strcmp(arg[k + 1], "equilibrium") == 0) {
      entropies_pending = true;
      draw_temperature = utils::numeric(FLERR, arg[k + 2], false, lmp);
      draw_seed = utils::bnumeric(FLERR, arg[k + 3], false, lmp);
      if (!(draw_temperature > 0.0))
        error->all(FLERR, "fix metriplectic: entropy equilibrium needs a positive temperature, not {}", arg[k + 2]);
      k += 4;
    } else if (key == "thermostat" && left >= 2) {
      bath_temperature = utils::numeric(FLERR, arg[k + 1], false, lmp);
      bath_time = utils::numeric(FLERR, arg[k + 2], false, lmp);
      if (!(bath_temperature > 0.0 && bath_time > 0.0))
        error->all(FLERR, "fix metriplectic: thermostat needs a positive temperature and relaxation time");
      k += 3;
    } else if (key == "inner" && left >= 1) {
      inner = utils::inumeric(FLERR, arg[k + 1], false, lmp);
      if (inner < 1) error->all(FLERR, "fix metriplectic: inner is {}; it must be at least 1", arg[k + 1]);
      k += 2;
    } else if (key == "rates" && left >= 1) {
      rates_wanted = utils::logical(FLERR, arg[k + 1], false, lmp) != 0;
      k += 2;
    } else {
      error->all(FLERR,
                 "fix metriplectic: cannot understand '{}'; known: integrator NAME, entropy equilibrium T SEED, "
                 "thermostat T TAU, inner STEPS, rates yes|no",
                 key);
    }
  }
  if (inner > 1 && !energy_conserving)
    error->all(FLERR, "fix metriplectic: inner is {}; only the integrator energy_conserving makes inner steps", inner);
  time_integrate = 1;
  restart_global = 1;
  dynamic_group_allow = 0;
  create_attribute = 1;
  comm_forward = 7;
  comm_reverse = metriplectic::KICKED;
  maxexchange = 1;
  scalar_flag = 1;
  extscalar = 1;
  vector_flag = 1;
  size_vector = 4;
  extvector = -1;
  extlist = new int[4]{1, 0, 1, 1};
  global_freq = 1;
  peratom_flag = 1;
  size_peratom_cols = OUTPUTS;
  peratom_freq = 1;
  array_atom = nullptr;
  FixMetriplectic::grow_arrays(atom->nmax);
  for (int i = 0; i < atom->nlocal; ++i) FixMetriplectic::set_arrays(i);
  atom->add_callback(Atom::GROW);
}

FixMetriplectic::~FixMetriplectic()
{
  atom->delete_callback(id, Atom::GROW);
  memory->destroy(carried);
  memory->destroy(array_atom);
  delete[] extlist;
}

int FixMetriplectic::setmask()
{
  return INITIAL_INTEGRATE | PRE_EXCHANGE | FINAL_INTEGRATE | POST_RUN;
}

void FixMetriplectic::post_constructor()
{
  int is_double, columns;
  if (atom->find_custom(ENTROPY, is_double, columns) < 0)
    modify->add_fix(std::string("metriplectic_entropy all property/atom d_") + ENTROPY);
}

double *FixMetriplectic::entropy() const
{
  int is_double, columns;
  const int index = atom->find_custom(ENTROPY, is_double, columns);
  if (index < 0 || !is_double || columns != 0)
    error->all(FLERR, "fix metriplectic needs the entropies: a fix property/atom d_entropy, which was removed");
  return atom->dvector[index];
}

double FixMetriplectic::mass(int i) const
{
  return atom->rmass ? atom->rmass[i] : atom->mass[atom->type[i]];
}

bool FixMetriplectic::covered(int i) const
{
  return pair->covers(atom->type[i]);
}

void FixMetriplectic::init()
{
  if (modify->get_fix_by_style("^metriplectic$").size() > 1)
    error->all(FLERR, "There is more than one fix metriplectic: it moves one group and keeps all entropies");
  pair = dynamic_cast<PairMetriplectic *>(force->pair_match("metriplectic", 1));
  if (!pair) error->all(FLERR, "fix metriplectic needs one pair_style metriplectic");
  if (update->whichflag == 2) error->all(FLERR, "fix metriplectic does not minimize: use run");
  if (!utils::strmatch(update->integrate_style, "^verlet"))
    error->all(FLERR, "fix metriplectic needs run_style verlet");
  if (domain->deform_flag && !domain->deform_vremap)
    error->all(FLERR, "fix metriplectic needs fix deform with remap v, so that images move with the box");
  // see pre_exchange
  bool before = true;
  for (const auto &other : modify->get_fix_list()) {
    if (other == this) before = false;
    if (before && utils::strmatch(other->style, "^deform"))
      error->all(FLERR, "fix metriplectic must stand before fix {} of style deform in the input", other->id);
  }
  int bare = 0, foreign = 0;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (covered(i) && !(mass(i) > 0.0)) ++bare;
    if ((atom->mask[i] & groupbit) && !covered(i)) ++foreign;
  }
  int local[2] = {bare, foreign}, total[2];
  MPI_Allreduce(local, total, 2, MPI_INT, MPI_SUM, world);
  if (total[0])
    error->all(FLERR, "fix metriplectic: {} particles have no mass: use {}", total[0],
               atom->rmass ? "set group all mass M" : "mass TYPE M");
  if (total[1])
    error->all(FLERR,
               "fix metriplectic: {} particles of its group are of types without pair_style metriplectic: leave "
               "them to another group",
               total[1]);
  if (atom->mass && comm->me == 0)
    for (int type = 1; type <= atom->ntypes; ++type)
      if (pair->covers(type) && std::fabs(atom->mass[type] / pair->model().mass - 1.0) > 1e-6)
        error->warning(FLERR, "The mass of type {} is {} and that of the model {}", type, atom->mass[type],
                       pair->model().mass);
  pairs = std::make_unique<metriplectic::PairList>(pair->model());
  outside = 0;
}

// ---------------------------------------------------------------- communication

/// Values of owned particles to their ghosts; the first so many triples are velocities, which images of a sheared
/// box have their own of.
void FixMetriplectic::forward(Values &values, int width, int velocities)
{
  message = values.data();
  message_width = width;
  message_velocities = velocities;
  comm->forward_comm(this, width);
}

/// Sums of ghosts to their owners.
void FixMetriplectic::reverse(Values &values, int width)
{
  message = values.data();
  message_width = width;
  comm->reverse_comm(this, width);
}

double *FixMetriplectic::zeroed(Values &values, int width)
{
  values.assign(static_cast<std::size_t>(atom->nlocal + atom->nghost) * width, 0.0);
  return values.data();
}

int FixMetriplectic::pack_forward_comm(int n, int *list, double *buf, int pbc_flag, int *pbc)
{
  double shift[3] = {0.0, 0.0, 0.0};
  const bool shifted = pbc_flag && domain->deform_vremap && message_velocities;
  if (shifted) {
    const double *h = domain->h_rate;
    shift[0] = pbc[0] * h[0] + pbc[5] * h[5] + pbc[4] * h[4];
    shift[1] = pbc[1] * h[1] + pbc[3] * h[3];
    shift[2] = pbc[2] * h[2];
  }
  int m = 0;
  for (int k = 0; k < n; ++k) {
    const double *from = message + static_cast<std::size_t>(list[k]) * message_width;
    std::copy(from, from + message_width, buf + m);
    if (shifted && (atom->mask[list[k]] & domain->deform_groupbit))
      for (int c = 0; c < 3 * message_velocities; ++c) buf[m + c] += shift[c % 3];
    m += message_width;
  }
  return m;
}

void FixMetriplectic::unpack_forward_comm(int n, int first, double *buf)
{
  std::copy(buf, buf + static_cast<std::size_t>(n) * message_width,
            message + static_cast<std::size_t>(first) * message_width);
}

int FixMetriplectic::pack_reverse_comm(int n, int first, double *buf)
{
  const double *from = message + static_cast<std::size_t>(first) * message_width;
  std::copy(from, from + static_cast<std::size_t>(n) * message_width, buf);
  return n * message_width;
}

void FixMetriplectic::unpack_reverse_comm(int n, int *list, double *buf)
{
  int m = 0;
  for (int k = 0; k < n; ++k) {
    double *to = message + static_cast<std::size_t>(list[k]) * message_width;
    for (int c = 0; c < message_width; ++c) to[c] += buf[m++];
  }
}

// ---------------------------------------------------------------- states

/// Where particles are, ghosts included.
void FixMetriplectic::locate()
{
  const int nall = atom->nlocal + atom->nghost;
  place.resize(LANES * static_cast<std::size_t>(nall));
  for (int i = 0; i < nall; ++i)
    for (int d = 0; d < 3; ++d) place[LANES * i + d] = atom->x[i][d];
  number.resize(nall);
  for (int i = 0; i < nall; ++i) number[i] = static_cast<std::uint32_t>(atom->tag[i] - 1);
}

/// Pairs, volumes and energies of the potential at `place`.
void FixMetriplectic::find_pairs()
{
  const int nlocal = atom->nlocal;
  pairs->restart(place.data());
  double *crowded = zeroed(sums, metriplectic::CROWDED);
  const NeighList *list = pair->list;
  for (int k = 0; k < list->inum; ++k) {
    const int i = list->ilist[k];
    pairs->add(i, list->firstneigh[i], NEIGHMASK, list->numneigh[i], crowded);
  }
  pairs->finish(crowded);
  reverse(sums, metriplectic::CROWDED);
  volume.resize(nlocal);
  bound.resize(nlocal);
  for (int i = 0; i < nlocal; ++i) {
    volume[i] = 1.0 / (pair->model().weight_at_zero + sums[metriplectic::CROWDED * i]);
    bound[i] = sums[metriplectic::CROWDED * i + 1];
  }
}

/// Looks whether a state is one that the tables hold.
void FixMetriplectic::guard(int i, double s)
{
  const double v = volume[i];
  if (!std::isfinite(s) || !std::isfinite(v) || !(v > 0.0))
    error->one(FLERR, "Particle {} has entropy {} and volume {}: {}", atom->tag[i], s, v,
               starting ? "give it a finite position and entropy"
                        : "the simulation has blown up, use a smaller timestep");
  const metriplectic::EquationOfState &law = pair->model().law;
  if (law.inside(s, isochores[i].log_volume)) return;
  ++outside;
  if (pair->range == PairMetriplectic::CLAMP || (pair->range == PairMetriplectic::WARN && warned)) return;
  const std::string text = fmt::format(
      "Particle {} has entropy {:.6g} and volume {:.6g}, and the tables hold entropies from {:.6g} to {:.6g} "
      "and volumes from {:.6g} to {:.6g}: export with a larger margin, or use range warn or range clamp",
      atom->tag[i], s, v, law.entropy_range[0], law.entropy_range[1], std::exp(law.log_volume_range[0]),
      std::exp(law.log_volume_range[1]));
  if (pair->range == PairMetriplectic::ERROR) error->one(FLERR, text);
  error->warning(FLERR, text);
  warned = true;
}

/// States of particles, from entropies and new volumes.
void FixMetriplectic::update_thermo()
{
  const metriplectic::Tables &model = pair->model();
  const int nlocal = atom->nlocal;
  const double *s = entropy();
  shared.resize(static_cast<std::size_t>(nlocal + atom->nghost) * SHARED);
  energy.resize(nlocal);
  isochores.resize(nlocal);
  for (int i = 0; i < nlocal; ++i) {
    if (!covered(i)) {
      std::fill(&shared[static_cast<std::size_t>(i) * SHARED], &shared[static_cast<std::size_t>(i) * SHARED] + SHARED,
                0.0);
      energy[i] = 0.0;
      continue;
    }
    isochores[i] = metriplectic::Isochore(model.law, volume[i]);
    set_state(i, s[i], isochores[i].at(s[i]));
  }
}

/// What a particle of an entropy shares with its partners, and what it tells of itself.
void FixMetriplectic::set_state(int i, double s, const metriplectic::Thermo &state)
{
  guard(i, s);
  if (!(state.temperature > 0.0))
    error->one(FLERR, "Particle {} has entropy {:.6g}, to which no positive temperature belongs", atom->tag[i], s);
  const double k_B = pair->model().k_B;
  energy[i] = state.energy + bound[i];
  double *to = &shared[static_cast<std::size_t>(i) * SHARED];
  to[STRENGTH] = state.pressure * volume[i] * volume[i];
  to[BY_CAPACITY] = k_B / state.heat_capacity;
  to[BETA] = (1.0 - to[BY_CAPACITY]) / state.temperature;
  to[TEMPERATURE] = state.temperature;
  double *out = array_atom[i];
  out[VOLUME_OUT] = volume[i];
  out[TEMPERATURE_OUT] = k_B * state.temperature;
  out[PRESSURE_OUT] = state.pressure;
  out[ENERGY_OUT] = energy[i];
  out[CAPACITY_OUT] = state.heat_capacity / k_B;
}

/// States to the ghosts, and what friction needs of them.
void FixMetriplectic::share(bool with_friction)
{
  const metriplectic::Tables &model = pair->model();
  const int nall = atom->nlocal + atom->nghost;
  forward(shared, SHARED);
  if (!with_friction) return;
  thermal.resize(static_cast<std::size_t>(nall) * 2 * model.columns);
  for (int i = 0; i < nall; ++i) {
    const double *from = &shared[static_cast<std::size_t>(i) * SHARED];
    if (!(from[TEMPERATURE] > 0.0)) continue;
    double *value = &thermal[static_cast<std::size_t>(i) * 2 * model.columns];
    model.thermal_features(from[TEMPERATURE], from[BY_CAPACITY] / from[TEMPERATURE], value, value + model.columns);
  }
}

void FixMetriplectic::draw_entropies()
{
  const metriplectic::Tables &model = pair->model();
  double *s = entropy();
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!covered(i)) continue;
    const std::uint32_t counter[4] = {static_cast<std::uint32_t>(atom->tag[i] - 1), 0, 0, 1};
    double uniform[4];
    metriplectic::uniforms(draw_seed, counter, uniform);
    if (!model.law.draw(volume[i], draw_temperature / model.k_B, model.k_B, uniform[0], s[i]))
      error->one(FLERR, "fix metriplectic: no entropy gives the temperature {}: the model was trained elsewhere",
                 draw_temperature);
  }
  entropies_pending = false;
}

// ---------------------------------------------------------------- time steps

/// Looks whether somebody gave the entropies.
void FixMetriplectic::check_start()
{
  const double *s = entropy();
  bigint local[2] = {0, 0}, total[2];
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!covered(i)) continue;
    ++local[0];
    if (s[i] == 0.0) ++local[1];
  }
  MPI_Allreduce(local, total, 2, MPI_LMP_BIGINT, MPI_SUM, world);
  if (entropies_pending || total[1] == 0) return;
  // no particle's entropy is exactly zero by chance
  const char *const remedy = "give fix metriplectic the words entropy equilibrium T SEED, or read entropies from the "
                             "data file: fix ID all property/atom d_entropy, then read_data FILE fix ID NULL Section";
  if (total[0] == total[1]) error->all(FLERR, "All entropies are 0, as if nobody gave them: {}", remedy);
  if (comm->me == 0)
    error->warning(FLERR, "{} of {} particles have entropy 0, as if nobody gave it: {}", total[1], total[0], remedy);
}

void FixMetriplectic::setup(int)
{
  if (comm->get_comm_cutoff() < pair->model().cutoff)
    error->all(FLERR, "The communication cutoff {:.6g} is below that of the model, {:.6g}: use comm_modify cutoff",
               comm->get_comm_cutoff(), pair->model().cutoff);
  if (update->ntimestep + (update->laststep - update->firststep) > 4294967295LL)
    error->all(FLERR, "fix metriplectic numbers its noise by steps up to 2^32 - 1: use reset_timestep");
  check_start();
  starting = true;
  locate();
  find_pairs();
  if (entropies_pending) draw_entropies();
  update_thermo();
  finish_step(true);
  starting = false;
}

void FixMetriplectic::initial_integrate(int)
{
  double **x = atom->x, **v = atom->v, **f = atom->f, *s = entropy();
  if (energy_conserving) {
    verlet();
    return;
  }
  const double dt = update->dt;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!covered(i)) continue;
    // random impulse and change of entropy are those of the end of the last step
    const double *given = &impulse[static_cast<std::size_t>(i) * 4];
    s[i] += given[3];
    if (!(atom->mask[i] & groupbit)) continue;
    const double inverse = 1.0 / mass(i);
    for (int d = 0; d < 3; ++d) {
      v[i][d] += (dt * f[i][d] + given[d]) * inverse;
      x[i][d] += dt * v[i][d];
    }
    look_at_leap(i, dt);
  }
}

/// The half kick, and the drift with the kicks within it; books the work of each kick at the mean of the velocities
/// before and after, with the pairs of its forces.
void FixMetriplectic::verlet()
{
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  const double dt = update->dt, drift = dt / inner;
  double **x = atom->x, **v = atom->v, **f = atom->f;
  middle.resize(LANES * static_cast<std::size_t>(nall));
  for (int i = 0; i < nlocal; ++i)
    if (covered(i)) *carried[i] = energy[i];
  for (int passed = 0; passed < inner; ++passed) {
    const double weight = passed ? drift : 0.5 * drift;
    for (int i = 0; i < nlocal; ++i) {
      const bool moves = covered(i) && (atom->mask[i] & groupbit);
      const double inverse = 1.0 / mass(i);
      for (int d = 0; d < 3; ++d) {
        // forces of others are in f, and act at the ends of the step
        const double own = net[LANES * i + d], outer = passed ? 0.0 : 0.5 * dt * (f[i][d] - own);
        const double change = moves ? (weight * own + outer) * inverse : 0.0;
        middle[LANES * i + d] = v[i][d] + 0.5 * change;
        v[i][d] += change;
        if (moves) x[i][d] += drift * v[i][d];
      }
      if (moves) look_at_leap(i, dt);
    }
    forward(middle, LANES, 1);
    pairs->book(middle.data(), zeroed(sums, LANES));
    reverse(sums, LANES);
    for (int i = 0; i < nlocal; ++i) {
      if (!covered(i)) continue;
      const double *rate = &sums[LANES * static_cast<std::size_t>(i)];
      *carried[i] += weight * (shared[static_cast<std::size_t>(i) * SHARED + STRENGTH] * rate[0] + rate[1]);
    }
    if (passed + 1 == inner) break;
    // the neighbor list is that of the start; which pairs it holds does not matter to the balance of energy
    velocity.resize(LANES * static_cast<std::size_t>(nall));
    for (int i = 0; i < nlocal; ++i)
      for (int d = 0; d < 3; ++d) velocity[LANES * i + d] = v[i][d];
    forward(velocity, LANES, 1);
    for (std::size_t k = 0; k < place.size(); ++k) place[k] += drift * velocity[k];
    find_pairs();
    update_thermo();
    share(false);
    pairs->push(shared.data(), zeroed(net, LANES));
    reverse(net, LANES);
  }
}

/// Looks how far a particle comes in a drift of so long: LAMMPS would lose it.
void FixMetriplectic::look_at_leap(int i, double time)
{
  const double *v = atom->v[i], moved = time * std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  if (!(moved <= pair->model().cutoff))
    error->one(FLERR,
               "Particle {} moves by {:.3g} in a step, more than the cutoff, {:.3g}: the simulation has blown "
               "up, use a smaller timestep",
               atom->tag[i], moved, pair->model().cutoff);
}

/// Particles that left a sheared box come back in with the velocity of their image. LAMMPS sees to that, but not in
/// steps in which fix deform turns the cell over, which wraps particles without a look at their velocities.
void FixMetriplectic::pre_exchange()
{
  if (!domain->deform_vremap) return;
  if (domain->triclinic) domain->x2lamda(atom->nlocal);
  domain->pbc();
  if (domain->triclinic) domain->lamda2x(atom->nlocal);
}

void FixMetriplectic::final_integrate()
{
  if (domain->box_change) pair->check_box();
  locate();
  find_pairs();
  if (energy_conserving)
    step_energy_conserving();
  else
    update_thermo();
  finish_step(rates_wanted || !energy_conserving || force->pair->vflag_either);
}

/// The rest of EnergyConserving.step, from the new positions on.
void FixMetriplectic::step_energy_conserving()
{
  const metriplectic::Tables &model = pair->model();
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  const double dt = update->dt;
  double **v = atom->v, **f = atom->f;

  update_thermo();
  share(true);
  const metriplectic::Particles particles{shared.data(), thermal.data(), number.data()};
  const metriplectic::Noise noise{pair->seed, static_cast<std::uint32_t>(update->ntimestep - 1), dt};
  const double last = 0.5 * dt / inner;    // of the reversible forces
  // friction first at the velocities of the drift
  velocity.resize(LANES * static_cast<std::size_t>(nall));
  for (int i = 0; i < nlocal; ++i)
    for (int d = 0; d < 3; ++d) velocity[LANES * i + d] = v[i][d];
  forward(velocity, LANES, 1);
  pairs->kick(particles, noise, last, velocity.data(), zeroed(sums, KICKED));
  reverse(sums, KICKED);
  // f has the forces of others
  impulse.resize(3 * static_cast<std::size_t>(nlocal));
  kicked.resize(3 * static_cast<std::size_t>(nlocal));
  blocks.resize(6 * static_cast<std::size_t>(nlocal));
  net.resize(LANES * static_cast<std::size_t>(nall));
  for (int i = 0; i < nlocal; ++i) {
    const double *from = &sums[KICKED * static_cast<std::size_t>(i)];
    double *to = &blocks[6 * static_cast<std::size_t>(i)];
    for (int d = 0; d < 3; ++d) {
      kicked[3 * i + d] = from[4 * d + 3] + 0.5 * dt * f[i][d];
      impulse[3 * i + d] = kicked[3 * i + d] + from[d];
      net[LANES * i + d] = from[12 + d];
    }
    for (int d = 0; d < 3; ++d) {
      to[d] = mass(i) + 0.5 * dt * from[4 + d];
      to[3 + d] = 0.5 * dt * from[8 + d];
    }
    invert(to);
  }
  midpoint_sweeps();

  // velocity holds those of the friction; the work is done at the mean of those before the kick and after all
  middle.resize(LANES * static_cast<std::size_t>(nall));
  for (int i = 0; i < nlocal; ++i) {
    const bool moves = covered(i) && (atom->mask[i] & groupbit);
    const double inverse = 1.0 / mass(i);
    for (int d = 0; d < 3; ++d) {
      const double change = moves ? (impulse[3 * i + d] + dt * net[LANES * i + d]) * inverse : 0.0;
      middle[LANES * i + d] = v[i][d] + 0.5 * change;
      v[i][d] += change;
    }
  }
  forward(middle, LANES, 1);
  pairs->book(middle.data(), velocity.data(), dt, last, zeroed(sums, LANES));
  reverse(sums, LANES);
  const double decay = bath_time > 0.0 ? -std::expm1(-dt / bath_time) : 0.0;
  for (int i = 0; i < nlocal; ++i) {
    // from the internal energy to its place
    double &target = energy[i];
    if (!covered(i)) continue;
    const double *rate = &sums[LANES * static_cast<std::size_t>(i)];
    const double *state = &shared[static_cast<std::size_t>(i) * SHARED];
    target = *carried[i] + last * state[STRENGTH] * rate[0] + rate[1];
    if (decay > 0.0) target += decay * (bath_temperature - model.k_B * state[TEMPERATURE]) / state[BY_CAPACITY];
  }
  find_entropies();
}

/// Entropies and states of particles at the energies in `energy`, from those at the entropies of before.
void FixMetriplectic::find_entropies()
{
  constexpr int TOGETHER = 16, STEPS = 60;
  const double k_B = pair->model().k_B;
  double *s = entropy();
  for (int start = 0; start < atom->nlocal; start += TOGETHER) {
    const int stop = std::min(start + TOGETHER, atom->nlocal);
    metriplectic::Search searches[TOGETHER];
    int open[TOGETHER], count = 0;
    for (int i = start; i < stop; ++i) {
      if (!covered(i)) continue;
      const double *out = array_atom[i];
      searches[i - start] = {energy[i] - bound[i],
                             s[i],
                             {out[ENERGY_OUT] - bound[i], out[TEMPERATURE_OUT] / k_B, 0.0, out[CAPACITY_OUT] * k_B}};
      open[count++] = i;
    }
    for (int step = 0; count > 0 && step < STEPS; ++step) {
      int left = 0;
      for (int k = 0; k < count; ++k) {
        const int i = open[k];
        open[left] = i;
        left += isochores[i].advance(searches[i - start]);
      }
      count = left;
    }
    for (int i = start; i < stop; ++i) {
      if (!covered(i)) continue;
      const metriplectic::Search &search = searches[i - start];
      if (!search.found)
        error->one(FLERR,
                   "Particle {} has internal energy {:.6g} at volume {:.6g}, to which no temperature belongs: use a "
                   "smaller timestep, or train over a wider range of states",
                   atom->tag[i], search.energy, volume[i]);
      s[i] = search.entropy;
      set_state(i, s[i], search.state);
    }
  }
}

/// Block-Jacobi sweeps for the mean of the velocities after the kick and after the step, and the net friction at it.
void FixMetriplectic::midpoint_sweeps()
{
  const double half = 0.5 * update->dt;
  double **v = atom->v;
  for (int sweep = 0; sweep < pair->model().sweeps; ++sweep) {
    for (int i = 0; i < atom->nlocal; ++i) {
      if (!covered(i) || !(atom->mask[i] & groupbit)) continue;
      const double m = mass(i), *b = &blocks[6 * static_cast<std::size_t>(i)];
      double r[3];
      for (int d = 0; d < 3; ++d)
        r[d] = m * (v[i][d] - velocity[LANES * i + d]) + 0.5 * (kicked[3 * i + d] + impulse[3 * i + d]) +
               half * net[LANES * i + d];
      velocity[LANES * i] += b[0] * r[0] + b[3] * r[1] + b[4] * r[2];
      velocity[LANES * i + 1] += b[3] * r[0] + b[1] * r[1] + b[5] * r[2];
      velocity[LANES * i + 2] += b[4] * r[0] + b[5] * r[1] + b[2] * r[2];
    }
    forward(velocity, LANES, 1);
    pairs->rub(velocity.data(), zeroed(net, LANES));
    reverse(net, LANES);
  }
}

/// Forces at the end of a step, whose states are known, and with rates the friction there too.
void FixMetriplectic::finish_step(bool rates)
{
  const metriplectic::Tables &model = pair->model();
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  const double dt = update->dt;
  double **f = atom->f;
  share(rates);
  pairs->push(shared.data(), zeroed(net, LANES));
  reverse(net, LANES);
  for (int i = 0; i < nlocal; ++i)
    for (int d = 0; d < 3; ++d) f[i][d] += net[LANES * i + d];
  if (rates) {
    velocity.resize(LANES * static_cast<std::size_t>(nall));
    for (int i = 0; i < nlocal; ++i)
      for (int d = 0; d < 3; ++d) velocity[LANES * i + d] = atom->v[i][d];
    forward(velocity, LANES, 1);
    const metriplectic::Particles particles{shared.data(), thermal.data(), number.data()};
    Values &inverse = blocks;
    inverse.resize(nall);
    for (int i = 0; i < nall; ++i) inverse[i] = mass(i) > 0.0 ? 1.0 / mass(i) : 0.0;
    const metriplectic::Noise noise{pair->seed, static_cast<std::uint32_t>(update->ntimestep), dt};
    double *random = energy_conserving ? nullptr : zeroed(impulse, 4);
    pairs->drift(particles, velocity.data(), inverse.data(), zeroed(sums, 5), random ? &noise : nullptr, random);
    reverse(sums, 5);
    for (int i = 0; i < nlocal; ++i) {
      const double *state = &shared[static_cast<std::size_t>(i) * SHARED],
                   *sum = &sums[5 * static_cast<std::size_t>(i)];
      if (!(state[TEMPERATURE] > 0.0)) continue;
      array_atom[i][RATE_OUT] = (sum[3] - state[BY_CAPACITY] * sum[4] / state[TEMPERATURE]) / state[TEMPERATURE];
      if (energy_conserving) continue;
      for (int d = 0; d < 3; ++d) f[i][d] += sum[d];
    }
    if (!energy_conserving) {
      reverse(impulse, 4);
      const double decay = bath_time > 0.0 ? -std::expm1(-dt / bath_time) : 0.0;
      for (int i = 0; i < nlocal; ++i) {
        const double *state = &shared[static_cast<std::size_t>(i) * SHARED];
        double &heat = impulse[4 * i + 3];
        if (!(state[TEMPERATURE] > 0.0)) continue;
        if (decay > 0.0) heat += decay * (bath_temperature - model.k_B * state[TEMPERATURE]) / state[BY_CAPACITY];
        heat = dt * array_atom[i][RATE_OUT] + heat / state[TEMPERATURE];
      }
    }
  }
  tally(rates);
}

/// Energy and virial of this state, added to the pair style's (or its hybrid's).
void FixMetriplectic::tally(bool rates)
{
  Pair *sums_of = force->pair;
  const int nlocal = atom->nlocal;
  if (sums_of->eflag_global)
    for (int i = 0; i < nlocal; ++i) sums_of->eng_vdwl += energy[i];
  if (sums_of->eflag_atom)
    for (int i = 0; i < nlocal; ++i) sums_of->eatom[i] += energy[i];
  if (!rates || !sums_of->vflag_either) return;
  double virial[6] = {};
  pairs->stress(velocity.data(), shared.data(), virial, sums_of->vflag_atom ? sums_of->vatom : nullptr);
  if (sums_of->vflag_global)
    for (int k = 0; k < 6; ++k) sums_of->virial[k] += virial[k];
}

void FixMetriplectic::post_run()
{
  bigint total;
  MPI_Allreduce(&outside, &total, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  if (total && comm->me == 0)
    error->warning(FLERR, "{} states of particles were beyond the range of the tables", total);
}

// ---------------------------------------------------------------- outputs and storage

double FixMetriplectic::compute_scalar()
{
  return compute_vector(0);
}

/// Total entropy, mean k_B T, total internal energy, states beyond the tables in this run.
double FixMetriplectic::compute_vector(int n)
{
  const double *s = entropy();
  double local[2] = {0.0, 0.0}, total[2];
  if (n == 3) local[0] = static_cast<double>(outside);
  for (int i = 0; i < atom->nlocal && n < 3; ++i) {
    if (!pair || !covered(i)) continue;
    local[0] += n == 0 ? s[i] : array_atom[i][n == 1 ? TEMPERATURE_OUT : ENERGY_OUT];
    local[1] += 1.0;
  }
  MPI_Allreduce(local, total, 2, MPI_DOUBLE, MPI_SUM, world);
  if (n == 1) return total[1] > 0.0 ? total[0] / total[1] : 0.0;
  return total[0];
}

double FixMetriplectic::memory_usage()
{
  double bytes = pairs ? pairs->memory() : 0.0;
  for (const Values *v : {&place, &velocity, &middle, &volume, &bound, &shared, &thermal, &energy, &sums, &blocks, &net,
                          &impulse, &kicked})
    bytes += v->capacity() * sizeof(double);
  bytes += isochores.capacity() * sizeof(metriplectic::Isochore);
  return bytes + number.capacity() * sizeof(std::uint32_t) + atom->nmax * (1 + OUTPUTS) * sizeof(double);
}

void FixMetriplectic::grow_arrays(int nmax)
{
  memory->grow(carried, nmax, 1, "metriplectic:carried");
  memory->grow(array_atom, nmax, OUTPUTS, "metriplectic:array_atom");
}

void FixMetriplectic::copy_arrays(int i, int j, int)
{
  *carried[j] = *carried[i];
}

void FixMetriplectic::set_arrays(int i)
{
  *carried[i] = 0.0;
  std::fill(array_atom[i], array_atom[i] + OUTPUTS, 0.0);
}

int FixMetriplectic::pack_exchange(int i, double *buf)
{
  *buf = *carried[i];
  return 1;
}

int FixMetriplectic::unpack_exchange(int i, double *buf)
{
  *carried[i] = *buf;
  return 1;
}

/// Whether entropies were drawn already, so that a restart does not draw them anew.
void FixMetriplectic::write_restart(FILE *fp)
{
  if (comm->me != 0) return;
  const double drawn = entropies_pending ? 0.0 : 1.0;
  const int size = sizeof(double);
  std::fwrite(&size, sizeof(int), 1, fp);
  std::fwrite(&drawn, sizeof(double), 1, fp);
}

void FixMetriplectic::restart(char *buf)
{
  double drawn;
  std::memcpy(&drawn, buf, sizeof(double));
  if (drawn != 0.0) entropies_pending = false;
}
