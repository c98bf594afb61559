"""Typical sizes of the training data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

# the largest friction of a pair, as a rate times the lag
DRAG_LIMIT = 4.0


@dataclass(frozen=True)
class Scales:
    """Typical sizes of the training data, in its units; networks start from them.

    Attributes:
        energy: k_B T, from the velocities.
        volume: of a particle.
        speed: root mean square of a velocity component.
        increment: mean square change of a velocity component over one step.
        neighbors: particles within the cutoff of another.
        mass: of a particle, the mean over species.
        entropy: spread of the entropy, 1 where it is encoded.
        nearest: distance than which hardly a pair was nearer.
        moduli: of a solid, what a unit of I2, of H and of J - 1 - ln J store in a particle, in units of energy.
    """

    energy: float
    volume: float
    speed: float
    increment: float
    neighbors: float
    mass: float
    entropy: float
    nearest: float = 0.0
    moduli: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, float | list[float]]:
        """Plain settings."""
        return {**asdict(self), "moduli": list(self.moduli)}

    @property
    def is_solid(self) -> bool:
        """Whether the data are of a solid."""
        return bool(self.moduli)

    @property
    def effective_neighbors(self) -> float:
        """Those left of a sum over pairs by the windows of pair terms, about a quarter."""
        return max(0.25 * self.neighbors, 1.0)


def pair_noise(size: Scales, *, k_B: float, dt: float) -> float:
    """The squared amplitude A² of pairs at which 2 k_B dt Σ_j G_ij / m² is the variance of a velocity step."""
    return size.increment * size.mass**2 / (k_B * dt * size.effective_neighbors)


def drag_limit(size: Scales, *, temperature: float, dt: float) -> float:
    """The largest squared amplitude A² of a pair, temperature in units of energy over those of k_B."""
    return DRAG_LIMIT * size.mass * temperature / dt
