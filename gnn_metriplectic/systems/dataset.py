"""Training, validation and test trajectories of a system, on disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from gnn_metriplectic.models import MetriplecticModel
from gnn_metriplectic.systems.ideal_gas import IdealGasSystem
from gnn_metriplectic.systems.molecular import TrajectorySystem
from gnn_metriplectic.systems.star_polymer import StarPolymerSystem
from gnn_metriplectic.systems.viscoelastic import ViscoelasticSystem
from gnn_metriplectic.trajectory import Trajectory, read_trajectory

SYSTEMS = {
    "ideal_gas": IdealGasSystem,
    "star_polymer": StarPolymerSystem,
    "trajectory": TrajectorySystem,
    "viscoelastic": ViscoelasticSystem,
}
# of the package's extra for video, which need not be there
VIDEO_SYSTEMS = {"colloids": "ColloidSystem", "video": "VideoSystem"}
SPLITS = ("train", "validation", "test")
_MANIFEST = "settings.json"


class System(Protocol):
    """What makes trajectories.

    Attributes:
        serial: whether one trajectory keeps all cores busy, so that they are made one after the other.
    """

    serial: bool

    def generate(self, path: Path, *, seed: int, advance: Callable[[float, str], None], **options: Any) -> None:
        """Write one trajectory to ``path``, one folder below that of the set.

        Args:
            path: of the H5MD file.
            seed: of all that is random in it.
            advance: to be told the share of the present stage that is done (in [0, 1]), and its name; only
                a serial system's is shown.
            options: the keys of its entry in ``train``, ``validation`` or ``test``.
        """
        ...


@dataclass(frozen=True)
class _Job:
    path: Path
    seed: int
    options: dict[str, Any]


def ensure_dataset(
    settings: dict[str, Any],
    folder: str | os.PathLike[str],
    *,
    seed: int,
    workers: int | None = None,
    generate: bool = True,
) -> Path:
    """Generate what is missing of a system's trajectories; each file has its own seed.

    Args:
        settings: ``name`` of the system (and ``generator`` where that is another), its ``parameters``, and
            ``train``, ``validation``, ``test``, each a list of ``{name, runs}`` and what the system's
            ``generate`` takes; entries of one name are numbered on.
        folder: where they go, as ``<folder>/<split>/<name>_<run>.h5``.
        seed: of the whole set.
        workers: processes; by default one a core.
        generate: False waits for another process, which generates.

    Raises:
        ValueError: an unknown system, settings that do not fit it, or a folder generated with others.
    """
    folder = Path(folder)
    system = _system(settings)
    made_from = {key: settings[key] for key in ("name", "parameters", *SPLITS)}
    manifest = json.dumps({"seed": seed, **made_from}, indent=1, sort_keys=True)
    found = folder / _MANIFEST
    # a manifest alone is of settings that made nothing
    if found.is_file() and found.read_text() != manifest and any(folder.glob("*/*.h5")):
        raise ValueError(
            f"{folder} holds trajectories of other settings (see {found}): choose another folder with data=..., "
            "or remove this one"
        )
    while jobs := [job for job in _jobs(system, settings, folder, seed) if not job.path.is_file()]:
        if generate:
            break
        time.sleep(1.0)
    if not jobs:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write(found, manifest)
    if system.serial:
        _generate_serially(system, jobs)
    else:
        _generate_in_parallel(system, jobs, settings["name"], min(workers or os.cpu_count() or 1, len(jobs)))
    return folder


def ground_truth(settings: dict[str, Any]) -> MetriplecticModel | None:
    """The law of a system's trajectories where it is one of the package's models; errors as in `ensure_dataset`."""
    system = _system(settings)
    return system.model() if hasattr(system, "model") else None


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


def _system(settings: dict[str, Any]) -> System:
    name = settings.get("generator", settings.get("name"))
    if name not in SYSTEMS and name not in VIDEO_SYSTEMS:
        raise ValueError(f"system {name!r} is unknown; known: {sorted([*SYSTEMS, *VIDEO_SYSTEMS])}")
    try:
        if name in VIDEO_SYSTEMS:
            made_by = getattr(import_module("gnn_metriplectic.systems.video"), VIDEO_SYSTEMS[name])
        else:
            made_by = SYSTEMS[name]
    except ImportError as error:
        raise FileNotFoundError(f"{error.name} is not installed: pip install 'gnn-metriplectic[video]'") from error
    try:
        return made_by(**settings["parameters"])
    except TypeError as error:
        raise ValueError(f"parameters of system {name}: {error}") from None


def _jobs(system: System, settings: dict[str, Any], folder: Path, seed: int) -> Iterator[_Job]:
    number = 0
    for split in SPLITS:
        taken: Counter[str] = Counter()
        for entry in settings[split]:
            options = {key: value for key, value in entry.items() if key not in ("name", "runs")}
            try:
                signature(system.generate).bind("path", seed=seed, advance=None, **options)
                name, runs = entry["name"], entry["runs"]
            except (TypeError, KeyError) as error:
                raise ValueError(f"an entry of {split} does not fit the system: {error}; it is {entry}") from None
            for _ in range(runs):
                number += 1
                yield _Job(folder / split / f"{name}_{taken[name]}.h5", 100_000 * seed + number, options)
                taken[name] += 1


def _generate_serially(system: System, jobs: list[_Job]) -> None:
    with Progress(TextColumn("{task.description:22}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as bar:
        whole = bar.add_task("trajectories", total=len(jobs))
        stage = bar.add_task("", total=1.0)
        for number, job in enumerate(jobs):

            def advance(share: float, what: str) -> None:
                bar.update(stage, completed=share, description=what)

            _generate(system, job, advance)
            bar.update(whole, completed=number + 1)


def _generate_in_parallel(system: System, jobs: list[_Job], name: str, workers: int) -> None:
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # spawn: a forked copy of a process that has used threads may hang
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        task = bar.add_task(f"generating {name}", total=len(jobs))
        # the long ones first, so that no core waits for one at the end
        futures = [
            pool.submit(_generate, system, job) for job in sorted(jobs, key=lambda j: -j.options.get("frames", 0))
        ]
        try:
            for future in as_completed(futures):
                future.result()
                bar.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _one_thread() -> None:
    torch.set_num_threads(1)


def _silent(share: float, what: str) -> None:
    pass


def _generate(system: System, job: _Job, advance: Callable[[float, str], None] = _silent) -> None:
    system.generate(job.path, seed=job.seed, advance=advance, **job.options)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
