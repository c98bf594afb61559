"""Coarse-grained particle dynamics learned in metriplectic (GENERIC) form."""

from gnn_metriplectic.dynamics import Prescribed, TaylorGreenForcing, Thermostat, simulate
from gnn_metriplectic.geometry import Box, Pairs, Reference, neighbor_pairs
from gnn_metriplectic.learning import MetriplecticModule, fit, inspect, load
from gnn_metriplectic.models import MetriplecticModel, State, import_published, read_tables, tabulate, write_tables
from gnn_metriplectic.trajectory import Trajectory, read_trajectory, write_trajectory

__all__ = [
    "Box",
    "MetriplecticModel",
    "MetriplecticModule",
    "Pairs",
    "Prescribed",
    "Reference",
    "State",
    "TaylorGreenForcing",
    "Thermostat",
    "Trajectory",
    "fit",
    "import_published",
    "inspect",
    "load",
    "neighbor_pairs",
    "read_tables",
    "read_trajectory",
    "simulate",
    "tabulate",
    "write_tables",
    "write_trajectory",
]
