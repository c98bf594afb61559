"""The liquid that particles move in: what it takes up and gives back, one particle at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SolventBath(nn.Module):
    """A liquid at rest, at one temperature, in which particles have a friction and to which they give their heat.

    Args:
        friction: ζ, force over velocity; one number, or one a species.
        exchange: κ, the rate of the heat that a particle exchanges for a difference k_B (T_s - T_i), 1 / time;
            likewise.
        temperature: k_B T_s, in units of energy.
        overdamped: whether the inertia of particles is left out: the state is then (r, S), and T_s the unit of energy,
            which is not learned.
        learned: whether the three are parameters of a training.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(
        self,
        *,
        friction: float | list[float],
        exchange: float | list[float],
        temperature: float,
        overdamped: bool = False,
        learned: bool = False,
    ) -> None:
        super().__init__()
        logs = {}
        for name, value in (("friction", friction), ("exchange", exchange), ("temperature", temperature)):
            values = torch.as_tensor(value, dtype=torch.float64)
            if not (torch.isfinite(values).all() and (values > 0).all()):
                raise ValueError(f"{name} of the solvent is {value}; it must be positive")
            logs[name] = torch.log(values)
        self.overdamped = overdamped
        self.log_friction = nn.Parameter(torch.atleast_1d(logs["friction"]), requires_grad=learned)
        self.log_exchange = nn.Parameter(torch.atleast_1d(logs["exchange"]), requires_grad=learned)
        self.log_temperature = nn.Parameter(logs["temperature"], requires_grad=learned and not overdamped)

    @torch.no_grad()
    def take(self, friction: Tensor, temperature: float) -> None:
        """Take what was measured: ``friction [S]`` of species, but where it is 0, and k_B T_s."""
        self.log_friction.copy_(torch.where(friction > 0.0, friction.log(), self.log_friction))
        self.log_temperature.fill_(math.log(temperature))

    @property
    def temperature(self) -> Tensor:
        """k_B T_s, 0-dim."""
        return torch.exp(self.log_temperature)

    def friction(self, count: int, species: Tensor | None = None) -> Tensor:
        """ζ of each particle, ``[N]``."""
        return self._of(self.log_friction, count, species)

    def exchange(self, count: int, species: Tensor | None = None) -> Tensor:
        """κ of each particle, ``[N]``."""
        return self._of(self.log_exchange, count, species)

    @staticmethod
    def _of(log: Tensor, count: int, species: Tensor | None) -> Tensor:
        values = torch.exp(log)
        return values.expand(count) if species is None or len(values) == 1 else values[species]
