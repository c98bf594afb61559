"""The tool for studies: its cells, its table and figure, and one study done for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import SMALL_TRAINING
from hydra import compose, initialize_config_module
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

import study as tool  # noqa: E402
import study_summary  # noqa: E402


class Options:
    """What the command line gives by default."""

    experiments = only = seeds = minutes = data = None
    override = ()


def options(**changes) -> Options:
    chosen = Options()
    for name, value in changes.items():
        setattr(chosen, name, value)
    return chosen


@pytest.mark.parametrize("path", sorted((SCRIPTS / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_commands_of_the_studies_are_understood(path, tmp_path):
    study = yaml.safe_load(path.read_text())
    tool.check(study, path, Options())
    todo = list(tool.cells(study, tmp_path, options(data=tmp_path / "data", minutes=90.5)))
    assert len({cell.folder for cell in todo}) == len(todo)
    with initialize_config_module("gnn_metriplectic.conf", version_base="1.3"):
        for cell in todo:
            config = compose("train", overrides=[f"experiment={cell.experiment}", *cell.training])
            assert config.trainer.max_time == "0:01:30:30"
            assert config.data == f"{tmp_path}/data/{cell.experiment}"
            if cell.transfer is not None:
                config = compose("evaluate", overrides=["checkpoint=x", *cell.transfer])
                assert config.data == f"{tmp_path}/data/{config.system.name}"


def test_all_models_of_the_comparison_have_the_same_time_data_and_seeds(tmp_path):
    study = yaml.safe_load((SCRIPTS / "studies" / "comparison.yaml").read_text())
    todo = [cell for cell in tool.cells(study, tmp_path, Options()) if cell.experiment == "ideal_gas"]
    assert [(cell.variant, cell.seed) for cell in todo] == [
        (variant, seed) for seed in (0, 1, 2) for variant in ("metriplectic", "dpd", "gnn")
    ]
    special = ("model=", "model.terms", "optimizer.lr")
    own = [[word for word in cell.training if not word.startswith(special)] for cell in todo]
    assert all(words == own[0] for words in own)
    assert own[0] == [f"trainer.max_time='0:00:{study['minutes']}:00'"]


def scores(error: float, **more: float) -> dict:
    known = {"rdf": error, "msd": 2 * error, "vacf": error, "kinetic_temperature": 1.0 + error, "D": 2.0 + error}
    return {**known, "kinetic_temperature_truth": 1.0, "D_truth": 2.0, **more}


def results() -> list[dict]:
    metrics = {"floor": {"rest": scores(0.01)}, "seconds": {"train": 90.0}}
    found = []
    for seed, error in ((0, 0.02), (1, 0.04)):
        full = {**metrics, "scores": {"rest": scores(error, temperature=1.1)}}
        cell = {"experiment": "gas", "seed": seed, "trained": 1.0, "parameters": 10}
        found.append({**cell, "variant": "metriplectic", "metrics": full, "transfer": full})
        bare = {**metrics, "scores": {"rest": scores(3 * error)}}
        found.append(
            {**cell, "variant": "gnn", "metrics": bare, "trained": 0.5, "failed": {"transfer": "step 3: lost"}}
        )
    return found


def test_the_table_has_means_and_spreads_over_seeds_floors_and_what_failed():
    text = study_summary.markdown(study_summary.summarise(results()))
    lines = text.splitlines()
    assert "| gas | rest | metriplectic | 2 | 0.030 ± 0.014 |" in lines[2]
    assert "+10.0 ± 0.0 %" in lines[2], "k_B <T>"
    assert "1.5 min |" in lines[2]
    assert lines[3].startswith("| gas | rest | gnn | 2 | 0.090 ± 0.042 |")
    assert "|  |" in lines[3], "no k_B <T> of a model without entropy"
    assert "stopped at 50 %" in lines[3]
    assert lines[4].startswith("| gas | rest | *floor* |  | 0.010 |")
    assert "- gas, gnn at other conditions, seed 1: step 3: lost" in lines
    assert "energy drift" not in text, "a column of nothing"


def test_the_figure_is_drawn(tmp_path):
    study_summary.draw(study_summary.summarise(results()), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert min(picture.size) > 400
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_a_study_names_what_does_not_exist(tmp_path):
    path = SCRIPTS / "studies" / "comparison.yaml"
    study = yaml.safe_load(path.read_text())
    with pytest.raises(SystemExit, match=r"has no variant \['lstm'\]; known: \['metriplectic', 'dpd', 'gnn'\]"):
        tool.check(study, path, options(only=["lstm"]))
    with pytest.raises(SystemExit, match=r"has no experiment \['water'\]"):
        tool.check(study, path, options(experiments=["water"]))
    with pytest.raises(SystemExit, match="has to name its variants"):
        tool.check({"experiment": "ideal_gas"}, path, Options())


@pytest.mark.slow
def test_a_study_is_done_once_and_tells_what_failed(tmp_path):
    small = [word for word in SMALL_TRAINING if not word.startswith(("experiment", "model.terms"))]
    study = {
        "minutes": 5,
        "variants": {"dpd": ["model=dpd"], "gnn": ["model=gnn"], "wrong": ["model.lag=1000"]},
        "experiments": {"ideal_gas": {"seeds": [0], "overrides": small}},
        "transfer": {
            "ideal_gas": [word for word in small if word.startswith("system.")] + ["integrator=null"],
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, str(SCRIPTS / "study.py"), "study.yaml", "--data", "data", "--out", "found"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "found" / "table.json").read_text())
    scored = {(row["variant"], row["transfer"]) for row in rows if "mean" in row}
    assert {("dpd", False), ("gnn", False), ("dpd", True), ("gnn", True)} <= scored
    (failed,) = (row for row in rows if "failed" in row)
    assert failed["variant"] == "wrong"
    assert "a lag of 1000 needs at least 1001" in failed["failed"]
    assert (tmp_path / "found" / "figure.png").is_file()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "found").rglob("*.ckpt")}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "found").rglob("*.ckpt")} == before
