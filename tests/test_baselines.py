"""The baselines: dissipative particle dynamics (its laws are in test_invariants.py) and the graph network."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import baseline, dpd_settings, gnn_settings, mismatch, pairs_of_state, scattered, tilted_box
from helpers import CUTOFF, SILENT, SMALL_TRAINING, gas_system, run_command

import gnn_metriplectic as gm
from gnn_metriplectic.dynamics.integrators import LearnedIncrement
from gnn_metriplectic.geometry import batch_pairs
from gnn_metriplectic.learning import negative_log_likelihood
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.terms.potential import CORE

KINDS = ("dpd", "gnn")
INTEGRATOR = {"dpd": "energy_conserving", "gnn": "increment"}
EXACT = 1e-11


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def network(request):
    """A graph network of two species."""
    return baseline(gnn_settings(request.param, [0.5, 2.0]))


def fluid(model):
    box = tilted_box(model.dimension)
    state = scattered(model, 30, box=box)
    return state, box, pairs_of_state(model, state, box)


def same(found, expected) -> None:
    for name, a, b in zip(("mean", "factor"), found, expected, strict=True):
        assert mismatch(a, b) < EXACT, name


# dissipative particle dynamics


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["repulsion", "attraction"])
def test_forces_of_dpd_are_slopes_of_a_pair_potential_of_either_sign(sign):
    model = baseline(dpd_settings(3))
    last = model.potential.network.layers[-1]
    last.weight.mul_(sign), last.bias.mul_(sign)
    distance = torch.linspace(0.05, 0.999, 200, dtype=torch.float64, requires_grad=True)
    first = torch.arange(200)
    displacement = torch.stack([distance, 0.0 * distance, 0.0 * distance], dim=1)
    pairs = gm.Pairs(torch.stack([first, first + 200]), displacement, 400)
    nowhere = torch.zeros(400, 3, dtype=torch.float64)
    state = gm.State(nowhere, nowhere, nowhere[:, 0])
    (slope,) = torch.autograd.grad(model.energy(state, pairs), distance)
    forces = model.brackets(state, pairs)[0].pair_forces()[:, 0]
    assert mismatch(forces, -slope) < EXACT
    assert (sign * forces).mean() > 0
    assert forces[-1].abs() < 0.1 * forces.abs().max(), "it fades at the cutoff"


def test_what_the_training_does_not_tell_of_the_core_is_no_well():
    model = baseline(dpd_settings(3))
    potential, nearest = model.potential, dpd_settings(3)["scales"]["nearest"]
    potential.network.layers[-1].bias.add_(5.0)
    assert nearest > 0.0

    def energies(distance):
        ends = torch.arange(2 * len(distance)).view(2, -1)
        return potential(gm.Pairs(ends, distance.unsqueeze(1) * torch.eye(3).double()[0], 2 * len(distance)))[0]

    def coordinate(distance):
        return torch.log1p(torch.as_tensor(distance) ** 2 / CORE) / math.log1p(1.0 / CORE)

    inside = torch.linspace(0.0, nearest, 50, dtype=torch.float64)
    assert (energies(inside).diff() < 0).all(), "it rises towards the centre"
    known = torch.linspace(1.5 * nearest, 0.99, 50, dtype=torch.float64)
    bare = potential.network(coordinate(known))[:, 0] * (1.0 - known**2) ** 2
    assert mismatch(energies(known), bare) < 0.05, "and is that of the network where there were pairs"
    # a network that falls to -100 in the core, and does not where there were pairs
    potential.network.jet = lambda x, shift: tuple(
        y.unsqueeze(1) for y in (2.0 - 102.0 * (x < coordinate(0.7 * nearest)), 0.0 * x)
    )
    assert energies(inside).min() > 1.0


def test_noise_of_dpd_balances_its_friction_at_the_temperature_of_the_data():
    model = baseline(dpd_settings(3))
    state, _, pairs = fluid(model)
    dissipative = model.brackets(state, pairs)[1]
    covariance = torch.zeros(pairs.num_pairs, 3, 3, dtype=torch.float64)
    for unit in torch.eye(3, dtype=torch.float64):
        force, heat = dissipative.sample(torch.cat([unit, torch.zeros(1)]).expand(pairs.num_pairs, 4), 1.0)
        assert not heat.any()
        covariance += torch.einsum("ei,ej->eij", force, force)
    drag = torch.stack(
        [-dissipative.friction_forces(unit.expand(pairs.num_pairs, 3)) for unit in torch.eye(3).double()], dim=2
    )
    k_B_T = dpd_settings(3)["scales"]["energy"]
    assert mismatch(covariance, 2.0 * k_B_T * drag) < EXACT


def test_dpd_keeps_its_temperature_whatever_state_it_starts_from():
    model = baseline(dpd_settings(3))
    box = gm.Box.cubic(3.0, 3)
    state = scattered(model, 40, box=box)
    state = replace(state, vel=3.0 * (state.vel - state.vel.mean(dim=0)))
    run = gm.simulate(model, state, box=box, dt=0.01, steps=600, seed=2)
    assert run.entropies is None
    found = np.asarray(run.velocities[200:]) ** 2
    # 39 particles move freely
    assert found.sum(axis=(1, 2)).mean() / (3 * 39) == pytest.approx(1.0, abs=0.15)


# graph network


def test_a_graph_network_does_not_know_place_numbering_and_uniform_motion(network):
    state, box, pairs = fluid(network)
    expected = network(pairs, state.vel, state.species)
    moved = replace(state, pos=state.pos + torch.linspace(-1.7, 5.3, network.dimension))
    same(network(pairs_of_state(network, moved, box), state.vel, state.species), expected)
    same(network(pairs, state.vel + 3.0, state.species), expected)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    turned = gm.State(state.pos[order], state.vel[order], state.entropy, state.species[order])
    found = network(pairs_of_state(network, turned, box), turned.vel, turned.species)
    same(found, tuple(x[order] for x in expected))


def test_first_and_second_of_a_pair_are_alike_to_a_graph_network(network):
    state, _, pairs = fluid(network)
    swapped = gm.Pairs(pairs.index.flip(0), -pairs.displacement, pairs.num_particles)
    same(network(swapped, state.vel, state.species), network(pairs, state.vel, state.species))


def test_a_batch_of_graphs_is_its_graphs_one_by_one(network):
    items = [fluid(network), fluid(network)[:2]]
    small = scattered(network, 8)
    items[1] = small, gm.Box.free(network.dimension), pairs_of_state(network, small, gm.Box.free(network.dimension))
    parts = [network(pairs, state.vel, state.species) for state, _, pairs in items]
    vel, species = (torch.cat([getattr(s, name) for s, *_ in items]) for name in ("vel", "species"))
    whole = network(batch_pairs([pairs for *_, pairs in items]), vel, species)
    same(whole, tuple(torch.cat(both) for both in zip(*parts, strict=True)))


def test_an_edge_that_crosses_the_cutoff_changes_nothing(network):
    box = gm.Box.free(network.dimension)
    places = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.4, 0.5, 0.4], [0.0, 0.8, 0.0]]).double()
    state = replace(scattered(network, 4), pos=places[:, : network.dimension].clone())

    def change(gap: float) -> float:
        state.pos[3, 1] = network.cutoff * (1.0 - gap)
        pairs = pairs_of_state(network, state, box)
        crossing = pairs.distance > 0.98 * network.cutoff
        assert crossing.sum() == 1
        found, without = (network(p, state.vel, state.species)[0] for p in (pairs, pairs.select(~crossing)))
        return float((found - without).abs().max())

    near, far = change(1e-3), change(1e-2)
    assert 0.0 < near < far / 60.0  # with the square of the gap


def test_all_inputs_of_a_graph_network_matter_and_its_covariance_is_one(network):
    state, _, pairs = fluid(network)
    mean, factor = network(pairs, state.vel, state.species)
    for change in (
        (pairs, -state.vel, state.species),
        (pairs.with_displacement(0.9 * pairs.displacement), state.vel, state.species),
        (pairs, state.vel, 1 - state.species),
    ):
        assert mismatch(network(*change)[0], mean) > 1e-3
    assert torch.equal(factor, factor.tril())
    assert (factor.diagonal(dim1=1, dim2=2) > 0).all()
    assert factor.tril(-1).abs().max() > 0


def test_the_likelihood_of_a_graph_network_is_the_density_of_its_steps(network):
    state, box, pairs = fluid(network)
    scheme = LearnedIncrement(network, box, network.dt, seed=4)
    end = scheme.step(scheme.start(state)).state
    configurations = (network.configuration(pairs, state.species),) * 2
    found = negative_log_likelihood(network, state, end, configurations, network.dt, integrator="increment")
    mean, factor = network(pairs, state.vel, state.species)
    expected = -torch.distributions.MultivariateNormal(state.vel + mean, scale_tril=factor).log_prob(end.vel)
    assert mismatch(found, expected) < 1e-9


def test_steps_of_a_graph_network_have_its_mean_and_covariance(network):
    state, box, pairs = fluid(network)
    mean, factor = network(pairs, state.vel, state.species)
    scheme = LearnedIncrement(network, box, network.dt, seed=4)
    ends = torch.stack([scheme.step(scheme.start(state, step=k)).state.vel for k in range(300)]) - state.vel
    white = torch.linalg.solve_triangular(factor, (ends - mean).unsqueeze(3), upper=False).squeeze(3)
    flat = white.flatten(0, 1)  # 9,000 standard normal vectors
    size = network.dimension
    assert flat.mean(dim=0).abs().max() < 5.0 / 9_000**0.5
    assert mismatch(flat.T @ flat / len(flat), torch.eye(size).double()) < 5.0 * (2.0 / 9_000) ** 0.5


def test_a_graph_network_moves_with_its_mean_velocity_and_repeats_itself(network):
    state, box, _ = fluid(network)
    runs = [gm.simulate(network, state, box=box, dt=network.dt, steps=3, seed=seed) for seed in (1, 1, 2)]
    positions, velocities = (np.asarray(getattr(runs[0], name)) for name in ("positions", "velocities"))
    middle = 0.5 * (velocities[1:] + velocities[:-1])
    assert np.diff(positions, axis=0) == pytest.approx(network.dt * middle, abs=1e-12)
    assert torch.equal(runs[0].velocities, runs[1].velocities)
    assert not torch.equal(runs[0].velocities, runs[2].velocities)


# both, from data to scores


@pytest.fixture(scope="module")
def gas(tmp_path_factory) -> gm.Trajectory:
    path = tmp_path_factory.mktemp("gas") / "gas.h5"
    gas_system().generate(path, scenario="self_diffusion", temperature=1.0, frames=40, seed=1)
    return gm.read_trajectory(path)


def fit(gas, kind: str, **options):
    settings = {"steps": 12, "steps_per_epoch": 4, "batch_size": 2, "trainer": SILENT, **options}
    return gm.fit(gas, kind=kind, cutoff=CUTOFF, lag=4, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_baseline_comes_back_from_its_checkpoint_and_goes_on(gas, tmp_path, kind):
    whole = fit(gas, kind, out=tmp_path / "whole")
    loaded = gm.load(tmp_path / "whole" / "best.ckpt")
    assert type(loaded) is type(whole)
    assert loaded.dt == pytest.approx(4 * gas.dt)
    for name, value in whole.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    run = gm.simulate(loaded, gm.State.from_frame(gas, 0, loaded), box=gas.box, dt=loaded.dt, steps=3)
    assert torch.isfinite(run.velocities).all()


def test_noise_of_training_is_of_the_network_alone_and_is_repeated(gas):
    noisy = {"terms": {"network": {"noise": 0.1, "width": 8}}}
    first, second = (fit(gas, "gnn", **noisy).state_dict() for _ in range(2))
    quiet = fit(gas, "gnn", terms={"network": {"width": 8}}).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], quiet[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lstm"}, "the kind of model is 'lstm'; choose one of"),
        ({"kind": "dpd", "terms": {"encoder": {"width": 8}}}, "term 'encoder' is unknown; known: "),
        ({"kind": "gnn", "terms": {"network": {"depth": 8}}}, "settings of the terms do not fit: .*depth"),
        ({"kind": "gnn", "integrator": "energy_conserving"}, r"choose one of \['increment'\]"),
        ({"kind": "dpd", "integrator": "increment"}, r"choose one of \['energy_conserving', 'euler_maruyama'\]"),
    ],
)
def test_settings_of_another_kind_are_refused(gas, options, message):
    with pytest.raises(ValueError, match=message):
        fit(gas, **options)


@pytest.mark.parametrize("settings", [dpd_settings(3), gnn_settings(3)], ids=KINDS)
def test_what_needs_an_entropy_says_so(settings):
    model = baseline(settings)
    state, box, pairs = fluid(model)
    with pytest.raises(ValueError, match="tables hold metriplectic models"):
        gm.tabulate(model)
    with pytest.raises(ValueError, match="no entropy encoder"):
        model.encode(pairs, state.vel)
    with pytest.raises(ValueError, match="a thermostat acts on internal energies"):
        gm.simulate(model, state, box=box, dt=0.01, steps=1, thermostat=gm.Thermostat(1.0, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_train_score_and_simulate_a_baseline(kind, tmp_path, monkeypatch, capsys):
    overrides = [word for word in SMALL_TRAINING if not word.startswith("model.terms")]
    run_command(monkeypatch, tmp_path, "train", *overrides, f"model={kind}", "out=run", "trainer.accelerator=cpu")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for scores in metrics["scores"].values():
        assert {"rdf", "msd", "vacf", "kinetic_temperature", "D", "momentum_drift"} <= scores.keys()
        assert not {"temperature", "encoded_temperature", "energy_drift"} & scores.keys()
        assert ("pressure" in scores) == (kind == "dpd")
        assert (scores["momentum_drift"] < 1e-12) == (kind == "dpd")
    assert metrics["entropy"] == {}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "drift of E" not in page
    assert "energy\ndrift" not in capsys.readouterr().out
    # a rollout by the command has the integrator of the training
    run_command(monkeypatch, tmp_path, "simulate", "checkpoint=run/best.ckpt", "steps=3", *overrides[:7], "out=run.h5")
    assert gm.read_trajectory(tmp_path / "run.h5").metadata["integrator"] == INTEGRATOR[kind]


def test_a_checkpoint_from_before_the_baselines_is_metriplectic(gas, tmp_path):
    fit(gas, "metriplectic", out=tmp_path)
    content = torch.load(tmp_path / "best.ckpt", weights_only=True)
    del content["hyper_parameters"]["model"]["kind"]
    torch.save(content, tmp_path / "old.ckpt")
    assert isinstance(gm.load(tmp_path / "old.ckpt"), gm.MetriplecticModel)
    assert MetriplecticModule.load_from_checkpoint(tmp_path / "old.ckpt").model.has_entropy
