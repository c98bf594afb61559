"""Models: terms assembled into dynamics."""

from gnn_metriplectic.models.build import Scales, build_model
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.published import import_published
from gnn_metriplectic.models.state import State
from gnn_metriplectic.models.table_file import read_tables, write_tables
from gnn_metriplectic.models.tables import tabulate

__all__ = [
    "MetriplecticModel",
    "Scales",
    "State",
    "build_model",
    "import_published",
    "read_tables",
    "tabulate",
    "write_tables",
]
