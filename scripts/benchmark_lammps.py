"""Rate of the LAMMPS plugin beside pair styles of its kind: the same particles, the same run, one core.

    python scripts/benchmark_lammps.py                       the table
    python scripts/benchmark_lammps.py --json rates.json     and as JSON
    python scripts/benchmark_lammps.py --growth              time and memory from 10^5 to 10^6 particles
    python scripts/benchmark_lammps.py --model model.json    tables of a trained model in place of those made here
    python scripts/benchmark_lammps.py --model model.json --md data/star_polymer_11 --timesteps 0.05 0.4:3
                                                             physical time a second beside the molecular dynamics that
                                                             the model replaces, on as many ranks

Particles at the density of a melt of 11-bead stars: number density 0.0364, cutoff 4.75, mass 11, k_B T = 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import torch
import yaml
from lammps_melt import time_step

import gnn_metriplectic as gm
from gnn_metriplectic.commands.lammps import EXAMPLES
from gnn_metriplectic.lammps import build_plugin, run_lammps
from gnn_metriplectic.lammps.launch import find_program
from gnn_metriplectic.models import Scales, build_model
from gnn_metriplectic.systems.star_polymer import INPUTS, StarPolymerSystem, steady_state

DENSITY, CUTOFF, MASS, LAG = 0.0364, 4.75, 11.0, 0.1
SKIN = 1.8  # the fastest of 1.2, 1.8 and 2.4 for dpd and metriplectic alike
TERMS = {
    "kernel": {"width": 32},
    "equation_of_state": {"width": 16},
    "friction": {"width": 32, "depth": 2, "rank": 4},
    "encoder": {"width": 32, "hops": 2},
}

COMMON = f"""
units lj
atom_style {{atoms}}
newton on
lattice sc {DENSITY}
region box block 0 {{side}} 0 {{side}} 0 {{side}}
create_box 1 box
create_atoms 1 box
displace_atoms all random 1.0 1.0 1.0 7
mass 1 {MASS}
velocity all create 1.0 7
neighbor {SKIN} bin
neigh_modify every 2 delay 0 check yes
timestep {LAG}
thermo_modify norm no
"""
STYLES = {
    "dpd": ("atomic", f"comm_modify vel yes\npair_style dpd 1.0 {CUTOFF} 7\npair_coeff * * 4.0 2.0\nfix 1 all nve\n"),
    "sdpd": (
        "sph",
        "comm_modify vel yes\npair_style sdpd/taitwater/isothermal 1.0 2.0 7\n"
        f"pair_coeff * * {DENSITY * MASS} 0.5 {CUTOFF}\nset group all sph/rho {DENSITY * MASS}\n"
        "fix 1 all sph\ntimestep 0.01\n",
    ),
    "metriplectic": (
        "atomic",
        "plugin load ${plugin}\npair_style metriplectic 7 range clamp\npair_coeff * * ${model}\n"
        "fix 1 all metriplectic entropy equilibrium 1.0 7\n",
    ),
}
STYLES["metriplectic, euler_maruyama"] = (
    "atomic",
    STYLES["metriplectic"][1].replace("entropy", "integrator euler_maruyama entropy"),
)


def stand_in_model(path: Path) -> None:
    """Tables of a model of the shipped widths at the stars' scales; its rate is that of any trained one."""
    torch.manual_seed(0)
    neighbors = DENSITY * 4.0 / 3.0 * torch.pi * CUTOFF**3
    scales = Scales(
        energy=1.0, volume=1.0 / DENSITY, speed=MASS**-0.5, increment=0.01, neighbors=neighbors, mass=MASS, entropy=1.0
    )
    model = build_model(
        dimension=3,
        cutoff=CUTOFF,
        dt=LAG,
        mass=MASS,
        learn_mass=False,
        entropy="encoded",
        scales=scales.to_dict(),
        **TERMS,
    )
    gm.write_tables(gm.tabulate(model, entropy=(-6.0, 6.0), volume=(5.0, 80.0)), path)


def measure(style: str, side: int, steps: int, model: Path, folder: Path) -> dict:
    """Processor seconds and memory of a run of ``side``³ particles on one core."""
    atoms, commands = STYLES[style]
    script = folder / "in.lammps"
    script.write_text(COMMON.format(atoms=atoms, side=side) + commands + f"run {steps // 5}\nrun {steps}\n")
    command = [find_program("lmp"), "-in", str(script), "-log", "none", "-var", "model", str(model)]
    command += ["-var", "plugin", str(build_plugin())]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode or "ERROR" in done.stdout:
        raise SystemExit(f"{style}: " + done.stdout[-600:])
    seconds, steps, count = last_loop(done.stdout)
    memory = max(float(x) for x in re.findall(r"allocation .*= +\S+ \| \S+ \| (\S+) Mbytes", done.stdout))
    return {
        "style": style,
        "particles": count,
        "steps": steps,
        "seconds": seconds,
        "rate": count * steps / seconds,
        "memory_mb": memory,
        "pairs": float(re.findall(r"Ave neighs/atom = (\S+)", done.stdout)[-1]),
    }


