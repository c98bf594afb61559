"""What is in a checkpoint, what comes back from it, and going on from one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CUTOFF, SILENT, SMALL_TRAINING, command_process, gas_system
from lightning.pytorch.callbacks import Callback

import gnn_metriplectic as gm
from gnn_metriplectic.learning import read_checkpoint
from gnn_metriplectic.learning.callbacks import learning_curve
from gnn_metriplectic.learning.module import CHECKPOINT_FORMAT

STEPS = 12
FIT = {"cutoff": CUTOFF, "lag": 4, "steps": STEPS, "steps_per_epoch": 4, "batch_size": 2, "trainer": SILENT}
UNITS = {"length": "nm", "time": "ps", "energy": "kJ/mol"}


@pytest.fixture(scope="module")
def gas(tmp_path_factory) -> gm.Trajectory:
    """40 particles over 60 frames, with units."""
    path = tmp_path_factory.mktemp("gas") / "gas.h5"
    gas_system().generate(path, scenario="self_diffusion", temperature=1.0, frames=60, seed=1)
    traj = gm.read_trajectory(path)
    return gm.Trajectory(
        traj.positions, traj.velocities, entropies=traj.entropies, box=traj.box, dt=traj.dt, units=UNITS
    )


@pytest.fixture(scope="module")
def trained(gas, tmp_path_factory) -> tuple[Path, gm.MetriplecticModel]:
    """The folder of a training, and the model that it returned."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, gm.fit(gas, out=folder, seed=3, **FIT)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def final(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "last.ckpt")["state_dict"]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def plain(value) -> bool:
    """Whether a value is made of what JSON knows."""
    if isinstance(value, dict):
        return all(type(key) is str and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, float, str)


