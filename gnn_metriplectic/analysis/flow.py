"""Known patterns of flow, their amplitude in a trajectory, and the velocity relative to them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnn_metriplectic.geometry.fields import taylor_green_pattern
from gnn_metriplectic.trajectory import Trajectory


def shear_pattern(positions: Tensor) -> Tensor:
    """(y, 0, 0): linear shear of rate 1, ``[..., D]`` like ``positions``."""
    pattern = torch.zeros_like(positions)
    pattern[..., 0] = positions[..., 1]
    return pattern


def forcing_pattern(positions: Tensor, forcing: dict[str, Any], default_length: float | None = None) -> Tensor | None:
    """The pattern of flow that a ``Trajectory.forcing`` drives, or None (with a warning) if it is not known."""
    name = str(forcing.get("name"))
    length = forcing.get("length", default_length)
    if name == "taylor_green" and length is not None:
        return taylor_green_pattern(positions, float(length))
    if name == "shear":
        return shear_pattern(positions)
    warnings.warn(f"no flow pattern is known for forcing {forcing}; only the mean velocity is removed", stacklevel=3)
    return None


def local_flow(traj: Trajectory, pattern: Tensor | None = None) -> tuple[np.ndarray, Tensor]:
    """Mean flow and amplitude of a known pattern, by least squares weighted with mass, frame by frame.

    In a sheared box the imposed profile is taken off first, and given back as part of the flow.

    Args:
        traj: the trajectory.
        pattern: ``[T, N, D]`` flow of amplitude 1 at the particles; by default that of ``traj.forcing``.

    Returns:
        ``(amplitude, flow)``: ``[T]``, zero without a pattern, and ``[T, N, D]``, both velocities.

    Raises:
        ValueError: if the pattern's shape is not that of the velocities.
    """
    velocities, masses = traj.velocities.double(), traj.masses.double()
    base = traj.box.shear_rate * shear_pattern(traj.positions.double())
    weight = (masses / masses.sum())[:, None]
    relative = velocities - base
    mean = (weight * relative).sum(dim=1, keepdim=True)
    if pattern is None and traj.forcing is not None:
        edge = None if traj.box.is_free else traj.box.lengths[0]
        pattern = forcing_pattern(traj.positions.double(), traj.forcing, edge)
    if pattern is None:
        return np.zeros(len(traj)), base + mean.expand_as(velocities)
    if pattern.shape != velocities.shape:
        raise ValueError(f"pattern has shape {list(pattern.shape)}; velocities have {list(velocities.shape)}")
    pattern = pattern.double()
    # A pattern sampled at the particles has a mean of its own, which belongs to the mean flow.
    wave = pattern - (weight * pattern).sum(dim=1, keepdim=True)
    norm = (weight * wave**2).sum(dim=(1, 2))
    amplitude = (weight * wave * relative).sum(dim=(1, 2)) / norm.clamp_min(torch.finfo(torch.float64).tiny)
    return amplitude.numpy(), base + mean + amplitude[:, None, None] * wave


def peculiar_velocities(traj: Trajectory) -> np.ndarray:
    """Velocities ``[T, N, D]`` (float64) without the shear of the box and without total momentum.

    In a sheared box the unwrapped velocity of a particle at height y loses ``shear_rate * y`` along x.
    If some particles are prescribed the momentum is that of whoever moves them, and stays.
    """
    velocities = traj.velocities.double() - traj.box.shear_rate * shear_pattern(traj.positions.double())
    if traj.prescribed is None:
        weight = (traj.masses.double() / traj.masses.double().sum())[:, None]
        velocities = velocities - (weight * velocities).sum(dim=1, keepdim=True)
    return velocities.numpy()
