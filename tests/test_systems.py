"""Generated systems: what a seed means, what is on disk, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import GAS, SerialPool, gas_system

from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.models import State
from gnn_metriplectic.systems import SPLITS, ensure_dataset, read_split
from gnn_metriplectic.systems.ideal_gas import SCENARIOS
from gnn_metriplectic.trajectory import Trajectory, read_trajectory


def generated(
    path, *, scenario: str = "self_diffusion", frames: int = 4, seed: int = 1, conditions: dict | None = None, **changes
) -> Trajectory:
    options = {"scenario": scenario, "temperature": 1.2, "frames": frames, "seed": seed, **(conditions or {})}
    gas_system(equilibration=2, **changes).generate(path, **options)
    return read_trajectory(path)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_gives_the_same_bits_and_another_seed_others(tmp_path, scenario):
    first, again, other = (
        generated(tmp_path / f"{name}.h5", scenario=scenario, seed=seed)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first.fingerprint() == again.fingerprint()
    for name in ("positions", "velocities", "entropies"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name)[0], getattr(other, name)[0])
        assert not torch.equal(getattr(first, name)[0], getattr(first, name)[1])


def test_a_trajectory_tells_where_it_comes_from(tmp_path):
    traj = generated(tmp_path / "gas.h5", frames=5)
    assert (len(traj), traj.num_particles, traj.dt, float(traj.masses[0])) == (5, 40, 1e-3, 1.0)
    assert traj.entropies.shape == (5, 40)
    known = {"system": "ideal_gas", "scenario": "self_diffusion", "temperature": 1.2, "seed": 1, "k_B": 1.0}
    assert known.items() <= traj.metadata.items()


def test_self_diffusion_is_at_rest_in_a_still_box_without_force(tmp_path):
    traj = generated(tmp_path / "gas.h5")
    assert traj.box.shear_rate == 0.0
    assert traj.forcing is None
    assert traj.velocities.sum(dim=1).abs().max() < 1e-10


def test_shear_has_a_linear_profile_between_sliding_images(tmp_path):
    traj = generated(tmp_path / "gas.h5", scenario="shear", shear_rate=100.0)
    assert traj.box.shear_rate == 100.0
    assert traj.forcing is None
    height, along = traj.positions[0, :, 1], traj.velocities[0, :, 0]
    slope = float(((height - height.mean()) * along).sum() / ((height - height.mean()) ** 2).sum())
    assert slope == pytest.approx(100.0, rel=0.05)


def test_conditions_of_a_run_take_the_place_of_those_of_the_system(tmp_path):
    dense = generated(tmp_path / "dense.h5", conditions={"density": 1.25})
    assert (dense.num_particles, dense.box.lengths[0]) == (50, 0.45)
    fast = generated(tmp_path / "fast.h5", scenario="shear", conditions={"shear_rate": 7.0})
    assert fast.box.shear_rate == 7.0


def test_conduction_begins_with_a_hot_and_a_cold_half(tmp_path):
    # 400 particles: a mean over half of them has an error of 6 % (velocities) and 1 % (entropies, C = 30)
    gas = {"particles": 400, "length": 1.0}
    traj = generated(tmp_path / "gas.h5", scenario="conduction", frames=2, conditions={"contrast": 0.5}, **gas)
    assert traj.velocities.sum(dim=1).abs().max() < 1e-10
    law = gas_system(**gas).model()
    state = State.from_frame(traj, 0, law)
    temperature = law.temperature(state, neighbor_pairs(state.pos, traj.box, law.cutoff))
    hot = traj.positions[0, :, 0] % 1.0 < 0.5
    for half, expected in ((hot, 1.8), (~hot, 0.6)):
        assert float(temperature[half].mean()) == pytest.approx(expected, rel=0.05)
        assert float((traj.velocities[0, half] ** 2).mean()) == pytest.approx(expected, rel=0.25)


def test_a_contrast_that_leaves_no_temperature_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"contrast is 1\.0; it must be from 0 to less than 1"):
        generated(tmp_path / "gas.h5", scenario="conduction", conditions={"contrast": 1.0})


def test_taylor_green_starts_at_rest_and_its_force_drives_a_flow(tmp_path):
    traj = generated(tmp_path / "gas.h5", scenario="taylor_green", forcing=3000.0, frames=5)
    assert traj.forcing == {"name": "taylor_green", "amplitude": 3000.0, "length": 0.45}
    phase = 2.0 * torch.pi / 0.45 * traj.positions
    pattern = torch.sin(phase[..., 0]) * torch.cos(phase[..., 1]) * torch.cos(phase[..., 2])
    flow = (pattern * traj.velocities[..., 0]).sum(dim=1) / (pattern**2).sum(dim=1)
    assert abs(float(flow[0])) < 1.5  # thermal noise of 40 particles
    assert float(flow[4] - flow[0]) == pytest.approx(3000.0 * 4 * 1e-3, rel=0.3)


def test_an_unknown_scenario_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"scenario 'vortex' is unknown; choose one of \('self_diffusion'"):
        generated(tmp_path / "gas.h5", scenario="vortex")
    assert not list(tmp_path.iterdir())


def test_a_box_too_small_for_the_cutoff_is_refused(tmp_path):
    with pytest.raises(ValueError, match="over half the box"):
        generated(tmp_path / "gas.h5", length=0.3)


def entry(name: str, scenario: str = "self_diffusion", runs: int = 1, frames: int = 3) -> dict:
    return {"name": name, "scenario": scenario, "temperature": 1.0, "runs": runs, "frames": frames}


def settings(**changes) -> dict:
    return {
        "name": "ideal_gas",
        "parameters": {**GAS, "equilibration": 2},
        "train": [entry("cold", runs=2), entry("hot")],
        "validation": [entry("cold")],
        "test": [entry("shear", "shear"), entry("self_diffusion_T0.8", runs=2, frames=4)],
        **changes,
    }


def fingerprints(folder) -> dict[str, str]:
    return {str(p.relative_to(folder)): read_trajectory(p).fingerprint() for p in folder.rglob("*.h5")}


@pytest.fixture
def serial(monkeypatch):
    """Generation in this process."""
    monkeypatch.setattr("gnn_metriplectic.systems.dataset.ProcessPoolExecutor", SerialPool)


@pytest.mark.usefixtures("serial")
def test_splits_hold_what_their_settings_say(tmp_path):
    folder = ensure_dataset(settings(), tmp_path / "data", seed=3)
    found = {split: {n: [len(t) for t in r] for n, r in read_split(folder, split).items()} for split in SPLITS}
    assert found == {
        "train": {"cold": [3, 3], "hot": [3]},
        "validation": {"cold": [3]},
        "test": {"shear": [3], "self_diffusion_T0.8": [4, 4]},
    }
    prints = fingerprints(folder)
    assert len(set(prints.values())) == len(prints) == 7  # each file has a seed of its own
    assert json.loads((folder / "settings.json").read_text()) == {"seed": 3, **settings()}
    assert not list(folder.rglob("*.partial"))


@pytest.mark.usefixtures("serial")
def test_entries_of_one_name_are_numbered_on(tmp_path):
    twice = [entry("shear", "shear"), entry("shear", "shear", frames=4)]
    folder = ensure_dataset(settings(test=twice), tmp_path, seed=0)
    assert [len(t) for t in read_split(folder, "test")["shear"]] == [3, 4]


@pytest.mark.usefixtures("serial")
def test_only_missing_files_are_made_again_and_with_the_same_bits(tmp_path):
    folder = ensure_dataset(settings(), tmp_path, seed=0)
    before = fingerprints(folder)
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.h5")}
    gone = folder / "train" / "cold_1.h5"
    gone.unlink()
    ensure_dataset(settings(), folder, seed=0)
    assert fingerprints(folder) == before
    assert {p for p, t in times.items() if p.stat().st_mtime_ns != t} == {gone}


@pytest.mark.usefixtures("serial")
def test_settings_that_made_nothing_do_not_stand_in_the_way_of_better_ones(tmp_path):
    with pytest.raises(ValueError, match="over half the box"):
        ensure_dataset(settings(parameters={**GAS, "length": 0.3}), tmp_path, seed=0)
    ensure_dataset(settings(), tmp_path, seed=0)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 0, **settings()}


def test_processes_give_the_bits_of_one(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnn_metriplectic.systems.dataset.ProcessPoolExecutor", SerialPool)
        serial = ensure_dataset(settings(), tmp_path / "serial", seed=1)
    parallel = ensure_dataset(settings(), tmp_path / "parallel", seed=1, workers=2)
    assert fingerprints(serial) == fingerprints(parallel)


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize(("changes", "seed"), [({"train": [entry("cold", frames=9)]}, 0), ({}, 1)])
def test_a_folder_of_other_settings_is_refused_and_left_alone(tmp_path, changes, seed):
    folder = ensure_dataset(settings(), tmp_path / "data", seed=0)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"data holds trajectories of other settings \(see .*settings.json\): choose"):
        ensure_dataset(settings(**changes), folder, seed=seed)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "plasma"}, r"system 'plasma' is unknown; known: \['colloids', 'ideal_gas'"),
        ({"name": None}, "system None is unknown"),
        ({"parameters": {**GAS, "charge": 1.0}}, "parameters of system ideal_gas: .*charge"),
        ({"parameters": {"particles": 40}}, "parameters of system ideal_gas: .*missing .*length"),
        ({"parameters": {**GAS, "length": 0.3}}, "over half the box"),
        ({"test": [entry("x", "vortex")]}, "scenario 'vortex' is unknown"),
        (
            {"train": [{"name": "cold", "runs": 1}]},
            "an entry of train does not fit the system: missing a required.*'scenario'",
        ),
    ],
)
def test_settings_that_make_no_system_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        ensure_dataset(settings(**changes), tmp_path / "data", seed=0)


def test_an_error_in_a_process_reaches_the_caller_and_leaves_no_half_files(tmp_path):
    wrong = settings(train=[entry("x", "vortex")], validation=[], test=[])
    with pytest.raises(ValueError, match="scenario 'vortex' is unknown"):
        ensure_dataset(wrong, tmp_path, seed=0, workers=1)
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.usefixtures("serial")
def test_a_file_cut_short_is_named(tmp_path):
    folder = ensure_dataset(settings(), tmp_path, seed=0)
    damaged = folder / "validation" / "cold_0.h5"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cold_0\.h5"):
        read_split(folder, "validation")


def test_splits_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ValueError, match="split is 'holdout'; choose one of"):
        read_split(tmp_path, "holdout")
    with pytest.raises(FileNotFoundError, match=r"test holds no trajectories .*: run gnnm-generate first"):
        read_split(tmp_path, "test")


@pytest.mark.slow
def test_the_gas_begins_with_the_density_fluctuations_of_equilibrium(tmp_path):
    system, frames = gas_system(particles=300, length=0.6 ** (1 / 3), equilibration=150), (0, 100, 130, 160)
    model, spread = system.model(), torch.zeros(6, len(frames))
    for seed in range(len(spread)):
        system.generate(tmp_path / f"{seed}.h5", scenario="self_diffusion", temperature=1.0, frames=161, seed=seed)
        run = read_trajectory(tmp_path / f"{seed}.h5")
        for column, frame in enumerate(frames):
            pairs = neighbor_pairs(run.positions[frame].double(), run.box, model.cutoff)
            spread[seed, column] = model.configuration(pairs, None).volume.log().var()
    first, later = spread.mean(dim=0)[0], spread.mean(dim=0)[1:].mean()
    assert float(first / later) == pytest.approx(1.0, abs=0.12)  # with heat taken without noise it is 0.8
