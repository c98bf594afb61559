"""Time steps: balances of energy and momentum, closed forms, reproducibility."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import TEMPERATURE, ideal_gas, learned_model, mismatch, pairs_of_state, scattered, tilted_box
from invariants import conservation
from torch import Tensor

from gnn_metriplectic.dynamics.external import Prescribed, TaylorGreenForcing, Thermostat
from gnn_metriplectic.dynamics.integrators import INTEGRATORS, EnergyConserving, EulerMaruyama, Frame
from gnn_metriplectic.dynamics.simulate import simulate
from gnn_metriplectic.geometry import Box, dot, neighbor_pairs, pair_normals
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.terms import EquationOfState, Friction, FrictionTerm, HeatBath, LucyKernel, Thermo

SCHEMES = pytest.mark.parametrize("scheme", INTEGRATORS.values(), ids=INTEGRATORS)


def total_energy(model: MetriplecticModel, frame: Frame) -> Tensor:
    return model.energy(frame.state, frame.configuration.pairs)


@pytest.mark.slow
@pytest.mark.parametrize("make", [ideal_gas, learned_model], ids=["gas", "learned"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_total_energy_is_conserved_over_ten_thousand_steps(make, dimension):
    model, box = make(dimension), tilted_box(dimension)
    drift, momentum, _ = conservation(model, scattered(model, 20, box=box), box, 0.02, 10_000)
    assert drift < 1e-9
    assert momentum < 1e-12


@SCHEMES
@pytest.mark.parametrize("shear_rate", [0.0, 0.8], ids=["still", "sheared"])
def test_momentum_is_conserved_when_a_pair_crosses_the_boundary(scheme, shear_rate):
    model, box = ideal_gas(3, mass=[0.5, 2.0]), Box.cubic(3.0, 3, shear_rate=shear_rate)
    state = scattered(model, 16, box=box)
    integrator = scheme(model, box, 0.005)
    frame = integrator.start(state)
    for _ in range(50):
        frame = integrator.step(frame)
        pairs = frame.configuration.pairs
        difference = frame.state.pos[pairs.index[0]] - frame.state.pos[pairs.index[1]]
        assert (difference - pairs.displacement).abs().max() > 1.0, "there are pairs across the boundary"
        scale = model.momentum(replace(frame.state, vel=frame.state.vel.abs())).max()
        assert mismatch(model.momentum(frame.state), model.momentum(state), scale) < 1e-13
    assert mismatch(frame.state.vel, state.vel) > 0.1


def test_euler_maruyama_conserves_energy_only_on_average():
    model, box = ideal_gas(3), tilted_box(3)
    state = scattered(model, 20, box=box)

    def change(dt: float, seed: int) -> float:
        integrator = EulerMaruyama(model, box, dt, seed=seed)
        frame = integrator.start(state)
        return float(total_energy(model, integrator.step(frame)) - total_energy(model, frame))

    changes = torch.tensor([change(1e-3, seed) for seed in range(200)])
    assert changes.std() > 1e-6
    fine = torch.tensor([change(2.5e-4, seed) for seed in range(200)])
    # each step errs by an amount of first order in dt, not of its square root: the noise itself does no net work
    assert float(fine.std() / changes.std()) == pytest.approx(0.25, rel=0.2)


def test_a_forcing_changes_the_energy_by_its_work():
    model, box = ideal_gas(3, mass=[0.5, 2.0]), Box.cubic(3.0, 3)
    forcing = TaylorGreenForcing(amplitude=4.0, length=3.0)
    integrator = EnergyConserving(model, box, 0.01, forcing=forcing)
    state = scattered(model, 20, box=box)
    mass = model.masses(20, state.species).unsqueeze(1)
    frame, total = integrator.start(state), 0.0
    for _ in range(50):
        previous, frame = frame, integrator.step(frame)
        drift = (frame.state.pos - previous.state.pos) / 0.01
        work = sum(
            0.5 * 0.01 * (mass * forcing.acceleration(f.state.pos, 0.0) * 0.5 * (f.state.vel + drift)).sum()
            for f in (previous, frame)
        )
        change = total_energy(model, frame) - total_energy(model, previous)
        assert abs(float(change - work)) < 1e-12 * float(total_energy(model, frame))
        total += abs(float(work))
    assert total > 0.1


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("make", [ideal_gas, learned_model], ids=["gas", "learned"])
def test_sheared_images_change_the_energy_by_the_work_of_the_boundary(make, dimension):
    # a pair's impulse J on i and -J on j does the work J·(v̄_i - v̄_j) on both and takes J·v̄_ij from their
    # internal energies; the two differ by the velocity of the image
    dt = 0.01
    model, box = make(dimension), Box.cubic(3.0, dimension, shear_rate=1.5)
    integrator = EnergyConserving(model, box, dt, seed=3)
    integrator.sweeps = 200  # so that friction is known from the final midpoint
    frame, total = integrator.start(scattered(model, 20, box=box)), 0.0
    for number in range(40):
        previous, frame = frame, integrator.step(frame)
        before, after, species = previous.configuration, frame.configuration, frame.state.species
        thermo = [model.thermo(c, previous.state.entropy, species) for c in (before, after)]
        dissipative = model.dissipative(after, thermo[1], species)
        normals = pair_normals(after.pairs.index, 3, number, dimension + 1)
        reversible = sum(model.poisson(c, t).forces() for c, t in zip((before, after), thermo, strict=True))
        kicked = previous.state.vel + 0.5 * dt * reversible / dissipative.mass.unsqueeze(1)
        middle = after.pairs.relative(0.5 * (kicked + frame.state.vel))
        impulse = 0.5 * dt * model.poisson(after, thermo[1]).pair_forces() + dissipative.sample(normals, dt)[0]
        impulse = impulse + dt * dissipative.friction_forces(middle)
        earlier = 0.5 * dt * model.poisson(before, thermo[0]).pair_forces()
        work = -(earlier * before.pairs.velocity_shift).sum() - (impulse * after.pairs.velocity_shift).sum()
        change = total_energy(model, frame) - total_energy(model, previous)
        assert abs(float(change - work)) < 1e-12 * float(total_energy(model, frame))
        total += abs(float(work))
    assert total > 0.1


@pytest.mark.parametrize("make", [ideal_gas, learned_model], ids=["gas", "learned"])
def test_the_stress_across_a_shear_flow_does_its_work(make):
    # friction in a flow v_x = γ̇ y dissipates γ̇ V σ[1, 0]; σ[0, 1] differs, since friction is not central
    model, rate = make(3), 0.7
    state = scattered(model, 30, spacing=0.4)
    vel = torch.zeros_like(state.vel)
    vel[:, 0] = rate * state.pos[:, 1]
    state = replace(state, vel=vel)
    pairs = pairs_of_state(model, state, Box.free(3))
    poisson, dissipative = model.brackets(state, pairs)
    friction = model.stress(state, pairs, flow=vel) * poisson.volume.sum()
    friction = friction + torch.einsum("ei,ej->ij", pairs.displacement, poisson.pair_forces())
    relative = pairs.relative(vel)
    dissipated = -dot(dissipative.friction_forces(relative), relative).sum()
    assert mismatch(rate * friction[1, 0], dissipated) < 1e-12
    assert float(friction[0, 1] / friction[1, 0]) < 0.9


def test_entropy_never_decreases_where_noise_vanishes():
    model, box = ideal_gas(3, k_B=1e-30, viscosity=5.0), tilted_box(3)
    state = scattered(model, 40, box=box)
    integrator = EnergyConserving(model, box, 0.001)
    frame = integrator.start(state)
    entropy = [float(model.entropy(state))]
    for _ in range(400):
        frame = integrator.step(frame)
        entropy.append(float(model.entropy(frame.state)))
    steps = torch.tensor(entropy, dtype=torch.float64).diff()
    assert (steps > 0).all()
    assert steps.sum() > 1.0


@SCHEMES
def test_a_seed_is_a_trajectory_bit_for_bit(scheme):
    model, box = ideal_gas(3), tilted_box(3)
    name = next(key for key, value in INTEGRATORS.items() if value is scheme)
    state = scattered(model, 20, box=box)
    first, again, other = (
        simulate(model, state, box=box, dt=0.005, steps=20, integrator=name, seed=seed)
        for seed in (2**63 + 5, 2**63 + 5, 5)
    )
    for quantity in ("positions", "velocities", "entropies"):
        assert torch.equal(getattr(first, quantity), getattr(again, quantity))
        assert not torch.equal(getattr(first, quantity), getattr(other, quantity))


@SCHEMES
def test_a_trajectory_goes_on_from_its_middle(scheme):
    model, box = ideal_gas(3), Box.cubic(3.0, 3, shear_rate=0.5)
    integrator = scheme(model, box, 0.005, seed=1)
    whole = integrator.start(scattered(model, 20, box=box))
    for number in range(20):
        whole = integrator.step(whole)
        if number == 9:
            part = integrator.start(whole.state, whole.step)
    for _ in range(10):
        part = integrator.step(part)
    assert torch.equal(part.state.vel, whole.state.vel)
    assert torch.equal(part.state.entropy, whole.state.entropy)


class ConstantDrag(FrictionTerm):
    """G = g I within the cutoff, at any temperature; two dimensions, no heat conduction."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, pairs, temperature, fluctuation, volume, slope, species=None) -> Friction:
        squared = slope.new_zeros(pairs.num_pairs, 3)
        squared[:, 0] = 2.0 * self.strength
        return Friction(squared, torch.zeros_like(squared))


