"""Pair potentials of several species whose values are found by a linear equation, not by gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.potential import PairPotential, core_coordinate
from gnn_metriplectic.terms.tabulated import CubicSpline, smooth_nodes


class MeasuredPotential(PairPotential):
    """φ of each kind of pair as a spline through values at even distances of its `core_coordinate`; zero at first.

    `learning.force_matching` finds the values.

    Args:
        cutoff: h.
        nodes: of each spline, beside that at the cutoff, where φ and its slope are zero.
        species: number of species.
    """

    def __init__(self, cutoff: float, *, nodes: int, species: int = 1) -> None:
        super().__init__(cutoff, energy=1.0)
        if nodes < 2:
            raise ValueError(f"nodes of the potential are {nodes}; it takes at least 2")
        self.nodes, self.kinds = nodes, species * (species + 1) // 2
        self.spline = CubicSpline((0.0, 1.0), *smooth_nodes(torch.zeros(nodes, self.kinds)))

    def pass_through(self, values: Tensor) -> None:
        """Take the ``values [K, nodes]``, energies, of kinds (0, 0), (1, 0), (1, 1), (2, 0), ... of species."""
        self.spline.load_state_dict(dict(zip(("value", "slope"), smooth_nodes(values.T), strict=True)))

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        place, rate = self._place(pairs)
        kind = self._kind(pairs, species).unsqueeze(1)
        value, slope = (x.gather(1, kind).squeeze(1) for x in self.spline.jet(place))
        return value, slope * rate

    def force_of_nodes(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        """Forces on particles if one node of one kind is 1 and all others zero, ``[N, D, K nodes]``."""
        place, rate = self._place(pairs)
        basis = CubicSpline((0.0, 1.0), *smooth_nodes(torch.eye(self.nodes)))
        slope = basis.jet(place)[1] * rate.unsqueeze(1)
        force = -slope.unsqueeze(1) * (pairs.displacement / pairs.distance.unsqueeze(1)).unsqueeze(2)
        kind = self._kind(pairs, species)
        total = force.new_zeros(pairs.num_particles * self.kinds, *force.shape[1:])
        for end, sign in zip(pairs.index, (1.0, -1.0), strict=True):
            total.index_add_(0, end * self.kinds + kind, force, alpha=sign)
        return total.unflatten(0, (-1, self.kinds)).transpose(1, 2).flatten(2)

    def _place(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The coordinate of each pair, and its slope in r, both ``[E]``."""
        rho = pairs.distance / self.cutoff
        place, rate = core_coordinate(rho * rho)
        return place, rate * 2.0 * rho / self.cutoff

    def _kind(self, pairs: Pairs, species: Tensor | None) -> Tensor:
        """Which spline is that of each pair, ``[E]``."""
        if self.kinds == 1 or species is None:
            return pairs.index[0] * 0
        ends = torch.stack(pairs.ends(species))
        low, high = ends.amin(dim=0), ends.amax(dim=0)
        return high * (high + 1) // 2 + low
