"""Forces between the reference neighbours of a solid, from the energy that their strain stores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gnn_metriplectic.geometry import dot
from gnn_metriplectic.terms.strain import Strain


@dataclass(frozen=True)
class ElasticForces:
    """-∂U_dev/∂r of pairs that do not change.

    Not central: a pair has a torque, but those of all pairs cancel, as U_dev knows no rotations.

    Attributes:
        strain: of each particle.
        stiffness: ∂U_dev/∂measure, ``[N, K]``.
    """

    strain: Strain
    stiffness: Tensor

    @cached_property
    def shares(self) -> tuple[Tensor, Tensor]:
        """The parts of the force on i from the energies of i and of j, each ``[B, D]``."""
        return self.strain.share_forces(self.stiffness)

    def forces(self) -> Tensor:
        """``[N, D]``."""
        return self.strain.bonds.pairs.net(sum(self.shares))

    def power(self, velocities: Tensor) -> Tensor:
        """Work a time that the energy of each particle does, -dU_dev/dt at velocities ``[N, D]``; ``[N]``."""
        pairs = self.strain.bonds.pairs
        relative = pairs.relative(velocities)
        return pairs.total_of_ends(*(dot(share, relative) for share in self.shares))

    def virials(self) -> Tensor:
        """Σ r_ij ⊗ f_ij of each particle, half of a pair to each end, ``[N, D, D]``."""
        pairs = self.strain.bonds.pairs
        return 0.5 * pairs.total(torch.einsum("ei,ej->eij", pairs.displacement, sum(self.shares)))
