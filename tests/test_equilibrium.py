"""Equilibrium: what is drawn from it, and what a simulation keeps of it."""

from __future__ import annotations

import pytest
import torch
from conftest import K_B, TEMPERATURE, ideal_gas, learned_model, pairs_of_state, scattered, tilted_box
from torch import Tensor

from gnn_metriplectic.dynamics.integrators import EnergyConserving
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.models import MetriplecticModel, State


def drawn(model: MetriplecticModel, count: int, temperature: float, seed: int = 0) -> tuple[State, Tensor, Tensor]:
    """A state drawn at k_B T, its temperatures T_i and heat capacities."""
    box = Box.cubic(0.6 * count ** (1.0 / model.dimension), model.dimension)
    start = scattered(model, count, box=box)
    state = State.equilibrium(model, start.pos, box, temperature=temperature, seed=seed, species=start.species)
    pairs = pairs_of_state(model, state, box)
    thermo = model.thermo(model.configuration(pairs, state.species), state.entropy, state.species)
    return state, thermo.temperature, thermo.heat_capacity


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_velocities_of_equilibrium_are_maxwells(temperature):
    model = ideal_gas(3, mass=[0.5, 2.0])
    state, _, _ = drawn(model, 8000, temperature)
    mass = model.masses(8000, state.species).unsqueeze(1)
    assert model.momentum(state).abs().max() < 1e-10
    for kind in (0, 1):
        scaled = (torch.sqrt(mass / temperature) * state.vel)[state.species == kind].ravel()
        assert abs(float(scaled.var()) - 1.0) < 4.5 * (2.0 / scaled.numel()) ** 0.5
        assert abs(float((scaled**4).mean()) - 3.0) < 4.5 * (96.0 / scaled.numel()) ** 0.5


@pytest.mark.parametrize("atoms", [2.0, 10.0])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_entropies_of_an_ideal_gas_at_equilibrium_have_its_closed_form(atoms, temperature):
    # exp(S / k_B) dS is U^(C / k_B - 1) dU: the energy has the Gamma distribution, at any volume
    model = ideal_gas(3, atoms=atoms)
    _, temperatures, capacity = drawn(model, 8000, temperature)
    shape = capacity[0] / K_B
    energy = temperatures * capacity / temperature
    assert float(energy.mean() / shape) == pytest.approx(1.0, abs=4.5 * float((1.0 / shape / 8000) ** 0.5))
    cumulative = torch.special.gammainc(shape.expand(8000), energy).sort().values
    rank = (torch.arange(8000) + 0.5) / 8000
    assert (cumulative - rank).abs().max() < 2.2 / 8000**0.5  # one sample in ten thousand is further off
    logarithm = torch.log(energy)
    assert float(logarithm.mean()) == pytest.approx(
        float(torch.special.digamma(shape)), abs=4.5 * float(logarithm.std() / 8000**0.5)
    )
    assert float(logarithm.var() / torch.special.polygamma(1, shape)) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("kinds", [1.0, [0.5, 2.0]], ids=["one_species", "two_species"])
def test_mean_temperature_of_particles_at_equilibrium_is_the_temperature(kinds):
    # ∫ dS d/dS exp[(S - U/T) / k_B] = 0 gives <T_i> = T, and the second derivative the spread
    model = learned_model(3, mass=kinds, seed=2)
    target = 0.8 / float(model.k_B)
    _, temperatures, capacity = drawn(model, 1500, 0.8)
    ratio = temperatures / target
    assert float(ratio.mean()) == pytest.approx(1.0, abs=4.5 * float(ratio.std()) / 1500**0.5)
    balance = (1.0 - ratio) ** 2 - model.k_B * ratio / capacity
    assert abs(float(balance.mean())) < 4.5 * float(balance.std()) / 1500**0.5
    assert float(ratio.std()) > 0.1


def test_another_seed_is_another_draw():
    model = ideal_gas(3)
    first, again, other = (drawn(model, 60, 1.0, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.entropy, again.entropy)
    assert not torch.equal(first.entropy, other.entropy)
    assert not torch.equal(first.vel, other.vel)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="must be positive"):
        drawn(ideal_gas(3), 60, temperature)


@torch.no_grad()
def temperature_ratio(model: MetriplecticModel, *, count: int, dt: float, steps: int, seed: int) -> dict[str, tuple]:
    """Kinetic temperature over k_B <T>, and of each species over that of all, with errors from blocks."""
    cell = tilted_box(model.dimension).lattice_at(0.0)
    box = Box.triclinic((cell * (count / 48) ** (1.0 / model.dimension)).tolist())
    start = scattered(model, count, box=box)
    state = State.equilibrium(model, start.pos, box, temperature=K_B * TEMPERATURE, seed=seed, species=start.species)
    integrator = EnergyConserving(model, box, dt, seed=seed)
    frame = integrator.start(state)
    mass = model.masses(count, state.species)
    freedom = model.dimension * (count - 1)  # the total momentum is fixed
    kinds = torch.zeros(count, dtype=torch.long) if state.species is None else state.species
    share = torch.stack([model.dimension * (1.0 - mass / mass.sum())[kinds == k].sum() for k in kinds.unique()])
    rows = []
    for number in range(steps + steps // 10):
        frame = integrator.step(frame)
        if number >= steps // 10:
            twice = mass * (frame.state.vel**2).sum(dim=1)
            by_kind = torch.stack([twice[kinds == k].sum() for k in kinds.unique()]) / share
            thermo = model.temperature(frame.state, frame.configuration.pairs)
            rows.append(torch.cat([twice.sum()[None] / freedom, model.k_B * thermo.mean()[None], by_kind]))
    blocks = torch.stack(rows).view(20, -1, len(rows[0])).mean(dim=1)
    ratios = torch.cat([blocks[:, :1] / blocks[:, 1:2].mean(), blocks[:, 2:] / blocks[:, 1:2].mean()], dim=1)
    error = ratios.std(dim=0) / 20**0.5
    names = ["all", *(f"species {k}" for k in kinds.unique().tolist())]
    return {name: (float(r), float(e)) for name, r, e in zip(names, ratios.mean(dim=0), error, strict=True)}


def test_kinetic_temperature_of_a_fluid_at_rest_is_its_thermodynamic_one():
    model = ideal_gas(2, mass=[0.5, 2.0], viscosity=3.0)
    for name, (ratio, error) in temperature_ratio(model, count=48, dt=0.01, steps=3000, seed=1).items():
        assert error < 0.025, name
        assert abs(ratio - 1.0) < 4.0 * error, name


@pytest.mark.slow
@pytest.mark.parametrize("make", [ideal_gas, learned_model], ids=["gas", "learned"])
def test_kinetic_temperature_is_the_thermodynamic_one_within_half_a_percent(make):
    ratio, error = temperature_ratio(make(2), count=432, dt=0.01, steps=18_000, seed=2)["all"]
    assert error < 0.0025
    assert ratio == pytest.approx(1.0, abs=0.005)
