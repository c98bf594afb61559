"""The built-in film: colloids of two sizes at an interface, stirred by a needle that swings along x.

Repulsive dipoles, u = ε d_i d_j / r³ (ε = 1), in a solvent with friction ζ (LAMMPS, Langevin), in two dimensions,
rendered as a microscope would show a part of them. The unit of length is the usual distance of two particles.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from gnn_metriplectic.lammps.launch import run_lammps
from gnn_metriplectic.systems.video.film import _libraries
from gnn_metriplectic.systems.video.microscope import Microscope, score_tracking
from gnn_metriplectic.systems.video.system import VideoSystem
from gnn_metriplectic.systems.video.tracks import read_tracks
from gnn_metriplectic.trajectory import write_trajectory

INPUT = Path(__file__).parent.with_name("inputs") / "colloids.in"
NAMES = ("SMALL", "LARGE", "NEEDLE")
CUTOFF = 3.5


@dataclass(frozen=True)
class ColloidSystem:
    """Settings of particles, needle, camera and tracking.

    Attributes:
        length, height: of the periodic cell, larger than the view.
        dipoles: d of small and large particles and of the needle's beads.
        temperature: k_B T.
        friction: ζ over the mass 1.
        beads, pitch: number of the needle's beads, and their distance.
        amplitude, period: of the needle.
        timestep, spacing: of the molecular dynamics and of the frames.
        settling: time before the needle starts.
        frames: of the film.
        view: width and height that the camera sees.
        resolution: pixels a unit of length.
        spread, brightness: see `Microscope`, of each species.
        tracking: parameters of `VideoSystem` that are not those of the scale.
    """

    length: float
    height: float
    dipoles: list[float]
    temperature: float
    friction: float
    beads: int
    pitch: float
    amplitude: float
    period: float
    timestep: float
    spacing: float
    settling: float
    frames: int
    view: list[float]
    resolution: float
    spread: list[float]
    brightness: list[float]
    tracking: dict

    serial: ClassVar[bool] = True

    def generate(
        self,
        path: Path,
        *,
        begin: float,
        end: float,
        seed: int,
        complete: bool = False,
        advance: Callable[[float, str], None] | None = None,
    ) -> None:
        """Write one part of the tracked film to ``path``; the film is made at the first call.

        Raises:
            ValueError: settings that make no film, or a film that cannot be tracked.
            FileNotFoundError: LAMMPS or a library is missing.
            RuntimeError: LAMMPS stopped with an error.
        """
        advance = advance or (lambda share, what: None)
        folder = path.parent.parent
        if not (folder / "film.tif").is_file():
            self.film(folder, seed, advance)
        video = self.video(folder)
        table, record = video.track(folder, advance)
        part = [round(share * self.frames) for share in (begin, end)]
        traj = video.trajectory(table, record, *part, complete=complete)
        traj.metadata["observed"] = self.score(folder)
        write_trajectory(path, traj)

    def video(self, folder: Path) -> VideoSystem:
        """The film as one of anybody's."""
        return VideoSystem(
            film=str(folder / "film.tif"),
            tracks=None,
            pixel=1.0 / self.resolution,
            frame_time=self.spacing,
            length_unit="sigma",
            time_unit="tau",
            **self.tracking,
        )

    def film(self, folder: Path, seed: int, advance: Callable[[float, str], None]) -> None:
        """Simulate and render ``film.tif``, with the truth beside it in ``truth.npz``."""
        _, tifffile = _libraries()
        folder.mkdir(parents=True, exist_ok=True)
        positions, velocities, species = self.simulate(folder, seed, advance)
        corner = 0.5 * (np.array([self.length, self.height]) - self.view)
        places = (positions - corner) * self.resolution
        width, height = (round(x * self.resolution) for x in self.view)
        camera = Microscope(width, height, tuple(self.spread), tuple(self.brightness))
        random = np.random.default_rng(seed)
        partial = folder / "film.tif.partial"
        with tifffile.TiffWriter(partial) as writer:
            for number, frame in enumerate(places):
                writer.write(camera.frame(frame, species, random), contiguous=True)
                advance(number / len(places), "rendering")
        np.savez(
            folder / "truth.npz",
            places=places.astype(np.float32),
            velocities=velocities.astype(np.float32),
            species=species,
        )
        os.replace(partial, folder / "film.tif")

    def simulate(
        self, folder: Path, seed: int, advance: Callable[[float, str], None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions and velocities ``[T, N, 2]`` of the colloids and the needle, and species ``[N]``."""
        start, species = self.start(seed)
        every = round(self.spacing / self.timestep)
        steps = (self.frames - 1) * every
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            data, table, dump = (Path(scratch) / name for name in ("start.data", "pairs.table", "frames.dump"))
            self.write_start(data, start, species)
            self.write_table(table)
            variables = {
                "data": data,
                "table": table,
                "cutoff": CUTOFF,
                "seed": seed % 899_999_999 + 1,
                "timestep": self.timestep,
                "temperature": self.temperature,
                "friction": self.friction,
                "amplitude": self.amplitude,
                "period": self.period,
                "settling": 2 * round(0.5 * self.settling / self.timestep),
                "steps": steps,
                "every": every,
                "frames": dump,
            }
            run_lammps(INPUT, variables, processes=1, on_step=lambda n: advance(min(n / steps, 1.0), "simulating"))
            rows = np.concatenate([np.loadtxt(block) for block in _blocks(dump, len(start))])
        values = rows.reshape(-1, len(start), 6)
        return values[..., 2:4], values[..., 4:6], values[0, :, 1].astype(int) - 1

    def start(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Places ``[N, 2]`` on a disturbed triangular lattice without the needle's room, and species ``[N]``."""
        random = np.random.default_rng(seed)
        rows = round(self.height / (0.75**0.5))
        columns = round(self.length)
        y, x = np.divmod(np.arange(rows * columns), columns)
        places = np.stack([(x + 0.5 * (y % 2) + 0.25) * self.length / columns, (y + 0.5) * self.height / rows], axis=1)
        places += 0.05 * random.standard_normal(places.shape)
        middle = 0.5 * np.array([self.length, self.height])
        needle = np.zeros((self.beads, 2)) + middle
        needle[:, 0] += self.pitch * (np.arange(self.beads) - 0.5 * (self.beads - 1))
        gap = np.linalg.norm(places[:, None] - needle[None], axis=2).min(axis=1)
        places = places[gap > 0.8]
        species = (random.random(len(places)) < 0.5).astype(int)
        return np.concatenate([places, needle]), np.concatenate([species, np.full(self.beads, 2)])

    def write_start(self, path: Path, places: np.ndarray, species: np.ndarray) -> None:
        """A LAMMPS data file."""
        lines = ["Colloids and a needle", "", f"{len(places)} atoms", "3 atom types", "", f"0 {self.length} xlo xhi"]
        lines += [
            f"0 {self.height} ylo yhi",
            "-0.5 0.5 zlo zhi",
            "",
            "Masses",
            "",
            "1 1",
            "2 1",
            "3 1",
            "",
            "Atoms",
            "",
        ]
        lines += [
            f"{k} {s + 1} {x:.8f} {y:.8f} 0" for k, (s, (x, y)) in enumerate(zip(species, places, strict=True), 1)
        ]
        path.write_text("\n".join(lines) + "\n")

    def write_table(self, path: Path) -> None:
        """u = d_i d_j (1 / r³ - 1 / r_c³) and its force for LAMMPS' ``pair_style table``."""
        r = np.linspace(0.2, CUTOFF, 2000)
        lines = []
        for i, first in enumerate(NAMES):
            for j in range(i, len(NAMES)):
                scale = self.dipoles[i] * self.dipoles[j]
                lines += [f"{first}_{NAMES[j]}", f"N {len(r)} R {r[0]} {r[-1]}", ""]
                energy, force = scale * (r**-3 - CUTOFF**-3), 3.0 * scale * r**-4
                lines += [f"{k} {a:.10g} {u:.10g} {f:.10g}" for k, (a, u, f) in enumerate(zip(r, energy, force), 1)]  # noqa: B905
                lines.append("")
        path.write_text("\n".join(lines))

    def score(self, folder: Path) -> dict[str, float]:
        """Tracking against the truth: recall, precision, error of a coordinate in pixels, and kinetic temperature."""
        table, truth = read_tracks(folder / "tracks.csv"), np.load(folder / "truth.npz")
        view = tuple(x * self.resolution - 1.0 for x in self.view)
        pairs = there = found = 0
        differences = []
        for frame in range(0, self.frames, max(self.frames // 100, 1)):
            spots = table.loc[table["frame"] == frame, ["x", "y"]].to_numpy()
            counts = score_tracking(spots, truth["places"][frame], 4.0, view, 0.5 * self.resolution)
            pairs, there, found = pairs + counts[0], there + counts[1], found + counts[2]
            differences.append(counts[3])
        error = np.concatenate(differences)
        free = truth["species"] < 2
        return {
            "recall": pairs / there,
            "precision": pairs / found,
            "error": float(np.sqrt((error**2).mean())),
            "bias": float(np.abs(error.mean(axis=0)).max()),
            "temperature": self.temperature,
            "kinetic_temperature": float((truth["velocities"][:, free, 1] ** 2).mean()),
        }


def _blocks(path: Path, count: int):
    """Lines of the atoms of each frame of a LAMMPS dump."""
    with path.open() as file:
        while head := [file.readline() for _ in range(9)]:
            if not head[0]:
                return
            yield [file.readline() for _ in range(count)]
