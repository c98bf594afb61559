"""Particles from molecular dynamics: any trajectory that MDAnalysis reads."""

from gnn_metriplectic.systems.molecular.system import TrajectorySystem

__all__ = ["TrajectorySystem"]
