"""The reference configuration of a solid: which particles are neighbours for good, and how they lay to one another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.geometry.neighbors import Pairs, neighbor_pairs

# beyond this condition number a shape tensor does not tell a deformation from its noise
_MOST_CONDITION = 1e6


@dataclass(frozen=True, eq=False)
class Reference:
    """Reference neighbours i < j of a solid, each pair once, kept whatever the particles do.

    A neighbour counts with the weight w = (1 - ρ²)², ρ = |r⁰|/reach.

    Attributes:
        index: ``[2, B]`` int64, the two particles of each pair.
        displacement: ``[B, D]``, r⁰_ij = r⁰_i - r⁰_j, in units of length.
        num_particles: N.
        reach: distance at which a neighbour ceases to count, in units of length; a model wants its cutoff.

    Raises:
        ValueError: pairs that are no pairs of these particles, that coincide, or reach too far; a particle whose
            shape tensor Q_i = Σ_j w r⁰ r⁰ᵀ is singular, so that it has no deformation gradient.
    """

    index: Tensor
    displacement: Tensor
    num_particles: int
    reach: float

    def __post_init__(self) -> None:
        index, displacement = self.index, self.displacement
        if index.dim() != 2 or index.shape[0] != 2 or displacement.shape[:1] != index.shape[1:]:
            raise ValueError(
                f"reference neighbours have index {list(index.shape)} and displacement {list(displacement.shape)}; "
                "they must be [2, B] and [B, D]"
            )
        if displacement.dim() != 2 or displacement.shape[1] not in (2, 3):
            raise ValueError(f"reference displacements have shape {list(displacement.shape)}; they must be [B, 2 or 3]")
        wrong = (index[0] >= index[1]) | (index < 0).any(dim=0) | (index >= self.num_particles).any(dim=0)
        if bool(wrong.any()):
            pair = int(wrong.nonzero()[0])
            raise ValueError(
                f"reference pair {pair} joins particles {index[:, pair].tolist()}; it must be i < j of "
                f"{self.num_particles} particles"
            )
        distance = torch.linalg.vector_norm(displacement, dim=1)
        # rounding may carry a pair to the reach
        wrong = ~((distance > 0) & (distance < self.reach * (1.0 + 1e-6)))
        if bool(wrong.any()):
            pair = int(wrong.nonzero()[0])
            raise ValueError(
                f"reference pair {pair}, particles {index[:, pair].tolist()}, is {float(distance[pair]):g} long; it "
                f"must be longer than 0 and shorter than the reach, {self.reach:g}"
            )
        self._check_shape()

    def __reduce__(self):
        # without what is cached, sparse matrices among it
        return Reference, (self.index, self.displacement, self.num_particles, self.reach)

    def _check_shape(self) -> None:
        shape, inverse = self.shape_tensor, self.shape_inverse
        condition = torch.linalg.matrix_norm(shape) * torch.linalg.matrix_norm(inverse)
        singular = ~(condition < _MOST_CONDITION)
        if bool(singular.any()):
            particle = int(singular.nonzero()[0])
            count = int((self.index == particle).sum())
            raise ValueError(
                f"the {count} reference neighbours of particle {particle} leave its shape tensor singular (too few, or "
                f"all in one {'line' if shape.shape[1] == 2 else 'plane'}; {int(singular.sum())} such particles): "
                f"take neighbours from further than {self.reach:g}, or leave out particles that belong to no solid"
            )

    @classmethod
    def from_positions(cls, pos: Tensor, box: Box, reach: float) -> Reference:
        """All pairs closer than ``reach`` in the configuration ``pos`` ``[N, D]``; errors as above."""
        pairs = neighbor_pairs(torch.as_tensor(pos).detach().double(), box, reach)
        return cls(pairs.index, pairs.displacement, pairs.num_particles, float(reach))

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs in the reference configuration."""
        return Pairs(self.index, self.displacement, self.num_particles)

    @cached_property
    def weight(self) -> Tensor:
        """w of each pair, ``[B]``."""
        return (1.0 - (self.pairs.distance / self.reach) ** 2).clamp(min=0.0) ** 2

    @cached_property
    def shape_tensor(self) -> Tensor:
        """Q = Σ_j w r⁰ r⁰ᵀ of each particle, ``[N, D, D]``."""
        weighted = (self.weight.unsqueeze(1) * self.displacement).unsqueeze(2)
        return self.pairs.total(weighted * self.displacement.unsqueeze(1))

    @cached_property
    def shape_inverse(self) -> Tensor:
        """Q⁻¹, ``[N, D, D]``; not finite where Q is singular."""
        inverse, info = torch.linalg.inv_ex(self.shape_tensor)
        return torch.where((info == 0)[:, None, None], inverse, torch.full_like(inverse, torch.nan))

    def bonds(self, pos: Tensor, box: Box) -> Bonds:
        """The pairs at positions ``[N, D]``; each r_ij is the image that is closest to r⁰_ij.

        Raises:
            ValueError: another number of particles, or a sheared box, whose images carry a solid apart.
        """
        if pos.shape[0] != self.num_particles:
            raise ValueError(f"the reference has {self.num_particles} particles and the positions {pos.shape[0]}")
        if box.shear_rate:
            raise ValueError("a solid cannot live in a sheared box, whose images tear it: prescribe its edges instead")
        reference = self.to(dtype=pos.dtype, device=pos.device)
        before = reference.displacement
        step = reference.pairs.difference_of_ends(pos) - before
        return Bonds(reference, reference.pairs.with_displacement(before + box.nearest(step)))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Reference:
        """The same reference in another floating type or on another device."""
        displacement = self.displacement.to(dtype=dtype, device=device)
        if displacement is self.displacement:
            return self
        return Reference(self.index.to(device=device), displacement, self.num_particles, self.reach)


class Bonds(NamedTuple):
    """Reference neighbours where they are now.

    Attributes:
        reference: where they belong.
        pairs: the same pairs at their present displacements r_ij.
    """

    reference: Reference
    pairs: Pairs

    def moved(self, step: Tensor) -> Bonds:
        """After particles moved by ``step`` ``[N, D]``."""
        return self._replace(pairs=self.pairs.moved(step))

    @property
    def stretch(self) -> Tensor:
        """|r| / |r⁰| of each pair, ``[B]``."""
        return self.pairs.distance / self.reference.pairs.distance

    @staticmethod
    def batch(items: list[Bonds]) -> Bonds:
        """Of solids laid end to end (particle numbers offset). Raises ValueError for different reaches."""
        reaches = {bonds.reference.reach for bonds in items}
        if len(reaches) > 1:
            raise ValueError(f"solids of one batch have reaches {sorted(reaches)}; they must share one")
        offset, index = 0, []
        for bonds in items:
            index.append(bonds.reference.index + offset)
            offset += bonds.reference.num_particles
        before = torch.cat([bonds.reference.displacement for bonds in items])
        reference = Reference(torch.cat(index, dim=1), before, offset, reaches.pop())
        return Bonds(
            reference, reference.pairs.with_displacement(torch.cat([bonds.pairs.displacement for bonds in items]))
        )
