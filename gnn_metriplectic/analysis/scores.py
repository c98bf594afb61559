"""How far a model's rollout is from the truth, and how far the truth is from itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnn_metriplectic.analysis.curves import Curves, as_list, curves
from gnn_metriplectic.analysis.structure import largest_radius
from gnn_metriplectic.analysis.transport import diffusion_coefficient
from gnn_metriplectic.trajectory import Trajectory

_RESAMPLES = 400


def rrmse(model: np.ndarray, truth: np.ndarray) -> float | np.ndarray:
    """rms(model - truth) / rms(truth) over the last axis. Raises ValueError if the truth vanishes or shapes differ."""
    model, truth = np.asarray(model, dtype=float), np.asarray(truth, dtype=float)
    if model.shape[-1] != truth.shape[-1]:
        raise ValueError(f"curves of {model.shape[-1]} and {truth.shape[-1]} points cannot be compared")
    scale = (truth**2).mean(axis=-1)
    if np.any(scale == 0):
        raise ValueError("the true curve is zero everywhere: a relative error has no meaning")
    error = np.sqrt(((model - truth) ** 2).mean(axis=-1) / scale)
    return error if error.ndim else float(error)


def block_bootstrap(values: np.ndarray, blocks: int, samples: int = _RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of ``values`` over time, resampled block by block (Künsch, Ann. Stat. 17, 1217, 1989).

    Their standard deviation is the standard error of the mean, if blocks are longer than the memory
    of the series. Deviations are widened by sqrt(K/(K-1)), without which few blocks give too small an error.

    Args:
        values: ``[T, ...]``, time first.
        blocks: number ``K`` of contiguous blocks, at most T.
        samples: number of resampled means.
        seed: of the resampling.

    Returns:
        ``[samples, ...]``; NaN with a single block, which says nothing about its error.

    Raises:
        ValueError: if ``blocks`` is not between 1 and T.
    """
    values = np.asarray(values, dtype=float)
    if not 1 <= blocks <= len(values):
        raise ValueError(f"{len(values)} values cannot be cut into {blocks} blocks")
    if blocks == 1:
        return np.full((samples, *values.shape[1:]), np.nan)
    means = np.stack([part.mean(axis=0) for part in np.array_split(values, blocks)])
    draws = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=samples) / blocks
    centre = means.mean(axis=0)
    return centre + np.sqrt(blocks / (blocks - 1)) * np.tensordot(draws, means - centre, axes=1)


