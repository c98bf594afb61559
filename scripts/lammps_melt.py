"""A melt of star polymers in LAMMPS: statistics beside those of the Python rollout, and conservation in a long run.

    python scripts/lammps_melt.py rest --model model.json --timesteps 0.05 0.3:2 0.4:3
    python scripts/lammps_melt.py shear --model model.json --rates 0.05 0.1
    python scripts/lammps_melt.py conservation --model model.json --steps 100000
    python scripts/lammps_melt.py rest --model model.json --checkpoint best.ckpt

At rest the first test run of the molecular dynamics (all for the viscosity) stands above them, and with a checkpoint
the Python rollout of the same length follows, at the model's own time step and from the data's first test frame. A time
step of 0.4:3 has three inner steps of the forces. Density and mass are those of the data, k_B T = 1. Error bars come
from ten blocks of time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from shear_viscosity import RELAXATION, sheared_model

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.scores import rrmse
from gnn_metriplectic.analysis.structure import rdf
from gnn_metriplectic.analysis.transport import diffusion_coefficient, kinetic_temperature, msd, transverse_viscosity
from gnn_metriplectic.lammps import build_plugin, run_lammps

TEMPERATURE = 1.0
BLOCKS = 10
SPACING = 0.2  # of the frames at rest, or the time step if that is longer
WINDOW = (1.25, 2.5)  # lags of the fit of D
PICTURES = 200  # most frames of an RDF

MELT = """
units lj
atom_style atomic
newton on
plugin load ${plugin}
lattice sc ${density}
region box prism 0 ${side} 0 ${side} 0 ${side} 0 0 0
create_box 1 box
create_atoms 1 box
mass 1 ${mass}
velocity all create ${temperature} ${seed} dist gaussian
pair_style metriplectic ${seed}
pair_coeff * * ${model}
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
timestep ${trained}
# a lattice takes heat from a bath until its particles have forgotten it
fix move all metriplectic entropy equilibrium ${temperature} ${seed} thermostat ${temperature} $(20*v_trained)
run $(ceil(v_melting/v_trained))
unfix move
timestep ${step}
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
variable warmth equal temp
variable thermal equal f_move[2]
fix record all ave/time 100 1 100 v_total v_kinetic v_momentum v_warmth v_thermal format " %.17g" file record.txt
run ${steps}
"""


def time_step(word: str) -> tuple[float, int]:
    """A time step and its inner steps, written 0.4:3 or, with one, 0.05."""
    step, _, inner = word.partition(":")
    return float(step), int(inner or 1)


@dataclass(frozen=True)
class Melt:
    """Stars in LAMMPS at the density and mass of the data, equilibrated from a lattice.

    Attributes:
        model: its tables.
        start: a run of the molecular dynamics.
        folder: for the files of a run.
        side: stars along an edge.
        ranks, seed: of LAMMPS.
        melting: time that the lattice has to forget itself.
    """

    model: Path
    start: gm.Trajectory
    folder: Path
    side: int
    ranks: int
    seed: int
    melting: float

    @property
    def dt(self) -> float:
        """The time step of the model's training."""
        return gm.read_tables(self.model).dt

    @property
    def density(self) -> float:
        """Stars a volume."""
        return self.start.positions.shape[1] / math.prod(self.start.box.lengths)

    @property
    def mass(self) -> float:
        """Of a star."""
        return float(self.start.masses[0])

    @property
    def box(self) -> gm.Box:
        """The cube of LAMMPS."""
        return gm.Box.cubic(self.side * self.density ** (-1.0 / 3.0), 3)

    @property
    def reach(self) -> float:
        """Largest distance of an RDF, which this cube and the data's box both hold."""
        return 0.49 * min(*self.box.lengths, *self.start.box.lengths)

    def run(self, script: str, **variables: float) -> np.ndarray:
        """Run LAMMPS; the rows of its record, without their time steps."""
        (self.folder / "in.lammps").write_text(MELT + script)
        known = {
            "plugin": build_plugin(),
            "model": self.model.resolve(),
            "trained": self.dt,
            "density": self.density,
            "mass": self.mass,
            "side": self.side,
            "temperature": TEMPERATURE,
            "melting": self.melting,
            "seed": self.seed,
        }
        run_lammps(self.folder / "in.lammps", {**known, **variables}, processes=self.ranks, cwd=self.folder)
        return np.loadtxt(self.folder / "record.txt")[:, 1:]

    def frames(self, spacing: float) -> gm.Trajectory:
        """The dump of a run at rest."""
        rows = []
        for block in (self.folder / "frames.txt").read_text().split("ITEM: TIMESTEP\n")[1:]:
            lines = block.split("vx vy vz", 1)[1].split("\n", 1)[1]
            rows.append(np.fromstring(lines, sep=" ").reshape(-1, 7))
        values = torch.from_numpy(np.stack(rows))
        return gm.Trajectory(values[..., 1:4], values[..., 4:], box=self.box, dt=spacing, mass=self.mass)


def mean_and_error(series: np.ndarray) -> str:
    blocks = np.array([part.mean() for part in np.array_split(series, BLOCKS)])
    return f"{blocks.mean():9.5f} ± {blocks.std(ddof=1) / BLOCKS**0.5:.5f}"


