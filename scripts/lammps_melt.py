"""A melt of star polymers in LAMMPS: statistics beside those of the Python rollout, and conservation in a long run.

    python scripts/lammps_melt.py rest --model model.json --timesteps 0.05 0.3:2 0.4:3
    python scripts/lammps_melt.py shear --model model.json --rates 0.05 0.1
    python scripts/lammps_melt.py conservation --model model.json --steps 100000
    python scripts/lammps_melt.py rest --model model.json --checkpoint best.ckpt

A time step of 0.4:3 has three inner steps of the forces. With a checkpoint the Python rollout of the same length
follows, at the model's own time step and from the data's first test frame. 1,000 stars of 11 beads, k_B T = 1. Error
bars come from ten blocks of time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from shear_viscosity import RELAXATION, sheared_model

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.scores import rrmse
from gnn_metriplectic.analysis.structure import rdf
from gnn_metriplectic.analysis.transport import diffusion_coefficient, kinetic_temperature, msd
from gnn_metriplectic.lammps import build_plugin, run_lammps

SIDE, DENSITY, MASS, TEMPERATURE = 10, 0.4 / 11.0, 11.0, 1.0
BLOCKS = 10
SPACING = 0.2  # of the frames at rest, or the time step if that is longer
WINDOW = (1.25, 2.5)  # lags of the fit of D

MELT = f"""
units lj
atom_style atomic
newton on
plugin load ${{plugin}}
lattice sc {DENSITY!r}
region box prism 0 {SIDE} 0 {SIDE} 0 {SIDE} 0 0 0
create_box 1 box
create_atoms 1 box
mass 1 {MASS}
velocity all create {TEMPERATURE} ${{seed}} dist gaussian
pair_style metriplectic ${{seed}}
pair_coeff * * ${{model}}
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
timestep ${{trained}}
# a lattice takes heat from a bath until its particles have forgotten it
fix move all metriplectic entropy equilibrium {TEMPERATURE} ${{seed}} thermostat {TEMPERATURE} $(20*v_trained)
run $(ceil(75/v_trained))
unfix move
timestep ${{step}}
"""
REST = """
fix move all metriplectic inner ${inner}
run $(ceil(v_settling/v_step))
reset_timestep 0
variable pressure equal press
variable thermal equal f_move[2]
variable kinetic equal temp
fix record all ave/time 1 1 1 v_pressure v_thermal v_kinetic file record.txt
dump frames all custom ${every} frames.txt id xu yu zu vx vy vz
dump_modify frames sort id
run $(ceil(v_duration/v_step))
"""
SHEAR = """
velocity all ramp vx 0 $(v_rate*ly) y 0 $(ly) sum yes units box
fix move all metriplectic thermostat 1.0 ${relaxation}
fix shear all deform 1 xy erate ${rate} remap v
compute warmth all temp/deform
compute stress all pressure warmth
variable xy equal c_stress[4]
variable pressure equal c_stress
variable warmth equal c_warmth
variable thermal equal f_move[2]
thermo_style custom step c_stress c_warmth
run $(ceil(v_settling/v_step))
fix record all ave/time 1 1 1 v_xy v_pressure v_warmth v_thermal file record.txt
run $(ceil(v_duration/v_step))
"""
CONSERVATION = """
fix move all metriplectic
reset_timestep 0
variable total equal etotal
variable kinetic equal ke
variable momentum equal mass(all)*sqrt(vcm(all,x)^2+vcm(all,y)^2+vcm(all,z)^2)
thermo_modify norm no
thermo 100
fix record all ave/time 100 1 100 v_total v_kinetic v_momentum format " %.17g" file record.txt
run ${steps}
"""


def time_step(word: str) -> tuple[float, int]:
    """A time step and its inner steps, written 0.4:3 or, with one, 0.05."""
    step, _, inner = word.partition(":")
    return float(step), int(inner or 1)


def melt(script: str, model: Path, folder: Path, *, ranks: int, **variables: float) -> np.ndarray:
    """Run LAMMPS on an equilibrated melt; the rows of its record, without their time steps."""
    (folder / "in.lammps").write_text(MELT + script)
    known = {"plugin": build_plugin(), "model": model.resolve(), "trained": gm.read_tables(model).dt, **variables}
    run_lammps(folder / "in.lammps", known, processes=ranks, cwd=folder)
    return np.loadtxt(folder / "record.txt")[:, 1:]


def mean_and_error(series: np.ndarray) -> str:
    blocks = np.array([part.mean() for part in np.array_split(series, BLOCKS)])
    return f"{blocks.mean():9.4f} ± {blocks.std(ddof=1) / BLOCKS**0.5:.4f}"


def frames(path: Path, spacing: float) -> gm.Trajectory:
    """The dump of a run at rest."""
    rows = []
    for block in path.read_text().split("ITEM: TIMESTEP\n")[1:]:
        rows.append(np.fromstring(block.split("vx vy vz \n")[-1].split("vx vy vz\n")[-1], sep=" ").reshape(-1, 7))
    values = torch.from_numpy(np.stack(rows))
    box = gm.Box.cubic(SIDE * DENSITY ** (-1.0 / 3.0), 3)
    return gm.Trajectory(values[..., 1:4], values[..., 4:], box=box, dt=spacing, mass=MASS)


def at_rest(name: str, traj: gm.Trajectory, temperatures: np.ndarray) -> np.ndarray:
    """Print kinetic temperature and D of a trajectory; its RDF."""
    length = len(traj) // BLOCKS
    parts = [traj[k * length : (k + 1) * length] for k in range(BLOCKS)]
    diffusion = np.array([diffusion_coefficient(*msd(part, WINDOW[1]), 3, WINDOW) for part in parts])
    print(f"{name:24} kinetic T {mean_and_error(temperatures)}   D {mean_and_error(diffusion)}", end="   ")
    return rdf(traj, r_max=15.0, every=2)[1]


def rest(options: argparse.Namespace, folder: Path) -> None:
    curves = []
    for step, inner in options.timesteps:
        every = max(round(SPACING / step), 1)
        lengths = {"settling": options.settling, "duration": options.duration}
        values = melt(
            REST,
            options.model,
            folder,
            ranks=options.ranks,
            seed=options.seed,
            step=step,
            inner=inner,
            every=every,
            **lengths,
        )
        curves.append(
            at_rest(f"LAMMPS, time step {step:g}:{inner}", frames(folder / "frames.txt", every * step), values[:, 2])
        )
        error = f"   RDF RRMSE to the first {rrmse(curves[-1], curves[0]):.4f}" if len(curves) > 1 else ""
        print(f"pressure {mean_and_error(values[:, 0])}   k_B <T> {mean_and_error(values[:, 1])}{error}", flush=True)
    if options.checkpoint is None:
        return
    model, start = gm.read_tables(options.model), gm.read_trajectory(options.data / "test" / "melt_0.h5")
    state = gm.State.from_frame(start, 0, gm.load(options.checkpoint).double())
    steps, every = round(options.duration / model.dt), round(SPACING / model.dt)
    traj = gm.simulate(
        model, state, box=start.box, dt=model.dt, steps=steps, every=every, seed=options.seed, progress="Python"
    )
    print(f"RDF RRMSE to the first {rrmse(at_rest('Python', traj, kinetic_temperature(traj)), curves[0]):.4f}")


def shear(options: argparse.Namespace, folder: Path) -> None:
    dt = gm.read_tables(options.model).dt
    lengths = {"settling": options.settling, "duration": options.duration}
    for rate in options.rates:
        values = melt(
            SHEAR,
            options.model,
            folder,
            ranks=options.ranks,
            seed=options.seed,
            step=dt,
            rate=rate,
            relaxation=RELAXATION * dt,
            **lengths,
        )
        print(
            f"LAMMPS, rate {rate:g}: viscosity {mean_and_error(-values[:, 0] / rate)}   pressure "
            f"{mean_and_error(values[:, 1])}   kinetic T {mean_and_error(values[:, 2])}   k_B <T> "
            f"{mean_and_error(values[:, 3])}",
            flush=True,
        )
        if options.checkpoint is not None:
            start = gm.read_trajectory(options.data / "test" / "melt_0.h5")
            found = sheared_model(options.checkpoint, start, rate=rate, seed=options.seed, **lengths)
            print(f"Python, rate {rate:g}:", found)


def conservation(options: argparse.Namespace, folder: Path) -> None:
    dt = gm.read_tables(options.model).dt
    values = melt(
        CONSERVATION, options.model, folder, ranks=options.ranks, seed=options.seed, step=dt, steps=options.steps
    )
    total, kinetic, momentum = values.T
    # of thermal particles: mean |v| = sqrt(8 k_B T / (pi m))
    scale = MASS * SIDE**3 * (8.0 * TEMPERATURE / (np.pi * MASS)) ** 0.5
    print(
        f"{options.steps} steps of {dt:g} on {options.ranks} ranks: spread of the total energy over the kinetic energy "
        f"{(total.max() - total.min()) / kinetic.mean():.2e}; momentum over sum m |v| {momentum.max() / scale:.2e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rest", "shear", "conservation"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="of the model, for the rollout in Python")
    parser.add_argument("--data", type=Path, default=Path("data/star_polymer_11"))
    parser.add_argument("--timesteps", type=time_step, nargs="+", default=[(0.05, 1)])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--settling", type=float, default=20.0, help="units of time")
    parser.add_argument("--duration", type=float, default=200.0, help="units of time")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"rest": rest, "shear": shear, "conservation": conservation}[options.what](options, Path(folder))


if __name__ == "__main__":
    main()
