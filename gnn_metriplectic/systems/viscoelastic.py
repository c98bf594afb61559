"""A viscoelastic sheet (or block): an elastic solid with the friction of neighbours on each other (Kelvin and Voigt).

The ground truth is the package's own dynamics with analytic terms: Hookean energies of volume and shape, Lucy kernel,
SDPD friction. It lies in free space; layers of particles at its lower and upper edge are prescribed. Units are
reduced: shear modulus 1, mass density 1, edge length of the order of 1.

    scenario      what moves the upper edge along x (the lower one is held)
    oscillation   A s(t/ramp) sin(2π f t), s the smooth step from 0 to 1
    unloading     A s(t/ramp), held until `hold`, and back to 0 in another ramp
    free_flight   nothing is held: the sheet starts with a rotation, a shear and a wave of velocity A f
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from gnn_metriplectic.dynamics import Prescribed, simulate
from gnn_metriplectic.geometry import Box, Reference
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.terms import DeformationGradient, HookeanShear, HookeanVolume, LucyKernel, SDPDFriction

SCENARIOS = ("oscillation", "unloading", "free_flight")


@dataclass(frozen=True)
class Drive:
    """The way of the upper edge along x.

    Attributes:
        scenario: ``oscillation`` or ``unloading``.
        amplitude: A, in units of length.
        frequency: f of an oscillation, in cycles per unit of time.
        ramp: time in which the drive sets in (and in which it is taken back).
        hold: time at which unloading begins.
    """

    scenario: str
    amplitude: float
    frequency: float
    ramp: float
    hold: float

    def __call__(self, time: float) -> tuple[float, float]:
        """Displacement and velocity."""
        rise, rate = _step(time / self.ramp)
        if self.scenario == "unloading":
            fall, back = _step((time - self.hold) / self.ramp)
            return self.amplitude * (rise - fall), self.amplitude * (rate - back) / self.ramp
        phase = 2.0 * math.pi * self.frequency
        swing, turn = math.sin(phase * time), phase * math.cos(phase * time)
        return self.amplitude * rise * swing, self.amplitude * (rate / self.ramp * swing + rise * turn)


def _step(x: float) -> tuple[float, float]:
    """3x² - 2x³ from 0 to 1, flat outside, and its slope."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x), 6.0 * x * (1.0 - x)


