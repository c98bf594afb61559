"""How a difference of temperature across a box evens out."""

from __future__ import annotations

import numpy as np

from gnn_metriplectic.analysis.flow import local_flow
from gnn_metriplectic.trajectory import Trajectory

# stretches of a run, over each of which the wave is averaged
STRETCHES = 20


def temperature_wave(traj: Trajectory, stretches: int = STRETCHES) -> np.ndarray:
    """Amplitude of sin 2πx/L in k_B T, from velocities relative to the flow, as means over ``stretches`` of the run.

    Of halves at T (1 ± c) at rest it begins at 4 c T / π; diffusion lets it decay by exp(-(2π/L)² D_T t).

    Args:
        traj: in a periodic box whose first lattice vector, of length L, is along x.
        stretches: parts of equal length, at most one a frame.

    Returns:
        ``[stretches]``, in units of energy.

    Raises:
        ValueError: a free box, or fewer frames than stretches.
    """
    if traj.box.is_free or len(traj) < stretches:
        raise ValueError(f"a temperature wave needs a periodic box and at least {stretches} frames, not {len(traj)}")
    peculiar = traj.velocities.double() - local_flow(traj)[1]
    energies = (traj.masses.double()[:, None] * peculiar**2).sum(dim=(2,)).numpy() / traj.dimension
    phase = 2.0 * np.pi * traj.positions[..., 0].double().numpy() / float(traj.box.lengths[0])
    wave = 2.0 * (energies * np.sin(phase)).mean(axis=1)
    return np.array([part.mean() for part in np.array_split(wave, stretches)])
