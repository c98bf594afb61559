"""The terms of the model published with arXiv 2508.12569, for weights trained elsewhere.

They differ from the learned terms of this package in their windows: W = exp(n(ρ)) (1 - ρ²) has a
slope at the cutoff, and the friction a jump, so forces are not continuous there. No gauge is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.terms.density import DensityKernel
from gnn_metriplectic.terms.energy import EquationOfState, Thermo
from gnn_metriplectic.terms.friction import Friction, FrictionTerm
from gnn_metriplectic.terms.jets import silu_jet

Layer = tuple[Tensor, Tensor]


class GivenNetwork(nn.Module):
    """A SiLU network with one output and given layers, with its slope along one input on request.

    Args:
        layers: weight ``[out, in]`` and bias ``[out]`` of each layer; their floating type is kept.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(weight.clone()) for weight, _ in layers)
        self.biases = nn.ParameterList(nn.Parameter(bias.clone()) for _, bias in layers)

    def forward(self, x: Tensor) -> Tensor:
        """Values ``[M]`` at ``x`` ``[M, inputs]``."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.linear(functional.silu(x) if number else x, weight, bias)
        return x.squeeze(1)

    def jet(self, x: Tensor, along: int) -> tuple[Tensor, Tensor]:
        """Values and their derivatives with input number ``along``, both ``[M]``, at ``x`` ``[M, inputs]``."""
        slope = torch.zeros_like(x)
        slope[:, along] = 1.0
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if number:
                x, slope = silu_jet(x, slope)
            x, slope = functional.linear(x, weight, bias), slope @ weight.T
        return x.squeeze(1), slope.squeeze(1)


class PublishedKernel(DensityKernel):
    """W = exp(n(ρ)) (1 - ρ²), ρ = r / cutoff; continuous at the cutoff, its slope is not.

    Args:
        cutoff: h.
        layers: of n, one input.
    """

    def __init__(self, cutoff: float, layers: Sequence[Layer]) -> None:
        super().__init__(cutoff)
        self.network = GivenNetwork(layers)

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho = pairs.distance / self.cutoff
        inside = rho < 1.0
        rho = rho.clamp(max=1.0)
        log, log_slope = self.network.jet(rho.unsqueeze(1), 0)
        scale = torch.where(inside, torch.exp(log), 0.0)
        value = scale * (1.0 - rho * rho)
        return value, (value * log_slope - 2.0 * rho * scale) / self.cutoff

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        return torch.exp(self.network(pairs.displacement.new_zeros(1, 1))).expand(pairs.num_particles)


class PublishedEquationOfState(EquationOfState):
    """U = w₃·softplus(W₂ softplus(W₁ (S, V) + b₁) + b₂) + b₃ with weights |W|, and -|W₁| for V.

    Convex, increasing in S and decreasing in V. The temperature has a ceiling: U becomes linear in S.

    Args:
        layers: of the network, two inputs, signs as stored.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(weight.clone()) for weight, _ in layers)
        self.biases = nn.ParameterList(nn.Parameter(bias.clone()) for _, bias in layers)

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        value = torch.stack([entropy, -volume], dim=1)
        # along S, along -V, and along S twice
        first, second, curve = torch.zeros_like(value), torch.zeros_like(value), torch.zeros_like(value)
        first[:, 0], second[:, 1] = 1.0, 1.0
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if number:
                gate = torch.sigmoid(value)
                curve = gate * (curve + (1.0 - gate) * first * first)
                value, first, second = functional.softplus(value), gate * first, gate * second
            weight = weight.abs()
            value = functional.linear(value, weight, bias)
            first, second, curve = (tangent @ weight.T for tangent in (first, second, curve))
        energy, temperature, pressure, curvature = (x.squeeze(1) for x in (value, first, second, curve))
        return Thermo(energy, temperature, pressure, temperature / curvature)


class PublishedFriction(FrictionTerm):
    """A_ij = a(ρ, T_i) a(ρ, T_j), likewise B and K, for ρ = r / cutoff < 1; zero beyond.

    Args:
        cutoff: h.
        shear, bulk, heat: layers of a, b and k, inputs (ρ, T).
    """

    def __init__(self, cutoff: float, *, shear: Sequence[Layer], bulk: Sequence[Layer], heat: Sequence[Layer]) -> None:
        super().__init__()
        self.cutoff = cutoff
        # in the order of SHEAR, BULK, HEAT
        self.networks = nn.ModuleList(GivenNetwork(layers) for layers in (shear, bulk, heat))

    def forward(
        self,
        pairs: Pairs,
        temperature: Tensor,
        fluctuation: Tensor,
        volume: Tensor,
        slope: Tensor,
        species: Tensor | None = None,
    ) -> Friction:
        rho = pairs.distance / self.cutoff
        inputs = torch.stack([rho.repeat(2), torch.cat(pairs.ends(temperature))], dim=1)
        value, by_temperature = (
            torch.stack(column, dim=1)
            for column in zip(*(network.jet(inputs, 1) for network in self.networks), strict=True)
        )
        inside = (rho < 1.0).unsqueeze(1)
        change = by_temperature * torch.cat(pairs.ends(fluctuation)).unsqueeze(1)
        (first, second), (change_first, change_second) = value.chunk(2), change.chunk(2)
        amplitude = first * second
        sign = value.new_tensor([1.0, 1.0, -1.0])  # of SHEAR, BULK, HEAT
        ito = 2.0 * amplitude * (change_first * second + sign * first * change_second)
        return Friction(torch.where(inside, amplitude * amplitude, 0.0), torch.where(inside, ito, 0.0))


class PublishedEncoder(nn.Module):
    """A first guess of S from the velocity components of the neighbours.

    S_i is the mean over neighbours of ½ (t(ρ, v_ij) + t(ρ, -v_ij)). Taking both orientations makes it
    independent of numbering and of the direction of time, and Galilean invariant; it still depends on
    the axes. A particle without neighbours gets t(1, 0), as from one at rest that is about to enter.

    Args:
        cutoff: h.
        layers: of t, inputs (ρ, v_ij).
    """

    def __init__(self, cutoff: float, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.network = GivenNetwork(layers)

    def forward(self, pairs: Pairs, velocities: Tensor, species: Tensor | None = None) -> Tensor:
        """Entropy ``[N]`` from velocities ``[N, D]``."""
        rho = (pairs.distance / self.cutoff).unsqueeze(1)
        relative = pairs.relative(velocities)
        forward = self.network(torch.cat([rho, relative], dim=1))
        backward = self.network(torch.cat([rho, -relative], dim=1))
        total, count = pairs.total(torch.stack([0.5 * (forward + backward), torch.ones_like(forward)], dim=1)).T
        lone = velocities.new_zeros(1, 1 + velocities.shape[1])
        lone[:, 0] = 1.0
        return torch.where(count > 0, total / count.clamp(min=1.0), self.network(lone))
