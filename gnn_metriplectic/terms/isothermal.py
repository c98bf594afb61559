"""Terms of dissipative particle dynamics: pair forces, and a heat bath of one temperature in every particle.

With U_i = T S_i + ½ Σ_j φ(r_ij) the metriplectic model *is* DPD (Español and Warren, Europhys. Lett. 30, 191, 1995;
with friction across the pair, Junghans, Praprotnik and Kremer, Soft Matter 4, 156, 2008):

    f_ij = -φ'(r) e_ij    F_ij = -(G / T) v_ij    F̃_ij F̃_ijᵀ = 2 k_B G dt

and S_i only books the heat that friction leaves, which nothing feels: the temperature is T whatever happens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.density import DensityKernel
from gnn_metriplectic.terms.energy import EquationOfState, Thermo
from gnn_metriplectic.terms.friction import Friction, FrictionTerm, bounded
from gnn_metriplectic.terms.jets import ScalarNetwork, SpeciesShift


class HeatBath(EquationOfState):
    """U = T S + ½ ε / V: with the density 1/V = Σ_j φ_ij / ε of a potential, energies of pairs and no more.

    C is infinite, and P V² = ½ ε makes the pair force -φ'.

    Args:
        temperature: T, in units of energy over those of k_B.
        energy: ε, the unit of the pair potential.
    """

    def __init__(self, *, temperature: float, energy: float) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("energy", energy)):
            if not value > 0:
                raise ValueError(f"{name} of the heat bath is {value}; it must be positive")
        self.temperature, self.unit = temperature, energy

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        density = 1.0 / volume
        return Thermo(
            self.temperature * entropy + 0.5 * self.unit * density,
            torch.full_like(entropy, self.temperature),
            0.5 * self.unit * density**2,
            torch.full_like(entropy, torch.inf),
        )

    def entropy_of(
        self,
        energy: Tensor,
        volume: Tensor,
        guess: Tensor,
        species: Tensor | None = None,
        *,
        known: Thermo | None = None,
    ) -> tuple[Tensor, Thermo]:
        entropy = (energy - 0.5 * self.unit / volume) / self.temperature
        return entropy, self(entropy, volume, species)


class PairPotential(DensityKernel):
    """φ(r) / ε = net(r²/h²) (1 - r²/h²)², of either sign, in the place of a density kernel.

    Args:
        cutoff: h.
        width, depth: of the network.
        species: number of species.
    """

    # φ(0) of a particle with itself, a constant of the energy; so large that no attraction makes a density negative
    SELF = 100.0

    def __init__(self, cutoff: float, *, width: int, depth: int, species: int = 1) -> None:
        super().__init__(cutoff)
        self.network = ScalarNetwork(1, width=width, depth=depth)
        self.shift = SpeciesShift(species, width)

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho = pairs.distance / self.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        value, slope = (x.squeeze(1) for x in self.network.jet(rho * rho, self.shift(*ends)))
        window = (1.0 - rho * rho).clamp(min=0.0)
        return window**2 * value, 2.0 * rho / self.cutoff * (window**2 * slope - 2.0 * window * value)

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        return pairs.displacement.new_full((pairs.num_particles,), self.SELF)


class SpringPotential(DensityKernel):
    """φ(r) / ε = (1 - ρ²)² exp net(ρ²) (r/r⁰ - 1)², harmonic springs between reference neighbours, ρ = r⁰/h.

    Its pairs are `Pairs.bonded`.

    Args:
        cutoff: h.
        width, depth: of the network.
        species: number of species.
    """

    def __init__(self, cutoff: float, *, width: int, depth: int, species: int = 1) -> None:
        super().__init__(cutoff)
        self.network = ScalarNetwork(1, width=width, depth=depth)
        self.shift = SpeciesShift(species, width)

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        reference = pairs.bonds.reference
        rest = reference.pairs.distance
        ends = (None, None) if species is None else pairs.ends(species)
        logarithm = self.network((rest / self.cutoff) ** 2, self.shift(*ends)).squeeze(1)
        strength, stretch = reference.weight * torch.exp(logarithm), pairs.distance / rest - 1.0
        return strength * stretch**2, 2.0 * strength * stretch / rest

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        return pairs.displacement.new_ones(pairs.num_particles)


class PairFriction(FrictionTerm):
    """A² and B² = s (1 - r²/h²)² exp net(r²/h²), functions of distance alone; no heat conduction.

    Args:
        cutoff: h.
        squared: s.
        limit: below which A² and B² are rounded off, as in `RadialFeatures`.
        width, depth: of the network.
        species: number of species.
    """

    def __init__(
        self, cutoff: float, *, squared: float, limit: float, width: int, depth: int, species: int = 1
    ) -> None:
        super().__init__()
        if not squared > 0:
            raise ValueError(f"the scale of friction is {squared}; it must be positive")
        self.cutoff = cutoff
        self.register_buffer("squared_scale", torch.tensor(squared))
        self.register_buffer("most", torch.tensor(limit / squared).log(), persistent=False)
        self.network = ScalarNetwork(2, width=width, depth=depth)
        self.shift = SpeciesShift(species, width)

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
        window = (1.0 - rho * rho).clamp(min=0.0)
        exponent = bounded(self.network(rho * rho, self.shift(*ends)), self.most)
        shear_bulk = self.squared_scale * window**2 * torch.exp(exponent).T
        squared = torch.cat([shear_bulk, torch.zeros_like(shear_bulk[:1])]).T
        return Friction(squared, torch.zeros_like(squared))
