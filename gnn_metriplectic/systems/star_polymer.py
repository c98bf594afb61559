"""Star polymers: molecular dynamics of a melt with LAMMPS, one particle a molecule.

Kremer-Grest beads: WCA (ε = σ = 1), FENE bonds (k = 30, R₀ = 1.5), k_B T = 1, in Lennard-Jones units.
A star is a core with ``arms`` arms of ``arm_beads`` beads; its particle is the centre of mass. The inputs
(``inputs/*.in``) are ordinary LAMMPS scripts.

Grest, Kremer, Witten, Macromolecules 20, 1376 (1987); Li, Bian, Li, Karniadakis, J. Chem. Phys. 143, 243128 (2015).
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from gnn_metriplectic.analysis.transport import green_kubo_viscosity
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.lammps.launch import lammps_version, run_lammps
from gnn_metriplectic.trajectory import TrajectoryWriter

INPUTS = Path(__file__).with_name("inputs")
BOND = 0.97
# averages of energy and pressure over the equilibration that are kept
RECORDS = 200
# share of the equilibration after which energy and pressure count as steady
SETTLED = 0.2
# lag up to which the stress autocorrelation is integrated
STRESS_MEMORY = 8.0
UNITS = {"length": "sigma", "time": "tau", "mass": "m", "energy": "epsilon"}


@dataclass(frozen=True)
class StarPolymerSystem:
    """Settings of the melt, in Lennard-Jones units.

    Attributes:
        molecules: N.
        arms, arm_beads: of a star, which has 1 + arms × arm_beads beads.
        density: beads a volume.
        temperature: k_B T.
        timestep: of the molecular dynamics.
        spacing: of the frames, a multiple of the timestep.
        pushoff: steps of either stage of the push-off.
        equilibration: time of the equilibration.
        branching: time with a thermostat after which a run with new velocities forgets the others.
    """

    molecules: int
    arms: int
    arm_beads: int
    density: float
    temperature: float
    timestep: float
    spacing: float
    pushoff: int
    equilibration: float
    branching: float

    # one run keeps all cores busy
    serial: ClassVar[bool] = True

    @property
    def beads(self) -> int:
        """Beads of a molecule; its mass."""
        return 1 + self.arms * self.arm_beads

    @property
    def length(self) -> float:
        """Edge of the box."""
        return (self.molecules * self.beads / self.density) ** (1.0 / 3.0)

    @property
    def every(self) -> int:
        """Steps from frame to frame."""
        return round(self.spacing / self.timestep)

    def generate(
        self,
        path: Path,
        *,
        frames: int,
        seed: int,
        advance: Callable[[float, str], None],
    ) -> None:
        """Write one trajectory of ``frames`` frames to ``path``; the melt is equilibrated at the first call.

        Args:
            path: of the trajectory; the equilibrated melt lies one folder above.
            frames: number of frames.
            seed: of the velocities.
            advance: told the share of the present stage that is done, and its name.

        Raises:
            ValueError: settings that make no melt.
            FileNotFoundError: LAMMPS or MPI is missing.
            RuntimeError: LAMMPS stopped with an error.
        """
        if abs(self.every * self.timestep / self.spacing - 1.0) > 1e-9:
            raise ValueError(f"the spacing of frames is {self.spacing}; make it a multiple of {self.timestep}")
        melt = self.equilibrate(path.parent.parent, seed, advance)
        energy, record = steady_state(melt.with_suffix(".dat"))
        steps = (frames - 1) * self.every
        with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
            text, thermo = Path(scratch) / "frames.dat", Path(scratch) / "thermo.dat"
            variables = {
                "restart": melt,
                "seed": _lammps_seed(seed),
                "timestep": self.timestep,
                "temperature": self.temperature,
                "energy": repr(energy),
                "branching": round(self.branching / self.timestep),
                "steps": steps,
                "every": self.every,
                "frames": text,
                "thermo": thermo,
            }
            run_lammps(INPUTS / "produce.in", variables, on_step=lambda n: advance(min(n / steps, 1.0), path.stem))
            values = np.loadtxt(thermo)
            viscosity = green_kubo_viscosity(
                values[:, 3:6],
                5 * self.timestep,
                volume=self.length**3,
                temperature=self.temperature,
                max_lag_time=min(STRESS_MEMORY, 0.1 * steps * self.timestep),
            )
            observed = {
                "temperature": float(values[:, 1].mean()),
                "pressure": float(values[:, 2].mean()),
                "viscosity": viscosity,
                "equilibration": record,
            }
            metadata = {
                "system": "star_polymer",
                "temperature": self.temperature,
                "seed": seed,
                "k_B": 1.0,
                "settings": asdict(self),
                "lammps": lammps_version(),
                "input": {name: (INPUTS / name).read_text() for name in ("equilibrate.in", "produce.in")},
                "observed": observed,
            }
            box = Box.cubic(self.length, 3)
            with TrajectoryWriter(
                path, box=box, dt=self.spacing, mass=float(self.beads), units=UNITS, metadata=metadata
            ) as writer:
                # single precision resolves 4e-6 of a bead, and halves the files
                for blocks in read_chunks(text, self.molecules):
                    writer.extend(blocks[..., :3].copy(), blocks[..., 3:].copy())

    def equilibrate(self, folder: Path, seed: int, advance: Callable[[float, str], None] | None = None) -> Path:
        """The equilibrated melt as a LAMMPS restart file, made (from ``seed``) where missing, its record beside it."""
        melt = folder / "melt.restart"
        if melt.is_file():
            return melt
        folder.mkdir(parents=True, exist_ok=True)
        steps = round(self.equilibration / self.timestep)
        sample = max(steps // (10 * RECORDS), 1)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            template, partial = Path(scratch) / "star.txt", Path(scratch) / "melt.restart"
            template.write_text(self.template())
            variables = {
                "molecules": self.molecules,
                "length": repr(self.length),
                "arms": self.arms,
                "template": template,
                "seed": _lammps_seed(seed),
                "timestep": self.timestep,
                "temperature": self.temperature,
                "pushoff": self.pushoff,
                "equilibration": steps,
                "sample": sample,
                "window": 10 * sample,
                "out": partial,
                "thermo": melt.with_suffix(".dat"),
            }
            told = None if advance is None else lambda n: advance(min(n / steps, 1.0), "equilibrating")
            run_lammps(INPUTS / "equilibrate.in", variables, on_step=told)
            os.replace(partial, melt)
        return melt

    def template(self) -> str:
        """The star as a LAMMPS molecule file: straight arms in directions spread over the sphere."""
        turns = np.arange(self.arms) + 0.5
        height, angle = 1.0 - 2.0 * turns / self.arms, np.pi * (1.0 + 5.0**0.5) * turns
        radius = np.sqrt(1.0 - height**2)
        directions = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
        shells = BOND * np.arange(1, self.arm_beads + 1)
        places = np.concatenate([np.zeros((1, 3)), (directions[:, None] * shells[:, None]).reshape(-1, 3)])
        bonds = []
        for arm in range(self.arms):
            chain = [1, *range(2 + arm * self.arm_beads, 2 + (arm + 1) * self.arm_beads)]
            bonds += itertools.pairwise(chain)
        lines = [f"A star of {self.arms} arms of {self.arm_beads} beads", ""]
        lines += [f"{len(places)} atoms", f"{len(bonds)} bonds", "", "Coords", ""]
        lines += [f"{k} {x:.6f} {y:.6f} {z:.6f}" for k, (x, y, z) in enumerate(places, 1)]
        lines += ["", "Types", ""] + [f"{k} 1" for k in range(1, len(places) + 1)]
        lines += ["", "Bonds", ""] + [f"{k} 1 {a} {b}" for k, (a, b) in enumerate(bonds, 1)]
        return "\n".join(lines) + "\n"

    def shear(self, folder: Path, *, rate: float, settling: float, duration: float, seed: int) -> dict[str, float]:
        """Viscosity of the sheared melt (SLLOD), with its standard error over ten blocks.

        Args:
            folder: of the equilibrated melt.
            rate: of the shear.
            settling, duration: times before and of the measurement.
            seed: of the velocities.
        """
        melt = self.equilibrate(folder, seed)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            thermo = Path(scratch) / "thermo.dat"
            variables = {
                "restart": melt,
                "seed": _lammps_seed(seed),
                "timestep": self.timestep,
                "temperature": self.temperature,
                "rate": rate,
                "settling": round(settling / self.timestep),
                "steps": round(duration / self.timestep),
                "thermo": thermo,
            }
            run_lammps(INPUTS / "shear.in", variables)
            values = np.loadtxt(thermo)
        blocks = np.array([-part[:, 3].mean() / rate for part in np.array_split(values, 10)])
        return {
            "rate": rate,
            "viscosity": float(blocks.mean()),
            "error": float(blocks.std(ddof=1) / len(blocks) ** 0.5),
            "temperature": float(values[:, 1].mean()),
            "pressure": float(values[:, 2].mean()),
        }


def steady_state(record: Path) -> tuple[float, dict[str, float]]:
    """Mean energy a bead at equilibrium, and how steady energy and pressure were.

    Args:
        record: ``step energy pressure`` lines of the equilibration.

    Returns:
        the energy, and the means of energy and pressure over the two halves of the steady part with
        the standard error of a half.
    """
    values = np.loadtxt(record)
    steady = values[int(SETTLED * len(values)) :, 1:]
    half = len(steady) // 2
    early, late = steady[:half].mean(axis=0), steady[half:].mean(axis=0)
    # in blocks, as the energy of a canonical run wanders slowly
    blocks = np.array([part.mean(axis=0) for part in np.array_split(steady, 10)])
    error = blocks.std(axis=0, ddof=1) / 5**0.5
    found = {}
    for column, name in enumerate(("energy", "pressure")):
        found[f"{name}_early"], found[f"{name}_late"] = float(early[column]), float(late[column])
        found[f"{name}_error"] = float(error[column])
    return float(steady[:, 0].mean()), found


def read_chunks(path: Path, count: int, *, together: int = 64) -> Iterator[np.ndarray]:
    """Blocks of a file of LAMMPS' ``fix ave/time mode vector``, some together: ``[k, count, columns]`` float32.

    Raises:
        ValueError: a block cut short.
    """
    with path.open("rb") as file:
        lines = itertools.dropwhile(lambda line: line.startswith(b"#"), file)
        # a block is a line of step and count, and a line a row
        while rows := list(itertools.islice(lines, together * (count + 1))):
            if len(rows) % (count + 1):
                raise ValueError(
                    f"{path} is cut short: its last block has {len(rows) % (count + 1) - 1} of {count} rows"
                )
            del rows[:: count + 1]
            values = np.fromstring(b" ".join(rows), sep=" ").reshape(-1, count, len(rows[0].split()))
            yield values[..., 1:].astype(np.float32)


def _lammps_seed(seed: int) -> int:
    # LAMMPS takes positive 32-bit seeds; neighbouring ones give unrelated streams only after mixing
    return int(np.random.SeedSequence(seed).generate_state(1)[0] % 899_999_999) + 1
