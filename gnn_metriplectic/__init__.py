"""Coarse-grained particle dynamics learned in metriplectic (GENERIC) form."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# the rooms of the public names, in the order in which they import one another
_ROOMS = ("geometry", "trajectory", "models", "dynamics", "learning")


def __getattr__(name: str) -> Any:
    """Import what is first asked for: a command is to answer before PyTorch has been read."""
    if name in __all__:
        rooms = (import_module(f"{__name__}.{room}") for room in _ROOMS)
        value = next(getattr(room, name) for room in rooms if hasattr(room, name))
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
