"""Structure, transport, scores and the report against closed forms."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from gnn_metriplectic import analysis
from gnn_metriplectic.analysis.conduction import temperature_wave
from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.trajectory import Trajectory

BOXES = {
    "square": Box.cubic(2.0, 2),
    "cubic": Box.cubic(2.0, 3),
    "triclinic": Box.triclinic([[2.0, 0, 0], [0.7, 2.0, 0], [0.1, -0.6, 2.5]]),
    "sheared": Box.cubic(2.0, 3, shear_rate=0.4),
    "free plane": Box.free(2),
    "free space": Box.free(3),
}


def scattered(box: Box, frames: int = 60, particles: int = 200, seed: int = 0) -> Trajectory:
    """Independent frames of an ideal gas. Far-apart frames are not the motion of anything: velocities explain them."""
    random = np.random.default_rng(seed)
    lattice = np.diag([2.0, 1.0, 1.5][: box.dimension]) if box.is_free else np.array(box.lattice)
    traj = Trajectory(
        np.zeros((frames, particles, box.dimension)), np.zeros((frames, particles, box.dimension)), box=box, dt=1.0
    )
    traj.positions = torch.from_numpy(random.random(traj.positions.shape) @ lattice)
    return traj


def ornstein_uhlenbeck(
    frames: int = 2000, particles: int = 60, friction: float = 1.0, dt: float = 0.1, seed: int = 0, **extra
) -> Trajectory:
    """Free Langevin particles (m = k_B T = 1) at equilibrium, sampled exactly (Chandrasekhar 1943)."""
    random = np.random.default_rng(seed)
    decay = math.exp(-friction * dt)
    vv = 1 - decay**2
    xv = (1 - decay) ** 2 / friction
    xx = (2 * friction * dt - 3 + 4 * decay - decay**2) / friction**2
    root = np.linalg.cholesky([[vv, xv], [xv, xx]])
    velocity, position = random.standard_normal((particles, 3)), 10 * random.random((particles, 3))
    positions, velocities = [], []
    for _ in range(frames):
        positions.append(position)
        velocities.append(velocity)
        dv, dx = np.tensordot(root, random.standard_normal((2, particles, 3)), axes=1)
        position = position + (1 - decay) / friction * velocity + dx
        velocity = decay * velocity + dv
    box = extra.pop("box", Box.cubic(10.0, 3))
    return Trajectory(np.stack(positions), np.stack(velocities), box=box, dt=dt, **extra)


class TestStructure:
    @pytest.mark.parametrize("name", BOXES)
    def test_rdf_of_an_ideal_gas_is_1(self, name):
        r, g = analysis.rdf(scattered(BOXES[name]), bins=12)
        assert r.shape == g.shape == (12,)
        assert np.abs(g[2:] - 1).max() < 0.03

    def test_rdf_of_a_lattice_has_its_coordination_number(self):
        side = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(1, -1, 3)
        traj = Trajectory(side, np.zeros_like(side), box=Box.cubic(6.0, 3), dt=1.0)
        r, g = analysis.rdf(traj, bins=60, r_max=1.2)
        neighbours = 4 * math.pi * np.sum(r**2 * g) * (r[1] - r[0]) * (216 - 1) / 216
        assert neighbours == pytest.approx(6, rel=0.01)

    def test_rdf_of_a_fluid_that_a_rim_holds_is_that_of_its_inside(self):
        places = torch.rand(6, 4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        places[:, :100] *= 0.02  # what the rim does is no matter
        rim = ((places[0] < 0.1) | (places[0] > 0.9)).any(dim=1)
        places[:, rim] = places[0, rim]
        free = places[:, ~rim]
        free[1:] = 0.1 + 0.8 * free[1:]
        places[:, ~rim] = free
        traj = Trajectory(places, torch.zeros_like(places), box=Box.free(2), dt=1.0, prescribed=rim)
        r, g = analysis.rdf(traj, bins=20)
        assert r[-1] == pytest.approx(0.16 * 39 / 40, rel=0.02)
        assert np.abs(g[3:] - 1.0).max() < 0.05

    def test_rdf_in_a_sheared_box_follows_the_images(self):
        """A pair across the sheared face stays at contact only for the lattice of its own time."""
        rate, time = 0.5, 1.3
        shift = rate * 4.0 * time
        positions = torch.tensor([[[1.0, 0.1, 2.0], [1.0 - shift, -0.4, 2.0]]], dtype=torch.float64)
        positions[0, 1] += torch.tensor([shift, 4.0, 0.0])  # the image one cell up, as it stands at that time
        box = Box.cubic(4.0, 3, shear_rate=rate)
        traj = Trajectory(positions, torch.zeros_like(positions), box=box, dt=1.0, times=torch.tensor([time]))
        r, g = analysis.rdf(traj, bins=170, r_max=1.7)
        separation = np.array([shift, 0.5])
        separation[0] -= 4.0 * round(separation[0] / 4.0)
        expected = np.hypot(*separation)
        assert r[np.argmax(g)] == pytest.approx(expected, abs=0.01)

    def test_r_max_beyond_half_the_box_is_refused(self):
        with pytest.raises(ValueError, match=r"r_max is 1\.5"):
            analysis.rdf(scattered(BOXES["cubic"], 2), r_max=1.5)


class TestTransport:
    def test_msd_of_free_flight_is_v2_t2(self):
        random = np.random.default_rng(1)
        velocity = random.standard_normal((20, 3))
        velocity -= velocity.mean(axis=0)
        times = 0.1 * np.arange(50)
        positions = random.random((20, 3)) + times[:, None, None] * velocity
        velocities = np.broadcast_to(velocity, positions.shape)
        # a common drift must not count
        traj = Trajectory(positions + times[:, None, None], velocities + 1.0, box=Box.free(3), dt=0.1)
        lags, squared = analysis.msd(traj, 3.0)
        speed2 = (velocity**2).sum(axis=1).mean()
        np.testing.assert_allclose(squared, speed2 * lags**2, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(analysis.vacf(traj, 3.0)[1], speed2, rtol=1e-9)

    def test_ornstein_uhlenbeck_has_its_vacf_msd_and_diffusion(self):
        traj = ornstein_uhlenbeck(friction=1.0)
        share = 1 - 1 / traj.num_particles  # momentum removed
        lags, correlation = analysis.vacf(traj, 5.0)
        np.testing.assert_allclose(correlation, 3 * share * np.exp(-lags), atol=0.06)
        lags, squared = analysis.msd(traj, 10.0)
        np.testing.assert_allclose(squared[1:], 6 * share * (lags - 1 + np.exp(-lags))[1:], rtol=0.05)
        assert analysis.diffusion_coefficient(lags, squared, 3, (5.0, 10.0)) == pytest.approx(share, rel=0.05)

    def test_kinetic_temperature_is_unbiased_with_momentum_removed(self):
        random = np.random.default_rng(2)
        mass = torch.tensor([1.0, 2.0, 5.0, 11.0])
        velocities = math.sqrt(0.7) * random.standard_normal((20000, 4, 3)) / np.sqrt(mass.numpy())[:, None] + 3.0
        traj = Trajectory(np.zeros_like(velocities), velocities, box=Box.free(3), dt=1.0, mass=mass)
        assert analysis.kinetic_temperature(traj).mean() == pytest.approx(0.7, rel=0.01)

    @pytest.mark.parametrize("dimension", [2, 3])
    def test_amplitude_of_a_taylor_green_flow_is_found_and_removed(self, dimension):
        random = np.random.default_rng(4)
        positions = torch.from_numpy(random.random((30, 500, dimension)))
        thermal = torch.from_numpy(random.standard_normal((30, 500, dimension)))
        flow = 3.0 * analysis.taylor_green_pattern(positions, 1.0)
        traj = scattered(Box.cubic(1.0, dimension), 30, 500)
        traj.positions, traj.velocities = positions, thermal + flow + 0.5
        traj.forcing = {"name": "taylor_green", "amplitude": 5.0, "length": 1.0}
        amplitude, found = analysis.local_flow(traj)
        assert amplitude.mean() == pytest.approx(3.0, abs=0.05)
        assert analysis.kinetic_temperature(traj).mean() > 1.5
        assert analysis.kinetic_temperature(traj, found).mean() == pytest.approx(1.0, rel=0.02)

    def test_taylor_green_pattern_has_no_divergence(self):
        positions = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
        pattern = analysis.taylor_green_pattern(positions, 0.8)
        divergence = sum(
            torch.autograd.grad(pattern[:, i].sum(), positions, retain_graph=True)[0][:, i] for i in (0, 1)
        )
        assert float(divergence.abs().max()) < 1e-13

    def test_shear_of_the_box_is_no_heat_and_no_diffusion(self):
        rate = 0.3
        rest = ornstein_uhlenbeck(frames=300)
        sheared = ornstein_uhlenbeck(frames=300)
        times = sheared.times[:, None]
        # steady shear of the same thermal motion
        sheared.velocities[..., 0] += rate * sheared.positions[..., 1]
        sheared.positions[..., 0] += rate * times * sheared.positions[..., 1]
        sheared.box = Box.cubic(10.0, 3, shear_rate=rate)
        np.testing.assert_allclose(
            analysis.kinetic_temperature(sheared), analysis.kinetic_temperature(rest), rtol=1e-10
        )
        np.testing.assert_allclose(analysis.vacf(sheared, 2.0)[1], analysis.vacf(rest, 2.0)[1], rtol=1e-8, atol=1e-10)
        assert analysis.msd_dimension(sheared) == 2
        flat = Trajectory(rest.positions[..., 1:], rest.velocities[..., 1:], box=Box.free(2), dt=rest.dt)
        np.testing.assert_allclose(analysis.msd(sheared, 2.0)[1], analysis.msd(flat, 2.0)[1], rtol=1e-8, atol=1e-10)

    def test_prescribed_particles_do_not_count(self):
        traj = ornstein_uhlenbeck(frames=200, particles=20)
        alone = Trajectory(traj.positions[:, :15], traj.velocities[:, :15], box=traj.box, dt=traj.dt)
        alone.prescribed = torch.zeros(15, dtype=torch.bool)
        traj.prescribed = torch.arange(20) >= 15
        for function in (analysis.msd, analysis.vacf):
            np.testing.assert_allclose(function(traj, 2.0)[1], function(alone, 2.0)[1])
        np.testing.assert_allclose(analysis.kinetic_temperature(traj), analysis.kinetic_temperature(alone))

    def test_lags_beyond_the_trajectory_are_refused(self):
        with pytest.raises(ValueError, match="max_lag_time is 30"):
            analysis.msd(ornstein_uhlenbeck(frames=20), 30.0)


class TestScores:
    def test_score_of_identical_trajectories_is_zero(self):
        traj = ornstein_uhlenbeck(frames=200)
        result = analysis.score(traj, traj, max_lag_time=1.5, window=(0.5, 1.5), bins=20)
        assert result["rdf"] == result["msd"] == result["vacf"] == 0
        assert result["kinetic_temperature"] == result["kinetic_temperature_truth"]
        assert result["D"] == result["D_truth"]
        assert all(error > 0 for error in result["errors"].values())

    def test_score_across_time_steps_compares_equal_lags(self):
        fine = ornstein_uhlenbeck(frames=400, dt=0.05)
        result = analysis.score(fine[::2], fine, max_lag_time=2.0, window=(1.0, 2.0), bins=20)
        assert result["msd"] < 0.01
        assert result["vacf"] < 0.01
        assert result["D"] == pytest.approx(result["D_truth"], rel=0.02)

    def test_score_tells_a_wrong_friction_from_the_floor(self):
        truth, other = (ornstein_uhlenbeck(frames=600, seed=seed) for seed in (1, 2))
        wrong = ornstein_uhlenbeck(frames=600, friction=1.4, seed=3)
        settings = {"max_lag_time": 2.5, "window": (1.25, 2.5), "bins": 20}
        noise = analysis.floor(other, truth, **settings)
        result = analysis.score(wrong, truth, **settings)
        assert result["vacf"] > 4 * noise["vacf"]
        assert result["msd"] > 4 * noise["msd"]
        assert abs(noise["D"] - noise["D_truth"]) < 5 * math.hypot(noise["errors"]["D"], noise["errors"]["D_truth"])

    def test_several_trajectories_are_averaged(self):
        several = [ornstein_uhlenbeck(frames=100, particles=20, seed=seed) for seed in range(3)]
        found = analysis.curves(several, max_lag_time=1.0, bins=10)
        expected = np.mean([analysis.vacf(t, 1.0)[1] for t in several], axis=0)
        np.testing.assert_allclose(found.vacf, expected)
        assert len(found.blocks["vacf"]) >= 3

    def test_trajectories_of_different_steps_are_not_averaged(self):
        pair = [ornstein_uhlenbeck(frames=50), ornstein_uhlenbeck(frames=50, dt=0.2)]
        with pytest.raises(ValueError, match="cannot be averaged"):
            analysis.curves(pair, max_lag_time=1.0)

    def test_bootstrap_error_of_an_iid_mean_is_sigma_over_root_n(self):
        values = np.random.default_rng(5).normal(2.0, 3.0, 4000)
        means = analysis.block_bootstrap(values, blocks=200, samples=2000, seed=1)
        assert means.std() == pytest.approx(3.0 / math.sqrt(4000), rel=0.15)
        assert means.mean() == pytest.approx(values.mean(), abs=0.01)

    def test_bootstrap_error_of_few_blocks_is_not_too_small(self):
        random = np.random.default_rng(6)
        variances = [analysis.block_bootstrap(random.standard_normal(4), 4, 500, k).var() for k in range(400)]
        assert np.mean(variances) == pytest.approx(1 / 4, rel=0.15)

    def test_rrmse_of_a_scaled_curve_is_the_excess(self):
        truth = np.array([1.0, -2.0, 3.0])
        assert analysis.rrmse(1.1 * truth, truth) == pytest.approx(0.1)
        with pytest.raises(ValueError, match="zero everywhere"):
            analysis.rrmse(truth, 0 * truth)


class TestConservation:
    def test_energy_drift_is_measured_against_the_kinetic_energy(self):
        energy = 1e6 + np.array([0.0, 0.3, -0.2])
        assert analysis.energy_drift(energy, 10.0) == pytest.approx(0.05, rel=1e-6)

    def test_work_from_outside_is_no_drift(self):
        work = np.linspace(0, 5, 10)
        assert analysis.energy_drift(3.0 + work, 1.0, work) == pytest.approx(0, abs=1e-14)

    def test_momentum_drift_is_the_largest_departure(self):
        momentum = np.array([[1.0, 1.0], [1.0, 1.0 + 3e-3], [1.0 - 4e-3, 1.0 + 3e-3]])
        assert analysis.momentum_drift(momentum, 5.0) == pytest.approx(1e-3)

    def test_scale_must_be_positive(self):
        with pytest.raises(ValueError, match="scale is 0"):
            analysis.drift([1.0, 2.0], 0.0)

    def test_entropy_drift_is_zero_at_rest_and_positive_while_produced(self):
        noise = np.random.default_rng(7).standard_normal((40, 500))
        assert abs(analysis.entropy_drift(noise)) < 0.1
        assert analysis.entropy_drift(noise + np.linspace(0, 4, 40)[:, None]) == pytest.approx(3, abs=0.2)


@pytest.fixture(scope="module")
def scenarios():
    entropies = torch.randn(120, 60, dtype=torch.float64)
    truth = ornstein_uhlenbeck(frames=120, seed=1)
    model = ornstein_uhlenbeck(frames=60, dt=0.2, friction=1.2, seed=2, entropies=entropies[:60])
    series = {"time": [0, 1, 2], "energy": [5.0, 5.1, 5.0], "kinetic_energy": [2.0, 2.0, 2.0]}
    plane = scattered(Box.free(2), 40, 50)
    return {
        "at rest": {"truth": [truth], "model": [model], "series": series, "encoded_entropies": entropies},
        "shear <1>": {"truth": [plane], "model": [plane]},
    }


@pytest.fixture(scope="module")
def metrics(scenarios):
    settings = {"max_lag_time": 1.5, "window": (0.5, 1.5), "bins": 20}
    pair = scenarios["at rest"]
    return {
        "system": "test & trial",
        "lag": 2,
        "dt": np.float32(0.2),
        "seed": 0,
        "scores": {"at rest": analysis.score(pair["model"], pair["truth"], **settings) | {"energy_drift": 1e-12}},
        "floor": {"at rest": analysis.floor(pair["truth"], pair["truth"], **settings)},
        "entropy": {"k_B_C": 10.0, "mean": float("nan")},
        "seconds": {"train": 300.0},
    }


class TestReport:
    def test_metrics_are_json_that_reads_back(self, tmp_path, metrics):
        analysis.write_metrics(tmp_path / "out" / "metrics.json", metrics)
        back = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert back["scores"]["at rest"]["msd"] == metrics["scores"]["at rest"]["msd"]
        assert back["scores"]["at rest"]["errors"]["msd"] == metrics["scores"]["at rest"]["errors"]["msd"]
        assert back["entropy"]["mean"] is None
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.json"]

    def test_table_shows_scores_beside_errors_and_floors(self, metrics):
        console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        analysis.print_table(metrics, console)
        text = console.export_text()
        for word in ("at rest", "floor", "±", "1e-12"):
            assert word in text

    def test_table_of_eighty_columns_has_deviations_in_percent_and_says_why_a_floor_is_missing(self):
        scores = {"rdf": 0.1, "msd": 0.02, "vacf": 0.03, "energy_drift": 1e-12, "momentum_drift": 1e-14}
        scores |= {"kinetic_temperature": 1.011, "kinetic_temperature_truth": 1.0, "D": 0.95, "D_truth": 1.0}
        console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        analysis.print_table({"scores": {"self_diffusion_T1.25": scores}, "floor": {}}, console)
        text = console.export_text()
        (line,) = (line for line in text.splitlines() if "deviation" in line)
        assert line.split() == ["deviation", "+1.1", "%", "-5.0", "%"]
        assert "No floor for self_diffusion_T1.25: it compares test runs, and there is one only." in " ".join(
            text.split()
        )
        assert "…" not in text

    def test_report_stands_alone_and_has_all_scenarios(self, tmp_path, metrics, scenarios):
        path = tmp_path / "report.html"
        terms = {"density": {"x": [0, 1], "curves": {"W": [1, 0]}, "xlabel": "r", "ylabel": "W"}}
        learning = {"step": [1, 2, 3], "train": [3, 2, 1], "val": [3, 2, 1.5], "seconds": [1, 2, 3]}
        analysis.write_report(path, metrics, scenarios, learning, terms)
        page = path.read_text(encoding="utf-8")
        markup = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
        assert "http" not in markup
        assert "<script" not in markup
        assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]+)"', page))
        assert "test &amp; trial" in markup
        assert "<h2>at rest</h2>" in markup
        assert "<h2>shear &lt;1&gt;</h2>" in markup
        assert markup.count("data:image/webp") == 2
        assert len(page) < 6_000_000
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_temperature_wave_is_read_off_the_velocities():
    # 20,000 particles at k_B T = 1 + 0.5 sin 2πx/L, the wave halved after half the run
    generator = torch.Generator().manual_seed(1)
    pos = 3.0 * torch.rand(20_000, 3, generator=generator, dtype=torch.float64)
    wave = torch.sin(2.0 * torch.pi * pos[:, :1] / 3.0)
    frames = []
    for amplitude in (0.5, 0.5, 0.25, 0.25):
        normal = torch.randn(pos.shape, generator=generator, dtype=torch.float64)
        frames.append(0.7 + torch.sqrt((1.0 + amplitude * wave) / 2.0) * normal)
    traj = Trajectory(pos.expand(4, -1, -1) + 3.0, torch.stack(frames), box=Box.cubic(3.0, 3), dt=0.1, mass=2.0)
    # the error of a frame is √(4 / 3 N), 0.8 % of k_B T
    assert temperature_wave(traj, stretches=2) == pytest.approx([0.5, 0.25], abs=0.03)
    with pytest.raises(ValueError, match="at least 20 frames, not 4"):
        temperature_wave(traj)
