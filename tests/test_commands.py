"""The command-line programs with their real configuration, on a system that takes seconds."""

from __future__ import annotations

import csv
import json
import math
import signal
import struct
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from conftest import ideal_gas, scattered
from helpers import SMALL_SYSTEM, SMALL_TRAINING, SerialPool, command_process, entries, run_command

import gnn_metriplectic as gm
from gnn_metriplectic.dynamics import INTEGRATORS, EnergyConserving
from gnn_metriplectic.evaluation import evaluate
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.learning import read_checkpoint

ROOT = Path(__file__).parents[1]
SCENARIOS = {"rest", "shear"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(capsys, monkeypatch, folder: Path, name: str, *overrides: str) -> str:
    """What a command says that ends with an error."""
    with pytest.raises(SystemExit) as error:
        run_command(monkeypatch, folder, name, *overrides)
    assert error.value.code not in (0, None)
    # a message as exit code is printed to stderr with code 1
    return error.value.code if isinstance(error.value.code, str) else capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which ``gnnm-train`` has run: ``run`` and ``data``."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        run_command(patch, folder, "train", *SMALL_TRAINING, "out=run", "data=data")
    return folder


def numbers(value) -> bool:
    return value is None or (isinstance(value, float) and math.isfinite(value))


def test_training_leaves_checkpoints_scores_and_report(trained):
    run = trained / "run"
    assert {"best.ckpt", "last.ckpt", "metrics.json", "report.html", "config.yaml", "logs"} == {
        p.name for p in run.iterdir()
    }
    assert read_checkpoint(run / "last.ckpt")["global_step"] == 8
    assert gm.load(run / "best.ckpt").dt == pytest.approx(4 * 1e-3)
    report = (run / "report.html").read_text()
    assert "<html" in report
    assert all(name in report for name in SCENARIOS)
    assert {p.name for p in trained.iterdir()} == {"run", "data"}


def test_metrics_have_all_scores_of_each_scenario(trained):
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    assert {"system", "lag", "dt", "seed", "scores", "floor", "entropy", "seconds"} <= metrics.keys()
    assert (metrics["system"], metrics["lag"], metrics["seed"]) == ("ideal_gas", 4, 0)
    assert metrics["dt"] == pytest.approx(4 * 1e-3)
    both = {"rdf", "msd", "vacf", "kinetic_temperature", "D", "D_truth"}
    keys = both | {"temperature", "energy_drift", "momentum_drift"}
    assert set(metrics["scores"]) == SCENARIOS
    for scores in metrics["scores"].values():
        assert keys <= scores.keys()
        assert all(numbers(scores[key]) for key in keys)
    assert set(metrics["floor"]) == {"rest"}  # the others have one run
    assert both <= metrics["floor"]["rest"].keys()
    assert metrics["scores"]["rest"]["energy_drift"] < 1e-10
    assert metrics["scores"]["shear"]["energy_drift"] is None  # the boundary does work
    assert max(s["momentum_drift"] for s in metrics["scores"].values()) < 1e-10
    entropy = {"k_B_C", "mean", "std", "encoded_mean", "encoded_std", "autocorrelation"}
    assert entropy <= metrics["entropy"].keys()
    assert all(isinstance(metrics["entropy"][key], float) for key in entropy)
    assert {"generate", "train", "evaluate"} == metrics["seconds"].keys()
    assert all(seconds > 0 for seconds in metrics["seconds"].values())


def test_the_csv_logger_writes_the_learning_curve(trained):
    (path,) = (trained / "run" / "logs").rglob("metrics.csv")
    rows = list(csv.DictReader(path.open()))
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))


def test_the_whole_configuration_is_kept_with_the_training(trained):
    from omegaconf import OmegaConf

    config = OmegaConf.load(trained / "run" / "config.yaml")
    assert (config.model.lag, config.model.cutoff, config.optimizer.steps) == (4, 0.2, 8)
    assert config.system.parameters.particles == 60


