"""The step of particles without inertia in a solvent (Ermak and McCammon, J. Chem. Phys. 69, 1352, 1978)."""

from __future__ import annotations

from dataclasses import replace

from gnn_metriplectic.dynamics.integrators import Frame, Integrator


class Overdamped(Integrator):
    """Friction of the solvent balances all forces; friction between particles is left out.

        r' = r + dt f(r, S) / ζ + √(2 k_B T_s dt / ζ) ξ
        ε' = U(S, V') + heat of the solvent and between particles, at (r', S)
        S' from U(S', V') = ε'

    Forces do their work at fixed S, out of the solvent. ζ is constant, so that no drift belongs to the noise. The
    velocity of a state is (r' - r) / dt, and nothing depends on it.
    """

    in_one_piece = True

    def step(self, frame: Frame) -> Frame:
        state, before, thermo, number, received = frame
        model, dt, species = self.model, self.dt, state.species
        solvent = model.solvent(thermo, species)
        normals = self._solvent_normals(len(state.pos), number)
        random, _ = solvent.sample(normals, dt)
        mass = solvent.mass.unsqueeze(1)
        force = model.poisson(before.whole, thermo).forces() + mass * self._acceleration(state.pos, number)
        shift = (dt * force + random) / solvent.friction.unsqueeze(1)
        pos, _ = self._place(state.pos + shift, state.vel, number + 1)

        after = self._blocks(state, pos, number + 1)
        moved, pairs = after.thermo(state.entropy), after.whole.pairs
        dissipative, solvent = model.dissipative(after.whole, moved, species), model.solvent(moved, species)
        _, heat_noise = dissipative.sample(next(self._normals(after, number)), dt)
        flow = dt * dissipative.heat_flow() + heat_noise
        _, warmth = solvent.sample(normals, dt)
        gained = warmth + dt * solvent.heat_flow()
        energy = moved.energy + pairs.total_of_ends(flow, -flow) + gained
        if self.thermostat is not None:
            energy = energy + self.thermostat.heat(moved, model.k_B, dt)
        entropy, thermo_end = after.law.entropy_of(energy, after.volume, state.entropy, species, known=moved)
        received = received + (moved.energy - thermo.energy + gained).sum()
        vel = (pos - state.pos) / dt
        return Frame(replace(state, pos=pos, vel=vel, entropy=entropy), after, thermo_end, number + 1, received)
