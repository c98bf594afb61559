"""Particle trajectories in memory and in H5MD files."""

from gnn_metriplectic.trajectory.h5md import TrajectoryWriter, read_trajectory, write_trajectory
from gnn_metriplectic.trajectory.tearing import warn_if_torn
from gnn_metriplectic.trajectory.trajectory import Trajectory

__all__ = ["Trajectory", "TrajectoryWriter", "read_trajectory", "warn_if_torn", "write_trajectory"]