@dataclass(frozen=True)
class Curves:
    """Of a run at rest: RDF ``[bins]``, and MSD ``[L]`` at ``lags`` up to the end of the fit of D."""

    rdf: np.ndarray
    lags: np.ndarray
    msd: np.ndarray

    def beside(self, truth: Curves) -> str:
        """D over that of the ``truth`` at the same lags, with which it changes, and the error of the RDF."""
        ends = (self.msd, np.interp(self.lags, truth.lags, truth.msd))
        ours, theirs = (diffusion_coefficient(self.lags, curve, 3, WINDOW) for curve in ends)
        return (
            f"   beside the molecular dynamics D {100.0 * (ours / theirs - 1.0):+.1f} %, RDF RRMSE "
            f"{rrmse(self.rdf, truth.rdf):.4f}"
        )


def at_rest(name: str, traj: gm.Trajectory, temperatures: np.ndarray, reach: float) -> Curves:
    """Print kinetic temperature and D of a trajectory."""
    length = len(traj) // BLOCKS
    parts = [msd(traj[k * length : (k + 1) * length], WINDOW[1]) for k in range(BLOCKS)]
    lags, curves = parts[0][0], np.array([curve for _, curve in parts])
    print(
        f"{name:24} kinetic T {mean_and_error(temperatures)}   D "
        f"{mean_and_error(diffusion_coefficient(lags, curves, 3, WINDOW))}",
        end="   ",
    )
    _, pairs = rdf(traj, r_max=reach, every=-(-len(traj) // PICTURES))
    return Curves(pairs, lags, curves.mean(axis=0))


def viscosity(runs: list[gm.Trajectory]) -> str:
    """Of runs at rest, or why it is not known."""
    thinned = [run[:: max(round(SPACING / run.dt), 1)] for run in runs]
    try:
        return "viscosity by transverse currents {:.3f} ± {:.3f}".format(
            *transverse_viscosity(thinned, begin=WINDOW[0])
        )
    except ValueError as error:
        return f"no viscosity: {error}"


def rest(melt: Melt, options: argparse.Namespace) -> None:
    truth = at_rest("molecular dynamics", melt.start, kinetic_temperature(melt.start), melt.reach)
    print(viscosity([gm.read_trajectory(path) for path in sorted((options.data / "test").glob("melt_*.h5"))]))
    for step, inner in options.timesteps:
        every = max(round(SPACING / step), 1)
        lengths = {"settling": options.settling, "duration": options.duration}
        values = melt.run(REST, step=step, inner=inner, every=every, **lengths)
        frames = melt.frames(every * step)
        found = at_rest(f"LAMMPS, time step {step:g}:{inner}", frames, values[:, 2], melt.reach)
        print(
            f"pressure {mean_and_error(values[:, 0])}   k_B <T> {mean_and_error(values[:, 1])}",
            found.beside(truth),
            viscosity([frames]),
            flush=True,
        )
    if options.checkpoint is None:
        return
    model, start = gm.read_tables(options.model), melt.start
    state = gm.State.from_frame(start, 0, gm.load(options.checkpoint).double())
    steps, every = round(options.duration / model.dt), max(round(SPACING / model.dt), 1)
    traj = gm.simulate(
        model, state, box=start.box, dt=model.dt, steps=steps, every=every, seed=options.seed, progress="Python"
    )
    print(at_rest("Python", traj, kinetic_temperature(traj), melt.reach).beside(truth))


def shear(melt: Melt, options: argparse.Namespace) -> None:
    lengths = {"settling": options.settling, "duration": options.duration}
    for rate in options.rates:
        values = melt.run(SHEAR, step=melt.dt, rate=rate, relaxation=RELAXATION * melt.dt, **lengths)
        print(
            f"LAMMPS, rate {rate:g}: viscosity {mean_and_error(-values[:, 0] / rate)}   pressure "
            f"{mean_and_error(values[:, 1])}   kinetic T {mean_and_error(values[:, 2])}   k_B <T> "
            f"{mean_and_error(values[:, 3])}",
            flush=True,
        )
        if options.checkpoint is not None:
            found = sheared_model(options.checkpoint, melt.start, rate=rate, seed=options.seed, **lengths)
            print(f"Python, rate {rate:g}:", found)


def conservation(melt: Melt, options: argparse.Namespace) -> None:
    total, kinetic, momentum, warmth, thermal = melt.run(CONSERVATION, step=melt.dt, steps=options.steps).T
    # of thermal particles: mean |v| = sqrt(8 k_B T / (pi m))
    scale = melt.side**3 * (8.0 * TEMPERATURE * melt.mass / np.pi) ** 0.5
    print(
        f"{options.steps} steps of {melt.dt:g} on {options.ranks} ranks: spread of the total energy over the kinetic "
        f"energy {(total.max() - total.min()) / kinetic.mean():.2e}; momentum over sum m |v| "
        f"{momentum.max() / scale:.2e}"
    )
    for name, series in (("kinetic T", warmth), ("k_B <T>", thermal)):
        print(f"{name} of tenths of the run:", *(f"{part.mean():.4f}" for part in np.array_split(series, BLOCKS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rest", "shear", "conservation"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="of the model, for the rollout in Python")
    parser.add_argument("--data", type=Path, default=Path("data/star_polymer_11"))
    parser.add_argument("--timesteps", type=time_step, nargs="+", default=[(0.05, 1)])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--melting", type=float, default=75.0, help="units of time from the lattice on")
    parser.add_argument("--settling", type=float, default=20.0, help="units of time")
    parser.add_argument("--duration", type=float, default=200.0, help="units of time")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=10, help="stars along an edge of the cube")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    start = gm.read_trajectory(options.data / "test" / "melt_0.h5")
    with tempfile.TemporaryDirectory() as folder:
        melt = Melt(options.model, start, Path(folder), options.side, options.ranks, options.seed, options.melting)
        {"rest": rest, "shear": shear, "conservation": conservation}[options.what](melt, options)


if __name__ == "__main__":
    main()
