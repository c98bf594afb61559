"""Any molecular-dynamics trajectory that MDAnalysis reads, one particle a molecule, residue, fragment or group.

A particle is at its atoms' centre of mass and has their mean velocity. In every frame its atoms are joined
across the boundary, along bonds where they are known; then the centres are followed through the boundary from
frame to frame. Numbers are in Angstrom, ps and amu where the file tells its units, and else as they stand in it.

Gowers et al., Proc. 15th Python in Science Conf. 98 (2016).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from gnn_metriplectic.systems.molecular.settings import TrajectorySettings
from gnn_metriplectic.systems.molecular.source import Frame, Source
from gnn_metriplectic.trajectory import TrajectoryWriter


@dataclass(frozen=True)
class TrajectorySystem(TrajectorySettings):
    """Particles of a trajectory; attributes and errors are those of `TrajectorySettings`."""

    # a trajectory is read from beginning to end
    serial: ClassVar[bool] = True

    def generate(
        self, path: Path, *, begin: float, end: float, seed: int, advance: Callable[[float, str], None]
    ) -> None:
        """Write the particles of one part of the trajectory to ``path``.

        Args:
            path: of the H5MD file.
            begin, end: of the part, as shares of the frames.
            seed: not used.
            advance: told the share that is done, and the name of the stage.

        Raises:
            ValueError: files that cannot be read or do not hold what the settings ask for, an uneven time, a box
                that changes, a centre that moves too far, or velocities that do not fit the displacements.
            FileNotFoundError: for a file that is not there, or without MDAnalysis.
        """
        advance(0.0, "opening")
        source = Source(self)
        part = source.part(begin, end)
        for note in source.notes:
            warnings.warn(note, stacklevel=2)
        metadata = {"system": "trajectory", "settings": asdict(self), "first_frame": part[0], "last_frame": part[-1]}
        fit = _VelocityFit(self.trajectory, source.clock.dt) if source.has_velocities else None
        with TrajectoryWriter(
            path,
            box=source.cell.box,
            dt=source.clock.dt * self.stride,
            mass=source.particles.mass,
            species=source.particles.species,
            units=source.files.units,
            metadata={**metadata, **source.provenance},
        ) as writer:
            for frame in source.frames(part):
                if fit is not None:
                    fit.add(frame)
                if (frame.index - part[0]) % self.stride == 0:
                    where = slice(self.dimension)
                    writer.append(frame.positions[:, where], frame.velocities[:, where], time=frame.time)
                advance((frame.index - part[0] + 1) / (part[-1] - part[0] + 1), path.parent.name)
            if fit is not None:
                fit.check()


class _VelocityFit:
    """Whether displacements from frame to frame are velocity times time: if not, units or time step are wrong."""

    def __init__(self, name: str, dt: float) -> None:
        self.name, self.dt, self.last = name, dt, None
        self.along = self.squared = self.before = self.correlated = 0.0
        self.values = 0

    def add(self, frame: Frame) -> None:
        """Compare a frame with the one before."""
        last, self.last = self.last, frame
        if last is None:
            return
        mean = 0.5 * self.dt * (frame.velocities + last.velocities)
        self.along += float((mean * (frame.positions - last.positions)).sum())
        self.squared += float((mean**2).sum())
        self.before += float((last.velocities**2).sum())
        self.correlated += float((last.velocities * frame.velocities).sum())
        self.values += mean.size

    def check(self) -> None:
        """Raise ValueError where they do not fit; where frames are wide apart only excess can be told."""
        if self.values < 300 or not self.squared > 0.0:
            return
        ratio, memory = self.along / self.squared, self.correlated / self.before
        least, most = (0.8, 1.25) if memory > 0.8 else (-math.inf, 2.5)
        if not least < ratio < most:
            raise ValueError(
                f"{self.name}: particles move by {ratio:.3g} times their velocity times the time between frames, "
                f"{self.dt:g}: timestep=..., spacing=... or the units do not fit (give velocities=differences if its "
                "velocities are not to be used)"
            )
