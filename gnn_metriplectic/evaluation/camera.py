"""A rollout as the camera that took the film would have seen it."""

from __future__ import annotations

import copy

import numpy as np
import torch

from gnn_metriplectic.models import MetriplecticModel, ParticleModel
from gnn_metriplectic.trajectory import Trajectory
from gnn_metriplectic.trajectory.window import window_of


def films(model: ParticleModel, truth: Trajectory) -> bool:
    """Whether velocities of ``model`` are others than those of ``truth``, which are slopes over a window.

    A graph network has learned the motion of the slopes themselves, and particles without inertia have no velocities.
    """
    exact = window_of(truth.metadata, truth.dt) is None
    return isinstance(model, MetriplecticModel) and not model.is_overdamped and not exact


def filmed(run: Trajectory, truth: Trajectory, *, seed: int) -> Trajectory:
    """``run``, whose frames are those of the film ``truth``, with velocities that are slopes as those of the film.

    They are slopes of places with errors as large as those of the film (drawn from ``seed``); the places themselves
    stay without.
    """
    seen = copy.copy(run)
    window = window_of(truth.metadata, truth.dt)
    places, random = run.positions.double().numpy(), np.random.default_rng(seed)
    errors = truth.metadata["localisation"]["position"] * random.standard_normal(places.shape)
    if run.prescribed is not None:  # on their tracks, which have errors already
        errors[:, run.prescribed.numpy()] = 0.0
    seen.velocities = torch.from_numpy(window.slopes(places + errors)).to(run.velocities)
    return seen
