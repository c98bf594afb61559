"""The periodic box of a trajectory: that of the file, or what its user says, and whether it keeps its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnn_metriplectic.geometry import Box
from gnn_metriplectic.systems.molecular.files import Files
from gnn_metriplectic.systems.molecular.settings import TrajectorySettings

# relative change of a length that is more than rounding in a file
RIGID = 2e-5


@dataclass(frozen=True)
class Cell:
    """The box.

    Attributes:
        box: of the particles.
        lattice: ``[3, 3]`` of the atoms, one edge a row; None in free space.
        dimensions: ``[6]`` edges and angles as the file tells them; None if it does not.
    """

    box: Box
    lattice: np.ndarray | None
    dimensions: np.ndarray | None

    def check(self, ts: Any, name: str, index: int) -> None:
        """Raise ValueError if frame ``index`` of the file ``name`` has another box."""
        if self.dimensions is None:
            return
        now = None if ts.dimensions is None else np.array(ts.dimensions)
        if now is None or (np.abs(now - self.dimensions) > RIGID * np.abs(self.dimensions)).any():
            raise ValueError(
                f"{name}: the box is {'gone' if now is None else _rounded(now)} in frame {index} and "
                f"{_rounded(self.dimensions)} before: only boxes that keep their shape are supported; run at constant "
                "volume (NVT or NVE)"
            )


def read_cell(settings: TrajectorySettings, files: Files, ts: Any) -> Cell:
    """The box of a trajectory, of which ``ts`` is a frame.

    Raises:
        ValueError: a box that is missing, told twice, periodic in some directions only, or flat.
    """
    name, given, boundary = settings.trajectory, settings.box, files.boundary
    found = None if ts.dimensions is None else np.array(ts.dimensions)
    periodic = ["p" in side for side in boundary[: settings.dimension]]
    if given == "free" or (boundary and not any(periodic)):
        return Cell(Box.free(settings.dimension), None, None)
    if not all(periodic):
        raise ValueError(
            f"{name} has boundaries {' '.join(boundary)}; only all periodic or none are supported (box=free takes "
            "them for none)"
        )
    if found is None and given is None:
        raise ValueError(f"{name} has no box: give its edges, box=[...], or box=free")
    if found is not None and given is not None:
        raise ValueError(f"box is {list(given)}, but {name} has a box of its own, {_rounded(found)}: leave it out")
    lattice = _lattice(settings, found if given is None else [*given, *given[:1]][:3] + [90.0] * 3)
    return Cell(Box.triclinic(lattice[: settings.dimension, : settings.dimension]), lattice, found)


def _lattice(settings: TrajectorySettings, dimensions: Sequence[float]) -> np.ndarray:
    from MDAnalysis.lib.mdamath import triclinic_vectors

    # lengths are read in float32: take the decimal number that was meant
    values = np.array([float(str(x)) for x in dimensions])
    lattice = triclinic_vectors(values, dtype=np.float64)
    if not np.linalg.det(lattice) > 0.0:
        raise ValueError(
            f"{settings.trajectory} has a box of edges and angles {_rounded(values)}, which holds no volume"
        )
    if settings.dimension == 2:
        if (lattice[2, :2] != 0.0).any():
            raise ValueError(f"the third edge of the box is {_rounded(lattice[2])}; dimension=2 needs it along z")
        # where atoms are along z is left out, and cannot take them through a boundary
        lattice[2, 2] = 1e6 * lattice[:2].max()
    return lattice


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{v:.6g}") for v in values]
