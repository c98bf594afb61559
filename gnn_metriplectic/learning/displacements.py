"""The transition of particles without inertia, of which `Overdamped` is the map.

    η = [ζ (r' - r) - dt f(r, S),  U(S', V') - U(S, V') - dt (Σ_j q_ij + q_s)]

is Gaussian with variances 2 k_B T_s ζ dt and 2 k_B dt (Σ_j K² + K_s²), the heat flows taken at (r', S). A displacement
that was measured has the variance of its error beside, and so has an entropy that was read off neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.models.particles import Configuration
from gnn_metriplectic.terms.friction import HEAT
from gnn_metriplectic.trajectory.window import Sight


def overdamped_residual(
    model: MetriplecticModel,
    start: State,
    end: State,
    configurations: tuple[Configuration, Configuration],
    dt: float,
    acceleration: Tensor | float,
    prescribed: Tensor | None,
    sight: Sight,
    entropy_noise: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Pairs]:
    """Residual, covariance, ln |d residual / d (v', S')| and pairs, where ``end`` has velocities (r' - r) / dt."""
    before, after = configurations
    thermo_before = model.thermo(before, start.entropy, start.species)
    thermo = model.thermo(after, start.entropy, start.species)
    thermo_end = model.thermo(after, end.entropy, start.species)
    dissipative, solvent = model.dissipative(after, thermo, start.species), model.solvent(thermo, start.species)
    pairs, friction = after.pairs, solvent.friction
    force = model.poisson(before, thermo_before).forces() + solvent.mass.unsqueeze(1) * acceleration
    impulse = dt * (friction.unsqueeze(1) * end.vel - force)
    flow = dissipative.heat_flow()
    energy = thermo_end.energy - thermo.energy - dt * (pairs.total_of_ends(flow, -flow) + solvent.heat_flow())

    spread = dt * solvent.momentum_variance() + sight.noise * (dt * friction) ** 2
    conducted = 2.0 * model.k_B * pairs.total(dissipative.friction.squared[:, HEAT])
    heat = dt * (conducted + solvent.energy_variance()) + entropy_noise * thermo.temperature**2
    variance = torch.cat([spread.unsqueeze(1).expand_as(impulse), heat.unsqueeze(1)], dim=1)
    unit = variance.detach().sqrt()  # single precision then serves any system of units
    residual = torch.cat([impulse, energy.unsqueeze(1)], dim=1) / unit
    log_determinant = impulse.shape[1] * torch.log(dt * friction) + torch.log(thermo_end.temperature)
    return residual, torch.diag_embed(variance / unit**2), log_determinant - torch.log(unit).sum(dim=1), pairs
