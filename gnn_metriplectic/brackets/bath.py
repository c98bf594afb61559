"""The irreversible exchange with a solvent, which is large: it has a temperature T_s of its own that stays.

    m dv_i = -ζ v_i dt + √(2 k_B T_s ζ dt) ξ                  velocities are relative to the solvent
    dε_i   = κ k_B (T_s - T_i) dt + k_B √(2 κ T_s T_i dt) ξ

M_s is diagonal, T_s ζ / m² over v and κ k_B T_s / T_i over S; the drift is M_s (∇S_tot - ∇E / T_s) + k_B ∇·M_s, where
∇E / T_s is the entropy that the solvent takes with the energy. Friction's heat goes into the solvent, not into the
particle. At equilibrium exp(S_tot / k_B - E / k_B T_s): the canonical ensemble. With K² = κ k_B T_s T_i the Itô term of
the heat cancels, and dε is as simple as above.

    symbol    variable
    ζ, κ      friction, exchange
    k_B T_s   temperature
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnn_metriplectic.terms.energy import Thermo


@dataclass(frozen=True)
class BathBracket:
    """M_s at one state.

    Attributes:
        friction, exchange: of each particle, ``[N]``.
        temperature: k_B T_s, 0-dim.
        thermo: state of each particle.
        mass: of each particle, ``[N]``.
        k_B: Boltzmann's constant, 0-dim.
    """

    friction: Tensor
    exchange: Tensor
    temperature: Tensor
    thermo: Thermo
    mass: Tensor
    k_B: Tensor

    def forces(self, velocities: Tensor) -> Tensor:
        """Mean force on each particle, ``[N, D]``."""
        return -self.friction.unsqueeze(1) * velocities

    def heat_flow(self) -> Tensor:
        """Mean heat into each particle a time, ``[N]``."""
        return self.exchange * (self.temperature - self.k_B * self.thermo.temperature)

    def momentum_variance(self) -> Tensor:
        """Variance of a component of the random impulse a time, ``[N]``."""
        return 2.0 * self.temperature * self.friction

    def energy_variance(self) -> Tensor:
        """Variance of the random heat a time, ``[N]``."""
        return 2.0 * self.exchange * self.temperature * self.k_B * self.thermo.temperature

    def sample(self, normals: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """Random impulse ``[N, D]`` and random heat ``[N]`` over ``dt`` from ``normals`` ``[N, D+1]``."""
        impulse = torch.sqrt(self.momentum_variance() * dt).unsqueeze(1) * normals[:, :-1]
        return impulse, torch.sqrt(self.energy_variance() * dt) * normals[:, -1]

    def drift(self, velocities: Tensor) -> tuple[Tensor, Tensor]:
        """Rates of velocities ``[N, D]`` and entropies ``[N]``, in the Itô sense."""
        temperature = self.thermo.temperature
        curvature = 0.5 * self.energy_variance() / (self.thermo.heat_capacity * temperature)
        return self.forces(velocities) / self.mass.unsqueeze(1), (self.heat_flow() - curvature) / temperature

    def variances(self, dimension: int) -> Tensor:
        """2 k_B M_s of each particle over (v, S), its diagonal ``[N, D+1]``."""
        velocity = (self.momentum_variance() / self.mass**2).unsqueeze(1).expand(-1, dimension)
        return torch.cat([velocity, (self.energy_variance() / self.thermo.temperature**2).unsqueeze(1)], dim=1)
