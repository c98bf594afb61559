"""Solids: reference neighbours, strain, rest, free flight, and what is refused."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import h5py
import pytest
import torch
from conftest import (
    hookean_solid,
    learned_solid,
    learned_solid_settings,
    mismatch,
    pairs_of_state,
    random_rotation,
    scattered,
)
from torch import Tensor

import gnn_metriplectic as gm
from gnn_metriplectic.dynamics import simulate
from gnn_metriplectic.dynamics.integrators import EnergyConserving
from gnn_metriplectic.geometry import Box, Reference, neighbor_pairs, transition_pairs
from gnn_metriplectic.learning.likelihood import negative_log_likelihood
from gnn_metriplectic.models import MetriplecticModel, State, build_model
from gnn_metriplectic.terms import (
    DeformationGradient,
    Friction,
    FrictionTerm,
    HookeanShear,
    HookeanVolume,
    LearnedShear,
    LearnedVolume,
    LucyKernel,
    SDPDFriction,
)
from gnn_metriplectic.trajectory import Trajectory, read_trajectory, write_trajectory

SPACING, REACH = 0.05, 0.15


def lattice(dimension: int, side: int, spacing: float = SPACING) -> Tensor:
    return spacing * torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * dimension)


def sheet(dimension: int, side: int, *, hourglass: float = 1.0, viscosity: float = 0.0, k_B: float = 1e-30):
    """A stiff model without noise to speak of, and its state at rest on a lattice."""
    volume = SPACING**dimension
    model = MetriplecticModel(
        LucyKernel(REACH, dimension=dimension),
        HookeanVolume(bulk_modulus=2.0, volume=volume, heat_capacity=1.0, temperature=1e-3),
        SDPDFriction(shear_viscosity=viscosity, bulk_viscosity=0.0, conductivity=viscosity),
        mass=volume,
        k_B=k_B,
        dt=0.01,
        dimension=dimension,
        strain=DeformationGradient(),
        elastic=HookeanShear(shear_modulus=1.0, hourglass_modulus=hourglass, volume=volume),
    ).double()
    pos = lattice(dimension, side)
    entropy = torch.zeros(len(pos), dtype=torch.float64)
    reference = Reference.from_positions(pos, Box.free(dimension), REACH)
    return model, State(pos, torch.zeros_like(pos), entropy, None, reference)


def spectrum(model: MetriplecticModel, state: State) -> Tensor:
    """ω² of all modes about a state."""

    def forces(flat: Tensor) -> Tensor:
        moved = replace(state, pos=flat.view(state.pos.shape))
        return model.brackets(moved, pairs_of_state(model, moved, Box.free(model.dimension)))[0].forces().reshape(-1)

    stiffness = -torch.autograd.functional.jacobian(forces, state.pos.reshape(-1))
    return torch.linalg.eigvalsh(stiffness) / float(model.mass)


@pytest.mark.parametrize(("dimension", "side"), [(2, 10), (3, 4)])
def test_only_rigid_motions_of_a_perfect_lattice_are_free(dimension, side):
    model, state = sheet(dimension, side)
    values = spectrum(model, state)
    rigid = dimension * (dimension + 1) // 2
    # the softest wave across the lattice, at the speed of shear
    softest = (math.pi / (side * SPACING)) ** 2
    assert values[:rigid].abs().max() < 1e-9 * values[-1]
    assert values[rigid] > 0.2 * softest


def test_without_the_hourglass_energy_other_modes_are_nearly_free():
    model, state = sheet(2, 10)
    soft, state = sheet(2, 10, hourglass=0.0)
    weak = spectrum(model, state)[3] * 0.5
    assert (spectrum(soft, state) < weak).sum() > 10


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_solid_at_rest_stays_at_rest(dimension):
    model, state = sheet(dimension, 6 if dimension == 2 else 4, viscosity=0.02)
    run = simulate(model, state, box=Box.free(dimension), dt=0.01, steps=50)
    assert (run.positions[-1] - state.pos).abs().max() < 1e-10 * SPACING


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_sheet_in_free_flight_keeps_its_momenta_and_energy(dimension):
    model, state = sheet(dimension, 6 if dimension == 2 else 4)
    random = torch.Generator().manual_seed(0)
    place = state.pos - state.pos.mean(dim=0)
    spin = torch.randn(dimension, dimension, generator=random, dtype=torch.float64)
    vel = 0.3 + place @ (spin - spin.T) + 0.05 * torch.randn(place.shape, generator=random, dtype=torch.float64)
    state = replace(state, vel=vel)
    box = Box.free(dimension)
    run = simulate(model, state, box=box, dt=0.01, steps=150)

    def angular(frame: int) -> Tensor:
        product = torch.einsum("ni,nj->ij", run.positions[frame], run.velocities[frame])
        return product - product.T

    turned = run.positions[-1] - run.positions[-1].mean(dim=0)
    assert (turned - place).norm(dim=1).max() > SPACING, "it turns and shakes"
    assert mismatch(angular(-1), angular(0)) < 1e-11
    assert mismatch(run.velocities[-1].sum(dim=0), run.velocities[0].sum(dim=0)) < 1e-12
    energies = [
        model.energy(s, pairs_of_state(model, s, box)) for s in (State.from_frame(run, f, model) for f in (0, -1))
    ]
    assert float((energies[1] - energies[0]).abs() / model.kinetic_energy(state)) < 1e-11


def test_energy_is_the_linear_elastic_one_for_small_uniform_strain():
    model, state = sheet(2, 12)
    shear = 1e-4
    strained = replace(state, pos=state.pos + shear * state.pos.flip(1) * torch.tensor([1.0, 0.0]))
    energies = [model.energy(s, pairs_of_state(model, s, Box.free(2))) for s in (strained, state)]
    # μ ε:ε with ε_xy = ε_yx = γ/2
    expected = 144 * SPACING**2 * 0.5 * shear**2
    assert float(energies[0] - energies[1]) == pytest.approx(expected, rel=1e-2)


def test_stress_of_a_sheared_sheet_is_its_modulus_times_the_strain():
    model, state = sheet(2, 12)
    shear = 1e-3
    strained = replace(state, pos=state.pos + shear * state.pos.flip(1) * torch.tensor([1.0, 0.0]))
    pairs = pairs_of_state(model, strained, Box.free(2))
    volume = model.configuration(pairs, None).volume
    stress = model.stress(strained, pairs) * volume.sum() / (144 * SPACING**2)
    assert float(stress[1, 0]) == pytest.approx(shear, rel=1e-2)
    assert float(stress[0, 1]) == pytest.approx(float(stress[1, 0]), rel=1e-3)


@pytest.mark.parametrize("dimension", [2, 3])
def test_deformation_gradient_of_a_uniform_deformation_is_exact(dimension):
    reference = Reference.from_positions(lattice(dimension, 4), Box.free(dimension), REACH)
    random = torch.Generator().manual_seed(1)
    gradient = torch.eye(dimension, dtype=torch.float64)
    gradient = gradient + 0.2 * torch.randn(dimension, dimension, generator=random, dtype=torch.float64)
    strain = DeformationGradient()(reference.bonds(lattice(dimension, 4) @ gradient.T + 3.0, Box.free(dimension)))
    assert mismatch(strain.gradient, gradient.expand_as(strain.gradient)) < 1e-12
    green = 0.5 * (gradient.T @ gradient - torch.eye(dimension, dtype=torch.float64))
    shape = green - green.trace() / dimension * torch.eye(dimension, dtype=torch.float64)
    expected = torch.tensor([float((shape * shape).sum()), 0.0], dtype=torch.float64).expand(4**dimension, 2)
    assert mismatch(strain.measures, expected) < 1e-11


def learned_terms() -> tuple[LearnedVolume, LearnedShear]:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        volume = LearnedVolume(modulus=2.0, energy=0.3, entropy=1.5, heat_capacity=20.0, width=6)
        shear = LearnedShear(moduli=[2.0, 3.0], energy=0.3, entropy=1.5, width=6)
        for module in (volume, shear):
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, std=1.0)
    return volume.double().requires_grad_(False), shear.double().requires_grad_(False)


def test_derivatives_of_the_learned_energies_are_exact():
    volume, shear = learned_terms()
    random = torch.Generator().manual_seed(0)
    entropy = torch.randn(50, generator=random, dtype=torch.float64).requires_grad_()
    ratio = (0.6 + torch.rand(50, generator=random, dtype=torch.float64)).requires_grad_()
    measures = torch.rand(50, 2, generator=random, dtype=torch.float64).requires_grad_()
    thermo, stored = volume(entropy, ratio), shear(entropy, measures)
    by_entropy, by_ratio = torch.autograd.grad(thermo.energy.sum(), (entropy, ratio), create_graph=True)
    assert mismatch(thermo.temperature, by_entropy) < 1e-12
    assert mismatch(thermo.pressure, -by_ratio) < 1e-12
    curvature = torch.autograd.grad(by_entropy.sum(), entropy)[0]
    assert mismatch(thermo.heat_capacity, thermo.temperature / curvature) < 1e-12
    by_entropy, by_measure = torch.autograd.grad(stored.energy.sum(), (entropy, measures), create_graph=True)
    assert mismatch(stored.temperature, by_entropy) < 1e-12
    assert mismatch(stored.stiffness, by_measure) < 1e-12
    assert mismatch(stored.curvature, torch.autograd.grad(by_entropy.sum(), entropy)[0]) < 1e-12


def test_learned_volume_has_one_rest_state_and_is_convex():
    volume, _ = learned_terms()
    ratio = torch.linspace(0.02, 30.0, 4000, dtype=torch.float64)
    pressure = volume(torch.zeros_like(ratio), ratio).pressure
    assert (pressure.diff() < 0).all(), "convex"
    assert pressure[0] > 0 > pressure[-1]


def test_learned_elastic_energy_is_zero_at_rest_and_convex():
    _, shear = learned_terms()
    entropy = torch.linspace(-2.0, 2.0, 300, dtype=torch.float64)
    strain = torch.stack([torch.linspace(0.0, 3.0, 300, dtype=torch.float64)] * 2, dim=1)
    at_rest = shear(entropy, 0.0 * strain)
    assert at_rest.energy.abs().max() == 0
    assert at_rest.temperature.abs().max() == 0
    stored = shear(torch.zeros_like(entropy), strain)
    assert (stored.stiffness > 0).all()
    assert (stored.stiffness[:, 0].diff() > 0).all()
    assert (shear(entropy, strain).temperature[1:] > 0).all()


def test_bonds_are_those_of_the_images_nearest_to_the_reference():
    box = Box.cubic(0.5, 2)
    pos = lattice(2, 10)
    reference = Reference.from_positions(pos, box, REACH)
    random = torch.Generator().manual_seed(0)
    shift = 0.2 * SPACING * torch.randn(pos.shape, generator=random, dtype=torch.float64)
    cells = torch.randint(-2, 3, pos.shape, generator=random).double() * 0.5
    here, there = (reference.bonds(pos + shift + extra, box).pairs.displacement for extra in (0.0, cells))
    assert mismatch(there, here) < 1e-12
    assert mismatch(here, reference.displacement + reference.pairs.difference_of_ends(shift)) < 1e-12


def test_a_reference_travels_between_processes_without_its_caches():
    reference = Reference.from_positions(lattice(2, 5), Box.free(2), REACH)
    reference.bonds(lattice(2, 5), Box.free(2))
    content = pickle.dumps(reference)
    back = pickle.loads(content)
    assert torch.equal(back.index, reference.index)
    assert torch.equal(back.displacement, reference.displacement)
    assert len(content) == len(pickle.dumps(back))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, d: (i[:, :2], d[:2]), r"reference neighbours of particle \d+ leave its shape tensor singular"),
        (lambda i, d: (i, d * torch.tensor([1.0, 0.0])), "is 0 long"),
        (lambda i, d: (i.flip(0), -d), r"joins particles \[1, 0\]; it must be i < j of 9"),
        (lambda i, d: (i, 10.0 * d), "shorter than the reach, 0.15"),
        (lambda i, d: (i, d[:-1]), r"must be \[2, B\] and \[B, D\]"),
        (lambda i, d: (i + 5, d), "joins particles"),
    ],
)
def test_a_reference_that_is_none_is_refused(change, message):
    reference = Reference.from_positions(lattice(2, 3), Box.free(2), REACH)
    with pytest.raises(ValueError, match=message):
        Reference(*change(reference.index, reference.displacement), 9, REACH)


def test_a_particle_whose_neighbours_lie_in_a_line_is_named():
    pos = torch.cat([lattice(2, 3), torch.tensor([[0.2, 0.0]], dtype=torch.float64)])
    with pytest.raises(ValueError, match=r"the 1 reference neighbours of particle 9 .* all in one line; 1 such"):
        Reference.from_positions(pos, Box.free(2), 0.11)


def test_a_model_of_a_solid_wants_reference_neighbours_within_its_cutoff():
    model, state = sheet(2, 5)
    with pytest.raises(ValueError, match="have no reference neighbours"):
        model.energy(state, neighbor_pairs(state.pos, Box.free(2), REACH))
    with pytest.raises(ValueError, match="the state has no reference neighbours"):
        simulate(model, replace(state, reference=None), box=Box.free(2), dt=0.01, steps=1)
    other = replace(state, reference=Reference.from_positions(state.pos, Box.free(2), 0.12))
    with pytest.raises(ValueError, match=r"reach 0\.12 and the model's cutoff is 0\.15"):
        model.energy(other, pairs_of_state(model, other, Box.free(2)))
    with pytest.raises(ValueError, match="the reference has 25 particles and the state 24"):
        State(state.pos[1:], state.vel[1:], state.entropy[1:], None, state.reference)
    with pytest.raises(ValueError, match="cannot live in a sheared box"):
        state.reference.bonds(state.pos, Box.cubic(0.5, 2, shear_rate=1.0))


def test_a_solid_is_not_asked_whether_it_is_compressible():
    settings = learned_solid_settings(2)
    settings["equation_of_state"]["compressible"] = False
    with pytest.raises(ValueError, match=r"equation_of_state\.compressible is for fluids"):
        build_model(**settings)


def test_tables_and_lammps_refuse_a_solid():
    with pytest.raises(ValueError, match="is of a solid, whose forces depend on the reference neighbours"):
        gm.tabulate(learned_solid(2))


def test_a_torn_sheet_is_told_with_counts():
    model, state = sheet(2, 5)
    vel = torch.zeros_like(state.vel)
    vel[-1] = 40.0
    with pytest.warns(UserWarning, match=r"the rollout is torn: in frame \d+, \d+ of \d+ pairs"):
        simulate(model, replace(state, vel=vel), box=Box.free(2), dt=0.001, steps=10)


def test_reference_and_prescribed_particles_pass_through_a_file(tmp_path):
    state = sheet(2, 5)[1]
    prescribed = torch.arange(25) < 5
    frames = torch.stack([state.pos, state.pos + 0.001])
    traj = Trajectory(frames, 0.0 * frames, box=Box.free(2), dt=0.1, prescribed=prescribed, reference=state.reference)
    write_trajectory(tmp_path / "sheet.h5", traj)
    back = read_trajectory(tmp_path / "sheet.h5")
    assert torch.equal(back.reference.index, traj.reference.index)
    assert torch.equal(back.reference.displacement, traj.reference.displacement)
    assert back.reference.reach == REACH
    assert torch.equal(back.prescribed, prescribed)
    assert back.fingerprint() == traj.fingerprint()
    assert back[1:].reference is back.reference
    fluid = replace_reference(traj, None)
    assert fluid.fingerprint() != traj.fingerprint()
    with h5py.File(tmp_path / "sheet.h5") as file:
        listed = file["connectivity/reference"]
        assert listed.shape == (traj.reference.index.shape[1], 2)
        assert file[listed.attrs["particles_group"]].name == "/particles/all"


def replace_reference(traj: Trajectory, reference: Reference | None) -> Trajectory:
    return Trajectory(
        traj.positions, traj.velocities, box=traj.box, dt=traj.dt, prescribed=traj.prescribed, reference=reference
    )


def test_a_trajectory_refuses_the_reference_of_others():
    state = sheet(2, 5)[1]
    frames = state.pos.expand(2, -1, -1)
    with pytest.raises(ValueError, match="the reference has 25 particles in 2 dimensions and the trajectory 24 in 2"):
        Trajectory(frames[:, 1:], 0.0 * frames[:, 1:], box=Box.free(2), dt=0.1, reference=state.reference)


def test_a_rollout_carries_its_reference_and_goes_on_from_a_file(tmp_path):
    model = hookean_solid(2)
    box = Box.free(2)
    state = scattered(model, 12)
    whole = simulate(model, state, box=box, dt=0.002, steps=20, out=tmp_path / "run.h5")
    part = simulate(model, State.from_frame(whole, 10, model), box=box, dt=0.002, steps=1)
    assert part.reference.index.shape == state.reference.index.shape
    scheme = EnergyConserving(model, box, 0.002)
    frame = scheme.start(State.from_frame(whole, 0, model))
    for _ in range(20):
        frame = scheme.step(frame)
    assert mismatch(frame.state.pos, whole.positions[-1]) < 1e-12


def test_a_float32_solid_is_a_float64_one_to_rounding():
    model = learned_solid(2)
    state = scattered(model, 12)
    exact = model.drift(state, pairs_of_state(model, state, Box.free(2))).vel
    small = state.to(dtype=torch.float32)
    rough = learned_solid(2).float().drift(small, pairs_of_state(model, small, Box.free(2))).vel
    assert mismatch(rough.double(), exact) < 1e-4


def test_a_turned_sheet_has_the_energy_of_the_unturned():
    model, state = sheet(3, 4)
    turn = random_rotation(3, seed=3)
    shaken = state.pos + 0.1 * SPACING * torch.randn(
        state.pos.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    energies = [
        model.energy(s, pairs_of_state(model, s, Box.free(3)))
        for s in (replace(state, pos=shaken), replace(state, pos=shaken @ turn.T))
    ]
    assert mismatch(energies[1], energies[0]) < 1e-12


class RangedFriction(FrictionTerm):
    """A friction with amplitudes² multiplied by a factor for near and one for far pairs."""

    def __init__(self, friction: FrictionTerm, factors: Tensor) -> None:
        super().__init__()
        self.friction, self.factors = friction, factors

    def forward(self, pairs, *others) -> Friction:
        factor = self.factors[(pairs.distance > 1.2 * SPACING).long()].unsqueeze(1)
        return Friction(*(factor * x for x in self.friction(pairs, *others)))


@torch.no_grad()
def test_friction_of_a_lattice_is_found_at_each_distance():
    # what a particle sees of its partners is their velocity after all others have slowed them
    model, state = sheet(2, 40, viscosity=0.12, k_B=1e-4)
    true, box, draws = model.friction, Box.free(2), 12
    _, dissipative = model.brackets(state, pairs_of_state(model, state, box))
    rate = dissipative.blocks(dissipative.drag).diagonal(dim1=1, dim2=2).mean() / float(model.mass)
    assert 1.0 < float(rate) * model.dt < 1.2
    shifts = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    width, found = 0.05, []
    for seed in range(draws):
        start = State.equilibrium(model, state.pos, box, temperature=1e-7, seed=seed, reference=state.reference)
        scheme = EnergyConserving(model, box, model.dt, seed=seed)
        scheme.sweeps = 40
        end = scheme.step(scheme.start(start)).state
        pairs = transition_pairs(start.pos, end.pos, box, REACH, reference=state.reference)
        both = pairs, pairs.moved(end.pos - start.pos)
        values = []
        for shift in shifts.double():
            model.friction = RangedFriction(true, torch.exp(width * shift))
            configurations = tuple(model.configuration(p, None) for p in both)
            # entropies that are hardly known leave what the velocities tell
            nll = negative_log_likelihood(model, start, end, configurations, model.dt, entropy_noise=1e6)
            values.append(nll.mean())
        model.friction = true
        found.append(torch.stack(values))
    middle, near, nearer, far, farther, more, less = torch.stack(found).T
    gradient = torch.stack([near - nearer, far - farther], dim=1) / (2.0 * width)
    sums = torch.stack([x.mean() for x in (near + nearer, far + farther, more + less)])
    twice = (sums - 2.0 * middle.mean()) / width**2
    mixed = 0.5 * (twice[2] - twice[0] - twice[1])
    hessian = torch.stack([torch.stack([twice[0], mixed]), torch.stack([mixed, twice[1]])])
    offset = -torch.linalg.solve(hessian, gradient.mean(dim=0))
    error = torch.linalg.solve(hessian, gradient.T).std(dim=1) / draws**0.5
    assert error.max() < 0.03
    assert (offset.abs() < 0.04 + 1.5 * error).all()
