"""Rate of the LAMMPS plugin beside pair styles of its kind: the same particles, the same run, one core.

    python scripts/benchmark_lammps.py                       the table
    python scripts/benchmark_lammps.py --json rates.json     and as JSON
    python scripts/benchmark_lammps.py --growth              time and memory from 10^5 to 10^6 particles
    python scripts/benchmark_lammps.py --model model.json    tables of a trained model in place of those made here

Particles at the density of a melt of 11-bead stars: number density 0.0364, cutoff 4.75, mass 11, k_B T = 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import torch

import gnn_metriplectic as gm
from gnn_metriplectic.lammps import build_plugin
from gnn_metriplectic.lammps.launch import find_program
from gnn_metriplectic.models import Scales, build_model

DENSITY, CUTOFF, MASS, LAG = 0.0364, 4.75, 11.0, 0.1
TERMS = {
    "kernel": {"width": 16, "depth": 2},
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
neighbor 1.2 bin
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
    found = re.findall(r"Loop time of (\S+) on 1 procs for (\d+) steps with (\d+) atoms", done.stdout)[-1]
    steps, count = int(found[1]), int(found[2])
    # of the processor, not of the clock: other work on the machine does not count
    seconds = float(found[0]) * float(re.findall(r"(\S+)% CPU use with 1 MPI", done.stdout)[-1]) / 100.0
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--side", type=int, default=30, help="particles along an edge")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", help="one style")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = options.model
        if model is None:
            model = folder / "model.json"
            stand_in_model(model)
        if options.growth:
            cases = [(s, n, steps) for n, steps in ((46, 40), (100, 10)) for s in ("dpd", "metriplectic")]
        else:
            cases = [(s, options.side, options.steps) for s in STYLES]
        rows = [measure(s, n, steps, model, folder) for s, n, steps in cases if options.only in (None, s)]
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
