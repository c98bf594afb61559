"""The structure of the data in the model's own runs: iterative Boltzmann inversion.

    φ(r) += a k_B T ln(g_model(r) / g_data(r))

(Reith, Pütz and Müller-Plathe, J. Comput. Chem. 24, 1624, 2003.) Forces that balance in the data (`learning.balance`)
keep g(r) as long as triplets are those of the data too, which forces of few numbers leave open. What is left of it
after the training is a few tenths of k_B T, and goes into a potential of pairs beside what was learned. An energy it
is, so that every law holds as before.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import freud
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnn_metriplectic.analysis.structure import rdf
from gnn_metriplectic.analysis.transport import kinetic_temperature
from gnn_metriplectic.dynamics import forcing_from, simulate
from gnn_metriplectic.dynamics.start import start_of
from gnn_metriplectic.learning.checkpoints import load, read_checkpoint
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.models import ParticleModel, State
from gnn_metriplectic.terms import PotentialSum
from gnn_metriplectic.terms.tabulated import TabulatedPotential
from gnn_metriplectic.trajectory import Trajectory

# runs of all trajectories, each from where the last one ended; the first shows what is to be corrected
ROUNDS = 5
# of g(r), and of the potential; a power of two, so that the nodes of a table are among its own
BINS = 32
# a of g = 1 and more, where in a dense fluid it takes several k_B T ln g to move g; where there are few pairs it falls
# with g, as there one does
GAIN, FEW = 2.0, 0.2
# runs in a round, of as many trajectories from first to last
MOST = 6
# of a run, while the structure follows the potential
SETTLING = 0.25
# of a run's frames, on which g is counted
LOOKS = 100
# below which g is not told from none
LEAST = 1e-3


@dataclass(frozen=True)
class _Job:
    """A run of one checkpoint with a correction, from the first frame of the truth or from where another ended."""

    checkpoint: Path
    correction: torch.Tensor
    truth: Trajectory
    start: State | None
    seed: int


def match_structure(checkpoint: str | os.PathLike[str], trajectories: Sequence[Trajectory], *, seed: int = 0) -> None:
    """Correct the forces of a checkpoint, in its file, until the model's own runs have the g(r) of the trajectories.

    The correction with the least error of g(r) in these runs is kept, so that there it is never worse than none.

    Args:
        checkpoint: of a fluid whose model has a ``correction`` (`build_model`), which is taken further.
        trajectories: in local equilibrium. A run of the model begins with each, and lasts as long as it in every round.
        seed: of the noise.

    Warns:
        UserWarning: a run that fails, as of a model that was hardly trained; what was found before is kept.
    """
    path = Path(checkpoint)
    cutoff, correction = _read(path)
    trajectories = trajectories[:: math.ceil(len(trajectories) / MOST)]
    target = np.mean([_structure(t, cutoff) for t in trajectories], axis=0)
    energy = float(np.mean([kinetic_temperature(t).mean() for t in trajectories]))
    distance = (np.arange(BINS) + 0.5) / BINS
    starts: list[State | None] = [None] * len(trajectories)
    found: list[tuple[float, torch.Tensor]] = []
    workers = min(os.cpu_count() or 1, len(trajectories))
    context = multiprocessing.get_context("spawn")
    bar = Progress(TextColumn("matching the structure"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bar, ProcessPoolExecutor(workers, mp_context=context) as pool:
        for turn in bar.track(range(ROUNDS)):
            jobs = [
                _Job(path, correction, traj, start, seed + turn * len(trajectories) + k)
                for k, (traj, start) in enumerate(zip(trajectories, starts, strict=True))
            ]
            try:
                runs, starts = zip(*pool.map(_run, jobs), strict=True)
            except ValueError as error:
                warnings.warn(
                    f"a run of the model failed ({error}): its forces stay as "
                    f"{'the best correction so far' if found else 'the training'} left them",
                    stacklevel=2,
                )
                break
            own = np.mean(runs, axis=0)
            found.append((float(np.square(own - target).sum()), correction))
            g = 0.5 * (own + target)
            step = GAIN * energy * g / (g + FEW) * np.log(np.maximum(own, LEAST) / np.maximum(target, LEAST))
            step *= 1.0 - distance**8  # the forces do not jump at the cutoff
            correction = correction + torch.from_numpy(np.interp(np.arange(BINS) / BINS, distance, step))
    if found:
        _write(path, min(found, key=lambda pair: pair[0])[1])


def _run(job: _Job) -> tuple[np.ndarray, State | None]:
    """g(r) of a run once it has settled, and where the next one begins."""
    torch.set_num_threads(1)
    freud.parallel.set_num_threads(1)
    model, truth = load(job.checkpoint).double(), job.truth
    _correction_of(model).pass_through(job.correction)
    run = simulate(
        model,
        start_of(model, truth) if job.start is None else job.start,
        box=truth.box,
        dt=model.dt,
        steps=max(1, round((len(truth) - 1) * truth.dt / model.dt)),
        seed=job.seed,
        forcing=forcing_from(truth.forcing),
        time=float(truth.times[0]),
    )
    settled = run[int(SETTLING * len(run)) :]
    # what is driven becomes warmer
    driven = truth.forcing is not None or truth.box.shear_rate
    return _structure(settled, model.cutoff), None if driven else State.from_frame(run, -1, model, encode=False)


def _structure(traj: Trajectory, cutoff: float) -> np.ndarray:
    """g(r) up to the cutoff, ``[BINS]``."""
    return rdf(traj, bins=BINS, r_max=cutoff, every=max(1, len(traj) // LOOKS))[1]


def _correction_of(model: ParticleModel) -> TabulatedPotential:
    potential = model.potential
    return potential.parts[-1] if isinstance(potential, PotentialSum) else potential


def _read(path: Path) -> tuple[float, torch.Tensor]:
    """Cutoff and correction, ``[BINS]``, of a checkpoint."""
    model = load(path).double()
    return model.cutoff, _correction_of(model).spline.value[:-1, 0]


def _write(path: Path, correction: torch.Tensor) -> None:
    """Put a correction into a checkpoint."""
    content = read_checkpoint(path)
    module = MetriplecticModule(**content["hyper_parameters"])
    module.load_state_dict(content["state_dict"])
    _correction_of(module.model).pass_through(correction)
    partial = path.with_name(path.name + ".partial")
    torch.save({**content, "state_dict": module.state_dict()}, partial)
    os.replace(partial, path)
