"""Searches: files for Weights & Biases, Optuna without a server, what a run records, and fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers import SMALL_TRAINING, command_process
from hydra import compose, initialize_config_module
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "scripts" / "sweeps").glob("*.yaml"))


def test_every_experiment_has_a_sweep():
    files = (ROOT / "conf" / "experiment").glob("*.yaml")
    # one that leaves settings to the user is a pattern for experiments
    experiments = {path.stem for path in files if "???" not in path.read_text()}
    assert {path.stem for path in SWEEPS} == experiments


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_command_of_a_sweep_is_understood(path, monkeypatch):
    sweep = yaml.safe_load(path.read_text())
    assert (sweep["metric"]["name"], sweep["metric"]["goal"]) == ("val/loss", "minimize")
    drawn = {
        name: {"value": space["values"][0] if "values" in space else space["min"]}
        for name, space in sweep["parameters"].items()
    }
    # as the agent of wandb makes the command
    words = create_sweep_command_args({"args": drawn})
    command = []
    for word in create_sweep_command(sweep["command"]):
        command += words["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert command[0] == sweep["program"] == "gnnm-train"
    with initialize_config_module("gnn_metriplectic.conf", version_base="1.3"):
        config = compose("train", overrides=command[1:])
    assert config.name == path.stem
    assert config.out == f"outputs/sweeps/{path.stem}/abc"
    assert config.logger._target_.endswith("WandbLogger")
    assert config.optimizer.lr == sweep["parameters"]["optimizer.lr"]["min"]


def test_the_search_by_optuna_is_understood():
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    with initialize_config_module("gnn_metriplectic.conf", version_base="1.3"):
        config = compose("train", overrides=["experiment=ideal_gas", "sweep=optuna"], return_hydra_config=True)
    assert config.hydra.sweeper._target_.endswith("OptunaSweeper")
    assert config.hydra.sweeper.direction == "minimize"
    for name in config.hydra.sweeper.params:
        group, setting = name.split(".")
        assert setting in config[group]


@pytest.mark.slow
def test_three_trials_of_optuna_find_the_best_of_them(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    settings = (*SMALL_TRAINING, "sweep=optuna", "hydra.sweeper.n_trials=3", "trainer.enable_progress_bar=false")
    process = command_process(tmp_path, "train", "-m", *settings, f"data={tmp_path / 'data'}")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    (found,) = (tmp_path / "multirun").rglob("optimization_results.yaml")
    result = yaml.safe_load(found.read_text())
    checkpoints = sorted(found.parent.rglob("best.ckpt"))
    assert len(checkpoints) == 3
    from gnn_metriplectic.learning import read_checkpoint
    from gnn_metriplectic.learning.callbacks import learning_curve

    losses = [min(learning_curve(read_checkpoint(p.with_name("last.ckpt")))["val"]) for p in checkpoints]
    assert result["best_value"] == pytest.approx(min(losses))
    best = read_checkpoint(checkpoints[losses.index(min(losses))])["hyper_parameters"]["optimizer"]["lr"]
    assert result["best_params"]["optimizer.lr"] == pytest.approx(best)
    assert 1e-3 <= best <= 3e-2
