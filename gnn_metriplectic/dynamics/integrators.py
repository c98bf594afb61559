"""One step of the stochastic dynamics.

name                 conserves
energy_conserving    momentum and total energy to round-off, at any dt
euler_maruyama       momentum; energy only on average (the scheme of arXiv 2508.12569)
overdamped           total energy to round-off (`overdamped.py`)

A solvent takes momentum, and the energy that it gives is booked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from gnn_metriplectic.allocator import keep_freed_memory
from gnn_metriplectic.brackets import DissipativeBracket
from gnn_metriplectic.dynamics.external import Forcing, Prescribed, Thermostat
from gnn_metriplectic.geometry import Box, Pairs, VerletList, dot, pair_normals
from gnn_metriplectic.models.metriplectic import Configuration, MetriplecticModel
from gnn_metriplectic.models.state import State
from gnn_metriplectic.terms import Thermo


class Frame(NamedTuple):
    """A state on its way: what a step needs to go on."""

    state: State
    configuration: Configuration
    thermo: Thermo
    step: int
    received: Tensor | float = 0.0  # energy that the solvent has given so far


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
    """

    overdamped = False

    def __init__(
        self,
        model: MetriplecticModel,
        box: Box,
        dt: float,
        *,
        seed: int = 0,
        forcing: Forcing | None = None,
        prescribed: Prescribed | None = None,
        thermostat: Thermostat | None = None,
        neighbors: str = "auto",
        time: float = 0.0,
    ) -> None:
        if not dt > 0:
            raise ValueError(f"dt is {dt}; it must be positive")
        if box.dimension != model.dimension:
            raise ValueError(f"the box has dimension {box.dimension} and the model {model.dimension}")
        if model.is_overdamped != self.overdamped:
            raise ValueError(
                "the model has no inertia: run it with integrator=overdamped"
                if model.is_overdamped
                else "integrator=overdamped runs models without inertia, and this one has it"
            )
        self.model, self.box, self.dt, self.seed, self.time = model, box, dt, seed, time
        self.forcing, self.prescribed, self.thermostat = forcing, prescribed, thermostat
        self.neighbors = VerletList(box, model.cutoff, backend=neighbors)
        keep_freed_memory()

    def start(self, state: State, step: int = 0) -> Frame:
        """The frame from which `step` goes on; ``step`` numbers the noise."""
        configuration = self._configuration(state, state.pos, step)
        thermo = self.model.thermo(configuration, state.entropy, state.species)
        return Frame(state, configuration, thermo, step)

    def step(self, frame: Frame) -> Frame:
        """One step of dt."""
        raise NotImplementedError

    def _time(self, step: int) -> float:
        return self.time + step * self.dt

    def _configuration(self, state: State, pos: Tensor, step: int) -> Configuration:
        """That of the particles of ``state`` at positions ``pos``."""
        pairs, reference = self.neighbors.pairs(pos, self._time(step)), state.reference
        if reference is not None:
            pairs = replace(pairs, bonds=reference.bonds(pos, self.box))
        return self.model.configuration(pairs, state.species)

    def _acceleration(self, pos: Tensor, step: int) -> Tensor | float:
        return 0.0 if self.forcing is None else self.forcing.acceleration(pos, self._time(step))

    def _normals(self, pairs: Pairs, step: int) -> Tensor:
        return pair_normals(pairs.index, self.seed, step, self.model.dimension + 1).to(pairs.displacement)

    def _solvent_normals(self, count: int, step: int) -> Tensor:
        """``[N, D+1]``, keyed by a particle paired with itself, as no pair is."""
        particles = torch.arange(count, device=self.model.device)
        index = torch.stack([particles, particles])
        return pair_normals(index, self.seed, step, self.model.dimension + 1).to(self.model.dtype)

    def _place(self, pos: Tensor, vel: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return (pos, vel) if self.prescribed is None else self.prescribed.place(pos, vel, self._time(step))


class EnergyConserving(Integrator):
    """Velocity Verlet at fixed entropy, then friction and noise, and every work booked on the particles that do it.

        r' = r + dt v + ½ dt² a(r, S)
        m (u - v) = ½ dt Σ_j (f_ij + f'_ij)
        m (v' - u) = dt Σ_j F_ij(½ (u + v')) + noise
        ε_i' = ε_i - Σ_j ½ dt (i's share of f_ij + f'_ij)·v̄_ij - ½ Σ_j (F_ij dt + F̃_ij)·v̄_ij
               + Σ_j (q_ij dt + heat noise),    v̄ = ½ (v + v')
        S' from U(S', V') = ε'

    m (v' - v)·v̄ is the change of kinetic energy whatever v' is, so the total energy is exact even
    where the implicit equation for v' is not solved to the end. Friction acts at (r', S), and on the velocities
    after the kick: from v instead, the kinetic temperature would be high by about (½ ω dt)² for motion of frequency ω.
    """

    # block-Jacobi sweeps for v': the error falls by x / (1 + x) a sweep, x = ½ dt friction / m
    sweeps = 4

    def step(self, frame: Frame) -> Frame:
        state, before, thermo, number, received = frame
        model, dt, species = self.model, self.dt, state.species
        mass = model.masses(state.pos.shape[0], species).unsqueeze(1)

        poisson = model.poisson(before, thermo)
        kick = 0.5 * dt * (poisson.forces() / mass + self._acceleration(state.pos, number))
        half = state.vel + kick
        pos, driven = self._place(state.pos + dt * half, half, number + 1)

        after = self._configuration(state, pos, number + 1)
        pairs = after.pairs
        thermo_after = model.thermo(after, state.entropy, species)
        poisson_after = model.poisson(after, thermo_after)
        dissipative = model.dissipative(after, thermo_after, species)
        kick = kick + 0.5 * dt * (poisson_after.forces() / mass + self._acceleration(pos, number + 1))
        kicked = self._hold(state.vel + kick, driven)

        noise, heat_noise = dissipative.sample(self._normals(pairs, number), dt)
        held = 0.5 * (state.vel + driven)
        solvent = model.solvent(thermo_after, species)
        random, drag = pairs.net(noise), torch.zeros_like(mass)
        if solvent is not None:
            kick_by_solvent, heat_by_solvent = solvent.sample(self._solvent_normals(len(mass), number), dt)
            random, drag = random + kick_by_solvent, solvent.friction.unsqueeze(1)
        slow, forces = self._midpoint_friction(dissipative, drag, half, kicked, random, mass, held)
        impulse = dt * forces + noise
        total = pairs.net(impulse)
        if solvent is not None:
            kick_by_solvent = kick_by_solvent + dt * solvent.forces(slow)
            total = total + kick_by_solvent
        vel = self._hold(kicked + total / mass, driven)

        energy = thermo.energy
        middle = 0.5 * (state.vel + vel)
        for bracket in (poisson, poisson_after):
            energy = energy - 0.5 * dt * bracket.power(middle)
        heat = -0.5 * dot(impulse, pairs.relative(middle))
        flow = dt * dissipative.heat_flow() + heat_noise
        energy = energy + pairs.total_of_ends(heat + flow, heat - flow)
        if solvent is not None:
            gained = heat_by_solvent + dt * solvent.heat_flow()
            energy = energy + gained
            work = dot(kick_by_solvent, middle)
            if self.prescribed is not None:
                work = work.masked_fill(self.prescribed.mask, 0.0)
            received = received + (gained + work).sum()
        if self.thermostat is not None:
            energy = energy + self.thermostat.heat(thermo_after, model.k_B, dt)
        entropy, thermo_end = model.law(after).entropy_of(
            energy, after.volume, state.entropy, species, known=thermo_after
        )
        return Frame(replace(state, pos=pos, vel=vel, entropy=entropy), after, thermo_end, number + 1, received)

    def _hold(self, vel: Tensor, driven: Tensor) -> Tensor:
        """``vel`` with the prescribed velocities where there are any."""
        return vel if self.prescribed is None else torch.where(self.prescribed.mask.unsqueeze(1), driven, vel)

    def _midpoint_friction(
        self,
        dissipative: DissipativeBracket,
        drag: Tensor,
        guess: Tensor,
        vel: Tensor,
        impulse: Tensor,
        mass: Tensor,
        held: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """v̄ and the friction forces there, ``[N, D]`` and ``[E, D]``.

        m (v̄ - u) = ½ (impulse + dt (Σ_j F_ij(v̄) - ζ v̄)), where u is ``vel`` and ζ the solvent's ``drag`` ``[N, 1]``;
        prescribed particles have v̄ = ``held``.
        """
        pairs, half = dissipative.pairs, 0.5 * self.dt
        identity = torch.eye(vel.shape[1], dtype=vel.dtype, device=vel.device)
        inertia = mass + half * drag
        inverse = torch.linalg.inv(inertia.unsqueeze(2) * identity + half * dissipative.blocks(dissipative.drag))
        middle = self._hold(guess, held)
        forces = dissipative.friction_forces(pairs.relative(middle))
        for _ in range(self.sweeps):
            error = mass * vel - inertia * middle + 0.5 * impulse + half * pairs.net(forces)
            middle = self._hold(middle + (inverse @ error.unsqueeze(2)).squeeze(2), held)
            forces = dissipative.friction_forces(pairs.relative(middle))
        return middle, forces


class EulerMaruyama(Integrator):
    """v' and S' from drift and noise at the old state, r' = r + dt v' (arXiv 2508.12569)."""

    def step(self, frame: Frame) -> Frame:
        state, configuration, thermo, number, received = frame
        model, dt, species, pairs = self.model, self.dt, state.species, configuration.pairs
        dissipative = model.dissipative(configuration, thermo, species)
        relative = pairs.relative(state.vel)
        velocity_rate, entropy_rate = dissipative.drift(relative)
        noise, heat_noise = dissipative.sample(self._normals(pairs, number), dt)
        impulse = dt * model.poisson(configuration, thermo).forces() + pairs.net(noise)
        mass = dissipative.mass.unsqueeze(1)
        heat = -0.5 * dot(noise, relative)
        heat = pairs.total_of_ends(heat + heat_noise, heat - heat_noise)
        solvent = model.solvent(thermo, species)
        if solvent is not None:
            slowing, heating = solvent.drift(state.vel)
            velocity_rate, entropy_rate = velocity_rate + slowing, entropy_rate + heating
            kick, warmth = solvent.sample(self._solvent_normals(len(mass), number), dt)
            impulse, heat = impulse + kick, heat + warmth
        vel = state.vel + dt * (velocity_rate + self._acceleration(state.pos, number)) + impulse / mass
        if solvent is not None:
            work = dot(kick + dt * solvent.forces(state.vel), 0.5 * (state.vel + vel))
            received = received + (work + warmth + dt * solvent.heat_flow()).sum()
        if self.thermostat is not None:
            heat = heat + self.thermostat.heat(thermo, model.k_B, dt)
        entropy = state.entropy + dt * entropy_rate + heat / thermo.temperature
        pos, vel = self._place(state.pos + dt * vel, vel, number + 1)
        after = self.start(replace(state, pos=pos, vel=vel, entropy=entropy), number + 1)
        return after._replace(received=received)


# those of particles with inertia
INTEGRATORS = {"energy_conserving": EnergyConserving, "euler_maruyama": EulerMaruyama}