class HeatReservoir(EquationOfState):
    """T = 1 at any volume: a heat capacity so large that nothing changes it, and no pressure."""

    capacity = 1e9

    def forward(self, entropy, volume, species=None) -> Thermo:
        growth = torch.exp(entropy / self.capacity)
        capacity = torch.full_like(entropy, self.capacity)
        return Thermo(self.capacity * growth, growth, torch.zeros_like(entropy), capacity)


class Ensemble:
    """Many pairs of particles, each pair alone with a drag R = g / T on its relative velocity."""

    def __init__(self, *, k_B: float, drag: float, mass: float = 1.0, side: int = 40) -> None:
        self.box = Box.cubic(4.0 * side, 2)
        self.model = MetriplecticModel(
            LucyKernel(1.5, dimension=2),
            HeatReservoir(),
            ConstantDrag(drag),
            mass=mass,
            k_B=k_B,
            dt=1.0,
            dimension=2,
        )
        corner = 4.0 * torch.cartesian_prod(torch.arange(side), torch.arange(side)).double() + 1.0
        self.pos = torch.stack([corner, corner + 0.3], dim=1).reshape(-1, 2)

    def start(self, integrator, vel: Tensor) -> Frame:
        return integrator.start(State(self.pos, vel, torch.zeros(len(self.pos), dtype=torch.float64)))

    def held(self, frame: Frame) -> Frame:
        """The frame with the particles back in their places, so that no pair ends."""
        return frame._replace(state=replace(frame.state, pos=self.pos))


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 2.0])
def test_friction_at_the_midpoint_decays_by_its_closed_form(rate):
    # m dv = -2 R v for the relative velocity; at the midpoint v' = v (1 - x) / (1 + x), x = R dt / m
    ensemble = Ensemble(k_B=1e-40, drag=0.5 * rate, side=2)
    integrator = EnergyConserving(ensemble.model, ensemble.box, 1.0)
    integrator.sweeps = 60
    vel = torch.tensor([[1e-3, 2e-3], [-3e-3, 1e-3]] * 4, dtype=torch.float64)
    frame = integrator.step(ensemble.start(integrator, vel))
    first, second = frame.state.vel.view(-1, 2, 2).unbind(dim=1)
    x = 0.5 * rate
    factor = (1.0 - x) / (1.0 + x)
    assert mismatch(first - second, factor * (vel[0] - vel[1]).expand(4, 2), vel.abs().max()) < 1e-9
    integrator.sweeps = EnergyConserving.sweeps
    frame = integrator.step(ensemble.start(integrator, vel))
    first, second = frame.state.vel.view(-1, 2, 2).unbind(dim=1)
    half = 0.5 * x  # what a sweep leaves of the error
    left = (half / (1.0 + half)) ** EnergyConserving.sweeps
    assert mismatch(first - second, factor * (vel[0] - vel[1]).expand(4, 2), vel.abs().max()) < 4.0 * left


