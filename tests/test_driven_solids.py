"""Prescribed particles and solids in learning and rollouts: recorded paths, transitions, likelihood, scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import hookean_solid, learned_solid_settings, mismatch, scattered
from helpers import run_command
from test_likelihood import copies, drag_rate, viscous_gas
from torch_geometric.data import Batch

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.mechanics import Response, applied_strain, complex_modulus, position_error
from gnn_metriplectic.dynamics import Prescribed, RecordedPath, simulate
from gnn_metriplectic.dynamics.integrators import EnergyConserving
from gnn_metriplectic.evaluation.solids import respond
from gnn_metriplectic.geometry import Box, Reference, transition_pairs
from gnn_metriplectic.learning import MetriplecticModule, TransitionDataset
from gnn_metriplectic.learning.likelihood import RESIDUALS, negative_log_likelihood
from gnn_metriplectic.learning.survey import measure_scales, solid_forces
from gnn_metriplectic.models import State
from gnn_metriplectic.systems.viscoelastic import Drive, ViscoelasticSystem
from gnn_metriplectic.terms import PairStrain
from gnn_metriplectic.trajectory import Trajectory, read_trajectory

SHEET = {
    "dimension": 2,
    "side": 6,
    "spacing": 0.05,
    "cutoff": 0.15,
    "dt": 0.01,
    "held": 1,
    "shear_modulus": 1.0,
    "bulk_modulus": 2.0,
    "hourglass_modulus": 1.0,
    "shear_viscosity": 0.02,
    "bulk_viscosity": 0.005,
    "conductivity": 1e-3,
    "temperature": 1e-8,
    "heat_capacity": 1e4,
    "equilibration": 5,
}


def swing(time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A particle on a circle: positions and velocities ``[T, 1, 2]``."""
    phase = 3.0 * time
    pos = torch.stack([torch.cos(phase), torch.sin(phase)], dim=-1).unsqueeze(1)
    vel = 3.0 * torch.stack([-torch.sin(phase), torch.cos(phase)], dim=-1).unsqueeze(1)
    return pos, vel


def test_a_recorded_path_is_its_frames_and_of_fourth_order_between_them():
    def error(dt: float) -> float:
        times = dt * torch.arange(round(1.0 / dt) + 1, dtype=torch.float64)
        path = RecordedPath(times, *swing(times))
        assert torch.equal(path(float(times[3]))[0], swing(times)[0][3])
        between = 0.43 * dt + torch.arange(8, dtype=torch.float64) * dt
        pos, vel = swing(between)
        found = [path(float(t)) for t in between]
        assert mismatch(torch.stack([v for _, v in found]), vel) < 10 * dt**3
        return float((torch.stack([p for p, _ in found]) - pos).abs().max())

    assert error(0.05) < error(0.1) / 14.0


def test_a_path_with_missing_frames_is_refused():
    times = 0.1 * torch.arange(10, dtype=torch.float64)
    kept = [0, 1, 2, 3, 6, 7, 8, 9]
    with pytest.raises(ValueError, match=r"missing frames: from frame 3 to 4 time goes from 0.3 to 0.6"):
        RecordedPath(times[kept], *(x[kept] for x in swing(times)))
    pos, vel = swing(times)
    pos[4] = torch.nan
    with pytest.raises(ValueError, match="missing frames: positions of 1 frames are not finite, the first is frame 4"):
        RecordedPath(times, pos, vel)


def test_a_rollout_beyond_the_recorded_path_is_refused_before_it_starts():
    model = hookean_solid(2)
    state = scattered(model, 12)
    mask = torch.arange(12) < 1
    times = 0.01 * torch.arange(10, dtype=torch.float64)
    path = RecordedPath(times, *(x + state.pos[0] for x in swing(times)))
    with pytest.raises(ValueError, match=r"time 0.2 is not on the prescribed path, .* from 0 to 0.09"):
        simulate(model, state, box=Box.free(2), dt=0.01, steps=20, prescribed=Prescribed(mask, path))
    with pytest.raises(ValueError, match="the path has 1 particles at time 0; the mask has 3"):
        simulate(model, state, box=Box.free(2), dt=0.01, steps=2, prescribed=Prescribed(torch.arange(12) < 3, path))


