"""Fitting a model to trajectories."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gnn_metriplectic.learning.callbacks import History
from gnn_metriplectic.learning.checkpoints import load, read_checkpoint, resume_from, settings_of
from gnn_metriplectic.learning.data import TransitionData
from gnn_metriplectic.learning.force_matching import measure_forces
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.learning.structure import BINS, match_structure
from gnn_metriplectic.learning.survey import measure_scales
from gnn_metriplectic.learning.transitions import TransitionDataset
from gnn_metriplectic.models import ParticleModel
from gnn_metriplectic.trajectory import Trajectory
from gnn_metriplectic.trajectory.checks import check_count, check_positive

# widths and depths of the networks, chosen for accuracy at the least time (docs/decisions.md)
TERMS = {
    "metriplectic": {
        "kernel": {"width": 32},
        "equation_of_state": {"width": 16},
        "friction": {"width": 32, "depth": 2, "rank": 4},
        "encoder": {"width": 32, "hops": 2},
        # of fluids, beside U(S, V); such as {"width": 32, "depth": 2}
        "potential": None,
        # of solids
        "strain": {"measure": "deformation_gradient", "width": 32},
        "elastic": {"width": 16},
    },
    "dpd": {"potential": {"width": 32, "depth": 2}, "friction": {"width": 32, "depth": 2}},
    "gnn": {"network": {"width": 64, "hops": 3, "noise": 0.0}},
}
SOLID_TERMS, FLUID_TERMS = ("strain", "elastic"), ("potential",)
# peak learning rates
RATES = {"metriplectic": 1e-2, "dpd": 1e-2, "gnn": 1e-3}


def fit(
    trajectories: Trajectory | Sequence[Trajectory],
    *,
    kind: str = "metriplectic",
    cutoff: float,
    lag: int = 1,
    substeps: int = 1,
    validation: Trajectory | Sequence[Trajectory] | None = None,
    mass: float | list[float] | str | None = None,
    entropy: str = "encoded",
    temperature: str = "learned",
    structure: str = "learned",
    integrator: str | None = None,
    solvent: str | None = None,
    patch: int | None = None,
    terms: dict[str, dict] | None = None,
    steps: int = 2000,
    batch_size: int = 4,
    steps_per_epoch: int = 100,
    lr: float | None = None,
    warmup: float = 0.1,
    clip: float = 1.0,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    ckpt_path: str | None = None,
    start_from: str | os.PathLike[str] | None = None,
    trainer: dict[str, Any] | None = None,
    logger: Any = False,
    callbacks: Sequence[Callback] = (),
    workers: int = 0,
) -> ParticleModel:
    """Learn a model from trajectories by maximum likelihood.

    Args:
        trajectories: for training; they may differ in particle number, box, forcing and temperature.
        kind: ``metriplectic``, or a baseline: ``dpd`` (pair forces, friction and noise at the one temperature of the
            data; of a solid, springs and dashpots) or ``gnn`` (a graph network, which jumps over the lag and conserves
            nothing). Baselines have no entropy, so that ``entropy`` and ``temperature`` mean nothing to them.
        cutoff: range of all pair terms, in units of length.
        lag: time over which transitions are learned, in frames.
        substeps: time steps of the model in a lag (``model.dt`` is the lag over this): a long lag lets fast motion
            pass, and several steps in it follow the forces. A ``gnn`` has none.
        validation: trajectories on which the best checkpoint is chosen; by default the last tenth of
            the frames of each training trajectory, which are then not trained on.
        mass: of a particle (a list: one a species), ``"learned"``, or None for that of the trajectories.
        entropy: ``encoded``, or ``observed`` where the trajectories hold the true one (for tests).
        temperature: ``learned``, or ``equilibrium`` where every trajectory is in local equilibrium; the drive of a
            solid hides its kinetic temperature, and its k_B T has to stand in ``metadata["temperature"]``.
        structure: ``learned``; ``corrected``, by a potential of pairs that is added after the training until runs of
            the model have the g(r) of the data (`learning.structure`; five runs of up to six trajectories, on the
            CPU), in local equilibrium; or ``equilibrium``, where every trajectory is one at rest: then forces are held
            to the structure in the training too (`learning.balance`), as a likelihood over a long lag softens them.
            Of fluids of one species without a solvent; a ``gnn`` has no such forces.
        integrator: whose map is the mean of the likelihood; by default that of the model.
        solvent: ``inertial`` for particles that lose momentum and heat to a liquid at rest; ``overdamped`` where frames
            do not resolve their inertia: displacements are learned, and k_B T of the solvent
            (``metadata["temperature"]``, else 1) is the unit of energy. Baselines are ``inertial``. None for no liquid.
        patch: particles a patch (without the halo that is added), where a snapshot is too large for memory: a
            batch then holds patches instead of snapshots. None for whole snapshots.
        terms: settings of the networks that differ from the defaults; of a metriplectic fluid
            ``{"potential": {"width": 32, "depth": 2}}`` adds a pair potential to U(S, V), and of tracks in an inertial
            solvent ``{"potential": {"nodes": 16}}`` one that is measured before the training, with friction and
            temperature of the solvent (`learning.force_matching`).
        steps, batch_size, lr, warmup, clip: gradient steps, graphs a step, peak rate of the one-cycle
            schedule (by default that of the kind), the share of steps in which it rises, and the largest gradient norm.
            Below about 500 steps the entropy is not yet standardised (its variance was seen at 0.04 to 0.4, and at
            0.77 after 600 steps of the default rate on 40 particles, where half that rate sufficed).
        steps_per_epoch: steps between checkpoints.
        seed: of weights and order.
        out: folder for ``best.ckpt`` and ``last.ckpt``; by default a temporary one (of several processes it must be
            given, and be one that all of them see).
        ckpt_path: checkpoint of the same training to go on from, or ``last`` for that of ``out``.
        start_from: checkpoint of another training whose weights this one starts from, for other data or another lag;
            the model must have the same settings. What was measured before that training is not measured again.
        trainer: options of ``lightning.Trainer``.
        logger, callbacks: for ``lightning.Trainer``.
        workers: processes that prepare batches.

    Returns:
        The best model, in float32 (float64 with ``precision: 64-true`` for the trainer), on the CPU.

    Raises:
        ValueError: settings or trajectories that cannot be learned from.
        FileNotFoundError: a checkpoint to go on from that does not exist.
    """
    if kind not in TERMS:
        raise ValueError(f"the kind of model is {kind!r}; choose one of {sorted(TERMS)}")
    lr = RATES[kind] if lr is None else lr
    train = _trajectories("trajectories", trajectories)
    counts = {"lag": lag, "substeps": substeps, "steps": steps, "batch_size": batch_size}
    for name, count in {**counts, "steps_per_epoch": steps_per_epoch}.items():
        check_count(name, count)
    for name, size in {"cutoff": cutoff, "lr": lr, "clip": clip}.items():
        check_positive(name, size)
    if not (isinstance(warmup, (int, float)) and 0.0 <= warmup <= 1.0):
        raise ValueError(f"warmup is {warmup!r}; it is a share of the steps, from 0 to 1")
    if validation is None:
        ends = [max(int(0.9 * len(t)), 1) for t in train]
        validation = [t[end:] if len(t) - end > lag else t for t, end in zip(train, ends, strict=True)]
        train = [t[:end] if len(t) - end > lag else t for t, end in zip(train, ends, strict=True)]
    held_out = _trajectories("validation", validation)
    if steps % steps_per_epoch:
        raise ValueError(f"steps is {steps}; it must be a multiple of steps_per_epoch, {steps_per_epoch}")
    if isinstance(mass, str) and mass != "learned":
        raise ValueError(f"mass is {mass!r}; give numbers, 'learned', or None for that of the trajectories")
    networks = deepcopy(TERMS[kind])
    for name, changes in (terms or {}).items():
        if name not in networks:
            raise ValueError(f"term {name!r} is unknown; known: {sorted(networks)}")
        if changes is None and name not in FLUID_TERMS:
            raise ValueError(
                f"term {name!r} is None, and a {kind} model cannot be without: leave it out, or give its settings"
            )
        networks[name] = None if changes is None else {**(networks[name] or {}), **changes}
    if kind == "metriplectic":
        solid = train[0].reference is not None
        for name in FLUID_TERMS if solid else SOLID_TERMS:
            if name in (terms or {}):
                of, have = ("fluids", "have") if solid else ("solids", "have no")
                raise ValueError(f"term {name!r} is one of {of}, and the trajectories {have} reference neighbours")
            del networks[name]
    double = str((trainer or {}).get("precision", "")).startswith("64")
    options = {
        "cutoff": cutoff,
        "lag": lag,
        "observed": entropy == "observed",
        "patch": patch,
        "overdamped": solvent == "overdamped",
        "hops": max(network.get("hops", 1) for network in networks.values() if network),
        "dtype": torch.float64 if double else torch.float32,
    }
    dataset = TransitionDataset(train, **options)
    for traj in held_out:
        if traj.dimension != train[0].dimension or abs(traj.dt / train[0].dt - 1.0) > 1e-9:
            raise ValueError(
                f"a validation trajectory has dimension {traj.dimension} and frame spacing {traj.dt:g}, and those of "
                f"the training {train[0].dimension} and {train[0].dt:g}: both must be the same"
            )
    data = TransitionData(
        dataset,
        TransitionDataset(held_out, **options),
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        workers=workers,
    )
    if temperature == "equilibrium" and not all(t > 0 for t in dataset.temperatures):
        raise ValueError(
            "temperature=equilibrium needs the temperature of a solid, which its drive hides: put k_B T into "
            "metadata['temperature'] of each trajectory, or take temperature=learned"
        )
    held = any(t.prescribed is not None or (t.species is not None and bool(t.species.any())) for t in train)
    if structure != "learned" and (dataset.solid or solvent is not None or held):
        raise ValueError(
            f"structure={structure} is of fluids of one species, without a solvent or prescribed particles: take "
            "structure=learned"
        )
    measured = "nodes" in (networks.get("potential") or {})
    if measured and (solvent != "inertial" or mass == "learned"):
        raise ValueError(
            "a potential is measured by accelerations (overdamped frames do not show them) of particles in a liquid "
            f"whose mass is known: solvent=inertial, and it is {solvent}, with mass {mass}; give a network, "
            "model.terms.potential={width: 32, depth: 2}"
        )
    settings = {
        "kind": kind,
        "dimension": train[0].dimension,
        "cutoff": float(cutoff),
        "dt": dataset.dt,
        "substeps": substeps,
        "mass": _mass(train) if mass in (None, "learned") else mass,
        "learn_mass": mass == "learned",
        "entropy": entropy,
        "scales": measure_scales(dataset).to_dict(),
        **({} if solvent is None else {"solvent": solvent}),
        **networks,
    }
    if structure != "learned" and kind != "gnn":
        settings["correction"] = BINS
    provenance = {
        "package": version("gnn-metriplectic"),
        "units": train[0].units or {},
        "lag": lag,
        "seed": seed,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "clip": clip,
        "patch": patch,
        "trajectories": [t.fingerprint() for t in train],
    }
    if start_from is not None:
        settings = settings_of(start_from, settings)
        provenance["start_from"] = os.fspath(start_from)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            module = MetriplecticModule(
                settings,
                {"lr": lr, "steps": steps, "warmup": warmup},
                temperature,
                structure,
                integrator,
                gauge_steps=min(50, max(steps // 20, 1)),  # so that a short training forgets its start, too
                provenance=provenance,
            )
        except TypeError as error:
            raise ValueError(f"settings of the terms do not fit: {error}") from None
    mean_temperature = float(np.mean(dataset.temperatures))
    if start_from is not None:
        module.load_state_dict(read_checkpoint(start_from)["state_dict"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch if out is None else out)
        # two, as save_last would only follow the best
        best, last = (
            ModelCheckpoint(
                folder, name, monitor=monitor, enable_version_counter=False, save_on_train_epoch_end=monitor is None
            )
            for name, monitor in (("best", "val/loss"), ("last", None))
        )
        resume = resume_from(ckpt_path, folder, dict(module.hparams))
        with _quiet_lightning():
            run = _trainer(
                steps // steps_per_epoch, clip, folder, logger, [best, last, History(), *callbacks], trainer or {}
            )
            if run.world_size > 1 and out is None:
                raise ValueError(f"{run.world_size} processes train together: give the folder that they share, out=...")
            progress = run.is_global_zero and (trainer or {}).get("enable_progress_bar", True)
            if measured and start_from is None and resume is None:
                masses = module.model.log_mass.detach().double().exp()
                liquid = measure_forces(
                    module.model.potential, train, mass=masses, temperature=mean_temperature, progress=progress
                )
                module.model.bath.take(liquid.friction, liquid.temperature)
            handler = signal.getsignal(signal.SIGINT)
            try:
                run.fit(module, data, ckpt_path=resume)
            except SystemExit:
                if not run.interrupted:
                    raise
                # Lightning switches Ctrl-C off and exits; the caller of a function wants neither
                signal.signal(signal.SIGINT, handler)
                raise KeyboardInterrupt from None
        if not (folder / "best.ckpt").is_file():
            raise ValueError(f"the training of {resume} is finished: there is nothing to continue in {folder}")
        if "correction" in settings:
            try:
                if run.is_global_zero:
                    match_structure(
                        folder / "best.ckpt",
                        train,
                        temperature=mean_temperature,
                        seed=seed,
                        progress=progress,
                    )
            finally:
                run.strategy.barrier()
        return load(folder / "best.ckpt")


def _trajectories(name: str, given: Trajectory | Sequence[Trajectory]) -> list[Trajectory]:
    if isinstance(given, Trajectory):
        return [given]
    if isinstance(given, (str, os.PathLike)):
        raise ValueError(f"{name} is the path {os.fspath(given)!r}: give the trajectory, as by gm.read_trajectory")
    found = list(given) if isinstance(given, Iterable) else [given]
    if not found:
        raise ValueError(f"{name}: there are no trajectories to learn from")
    for item in found:
        if not isinstance(item, Trajectory):
            raise ValueError(f"{name}: {type(item).__name__} is no trajectory; give a gm.Trajectory or a list of them")
    return found


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's remarks on devices and services, and warnings of what is meant here."""
    remarks = logging.getLogger("lightning.pytorch")
    level = remarks.level
    remarks.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for meant in (
                "does not have many workers",
                "exists and is not empty",
                "LeafSpec",
                "smaller than the logging interval",
            ):
                warnings.filterwarnings("ignore", f".*{meant}.*")
            yield
    finally:
        remarks.setLevel(level)