@pytest.mark.parametrize("rate", [0.2, 1.0])
@SCHEMES
def test_kinetic_temperature_under_linear_friction_is_its_closed_form(scheme, rate):
    # with x = R dt / m the relative velocity is a chain of stationary variance σ² / 4x = 2 k_B T / m at the midpoint,
    # and 1 / (1 - x) times that with explicit friction
    ensemble = Ensemble(k_B=1e-4, drag=0.5 * rate)
    integrator = scheme(ensemble.model, ensemble.box, 1.0, seed=4)
    generator = torch.Generator().manual_seed(0)
    frame = ensemble.start(integrator, 1e-2 * torch.randn(ensemble.pos.shape, generator=generator, dtype=torch.float64))
    measured = []
    for number in range(40 + 80):
        frame = ensemble.held(integrator.step(frame))
        first, second = frame.state.vel.view(-1, 2, 2).unbind(dim=1)
        if number >= 40:
            measured.append(float(((first - second) ** 2).mean() / 2e-4))
    temperature = torch.tensor(measured).view(8, 10).mean(dim=1)
    error = float(temperature.std() / 8**0.5)
    expected = 1.0 if scheme is EnergyConserving else 1.0 / (1.0 - 0.5 * rate)
    assert error < 0.01 * expected
    assert float(temperature.mean()) == pytest.approx(expected, abs=4.0 * error + 0.002)


