"""The file of a model from tables, model.json: one description for Python and for LAMMPS."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.tables import Tables
from gnn_metriplectic.terms.bath import SolventBath
from gnn_metriplectic.terms.tabulated import (
    CubicSpline,
    Interval,
    TabulatedEquationOfState,
    TabulatedFriction,
    TabulatedKernel,
    TabulatedPotential,
)

FORMAT = "gnn_metriplectic tables"
VERSION = 2


def write_tables(
    tables: Tables, path: str | os.PathLike[str], *, provenance: dict[str, Any] | None = None, sweeps: int = 4
) -> None:
    """Write model.json; a file that is there is replaced once the new one is complete.

    Args:
        tables: of `tabulate`.
        path: of the file.
        provenance: what the model came from, plain values; its ``units`` become those of the file.
        sweeps: of the energy-conserving step's implicit friction.
    """
    model, path = tables.model, Path(path)
    kernel, law, friction = model.kernel, model.equation_of_state, model.friction
    provenance = dict(provenance or {})
    low, high = law.log_volume
    seen = model.seen.tolist()
    content = {
        "format": FORMAT,
        "version": VERSION,
        "package": version("gnn-metriplectic"),
        "dimension": model.dimension,
        "cutoff": model.cutoff,
        "dt": model.dt,
        "mass": float(model.mass),
        "k_B": float(model.k_B),
        "units": provenance.pop("units", {}),
        "integrator": {"sweeps": sweeps},
        "provenance": provenance,
        "range": {
            "entropy": list(law.entropy),
            "volume": [math.exp(low), math.exp(high)],
            "temperature": [math.exp(x) for x in friction.thermal.interval],
            "seen": dict(zip(("entropy", "volume"), seen, strict=True)) if math.isfinite(seen[0][0]) else None,
        },
        "errors": tables.errors,
        "kernel": _spline_table(kernel.spline),
        "equation_of_state": {
            "entropy": list(law.entropy),
            "log_volume": [low, high],
            "nodes": law.nodes.flatten(2).tolist(),
        },
        "friction": {
            "rank": friction.rank,
            "squared": friction.squared_scale.tolist(),
            "radial": _spline_table(friction.radial),
            "thermal": _spline_table(friction.thermal),
        },
    }
    if model.potential is not None:
        content["potential"] = _spline_table(model.potential.spline)
    if model.bath is not None:
        content["solvent"] = {
            "friction": float(model.bath.friction(1)),
            "exchange": float(model.bath.exchange(1)),
            "temperature": float(model.bath.temperature),
            "overdamped": model.bath.overdamped,
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    # one key a line: the head of the file can be read by eye
    text = text.replace(', "', ',\n "')
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _spline_table(spline: CubicSpline) -> dict[str, Any]:
    return {"interval": list(spline.interval), "value": spline.value.tolist(), "slope": spline.slope.tolist()}


def read_tables(path: str | os.PathLike[str], *, range: str = "error") -> MetriplecticModel:
    """The model of a file of tables, in float64, ready to run.

    Args:
        path: of the file.
        range: what to do where a particle leaves the range of the tables: ``error``, ``warn`` (once), or ``clamp``
            (U goes on quadratically in S and linearly in ln V). ``model.equation_of_state.outside`` counts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut short, of another kind or a newer version, with missing keys, shapes that do
            not fit, or numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}: gnnm-export writes one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON (cut short, or another file): {error}") from None
    file = _Entry(content, str(path), "")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a file of tables: its format is not {FORMAT!r}")
    if file.number("version") > VERSION:
        raise ValueError(
            f"{path} has version {content['version']} and this program reads up to {VERSION}: update gnn-metriplectic"
        )
    law, friction = file.part("equation_of_state"), file.part("friction")
    rank = int(friction.number("rank", positive=True))
    kernel, cutoff = file.part("kernel"), file.number("cutoff", positive=True)
    bath = potential = None
    if "potential" in content:
        potential = TabulatedPotential(cutoff, file.part("potential").spline(1))
    if "solvent" in content:
        solvent = file.part("solvent")
        numbers = {name: solvent.number(name, positive=True) for name in ("friction", "exchange", "temperature")}
        bath = SolventBath(**numbers, overdamped=solvent.flag("overdamped"))
    with file.naming("dimension"):
        model = MetriplecticModel(
            TabulatedKernel(cutoff, kernel.spline(1)),
            TabulatedEquationOfState(
                law.interval("entropy"),
                law.interval("log_volume"),
                law.tensor("nodes", (None, None, 9)).unflatten(2, (3, 3)),
                range=range,
            ),
            TabulatedFriction(
                cutoff,
                squared=tuple(friction.tensor("squared", (3,)).tolist()),
                rank=rank,
                radial=friction.part("radial").spline(3 * rank),
                thermal=friction.part("thermal").spline(3 * (rank - 1)),
            ),
            mass=file.number("mass", positive=True),
            k_B=file.number("k_B", positive=True),
            dt=file.number("dt", positive=True),
            dimension=int(file.number("dimension", positive=True)),
            bath=bath,
            potential=potential,
        )
    if model.dimension not in (2, 3):
        raise ValueError(f"{path}: dimension is {model.dimension}; it must be 2 or 3")
    seen = file.part("range").content.get("seen")
    if seen is not None:
        seen = file.part("range").part("seen")
        model.seen.copy_(torch.tensor([seen.interval("entropy"), seen.interval("volume")]))
    return model.double().requires_grad_(False).eval()


