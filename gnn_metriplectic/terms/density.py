"""The density kernel: how much of particle j counts for the density at particle i."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.jets import SpeciesShift
from gnn_metriplectic.terms.rows import by_rows


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
    """W = w exp(c₀ - n(ρ²)) (1 - ρ²)² with n = Σ_k c_k sigmoid(a_k ρ² + b_k), a_k and c_k > 0, and ρ = r / cutoff.

    W falls with r, so that pairs repel where the pressure is positive, also at distances that hardly any pair of the
    training had: free to rise, W had its maximum there in some trainings, and pairs collected at r = 0.

    The scale of W is a gauge, which training fixes by the mean volume of a particle; w is such that
    fresh kernels start near it.

    Args:
        cutoff: h.
        volume: mean volume of a particle.
        dimension: 2 or 3.
        width: number of sigmoids.
        species: number of species.
        fall: first guess of n(1).
    """

    def __init__(
        self, cutoff: float, *, volume: float, dimension: int, width: int, species: int = 1, fall: float = 1.0
    ) -> None:
        super().__init__(cutoff)
        if not volume > 0:
            raise ValueError(f"mean volume of a particle is {volume}; it must be positive")
        # steps of width 1/4 with their middles spread over [0, 1]
        self.log_rate = nn.Parameter(torch.full((width,), 8.0).log() + 0.3 * torch.randn(width))
        self.bias = nn.Parameter(-8.0 * torch.rand(width))
        self.log_height = nn.Parameter(torch.full((width,), fall / width).log())
        self.log_scale = nn.Parameter(torch.tensor(0.5))
        self.shift = SpeciesShift(species, width)
        ball = {2: torch.pi, 3: 4.0 * torch.pi / 3.0}[dimension] * cutoff**dimension
        neighbors = ball / volume
        # the mean of (1 - rho²)² over the ball, so that the first densities are about 1 / volume
        self.unit = 1.0 / (volume * (1.0 + neighbors * {2: 1.0 / 3.0, 3: 8.0 / 35.0}[dimension]))

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho = pairs.distance / self.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        fall, slope = self._fall(rho * rho, self.shift(*ends))
        window = (1.0 - rho * rho).clamp(min=0.0)
        scale = self.unit * torch.exp(self.log_scale - fall)
        value = scale * window * window
        return value, -2.0 * rho * (value * slope + 2.0 * scale * window) / self.cutoff

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        square = pairs.displacement.new_zeros(1 if species is None else pairs.num_particles)
        fall, _ = self._fall(square, self.shift(species, species))
        return (self.unit * torch.exp(self.log_scale - fall)).expand(pairs.num_particles)

    @by_rows
    def _fall(self, square: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """n and its slope, both ``[E]``, at ρ² ``[E]``."""
        rate, height = torch.exp(self.log_rate), torch.exp(self.log_height)
        hidden = square.unsqueeze(1) * rate + self.bias
        gate = torch.sigmoid(hidden if shift is None else hidden + shift)
        return gate @ height, (gate * (1.0 - gate)) @ (height * rate)
