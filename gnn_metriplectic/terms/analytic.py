"""Terms given by formulas: the ground truth of the ideal gas."""

from __future__ import annotations

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.density import DensityKernel
from gnn_metriplectic.terms.energy import EquationOfState, Thermo
from gnn_metriplectic.terms.friction import Friction, FrictionTerm


class LucyKernel(DensityKernel):
    """W(r) = w (1 - ρ)³ (1 + 3ρ), ρ = r / cutoff, normalised to integral 1.

    Lucy, Astron. J. 82, 1013 (1977); w = 5 / (π h²) in two and 105 / (16 π h³) in three dimensions.
    """

    def __init__(self, cutoff: float, *, dimension: int) -> None:
        super().__init__(cutoff)
        self.peak = {2: 5.0 / torch.pi, 3: 105.0 / (16.0 * torch.pi)}[dimension] / cutoff**dimension

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho = pairs.distance / self.cutoff
        gap = (1.0 - rho).clamp(min=0.0)
        return self.peak * gap**3 * (1.0 + 3.0 * rho), -12.0 * self.peak / self.cutoff * rho * gap**2

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        return pairs.displacement.new_full((pairs.num_particles,), self.peak)


class IdealGas(EquationOfState):
    """Monatomic ideal gas: U = U₀ (V₀/V)^{2/3} exp(2 (S - S₀) / (3 N_a k_B)), with S₀ = 0.

    C = 3/2 N_a k_B and P V = N_a k_B T. At S = 0 and V = V₀ the temperature is T₀.

    Args:
        atoms: N_a, atoms a particle.
        k_B: Boltzmann's constant.
        temperature: T₀.
        volume: V₀.
    """

    def __init__(self, *, atoms: float, k_B: float, temperature: float, volume: float) -> None:
        super().__init__()
        self.capacity = 1.5 * atoms * k_B
        self.temperature, self.volume = temperature, volume

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        temperature = self.temperature * (self.volume / volume) ** (2.0 / 3.0) * torch.exp(entropy / self.capacity)
        energy = self.capacity * temperature
        return Thermo(energy, temperature, energy * (2.0 / 3.0) / volume, torch.full_like(energy, self.capacity))


class SDPDFriction(FrictionTerm):
    """Smoothed dissipative particle dynamics in three dimensions (Español and Revenga 2003).

    With f = -W'(r) V_i V_j / r and T̃ = 2 T_i T_j / (T_i + T_j):
    A² = 2 (5η/3 - ζ) f T̃, B² = 2 (5η/3 + 8ζ) f T̃, K² = 2 κ f T_i T_j.

    Args:
        shear_viscosity: η.
        bulk_viscosity: ζ, at most 5η/3.
        conductivity: κ.
    """

    def __init__(self, *, shear_viscosity: float, bulk_viscosity: float, conductivity: float) -> None:
        super().__init__()
        if not 0.0 <= bulk_viscosity <= 5.0 * shear_viscosity / 3.0:
            raise ValueError(
                f"bulk viscosity {bulk_viscosity} must be from 0 to 5/3 of the shear viscosity {shear_viscosity}"
            )
        self.shear = 2.0 * (5.0 / 3.0 * shear_viscosity - bulk_viscosity)
        self.bulk = 2.0 * (5.0 / 3.0 * shear_viscosity + 8.0 * bulk_viscosity)
        self.heat = 2.0 * conductivity

    def forward(
        self,
        pairs: Pairs,
        temperature: Tensor,
        fluctuation: Tensor,
        volume: Tensor,
        slope: Tensor,
        species: Tensor | None = None,
    ) -> Friction:
        volume_i, volume_j = pairs.ends(volume)
        tiny = torch.finfo(slope.dtype).tiny
        f = -slope / pairs.distance.clamp(min=tiny) * volume_i * volume_j
        (ti, tj), (ci, cj) = pairs.ends(temperature), pairs.ends(fluctuation)
        product, total = ti * tj, ti + tj
        mean = 2.0 * product / total
        by_mean = 2.0 * ((tj / total) ** 2 * ci + (ti / total) ** 2 * cj)
        factors = f.unsqueeze(1) * slope.new_tensor([self.shear, self.bulk, self.heat])
        squared = factors * torch.stack([mean, mean, product], dim=1)
        return Friction(squared, factors * torch.stack([by_mean, by_mean, tj * ci - ti * cj], dim=1))
