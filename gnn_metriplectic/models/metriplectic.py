"""Metriplectic particle dynamics: terms assembled into the two brackets.

    dx = (L ∇E + M ∇S_tot + k_B ∇·M) dt + dx̃,    dx̃ dx̃ᵀ = 2 k_B M dt

Hernández, Win, O'Connor, Arratia and Trask, *Data-driven particle dynamics* (arXiv 2508.12569).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gnn_metriplectic.brackets import BathBracket, DissipativeBracket, PoissonBracket
from gnn_metriplectic.brackets.elastic import ElasticForces
from gnn_metriplectic.brackets.poisson import poisson_matrix
from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models.particles import Configuration, ParticleModel
from gnn_metriplectic.models.state import State
from gnn_metriplectic.terms import (
    Bound,
    DensityKernel,
    ElasticEnergy,
    EntropyEncoder,
    EquationOfState,
    FrictionTerm,
    HeatBath,
    PairPotential,
    SolventBath,
    Strained,
    StrainTerm,
    Thermo,
)

_NOTHING_SEEN = [[math.inf, -math.inf]] * 2


class MetriplecticModel(ParticleModel):
    """Energy, entropy and friction of particles, learned or given by formulas.

    Args:
        kernel, equation_of_state, friction: the terms.
        mass: of a particle; one number, or one a species.
        k_B: Boltzmann's constant in the units of energy over those of entropy.
        dt: the time step at which the model runs, in units of time.
        dimension: 2 or 3.
        encoder: entropy from neighbours, or None where the entropy is known.
        bath: the liquid around the particles, if there is one.
        potential: of pairs of a fluid, beside U(S, V), or None.
        strain, elastic: of a solid, whose equation of state is one of (S, V / V of the reference); both or none.
        learn_mass, learn_k_B: whether these are parameters of a training.
    """

    def __init__(
        self,
        kernel: DensityKernel,
        equation_of_state: EquationOfState,
        friction: FrictionTerm,
        *,
        mass: float | list[float],
        k_B: float,
        dt: float,
        dimension: int,
        encoder: EntropyEncoder | None = None,
        bath: SolventBath | None = None,
        potential: PairPotential | None = None,
        strain: StrainTerm | None = None,
        elastic: ElasticEnergy | None = None,
        learn_mass: bool = False,
        learn_k_B: bool = False,
    ) -> None:
        super().__init__(kernel.cutoff, mass=mass, dt=dt, dimension=dimension, learn_mass=learn_mass)
        if not k_B > 0:
            raise ValueError(f"k_B is {k_B}; it must be positive")
        if (strain is None) != (elastic is None):
            raise ValueError("a solid has both a strain and an elastic energy, a fluid neither")
        self.strain, self.elastic, self.bath, self.potential = strain, elastic, bath, potential
        self.kernel, self.equation_of_state, self.friction, self.encoder = kernel, equation_of_state, friction, encoder
        self.log_k_B = nn.Parameter(torch.tensor(k_B, dtype=torch.float64).log(), requires_grad=learn_k_B)
        # least and greatest entropy and volume of the last epoch of training: where the networks are known
        self.register_buffer("seen", torch.tensor(_NOTHING_SEEN, dtype=torch.float64))

    @property
    def integrators(self) -> tuple[str, ...]:
        """Names of those that run the model, the default first."""
        return ("overdamped",) if self.is_overdamped else ("energy_conserving", "euler_maruyama")

    @property
    def k_B(self) -> Tensor:
        """Boltzmann's constant, 0-dim."""
        return torch.exp(self.log_k_B)

    def forget(self) -> None:
        """Empty ``seen``."""
        self.seen.copy_(torch.tensor(_NOTHING_SEEN))

    @torch.no_grad()
    def see(self, entropy: Tensor, volume: Tensor) -> None:
        """Widen ``seen``, ``[2, 2]``: least and greatest entropy, and volume, by those of a batch."""
        for row, values in zip(self.seen, (entropy, volume), strict=True):
            row[0], row[1] = torch.minimum(row[0], values.min()), torch.maximum(row[1], values.max())

    def configuration(self, pairs: Pairs, species: Tensor | None) -> Configuration:
        """Volumes and kernel slopes of a configuration.

        Raises ValueError as `check_species` and, of a solid, `check_bonds`.
        """
        self.check_species(species)
        volume, slope = self.kernel.volume(pairs, species)
        if self.strain is None:
            bound, tension = self.bound(pairs, species)
            return Configuration(pairs, volume, slope, bound=bound, tension=tension)
        self.check_bonds(pairs)
        rest_volume, _ = self.kernel.volume(pairs.bonds.reference.pairs, species)
        return Configuration(pairs, volume, slope, self.strain(pairs.bonds), rest_volume)

    def bound(self, pairs: Pairs, species: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """½ Σ_j φ of each particle, ``[N]``, and φ' of each pair, ``[E]``; None without a pair potential."""
        if self.potential is None:
            return None, None
        value, slope = self.potential(pairs, species)
        return 0.5 * pairs.total(value), slope

    @property
    def is_overdamped(self) -> bool:
        """Whether the state is (r, S) alone; its velocities are then displacements of a step over its time."""
        return self.bath is not None and self.bath.overdamped

    @property
    def is_solid(self) -> bool:
        """Whether particles have reference neighbours."""
        return self.strain is not None

    @property
    def has_solvent(self) -> bool:
        """Whether particles lose momentum to a liquid."""
        return self.bath is not None

    @property
    def has_entropy(self) -> bool:
        """False where every particle is a heat bath of one temperature: its entropy then is not felt by anything."""
        return not isinstance(self.equation_of_state, HeatBath)

    def law(self, configuration: Configuration) -> EquationOfState:
        """Internal energy of each particle in a configuration, as a function of (S, V)."""
        if configuration.bound is not None:
            return Bound(self.equation_of_state, configuration.bound)
        if configuration.strain is None:
            return self.equation_of_state
        measures = configuration.strain.measures
        return Strained(self.equation_of_state, self.elastic, measures, configuration.rest_volume)

    def thermo(self, configuration: Configuration, entropy: Tensor, species: Tensor | None) -> Thermo:
        """Energy, temperature, pressure and heat capacity of each particle."""
        return self.law(configuration)(entropy, configuration.volume, species)

    def poisson(self, configuration: Configuration, thermo: Thermo) -> PoissonBracket:
        """The reversible bracket."""
        pairs, volume, slope, strain, *_, tension = configuration
        elastic = None if strain is None else ElasticForces(strain, thermo.stiffness)
        return PoissonBracket(pairs, slope, thermo.pressure, volume, elastic, tension)

    def dissipative(self, configuration: Configuration, thermo: Thermo, species: Tensor | None) -> DissipativeBracket:
        """The irreversible bracket."""
        pairs, volume, slope, *_ = configuration
        friction = self.friction(pairs, thermo.temperature, self.k_B / thermo.heat_capacity, volume, slope, species)
        return DissipativeBracket(pairs, friction, thermo, self.masses(pairs.num_particles, species), self.k_B)

    def solvent(self, thermo: Thermo, species: Tensor | None) -> BathBracket | None:
        """The exchange with the solvent, if there is one."""
        if self.bath is None:
            return None
        count = len(thermo.temperature)
        friction, exchange = (of(count, species) for of in (self.bath.friction, self.bath.exchange))
        mass = self.masses(count, species)
        return BathBracket(friction, exchange, self.bath.temperature, thermo, mass, self.k_B)

    def brackets(self, state: State, pairs: Pairs) -> tuple[PoissonBracket, DissipativeBracket]:
        """Both brackets at a state."""
        configuration = self.configuration(pairs, state.species)
        thermo = self.thermo(configuration, state.entropy, state.species)
        return self.poisson(configuration, thermo), self.dissipative(configuration, thermo, state.species)

    def drift(self, state: State, pairs: Pairs) -> State:
        """L∇E + M∇S_tot + k_B ∇·M: rates of positions, velocities ``[N, D]`` and entropies ``[N]``."""
        poisson, dissipative = self.brackets(state, pairs)
        velocity, entropy = dissipative.drift(dissipative.pairs.relative(state.vel))
        solvent = self.solvent(dissipative.thermo, state.species)
        if solvent is not None:
            slowing, heating = solvent.drift(state.vel)
            velocity, entropy = velocity + slowing, entropy + heating
        return State(state.vel, velocity + poisson.forces() / dissipative.mass.unsqueeze(1), entropy)

    def covariance(self, state: State, pairs: Pairs, dt: float) -> Tensor:
        """The block of 2 k_B M dt of each particle over (v_i, S_i), ``[N, D+1, D+1]``."""
        _, dissipative = self.brackets(state, pairs)
        covariance = dissipative.covariance(dissipative.pairs.relative(state.vel))
        solvent = self.solvent(dissipative.thermo, state.species)
        if solvent is not None:
            covariance = covariance + torch.diag_embed(solvent.variances(self.dimension))
        return covariance * dt

    def energy(self, state: State, pairs: Pairs) -> Tensor:
        """Total energy, kinetic and internal, 0-dim."""
        configuration = self.configuration(pairs, state.species)
        return self.kinetic_energy(state) + self.thermo(configuration, state.entropy, state.species).energy.sum()

    def entropy(self, state: State) -> Tensor:
        """Total entropy, 0-dim."""
        return state.entropy.sum()

    def temperature(self, state: State, pairs: Pairs) -> Tensor:
        """Thermodynamic temperature T_i of each particle, ``[N]``; k_B times it is an energy."""
        return self.thermo(self.configuration(pairs, state.species), state.entropy, state.species).temperature

    def stress(self, state: State, pairs: Pairs, *, flow: Tensor | None = None) -> Tensor:
        """Mean stress tensor, ``[D, D]``, tension positive, without the random forces.

        σ V = -Σ_i m (v_i - u_i) ⊗ (v_i - u_i) - Σ_pairs r_ij ⊗ (f_ij + F_ij), where u is the local
        ``flow`` ``[N, D]`` (zero by default) and V the volume of the box, or in free space that of
        all particles. The pressure is -tr σ / D, and the viscosity in a flow v_x = γ̇ y is σ[1, 0] / γ̇ (friction is not
        central, so that σ[0, 1] differs).
        """
        total, volume = self._stresses(state, pairs, flow)
        return total.sum(dim=0) / (volume.sum() if pairs.volume is None else pairs.volume)

    def stresses(self, state: State, pairs: Pairs, *, flow: Tensor | None = None) -> Tensor:
        """Stress of each particle, ``[N, D, D]``: its kinetic part and half of each of its pairs, over its volume."""
        total, volume = self._stresses(state, pairs, flow)
        return total / volume[:, None, None]

    def _stresses(self, state: State, pairs: Pairs, flow: Tensor | None) -> tuple[Tensor, Tensor]:
        """σ V of each particle, ``[N, D, D]``, and V, ``[N]``."""
        poisson, dissipative = self.brackets(state, pairs)
        pairs = dissipative.pairs
        friction = dissipative.friction_forces(pairs.relative(state.vel))
        peculiar = state.vel if flow is None else state.vel - flow
        kinetic = torch.einsum("n,ni,nj->nij", dissipative.mass, peculiar, peculiar)
        rubbing = 0.5 * pairs.total(torch.einsum("ei,ej->eij", pairs.displacement, friction))
        return -(kinetic + poisson.virials() + rubbing), poisson.volume

    def friction_matrix(self, state: State, pairs: Pairs) -> Tensor:
        """Dense M of the pairs over [v.ravel(), S], square of side N (D + 1); for small N."""
        _, dissipative = self.brackets(state, pairs)
        return dissipative.matrix(state.vel)

    def poisson_matrix(self, state: State, pairs: Pairs) -> Tensor:
        """Dense L over [r.ravel(), v.ravel(), S], square of side N (2 D + 1); for small N."""
        return poisson_matrix(self.masses(state.pos.shape[0], state.species), state.pos.shape[1])