def test_a_thermostat_relaxes_temperatures_exponentially_at_any_step():
    model = ideal_gas(3)
    pos = 5.0 * torch.arange(6, dtype=torch.float64)[:, None].expand(6, 3)
    state = State(pos, torch.zeros_like(pos), torch.linspace(-2.0, 2.0, 6, dtype=torch.float64))
    integrator = EnergyConserving(model, Box.free(3), 0.7, thermostat=Thermostat(temperature=2.0, relaxation_time=0.9))
    frame = integrator.start(state)
    start = model.temperature(state, frame.configuration.pairs)
    for number in range(1, 6):
        frame = integrator.step(frame)
        expected = 10.0 + (start - 10.0) * math.exp(-0.7 * number / 0.9)  # k_B T₀ = 2 at k_B = 0.2
        assert mismatch(model.temperature(frame.state, frame.configuration.pairs), expected) < 1e-12
    assert torch.equal(frame.state.vel, state.vel)


def test_friction_against_an_accelerating_particle_is_of_second_order():
    # m dv = -R (v - t) dt from rest: v = t - (m/R) (1 - exp(-R t / m)), with R = g / T
    ensemble = Ensemble(k_B=1e-40, drag=1.0, side=1)
    mask = torch.tensor([True, False])

    def path(time: float) -> tuple[Tensor, Tensor]:
        return ensemble.pos[:1], torch.tensor([[time, 0.0]], dtype=torch.float64)

    def error(dt: float) -> float:
        integrator = EnergyConserving(ensemble.model, ensemble.box, dt, prescribed=Prescribed(mask, path))
        frame = ensemble.start(integrator, torch.zeros_like(ensemble.pos))
        for _ in range(round(1.0 / dt)):
            frame = ensemble.held(integrator.step(frame))
        return abs(float(frame.state.vel[1, 0]) - math.exp(-1.0))

    assert error(0.2) < 0.01
    assert error(0.1) < 0.3 * error(0.2)


