"""Internal energy of a particle as a function of its entropy and volume."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.terms.linear import linear
from gnn_metriplectic.terms.rows import by_rows


class Thermo(NamedTuple):
    """State of each particle, all ``[N]``.

    Attributes:
        energy: U.
        temperature: T = dU/dS.
        pressure: P = -dU/dV.
        heat_capacity: C = T / (dT/dS), at constant volume.
    """

    energy: Tensor
    temperature: Tensor
    pressure: Tensor
    heat_capacity: Tensor


class EquationOfState(nn.Module):
    """U(S, V), increasing in S (T > 0), decreasing in V (P > 0) and convex (stable).

    Subclasses give ``forward``. The temperature has to grow without bound with S.
    """

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        """`Thermo` of particles from ``entropy`` and ``volume``, both ``[N]``."""
        raise NotImplementedError

    def anywhere(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        """As ``forward``, for searches, which may pass through states where a model is not known."""
        return self(entropy, volume, species)

    def entropy_of(
        self,
        energy: Tensor,
        volume: Tensor,
        guess: Tensor,
        species: Tensor | None = None,
        *,
        known: Thermo | None = None,
    ) -> tuple[Tensor, Thermo]:
        """Entropy ``[N]`` at which U(S, V) = ``energy``, and the state there, by Halley's method.

        Args:
            energy, volume: of each particle, ``[N]``.
            guess: of the entropy, ``[N]``.
            species: ``[N]`` or None.
            known: the state at ``guess``, where it was computed before.

        Raises:
            ValueError: a particle whose internal energy is below the smallest that U has at its
                volume, so that no temperature belongs to it.
        """
        entropy = guess
        tolerance = 4.0 * torch.finfo(energy.dtype).eps
        previous = None
        for _ in range(60):
            now = self.anywhere(entropy, volume, species) if known is None else known
            known = None
            error = energy - now.energy
            worst = float((error.abs() / (energy.abs() + now.energy.abs())).max())
            if worst <= tolerance or (previous is not None and worst < 1e3 * tolerance and worst >= previous):
                return entropy, now  # at round-off, or no longer improving just above it
            previous = worst
            # Newton's step in units of the heat capacity; the curvature of U, T/C, makes it Halley's
            step = torch.clamp(error / (now.temperature * now.heat_capacity), -1.0, 4.0)
            entropy = entropy + now.heat_capacity * step / (1.0 + 0.5 * step)
            if not torch.isfinite(entropy).all():
                break
        bad = int(torch.argmax(torch.nan_to_num((error / energy).abs(), nan=torch.inf)))
        raise ValueError(
            f"particle {bad} has internal energy {float(energy[bad]):.6g} at volume {float(volume[bad]):.6g}, to which "
            "no temperature belongs: use a smaller time step, or train over a wider range of states"
        )


class Bound(EquationOfState):
    """U(S, V) and an energy that the positions alone give each particle.

    Args:
        law: U(S, V).
        energy: of each particle, ``[N]``.
    """

    def __init__(self, law: EquationOfState, energy: Tensor) -> None:
        super().__init__()
        self.law, self.bound = law, energy

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        thermo = self.law(entropy, volume, species)
        return thermo._replace(energy=thermo.energy + self.bound)

    def entropy_of(
        self,
        energy: Tensor,
        volume: Tensor,
        guess: Tensor,
        species: Tensor | None = None,
        *,
        known: Thermo | None = None,
    ) -> tuple[Tensor, Thermo]:
        if known is not None:
            known = known._replace(energy=known.energy - self.bound)
        entropy, thermo = self.law.entropy_of(energy - self.bound, volume, guess, species, known=known)
        return entropy, thermo._replace(energy=thermo.energy + self.bound)


class LearnedEquationOfState(EquationOfState):
    """A monotone-convex network of (S, -ln V) plus exponentials.

    With x = (S/S₀, -ln V/V₀) and non-negative weights, u = w·softplus(W₂ softplus(W₁ x + b₁) + b₂) + Σ_k c_k exp(a_k·x)
    increases in S, decreases in V and is convex in both (-ln V is convex, and u a convex increasing
    function of it). The exponentials let T grow without bound at a finite heat capacity.

    Args:
        energy, volume, entropy, heat_capacity: scales U₀, V₀, S₀, and the heat capacity at the start in k_B.
        width: of the network.
        species: number of them.
        exponentials: number of them.
        compressible: whether U depends on V. Rigid particles have U(S): nothing but their potential and friction acts.
    """

    def __init__(
        self,
        *,
        energy: float,
        volume: float,
        entropy: float,
        heat_capacity: float,
        width: int,
        species: int = 1,
        exponentials: int = 4,
        compressible: bool = True,
    ) -> None:
        super().__init__()
        self.compressible = compressible
        scales = {"energy": energy, "volume": volume, "entropy": entropy, "heat_capacity": heat_capacity}
        for name, value in scales.items():
            if not value > 0:
                raise ValueError(f"{name} scale of the equation of state is {value}; it must be positive")
        self.energy_scale, self.volume_scale, self.entropy_scale = energy, volume, entropy
        self.first = nn.Parameter(torch.randn(width, 2) * 0.5)
        self.first_bias = nn.Parameter(torch.randn(width))
        self.second = nn.Parameter(torch.randn(width, width) * 0.5 - 4.0)
        self.second_bias = nn.Parameter(torch.randn(width))
        self.last = nn.Parameter(torch.randn(width) * 0.5 - 4.0)
        # start as an ideal gas of this heat capacity (in units of k_B) whose entropy has the spread S₀
        spread = torch.linspace(-0.3, 0.3, exponentials)
        start = torch.tensor([heat_capacity**-0.5, 2.0 / 3.0]).log() + spread[:, None] * torch.tensor([1.0, -1.0])
        self.log_exponent = nn.Parameter(start)
        self.log_coefficient = nn.Parameter(torch.full((exponentials,), heat_capacity / exponentials).log())
        self.species_shift = nn.Embedding(species, 2) if species > 1 else None

    @by_rows
    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        crowding = -torch.log(volume / self.volume_scale)
        if not self.compressible:
            crowding = 0.0 * crowding  # tables take derivatives along ln V
        x = torch.stack([entropy / self.entropy_scale, crowding], dim=1)
        if self.species_shift is not None:
            x = x + self.species_shift(species)
        value, in_entropy, in_log, curvature = self._softplus_jet(x)
        exponent = torch.exp(self.log_exponent)
        growth = torch.exp(x @ exponent.T + self.log_coefficient)
        a, b = exponent.unbind(dim=1)
        value = value + growth.sum(dim=1)
        in_entropy = in_entropy + growth @ a
        in_log = in_log + growth @ b
        curvature = curvature + growth @ (a * a)
        return Thermo(
            self.energy_scale * value,
            self.energy_scale / self.entropy_scale * in_entropy,
            self.energy_scale * in_log / volume if self.compressible else torch.zeros_like(volume),
            self.entropy_scale * in_entropy / curvature,
        )

    def _softplus_jet(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Value, first derivatives along S and -ln V, and second along S, of the two-layer network."""
        w1, w2, w3 = (functional.softplus(w) for w in (self.first, self.second, self.last))
        z = x @ w1.T + self.first_bias
        gate = torch.sigmoid(z)
        tangents = torch.cat([gate * w1[:, 0], gate * w1[:, 1], gate * (1.0 - gate) * w1[:, 0] ** 2])
        z = linear(functional.softplus(z), w2, self.second_bias)
        along_s, along_log, curve = linear(tangents, w2).chunk(3)
        gate = torch.sigmoid(z)
        curve = gate * curve + gate * (1.0 - gate) * along_s**2
        return functional.softplus(z) @ w3, (gate * along_s) @ w3, (gate * along_log) @ w3, curve @ w3
