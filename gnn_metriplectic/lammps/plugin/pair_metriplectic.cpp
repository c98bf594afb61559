#include "pair_metriplectic.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include "tables.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

using namespace LAMMPS_NS;

PairMetriplectic::PairMetriplectic(LAMMPS *lmp) : Pair(lmp)
{
  single_enable = 0;
  restartinfo = 0;
  manybody_flag = 1;
  one_coeff = 0;
  no_virial_fdotr_compute = 1;
}

PairMetriplectic::~PairMetriplectic()
{
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairMetriplectic::allocate()
{
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) setflag[i][j] = 0;
  allocated = 1;
}

void PairMetriplectic::compute(int eflag, int vflag)
{
  // the fix adds to these once it knows the state at the end of the step
  ev_init(eflag, vflag);
}

void PairMetriplectic::settings(int narg, char **arg)
{
  if (narg != 1 && narg != 3)
    error->all(FLERR, "pair_style metriplectic takes a seed and, if wanted, range error|warn|clamp");
  char *end = nullptr;
  seed = std::strtoull(arg[0], &end, 10);
  if (*end != '\0' || arg[0][0] == '-' || end == arg[0])
    error->all(FLERR, "pair_style metriplectic: the seed is {}; it must be a whole number from 0 to 2^64 - 1", arg[0]);
  range = ERROR;
  if (narg == 1) return;
  const std::string name = arg[1], value = arg[2];
  if (name != "range") error->all(FLERR, "pair_style metriplectic: unknown keyword {}; known: range", name);
  if (value == "error")
    range = ERROR;
  else if (value == "warn")
    range = WARN;
  else if (value == "clamp")
    range = CLAMP;
  else
    error->all(FLERR, "pair_style metriplectic: range is {}; choose error, warn or clamp", value);
}

void PairMetriplectic::coeff(int narg, char **arg)
{
  if (narg != 3) error->all(FLERR, "pair_coeff of pair_style metriplectic takes two types and a model file");
  if (!allocated) allocate();
  int ilo, ihi, jlo, jhi;
  utils::bounds(FLERR, arg[0], 1, atom->ntypes, ilo, ihi, error);
  utils::bounds(FLERR, arg[1], 1, atom->ntypes, jlo, jhi, error);
  const std::string file = arg[2];
  if (tables && file != source)
    error->all(FLERR, "pair_style metriplectic has one model for all its types; {} and {} were given", source, file);
  if (!tables) {
    try {
      tables = std::make_unique<metriplectic::Tables>(read_everywhere(file), file);
    } catch (const std::runtime_error &problem) {
      error->all(FLERR, "pair_style metriplectic: {}", problem.what());
    }
    source = file;
  }
  int count = 0;
  for (int i = ilo; i <= ihi; ++i)
    for (int j = std::max(jlo, i); j <= jhi; ++j) {
      setflag[i][j] = 1;
      ++count;
    }
  if (count == 0) error->all(FLERR, "pair_coeff: no pair of types is meant by {} {}", arg[0], arg[1]);
}

/// The text of a file, read by one rank.
std::string PairMetriplectic::read_everywhere(const std::string &file)
{
  std::string text;
  bigint size = -1;
  if (comm->me == 0) {
    if (FILE *handle = std::fopen(file.c_str(), "rb")) {
      char buffer[65536];
      std::size_t count;
      while ((count = std::fread(buffer, 1, sizeof(buffer), handle)) > 0) text.append(buffer, count);
      std::fclose(handle);
      size = static_cast<bigint>(text.size());
    }
  }
  MPI_Bcast(&size, 1, MPI_LMP_BIGINT, 0, world);
  if (size < 0) throw std::runtime_error("there is no model file " + file + ": gnnm-export writes one");
  text.resize(size);
  MPI_Bcast(&text[0], static_cast<int>(size), MPI_CHAR, 0, world);
  return text;
}

void PairMetriplectic::init_style()
{
  if (modify->get_fix_by_style("^metriplectic$").empty())
    error->all(FLERR, "pair_style metriplectic needs its time step: add fix 1 all metriplectic");
  if (!force->newton_pair) error->all(FLERR, "pair_style metriplectic needs newton on (or newton on off)");
  if (force->ftm2v != 1.0 || force->mvv2e != 1.0)
    error->all(FLERR, "pair_style metriplectic needs units lj, as a model file has consistent units of its own");
  if (!atom->tag_enable) error->all(FLERR, "pair_style metriplectic needs atom IDs, which number its noise");
  bigint highest = 0, highest_of_all;
  for (int i = 0; i < atom->nlocal; ++i) highest = std::max<bigint>(highest, atom->tag[i]);
  MPI_Allreduce(&highest, &highest_of_all, 1, MPI_LMP_BIGINT, MPI_MAX, world);
  if (highest_of_all > 4294967296LL)
    error->all(FLERR, "pair_style metriplectic numbers its noise by atom IDs up to 2^32: use reset_atoms id");
  if (atom->tag_consecutive() == 0 && comm->me == 0)
    error->warning(FLERR, "Atom IDs are not consecutive: gnnm-simulate numbers particles 1 to N");
  const metriplectic::Tables &m = *tables;
  if (m.dimension != domain->dimension)
    error->all(FLERR, "{} has dimension {} and the simulation {}: set dimension {}", source, m.dimension,
               domain->dimension, m.dimension);
  if (std::fabs(update->dt / m.dt - 1.0) > 1e-9 && comm->me == 0)
    error->warning(FLERR, "The timestep is {} and {} describes steps of {}", update->dt, source, m.dt);
  check_box();
  Pair::init_style();
}

/// The bound of gnn_metriplectic.Box.check_cutoff: a particle must not see two images of another.
void PairMetriplectic::check_box()
{
  const double *h = domain->h_inv;
  // a sheared box comes to lean by half its length
  const double lean = domain->deform_vremap && domain->h_rate[5] != 0.0 ? 0.5 * domain->xprd * h[0] * h[1] : h[5];
  // rows of the inverse lattice are the normals of the faces
  const double normal[3] = {std::sqrt(h[0] * h[0] + lean * lean + h[4] * h[4]), std::sqrt(h[1] * h[1] + h[3] * h[3]),
                            std::fabs(h[2])};
  for (int axis = 0; axis < domain->dimension; ++axis)
    if (domain->periodicity[axis] && tables->cutoff > 0.5 / normal[axis])
      error->all(FLERR,
                 "The cutoff {:.6g} of {} is over half the box ({:.6g} between opposite faces): use a larger box",
                 tables->cutoff, source, 1.0 / normal[axis]);
}

double PairMetriplectic::init_one(int i, int j)
{
  if (setflag[i][i] == 0 || setflag[j][j] == 0)
    error->all(FLERR, "pair_style metriplectic: types {} and {} lack coefficients: use pair_coeff * * model.json", i,
               j);
  return tables->cutoff;
}
