"""What all models of particles have in common, whatever moves them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models.state import State
from gnn_metriplectic.terms import Strain


class Configuration(NamedTuple):
    """What the positions alone determine.

    Attributes:
        pairs: within the cutoff, and of a solid its reference neighbours.
        volume: of each particle, ``[N]``; None where the model knows no volumes.
        slope: W' of each pair, ``[E]``; None likewise.
        strain: of a solid.
        rest_volume: of a solid, the volumes in the reference, ``[N]``.
        bound: energy of a pair potential, half of a pair's in each particle, ``[N]``; None without one.
        tension: φ' of each pair, ``[E]``; None likewise.
    """

    pairs: Pairs
    volume: Tensor | None = None
    slope: Tensor | None = None
    strain: Strain | None = None
    rest_volume: Tensor | None = None
    bound: Tensor | None = None
    tension: Tensor | None = None


class ParticleModel(nn.Module):
    """Particles of known mass that interact within a cutoff. A subclass has their law.

    Training, rollouts and scores need no more of a model than this, an integrator of `gnn_metriplectic.dynamics` and
    a likelihood of `gnn_metriplectic.learning` by one name.

    Args:
        cutoff: range of all interactions, in units of length.
        mass: of a particle; one number, or one a species.
        dt: the time step at which the model runs, in units of time.
        dimension: 2 or 3.
        learn_mass: whether the mass is a parameter of a training.

    Attributes:
        integrators: names of those that run the model, the default first.
        has_entropy: whether particles have an internal energy whose entropy and temperature mean something.
        is_solid: whether particles have reference neighbours.
        has_solvent: whether they are in a liquid, to which they lose momentum.
        encoder: of the entropy, or None.
        bath: the liquid around the particles, or None.
        is_overdamped: whether the state is (r, S) alone; its velocities are then displacements of a step over its time.
    """

    integrators: tuple[str, ...] = ()
    has_entropy: bool = False
    is_solid: bool = False
    has_solvent: bool = False
    is_overdamped: bool = False

    def __init__(
        self, cutoff: float, *, mass: float | list[float], dt: float, dimension: int, learn_mass: bool = False
    ) -> None:
        super().__init__()
        masses = torch.atleast_1d(torch.as_tensor(mass, dtype=torch.float64))
        if not (torch.isfinite(masses).all() and (masses > 0).all()):
            raise ValueError(f"mass is {mass}; it must be positive")
        if not dt > 0:
            raise ValueError(f"dt is {dt}; it must be positive")
        self.cutoff, self.dt, self.dimension = cutoff, float(dt), dimension
        self.log_mass = nn.Parameter(torch.log(masses), requires_grad=learn_mass)
        self.encoder: nn.Module | None = None
        self.bath: nn.Module | None = None

    @property
    def mass(self) -> Tensor:
        """Mass of a particle: 0-dim, or ``[species]`` where there are several."""
        return torch.exp(self.log_mass).squeeze()

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters."""
        return self.log_mass.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.log_mass.device

    def masses(self, count: int, species: Tensor | None) -> Tensor:
        """Mass of each particle, ``[N]``."""
        self.check_species(species)
        mass = torch.exp(self.log_mass)
        return mass.expand(count) if species is None else mass[species]

    def check_species(self, species: Tensor | None) -> None:
        """Raise ValueError for species ``[N]`` that the model does not know, or none where it has several."""
        known = self.log_mass.numel()
        if species is None:
            if known != 1:
                raise ValueError(f"the model has {known} species and the state names none: give species [N]")
            return
        for kind in (int(species.min()), int(species.max())):
            if not 0 <= kind < known:
                raise ValueError(f"species {kind} is unknown to a model of {known} species, numbered from 0")

    def check_integrator(self, name: str) -> None:
        """Raise ValueError unless the integrator ``name`` runs the model."""
        if name not in self.integrators:
            raise ValueError(f"integrator is {name!r}; choose one of {list(self.integrators)}")

    def configuration(self, pairs: Pairs, species: Tensor | None) -> Configuration:
        """What the positions alone determine; errors as of `check_species` and, of a solid, `check_bonds`."""
        self.check_species(species)
        if self.is_solid:
            self.check_bonds(pairs)
        return Configuration(pairs)

    def check_bonds(self, pairs: Pairs) -> None:
        """Raise ValueError unless the pairs of a solid have reference neighbours within the cutoff."""
        if pairs.bonds is None:
            raise ValueError(
                "the model is of a solid and the pairs have no reference neighbours: give them with the state or "
                "trajectory (reference=...), and to neighbor_pairs(..., reference=state.reference)"
            )
        reach = pairs.bonds.reference.reach
        if abs(reach / self.cutoff - 1.0) > 1e-6:
            raise ValueError(
                f"reference neighbours reach {reach:g} and the model's cutoff is {self.cutoff:g}; they must "
                "be equal: make the reference with Reference.from_positions(..., cutoff)"
            )

    def kinetic_energy(self, state: State) -> Tensor:
        """Σ ½ m v², 0-dim; without inertia none."""
        if self.is_overdamped:
            return state.vel.new_zeros(())
        mass = self.masses(state.pos.shape[0], state.species)
        return 0.5 * (mass.unsqueeze(1) * state.vel**2).sum()

    def momentum(self, state: State) -> Tensor:
        """Total momentum, ``[D]``."""
        return (self.masses(state.pos.shape[0], state.species).unsqueeze(1) * state.vel).sum(dim=0)

    def encode(self, pairs: Pairs, velocities: Tensor, species: Tensor | None = None) -> Tensor:
        """Entropy of each particle from its neighbours, ``[N]``; without inertia from their places alone.

        Raises ValueError where the model has no encoder (its entropy is an observed quantity), or not these species.
        """
        if self.encoder is None:
            raise ValueError("this model has no entropy encoder: give the entropies with the state")
        self.check_species(species)
        return self.encoder(pairs, self.known_velocities(velocities), species)

    def known_velocities(self, velocities: Tensor) -> Tensor:
        """Those that are part of the state: without inertia none, which is zero."""
        return torch.zeros_like(velocities) if self.is_overdamped else velocities
