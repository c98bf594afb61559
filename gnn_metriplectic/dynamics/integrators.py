"""One step of the stochastic dynamics.

name                 conserves
energy_conserving    momentum and total energy to round-off, at any dt
euler_maruyama       momentum; energy only on average (the scheme of arXiv 2508.12569)
increment            nothing: the map that a graph network has learned
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from gnn_metriplectic.allocator import keep_freed_memory
from gnn_metriplectic.dynamics.external import Forcing, Prescribed, Thermostat
from gnn_metriplectic.geometry import Box, Pairs, VerletList, dot, pair_normals
from gnn_metriplectic.models.particles import Configuration, ParticleModel
from gnn_metriplectic.models.state import State
from gnn_metriplectic.terms import Thermo


class Frame(NamedTuple):
    """A state on its way: what a step needs to go on; ``thermo`` is None where the model has none."""

    state: State
    configuration: Configuration
    thermo: Thermo | None
    step: int


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
    ) -> None:
        if not dt > 0:
            raise ValueError(f"dt is {dt}; it must be positive")
        if box.dimension != model.dimension:
            raise ValueError(f"the box has dimension {box.dimension} and the model {model.dimension}")
        if thermostat is not None and not model.has_entropy:
            raise ValueError("a thermostat acts on internal energies, and the model has none that mean anything")
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
        state, before, thermo, number = frame
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
        forces = self._midpoint_friction(dissipative, half, kicked, pairs.net(noise), mass, held)
        impulse = dt * forces + noise
        vel = self._hold(kicked + pairs.net(impulse) / mass, driven)

        energy = thermo.energy
        middle = 0.5 * (state.vel + vel)
        for bracket in (poisson, poisson_after):
            energy = energy - 0.5 * dt * bracket.power(middle)
        heat = -0.5 * dot(impulse, pairs.relative(middle))
        flow = dt * dissipative.heat_flow() + heat_noise
        energy = energy + pairs.total_of_ends(heat + flow, heat - flow)
        if self.thermostat is not None:
            energy = energy + self.thermostat.heat(thermo_after, model.k_B, dt)
        entropy, thermo_end = model.law(after).entropy_of(
            energy, after.volume, state.entropy, species, known=thermo_after
        )
        return Frame(replace(state, pos=pos, vel=vel, entropy=entropy), after, thermo_end, number + 1)

    def _hold(self, vel: Tensor, driven: Tensor) -> Tensor:
        """``vel`` with the prescribed velocities where there are any."""
        return vel if self.prescribed is None else torch.where(self.prescribed.mask.unsqueeze(1), driven, vel)

    def _midpoint_friction(
        self, dissipative, guess: Tensor, vel: Tensor, impulse: Tensor, mass: Tensor, held: Tensor
    ) -> Tensor:
        """Friction forces at v̄, ``[E, D]``, where m (v̄ - u) = ½ (impulse + dt Σ_j F_ij(v̄)) and u is ``vel``.

        Prescribed particles have v̄ = ``held``.
        """
        pairs, half = dissipative.pairs, 0.5 * self.dt
        identity = torch.eye(vel.shape[1], dtype=vel.dtype, device=vel.device)
        inverse = torch.linalg.inv(mass.unsqueeze(2) * identity + half * dissipative.blocks(dissipative.drag))
        middle = self._hold(guess, held)
        forces = dissipative.friction_forces(pairs.relative(middle))
        for _ in range(self.sweeps):
            error = mass * (vel - middle) + 0.5 * impulse + half * pairs.net(forces)
            middle = self._hold(middle + (inverse @ error.unsqueeze(2)).squeeze(2), held)
            forces = dissipative.friction_forces(pairs.relative(middle))
        return forces


class EulerMaruyama(Integrator):
    """v' and S' from drift and noise at the old state, r' = r + dt v' (arXiv 2508.12569)."""

    def step(self, frame: Frame) -> Frame:
        state, configuration, thermo, number = frame
        model, dt, species, pairs = self.model, self.dt, state.species, configuration.pairs
        dissipative = model.dissipative(configuration, thermo, species)
        relative = pairs.relative(state.vel)
        velocity_rate, entropy_rate = dissipative.drift(relative)
        noise, heat_noise = dissipative.sample(self._normals(pairs, number), dt)
        impulse = dt * model.poisson(configuration, thermo).forces() + pairs.net(noise)
        mass = dissipative.mass.unsqueeze(1)
        vel = state.vel + dt * (velocity_rate + self._acceleration(state.pos, number)) + impulse / mass
        heat = -0.5 * dot(noise, relative)
        heat = pairs.total_of_ends(heat + heat_noise, heat - heat_noise)
        if self.thermostat is not None:
            heat = heat + self.thermostat.heat(thermo, model.k_B, dt)
        entropy = state.entropy + dt * entropy_rate + heat / thermo.temperature
        pos, vel = self._place(state.pos + dt * vel, vel, number + 1)
        return self.start(replace(state, pos=pos, vel=vel, entropy=entropy), number + 1)


class LearnedIncrement(Integrator):
    """v' = v + Δ + dt a with Δ drawn as a `GraphNetwork` has it, r' = r + ½ dt (v + v')."""

    def start(self, state: State, step: int = 0) -> Frame:
        return Frame(state, self._configuration(state, state.pos, step), None, step)

    def step(self, frame: Frame) -> Frame:
        state, configuration, _, number = frame
        mean, factor = self.model(configuration.pairs, state.vel, state.species)
        own = torch.arange(len(state.pos), device=state.pos.device).expand(2, -1)  # of each particle with itself
        normals = pair_normals(own, self.seed, number, self.model.dimension).to(mean)
        outer = self._acceleration(state.pos + 0.5 * self.dt * state.vel, number)
        vel = state.vel + mean + self.dt * outer + (factor @ normals.unsqueeze(2)).squeeze(2)
        pos, vel = self._place(state.pos + 0.5 * self.dt * (state.vel + vel), vel, number + 1)
        return self.start(replace(state, pos=pos, vel=vel), number + 1)


INTEGRATORS = {
    "energy_conserving": EnergyConserving,
    "euler_maruyama": EulerMaruyama,
    "increment": LearnedIncrement,
}
