"""All scores of a checkpoint on held-out trajectories, and the report."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnn_metriplectic.analysis.conduction import temperature_wave
from gnn_metriplectic.analysis.curves import average
from gnn_metriplectic.analysis.metrics import write_metrics
from gnn_metriplectic.analysis.report import write_report
from gnn_metriplectic.analysis.scores import floor, rrmse, score
from gnn_metriplectic.analysis.structure import largest_radius
from gnn_metriplectic.evaluation.observed import observed_quantities
from gnn_metriplectic.evaluation.rollouts import Job, Outcome, Rollout, roll_out
from gnn_metriplectic.evaluation.solids import mean_scores
from gnn_metriplectic.evaluation.stirring import flow_error, mean_flow
from gnn_metriplectic.evaluation.terms import pair_curves, solid_curves, term_curves
from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.learning import load, read_checkpoint
from gnn_metriplectic.learning.callbacks import learning_curve
from gnn_metriplectic.models import MetriplecticModel
from gnn_metriplectic.trajectory import Trajectory
from gnn_metriplectic.trajectory.checks import check_count

# share of a rollout that passes before it is scored
SETTLING = 0.1
# series of rollouts whose means are scores
AVERAGED = ("temperature", "pressure")


def evaluate(
    checkpoint: str | os.PathLike[str],
    truths: dict[str, list[Trajectory]],
    out: str | os.PathLike[str],
    *,
    system: str,
    max_lag_time: float | None = None,
    window: tuple[float, float] | None = None,
    bins: int = 75,
    reference: dict[str, float] | None = None,
    integrator: str | None = None,
    rollouts: int = 1,
    seed: int | None = None,
    seconds: dict[str, float] | None = None,
    ground_truth: MetriplecticModel | None = None,
) -> dict[str, Any]:
    """Roll out a model from held-out starts, score it, and write ``metrics.json`` and ``report.html``.

    Args:
        checkpoint: of the model.
        truths: held-out trajectories by scenario; with two or more of one the floor is printed, half of
            them against the other half.
        out: folder for the files.
        system: name for the report.
        max_lag_time: longest lag of MSD and VACF; by default a quarter of the shortest held-out trajectory.
        window: lags between which D is fitted; by default the second half of them.
        bins: of the RDF, up to half the box.
        reference: literature values to print beside what was measured in the truth.
        integrator: of the rollouts; by default that of the training.
        rollouts: of each held-out trajectory.
        seed: of their noise; by default that of the training.
        seconds: times that other stages took, for the record; by default those on record beside the checkpoint.
        ground_truth: the law of the truth where it is known: it gives the true stress of solids, and the floor of
            their scores by a second true run from each start.

    Returns:
        The content of metrics.json.

    Raises:
        FileNotFoundError, ValueError: a checkpoint that cannot be read, trajectories that do not fit it, or less than
            one rollout.
    """
    started = time.monotonic()
    check_count("rollouts", rollouts)
    model, content = load(checkpoint).double(), read_checkpoint(checkpoint)
    provenance = content["hyper_parameters"]["provenance"] or {}
    integrator = integrator or content["hyper_parameters"]["integrator"]
    if seed is None:
        seed = provenance.get("seed", 0)
    if seconds is None:
        seconds = _seconds(Path(checkpoint).with_name("metrics.json"))
    # the best checkpoint knows the learning curve up to itself
    last = Path(checkpoint).with_name("last.ckpt")
    curve = learning_curve(read_checkpoint(last) if last.is_file() else content)
    metrics: dict[str, Any] = {
        "system": system,
        "lag": provenance.get("lag"),
        "dt": model.dt,
        "seed": seed,
        "scores": {},
        "floor": {},
        "entropy": {},
    }
    if max_lag_time is None:
        max_lag_time = _quarter([run for runs in truths.values() for run in runs], model.dt)
    if window is None:
        window = (0.5 * max_lag_time, max_lag_time)
    scenarios: dict[str, dict[str, Any]] = {}
    curve_settings = {"max_lag_time": max_lag_time, "bins": bins}
    outcomes = _outcomes(checkpoint, truths, integrator, seed, rollouts, curve_settings, ground_truth)
    settings = {"max_lag_time": max_lag_time, "window": window}
    for name, runs in truths.items():
        made = [outcome.rollout for outcome in outcomes[name]]
        each = slice(None, None, rollouts)  # one rollout of each true run
        parts = [outcome.truth for outcome in outcomes[name][each]]
        truth, learned = average(parts), average([outcome.model for outcome in outcomes[name]])
        scores = score(learned, truth, **settings)
        scores.update({name: _settled_mean(made, name) for name in AVERAGED if name in made[0].series})
        if model.has_entropy:
            scores["encoded_temperature"] = _read_temperature(model, runs)
            if ground_truth is not None and runs[0].entropies is not None:
                scores["encoded_temperature_truth"] = _read_temperature(ground_truth, runs)
        known = observed_quantities(runs, parts, window=window, reference=reference)
        if known:
            metrics.setdefault("observed", {})[name] = known
            if "pressure" in scores:
                scores["pressure_truth"] = known.get("pressure", {}).get("value")
        if model.has_entropy:
            scores["energy_drift"] = max(r.energy_drift for r in made)
        scores["momentum_drift"] = max(r.momentum_drift for r in made)
        metrics["scores"][name] = scores
        if len(runs) > 1:
            half = len(runs) // 2
            found = floor(average(parts[:half]), average(parts[half:]), **settings)
            # two halves differ by more than all the true runs from those of a perfect model
            shrink = math.sqrt(((1.0 + 1.0 / rollouts) / len(runs)) / (1.0 / half + 1.0 / (len(runs) - half)))
            for key in ("rdf", "msd", "vacf"):
                found[key] *= shrink
                if found["errors"][key] is not None:
                    found["errors"][key] *= shrink
            metrics["floor"][name] = found
        if (runs[0].metadata or {}).get("scenario") == "conduction":
            waves, true_waves = ([temperature_wave(t) for t in side] for side in ([r.run for r in made], runs))
            scores["profile"] = float(rrmse(np.mean(waves, axis=0), np.mean(true_waves, axis=0)))
            if len(runs) > 1:
                # half of the true runs against the others, whose means differ by more than those of all
                parted = float(rrmse(np.mean(true_waves[:half], axis=0), np.mean(true_waves[half:], axis=0)))
                metrics["floor"][name]["profile"] = shrink * parted
        answers = [outcome.mechanics for outcome in outcomes[name]]
        if all(answer is not None for answer in answers):
            scores.update(mean_scores([answer.scores for answer in answers]))
            metrics["floor"].setdefault(name, {}).update(mean_scores([answer.floor for answer in answers]))
        stirred, flow = [outcome.stirring for outcome in outcomes[name]], None
        if all(part is not None for part in stirred):
            scores.update(mean_scores([part.scores for part in stirred]))
            flow = {side: mean_flow(stirred, side) for side in ("truth", "model")}
            scores["flow_profile"] = flow_error(flow["model"], flow["truth"])
            if len(runs) > 1:
                once = stirred[each]
                parted = [mean_flow(part, "truth") for part in (once[:half], once[half:])]
                metrics["floor"][name]["flow_profile"] = shrink * flow_error(*parted)
        if model.bath is not None:
            scores["solvent_temperature"] = float(model.bath.temperature)
        if model.is_overdamped:  # the velocities of its frames are displacements
            for part in (scores, metrics["floor"].get(name, {})):
                part.update({key: None for key in part if key == "vacf" or key.startswith("kinetic_temperature")})
        if model.has_entropy and not metrics["entropy"]:
            metrics["entropy"] = entropy_diagnostics(model, runs[0], made[0])
        scenarios[name] = {
            "truth": runs,
            "model": [r.run for r in made[each]],
            "curves": {"truth": truth, "model": learned},
            "series": made[0].series if model.bath is None else None,
            "encoded_entropies": _encoded(model, runs[0], _picks(len(runs[0]))) if model.has_entropy else None,
            "mechanics": answers[0],
            "stirring": stirred[0],
            "flow": flow,
        }
    first = next(iter(truths.values()))[0]
    terms, known = None, isinstance(model, MetriplecticModel) and model.log_mass.numel() == 1
    if model.is_solid:
        terms = solid_curves(model, ground_truth) if model.has_entropy else None
    elif known and not model.has_entropy:
        terms = pair_curves(model)
    elif known and not first.box.is_free:
        temperature = metrics["scores"][next(iter(truths))]["kinetic_temperature_truth"]
        terms = term_curves(model, temperature=temperature, volume=first.box.volume / first.num_particles)
    metrics["seconds"] = {**seconds, "evaluate": time.monotonic() - started}
    write_report(Path(out) / "report.html", metrics, scenarios, curve, terms)
    write_metrics(Path(out) / "metrics.json", metrics)
    return metrics


@torch.no_grad()
def entropy_diagnostics(model: MetriplecticModel, truth: Trajectory, rollout: Rollout) -> dict[str, float]:
    """Whether the learned entropy behaves: its spread, its heat capacity, and its memory.

    Returns:
        ``k_B_C``: k_B <C>, the variance that thermal fluctuations of S should have; ``mean`` and ``std`` of S
        integrated in the rollout's second half; ``encoded_mean`` and ``encoded_std`` of the truth;
        ``reencoded_mean`` and ``reencoded_std`` of the rollout's frames; ``autocorrelation`` of S(t) and
        S(t + dt) in the truth. NaN where the model has no encoder.
    """
    later = rollout.entropy["integrated"][len(rollout.series["time"]) // 2 :]
    lag = max(round(model.dt / truth.dt), 1)
    picks = _picks(len(truth) - lag)
    encoded, then = _encoded(model, truth, picks), _encoded(model, truth, picks + lag)
    again = rollout.entropy.get("encoded", np.array([np.nan]))
    capacities = []
    for frame in (0, len(truth) // 2, len(truth) - 1):
        pairs = _pairs(truth, frame, model.cutoff)
        entropy = torch.from_numpy(rollout.entropy["integrated"][-1])
        thermo = model.thermo(model.configuration(pairs, truth.species), entropy, truth.species)
        capacities.append(float(thermo.heat_capacity.mean()))
    return {
        "k_B_C": float(model.k_B) * float(np.mean(capacities)),
        "mean": float(later.mean()),
        "std": float(later.std()),
        "encoded_mean": float(encoded.mean()),
        "encoded_std": float(encoded.std()),
        "reencoded_mean": float(again.mean()),
        "reencoded_std": float(again.std()),
        "autocorrelation": float(np.corrcoef(encoded.ravel(), then.ravel())[0, 1]),
    }


def _outcomes(
    checkpoint: str | os.PathLike[str],
    truths: dict[str, list[Trajectory]],
    integrator: str,
    seed: int,
    rollouts: int,
    settings: dict[str, Any],
    ground_truth: MetriplecticModel | None,
) -> dict[str, list[Outcome]]:
    """Of each true run as many rollouts, side by side."""
    jobs, names = [], []
    for name, runs in truths.items():
        shared = {**settings, "r_max": min(largest_radius(t) for t in runs)}
        for number in range(rollouts * len(runs)):
            truth = runs[number // rollouts]
            jobs.append(Job(os.fspath(checkpoint), truth, integrator, seed + number, SETTLING, shared, ground_truth))
            names.append(name)
    found: dict[str, list[Outcome]] = {}
    for name, outcome in zip(names, roll_out(jobs), strict=True):
        found.setdefault(name, []).append(outcome)
    return found


def _settled_mean(rollouts: list[Rollout], name: str) -> float:
    """Mean of a series over the part of the rollouts that is scored."""
    return float(np.mean([r.series[name][int(SETTLING * len(r.series[name])) :].mean() for r in rollouts]))


def _seconds(path: Path) -> dict[str, float]:
    """The times on record in a ``metrics.json``; none where it is missing or no such file."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _quarter(runs: list[Trajectory], dt: float) -> float:
    """A quarter of the shortest of ``runs``, in whole steps of the coarser side: at least two, for a slope."""
    step = max(dt, *(run.dt for run in runs))
    length = min((len(run) - 1) * run.dt for run in runs)
    return max(int(0.25 * length / step * (1.0 + 1e-9)), 2) * step


