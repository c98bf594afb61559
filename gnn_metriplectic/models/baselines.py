"""Baselines from plain settings: what others would train on the same data."""

from __future__ import annotations

from gnn_metriplectic.models.correction import corrected
from gnn_metriplectic.models.graph_network import GraphNetwork
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.scales import Scales, drag_limit, pair_noise
from gnn_metriplectic.models.solvent import SOLVENT_SHARE, solvent_bath
from gnn_metriplectic.models.spring_network import SpringNetwork
from gnn_metriplectic.terms import (
    HeatBath,
    LearnedPotential,
    LucyKernel,
    PairFriction,
    SpringPotential,
)


def dpd(
    *,
    dimension: int,
    cutoff: float,
    dt: float,
    mass: float | list[float],
    learn_mass: bool,
    size: Scales,
    substeps: int,
    solvent: str | None,
    potential: dict,
    friction: dict,
    correction: int | None = None,
) -> MetriplecticModel:
    """Dissipative particle dynamics at the temperature of the data, with k_B = 1; of a solid, along its bonds.

    Args:
        dimension, cutoff, dt, mass, learn_mass, size, substeps, solvent: as of `build_model`.
        potential, friction: ``width`` and ``depth`` of their networks.
        correction: of a fluid, as of `metriplectic`.
    """
    species = len(mass) if isinstance(mass, list) else 1
    drag, bath = pair_noise(size, k_B=1.0, dt=dt), None
    if solvent is not None:
        drag = (1.0 - SOLVENT_SHARE) * drag
        bath = solvent_bath(solvent, size, dt=dt, species=species, exchange=1.0 / dt)
        for fixed in (bath.log_temperature, bath.log_exchange):  # there is one temperature, and heat is not felt
            fixed.requires_grad_(False)
    form, potential_of, settings = MetriplecticModel, LearnedPotential, {"energy": size.energy, "nearest": size.nearest}
    if size.is_solid:
        # Σ_j w ½ ε (r/r⁰ - 1)² is the energy of I2 in a shear of all directions alike
        strength = dimension * (dimension + 2) * size.moduli[0] / size.effective_neighbors
        form, potential_of, settings = SpringNetwork, SpringPotential, {"energy": strength}
    pair = potential_of(cutoff, species=species, **settings, **potential)
    limit = drag_limit(size, temperature=size.energy, dt=dt)
    return form(
        LucyKernel(cutoff, dimension=dimension),  # for the volumes of stresses: nothing else feels it
        HeatBath(temperature=size.energy),
        PairFriction(cutoff, squared=drag, limit=limit, species=species, **friction),
        mass=mass,
        k_B=1.0,
        dt=dt / substeps,
        dimension=dimension,
        bath=bath,
        potential=corrected(pair, correction, cutoff),
        learn_mass=learn_mass,
    )


def gnn(
    *,
    dimension: int,
    cutoff: float,
    dt: float,
    mass: float | list[float],
    learn_mass: bool,
    size: Scales,
    substeps: int,
    solvent: str | None,
    network: dict,
) -> GraphNetwork:
    """A graph network that jumps over the whole of ``dt``: it has no ``substeps``.

    Args:
        dimension, cutoff, dt, mass, learn_mass, size, substeps, solvent: as of `build_model`.
        network: ``width``, ``hops`` and ``noise``.
    """
    return GraphNetwork(
        cutoff,
        mass=mass,
        dt=dt,
        dimension=dimension,
        learn_mass=learn_mass,
        speed=size.speed,
        increment=size.increment,
        neighbors=size.neighbors,
        strain=(size.mass * size.speed**2 / size.moduli[0]) ** 0.5 if size.is_solid else None,
        solvent=solvent is not None,
        **network,
    )
