"""Scores on disk and on the terminal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gnn_metriplectic.analysis.mechanics import mechanics_rows

# heading, key, and the key of the truth's own value
COLUMNS: tuple[tuple[str, str, str | None], ...] = (
    ("RDF", "rdf", None),
    ("MSD", "msd", None),
    ("VACF", "vacf", None),
    ("kinetic T", "kinetic_temperature", "kinetic_temperature_truth"),
    ("read k_B⟨T⟩", "encoded_temperature", "encoded_temperature_truth"),
    ("D", "D", "D_truth"),
    ("drift of E", "energy_drift", None),
    ("drift of P", "momentum_drift", None),
)


def used_columns(metrics: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    """Those of `COLUMNS` that have a meaning for the model: any scenario has the key."""
    return [c for c in COLUMNS if any(s.get(c[1]) is not None for s in metrics.get("scores", {}).values())]


def write_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
    """Write ``metrics`` as JSON, under a temporary name first, so that a reader never sees half a file.

    ``{"system", "lag", "dt", "seed", "scores": {scenario: {..., "errors": {...}}}, "floor": {scenario: {...}},
    "entropy": {...}, "seconds": {...}}``. NumPy numbers become plain ones, NaN and infinity become null.

    Raises:
        ValueError: for values that JSON cannot hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def print_table(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print every scenario: model, its standard error, truth, deviation from it, and the floor (truth against truth).

    RDF, MSD and VACF are relative errors (RRMSE), which need no line for the truth. Fits 80 columns.
    """
    without_floor, columns = [], used_columns(metrics)
    table = Table(
        title=f"Scores of {metrics.get('system', 'the model')}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    table.add_column("scenario", overflow="fold", min_width=12)
    for heading, _, _ in columns:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for scenario, scores in metrics.get("scores", {}).items():
        floor, errors = floor_of(metrics, scenario), scores.get("errors") or {}
        model = [rounded(scores.get(key), errors.get(key)) for _, key, _ in columns]
        spread = [f"±{_error(errors[key])}" if errors.get(key) else "" for _, key, _ in columns]
        worst = {key: max(errors.get(key) or 0.0, errors.get(true) or 0.0) for _, key, true in columns}
        truth = [rounded(scores.get(true), worst[key]) if true else "" for _, key, true in columns]
        off = [deviation(scores.get(key), scores.get(true)) if true else "" for _, key, true in columns]
        limit = [rounded(floor.get(key), (floor.get("errors") or {}).get(key), "") for _, key, _ in columns]
        table.add_row(Text(scenario, style="bold"), *(Text(text, style="bold") for text in model))
        rows = {"  ± error": spread, "  truth": truth, "  deviation": off, "  floor": limit}
        for name, row in rows.items():
            if any(row):
                table.add_row(Text(name, style="dim"), *(Text(text, style="dim") for text in row))
        if not any(limit):
            without_floor.append(scenario)
        table.add_section()
    if without_floor:
        table.caption = f"No floor for {', '.join(without_floor)}: it compares test runs, and there is one only."
        table.caption_justify = "left"
    console = console or Console()
    console.print(table)
    _print_mechanics(metrics, console)


def _print_mechanics(metrics: Mapping[str, Any], console: Console) -> None:
    """The scores of solids, if there are any."""
    table = Table(title="Mechanics", title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for heading in ("scenario", "quantity", "model", "truth", "change", "floor"):
        table.add_column(heading, justify="left" if heading in ("scenario", "quantity") else "right")
    for scenario, scores in metrics.get("scores", {}).items():
        for number, row in enumerate(mechanics_rows(scores, floor_of(metrics, scenario))):
            table.add_row(Text(scenario if number == 0 else "", style="bold"), *row)
    if table.row_count:
        console.print(table)


def floor_of(metrics: Mapping[str, Any], scenario: str) -> Mapping[str, Any]:
    """The floor of one scenario; a floor without scenarios stands for all."""
    floor = metrics.get("floor") or {}
    if scenario in floor:
        return floor[scenario] or {}
    return floor if "rdf" in floor else {}


def rounded(value: float | None, error: float | None = None, missing: str = "-") -> str:
    """``value`` with as many digits as its standard ``error`` leaves meaningful; ``missing`` if unknown."""
    if value is None or not math.isfinite(value):
        return missing
    value, known = float(value), error is not None and math.isfinite(error) and error > 0
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}" if known else f"{value:.0e}"
    if known:
        return f"{value:.{_digits(error)}f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def deviation(value: float | None, truth: float | None) -> str:
    """By how much ``value`` is off, in percent; empty if unknown."""
    if value is None or not truth or not (math.isfinite(value) and math.isfinite(truth)):
        return ""
    return f"{100.0 * (value / truth - 1.0):+.1f} %"


def _error(error: float) -> str:
    return f"{error:.0e}" if error < 1e-4 else f"{error:.{_digits(error)}f}"


def _digits(error: float) -> int:
    """Decimals that show an error with two digits if it starts with 1, else with one."""
    exponent = math.floor(math.log10(error))
    return int(np.clip(-exponent + (error < 2 * 10.0**exponent), 0, 5))


def error_text(scores: Mapping[str, Any], key: str) -> str:
    """``± error`` of one score, empty if unknown."""
    error = (scores.get("errors") or {}).get(key)
    return f"± {_error(error)}" if error else ""


def _plain(value: Any) -> Any:
    """``value`` made of types that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    raise ValueError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