def test_a_run_goes_on_from_any_time_of_a_sheared_box():
    model, box = ideal_gas(2), Box.cubic(3.0, 2, shear_rate=1.5)
    whole = simulate(model, scattered(model, 20, box=box), box=box, dt=0.01, steps=40)
    state = State.from_frame(whole, 20, model)
    part = simulate(model, state, box=box, dt=0.01, steps=1, time=float(whole.times[20]))
    assert mismatch(part.times, whole.times[20:22]) < 1e-12
    pairs = [neighbor_pairs(state.pos, box, 1.0, float(run.times[k])) for run, k in ((whole, 20), (part, 0))]
    assert mismatch(model.energy(state, pairs[1]), model.energy(state, pairs[0])) < 1e-14
    late, early = (
        simulate(model, state, box=box, dt=0.01, steps=20, time=time).velocities[-1].abs().max() for time in (0.2, 0.0)
    )
    assert late != early


@SCHEMES
def test_prescribed_particles_follow_their_path_and_others_feel_them(scheme):
    model = ideal_gas(2)
    state = scattered(model, 4, spacing=0.3)
    mask = torch.tensor([True, False, False, False])
    flow = torch.tensor([[0.7, -0.2]], dtype=torch.float64)

    def path(time: float) -> tuple[Tensor, Tensor]:
        return state.pos[:1] + time * flow, flow

    integrator = scheme(model, Box.free(2), 0.005, prescribed=Prescribed(mask, path))
    free = scheme(model, Box.free(2), 0.005)
    frame, other = integrator.start(replace(state, vel=torch.where(mask[:, None], flow, state.vel))), free.start(state)
    for _ in range(10):
        frame, other = integrator.step(frame), free.step(other)
    assert mismatch(frame.state.pos[:1], state.pos[:1] + 0.05 * flow) < 1e-14
    assert torch.equal(frame.state.vel[:1], flow)
    assert mismatch(frame.state.vel[1:], other.state.vel[1:]) > 1e-3


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan")])
def test_a_time_step_is_positive(dt):
    with pytest.raises(ValueError, match="must be positive"):
        EnergyConserving(ideal_gas(3), Box.free(3), dt)


def test_box_and_model_share_the_dimension():
    with pytest.raises(ValueError, match="dimension 2 and the model 3"):
        EnergyConserving(ideal_gas(3), Box.free(2), 0.1)


def test_a_step_too_long_says_which_particle_has_no_temperature():
    model, box = ideal_gas(3), tilted_box(3)
    state = scattered(model, 20, box=box)
    with pytest.raises(ValueError, match=r"step \d+ of 50: particle \d+ has internal energy"):
        simulate(model, state, box=box, dt=3.0, steps=50)


def test_pairs_of_a_frame_are_those_of_its_state():
    model, box = ideal_gas(3), Box.cubic(3.0, 3, shear_rate=2.0)
    integrator = EnergyConserving(model, box, 0.01)
    frame = integrator.start(scattered(model, 20, box=box))
    for _ in range(30):
        frame = integrator.step(frame)
    expected = pairs_of_state(model, frame.state, box, 0.3)
    assert torch.equal(frame.configuration.pairs.index, expected.index)
    assert mismatch(frame.configuration.pairs.displacement, expected.displacement) < 1e-12


