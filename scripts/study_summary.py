"""Scores of a study as rows, as a table in Markdown, and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gnn_metriplectic.analysis.style import BAND, CYCLE, TRUTH, figure

# heading, key of the score, key of what it is compared with (the deviation is then shown, in percent)
COLUMNS = (
    ("RDF", "rdf", None),
    ("MSD", "msd", None),
    ("VACF", "vacf", None),
    ("kinetic T", "kinetic_temperature", "kinetic_temperature_truth"),
    ("k_B <T>", "temperature", "kinetic_temperature_truth"),
    ("D", "D", "D_truth"),
    ("pressure", "pressure", "pressure_truth"),
    ("energy drift", "energy_drift", None),
    ("momentum drift", "momentum_drift", None),
    ("position error", "position_error", None),
    ("stress", "stress", None),
    ("G'", "storage_modulus", "storage_modulus_truth"),
    ("G''", "loss_modulus", "loss_modulus_truth"),
    ("flow profile", "flow_profile", None),
    ("profile of T", "profile", None),
)
FLOOR = "floor"
PANELS = ("rdf", "msd", "vacf", "kinetic_temperature", "D", "position_error", "flow_profile", "profile")
# inches of a line of the figure
LINE = 0.13


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each experiment, variant and scenario, with means and spreads over seeds, and one for each floor.

    A row of a variant of which nothing could be scored has ``failed`` in place of ``mean``.
    """
    rows: list[dict[str, Any]] = []
    for part in ("metrics", "transfer"):
        for experiment in dict.fromkeys(r["experiment"] for r in results):
            mine = [r for r in results if r["experiment"] == experiment]
            head = {"experiment": experiment, "transfer": part == "transfer"}
            scenarios = dict.fromkeys(name for r in mine for name in _scores(r, part))
            for scenario in scenarios:
                for variant in dict.fromkeys(r["variant"] for r in mine):
                    cells = [r for r in mine if r["variant"] == variant and scenario in _scores(r, part)]
                    if cells:
                        rows.append({**head, "variant": variant, "scenario": scenario, **_means(cells, part, scenario)})
                floors = [r[part]["floor"].get(scenario) for r in mine if part in r]
                known = next((floor for floor in floors if floor), None)
                if known:
                    mean = {key: values[0] for key, values in _values([known]).items()}
                    rows.append({**head, "variant": FLOOR, "scenario": scenario, "mean": mean})
            for r in mine:
                if part in r.get("failed", {}):
                    rows.append({**head, "variant": r["variant"], "seed": r["seed"], "failed": r["failed"][part]})
    return rows


def _scores(result: dict[str, Any], part: str) -> dict[str, Any]:
    return result.get(part, {}).get("scores", {})


def _means(cells: list[dict[str, Any]], part: str, scenario: str) -> dict[str, Any]:
    values = _values([_scores(r, part)[scenario] for r in cells])
    return {
        "seeds": len(cells),
        "mean": {key: float(np.mean(found)) for key, found in values.items()},
        "spread": {key: float(np.std(found, ddof=1)) for key, found in values.items() if len(found) > 1},
        "trained": [r.get("trained") for r in cells],
        "parameters": cells[0].get("parameters"),
        "seconds": float(np.mean([r["metrics"]["seconds"].get("train") or np.nan for r in cells])),
    }


