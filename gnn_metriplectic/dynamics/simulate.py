"""Rollouts: a model and a state become a trajectory."""

from __future__ import annotations

import os

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnn_metriplectic.dynamics.external import Forcing, Prescribed, Thermostat
from gnn_metriplectic.dynamics.integrators import INTEGRATORS, Frame, LearnedIncrement
from gnn_metriplectic.dynamics.overdamped import Overdamped
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.models import ParticleModel, State
from gnn_metriplectic.trajectory import Trajectory, TrajectoryWriter, read_trajectory, warn_if_torn
from gnn_metriplectic.trajectory.checks import check_count, check_positive, check_vacant

SCHEMES = {**INTEGRATORS, "overdamped": Overdamped, "increment": LearnedIncrement}


@torch.no_grad()
def simulate(
    model: ParticleModel,
    state: State,
    *,
    box: Box,
    dt: float,
    steps: int,
    integrator: str | None = None,
    seed: int = 0,
    every: int = 1,
    out: str | os.PathLike[str] | None = None,
    forcing: Forcing | None = None,
    prescribed: Prescribed | None = None,
    thermostat: Thermostat | None = None,
    neighbors: str = "auto",
    time: float = 0.0,
    inner_steps: int = 1,
    metadata: dict | None = None,
    progress: str | None = None,
) -> Trajectory:
    """Run the stochastic dynamics and return its frames, the first of which is ``state``.

    Args:
        model: whose dynamics; runs in the floating type of ``state`` and the model.
        state: where to start.
        box: where the particles live.
        dt: time step; a learned model is meant for ``model.dt``.
        steps: number of steps.
        integrator: one of ``model.integrators``, by default the first: ``energy_conserving`` of a metriplectic model.
        seed: of the noise.
        every: steps from frame to frame.
        out: stream the frames to this H5MD file, which must not exist; memory does not grow with their
            number. After Ctrl-C the file holds the frames so far.
        forcing, prescribed, thermostat: what acts from outside.
        neighbors: backend of the neighbour search.
        time: of ``state``; sheared images, forcing and prescribed paths depend on it.
        inner_steps: steps of Verlet in a step of friction, for forces that limit ``dt`` before friction does
            (``energy_conserving``).
        metadata: provenance to keep with the trajectory.
        progress: label of a progress bar, or None for silence.

    Returns:
        Trajectory of ``steps // every + 1`` frames, with ``.entropies`` if the model has them.

    Warns:
        UserWarning: a solid that the rollout tore.

    Raises:
        ValueError: before the first step, bad settings, a file that exists, a prescribed path that does not last, or
            a state that the model cannot start from; in a step, whose number the message has, a particle whose
            internal energy has no temperature, or positions that are not finite. No file is left.
    """
    integrator = integrator or model.integrators[0]
    model.check_integrator(integrator)
    if check_count("steps", steps) < check_count("every", every):
        raise ValueError(f"steps is {steps} and every {every}; steps must be at least every")
    check_count("seed", seed, least=0)
    if out is not None:
        check_vacant(out)
    _check_start(model, state)
    if prescribed is not None:
        prescribed.check(state.pos.shape[0], time, time + steps * dt)
    scheme = SCHEMES[integrator](
        model,
        box,
        check_positive("dt", dt),
        seed=seed,
        forcing=forcing,
        prescribed=prescribed,
        thermostat=thermostat,
        neighbors=neighbors,
        time=time,
        inner_steps=check_count("inner_steps", inner_steps),
    )
    frame = scheme.start(state)
    _check_thermo(frame)
    description = {
        "box": box,
        "dt": dt * every,
        "mass": model.masses(state.pos.shape[0], state.species).clone(),
        "species": state.species,
        "forcing": None if forcing is None else forcing.to_dict(),
        "prescribed": None if prescribed is None else prescribed.mask,
        "reference": state.reference,
        "metadata": {
            "integrator": integrator,
            "seed": seed,
            "step": dt,
            "inner_steps": inner_steps,
            **(metadata or {}),
        },
    }
    if model.has_entropy:
        description["metadata"].setdefault("k_B", float(model.k_B))
    sink = _Memory(description) if out is None else TrajectoryWriter(out, **description)

    def record(state: State, time: float) -> None:
        sink.append(state.pos, state.vel, state.entropy if model.has_entropy else None, time)

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=progress is None,
    )
    try:
        with bar:
            task = bar.add_task(progress or "", total=steps)
            record(state, time)
            for number in range(1, steps + 1):
                try:
                    frame = scheme.step(frame)
                except ValueError as error:
                    raise ValueError(f"step {number} of {steps}: {error}") from error
                if number % every == 0:
                    record(frame.state, time + number * dt)
                bar.advance(task)
    except KeyboardInterrupt:
        sink.close()
        raise
    except BaseException:
        sink.abort()
        raise
    sink.close()
    run = sink.trajectory() if out is None else read_trajectory(out)
    warn_if_torn(run, "the rollout")
    return run


def _check_start(model: ParticleModel, state: State) -> None:
    """Raise ValueError for a state from which no run of the model can start."""
    count = state.pos.shape[0]
    if count < 2:
        raise ValueError(f"the state has {count} particle(s); pair interactions need at least two")
    if state.pos.shape[1] != model.dimension:
        raise ValueError(f"the state has dimension {state.pos.shape[1]} and the model {model.dimension}")
    if state.pos.dtype != model.dtype:
        raise ValueError(
            f"the state is {state.pos.dtype} and the model {model.dtype}: use state.to(dtype=...) or model.to(...)"
        )
    state.check_finite()
    if model.is_solid and state.reference is None:
        raise ValueError("the model is of a solid and the state has no reference neighbours: give State(reference=...)")


def _check_thermo(frame: Frame) -> None:
    """Raise ValueError where the entropies of the start are beyond what the model can tell a temperature of."""
    if frame.thermo is None:
        return
    energy, temperature = frame.thermo.energy, frame.thermo.temperature
    known = torch.isfinite(energy) & torch.isfinite(temperature) & (temperature > 0)
    if not bool(known.all()):
        bad = int((~known).nonzero()[0])
        raise ValueError(
            f"particle {bad} starts with entropy {float(frame.state.entropy[bad]):.6g}, at which the model has no "
            "temperature: take entropies from State.from_frame or State.equilibrium"
        )


class _Memory:
    """Frames kept in memory, with the interface of `TrajectoryWriter`."""

    def __init__(self, description: dict) -> None:
        self.description = description
        self.frames: list[tuple] = []

    def append(self, pos, vel, entropy, time) -> None:
        frame = pos, vel, entropy, torch.tensor(time, dtype=torch.float64)
        self.frames.append(tuple(None if part is None else part.cpu() for part in frame))

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.frames.clear()

    def trajectory(self) -> Trajectory:
        positions, velocities, entropies, times = (
            None if column[0] is None else torch.stack(column) for column in zip(*self.frames, strict=True)
        )
        return Trajectory(positions, velocities, entropies=entropies, times=times, **self.description)
