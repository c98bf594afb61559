"""The density kernel: how much of particle j counts for the density at particle i."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.jets import ScalarNetwork, SpeciesShift


class DensityKernel(nn.Module):
    """W(r) >= 0 with support ``cutoff``, and W = W' = 0 there, so that forces are continuous.

    Subclasses give ``forward`` and ``at_zero``; units of W are inverse volume.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """W and dW/dr of each pair, both ``[E]``."""
        raise NotImplementedError

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        """W(0) of each particle, ``[N]``."""
        raise NotImplementedError

    def crowding(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Σ_j W_ij of each particle, ``[N]``, and W' of each pair, ``[E]``."""
        value, slope = self(pairs, species)
        return pairs.total(value), slope

    def volume(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Volume 1 / (W(0) + Σ_j W_ij) ``[N]`` of each particle, and W' ``[E]`` of each pair.

        Español and Revenga, Phys. Rev. E 67, 026705 (2003), eq. 12.
        """
        crowding, slope = self.crowding(pairs, species)
        return 1.0 / (self.at_zero(pairs, species) + crowding), slope


class LearnedKernel(DensityKernel):
    """W = w exp(net(r²/h²)) (1 - r²/h²)².

    A function of r² is smooth at r = 0 and changes little at distances that no pair of the training had, where
    the window then makes pairs repel.

    The scale of W is a gauge, which training fixes by the mean volume of a particle; w is such that
    fresh networks start near it.

    Args:
        cutoff: h.
        volume: mean volume of a particle.
        dimension: 2 or 3.
        width, depth: of the network.
        species: number of species.
    """

    def __init__(
        self, cutoff: float, *, volume: float, dimension: int, width: int, depth: int, species: int = 1
    ) -> None:
        super().__init__(cutoff)
        if not volume > 0:
            raise ValueError(f"mean volume of a particle is {volume}; it must be positive")
        self.network = ScalarNetwork(1, width=width, depth=depth)
        self.shift = SpeciesShift(species, width)
        ball = {2: torch.pi, 3: 4.0 * torch.pi / 3.0}[dimension] * cutoff**dimension
        neighbors = ball / volume
        # the mean of (1 - rho²)² over the ball, so that the first densities are about 1 / volume
        self.unit = 1.0 / (volume * (1.0 + neighbors * {2: 1.0 / 3.0, 3: 8.0 / 35.0}[dimension]))

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho = pairs.distance / self.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        log, log_slope = self.network.jet(rho * rho, self.shift(*ends))
        window = (1.0 - rho * rho).clamp(min=0.0)
        scale = self.unit * torch.exp(log.squeeze(1))
        value = scale * window * window
        slope = 2.0 * rho * (value * log_slope.squeeze(1) - 2.0 * scale * window) / self.cutoff
        return value, slope

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        rho = pairs.displacement.new_zeros(1 if species is None else pairs.num_particles)
        log = self.network(rho, self.shift(species, species)).squeeze(1)
        return (self.unit * torch.exp(log)).expand(pairs.num_particles)
