"""Star polymers from real molecular dynamics, on a small melt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.transport import green_kubo_viscosity
from gnn_metriplectic.lammps import launch
from gnn_metriplectic.systems import star_polymer
from gnn_metriplectic.systems.star_polymer import StarPolymerSystem, read_chunks, steady_state

SETTINGS = {
    "molecules": 60,
    "arms": 4,
    "arm_beads": 2,
    "density": 0.4,
    "temperature": 1.0,
    "timestep": 0.005,
    "spacing": 0.025,
    "pushoff": 800,
    "equilibration": 10.0,
    "branching": 2.0,
}
FRAMES = 201


@pytest.fixture(scope="module")
def melt(tmp_path_factory):
    """Folder with two runs of different seeds, and what was said on the way."""
    folder, told = tmp_path_factory.mktemp("stars"), []
    system = StarPolymerSystem(**SETTINGS)
    for seed in (1, 2):
        path = folder / "train" / f"melt_{seed}.h5"
        system.generate(path, frames=FRAMES, seed=seed, advance=lambda share, what: told.append((share, what)))
    return folder, told


def test_centres_move_with_their_velocities(melt):
    run = gm.read_trajectory(melt[0] / "train" / "melt_1.h5")
    assert (len(run), run.num_particles, run.mass) == (FRAMES, 60, 9.0)
    assert run.box.lengths[0] == pytest.approx((60 * 9 / 0.4) ** (1 / 3))
    velocities = run.velocities.double()
    moved = torch.diff(run.positions.double(), dim=0)
    mean = 0.5 * run.dt * (velocities[1:] + velocities[:-1])
    # the trapezoid misses dt³ v''/12 of the collisions
    assert float((moved - mean).abs().max()) < 2e-3 < float(moved.abs().max()) / 10
    assert float((moved - mean).abs().median()) < 1e-4
    assert float((run.mass * velocities).sum(dim=1).abs().max()) < 1e-4


def test_equipartition(melt):
    temperatures = []
    for seed in (1, 2):
        run = gm.read_trajectory(melt[0] / "train" / f"melt_{seed}.h5")
        temperatures.append(gm.analysis.kinetic_temperature(run).mean())
        # at constant energy the temperature of 540 beads wanders by 2 %
        assert run.metadata["observed"]["temperature"] == pytest.approx(1.0, abs=0.08)
    # 177 degrees of freedom over five time units of two runs
    assert np.mean(temperatures) == pytest.approx(1.0, abs=0.15)


def test_provenance_is_kept(melt):
    run = gm.read_trajectory(melt[0] / "train" / "melt_1.h5")
    assert run.metadata["settings"] == SETTINGS
    assert "pair_style      lj/cut" in run.metadata["input"]["equilibrate.in"]
    assert "20" in run.metadata["lammps"]
    assert run.units["length"] == "sigma"
    observed = run.metadata["observed"]
    assert {"temperature", "pressure", "viscosity"} <= set(observed)
    assert observed["pressure"] > 0
    assert observed["equilibration"]["energy_error"] > 0


def test_progress_is_told_by_stages(melt):
    stages = {what for _, what in melt[1]}
    assert stages == {"equilibrating", "melt_1", "melt_2"}
    assert max(share for share, _ in melt[1]) == 1.0


def test_a_seed_gives_a_run_and_another_seed_another(melt, tmp_path):
    first, second = (gm.read_trajectory(melt[0] / "train" / f"melt_{s}.h5") for s in (1, 2))
    assert not torch.equal(first.positions, second.positions)
    again = tmp_path / "train" / "melt_1.h5"
    StarPolymerSystem(**SETTINGS).generate(again, frames=FRAMES, seed=1, advance=lambda *_: None)
    assert gm.read_trajectory(again).fingerprint() == first.fingerprint()


def test_shear_gives_a_viscosity(melt):
    system = StarPolymerSystem(**SETTINGS)
    found = system.shear(melt[0], rate=0.2, settling=5.0, duration=40.0, seed=3)
    assert found["temperature"] == pytest.approx(1.0, abs=0.05)
    assert 0.1 < found["viscosity"] < 1.5
    assert 0 < found["error"] < 0.3


def test_the_star_is_drawn_as_lammps_molecule():
    text = StarPolymerSystem(**{**SETTINGS, "arms": 10, "arm_beads": 5}).template().splitlines()
    assert "51 atoms" in text
    assert "50 bonds" in text
    places = np.loadtxt(text[text.index("Coords") + 2 : text.index("Types") - 1])[:, 1:]
    bonds = np.loadtxt(text[text.index("Bonds") + 2 :], dtype=int)[:, 2:]
    lengths = np.linalg.norm(places[bonds[:, 0] - 1] - places[bonds[:, 1] - 1], axis=1)
    np.testing.assert_allclose(lengths, star_polymer.BOND, atol=1e-5)
    assert sorted(np.bincount(bonds.ravel())[1:])[-1] == 10


def test_spacing_that_is_no_multiple_of_the_timestep_is_refused(tmp_path):
    system = StarPolymerSystem(**{**SETTINGS, "spacing": 0.024})
    with pytest.raises(ValueError, match=r"spacing of frames is 0\.024"):
        system.generate(tmp_path / "train" / "a.h5", frames=3, seed=1, advance=lambda *_: None)


def test_an_error_of_lammps_is_shown_with_its_line(tmp_path):
    script = tmp_path / "wrong.in"
    script.write_text("units lj\nregion box block 0 1 0 1\n")
    with pytest.raises(RuntimeError, match=r"wrong\.in: ERROR.*region.*Last input line: region box"):
        launch.run_lammps(script, {}, processes=1)


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("lmp", "mpiexec"):
        with pytest.raises(FileNotFoundError, match=f"{name} is not installed: pip install"):
            launch.find_program(name)


def test_frames_are_read_in_blocks(tmp_path):
    path = tmp_path / "frames.dat"
    blocks = np.random.default_rng(0).normal(size=(5, 3, 2))
    lines = ["# Time-averaged data", "# TimeStep Number-of-rows", "# Row a b"]
    for step, block in enumerate(blocks):
        lines += [f"{step * 10} 3", *(f"{k} {a:.9g} {b:.9g}" for k, (a, b) in enumerate(block, 1))]
    path.write_text("\n".join(lines) + "\n")
    np.testing.assert_allclose(np.concatenate(list(read_chunks(path, 3, together=2))), blocks, rtol=1e-6)
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match="last block has 2 of 3 rows"):
        list(read_chunks(path, 3, together=2))


def test_steady_state_takes_the_later_part(tmp_path):
    record = tmp_path / "melt.dat"
    energies = np.r_[np.linspace(5.0, 1.0, 20), np.ones(80)]
    np.savetxt(record, np.stack([np.arange(100), energies, 2.0 * energies], axis=1))
    energy, found = steady_state(record)
    assert energy == pytest.approx(1.0)
    assert found["pressure_late"] == pytest.approx(2.0)


def test_green_kubo_of_a_known_process():
    dt, memory, count = 0.05, 0.5, 400_000
    random, decay = np.random.default_rng(1), np.exp(-dt / memory)
    kicks = random.normal(size=(count, 2)) * np.sqrt(1.0 - decay**2)
    stress = np.empty((count, 2))
    stress[0] = random.normal(size=2)
    for k in range(1, count):
        stress[k] = decay * stress[k - 1] + kicks[k]
    found = green_kubo_viscosity(stress, dt, volume=3.0, temperature=1.5, max_lag_time=5.0)
    assert found == pytest.approx(3.0 / 1.5 * memory, rel=0.05)
    with pytest.raises(ValueError, match="stress record spans"):
        green_kubo_viscosity(stress[:10], dt, volume=3.0, temperature=1.5, max_lag_time=5.0)
