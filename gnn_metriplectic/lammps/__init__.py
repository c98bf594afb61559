"""LAMMPS: running it, and running learned models in it."""

from gnn_metriplectic.lammps.build import build_plugin
from gnn_metriplectic.lammps.launch import run_lammps

__all__ = ["build_plugin", "run_lammps"]
