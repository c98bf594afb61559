"""Boxes, neighbour pairs and reproducible pair noise."""

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.geometry.neighbors import Pairs, batch_pairs, neighbor_pairs, transition_pairs
from gnn_metriplectic.geometry.noise import pair_normals
from gnn_metriplectic.geometry.partition import Partition
from gnn_metriplectic.geometry.reference import Bonds, Reference
from gnn_metriplectic.geometry.vectors import columns, dot
from gnn_metriplectic.geometry.verlet import VerletList

__all__ = [
    "Bonds",
    "Box",
    "Pairs",
    "Partition",
    "Reference",
    "VerletList",
    "batch_pairs",
    "columns",
    "dot",
    "neighbor_pairs",
    "pair_normals",
    "transition_pairs",
]
