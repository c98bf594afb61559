"""The same model by plain automatic differentiation: what the exact derivatives of the package must equal.

Every slope comes from ``torch.autograd.grad`` through the value of the term, and the friction is evaluated at both
ends of each pair, as one would write it first.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models import MetriplecticModel
from gnn_metriplectic.terms.density import DensityKernel, LearnedKernel
from gnn_metriplectic.terms.energy import EquationOfState, LearnedEquationOfState, Thermo
from gnn_metriplectic.terms.friction import Friction, FrictionTerm, LearnedFriction


def plain_autograd(model: MetriplecticModel) -> MetriplecticModel:
    """A copy of a learned model whose terms take their derivatives by automatic differentiation."""
    plain = deepcopy(model)
    plain.kernel = AutogradKernel(plain.kernel)
    plain.equation_of_state = AutogradEquationOfState(plain.equation_of_state)
    plain.friction = AutogradFriction(plain.friction)
    return plain


def slope(value: Tensor, argument: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), argument, create_graph=True)[0]


def traced(argument: Tensor) -> Tensor:
    return argument if argument.requires_grad else argument.detach().requires_grad_()


class AutogradKernel(DensityKernel):
    def __init__(self, learned: LearnedKernel) -> None:
        super().__init__(learned.cutoff)
        self.learned = learned

    def forward(self, pairs: Pairs, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        learned = self.learned
        ends = (None, None) if species is None else pairs.ends(species)
        with torch.enable_grad():
            distance = traced(pairs.distance)
            rho = distance / learned.cutoff
            hidden = (rho * rho).unsqueeze(1) * learned.log_rate.exp() + learned.bias
            shift = learned.shift(*ends)
            fall = torch.sigmoid(hidden if shift is None else hidden + shift) @ learned.log_height.exp()
            value = learned.unit * torch.exp(learned.log_scale - fall) * (1.0 - rho * rho).clamp(min=0.0) ** 2
            return value, slope(value, distance)

    def at_zero(self, pairs: Pairs, species: Tensor | None = None) -> Tensor:
        return self.learned.at_zero(pairs, species)


class AutogradEquationOfState(EquationOfState):
    def __init__(self, learned: LearnedEquationOfState) -> None:
        super().__init__()
        self.learned = learned

    def forward(self, entropy: Tensor, volume: Tensor, species: Tensor | None = None) -> Thermo:
        with torch.enable_grad():
            entropy, volume = traced(entropy), traced(volume)
            energy = self.learned(entropy, volume, species).energy
            temperature, pressure = slope(energy, entropy), -slope(energy, volume)
            return Thermo(energy, temperature, pressure, temperature / slope(temperature, entropy))


class AutogradFriction(FrictionTerm):
    def __init__(self, learned: LearnedFriction) -> None:
        super().__init__()
        self.learned = learned

    def forward(
        self,
        pairs: Pairs,
        temperature: Tensor,
        fluctuation: Tensor,
        volume: Tensor,
        slope_: Tensor,
        species: Tensor | None = None,
    ) -> Friction:
        learned = self.learned
        rho = pairs.distance / learned.cutoff
        ends = (None, None) if species is None else pairs.ends(species)
        with torch.enable_grad():
            first, second = (traced(end) for end in pairs.ends(temperature))
            radial = learned.radial(rho, learned.shift(*ends)).view(-1, 3, learned.rank)
            window = (1.0 - rho * rho).clamp(min=0.0).unsqueeze(1)
            squared = learned.squared_scale * window**2
            for end in (first, second):
                thermal = learned.thermal(torch.log(end / learned.temperature_scale)).view(-1, 3, learned.rank - 1)
                exponent = radial[:, :, 0] + (radial[:, :, 1:] * thermal).sum(dim=2)
                squared = squared * torch.exp(2.0 * exponent)
            by_first, by_second = (
                torch.stack([slope(squared[:, k], end) for k in range(3)], dim=1) for end in (first, second)
            )
        change_first, change_second = (x.unsqueeze(1) for x in pairs.ends(fluctuation))
        sign = squared.new_tensor([1.0, 1.0, -1.0])  # of shear, bulk, heat
        return Friction(squared, by_first * change_first + sign * by_second * change_second)
