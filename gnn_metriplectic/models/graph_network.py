"""A graph network without structure: mean and covariance of the change of velocity over a time step.

Encode, process, decode (Sanchez-Gonzalez et al., *Learning to simulate complex physics with graph networks*, ICML
2020), with a Gaussian in place of a point, as the motion of coarse-grained particles is random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from gnn_metriplectic.geometry import Pairs, dot
from gnn_metriplectic.models.particles import ParticleModel
from gnn_metriplectic.terms.linear import Linear

# standard deviations lie within e⁻³ to e³ of the typical change of velocity
_SPREAD = 3.0


class GraphNetwork(ParticleModel):
    """Unchanged by numbering, translation and (but in a solvent) uniform motion; conserves nothing, knows no rotations.

    In a solid messages go between reference neighbours, and edges know where these belong.

    Args:
        cutoff: of the edges, in units of length.
        mass, dt, dimension, learn_mass: as of `ParticleModel`; dt is the whole step that the network has learned.
        speed: typical velocity component.
        increment: mean square change of a velocity component over dt.
        neighbors: typical number, by which sums of messages are divided.
        strain: of a solid, a typical one; None in a fluid.
        solvent: whether there is a liquid at rest, against which velocities matter.
        width: of all layers.
        hops: rounds of message passing.
        noise: spread of random numbers, in units of ``speed``, that are added to the velocities in training: the
            network then learns to lead back where a rollout has gone astray, and runs colder (docs/decisions.md).
    """

    integrators = ("increment",)

    def __init__(
        self,
        cutoff: float,
        *,
        mass: float | list[float],
        dt: float,
        dimension: int,
        learn_mass: bool = False,
        speed: float,
        increment: float,
        neighbors: float,
        strain: float | None = None,
        solvent: bool = False,
        width: int,
        hops: int,
        noise: float = 0.0,
    ) -> None:
        super().__init__(cutoff, mass=mass, dt=dt, dimension=dimension, learn_mass=learn_mass)
        if hops < 1:
            raise ValueError(f"the graph network has {hops} hops; it needs at least 1")
        if not noise >= 0:
            raise ValueError(f"the noise of the graph network is {noise}; it must be 0 or more")
        self.speed, self.unit, self.noise, self.strain = speed, increment**0.5, noise, strain
        self.node = nn.Embedding(self.log_mass.numel(), width)
        self.wind = Linear(dimension, width, bias=False) if solvent else None
        self.edge = _mlp(3 * dimension + 2 if strain is None else 5 * dimension + 3, width)
        self.rounds = nn.ModuleList(_Round(width, 1.0 / max(neighbors, 1.0)) for _ in range(hops))
        self.decoder = nn.Sequential(
            Linear(width, width), nn.SiLU(), nn.Linear(width, dimension + dimension * (dimension + 1) // 2)
        )
        nn.init.normal_(self.decoder[-1].weight, std=0.1 / width**0.5)
        nn.init.zeros_(self.decoder[-1].bias)

    @property
    def is_solid(self) -> bool:
        """Whether particles have reference neighbours."""
        return self.strain is not None

    @property
    def has_solvent(self) -> bool:
        """Whether particles are in a liquid."""
        return self.wind is not None

    def forward(self, pairs: Pairs, velocities: Tensor, species: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean ``[N, D]`` of the change of velocity, and the factor L ``[N, D, D]`` of its covariance L Lᵀ.

        Args:
            pairs: those beyond the cutoff have no weight; of a solid only the reference neighbours count.
            velocities: ``[N, D]``.
            species: ``[N]`` or None.
        """
        if self.is_solid:
            pairs = pairs.bonded
        first, second = pairs.index
        # messages go from the first row to the second: both ways along each pair
        index = torch.cat([torch.stack([second, first]), torch.stack([first, second])], dim=1)
        rho = (pairs.distance / self.cutoff).unsqueeze(1)
        relative = pairs.relative(velocities) / self.speed
        odd = [pairs.displacement / self.cutoff, pairs.direction, relative]
        even = [rho, dot(relative, pairs.direction).unsqueeze(1)]
        window = (1.0 - rho * rho).clamp(min=0.0).square()
        if self.is_solid:
            reference, length = pairs.bonds.reference, self.strain * pairs.bonds.reference.pairs.distance.unsqueeze(1)
            odd += [reference.displacement / self.cutoff, (pairs.displacement - reference.displacement) / length]
            even += [(pairs.bonds.stretch.unsqueeze(1) - 1.0) / self.strain]
            window = reference.weight.unsqueeze(1)
        odd, even, window = torch.cat(odd, dim=1), torch.cat(even, dim=1).repeat(2, 1), window.repeat(2, 1)
        edges = self.edge(torch.cat([torch.cat([odd, -odd]), even], dim=1))
        nodes = self.node(index.new_zeros(len(velocities)) if species is None else species)
        if self.has_solvent:
            nodes = nodes + self.wind(velocities / self.speed)
        for update in self.rounds:
            nodes, edges = update(nodes, edges, index, window)
        return self._decode(self.decoder(nodes))

    def _decode(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        size = self.dimension
        mean, diagonal, below = numbers.split([size, size, numbers.shape[1] - 2 * size], dim=1)
        factor = torch.diag_embed(torch.exp(_SPREAD * torch.tanh(diagonal / _SPREAD)))
        row, column = torch.tril_indices(size, size, -1, device=numbers.device)
        factor[:, row, column] = below
        return self.unit * mean, self.unit * factor


class _Round(MessagePassing):
    """Edges hear their two nodes, then nodes their edges; both add what they learn."""

    def __init__(self, width: int, weight: float) -> None:
        super().__init__(aggr="sum")
        self.weight = weight
        # the first layer on (edge, target, source), of which nodes have their share once a node
        self.ends, self.edge_layer = Linear(width, 2 * width), Linear(width, width)
        self.edge_rest = nn.Sequential(nn.SiLU(), Linear(width, width), nn.LayerNorm(width))
        self.node_mlp = _mlp(2 * width, width)

    def forward(self, nodes: Tensor, edges: Tensor, index: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        as_target, as_source = self.ends(nodes).chunk(2, dim=1)
        edges = edges + self.edge_updater(index, ends=(as_source, as_target), edges=edges)
        heard = self.propagate(index, edges=edges, window=window, size=(len(nodes), len(nodes)))
        return nodes + self.node_mlp(torch.cat([nodes, self.weight * heard], dim=1)), edges

    def edge_update(self, ends_i: Tensor, ends_j: Tensor, edges: Tensor) -> Tensor:
        return self.edge_rest(ends_i + ends_j + self.edge_layer(edges))

    def message(self, edges: Tensor, window: Tensor) -> Tensor:
        return window * edges


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(Linear(inputs, width), nn.SiLU(), Linear(width, width), nn.LayerNorm(width))