def test_a_second_training_into_the_same_folder_is_refused(trained, tmp_path, monkeypatch, capsys):
    before = contents(trained)
    said = refused(capsys, monkeypatch, trained, "train", *SMALL_TRAINING, "out=run", "data=data", "seed=5")
    assert said == (
        "gnnm-train: run already holds a training: continue it with ckpt_path=last, or choose another folder with "
        "out=..."
    )
    assert contents(trained) == before


def stub(monkeypatch) -> list[tuple]:
    """Take the place of the evaluation after training; the calls are returned."""
    calls: list[tuple] = []

    def evaluate(*arguments, **options):
        calls.append((arguments, options))
        return {"system": "stub", "scores": {}}

    monkeypatch.setattr("gnn_metriplectic.commands.train.evaluate", evaluate)
    return calls


def test_ckpt_path_last_goes_on_with_an_interrupted_training(trained, tmp_path, monkeypatch):
    calls = stub(monkeypatch)
    settings = (*SMALL_TRAINING, "out=run", f"data={trained / 'data'}")
    step = gm.MetriplecticModule.training_step

    def interrupted(module, batch, index):
        if module.global_step == 6:
            raise KeyboardInterrupt
        return step(module, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(gm.MetriplecticModule, "training_step", interrupted)
        with pytest.raises(SystemExit) as error:
            run_command(monkeypatch, tmp_path, "train", *settings)
    assert error.value.code == "gnnm-train: interrupted; what was finished is on disk"
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 4
    assert not calls
    run_command(monkeypatch, tmp_path, "train", *settings, "ckpt_path=last")
    assert len(calls) == 1
    weights = [read_checkpoint(folder / "run" / "last.ckpt")["state_dict"] for folder in (trained, tmp_path)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    curve = [row for p in (tmp_path / "run" / "logs").rglob("metrics.csv") for row in csv.DictReader(p.open())]
    assert sorted(int(row["step"]) for row in curve if row["val/loss"]) == [3, 7]


def test_generate_writes_the_splits_and_says_so(tmp_path, monkeypatch, capsys):
    run_command(monkeypatch, tmp_path, "generate", *SMALL_SYSTEM[:5], f"system.test=[{entries('rest', frames=3)}]")
    folder = tmp_path / "data" / "ideal_gas"
    assert set(contents(tmp_path)) == {
        f"data/ideal_gas/{name}"
        for name in ("settings.json", "train/flow_0.h5", "validation/flow_0.h5", "test/rest_0.h5")
    }
    assert len(gm.read_trajectory(folder / "train" / "flow_0.h5")) == 24
    said = capsys.readouterr().out
    assert "data/ideal_gas/train  flow: 1 x 24 frames of 60 particles" in said
    assert "data/ideal_gas/test  rest: 1 x 3 frames of 60 particles" in said


def test_evaluate_scores_a_checkpoint_into_a_folder_of_its_own(trained, tmp_path, monkeypatch, capsys):
    before = contents(trained)
    checkpoint = f"checkpoint={trained / 'run' / 'best.ckpt'}"
    run_command(monkeypatch, tmp_path, "evaluate", *SMALL_SYSTEM, checkpoint, "out=scores", f"data={trained / 'data'}")
    assert set(contents(tmp_path)) == {"scores/metrics.json", "scores/report.html"}
    metrics, at_training = (
        json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "scores", trained / "run")
    )
    for key in ("scores", "floor", "entropy", "lag", "dt"):
        assert metrics[key] == at_training[key]
    assert contents(trained) == before
    assert metrics["seed"] == at_training["seed"]
    assert {name: metrics["seconds"][name] for name in ("generate", "train")} == {
        name: at_training["seconds"][name] for name in ("generate", "train")
    }
    assert "rest" in capsys.readouterr().out


def test_without_a_system_evaluation_and_rollouts_have_that_of_the_training(trained, tmp_path, monkeypatch):
    given = f"checkpoint={trained / 'run' / 'best.ckpt'}", f"data={trained / 'data'}"
    run_command(monkeypatch, tmp_path, "evaluate", *given, "out=scores")
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())["scores"]
    assert scores.keys() == SCENARIOS
    run_command(monkeypatch, tmp_path, "simulate", *given, "steps=2", "out=run.h5")
    assert gm.read_trajectory(tmp_path / "run.h5").num_particles == 60
    assert {p.name for p in tmp_path.iterdir()} == {"scores", "run.h5"}, "no other data was made"


