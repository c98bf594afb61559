"""Friction and heat conduction between two particles: the amplitudes A, B and K."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.jets import ScalarNetwork, SpeciesShift

SHEAR, BULK, HEAT = range(3)


class Friction(NamedTuple):
    """Squared amplitudes (A², B², K²) of each pair and their slopes, all ``[E, 3]``.

    Attributes:
        squared: A² (shear), B² (bulk), K² (heat conduction).
        by_first: derivative with the temperature of particle i.
        by_second: derivative with the temperature of particle j.
    """

    squared: Tensor
    by_first: Tensor
    by_second: Tensor


class FrictionTerm(nn.Module):
    """Amplitudes symmetric in i and j that vanish at the cutoff. Subclasses give ``forward``."""

    def forward(
        self, pairs: Pairs, temperature: Tensor, volume: Tensor, slope: Tensor, species: Tensor | None = None
    ) -> Friction:
        """`Friction` from temperatures and volumes ``[N]`` and the kernel's slope W' ``[E]``."""
        raise NotImplementedError


class LearnedFriction(FrictionTerm):
    """A_ij = a(ρ, T_i) a(ρ, T_j), likewise B and K, with a(ρ, T) = √(s (1 - ρ²)) exp n(ρ, T).

    n(ρ, T) = Σ_k φ_k(ρ) g_k(ln T), with φ from a network on pairs and g from one on particles, so
    that the temperature's slope costs nothing on the pairs. g_0 = 1.
    """

    def __init__(
        self,
        cutoff: float,
        *,
        temperature: float,
        squared: tuple[float, float, float],
        width: int,
        depth: int,
        rank: int = 4,
        species: int = 1,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and all(s > 0 for s in squared)):
            raise ValueError(f"scales of friction must be positive: temperature {temperature}, amplitudes² {squared}")
        self.cutoff, self.temperature_scale, self.rank = cutoff, temperature, rank
        self.register_buffer("squared_scale", torch.tensor(squared), persistent=True)
        self.radial = ScalarNetwork(3 * rank, width=width, depth=depth)
        self.thermal = ScalarNetwork(3 * (rank - 1), width=16, depth=1)
        nn.init.normal_(self.thermal.layers[-1].weight, std=0.3)
        self.shift = SpeciesShift(species, width)

    def forward(
        self, pairs: Pairs, temperature: Tensor, volume: Tensor, slope: Tensor, species: Tensor | None = None
    ) -> Friction:
        rho = pairs.distance / self.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        radial = self.radial(rho, self.shift(*ends)).view(-1, 3, self.rank, 1)
        value, by_log = self.thermal.jet(torch.log(temperature / self.temperature_scale))
        constant = value.new_ones(value.shape[0], 3, 1)
        value = torch.cat([constant, value.view(-1, 3, self.rank - 1)], dim=2)
        by_temperature = torch.cat(
            [torch.zeros_like(constant), by_log.view(-1, 3, self.rank - 1) / temperature.view(-1, 1, 1)], dim=2
        )
        first, second = pairs.ends(torch.stack([value, by_temperature], dim=3))
        log_first, slope_first = (radial * first).sum(dim=2).unbind(dim=2)
        log_second, slope_second = (radial * second).sum(dim=2).unbind(dim=2)
        window = (1.0 - rho * rho).clamp(min=0.0).unsqueeze(1)
        squared = self.squared_scale * window**2 * torch.exp(2.0 * (log_first + log_second))
        return Friction(squared, 2.0 * squared * slope_first, 2.0 * squared * slope_second)
