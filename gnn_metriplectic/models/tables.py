"""Models as tables, and the file that holds them: one description for Python and for LAMMPS.

tabulate       a learned model -> the same model from tables, with its largest errors
write_tables   that model -> model.json
read_tables    model.json -> a model that runs like any other
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.terms import DensityKernel, EquationOfState, SolventBath
from gnn_metriplectic.terms.friction import FactorisedFriction
from gnn_metriplectic.terms.tabulated import CubicSpline, TabulatedEquationOfState, TabulatedFriction, TabulatedKernel

FORMAT = "gnn_metriplectic tables"
VERSION = 1
# how far the tables go beyond the states of the training, on each side, in widths of their range: a thousand
# particles reach about four standard deviations, a long run of a million seven, and volumes have long tails
MARGIN = 1.0
TOLERANCE = 1e-6
FIRST_INTERVALS, MOST_INTERVALS = 16, 8192
FIRST_CELLS, MOST_CELLS = 4, 256
# C, a second derivative, converges last and enters through terms of the order of k_B / C alone
SLACK = {"C": 10.0}

Interval = tuple[float, float]
Errors = dict[str, float]


class Tables(NamedTuple):
    """A model from tables and how far it is from the model that it came from.

    Attributes:
        model: of `TabulatedKernel`, `TabulatedEquationOfState` and `TabulatedFriction`, in float64.
        errors: the largest of each quantity, relative (see `tabulate`).
    """

    model: MetriplecticModel
    errors: Errors


def tabulate(
    model: MetriplecticModel,
    *,
    entropy: Interval | None = None,
    volume: Interval | None = None,
    margin: float = MARGIN,
    tolerance: float = TOLERANCE,
) -> Tables:
    """Tables of a learned model of one species.

    Grids are refined until no error exceeds ``tolerance``. Errors are measured in float64 between the nodes, over
    the whole range, and relative to the value at the place: U (counted from its least), T, P V, C, A², B², K²; of
    T ∂A²/∂T to A² there if that is larger, likewise B and K; of W and W' to the largest at that distance or beyond.
    For P V, W and W', which may vanish, a hundredth of the largest (of W and W' beyond half the cutoff) counts as a
    value.

    Args:
        model: learned, with a friction that factorises.
        entropy, volume: of a particle, between which the tables hold; by default those of the last
            epoch of training, widened by ``margin`` of their width (the volume's logarithm) to each side.
            No volume is above that of a lone particle, 1 / W(0).
        margin: see above.
        tolerance: largest error; of C ten times as much.

    Raises:
        ValueError: a solid, several species, other terms, an empty range, or a tolerance that no grid meets.
    """
    if model.is_solid:
        raise ValueError(
            "the model is of a solid, whose forces depend on the reference neighbours of each particle: tables, and "
            "LAMMPS with them, do not hold those; run it in Python with gnnm-simulate"
        )
    if model.log_mass.numel() != 1:
        raise ValueError(f"the model has {model.log_mass.numel()} species; tables hold models of one")
    if not isinstance(model.friction, FactorisedFriction):
        raise ValueError(f"{type(model.friction).__name__} does not factorise into functions of one number: no tables")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it must be between 0 and 1")
    exact = deepcopy(model).double().requires_grad_(False)
    entropy, log_volume = _ranges(exact, entropy, volume, margin)
    laws, temperature = exact.equation_of_state, _temperatures(exact.equation_of_state, entropy, log_volume)

    def build_law(n: int) -> TabulatedEquationOfState:
        return TabulatedEquationOfState.of(laws, entropy, log_volume, (n, n))

    kernel, errors = _refine(
        lambda n: TabulatedKernel.of(exact.kernel, n),
        lambda table: _kernel_errors(table, exact.kernel),
        FIRST_INTERVALS,
        MOST_INTERVALS,
        tolerance,
    )
    law, law_errors = _refine(build_law, lambda table: _law_errors(table, laws), FIRST_CELLS, MOST_CELLS, tolerance)
    # T of the table may pass the exact extremes by its error
    log_temperature = (math.log(temperature[0]) - 1e-3, math.log(temperature[1]) + 1e-3)
    friction, friction_errors = _refined_friction(exact.friction, log_temperature, temperature, tolerance)
    tabulated = MetriplecticModel(
        kernel,
        law,
        friction,
        mass=float(exact.mass),
        k_B=float(exact.k_B),
        dt=exact.dt,
        dimension=exact.dimension,
        bath=exact.bath,
    ).double()
    tabulated.seen.copy_(exact.seen)
    return Tables(tabulated.requires_grad_(False), {**errors, **law_errors, **friction_errors})


def _ranges(
    model: MetriplecticModel, entropy: Interval | None, volume: Interval | None, margin: float
) -> tuple[Interval, Interval]:
    """Ranges of S and ln V."""
    if not margin >= 0:
        raise ValueError(f"margin is {margin}; it must not be negative")
    seen = model.seen.tolist()
    if (entropy is None or volume is None) and not all(low < high for low, high in seen):
        raise ValueError("the model does not say at which entropies and volumes it was trained: give both ranges")
    lone = 1.0 / float(model.kernel.at_zero(_nobody())[0])
    if volume is None:
        low, high = _widened(*map(math.log, seen[1]), margin)
        volume = (math.exp(low), min(math.exp(high), lone))
    if entropy is None:
        entropy = _widened(*seen[0], margin)
    for name, (low, high) in (("entropy", entropy), ("volume", volume)):
        if not (math.isfinite(low) and low < high < math.inf):
            raise ValueError(f"range of {name} is {low:g} to {high:g}; it must go from less to more")
    if volume[0] <= 0:
        raise ValueError(f"volumes begin at {volume[0]:g}; they must be positive")
    # rounding must not put a lone particle outside
    return (float(entropy[0]), float(entropy[1])), (math.log(volume[0]), math.log(min(volume[1], lone)) + 1e-9)


def _widened(low: float, high: float, margin: float) -> Interval:
    return low - margin * (high - low), high + margin * (high - low)


def _nobody() -> Pairs:
    """One particle without neighbours."""
    return Pairs(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, 2, dtype=torch.float64), 1)


def _temperatures(law: EquationOfState, entropy: Interval, log_volume: Interval) -> Interval:
    """Least and greatest T over the rectangle."""
    s, x = torch.meshgrid(*(torch.linspace(*i, 129, dtype=torch.float64) for i in (entropy, log_volume)), indexing="ij")
    temperature = law(s.ravel(), torch.exp(x.ravel())).temperature
    return float(temperature.min()), float(temperature.max())


def _refine(
    build: Callable[[int], Any], measure: Callable[[Any], Errors], first: int, most: int, tolerance: float
) -> tuple[Any, Errors]:
    """The coarsest of the doubled grids whose errors are below the tolerance, with its errors."""
    intervals = first
    while True:
        table = build(intervals)
        errors = measure(table)
        worst = max(errors, key=lambda name: errors[name] / SLACK.get(name, 1.0))
        allowed = tolerance * SLACK.get(worst, 1.0)
        if errors[worst] <= allowed:
            return table, errors
        if intervals >= most:
            raise ValueError(
                f"tables of {intervals} intervals still have an error of {errors[worst]:.3g} in {worst}, over "
                f"{allowed:.3g}: take a larger tolerance or a smaller margin"
            )
        intervals *= 2


def _refined_friction(
    friction: FactorisedFriction, log_temperature: Interval, temperature: Interval, tolerance: float
) -> tuple[TabulatedFriction, Errors]:
    """The thermal grid first, beside a radial one that leaves no error of its own, then the radial grid."""

    def refine(intervals: Callable[[int], tuple[int, int]], tolerance: float) -> tuple[TabulatedFriction, Errors]:
        return _refine(
            lambda n: TabulatedFriction.of(friction, log_temperature, *intervals(n)),
            lambda table: _friction_errors(table, friction, temperature),
            FIRST_INTERVALS,
            MOST_INTERVALS,
            tolerance,
        )

    table, _ = refine(lambda n: (2048, n), 0.5 * tolerance)
    return refine(lambda n: (n, table.thermal.intervals), tolerance)


def _between(interval: Interval, intervals: int, most: int = 2048) -> Tensor:
    """Points at several places within each interval of a grid (or of some, where there are many)."""
    step = -(-intervals // most)
    cells = torch.arange(0, intervals, step, dtype=torch.float64)
    inner = torch.tensor([0.0, 0.113, 0.25, 0.5, 0.71, 0.9], dtype=torch.float64)
    places = (cells[:, None] + inner).ravel() / intervals
    return interval[0] + (interval[1] - interval[0]) * places


def _kernel_errors(table: TabulatedKernel, exact: DensityKernel) -> Errors:
    rho = _between((0.0, 1.0), table.spline.intervals)
    pairs = Pairs(
        torch.tensor([[0], [1]]).expand(2, len(rho)),
        torch.stack([rho * exact.cutoff, torch.zeros_like(rho)], dim=1),
        2,
    )
    errors = {}
    for name, a, b in zip(("W", "W'"), table(pairs), exact(pairs), strict=True):
        # networks may be large at distances that no pair has: what counts is the size here and beyond
        beyond = b.abs().flip(0).cummax(dim=0).values.flip(0)
        errors[name] = _largest(a - b, beyond.clamp(min=0.01 * float(b[rho > 0.5].abs().max())))
    return errors


def _law_errors(table: TabulatedEquationOfState, exact: EquationOfState) -> Errors:
    axes = (_between(i, n) for i, n in zip((table.entropy, table.log_volume), table.intervals, strict=True))
    s, x = (y.ravel() for y in torch.meshgrid(*axes, indexing="ij"))
    volume = torch.exp(x)
    a, b = table.anywhere(s, volume), exact(s, volume)
    work = b.pressure * volume
    return {
        "U": _largest(a.energy - b.energy, (b.energy - b.energy.min()).clamp(min=b.temperature.min())),
        "T": _largest(a.temperature - b.temperature, b.temperature),
        "P V": _largest(a.pressure * volume - work, work.abs().clamp(min=0.01 * float(work.abs().max()))),
        "C": _largest(a.heat_capacity - b.heat_capacity, b.heat_capacity),
    }


def _friction_errors(table: TabulatedFriction, exact: FactorisedFriction, temperature: Interval) -> Errors:
    rho = _between((0.0, 1.0), table.radial.intervals, 512)
    # temperatures between the nodes of the thermal table too, and both ends
    points = _between(table.thermal.interval, table.thermal.intervals, 8).exp().clamp(*temperature)
    count = len(points)
    first, second = (
        x.ravel() for x in torch.meshgrid(torch.arange(count), torch.tensor([0, count // 2, count - 1]), indexing="ij")
    )
    index = torch.stack([first, second + count])[:, :, None].expand(-1, -1, len(rho)).reshape(2, -1)
    displacement = torch.zeros(index.shape[1], 2, dtype=torch.float64)
    displacement[:, 0] = (rho * exact.cutoff).repeat(len(first))
    pairs = Pairs(index, displacement, 2 * count)
    temperatures = points.repeat(2)
    nothing = torch.zeros(0, dtype=torch.float64)
    zero = torch.zeros_like(points)
    # the Itô term is T ∂/∂T of one end where T stands for the fluctuation of that end
    found = [
        [term(pairs, temperatures, torch.cat(rates), nothing, nothing) for term in (table, exact)]
        for rates in ((points, zero), (zero, points))
    ]
    errors = {}
    for name, channel in (("A²", 0), ("B²", 1), ("K²", 2)):
        scale = found[0][1].squared[:, channel]
        errors[name] = _largest((found[0][0].squared[:, channel] - scale), scale)
        slopes = [
            _largest((a.ito - b.ito)[:, channel], torch.maximum(scale, b.ito[:, channel].abs())) for a, b in found
        ]
        errors[f"T ∂{name}/∂T"] = max(slopes)
    return errors


def _largest(error: Tensor, scale: Tensor) -> float:
    return float((error / scale).abs().max())


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
    bath = None
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
