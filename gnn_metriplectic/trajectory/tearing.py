"""Whether a solid held together: a model of one with fixed neighbours does not know how it tears."""

from __future__ import annotations

import warnings

import torch

from gnn_metriplectic.trajectory.trajectory import Trajectory

# times its reference length at which a pair of reference neighbours counts as torn apart
TEARING_STRETCH = 2.0
_FRAMES = 50


def torn_pairs(traj: Trajectory) -> tuple[int, int]:
    """Most reference pairs that are torn in a frame, and that frame, of 50 evenly spread; (0, 0) for a fluid."""
    if traj.reference is None:
        return 0, 0
    picks = torch.linspace(0, len(traj) - 1, min(_FRAMES, len(traj))).long().tolist()
    counts = [
        int((traj.reference.bonds(traj.positions[f].double(), traj.box).stretch > TEARING_STRETCH).sum()) for f in picks
    ]
    worst = max(range(len(picks)), key=counts.__getitem__)
    return counts[worst], picks[worst]


def warn_if_torn(traj: Trajectory, name: str) -> None:
    """Warn, with counts, of a solid whose reference neighbours have come apart."""
    count, frame = torn_pairs(traj)
    if count:
        warnings.warn(
            f"{name} is torn: in frame {frame}, {count} of {traj.reference.index.shape[1]} pairs of reference "
            f"neighbours are over {TEARING_STRETCH:g} times as long as in the reference, and still pull on each other",
            stacklevel=3,
        )
