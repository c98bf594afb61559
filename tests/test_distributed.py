"""Training on two processes (gloo): the same as on one with the batches of both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_TRAINING, command_process, gas_system

import gnn_metriplectic as gm
from gnn_metriplectic.learning import read_checkpoint
from gnn_metriplectic.learning.callbacks import learning_curve

FIT = Path(__file__).with_name("ddp_fit.py")


@pytest.fixture(scope="module")
def gases(tmp_path_factory) -> Path:
    """A folder with two gases of 40 and 60 particles."""
    folder = tmp_path_factory.mktemp("gases")
    for particles, length in ((40, 0.45), (60, 0.5)):
        system = gas_system(particles=particles, length=length)
        path = folder / f"gas_{particles}.h5"
        system.generate(path, scenario="self_diffusion", temperature=1.0, frames=30, seed=particles)
    return folder


def fitted(folder: Path, kind: str, processes: int) -> list[dict[str, float]]:
    """What every step of a training logged."""
    subprocess.run(
        [sys.executable, str(FIT), kind, str(processes), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return json.loads((folder / f"{kind}_{processes}" / "curve.json").read_text())


def agree(folder: Path, kind: str) -> None:
    one, two = (fitted(folder, kind, processes) for processes in (1, 2))
    assert len(one) == len(two) == 6
    for step, (alone, together) in enumerate(zip(one, two, strict=True)):
        for name, value in alone.items():
            # single precision, whose round-off the optimiser carries from step to step
            assert together[name] == pytest.approx(value, rel=2e-3, abs=2e-4), f"{name} at step {step}"
    paths = [folder / f"{kind}_{processes}" / "last.ckpt" for processes in (1, 2)]
    states = [read_checkpoint(path)["state_dict"] for path in paths]
    for name, value in states[0].items():
        if not name.endswith("recent"):  # the same numbers in another order
            torch.testing.assert_close(states[1][name], value, rtol=2e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
    curves = [learning_curve(read_checkpoint(path)) for path in paths]
    assert curves[1]["val"] == pytest.approx(curves[0]["val"], rel=5e-3)
    assert gm.load(paths[1]).cutoff == gm.load(paths[0]).cutoff


def test_two_processes_of_unequal_work_learn_what_one_learns_with_both_batches(gases):
    agree(gases, "metriplectic")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpd", "gnn"])
def test_so_do_the_baselines(gases, kind):
    agree(gases, kind)


def finish(process: subprocess.Popen) -> str:
    said, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors or said
    return said


@pytest.mark.slow
def test_the_command_trains_on_two_processes_and_goes_on_with_one(tmp_path):
    settings = (*SMALL_TRAINING, "data=data", "trainer.accelerator=cpu", "optimizer.batch_size=1", "out=run")
    both = ("trainer=ddp", "trainer.devices=2")
    said = finish(command_process(tmp_path, "train", *settings, *both))
    assert said.count("Scores of ideal_gas") == 1, "the first process alone scores"
    run = tmp_path / "run"
    assert {"best.ckpt", "last.ckpt", "metrics.json", "report.html", "config.yaml", "logs"} == {
        path.name for path in run.iterdir()
    }
    assert len(list((run / "logs").iterdir())) == 1, "one log, of the first process"
    assert json.loads((run / "metrics.json").read_text())["scores"].keys() == {"rest", "shear"}
    assert gm.load(run / "best.ckpt").has_entropy
    # a checkpoint of two processes goes on with one
    content = read_checkpoint(run / "last.ckpt")
    (run / "metrics.json").unlink()
    longer = [word.replace("optimizer.steps=8", "optimizer.steps=16") for word in settings]
    process = command_process(tmp_path, "train", *longer, f"ckpt_path={run / 'last.ckpt'}", "out=longer")
    assert "optimizer.steps 8 -> 16" in process.communicate(timeout=600)[1], "a schedule is not to be stretched"
    system = [word for word in SMALL_TRAINING if word.startswith("system.")]
    again = command_process(tmp_path, "evaluate", "checkpoint=run/best.ckpt", *system, "data=data")
    finish(again)
    assert content["global_step"] == 8
    assert (run / "metrics.json").is_file()


@pytest.mark.slow
def test_two_nodes_train_together_and_wait_for_the_data_of_the_first(tmp_path):
    settings = (*SMALL_TRAINING, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", "trainer.accelerator=cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ("--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}")
    nodes = []
    for rank in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *address]
        command += [f"--node-rank={rank}", "-m", "gnn_metriplectic.commands.train", *settings, "out=run", "data=data"]
        nodes.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [finish(node) for node in nodes]
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "".join(said).count("Scores of ideal_gas") == 1
