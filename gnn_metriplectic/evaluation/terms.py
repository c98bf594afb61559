"""What a model has learned, as curves to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models import MetriplecticModel
from gnn_metriplectic.terms.friction import BULK, HEAT, SHEAR

POINTS = 200

# how far the curves of solids go: shear strains, and changes of volume to either side
MOST_SHEAR, MOST_SWELLING = 0.5, 0.15


@torch.no_grad()
def solid_curves(model: MetriplecticModel, ground_truth: MetriplecticModel | None) -> dict[str, dict[str, Any]]:
    """Elastic energies of a solid as curves for the report, beside those of the truth where its law is known."""
    sides = {"model": model} if ground_truth is None else {"truth": ground_truth, "model": model}
    shear = torch.linspace(0.0, MOST_SHEAR, POINTS, dtype=model.dtype)
    ratio = 1.0 + MOST_SWELLING * torch.linspace(-1.0, 1.0, POINTS, dtype=model.dtype)
    entropy = torch.zeros_like(shear)
    stored, pressure = {}, {}
    for name, law in sides.items():
        measures = torch.zeros(POINTS, law.strain.count, dtype=model.dtype)
        measures[:, 0] = 0.5 * shear**2  # I2 of a simple shear, to second order
        stored[name] = law.elastic(entropy, measures).energy.numpy()
        pressure[name] = law.equation_of_state(entropy, ratio).pressure.numpy()
    return {
        "Energy of shape": {
            "x": shear.numpy(),
            "curves": stored,
            "xlabel": r"shear strain $\sqrt{2 I_2}$",
            "ylabel": r"$U_\mathrm{dev}$ of a particle",
        },
        "Pressure": {
            "x": ratio.numpy(),
            "curves": pressure,
            "xlabel": r"$V / V^0$",
            "ylabel": r"$P\,V^0$ of a particle",
        },
    }


@torch.no_grad()
def pair_curves(model: MetriplecticModel) -> dict[str, dict[str, Any]]:
    """Potential and friction of one-species dissipative particle dynamics as curves for the report."""
    pairs = _pairs_of_all_distances(model)
    _, slope = model.kernel(pairs)
    nothing = torch.zeros(2 * POINTS, dtype=model.dtype)
    temperature = model.equation_of_state(nothing, nothing + 1.0).temperature
    squared = model.friction(pairs, temperature, nothing, nothing, slope).squared
    rates = (squared / temperature[0] / model.mass).numpy()
    axis = {"x": (pairs.distance / model.cutoff).numpy(), "xlabel": r"$r$ / cutoff"}
    return {
        **_potential_curve(model, pairs, float(temperature[0])),
        "Friction": {
            **axis,
            "curves": {"$A^2$ (shear)": rates[:, SHEAR], "$B^2$ (bulk)": rates[:, BULK]},
            "ylabel": "rate, over $T$ and mass (1 / time)",
        },
    }


def _potential_curve(model: MetriplecticModel, pairs: Pairs, thermal: float) -> dict[str, dict[str, Any]]:
    """φ over k_B T, ``thermal``, if there is a potential."""
    if model.potential is None:
        return {}
    value, _ = model.potential(pairs)
    return {
        "Pair potential": {
            "x": (pairs.distance / model.cutoff).numpy(),
            "curves": {r"$\varphi$": (value / thermal).numpy()},
            "xlabel": r"$r$ / cutoff",
            "ylabel": r"$\varphi / k_B T$",
        }
    }


def _pairs_of_all_distances(model: MetriplecticModel) -> Pairs:
    """Pairs of their own particles at distances from 0 to the cutoff."""
    displacement = torch.zeros(POINTS, model.dimension, dtype=model.dtype)
    displacement[:, 0] = torch.linspace(0.0, 1.0, POINTS, dtype=model.dtype) * model.cutoff
    first = torch.arange(POINTS)
    return Pairs(torch.stack([first, first + POINTS]), displacement, 2 * POINTS)


@torch.no_grad()
def term_curves(model: MetriplecticModel, *, temperature: float, volume: float) -> dict[str, dict[str, Any]]:
    """Kernel, amplitudes and equation of state of a one-species model as curves for the report.

    Args:
        model: with one species.
        temperature: k_B T around which to look, in units of energy.
        volume: mean volume of a particle.
    """
    like = {"dtype": model.dtype}
    pairs = _pairs_of_all_distances(model)
    kernel, slope = model.kernel(pairs)
    rho = (pairs.distance / model.cutoff).numpy()
    volumes = torch.full((2 * POINTS,), volume, **like)
    amplitudes: dict[str, np.ndarray] = {}
    for factor in (0.8, 1.0, 1.25):
        at = torch.full((2 * POINTS,), factor * temperature, **like) / model.k_B
        squared = (model.k_B * model.friction(pairs, at, torch.zeros_like(at), volumes, slope).squared).numpy()
        if factor == 1.0:
            amplitudes = {"$k_B A^2$ (shear)": squared[:, SHEAR], "$k_B B^2$ (bulk)": squared[:, BULK]}
            heat = {f"$k_B T$ = {temperature:.3g}": squared[:, HEAT] / temperature**2}
    entropy = torch.linspace(-2.5, 2.5, POINTS, **like)
    state: dict[str, np.ndarray] = {}
    for factor in (0.8, 1.0, 1.25):
        thermo = model.equation_of_state(entropy, torch.full((POINTS,), factor * volume, **like))
        state[f"$V$ = {factor:g} mean"] = (model.k_B * thermo.temperature).numpy()
    return {
        "Density kernel": {
            "x": rho,
            "curves": {"$W$": kernel.numpy() * volume},
            "xlabel": r"$r$ / cutoff",
            "ylabel": r"$W$ × mean volume",
        },
        **_potential_curve(model, pairs, temperature),
        "Friction": {
            "x": rho,
            "curves": amplitudes,
            "xlabel": r"$r$ / cutoff",
            "ylabel": "mass × energy / time",
        },
        "Heat conduction": {
            "x": rho,
            "curves": heat,
            "xlabel": r"$r$ / cutoff",
            "ylabel": r"$K^2 / k_B T^2$ (1 / time)",
        },
        "Equation of state": {"x": entropy.numpy(), "curves": state, "xlabel": "entropy $S$", "ylabel": r"$k_B T$"},
    }
