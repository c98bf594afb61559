"""Terms of dissipative particle dynamics: a heat bath of one temperature in every particle, and friction of pairs.

With U_i = T S_i + ½ Σ_j φ(r_ij) (`terms.potential`) the metriplectic model *is* DPD (Español and Warren, Europhys.
Lett. 30, 191, 1995; with friction across the pair, Junghans, Praprotnik and Kremer, Soft Matter 4, 156, 2008):

    f_ij = -φ'(r) e_ij    F_ij = -(G / T) v_ij    F̃_ij F̃_ijᵀ = 2 k_B G dt

and S_i only books the heat that friction leaves, which nothing feels: the temperature is T whatever happens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.energy import EquationOfState, Thermo
from gnn_metriplectic.terms.friction import Friction, FrictionTerm, bounded
from gnn_metriplectic.terms.jets import ScalarNetwork, SpeciesShift


class HeatBath(EquationOfState):
    """U = T S: the temperature of a particle is T whatever its entropy, and C is infinite.

    Args:
        temperature: T, in units of energy over those of k_B.
    """

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature of the heat bath is {temperature}; it must be positive")
        self.temperature = temperature

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        return Thermo(
            self.temperature * entropy,
            torch.full_like(entropy, self.temperature),
            torch.zeros_like(entropy),
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
        entropy = energy / self.temperature
        return entropy, self(entropy, volume, species)


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
