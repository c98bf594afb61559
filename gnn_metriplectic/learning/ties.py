"""Ties: what is known of the model without a look at the future, as penalties in nats a particle.

    volume        the scale of W is a gauge, along which no likelihood changes: the mean volume is that of the data
    temperature   in local equilibrium k_B <T> is the kinetic temperature
    forces        at rest the mean force keeps the structure of the data (`balance`)

A penalty of squares of single snapshots would also punish their fluctuations, and pull the temperatures of unlike
trajectories together. So squares are taken of running means, with the gradient of the batch at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnn_metriplectic.learning.balance import FUNCTIONS, imbalance

# batches over which means run: with many, what follows the mean overshoots
MEMORY = 10
# stiffness of the mean volume, and of the mean temperature and its slope over the trajectories
VOLUME, TEMPERATURE = 50.0, 200.0
# of the temperature of each snapshot
SPREAD = 20.0
# of the share of the mean square force that is missing
FORCES = 10.0


class Ties(nn.Module):
    """Running means of the moments that ties hold."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.zeros(3))
        self.register_buffer("forces", torch.zeros(FUNCTIONS, FUNCTIONS + 2))

    def follow(self, moments: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Running means with the gradient of this batch, of all but the volume, which hardly fluctuates."""
        weight = max(1.0 / (1 + step), 1.0 / MEMORY)
        found = dict(moments)
        for name, running in self.named_buffers():
            if name in moments:
                running.lerp_(moments[name].detach().to(running), weight)
                found[name] = running + (moments[name] - moments[name].detach())
        return found

    def forward(self, moments: dict[str, Tensor]) -> Tensor:
        """The penalty, 0-dim, of at least one tie.

        Args:
            moments: means of what is tied. ``volume``, 0-dim, in units of what is due to a particle. ``temperature``,
                ``[3]``, of the deviation of k_B <T> of a graph from the kinetic temperature, relative to it: its mean,
                that with the standing of its trajectory among the temperatures of all, and its mean square.
                ``forces``, of `balance`.
        """
        penalties = []
        if "volume" in moments:
            penalties.append(VOLUME * torch.log(moments["volume"]) ** 2)
        if "temperature" in moments:
            mean, slope, square = moments["temperature"]
            penalties.append(TEMPERATURE * (mean**2 + slope**2) + SPREAD * square)
        if "forces" in moments:
            penalties.append(FORCES * imbalance(moments["forces"]))
        return torch.stack(penalties).sum()
