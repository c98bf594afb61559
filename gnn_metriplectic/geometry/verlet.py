"""Pairs along a trajectory, searched again only when particles have moved.

L. Verlet, Phys. Rev. 159, 98 (1967).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.geometry.neighbors import Pairs, check_positions, image_offset, image_speed, images_within
from gnn_metriplectic.geometry.partition import BLOCK, Partition, spatial_order

# of the cutoff; a thicker one is searched less often and sifted longer (docs/decisions.md)
SKIN = 0.15


class _Listed(NamedTuple):
    """The pairs of a block with the skin: ``index`` ``[2, L]``, and what the images of j are moved by ``[L, D]``."""

    index: Tensor
    offset: Tensor | None
    velocity_shift: Tensor | None


class VerletList:
    """The pairs of `neighbor_pairs`, sifted from a list that reaches a skin further, in blocks.

    The list holds until a particle has moved half the skin. Lees-Edwards images move against each other
    wherever particles are, so that a sheared box is searched at each call.

    Args:
        box: where the particles live.
        cutoff: in units of length.
        backend: of the search.
        block: pairs a block, before they are sifted. Up to so many are one block, in the order of `neighbor_pairs`;
            more are put in spatial order.

    Attributes:
        searches: how many there were.
    """

    def __init__(self, box: Box, cutoff: float, *, backend: str = "auto", block: int = BLOCK) -> None:
        self.box, self.cutoff, self.backend, self.block = box, cutoff, backend, block
        self.searches = 0
        self._origin: Tensor | None = None
        self._large = False
        self._listed: list[_Listed] = []

    def pairs(self, pos: Tensor, time: float = 0.0) -> tuple[Partition, list[Pairs]]:
        """Blocks of particles and the pairs of each closer than the cutoff at ``pos`` ``[N, D]``, without gradient.

        Raises ValueError as `neighbor_pairs` does.
        """
        pos = pos.detach()
        if not self._holds(pos):
            self._search(pos, time)
        partition = self._partition
        return partition, [self._sifted(*block) for block in zip(self._listed, partition.split(pos), strict=True)]

    def _sifted(self, listed: _Listed, pos: Tensor) -> Pairs:
        index, offset, velocity_shift = listed
        pos = pos.contiguous()  # those of a block are by columns
        displacement = pos.index_select(0, index[0]) - pos.index_select(0, index[1])
        if offset is not None:
            displacement = displacement - offset
        near = (displacement.square().sum(dim=1) < self.cutoff**2).nonzero().squeeze(1)
        if velocity_shift is not None:
            velocity_shift = velocity_shift.index_select(0, near)
        volume = None if self.box.is_free else self.box.volume
        return Pairs(index.index_select(1, near), displacement.index_select(0, near), len(pos), velocity_shift, volume)

    def _holds(self, pos: Tensor) -> bool:
        if self.box.shear_rate or self._origin is None:
            return False
        if self._origin.shape != pos.shape or self._origin.dtype != pos.dtype:
            return False
        # a comparison with NaN is false, and the search then names the particle
        return bool(((pos - self._origin).square().sum(dim=1) < (0.5 * SKIN * self.cutoff) ** 2).all())

    def _search(self, pos: Tensor, time: float) -> None:
        check_positions(pos, self.box)
        self.box.check_cutoff(self.cutoff)
        self._listed = []  # of large systems a search takes as much memory again
        radius = self.cutoff if self.box.shear_rate else (1.0 + SKIN) * self.cutoff
        order = spatial_order(pos, self.box, radius, time) if self._large else None
        placed = pos if order is None else pos.index_select(0, order)
        blocks = images_within(placed, self.box, radius, time, self.backend, self.block)
        if order is None:
            blocks = list(blocks)
            if len(blocks) > 1:
                self._large = True
                self._search(pos, time)
                return
        members = []
        for index, shift in blocks:
            if order is not None:
                places, index = torch.unique(index, return_inverse=True)
                members.append(order[places])
            offset = None if self.box.is_free else image_offset(shift, self.box, time, pos)
            # half the memory, where it counts
            self._listed.append(_Listed(index.int() if members else index, offset, image_speed(shift, self.box, pos)))
        self._partition = Partition(pos.shape[0], members or None)
        self._origin, self.searches = pos.clone(), self.searches + 1
