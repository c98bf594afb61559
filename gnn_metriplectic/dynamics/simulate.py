"""Rollouts: a model and a state become a trajectory."""

from __future__ import annotations

import os

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnn_metriplectic.dynamics.external import Forcing, Prescribed, Thermostat
from gnn_metriplectic.dynamics.integrators import INTEGRATORS
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.trajectory import Trajectory, TrajectoryWriter, read_trajectory, warn_if_torn


@torch.no_grad()
def simulate(
    model: MetriplecticModel,
    state: State,
    *,
    box: Box,
    dt: float,
    steps: int,
    integrator: str = "energy_conserving",
    seed: int = 0,
    every: int = 1,
    out: str | os.PathLike[str] | None = None,
    forcing: Forcing | None = None,
    prescribed: Prescribed | None = None,
    thermostat: Thermostat | None = None,
    neighbors: str = "auto",
    time: float = 0.0,
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
        integrator: ``energy_conserving`` or ``euler_maruyama``.
        seed: of the noise.
        every: steps from frame to frame.
        out: stream the frames to this H5MD file; memory does not grow with their number. After
            Ctrl-C the file holds the frames so far.
        forcing, prescribed, thermostat: what acts from outside.
        neighbors: backend of the neighbour search.
        time: of ``state``; sheared images, forcing and prescribed paths depend on it.
        metadata: provenance to keep with the trajectory.
        progress: label of a progress bar, or None for silence.

    Returns:
        Trajectory of ``steps // every + 1`` frames, with ``.entropies``.

    Warns:
        UserWarning: a solid that the rollout tore.

    Raises:
        ValueError: bad settings, a prescribed path that does not last, a state of another floating type than the
            model, a particle whose internal energy has no temperature, or positions that are not finite; the
            message has the step.
    """
    if integrator not in INTEGRATORS:
        raise ValueError(f"integrator is {integrator!r}; choose one of {sorted(INTEGRATORS)}")
    if steps < 1 or every < 1 or steps < every:
        raise ValueError(f"steps is {steps} and every {every}; both must be at least 1, and steps at least every")
    if state.pos.dtype != model.dtype:
        raise ValueError(
            f"the state is {state.pos.dtype} and the model {model.dtype}: use state.to(dtype=...) or model.to(...)"
        )
    if model.is_solid and state.reference is None:
        raise ValueError("the model is of a solid and the state has no reference neighbours: give State(reference=...)")
    if prescribed is not None:
        prescribed.check(state.pos.shape[0], time, time + steps * dt)
    scheme = INTEGRATORS[integrator](
        model,
        box,
        dt,
        seed=seed,
        forcing=forcing,
        prescribed=prescribed,
        thermostat=thermostat,
        neighbors=neighbors,
        time=time,
    )
    frame = scheme.start(state)
    description = {
        "box": box,
        "dt": dt * every,
        "mass": model.masses(state.pos.shape[0], state.species).clone(),
        "species": state.species,
        "forcing": None if forcing is None else forcing.to_dict(),
        "prescribed": None if prescribed is None else prescribed.mask,
        "reference": state.reference,
        "metadata": {"integrator": integrator, "seed": seed, "step": dt, "k_B": float(model.k_B), **(metadata or {})},
    }
    sink = _Memory(description) if out is None else TrajectoryWriter(out, **description)
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
            sink.append(state.pos, state.vel, state.entropy, time)
            for number in range(1, steps + 1):
                try:
                    frame = scheme.step(frame)
                except ValueError as error:
                    raise ValueError(f"step {number} of {steps}: {error}") from error
                if number % every == 0:
                    sink.append(frame.state.pos, frame.state.vel, frame.state.entropy, time + number * dt)
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


class _Memory:
    """Frames kept in memory, with the interface of `TrajectoryWriter`."""

    def __init__(self, description: dict) -> None:
        self.description = description
        self.frames: list[tuple] = []

    def append(self, pos, vel, entropy, time) -> None:
        self.frames.append((pos.cpu(), vel.cpu(), entropy.cpu(), torch.tensor(time, dtype=torch.float64)))

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.frames.clear()

    def trajectory(self) -> Trajectory:
        positions, velocities, entropies, times = (torch.stack(column) for column in zip(*self.frames, strict=True))
        return Trajectory(positions, velocities, entropies=entropies, times=times, **self.description)
