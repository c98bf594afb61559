"""Time stepping: integrators, what acts on a system from outside, and rollouts."""

from gnn_metriplectic.dynamics.external import (
    Forcing,
    Prescribed,
    RecordedPath,
    TaylorGreenForcing,
    Thermostat,
    forcing_from,
)
from gnn_metriplectic.dynamics.integrators import INTEGRATORS, EnergyConserving, EulerMaruyama
from gnn_metriplectic.dynamics.overdamped import Overdamped
from gnn_metriplectic.dynamics.simulate import simulate

__all__ = [
    "INTEGRATORS",
    "EnergyConserving",
    "EulerMaruyama",
    "Forcing",
    "Overdamped",
    "Prescribed",
    "RecordedPath",
    "TaylorGreenForcing",
    "Thermostat",
    "forcing_from",
    "simulate",
]