def test_scores_of_another_system_do_not_replace_those_of_the_training(trained):
    from gnn_metriplectic.commands.evaluate import _folder_of

    run = trained / "run"
    assert _folder_of("ideal_gas", run / "best.ckpt") == run
    assert _folder_of("ideal_gas_transfer", run / "best.ckpt") == run / "ideal_gas_transfer"


def test_scores_name_the_seed_of_their_rollouts(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("gnn_metriplectic.evaluation.rollouts.ProcessPoolExecutor", SerialPool)
    truths = {"rest": [gm.read_trajectory(trained / "data" / "test" / "rest_0.h5")]}
    metrics = evaluate(trained / "run" / "best.ckpt", truths, tmp_path, system="gas", seed=7)
    assert metrics["seed"] == 7


def test_several_rollouts_of_a_true_run_are_averaged_beside_the_same_truth(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("gnn_metriplectic.evaluation.rollouts.ProcessPoolExecutor", SerialPool)
    truths = {"rest": [gm.read_trajectory(trained / "data" / "test" / f"rest_{k}.h5") for k in range(2)]}
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
    once, twice = (
        evaluate(trained / "run" / "best.ckpt", truths, tmp_path / str(n), system="gas", rollouts=n) for n in (1, 2)
    )
    assert twice["floor"]["rest"]["rdf"] == pytest.approx(0.75**0.5 * once["floor"]["rest"]["rdf"])
    runs = [
        evaluate(trained / "run" / "best.ckpt", {"rest": [truth]}, tmp_path, system="gas", seed=seed)["scores"]["rest"]
        for truth, seed in zip([truths["rest"][k] for k in (0, 0, 1, 1)], range(4), strict=True)
    ]
    first, second = once["scores"]["rest"], twice["scores"]["rest"]
    assert second["kinetic_temperature_truth"] == first["kinetic_temperature_truth"]
    mean = sum(run["kinetic_temperature"] for run in runs) / 4
    assert second["kinetic_temperature"] == pytest.approx(mean, rel=1e-6)


def simulate(trained: Path, *overrides: str) -> tuple[str, ...]:
    return (*SMALL_SYSTEM, f"checkpoint={trained / 'run' / 'best.ckpt'}", f"data={trained / 'data'}", *overrides)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_simulate_writes_a_trajectory_from_the_frame_asked_for(trained, tmp_path, monkeypatch, precision):
    options = ("steps=6", "every=2", "out=shear.h5", "scenario=shear", "frame=3", f"precision={precision}")
    run_command(monkeypatch, tmp_path, "simulate", *simulate(trained, *options))
    assert set(contents(tmp_path)) == {"shear.h5"}
    run = gm.read_trajectory(tmp_path / "shear.h5")
    start = gm.read_trajectory(trained / "data" / "test" / "shear_0.h5")
    assert (len(run), run.dt, run.box) == (4, pytest.approx(2 * 4 * 1e-3), start.box)
    assert run.positions.dtype == getattr(torch, precision)
    torch.testing.assert_close(run.positions[0], start.positions[3].to(run.positions))
    assert run.entropies.shape == (4, 60)


def test_simulate_starts_from_any_file(trained, tmp_path, monkeypatch):
    start = trained / "data" / "test" / "rest_1.h5"
    run_command(monkeypatch, tmp_path, "simulate", *simulate(trained, "steps=2", f"start={start}", "out=a/b.h5"))
    run = gm.read_trajectory(tmp_path / "a" / "b.h5")
    torch.testing.assert_close(run.positions[0], gm.read_trajectory(start).positions[0].float())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("steps=0",), "steps is 0"),
        (("steps=abc",), "steps is 'abc'; it must be a whole number"),
        (("steps=2", "frame=abc"), "frame abc does not exist"),
        (("steps=2", "out=."), "is a folder; give the name of a file"),
        (("steps=???",), "steps must be given, such as steps=..."),
        (("steps=2", "every=3"), "steps is 2 and every 3"),
        (("steps=2", "integrator=leapfrog"), "integrator is 'leapfrog'; choose one of ['energy_conserving', 'eul"),
        (("steps=2", "precision=half"), "precision is 'half'"),
        (("steps=2", "scenario=vortex"), "scenario 'vortex' is not among the test trajectories: ['rest', 'shear']"),
        (("steps=2", "frame=99"), "frame 99 does not exist: the trajectory has 40"),
        (("steps=2", "neighbors=grid"), "neighbour backend is 'grid'"),
        (("steps=2", "dt=-1"), "dt is -1"),
        (("steps=2", "start=none.h5"), "none.h5"),
        (("steps=2", "checkpoint=none.ckpt"), "checkpoint none.ckpt does not exist"),
    ],
)
def test_simulate_refuses_in_one_sentence_and_writes_nothing(
    trained, tmp_path, monkeypatch, capsys, overrides, message
):
    said = refused(capsys, monkeypatch, tmp_path, "simulate", *simulate(trained, *overrides))
    assert said.startswith("gnnm-simulate: ")
    assert message in said
    assert "experiment" not in said
    assert "\n" not in said
    assert not contents(tmp_path)


