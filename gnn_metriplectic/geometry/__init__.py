"""Boxes, neighbour pairs and reproducible pair noise."""

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.geometry.neighbors import Pairs, batch_pairs, neighbor_pairs, transition_pairs
from gnn_metriplectic.geometry.noise import pair_normals
from gnn_metriplectic.geometry.reference import Bonds, Reference
from gnn_metriplectic.geometry.vectors import dot

__all__ = [
    "Bonds",
    "Box",
    "Pairs",
    "Reference",
    "batch_pairs",
    "dot",
    "neighbor_pairs",
    "pair_normals",
    "transition_pairs",
]
