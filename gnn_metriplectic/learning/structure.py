"""The structure of the data in the model's own runs: iterative Boltzmann inversion.

    φ(r) += a k_B T ln(g_model(r) / g_data(r))

(Reith, Pütz and Müller-Plathe, J. Comput. Chem. 24, 1624, 2003.) Forces that balance in the data (`learning.balance`)
keep g(r) as long as triplets are those of the data too, which forces of few numbers leave open. What is left of it
after the training is a few tenths of k_B T, and goes into a potential of pairs beside what was learned. An energy it
is, so that every law holds as before.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnn_metriplectic.analysis.structure import largest_radius, rdf
from gnn_metriplectic.dynamics import forcing_from, simulate
from gnn_metriplectic.dynamics.start import start_of
from gnn_metriplectic.learning.checkpoints import load, read_checkpoint
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.models import ParticleModel, State
from gnn_metriplectic.terms import PotentialSum
from gnn_metriplectic.terms.tabulated import TabulatedPotential
from gnn_metriplectic.trajectory import Trajectory

# of runs: the first shows what is to be corrected, and the last what the correction has become
ROUNDS = 5
# of g(r), and of the potential; a power of two, so that the nodes of a table are among its own
BINS = 32
# a of g = 1 and more, where in a dense fluid it takes several k_B T ln g to move g; where there are few pairs it falls
# with g, as there one does
GAIN, FEW = 2.0, 0.2
# largest step, in k_B T: a bin near the centre may hold one pair in one of two runs
STEP = 1.0
# runs in a round, of as many trajectories from first to last
MOST = 6
# of a run, while the structure follows the potential
SETTLING = 0.25
# of a run's frames, on which g is counted
LOOKS = 100
# below which g is not told from none
LEAST = 1e-3


def match_structure(
    checkpoint: str | os.PathLike[str],
    trajectories: Sequence[Trajectory],
    *,
    temperature: float,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Correct the forces of a checkpoint, in its file, until the model's own runs have the g(r) of the trajectories.

    The correction with the least error of g(r) in these runs is kept, none among them.

    Args:
        checkpoint: of a fluid whose model has a ``correction`` (`build_model`), which is taken further.
        trajectories: in local equilibrium. A run of the model begins with each (at most `MOST`), and lasts as long as
            it in each of `ROUNDS` rounds.
        temperature: k_B T, in units of energy.
        seed: of the noise.
        progress: whether to show a bar.

    Warns:
        UserWarning: a run that fails, as of a model that was hardly trained; what was found before is kept.
    """
    path = Path(checkpoint)
    trajectories = trajectories[:: math.ceil(len(trajectories) / MOST)]
    model = load(path).double()
    correction = _correction_of(model)
    values = correction.spline.value[:-1, 0].clone()
    reach = min(model.cutoff, *(largest_radius(t) for t in trajectories))
    target = np.mean([_structure(t, reach) for t in trajectories], axis=0)
    rho = (np.arange(BINS) + 0.5) / BINS * reach / model.cutoff
    weight = rho ** (model.dimension - 1)  # of the pairs in a bin
    starts: list[State | None] = [None] * len(trajectories)
    found: list[tuple[float, torch.Tensor]] = []
    bar = Progress(
        TextColumn("matching the structure"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not progress,
    )
    with bar:
        task = bar.add_task("", total=ROUNDS * len(trajectories))
        for turn in range(ROUNDS):
            correction.pass_through(values)
            runs = []
            try:
                for k, traj in enumerate(trajectories):
                    structure, starts[k] = _run(model, traj, starts[k], reach, seed + turn * len(trajectories) + k)
                    runs.append(structure)
                    bar.advance(task)
            except ValueError as error:
                warnings.warn(
                    f"a run of the model failed ({error}): its forces stay as "
                    f"{'the best correction so far' if found else 'the training'} left them",
                    stacklevel=2,
                )
                break
            own = np.mean(runs, axis=0)
            found.append((float((weight * np.square(own - target)).sum()), values))
            g = 0.5 * (own + target)
            step = GAIN * g / (g + FEW) * np.log(np.maximum(own, LEAST) / np.maximum(target, LEAST))
            step = temperature * np.clip(step, -STEP, STEP) * (1.0 - rho**8)  # the forces do not jump at the cutoff
            values = values + torch.from_numpy(np.interp(np.arange(BINS) / BINS, rho, step, right=0.0))
    if found:
        _write(path, min(found, key=lambda pair: pair[0])[1])


@torch.no_grad()
def _run(
    model: ParticleModel, truth: Trajectory, start: State | None, reach: float, seed: int
) -> tuple[np.ndarray, State | None]:
    """g(r) of a run once it has settled, and where the next one begins."""
    steps = max(1, round((len(truth) - 1) * truth.dt / model.dt))
    every = max(1, steps // LOOKS)
    run = simulate(
        model,
        start_of(model, truth) if start is None else start,
        box=truth.box,
        dt=model.dt,
        steps=steps,
        every=every,
        seed=seed,
        forcing=forcing_from(truth.forcing),
        time=float(truth.times[0]),
    )
    # what is driven becomes warmer
    driven = truth.forcing is not None or truth.box.shear_rate
    settled = run[int(SETTLING * len(run)) :]
    return _structure(settled, reach), None if driven else State.from_frame(run, -1, model, encode=False)


def _structure(traj: Trajectory, reach: float) -> np.ndarray:
    """g(r) up to ``reach``, ``[BINS]``."""
    return rdf(traj, bins=BINS, r_max=reach, every=max(1, len(traj) // LOOKS))[1]


def _correction_of(model: ParticleModel) -> TabulatedPotential:
    potential = model.potential
    return potential.parts[-1] if isinstance(potential, PotentialSum) else potential


def _write(path: Path, correction: torch.Tensor) -> None:
    """Put a correction into a checkpoint."""
    content = read_checkpoint(path)
    module = MetriplecticModule(**content["hyper_parameters"])
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])
    _correction_of(module.model).pass_through(correction)
    partial = path.with_name(path.name + ".partial")
    torch.save({**content, "state_dict": module.state_dict()}, partial)
    os.replace(partial, path)
