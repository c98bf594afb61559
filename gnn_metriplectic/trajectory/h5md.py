"""Trajectories as H5MD files (de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546, 2014).

The layout, version 1.1 of the specification::

    /h5md                     version, author, creator
    /particles/all/box        dimension, boundary, edges {step, time, value}
                  /position   step [T], time [T], value [T, N, D]   unwrapped
                  /velocity   value [T, N, D]     step and time are those of position
                  /entropy    value [T, N]
                  /mass [N]   /species [N]   /id [N]
    /connectivity/reference [B, 2]                                  reference neighbours of a solid
    /parameters/gnn_metriplectic                                    provenance, as JSON attributes
                  /prescribed [N]   /reference_displacement [B, D]

``edges`` are the edge lengths, or the lattice vectors as rows when the box is triclinic or sheared.
The file opens in MDAnalysis (three dimensions, ``convert_units=False`` unless its units are known there).
"""

from __future__ import annotations

from gnn_metriplectic.trajectory.h5md_read import read_trajectory
from gnn_metriplectic.trajectory.h5md_write import TrajectoryWriter, write_trajectory

__all__ = ["TrajectoryWriter", "read_trajectory", "write_trajectory"]
