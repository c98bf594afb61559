"""One HTML page that shows how good a model is, with everything embedded in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

from gnn_metriplectic.analysis import plots
from gnn_metriplectic.analysis.curves import Curves, as_list, curves
from gnn_metriplectic.analysis.film import Colouring, film
from gnn_metriplectic.analysis.mechanics import mechanics_rows
from gnn_metriplectic.analysis.metrics import (
    deviation,
    error_text,
    floor_of,
    print_table,
    rounded,
    used_columns,
    write_metrics,
)
from gnn_metriplectic.analysis.page import CSS
from gnn_metriplectic.analysis.structure import largest_radius
from gnn_metriplectic.analysis.style import data_address
from gnn_metriplectic.trajectory import Trajectory

__all__ = ["print_table", "write_metrics", "write_report"]

# The films of all scenarios together.
_FILM_BYTES = 2_800_000


def write_report(
    path: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    scenarios: Mapping[str, Mapping[str, Any]],
    learning_curve: Mapping[str, Any] | None = None,
    terms: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the report: one file that needs no other and no network.

    Args:
        path: the HTML file; it appears only when complete.
        metrics: as given to ``write_metrics``; lags and windows of the plots are those of its scores.
        scenarios: name -> ``{"truth": trajectories, "model": trajectories}``, and optionally
            ``"curves"``: ``{"truth": Curves, "model": Curves}``, to spare computing them again;
            ``"series"``: ``time``, and with ``energy`` its ``kinetic_energy`` ``[T]``, recorded in the rollout;
            ``"encoded_entropies"``: entropies encoded from the truth, any shape, beside those of the rollout;
            ``"stirring"``: rearrangements around a driven body, a `Stirring`, and ``"flow"``, of each side the
            amplitude of the flow ``[B]`` at its distances;
            ``"mechanics"``: of a solid, its responses ``truth`` and ``model``, ``error`` and ``floor_error``.
        learning_curve: ``step``, ``train``, ``val`` and optionally ``seconds``, lists of one length.
        terms: learned functions, name -> ``{"x", "curves": {label: y}, "xlabel", "ylabel"}``.

    Raises:
        ValueError: if a scenario has no trajectory of the truth or of the model.
    """
    system = escape(str(metrics.get("system", "model")))
    body = [f"<h1>{system}: learned dynamics against the truth</h1>", _facts(metrics), _table(metrics)]
    share = _FILM_BYTES // max(1, len(scenarios))
    body += [_scenario(name, given, metrics, share) for name, given in scenarios.items()]
    body += [_observed(name, metrics) for name in metrics.get("observed") or {}]
    if terms:
        pictures = "".join(_image(plots.plot_term(name, term), name) for name, term in terms.items())
        body.append(f'<section><h2>What the model learned</h2><div class="plots">{pictures}</div></section>')
    if learning_curve and len(learning_curve.get("step", ())):
        picture = plots.plot_learning(learning_curve)
        body.append(f'<section><h2>Training</h2><img class="wide" alt="learning curve" src="{picture}"></section>')
    body.append(_notes(metrics))
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{system}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _facts(metrics: Mapping[str, Any]) -> str:
    facts = []
    if metrics.get("lag") is not None:
        facts.append(f"lag {metrics['lag']} frames")
    if metrics.get("dt") is not None:
        facts.append(f"time step {metrics['dt']:g}")
    if metrics.get("seed") is not None:
        facts.append(f"seed {metrics['seed']}")
    seconds = metrics.get("seconds") or {}
    facts += [f"{name} {_duration(value)}" for name, value in seconds.items() if isinstance(value, (int, float))]
    return '<p class="facts">' + "".join(f"<span>{escape(fact)}</span>" for fact in facts) + "</p>"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _table(metrics: Mapping[str, Any]) -> str:
    used = used_columns(metrics)
    beside = "<small>model / truth</small>"
    head = "".join(f"<th>{escape(heading)}{beside if true else ''}</th>" for heading, _, true in used)
    rows = []
    for name, scores in metrics.get("scores", {}).items():
        floor = floor_of(metrics, name)
        cells = "".join(f"<td>{_value(scores, floor, key, beside)}</td>" for _, key, beside in used)
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    note = (
        "RDF, MSD, VACF: rms(model − truth) / rms(truth) of each curve. ± is one standard error, from resampled "
        "blocks of time. The floor is what a perfect model would score: half of the true runs against "
        "the other half, scaled to the number of all."
    )
    return (
        '<section><h2>Scores</h2><div class="scroll"><table>'
        f"<thead><tr><th>scenario</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">{note}</p></section>'
    )


