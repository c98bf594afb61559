"""Friction and noise as velocities show them that are slopes over a window (`trajectory.window`)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gnn_metriplectic.brackets import BathBracket, DissipativeBracket
from gnn_metriplectic.trajectory.window import EXACT, Sight


def pairs_as_seen(dissipative: DissipativeBracket, sight: Sight) -> DissipativeBracket:
    """The bracket with the share of its friction and noise that is seen; heat conduction is no matter of velocities."""
    share = torch.as_tensor(sight.share, dtype=dissipative.mass.dtype)
    first, _ = dissipative.pairs.ends(share.expand_as(dissipative.mass))
    shares = torch.stack([first, first, torch.ones_like(first)], dim=1)  # of shear, bulk, heat
    squared, ito = dissipative.friction
    return replace(dissipative, friction=type(dissipative.friction)(shares * squared, shares * ito))


def one_body_as_seen(
    dissipative: DissipativeBracket, solvent: BathBracket | None, sight: Sight, dt: float
) -> tuple[Tensor, Tensor]:
    """Friction of each particle by solvent and errors, and the variance of a component of its random impulse a time.

    A fluctuation-dissipation relation holds between the two, at the temperature at which velocities are seen: that of
    the solvent (without one, of the particle) less what the window takes off, and the errors.

    Args:
        dissipative: at the same state.
        solvent: None where there is none.
        sight: how velocities were seen.
        dt: between them.

    Returns:
        ``[N]`` each.
    """
    mass = dissipative.mass
    if solvent is None and sight is EXACT:
        return torch.zeros_like(mass), torch.zeros_like(mass)
    if solvent is None:
        friction, temperature = torch.zeros_like(mass), dissipative.k_B * dissipative.thermo.temperature
    else:
        friction, temperature = solvent.friction, solvent.temperature
    damping, unseen = friction / mass, 1.0 + sight.memory * friction / mass
    clean = temperature / (mass * unseen)  # of a component of a velocity, without its error
    seen = clean + sight.error
    # what one velocity tells of the next: of its motion by a step of the midpoint rule, and of its error
    step = 0.5 * dt * sight.share * damping * unseen
    kept = (clean * (1.0 - step) / (1.0 + step) + sight.error - 0.5 * sight.noise) / seen
    drag = 2.0 * mass / dt * (1.0 - kept) / (1.0 + kept)
    return drag, 2.0 * drag * mass * seen
