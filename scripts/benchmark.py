"""Speed of training and rollouts, side by side with a plain-autograd implementation of the same model.

    .venv/bin/python scripts/benchmark.py [--quick] [--json FILE]

prints each figure as it is measured, and at the end the table of docs/performance.md.

Systems: a random fluid of the size and density of 11-bead stars (1,000 particles, number density 0.0364, cutoff
4.75) and of the ideal gas (500 particles). "default" has the networks that ship, "width 100" two hidden layers of 100
as the published implementation. Times are medians, "spread" is the half-width of the middle half. Growth is the mean
over steps, searches for neighbours among them, each size in a process of its own. The plain-autograd model is that of
tests/oracle.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lightning
import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from gnn_metriplectic.dynamics.integrators import EnergyConserving
from gnn_metriplectic.geometry import Box, neighbor_pairs
from gnn_metriplectic.learning.fit import SOLID_TERMS, TERMS
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.learning.survey import measure_scales
from gnn_metriplectic.learning.transitions import TransitionDataset
from gnn_metriplectic.models import MetriplecticModel, State, tabulate
from gnn_metriplectic.terms.linear import linear
from gnn_metriplectic.trajectory import Trajectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle import plain_autograd

# name: particles, number density, cutoff, mass, time step
SYSTEMS = {"star 11": (1000, 0.0364, 4.75, 11.0, 0.2), "ideal gas": (500, 500.0, 0.2, 1.0, 4e-3)}
FLUID = {name: settings for name, settings in TERMS["metriplectic"].items() if name not in SOLID_TERMS}
WIDE = {
    "kernel": {"width": 100},
    "equation_of_state": {"width": 100},
    "friction": {"width": 100, "depth": 2, "rank": 4},
    "encoder": {"width": 100, "hops": 2},
}
SNAPSHOTS = 5
Row = dict[str, object]


def fluid(system: str, particles: int | None = None, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Box]:
    """Random positions and thermal velocities (k_B T = 1) at the density of a system."""
    usual, density, _, mass, _ = SYSTEMS[system]
    count = particles or usual
    box = Box.cubic((count / density) ** (1.0 / 3.0), 3)
    generator = torch.Generator().manual_seed(seed)
    pos = box.lengths[0] * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    vel = torch.randn(count, 3, generator=generator, dtype=torch.float64) / mass**0.5
    return pos, vel, box


def transitions(system: str) -> TransitionDataset:
    """Free flight with some noise: pairs and sizes of the real thing."""
    _, _, cutoff, mass, dt = SYSTEMS[system]
    pos, vel, box = fluid(system)
    kicks = 0.3 / mass**0.5 * torch.randn(SNAPSHOTS, *vel.shape, generator=torch.Generator().manual_seed(1))
    velocities = vel + kicks.double().cumsum(dim=0)
    positions = pos + dt * velocities.cumsum(dim=0)
    return TransitionDataset([Trajectory(positions, velocities, box=box, dt=dt, mass=mass)], cutoff=cutoff, lag=1)


def module(system: str, terms: dict[str, dict]) -> tuple[MetriplecticModule, Batch]:
    dataset = transitions(system)
    settings = {
        "dimension": 3,
        "cutoff": dataset.cutoff,
        "dt": dataset.dt,
        "mass": SYSTEMS[system][3],
        "learn_mass": False,
        "entropy": "encoded",
        "scales": measure_scales(dataset).to_dict(),
        **terms,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = MetriplecticModule(settings, {"lr": 1e-4, "steps": 1000, "warmup": 0.1}, "equilibrium")
    items = [dataset[k % len(dataset)] for k in range(SNAPSHOTS)]
    return built, Batch.from_data_list(items)


class Stopwatch(lightning.Callback):
    """Time of each training step as Lightning runs it: forward, backward, optimiser."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_) -> None:
        self.times.append(time.perf_counter() - self.started)


