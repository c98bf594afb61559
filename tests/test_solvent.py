"""Particles in a liquid: fluctuation and dissipation, what is conserved, and the likelihood of their steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import K_B, ideal_gas, learned_model, learned_settings, mismatch, pairs_of_state, scattered
from invariants import conservation, energy_gradient, flat, rates, unflat
from test_likelihood import configured, copies, transition
from torch import Tensor

import gnn_metriplectic as gm
from gnn_metriplectic.dynamics import EnergyConserving, EulerMaruyama, Overdamped, Prescribed
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.learning.likelihood import LIKELIHOODS
from gnn_metriplectic.models import MetriplecticModel, State, build_model
from gnn_metriplectic.terms import SolventBath
from gnn_metriplectic.trajectory.window import Sight

SOLVENT = 1.3  # k_B T_s


def immersed(
    model: MetriplecticModel, *, overdamped: bool = False, friction: float = 2.0, exchange: float = 3.0
) -> MetriplecticModel:
    """The model in a solvent of another temperature than its own."""
    kinds = model.log_mass.numel()
    model.bath = SolventBath(
        friction=[friction * (1.0 + 0.5 * k) for k in range(kinds)],
        exchange=[exchange * (1.0 + k) for k in range(kinds)],
        temperature=SOLVENT,
        overdamped=overdamped,
    )
    return model.double().requires_grad_(False)


def without(model: MetriplecticModel, state: State, pairs) -> Tensor:
    bath, model.bath = model.bath, None
    found = rates(model, state, pairs)
    model.bath = bath
    return found


def solvent_of(model: MetriplecticModel, state: State, pairs):
    return model.solvent(
        model.thermo(model.configuration(pairs, state.species), state.entropy, state.species), state.species
    )


MODELS = pytest.mark.parametrize(
    "model",
    [immersed(ideal_gas(2)), immersed(learned_model(3, mass=[0.5, 2.0], seed=2))],
    ids=["gas", "learned"],
)


@MODELS
def test_drift_is_the_matrix_on_the_entropy_that_solvent_and_particles_gain(model):
    box = Box.free(model.dimension)
    state = scattered(model, 4, spacing=0.3)
    pairs = pairs_of_state(model, state, box)
    _, by_velocity, by_entropy = energy_gradient(model, state, box)
    gain = torch.cat([0.0 * by_velocity.reshape(-1), torch.ones_like(by_entropy)])
    gain = gain - torch.cat([by_velocity.reshape(-1), by_entropy]) / (SOLVENT / model.k_B)

    def diagonal(x: Tensor) -> Tensor:
        variances = solvent_of(model, unflat(state, x), pairs).variances(model.dimension) / (2.0 * model.k_B)
        return torch.cat([variances[:, :-1].reshape(-1), variances[:, -1]])

    divergence = torch.autograd.functional.jacobian(diagonal, flat(state)).diagonal()
    expected = diagonal(flat(state)) * gain + model.k_B * divergence
    assert mismatch(rates(model, state, pairs) - without(model, state, pairs), expected) < 1e-11
    assert divergence.abs().max() > 0


@MODELS
def test_noise_has_the_variance_of_the_friction(model):
    state = scattered(model, 4, spacing=0.3)
    pairs = pairs_of_state(model, state, Box.free(model.dimension))
    solvent = solvent_of(model, state, pairs)
    impulse, heat = solvent.sample(torch.ones(4, model.dimension + 1, dtype=torch.float64), 0.03)
    found = torch.cat([impulse / solvent.mass[:, None], (heat / solvent.thermo.temperature)[:, None]], dim=1) ** 2
    bath, covariance = model.bath, model.covariance(state, pairs, 0.03)
    model.bath = None
    expected = covariance - model.covariance(state, pairs, 0.03)
    model.bath = bath
    assert mismatch(torch.diag_embed(found), expected) < 1e-11
    # Einstein: the variance over the mobility is twice the temperature
    friction = -solvent.forces(torch.ones_like(state.vel))[:, 0]
    assert mismatch(solvent.momentum_variance() / friction, 2.0 * SOLVENT * torch.ones(4).double()) < 1e-12


@pytest.mark.parametrize("scheme", [EnergyConserving, Overdamped])
def test_energy_is_what_the_solvent_gave(scheme):
    model = immersed(ideal_gas(2), overdamped=scheme is Overdamped)
    box = Box.cubic(2.6, 2)
    state = scattered(model, 16, box=box)
    held = torch.arange(16) < 2
    still = Prescribed(held, lambda time: (state.pos[held], torch.zeros_like(state.vel[held])))
    for prescribed in (None, still):
        integrator = scheme(model, box, 0.02, prescribed=prescribed)
        frame = integrator.start(replace(state, vel=torch.where(held[:, None], 0.0, state.vel)))
        energy = model.energy(frame.state, frame.configuration.pairs)
        for _ in range(50):
            frame = integrator.step(frame)
        gained = model.energy(frame.state, frame.configuration.pairs) - energy
        assert float(gained.abs()) > 0.1
        if scheme is EnergyConserving or prescribed is None:
            assert float((gained - frame.received).abs()) < 1e-10


def test_momentum_goes_into_the_solvent_and_is_conserved_without_it():
    model, box = immersed(ideal_gas(2)), Box.cubic(2.6, 2)
    state = scattered(model, 16, box=box)
    assert conservation(model, state, box, 0.01, 50)[1] > 0.01
    model.bath = None
    drift, momentum, _ = conservation(model, state, box, 0.01, 50)
    assert max(drift, momentum) < 1e-11


def test_a_fluid_takes_the_temperature_of_its_solvent():
    model = immersed(ideal_gas(2), friction=4.0, exchange=60.0)
    box = Box.cubic(6.0, 2)
    state = scattered(model, 100, box=box)
    integrator = EnergyConserving(model, box, 0.04)
    frame = integrator.start(state)
    kinetic, thermal = [], []
    for number in range(240):
        frame = integrator.step(frame)
        if number > 120:
            kinetic.append(frame.state.vel.square().mean())
            thermal.append(K_B * frame.thermo.temperature.mean())
    # 120 steps of 0.04 hold some 20 independent pictures of 100 particles
    assert float(torch.stack(kinetic).mean()) == pytest.approx(SOLVENT, rel=0.07)
    assert float(torch.stack(thermal).mean()) == pytest.approx(SOLVENT, rel=0.07)


@pytest.mark.parametrize("scheme", [EnergyConserving, Overdamped])
def test_lone_particles_diffuse(scheme):
    model = immersed(ideal_gas(2), overdamped=scheme is Overdamped, friction=2.0)
    side = 25
    pos = 5.0 * torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 2)
    state = State.equilibrium(model, pos, Box.free(2), temperature=SOLVENT)
    integrator, dt, steps = scheme(model, Box.free(2), 0.1), 0.1, 40
    frame = integrator.start(state)
    for _ in range(steps):
        frame = integrator.step(frame)
    found = float((frame.state.pos - pos).square().mean())
    time, rate = dt * steps, 2.0  # friction over mass 1
    ballistic = 0.0 if scheme is Overdamped else -torch.expm1(torch.tensor(-rate * time)) / rate
    expected = 2.0 * SOLVENT / 2.0 * float(time - ballistic)
    assert found == pytest.approx(expected, rel=4.5 * (2.0 / (2 * side**2)) ** 0.5)


@pytest.mark.parametrize(
    ("integrator", "noise"),
    [("energy_conserving", 0.0), *((name, noise) for name in ("euler_maruyama", "overdamped") for noise in (0.0, 0.3))],
)
def test_residuals_of_steps_are_white(integrator, noise):
    schemes = {"energy_conserving": EnergyConserving, "euler_maruyama": EulerMaruyama, "overdamped": Overdamped}
    # the work of forces in a step is little beside the heat of the solvent, as it is booked at the mean velocity
    model = ideal_gas(2, mass=[1.0, 1e8])
    model = immersed(model, overdamped=integrator == "overdamped", friction=20.0, exchange=100.0)
    model.bath.log_friction[1] += 20.0 if integrator == "overdamped" else 0.0
    state = replace(scattered(model, 4, spacing=0.35), species=torch.tensor([0, 1, 1, 1]))
    count, dt = 8000, 0.02
    start = copies(state, count)
    scheme = schemes[integrator](model, Box.free(2), dt)
    scheme.sweeps = 40
    end = scheme.step(scheme.start(start)).state
    pairs = transition(model, start, end)
    error = noise * torch.randn(end.vel.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    measured = replace(end, vel=end.vel + error)
    residual, covariance, *_ = LIKELIHOODS[integrator](
        model, start, measured, configured(model, start, pairs), dt, 0.0, None, Sight(noise=noise**2)
    )
    factor = torch.linalg.cholesky(covariance[::4])
    white = torch.linalg.solve_triangular(factor, residual[::4].unsqueeze(2), upper=False).squeeze(2)
    assert white.mean(dim=0).abs().max() < 4.5 / count**0.5
    identity = torch.eye(3, dtype=torch.float64)
    assert (torch.cov(white.T) - identity).abs().max() < 4.5 * (2.0 / count) ** 0.5


def test_without_inertia_velocities_are_not_part_of_the_state():
    settings = {**learned_settings(2), "solvent": "overdamped"}
    model = build_model(**settings).double()
    state = scattered(model, 12)
    pairs = pairs_of_state(model, state, Box.free(2))
    assert torch.equal(model.encode(pairs, state.vel), model.encode(pairs, -3.0 * state.vel))
    assert float(model.kinetic_energy(state)) == 0.0
    assert not model.bath.log_temperature.requires_grad, "it is the unit of energy"
    with pytest.raises(ValueError, match="overdamped"):
        gm.simulate(model, state, box=Box.free(2), dt=0.01, steps=2, integrator="energy_conserving")
    with pytest.raises(ValueError, match="energy_conserving"):
        gm.simulate(ideal_gas(2).double(), state, box=Box.free(2), dt=0.01, steps=2, integrator="overdamped")


def test_tables_keep_the_solvent(tmp_path):
    model = immersed(learned_model(2))
    tables = gm.tabulate(model, entropy=(-4.0, 4.0), volume=(0.05, 3.0), tolerance=0.05)
    gm.write_tables(tables, tmp_path / "model.json")
    again = gm.read_tables(tmp_path / "model.json")
    state = scattered(again, 12)
    pairs = pairs_of_state(again, state, Box.free(2))
    assert mismatch(flat(again.drift(state, pairs)), flat(tables.model.drift(state, pairs))) < 1e-12
    bath = [float(x) for x in (again.bath.friction(1), again.bath.exchange(1), again.bath.temperature)]
    assert bath == pytest.approx([2.0, 3.0, SOLVENT])


@pytest.mark.parametrize("name", ["friction", "exchange", "temperature"])
def test_a_solvent_without_friction_heat_or_temperature_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} of the solvent is -1"):
        SolventBath(**{"friction": 1.0, "exchange": 1.0, "temperature": 1.0, name: -1.0})
