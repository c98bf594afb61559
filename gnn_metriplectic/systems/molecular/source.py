"""Frames of particles from an open trajectory: centres that do not jump, velocities, and checks of both."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnn_metriplectic.systems.molecular.cell import read_cell
from gnn_metriplectic.systems.molecular.clock import read_clock
from gnn_metriplectic.systems.molecular.files import IMAGES, mdanalysis, one_line, open_files
from gnn_metriplectic.systems.molecular.particles import find_particles
from gnn_metriplectic.systems.molecular.settings import TrajectorySettings

# shares of the box beyond which the image of an atom next to its neighbour, or of a centre one frame later, is unsure
JOINED, MOVED = 0.45, 0.4


@dataclass(frozen=True)
class Frame:
    """Particles at one time: positions ``[N, 3]`` followed through the boundary, velocities ``[N, 3]``."""

    index: int
    time: float
    positions: np.ndarray
    velocities: np.ndarray | None


class Source:
    """An open trajectory, and its particles.

    Args:
        settings: where it is, and how its atoms make particles.

    Attributes:
        files, particles, cell, clock: the parts that settings and files make.
        has_velocities: whether those of the file are used.
        notes: what the user should know.
        provenance: what is written with the particles.

    Raises:
        FileNotFoundError, ValueError: files that are not there, or do not hold what the settings ask for.
    """

    def __init__(self, settings: TrajectorySettings) -> None:
        self.settings, self.files = settings, open_files(settings)
        first = self._read(min(settings.skip, self.count - 1))
        self.has_velocities = settings.velocities == "auto" and first.has_velocities
        reason = "velocities=differences" if first.has_velocities else f"{settings.trajectory} has no velocities"
        self.cell = read_cell(settings, self.files, first)
        if self.count < 2:
            raise ValueError(f"{settings.trajectory} has one frame; a trajectory is needed, to learn from its motion")
        data = [dict(self._read(index).data) for index in (0, 1, self.count - 1)]
        self.clock = read_clock(settings, self.files.format, data, self.count)
        self.particles = find_particles(self.files, settings)
        self.notes = list(self.particles.notes)
        if not self.has_velocities:
            self.notes.append(
                f"{reason}: they are central differences over 2 x {self.clock.dt:g}, which lose what is faster (the "
                "kinetic temperature comes out low if frames are widely spaced)"
            )
        self.provenance = {
            "velocities": "file" if self.has_velocities else "central differences",
            "species_names": self.particles.names,
            "MDAnalysis": mdanalysis().__version__,
            "notes": self.notes,
        }

    @property
    def count(self) -> int:
        """Frames in the file."""
        return len(self.files.universe.trajectory)

    def part(self, begin: float, end: float) -> range:
        """Numbers of the frames between the shares ``begin`` and ``end``. Raises ValueError if fewer than two."""
        if not 0.0 <= begin < end <= 1.0:
            raise ValueError(f"begin is {begin} and end {end}; they must be shares, 0 <= begin < end <= 1")
        skip, stride = self.settings.skip, self.settings.stride
        # differences need a neighbour on either side
        edge = 0 if self.has_velocities else 1
        usable = range(max(skip, edge), self.count - edge, stride)
        found = usable[round(begin * len(usable)) : round(end * len(usable))]
        if len(found) < 2:
            raise ValueError(
                f"{self.settings.trajectory} has {self.count} frames, of which skip={skip} and stride={stride} leave "
                f"{len(usable)}; {begin:g} to {end:g} of them are {len(found)}, and a part needs at least 2: give a "
                "longer trajectory"
            )
        return found

    def frames(self, part: range) -> Iterator[Frame]:
        """Every frame of the file from the first to the last of ``part``.

        Raises:
            ValueError: a frame that cannot be used.
        """
        if self.has_velocities:
            yield from self._follow(part[0], part[-1] + 1)
            return
        window: list[Frame] = []
        for frame in self._follow(part[0] - 1, part[-1] + 2):
            window = [*window[-2:], frame]
            if len(window) == 3:
                before, now, after = window
                velocities = (after.positions - before.positions) / (2.0 * self.clock.dt)
                yield Frame(now.index, now.time, now.positions, velocities)

    def _follow(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames ``start`` to ``stop - 1`` with centres that do not jump at the boundary."""
        name, last = self.settings.trajectory, None
        for index in range(start, stop):
            ts = self._read(index)
            now = self.clock.time(ts)
            if last is not None and not self.clock.fits(last.time, now):
                raise ValueError(
                    f"{name}: frames {index - 1} and {index} are {now - last.time:g} apart in time, others "
                    f"{self.clock.dt:g}: frames must be evenly spaced; cut the trajectory at the gap"
                )
            self.cell.check(ts, name, index)
            positions = self._centres(ts, index)
            if last is not None and self.cell.lattice is not None and not self.files.unwrapped:
                positions = self._beside(positions, last)
            last = Frame(index, now, positions, self._velocities(ts, index) if self.has_velocities else None)
            yield last

    def _centres(self, ts: Any, index: int) -> np.ndarray:
        positions, lattice = self._finite(ts.positions, "position", index), self.cell.lattice
        if lattice is None:
            return self.particles.mean(positions)
        if self.files.images:
            images = np.stack([ts.data[c] for c in IMAGES], axis=1)[self.particles.atoms]
            positions = positions + images @ lattice
        joined, step, particle = self.particles.join(positions, lattice)
        if step > JOINED:
            raise ValueError(
                f"{self.settings.trajectory}: in frame {index} two atoms of particle {particle} that stand side by "
                f"side are {step:.2f} of the box apart, too far to join them across the boundary: give a topology with "
                "bonds, or another mapping"
            )
        return self.particles.mean(joined)

    def _beside(self, positions: np.ndarray, last: Frame) -> np.ndarray:
        """The images of ``positions`` next to where the particles were."""
        moved = (positions - last.positions) @ np.linalg.inv(self.cell.lattice)
        images = np.round(moved)
        far = np.abs(moved - images).max(axis=1)
        if far.max() > MOVED:
            raise ValueError(
                f"{self.settings.trajectory}: particle {int(far.argmax())} moves by {far.max():.2f} of the box from "
                f"frame {last.index} to {last.index + 1}, too far to tell through which side: write frames more often, "
                "or unwrapped coordinates (in LAMMPS xu yu zu, or ix iy iz)"
            )
        return positions - images @ self.cell.lattice

    def _velocities(self, ts: Any, index: int) -> np.ndarray:
        if not ts.has_velocities:
            raise ValueError(
                f"{self.settings.trajectory}: frame {index} has no velocities but others have: write both at every "
                "frame, or give velocities=differences"
            )
        return self.particles.mean(self._finite(ts.velocities, "velocity", index))

    def _finite(self, values: np.ndarray, what: str, index: int) -> np.ndarray:
        found = values[self.particles.atoms].astype(np.float64)
        if not np.isfinite(found).all():
            atom = int(self.particles.atoms[np.argwhere(~np.isfinite(found))[0, 0]])
            raise ValueError(
                f"{self.settings.trajectory}: the {what} of atom {atom} in frame {index} is {values[atom].tolist()}: "
                "repair the file, or cut it there"
            )
        return found

    def _read(self, index: int) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ts = self.files.universe.trajectory[index]
        except Exception as error:  # readers raise many kinds
            raise ValueError(
                f"{self.settings.trajectory}: frame {index} cannot be read: {one_line(error)} (is it cut short, or "
                "does the number of atoms change?)"
            ) from error
        if not ts.has_positions:
            raise ValueError(f"{self.settings.trajectory}: frame {index} has no positions")
        return ts