def training_times(system: str, terms: dict[str, dict], *, plain: bool, steps: int) -> list[float]:
    built, batch = module(system, terms)
    if plain:
        built.model = plain_autograd(built.model)
    watch = Stopwatch()
    trainer = lightning.Trainer(
        max_steps=steps + 3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(built, DataLoader([batch] * (steps + 3), batch_size=None))
    return watch.times[3:]


def rollout_times(
    model: MetriplecticModel, system: str, *, particles: int | None = None, steps: int, warm: int = 3
) -> Iterator[float]:
    pos, vel, box = fluid(system, particles)
    state = State(pos, vel, torch.zeros(len(pos), dtype=torch.float64)).to(dtype=model.dtype)
    scheme = EnergyConserving(model, box, 0.2 * model.dt)
    with torch.no_grad():
        frame = scheme.start(state)
        for number in range(steps + warm):
            started = time.perf_counter()
            frame = scheme.step(frame)
            if number >= warm:
                yield time.perf_counter() - started


def growth(particles: int, steps: int) -> tuple[list[float], float]:
    """Seconds of each step, and the memory that the process took at most, in GiB."""
    model = module("star 11", FLUID)[0].model.float().requires_grad_(False)
    times = list(rollout_times(model, "star 11", particles=particles, steps=steps, warm=1))
    # of this process alone: getrusage counts what its parent had, too
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return times, int(peak) / 2**20


def timed(name: str, times: list[float], target: float | None = None, per: float = 1.0, unit: str = "s") -> Row:
    values = sorted(t / per for t in times)
    quarter = len(values) // 4
    return {
        "name": name,
        "value": statistics.median(values),
        "spread": 0.5 * (values[-1 - quarter] - values[quarter]),
        "unit": unit,
        "target": target,
    }


def repeated(function: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times + 2):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return found[2:]


def machine(repetitions: int) -> Iterator[Row]:
    """What the machine delivers: products of a hidden layer of 100 on the pairs of a training step, and streams."""
    pairs, width, numbers = 41_838, 100, 1 << 26
    x, weight, bias = torch.randn(pairs, width), torch.randn(width, width), torch.randn(width)
    source, sink = torch.ones(numbers), torch.ones(numbers)
    work = 2e-9 * pairs * width**2
    for name, function, amount, unit in (
        ("matrix product, as the networks use it", lambda: linear(x, weight, bias), work, "GFlop/s"),
        ("matrix product, torch.nn.functional.linear", lambda: functional.linear(x, weight, bias), work, "GFlop/s"),
        ("product of a gradient, Gᵀ X", lambda: x.T @ x, work, "GFlop/s"),
        ("copy of memory, read and written", lambda: sink.copy_(source), 8e-9 * numbers, "GB/s"),
    ):
        rates = [amount / seconds for seconds in repeated(function, repetitions)]
        yield timed(name, rates, unit=unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="about two minutes: fewer repetitions, up to 10^4 particles"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    few = 5 if options.quick else 20
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        target = "" if row["target"] is None else f"   target {row['target']:g}"
        print(f"{row['name']:64}{row['value']:10.4g} ± {row['spread']:.2g} {row['unit']}{target}", flush=True)

    for row in machine(few):
        add(row)

    published, ours = {"star 11": 0.4}, {"star 11": 0.15}
    for system in SYSTEMS:
        what = f"training step, {SNAPSHOTS} snapshots of {system}"
        add(timed(f"{what}, default", training_times(system, FLUID, plain=False, steps=few), ours.get(system)))
        add(timed(f"{what}, width 100", training_times(system, WIDE, plain=False, steps=few), published.get(system)))
        times = training_times(system, WIDE, plain=True, steps=max(few // 3, 3))
        add(timed(f"{what}, width 100, plain autograd", times))

    for system in SYSTEMS:
        target = 0.010 if system == "star 11" else None
        for name, terms in (("default", FLUID), ("width 100", WIDE)):
            model = module(system, terms)[0].model.float().requires_grad_(False)
            what = f"rollout step, {system}, {name}"
            steps = 5 * few
            add(timed(what, list(rollout_times(model, system, steps=steps)), target if name == "default" else None))
            if name == "width 100":
                plain = plain_autograd(model)
                add(timed(f"{what}, plain autograd", list(rollout_times(plain, system, steps=few))))
            else:
                add(timed(f"{what}, float64", list(rollout_times(model.double(), system, steps=steps))))
                mean = fluid(system)[2].volume / SYSTEMS[system][0]
                tables = tabulate(model, entropy=(-10.0, 10.0), volume=(0.1 * mean, 10.0 * mean)).model.float()
                add(timed(f"rollout step, {system}, tables", list(rollout_times(tables, system, steps=steps)), target))

    cutoff = SYSTEMS["star 11"][2]
    for count in (1000, 10_000) if options.quick else (1000, 10_000, 100_000):
        pos, _, box = fluid("star 11", count)
        times = repeated(lambda pos=pos, box=box: neighbor_pairs(pos, box, cutoff), few)
        add(timed(f"neighbour search, {count} particles", times))

    flat = None
    for count in (1000, 10_000) if options.quick else (1000, 10_000, 100_000, 1_000_000):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            times, peak = pool.submit(growth, count, 20).result()
        million = count == 1_000_000
        row = timed(f"rollout, {count} particles, a particle", times, flat, per=count * 1e-6, unit="µs")
        row["value"] = statistics.mean(times) / count * 1e6
        add(row)
        flat = 1.1 * row["value"] if count == 100_000 else None  # within 10 %
        name = f"memory, {count} particles"
        add({"name": name, "value": peak, "spread": 0.0, "unit": "GiB", "target": 4.0 if million else None})

    print("\n| what | median | spread | target |\n|---|---|---|---|")
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:.3g} {row['unit']}"
        print(f"| {row['name']} | {row['value']:.3g} {row['unit']} | {row['spread']:.1g} | {target} |")
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