def test_simulate_does_not_replace_a_file(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.h5").write_bytes(b"an earlier file")
    said = refused(capsys, monkeypatch, tmp_path, "simulate", *simulate(trained, "steps=2"))
    assert said == "gnnm-simulate: run.h5 exists already: give another name, or remove it first"
    assert contents(tmp_path) == {"run.h5": b"an earlier file"}


@pytest.mark.parametrize("checkpoint", ["none.ckpt", "text.ckpt"])
def test_evaluate_refuses_a_bad_checkpoint_before_it_makes_data(tmp_path, monkeypatch, capsys, checkpoint):
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    said = refused(capsys, monkeypatch, tmp_path, "evaluate", *SMALL_SYSTEM, f"checkpoint={checkpoint}")
    assert said.startswith("gnnm-evaluate: ")
    assert checkpoint in said
    assert set(contents(tmp_path)) == {"text.ckpt"}


@pytest.mark.parametrize(
    ("name", "overrides", "named"),
    [
        ("train", ("experiment=ideal_gas", "model.cutof=1"), "cutof"),
        ("train", ("experiment=plasma",), "plasma"),
        ("train", ("experiment=ideal_gas", "optimizer=sgd"), "sgd"),
        ("train", (), "model.cutoff must be given, such as model.cutoff=... or an experiment=..."),
        ("generate", ("system=plasma",), "plasma"),
        ("generate", ("frames=3",), "frames"),
        ("evaluate", (), "checkpoint must be given"),
        ("simulate", ("step=3",), "step"),
        ("simulate", (), "steps must be given"),
    ],
)
def test_settings_that_do_not_exist_or_lack_are_named_before_anything_is_written(
    tmp_path, monkeypatch, capsys, name, overrides, named
):
    assert named in refused(capsys, monkeypatch, tmp_path, name, *overrides)
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.integrator=leapfrog",), "integrator is 'leapfrog'; choose one of ['energy_conserving', 'euler_m"),
        (("model.temperature=hot",), "temperature is 'hot'"),
        (("optimizer.steps=7",), "steps is 7; it must be a multiple of steps_per_epoch, 4"),
        (("model.cutoff=0.3",), "over half the box"),
        (("+trainer.max_epochs=3",), "max_epochs"),
        (
            ("+model.lagg=3",),
            "model has no setting lagg; known to the training: kind, cutoff, lag, substeps, mass,",
        ),
        (("+model.seed=3",), "model has no setting seed"),
        (("optimizer.lr=-1",), "lr is -1; it must be a positive number"),
        (("ckpt_path=last",), "last.ckpt does not exist: there is nothing to continue"),
        (("ckpt_path=none.ckpt",), "none.ckpt does not exist: there is nothing to continue"),
    ],
)
def test_train_refuses_settings_in_one_sentence(trained, tmp_path, monkeypatch, capsys, overrides, message):
    settings = (*SMALL_TRAINING, "out=run", f"data={trained / 'data'}", *overrides)
    said = refused(capsys, monkeypatch, tmp_path, "train", *settings)
    assert said.startswith("gnnm-train: ")
    assert message in said
    assert not list(tmp_path.iterdir())


