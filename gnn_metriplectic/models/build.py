"""Learned models from plain settings, as they stand in a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.terms import (
    DeformationGradient,
    EntropyEncoder,
    LearnedEquationOfState,
    LearnedFriction,
    LearnedKernel,
    LearnedShear,
    LearnedVolume,
    PairStrain,
    SolventBath,
)


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
        moduli: of a solid, what a unit of I2, of H and of J - 1 - ln J store in a particle, in units of energy.
    """

    energy: float
    volume: float
    speed: float
    increment: float
    neighbors: float
    mass: float
    entropy: float
    moduli: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, float | list[float]]:
        """Plain settings."""
        return {**asdict(self), "moduli": list(self.moduli)}


# the first guess of the heat capacity of a particle, in units of k_B; that of a solid takes up the heat of its friction
HEAT_CAPACITY, SOLID_HEAT_CAPACITY = 25.0, 1e4
STRAINS = ("deformation_gradient", "pair_network")
# the share of the excess of heat that a pair may exchange in a step
EXCESS = 0.25
# the first guess of the share of the solvent in the friction of a particle, and of its heat a step
SOLVENT_SHARE = 0.5
# the first guess of the share of a step in the variance of the entropy
ENTROPY_INCREMENT = 0.1


def build_model(
    *,
    dimension: int,
    cutoff: float,
    dt: float,
    mass: float | list[float],
    learn_mass: bool,
    entropy: str,
    scales: dict[str, Any],
    kernel: dict,
    equation_of_state: dict,
    friction: dict,
    encoder: dict,
    strain: dict | None = None,
    elastic: dict | None = None,
    substeps: int = 1,
    solvent: str | None = None,
) -> MetriplecticModel:
    """A learned model with fresh weights.

    Args:
        dimension, cutoff, dt: of the data; dt is the lag times the spacing of frames.
        mass: of a particle, one number or one a species.
        learn_mass: whether the mass is fitted too.
        entropy: ``encoded`` or ``observed`` (given with the data; then there is no encoder).
        scales: of the data, as `Scales`.
        kernel, friction: ``width`` and ``depth`` of their networks (and ``rank`` for friction).
        equation_of_state: ``width``.
        encoder: ``width`` and ``hops``.
        strain, elastic: of a solid: ``measure`` (one of `STRAINS`) and ``width`` of the network for the second of
            them; ``width``.
        substeps: steps of the model in one of the data.
        solvent: ``inertial`` or ``overdamped`` for particles in a liquid, None for others.

    Raises:
        ValueError: a setting out of range.
    """
    if entropy not in ("encoded", "observed"):
        raise ValueError(f"entropy is {entropy!r}; choose 'encoded' or 'observed'")
    if solvent not in (None, "inertial", "overdamped"):
        raise ValueError(f"solvent is {solvent!r}; choose 'inertial', 'overdamped', or None for no liquid")
    if substeps < 1:
        raise ValueError(f"substeps is {substeps}; it must be at least 1")
    species = len(mass) if isinstance(mass, list) else 1
    size = Scales(**scales)
    capacity = HEAT_CAPACITY if strain is None else SOLID_HEAT_CAPACITY
    k_B = size.entropy * capacity**-0.5
    temperature = size.energy / k_B
    # 2 k_B dt Σ_j G_ij / m² is the variance of a velocity step; the windows leave about a quarter of the sum
    effective = max(0.25 * size.neighbors, 1.0)
    fluctuation = size.increment * size.mass**2 / dt
    bath = None
    if solvent is not None:
        bath = SolventBath(
            friction=[_solvent_friction(solvent, size, dt)] * species,
            exchange=[ENTROPY_INCREMENT * capacity / (2.0 * dt)] * species,
            temperature=size.energy,
            overdamped=solvent == "overdamped",
            learned=True,
        )
        fluctuation = (1.0 - SOLVENT_SHARE) * fluctuation
    drag = fluctuation / (k_B * effective)
    heat = ENTROPY_INCREMENT * (size.entropy * temperature) ** 2 / (2.0 * k_B * dt * effective)
    entropic = {"energy": size.energy, "entropy": size.entropy}
    solid = {}
    if strain is None:
        law = LearnedEquationOfState(
            **entropic, volume=size.volume, heat_capacity=capacity, species=species, **equation_of_state
        )
    else:
        measure = _strain(cutoff, dimension, **strain)
        *shape, bulk = size.moduli
        law = LearnedVolume(**entropic, modulus=bulk, heat_capacity=capacity, **equation_of_state)
        shear = LearnedShear(**entropic, moduli=shape[: measure.count], **elastic)
        solid = {"strain": measure, "elastic": shear}
    return MetriplecticModel(
        LearnedKernel(cutoff, volume=size.volume, dimension=dimension, species=species, **kernel),
        law,
        LearnedFriction(
            cutoff,
            temperature=temperature,
            squared=(drag, drag, heat),
            heat_limit=EXCESS * capacity * k_B * temperature**2 / dt,
            species=species,
            **friction,
        ),
        mass=mass,
        k_B=k_B,
        dt=dt / substeps,
        dimension=dimension,
        encoder=EntropyEncoder(cutoff, speed=size.speed, species=species, **encoder) if entropy == "encoded" else None,
        bath=bath,
        learn_mass=learn_mass,
        learn_k_B=True,
        **solid,
    )


def _solvent_friction(solvent: str, size: Scales, dt: float) -> float:
    """ζ from the size of the steps."""
    if solvent == "overdamped":  # 2 k_B T_s dt / ζ is the mean square of a displacement, dt² times the increment
        return 2.0 * size.energy / (size.increment * dt)
    return SOLVENT_SHARE * size.increment * size.mass**2 / (2.0 * size.energy * dt)


def _strain(cutoff: float, dimension: int, *, measure: str, width: int) -> DeformationGradient | PairStrain:
    if measure not in STRAINS:
        raise ValueError(f"the strain's measure is {measure!r}; choose one of {STRAINS}")
    if measure == "pair_network":
        return PairStrain(cutoff, dimension=dimension, width=width)
    return DeformationGradient()
