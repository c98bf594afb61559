"""Potentials measured from tracks: the table, and what is found of a liquid whose forces are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import mismatch
from helpers import SILENT

import gnn_metriplectic as gm
from gnn_metriplectic.learning.force_matching import measure_forces
from gnn_metriplectic.terms import MeasuredPotential, SolventBath
from gnn_metriplectic.trajectory.window import Window

CUTOFF, SPACING, ERROR = 2.5, 0.02, 0.003
FRICTION, DIPOLES = 2.5, torch.tensor([1.0, 1.6], dtype=torch.float64)
WINDOW = Window(5, 3, SPACING)


def table(species: int = 1, nodes: int = 12, seed: int = 0) -> MeasuredPotential:
    """A potential of random values."""
    potential = MeasuredPotential(CUTOFF, nodes=nodes, species=species).double()
    generator = torch.Generator().manual_seed(seed)
    potential.pass_through(torch.randn(potential.kinds, nodes, generator=generator, dtype=torch.float64))
    return potential


def crowd(species: int, *, dimension: int = 2) -> tuple[gm.Pairs, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    pos = 4.0 * torch.rand(30, dimension, generator=generator, dtype=torch.float64)
    kinds = torch.randint(species, (30,), generator=generator)
    return gm.neighbor_pairs(pos, gm.Box.free(dimension), CUTOFF), pos, kinds


@pytest.mark.parametrize("species", [1, 3])
def test_the_slope_of_the_table_is_that_of_its_energy(species):
    potential = table(species)
    pairs, _, kinds = crowd(species)
    distance = pairs.distance.clone().requires_grad_(True)
    along = pairs.displacement / pairs.distance.unsqueeze(1)
    energy, slope = potential(pairs.with_displacement(distance.unsqueeze(1) * along), kinds)
    (expected,) = torch.autograd.grad(energy.sum(), distance)
    assert mismatch(slope, expected) < 1e-12
    assert slope.abs().max() > 0.1


def test_energies_are_those_of_the_kinds_of_pairs_and_vanish_at_the_cutoff():
    potential = table(2)
    ends = torch.tensor([[0, 2, 4], [1, 3, 5]])
    for species, column in (((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((1, 1), 2)):
        kinds = torch.tensor([species[0], species[1]] * 3)
        far = gm.Pairs(ends, torch.tensor([[0.0, 1.0], [CUTOFF, 0.0], [0.0, 1.1 * CUTOFF]]).double(), 6)
        energy, slope = potential(far, kinds)
        alone = MeasuredPotential(CUTOFF, nodes=12).double()
        alone.pass_through(potential.spline.value[:-1, column].unsqueeze(0))
        assert energy[0] == alone(far)[0][0]
        assert energy[0] != 0.0
        assert energy[1:].abs().max() < 1e-12
        assert slope[1:].abs().max() < 1e-12


@pytest.mark.parametrize("species", [1, 3])
def test_forces_are_linear_in_the_values_of_the_nodes(species):
    potential = table(species)
    pairs, pos, kinds = crowd(species)
    _, slope = potential(pairs, kinds)
    force = slope.unsqueeze(1) * pairs.displacement / pairs.distance.unsqueeze(1)
    expected = torch.zeros_like(pos).index_add_(0, pairs.index[0], -force).index_add_(0, pairs.index[1], force)
    values = potential.spline.value[:-1].T.flatten()
    assert mismatch(potential.force_of_nodes(pairs, kinds) @ values, expected) < 1e-12


def liquid(frames: int = 1800, count: int = 96, seed: int = 0, stirred: int = 0) -> gm.Trajectory:
    """Repulsive dipoles of two sizes in a solvent, k_B T = 1, their places seen with errors: u = d_i d_j / r³.

    The first ``stirred`` are prescribed to swing by 1, once in two units of time.
    """
    generator = torch.Generator().manual_seed(seed)
    length, steps = 10.0, 4
    dt = SPACING / steps
    rows = torch.arange(count) // 10, torch.arange(count) % 10
    pos = torch.stack(rows, dim=1).double() + 0.5
    vel = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    kinds = torch.arange(count) % 2
    strength = 3.0 * DIPOLES[kinds].unsqueeze(1) * DIPOLES[kinds]
    keep = np.exp(-FRICTION * dt)
    swinging, middle = slice(stirred), pos[:stirred, 0].clone()

    def forces() -> torch.Tensor:
        step = pos.unsqueeze(1) - pos
        step -= length * torch.round(step / length)
        distance = torch.linalg.vector_norm(step, dim=2) + 1e9 * torch.eye(count)
        size = torch.where(distance < CUTOFF, strength * (distance**-5 - distance**-1 * CUTOFF**-4), 0.0)
        return (size.unsqueeze(2) * step).sum(dim=1)

    seen = torch.empty(frames, count, 2, dtype=torch.float64)
    force = forces()
    for number in range(-200, frames * steps):
        if number >= 0 and number % steps == 0:
            seen[number // steps] = pos
        vel = vel + 0.5 * dt * force
        pos = pos + 0.5 * dt * vel
        vel = keep * vel + (1.0 - keep**2) ** 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
        pos = pos + 0.5 * dt * vel
        pos[swinging, 0] = middle + np.sin(np.pi * dt * number)
        vel[swinging] = 0.0
        force = forces()
        vel = vel + 0.5 * dt * force
    seen += ERROR * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
    return gm.Trajectory(
        seen,
        torch.from_numpy(WINDOW.slopes(seen.numpy())),
        box=gm.Box.cubic(length, 2),
        dt=SPACING,
        mass=1.0,
        species=kinds,
        prescribed=torch.arange(count) < stirred if stirred else None,
        metadata={"localisation": {"position": ERROR, "window": 5, "order": 3}},
    )


def test_forces_and_friction_of_a_liquid_are_found_from_tracks_with_errors():
    potential = MeasuredPotential(CUTOFF, nodes=12, species=2).double()
    found = measure_forces(potential, [liquid()], mass=torch.ones(2).double(), temperature=1.0)
    assert found.friction.tolist() == pytest.approx([FRICTION, FRICTION], rel=0.06)
    assert found.temperature == pytest.approx(1.0, abs=0.06)
    distance = torch.linspace(0.9, 1.6, 12, dtype=torch.float64)
    ends = torch.arange(24).view(2, -1)
    along = distance.unsqueeze(1) * torch.tensor([[1.0, 0.0]]).double()
    for a, b in ((0, 0), (0, 1), (1, 1)):
        kinds = torch.tensor([a] * 12 + [b] * 12)
        _, slope = potential(gm.Pairs(ends, along, 24), kinds)
        true = -3.0 * DIPOLES[a] * DIPOLES[b] * (distance**-4 - CUTOFF**-4)
        for moment in (0, 3):  # the far ones count in the second
            weight = distance**moment
            assert float((weight * slope).sum() / (weight * true).sum()) == pytest.approx(1.0, abs=0.15), (a, b)


def test_the_temperature_of_the_liquid_is_told_in_what_is_stirred():
    traj = liquid(frames=1500, stirred=10)
    potential = MeasuredPotential(CUTOFF, nodes=12, species=2).double()
    found = measure_forces(potential, [traj], mass=torch.ones(2).double(), temperature=1.0)
    assert found.temperature == pytest.approx(1.0, abs=0.12)
    assert float((traj.velocities[:, 10:] ** 2).mean()) > 1.5, "the particles are warmer"


def test_a_training_keeps_what_was_measured(tmp_path):
    traj = liquid(frames=100, count=30)
    small = {"potential": {"nodes": 8}, "friction": {"width": 8}, "encoder": {"width": 8, "hops": 1}}
    options = {"steps": 4, "steps_per_epoch": 2, "batch_size": 2, "trainer": SILENT, "out": tmp_path}
    options |= {"cutoff": CUTOFF, "lag": 2, "solvent": "inertial", "terms": small}
    found = gm.fit(traj[:80], validation=traj[80:], **options)
    expected = MeasuredPotential(CUTOFF, nodes=8, species=2).double()
    kinetic = float((traj[:80].velocities ** 2).mean())
    surroundings = measure_forces(expected, [traj[:80]], mass=torch.ones(2).double(), temperature=kinetic)
    assert mismatch(found.bath.log_friction.double().exp(), surroundings.friction) < 1e-2
    assert float(found.bath.temperature) == pytest.approx(surroundings.temperature, rel=1e-3)
    values = expected.spline.value
    assert mismatch(found.potential.spline.value.double(), values) < 1e-2
    assert values.abs().max() > 1.0


def test_velocities_that_are_no_slopes_are_refused():
    traj = replace(liquid(frames=20, count=4), metadata=None)
    potential = MeasuredPotential(CUTOFF, nodes=12, species=2).double()
    with pytest.raises(ValueError, match="velocities are slopes"):
        measure_forces(potential, [traj], mass=torch.ones(2).double(), temperature=1.0)


def test_a_species_whose_motion_is_prescribed_keeps_its_guess():
    traj = liquid(frames=60, count=30)
    traj = replace(traj, species=traj.species + (torch.arange(30) >= 28) * (2 - traj.species))
    traj = replace(traj, prescribed=traj.species == 2)
    found = measure_forces(
        MeasuredPotential(CUTOFF, nodes=8, species=3).double(), [traj], mass=torch.ones(3).double(), temperature=1.0
    )
    assert found.friction[2] == 0.0
    assert (found.friction[:2] > 0.0).all()
    bath = SolventBath(friction=[4.0] * 3, exchange=1.0, temperature=1.0)
    bath.take(found.friction, found.temperature)
    assert bath.friction(3, torch.arange(3)).tolist() == pytest.approx([*found.friction[:2].tolist(), 4.0])


def test_a_friction_that_drives_is_refused():
    traj = liquid(frames=60, count=40)
    places = traj.positions[0] + traj.velocities[0] * torch.expm1(traj.times.reshape(-1, 1, 1))
    traj = replace(traj, positions=places, velocities=torch.from_numpy(WINDOW.slopes(places.numpy())))
    with pytest.raises(ValueError, match="neither can be negative"):
        measure_forces(
            MeasuredPotential(CUTOFF, nodes=8, species=2).double(), [traj], mass=torch.ones(2).double(), temperature=1.0
        )


@pytest.mark.parametrize("options", [{"solvent": "overdamped"}, {}, {"solvent": "inertial", "mass": "learned"}])
def test_what_accelerations_do_not_tell_is_refused(options):
    traj = liquid(frames=20, count=4)
    with pytest.raises(ValueError, match="overdamped frames do not show"):
        gm.fit(traj, cutoff=CUTOFF, terms={"potential": {"nodes": 8}}, steps=1, steps_per_epoch=1, **options)


def test_outer_forces_are_refused():
    traj = replace(liquid(frames=40, count=4), forcing={"name": "taylor_green", "amplitude": 5.0})
    potential = MeasuredPotential(CUTOFF, nodes=12, species=2).double()
    with pytest.raises(ValueError, match="outer forces"):
        measure_forces(potential, [traj], mass=torch.ones(2).double(), temperature=1.0)


def test_a_species_that_is_never_told_is_refused():
    traj = liquid(frames=60, count=30)
    lost = torch.ones(60, 30, dtype=torch.bool)
    lost[::5, 1::2] = False
    potential = MeasuredPotential(0.5, nodes=12, species=2).double()
    with pytest.raises(ValueError, match=r"no particle of species \[1\] is seen over 15 frames"):
        measure_forces(potential, [replace(traj, present=lost)], mass=torch.ones(2).double(), temperature=1.0)


def test_tracks_that_are_too_short_are_refused():
    traj = liquid(frames=12, count=4)
    potential = MeasuredPotential(CUTOFF, nodes=12, species=2).double()
    with pytest.raises(ValueError, match="seen over 15 frames"):
        measure_forces(potential, [traj], mass=torch.ones(2).double(), temperature=1.0)


def test_a_table_needs_nodes():
    with pytest.raises(ValueError, match="nodes of the potential are 1"):
        MeasuredPotential(CUTOFF, nodes=1)
