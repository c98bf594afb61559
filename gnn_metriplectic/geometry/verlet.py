"""Pairs along a trajectory, searched again only when particles have moved.

L. Verlet, Phys. Rev. 159, 98 (1967).
"""

from __future__ import annotations

from torch import Tensor

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.geometry.neighbors import Pairs, check_positions, image_offset, images_within, neighbor_pairs

# of the cutoff; a thicker one is searched less often and sifted longer (docs/decisions.md)
SKIN = 0.15


class VerletList:
    """The pairs of `neighbor_pairs`, sifted from a list that reaches a skin further.

    The list holds until a particle has moved half the skin. Lees-Edwards images move against each other
    wherever particles are, so that a sheared box is searched at each call.

    Args:
        box: where the particles live.
        cutoff: in units of length.
        backend: of the search.

    Attributes:
        searches: how many there were.
    """

    def __init__(self, box: Box, cutoff: float, *, backend: str = "auto") -> None:
        self.box, self.cutoff, self.backend = box, cutoff, backend
        self.searches = 0
        self._origin: Tensor | None = None

    def pairs(self, pos: Tensor, time: float = 0.0) -> Pairs:
        """Pairs closer than the cutoff at ``pos`` ``[N, D]``, without gradient; errors as of `neighbor_pairs`."""
        pos = pos.detach()
        if self.box.shear_rate:
            self.searches += 1
            return neighbor_pairs(pos, self.box, self.cutoff, time, backend=self.backend)
        if not self._holds(pos):
            self._search(pos, time)
        displacement = pos.index_select(0, self._index[0]) - pos.index_select(0, self._index[1])
        if self._offset is not None:
            displacement = displacement - self._offset
        near = (displacement.square().sum(dim=1) < self.cutoff**2).nonzero().squeeze(1)
        volume = None if self.box.is_free else self.box.volume
        return Pairs(self._index.index_select(1, near), displacement.index_select(0, near), pos.shape[0], volume=volume)

    def _holds(self, pos: Tensor) -> bool:
        if self._origin is None or self._origin.shape != pos.shape or self._origin.dtype != pos.dtype:
            return False
        # a comparison with NaN is false, and the search then names the particle
        return bool(((pos - self._origin).square().sum(dim=1) < (0.5 * SKIN * self.cutoff) ** 2).all())

    def _search(self, pos: Tensor, time: float) -> None:
        check_positions(pos, self.box)
        self.box.check_cutoff(self.cutoff)
        radius = (1.0 + SKIN) * self.cutoff
        self._index, shift = images_within(pos, self.box, radius, time, self.backend)
        self._offset = None if self.box.is_free else image_offset(shift, self.box, time, pos)
        self._origin, self.searches = pos.clone(), self.searches + 1
