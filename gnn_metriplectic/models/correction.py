"""The potential of pairs that is added to a learned model once it is trained (`learning.structure`)."""

from __future__ import annotations

import torch

from gnn_metriplectic.terms import PairPotential, PotentialSum
from gnn_metriplectic.terms.tabulated import TabulatedPotential


def corrected(potential: PairPotential | None, correction: int | None, cutoff: float) -> PairPotential | None:
    """The potential and one of so many nodes that is zero as yet; either may be None."""
    if correction is None:
        return potential
    second = TabulatedPotential.between(cutoff, torch.zeros(correction))
    return second if potential is None else PotentialSum(potential, second)