def _trainer(
    epochs: int, clip: float, folder: Path, logger: Any, callbacks: list[Callback], options: dict[str, Any]
) -> lightning.Trainer:
    if logger:
        callbacks = [*callbacks, LearningRateMonitor("step")]
    defaults = {
        "accelerator": "auto",
        "devices": 1,
        "enable_model_summary": False,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
    }
    try:
        return lightning.Trainer(
            max_epochs=epochs,
            gradient_clip_val=clip,
            default_root_dir=folder,
            logger=logger,
            callbacks=callbacks,
            use_distributed_sampler=False,  # the sampler divides the work itself
            **{**defaults, **options},
        )
    except (TypeError, MisconfigurationException) as error:
        raise ValueError(f"options of the trainer do not fit: {error}") from None


def _mass(trajectories: list[Trajectory]) -> float | list[float]:
    """Mass of a particle, or of each species, from the trajectories."""
    species = max((int(t.species.max()) + 1 for t in trajectories if t.species is not None), default=1)
    found: list[float] = []
    for kind in range(species):
        masses = torch.cat(
            [t.masses if t.species is None else t.masses[t.species == kind] for t in trajectories]
        ).double()
        if masses.numel() == 0:
            raise ValueError(f"no particle is of species {kind}: number the species from 0 without gaps")
        if float((masses / masses[0] - 1.0).abs().max()) > 1e-6:
            raise ValueError(
                f"particles of species {kind} have masses from {float(masses.min()):g} to {float(masses.max()):g}: "
                "give particles of different mass different species"
            )
        found.append(float(masses[0]))
    return found if species > 1 else found[0]
