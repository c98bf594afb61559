"""One step of the stochastic dynamics.

name                 conserves
energy_conserving    momentum and total energy to round-off, at any dt
euler_maruyama       momentum; energy only on average (the scheme of arXiv 2508.12569)
increment            nothing: the map that a graph network has learned
overdamped           total energy to round-off (`overdamped.py`)

A solvent takes momentum, and the energy that it gives is booked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from gnn_metriplectic.allocator import keep_freed_memory
from gnn_metriplectic.brackets import DissipativeBracket, PoissonBracket
from gnn_metriplectic.brackets.dissipative import apply_tensor
from gnn_metriplectic.dynamics.blocks import Blocks
from gnn_metriplectic.dynamics.external import Forcing, Prescribed, Thermostat
from gnn_metriplectic.geometry import Box, Pairs, VerletList, dot, pair_normals
from gnn_metriplectic.geometry.partition import BLOCK
from gnn_metriplectic.models.particles import Configuration, ParticleModel
from gnn_metriplectic.models.state import State
from gnn_metriplectic.terms import Thermo


class Frame(NamedTuple):
    """A state on its way: what a step needs to go on; ``thermo`` is None where the model has none."""

    state: State
    blocks: Blocks
    thermo: Thermo | None
    step: int
    received: Tensor | float = 0.0  # energy that the solvent has given so far

    @property
    def configuration(self) -> Configuration:
        """What the positions determine, of the whole system."""
        return self.blocks.whole


class Integrator:
    """Common parts of the schemes.

    Args:
        model: terms and brackets.
        box: where particles live.
        dt: in units of time.
        seed: of the pair noise; a trajectory depends on (seed, step, particle numbers) alone.
        forcing, prescribed, thermostat: what acts from outside, if anything.
        neighbors: backend of the neighbour search.
        time: of step 0; sheared images, forcing and prescribed paths depend on it.
        inner_steps: of Verlet in a step of friction, for `EnergyConserving`.
        block: pairs a block, of which larger fluids are made (docs/performance.md); solids are in one piece.
    """

    in_one_piece = False

    def __init__(
        self,
        model: ParticleModel,
        box: Box,
        dt: float,
        *,
        seed: int = 0,
        forcing: Forcing | None = None,
        prescribed: Prescribed | None = None,
        thermostat: Thermostat | None = None,
        neighbors: str = "auto",
        time: float = 0.0,
        inner_steps: int = 1,
        block: int = BLOCK,
    ) -> None:
        if not dt > 0:
            raise ValueError(f"dt is {dt}; it must be positive")
        if box.dimension != model.dimension:
            raise ValueError(f"the box has dimension {box.dimension} and the model {model.dimension}")
        if thermostat is not None and not model.has_entropy:
            raise ValueError("a thermostat acts on internal energies, and the model has none that mean anything")
        if inner_steps < 1:
            raise ValueError(f"inner_steps is {inner_steps}; it must be at least 1")
        if inner_steps != 1 and not isinstance(self, EnergyConserving):
            raise ValueError(f"inner_steps is {inner_steps}; only the energy_conserving integrator makes inner steps")
        self.model, self.box, self.dt, self.seed, self.time = model, box, dt, seed, time
        self.inner_steps = inner_steps
        self.forcing, self.prescribed, self.thermostat = forcing, prescribed, thermostat
        self.neighbors = VerletList(
            box,
            model.cutoff,
            backend=neighbors,
            block=sys.maxsize if self.in_one_piece or model.is_solid else block,
        )
        keep_freed_memory()

    def start(self, state: State, step: int = 0) -> Frame:
        """The frame from which `step` goes on; ``step`` numbers the noise."""
        blocks = self._blocks(state, state.pos, step)
        return Frame(state, blocks, blocks.thermo(state.entropy), step)

    def step(self, frame: Frame) -> Frame:
        """One step of dt."""
        raise NotImplementedError

    def _time(self, step: float) -> float:
        return self.time + step * self.dt

    def _blocks(self, state: State, pos: Tensor, step: float) -> Blocks:
        """The configuration of the particles of ``state`` at positions ``pos``."""
        partition, pairs = self.neighbors.pairs(pos, self._time(step))
        if self.model.is_solid:
            pairs = [replace(pairs[0], bonds=None if state.reference is None else state.reference.bonds(pos, self.box))]
        return Blocks(self.model, partition, pairs, state.species)

    def _acceleration(self, pos: Tensor, step: float) -> Tensor | float:
        return 0.0 if self.forcing is None else self.forcing.acceleration(pos, self._time(step))

    def _normals(self, blocks: Blocks, step: int) -> Iterator[Tensor]:
        """Of each block, ``[e, D + 1]``."""
        for part, members in zip(blocks.parts, blocks.partition.members or [None], strict=True):
            pairs = part.pairs
            normals = pair_normals(pairs.index, self.seed, step, self.model.dimension + 1, tags=members)
            yield normals.to(pairs.displacement)

    def _solvent_normals(self, count: int, step: int) -> Tensor:
        """``[N, D+1]``, keyed by a particle paired with itself, as no pair is."""
        particles = torch.arange(count, device=self.model.device)
        index = torch.stack([particles, particles])
        return pair_normals(index, self.seed, step, self.model.dimension + 1).to(self.model.dtype)

    def _place(self, pos: Tensor, vel: Tensor, step: float) -> tuple[Tensor, Tensor]:
        return (pos, vel) if self.prescribed is None else self.prescribed.place(pos, vel, self._time(step))


class Exchange(NamedTuple):
    """What the two particles of each pair of a block exchange in a step of dt.

    Attributes:
        pairs: of the block.
        drag: dt R of each pair, as (x, y) ``[e, 2]``: friction is -R v_ij.
        resistance: dt Σ_j R of each member, ``[n, D, D]``.
        noise: random impulse on i, ``[e, D]``.
        heat: into i and out of j, conducted and random, ``[e]``.
    """

    pairs: Pairs
    drag: Tensor
    resistance: Tensor
    noise: Tensor
    heat: Tensor

    @classmethod
    def of(cls, bracket: DissipativeBracket, normals: Tensor, dt: float) -> Exchange:
        """In a step of ``dt``, with the noise of standard normal numbers ``[e, D + 1]``."""
        drag = dt * bracket.drag
        noise, heat = bracket.sample(normals, dt)
        return cls(bracket.pairs, drag, bracket.blocks(drag), noise, dt * bracket.heat_flow() + heat)

    def impulses(self, velocities: Tensor) -> Tensor:
        """On i of each pair, ``[e, D]``, with the friction at velocities of the members ``[n, D]``."""
        return self.noise - apply_tensor(self.drag, self.pairs.direction, self.pairs.relative(velocities))

    def impulse(self, velocities: Tensor) -> Tensor:
        """On each member, ``[n, D]``."""
        return self.pairs.net(self.impulses(velocities))

    def heating(self, impulses: Tensor, velocities: Tensor) -> Tensor:
        """Energy that each member gains, ``[n]``, by heat and by the work of ``impulses`` ``[e, D]``."""
        work = -0.5 * dot(impulses, self.pairs.relative(velocities))
        return self.pairs.total(work) + self.pairs.net(self.heat)


class EnergyConserving(Integrator):
    """Velocity Verlet at fixed entropy, then friction and noise, and every work booked on the particles that do it.

        m (w - v) = ½ dt Σ_j f_ij
        r' = r + dt w
        m (u - w) = ½ dt Σ_j f'_ij
        m (v' - u) = dt Σ_j F_ij(½ (u + v')) + noise
        ε_i' = ε_i - Σ_j ½ dt (i's share of f_ij)·½ (v + w)_ij
               - Σ_j [½ dt (i's share of f'_ij) + ½ (F_ij dt + F̃_ij)]·½ (w + v')_ij + Σ_j (q_ij dt + heat noise)
        S' from U(S', V') = ε'

    A change of velocity times its mean is a change of kinetic energy whatever the velocities are, so the total energy
    is exact even where the implicit equation for v' is not solved to the end. Friction acts at (r', S), and on the
    velocities after the kick: from v instead, the kinetic temperature would be high by about (½ ω dt)² for motion of
    frequency ω.

    With ``inner_steps`` n, Verlet makes n steps of dt / n for one of friction (as r-RESPA, Tuckerman, Berne, Martyna,
    J. Chem. Phys. 97, 1990, 1992): forces of pairs that are close limit dt before friction does, and cost less. Forces
    from outside act at the ends of the whole step. Prescribed particles follow their path in the inner steps; kicks see
    them at their mean velocity of an inner step, friction at that of the whole.
    """

    # block-Jacobi sweeps for v': the error falls by x / (1 + x) a sweep, x = ½ dt friction / m
    sweeps = 4

    def step(self, frame: Frame) -> Frame:
        state, after, thermo_after, number, received = frame
        model, dt, species = self.model, self.dt, state.species
        mass = model.masses(state.pos.shape[0], species).unsqueeze(1)

        pos, vel, driven, energy = state.pos, state.vel, state.vel, thermo_after.energy
        inner = dt / self.inner_steps
        poisson = after.poisson(thermo_after)
        forces = after.sum(PoissonBracket.forces, poisson)
        kick, weight = 0.5 * inner * forces / mass + 0.5 * dt * self._acceleration(pos, number), 0.5 * inner
        for passed in range(1, self.inner_steps + 1):
            half, last, share = vel + kick, driven, passed / self.inner_steps
            pos, driven = self._place(pos + inner * half, half, number + share)
            half = self._hold(half, 0.5 * (last + driven))
            if passed == 1:
                vel = self._hold(vel, half)
            energy = energy - weight * after.sum(PoissonBracket.power, poisson, 0.5 * (vel + half))
            after = self._blocks(state, pos, number + share)
            thermo_after = after.thermo(state.entropy)
            poisson = after.poisson(thermo_after)
            forces = after.sum(PoissonBracket.forces, poisson)
            vel, kick, weight = half, inner * forces / mass, inner
        # friction sees prescribed particles at the middle of their way
        guess = self._hold(half, 0.5 * (state.vel + driven))
        kicked = half + 0.5 * kick + 0.5 * dt * self._acceleration(pos, number + 1)

        brackets, normals = after.dissipative(thermo_after), self._normals(after, number)
        exchanges = after.each(lambda *block: Exchange.of(*block, dt), brackets, normals)
        solvent = model.solvent(thermo_after, species)
        random, drag = torch.zeros_like(pos), torch.zeros_like(mass)
        if solvent is not None:
            random, warmth = solvent.sample(self._solvent_normals(len(mass), number), dt)
            drag = dt * solvent.friction.unsqueeze(1)
        rubbing = self._midpoint(after, exchanges, random, drag, guess, kicked, mass)
        impulses = after.each(Exchange.impulses, exchanges, rubbing)
        impulse = after.sum(lambda exchange, each: exchange.pairs.net(each), exchanges, impulses)
        from_solvent = random - drag * rubbing
        impulse = impulse + from_solvent
        vel = self._hold(kicked + impulse / mass, driven)

        middle = 0.5 * (half + vel)
        energy = energy - 0.5 * inner * after.sum(PoissonBracket.power, poisson, self._hold(middle, half))
        middle = self._hold(middle, guess)
        energy = energy + after.sum(Exchange.heating, exchanges, impulses, middle)
        if solvent is not None:
            gained = warmth + dt * solvent.heat_flow()
            energy = energy + gained
            work = dot(from_solvent, middle)
            if self.prescribed is not None:
                work = work.masked_fill(self.prescribed.mask, 0.0)
            received = received + (gained + work).sum()
        if self.thermostat is not None:
            energy = energy + self.thermostat.heat(thermo_after, model.k_B, dt)
        entropy, thermo_end = after.law.entropy_of(energy, after.volume, state.entropy, species, known=thermo_after)
        return Frame(replace(state, pos=pos, vel=vel, entropy=entropy), after, thermo_end, number + 1, received)

    def _hold(self, vel: Tensor, driven: Tensor) -> Tensor:
        """``vel`` with the prescribed velocities where there are any."""
        return vel if self.prescribed is None else torch.where(self.prescribed.mask.unsqueeze(1), driven, vel)

    def _midpoint(
        self,
        blocks: Blocks,
        exchanges: list[Exchange],
        random: Tensor,
        drag: Tensor,
        guess: Tensor,
        vel: Tensor,
        mass: Tensor,
    ) -> Tensor:
        """v̄ ``[N, D]`` of m (v̄ - u) = ½ (noise + dt Σ_j F_ij(v̄) + random - drag v̄), where u is ``vel``.

        The random impulse of a solvent and dt ζ are ``random`` ``[N, D]`` and ``drag`` ``[N, 1]``, zero without one.
        Sweeps start from ``guess``, at which prescribed particles stay.
        """
        identity = torch.eye(vel.shape[1], dtype=vel.dtype, device=vel.device)
        resistance = blocks.sum(lambda exchange: exchange.resistance, exchanges)
        inertia = mass + 0.5 * drag
        inverse = torch.linalg.inv(inertia.unsqueeze(2) * identity + 0.5 * resistance)
        middle = guess
        for _ in range(self.sweeps):
            error = mass * vel - inertia * middle + 0.5 * (random + blocks.sum(Exchange.impulse, exchanges, middle))
            middle = self._hold(middle + (inverse @ error.unsqueeze(2)).squeeze(2), guess)
        return middle


class EulerMaruyama(Integrator):
    """v' and S' from drift and noise at the old state, r' = r + dt v' (arXiv 2508.12569)."""

    def step(self, frame: Frame) -> Frame:
        state, blocks, thermo, number, received = frame
        dt, solvent = self.dt, self.model.solvent(frame.thermo, frame.state.species)

        def change(
            poisson: PoissonBracket, dissipative: DissipativeBracket, normals: Tensor, velocities: Tensor
        ) -> Tensor:
            """Of velocity and entropy of the members of a block, ``[n, D + 1]``."""
            pairs, mass = dissipative.pairs, dissipative.mass.unsqueeze(1)
            relative = pairs.relative(velocities)
            velocity_rate, entropy_rate = dissipative.drift(relative)
            noise, heat_noise = dissipative.sample(normals, dt)
            velocity = dt * velocity_rate + (dt * poisson.forces() + pairs.net(noise)) / mass
            heat = pairs.total(-0.5 * dot(noise, relative)) + pairs.net(heat_noise)
            entropy = dt * entropy_rate + heat / dissipative.thermo.temperature
            return torch.cat([velocity, entropy.unsqueeze(1)], dim=1)

        brackets = blocks.poisson(thermo), blocks.dissipative(thermo)
        velocity, entropy = blocks.sum(change, *brackets, self._normals(blocks, number), state.vel).tensor_split(
            [-1], 1
        )
        if self.thermostat is not None:
            entropy = entropy + (self.thermostat.heat(thermo, self.model.k_B, dt) / thermo.temperature).unsqueeze(1)
        if solvent is not None:
            slowing, heating = solvent.drift(state.vel)
            kick, warmth = solvent.sample(self._solvent_normals(len(state.pos), number), dt)
            velocity = velocity + dt * slowing + kick / solvent.mass.unsqueeze(1)
            entropy = entropy + (dt * heating + warmth / thermo.temperature).unsqueeze(1)
        vel = state.vel + dt * self._acceleration(state.pos, number) + velocity
        if solvent is not None:
            work = dot(kick + dt * solvent.forces(state.vel), 0.5 * (state.vel + vel))
            received = received + (work + warmth + dt * solvent.heat_flow()).sum()
        pos, vel = self._place(state.pos + dt * vel, vel, number + 1)
        moved = replace(state, pos=pos, vel=vel, entropy=state.entropy + entropy.squeeze(1))
        return self.start(moved, number + 1)._replace(received=received)


class LearnedIncrement(Integrator):
    """v' = v + Δ + dt a with Δ drawn as a `GraphNetwork` has it, r' = r + ½ dt (v + v')."""

    in_one_piece = True  # messages go further than a block

    def start(self, state: State, step: int = 0) -> Frame:
        return Frame(state, self._blocks(state, state.pos, step), None, step)

    def step(self, frame: Frame) -> Frame:
        state, number = frame.state, frame.step
        mean, factor = self.model(frame.configuration.pairs, state.vel, state.species)
        own = torch.arange(len(state.pos), device=state.pos.device).expand(2, -1)  # of each particle with itself
        normals = pair_normals(own, self.seed, number, self.model.dimension).to(mean)
        outer = self._acceleration(state.pos + 0.5 * self.dt * state.vel, number)
        vel = state.vel + mean + self.dt * outer + (factor @ normals.unsqueeze(2)).squeeze(2)
        pos, vel = self._place(state.pos + 0.5 * self.dt * (state.vel + vel), vel, number + 1)
        return self.start(replace(state, pos=pos, vel=vel), number + 1)


# of the brackets with inertia
INTEGRATORS = {"energy_conserving": EnergyConserving, "euler_maruyama": EulerMaruyama}
