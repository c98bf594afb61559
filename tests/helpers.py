"""Small systems, synthetic trajectories and commands that several test files run."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path

import torch

from gnn_metriplectic.geometry import Box
from gnn_metriplectic.systems.ideal_gas import IdealGasSystem
from gnn_metriplectic.trajectory import Trajectory

CUTOFF = 0.2
GAS = {
    "particles": 40,
    "length": 0.45,
    "cutoff": CUTOFF,
    "dt": 1e-3,
    "atoms": 20.0,
    "shear_viscosity": 20.0,
    "bulk_viscosity": 5.0,
    "conductivity": 200.0,
    "forcing": 10.0,
    "shear_rate": 2.0,
    "equilibration": 20,
}
# what a training needs to be small and silent
SILENT = {"enable_progress_bar": False, "accelerator": "cpu"}


def gas_system(**changes) -> IdealGasSystem:
    """The ideal gas in a box that just holds its cutoff."""
    return IdealGasSystem(**{**GAS, **changes})


def synthetic(
    box: Box, *, count: int = 24, frames: int = 7, dt: float = 0.02, speed: float = 1.0, seed: int = 0, **known
) -> Trajectory:
    """Particles that fly straight on through the box, some of them from cells far away; float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, box.dimension)
    start = torch.rand(shape, generator=generator, dtype=torch.float64)
    if not box.is_free:
        cells = torch.randint(-2, 3, shape, generator=generator)
        start = (start + cells) @ box.lattice_at(0.0)
    vel = speed * torch.randn(shape, generator=generator, dtype=torch.float64)
    vel[:, 0] += box.shear_rate * start[:, 1]
    times = dt * torch.arange(frames, dtype=torch.float64)
    return Trajectory(start + times[:, None, None] * vel, vel.expand(frames, *shape), box=box, dt=dt, **known)


class SerialPool:
    """Stands in for a pool of processes where starting them would take longer than the work."""

    def __init__(self, *arguments, **options) -> None:
        pass

    def __enter__(self) -> SerialPool:
        return self

    def __exit__(self, *error) -> None:
        pass

    def submit(self, function, *arguments) -> Future:
        future = Future()
        future.set_result(function(*arguments))
        return future

    def map(self, function, items):
        return map(function, items)

    def shutdown(self, **options) -> None:
        pass


def run_command(monkeypatch, folder: Path, name: str, *overrides: str) -> None:
    """``gnnm-<name> <overrides>`` in this process and one core, with ``folder`` as the current one."""
    monkeypatch.setattr("gnn_metriplectic.systems.dataset.ProcessPoolExecutor", SerialPool)
    monkeypatch.setattr("gnn_metriplectic.evaluation.rollouts.ProcessPoolExecutor", SerialPool)
    monkeypatch.setattr(sys, "argv", [f"gnnm-{name}", *overrides])
    monkeypatch.chdir(folder)
    import_module(f"gnn_metriplectic.commands.{name}").main()


def command_process(folder: Path, name: str, *overrides: str, **environment: str) -> subprocess.Popen:
    """``gnnm-<name> <overrides>`` as a process of its own in ``folder``, which has output as text."""
    return subprocess.Popen(
        [sys.executable, "-m", f"gnn_metriplectic.commands.{name}", *overrides],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def entries(name: str, scenario: str = "self_diffusion", *, runs: int = 1, frames: int) -> str:
    """One condition of a split, as an override gives it."""
    return f"{{name: {name}, scenario: {scenario}, temperature: 1.0, runs: {runs}, frames: {frames}}}"


# a system that takes seconds, as overrides of the real configuration
SMALL_SYSTEM = (
    *(
        f"system.parameters.{name}={value}"
        for name, value in (("particles", 60), ("length", 0.5), ("equilibration", 5))
    ),
    f"system.train=[{entries('flow', 'taylor_green', frames=24)}]",
    f"system.validation=[{entries('flow', 'taylor_green', frames=12)}]",
    f"system.test=[{entries('rest', runs=2, frames=40)},{entries('shear', 'shear', frames=40)}]",
    "system.scores.max_lag_time=0.01",
    "system.scores.window=[0.004,0.01]",
)
SMALL_TRAINING = (
    *SMALL_SYSTEM,
    "experiment=ideal_gas",
    "model.lag=4",
    "optimizer.steps=8",
    "optimizer.steps_per_epoch=4",
    "optimizer.batch_size=2",
    "model.terms={encoder: {width: 16}}",
)
