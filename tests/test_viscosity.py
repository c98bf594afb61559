"""Viscosity from the waves of momentum of a liquid at rest."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.transport import transverse_viscosity


def decaying_currents(*, viscosity: float, mass: float, runs: int = 4, frames: int = 2000) -> list[gm.Trajectory]:
    """Particles in a cube whose velocities are transverse waves, Ornstein-Uhlenbeck processes of a liquid's rates."""
    random = np.random.default_rng(8)
    length, count, dt = 4.0, 200, 0.1
    density = mass * count / length**3
    made = []
    for _ in range(runs):
        positions = random.uniform(0.0, length, (count, 3))
        velocities = np.zeros((frames, count, 3))
        for n in itertools.product((-1, 0, 1), repeat=3):
            if n <= (0, 0, 0):
                continue
            wave = 2.0 * np.pi / length * np.array(n)
            across = np.linalg.svd(wave[None])[2][1:]
            keep = np.exp(-viscosity * (wave @ wave) / density * dt)
            for direction, part in itertools.product(across, (np.cos, np.sin)):
                noise = np.sqrt(1.0 - keep**2) * random.standard_normal(frames)
                noise[0] = random.standard_normal()
                size = lfilter([1.0], [1.0, -keep], noise)
                velocities += size[:, None, None] * part(positions @ wave)[:, None] * direction
        made.append(
            gm.Trajectory(
                np.broadcast_to(positions, (frames, count, 3)).copy(),
                velocities,
                box=gm.Box.cubic(length, 3),
                dt=dt,
                mass=mass,
            )
        )
    return made


def test_a_viscosity_is_found_from_the_decay_of_currents():
    runs = decaying_currents(viscosity=0.7, mass=2.0)
    found, error = transverse_viscosity(runs, begin=0.2)
    assert 0.0 < error < 0.07
    assert found == pytest.approx(0.7, abs=4.0 * error)
    with pytest.raises(ValueError, match="they have to fall to"):
        transverse_viscosity([run[:4] for run in runs], begin=0.2)
    with pytest.raises(ValueError, match="before 90"):
        transverse_viscosity(runs, begin=90.0)
    with pytest.raises(ValueError, match="have to be alike"):
        transverse_viscosity([runs[0], runs[1][:100]], begin=0.2)
    with pytest.raises(ValueError, match="a cube at rest"):
        transverse_viscosity([replace(runs[0], box=gm.Box.free(3))], begin=0.2)
