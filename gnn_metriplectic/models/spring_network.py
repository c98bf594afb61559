"""A solid of springs and dashpots between reference neighbours."""

from __future__ import annotations

from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models.metriplectic import MetriplecticModel
from gnn_metriplectic.models.particles import Configuration


class SpringNetwork(MetriplecticModel):
    """Particles whose pairs are their reference neighbours, whatever else is within the cutoff."""

    is_solid = True

    def configuration(self, pairs: Pairs, species: Tensor | None) -> Configuration:
        """Of the reference neighbours; errors as of `check_species` and `check_bonds`."""
        self.check_bonds(pairs)
        return super().configuration(pairs.bonded, species)
