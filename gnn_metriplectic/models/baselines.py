"""Baselines from plain settings: what others would train on the same data."""

from __future__ import annotations

from gnn_metriplectic.models.graph_network import GraphNetwork
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.scales import Scales, pair_noise
from gnn_metriplectic.terms import HeatBath, PairFriction, PairPotential


def dpd(
    *,
    dimension: int,
    cutoff: float,
    dt: float,
    mass: float | list[float],
    learn_mass: bool,
    size: Scales,
    substeps: int,
    potential: dict,
    friction: dict,
) -> MetriplecticModel:
    """Dissipative particle dynamics at the temperature of the data, with k_B = 1.

    Args:
        dimension, cutoff, dt, mass, learn_mass, size, substeps: as of `build_model`.
        potential, friction: ``width`` and ``depth`` of their networks.
    """
    species = len(mass) if isinstance(mass, list) else 1
    return MetriplecticModel(
        PairPotential(cutoff, species=species, **potential),
        HeatBath(temperature=size.energy, energy=size.energy),
        PairFriction(cutoff, squared=pair_noise(size, k_B=1.0, dt=dt), species=species, **friction),
        mass=mass,
        k_B=1.0,
        dt=dt / substeps,
        dimension=dimension,
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
    network: dict,
) -> GraphNetwork:
    """A graph network that jumps over the whole of ``dt``: it has no ``substeps``.

    Args:
        dimension, cutoff, dt, mass, learn_mass, size, substeps: as of `build_model`.
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
        **network,
    )
