"""Models as tables: errors, laws, the file, and its guards."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import ideal_gas, learned_model, mismatch, scattered
from helpers import SILENT, gas_system, run_command
from invariants import StructureLaws, SymmetryLaws, conservation

import gnn_metriplectic as gm
from gnn_metriplectic.dynamics import INTEGRATORS, EnergyConserving
from gnn_metriplectic.models.tables import Tables

ENTROPY, VOLUME = (-8.0, 8.0), (0.02, 2.5)


@cache
def tables_of(dimension: int, tolerance: float = 1e-6) -> Tables:
    return gm.tabulate(learned_model(dimension), entropy=ENTROPY, volume=VOLUME, tolerance=tolerance)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "model.json"
    gm.write_tables(tables_of(3), path, provenance={"units": {"length": "sigma"}, "seed": 3})
    return path


class TestTabulatedModel(SymmetryLaws, StructureLaws):
    """The laws do not depend on how fine the tables are."""

    @pytest.fixture
    def model(self, dimension):
        return deepcopy(tables_of(dimension, 1e-2).model)


def test_a_rollout_from_tables_conserves_energy_and_momentum():
    model, box = tables_of(3, 1e-2).model, gm.Box.cubic(2.5, 3)
    drift, momentum, _ = conservation(model, scattered(model, 40, box=box), box, 0.01, 50)
    assert drift < 1e-12
    assert momentum < 1e-12


def test_no_error_exceeds_the_tolerance():
    errors = tables_of(3).errors
    assert {"W", "W'", "U", "T", "P V", "C", "A²", "T ∂A²/∂T", "K²", "T ∂K²/∂T"} <= errors.keys()
    assert 0 < max(value / (10.0 if name == "C" else 1.0) for name, value in errors.items()) <= 1e-6


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_measured_errors_hold_for_states_that_were_not_measured(tolerance):
    model = learned_model(3)
    tables = gm.tabulate(model, entropy=(-3.0, 3.0), volume=(0.1, 1.0), tolerance=tolerance)
    generator = torch.Generator().manual_seed(7)
    entropy, log = (torch.rand(2, 500, generator=generator, dtype=torch.float64)).unbind()
    entropy, volume = 6.0 * entropy - 3.0, torch.exp(torch.log(torch.tensor(0.1)) * log)
    exact, table = model.equation_of_state(entropy, volume), tables.model.equation_of_state(entropy, volume)
    assert ((table.temperature / exact.temperature - 1.0).abs()).max() < 1.5 * tables.errors["T"] < 1.5 * tolerance
    assert ((table.heat_capacity / exact.heat_capacity - 1.0).abs()).max() < 1.5 * tables.errors["C"]


class Steep(torch.nn.Module):
    """φ whose first function rises towards contact, where a trained network has seen nothing."""

    def __init__(self, radial: torch.nn.Module) -> None:
        super().__init__()
        self.radial = radial

    def forward(self, rho, shift=None):
        return self.jet(rho)[0]

    def jet(self, rho, shift=None):
        value, slope = (x.clone() for x in self.radial.jet(rho))
        rise = 8.0 * torch.exp(-20.0 * rho)
        value[:, 0] += rise
        slope[:, 0] -= 20.0 * rise
        return value, slope


def test_distances_that_no_pair_has_do_not_set_the_scale():
    model = learned_model(3)
    model.friction.radial = Steep(model.friction.radial)
    table = gm.tabulate(model, entropy=(-3.0, 3.0), volume=(0.1, 1.0)).model
    state, box = scattered(model, 40, box=gm.Box.cubic(2.5, 3)), gm.Box.cubic(2.5, 3)
    state = gm.State(state.pos, state.vel, state.entropy.clamp(-2.0, 2.0))
    pairs = gm.neighbor_pairs(state.pos, box, 1.0)
    temperature = model.temperature(state, pairs)
    exact, tabulated = (m.friction(pairs, *[temperature] * 4).squared for m in (model, table))
    near = gm.Pairs(torch.tensor([[0], [1]]), torch.tensor([[1e-3, 0.0, 0.0]], dtype=torch.float64), 2)
    contact = model.friction(near, *[temperature[:2]] * 4).squared
    assert float(contact.max()) > 1e6 * float(exact.max()), "contact is out of all proportion"
    assert float((tabulated / exact - 1.0).abs().max()) < 1e-5


def test_a_finer_tolerance_gives_smaller_errors():
    model = learned_model(2)
    coarse, fine = (
        gm.tabulate(model, entropy=(-3.0, 3.0), volume=(0.1, 1.0), tolerance=t).errors for t in (1e-2, 1e-6)
    )
    assert max(fine.values()) < 0.1 * max(coarse.values())


@pytest.mark.parametrize("integrator", sorted(INTEGRATORS))
def test_a_rollout_from_tables_follows_the_networks(integrator, model_file):
    model, box = learned_model(3), gm.Box.cubic(2.5, 3)
    state = scattered(model, 40, box=box)
    table = gm.read_tables(model_file)
    runs = [gm.simulate(m, state, box=box, dt=0.005, steps=20, integrator=integrator, seed=3) for m in (model, table)]
    assert mismatch(runs[1].positions[-1], runs[0].positions[-1]) < 1e-6
    assert mismatch(runs[1].entropies[-1], runs[0].entropies[-1]) < 1e-5
    assert mismatch(runs[0].positions[-1], runs[0].positions[0]) > 1e-3


def test_the_file_gives_back_the_model(model_file):
    model, again = tables_of(3).model, gm.read_tables(model_file)
    assert (again.dt, again.cutoff, again.dimension) == (model.dt, model.cutoff, 3)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_the_file_describes_itself(model_file):
    content = json.loads(model_file.read_text())
    assert content["version"] == 2
    assert content["units"] == {"length": "sigma"}
    assert content["provenance"] == {"seed": 3}
    assert content["range"]["entropy"] == list(ENTROPY)
    assert content["errors"] == tables_of(3).errors
    assert content["integrator"] == {"sweeps": EnergyConserving.sweeps}


def test_the_range_is_that_of_the_training_with_a_margin():
    model = learned_model(3)
    model.see(torch.tensor([-2.0, 2.0]), torch.tensor([0.2, 0.4]))
    law = gm.tabulate(model, margin=0.25, tolerance=1e-3).model.equation_of_state
    assert law.entropy == pytest.approx((-3.0, 3.0))
    low, high = torch.exp(torch.tensor(law.log_volume)).tolist()
    assert (low, high) == pytest.approx((0.2 / 2.0**0.25, 0.4 * 2.0**0.25))


def test_no_volume_is_above_that_of_a_lone_particle():
    model = learned_model(3)
    law = tables_of(3).model.equation_of_state
    pairs = gm.neighbor_pairs(torch.zeros(1, 3, dtype=torch.float64), gm.Box.free(3), 1.0)
    lone, _ = model.kernel.volume(pairs)
    assert float(lone[0]) < VOLUME[1]
    assert law.log_volume[1] == pytest.approx(float(torch.log(lone[0])))


def beyond(range: str, path: Path):
    law = gm.read_tables(path, range=range).equation_of_state
    entropy = torch.tensor([ENTROPY[1] + 0.5, 0.0, 0.3], dtype=torch.float64)
    volume = torch.tensor([0.3, VOLUME[0] / 1.2, 0.3], dtype=torch.float64)
    return law, entropy, volume


def test_leaving_the_range_is_an_error_that_names_the_particle(model_file):
    law, entropy, volume = beyond("error", model_file)
    with pytest.raises(ValueError, match=r"particle 0 has entropy 8\.5 and volume 0\.3, .* from -8 to 8"):
        law(entropy, volume)
    law(entropy[2:], volume[2:])


def test_leaving_the_range_warns_once_and_is_counted(model_file):
    law, entropy, volume = beyond("warn", model_file)
    with pytest.warns(UserWarning, match="particle 0 has entropy"):
        law(entropy, volume)
    law(entropy, volume)
    assert law.outside == 4


def test_beyond_the_range_the_laws_of_thermodynamics_hold(model_file):
    law, entropy, volume = beyond("clamp", model_file)
    entropy, volume = entropy.requires_grad_(), volume.requires_grad_()
    thermo = law(entropy, volume)
    by_entropy, by_volume = torch.autograd.grad(thermo.energy.sum(), (entropy, volume), create_graph=True)
    assert law.outside == 2
    assert mismatch(thermo.temperature, by_entropy) < 1e-12
    assert mismatch(thermo.pressure, -by_volume) < 1e-12
    (slope,) = torch.autograd.grad(thermo.temperature.sum(), entropy)
    assert mismatch(thermo.heat_capacity, thermo.temperature / slope) < 1e-12
    found, _ = law.entropy_of(thermo.energy.detach(), volume.detach(), torch.zeros(3, dtype=torch.float64))
    assert mismatch(found, entropy) < 1e-10


def test_a_hot_particle_stops_the_rollout(model_file):
    model, box = gm.read_tables(model_file), gm.Box.cubic(2.5, 3)
    state = scattered(model, 40, box=box)
    state.entropy[7] = 7.999
    state.vel[7] = 60.0
    with pytest.raises(ValueError, match=r"step \d+ of 50: particle 7 has entropy"):
        gm.simulate(model, state, box=box, dt=0.005, steps=50)


def test_an_equilibrium_can_be_drawn_from_tables(model_file):
    model, box = gm.read_tables(model_file), gm.Box.cubic(2.5, 3)
    pos = scattered(model, 40, box=box).pos
    exact, table = (
        gm.State.equilibrium(m, pos, box, temperature=1.0, seed=3).entropy for m in (learned_model(3), model)
    )
    assert mismatch(table, exact) < 1e-5


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (ideal_gas(3), {}, "SDPDFriction does not factorise"),
        (learned_model(3, mass=[1.0, 2.0]), {}, "has 2 species; tables hold models of one"),
        (learned_model(3), {}, "does not say at which entropies"),
        (learned_model(3), {"entropy": (1.0, 1.0), "volume": VOLUME}, "range of entropy is 1 to 1"),
        (learned_model(3), {"entropy": ENTROPY, "volume": (0.0, 1.0)}, "must be positive"),
        (learned_model(3), {"entropy": ENTROPY, "volume": VOLUME, "margin": -1.0}, "margin is -1"),
        (learned_model(3), {"entropy": ENTROPY, "volume": VOLUME, "tolerance": 0.0}, "tolerance is 0"),
        (learned_model(3), {"entropy": ENTROPY, "volume": VOLUME, "tolerance": 1e-15}, "larger tolerance"),
    ],
)
def test_what_has_no_tables_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        gm.tabulate(model, **options)


def change(content: dict, path: str, value) -> None:
    *folders, last = path.split(".")
    for name in folders:
        content = content[name]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "is not a file of tables"),
        ("version", 3, "has version 3 and this program reads up to 2"),
        ("cutoff", None, "cutoff is missing"),
        ("cutoff", -1.0, "cutoff is -1.0; it must be a positive number"),
        ("mass", "heavy", "mass is not a number"),
        ("dimension", 4, "dimension is 4"),
        ("kernel", None, "kernel is missing"),
        ("kernel.slope", [[0.0]] * 5, r"kernel.slope has shape 5 x 1; expected \d+ x 1"),
        ("kernel.value", [[0.0], [float("nan")]], "kernel.value has numbers that are not finite"),
        ("equation_of_state.nodes", [[1.0]], r"equation_of_state.nodes has shape 1 x 1; expected n x n x 9"),
        ("equation_of_state.entropy", [1.0, -1.0], "equation_of_state.entropy is 1 to -1"),
        ("friction.thermal.value", None, "friction.thermal.value is missing"),
        ("friction.rank", 2, r"friction.radial.value has shape \d+ x 12; expected n x 6"),
        ("friction.squared", [1.0, 1.0, -1.0], "scales of friction must be positive"),
        ("friction.radial", [1.0], "friction.radial is not an object"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_key(key, value, message, model_file, tmp_path):
    content = json.loads(model_file.read_text())
    change(content, key, value)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        gm.read_tables(path)
    assert str(error.value).startswith(str(path))


def test_files_that_are_missing_or_cut_short_are_refused(model_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: gnnm-export"):
        gm.read_tables(tmp_path / "none.json")
    path = tmp_path / "short.json"
    path.write_text(model_file.read_text()[:-200])
    with pytest.raises(ValueError, match=r"short\.json is not JSON \(cut short"):
        gm.read_tables(path)
    with pytest.raises(ValueError, match="range is 'ignore'"):
        gm.read_tables(model_file, range="ignore")


def test_writing_fails_without_a_trace(model_file, tmp_path):
    path = tmp_path / "model.json"
    path.write_text("before")
    with pytest.raises(ValueError, match="Out of range float"):
        gm.write_tables(tables_of(3), path, provenance={"loss": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["model.json"]
    assert path.read_text() == "before"


def test_a_training_is_exported_and_simulated(tmp_path, monkeypatch, capsys):
    gas = gas_system(particles=60, length=0.5, equilibration=5)
    gas.generate(tmp_path / "start.h5", scenario="self_diffusion", temperature=1.0, frames=40, seed=1)
    traj = gm.read_trajectory(tmp_path / "start.h5")
    gm.fit(traj, cutoff=0.2, lag=4, steps=8, steps_per_epoch=4, batch_size=2, out=tmp_path, trainer=SILENT)
    run_command(monkeypatch, tmp_path, "export", "checkpoint=best.ckpt", "margin=1.0", "tolerance=1e-5")
    said = capsys.readouterr().out
    assert "largest error" in said
    assert "tables in model.json" in said
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["provenance"]["checkpoint"] == "best.ckpt"
    assert len(content["provenance"]["sha256"]) == 64
    both = ("model=model.json", "checkpoint=best.ckpt", "start=start.h5", "steps=4", "range=warn", "precision=float64")
    run_command(monkeypatch, tmp_path, "simulate", *both, "out=tables.h5")
    run_command(monkeypatch, tmp_path, "simulate", *both[1:], "out=networks.h5")
    tables, networks = (gm.read_trajectory(tmp_path / f"{name}.h5") for name in ("tables", "networks"))
    assert mismatch(tables.velocities[-1], networks.velocities[-1]) < 1e-4
    # the rollout holds entropies to go on from
    run_command(monkeypatch, tmp_path, "simulate", "model=model.json", "start=tables.h5", "frame=-1", "steps=2")


def test_simulating_without_a_model_is_refused(tmp_path, monkeypatch):
    for given, message in (((), "a model must be given"), (("model=m.json",), "there is no model file")):
        with pytest.raises(SystemExit, match=message):
            run_command(monkeypatch, tmp_path, "simulate", "steps=2", *given)