class _Entry:
    """An object within the file, whose errors name the file and the key."""

    def __init__(self, content: Any, path: str, name: str) -> None:
        self.content, self.path, self.name = content, path, name

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Errors of terms become errors of the file."""
        try:
            yield
        except ValueError as error:
            raise error if str(error).startswith(self.path) else ValueError(f"{self.path}: {error}") from None

    def part(self, key: str) -> _Entry:
        return _Entry(self._get(key, dict, "an object"), self.path, f"{self.name}{key}.")

    def number(self, key: str, *, positive: bool = False) -> float:
        value = self._get(key, (int, float), "a number")
        if isinstance(value, bool) or not math.isfinite(value) or (positive and not value > 0):
            raise self._error(key, f"is {value}; it must be a {'positive' if positive else 'finite'} number")
        return value

    def flag(self, key: str) -> bool:
        return self._get(key, bool, "true or false")

    def interval(self, key: str) -> Interval:
        low, high = self.tensor(key, (2,)).tolist()
        if not low < high:
            raise self._error(key, f"is {low:g} to {high:g}; it must go from less to more")
        return low, high

    def spline(self, columns: int) -> CubicSpline:
        value = self.tensor("value", (None, columns))
        slope = self.tensor("slope", tuple(value.shape))
        return CubicSpline(self.interval("interval"), value, slope)

    def tensor(self, key: str, shape: tuple[int | None, ...]) -> Tensor:
        """Numbers of a shape, with at least two rows where it is open."""
        rows = self._get(key, list, "a list of numbers")
        expected = " x ".join("n" if n is None else str(n) for n in shape)
        try:
            value = torch.tensor(rows, dtype=torch.float64)
        except (TypeError, ValueError):
            raise self._error(key, f"is not a table of {expected} numbers") from None
        fits = value.dim() == len(shape) and all(
            n == m or (m is None and n >= 2) for n, m in zip(value.shape, shape, strict=True)
        )
        if not fits:
            raise self._error(key, f"has shape {' x '.join(map(str, value.shape))}; expected {expected}")
        if not torch.isfinite(value).all():
            raise self._error(key, "has numbers that are not finite")
        return value

    def _get(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        if key not in self.content:
            raise self._error(key, "is missing")
        if not isinstance(self.content[key], kind):
            raise self._error(key, f"is not {what}")
        return self.content[key]

    def _error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.path}: {self.name}{key} {what}")
