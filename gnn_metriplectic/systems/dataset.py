"""Training, validation and test trajectories of a system, on disk."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnn_metriplectic.systems.ideal_gas import IdealGasSystem
from gnn_metriplectic.trajectory import Trajectory, read_trajectory

SYSTEMS = {"ideal_gas": IdealGasSystem}
SPLITS = ("train", "validation", "test")
_MANIFEST = "settings.json"


@dataclass(frozen=True)
class _Job:
    path: Path
    scenario: str
    temperature: float
    frames: int
    seed: int


def ensure_dataset(
    settings: dict[str, Any], folder: str | os.PathLike[str], *, seed: int, workers: int | None = None
) -> Path:
    """Generate what is missing of a system's trajectories; each file has its own seed.

    Args:
        settings: ``name`` of the system, its ``parameters``, and ``train``, ``validation``, ``test``, each a
            list of ``{name, scenario, temperature, runs, frames}``.
        folder: where they go, as ``<folder>/<split>/<name>_<run>.h5``.
        seed: of the whole set.
        workers: processes; by default one a core.

    Raises:
        ValueError: an unknown system, settings that do not fit it, or a folder generated with others.
    """
    folder = Path(folder)
    system = _system(settings)
    manifest = json.dumps({"seed": seed, **settings}, indent=1, sort_keys=True)
    found = folder / _MANIFEST
    # a manifest alone is of settings that made nothing
    if found.is_file() and found.read_text() != manifest and any(folder.glob("*/*.h5")):
        raise ValueError(
            f"{folder} holds trajectories of other settings (see {found}): choose another folder with data=..., "
            "or remove this one"
        )
    jobs = [job for job in _jobs(settings, folder, seed) if not job.path.is_file()]
    if not jobs:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(found, manifest)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    # spawn: a forked copy of a process that has used threads may hang
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        task = bar.add_task(f"generating {settings['name']}", total=len(jobs))
        futures = [pool.submit(_generate, system, job) for job in sorted(jobs, key=lambda j: -j.frames)]
        try:
            for future in as_completed(futures):
                future.result()
                bar.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return folder


def read_split(folder: str | os.PathLike[str], split: str) -> dict[str, list[Trajectory]]:
    """Trajectories of one split by the name of their condition, such as ``shear``.

    Raises:
        ValueError: an unknown split.
        FileNotFoundError: nothing there.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {SPLITS}")
    paths = sorted((Path(folder) / split).glob("*.h5"))
    if not paths:
        raise FileNotFoundError(f"{Path(folder) / split} holds no trajectories (*.h5): run gnnm-generate first")
    found: dict[str, list[Trajectory]] = {}
    for path in paths:
        found.setdefault(path.stem.rpartition("_")[0], []).append(read_trajectory(path))
    return found


def _system(settings: dict[str, Any]):
    name = settings.get("name")
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is unknown; known: {sorted(SYSTEMS)}")
    try:
        return SYSTEMS[name](**settings["parameters"])
    except TypeError as error:
        raise ValueError(f"parameters of system {name}: {error}") from None


def _jobs(settings: dict[str, Any], folder: Path, seed: int) -> Iterator[_Job]:
    number = 0
    for split in SPLITS:
        for entry in settings[split]:
            missing = {"name", "scenario", "temperature", "runs", "frames"} - set(entry)
            if missing:
                raise ValueError(f"an entry of {split} lacks {sorted(missing)}: {entry}")
            for run in range(entry["runs"]):
                number += 1
                path = folder / split / f"{entry['name']}_{run}.h5"
                yield _Job(path, entry["scenario"], entry["temperature"], entry["frames"], 100_000 * seed + number)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _generate(system, job: _Job) -> None:
    system.generate(job.path, scenario=job.scenario, temperature=job.temperature, frames=job.frames, seed=job.seed)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
