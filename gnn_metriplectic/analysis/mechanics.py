"""How a driven solid answers: where its particles are, and the stress that the drive meets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnn_metriplectic.analysis.scores import rrmse
from gnn_metriplectic.trajectory import Trajectory


@dataclass(frozen=True)
class Response:
    """Stress of a solid along a trajectory.

    Attributes:
        times: ``[T]``.
        strain: ``[T]``, displacement of the upper edge along x over the height between the edges; zero without edges.
        stress: ``[T]``, mean σ_yx, in units of pressure.
        field: ``[T, N]``, σ_yx of each particle.
    """

    times: np.ndarray
    strain: np.ndarray
    stress: np.ndarray
    field: np.ndarray


def position_error(model: Trajectory, truth: Trajectory, amplitude: float) -> np.ndarray:
    """Root mean square distance of the free particles from the true ones, over ``amplitude``; ``[T]``.

    Raises:
        ValueError: trajectories of different particles, step or start.
    """
    frames = min(len(model), len(truth))
    if model.num_particles != truth.num_particles or abs(model.dt / truth.dt - 1.0) > 1e-9:
        raise ValueError(f"{model} and {truth} are not frames of the same particles at the same times")
    free = slice(None) if truth.prescribed is None else ~truth.prescribed
    apart = model.positions[:frames].double()[:, free] - truth.positions[:frames].double()[:, free]
    return np.sqrt((apart**2).sum(dim=-1).mean(dim=1).numpy()) / amplitude


def driving_amplitude(traj: Trajectory) -> float:
    """The ``amplitude`` of its metadata; without one, the rms displacement from the first frame."""
    known = (traj.metadata or {}).get("amplitude")
    if known:
        return float(known)
    return float((traj.positions.double() - traj.positions[:1].double()).square().sum(dim=-1).mean().sqrt())


def applied_strain(traj: Trajectory) -> np.ndarray:
    """Displacement along x of the prescribed particles above the middle against those below, over their distance.

    ``[T]``; zero where there are none on either side.
    """
    if traj.prescribed is None:
        return np.zeros(len(traj))
    driven = traj.positions[:, traj.prescribed].double()
    height = driven[0, :, 1]
    upper = height > height.mean()
    if bool(upper.all()) or not bool(upper.any()):
        return np.zeros(len(traj))
    shift = (driven[:, upper, 0] - driven[:, ~upper, 0].mean(dim=1, keepdim=True)).mean(dim=1)
    return ((shift - shift[0]) / (height[upper].mean() - height[~upper].mean())).numpy()


def complex_modulus(response: Response, frequency: float, start: float) -> complex:
    """G' + iG'' at ``frequency`` (cycles per unit of time), from whole cycles after the time ``start``.

    Both stress and strain are fitted by a sine, a cosine and a mean. With inertia it is the apparent modulus
    of the sheet, not that of the material.

    Raises:
        ValueError: less than one cycle.
    """
    cycles = int((response.times[-1] - response.times[0] - start) * frequency * (1 + 1e-9))
    if cycles < 1:
        raise ValueError(f"no whole cycle of frequency {frequency:g} follows the time {start:g}")
    last = response.times[-1] - cycles / frequency
    inside = response.times >= last - 1e-9
    phase = 2.0 * np.pi * frequency * response.times[inside]
    basis = np.stack([np.sin(phase), np.cos(phase), np.ones_like(phase)], axis=1)
    (a, b, _), (c, d, _) = (
        np.linalg.lstsq(basis, y[inside], rcond=None)[0] for y in (response.stress, response.strain)
    )
    return complex(a, b) / complex(c, d)


def mechanical_scores(
    model: tuple[Trajectory, Response | None], truth: tuple[Trajectory, Response | None]
) -> dict[str, float | None]:
    """Scores of one rollout of a solid against the true run, by the conditions in ``truth.metadata``.

    Args:
        model, truth: trajectory and response of each; without both responses nothing is said of stress.

    Returns:
        ``position_error`` (rms over the run, over the driving amplitude) and ``stress`` (RRMSE of the mean stress);
        of an oscillation ``storage_modulus``, ``loss_modulus`` and the ``..._truth`` of each; of unloading
        ``relaxation`` (RRMSE of the stress after the edge is back), ``residual`` and ``residual_truth`` (rms
        displacement from the start at the end, over the amplitude).
    """
    (run, answer), (true_run, true_answer) = model, truth
    known: Mapping[str, Any] = true_run.metadata or {}
    amplitude = driving_amplitude(true_run)
    frames = min(len(run), len(true_run))
    error = position_error(run, true_run, amplitude)
    scores: dict[str, float | None] = {"position_error": float(np.sqrt((error**2).mean()))}
    stressed = answer is not None and true_answer is not None
    if stressed:
        scores["stress"] = rrmse(answer.stress[:frames], true_answer.stress[:frames])
    if stressed and known.get("scenario") == "oscillation":
        for suffix, response in (("", answer), ("_truth", true_answer)):
            modulus = complex_modulus(response, known["frequency"], known["ramp"])
            scores[f"storage_modulus{suffix}"], scores[f"loss_modulus{suffix}"] = modulus.real, modulus.imag
    if known.get("scenario") == "unloading":
        if stressed:
            after = true_answer.times[:frames] - true_answer.times[0] >= known["hold"] + known["ramp"]
            scores["relaxation"] = rrmse(answer.stress[:frames][after], true_answer.stress[:frames][after])
        for suffix, traj in (("", run), ("_truth", true_run)):
            scores[f"residual{suffix}"] = float(position_error(traj[-1:], traj[:1], amplitude)[0])
    return scores


# heading, key, key of the truth
MECHANICS: tuple[tuple[str, str, str | None], ...] = (
    ("position error / amplitude", "position_error", None),
    ("mean stress (RRMSE)", "stress", None),
    ("storage modulus G'", "storage_modulus", "storage_modulus_truth"),
    ("loss modulus G''", "loss_modulus", "loss_modulus_truth"),
    ("stress after unloading (RRMSE)", "relaxation", None),
    ("displacement left at the end / amplitude", "residual", "residual_truth"),
)


def mechanics_rows(scores: Mapping[str, Any], floor: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """What is known of a scenario as text: quantity, model, truth, difference, floor (a second run of the truth)."""
    rows = []
    for label, key, beside in MECHANICS:
        value = scores.get(key)
        if value is None:
            continue
        truth = scores.get(beside) if beside else None
        change = f"{100 * (value / truth - 1):+.1f} %".replace("-", "−") if truth else ""
        least = floor.get(key)
        if least is not None and beside:
            limit = f"{100 * (least / truth - 1):+.1f} %".replace("-", "−")
        else:
            limit = "" if least is None else f"{least:.3g}"
        rows.append((label, f"{value:.4g}", "" if truth is None else f"{truth:.4g}", change, limit))
    return rows
