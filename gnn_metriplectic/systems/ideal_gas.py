"""The ideal gas: smoothed dissipative particle dynamics of a monatomic gas, at rest, in flows, and conducting heat.

The ground truth is the package's own dynamics with analytic terms (Lucy kernel, ideal gas of N_a
atoms a particle, SDPD friction). Units are reduced: box 1, m = 1, k_B = 1.

    scenario         what drives it
    self_diffusion   nothing: equilibrium
    shear            a linear profile between Lees-Edwards images
    taylor_green     a body force f₀ (sin kx cos ky cos kz, -cos kx sin ky cos kz, 0), switched on at rest
    conduction       nothing: the half at small x begins hot, the other cold
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from gnn_metriplectic.dynamics import TaylorGreenForcing, simulate
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.terms import IdealGas, LucyKernel, SDPDFriction

SCENARIOS = ("self_diffusion", "shear", "taylor_green", "conduction")
# steps between draws from equilibrium. A bath that takes heat without noise leaves a fifth of the density
# fluctuations out, which then take their energy from the velocities.
REDRAW = 50


@dataclass(frozen=True)
class IdealGasSystem:
    """Settings of the gas, in reduced units.

    Attributes:
        particles: N.
        length: edge of the periodic box.
        cutoff: of the kernel.
        dt: time step, and spacing of frames.
        atoms: N_a a particle.
        shear_viscosity, bulk_viscosity, conductivity: η, ζ, κ.
        forcing: f₀ of the Taylor-Green force.
        shear_rate: of the shear scenario.
        equilibration: steps from places near those of a lattice, in which velocities and entropies are drawn anew
            every `REDRAW` steps (Andersen, J. Chem. Phys. 72, 2384, 1980).
    """

    particles: int
    length: float
    cutoff: float
    dt: float
    atoms: float
    shear_viscosity: float
    bulk_viscosity: float
    conductivity: float
    forcing: float
    shear_rate: float
    equilibration: int

    def model(self) -> MetriplecticModel:
        """The ground truth, in float64."""
        return MetriplecticModel(
            LucyKernel(self.cutoff, dimension=3),
            IdealGas(atoms=self.atoms, k_B=1.0, temperature=1.0, volume=self.length**3 / self.particles),
            SDPDFriction(
                shear_viscosity=self.shear_viscosity,
                bulk_viscosity=self.bulk_viscosity,
                conductivity=self.conductivity,
            ),
            mass=1.0,
            k_B=1.0,
            dt=self.dt,
            dimension=3,
        ).double()

    def _places(self, particles: int, random: torch.Generator) -> Tensor:
        """Places ``[N, 3]`` near those of a cubic lattice, with long density waves of about their thermal strength.

        Waves as long as the box take a time of about 1 to decay. Places drawn one by one would give them N_a = 20 times
        their thermal energy: after 150 steps the kinetic temperature was still 6 % high.
        """
        side = math.ceil(particles ** (1.0 / 3.0) - 1e-9)
        sites = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)
        sites = sites[torch.randperm(len(sites), generator=random)[:particles]]
        jitter = torch.rand(particles, 3, generator=random, dtype=torch.float64) - 0.5
        return self.length / side * (sites + 0.5 + 0.8 * jitter)

    # trajectories are made side by side, one a core
    serial: ClassVar[bool] = False

    def generate(
        self,
        path: Path,
        *,
        scenario: str,
        temperature: float,
        frames: int,
        seed: int,
        density: float = 1.0,
        shear_rate: float | None = None,
        contrast: float = 0.5,
        advance: Callable[[float, str], None] | None = None,
    ) -> None:
        """Write one trajectory of ``frames`` frames to ``path``.

        Args:
            path, frames, seed, advance: as of `System`.
            scenario: one of `SCENARIOS`.
            temperature: k_B T.
            density: particles in the box over those of the settings, of the same gas.
            shear_rate: in place of that of the settings.
            contrast: of conduction, whose halves begin at ``temperature`` (1 ± contrast).

        Raises:
            ValueError: an unknown scenario, or settings that make no gas.
        """
        if scenario not in SCENARIOS:
            raise ValueError(f"scenario {scenario!r} is unknown; choose one of {SCENARIOS}")
        particles = round(density * self.particles)
        if particles < 2:
            raise ValueError(f"particles is {self.particles} at density {density}; a gas has at least 2")
        if not 0.0 <= contrast < 1.0:
            raise ValueError(f"contrast is {contrast}; it must be from 0 to less than 1")
        model, rest = self.model(), Box.cubic(self.length, 3)
        rest.check_cutoff(self.cutoff)
        random = torch.Generator().manual_seed(seed)
        pos = self._places(particles, random)

        def stream() -> int:
            return int(torch.randint(2**31, (), generator=random))

        for begun in range(0, self.equilibration, REDRAW):
            steps = min(REDRAW, self.equilibration - begun)
            state = State.equilibrium(model, pos, rest, temperature=temperature, seed=stream())
            pos = simulate(model, state, box=rest, dt=self.dt, steps=steps, every=steps, seed=stream()).positions[-1]
        draw = stream()
        state = State.equilibrium(model, pos, rest, temperature=temperature, seed=draw)
        box, forcing = rest, None
        if scenario == "taylor_green":
            forcing = TaylorGreenForcing(self.forcing, self.length)
        if scenario == "shear":
            rate = self.shear_rate if shear_rate is None else shear_rate
            box = Box.cubic(self.length, 3, shear_rate=rate)
            vel = state.vel.clone()
            vel[:, 0] += rate * state.pos[:, 1]
            state = State(state.pos, vel, state.entropy)
        if scenario == "conduction":
            hot, cold = (
                State.equilibrium(model, pos, rest, temperature=temperature * factor, seed=draw)
                for factor in (1.0 + contrast, 1.0 - contrast)
            )
            left = (pos[:, 0] / self.length) % 1.0 < 0.5
            vel = torch.where(left.unsqueeze(1), hot.vel, cold.vel)
            state = State(pos, vel - vel.mean(dim=0), torch.where(left, hot.entropy, cold.entropy))
        simulate(
            model,
            state,
            box=box,
            dt=self.dt,
            steps=frames - 1,
            seed=stream(),
            forcing=forcing,
            out=path,
            metadata={"system": "ideal_gas", "scenario": scenario, "temperature": temperature, "seed": seed},
        )
