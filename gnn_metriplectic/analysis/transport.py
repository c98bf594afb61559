"""Self-diffusion, viscosity and kinetic temperature.

All averages run over the particles that move by themselves (not the prescribed ones), after removal
of total momentum. A flow that changes in time (Taylor-Green) stays in displacements and velocities:
truth and model get the same treatment. In a sheared box velocities are peculiar (without
``shear_rate * y`` along x), and displacements are those across the flow, along y and z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import tidynamics
import torch
from torch import Tensor

from gnn_metriplectic.analysis.flow import peculiar_velocities
from gnn_metriplectic.trajectory import Trajectory


def msd(traj: Trajectory, max_lag_time: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared displacement, summed over the components of ``msd_dimension``.

    Every origin counts (Calandrini et al., Collection SFN 12, 201, 2011; tidynamics).

    Args:
        traj: the trajectory.
        max_lag_time: longest lag, in units of time.

    Returns:
        ``(lags, msd)``, each ``[L]``: times from 0 on, and length squared.

    Raises:
        ValueError: if the trajectory is shorter than ``max_lag_time``.
    """
    lags = _lag_times(traj, max_lag_time)
    positions = traj.positions.double()
    if traj.prescribed is None:
        weight = (traj.masses.double() / traj.masses.double().sum())[:, None]
        positions = positions - (weight * positions).sum(dim=1, keepdim=True)
    positions = (positions - positions[:1]).numpy()  # the sums of squares stay small
    if traj.box.shear_rate:
        positions = positions[..., 1:]
    return lags, _mean_over_particles(tidynamics.msd, positions, traj, len(lags))


def vacf(traj: Trajectory, max_lag_time: float) -> tuple[np.ndarray, np.ndarray]:
    """Velocity autocorrelation <v(0)·v(t)>, summed over the D components and not normalised to 1.

    Unbiased: each lag is divided by its own number of origins (tidynamics). Arguments and errors as
    in ``msd``. Returns ``(lags, vacf)``, each ``[L]``: times from 0 on, and velocity squared.
    """
    lags = _lag_times(traj, max_lag_time)
    return lags, _mean_over_particles(tidynamics.acf, peculiar_velocities(traj), traj, len(lags))


def msd_dimension(traj: Trajectory) -> int:
    """How many components ``msd`` sums: D, or D - 1 in a sheared box."""
    return traj.dimension - bool(traj.box.shear_rate)


def diffusion_coefficient(
    lag_times: np.ndarray, msd: np.ndarray, dimension: int, window: tuple[float, float]
) -> float | np.ndarray:
    """D = slope/(2 dimension) of a straight line through the MSD at lags within ``window``.

    Args:
        lag_times: ``[L]``, units of time.
        msd: ``[L]``, or ``[..., L]`` for many curves at once.
        dimension: components summed in the MSD.
        window: first and last lag of the fit, included.

    Raises:
        ValueError: if fewer than two lags fall in the window.
    """
    first, last = window
    slack = 1e-9 * max(abs(last), 1e-300)
    inside = (lag_times >= first - slack) & (lag_times <= last + slack)
    if inside.sum() < 2:
        raise ValueError(
            f"{int(inside.sum())} lag(s) fall in the window {first:g} to {last:g} (lags reach {lag_times[-1]:g}); "
            "at least two are needed for a slope"
        )
    t = lag_times[inside] - lag_times[inside].mean()
    slope = np.asarray(msd)[..., inside] @ t / (t @ t)
    return slope / (2 * dimension) if np.ndim(slope) else float(slope) / (2 * dimension)


def kinetic_temperature(traj: Trajectory, flow: Tensor | Callable[[Tensor], Tensor] | None = None) -> np.ndarray:
    """k_B T of every frame, ``[T]``, units of energy: sum m |v - flow|² / (D (N - 1)).

    Total momentum is removed, hence N - 1; with prescribed particles it stays, and N counts the others.

    Args:
        traj: the trajectory.
        flow: local flow, ``[T, N, D]`` or a function of positions ``[T, N, D]`` that returns it
            (``local_flow`` fits one). In a sheared box the imposed profile is removed without asking.

    Raises:
        ValueError: if the flow's shape is not that of the velocities.
    """
    velocities = torch.from_numpy(peculiar_velocities(traj))
    if flow is not None:
        flow = flow(traj.positions) if callable(flow) else flow
        if flow.shape != velocities.shape:
            raise ValueError(f"flow has shape {list(flow.shape)}; expected {list(velocities.shape)}, as the velocities")
        velocities = traj.velocities.double() - flow.double()
        if traj.prescribed is None:
            weight = (traj.masses.double() / traj.masses.double().sum())[:, None]
            velocities = velocities - (weight * velocities).sum(dim=1, keepdim=True)
    twice_energy = traj.masses.double() * (velocities**2).sum(dim=-1)
    if traj.prescribed is None:
        return (twice_energy.sum(dim=1) / (traj.dimension * (traj.num_particles - 1))).numpy()
    free = ~traj.prescribed
    return (twice_energy[:, free].sum(dim=1) / (traj.dimension * int(free.sum()))).numpy()