@pytest.mark.parametrize("model_of", [viscous_gas, hookean_solid], ids=["gas", "solid"])
def test_residuals_of_a_particle_among_prescribed_ones_are_white(model_of):
    """With one free particle the density is exact, prescribed partners of the same mass or not."""
    model = model_of(2)
    state = scattered(model, 4, spacing=0.3)
    count, dt = 6000, min(0.4 / drag_rate(model, state), 0.05)
    start = copies(state, count)
    if model.is_solid:
        one = state.reference
        index = (one.index.unsqueeze(1) + 4 * torch.arange(count)[None, :, None]).flatten(1)
        start = replace(start, reference=Reference(index, one.displacement.repeat(count, 1), 4 * count, one.reach))
    held = torch.arange(4 * count) % 4 != 0
    later = start.pos + dt * start.vel
    # they accelerate on their way
    fast = start.vel + torch.tensor([3.0, -2.0], dtype=torch.float64)
    prescribed = Prescribed(held, lambda time: (later[held], fast[held]))
    scheme = EnergyConserving(model, Box.free(2), dt, seed=2, prescribed=prescribed)
    scheme.sweeps = 30
    with torch.no_grad():
        end = scheme.step(scheme.start(start)).state
        pairs = transition_pairs(start.pos, end.pos, Box.free(2), model.cutoff, reference=start.reference)
        both = tuple(model.configuration(p, None) for p in (pairs, pairs.moved(end.pos - start.pos)))
        residual, covariance, *_ = RESIDUALS["energy_conserving"](model, start, end, both, dt, 0.0, held)
    factor = torch.linalg.cholesky(covariance[::4])
    white = torch.linalg.solve_triangular(factor, residual[::4].unsqueeze(2), upper=False).squeeze(2)
    # velocities alone: the work of strong forces is booked along the path, not at fixed entropy
    white = white[:, :2] if model.is_solid else white
    assert white.mean(dim=0).abs().max() < 4.5 / count**0.5
    identity = torch.eye(white.shape[1], dtype=torch.float64)
    assert (torch.cov(white.T) - identity).abs().max() < 4.5 * (2.0 / count) ** 0.5


@pytest.fixture(scope="module")
def sheets(tmp_path_factory) -> list[Trajectory]:
    """A driven sheet and one in free flight."""
    folder = tmp_path_factory.mktemp("sheets")
    system = ViscoelasticSystem(**SHEET)
    system.generate(folder / "a.h5", scenario="oscillation", amplitude=0.03, frequency=2.0, ramp=0.2, frames=20, seed=1)
    system.generate(folder / "b.h5", scenario="free_flight", amplitude=0.1, frequency=1.0, frames=20, seed=2)
    return [read_trajectory(folder / name) for name in ("a.h5", "b.h5")]


def test_a_batch_of_solids_has_the_likelihood_of_its_graphs(monkeypatch, sheets):
    monkeypatch.setattr("gnn_metriplectic.learning.module.BLUR", 0.0)
    data = TransitionDataset(sheets, cutoff=0.15, lag=1, dtype=torch.float64)
    settings = learned_solid_settings(2)
    settings["cutoff"] = 0.15
    module = MetriplecticModule(settings, {"lr": 1e-2, "steps": 1, "warmup": 0.1}).double().eval()
    items = [data[3], data[24]]
    assert items[0].prescribed.sum() == 12
    assert not items[1].prescribed.any()
    parts = [module._loss(Batch.from_data_list([item])) for item in items]
    whole = module._loss(Batch.from_data_list(items))
    free = torch.tensor([24.0, 36.0], dtype=torch.float64)
    expected = (free * torch.stack([p["nll"].detach() for p in parts])).sum() / free.sum()
    assert mismatch(whole["nll"].detach(), expected) < 1e-10


def test_prescribed_particles_do_not_enter_the_loss(sheets):
    traj = sheets[0]
    data = TransitionDataset([traj], cutoff=0.15, lag=1, dtype=torch.float64)
    model = ViscoelasticSystem(**SHEET).model()
    item = data[5]
    assert torch.equal(item.active, ~traj.prescribed)
    pairs = transition_pairs(*traj.positions[5:7], traj.box, 0.15, reference=traj.reference)
    both = tuple(model.configuration(p, None) for p in (pairs, pairs.moved(traj.positions[6] - traj.positions[5])))
    start, end = (State.from_frame(traj, f, model) for f in (5, 6))

    def loss(end: State) -> torch.Tensor:
        nll = negative_log_likelihood(model, start, end, both, 0.01, prescribed=traj.prescribed)
        return nll[item.active]

    noisy = torch.where(traj.prescribed, end.entropy + 5.0, end.entropy)
    assert torch.equal(loss(replace(end, entropy=noisy)), loss(end)), "not even their entropies"


