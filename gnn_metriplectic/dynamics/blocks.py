"""The configuration of a system in blocks of pairs: whatever its size, a step works on what fits the cache.

Brackets are sums over pairs. Each block has brackets of its own, over its members, and those of the system are the
sums of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from gnn_metriplectic.brackets import DissipativeBracket, PoissonBracket
from gnn_metriplectic.geometry import Pairs, Partition
from gnn_metriplectic.models.metriplectic import Configuration, MetriplecticModel
from gnn_metriplectic.terms import EquationOfState, Thermo

Item = TypeVar("Item")


class Blocks:
    """Blocks of a configuration and sums over them.

    Args:
        model: terms and brackets.
        partition: the members of each block.
        pairs: of each block, numbered by member.
        species: ``[N]`` or None.

    Attributes:
        volume: of each particle, ``[N]``.
        parts: `Configuration` of each block.
    """

    def __init__(
        self, model: MetriplecticModel, partition: Partition, pairs: Sequence[Pairs], species: Tensor | None
    ) -> None:
        self.model, self.partition, self.species = model, partition, species
        if partition.members is None:
            self.parts = [model.configuration(pairs[0], species)]
            self.volume, self.bound = self.parts[0].volume, self.parts[0].bound
        else:
            model.check_species(species)
            found = [model.kernel.crowding(*block) for block in zip(pairs, partition.split(species), strict=True)]
            nobody = Pairs.none(partition.num_particles, pairs[0].displacement)
            crowding = partition.total([part for part, _ in found])
            self.volume = 1.0 / (model.kernel.at_zero(nobody, species) + crowding)
            volumes, slopes = partition.split(self.volume), [slope for _, slope in found]
            bonds = [model.bound(*block) for block in zip(pairs, partition.split(species), strict=True)]
            self.bound = None if model.potential is None else partition.total([energy for energy, _ in bonds])
            self.parts = [
                Configuration(of, volume, slope, bound=energy, tension=tension)
                for of, volume, slope, (energy, tension) in zip(pairs, volumes, slopes, bonds, strict=True)
            ]

    @cached_property
    def whole(self) -> Configuration:
        """The configuration in one piece, its pairs numbered as the particles are."""
        members = self.partition.members
        if members is None:
            return self.parts[0]
        return Configuration(
            Pairs.joined([part.pairs for part in self.parts], members, self.partition.num_particles),
            self.volume,
            torch.cat([part.slope for part in self.parts]),
            bound=self.bound,
            tension=None if self.bound is None else torch.cat([part.tension for part in self.parts]),
        )

    @property
    def law(self) -> EquationOfState:
        """Internal energy of each particle as a function of (S, V)."""
        return self.model.law(self.parts[0]._replace(bound=self.bound))

    def thermo(self, entropy: Tensor) -> Thermo:
        """State of each particle at entropies ``[N]``."""
        return self.law(entropy, self.volume, self.species)

    def poisson(self, thermo: Thermo) -> list[PoissonBracket]:
        """Reversible bracket of each block."""
        return [self.model.poisson(*block) for block in zip(self.parts, self._states(thermo), strict=True)]

    def dissipative(self, thermo: Thermo) -> Iterator[DissipativeBracket]:
        """Irreversible bracket of each block, made when it is asked for."""
        blocks = zip(self.parts, self._states(thermo), self.partition.split(self.species), strict=True)
        return (self.model.dissipative(*block) for block in blocks)

    def _states(self, thermo: Thermo) -> Iterator[Thermo]:
        return map(type(thermo)._make, zip(*map(self.partition.split, thermo), strict=True))

    def each(self, function: Callable[..., Item], *arguments: Tensor | Iterable) -> list[Item]:
        """What ``function`` gives in each block.

        Args:
            function: of a block's own arguments.
            arguments: values of all particles ``[N, ...]``, of which a block gets its members' ``[n, ...]``, or an
                iterable with one item a block.
        """
        parts = (self.partition.split(x) if isinstance(x, Tensor) else x for x in arguments)
        return [function(*block) for block in zip(*parts, strict=True)]

    def sum(self, function: Callable[..., Tensor], *arguments: Tensor | Iterable) -> Tensor:
        """Σ over blocks of values of members ``[n, ...]``, as of `each`: ``[N, ...]``."""
        return self.partition.total(self.each(function, *arguments))
