"""Rollouts of a model beside the ground truth, from the same start."""

from __future__ import annotations

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import freud
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnn_metriplectic.analysis.conservation import energy_drift, momentum_drift
from gnn_metriplectic.analysis.curves import Curves, curves
from gnn_metriplectic.analysis.flow import local_flow
from gnn_metriplectic.dynamics import Prescribed, forcing_from, simulate
from gnn_metriplectic.dynamics.start import from_outside, start_of
from gnn_metriplectic.evaluation.camera import filmed, films
from gnn_metriplectic.evaluation.solids import Mechanics, mechanics
from gnn_metriplectic.evaluation.stirring import Stirring, stirring
from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.learning import load
from gnn_metriplectic.models import MetriplecticModel, ParticleModel, State
from gnn_metriplectic.trajectory import Trajectory

# frames of a rollout on which energy, temperature and entropy are looked at
SAMPLES = 60


@dataclass(frozen=True)
class Rollout:
    """A run of the model and what was measured along it.

    Attributes:
        run: the trajectory of the model.
        series: at some frames, each ``[samples]``: ``time``; ``pressure`` of a metriplectic model (NaN in free space),
            DPD included; with entropy ``energy`` (less the work from outside), ``kinetic_energy`` and ``temperature``
            (mean k_B T_i).
        entropy: ``integrated`` and ``encoded`` again from the rollout, ``[samples, N]``; empty without entropy.
        energy_drift: over the kinetic energy; NaN in a sheared box, in a solvent or with prescribed particles, which
            do work, and of a model without entropy, which does not account for heat.
        momentum_drift: over Σ m |v|; NaN with prescribed particles or a solvent.
    """

    run: Trajectory
    series: dict[str, np.ndarray]
    entropy: dict[str, np.ndarray]
    energy_drift: float
    momentum_drift: float


@dataclass(frozen=True)
class Job:
    """One rollout to do beside one true trajectory, and how to look at both.

    Attributes:
        checkpoint: of the model.
        truth: the rollout starts from its first frame and lasts as long.
        integrator: of the rollout.
        seed: of its noise.
        settling: share of either trajectory that passes before curves are taken.
        curves: settings of `gnn_metriplectic.analysis.curves`.
        ground_truth: the law of the truth where it is known.
    """

    checkpoint: str
    truth: Trajectory
    integrator: str
    seed: int
    settling: float
    curves: dict[str, Any]
    ground_truth: MetriplecticModel | None = None


@dataclass(frozen=True)
class Outcome:
    """A rollout, the curves of truth and model; of a solid its mechanics, and what a driven body stirs."""

    rollout: Rollout
    truth: Curves
    model: Curves
    mechanics: Mechanics | None
    stirring: Stirring | None = None


def roll_out(jobs: list[Job]) -> list[Outcome]:
    """Do rollouts in float64, one process a core."""
    workers = min(os.cpu_count() or 1, len(jobs))
    context = multiprocessing.get_context("spawn")
    bar = Progress(TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bar, ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(bar.track(pool.map(_roll_out, jobs), total=len(jobs)))


def _roll_out(job: Job) -> Outcome:
    torch.set_num_threads(1)
    freud.parallel.set_num_threads(1)
    model, truth = load(job.checkpoint).double(), job.truth
    seen = films(model, truth)
    # a film is looked at frame by frame, whatever the steps between
    every = math.ceil(truth.dt / model.dt * (1.0 - 1e-9)) if seen else 1
    dt = truth.dt / every if seen else model.dt
    run = simulate(
        model,
        start_of(model, truth),
        box=truth.box,
        dt=dt,
        steps=int((len(truth) - 1) * truth.dt / dt * (1.0 + 1e-9)),
        every=every,
        integrator=job.integrator,
        seed=job.seed,
        forcing=forcing_from(truth.forcing),
        prescribed=Prescribed.recorded(truth),
        time=float(truth.times[0]),
    )
    answer = None
    if model.is_solid and abs(run.dt / truth.dt - 1.0) < 1e-9:
        # the noise of the second true run is that of no other
        answer = mechanics(model, run, truth, job.ground_truth, seed=job.seed + 10_000)
    rollout = measure(model, run)
    if seen:
        run = filmed(run, truth, seed=job.seed)
        rollout = replace(rollout, run=run)
    found = [curves(side[int(job.settling * len(side)) :], **job.curves) for side in (truth, run)]
    return Outcome(rollout, *found, answer, stirring(model, run, truth))


@torch.no_grad()
def measure(model: ParticleModel, run: Trajectory) -> Rollout:
    """Energies, temperatures and entropies along a run of ``model`` in which every step is a frame."""
    picks = np.unique(np.linspace(0, len(run) - 1, SAMPLES).astype(int))
    work, impulse = from_outside(run)
    flow = local_flow(run)[1]
    rows: list[dict[str, float]] = []
    entropy: dict[str, list[np.ndarray]] = {}
    for frame in picks:
        row = {"time": float(run.times[frame])}
        rows.append(row)
        if not isinstance(model, MetriplecticModel):
            continue
        state = State.from_frame(run, int(frame), model, encode=False)
        pairs = neighbor_pairs(state.pos, run.box, model.cutoff, float(run.times[frame]), reference=run.reference)
        stress = np.nan if run.box.is_free else model.stress(state, pairs, flow=flow[frame]).trace()
        row["pressure"] = -float(stress) / run.dimension
        if not model.has_entropy:
            continue
        row["energy"] = float(model.energy(state, pairs) - work[frame])
        row["kinetic_energy"] = float(model.kinetic_energy(state))
        row["temperature"] = float((model.k_B * model.temperature(state, pairs)).mean())
        entropy.setdefault("integrated", []).append(state.entropy.numpy())
        if model.encoder is not None:
            entropy.setdefault("encoded", []).append(model.encode(pairs, state.vel, state.species).numpy())
    series = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    driven = run.prescribed is not None or model.has_solvent
    mass = run.masses.double().unsqueeze(1)
    momentum = (mass * run.velocities.double()).sum(dim=1) - impulse
    scale = float((mass * run.velocities.double().norm(dim=2, keepdim=True)).sum(dim=1).mean())
    unbalanced = driven or run.box.shear_rate or not model.has_entropy
    return Rollout(
        run,
        series,
        {name: np.array(values) for name, values in entropy.items()},
        float("nan") if unbalanced else energy_drift(series["energy"], series["kinetic_energy"]),
        float("nan") if driven else momentum_drift(momentum.numpy(), scale),
    )