def last_loop(text: str) -> tuple[float, int, int]:
    """Processor seconds of a rank, steps and particles of the last run in LAMMPS' output."""
    clock, steps, count = re.findall(r"Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", text)[-1]
    # of the processor, not of the clock: other work on the machine does not count
    share = float(re.findall(r"(\S+)% CPU use with \d+ MPI", text)[-1]) / 100.0
    return float(clock) * share, int(steps), int(count)


def against_molecular_dynamics(
    model: Path, data: Path, folder: Path, *, timesteps: list[tuple[float, int]], repeats: int, ranks: int
) -> None:
    """Print units of time a second of the dynamics of beads and of the model, in turn on as many ranks."""
    name = json.loads((data / "settings.json").read_text()).get("name", data.name)
    system = StarPolymerSystem(**yaml.safe_load(Path(f"conf/system/{name}.yaml").read_text())["parameters"])
    melt = Path(shutil.copy(data / "melt.restart", folder))
    beads = {
        "restart": melt,
        "seed": 7,
        "timestep": system.timestep,
        "temperature": system.temperature,
        "energy": steady_state(data / "melt.dat")[0],
        "branching": 100,
        "steps": 400,
        "every": 400,
        "frames": folder / "frames.dat",
        "thermo": folder / "thermo.dat",
    }
    stars = {
        "plugin": build_plugin(),
        "model": model.resolve(),
        "density": system.density / system.beads,
        "mass": float(system.beads),
        "skin": SKIN,
        "side": round(system.molecules ** (1.0 / 3.0)),
        "steps": 2000,
    }
    runs = {"molecular dynamics": (INPUTS / "produce.in", beads, system.timestep)}
    example = EXAMPLES / "equilibrium" / "in.lammps"
    for step, inner in timesteps:
        runs[f"model, time step {step:g}:{inner}"] = (example, {**stars, "timestep": step, "inner": inner}, step)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (script, variables, step) in runs.items():
            seconds, steps, count = last_loop(run_lammps(script, variables, processes=ranks, cwd=folder))
            # a lattice need not have as many stars as the melt; time goes with their number
            share = count / system.molecules if script == example else 1.0
            rates[name].append(share * steps * step / seconds)
    beads_rate = statistics.median(rates["molecular dynamics"])
    print(f"{f'{ranks} ranks':32} {'units of time a second':>24} {'ratio':>8}")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:32} {rate:24.2f} {rate / beads_rate:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--side", type=int, default=30, help="particles along an edge")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", help="one style")
    parser.add_argument("--md", type=Path, help="folder of a star polymer's data, with the melt")
    parser.add_argument("--timesteps", type=time_step, nargs="+", default=[(0.05, 1)], help="of the model, with --md")
    parser.add_argument("--ranks", type=int, default=2, help="with --md")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median counts")
    options = parser.parse_args()
    if options.md and not options.model:
        parser.error("--md needs a trained --model")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = options.model
        if options.md:
            settings = {"timesteps": options.timesteps, "repeats": options.repeats, "ranks": options.ranks}
            against_molecular_dynamics(model, options.md, folder, **settings)
            return
        if model is None:
            model = folder / "model.json"
            stand_in_model(model)
        if options.growth:
            cases = [(s, n, steps) for n, steps in ((46, 40), (100, 10)) for s in ("dpd", "sdpd", "metriplectic")]
        else:
            cases = [(s, options.side, options.steps) for s in STYLES]
        cases = [case for case in cases if options.only in (None, case[0])]
        # in turn, so that other work on the machine meets all of them
        runs = [[measure(*case, model, folder) for case in cases] for _ in range(options.repeats)]
        rows = [sorted(found, key=lambda row: row["rate"])[len(found) // 2] for found in zip(*runs, strict=True)]
    print(f"{'style':32} {'particles':>10} {'steps':>6} {'M particle-steps/s':>19} {'memory (MB)':>12}")
    for row in rows:
        print(
            f"{row['style']:32} {row['particles']:10} {row['steps']:6} "
            f"{row['rate'] / 1e6:19.3f} {row['memory_mb']:12.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
