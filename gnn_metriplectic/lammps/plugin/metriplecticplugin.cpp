// Registration with plugin load. The layout of lammpsplugin_t is that of LAMMPS' Developer_plugins page; it is
// declared here because packaged LAMMPS comes without the header.

#include "lammps.h"

#include "fix_metriplectic.h"
#include "pair_metriplectic.h"

using namespace LAMMPS_NS;

#ifndef METRIPLECTIC_LAMMPS_VERSION
#error "METRIPLECTIC_LAMMPS_VERSION must be LAMMPS' version in quotes, such as \"22 Jul 2025\""
#endif

extern "C" {

using lammpsplugin_factory1 = void *(LAMMPS *);
using lammpsplugin_factory2 = void *(LAMMPS *, int, char **);

struct lammpsplugin_t {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;
};

using lammpsplugin_regfunc = void (*)(lammpsplugin_t *, void *);

void lammpsplugin_init(void *lmp, void *handle, void *regfunc);
}

static void *make_pair(LAMMPS *lmp)
{
  return new PairMetriplectic(lmp);
}

static void *make_fix(LAMMPS *lmp, int narg, char **arg)
{
  return new FixMetriplectic(lmp, narg, arg);
}

void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  lammpsplugin_t plugin;
  plugin.version = METRIPLECTIC_LAMMPS_VERSION;
  plugin.author = "gnn-metriplectic";
  plugin.handle = handle;
  const auto enrol = reinterpret_cast<lammpsplugin_regfunc>(regfunc);

  plugin.style = "pair";
  plugin.name = "metriplectic";
  plugin.info = "metriplectic particle dynamics from tables";
  plugin.creator.v1 = make_pair;
  enrol(&plugin, lmp);

  plugin.style = "fix";
  plugin.name = "metriplectic";
  plugin.info = "time step of metriplectic particle dynamics";
  plugin.creator.v2 = make_fix;
  enrol(&plugin, lmp);
}