def _value(scores: Mapping[str, Any], floor: Mapping[str, Any], key: str, beside: str | None) -> str:
    errors = scores.get("errors") or {}
    text, below = rounded(scores.get(key), errors.get(key)), [error_text(scores, key)]
    truth = scores.get(beside) if beside else None
    if truth and scores.get(key) is not None:
        error = max(errors.get(key) or 0.0, errors.get(beside) or 0.0)
        text = f"{rounded(scores[key], error)} / {rounded(truth, error)}"
        below.append(deviation(scores[key], truth).replace("-", "−"))
    elif key in ("rdf", "msd", "vacf") and floor.get(key) is not None:
        below.append(f"floor {rounded(floor[key], (floor.get('errors') or {}).get(key))}")
    return text + "<small>" + " · ".join(part for part in below if part) + "</small>"


def _scenario(name: str, given: Mapping[str, Any], metrics: Mapping[str, Any], film_bytes: int) -> str:
    truth, model = as_list(given["truth"]), as_list(given["model"])
    scores, floor = metrics.get("scores", {}).get(name, {}), floor_of(metrics, name)
    known: Mapping[str, Curves] = given.get("curves") or {}
    if not known:
        longest = scores.get("max_lag_time") or 0.25 * min((len(t) - 1) * t.dt for t in (*truth, *model))
        r_max = min(largest_radius(t) for t in (*truth, *model))
        both = (("truth", truth), ("model", model))
        known = {side: curves(found, max_lag_time=longest, r_max=r_max) for side, found in both}
    pair = (known["model"], known["truth"])
    pictures = [
        _image(plots.plot_rdf(*pair, floor.get("rdf")), "radial distribution function"),
        _image(plots.plot_msd(*pair, floor.get("msd"), scores.get("window")), "mean squared displacement"),
        _image(plots.plot_vacf(*pair, floor.get("vacf")), "velocity autocorrelation"),
    ]
    # a sheared boundary and prescribed particles do work
    if "energy" in (given.get("series") or {}) and not truth[0].box.shear_rate and truth[0].prescribed is None:
        pictures.append(_image(plots.plot_energy(given["series"]), "energy balance"))
    if model[0].entropies is not None:
        picture = plots.plot_entropy(model[0].entropies.numpy(), given.get("encoded_entropies"))
        pictures.append(_image(picture, "entropy"))
    answer = given.get("mechanics")
    colouring, what, table = Colouring.speed(truth[0], model[0]), "speed", ""
    if answer is not None:
        table = _mechanics(scores, floor)
        times = truth[0].times.numpy()
        pictures.insert(0, _image(plots.plot_position_error(times, answer.error, answer.floor_error), "position error"))
        if answer.truth is not None and answer.model is not None:
            colouring, what = Colouring.signed(answer.truth.field, answer.model.field), "shear stress"
            sides = answer.truth, answer.model
            if answer.truth.strain.any():
                pictures.insert(0, _image(plots.plot_hysteresis(*sides), "stress against strain"))
            pictures.insert(0, _image(plots.plot_stress(*sides), "mean shear stress"))
    stirred = given.get("stirring")
    if stirred is not None:
        # maps need the whole width
        maps = _image(plots.plot_rearrangements(stirred.place, stirred.rearranged, stirred.free), "rearrangements")
        table += f"<figure>{maps}</figure>"
        pictures = [
            _image(plots.plot_flow_profile(stirred.distance, given["flow"]), "flow profile"),
            *pictures,
        ]
    content = film(truth[0], model[0], colouring=colouring, whole=answer is not None, max_bytes=film_bytes)
    stops = ", ".join(matplotlib.colors.to_hex(matplotlib.colormaps[colouring.palette](i / 8)) for i in range(9))
    scale = (
        f'<div class="scale">{what} {colouring.least:.3g} <i style="background: linear-gradient(90deg, {stops})"></i> '
        f"{colouring.most:.3g}</div>"
    )
    temperature = _image(plots.plot_temperature(*pair), "kinetic temperature")
    return (
        f'<section><h2>{escape(name)}</h2>{_lengths(truth, model, scores)}{table}<div class="top"><figure>'
        '<div class="names"><span>truth</span><span>model</span></div>'
        f'<img alt="film of truth beside model" src="{data_address(content, "image/webp")}">'
        f'{scale}</figure><div class="plots">{temperature}</div></div><div class="plots">{"".join(pictures)}</div>'
        "</section>"
    )


