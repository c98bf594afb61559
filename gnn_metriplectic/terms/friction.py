"""Friction and heat conduction between two particles: the amplitudes A, B and K."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.jets import ScalarNetwork, SpeciesShift

SHEAR, BULK, HEAT = range(3)


class Friction(NamedTuple):
    """Squared amplitudes of each pair and their Itô terms, both ``[E, 3]``.

    Attributes:
        squared: A² (shear), B² (bulk), K² (heat conduction).
        ito: k_B (∂_i X / C_i + ∂_j X / C_j) for X = A², B² and k_B (∂_i X / C_i - ∂_j X / C_j) for K², with the
            derivatives by the temperatures of the two particles.
    """

    squared: Tensor
    ito: Tensor


class FrictionTerm(nn.Module):
    """Amplitudes symmetric in i and j that vanish at the cutoff. Subclasses give ``forward``."""

    def forward(
        self,
        pairs: Pairs,
        temperature: Tensor,
        fluctuation: Tensor,
        volume: Tensor,
        slope: Tensor,
        species: Tensor | None = None,
    ) -> Friction:
        """`Friction` from T, k_B/C and V of particles, ``[N]``, and the kernel's slope W' ``[E]``."""
        raise NotImplementedError


class FactorisedFriction(FrictionTerm):
    """A_ij = a(ρ, T_i) a(ρ, T_j), likewise B and K, so that A²_ij = s (1 - ρ²)² exp 2 (n(ρ, T_i) + n(ρ, T_j)).

    n(ρ, T) = Σ_k φ_k(ρ) g_k(ln T/T₀), with φ a function of pairs and g of particles, so that the
    temperature's slope costs nothing on the pairs. g_0 = 1. In a solid s goes with V_i V_j / V₀², as in SDPD: at a free
    edge, where half of the neighbours are missing, a pair stands for more of the material.

    Args:
        cutoff: of ρ = r / cutoff.
        temperature: T₀.
        squared: s of A, B and K.
        rank: number of products in n.
        radial: φ, ``[E]`` -> ``[E, 3 rank]``.
        thermal: g and its slope, ``[N]`` -> ``[N, 3 (rank - 1)]`` each, by its method ``jet``.
        shift: of the first hidden layer of φ, by species.
        volume: V₀ of a solid, None for a fluid.
    """

    def __init__(
        self,
        cutoff: float,
        *,
        temperature: float,
        squared: tuple[float, float, float],
        rank: int,
        radial: nn.Module,
        thermal: nn.Module,
        shift: SpeciesShift,
        volume: float | None = None,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and all(s > 0 for s in squared)):
            raise ValueError(f"scales of friction must be positive: temperature {temperature}, amplitudes² {squared}")
        self.cutoff, self.temperature_scale, self.rank, self.volume = cutoff, temperature, rank, volume
        self.register_buffer("squared_scale", torch.tensor(squared), persistent=True)
        self.radial, self.thermal, self.shift = radial, thermal, shift

    def forward(
        self,
        pairs: Pairs,
        temperature: Tensor,
        fluctuation: Tensor,
        volume: Tensor,
        slope: Tensor,
        species: Tensor | None = None,
    ) -> Friction:
        rho = pairs.distance / self.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        radial = self.radial(rho, self.shift(*ends)).T.reshape(3, self.rank, pairs.num_pairs)
        value, by_log = self.thermal.jet(torch.log(temperature / self.temperature_scale))
        change = by_log * (fluctuation / temperature).unsqueeze(1)
        # φ_k (g_k(T_i) + g_k(T_j)) and φ_k (∂_i g_k ± ∂_j g_k) are sums over the ends before they meet φ
        alike, opposed = change.split([HEAT * (self.rank - 1), self.rank - 1], dim=1)
        both = pairs.sum_of_ends(torch.cat([value, alike], dim=1)).T
        change = torch.cat([both[value.shape[1] :], pairs.difference_of_ends(opposed).T])
        exponent = self._product(radial, both[: value.shape[1]])
        window = (1.0 - rho * rho).clamp(min=0.0)
        squared = self.squared_scale.unsqueeze(1) * window**2 * torch.exp(2.0 * (2.0 * radial[:, 0] + exponent))
        if self.volume is not None:
            first, second = pairs.ends(volume / self.volume)
            squared = squared * (first * second)
        return Friction(squared.T, (2.0 * squared * self._product(radial, change)).T)

    @staticmethod
    def _product(radial: Tensor, thermal: Tensor) -> Tensor:
        """Σ_k φ_k g_k over k > 0, ``[3, E]``, of φ ``[3, rank, E]`` and g ``[3 (rank - 1), E]``."""
        return (radial[:, 1:] * thermal.reshape(3, radial.shape[1] - 1, radial.shape[2])).sum(dim=1)


def bounded(x: Tensor, most: Tensor) -> Tensor:
    """``x`` rounded off below ``most``: no data tell what networks of pairs say beyond the pairs of the training."""
    return most - functional.softplus(most - x)


# A², B², K² go with the temperatures of both ends to these powers before anything is learned: friction coefficients
# A² / T and relaxation rates of heat K² / T² then stay finite when a particle gets cold or hot
POWERS = (0.5, 0.5, 1.0)


class RadialFeatures(nn.Module):
    """φ of a pair: ``rank`` learned functions of ρ² for each of A and B, one for K, and a constant that goes with ln T.

    Squared amplitudes stay below ``limits`` whatever the |g_k| <= 1 are, as φ₀ stays below a quarter of their logarithm
    less Σ_k |φ_k|. No data tell of pairs nearer than the nearest of the training; friction or heat without bound
    there would take more than its excess from a particle in one step.

    Args:
        width, depth: of the network.
        rank: see above.
        limits: of A² / √(T_i T_j), B² / √(T_i T_j) and K² / T_i T_j, in units of their scales.
    """

    # |φ| is rounded off below this
    rounding = 0.02

    def __init__(self, *, width: int, depth: int, rank: int, limits: tuple[float, float, float]) -> None:
        super().__init__()
        self.rank = rank
        self.network = ScalarNetwork(2 * rank + 1, width=width, depth=depth)
        # squared amplitudes go with exp(4 φ₀)
        self.register_buffer("most", 0.25 * torch.log(torch.tensor(limits)), persistent=False)
        self.register_buffer("power", 0.5 * torch.tensor(POWERS), persistent=False)

    def forward(self, rho: Tensor, shift: Tensor | None = None) -> Tensor:
        """``[E, 3 (rank + 1)]`` at ``rho`` ``[E]``."""
        first, others = self._parts(self.network(rho * rho, shift))
        most = self.most.unsqueeze(1) - self._size(others).sum(dim=1)
        return self._laid_out(bounded(first, most), others, self.power)

    def jet(self, rho: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values and slopes, both ``[E, 3 (rank + 1)]``."""
        value, slope = self.network.jet(rho * rho, shift)
        (first, others), (first_slope, slopes) = self._parts(value), self._parts(2.0 * rho.unsqueeze(1) * slope)
        size = self._size(others)
        most, most_slope = self.most.unsqueeze(1) - size.sum(dim=1), -(others / size * slopes).sum(dim=1)
        room = most - first
        return (
            self._laid_out(bounded(first, most), others, self.power),
            self._laid_out(
                most_slope - torch.sigmoid(room) * (most_slope - first_slope), slopes, torch.zeros_like(self.power)
            ),
        )

    def _size(self, others: Tensor) -> Tensor:
        return torch.sqrt(others * others + self.rounding**2)

    def _parts(self, learned: Tensor) -> tuple[Tensor, Tensor]:
        """φ₀ of A, B and K ``[3, E]``, and the other φ ``[3, rank - 1, E]``, of which K has none."""
        *free, heat = learned.T
        free = torch.stack(free).unflatten(0, (2, self.rank))
        first = torch.cat([free[:, 0], heat.unsqueeze(0)])
        return first, functional.pad(free[:, 1:], (0, 0, 0, 0, 0, 1))

    def _laid_out(self, first: Tensor, others: Tensor, last: Tensor) -> Tensor:
        """Rows of A, B and K, ``[E, 3 (rank + 1)]``, from φ₀, the others and a constant ``[3]``."""
        last = last[:, None, None].expand(3, 1, first.shape[1])
        return torch.cat([first.unsqueeze(1), others, last], dim=1).flatten(0, 1).T