def test_a_training_leaves_its_best_and_its_last_state(trained):
    folder, _ = trained
    assert {p.name for p in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == STEPS


def test_the_best_state_is_the_one_of_lowest_validation_loss(trained):
    folder, _ = trained
    curve = learning_curve(read_checkpoint(folder / "last.ckpt"))
    best = curve["step"][curve["val"].index(min(curve["val"]))]
    assert read_checkpoint(folder / "best.ckpt")["global_step"] == best


def test_a_checkpoint_holds_plain_settings_units_fingerprint_and_versions(trained, gas):
    content = torch.load(trained[0] / "best.ckpt", weights_only=True)
    assert content["gnn_metriplectic"] == {"format": CHECKPOINT_FORMAT}
    known = content["hyper_parameters"]
    assert plain(known)
    assert (known["model"]["cutoff"], known["model"]["dimension"]) == (CUTOFF, 3)
    assert known["model"]["dt"] == pytest.approx(4 * gas.dt)
    assert known["optimizer"]["steps"] == STEPS
    assert known["provenance"]["units"] == UNITS
    assert known["provenance"]["trajectories"] == [gas[:54].fingerprint()]  # the rest was held out
    assert (known["provenance"]["lag"], known["provenance"]["seed"]) == (4, 3)
    assert known["provenance"]["package"].startswith("0.")


def test_all_ways_to_load_give_the_same_model(trained, gas):
    folder, returned = trained
    path = folder / "best.ckpt"
    loaded, module = gm.load(path), gm.MetriplecticModule.load_from_checkpoint(path).model
    assert same(loaded.state_dict(), returned.state_dict())
    assert same(loaded.state_dict(), module.state_dict())
    for model in (loaded, returned, module):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        assert float(np.asarray(model.k_B)) == float(model.k_B)
    assert (loaded.cutoff, loaded.dt) == (CUTOFF, pytest.approx(4 * gas.dt))
    state = gm.State.from_frame(gas, 0, loaded)
    pairs = gm.neighbor_pairs(state.pos, gas.box, loaded.cutoff)
    assert torch.equal(loaded.drift(state, pairs).vel, module.drift(state, pairs).vel)
    assert torch.isfinite(loaded.drift(state, pairs).entropy).all()


def test_a_path_may_be_text(trained):
    assert same(gm.load(str(trained[0] / "last.ckpt")).state_dict(), gm.load(trained[0] / "last.ckpt").state_dict())


def test_the_floating_type_is_that_of_the_file(trained, tmp_path):
    content = torch.load(trained[0] / "best.ckpt", weights_only=True)
    assert gm.load(trained[0] / "best.ckpt").dtype == torch.float32
    double = {name: value.double() + 1e-12 for name, value in content["state_dict"].items()}
    torch.save({**content, "state_dict": double}, tmp_path / "double.ckpt")
    loaded = gm.load(tmp_path / "double.ckpt")
    module = gm.MetriplecticModule.load_from_checkpoint(tmp_path / "double.ckpt").model
    for model in (loaded, module):
        assert model.dtype == torch.float64
        assert all(torch.equal(value, double[f"model.{name}"]) for name, value in model.state_dict().items())


def rewrite(path: Path, target: Path, **changes) -> Path:
    torch.save({**torch.load(path, weights_only=True), **changes}, target)
    return target


@pytest.mark.parametrize(("step", "remedy"), [(1, "update"), (-1, "train again")])
def test_another_format_is_refused_in_words(trained, tmp_path, step, remedy):
    other = {"gnn_metriplectic": {"format": CHECKPOINT_FORMAT + step}}
    path = rewrite(trained[0] / "best.ckpt", tmp_path / "other.ckpt", **other)
    words = rf"has format {CHECKPOINT_FORMAT + step} and this version reads {CHECKPOINT_FORMAT}: {remedy}"
    with pytest.raises(ValueError, match=rf"other\.ckpt: the checkpoint {words}"):
        gm.load(path)
    with pytest.raises(ValueError, match=words):
        gm.MetriplecticModule.load_from_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused_by_name(trained, tmp_path):
    whole = (trained[0] / "best.ckpt").read_bytes()
    (tmp_path / "short.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("no checkpoint at all")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    for name in ("short", "text", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.ckpt cannot be read as a checkpoint: it is cut short"):
            gm.load(tmp_path / f"{name}.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name in ("other", "list"):
        with pytest.raises(ValueError, match=rf"{name}\.ckpt: this is not a checkpoint of gnn_metriplectic"):
            gm.load(tmp_path / f"{name}.ckpt")


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"checkpoint {tmp_path / 'none.ckpt'} does not exist"):
        gm.load(tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder; give the name of a checkpoint"):
        gm.load(tmp_path)


def forget_a_tensor(content: dict) -> None:
    del content["state_dict"]["model.log_mass"]


def know_another_setting(content: dict) -> None:
    content["hyper_parameters"]["model"]["surprise"] = 1


def lose_the_settings(content: dict) -> None:
    content["hyper_parameters"]["model"] = None


def forget_the_type(content: dict) -> None:
    del content["state_dict"]["model.log_k_B"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (forget_a_tensor, "model.log_mass"),
        (know_another_setting, "surprise"),
        (lose_the_settings, "NoneType"),
        (forget_the_type, "model.log_k_B"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_words(trained, tmp_path, damage, named):
    content = torch.load(trained[0] / "best.ckpt", weights_only=True)
    damage(content)
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=rf"bad\.ckpt is a damaged checkpoint, or of another version.*{named}"):
        gm.load(tmp_path / "bad.ckpt")


@pytest.mark.parametrize("header", [{"format": "x"}, {}, 1])
def test_a_format_that_is_no_number_is_refused(trained, tmp_path, header):
    path = rewrite(trained[0] / "best.ckpt", tmp_path / "odd.ckpt", gnn_metriplectic=header)
    with pytest.raises(ValueError, match=r"odd\.ckpt: this is a damaged checkpoint: its format is"):
        gm.load(path)


def test_loading_runs_no_code_of_the_file(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"gnn_metriplectic": {"format": 1}, "payload": Payload()}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        gm.load(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


class StopAt(Callback):
    """An error in the middle of a training."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *arguments) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("power failure")


@pytest.mark.parametrize("step", [4, 7])
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(gas, trained, tmp_path, step):
    before, _ = trained
    with pytest.raises(RuntimeError, match="power failure"):
        gm.fit(gas, out=tmp_path, seed=3, callbacks=[StopAt(step + 1)], **FIT)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 4
    torch.manual_seed(77)
    gm.fit(gas, out=tmp_path, seed=3, ckpt_path="last", **FIT)
    assert same(final(tmp_path), final(before))
    assert same(gm.load(tmp_path / "best.ckpt").state_dict(), gm.load(before / "best.ckpt").state_dict())
    curves = [learning_curve(read_checkpoint(folder / "last.ckpt")) for folder in (tmp_path, before)]
    for name in ("step", "train", "val"):
        assert curves[0][name] == curves[1][name]
    assert curves[0]["step"] == [4, 8, 12]
    assert curves[0]["wall_time"] == sorted(curves[0]["wall_time"])


def test_going_on_with_a_finished_training_changes_nothing(gas, tmp_path):
    first = gm.fit(gas, out=tmp_path, seed=3, **FIT)
    kept = final(tmp_path)
    again = gm.fit(gas, out=tmp_path, seed=3, ckpt_path="last", **FIT)
    assert same(first.state_dict(), again.state_dict())
    assert same(kept, final(tmp_path))


def test_a_training_that_was_cut_off_may_go_on_in_another_folder(gas, trained, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(RuntimeError, match="power failure"):
        gm.fit(gas, out=first, seed=3, callbacks=[StopAt(6)], **FIT)
    kept = contents(first)
    gm.fit(gas, out=second, seed=3, ckpt_path=str(first / "last.ckpt"), **FIT)
    assert same(final(second), final(trained[0]))
    assert contents(first) == kept


def test_a_finished_training_cannot_go_on_in_another_folder(gas, trained, tmp_path):
    kept = contents(trained[0])
    with pytest.raises(ValueError, match=r"last\.ckpt is finished: there is nothing to continue in"):
        gm.fit(gas, out=tmp_path, seed=3, ckpt_path=str(trained[0] / "last.ckpt"), **FIT)
    assert contents(trained[0]) == kept
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lag": 2}, r"model\.dt 0.004 -> 0.002, provenance\.lag 4 -> 2"),
        ({"steps": 16}, r"optimizer\.steps 12 -> 16"),
        ({"temperature": "equilibrium"}, "temperature learned -> equilibrium"),
        ({"terms": {"friction": {"width": 8}}}, r"model\.friction\.width 32 -> 8"),
    ],
)
def test_going_on_with_other_settings_is_refused(gas, trained, changes, named):
    kept = contents(trained[0])
    with pytest.raises(ValueError, match=rf"training with other settings \({named}\)"):
        gm.fit(gas, out=trained[0], seed=3, ckpt_path="last", **{**FIT, **changes})
    assert contents(trained[0]) == kept


class FirstWeights(Callback):
    """The weights from which a training sets out."""

    def on_train_start(self, trainer, pl_module) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


def test_a_training_starts_from_the_weights_of_another_with_other_data_and_lag(gas, trained, tmp_path):
    first, before = FirstWeights(), trained[0] / "best.ckpt"
    settings = {**FIT, "lag": 2, "substeps": 2}
    model = gm.fit(gas[:50], start_from=before, out=tmp_path, callbacks=[first], seed=9, **settings)
    assert same(first.weights, read_checkpoint(before)["state_dict"])
    assert not same(model.state_dict(), gm.load(before).state_dict())
    assert model.dt == pytest.approx(gas.dt)
    content = read_checkpoint(tmp_path / "last.ckpt")
    assert content["global_step"] == STEPS
    assert content["hyper_parameters"]["provenance"]["start_from"] == str(before)
    assert (
        content["hyper_parameters"]["model"]["scales"] == read_checkpoint(before)["hyper_parameters"]["model"]["scales"]
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cutoff": 0.19}, "cutoff 0.2 there and 0.19 here"),
        ({"terms": {"friction": {"width": 8}}}, "friction .*'width': 32.* there"),
        ({"kind": "gnn"}, "kind metriplectic there and gnn here"),
    ],
)
def test_a_training_cannot_start_from_another_model(gas, trained, changes, named):
    with pytest.raises(ValueError, match=rf"cannot start from .*best\.ckpt, whose model is another .*{named}"):
        gm.fit(gas, start_from=trained[0] / "best.ckpt", **{**FIT, **changes})


def test_going_on_needs_a_readable_checkpoint(gas, trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt does not exist: there is nothing to continue"):
        gm.fit(gas, out=tmp_path, ckpt_path="last", **FIT)
    whole = (trained[0] / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        gm.fit(gas, out=tmp_path, ckpt_path="last", **FIT)


def test_ctrl_c_in_a_training_reaches_the_caller_and_leaves_a_checkpoint(gas, tmp_path):
    class CtrlC(Callback):
        def on_train_batch_end(self, trainer, *arguments) -> None:
            if trainer.global_step == 6:
                raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        gm.fit(gas, out=tmp_path, callbacks=[CtrlC()], **FIT)
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 4


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_weights_of_one_that_was_not(tmp_path):
    settings = (*SMALL_TRAINING, f"data={tmp_path / 'data'}", "optimizer.steps=240", "optimizer.steps_per_epoch=6")

    def train(folder: str, *more: str):
        return command_process(tmp_path, "train", *settings, f"out={tmp_path / folder}", *more)

    def finish(process) -> None:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors

    finish(train("whole"))
    killed, last = train("killed"), tmp_path / "killed" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not (last.is_file() and read_checkpoint(last)["global_step"] >= 24):
        assert killed.poll() is None, killed.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    interrupted_at = read_checkpoint(last)["global_step"]
    assert 24 <= interrupted_at < 240
    assert not (tmp_path / "killed" / "metrics.json").exists()
    finish(train("killed", "ckpt_path=last"))
    folders = [tmp_path / name for name in ("killed", "whole")]
    assert same(*map(final, folders))
    assert same(*(read_checkpoint(folder / "best.ckpt")["state_dict"] for folder in folders))
    curves = [learning_curve(read_checkpoint(folder / "last.ckpt")) for folder in folders]
    assert curves[0]["step"] == list(range(6, 241, 6))
    assert curves[0]["train"] == curves[1]["train"]
    assert curves[0]["val"] == curves[1]["val"]
    assert (tmp_path / "killed" / "metrics.json").is_file()
