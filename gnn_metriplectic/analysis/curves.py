"""The curves by which trajectories are compared, whole and in blocks of time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnn_metriplectic.analysis.flow import local_flow
from gnn_metriplectic.analysis.structure import largest_radius, rdf
from gnn_metriplectic.analysis.transport import kinetic_temperature, msd, msd_dimension, vacf
from gnn_metriplectic.trajectory import Trajectory

# A block must hold a few origins for the longest lag, and ten blocks give an error bar good to a quarter.
_BLOCK_LAGS = 1.25
_MAX_BLOCKS = 10


@dataclass(frozen=True)
class Curves:
    """Structure and transport of one or several trajectories of the same system.

    Attributes:
        r, rdf: ``[B]``, units of length; g(r).
        lags: ``[L]``, units of time.
        msd, vacf: ``[L]``, summed over components.
        times, kinetic_temperature: ``[T]`` time since the start of the first trajectory and its k_B T.
        mean_kinetic_temperature: mean of k_B T over the frames of all.
        dimension: components summed in the MSD.
        blocks: the same quantities block by block: ``rdf [K, B]``, ``msd [K, L]``, ``vacf [K, L]`` and
            ``kinetic_temperature [K]``. Blocks are disjoint stretches of time.
    """

    r: np.ndarray
    rdf: np.ndarray
    lags: np.ndarray
    msd: np.ndarray
    vacf: np.ndarray
    times: np.ndarray
    kinetic_temperature: np.ndarray
    mean_kinetic_temperature: float
    dimension: int
    blocks: dict[str, np.ndarray]


def curves(
    trajectories: Trajectory | Sequence[Trajectory],
    *,
    max_lag_time: float,
    bins: int = 75,
    r_max: float | None = None,
    rdf_frames: int = 200,
) -> Curves:
    """Curves averaged over ``trajectories`` of one system and time step, weighted with their frames.

    Args:
        trajectories: one or several.
        max_lag_time: longest lag of MSD and VACF, units of time.
        bins, r_max: of the RDF; by default up to half the box.
        rdf_frames: about as many frames of each trajectory, evenly spread, enter the RDF.

    Raises:
        ValueError: if there is none, if they differ in time step, dimension or number of particles,
            or if one is shorter than ``max_lag_time``.
    """
    trajectories = as_list(trajectories)
    first = trajectories[0]
    for traj in trajectories[1:]:
        same = abs(traj.dt - first.dt) < 1e-9 * first.dt and traj.positions.shape[1:] == first.positions.shape[1:]
        if not same:
            raise ValueError(f"{traj} and {first} cannot be averaged: time step, particles and dimension must agree")
    r_max = min(largest_radius(t) for t in trajectories) if r_max is None else r_max
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("rdf", "msd", "vacf", "kinetic_temperature")}
    sums, frames = {"rdf": 0.0, "msd": 0.0, "vacf": 0.0}, sum(len(t) for t in trajectories)
    histories = []
    for traj in trajectories:
        histories.append(kinetic_temperature(traj, _fitted_flow(traj)))
        lags, squared = msd(traj, max_lag_time)
        _, correlation = vacf(traj, max_lag_time)
        sums["msd"] += squared * len(traj) / frames
        sums["vacf"] += correlation * len(traj) / frames
        edges = _block_edges(len(traj), len(lags))
        every = max(1, len(traj) // rdf_frames)
        for start, stop in itertools.pairwise(edges):
            block = traj[start:stop]
            r, g = rdf(block, bins=bins, r_max=r_max, every=every)
            sums["rdf"] += g * len(block) / frames
            found["rdf"].append(g)
            # one block is the whole trajectory: nothing to compute again
            found["msd"].append(squared if len(edges) == 2 else msd(block, max_lag_time)[1])
            found["vacf"].append(correlation if len(edges) == 2 else vacf(block, max_lag_time)[1])
            found["kinetic_temperature"].append(histories[-1][start:stop].mean())
    return Curves(
        r=r,
        rdf=sums["rdf"],
        lags=lags,
        msd=sums["msd"],
        vacf=sums["vacf"],
        times=(first.times - first.times[0]).numpy(),
        kinetic_temperature=histories[0],
        mean_kinetic_temperature=float(np.concatenate(histories).mean()),
        dimension=msd_dimension(first),
        blocks={name: np.stack(values) for name, values in found.items()},
    )


def as_list(trajectories: Trajectory | Sequence[Trajectory]) -> list[Trajectory]:
    """One or several trajectories as a list. Raises ValueError if there is none."""
    found = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not found:
        raise ValueError("there is no trajectory to analyse; give at least one")
    return found


def _fitted_flow(traj: Trajectory):
    return local_flow(traj)[1] if traj.forcing is not None else None


def _block_edges(frames: int, lags: int) -> np.ndarray:
    blocks = int(np.clip(frames // (_BLOCK_LAGS * lags), 1, _MAX_BLOCKS))
    return np.linspace(0, frames, blocks + 1).astype(int)
