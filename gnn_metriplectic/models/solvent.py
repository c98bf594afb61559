"""First guesses of the liquid around particles."""

from __future__ import annotations

from gnn_metriplectic.models.scales import Scales
from gnn_metriplectic.terms import SolventBath

# the first guess of the share of the solvent in the friction of a particle
SOLVENT_SHARE = 0.5


def solvent_bath(solvent: str, size: Scales, *, dt: float, species: int, exchange: float) -> SolventBath:
    """A liquid to be learned, at first at the temperature of the data, with a friction from the size of the steps.

    Args:
        solvent: ``inertial`` or ``overdamped``.
        size: of the data.
        dt: from before to after, in units of time.
        species: their number.
        exchange: the first guess of κ, 1 / time.
    """
    if solvent == "overdamped":  # 2 k_B T_s dt / ζ is the mean square of a displacement, dt² times the increment
        friction = 2.0 * size.energy / (size.increment * dt)
    else:
        friction = SOLVENT_SHARE * size.increment * size.mass**2 / (2.0 * size.energy * dt)
    return SolventBath(
        friction=[friction] * species,
        exchange=[exchange] * species,
        temperature=size.energy,
        overdamped=solvent == "overdamped",
        learned=True,
    )