def test_the_truth_maximises_the_likelihood_of_its_own_transitions(sheets):
    """Along its moduli, from driven transitions whose forces hide the noise."""
    system = ViscoelasticSystem(**SHEET)
    traj = sheets[0]
    pairs = transition_pairs(*traj.positions[10:12], traj.box, 0.15, reference=traj.reference)
    step = traj.positions[11] - traj.positions[10]

    def loss(scale: float) -> float:
        model = system.model()
        model.elastic.moduli *= scale
        start, end = (State.from_frame(traj, f, model) for f in (10, 11))
        both = tuple(model.configuration(p, None) for p in (pairs, pairs.moved(step)))
        nll = negative_log_likelihood(model, start, end, both, 0.01, prescribed=traj.prescribed)
        return float(nll[~traj.prescribed].mean())

    best = loss(1.0)
    assert loss(1.05) > best + 0.01
    assert loss(0.95) > best + 0.01


def test_first_guesses_of_the_moduli_are_near_the_true_ones(sheets):
    data = TransitionDataset(sheets, cutoff=0.15, lag=1)
    moduli, friction = solid_forces(data, SHEET["spacing"] ** 2)
    expected = [SHEET[name] * SHEET["spacing"] ** 2 for name in ("shear_modulus", "hourglass_modulus", "bulk_modulus")]
    assert moduli == pytest.approx(expected, rel=0.2)
    assert friction > 0.0


def test_heat_of_a_solid_is_told_from_its_drive(sheets):
    """By velocities that no uniform gradient explains, within a factor of three."""
    runs = [replace(t, metadata=None) for t in sheets]
    scales = measure_scales(TransitionDataset(runs, cutoff=0.15, lag=1))
    assert SHEET["temperature"] / 3.0 < scales.energy < 3.0 * SHEET["temperature"]
    assert SHEET["spacing"] ** 2 * scales.speed**2 > 100.0 * scales.energy, "the drive is faster by far"


def test_a_pair_network_learns_and_runs(sheets):
    terms = {"strain": {"measure": "pair_network", "width": 6}, "encoder": {"width": 8, "hops": 1}}
    model = gm.fit(sheets, cutoff=0.15, steps=2, steps_per_epoch=2, batch_size=2, terms=terms)
    assert isinstance(model.strain, PairStrain)
    state = State.from_frame(sheets[0], 0, model)
    run = simulate(model, state, box=Box.free(2), dt=0.01, steps=5, prescribed=Prescribed.recorded(sheets[0]))
    assert not torch.equal(run.positions[-1], run.positions[0])


def test_the_temperature_of_a_driven_solid_has_to_be_given(sheets):
    traj = Trajectory(
        sheets[1].positions, sheets[1].velocities, box=sheets[1].box, dt=0.01, reference=sheets[1].reference
    )
    assert sheets[1].metadata["temperature"] == TransitionDataset(sheets, cutoff=0.15, lag=1).temperatures[1]
    with pytest.raises(ValueError, match="needs the temperature of a solid"):
        gm.fit(traj, cutoff=0.15, steps=1, steps_per_epoch=1, temperature="equilibrium")


def test_learning_refuses_what_does_not_fit_a_solid(sheets):
    fluid = Trajectory(sheets[0].positions, sheets[0].velocities, box=sheets[0].box, dt=sheets[0].dt)
    with pytest.raises(ValueError, match="do not both have reference neighbours"):
        TransitionDataset([sheets[0], fluid], cutoff=0.15, lag=1)
    with pytest.raises(ValueError, match=r"reach 0.15 and the cutoff is 0.12"):
        TransitionDataset(sheets, cutoff=0.12, lag=1)
    with pytest.raises(ValueError, match="patches would cut reference neighbours apart"):
        TransitionDataset(sheets, cutoff=0.15, lag=1, patch=10)
    with pytest.raises(ValueError, match="term 'elastic' is one of solids"):
        gm.fit(fluid, cutoff=0.15, steps=1, steps_per_epoch=1, terms={"elastic": {"width": 4}})
    with pytest.raises(ValueError, match="term 'potential' is one of fluids"):
        gm.fit(sheets, cutoff=0.15, steps=1, steps_per_epoch=1, terms={"potential": {"width": 4, "depth": 1}})
    with pytest.raises(ValueError, match="the strain's measure is 'hencky'; choose one of"):
        gm.fit(sheets, cutoff=0.15, steps=1, steps_per_epoch=1, terms={"strain": {"measure": "hencky"}})


