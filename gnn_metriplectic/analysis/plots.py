"""The figures of the report, each a ``data:`` address of a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gnn_metriplectic.analysis.curves import Curves
from gnn_metriplectic.analysis.mechanics import Response
from gnn_metriplectic.analysis.style import ACCENT, BAND, CYCLE, MODEL, TRUTH, curve_and_residual, figure, to_png


def plot_rdf(model: Curves, truth: Curves, floor: float | None = None) -> str:
    """g(r) of both, and their difference over the rms of the truth beside its floor (an RRMSE)."""
    with figure() as fig:
        upper, lower = curve_and_residual(fig)
        upper.set(title="Structure", ylabel="g(r)")
        _pair(upper, truth.r, truth.rdf, model.r, model.rdf)
        upper.axhline(1, color=BAND, linewidth=0.9, zorder=0)
        upper.set_ylim(bottom=0)
        _residual(lower, truth.r, model.rdf, truth.rdf, floor)
        lower.set(xlabel="r", xlim=(0, truth.r[-1]))
        upper.legend(loc="lower right")
        return to_png(fig)


def plot_msd(model: Curves, truth: Curves, floor: float | None = None, window: Sequence[float] | None = None) -> str:
    """Mean squared displacement; the window in which D is fitted is shaded; log-log in the inset."""
    with figure() as fig:
        upper, lower = curve_and_residual(fig)
        upper.set(title="Mean squared displacement", ylabel="⟨|Δr|²⟩")
        if window is not None:
            upper.axvspan(*window, color=ACCENT, alpha=0.08, linewidth=0, label="fit of D")
        _pair(upper, truth.lags, truth.msd, model.lags, model.msd)
        inset = upper.inset_axes((0.13, 0.56, 0.38, 0.4))
        for curves, colour, style in ((truth, TRUTH, "-"), (model, MODEL, "--")):
            inset.loglog(curves.lags[1:], curves.msd[1:], color=colour, linestyle=style, linewidth=1.4)
        inset.tick_params(labelsize=7.5, which="both")
        inset.patch.set_alpha(0)
        upper.set_ylim(bottom=0)
        upper.legend(loc="lower right")
        lags, model_msd, truth_msd = _common(model, truth, "msd")
        _residual(lower, lags, model_msd, truth_msd, floor)
        lower.set(xlabel="lag time", xlim=(0, lags[-1]))
        return to_png(fig)


def plot_vacf(model: Curves, truth: Curves, floor: float | None = None) -> str:
    """Velocity autocorrelation, not normalised."""
    with figure() as fig:
        upper, lower = curve_and_residual(fig)
        upper.set(title="Velocity autocorrelation", ylabel="⟨v(0)·v(t)⟩")
        upper.axhline(0, color=BAND, linewidth=0.9, zorder=0)
        _pair(upper, truth.lags, truth.vacf, model.lags, model.vacf)
        upper.legend(loc="upper right")
        lags, model_vacf, truth_vacf = _common(model, truth, "vacf")
        _residual(lower, lags, model_vacf, truth_vacf, floor)
        lower.set(xlabel="lag time", xlim=(0, lags[-1]))
        return to_png(fig)


def plot_temperature(model: Curves, truth: Curves) -> str:
    """Kinetic temperature of the first trajectory of each against time, and the means over all."""
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title="Kinetic temperature", xlabel="time", ylabel="$k_B T$")
        for curves, colour, label in ((truth, TRUTH, "truth"), (model, MODEL, "model")):
            axes.plot(curves.times, curves.kinetic_temperature, color=colour, linewidth=0.9, alpha=0.55)
            mean = curves.mean_kinetic_temperature
            style = "-" if colour == TRUTH else "--"
            axes.axhline(mean, color=colour, linestyle=style, label=f"{label}, mean {mean:.4g}")
        axes.margins(x=0, y=0.25)
        axes.legend(loc="upper right", ncols=2)
        return to_png(fig)


def plot_energy(series: Mapping[str, Sequence[float]]) -> str:
    """Change of total energy over the mean kinetic energy: ``time``, ``energy`` and ``kinetic_energy``, ``[T]``."""
    time, energy = np.asarray(series["time"], dtype=float), np.asarray(series["energy"], dtype=float)
    error = (energy - energy[0]) / np.mean(series["kinetic_energy"])
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title="Energy balance", xlabel="time", ylabel="ΔE / kinetic energy")
        axes.axhline(0, color=TRUTH, linewidth=0.9)
        axes.plot(time, error, color=MODEL, linewidth=1.3)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        axes.margins(x=0)
        return to_png(fig)


def plot_entropy(rollout: np.ndarray, encoded: np.ndarray | None) -> str:
    """Distribution of entropy over particles and frames: as integrated, and as encoded from the truth."""
    rollout = np.ravel(np.asarray(rollout, dtype=float))
    both = rollout if encoded is None else np.concatenate([rollout, np.ravel(np.asarray(encoded, dtype=float))])
    low, high = np.percentile(both, (0.05, 99.95))
    edges = np.linspace(low, high if high > low else low + 1e-9, 61)
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title="Entropy of a particle", xlabel="S", ylabel="probability density")
        if encoded is not None:
            axes.hist(np.ravel(encoded), edges, density=True, color=BAND, label="encoded from the truth")
        axes.hist(rollout, edges, density=True, histtype="step", color=MODEL, linewidth=1.9, label="rollout")
        axes.set_ylim(top=1.22 * axes.get_ylim()[1])
        axes.legend(loc="upper right")
        return to_png(fig)


def plot_stress(truth: Response, model: Response) -> str:
    """Mean shear stress against time, and what the model misses of it."""
    with figure(7.4, 3.5) as fig:
        upper, lower = curve_and_residual(fig)
        upper.set(title="Mean shear stress", ylabel=r"$\sigma_{yx}$")
        upper.axhline(0, color=BAND, linewidth=0.9, zorder=0)
        _pair(upper, truth.times, truth.stress, model.times, model.stress)
        upper.legend(loc="upper right", ncols=2)
        upper.margins(y=0.2)
        count = min(len(truth.times), len(model.times))
        _residual(lower, truth.times[:count], model.stress[:count], truth.stress[:count], None)
        lower.set(xlabel="time", xlim=(truth.times[0], truth.times[count - 1]))
        return to_png(fig)


def plot_hysteresis(truth: Response, model: Response) -> str:
    """Stress against strain; the area of a loop is what friction dissipates in a cycle."""
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title="Stress and strain", xlabel="applied strain", ylabel=r"mean $\sigma_{yx}$")
        _pair(axes, truth.strain, truth.stress, model.strain, model.stress)
        axes.legend(loc="upper left")
        return to_png(fig)


def plot_position_error(times: np.ndarray, error: np.ndarray, floor: np.ndarray | None) -> str:
    """Distance from the true positions over the driving amplitude, and that of a second true run."""
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title="Position error", xlabel="time", ylabel="rms distance / amplitude (%)")
        if floor is not None:
            axes.fill_between(times[: len(floor)], 0, 100 * floor, color=BAND, alpha=0.7, linewidth=0, label="floor")
        axes.plot(times[: len(error)], 100 * error, color=MODEL, label="model")
        axes.set(xlim=(times[0], times[len(error) - 1]), ylim=(0, 1.25 * 100 * float(np.max(error)) or 1.0))
        axes.legend(loc="upper left", ncols=2)
        return to_png(fig)


def plot_flow_profile(distance: np.ndarray, flow: Mapping[str, np.ndarray]) -> str:
    """Amplitude of the flow over that of the body which drives it, against the distance from the body."""
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title="Flow around the driven body", xlabel="distance", ylabel="amplitude of $v_x$ / the body's")
        _pair(axes, distance, flow["truth"], distance, flow["model"])
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        return to_png(fig)


def plot_rearrangements(place: Mapping[str, np.ndarray], rearranged: Mapping[str, np.ndarray], free: np.ndarray) -> str:
    """Maps of D²_min in truth and model, on one scale; prescribed particles are rings."""
    top = float(np.nanquantile(np.concatenate([values[free] for values in rearranged.values()]), 0.98))
    with figure(10.0, 4.2) as fig:
        panels = fig.subplots(1, 2, sharex=True, sharey=True)
        for axes, side in zip(panels, ("truth", "model"), strict=True):
            axes.set(title=f"$D^2_\\mathrm{{min}}$ over a period: {side}", aspect="equal")
            axes.scatter(*place[side][~free].T, s=22, facecolors="none", edgecolors=BAND, linewidths=0.8)
            dots = axes.scatter(*place[side][free].T, s=30, c=rearranged[side][free], vmin=0, vmax=top, cmap="viridis")
        fig.colorbar(dots, ax=panels, shrink=0.85)
        return to_png(fig)


def plot_term(name: str, term: Mapping[str, Any]) -> str:
    """One learned term: ``x``, ``curves`` {label: y}, ``xlabel``, ``ylabel``."""
    with figure() as fig:
        axes = fig.subplots()
        axes.set(title=name, xlabel=term.get("xlabel", ""), ylabel=term.get("ylabel", ""))
        for (label, values), colour in zip(term["curves"].items(), CYCLE * len(term["curves"]), strict=False):
            truth = "truth" in str(label).lower()
            colour, style = (TRUTH, "--") if truth else (colour, "-")
            axes.plot(term["x"], values, label=label, color=colour, linestyle=style)
        axes.margins(x=0)
        axes.legend(loc="best")
        return to_png(fig)


def plot_learning(curve: Mapping[str, Sequence[float]]) -> str:
    """Loss of training and validation against ``step``; ``wall_time`` in seconds, if given, above."""
    with figure(7.4, 3.4) as fig:
        axes = fig.subplots()
        axes.set(xlabel="step", ylabel="loss")
        axes.plot(curve["step"], curve["train"], color=BAND, linewidth=1.2, label="training")
        if len(curve.get("val", ())):
            axes.plot(curve["step"], curve["val"], color=ACCENT, label="validation")
        axes.margins(x=0.01)
        finite = np.asarray([x for x in (*curve["train"], *curve.get("val", ())) if x is not None], dtype=float)
        finite = finite[np.isfinite(finite)]
        # the first steps fall by orders of magnitude more than the rest
        if len(finite) > 20:
            low, high = finite.min(), np.percentile(finite, 97)
            axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
        if len(curve.get("wall_time", ())):
            upper = axes.twiny()
            upper.set(xlabel="minutes", xlim=[_minutes(x, curve) for x in axes.get_xlim()])
            upper.spines["top"].set_visible(True)
        axes.legend(loc="upper right")
        return to_png(fig)


def _minutes(step: float, curve: Mapping[str, Sequence[float]]) -> float:
    slope, offset = np.polyfit(curve["step"], curve["wall_time"], 1)
    return (slope * step + offset) / 60


def _pair(axes: Axes, x_truth: np.ndarray, truth: np.ndarray, x_model: np.ndarray, model: np.ndarray) -> None:
    axes.plot(x_truth, truth, color=TRUTH, label="truth")
    axes.plot(x_model, model, color=MODEL, linestyle=(0, (4, 1.6)), label="model")


def _common(model: Curves, truth: Curves, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lags = max((model.lags, truth.lags), key=lambda times: times[1])
    lags = lags[lags <= min(model.lags[-1], truth.lags[-1]) * (1 + 1e-9)]
    return lags, np.interp(lags, model.lags, getattr(model, name)), np.interp(lags, truth.lags, getattr(truth, name))


def _residual(axes: Axes, x: np.ndarray, model: np.ndarray, truth: np.ndarray, floor: float | None) -> None:
    """Model - truth in percent of the truth's rms; its own rms is the RRMSE of the table."""
    if floor is not None:
        axes.axhspan(-100 * floor, 100 * floor, color=BAND, alpha=0.55, linewidth=0, label="floor")
    scale = np.sqrt(np.mean(truth**2))
    error = 100 * (model - truth) / (scale if scale > 0 else 1.0)
    axes.plot(x, error, color=MODEL, linewidth=1.3)
    if floor is not None:
        axes.legend(loc="best", fontsize=8, borderaxespad=0.1, handlelength=1.0)
    # the emptiest bins of g(r) may be off by far more than all others
    reach = 1.5 * max(float(np.percentile(np.abs(error), 97)), 100 * (floor or 0.0), 1e-6)
    axes.set(ylabel="Δ (%)", ylim=(-reach, reach))
    axes.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
