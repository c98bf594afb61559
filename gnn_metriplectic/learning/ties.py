"""Ties: what is known of the model without a look at the future, as penalties in nats a particle.

    volume        the scale of W is a gauge, along which no likelihood changes: the mean volume is that of the data
    temperature   in local equilibrium k_B <T> is that of the trajectory
    forces        at rest the mean force keeps the structure of the data (`balance`)

The square of an imbalance of forces in one batch would mostly be its noise, which a penalty would lower by weakening
the forces. So it is taken of a running mean, with the gradient of the batch at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnn_metriplectic.learning.balance import FUNCTIONS, imbalance

# batches over which the mean runs: with 50 the forces overshot, ever more
MEMORY = 10
# stiffness of the mean volume, and of the mean temperature of each graph
VOLUME, TEMPERATURE = 10.0, 100.0
# of the share of the mean square force that is missing
FORCES = 10.0


class Ties(nn.Module):
    """The penalties, and the running mean of the moments of forces."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forces", torch.zeros(FUNCTIONS, FUNCTIONS + 2))

    def follow(self, moments: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """The moments of a batch, those of forces as their running mean with the gradient of this batch."""
        if "forces" not in moments:
            return moments
        value = moments["forces"]
        self.forces.lerp_(value.detach().to(self.forces), max(1.0 / (1 + step), 1.0 / MEMORY))
        return {**moments, "forces": self.forces + (value - value.detach())}

    def forward(self, moments: dict[str, Tensor]) -> Tensor:
        """The penalty, 0-dim, of at least one tie.

        Args:
            moments: means of what is tied. ``volume``, 0-dim, in units of what is due to a particle. ``temperature``,
                0-dim, mean square over graphs of k_B <T> over that of the trajectory, less one. ``forces``, of
                `balance`.
        """
        penalties = []
        if "volume" in moments:
            penalties.append(VOLUME * torch.log(moments["volume"]) ** 2)
        if "temperature" in moments:
            penalties.append(TEMPERATURE * moments["temperature"])
        if "forces" in moments:
            penalties.append(FORCES * imbalance(moments["forces"]))
        return torch.stack(penalties).sum()