@dataclass(frozen=True)
class ViscoelasticSystem:
    """Settings of the sheet, in reduced units.

    Attributes:
        dimension: 2 (a sheet) or 3 (a block).
        side: particles along each edge.
        spacing: of the square (cubic) lattice.
        cutoff: of all pair terms and of the reference neighbours.
        dt: time step, and spacing of frames.
        held: layers of particles that are prescribed at the lower and at the upper edge.
        shear_modulus, bulk_modulus, hourglass_modulus: μ, K, χ.
        shear_viscosity, bulk_viscosity, conductivity: η, ζ, κ of the pair friction.
        temperature: k_B T.
        heat_capacity: of a particle, in units of k_B.
        equilibration: steps before the drive sets in.
    """

    dimension: int
    side: int
    spacing: float
    cutoff: float
    dt: float
    held: int
    shear_modulus: float
    bulk_modulus: float
    hourglass_modulus: float
    shear_viscosity: float
    bulk_viscosity: float
    conductivity: float
    temperature: float
    heat_capacity: float
    equilibration: int

    # trajectories are made side by side, one a core
    serial: ClassVar[bool] = False

    def model(self) -> MetriplecticModel:
        """The ground truth, in float64, with k_B = 1."""
        volume = self.spacing**self.dimension
        return MetriplecticModel(
            LucyKernel(self.cutoff, dimension=self.dimension),
            HookeanVolume(
                bulk_modulus=self.bulk_modulus,
                volume=volume,
                heat_capacity=self.heat_capacity,
                temperature=self.temperature,
            ),
            SDPDFriction(
                shear_viscosity=self.shear_viscosity,
                bulk_viscosity=self.bulk_viscosity,
                conductivity=self.conductivity,
            ),
            strain=DeformationGradient(),
            elastic=HookeanShear(
                shear_modulus=self.shear_modulus, hourglass_modulus=self.hourglass_modulus, volume=volume
            ),
            mass=volume,
            k_B=1.0,
            dt=self.dt,
            dimension=self.dimension,
        ).double()

    def lattice(self) -> Tensor:
        """Places in the reference, ``[N, D]``."""
        axis = self.spacing * (torch.arange(self.side, dtype=torch.float64) + 0.5)
        return torch.cartesian_prod(*[axis] * self.dimension)

    def generate(
        self,
        path: Path,
        *,
        scenario: str,
        amplitude: float,
        frames: int,
        seed: int,
        frequency: float = 0.0,
        ramp: float = 1.0,
        hold: float = 0.0,
        advance: Callable[[float, str], None] | None = None,
    ) -> None:
        """Write one trajectory of ``frames`` frames to ``path``.

        Raises:
            ValueError: an unknown scenario, or settings that make no sheet.
        """
        if scenario not in SCENARIOS:
            raise ValueError(f"scenario {scenario!r} is unknown; choose one of {SCENARIOS}")
        if self.side < 3 or not 0 < self.held <= self.side // 2:
            raise ValueError(f"a sheet of {self.side} particles along an edge cannot have {self.held} layers held")
        if not (ramp > 0 and hold >= 0 and frequency >= 0):
            raise ValueError(f"ramp {ramp} must be positive, hold {hold} and frequency {frequency} not negative")
        model, box, pos = self.model(), Box.free(self.dimension), self.lattice()
        reference = Reference.from_positions(pos, box, self.cutoff)
        height = pos[:, 1]
        lower = height < self.held * self.spacing
        upper = height > (self.side - self.held) * self.spacing
        # the streams of the stages must differ: number the seeds of the noise apart
        stages = [(seed << 2) + stage for stage in range(3)]
        state = State.equilibrium(model, pos, box, temperature=self.temperature, seed=stages[0], reference=reference)
        still = Prescribed(lower | upper, lambda time: (pos[lower | upper], torch.zeros_like(pos[lower | upper])))
        if scenario == "free_flight":
            still = None
        steps = self.equilibration
        quiet = simulate(model, state, box=box, dt=self.dt, steps=steps, every=steps, seed=stages[1], prescribed=still)
        state = State.from_frame(quiet, -1, model)
        drive = Drive(scenario, amplitude, frequency, ramp, hold)
        prescribed = still
        if scenario == "free_flight":
            state = replace(state, vel=state.vel + self._throw(pos, amplitude * frequency, stages[0]))
        else:
            prescribed = Prescribed(lower | upper, _edges(pos[lower | upper], upper[lower | upper], drive))
        simulate(
            model,
            state,
            box=box,
            dt=self.dt,
            steps=frames - 1,
            seed=stages[2],
            prescribed=prescribed,
            out=path,
            metadata={
                "system": "viscoelastic",
                "scenario": scenario,
                "amplitude": amplitude,
                "frequency": frequency,
                "ramp": ramp,
                "hold": hold,
                "height": self.side * self.spacing,
                "temperature": self.temperature,
                "seed": seed,
            },
        )

    def _throw(self, pos: Tensor, speed: float, seed: int) -> Tensor:
        """Velocities of a sheet that is thrown: a random gradient and a wave, without momentum, ``[N, D]``."""
        random = torch.Generator().manual_seed(seed)
        gradient = torch.randn(self.dimension, self.dimension, generator=random, dtype=torch.float64)
        turn = torch.randn(self.dimension, generator=random, dtype=torch.float64)
        away = (pos - pos.mean(dim=0)) / (self.side * self.spacing)
        wave = torch.cos(2.0 * math.pi * away.roll(1, dims=1)) * turn
        vel = speed * (away @ gradient + 0.5 * wave)
        return vel - vel.mean(dim=0)


def _edges(rest: Tensor, upper: Tensor, drive: Drive) -> Callable[[float], tuple[Tensor, Tensor]]:
    """The path of the held particles, those of the ``upper`` edge moved along x."""

    def path(time: float) -> tuple[Tensor, Tensor]:
        shift, speed = drive(time)
        direction = torch.zeros_like(rest)
        direction[upper, 0] = 1.0
        return rest + shift * direction, speed * direction

    return path
