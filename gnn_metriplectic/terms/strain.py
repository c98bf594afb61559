"""How far the surroundings of a particle are from their reference, as numbers that a rigid motion does not change.

measure     what it sees
I2          change of shape: second invariant dev:dev of the strain's deviator
H           what no uniform deformation explains (hourglass modes), the weighted mean of |r - F r⁰|²/|r⁰|²

symbol      variable
F           gradient, [N, D, D]
Q⁻¹         bonds.reference.shape_inverse
∂U/∂I2, ∂U/∂H     stiffness, [N, K]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.geometry import Bonds, dot
from gnn_metriplectic.terms.jets import silu_jet


def deviator(tensor: Tensor) -> Tensor:
    """A symmetric tensor ``[..., D, D]`` without its mean diagonal."""
    identity = torch.eye(tensor.shape[-1], dtype=tensor.dtype, device=tensor.device)
    mean = tensor.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    return tensor - mean[..., None, None] * identity


def square(tensor: Tensor) -> Tensor:
    """a:a of tensors, ``[N, D, D]`` -> ``[N]``."""
    return (tensor * tensor).sum(dim=(1, 2))


class Strain:
    """Strain of each particle at one configuration.

    Attributes:
        bonds: the reference neighbours.
        measures: ``[N, K]``, not negative, dimensionless, zero in the reference configuration.
    """

    bonds: Bonds
    measures: Tensor

    def share_forces(self, stiffness: Tensor) -> tuple[Tensor, Tensor]:
        """-∂U_i/∂r_ij and -∂U_j/∂r_ij of each reference pair, ``[B, D]`` each, from ∂U/∂measure ``[N, K]``."""
        raise NotImplementedError


class StrainTerm(nn.Module):
    """Makes the `Strain` of reference neighbours.

    Attributes:
        count: K, the number of measures.
    """

    count: int

    def forward(self, bonds: Bonds) -> Strain:
        """`Strain` at the present displacements."""
        raise NotImplementedError


class DeformationGradient(StrainTerm):
    """I2 of the Green strain of F = (Σ_j w r r⁰ᵀ) Q⁻¹, and H.

    F averages over neighbours, and so does not see motions in which they cancel; H is the energy of those.
    """

    count = 2

    def forward(self, bonds: Bonds) -> GradientStrain:
        reference, pairs = bonds
        weighted = (reference.weight.unsqueeze(1) * reference.displacement).unsqueeze(1)
        gradient = pairs.total(pairs.displacement.unsqueeze(2) * weighted) @ reference.shape_inverse
        return GradientStrain(bonds, gradient)


@dataclass(frozen=True)
class GradientStrain(Strain):
    """Measures (I2, H) and their forces.

    With E = ½ (FᵀF - 1), Z = tr Q and F the least-squares fit of r to r⁰, so that ∂H/∂F = 0:
    ∂I2/∂r_ij = 2 w F dev(E) Q⁻¹ r⁰_ij,  ∂H/∂r_ij = 2 w (r_ij - F r⁰_ij) / Z.

    Attributes:
        bonds: the reference neighbours.
        gradient: F of each particle, ``[N, D, D]``.
    """

    bonds: Bonds
    gradient: Tensor

    @cached_property
    def shear(self) -> Tensor:
        """dev E, ``[N, D, D]``."""
        product = self.gradient.transpose(1, 2) @ self.gradient
        identity = torch.eye(product.shape[1], dtype=product.dtype, device=product.device)
        return 0.5 * deviator(product - identity)

    @cached_property
    def trace(self) -> Tensor:
        """Z = Σ_j w |r⁰|², ``[N]``."""
        return self.bonds.reference.shape_tensor.diagonal(dim1=1, dim2=2).sum(dim=1)

    @cached_property
    def measures(self) -> Tensor:
        reference, pairs = self.bonds
        before = reference.displacement.unsqueeze(2)
        residues = []
        for gradient in pairs.ends(self.gradient):
            miss = pairs.displacement - (gradient @ before).squeeze(2)
            residues.append(reference.weight * dot(miss, miss))
        return torch.stack([square(self.shear), pairs.total_of_ends(*residues) / self.trace], dim=1)

    def share_forces(self, stiffness: Tensor) -> tuple[Tensor, Tensor]:
        reference, pairs = self.bonds
        spring = (2.0 * stiffness[:, 1] / self.trace)[:, None, None]
        stress = 2.0 * stiffness[:, :1, None] * (self.gradient @ self.shear @ reference.shape_inverse)
        # ∂U_i/∂r_ij = w (X_i r⁰ + spring_i r); for j both r and r⁰ change sign, and so does what is asked for
        joined = torch.cat([(stress - spring * self.gradient).flatten(1), spring.flatten(1)], dim=1)
        before, weight = reference.displacement.unsqueeze(2), reference.weight.unsqueeze(1)
        size = pairs.displacement.shape[1]
        first, second = (
            -weight * ((end[:, :-1].unflatten(1, (size, size)) @ before).squeeze(2) + end[:, -1:] * pairs.displacement)
            for end in pairs.ends(joined)
        )
        return first, second


class PairStrain(StrainTerm):
    """I2 of a strain that a network sums up from pairs (arXiv 2508.12569).

    ε_i = Σ_j w sym[n(u, r⁰) - n(0, r⁰)] / Σ_j w with u = r - r⁰ and n even, n(u, r⁰) = n(-u, -r⁰), so that a pair
    looks the same from both ends. It is zero at rest, but knows no rotations: a turned body is strained.
    """

    count = 1

    def __init__(self, reach: float, *, dimension: int, width: int) -> None:
        super().__init__()
        self.reach = reach
        self.first = nn.Linear(2 * dimension, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, dimension * dimension, bias=False)

    def forward(self, bonds: Bonds) -> PairwiseStrain:
        reference, pairs = bonds
        before = reference.displacement
        step = pairs.displacement - before
        network = sum(
            0.5 * (self.network(sign * step, sign * before) - self.network(0.0 * step, sign * before))
            for sign in (1.0, -1.0)
        )
        tensor = network.unflatten(1, 2 * before.shape[1:])
        symmetric = 0.5 * (tensor + tensor.transpose(1, 2))
        weight = pairs.total(reference.weight)[:, None, None]
        return PairwiseStrain(bonds, pairs.total(reference.weight[:, None, None] * symmetric) / weight, weight, self)

    def network(self, step: Tensor, before: Tensor) -> Tensor:
        """n(u, r⁰) ``[B, D²]`` from both, ``[B, D]``."""
        inputs = torch.cat([step, before], dim=1) / self.reach
        return self.last(functional.silu(self.second(functional.silu(self.first(inputs)))))

    def pulled_back(self, step: Tensor, before: Tensor, tensor: Tensor) -> Tensor:
        """∂(n:tensor)/∂u ``[B, D]``, by reverse mode, for tensors ``[B, D²]``."""
        one = torch.ones_like(step[:, :1])
        hidden, gate = silu_jet(self.first(torch.cat([step, before], dim=1) / self.reach), one)
        _, second_gate = silu_jet(self.second(hidden), one)
        back = ((tensor @ self.last.weight) * second_gate) @ self.second.weight * gate
        return back @ self.first.weight[:, : step.shape[1]] / self.reach


@dataclass(frozen=True)
class PairwiseStrain(Strain):
    """The measure I2 of ε and its forces.

    Attributes:
        bonds: the reference neighbours.
        tensor: ε of each particle, ``[N, D, D]``.
        weight: Σ_j w, ``[N, 1, 1]``.
        term: whose network made it.
    """

    bonds: Bonds
    tensor: Tensor
    weight: Tensor
    term: PairStrain

    @cached_property
    def measures(self) -> Tensor:
        return square(deviator(self.tensor)).unsqueeze(1)

    def share_forces(self, stiffness: Tensor) -> tuple[Tensor, Tensor]:
        reference, pairs = self.bonds
        before = reference.displacement
        step = pairs.displacement - before
        stress = 2.0 * stiffness[:, :, None] / self.weight * deviator(self.tensor)
        share = reference.weight.unsqueeze(1)
        first, second = (
            -0.5 * share * (self.term.pulled_back(step, before, end) - self.term.pulled_back(-step, -before, end))
            for end in pairs.ends(stress.flatten(1))
        )
        return first, second