@SCHEMES
@pytest.mark.parametrize("shear_rate", [0.0, 0.8], ids=["still", "sheared"])
@pytest.mark.parametrize("make", [ideal_gas, learned_model], ids=["gas", "learned"])
def test_blocks_of_pairs_change_no_trajectory(make, shear_rate, scheme):
    model, box = make(3, mass=[0.5, 2.0]), Box.cubic(3.0, 3, shear_rate=shear_rate)
    state = scattered(model, 60, box=box)
    mask = torch.arange(60) < 3
    outside = {
        "prescribed": Prescribed(mask, lambda time: (state.pos[mask] + time * state.vel[mask], state.vel[mask])),
        "thermostat": Thermostat(TEMPERATURE, 0.1),
        "forcing": TaylorGreenForcing(amplitude=4.0, length=3.0),
    }
    pieces, whole = (scheme(model, box, 0.004, seed=5, block=block, **outside) for block in (40, 10_000))
    frames = [integrator.start(state) for integrator in (pieces, whole)]
    for _ in range(20):
        frames = [integrator.step(frame) for integrator, frame in zip((pieces, whole), frames, strict=True)]
    ours, expected = frames
    assert len(ours.blocks.parts) > 5
    assert len(expected.blocks.parts) == 1
    assert whole.neighbors.searches > 1
    for name in ("pos", "vel", "entropy"):
        assert mismatch(getattr(ours.state, name), getattr(expected.state, name)) < 1e-10, name
    assert mismatch(expected.state.vel, state.vel) > 0.1
    assert float(total_energy(model, ours) / total_energy(model, expected)) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("block", [40, 10_000])
def test_species_that_the_model_does_not_know_are_an_error_in_blocks_too(block):
    model, box = ideal_gas(3, mass=[0.5, 2.0]), Box.cubic(3.0, 3)
    state = scattered(model, 60, box=box)
    with pytest.raises(ValueError, match="species 2 is unknown"):
        EnergyConserving(model, box, 0.004, block=block).start(replace(state, species=torch.arange(60) % 3))


def test_inner_steps_without_friction_are_steps_of_verlet():
    """Of forces that know no entropy, n inner steps are n steps, and so is the work that is booked."""
    learned = learned_model(3, potential=True, seed=1)
    model = MetriplecticModel(
        learned.kernel,
        HeatBath(temperature=1.0),
        ConstantDrag(0.0),
        mass=1.0,
        k_B=1.0,
        dt=0.01,
        dimension=3,
        potential=learned.potential,
    ).double()
    box = Box.cubic(3.0, 3, shear_rate=0.8)
    state = scattered(model, 30, box=box)
    driven = torch.arange(30) < 5

    def path(time: float) -> tuple[Tensor, Tensor]:
        vel = state.vel[driven] + 3.0 * time
        return state.pos[driven] + 0.5 * time * (state.vel[driven] + vel), vel

    def after(dt: float, steps: int, inner_steps: int) -> State:
        scheme = EnergyConserving(model, box, dt, prescribed=Prescribed(driven, path), inner_steps=inner_steps)
        frame = scheme.start(state)
        for _ in range(steps):
            frame = scheme.step(frame)
        return frame.state

    whole, parts = after(0.03, 20, 3), after(0.01, 60, 1)
    for name, moved in (("pos", 0.01), ("vel", 0.01), ("entropy", 1e-3)):
        assert mismatch(getattr(whole, name), getattr(parts, name)) < 1e-10
        assert mismatch(getattr(whole, name), getattr(state, name)) > moved


@pytest.mark.parametrize("inner_steps", [2, 5])
def test_inner_steps_conserve_energy_and_momentum(inner_steps):
    model, box = learned_model(3), tilted_box(3)
    drift, momentum, _ = conservation(model, scattered(model, 20, box=box), box, 0.02, 100, inner_steps=inner_steps)
    assert drift < 1e-12
    assert momentum < 1e-13


def test_inner_steps_are_of_the_energy_conserving_integrator():
    model, box = ideal_gas(2), Box.free(2)
    with pytest.raises(ValueError, match="inner_steps is 2; only the energy_conserving integrator makes inner steps"):
        EulerMaruyama(model, box, 0.01, inner_steps=2)
    with pytest.raises(ValueError, match="inner_steps is 0"):
        simulate(model, scattered(model, 5), box=box, dt=0.01, steps=1, inner_steps=0)