def _mechanics(scores: Mapping[str, Any], floor: Mapping[str, Any]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in mechanics_rows(scores, floor)
    )
    return (
        '<table style="max-width: 54em; margin-bottom: 18px"><thead><tr><th>mechanics</th><th>model</th><th>truth</th>'
        f"<th>difference</th><th>floor</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _lengths(truth: list[Trajectory], model: list[Trajectory], scores: Mapping[str, Any]) -> str:
    facts = [f"{truth[0].num_particles} particles"]
    for side, found in (("truth", truth), ("model", model)):
        lengths = [len(t) for t in found]
        frames = f"{len(found)} × {lengths[0]}" if len(set(lengths)) == 1 else ", ".join(map(str, lengths))
        facts.append(f"{side}: {frames} frames of {found[0].dt:g}")
    if scores.get("window"):
        first, last = scores["window"]
        facts.append(f"D fitted over lags {first:g} to {last:g}")
    return '<p class="facts">' + "".join(f"<span>{escape(fact)}</span>" for fact in facts) + "</p>"


# name -> what a reader calls it
_QUANTITIES = {
    "temperature": "k_B T of the atoms",
    "kinetic_temperature": "k_B T of the particles (equipartition: equal to that of the atoms)",
    "pressure": "pressure",
    "viscosity": "shear viscosity (Green–Kubo)",
    "kinematic_viscosity": "kinematic viscosity",
    "D": "D in the window of the scores",
    "D_late": "D at late lags, 0.1 to 0.15 of a run",
    "D_unbounded": "the same, corrected for the finite box (Yeh and Hummer)",
}


def _observed(name: str, metrics: Mapping[str, Any]) -> str:
    known, scores, rows = metrics["observed"][name], metrics["scores"][name], []
    for key, label in _QUANTITIES.items():
        if key not in known:
            continue
        value, error, reference = (known[key].get(k) for k in ("value", "error", "reference"))
        measured = rounded(value, error) + (f" ± {rounded(error)}" if error else "")
        cells = (label, measured, rounded(reference, missing=""), rounded(scores.get(key), error, missing=""))
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return (
        f"<section><h2>The true system ({escape(name)})</h2>"
        '<table style="max-width: 44em"><thead><tr><th>quantity</th><th>measured</th><th>literature</th>'
        "<th>model</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _notes(metrics: Mapping[str, Any]) -> str:
    entropy = metrics.get("entropy") or {}
    if not entropy:
        return ""
    names = {
        "k_B_C": "heat capacity, k_B⟨C⟩",
        "mean": "mean S in the rollout",
        "std": "spread of S in the rollout",
        "encoded_mean": "mean S encoded from the truth",
        "encoded_std": "spread of S encoded from the truth",
        "reencoded_mean": "mean S encoded from the rollout",
        "reencoded_std": "spread of S encoded from the rollout",
        "autocorrelation": "correlation of S(t) with S(t + dt)",
    }
    rows = "".join(
        f"<tr><td>{escape(names.get(key, key))}</td><td>{value:.4g}</td></tr>"
        for key, value in entropy.items()
        if isinstance(value, (int, float))
    )
    return f'<section><h2>Entropy</h2><table style="max-width: 34em">{rows}</table></section>'


def _image(source: str, alternative: str) -> str:
    return f'<img alt="{escape(alternative)}" src="{source}">'
