"""What a closed system must keep, judged on time series recorded during a rollout.

Energy drift is measured against the *kinetic* energy: the internal energy is a large constant, beside
which any drift looks small.
"""

from __future__ import annotations

import numpy as np

from gnn_metriplectic.trajectory import Trajectory


def drift(series: np.ndarray, scale: float | np.ndarray) -> float:
    """(max - min) / scale of a series ``[T]``. Raises ValueError for an empty or infinite series, or a scale <= 0."""
    series, scale = np.asarray(series, dtype=float), float(scale)
    if series.ndim != 1 or len(series) == 0:
        raise ValueError(f"the series has shape {list(series.shape)}; expected [frames] with at least one")
    if not np.isfinite(series).all():
        raise ValueError(f"frame {int(np.argmin(np.isfinite(series)))} of the series is not finite")
    if not scale > 0:
        raise ValueError(f"scale is {scale}; it must be positive")
    return float(np.ptp(series)) / scale


def energy_drift(energy: np.ndarray, kinetic_energy: np.ndarray, work: np.ndarray | None = None) -> float:
    """Spread of the total energy over the mean kinetic energy, dimensionless.

    Args:
        energy: ``[T]`` total energy.
        kinetic_energy: ``[T]``, or one number.
        work: ``[T]`` work done so far on the system from outside (forcing, sheared boundary, thermostat),
            which is taken off.
    """
    balance = np.asarray(energy, dtype=float) - (0.0 if work is None else np.asarray(work, dtype=float))
    return drift(balance, np.mean(kinetic_energy))


def momentum_drift(momentum: np.ndarray, scale: float | np.ndarray) -> float:
    """max |P(t) - P(0)| / scale, dimensionless.

    Args:
        momentum: ``[T, D]`` total momentum.
        scale: sum of m |v|, one number or ``[T]``.
    """
    momentum = np.asarray(momentum, dtype=float)
    if momentum.ndim != 2 or not np.isfinite(momentum).all():
        raise ValueError(f"momentum has shape {list(momentum.shape)}; expected finite [frames, dimension]")
    size = float(np.mean(scale))
    if not size > 0:
        raise ValueError(f"scale is {size}; it must be positive")
    return float(np.linalg.norm(momentum - momentum[0], axis=1).max()) / size


def total_momentum(traj: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Momentum ``[T, D]`` and its scale sum m |v| ``[T]``, in float64."""
    momenta = traj.masses.double()[:, None] * traj.velocities.double()
    return momenta.sum(dim=1).numpy(), momenta.norm(dim=-1).sum(dim=1).numpy()


def entropy_drift(entropies: np.ndarray) -> float:
    """Shift of the mean entropy a particle between the first and the last quarter, over the spread among particles.

    Zero, within noise, at equilibrium; positive while entropy is produced.

    Args:
        entropies: ``[T, N]``.

    Raises:
        ValueError: for fewer than four frames.
    """
    entropies = np.asarray(entropies, dtype=float)
    if entropies.ndim != 2 or len(entropies) < 4:
        raise ValueError(f"entropies have shape {list(entropies.shape)}; expected [at least 4 frames, particles]")
    quarter = len(entropies) // 4
    spread = float(entropies.std(axis=1).mean())
    shift = float(entropies[-quarter:].mean() - entropies[:quarter].mean())
    return shift / spread if spread > 0 else (0.0 if shift == 0 else float(np.copysign(np.inf, shift)))
