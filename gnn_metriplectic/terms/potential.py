"""Energies of pairs of particles, as functions of their distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.jets import ScalarNetwork, SpeciesShift

# over which the input of a potential stops at the nearest pairs of the training, in ρ²
ROUNDING = 0.02
# of ρ², below which the input of a potential is linear in it, and above which logarithmic
CORE = 0.05


def core_coordinate(square: Tensor) -> tuple[Tensor, Tensor]:
    """y = ln(1 + ρ² / c) / ln(1 + 1 / c), c = `CORE`, and dy/dρ², of ρ²: from 0 to 1, finer where ρ is small."""
    whole = math.log1p(1.0 / CORE)
    return torch.log1p(square / CORE) / whole, 1.0 / ((CORE + square) * whole)


class PairPotential(nn.Module):
    """φ of a pair, of either sign, and without a jump of the force where pairs come into reach.

    Subclasses give ``forward``.

    Args:
        cutoff: h.
        energy: the unit of φ.
    """

    def __init__(self, cutoff: float, *, energy: float) -> None:
        super().__init__()
        if not energy > 0:
            raise ValueError(f"energy scale of the pair potential is {energy}; it must be positive")
        self.cutoff, self.unit = cutoff, energy

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """φ and dφ/dr of each pair, both ``[E]``."""
        raise NotImplementedError


class NetworkPotential(PairPotential):
    """φ made of a network of one number, in units of energy ε.

    Args:
        cutoff: h.
        energy: ε.
        width, depth: of the network.
        species: number of species.
    """

    def __init__(self, cutoff: float, *, energy: float, width: int, depth: int, species: int = 1) -> None:
        super().__init__(cutoff, energy=energy)
        self.network = ScalarNetwork(1, width=width, depth=depth)
        self.shift = SpeciesShift(species, width)


class LearnedPotential(NetworkPotential):
    """φ = ε net(y) (1 - ρ²)², ρ = r / cutoff, y the `core_coordinate` of x.

    x is ρ² as far down as the training had pairs, and constant below: what the data do not tell of the core may
    otherwise come out as a well, where pairs of a rollout stay. x = ½ (ρ² + ρ₀² + √((ρ² - ρ₀²)² + w²)), w = `ROUNDING`
    or, if that is less, ρ₀². A network of x itself is too smooth for a core that is small beside the cutoff.

    Args:
        nearest: ρ₀ in units of length: hardly a pair of the training was nearer.
        cutoff, energy, width, depth, species: as of `NetworkPotential`.
    """

    def __init__(
        self, cutoff: float, *, energy: float, width: int, depth: int, species: int = 1, nearest: float = 0.0
    ) -> None:
        super().__init__(cutoff, energy=energy, width=width, depth=depth, species=species)
        self.core = (nearest / cutoff) ** 2

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho = pairs.distance / self.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        outside = rho * rho - self.core
        root = torch.sqrt(outside**2 + min(ROUNDING, self.core) ** 2).clamp(min=torch.finfo(rho.dtype).tiny)
        place, seen = self.core + 0.5 * (outside + root), 0.5 * (1.0 + outside / root)
        place, rate = core_coordinate(place)
        seen = seen * rate
        value, slope = (x.squeeze(1) for x in self.network.jet(place, self.shift(*ends)))
        window = (1.0 - rho * rho).clamp(min=0.0)
        rise = 2.0 * rho / self.cutoff * (window**2 * seen * slope - 2.0 * window * value)
        return self.unit * window**2 * value, self.unit * rise


class SpringPotential(NetworkPotential):
    """φ = ε (1 - ρ²)² exp net(ρ²) (r/r⁰ - 1)², harmonic springs between reference neighbours, ρ = r⁰/h.

    Its pairs are `Pairs.bonded`.
    """

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        reference = pairs.bonds.reference
        rest = reference.pairs.distance
        ends = (None, None) if species is None else pairs.ends(species)
        logarithm = self.network((rest / self.cutoff) ** 2, self.shift(*ends)).squeeze(1)
        strength = self.unit * reference.weight * torch.exp(logarithm)
        stretch = pairs.distance / rest - 1.0
        return strength * stretch**2, 2.0 * strength * stretch / rest


class PotentialSum(PairPotential):
    """φ of several potentials with one cutoff.

    Args:
        parts: the potentials.
    """

    def __init__(self, *parts: PairPotential) -> None:
        super().__init__(parts[0].cutoff, energy=1.0)
        self.parts = nn.ModuleList(parts)

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values, slopes = zip(*(part(pairs, species) for part in self.parts), strict=True)
        return sum(values), sum(slopes)
