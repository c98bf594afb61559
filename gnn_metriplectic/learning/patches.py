"""Snapshots cut into spatial patches, for systems whose snapshots do not fit into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Box


@dataclass(frozen=True)
class Patch:
    """Particles of a patch and of the halo around it.

    Attributes:
        members: ``[n]`` int64, numbers of the particles.
        interior: ``[n]`` bool, those in the patch itself; every particle is interior to one patch.
    """

    members: Tensor
    interior: Tensor


def patch_grid(box: Box, particles: int, size: int, positions: Tensor) -> tuple[int, ...]:
    """Patches along each lattice vector, so that about ``size`` particles are in one.

    Args:
        box: where the particles are.
        particles: their number.
        size: particles a patch, without its halo.
        positions: ``[N, D]``, whose extent counts in free space.
    """
    extents = _heights(box.lattice_at(0.0)) if not box.is_free else _extent(positions)
    edge = (float(extents.prod()) * size / particles) ** (1.0 / box.dimension)
    return tuple(max(1, math.ceil(float(extent) / edge - 1e-9)) for extent in extents)


def patch(pos: Tensor, box: Box, grid: tuple[int, ...], number: int, halo: float, time: float = 0.0) -> Patch:
    """One patch of a snapshot with what lies within ``halo`` of it.

    Args:
        pos: ``[N, D]``, in units of length.
        box: where the particles are.
        grid: of `patch_grid`.
        number: which patch, from 0.
        halo: in units of length.
        time: of the snapshot; only a sheared box looks at it.
    """
    place = torch.tensor([number // math.prod(grid[:k]) % grid[k] for k in range(len(grid))])
    counts = torch.tensor(grid)
    if box.is_free:
        extent, origin = _extent(pos), pos.amin(dim=0)
        fractional = ((pos - origin) / extent).clamp(max=1.0 - 1e-9)
        reach = halo / extent
    else:
        lattice = box.lattice_at(time)
        fractional = pos @ torch.linalg.inv(lattice)
        fractional = fractional - torch.floor(fractional)
        reach = halo / _heights(lattice)
    low, high = place / counts, (place + 1) / counts
    # round-off must leave no particle without a patch
    cell = torch.minimum((fractional * counts).long(), counts - 1)
    interior = (cell == place).all(dim=1)
    below, above = low - fractional, fractional - high
    if box.is_free:
        near = (below <= reach) & (above <= reach)
    else:  # the nearest image on either side
        near = (cell == place) | (below - torch.floor(below) <= reach) | (above - torch.floor(above) <= reach)
    near = near.all(dim=1)
    members = near.nonzero().squeeze(1)
    return Patch(members, interior[members])


def _heights(lattice: Tensor) -> Tensor:
    """Distances between opposite faces of a cell, ``[D]``."""
    return 1.0 / torch.linalg.inv(lattice).norm(dim=0)


def _extent(pos: Tensor) -> Tensor:
    return (pos.amax(dim=0) - pos.amin(dim=0)).clamp(min=1e-300)