def _picks(frames: int) -> np.ndarray:
    """Up to 20 frames, evenly spread."""
    return np.unique(np.linspace(0, frames - 1, 20).astype(int))


def _pairs(traj: Trajectory, frame: int, cutoff: float):
    pos, time = traj.positions[frame].double(), float(traj.times[frame])
    return neighbor_pairs(pos, traj.box, cutoff, time, reference=traj.reference)


@torch.no_grad()
def _encoded(model: MetriplecticModel, traj: Trajectory, picks: np.ndarray) -> np.ndarray:
    """Entropies ``[F, N]`` of the frames ``picks`` ``[F]``, as the model sees (or is given) them."""
    if model.encoder is None:
        return traj.entropies[picks].double().numpy()
    return np.array(
        [
            model.encode(_pairs(traj, f, model.cutoff), traj.velocities[f].double(), traj.species).numpy()
            for f in picks.tolist()
        ]
    )


@torch.no_grad()
def _read_temperature(model: MetriplecticModel, runs: list[Trajectory]) -> float:
    """Mean k_B T_i that the model reads off the truth, from entropies that it encodes or that the truth holds."""
    means = []
    for traj in runs:
        picks = _picks(len(traj))
        for frame, entropy in zip(picks.tolist(), _encoded(model, traj, picks), strict=True):
            configuration = model.configuration(_pairs(traj, frame, model.cutoff), traj.species)
            thermo = model.thermo(configuration, torch.from_numpy(entropy), traj.species)
            means.append(float((model.k_B * thermo.temperature).mean()))
    return float(np.mean(means))