class ThermalFeatures(nn.Module):
    """g of a particle: ``rank - 1`` learned functions of x = ln T/T₀ for each of A, B, K, and x itself.

    The learned ones are of tanh x, so that they change little where no particle of the training has been, and lie
    between -1 and 1.
    """

    def __init__(self, *, rank: int) -> None:
        super().__init__()
        self.network = ScalarNetwork(3 * (rank - 1), width=16, depth=1) if rank > 1 else None
        if self.network is not None:
            nn.init.normal_(self.network.layers[-1].weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3 rank]`` at ``x`` ``[N]``."""
        return self._joined(self._none(x) if self.network is None else torch.tanh(self.network(torch.tanh(x))), x)

    def jet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes, both ``[N, 3 rank]``."""
        if self.network is None:
            return self._joined(self._none(x), x), self._joined(self._none(x), torch.ones_like(x))
        inner = torch.tanh(x)
        value, slope = self.network.jet(inner)
        value = torch.tanh(value)
        slope = (1.0 - value**2) * slope * (1.0 - inner**2).unsqueeze(1)
        return self._joined(value, x), self._joined(slope, torch.ones_like(x))

    @staticmethod
    def _none(x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 3, 0)

    def _joined(self, learned: Tensor, last: Tensor) -> Tensor:
        learned = learned.view(len(learned), 3, learned.numel() // (3 * max(len(learned), 1)))
        return torch.cat([learned, last.view(-1, 1, 1).expand(-1, 3, 1)], dim=2).flatten(1)


class LearnedFriction(FactorisedFriction):
    """`FactorisedFriction` of networks around the temperature scaling of `POWERS`.

    Args:
        cutoff, temperature, squared: see there.
        limits: largest A², B² and K², in the units of ``squared``, of a pair at T₀.
        width, depth: of the network of φ.
        rank: learned products in n.
        species: number of species.
        volume: see there; ``limits`` are those of pairs of particles of this volume.
    """

    def __init__(
        self,
        cutoff: float,
        *,
        temperature: float,
        squared: tuple[float, float, float],
        limits: tuple[float, float, float],
        width: int,
        depth: int,
        rank: int = 4,
        species: int = 1,
        volume: float | None = None,
    ) -> None:
        super().__init__(
            cutoff,
            temperature=temperature,
            squared=squared,
            volume=volume,
            rank=rank + 1,
            radial=RadialFeatures(
                width=width, depth=depth, rank=rank, limits=tuple(m / s for m, s in zip(limits, squared, strict=True))
            ),
            thermal=ThermalFeatures(rank=rank),
            shift=SpeciesShift(species, width),
        )
