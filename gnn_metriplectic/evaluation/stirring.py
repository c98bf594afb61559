"""How particles answer to a body that stirs them: truth and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gnn_metriplectic.analysis.rearrangement import Drive, d2min, flow_profile, rank_correlation
from gnn_metriplectic.analysis.scores import rrmse
from gnn_metriplectic.models import ParticleModel, State
from gnn_metriplectic.trajectory import Trajectory

# of the flow profile, in units of the cutoff
BINS = np.linspace(0.0, 2.0, 7)
# starts of the intervals of D²_min
STARTS = 6


@dataclass(frozen=True)
class Stirring:
    """Flow and rearrangements around a driven body.

    Attributes:
        scores: means of D²_min, of model and truth, and its rank correlations with the entropy, if the model has one.
        distance: ``[B]`` from the body; ``flow`` of each side, the velocity over the body's, complex, ``[B]``.
        place, rearranged: of each side, positions ``[N, 2]`` and D²_min ``[N]`` of one interval.
        free: ``[N]``, particles that are not prescribed.
    """

    scores: dict[str, float]
    distance: np.ndarray
    flow: dict[str, np.ndarray]
    place: dict[str, np.ndarray]
    rearranged: dict[str, np.ndarray]
    free: np.ndarray


@torch.no_grad()
def stirring(model: ParticleModel, run: Trajectory, truth: Trajectory) -> Stirring | None:
    """Compare a rollout ``run`` with the film; None where the film names no driven species."""
    kind = ((truth.metadata or {}).get("settings") or {}).get("prescribed")
    if kind is None or truth.species is None:
        return None
    drive = Drive.of(truth, kind)
    edges = BINS * model.cutoff
    flow, place, rearranged, scores = {}, {}, {}, {}
    free = ~truth.prescribed.numpy()
    moving = free | drive.mask  # a rim that is held is no neighbour
    for side, traj in (("truth", truth), ("model", run)):
        flow[side] = flow_profile(traj, drive, edges)
        step = min(round(1.0 / (drive.frequency * traj.dt)), len(traj) - 1)
        means, links = [], []
        for start in np.unique(np.linspace(0, len(traj) - 1 - step, STARTS).astype(int)).tolist():
            before, after = (traj.positions[f].double().numpy() for f in (start, start + step))
            found = np.full(len(free), np.nan)
            found[moving] = d2min(before[moving], after[moving], model.cutoff)
            means.append(np.nanmean(found[free]))
            if model.has_entropy:
                state = State.from_frame(traj, start, model, encode=side == "truth")
                links.append(rank_correlation(state.entropy.numpy()[free], found[free]))
            place.setdefault(side, before)
            rearranged.setdefault(side, found)
        suffix = "" if side == "model" else "_truth"
        scores[f"d2min{suffix}"] = float(np.mean(means))
        if links:
            scores[f"d2min_entropy{suffix}"] = float(np.mean(links))
    return Stirring(scores, 0.5 * (edges[1:] + edges[:-1]), flow, place, rearranged, free)


def mean_flow(parts: Sequence[Stirring], side: str) -> np.ndarray:
    """Amplitude over the body's of the mean of several runs, ``[B]``; NaN where a run has nobody."""
    return np.abs(np.mean([part.flow[side] for part in parts], axis=0))


def flow_error(model: np.ndarray, truth: np.ndarray) -> float:
    """RRMSE of a profile ``[B]``, where both are known."""
    known = np.isfinite(model) & np.isfinite(truth)
    return float(rrmse(model[known], truth[known]))