def _values(scores: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Each score of each seed, or its deviation from what it is compared with; those that all of them have."""
    found: dict[str, list[float]] = {}
    for _, key, truth in COLUMNS:
        if all(s.get(key) is not None and (truth is None or s.get(truth)) for s in scores):
            found[key] = [s[key] if truth is None else s[key] / s[truth] - 1.0 for s in scores]
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """Tables: the conditions of the trainings, other conditions, and what failed."""
    parts = []
    for transfer, title in ((False, ""), (True, "Other conditions than those of the training:\n\n")):
        scored = [row for row in rows if row["transfer"] == transfer and "mean" in row]
        used = [column for column in COLUMNS if any(column[1] in row["mean"] for row in scored)]
        if scored:
            head = ["experiment", "scenario", "variant", "seeds", *(heading for heading, *_ in used), "training"]
            lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
            lines += ["| " + " | ".join(_cells(row, used)) + " |" for row in scored]
            parts.append(title + "\n".join(lines) + "\n")
    failed = [row for row in rows if "failed" in row]
    if failed:
        parts.append("Failed:\n\n" + "".join(f"- {_name(r)}, seed {r['seed']}: {r['failed']}\n" for r in failed))
    return "\n".join(parts)


def _name(row: dict[str, Any]) -> str:
    return f"{row['experiment']}, {row['variant']}" + (" at other conditions" if row["transfer"] else "")


def _cells(row: dict[str, Any], used: list[tuple]) -> list[str]:
    cells = [_text(row, key, percent=truth is not None) for _, key, truth in used]
    if row["variant"] == FLOOR:
        return [row["experiment"], row["scenario"], "*floor*", "", *cells, ""]
    cut = [share for share in row["trained"] if share is not None and share < 1.0]
    training = f"{row['seconds'] / 60:.1f} min" + (f", stopped at {100 * min(cut):.0f} %" if cut else "")
    return [row["experiment"], row["scenario"], row["variant"], str(row["seeds"]), *cells, training]


def _text(row: dict[str, Any], key: str, *, percent: bool) -> str:
    if key not in row["mean"]:
        return ""
    value, spread = row["mean"][key], row.get("spread", {}).get(key)
    if not percent and value and abs(value) < 1e-3:
        return f"{value:.0e}"
    factor, digits, sign, unit = (100.0, 1, "+", " %") if percent else (1.0, 3, "", "")
    return (
        f"{factor * value:{sign}.{digits}f}"
        + ("" if spread is None else f" ± {factor * spread:.{digits}f}")
        + (unit if percent else "")
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Errors along x, a line a scenario, a row of panels an experiment and a colour a variant; floors as black bars."""
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in rows:
        if "mean" in row:
            groups.setdefault((row["experiment"], row["transfer"]), []).append(row)
    variants = list(dict.fromkeys(r["variant"] for r in rows if "mean" in r and r["variant"] != FLOOR))
    headings = {key: heading for heading, key, _ in COLUMNS}
    shown = {group: [key for key in PANELS if any(key in r["mean"] for r in mine)] for group, mine in groups.items()}
    scenarios = {group: list(dict.fromkeys(r["scenario"] for r in mine)) for group, mine in groups.items()}
    heights = [1.1 + LINE * max(len(variants), 2) * len(names) for names in scenarios.values()]
    width = max(map(len, shown.values()))
    with figure(2.3 * width + 1.8, sum(heights) + 0.5) as fig:
        axes = fig.subplots(len(groups), width, squeeze=False, height_ratios=heights)
        for line, (group, panels) in zip(axes, shown.items(), strict=True):
            for place, ax in enumerate(line):
                if place >= len(panels):
                    ax.set_axis_off()
                    continue
                key = panels[place]
                _panel(ax, [r for r in groups[group] if key in r["mean"]], key, scenarios[group], variants)
                ax.set_title(headings[key], fontweight="normal")
                ax.tick_params(labelleft=place == 0)
            title = group[0].replace("_", " ") + (" elsewhere" if group[1] else "")
            line[0].set_ylabel(title.replace(" ", "\n"), rotation=0, ha="right", va="center", fontweight="bold")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        partial = path.with_name(path.name + ".partial")
        fig.savefig(partial, format="png", facecolor="white")
        partial.replace(path)


def _panel(ax: Axes, rows: list[dict[str, Any]], key: str, scenarios: list[str], variants: list[str]) -> None:
    for number, variant in enumerate(variants):
        found = {r["scenario"]: r for r in rows if r["variant"] == variant}
        y = [scenarios.index(name) + 0.7 * ((number + 0.5) / len(variants) - 0.5) for name in found]
        x = [abs(r["mean"][key]) for r in found.values()]
        spread = [r.get("spread", {}).get(key, 0.0) for r in found.values()]
        below = [min(s, 0.9 * v) for s, v in zip(spread, x, strict=True)]  # the axis is logarithmic
        bars = {"xerr": [below, spread], "capsize": 2, "fmt": "o", "markersize": 5}
        ax.errorbar(x, y, **bars, color=CYCLE[number % len(CYCLE)], label=variant)
    floors = {scenarios.index(r["scenario"]): abs(r["mean"][key]) for r in rows if r["variant"] == FLOOR}
    if floors:
        ends = [[place + side for place in floors] for side in (-0.4, 0.4)]
        ax.vlines(list(floors.values()), *ends, color=TRUTH, linewidth=1.2, label=FLOOR)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=4))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    lowest, highest = ax.get_xlim()  # whole decades, so that there are numbers to read
    ax.set_xlim(10 ** np.floor(np.log10(lowest)), 10 ** np.ceil(np.log10(highest)))
    ax.grid(axis="x", color=BAND, linewidth=0.6, alpha=0.6)
    ax.set_ylim(len(scenarios) - 0.4, -0.6)
    ax.set_yticks(range(len(scenarios)), [name.replace("_", " ") for name in scenarios])