def test_a_torn_sheet_is_trained_on_with_a_warning(sheets):
    torn = sheets[1].positions.clone()
    torn[-1, 0] += 1.0
    traj = Trajectory(torn, sheets[1].velocities, box=sheets[1].box, dt=0.01, reference=sheets[1].reference)
    with pytest.warns(UserWarning, match=r"trajectory 0 is torn: in frame 19, \d+ of \d+ pairs"):
        TransitionDataset([traj], cutoff=0.15, lag=1)


def test_the_edges_follow_their_drive(sheets):
    traj, drive = sheets[0], Drive("oscillation", 0.03, 2.0, 0.2, 0.0)
    upper = traj.positions[0, :, 1] > 0.26
    for frame in (0, 7, 19):
        shift, speed = drive(0.01 * frame)
        assert mismatch(traj.positions[frame, upper, 0], traj.positions[0, upper, 0] + shift) < 1e-12
        assert mismatch(traj.velocities[frame, upper, 0], torch.full((6,), speed, dtype=torch.float64), 1.0) < 1e-12
    assert traj.metadata["amplitude"] == 0.03
    assert applied_strain(traj)[7] == pytest.approx(drive(0.07)[0] / 0.25)


@pytest.mark.parametrize("scenario", ["oscillation", "unloading"])
def test_a_drive_has_the_velocity_of_its_displacement(scenario):
    drive = Drive(scenario, 0.3, 0.7, 0.5, 1.0)
    for time in (0.1, 0.4, 0.77, 1.2, 1.45, 2.0):
        slope = (drive(time + 1e-6)[0] - drive(time - 1e-6)[0]) / 2e-6
        assert drive(time)[1] == pytest.approx(slope, abs=1e-7)
    if scenario == "unloading":
        assert drive(0.8) == (0.3, 0.0)
        assert drive(2.0) == (0.0, 0.0)


def test_a_sheet_depends_on_its_seed_alone(tmp_path):
    system = ViscoelasticSystem(**SHEET)
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        system.generate(tmp_path / name, scenario="unloading", amplitude=0.02, ramp=0.1, frames=5, seed=seed)
        runs.append(read_trajectory(tmp_path / name))
    assert torch.equal(runs[0].positions, runs[1].positions)
    assert not torch.equal(runs[0].positions, runs[2].positions)
    free = ~runs[0].prescribed
    assert torch.equal(runs[0].positions[:, ~free], runs[2].positions[:, ~free])


