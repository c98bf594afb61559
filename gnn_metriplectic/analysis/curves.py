"""The curves by which trajectories are compared, whole and in blocks of time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnn_metriplectic.analysis.flow import local_flow
from gnn_metriplectic.analysis.structure import largest_radius, rdf
from gnn_metriplectic.analysis.transport import kinetic_temperature, msd, msd_dimension, vacf
from gnn_metriplectic.trajectory import Trajectory

# A block must hold a few origins for the longest lag, and ten blocks give an error bar good to a quarter.
_BLOCK_LAGS = 1.25
_MAX_BLOCKS = 10
_AVERAGED = ("rdf", "msd", "vacf")


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
    rdf_frames: int = 80,
) -> Curves:
    """Curves averaged over ``trajectories`` of one system and time step, weighted with their frames.

    Args:
        trajectories: one or several.
        max_lag_time: longest lag of MSD and VACF, units of time.
        bins, r_max: of the RDF; by default up to half the box.
        rdf_frames: about as many frames of each trajectory, evenly spread, enter the RDF.

    Raises:
        ValueError: if there is none, if they differ in time step or dimension, or if one is shorter
            than ``max_lag_time``.
    """
    trajectories = as_list(trajectories)
    r_max = min(largest_radius(t) for t in trajectories) if r_max is None else r_max
    return average([_curves_of(t, max_lag_time, bins, r_max, rdf_frames) for t in trajectories])


def average(found: Sequence[Curves]) -> Curves:
    """The mean of several curves, weighted with their frames; their blocks stand side by side.

    Raises:
        ValueError: if there is none, or if they differ in lags, bins or dimension.
    """
    if not found:
        raise ValueError("there are no curves to average; give at least one")
    first = found[0]
    for other in found[1:]:
        same_size = other.lags.shape == first.lags.shape and other.r.shape == first.r.shape
        if not (same_size and other.dimension == first.dimension and np.allclose(other.lags, first.lags)):
            raise ValueError("curves of different time step, lags, bins or dimension cannot be averaged")
    weight = np.array([len(c.kinetic_temperature) for c in found]) / sum(len(c.kinetic_temperature) for c in found)
    return replace(
        first,
        **{
            name: np.average([getattr(c, name) for c in found], axis=0, weights=weight)
            for name in ("rdf", "msd", "vacf")
        },
        mean_kinetic_temperature=float(weight @ [c.mean_kinetic_temperature for c in found]),
        blocks={name: np.concatenate([c.blocks[name] for c in found]) for name in first.blocks},
    )


def _curves_of(traj: Trajectory, max_lag_time: float, bins: int, r_max: float, rdf_frames: int) -> Curves:
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in ("rdf", "msd", "vacf", "kinetic_temperature")}
    history = kinetic_temperature(traj, _fitted_flow(traj))
    lags, squared = msd(traj, max_lag_time)
    _, correlation = vacf(traj, max_lag_time)
    edges = _block_edges(len(traj), len(lags))
    every, structure = max(1, len(traj) // rdf_frames), 0.0
    for start, stop in itertools.pairwise(edges):
        block = traj[start:stop]
        r, g = rdf(block, bins=bins, r_max=r_max, every=every)
        structure = structure + g * len(block) / len(traj)
        blocks["rdf"].append(g)
        # one block is the whole trajectory: nothing to compute again
        blocks["msd"].append(squared if len(edges) == 2 else msd(block, max_lag_time)[1])
        blocks["vacf"].append(correlation if len(edges) == 2 else vacf(block, max_lag_time)[1])
        blocks["kinetic_temperature"].append(history[start:stop].mean())
    return Curves(
        r=r,
        rdf=structure,
        lags=lags,
        msd=squared,
        vacf=correlation,
        times=(traj.times - traj.times[0]).numpy(),
        kinetic_temperature=history,
        mean_kinetic_temperature=float(history.mean()),
        dimension=msd_dimension(traj),
        blocks={name: np.stack(values) for name, values in blocks.items()},
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
