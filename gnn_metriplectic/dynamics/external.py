"""What acts on a system from outside: body forces, prescribed particles, a heat bath."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor

from gnn_metriplectic.geometry.fields import taylor_green_pattern
from gnn_metriplectic.terms import Thermo
from gnn_metriplectic.trajectory import Trajectory
from gnn_metriplectic.trajectory.checks import check_positive


class Forcing(Protocol):
    """A body force per unit mass that is a known function of position and time."""

    def acceleration(self, pos: Tensor, time: float) -> Tensor:
        """``[N, D]`` at positions ``[N, D]``."""
        ...

    def to_dict(self) -> dict:
        """Plain settings, from which `forcing_from` makes the forcing again."""
        ...


@dataclass(frozen=True)
class TaylorGreenForcing:
    """f = f₀ (sin kx cos ky cos kz, -cos kx sin ky cos kz, 0), k = 2π/L; without z in two dimensions.

    Attributes:
        amplitude: f₀, in units of acceleration.
        length: L, in units of length.
    """

    amplitude: float
    length: float

    def acceleration(self, pos: Tensor, time: float) -> Tensor:
        """``[N, D]`` at positions ``[N, D]``; constant in time."""
        return self.amplitude * taylor_green_pattern(pos, self.length)

    def to_dict(self) -> dict:
        """Plain settings."""
        return {"name": "taylor_green", **asdict(self)}


def forcing_from(settings: dict | None) -> Forcing | None:
    """Forcing from plain settings such as ``{"name": "taylor_green", "amplitude": 1.0, "length": 1.0}``.

    Raises:
        ValueError: unknown name.
    """
    if settings is None:
        return None
    options = dict(settings)
    name = options.pop("name", None)
    if name != "taylor_green":
        raise ValueError(f"forcing {name!r} is unknown; known: 'taylor_green'")
    return TaylorGreenForcing(**options)


@dataclass(frozen=True)
class Prescribed:
    """Particles that follow a given path.

    Attributes:
        mask: ``[N]`` bool, true for the particles that are driven.
        path: time -> (positions, velocities) of the driven particles, each ``[n, D]``.

    Raises:
        ValueError: a mask that is no ``[N]`` bool.
    """

    mask: Tensor
    path: Callable[[float], tuple[Tensor, Tensor]]

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool or self.mask.dim() != 1:
            raise ValueError("the mask of prescribed particles must be a tensor of bools, one a particle")

    @classmethod
    def recorded(cls, traj: Trajectory) -> Prescribed | None:
        """The prescribed particles of a trajectory on their recorded way; None if it has none."""
        if traj.prescribed is None:
            return None
        driven = (values[:, traj.prescribed] for values in (traj.positions, traj.velocities))
        return cls(traj.prescribed, RecordedPath(traj.times, *driven))

    def check(self, particles: int, first: float, last: float) -> None:
        """Raise ValueError unless the path gives all driven particles from time ``first`` to ``last``."""
        if tuple(self.mask.shape) != (particles,):
            raise ValueError(
                f"the prescribed mask has shape {list(self.mask.shape)}; the state has {particles} particles"
            )
        count = int(self.mask.sum())
        for time in (first, last):
            for values in self.path(time):
                if values.shape[0] != count:
                    raise ValueError(f"the path has {values.shape[0]} particles at time {time:g}; the mask has {count}")

    def place(self, pos: Tensor, vel: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """Positions and velocities ``[N, D]`` with the driven particles where they belong at ``time``."""
        path_pos, path_vel = self.path(time)
        return pos.index_put((self.mask,), path_pos.to(pos)), vel.index_put((self.mask,), path_vel.to(vel))


@dataclass(frozen=True)
class RecordedPath:
    """A way through recorded frames, between them by cubic Hermite interpolation.

    Attributes:
        times: ``[T]``, rising in even steps.
        positions, velocities: ``[T, n, D]``.

    Raises:
        ValueError: frames that are missing or not finite; when called, a time that was not recorded.
    """

    times: Tensor
    positions: Tensor
    velocities: Tensor

    def __post_init__(self) -> None:
        times = self.times.double()
        object.__setattr__(self, "times", times)
        if len(times) < 2 or self.positions.shape != self.velocities.shape or len(self.positions) != len(times):
            raise ValueError(
                f"a recorded path has {len(times)} times, positions {list(self.positions.shape)} and velocities "
                f"{list(self.velocities.shape)}; it needs [T], [T, n, D] and [T, n, D] of at least two frames"
            )
        steps = times.diff()
        usual = float(steps.median())
        odd = ~((steps > 0) & ((steps - usual).abs() < 0.01 * abs(usual) + 4e-7 * float(times.abs().max())))
        if bool(odd.any()):
            frame = int(odd.nonzero()[0])
            raise ValueError(
                f"the prescribed path has missing frames: from frame {frame} to {frame + 1} time goes from "
                f"{float(times[frame]):g} to {float(times[frame + 1]):g}, and elsewhere in steps of {usual:g}"
            )
        for name in ("positions", "velocities"):
            lost = ~torch.isfinite(getattr(self, name)).flatten(1).all(dim=1)
            if bool(lost.any()):
                raise ValueError(
                    f"the prescribed path has missing frames: {name} of {int(lost.sum())} frames are not finite, the "
                    f"first is frame {int(lost.nonzero()[0])}"
                )

    def __call__(self, time: float) -> tuple[Tensor, Tensor]:
        """Positions and velocities ``[n, D]`` at ``time``."""
        first, last = float(self.times[0]), float(self.times[-1])
        step = (last - first) / (len(self.times) - 1)
        place = (time - first) / step
        if not -1e-6 <= place <= len(self.times) - 1 + 1e-6:
            raise ValueError(
                f"time {time:g} is not on the prescribed path, which was recorded from {first:g} to {last:g}"
            )
        frame = min(max(int(place), 0), len(self.times) - 2)
        x = place - frame
        if abs(x - round(x)) < 1e-6:  # a recorded frame, to the last bit
            return self.positions[frame + round(x)], self.velocities[frame + round(x)]
        (a, b), (u, w) = (values[frame : frame + 2] for values in (self.positions, self.velocities))
        rise = (b - a) / step
        bend, twist = 3.0 * rise - 2.0 * u - w, u + w - 2.0 * rise
        position = a + x * step * (u + x * (bend + x * twist))
        return position, u + x * (2.0 * bend + 3.0 * x * twist)


@dataclass(frozen=True)
class Thermostat:
    """A heat bath that each particle exchanges energy with: dε_i = C_i (T₀ - T_i) dt / τ.

    It acts on internal energies only, and so leaves momentum and flow alone. It brings the mean temperature to T₀
    without random heat, and so narrows the fluctuations of entropy where τ is short against their own relaxation.

    Attributes:
        temperature: T₀ in units of energy, k_B times temperature.
        relaxation_time: τ, in units of time.

    Raises:
        ValueError: a temperature or time that is not positive.
    """

    temperature: float
    relaxation_time: float

    def __post_init__(self) -> None:
        check_positive("the temperature of the thermostat", self.temperature)
        check_positive("the relaxation time of the thermostat", self.relaxation_time)

    def heat(self, thermo: Thermo, k_B: Tensor, dt: float) -> Tensor:
        """Energy into each particle over ``dt``, ``[N]``."""
        decay = -math.expm1(-dt / self.relaxation_time)
        return thermo.heat_capacity * (self.temperature / k_B - thermo.temperature) * decay