def test_an_experiment_of_the_users_own_folder_is_found(trained, tmp_path, monkeypatch):
    stub(monkeypatch)
    folder = tmp_path / "my" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [override /system: ideal_gas]\nname: mine\nmodel: {cutoff: 0.19, lag: 2}\n"
    )
    small = [o for o in SMALL_TRAINING if not o.startswith(("experiment", "model"))]
    run_command(
        monkeypatch, tmp_path, "train", "--config-dir=my", "experiment=mine", *small, f"data={trained / 'data'}"
    )
    model = gm.load(tmp_path / "outputs" / "mine" / "best.ckpt")
    assert (model.cutoff, model.dt) == (0.19, pytest.approx(2 * 1e-3))


def records(path: Path) -> list:
    """What an offline run would send to the server: protocol buffers in the blocks of a LevelDB log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, found, parts = path.read_bytes(), 7, [], b""
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # too little of the block is left for a head
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record())
            found[-1].ParseFromString(parts)
            parts = b""
    return found


def test_wandb_records_a_run_without_a_server(trained, tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    settings = (*SMALL_TRAINING, f"data={trained / 'data'}", "logger=wandb", "out=run")
    run_command(monkeypatch, tmp_path, "train", *settings)
    assert wandb.run is None  # finished: a next training in this process has a run of its own
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (file,) = run.glob("*.wandb")
    sent = records(file)
    config = {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for record in sent
        if record.HasField("config")
        for item in record.config.update
    }
    assert config["config"]["optimizer"]["steps"] == 8
    assert config["config"]["system"]["parameters"]["particles"] == 60
    summary = {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in sent
        if record.HasField("summary")
        for item in record.summary.update
    }
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert summary["scores/rest/rdf"] == metrics["scores"]["rest"]["rdf"]
    losses = [
        json.loads(item.value_json)
        for record in sent
        if record.HasField("history")
        for item in record.history.item
        if (item.key or ".".join(item.nested_key)) == "val/loss"
    ]
    assert len(losses) == 2
    (page,) = run.rglob("report*.html")
    assert page.read_text().count("learned dynamics against the truth") == 1
    (artifact,) = (record.artifact for record in sent if record.HasField("artifact"))
    (content,) = artifact.manifest.contents
    assert (artifact.type, set(artifact.aliases), content.path) == ("model", {"best", "latest"}, "best.ckpt")
    assert Path(content.local_path).read_bytes() == (tmp_path / "run" / "best.ckpt").read_bytes()


def test_a_multirun_gives_each_job_its_own_folder(trained, tmp_path, monkeypatch):
    stub(monkeypatch)
    settings = (*SMALL_TRAINING, f"data={trained / 'data'}", "optimizer.lr=1e-3,5e-3", "-m")
    run_command(monkeypatch, tmp_path, "train", *settings)
    checkpoints = sorted((tmp_path / "multirun" / "ideal_gas").rglob("best.ckpt"))
    rates = [read_checkpoint(p)["hyper_parameters"]["optimizer"]["lr"] for p in checkpoints]
    assert rates == [1e-3, 5e-3]
    assert not (tmp_path / "outputs").exists()


def test_help_of_a_command_run_as_a_module_shows_its_settings(tmp_path):
    process = command_process(tmp_path, "train", "--help")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "steps_per_epoch: 100" in said
    assert "experiment: colloid_video, ideal_gas" in said
    assert not contents(tmp_path)


def test_a_refusal_is_an_exit_code_and_no_traceback(tmp_path):
    process = command_process(tmp_path, "simulate", "checkpoint=none.ckpt", "steps=2")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == "gnnm-simulate: checkpoint none.ckpt does not exist\n"
    assert not said
    assert not contents(tmp_path)


def test_ctrl_c_while_a_command_still_imports_is_one_line(tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torch.py").write_text("raise KeyboardInterrupt")
    process = command_process(tmp_path, "train", PYTHONPATH=str(tmp_path / "modules"))
    said, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT
    assert (said, errors) == ("", "interrupted before it began\n")


def test_the_package_imports_what_is_asked_for():
    assert {name for name in gm.__all__ if getattr(gm, name, None) is None} == set()
    assert set(gm.__all__) <= set(dir(gm))
    assert not hasattr(gm, "alchemy")


def test_the_configuration_ships_with_the_package():
    conf = files("gnn_metriplectic.conf")
    for name in ("train", "generate", "simulate", "evaluate", "experiment/ideal_gas", "system/ideal_gas"):
        assert conf.joinpath(f"{name}.yaml").read_text() == (ROOT / "conf" / f"{name}.yaml").read_text()


@pytest.mark.slow
def test_a_wheel_holds_the_configuration_and_every_module(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in tracked:
        if name.startswith(("conf/", "gnn_metriplectic/")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    yamls = {f"gnn_metriplectic/{p.relative_to(source)}" for p in (source / "conf").rglob("*.yaml")}
    modules = {str(p.relative_to(source)) for p in (source / "gnn_metriplectic").rglob("*.py")}
    assert len(yamls) >= 10
    assert yamls | modules <= held


def rollout(**changes):
    """`gm.simulate` of a small gas in free space; ``model`` and ``state`` may be among the changes."""
    model = changes.pop("model", None) or ideal_gas(3)
    model = model.double()
    state = changes.pop("state", None) or scattered(model, 12, spacing=0.4)
    return gm.simulate(model, state, **{"box": Box.free(3), "dt": 1e-3, "steps": 4, **changes})


def one(particles: int) -> gm.State:
    state = scattered(ideal_gas(3).double(), 4)
    return gm.State(state.pos[:particles], state.vel[:particles], state.entropy[:particles])


def with_value(name: str, value: float) -> gm.State:
    """A gas in which particle 5 has an impossible position, velocity or entropy."""
    state = scattered(ideal_gas(3).double(), 12, spacing=0.4)
    fields = {key: getattr(state, key).clone() for key in ("pos", "vel", "entropy")}
    fields[name][5] = value
    return gm.State(**fields)


STILL = gm.Prescribed(torch.ones(7, dtype=torch.bool), lambda time: (torch.zeros(7, 3), torch.zeros(7, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"integrator": "leapfrog"},
            r"integrator is 'leapfrog'; choose one of \['energy_conserving', 'euler_maruyama'",
        ),
        ({"steps": 0}, "steps is 0; it must be a whole number, at least 1"),
        ({"steps": "abc"}, "steps is 'abc'; it must be a whole number"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"every": 0}, "every is 0; it must be a whole number"),
        ({"seed": "x"}, "seed is 'x'; it must be a whole number, at least 0"),
        ({"dt": "x"}, "dt is 'x'; it must be a positive number"),
        ({"every": 5}, "steps is 4 and every 5"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"dt": float("nan")}, "dt is nan"),
        ({"box": Box.free(2)}, "the box has dimension 2 and the model 3"),
        ({"box": Box.cubic(1.5, 3)}, "over half the box"),
        ({"neighbors": "grid"}, "neighbour backend is 'grid'"),
        ({"metadata": {"who": {1, 2}}}, "must be plain JSON"),
        ({"state": one(0)}, r"the state has 0 particle\(s\); pair interactions need at least two"),
        ({"state": one(1)}, r"the state has 1 particle\(s\); pair interactions need at least two"),
        ({"state": with_value("pos", math.nan)}, r"positions of particle 5 are \[nan, nan, nan\]"),
        ({"state": with_value("vel", math.inf)}, r"velocities of particle 5 are \[inf, inf, inf\]"),
        ({"state": with_value("entropy", math.nan)}, "entropies of particle 5 are nan"),
        (
            {"state": with_value("entropy", -1e6)},
            "particle 5 starts with entropy -1e.06, at which the model has no temp",
        ),
        ({"prescribed": STILL}, r"the prescribed mask has shape \[7\]; the state has 12 particles"),
    ],
)
def test_simulate_refuses_settings_and_leaves_no_file(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        rollout(out=tmp_path / "run.h5", **changes)
    assert not contents(tmp_path)


def test_simulate_refuses_a_state_of_another_type_than_the_model():
    model = ideal_gas(3).double()
    state = scattered(model, 12).to(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"the state is torch.float32 and the model torch.float64: use state\.to"):
        rollout(model=model, state=state)


def cold(particle: int) -> gm.State:
    """A gas in which one particle's internal energy is all but used up."""
    state = scattered(ideal_gas(3).double(), 12, spacing=0.4)
    entropy = state.entropy.clone()
    entropy[particle] = -60.0
    return gm.State(state.pos, 30.0 * state.vel, entropy)


