"""Terms as tables: splines through the exact values and slopes of other terms.

Each table is an energy or an amplitude itself, and every slope that the dynamics needs is the exact
derivative of its spline. So the laws of the model hold to round-off whatever the tables' error is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.density import DensityKernel
from gnn_metriplectic.terms.energy import EquationOfState, Thermo
from gnn_metriplectic.terms.friction import FactorisedFriction
from gnn_metriplectic.terms.jets import SpeciesShift
from gnn_metriplectic.terms.potential import PairPotential
from gnn_metriplectic.terms.rows import by_rows

RANGES = ("error", "warn", "clamp")
Interval = tuple[float, float]


class CubicSpline(nn.Module):
    """Cubic Hermite splines of one number on a uniform grid; constant beyond its ends.

    Args:
        interval: first and last node.
        value, slope: at the nodes, ``[n + 1, M]`` each.
    """

    def __init__(self, interval: Interval, value: Tensor, slope: Tensor) -> None:
        super().__init__()
        self.interval = interval
        self.register_buffer("value", value)
        self.register_buffer("slope", slope)
        self._derive()

    def _derive(self) -> None:
        """Powers of the place within a cell, so that one row is read for each number."""
        width = (self.interval[1] - self.interval[0]) / self.intervals
        rise, left, right = self.value.diff(dim=0), width * self.slope[:-1], width * self.slope[1:]
        coefficients = torch.stack(
            [self.value[:-1], left, 3.0 * rise - 2.0 * left - right, left + right - 2.0 * rise], dim=1
        )
        self.register_buffer("coefficients", coefficients.flatten(1), persistent=False)

    def _apply(self, *arguments: Any, **options: Any) -> CubicSpline:
        # in another floating type they are derived anew, not rounded to it and back
        super()._apply(*arguments, **options)
        self._derive()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._derive()

    @classmethod
    def through(cls, jet: Callable[[Tensor], tuple[Tensor, Tensor]], interval: Interval, intervals: int) -> CubicSpline:
        """The spline through values and slopes of ``jet``, ``[n + 1]`` -> ``[n + 1, M]`` each."""
        return cls(interval, *(x.detach().clone() for x in jet(_nodes(interval, intervals))))

    @property
    def intervals(self) -> int:
        """Number of intervals of the grid, n."""
        return self.value.shape[0] - 1

    @by_rows
    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Values ``[E, M]`` at ``x`` ``[E]``; ``shift`` is None, as with a network of one species."""
        (c0, c1, c2, c3), t, _ = self._cells(x)
        return torch.addcmul(c0, t, torch.addcmul(c1, t, torch.addcmul(c2, t, c3)))

    @by_rows
    def jet(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values and slopes d/dx, both ``[E, M]``."""
        (c0, c1, c2, c3), t, width = self._cells(x)
        value = c0 + t * (c1 + t * (c2 + t * c3))
        inside = ((x >= self.interval[0]) & (x <= self.interval[1])).unsqueeze(1)
        slope = torch.where(inside, (c1 + t * (2.0 * c2 + 3.0 * t * c3)) / width, 0.0)
        return value, slope

    def _cells(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor, float]:
        """Coefficients ``[E, M]`` of the powers 0 to 3, the place ``[E, 1]`` in the cell, and the width of cells."""
        cell, t, width = _locate(x, self.interval, self.intervals)
        coefficients = self.coefficients.index_select(0, cell)
        return coefficients.chunk(4, dim=1), t.unsqueeze(1), width


def smooth_nodes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``[n, M]`` and a zero at even distances, and slopes for a `CubicSpline` on [0, 1], both ``[n + 1, M]``.

    Slopes are central differences, and none at the ends.
    """
    nodes = torch.cat([values.double(), torch.zeros_like(values[:1], dtype=torch.float64)])
    slope = torch.zeros_like(nodes)
    slope[1:-1] = 0.5 * len(values) * (nodes[2:] - nodes[:-2])
    return nodes, slope


class TabulatedKernel(DensityKernel):
    """W as a spline in ρ = r / cutoff.

    Args:
        cutoff: h.
        spline: of W on [0, 1], in units of inverse volume; zero with slope zero at 1.
    """

    def __init__(self, cutoff: float, spline: CubicSpline) -> None:
        super().__init__(cutoff)
        self.spline = spline

    @classmethod
    def of(cls, kernel: DensityKernel, intervals: int) -> TabulatedKernel:
        """The table of another kernel of one species."""
        spline = CubicSpline.through(_of_distance(kernel), (0.0, 1.0), intervals)
        return cls(kernel.cutoff, spline)

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, slope = self.spline.jet(pairs.distance / self.cutoff)
        return value.squeeze(1), slope.squeeze(1) / self.cutoff

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        return self.spline.value[0].expand(pairs.num_particles)


class TabulatedPotential(PairPotential):
    """φ as a spline in ρ = r / cutoff.

    Args:
        cutoff: h.
        spline: of φ on [0, 1], in units of energy; zero with slope zero at 1.
    """

    def __init__(self, cutoff: float, spline: CubicSpline) -> None:
        super().__init__(cutoff, energy=1.0)
        self.spline = spline

    @classmethod
    def of(cls, potential: PairPotential, intervals: int) -> TabulatedPotential:
        """The table of another potential of one species."""
        return cls(potential.cutoff, CubicSpline.through(_of_distance(potential), (0.0, 1.0), intervals))

    @classmethod
    def between(cls, cutoff: float, values: Tensor) -> TabulatedPotential:
        """The smooth potential through ``values [n]`` at even distances from 0 on, which is zero from the cutoff on."""
        return cls(cutoff, CubicSpline((0.0, 1.0), *smooth_nodes(values.unsqueeze(1))))

    def pass_through(self, values: Tensor) -> None:
        """Make it what `between` makes of as many values."""
        self.spline.load_state_dict(dict(zip(("value", "slope"), smooth_nodes(values.unsqueeze(1)), strict=True)))

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, slope = self.spline.jet(pairs.distance / self.cutoff)
        return value.squeeze(1), slope.squeeze(1) / self.cutoff


class TabulatedFriction(FactorisedFriction):
    """`FactorisedFriction` whose factors φ(ρ) and g(ln T) are splines.

    Args:
        cutoff: h.
        squared: s of A, B and K.
        rank: number of products.
        radial: φ on [0, 1].
        thermal: g in ln T.
    """

    def __init__(
        self,
        cutoff: float,
        *,
        squared: tuple[float, float, float],
        rank: int,
        radial: CubicSpline,
        thermal: CubicSpline,
    ) -> None:
        shift = SpeciesShift(1, 1)
        super().__init__(
            cutoff, temperature=1.0, squared=squared, rank=rank, radial=radial, thermal=thermal, shift=shift
        )
        self.squared_scale = torch.tensor(squared, dtype=torch.float64)

    @classmethod
    def of(
        cls, friction: FactorisedFriction, log_temperature: Interval, radial: int, thermal: int
    ) -> TabulatedFriction:
        """The tables of another friction of one species, of so many intervals in ρ and in a range of ln T."""
        origin = math.log(friction.temperature_scale)
        radial = CubicSpline.through(friction.radial.jet, (0.0, 1.0), radial)
        thermal = CubicSpline.through(lambda x: friction.thermal.jet(x - origin), log_temperature, thermal)
        squared = tuple(friction.squared_scale.tolist())
        return cls(friction.cutoff, squared=squared, rank=friction.rank, radial=radial, thermal=thermal)


class TabulatedEquationOfState(EquationOfState):
    """U as a biquintic Hermite spline in (S, ln V): T, P and dT/dS are its exact derivatives, and continuous.

    Beyond the rectangle U goes on quadratically in S and linearly in ln V, with T and P its exact
    derivatives still. Leaving it is an error, or warned of once, or only counted (``range``).

    Args:
        entropy, log_volume: the rectangle.
        nodes: ``[m + 1, n + 1, 3, 3]``, derivatives of U at the nodes by S (0 to 2 times) and ln V (0 to 2 times).
        range: ``error``, ``warn`` or ``clamp``.

    Attributes:
        outside: how many states of particles were evaluated beyond the rectangle.
    """

    def __init__(self, entropy: Interval, log_volume: Interval, nodes: Tensor, *, range: str = "error") -> None:
        super().__init__()
        if range not in RANGES:
            raise ValueError(f"range is {range!r}; choose one of {RANGES}")
        self.entropy, self.log_volume, self.range, self.outside = entropy, log_volume, range, 0
        self.register_buffer("nodes", nodes)
        self._derive()

    def _derive(self) -> None:
        """The nodes of each cell side by side, ``[m n, 36]``, so that one row is read for each particle."""
        corners = self.nodes.unfold(0, 2, 1).unfold(1, 2, 1)  # [m, n, S, ln V, corner in S, corner in ln V]
        self.register_buffer("cells", corners.permute(0, 1, 4, 2, 5, 3).reshape(-1, 36), persistent=False)
        widths = [(y[1] - y[0]) / n for y, n in zip((self.entropy, self.log_volume), self.intervals, strict=True)]
        self.register_buffer("along_entropy", _quintics(widths[0], 3).to(self.nodes), persistent=False)
        self.register_buffer("along_volume", _quintics(widths[1], 2).to(self.nodes), persistent=False)

    def _apply(self, *arguments: Any, **options: Any) -> TabulatedEquationOfState:
        # as in `CubicSpline`
        super()._apply(*arguments, **options)
        self._derive()
        return self

    @classmethod
    def of(
        cls,
        law: EquationOfState,
        entropy: Interval,
        log_volume: Interval,
        intervals: tuple[int, int],
        *,
        range: str = "error",
    ) -> TabulatedEquationOfState:
        """The table of another equation of state of one species."""
        s, x = torch.meshgrid(*(map(_nodes, (entropy, log_volume), intervals)), indexing="ij")
        shape, s, x = s.shape, s.ravel(), x.ravel().requires_grad_()
        with torch.enable_grad():
            energy, temperature, _, capacity = law(s, torch.exp(x))
            columns = []
            for value in (energy, temperature, temperature / capacity):
                (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
                (second,) = torch.autograd.grad(first.sum(), x, retain_graph=True)
                columns.append(torch.stack([value, first, second], dim=1).detach())
        return cls(entropy, log_volume, torch.stack(columns, dim=1).view(*shape, 3, 3), range=range)

    @property
    def intervals(self) -> tuple[int, int]:
        """Numbers of intervals along S and ln V."""
        return self.nodes.shape[0] - 1, self.nodes.shape[1] - 1

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        self._guard(entropy, volume)
        return self.anywhere(entropy, volume, species)

    @by_rows
    def anywhere(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        """As ``forward``, without a look at the range."""
        x = torch.log(volume)
        (i, s, _), (j, t, _) = (
            _locate(y, interval, n)
            for y, interval, n in zip((entropy, x), (self.entropy, self.log_volume), self.intervals, strict=True)
        )
        nodes = self.cells.index_select(0, i * self.intervals[1] + j).view(-1, 6, 6)
        along_s = (_powers(s) @ self.along_entropy).view(-1, 3, 6)
        along_x = (_powers(t) @ self.along_volume).view(-1, 2, 6).transpose(1, 2)
        # derivatives by S (0 to 2 times) and by ln V (0 and 1 times) at the nearest point of the rectangle
        (u, u_x), (u_s, u_sx), (u_ss, u_ssx) = ((along_s @ nodes @ along_x)[:, k].unbind(1) for k in (0, 1, 2))
        beyond_s = entropy - torch.clamp(entropy, *self.entropy)
        beyond_x = x - torch.clamp(x, *self.log_volume)
        u, u_s, u_ss = u + beyond_x * u_x, u_s + beyond_x * u_sx, u_ss + beyond_x * u_ssx
        energy = u + beyond_s * (u_s + 0.5 * beyond_s * u_ss)
        temperature = u_s + beyond_s * u_ss
        by_log_volume = u_x + beyond_s * (u_sx + 0.5 * beyond_s * u_ssx)
        return Thermo(energy, temperature, -by_log_volume / volume, temperature / u_ss)

    def entropy_of(
        self,
        energy: Tensor,
        volume: Tensor,
        guess: Tensor,
        species: Tensor | None = None,
        *,
        known: Thermo | None = None,
    ) -> tuple[Tensor, Thermo]:
        entropy, thermo = super().entropy_of(energy, volume, guess, species, known=known)
        self._guard(entropy, volume)
        return entropy, thermo

    def _guard(self, entropy: Tensor, volume: Tensor) -> None:
        slack = 1e-6 if entropy.dtype == torch.float32 else 1e-12
        entropy, volume = entropy.detach(), volume.detach()
        x = torch.log(volume)
        outside = _outside(entropy, self.entropy, slack) | _outside(x, self.log_volume, slack)
        count = int(outside.sum())
        if not count:
            return
        self.outside += count
        if self.range == "clamp" or (self.range == "warn" and self.outside > count):
            return
        worst = int(outside.nonzero()[0])
        low, high = (math.exp(x) for x in self.log_volume)
        message = (
            f"particle {worst} has entropy {float(entropy[worst]):.6g} and volume {float(volume[worst]):.6g}, and the "
            f"tables hold entropies from {self.entropy[0]:.6g} to {self.entropy[1]:.6g} and volumes from {low:.6g} to "
            f"{high:.6g}: export with a larger margin, or use range=warn or range=clamp"
        )
        if self.range == "error":
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)


def _outside(x: Tensor, interval: Interval, slack: float) -> Tensor:
    room = slack * (interval[1] - interval[0])
    return ~((x >= interval[0] - room) & (x <= interval[1] + room))


def _nodes(interval: Interval, intervals: int) -> Tensor:
    return torch.linspace(*interval, intervals + 1, dtype=torch.float64)


def _locate(x: Tensor, interval: Interval, intervals: int) -> tuple[Tensor, Tensor, float]:
    """Cell of each number ``[M]``, the place within it from 0 to 1 ``[M]``, and the width of cells."""
    start, stop = interval
    width = (stop - start) / intervals
    scaled = (torch.clamp(x, start, stop) - start) / width
    # comparisons with NaN are false, and a NaN must not become an index
    cell = torch.nan_to_num(scaled.detach()).long().clamp(0, intervals - 1)
    return cell, scaled - cell, width


# powers of t in the six functions that take values, slopes and second derivatives at 0, then at 1
_QUINTIC = (
    (1.0, 0.0, 0.0, -10.0, 15.0, -6.0),
    (0.0, 1.0, 0.0, -6.0, 8.0, -3.0),
    (0.0, 0.0, 0.5, -1.5, 1.5, -0.5),
    (0.0, 0.0, 0.0, 10.0, -15.0, 6.0),
    (0.0, 0.0, 0.0, -4.0, 7.0, -3.0),
    (0.0, 0.0, 0.0, 0.5, -1.0, 0.5),
)


def _powers(t: Tensor) -> Tensor:
    """Powers 0 to 5, ``[M, 6]``, of ``t`` ``[M]``."""
    square = t * t
    return torch.stack([torch.ones_like(t), t, square, square * t, square * square, square * square * t], dim=1)


def _quintics(width: float, orders: int) -> Tensor:
    """Powers to derivatives of the six functions on cells of a width, ``[6, 6 orders]``: 0 times, then once, ..."""
    # of the function that takes the k-th derivative at a node
    scale = width ** torch.tensor([0.0, 1.0, 2.0] * 2, dtype=torch.float64)
    coefficients = torch.tensor(_QUINTIC, dtype=torch.float64) * scale[:, None]
    columns = []
    for order in range(orders):
        columns.append(coefficients.T / width**order)
        higher = coefficients[:, 1:] * torch.arange(1.0, 6.0, dtype=torch.float64)
        coefficients = torch.nn.functional.pad(higher, (0, 1))
    return torch.cat(columns, dim=1)


def _line(distance: Tensor) -> Pairs:
    """Pairs of two particles at given distances ``[E]``."""
    displacement = torch.stack([distance, torch.zeros_like(distance)], dim=1)
    index = torch.zeros(2, len(distance), dtype=torch.long, device=distance.device)
    index[1] = 1
    return Pairs(index, displacement, 2)


def _of_distance(term: DensityKernel | PairPotential) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Value and slope d/dρ of a term as functions of ρ, zero from the cutoff on."""

    def jet(rho: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = term(_line(term.cutoff * rho))
        inside = rho < 1.0
        return tuple(torch.where(inside, x, 0.0).unsqueeze(1) for x in (value, term.cutoff * slope))

    return jet