def green_kubo_viscosity(
    stress: np.ndarray, dt: float, *, volume: float, temperature: float, max_lag_time: float
) -> float:
    """Shear viscosity V / (k_B T) ∫ <σ_xy(0) σ_xy(t)> dt up to ``max_lag_time``, over the given components.

    Args:
        stress: ``[T, K]`` off-diagonal components in units of pressure, ``dt`` apart.
        dt: in units of time.
        volume: of the box.
        temperature: k_B T, in units of energy.
        max_lag_time: upper limit of the integral.

    Raises:
        ValueError: if the record is shorter than ``max_lag_time``.
    """
    count = int(max_lag_time / dt * (1 + 1e-9))
    if not 1 <= count < len(stress):
        raise ValueError(f"max_lag_time is {max_lag_time:g}; the stress record spans {(len(stress) - 1) * dt:g}")
    columns = [np.ascontiguousarray(column) for column in stress.T]
    memory = np.mean([tidynamics.acf(column)[: count + 1] for column in columns], axis=0)
    return float(volume / temperature * np.trapezoid(memory, dx=dt))


def transverse_viscosity(runs: Sequence[Trajectory], *, begin: float, least: float = 0.35) -> tuple[float, float]:
    """Shear viscosity at rest by the decay of the longest waves of momentum, and its standard error (jackknife).

    Currents across their wave vector decay as exp(-η k² t / ρ) once stress has forgotten where it came from (Palmer,
    Phys. Rev. E 49, 359, 1994). Waves of one period along one, two and three edges of the box, each with the slope of
    -ln C from ``begin`` until C has fallen to ``least``; their mean by the inverse squares of their errors. η
    depends on k a little, so compare systems in equal boxes.

    Args:
        runs: of one length, in equal cubic boxes, of particles of one mass.
        begin: in units of time.
        least: of C over C(0).

    Returns:
        η and its error, in units of mass over length and time (in two dimensions, over time).

    Raises:
        ValueError: a box that is no cube, runs that are not alike, or a C that does not fall to ``least``, or sooner
            than at ``begin``.
    """
    box = runs[0].box
    if box.is_free or box.shear_rate or len(set(box.lengths)) != 1:
        raise ValueError(f"the box is {box}; waves of momentum are those of a cube at rest")
    if len({(len(run), run.num_particles, tuple(run.box.lengths), run.dt) for run in runs}) > 1:
        raise ValueError("the runs differ in length, particles, box or spacing of frames; they have to be alike")
    density = float(runs[0].masses.double().sum()) / box.volume
    found = []
    for edges in range(1, runs[0].dimension + 1):
        waves = [
            n for n in product((-1, 0, 1), repeat=runs[0].dimension) if sum(map(abs, n)) == edges and n > (0,) * len(n)
        ]
        memory = np.array([_current_memory(run, np.array(n)) for run in runs for n in waves])
        rate = (2.0 * np.pi / box.lengths[0]) ** 2 * edges / density

        def viscosity(mean: np.ndarray, rate: float = rate) -> float:
            share = mean / mean[0]
            if not (share < least).any():
                raise ValueError(f"currents fall to {share.min():.2f} in the longest run; they have to fall to {least}")
            times = runs[0].dt * np.arange(len(share))
            use = (times >= begin) & (np.arange(len(share)) < (share < least).argmax())
            if use.sum() < 3:
                raise ValueError(
                    f"currents have fallen to {least} before {begin:g}: begin sooner, or take a larger box"
                )
            return float(np.polyfit(times[use], -np.log(share[use]), 1)[0] / rate)

        count = len(memory)
        without = [viscosity((memory.sum(axis=0) - one) / (count - 1)) for one in memory]
        found.append((viscosity(memory.mean(axis=0)), np.sqrt((count - 1) * np.var(without))))
    values, errors = np.array(found).T
    weights = errors**-2 / (errors**-2).sum()
    return float(weights @ values), float((errors**-2).sum() ** -0.5)


def _current_memory(traj: Trajectory, wave: np.ndarray) -> np.ndarray:
    """Autocorrelation of the currents across a ``wave`` of so many periods along each edge, ``[T // 2]``."""
    along = wave / np.linalg.norm(wave)
    phase = traj.positions.double().numpy() @ (2.0 * np.pi * wave / traj.box.lengths[0])
    current = np.einsum("tn,tnd->td", np.exp(-1j * phase), traj.velocities.double().numpy())
    current -= np.outer(current @ along, along)
    parts = np.concatenate([current.real, current.imag], axis=1)
    return sum(tidynamics.acf(np.ascontiguousarray(part)) for part in parts.T)[: len(traj) // 2]


def _lag_times(traj: Trajectory, max_lag_time: float) -> np.ndarray:
    count = int(max_lag_time / traj.dt * (1 + 1e-9))
    if not 1 <= count < len(traj):
        raise ValueError(
            f"max_lag_time is {max_lag_time:g}; it must lie between one frame ({traj.dt:g}) "
            f"and the length of the trajectory ({(len(traj) - 1) * traj.dt:g})"
        )
    return np.arange(count + 1) * traj.dt


def _mean_over_particles(
    function: Callable[[np.ndarray], np.ndarray], series: np.ndarray, traj: Trajectory, lags: int
) -> np.ndarray:
    free = np.arange(traj.num_particles) if traj.prescribed is None else np.flatnonzero(~traj.prescribed.numpy())
    if len(free) == 0:
        raise ValueError("every particle is prescribed; there is no free motion to average over")
    total = np.zeros(lags)
    for particle in free:
        total += function(np.ascontiguousarray(series[:, particle]))[:lags]
    return total / len(free)
