"""The answer of a solid to its drive: truth, model, and the truth once more with other noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gnn_metriplectic.analysis.mechanics import (
    Response,
    applied_strain,
    driving_amplitude,
    mechanical_scores,
    position_error,
)
from gnn_metriplectic.dynamics import Prescribed, simulate
from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.models import MetriplecticModel, ParticleModel, State
from gnn_metriplectic.trajectory import Trajectory


@dataclass(frozen=True)
class Mechanics:
    """How a solid answered.

    Attributes:
        scores: of the model, of `mechanical_scores`.
        floor: those of a second run of the truth from the same start; None where its law is not known.
        truth, model: the responses; None where the model knows no stress, and then of both where no law is known.
        error, floor_error: position errors ``[T]``; the latter None where there is no floor.
    """

    scores: dict[str, float | None]
    floor: dict[str, float | None] | None
    truth: Response | None
    model: Response | None
    error: np.ndarray
    floor_error: np.ndarray | None


def mechanics(
    model: ParticleModel, run: Trajectory, truth: Trajectory, ground_truth: MetriplecticModel | None, seed: int
) -> Mechanics:
    """Compare a rollout ``run`` of ``model`` with the true run from whose first frame it started.

    The stress of the truth is that of its own law; where that is not known, what ``model`` reads off the true frames.

    Args:
        model: in float64.
        run, truth: of the same particles and frames.
        ground_truth: the law of the truth, or None.
        seed: of the noise of the second true run.
    """
    amplitude = driving_amplitude(truth)
    answer = true_response = None
    if isinstance(model, MetriplecticModel):
        answer, true_response = respond(model, run), respond(model, truth, encode=True)
    if ground_truth is not None:
        true_response = respond(ground_truth, truth)
    sides = [(run, answer), (truth, true_response)]
    scores = mechanical_scores(*sides)
    error = position_error(run, truth, amplitude)
    if ground_truth is None:
        return Mechanics(scores, None, sides[1][1], sides[0][1], error, None)
    again = simulate(
        ground_truth,
        State.from_frame(truth, 0, ground_truth),
        box=truth.box,
        dt=truth.dt,
        steps=len(truth) - 1,
        seed=seed,
        prescribed=Prescribed.recorded(truth),
        time=float(truth.times[0]),
    )
    floor = mechanical_scores((again, respond(ground_truth, again)), sides[1])
    return Mechanics(scores, floor, sides[1][1], sides[0][1], error, position_error(again, truth, amplitude))


@torch.no_grad()
def respond(model: MetriplecticModel, traj: Trajectory, *, encode: bool = False) -> Response:
    """Stress along a trajectory of a solid, as ``model`` has it, without the momentum of the flow.

    It is taken over the area (or volume) of the first frame, so that models with different densities compare.

    Args:
        model: in the floating type that counts.
        traj: a rollout of ``model``, with its entropies; with ``encode`` any.
        encode: whether the encoder gives the entropies.
    """
    # a sheet reaches half a spacing beyond its outermost particles
    extent = torch.from_numpy(np.ptp(traj.positions[0].double().numpy(), axis=0))
    spacing = float(extent.prod() / traj.num_particles) ** (1.0 / traj.dimension)
    area = float((extent + spacing).prod())
    mean, field = [], []
    for frame in range(len(traj)):
        state = State.from_frame(traj, frame, model, encode=encode)
        pairs = neighbor_pairs(state.pos, traj.box, model.cutoff, reference=state.reference)
        volume = model.configuration(pairs, state.species).volume
        stress = model.stresses(state, pairs, flow=state.vel)[:, 1, 0]
        mean.append(float((stress * volume).sum()) / area)
        field.append((stress * volume / (area / traj.num_particles)).float().numpy())
    # a copy: a trajectory that is sent to another process moves its memory away from under the array
    return Response(traj.times.numpy().copy(), applied_strain(traj), np.array(mean), np.array(field))


def mean_scores(parts: list[dict[str, float | None] | None]) -> dict[str, float]:
    """Scores averaged over runs, without those that are not known."""
    known = [part for part in parts if part is not None]
    names = known[0] if known else ()
    return {
        name: float(np.mean([part[name] for part in known]))
        for name in names
        if all(part.get(name) is not None for part in known)
    }
