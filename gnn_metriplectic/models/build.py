"""Learned models from plain settings, as they stand in a checkpoint."""

from __future__ import annotations

from typing import Any

from gnn_metriplectic.models.baselines import dpd, gnn
from gnn_metriplectic.models.correction import corrected
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.particles import ParticleModel
from gnn_metriplectic.models.scales import Scales, drag_limit, pair_noise
from gnn_metriplectic.models.solvent import SOLVENT_SHARE, solvent_bath
from gnn_metriplectic.terms import (
    DeformationGradient,
    EntropyEncoder,
    LearnedEquationOfState,
    LearnedFriction,
    LearnedKernel,
    LearnedPotential,
    LearnedShear,
    LearnedVolume,
    MeasuredPotential,
    PairStrain,
)

# the first guess of the heat capacity of a particle, in units of k_B; that of a solid takes up the heat of its friction
HEAT_CAPACITY, SOLID_HEAT_CAPACITY = 25.0, 1e6
# how far the kernel of a solid falls at first beside its window: about as Lucy's, of which the first moduli are
SOLID_FALL = 2.4
STRAINS = ("deformation_gradient", "pair_network")
# the share of the excess of heat that a pair may exchange in a step
EXCESS = 0.25
# the first guess of the share of a step in the variance of the entropy
ENTROPY_INCREMENT = 0.1


def build_model(
    *,
    kind: str = "metriplectic",
    dimension: int,
    cutoff: float,
    dt: float,
    mass: float | list[float],
    learn_mass: bool,
    entropy: str,
    scales: dict[str, Any],
    substeps: int = 1,
    solvent: str | None = None,
    **terms: dict[str, Any],
) -> ParticleModel:
    """A learned model with fresh weights.

    Args:
        kind: one of `KINDS`, each a function of this module or of `baselines`.
        dimension, cutoff, dt: of the data; dt is the lag times the spacing of frames.
        mass: of a particle, one number or one a species.
        learn_mass: whether the mass is fitted too.
        entropy: ``encoded`` or ``observed`` (given with the data; then there is no encoder); baselines have none.
        scales: of the data, as `Scales`.
        substeps: steps of the model in one of the data.
        solvent: ``inertial`` or ``overdamped`` for particles in a liquid, None for others.
        terms: settings of the networks, by the names that the kind has for them.

    Raises:
        ValueError: a setting out of range.
        TypeError: a term that the kind does not have, or lacks.
    """
    if kind not in KINDS:
        raise ValueError(f"the kind of model is {kind!r}; choose one of {sorted(KINDS)}")
    if entropy not in ("encoded", "observed"):
        raise ValueError(f"entropy is {entropy!r}; choose 'encoded' or 'observed'")
    if substeps < 1:
        raise ValueError(f"substeps is {substeps}; it must be at least 1")
    known = {"dimension": dimension, "cutoff": cutoff, "dt": dt, "mass": mass, "learn_mass": learn_mass}
    if solvent not in (None, "inertial", "overdamped"):
        raise ValueError(f"solvent is {solvent!r}; choose 'inertial', 'overdamped', or None for no liquid")
    if kind == "metriplectic":
        terms["entropy"] = entropy
    elif solvent == "overdamped":
        raise ValueError(f"solvent=overdamped is for kind=metriplectic; the steps of a {kind} are of velocities")
    return KINDS[kind](**known, size=Scales(**scales), substeps=substeps, solvent=solvent, **terms)


def metriplectic(
    *,
    dimension: int,
    cutoff: float,
    dt: float,
    mass: float | list[float],
    learn_mass: bool,
    size: Scales,
    substeps: int,
    entropy: str,
    kernel: dict,
    equation_of_state: dict,
    friction: dict,
    encoder: dict,
    potential: dict | None = None,
    correction: int | None = None,
    strain: dict | None = None,
    elastic: dict | None = None,
    solvent: str | None = None,
) -> MetriplecticModel:
    """A metriplectic model of networks.

    Args:
        dimension, cutoff, dt, mass, learn_mass, size, substeps, entropy, solvent: as of `build_model`.
        kernel: ``width``.
        friction: ``width`` and ``depth`` of its network, and ``rank``.
        equation_of_state: ``width``; in a fluid also ``compressible``.
        encoder: ``width`` and ``hops``.
        potential: of a fluid, ``width`` and ``depth`` of a network, or ``nodes`` of a table (`MeasuredPotential`).
        correction: nodes of a second potential, which is zero until `learning.structure` finds it.
        strain, elastic: of a solid: ``measure`` (one of `STRAINS`) and ``width`` of the network for the second of
            them; ``width``.
    """
    if strain is not None and "compressible" in equation_of_state:
        raise ValueError("equation_of_state.compressible is for fluids: a solid has its strain; leave it out")
    species = len(mass) if isinstance(mass, list) else 1
    capacity = HEAT_CAPACITY if strain is None else SOLID_HEAT_CAPACITY
    k_B = size.entropy * capacity**-0.5
    temperature = size.energy / k_B
    drag, bath = pair_noise(size, k_B=k_B, dt=dt), None
    if solvent is not None:
        bath = solvent_bath(solvent, size, dt=dt, species=species, exchange=ENTROPY_INCREMENT * capacity / (2.0 * dt))
        drag = (1.0 - SOLVENT_SHARE) * drag
    heat = ENTROPY_INCREMENT * (size.entropy * temperature) ** 2 / (2.0 * k_B * dt * size.effective_neighbors)
    friction_limit = drag_limit(size, temperature=temperature, dt=dt)
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
    pair = None
    if potential is not None and "nodes" in potential:
        pair = MeasuredPotential(cutoff, species=species, **potential)
        if bath is not None:  # who measures the forces measures the liquid, too
            for known in (bath.log_friction, bath.log_temperature):
                known.requires_grad_(False)
    elif potential is not None:
        pair = LearnedPotential(cutoff, energy=size.energy, species=species, nearest=size.nearest, **potential)
    return MetriplecticModel(
        LearnedKernel(
            cutoff,
            volume=size.volume,
            dimension=dimension,
            species=species,
            fall=1.0 if strain is None else SOLID_FALL,
            **kernel,
        ),
        law,
        LearnedFriction(
            cutoff,
            temperature=temperature,
            squared=(drag, drag, heat),
            limits=(friction_limit, friction_limit, EXCESS * capacity * k_B * temperature**2 / dt),
            species=species,
            volume=None if strain is None else size.volume,
            **friction,
        ),
        mass=mass,
        k_B=k_B,
        dt=dt / substeps,
        dimension=dimension,
        encoder=EntropyEncoder(cutoff, speed=size.speed, species=species, **encoder) if entropy == "encoded" else None,
        bath=bath,
        potential=corrected(pair, correction, cutoff),
        learn_mass=learn_mass,
        learn_k_B=True,
        **solid,
    )


def _strain(cutoff: float, dimension: int, *, measure: str, width: int) -> DeformationGradient | PairStrain:
    if measure not in STRAINS:
        raise ValueError(f"the strain's measure is {measure!r}; choose one of {STRAINS}")
    if measure == "pair_network":
        return PairStrain(cutoff, dimension=dimension, width=width)
    return DeformationGradient()


KINDS = {"metriplectic": metriplectic, "dpd": dpd, "gnn": gnn}
