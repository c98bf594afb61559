"""Models from weights of the PyTorch release that accompanies arXiv 2508.12569.

key of the file                     becomes
log_m, log_k_B                      mass, k_B
model_W.MLP.layers.{0,2,4}          kernel, inputs ρ
model_U_vol.layers.{0,1,2}          equation of state, inputs (S, V)
model_A, model_B, model_C           friction: A, B, K; layers.{0,2,4}, inputs (ρ, T)
teacher.layers.{0,2,4}              encoder, inputs (ρ, v_ij)

Each layer has a ``weight`` ``[out, in]`` and a ``bias`` ``[out]``.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import warnings
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor

from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.terms.published import (
    Layer,
    PublishedEncoder,
    PublishedEquationOfState,
    PublishedFriction,
    PublishedKernel,
)

SETTINGS = ("dt", "h", "boxsize", "n_hidden", "dim_hidden")
UNUSED = ("model_U_vol.t",)  # of the layout, but of no meaning to the model
SILU_LAYERS = (0, 2, 4)
SOFTPLUS_LAYERS = (0, 1, 2)


def import_published(params_path: str | os.PathLike[str], args_path: str | os.PathLike[str]) -> MetriplecticModel:
    """The published model with its trained weights, in the floating type of the file and on the CPU.

    Its terms are those of the file: without a smooth window at the cutoff, and in whatever gauge they
    were trained. The encoder depends on the axes; it serves to start a rollout (`State.from_frame`).
    The dimension is the number of inputs of the teacher less one.

    Args:
        params_path: flat state dict saved by `torch.save`.
        args_path: JSON with ``dt``, ``h`` (the cutoff), ``boxsize`` (null in free space), ``n_hidden`` and
            ``dim_hidden``. The box is that of the training data; simulations are given their own.

    Raises:
        ValueError: a file that is missing or unreadable, a key or layer that is missing or surplus, and a weight
            or setting that does not fit. Keys that belong to no term are warned of and left.
    """
    params_path, args_path = Path(params_path), Path(args_path)
    settings = _read_settings(args_path)
    weights = _Weights(_read_weights(params_path), params_path)
    teacher = weights.network("teacher", None, SILU_LAYERS)
    dimension = teacher[0][0].shape[1] - 1
    if dimension not in (2, 3):
        raise ValueError(
            f"{params_path}: teacher.layers.0.weight has {dimension + 1} inputs; "
            "3 (in two dimensions) or 4 (in three) are known"
        )
    cutoff = settings["h"]
    log_mass, log_k_B = weights.number("log_m"), weights.number("log_k_B")
    model = MetriplecticModel(
        PublishedKernel(cutoff, weights.network("model_W.MLP", 1, SILU_LAYERS, width=settings["dim_hidden"])),
        PublishedEquationOfState(weights.network("model_U_vol", 2, SOFTPLUS_LAYERS)),
        PublishedFriction(
            cutoff,
            shear=weights.network("model_A", 2, SILU_LAYERS),
            bulk=weights.network("model_B", 2, SILU_LAYERS),
            heat=weights.network("model_C", 2, SILU_LAYERS),
        ),
        mass=math.exp(log_mass),
        k_B=math.exp(log_k_B),
        dt=settings["dt"],
        dimension=dimension,
        encoder=PublishedEncoder(cutoff, teacher),
    )
    weights.warn_of_unread()
    with torch.no_grad():  # the logarithms as they are, not through exp and log
        model.log_mass.fill_(log_mass)
        model.log_k_B.fill_(log_k_B)
    return model.to(weights.dtype).eval().requires_grad_(False)


class _Weights:
    """Layers out of a flat state dict, checked."""

    def __init__(self, params: Mapping[str, Tensor], path: Path) -> None:
        self.params, self.path = params, path
        self.dtype = torch.float32  # or the widest asked for
        self.read: set[str] = set(UNUSED)

    def number(self, key: str) -> float:
        """A single number."""
        value = self._tensor(key)
        if value.numel() != 1:
            raise ValueError(f"{self.path}: {key} has shape {list(value.shape)}; expected a single number")
        return float(value)

    def network(
        self, name: str, inputs: int | None, numbers: tuple[int, ...], *, width: int | None = None
    ) -> list[Layer]:
        """The layers of a network with ``inputs``, hidden layers of ``width`` (any, where None) and one output."""
        prefix = f"{name}.layers."
        found = {key.removeprefix(prefix).split(".")[0] for key in self.params if key.startswith(prefix)}
        surplus = sorted(found - {str(number) for number in numbers})
        if surplus:
            raise ValueError(
                f"{self.path}: {name} has a layer {prefix}{surplus[0]}; this layout has the layers {numbers} only"
            )
        layers = []
        for number in numbers:
            weight, bias = self._tensor(f"{prefix}{number}.weight"), self._tensor(f"{prefix}{number}.bias")
            rows = 1 if number == numbers[-1] else width
            self._check(f"{prefix}{number}.weight", weight, (rows, inputs))
            inputs = weight.shape[0]
            self._check(f"{prefix}{number}.bias", bias, (inputs,))
            layers.append((weight, bias))
        return layers

    def warn_of_unread(self) -> None:
        """Name the keys that no term has asked for."""
        unread = sorted(str(key) for key in self.params if key not in self.read)
        if unread:
            warnings.warn(f"{self.path}: not of the published layout and ignored: {', '.join(unread)}", stacklevel=3)

    def _tensor(self, key: str) -> Tensor:
        self.read.add(key)
        if key not in self.params:
            raise ValueError(f"{self.path} has no key {key!r}: it is not a state dict of the published model")
        value = self.params[key]
        if not isinstance(value, Tensor):
            raise ValueError(f"{self.path}: {key} is a {type(value).__name__}; expected a tensor")
        if not torch.isfinite(value).all():
            raise ValueError(f"{self.path}: {key} has values that are not finite")
        if value.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{self.path}: {key} is of type {value.dtype}; float32 and float64 are known")
        self.dtype = torch.promote_types(self.dtype, value.dtype)
        return value.detach()

    def _check(self, key: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
        fits = value.dim() == len(shape) and all(n in (m, None) for m, n in zip(value.shape, shape, strict=True))
        if not fits:
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"{self.path}: {key} has shape {list(value.shape)}; expected [{expected}]")


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    try:
        params = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a file of tensors: {error}") from error
    if not isinstance(params, Mapping):
        raise ValueError(f"{path} holds a {type(params).__name__}; expected a state dict")
    # as a training script or DataParallel wraps it
    if isinstance(params.get("state_dict"), Mapping):
        params = params["state_dict"]
    if params and all(str(key).startswith("module.") for key in params):
        params = {key.removeprefix("module."): value for key, value in params.items()}
    return params


def _read_settings(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"there is no settings file {path}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}; expected an object with {', '.join(SETTINGS)}")
    missing = [name for name in SETTINGS if name not in settings]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    for name in ("dt", "h"):
        if not _is_positive(settings[name]):
            raise ValueError(f"{path}: {name} is {settings[name]!r}; it must be a positive number")
    sides = settings["boxsize"] if isinstance(settings["boxsize"], list) else [settings["boxsize"]]
    if settings["boxsize"] is not None and not (sides and all(_is_positive(side) for side in sides)):
        raise ValueError(f"{path}: boxsize is {settings['boxsize']!r}; it must be positive, or null in free space")
    for name in ("n_hidden", "dim_hidden"):
        if not (_is_positive(settings[name]) and settings[name] == int(settings[name])):
            raise ValueError(f"{path}: {name} is {settings[name]!r}; it must be a positive whole number")
    # two hidden layers, or one map from hidden to hidden, depending on what is counted
    if settings["n_hidden"] not in (1, 2):
        raise ValueError(f"{path}: n_hidden is {settings['n_hidden']}; networks of two hidden layers are known")
    return {**settings, "dt": float(settings["dt"]), "h": float(settings["h"])}


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and value > 0