def test_a_block_in_three_dimensions_is_made_and_answers_its_drive(tmp_path):
    system = ViscoelasticSystem(**{**SHEET, "dimension": 3, "side": 4, "temperature": 1e-12})
    system.generate(tmp_path / "block.h5", scenario="unloading", amplitude=0.02, ramp=0.1, hold=1.0, frames=15, seed=1)
    traj = read_trajectory(tmp_path / "block.h5")
    assert traj.positions.shape == (15, 64, 3)
    middle = ~traj.prescribed
    moved = (traj.positions[-1] - traj.positions[0])[middle]
    assert 0.0 < float(moved[:, 0].mean()) < 0.02
    assert float(moved[:, 1:].abs().max()) < float(moved[:, 0].max())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"scenario": "tearing"}, "scenario 'tearing' is unknown"),
        ({"held": 4}, {}, "cannot have 4 layers held"),
        ({}, {"ramp": 0.0}, "ramp 0.0 must be positive"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused(tmp_path, change, options, message):
    options = {"scenario": "unloading", "amplitude": 0.1, "frames": 3, "seed": 0, **options}
    with pytest.raises(ValueError, match=message):
        ViscoelasticSystem(**{**SHEET, **change}).generate(tmp_path / "x.h5", **options)


def test_modulus_of_a_known_response_is_recovered():
    times = np.linspace(0.0, 7.3, 731)
    omega = 2.0 * math.pi * 0.4
    strain = 0.1 * np.sin(omega * times)
    stress = 0.1 * (1.3 * np.sin(omega * times) + 0.2 * np.cos(omega * times)) + 0.05
    stress = stress + 0.3 * np.exp(-8.0 * times)  # what the start leaves has gone
    response = Response(times, strain, stress, np.zeros((731, 1)))
    modulus = complex_modulus(response, 0.4, 1.0)
    assert modulus == pytest.approx(1.3 + 0.2j, abs=2e-3)
    with pytest.raises(ValueError, match="no whole cycle"):
        complex_modulus(response, 0.4, 6.0)


def test_a_response_owns_its_memory(sheets):
    response = respond(ViscoelasticSystem(**SHEET).model(), sheets[0][:2])
    assert not np.shares_memory(response.times, sheets[0].times.numpy())
    assert response.field.shape == (2, 36)
    assert response.field.mean(axis=1) == pytest.approx(response.stress, rel=1e-4, abs=1e-9)


def test_position_error_counts_free_particles_only(sheets):
    traj = sheets[0]
    other = traj.positions.clone()
    other[:, traj.prescribed] += 1.0
    other[:, ~traj.prescribed] += 0.003
    moved = Trajectory(other, traj.velocities, box=traj.box, dt=traj.dt, prescribed=traj.prescribed)
    error = position_error(moved, traj, 0.03)
    assert error == pytest.approx(np.full(20, 2**0.5 * 0.1))


SMALL_SYSTEM = (
    *(f"system.parameters.{name}={value}" for name, value in SHEET.items()),
    "system.train=[{name: a, scenario: oscillation, amplitude: 0.02, frequency: 2.0, ramp: 0.1, runs: 1, frames: 20}]",
    "system.validation=[{name: a, scenario: free_flight, amplitude: 0.1, frequency: 1.0, runs: 1, frames: 8}]",
    "system.test=[{name: swing, scenario: oscillation, amplitude: 0.02, frequency: 4.0, ramp: 0.1, runs: 2, "
    "frames: 41},{name: rest, scenario: unloading, amplitude: 0.02, ramp: 0.1, hold: 0.1, runs: 1, frames: 31}]",
    "system.scores.max_lag_time=0.05",
    "system.scores.window=[0.02,0.05]",
)
SMALL_TRAINING = (
    "optimizer.steps=6",
    "optimizer.steps_per_epoch=3",
    "optimizer.batch_size=2",
)


def test_training_on_a_sheet_ends_in_scores_of_its_mechanics(monkeypatch, tmp_path):
    run_command(monkeypatch, tmp_path, "train", "experiment=viscoelastic", *SMALL_SYSTEM, *SMALL_TRAINING)
    out = tmp_path / "outputs" / "viscoelastic"
    metrics = json.loads((out / "metrics.json").read_text())
    swing, rest = metrics["scores"]["swing"], metrics["scores"]["rest"]
    for key in ("rdf", "msd", "vacf", "kinetic_temperature", "D", "position_error", "storage_modulus", "loss_modulus"):
        assert math.isfinite(swing[key]), key
    assert swing["energy_drift"] is None
    assert {"relaxation", "residual", "residual_truth"} <= set(rest)
    floor = metrics["floor"]["swing"]
    assert 0 < floor["position_error"] < swing["position_error"]
    assert {"rdf", "storage_modulus", "errors"} <= set(floor)
    page = (out / "report.html").read_text()
    assert "storage modulus" in page
    assert "shear stress" in page
    checkpoint = f"checkpoint={out}/best.ckpt"
    run_command(monkeypatch, tmp_path, "simulate", checkpoint, "steps=5", "system=viscoelastic", *SMALL_SYSTEM)
    run = read_trajectory(tmp_path / "run.h5")
    truth = read_trajectory(tmp_path / "data" / "viscoelastic" / "test" / "rest_0.h5")
    assert torch.allclose(run.positions[-1, truth.prescribed].double(), truth.positions[5, truth.prescribed], atol=1e-7)
    with pytest.raises(SystemExit, match="gnnm-export: the model is of a solid"):
        run_command(monkeypatch, tmp_path, "export", checkpoint)
