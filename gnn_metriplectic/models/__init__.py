"""Models: terms assembled into dynamics."""

from gnn_metriplectic.models.build import build_model
from gnn_metriplectic.models.graph_network import GraphNetwork
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.particles import ParticleModel
from gnn_metriplectic.models.published import import_published
from gnn_metriplectic.models.scales import Scales
from gnn_metriplectic.models.spring_network import SpringNetwork
from gnn_metriplectic.models.state import State
from gnn_metriplectic.models.table_file import read_tables, write_tables
from gnn_metriplectic.models.tables import tabulate

__all__ = [
    "GraphNetwork",
    "MetriplecticModel",
    "ParticleModel",
    "Scales",
    "SpringNetwork",
    "State",
    "build_model",
    "import_published",
    "read_tables",
    "tabulate",
    "write_tables",
]
