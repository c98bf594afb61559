"""The laws of a metriplectic model as tests to inherit: give a `model` fixture and get them all.

    class TestMyModel(ModelInvariants):
        @pytest.fixture
        def model(self, dimension):
            return my_model(dimension).double()

Positions are within a few units of length and the cutoff is 1; with several species they alternate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from conftest import TOLERANCE, mismatch, pairs_of_state, random_rotation, scattered, tilted_box
from torch import Tensor

from gnn_metriplectic.dynamics.integrators import EnergyConserving, EulerMaruyama
from gnn_metriplectic.geometry import Bonds, Box, Pairs, Reference, batch_pairs
from gnn_metriplectic.models import MetriplecticModel, State


class System(NamedTuple):
    state: State
    box: Box
    pairs: Pairs


class Observed(NamedTuple):
    """What a model says about a state that laws can be stated for."""

    energy: Tensor
    velocity_rate: Tensor
    entropy_rate: Tensor
    covariance: Tensor
    entropy: Tensor


def observe(model: MetriplecticModel, state: State, pairs: Pairs) -> Observed:
    drift = model.drift(state, pairs)
    entropy = state.entropy if model.encoder is None else model.encode(pairs, state.vel, state.species)
    return Observed(model.energy(state, pairs), drift.vel, drift.entropy, model.covariance(state, pairs, 1.0), entropy)


def flat(state: State) -> Tensor:
    """[v.ravel(), S]."""
    return torch.cat([state.vel.reshape(-1), state.entropy])


def unflat(state: State, values: Tensor) -> State:
    count, dimension = state.vel.shape
    return replace(state, vel=values[: count * dimension].view(count, dimension), entropy=values[count * dimension :])


def renumbered_reference(reference: Reference, order: Tensor) -> Reference:
    """The same neighbours where particle ``order[k]`` has become k."""
    index, displacement = torch.argsort(order)[reference.index], reference.displacement
    turned = index[0] > index[1]
    index = torch.where(turned, index.flip(0), index)
    displacement = torch.where(turned.unsqueeze(1), -displacement, displacement)
    return Reference(index, displacement, reference.num_particles, reference.reach)


def rates(model: MetriplecticModel, state: State, pairs: Pairs) -> Tensor:
    """Drift of [v.ravel(), S]."""
    return flat(model.drift(state, pairs))


def energy_gradient(model: MetriplecticModel, state: State, box: Box) -> tuple[Tensor, Tensor, Tensor]:
    """∂E/∂(r, v, S) by automatic differentiation through the pairs."""
    leaves = [x.clone().requires_grad_() for x in (state.pos, state.vel, state.entropy)]
    leaf = State(*leaves, state.species, state.reference)
    return torch.autograd.grad(model.energy(leaf, pairs_of_state(model, leaf, box)), leaves)


def noise_matrix(model: MetriplecticModel, state: State, pairs: Pairs, dt: float) -> Tensor:
    """B, ``[N (D + 1), E (D + 1)]``: what each normal number of each pair adds to [v.ravel(), S]."""
    _, dissipative = model.brackets(state, pairs)
    relative = pairs.relative(state.vel)
    count = model.dimension + 1
    columns = []
    for unit in torch.eye(pairs.num_pairs * count, dtype=state.pos.dtype):
        force, heat_flow = dissipative.sample(unit.view(-1, count), dt)
        heat = -0.5 * (force * relative).sum(dim=1)
        energy = pairs.total_of_ends(heat + heat_flow, heat - heat_flow)
        velocity = pairs.net(force) / dissipative.mass.unsqueeze(1)
        columns.append(torch.cat([velocity.reshape(-1), energy / dissipative.thermo.temperature]))
    return torch.stack(columns, dim=1)


class GivenNoise(EnergyConserving):
    """The energy-conserving step with normal numbers from outside."""

    normals: Tensor

    def _normals(self, pairs: Pairs, step: int) -> Tensor:
        return self.normals


class _Laws:
    dtype = torch.float64

    @pytest.fixture(params=[2, 3], ids=["2d", "3d"])
    def dimension(self, request) -> int:
        return request.param

    @pytest.fixture
    def model(self, dimension: int) -> MetriplecticModel:
        raise NotImplementedError("a subclass gives the model")

    @pytest.fixture
    def cluster(self, model) -> System:
        """A few particles in free space, all within reach of one another."""
        box = Box.free(model.dimension)
        # four neighbours tell a deformation in three dimensions well enough, three hardly
        count = 6 if model.is_solid and model.dimension == 3 else 4
        state = scattered(model, count, spacing=0.3)
        pairs = pairs_of_state(model, state, box)
        assert pairs.num_pairs == count * (count - 1) // 2
        return System(state, box, pairs)

    @pytest.fixture
    def fluid(self, model) -> System:
        """A triclinic cell of fluid with pairs across every face."""
        box = tilted_box(model.dimension)
        state = scattered(model, self.crowd(model), box=box)
        return System(state, box, pairs_of_state(model, state, box))

    @staticmethod
    def crowd(model: MetriplecticModel) -> int:
        """Particles of the fluid; each of a solid needs neighbours in all directions."""
        return 64 if model.is_solid and model.dimension == 3 else 30

    @property
    def exact(self) -> float:
        return TOLERANCE[self.dtype]

    def same(self, actual: Observed, expected: Observed) -> None:
        for name, a, b in zip(Observed._fields, actual, expected, strict=True):
            assert mismatch(a, b) < self.exact, name


class SymmetryLaws(_Laws):
    """How a model answers to a change of description."""

    def test_particles_have_no_order(self, model, fluid):
        order = torch.randperm(len(fluid.state.pos), generator=torch.Generator().manual_seed(1))
        state = fluid.state
        species = None if state.species is None else state.species[order]
        reference = None if state.reference is None else renumbered_reference(state.reference, order)
        renumbered = State(state.pos[order], state.vel[order], state.entropy[order], species, reference)
        actual = observe(model, renumbered, pairs_of_state(model, renumbered, fluid.box))
        expected = observe(model, state, fluid.pairs)
        self.same(actual, Observed(expected.energy, *(x[order] for x in expected[1:])))

    def test_pairs_have_no_order_and_no_first_member(self, model, fluid):
        pairs = fluid.pairs
        order = torch.randperm(pairs.num_pairs, generator=torch.Generator().manual_seed(1))
        turned = torch.arange(pairs.num_pairs) % 2 == 0
        index = torch.where(turned, pairs.index.flip(0), pairs.index)[:, order]
        displacement = torch.where(turned.unsqueeze(1), -pairs.displacement, pairs.displacement)[order]
        shuffled = replace(pairs, index=index, displacement=displacement)
        self.same(observe(model, fluid.state, shuffled), observe(model, fluid.state, pairs))

    def test_place_does_not_matter(self, model, fluid):
        state = replace(fluid.state, pos=fluid.state.pos + torch.linspace(-1.7, 5.3, model.dimension).to(self.dtype))
        self.same(
            observe(model, state, pairs_of_state(model, state, fluid.box)), observe(model, fluid.state, fluid.pairs)
        )

    @pytest.mark.parametrize("reflect", [False, True], ids=["rotation", "reflection"])
    def test_orientation_and_handedness_do_not_matter(self, model, reflect):
        box = Box.free(model.dimension)
        state = scattered(model, 12)
        turn = random_rotation(model.dimension, reflect=reflect).to(self.dtype)
        turned = replace(state, pos=state.pos @ turn.T, vel=state.vel @ turn.T)
        expected = observe(model, state, pairs_of_state(model, state, box))
        actual = observe(model, turned, pairs_of_state(model, turned, box))
        both = torch.block_diag(turn, torch.ones(1, 1, dtype=self.dtype))
        self.same(
            actual,
            expected._replace(
                velocity_rate=expected.velocity_rate @ turn.T, covariance=both @ expected.covariance @ both.T
            ),
        )

    def test_uniform_motion_does_not_matter(self, model, fluid):
        boost = torch.linspace(-2.0, 3.0, model.dimension).to(self.dtype)
        state = replace(fluid.state, vel=fluid.state.vel + boost)
        expected = observe(model, fluid.state, fluid.pairs)
        mass = model.masses(len(state.pos), state.species).sum()
        kinetic = boost @ model.momentum(fluid.state) + 0.5 * mass * boost @ boost
        self.same(observe(model, state, fluid.pairs), expected._replace(energy=expected.energy + kinetic))

    def test_reversible_part_is_what_time_reversal_turns_around(self, model, cluster):
        state, box, pairs = cluster
        forward = model.drift(state, pairs)
        backward = model.drift(replace(state, vel=-state.vel), pairs)
        force = -energy_gradient(model, state, box)[0]
        mass = model.masses(len(state.pos), state.species).unsqueeze(1)
        # dv/dt is even and dS/dt zero in the reversible part; odd and even in the irreversible one
        assert mismatch(0.5 * (forward.vel + backward.vel), force / mass) < self.exact
        assert mismatch(forward.entropy, backward.entropy) < self.exact
        assert mismatch(forward.vel, backward.vel) > 0.01, "there is friction to tell apart"

    def test_encoded_entropy_is_even_in_time(self, model, fluid):
        if model.encoder is None:
            pytest.skip("the entropy is given")
        forward = model.encode(fluid.pairs, fluid.state.vel, fluid.state.species)
        backward = model.encode(fluid.pairs, -fluid.state.vel, fluid.state.species)
        at_rest = model.encode(fluid.pairs, 0.0 * fluid.state.vel, fluid.state.species)
        assert mismatch(backward, forward) < self.exact
        assert mismatch(at_rest, forward) > 1e-3, "velocities matter"

    def test_moving_particles_by_lattice_vectors_changes_nothing(self, model, fluid):
        shifts = torch.randint(-2, 3, fluid.state.pos.shape, generator=torch.Generator().manual_seed(2))
        state = replace(fluid.state, pos=fluid.state.pos + (shifts.double() @ fluid.box.lattice_at(0.0)).to(self.dtype))
        self.same(
            observe(model, state, pairs_of_state(model, state, fluid.box)), observe(model, fluid.state, fluid.pairs)
        )

    def test_another_cell_of_the_same_lattice_changes_nothing(self, model, fluid):
        lattice = fluid.box.lattice_at(0.0)
        lattice[1] -= lattice[0]
        pairs = pairs_of_state(model, fluid.state, Box.triclinic(lattice))
        self.same(observe(model, fluid.state, pairs), observe(model, fluid.state, fluid.pairs))

    def test_a_batch_of_unequal_graphs_is_its_graphs_one_by_one(self, model, fluid, cluster):
        items = [fluid, cluster]
        pairs = batch_pairs([item.pairs for item in items])
        columns = [[getattr(item.state, name) for item in items] for name in ("pos", "vel", "entropy", "species")]
        state = State(*(None if column[0] is None else torch.cat(column) for column in columns))
        parts = [observe(model, item.state, item.pairs) for item in items]
        energy = parts[0].energy + parts[1].energy
        self.same(
            observe(model, state, pairs), Observed(energy, *(torch.cat(x) for x in list(zip(*parts, strict=True))[1:]))
        )

    def test_a_particle_without_neighbours_flies_straight(self, model, cluster):
        state = cluster.state
        far = torch.full((1, model.dimension), 50.0, dtype=self.dtype)
        vel = torch.linspace(-1.0, 2.0, model.dimension, dtype=self.dtype)[None]
        species = None if state.species is None else torch.cat([state.species, state.species[:1]])
        entropy = torch.cat([state.entropy, state.entropy[:1]])
        lonely = State(torch.cat([state.pos, far]), torch.cat([state.vel, vel]), entropy, species)
        for scheme in (EnergyConserving, EulerMaruyama):
            integrator = scheme(model, cluster.box, 0.01)
            frame = integrator.start(lonely)
            for _ in range(20):
                frame = integrator.step(frame)
            assert torch.equal(frame.state.vel[-1:], vel)
            assert mismatch(frame.state.pos[-1:], far + 0.2 * vel) < self.exact
            assert mismatch(frame.state.entropy[-1], lonely.entropy[-1]) < self.exact
            assert mismatch(frame.state.vel[:-1], state.vel) > 1e-3, "the others interact"


class StructureLaws(_Laws):
    """Brackets, drift and noise, against dense matrices and automatic differentiation."""

    def test_poisson_matrix_is_antisymmetric_and_leaves_entropy_alone(self, model, cluster):
        state = cluster.state
        matrix = model.poisson_matrix(state, cluster.pairs)
        entropy_gradient = torch.zeros(matrix.shape[0], dtype=self.dtype)
        entropy_gradient[-len(state.pos) :] = 1.0
        assert torch.equal(matrix, -matrix.T)
        assert matrix.abs().max() > 0
        assert (matrix @ entropy_gradient).abs().max() == 0

    def test_reversible_drift_is_the_poisson_matrix_on_the_energy_gradient(self, model, cluster):
        state, box, pairs = cluster
        gradient = torch.cat([x.reshape(-1) for x in energy_gradient(model, state, box)])
        rate = model.poisson_matrix(state, pairs) @ gradient
        poisson, dissipative = model.brackets(state, pairs)
        velocity_rate = poisson.forces() / dissipative.mass.unsqueeze(1)
        drift = torch.cat([state.vel.reshape(-1), velocity_rate.reshape(-1), torch.zeros_like(state.entropy)])
        assert mismatch(drift, rate) < self.exact

    def test_force_is_minus_the_energy_gradient_in_a_periodic_cell(self, model, fluid):
        gradient = energy_gradient(model, fluid.state, fluid.box)[0]
        poisson, _ = model.brackets(fluid.state, fluid.pairs)
        assert mismatch(poisson.forces(), -gradient) < self.exact

    def test_temperature_is_the_energy_gradient_in_entropy(self, model, fluid):
        gradient = energy_gradient(model, fluid.state, fluid.box)[2]
        assert mismatch(model.temperature(fluid.state, fluid.pairs), gradient) < self.exact

    def test_work_of_a_particle_is_what_its_energy_loses(self, model, cluster):
        state, _, pairs = cluster
        poisson, _ = model.brackets(state, pairs)

        def energies(step: Tensor) -> Tensor:
            configuration = model.configuration(pairs.moved(step), state.species)
            return model.thermo(configuration, state.entropy, state.species).energy

        motion = torch.randn(state.pos.shape, generator=torch.Generator().manual_seed(6), dtype=self.dtype)
        _, rate = torch.func.jvp(energies, (torch.zeros_like(motion),), (motion,))
        assert mismatch(poisson.power(motion), -rate) < self.exact

    def test_work_of_all_is_that_of_the_forces(self, model, fluid):
        poisson, _ = model.brackets(fluid.state, fluid.pairs)
        work = (poisson.forces() * fluid.state.vel).sum()
        assert mismatch(poisson.power(fluid.state.vel).sum(), work) < self.exact

    def test_stress_is_the_mean_of_those_of_the_particles(self, model, fluid):
        state, _, pairs = fluid
        poisson, dissipative = model.brackets(state, pairs)
        parts = model.stresses(state, pairs) * poisson.volume[:, None, None]
        force = poisson.pair_forces() + dissipative.friction_forces(pairs.relative(state.vel))
        total = torch.einsum("n,ni,nj->ij", dissipative.mass, state.vel, state.vel)
        total = total + torch.einsum("ei,ej->ij", pairs.displacement, force)
        if poisson.elastic is not None:
            total = total + poisson.elastic.virials().sum(dim=0)
        assert mismatch(model.stress(state, pairs), -total / pairs.volume) < self.exact
        assert mismatch(parts.sum(dim=0), -total) < self.exact

    def test_forces_are_differentiable_and_do_not_depend_on_it(self, model, cluster):
        state, box, _ = cluster

        def forces(pos: Tensor) -> Tensor:
            moved = replace(state, pos=pos)
            poisson, _ = model.brackets(moved, pairs_of_state(model, moved, box))
            return poisson.forces()

        stiffness = torch.autograd.functional.jacobian(forces, state.pos).reshape(state.pos.numel(), -1)
        assert mismatch(stiffness, stiffness.T) < self.exact, "second derivatives of an energy commute"
        leaf = state.pos.clone().requires_grad_()
        assert torch.equal(forces(leaf).detach(), forces(state.pos).detach())

    def test_friction_matrix_is_symmetric_and_positive_semidefinite(self, model, cluster):
        matrix = model.friction_matrix(cluster.state, cluster.pairs)
        assert mismatch(matrix, matrix.T) < self.exact
        values = torch.linalg.eigvalsh(matrix)
        assert values[0] > -self.exact * values[-1]
        assert values[-1] > 0

    def test_friction_matrix_does_not_change_the_energy(self, model, cluster):
        state, box, pairs = cluster
        _, by_velocity, by_entropy = energy_gradient(model, state, box)
        matrix = model.friction_matrix(state, pairs)
        gradient = torch.cat([by_velocity.reshape(-1), by_entropy])
        assert (
            mismatch(matrix @ gradient, torch.zeros_like(gradient), (matrix.abs() @ gradient.abs()).max()) < self.exact
        )

    def test_drift_is_friction_on_the_entropy_gradient_plus_its_divergence(self, model, cluster):
        state, _, pairs = cluster
        poisson, dissipative = model.brackets(state, pairs)
        reversible = poisson.forces() / dissipative.mass.unsqueeze(1)
        irreversible = rates(model, state, pairs) - flat(replace(state, vel=reversible, entropy=0.0 * state.entropy))

        def matrix(x: Tensor) -> Tensor:
            return model.friction_matrix(unflat(state, x), pairs)

        x = flat(state)
        entropy_gradient = torch.cat([torch.zeros(state.vel.numel(), dtype=self.dtype), torch.ones_like(state.entropy)])
        divergence = sum(
            torch.func.jvp(matrix, (x,), (unit,))[1][:, column] for column, unit in enumerate(torch.eye(len(x)).to(x))
        )
        expected = matrix(x) @ entropy_gradient + model.k_B * divergence
        assert mismatch(irreversible, expected) < self.exact
        assert mismatch(model.k_B * divergence, 0.0 * expected, expected.abs().max()) > 0.01, "the divergence matters"

    def test_noise_has_the_covariance_of_friction(self, model, cluster):
        noise = noise_matrix(model, cluster.state, cluster.pairs, 0.03)
        expected = 2.0 * model.k_B * 0.03 * model.friction_matrix(cluster.state, cluster.pairs)
        assert mismatch(noise @ noise.T, expected) < self.exact

    def test_covariance_of_a_particle_is_its_block_of_friction(self, model, cluster):
        count, dimension = cluster.state.vel.shape
        dense = 2.0 * model.k_B * 0.03 * model.friction_matrix(cluster.state, cluster.pairs)
        blocks = model.covariance(cluster.state, cluster.pairs, 0.03)
        for particle in range(count):
            rows = [*range(particle * dimension, (particle + 1) * dimension), count * dimension + particle]
            assert mismatch(blocks[particle], dense[rows][:, rows]) < self.exact

    def test_no_part_of_the_dynamics_changes_the_total_momentum(self, model, fluid):
        poisson, dissipative = model.brackets(fluid.state, fluid.pairs)
        normals = torch.randn(
            fluid.pairs.num_pairs, model.dimension + 1, generator=torch.Generator().manual_seed(3), dtype=self.dtype
        )
        relative = fluid.pairs.relative(fluid.state.vel)
        noise = fluid.pairs.net(dissipative.sample(normals, 0.1)[0])
        friction = fluid.pairs.net(dissipative.friction_forces(relative))
        for forces in (poisson.forces(), friction, noise):
            assert mismatch(forces.sum(dim=0), 0.0 * forces[0], forces.abs().sum()) < self.exact

    def test_reversible_part_keeps_the_angular_momentum(self, model):
        state = scattered(model, 12)
        poisson, _ = model.brackets(state, pairs_of_state(model, state, Box.free(model.dimension)))
        torque = torch.einsum("ni,nj->ij", state.pos, poisson.forces())
        assert mismatch(torque, torque.T, torque.abs().max()) < self.exact

    def test_entropy_grows_where_noise_vanishes(self, model, fluid):
        with torch.no_grad():
            cold = model.log_k_B.clone()
            model.log_k_B.fill_(-80.0)
            drift = model.drift(fluid.state, fluid.pairs)
            model.log_k_B.copy_(cold)
        _, dissipative = model.brackets(fluid.state, fluid.pairs)
        beta_i, beta_j = fluid.pairs.ends(1.0 / dissipative.thermo.temperature)
        relative = fluid.pairs.relative(fluid.state.vel)
        shear, bulk, conduction = dissipative.friction.squared.unbind(dim=1)
        along = (relative * fluid.pairs.direction).sum(dim=1) ** 2
        # v·Gv term by term, and heat down the gradient of 1/T
        work = 0.5 * shear * (relative**2).sum(dim=1) + (0.5 * shear + (bulk - shear) / model.dimension) * along
        production = 0.25 * (beta_i + beta_j) ** 2 * work + conduction * (beta_i - beta_j) ** 2
        assert (production >= 0).all()
        assert mismatch(drift.entropy.sum(), production.sum()) < self.exact

    def test_a_pair_that_crosses_the_cutoff_changes_nothing(self, model):
        def change(gap: float) -> list[float]:
            places = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.4, 0.5, 0.4], [0.1, 0.4, -0.4], [0.0, 0.8, 0.0]]
            pos = torch.tensor(places, dtype=self.dtype)[:, : model.dimension]
            reference = Reference.from_positions(pos, Box.free(model.dimension), model.cutoff)
            pos[4, 1] = model.cutoff * (1.0 - gap)
            state = replace(scattered(model, 5), pos=pos)
            if model.is_solid:
                state = replace(state, reference=reference.to(dtype=self.dtype))
            pairs = pairs_of_state(model, state, Box.free(model.dimension))
            crossing = pairs.distance > 0.98 * model.cutoff
            assert crossing.sum() == 1
            with_pair = observe(model, state, pairs)
            without = observe(model, state, pairs.select(~crossing))
            entropy = [(with_pair.entropy, without.entropy)] if model.encoder is not None else []
            terms = [*zip(with_pair[:4], without[:4], strict=True), *entropy]
            return [float((a - b).abs().max()) for a, b in terms]

        # with the square of the gap or faster; the force, which is the slope of the energy, linearly or faster
        near, far = change(1e-3), change(1e-2)
        for term, (small, large) in enumerate(zip(near, far, strict=True)):
            assert large > 0.0
            assert small < large / (8.0 if term == 1 else 60.0)

    def test_drift_conserves_energy_with_the_noise_it_belongs_to(self, model, cluster):
        # Itô: dE/dt = ∇E·drift + ½ tr(∇∇E 2 k_B M) = 0
        state, box, pairs = cluster
        gradient = energy_gradient(model, state, box)
        drift = model.drift(state, pairs)
        mass = model.masses(len(state.pos), state.species)
        thermo = model.thermo(model.configuration(pairs, state.species), state.entropy, state.species)
        curvature = torch.cat([mass.repeat_interleave(model.dimension), thermo.temperature / thermo.heat_capacity])
        ito = model.k_B * (curvature * model.friction_matrix(state, pairs).diagonal()).sum()
        terms = torch.cat(
            [(g * d).reshape(-1) for g, d in zip(gradient, (state.vel, drift.vel, drift.entropy), strict=True)]
        )
        assert mismatch(terms.sum() + ito, 0.0 * ito, terms.abs().sum()) < self.exact
        assert ito > 1e-3 * terms.abs().sum()


class StepLaws(_Laws):
    """What the integrator keeps, whatever the model."""

    steps = 300

    @pytest.mark.parametrize("dt", [0.001, 0.01, 0.04])
    @pytest.mark.parametrize("shape", ["cubic", "triclinic"])
    def test_total_energy_and_momentum_are_conserved_at_any_time_step(self, model, shape, dt):
        box = tilted_box(model.dimension) if shape == "triclinic" else Box.cubic(2.6, model.dimension)
        state = scattered(model, self.crowd(model) if model.is_solid else 16, box=box, seed=4)
        drift, momentum, _ = conservation(model, state, box, dt, self.steps if dt == 0.01 else self.steps // 3)
        assert drift < 1e-11
        assert momentum < 1e-12

    def test_a_step_has_the_mean_and_covariance_of_the_stochastic_equation(self, model, cluster):
        state, box, pairs = cluster
        count = pairs.num_pairs * (model.dimension + 1)
        # a cubature: exact for polynomials of the noise up to third degree
        points = count**0.5 * torch.cat([torch.eye(count), -torch.eye(count)]).to(self.dtype)

        def moments(dt: float) -> tuple[Tensor, Tensor]:
            scheme = GivenNoise(model, box, dt)
            frame = scheme.start(state)
            ends = []
            for point in points:
                scheme.normals = point.view(pairs.num_pairs, -1)
                ends.append(flat(scheme.step(frame).state) - flat(state))
            ends = torch.stack(ends)
            mean = ends.mean(dim=0)
            return mean / dt, (ends - mean).T @ (ends - mean) / len(ends) / dt

        # what is left after extrapolation to zero time step is of second order in it
        dt = 1e-4
        (mean, spread), (half_mean, half_spread) = moments(dt), moments(dt / 2)
        mean, spread = 2.0 * half_mean - mean, 2.0 * half_spread - spread
        expected = rates(model, state, pairs)
        split = state.vel.numel()
        for part in (slice(split), slice(split, None)):
            assert mismatch(mean[part], expected[part]) < 1e-4
        dense = 2.0 * model.k_B * model.friction_matrix(state, pairs)
        for rows in (slice(split), slice(split, None)):
            for columns in (slice(split), slice(split, None)):
                assert mismatch(spread[rows, columns], dense[rows, columns]) < 1e-4


@torch.no_grad()
def conservation(
    model: MetriplecticModel, state: State, box: Box, dt: float, steps: int, **options: int
) -> tuple[float, float, float]:
    """Largest change of the energy over kinetic energy, of the momentum over Σ m|v|, and of the kinetic energy."""
    scheme = EnergyConserving(model, box, dt, seed=5, **options)
    frame = scheme.start(state)
    energy, kinetic = model.energy(state, frame.configuration.pairs), model.kinetic_energy(state)
    momentum = model.momentum(state)
    scale = (model.masses(len(state.pos), state.species).unsqueeze(1) * state.vel.abs()).sum()
    drift = change = exchanged = 0.0
    for _ in range(steps):
        frame = scheme.step(frame)
        now = model.energy(frame.state, frame.configuration.pairs)
        drift = max(drift, float((now - energy).abs() / kinetic))
        change = max(change, float((model.momentum(frame.state) - momentum).abs().max() / scale))
        exchanged = max(exchanged, float((model.kinetic_energy(frame.state) - kinetic).abs() / kinetic))
    assert exchanged > 1e-3, "nothing happened"
    return drift, change, exchanged


class ModelInvariants(SymmetryLaws, StructureLaws, StepLaws):
    """All laws, in two and three dimensions, in float64."""


class SolidInvariants(ModelInvariants):
    """The laws of a solid, whose particles have reference neighbours."""

    steps = 60  # of more particles

    def test_a_particle_without_neighbours_flies_straight(self, model, cluster):
        """A particle of a solid has neighbours for good: here a body far from another."""
        state, copy = cluster.state, cluster.state.reference
        count, far = len(state.pos), torch.zeros_like(state.pos)
        far[:, 0] = 50.0
        reference = Reference(
            torch.cat([copy.index, copy.index + count], dim=1), copy.displacement.repeat(2, 1), 2 * count, copy.reach
        )
        species = None if state.species is None else state.species.repeat(2)
        both = State(
            torch.cat([state.pos, state.pos + far]), state.vel.repeat(2, 1), state.entropy.repeat(2), species, reference
        )
        alone, together = (EnergyConserving(model, cluster.box, 0.01) for _ in range(2))
        frame, pair = alone.start(state), together.start(both)
        for _ in range(20):
            frame, pair = alone.step(frame), together.step(pair)
        assert mismatch(pair.state.pos[:count], frame.state.pos) < self.exact
        assert mismatch(frame.state.vel, state.vel) > 1e-3, "there are forces"

    def test_a_rigid_motion_of_the_reference_has_no_elastic_energy(self, model):
        state = scattered(model, 12)
        turn = random_rotation(model.dimension).to(self.dtype)
        bonds = state.reference.pairs.with_displacement(state.reference.displacement @ turn.T)
        measures = model.strain(Bonds(state.reference, bonds)).measures
        strained = model.strain(state.reference.bonds(state.pos, Box.free(model.dimension))).measures
        assert measures.abs().max() < self.exact * strained.abs().max()

    def test_only_rigid_motions_of_a_solid_at_rest_are_free(self, model):
        dimension = model.dimension
        side = 5 if dimension == 2 else 4
        pos = 0.4 * torch.cartesian_prod(*[torch.arange(side, dtype=self.dtype)] * dimension)
        box, count = Box.free(dimension), len(pos)
        reference = Reference.from_positions(pos, box, model.cutoff)
        entropy = torch.zeros(count, dtype=self.dtype)

        def forces(flat: Tensor) -> Tensor:
            state = State(flat.view(pos.shape), torch.zeros_like(pos), entropy, None, reference)
            return model.brackets(state, pairs_of_state(model, state, box))[0].elastic.forces().reshape(-1)

        stiffness = -torch.autograd.functional.jacobian(forces, pos.reshape(-1))
        values = torch.linalg.eigvalsh(stiffness)
        rigid = dimension * (dimension + 1) // 2
        # deviatoric and hourglass energies leave a uniform expansion free; the volume is the business of the pressure
        assert values[: rigid + 1].abs().max() < 1e-10 * values[-1]
        assert values[rigid + 1] > 1e-3 * values[-1]
