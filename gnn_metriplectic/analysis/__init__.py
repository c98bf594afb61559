"""Structure, transport and conservation of trajectories, scores of models, and the report."""

from gnn_metriplectic.analysis.conservation import (
    drift,
    energy_drift,
    entropy_drift,
    momentum_drift,
    total_momentum,
)
from gnn_metriplectic.analysis.curves import Curves, curves
from gnn_metriplectic.analysis.flow import (
    forcing_pattern,
    local_flow,
    peculiar_velocities,
    shear_pattern,
    taylor_green_pattern,
)
from gnn_metriplectic.analysis.report import print_table, write_metrics, write_report
from gnn_metriplectic.analysis.scores import block_bootstrap, floor, rrmse, score
from gnn_metriplectic.analysis.structure import largest_radius, rdf
from gnn_metriplectic.analysis.transport import (
    diffusion_coefficient,
    kinetic_temperature,
    msd,
    msd_dimension,
    vacf,
)

__all__ = [
    "Curves",
    "block_bootstrap",
    "curves",
    "diffusion_coefficient",
    "drift",
    "energy_drift",
    "entropy_drift",
    "floor",
    "forcing_pattern",
    "kinetic_temperature",
    "largest_radius",
    "local_flow",
    "momentum_drift",
    "msd",
    "msd_dimension",
    "peculiar_velocities",
    "print_table",
    "rdf",
    "rrmse",
    "score",
    "shear_pattern",
    "taylor_green_pattern",
    "total_momentum",
    "vacf",
    "write_metrics",
    "write_report",
]