def test_an_internal_energy_without_temperature_names_step_and_particle(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"step 1 of 4: particle \d+ has internal energy -\S+ at volume \S+, to which"):
        rollout(state=cold(5), dt=0.2, out=tmp_path / "run.h5")
    assert not contents(tmp_path)


def test_a_file_or_folder_that_exists_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(EnergyConserving, "step", lambda *arguments: pytest.fail("a step was taken"))
    (tmp_path / "run.h5").write_bytes(b"an earlier file")
    with pytest.raises(ValueError, match=r"run\.h5 exists already: give another name, or remove it first"):
        rollout(out=tmp_path / "run.h5")
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder; give the name of a file"):
        rollout(out=tmp_path)
    assert contents(tmp_path) == {"run.h5": b"an earlier file"}


def lone() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Position, velocity and entropy of one particle far away."""
    pos, vel = torch.tensor([[90.0, 0.0, -70.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    return pos.double(), vel.double(), torch.tensor([0.3]).double()


def test_a_particle_without_neighbours_flies_straight():
    gas = scattered(ideal_gas(3).double(), 12, spacing=0.4)
    far = gm.State(*(torch.cat([x, y]) for x, y in zip((gas.pos, gas.vel, gas.entropy), lone(), strict=True)))
    run = rollout(state=far, steps=20)
    torch.testing.assert_close(run.positions[-1, -1], lone()[0][0] + 20e-3 * lone()[1][0])
    assert torch.equal(run.velocities[:, -1], lone()[1].expand(21, 3))
    torch.testing.assert_close(run.entropies[:, -1], lone()[2].expand(21))


def interrupt_at(monkeypatch, step: int, error: BaseException) -> None:
    take = EnergyConserving.step

    def interrupted(self, frame):
        if frame.step == step - 1:
            raise error
        return take(self, frame)

    monkeypatch.setattr(INTEGRATORS["energy_conserving"], "step", interrupted)


def test_ctrl_c_leaves_a_readable_file_with_the_frames_so_far(tmp_path, monkeypatch):
    whole = rollout(steps=6)
    interrupt_at(monkeypatch, 4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        rollout(steps=6, out=tmp_path / "run.h5")
    assert set(contents(tmp_path)) == {"run.h5"}
    kept = gm.read_trajectory(tmp_path / "run.h5")
    assert len(kept) == 4
    for name in ("positions", "velocities", "entropies"):
        assert torch.equal(getattr(kept, name), getattr(whole, name)[:4])


def test_an_error_in_a_step_leaves_no_file(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 3, ValueError("out of breath"))
    with pytest.raises(ValueError, match="step 3 of 4: out of breath"):
        rollout(out=tmp_path / "run.h5")
    assert not contents(tmp_path)


def test_a_file_and_memory_hold_the_same_run(tmp_path):
    kept, streamed = rollout(every=2), rollout(every=2, out=tmp_path / "run.h5")
    assert (len(kept), kept.dt) == (3, pytest.approx(2e-3))
    assert kept.fingerprint() == streamed.fingerprint() == gm.read_trajectory(tmp_path / "run.h5").fingerprint()
