"""The energy of a solid: a volumetric part with a rest state, and an elastic one that its strain stores.

U(S, V, measures) = U_vol(S, J) + U_dev(S, measures)            J = V / V⁰, the volume over that in the reference

T = ∂(U_vol + U_dev)/∂S,    P = -∂U_vol/∂V,    stiffness = ∂U_dev/∂measure
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.terms.energy import EquationOfState, Thermo

# share of the first guess of a modulus that is left to terms which can bend
BENDING = 0.02


def softplus(x: Tensor) -> Tensor:
    """ln(1 + exp x), whose slope is the sigmoid everywhere (torch's is x itself beyond 20)."""
    return -functional.logsigmoid(-x)


class Elastic(NamedTuple):
    """U_dev of each particle and its derivatives.

    Attributes:
        energy: U_dev, ``[N]``.
        temperature: ∂U_dev/∂S, ``[N]``.
        curvature: ∂²U_dev/∂S², ``[N]``.
        stiffness: ∂U_dev/∂measure, ``[N, K]``.
    """

    energy: Tensor
    temperature: Tensor
    curvature: Tensor
    stiffness: Tensor


class SolidThermo(NamedTuple):
    """State of each particle of a solid: a `Thermo` and the stiffness against each measure.

    Attributes:
        energy, temperature, pressure: as in `Thermo`, ``[N]``.
        heat_capacity: at constant volume and strain, ``[N]``.
        stiffness: ∂U/∂measure, ``[N, K]``.
    """

    energy: Tensor
    temperature: Tensor
    pressure: Tensor
    heat_capacity: Tensor
    stiffness: Tensor


class ElasticEnergy(nn.Module):
    """U_dev(S, measures): zero without strain, increasing and convex in S and in each measure.

    Subclasses give ``forward``.
    """

    def forward(self, entropy: Tensor, measures: Tensor) -> Elastic:
        """`Elastic` from S ``[N]`` and the measures of the strain ``[N, K]``."""
        raise NotImplementedError


class Strained(EquationOfState):
    """The equation of state of a solid in one configuration, as a function of (S, V).

    Args:
        volumetric: U_vol(S, J).
        elastic: U_dev.
        measures: of the strain, ``[N, K]``.
        rest_volume: V⁰ of each particle, ``[N]``.
    """

    def __init__(
        self, volumetric: EquationOfState, elastic: ElasticEnergy, measures: Tensor, rest_volume: Tensor
    ) -> None:
        super().__init__()
        self.volumetric, self.elastic, self.measures, self.rest_volume = volumetric, elastic, measures, rest_volume

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> SolidThermo:
        thermo = self.volumetric(entropy, volume / self.rest_volume, species)
        stored = self.elastic(entropy, self.measures)
        temperature = thermo.temperature + stored.temperature
        return SolidThermo(
            thermo.energy + stored.energy,
            temperature,
            thermo.pressure / self.rest_volume,
            temperature / (thermo.temperature / thermo.heat_capacity + stored.curvature),
            stored.stiffness,
        )


class HookeanVolume(EquationOfState):
    """U_vol = C T₀ exp(S/C) + ½ K V₀ (J - 1)².

    Args:
        bulk_modulus: K.
        volume: V₀ of a particle.
        heat_capacity: C.
        temperature: T₀, at S = 0.
    """

    def __init__(self, *, bulk_modulus: float, volume: float, heat_capacity: float, temperature: float) -> None:
        super().__init__()
        self.scale, self.capacity, self.temperature = bulk_modulus * volume, heat_capacity, temperature

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        temperature = self.temperature * torch.exp(entropy / self.capacity)
        excess = volume - 1.0
        energy = self.capacity * temperature + 0.5 * self.scale * excess**2
        return Thermo(energy, temperature, -self.scale * excess, torch.full_like(energy, self.capacity))


class HookeanShear(ElasticEnergy):
    """U_dev = V₀ (μ I2 + χ H): μ is the shear modulus, χ holds the hourglass modes.

    Args:
        shear_modulus: μ.
        hourglass_modulus: χ.
        volume: V₀ of a particle.
    """

    def __init__(self, *, shear_modulus: float, hourglass_modulus: float, volume: float) -> None:
        super().__init__()
        self.register_buffer("moduli", volume * torch.tensor([shear_modulus, hourglass_modulus], dtype=torch.float64))

    def forward(self, entropy: Tensor, measures: Tensor) -> Elastic:
        none = torch.zeros_like(entropy)
        return Elastic(measures @ self.moduli, none, none, self.moduli.expand_as(measures))


class LearnedVolume(EquationOfState):
    """A cold curve with a rest state and thermal exponentials, in the way of Mie and Grüneisen.

    U_vol = E [c (x - ln J) + Σ_k c_k (s_k(x) - s_k(0) - s_k'(0) x)] + Θ Σ_k n_k (exp(a_k S/S₀ - g_k x) + g_k x)

    with x = J - 1, s_k(x) = softplus(b_k x + d_k) / b_k² and all c, n, a > 0 is convex in (S, J), and has one minimum
    in J, as it grows without bound at both ends. At S = 0 that is the reference, where nothing pulls. T > 0 grows
    without bound with S.

    Args:
        modulus: E, first guess of ∂²U_vol/∂J² at rest, in units of energy.
        energy: Θ, k_B T of a particle.
        entropy: S₀.
        heat_capacity: first guess of C, in units of k_B.
        width: terms in the sum over softplus.
        exponentials: terms in the thermal sum.
    """

    def __init__(
        self,
        *,
        modulus: float,
        energy: float,
        entropy: float,
        heat_capacity: float,
        width: int,
        exponentials: int = 4,
    ) -> None:
        super().__init__()
        self.modulus, self.energy, self.entropy = modulus, energy, entropy
        self.log_modulus = nn.Parameter(torch.tensor(1.0 - BENDING).log())
        # of each a share of the curvature, which is a quarter of c_k where the softplus bends
        self.log_bend = nn.Parameter(torch.full((width,), 4.0 * BENDING / width).log())
        steepness = torch.logspace(0.5, 1.5, (width + 1) // 2)
        self.steepness = nn.Parameter(torch.cat([steepness, -steepness])[:width])
        self.offset = nn.Parameter(torch.zeros(width))
        spread = torch.linspace(-0.3, 0.3, exponentials)
        self.log_exponent = nn.Parameter(spread - 0.5 * torch.tensor(heat_capacity).log())
        self.log_coefficient = nn.Parameter(torch.full((exponentials,), heat_capacity / exponentials).log())
        # of one unit expansion the thermal part of the bulk modulus is E
        self.expansion = nn.Parameter(torch.zeros(exponentials))
        self.expansion_unit = math.sqrt(modulus / (energy * heat_capacity))

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        excess = volume - 1.0
        modulus, bend = torch.exp(self.log_modulus), torch.exp(self.log_bend)
        rise = excess.unsqueeze(1) * self.steepness
        bent, at_rest = rise + self.offset, torch.sigmoid(self.offset)
        above = softplus(bent) - softplus(self.offset) - at_rest * rise
        cold = modulus * (excess - torch.log(volume)) + above @ (bend / self.steepness**2)
        slope = modulus * (1.0 - 1.0 / volume) + (torch.sigmoid(bent) - at_rest) @ (bend / self.steepness)
        exponent, expansion = torch.exp(self.log_exponent), self.expansion_unit * self.expansion
        coefficient = torch.exp(self.log_coefficient)
        growth = coefficient * torch.exp(
            (entropy / self.entropy).unsqueeze(1) * exponent - excess.unsqueeze(1) * expansion
        )
        return Thermo(
            self.modulus * cold + self.energy * (growth.sum(dim=1) + excess * (coefficient @ expansion)),
            self.energy / self.entropy * (growth @ exponent),
            self.energy * ((growth - coefficient) @ expansion) - self.modulus * slope,
            self.entropy * (growth @ exponent) / (growth @ exponent**2),
        )


class LearnedShear(ElasticEnergy):
    """Increasing convex functions of the first measure I2, linear in the others, with entropic elasticity.

    U_dev = E [c I2 + Σ_k c_k (softplus(b_k I2 + d_k) - softplus(d_k)) / b_k] + χ H + Θ g exp(a S/S₀) I2

    with all constants but d > 0. Without strain it vanishes, and so does its share of T.

    Args:
        moduli: first guesses of ∂U_dev/∂measure at rest, in units of energy: E, and χ where H is measured.
        energy: Θ, k_B T of a particle.
        entropy: S₀.
        width: terms in the sum.
    """

    def __init__(self, *, moduli: list[float], energy: float, entropy: float, width: int) -> None:
        super().__init__()
        self.energy, self.entropy = energy, entropy
        self.register_buffer("moduli", torch.tensor(moduli), persistent=False)
        first = torch.zeros(len(moduli))
        first[0] = math.log(1.0 - BENDING)
        self.log_moduli = nn.Parameter(first)
        # of each a share of the slope, which is half of c_k at rest
        self.log_bend = nn.Parameter(torch.full((width,), 2.0 * BENDING / width).log())
        self.log_steepness = nn.Parameter(torch.linspace(1.0, 6.0, width))
        self.offset = nn.Parameter(torch.zeros(width))
        self.log_thermal = nn.Parameter(torch.tensor([-3.0, -3.0]))

    def forward(self, entropy: Tensor, measures: Tensor) -> Elastic:
        linear = self.moduli * torch.exp(self.log_moduli)
        bend, steepness = self.moduli[0] * torch.exp(self.log_bend), torch.exp(self.log_steepness)
        shape = measures[:, 0]
        bent = shape.unsqueeze(1) * steepness + self.offset
        rise = softplus(bent) - softplus(self.offset)
        cold = measures @ linear + rise @ (bend / steepness)
        slope = torch.sigmoid(bent) @ bend
        coefficient, exponent = torch.exp(self.log_thermal)
        thermal = self.energy * coefficient * torch.exp(exponent * entropy / self.entropy)
        rate = exponent / self.entropy
        stiffness = linear.expand_as(measures)
        first = stiffness[:, 0] + slope + thermal
        return Elastic(
            cold + thermal * shape,
            rate * thermal * shape,
            rate**2 * thermal * shape,
            torch.cat([first.unsqueeze(1), stiffness[:, 1:]], dim=1),
        )
