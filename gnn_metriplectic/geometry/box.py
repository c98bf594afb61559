"""Simulation boxes: free space, periodic cells of any shape, and Lees-Edwards shear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """Free space, or a cell that repeats in every direction.

    The rows of ``lattice`` are the lattice vectors, in units of length. With a ``shear_rate`` the
    images along y slide along x (Lees and Edwards, J. Phys. C 5, 1921, 1972): the image n cells up
    is displaced by ``n * shear_rate * L_y * t`` and moves ``n * shear_rate * L_y`` faster.
    Positions and velocities stay unwrapped; only differences between particles see the box.

    Attributes:
        dimension: 2 or 3.
        lattice: D rows of D floats, lower triangular (LAMMPS' convention), or None in free space.
        shear_rate: velocity gradient dv_x/dy, in units of inverse time.
    """

    dimension: int
    lattice: tuple[tuple[float, ...], ...] | None = None
    shear_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.dimension not in (2, 3):
            raise ValueError(f"box dimension is {self.dimension}; it must be 2 or 3")
        if self.lattice is None:
            if self.shear_rate:
                raise ValueError("free space has no images to shear: give a periodic box or shear_rate=0")
            return
        rows = tuple(tuple(float(x) for x in row) for row in self.lattice)
        object.__setattr__(self, "lattice", rows)
        if len(rows) != self.dimension or any(len(row) != self.dimension for row in rows):
            raise ValueError(f"box lattice {rows} is not {self.dimension} x {self.dimension}")
        flat = [x for row in rows for x in row] + [self.shear_rate]
        if not all(math.isfinite(x) for x in flat):
            raise ValueError(f"box lattice {rows} or shear rate {self.shear_rate} is not finite")
        if any(rows[i][j] != 0.0 for i in range(self.dimension) for j in range(i + 1, self.dimension)):
            raise ValueError(
                f"box lattice {rows} is not lower triangular: rotate the system so that a is along x and b in the "
                "xy plane"
            )
        if self.shear_rate and self.dimension == 3 and rows[2][1] != 0.0:
            raise ValueError(f"a sheared box needs its third lattice vector without y component; it is {rows[2]}")
        if any(rows[i][i] <= 0.0 for i in range(self.dimension)):
            raise ValueError(f"box lengths {[rows[i][i] for i in range(self.dimension)]} must be positive")

    @classmethod
    def free(cls, dimension: int) -> Box:
        """Unbounded space."""
        return cls(dimension)

    @classmethod
    def cubic(cls, length: float, dimension: int, *, shear_rate: float = 0.0) -> Box:
        """Periodic cube (square in two dimensions) of edge ``length``."""
        return cls.orthorhombic([length] * dimension, shear_rate=shear_rate)

    @classmethod
    def orthorhombic(cls, lengths: Sequence[float], *, shear_rate: float = 0.0) -> Box:
        """Periodic box with edges ``lengths`` along the axes."""
        rows = tuple(tuple(float(x) if i == j else 0.0 for j in range(len(lengths))) for i, x in enumerate(lengths))
        return cls(len(lengths), rows, shear_rate)

    @classmethod
    def triclinic(cls, lattice: Sequence[Sequence[float]] | Tensor, *, shear_rate: float = 0.0) -> Box:
        """Periodic cell whose lattice vectors are the rows of ``lattice`` (lower triangular)."""
        rows = tuple(tuple(float(x) for x in row) for row in lattice)
        return cls(len(rows), rows, shear_rate)

    @property
    def is_free(self) -> bool:
        """Whether space is unbounded."""
        return self.lattice is None

    @property
    def lengths(self) -> tuple[float, ...]:
        """Edges along the axes (the diagonal of the lattice). Raises ValueError in free space."""
        if self.lattice is None:
            raise ValueError("a free box has no lengths")
        return tuple(self.lattice[i][i] for i in range(self.dimension))

    @property
    def volume(self) -> float:
        """Volume (area in two dimensions) of the cell. Raises ValueError in free space."""
        return math.prod(self.lengths)

    @property
    def velocity_gradient(self) -> float:
        """Velocity difference across one cell along y, in units of velocity."""
        return 0.0 if self.lattice is None else self.shear_rate * self.lengths[1]

    def lattice_at(self, time: float) -> Tensor:
        """Lattice at ``time``: ``[D, D]`` float64, the sheared row reduced to the nearest equivalent tilt."""
        if self.lattice is None:
            raise ValueError("a free box has no lattice")
        lattice = torch.tensor(self.lattice, dtype=torch.float64)
        if self.shear_rate:
            tilt = self.lattice[1][0] + self.velocity_gradient * time
            lattice[1, 0] = tilt - self.lengths[0] * round(tilt / self.lengths[0])
        return lattice

    @property
    def height(self) -> float:
        """Smallest distance between opposite faces, at any strain; infinite in free space."""
        if self.lattice is None:
            return math.inf
        times = [0.0]
        if self.shear_rate:  # the most tilted cell of the cycle
            half = 0.5 * self.lengths[0] - self.lattice[1][0]
            times.append(half / self.velocity_gradient)
        return min(float((1.0 / torch.linalg.inv(self.lattice_at(t)).norm(dim=0)).min()) for t in times)

    def check_cutoff(self, cutoff: float) -> None:
        """Raise ValueError unless at most one image of a particle can be within ``cutoff``.

        The bound is half the smallest distance between opposite faces, at any strain.
        """
        if not (math.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff is {cutoff}; it must be a positive length")
        height = self.height
        if cutoff > 0.5 * height:
            raise ValueError(
                f"cutoff {cutoff:g} is over half the box ({height:g} between opposite faces): "
                f"use a larger box or a cutoff up to {0.5 * height:g}"
            )

    def nearest(self, displacement: Tensor) -> Tensor:
        """The image of each ``displacement`` ``[..., D]`` that is closest to zero; for those under half the box."""
        if self.lattice is None:
            return displacement
        lattice = self.lattice_at(0.0).to(displacement)
        return displacement - torch.round(displacement.detach() @ torch.linalg.inv(lattice)) @ lattice

    def wrap(self, positions: Tensor, time: float = 0.0) -> Tensor:
        """Positions ``[..., D]`` moved into the cell (unchanged in free space)."""
        if self.lattice is None:
            return positions
        lattice = self.lattice_at(time).to(positions)
        fractional = positions @ torch.linalg.inv(lattice)
        return (fractional - torch.floor(fractional)) @ lattice
