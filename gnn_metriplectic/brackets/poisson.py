"""The reversible part of the dynamics: L ∇E with L antisymmetric and L ∇S = 0.

    dr_i = v_i dt,    m dv_i = -Σ_j [(P_i V_i² + P_j V_j²) W'(r_ij) + φ'(r_ij)] e_ij dt,    dS_i = 0

and in a solid the elastic forces beside them.

    symbol      variable
    P_i V_i²    strength
    W'          slope
    φ'          tension
    e_ij        pairs.direction

Español and Revenga, Phys. Rev. E 67, 026705 (2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnn_metriplectic.brackets.elastic import ElasticForces
from gnn_metriplectic.geometry import Pairs, dot


@dataclass(frozen=True)
class PoissonBracket:
    """Forces that come from the energy of the particles: central ones of pairs, and elastic ones of a solid.

    Attributes:
        pairs: the interacting pairs.
        slope: W' of each pair, ``[E]``.
        pressure: P of each particle, ``[N]``.
        volume: V of each particle, ``[N]``.
        elastic: forces of reference neighbours, or None in a fluid.
        tension: φ' of each pair, ``[E]``, or None without a pair potential.
    """

    pairs: Pairs
    slope: Tensor
    pressure: Tensor
    volume: Tensor
    elastic: ElasticForces | None = None
    tension: Tensor | None = None

    @property
    def strength(self) -> Tensor:
        """P V² of each particle, ``[N]``."""
        return self.pressure * self.volume**2

    def pair_forces(self) -> Tensor:
        """Central force f_ij on i of each pair (j feels the opposite), ``[E, D]``."""
        pull = self.slope * self.pairs.sum_of_ends(self.strength)
        if self.tension is not None:
            pull = pull + self.tension
        return -pull.unsqueeze(1) * self.pairs.direction

    def forces(self) -> Tensor:
        """-∂E/∂r, ``[N, D]``."""
        central = self.pairs.net(self.pair_forces())
        return central if self.elastic is None else central + self.elastic.forces()

    def power(self, velocities: Tensor) -> Tensor:
        """Work a time that the energy of each particle does, -dU/dt at fixed entropy; ``[N]``.

        Args:
            velocities: ``[N, D]``.
        """
        closing = -dot(self.pairs.direction, self.pairs.relative(velocities))
        central = self.strength * self.pairs.total(self.slope * closing)
        if self.tension is not None:
            central = central + 0.5 * self.pairs.total(self.tension * closing)
        return central if self.elastic is None else central + self.elastic.power(velocities)

    def virials(self) -> Tensor:
        """Σ r_ij ⊗ f_ij of each particle, half of a pair to each end, ``[N, D, D]``."""
        products = torch.einsum("ei,ej->eij", self.pairs.displacement, self.pair_forces())
        central = 0.5 * self.pairs.total(products)
        return central if self.elastic is None else central + self.elastic.virials()


def poisson_matrix(mass: Tensor, dimension: int) -> Tensor:
    """Dense canonical L over [r.ravel(), v.ravel(), S], square of side N (2 D + 1).

    Args:
        mass: of each particle, ``[N]``.
        dimension: D.
    """
    inverse = torch.diag((1.0 / mass).repeat_interleave(dimension))
    side, count = inverse.shape[0], mass.shape[0]
    matrix = mass.new_zeros(2 * side + count, 2 * side + count)
    matrix[:side, side : 2 * side] = inverse
    matrix[side : 2 * side, :side] = -inverse
    return matrix