def score(
    model_traj: Trajectory | Sequence[Trajectory] | Curves,
    truth_traj: Trajectory | Sequence[Trajectory] | Curves,
    *,
    max_lag_time: float | None = None,
    window: tuple[float, float] | None = None,
    k_B: float = 1.0,
    bins: int = 75,
    r_max: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of model rollouts against true trajectories; averages over several of each.

    The time steps may differ: curves are compared at the lags of the coarser one, to which the finer
    is interpolated (exactly, if one step is a multiple of the other).

    Args:
        model_traj, truth_traj: one or several trajectories, or their ``Curves`` if already computed.
        max_lag_time: longest lag of MSD and VACF; needed for trajectories.
        window: lags between which D is fitted; by default the second half of the lags.
        k_B: kinetic temperatures are given as k_B T / ``k_B``, hence as k_B T by default.
        bins, r_max: of the RDF; by default up to half the box of the truth.
        seed: of the bootstrap.

    Returns:
        ``rdf``, ``msd``, ``vacf`` (RRMSE); ``kinetic_temperature``, ``kinetic_temperature_truth``; ``D``,
        ``D_truth``; ``max_lag_time`` and ``window``; under ``errors`` the standard error of each, by
        resampling blocks of time, or None if there are too few blocks to tell.

    Raises:
        ValueError: for trajectories shorter than ``max_lag_time``, or curves of different bins.
    """
    if not (isinstance(model_traj, Curves) and isinstance(truth_traj, Curves)):
        if max_lag_time is None:
            raise ValueError("max_lag_time is needed to score trajectories: the longest lag of MSD and VACF")
        if r_max is None:
            both = [t for t in (model_traj, truth_traj) if not isinstance(t, Curves)]
            known = [c for c in (model_traj, truth_traj) if isinstance(c, Curves)]
            # bins are centred at (i + 1/2) r_max / bins
            r_max = (
                known[0].r[-1] + 0.5 * (known[0].r[1] - known[0].r[0])
                if known
                else min(largest_radius(t) for side in both for t in as_list(side))
            )
        model_traj, truth_traj = (
            t if isinstance(t, Curves) else curves(t, max_lag_time=max_lag_time, bins=bins, r_max=r_max)
            for t in (model_traj, truth_traj)
        )
    model, truth = model_traj, truth_traj
    if model.r.shape != truth.r.shape or not np.allclose(model.r, truth.r, rtol=1e-6):
        raise ValueError("the RDFs of model and truth have different bins; compute both with the same bins and r_max")
    lags = max((model.lags, truth.lags), key=lambda times: times[1])
    lags = lags[lags <= min(model.lags[-1], truth.lags[-1]) * (1 + 1e-9)]
    window = (0.5 * float(lags[-1]), float(lags[-1])) if window is None else (float(window[0]), float(window[1]))

    def at_lags(found: Curves, values: np.ndarray) -> np.ndarray:
        rows = [np.interp(lags, found.lags, row) for row in np.atleast_2d(values)]
        return np.stack(rows) if np.ndim(values) > 1 else rows[0]

    def scalars(m: dict[str, np.ndarray], t: dict[str, np.ndarray]) -> dict[str, Any]:
        squared, true_squared = at_lags(model, m["msd"]), at_lags(truth, t["msd"])
        return {
            "rdf": rrmse(m["rdf"], t["rdf"]),
            "msd": rrmse(squared, true_squared),
            "vacf": rrmse(at_lags(model, m["vacf"]), at_lags(truth, t["vacf"])),
            "kinetic_temperature": m["kinetic_temperature"] / k_B,
            "kinetic_temperature_truth": t["kinetic_temperature"] / k_B,
            "D": diffusion_coefficient(lags, squared, model.dimension, window),
            "D_truth": diffusion_coefficient(lags, true_squared, truth.dimension, window),
        }

    result = scalars(_whole(model), _whole(truth))
    spread = scalars(_resampled(model, seed), _resampled(truth, seed + 1))
    result["errors"] = {name: _standard_error(values) for name, values in spread.items()}
    result["max_lag_time"], result["window"] = float(lags[-1]), list(window)
    return result


def floor(
    truth_traj_a: Trajectory | Sequence[Trajectory] | Curves,
    truth_traj_b: Trajectory | Sequence[Trajectory] | Curves,
    **settings: Any,
) -> dict[str, Any]:
    """The scores of one stretch of truth against another, independent one: what a perfect model would get.

    Use stretches as long as those in ``score``; settings and result are those of ``score``.
    """
    return score(truth_traj_a, truth_traj_b, **settings)


def _whole(found: Curves) -> dict[str, Any]:
    return {
        "rdf": found.rdf,
        "msd": found.msd,
        "vacf": found.vacf,
        "kinetic_temperature": found.mean_kinetic_temperature,
    }


def _resampled(found: Curves, seed: int) -> dict[str, np.ndarray]:
    # the same seed for all: quantities of one block stay together
    count = len(found.blocks["kinetic_temperature"])
    resampled = {name: block_bootstrap(values, count, seed=seed) for name, values in found.blocks.items()}
    # the spread belongs around the full average, which uses more origins than the blocks do
    return {name: values - values.mean(axis=0) + _whole(found)[name] for name, values in resampled.items()}


def _standard_error(values: np.ndarray) -> float | None:
    spread = float(np.std(values))
    return spread if np.isfinite(spread) else None
