"""Checkpoints: reading them, and what a training takes over from one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from gnn_metriplectic.learning.module import MetriplecticModule, check_format
from gnn_metriplectic.models import ParticleModel


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> ParticleModel:
    """The model of a checkpoint, ready to run, in the file's floating type; no parameter asks for a gradient.

    Args:
        path: a checkpoint of `fit` or ``gnnm-train``.
        device: where to put it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, or a file that is damaged, not a checkpoint, or of another format.
    """
    content = read_checkpoint(path)
    try:
        module = MetriplecticModule(**content["hyper_parameters"])
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path} is a damaged checkpoint, or of another version of the package: {what}") from error
    return module.to(device).model.eval().requires_grad_(False)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint as plain values and tensors; errors as in `load`."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a checkpoint, such as {path / 'best.ckpt'}")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: it is cut short, or another kind of file") from error
    try:
        check_format(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    missing = {"hyper_parameters", "state_dict"} - set(content)
    if missing:
        raise ValueError(f"{path} is a damaged checkpoint: it has no {' and no '.join(sorted(missing))}")
    return content


def settings_of(path: str | os.PathLike[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the model of a checkpoint, its scales included, at the time step of ``settings``."""
    before = {"kind": "metriplectic", **read_checkpoint(path)["hyper_parameters"]["model"]}
    own = ("dt", "substeps", "scales")
    differ = [
        f"{name} {before.get(name)} there and {settings.get(name)} here"
        for name in {**before, **settings}
        if name not in own and before.get(name) != settings.get(name)
    ]
    if differ:
        raise ValueError(f"the training cannot start from {path}, whose model is another ({', '.join(differ)})")
    return {**before, "dt": settings["dt"], "substeps": settings["substeps"]}


def resume_from(ckpt_path: str | None, folder: Path, settings: dict[str, Any]) -> str | None:
    """The checkpoint to go on from, after a look whether its training had the same settings."""
    if ckpt_path is None:
        return None
    path = folder / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist: there is nothing to continue")
    before, now = (
        # a checkpoint without a kind is from before there were others
        {"model.kind": "metriplectic", **_flat(s)}
        for s in (read_checkpoint(path)["hyper_parameters"], settings)
    )
    changed = [
        f"{name} {before.get(name)} -> {now.get(name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ValueError(
            f"checkpoint {path} is of a training with other settings ({', '.join(changed)}): continue it with its own, "
            "or train anew in another folder"
        )
    return str(path)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, without those that are measured (scales) or only for the record."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name in ("scales", "package", "units"):
            continue
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
