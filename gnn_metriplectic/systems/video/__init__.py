"""From a film of particles, or from tracks of another program, to trajectories; needs the ``video`` extra."""

from gnn_metriplectic.systems.video.colloids import ColloidSystem
from gnn_metriplectic.systems.video.system import VideoSystem

__all__ = ["ColloidSystem", "VideoSystem"]
