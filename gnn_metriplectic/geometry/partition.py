"""Pairs of a large system in blocks that fit the cache with all that is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnn_metriplectic.geometry.box import Box

# pairs a block (docs/performance.md)
BLOCK = 1 << 16


class Partition:
    """Particles of blocks of pairs; a particle is in each block that has a pair of it.

    A sum over pairs is the sum over blocks, each of which is a system of its own members.

    Args:
        num_particles: N.
        members: of each block, which particles they are, ``[n]``; None for one block of all, as they come.
    """

    def __init__(self, num_particles: int, members: Sequence[Tensor] | None = None) -> None:
        self.num_particles, self.members = num_particles, members

    def split(self, values: Tensor | None) -> Sequence[Tensor | None]:
        """Values of particles ``[N, ...]`` as values of members, ``[n, ...]`` of each block; None as None."""
        if self.members is None:
            return (values,)
        if values is None:
            return [None] * len(self.members)
        by_columns = values.movedim(0, -1).contiguous()
        return [by_columns.index_select(-1, members).movedim(-1, 0) for members in self.members]

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """Sum over blocks of values of their members, ``[n, ...]`` each -> ``[N, ...]``."""
        if self.members is None:
            return parts[0]
        shape = parts[0].shape[1:]
        total = parts[0].new_zeros(shape.numel(), self.num_particles)
        for members, part in zip(self.members, parts, strict=True):
            # one column after the other: a third of the time of adding rows, or of a sparse product
            for row, column in zip(total, part.flatten(1).T if shape else part.unsqueeze(0), strict=True):
                row.index_add_(0, members, column)
        return total.view(*shape, self.num_particles).movedim(-1, 0)


def spatial_order(pos: Tensor, box: Box, length: float, time: float = 0.0) -> Tensor:
    """Order of particles ``[N]`` in which those near to each other are mostly near in space: Z-order of cubic cells.

    Morton, *A computer oriented geodetic data base* (IBM, 1966).

    Args:
        pos: ``[N, D]``, in units of length.
        box: where the particles live.
        length: edge of a cell.
        time: in units of time; only a sheared box looks at it.
    """
    wrapped = box.wrap(pos, time)
    cells = torch.div(wrapped - wrapped.amin(dim=0), length, rounding_mode="floor").long()
    key, dimension = torch.zeros_like(cells[:, 0]), cells.shape[1]
    # 63 bits of a key; cells beyond share a place
    for bit in range(min(int(cells.max()).bit_length(), 63 // dimension)):
        for axis, along in enumerate(cells.T):
            key |= (along >> bit & 1) << (dimension * bit + axis)
    return torch.argsort(key, stable=True)
