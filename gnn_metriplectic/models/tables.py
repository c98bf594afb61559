"""Models as tables: a learned model -> the same model from tables, with its largest errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.table_errors import (
    Errors,
    errors_of_friction,
    errors_of_kernel,
    errors_of_law,
    errors_of_potential,
)
from gnn_metriplectic.terms import EquationOfState
from gnn_metriplectic.terms.friction import FactorisedFriction
from gnn_metriplectic.terms.tabulated import (
    Interval,
    TabulatedEquationOfState,
    TabulatedFriction,
    TabulatedKernel,
    TabulatedPotential,
)

# how far the tables go beyond the states of the training, on each side, in widths of their range: a thousand
# particles reach about four standard deviations, a long run of a million seven, and volumes have long tails
MARGIN = 1.0
TOLERANCE = 1e-6
FIRST_INTERVALS, MOST_INTERVALS = 16, 8192
FIRST_CELLS, MOST_CELLS = 4, 256
# C, a second derivative, converges last and enters through terms of the order of k_B / C alone
SLACK = {"C": 10.0}


class Tables(NamedTuple):
    """A model from tables and how far it is from the model that it came from.

    Attributes:
        model: of `TabulatedKernel`, `TabulatedPotential`, `TabulatedEquationOfState` and `TabulatedFriction`, in
            float64.
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
    T ∂A²/∂T to A² there if that is larger, likewise B and K; of W, W', φ and φ' to the largest at that distance or
    beyond. For P V and these, which may vanish, a hundredth of the largest (of the latter beyond half the cutoff)
    counts as a value.

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
    if not model.has_entropy:
        raise ValueError("the model has no entropy: tables hold metriplectic models, and this is a baseline")
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
        lambda table: errors_of_kernel(table, exact.kernel),
        FIRST_INTERVALS,
        MOST_INTERVALS,
        tolerance,
    )
    potential, bound_errors = None, {}
    if exact.potential is not None:
        potential, bound_errors = _refine(
            lambda n: TabulatedPotential.of(exact.potential, n),
            lambda table: errors_of_potential(table, exact.potential),
            FIRST_INTERVALS,
            MOST_INTERVALS,
            tolerance,
        )
    law, law_errors = _refine(build_law, lambda table: errors_of_law(table, laws), FIRST_CELLS, MOST_CELLS, tolerance)
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
        potential=potential,
    ).double()
    tabulated.seen.copy_(exact.seen)
    return Tables(tabulated.requires_grad_(False), {**errors, **bound_errors, **law_errors, **friction_errors})


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
            lambda table: errors_of_friction(table, friction, temperature),
            FIRST_INTERVALS,
            MOST_INTERVALS,
            tolerance,
        )

    table, _ = refine(lambda n: (MOST_INTERVALS, n), 0.5 * tolerance)
    return refine(lambda n: (n, table.thermal.intervals), tolerance)
