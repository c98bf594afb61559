"""Where a rollout starts: a true frame at the energy of its trajectory."""

from __future__ import annotations

import numpy as np
import torch

from gnn_metriplectic.dynamics.external import forcing_from
from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.models import ParticleModel, State
from gnn_metriplectic.trajectory import Trajectory

# frames of the truth from which its energy is read
ENERGY_FRAMES = 100


@torch.no_grad()
def start_of(model: ParticleModel, truth: Trajectory) -> State:
    """The first frame of ``truth``, at the total energy that the encoder reads off the whole run.

    Without a boundary that does work the energy is a constant, less the known work of a body force. But the encoder,
    which sees few neighbours, tells it from one frame to about a third of k_B T a particle only, and a rollout would
    be at the temperature of that error. Where a boundary does work, the frame stands as it is encoded, and of a solid,
    whose encoder cannot know how much of its motion has become heat.
    """
    start = State.from_frame(truth, 0, model)
    open_system = truth.box.shear_rate or truth.prescribed is not None or model.has_solvent
    if open_system or model.is_solid or model.encoder is None:
        return start
    work, _ = from_outside(truth)
    energies = []
    for frame in np.unique(np.linspace(0, len(truth) - 1, ENERGY_FRAMES).astype(int)).tolist():
        state = State.from_frame(truth, frame, model)
        pairs = neighbor_pairs(state.pos, truth.box, model.cutoff, float(truth.times[frame]))
        energies.append(float(model.energy(state, pairs) - work[frame]))
    pairs = neighbor_pairs(start.pos, truth.box, model.cutoff, float(truth.times[0]))
    return start.with_energy(model, pairs, float(np.mean(energies)))


def from_outside(run: Trajectory) -> tuple[torch.Tensor, torch.Tensor]:
    """Work ``[T]`` and impulse ``[T, D]`` of the body force up to each frame.

    As `EnergyConserving` does them without inner steps, where every step is a frame.
    """
    work = torch.zeros(len(run), dtype=torch.float64)
    impulse = torch.zeros(len(run), run.dimension, dtype=torch.float64)
    forcing = forcing_from(run.forcing)
    if forcing is None:
        return work, impulse
    mass = run.masses.double().unsqueeze(1)
    force = torch.stack(
        [mass * forcing.acceleration(r.double(), float(t)) for r, t in zip(run.positions, run.times, strict=True)]
    )
    push = 0.5 * run.dt * (force[1:] + force[:-1])
    # the first half of the kick is between v and the velocity of the drift, the second between that and v'
    drift = (run.positions[1:] - run.positions[:-1]).double() / run.dt
    before, after = (0.5 * (vel.double() + drift) for vel in (run.velocities[:-1], run.velocities[1:]))
    work[1:] = 0.5 * run.dt * (force[:-1] * before + force[1:] * after).sum(dim=(1, 2)).cumsum(dim=0)
    impulse[1:] = push.sum(dim=1).cumsum(dim=0)
    return work, impulse
