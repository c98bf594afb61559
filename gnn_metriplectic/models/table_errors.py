"""The largest errors of tables against the terms that they come from, between and at the nodes of their grids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms import DensityKernel, EquationOfState, PairPotential
from gnn_metriplectic.terms.friction import FactorisedFriction
from gnn_metriplectic.terms.tabulated import (
    Interval,
    TabulatedEquationOfState,
    TabulatedFriction,
    TabulatedKernel,
    TabulatedPotential,
)

Errors = dict[str, float]


def _between(interval: Interval, intervals: int, most: int = 2048) -> Tensor:
    """Points at several places within each interval of a grid (or of some, where there are many)."""
    step = -(-intervals // most)
    cells = torch.arange(0, intervals, step, dtype=torch.float64)
    inner = torch.tensor([0.0, 0.113, 0.25, 0.5, 0.71, 0.9], dtype=torch.float64)
    places = (cells[:, None] + inner).ravel() / intervals
    return interval[0] + (interval[1] - interval[0]) * places


def errors_of_kernel(table: TabulatedKernel, exact: DensityKernel) -> Errors:
    """Of W and W', relative as `tabulate` says."""
    return _errors_along(table, exact, ("W", "W'"))


def errors_of_potential(table: TabulatedPotential, exact: PairPotential) -> Errors:
    """Of φ and φ', relative as `tabulate` says."""
    return _errors_along(table, exact, ("φ", "φ'"))


def _errors_along(table: TabulatedKernel | TabulatedPotential, exact: nn.Module, names: tuple[str, str]) -> Errors:
    """Of the value and the slope of a function of distance."""
    rho = _between((0.0, 1.0), table.spline.intervals)
    pairs = Pairs(
        torch.tensor([[0], [1]]).expand(2, len(rho)),
        torch.stack([rho * exact.cutoff, torch.zeros_like(rho)], dim=1),
        2,
    )
    errors = {}
    for name, a, b in zip(names, table(pairs), exact(pairs), strict=True):
        # networks may be large at distances that no pair has: what counts is the size here and beyond
        beyond = b.abs().flip(0).cummax(dim=0).values.flip(0)
        errors[name] = _largest(a - b, beyond.clamp(min=0.01 * float(b[rho > 0.5].abs().max())))
    return errors


def errors_of_law(table: TabulatedEquationOfState, exact: EquationOfState) -> Errors:
    """Of U, T, P V and C, relative as `tabulate` says, over the whole rectangle."""
    axes = (_between(i, n) for i, n in zip((table.entropy, table.log_volume), table.intervals, strict=True))
    s, x = (y.ravel() for y in torch.meshgrid(*axes, indexing="ij"))
    volume = torch.exp(x)
    a, b = table.anywhere(s, volume), exact(s, volume)
    work = b.pressure * volume
    # rigid particles have no pressure
    nothing = 1e-9 * float(b.energy.max() - b.energy.min())
    return {
        "U": _largest(a.energy - b.energy, (b.energy - b.energy.min()).clamp(min=b.temperature.min())),
        "T": _largest(a.temperature - b.temperature, b.temperature),
        "P V": _largest(a.pressure * volume - work, work.abs().clamp(min=max(0.01 * float(work.abs().max()), nothing))),
        "C": _largest(a.heat_capacity - b.heat_capacity, b.heat_capacity),
    }


def errors_of_friction(table: TabulatedFriction, exact: FactorisedFriction, temperature: Interval) -> Errors:
    """Of A², B², K² and their slopes with T, relative as `tabulate` says, at ``temperature`` and between."""
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
