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

    def place(self, pos: Tensor, vel: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """Positions and velocities ``[N, D]`` with the driven particles where they belong at ``time``."""
        path_pos, path_vel = self.path(time)
        return pos.index_put((self.mask,), path_pos.to(pos)), vel.index_put((self.mask,), path_vel.to(vel))


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
