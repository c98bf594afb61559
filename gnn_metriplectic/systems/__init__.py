"""Systems that the package generates, and the trajectories that it reads."""

from gnn_metriplectic.systems.dataset import SPLITS, SYSTEMS, ensure_dataset, ground_truth, read_split

__all__ = ["SPLITS", "SYSTEMS", "ensure_dataset", "ground_truth", "read_split"]
