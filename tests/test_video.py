"""From films and tracks to trajectories, and to a model."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from conftest import baseline, dpd_settings, gnn_settings
from helpers import SILENT, run_command
from omegaconf import OmegaConf

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.rearrangement import d2min
from gnn_metriplectic.analysis.transport import msd
from gnn_metriplectic.evaluation.camera import filmed, films
from gnn_metriplectic.evaluation.stirring import Stirring, flow_error, mean_flow
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.learning.transitions import TransitionDataset
from gnn_metriplectic.systems.video import ColloidSystem, VideoSystem
from gnn_metriplectic.systems.video.film import read_film
from gnn_metriplectic.systems.video.locate import Locating, link
from gnn_metriplectic.systems.video.microscope import Microscope, score_tracking
from gnn_metriplectic.systems.video.tracks import fill, localisation_error, read_tracks, tell_species
from gnn_metriplectic.trajectory.window import Window

SCALE = {"pixel": 0.1, "frame_time": 1.0 / 24.0, "length_unit": "um", "time_unit": "s"}
DEFAULTS = {
    **SCALE, "diameter": 9, "minmass": None, "separation": None, "search_range": None, "memory": 3, "dark": True,
    "species": 1, "prescribed": None, "edge": 0.0, "overdamped": True, "window": 7, "order": 3,
    "mass": 1.0, "temperature": 1.0,
}  # fmt: skip


def video(**changes) -> VideoSystem:
    return VideoSystem(**{**DEFAULTS, "film": None, "tracks": None, **changes})


def brownian(count: int, frames: int, size: tuple[int, int], step: float, seed: int = 0) -> np.ndarray:
    """Places ``[T, N, 2]`` of particles that come into a picture and leave it, in pixels."""
    random = np.random.default_rng(seed)
    beyond = 40.0
    span = np.array(size) + 2.0 * beyond
    places = random.random((1, count, 2)) * span
    walk = np.concatenate([places, step * random.standard_normal((frames - 1, count, 2))]).cumsum(axis=0)
    return walk - beyond


def tracer_frames(folder: Path, count: int, frames: int, size: tuple[int, int], step: float, seed: int = 0) -> None:
    """A folder of 8-bit PNG of dark diffusing particles on a bright ground."""
    folder.mkdir()
    camera = Microscope(*size, spread=(2.0,), brightness=(-100.0,), ground=170.0)
    random = np.random.default_rng(seed)
    for number, places in enumerate(brownian(count, frames, size, step, seed)):
        picture = camera.frame(places, np.zeros(count, dtype=int), random)
        imageio.imwrite(folder / f"frame_{number}.png", picture)


@pytest.mark.parametrize("kind", ["png", "tif", "avi", "mp4"])
def test_a_film_is_read_whatever_its_kind(kind, tmp_path):
    random = np.random.default_rng(0)
    camera = Microscope(64, 48, (2.0,), (150.0,))
    frames = [camera.frame(np.array([[20.0 + k, 24.0]]), np.zeros(1, dtype=int), random) for k in range(12)]
    path = tmp_path / ("film" if kind == "png" else f"film.{kind}")
    if kind == "png":
        path.mkdir()
        for number, frame in enumerate(frames):  # frame_2 comes before frame_10
            imageio.imwrite(path / f"frame_{number}.png", frame)
    elif kind == "tif":
        tifffile.imwrite(path, np.stack(frames))
    else:
        colour = np.repeat(np.stack(frames)[..., None], 3, axis=-1)
        imageio.imwrite(path, colour, plugin="pyav", codec="mpeg4" if kind == "avi" else "libx264", fps=24)
    found = list(read_film(path))
    assert len(found) == 12
    assert found[0].shape == (48, 64)
    brightest = [np.unravel_index(np.argmax(frame), frame.shape)[1] for frame in found]
    assert np.abs(np.array(brightest) - (20 + np.arange(12))).max() <= 2


def test_particles_are_found_where_they_are():
    random = np.random.default_rng(1)
    camera = Microscope(256, 192, (2.0,), (150.0,))
    grid = np.stack(np.meshgrid(np.arange(16, 250, 24), np.arange(16, 180, 24)), axis=-1).reshape(-1, 2)
    places = grid + random.uniform(-3, 3, grid.shape)
    frame = camera.frame(places, np.zeros(len(places), dtype=int), random)
    settings = Locating(None, None, None, None, 3, dark=False).suggested(frame)
    spots = settings.spots(frame)
    pairs, there, found, error = score_tracking(spots[["x", "y"]].to_numpy(), places, 3.0, (255.0, 191.0), 10.0)
    assert pairs / there > 0.98
    assert pairs / found > 0.98
    assert np.sqrt((error**2).mean()) < 0.1


def test_scores_of_tracking_count_what_is_lost_and_what_is_made_up():
    truth = np.array([[20.0, 20.0], [40.0, 20.0], [60.0, 20.0], [1.0, 1.0]])
    found = np.array([[20.5, 20.0], [40.0, 20.0], [80.0, 80.0]])
    pairs, there, shown, error = score_tracking(found, truth, 3.0, (100.0, 100.0), 5.0)
    assert (pairs, there, shown) == (2, 3, 3)
    assert np.allclose(sorted(error[:, 0]), [0.0, 0.5])


@pytest.mark.parametrize("overdamped", [True, False])
def test_the_error_of_localisation_is_told_from_the_motion(overdamped):
    random = np.random.default_rng(2)
    if overdamped:
        truth = np.cumsum(0.3 * random.standard_normal((200, 300, 2)), axis=0)
    else:
        phase = random.uniform(0, 7, (300, 2))
        truth = 1.2 * np.sin(0.25 * np.arange(200)[:, None, None] + phase)
    seen = random.random((200, 300)) < 0.97
    found = localisation_error(truth + 0.08 * random.standard_normal(truth.shape), seen, overdamped=overdamped)
    assert found == pytest.approx(0.08, rel=0.06)


def test_gaps_are_filled_on_a_line_and_marked():
    frames = [0, 1, 4, 5, 2, 3]
    table = pd.DataFrame({"frame": frames, "particle": [7, 7, 7, 7, 9, 9], "x": [0.0, 1, 4, 5, 3, 3], "y": 1.0})
    positions, seen, numbers, alive = fill(table, 0, 6, 2)
    assert numbers.tolist() == [7, 9]
    assert np.allclose(positions[:, 0, 0], np.arange(6))
    assert seen[:, 0].tolist() == [True, True, False, False, True, True]
    assert alive[:, 0].all()
    assert alive[:, 1].tolist() == [False, False, True, True, False, False]


def test_species_are_told_apart_from_the_faintest_on():
    random = np.random.default_rng(4)
    truth = np.repeat([0, 1, 2], [200, 150, 6])
    sizes = np.array([300.0, 700.0, 1500.0])[truth] * np.exp(0.08 * random.standard_normal(len(truth)))
    assert (tell_species(sizes, 3) == truth).all()


def test_few_are_told_from_many_whose_brightness_spreads_and_short_tracks_are_no_species():
    random = np.random.default_rng(5)
    truth = np.repeat([0, 1, 2], [800, 900, 10])
    values = np.array([850.0, 1350.0, 2370.0])[truth]
    values *= np.exp(np.where(truth < 2, 0.08, 0.01) * random.standard_normal(len(truth)).clip(-2.0, 2.0))
    assert (tell_species(values, 3) == truth).all()
    junk = np.array([120.0, 121.0, 122.0, 4000.0])
    sightings = np.concatenate([np.full(len(values), 400.0), np.full(len(junk), 5.0)])
    assert (tell_species(np.concatenate([values, junk]), 3, sightings)[: len(values)] == truth).all()


def moving(present: torch.Tensor, **known) -> gm.Trajectory:
    """Particles in a row at unit distance that move by 0.01 a frame along y."""
    frames, count = present.shape
    pos = torch.zeros(frames, count, 2, dtype=torch.float64)
    pos[..., 0] = torch.arange(count)
    pos[..., 1] = 0.01 * torch.arange(frames, dtype=torch.float64)[:, None]
    return gm.Trajectory(pos, torch.zeros_like(pos), box=Box.free(2), dt=0.1, present=present, **known)


def test_transitions_have_the_particles_of_both_frames_and_learn_from_those_with_whole_neighbourhoods():
    present = torch.ones(3, 8, dtype=torch.bool)
    present[1, 3] = False  # a gap
    dataset = TransitionDataset([moving(present)], cutoff=1.5, lag=1, overdamped=True)
    assert dataset[0].num_nodes == 7
    assert dataset[0].active.tolist() == [True, True, False, False, True, True, True]
    assert torch.allclose(dataset[0].next_vel, torch.tensor([0.0, 0.1]))
    present[1, 3], present[0, 7] = True, False  # an arrival
    dataset = TransitionDataset([moving(present)], cutoff=1.5, lag=1, overdamped=True)
    assert [dataset[k].num_nodes for k in range(2)] == [7, 8]
    assert dataset[0].active.tolist() == [True] * 6 + [False]
    assert bool(dataset[1].active.all())


def test_the_volume_of_a_particle_does_not_count_tracks_that_are_over():
    present = torch.ones(4, 8, dtype=torch.bool)
    few = TransitionDataset([moving(present[:, :4])], cutoff=1.5, lag=1)
    present[:2, 4:] = False
    present[2:, :4] = False  # of eight tracks four are seen at a time
    many = TransitionDataset([moving(present)], cutoff=1.5, lag=1)
    assert len(many) == 2
    assert float(many[0].particle_volume) == float(few[0].particle_volume)


@pytest.mark.parametrize(
    ("localisation", "said"),
    [
        ({"position": 0.0, "window": 3, "order": 1}, "model.solvent=overdamped"),
        ({"position": 0.0, "velocity": [0.0]}, "generate this film's data anew"),
    ],
)
def test_a_film_whose_velocities_mean_nothing_is_not_learned_with_inertia(localisation, said):
    film = moving(torch.ones(4, 8, dtype=torch.bool), metadata={"localisation": localisation})
    with pytest.raises(ValueError, match=said):
        TransitionDataset([film], cutoff=1.5, lag=1)
    TransitionDataset([film], cutoff=1.5, lag=1, overdamped=True)


def test_beyond_the_view_there_may_be_particles():
    present = torch.ones(2, 8, dtype=torch.bool)
    view = [[0.0, -9.0], [7.0, 9.0]]
    dataset = TransitionDataset([moving(present, view=view)], cutoff=1.5, lag=1)
    assert dataset[0].active.tolist() == [False, False, True, True, True, True, False, False]


def test_tracks_that_come_and_go_survive_the_file(tmp_path):
    present = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) < 0.8
    traj = moving(present, view=[[0.0, 0.0], [7.0, 1.0]])
    gm.write_trajectory(tmp_path / "t.h5", traj)
    again = gm.read_trajectory(tmp_path / "t.h5")
    assert torch.equal(again.present, present)
    assert torch.equal(again.view, traj.view)
    assert torch.equal(again[1:].present, present[1:])
    with pytest.raises(ValueError, match="present is"):
        moving(present, species=None).__class__(
            traj.positions, traj.velocities, box=traj.box, dt=0.1, present=present[:, :3]
        )


TRACKMATE_CSV = """LABEL,ID,TRACK_ID,POSITION_X,POSITION_Y,FRAME,RADIUS
Label,Spot ID,Track ID,X,Y,Frame,Radius
,,,(micron),(micron),,(micron)
a,1,0,1.0,2.0,0,0.5
b,2,0,1.5,2.0,1,0.5
c,3,4,7.0,3.0,1,0.6
"""
TRACKMATE_XML = """<?xml version="1.0"?><Tracks nTracks="2" spaceUnits="micron" frameInterval="1.0">
<particle nSpots="2"><detection t="0" x="1.0" y="2.0" z="0"/><detection t="1" x="1.5" y="2.0" z="0"/></particle>
<particle nSpots="1"><detection t="1" x="7.0" y="3.0" z="0"/></particle></Tracks>"""


@pytest.mark.parametrize("kind", ["trackpy.csv", "trackmate.csv", "trackmate.xml"])
def test_tracks_of_other_programs_are_read(kind, tmp_path):
    path = tmp_path / kind
    if kind == "trackpy.csv":
        pd.DataFrame(
            {"y": [2.0, 2.0, 3.0], "x": [1.0, 1.5, 7.0], "mass": 9.0, "frame": [0, 1, 1], "particle": [0, 0, 4]}
        ).to_csv(path)
    else:
        path.write_text(TRACKMATE_XML if kind.endswith("xml") else TRACKMATE_CSV)
    table = read_tracks(path)
    assert table["frame"].tolist() == [0, 1, 1]
    assert table["x"].tolist() == [1.0, 1.5, 7.0]
    assert table["particle"].nunique() == 2


def test_flows_of_several_runs_are_pooled_with_their_phases():
    nothing = np.zeros(0)
    runs = [
        Stirring({}, nothing, {"truth": np.array([1.0, 0.2j, np.nan]), "model": side}, {}, {}, nothing)
        for side in (np.array([0.8, 0.3j, 0.0]), np.array([0.8, -0.3j, 0.0]))
    ]
    truth, model = (mean_flow(runs, side) for side in ("truth", "model"))
    assert np.allclose(truth, [1.0, 0.2, np.nan], equal_nan=True)
    assert np.allclose(model, [0.8, 0.0, 0.0]), "what is not in phase is noise"
    assert flow_error(model, truth) == pytest.approx((0.08 / 1.04) ** 0.5)
    assert flow_error(truth, truth) == 0.0


def test_d2min_is_blind_to_a_linear_map_and_sees_an_exchange():
    random = np.random.default_rng(5)
    before = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), axis=-1).reshape(-1, 2)
    before += 0.1 * random.standard_normal(before.shape)
    strained = before @ (np.eye(2) + 0.2 * random.standard_normal((2, 2))) + 3.0
    assert np.nanmax(d2min(before, strained, 1.8)) < 1e-20
    strained[40] += [0.5, 0.0]
    found = d2min(before, strained, 1.8)
    assert np.nanargmax(found) in range(81)
    assert found[40] > 0.1
    assert found[0] < 1e-20


class TestRefused:
    """What cannot be learned from is refused with what to try."""

    def test_scale(self):
        with pytest.raises(ValueError, match=r"pixel \(the scale of the film\) is None"):
            video(film="film.avi", pixel=None)

    def test_film_and_tracks(self):
        with pytest.raises(ValueError, match="not both"):
            video()

    def test_what_cannot_be_decoded(self, tmp_path):
        (tmp_path / "film.avi").write_bytes(b"no film at all" * 40)
        with pytest.raises(ValueError, match=r"film\.avi cannot be decoded: .* ffmpeg -i"):
            list(read_film(tmp_path / "film.avi"))
        with pytest.raises(FileNotFoundError, match="there is no film"):
            list(read_film(tmp_path / "other.avi"))

    def test_empty_frames(self):
        with pytest.raises(ValueError, match=r"no particles found .* dark=true"):
            Locating(9, None, None, None, 3, dark=False).suggested(np.full((64, 64), 30, dtype=np.uint8))

    def test_tracks_too_short(self):
        table = pd.DataFrame({"frame": [0, 1, 2], "particle": [0, 1, 2], "x": 1.0, "y": 1.0})
        with pytest.raises(ValueError, match="tracks are too short"):
            fill(table, 0, 3, 2)

    def test_a_missing_column(self, tmp_path):
        (tmp_path / "tracks.csv").write_text("frame,x,y\n0,1,1\n")
        with pytest.raises(ValueError, match="has no column particle; it has frame, x, y"):
            read_tracks(tmp_path / "tracks.csv")


def test_linking_follows_particles_over_a_gap():
    rows = [(f, x, 5.0 * k) for f in range(6) for k, x in enumerate((f * 0.5, 20.0 + f * 0.5)) if (f, k) != (3, 0)]
    spots = pd.DataFrame(rows, columns=["frame", "x", "y"])
    linked = link(spots, Locating(5, 0.0, 5.0, 2.0, 3, dark=False))
    assert linked["particle"].nunique() == 2


def small_film(**changes) -> ColloidSystem:
    """The built-in film with a small view and few frames."""
    path = Path(__file__).parents[1] / "conf" / "system" / "colloids.yaml"
    settings = OmegaConf.to_container(OmegaConf.load(path))["parameters"]
    small = {"length": 14.0, "height": 12.0, "view": [11.0, 9.0], "beads": 4, "settling": 1.0, "frames": 16}
    return ColloidSystem(**{**settings, **small, **changes})


def test_the_built_in_film_is_tracked_as_it_is(tmp_path):
    system = small_film()
    system.generate(tmp_path / "train" / "film_0.h5", begin=0.0, end=1.0, seed=1)
    traj = gm.read_trajectory(tmp_path / "train" / "film_0.h5")
    found = traj.metadata["observed"]
    assert min(found["recall"], found["precision"]) > 0.98
    assert found["error"] < 0.1
    assert traj.metadata["tracking"]["error"] == pytest.approx(found["error"], rel=0.3)
    assert int((traj.species == 2).sum()) == 4
    assert torch.equal(traj.prescribed, traj.species == 2), "the needle"
    assert torch.bincount(traj.species)[:2].min() > 20


def test_what_leaves_the_cell_of_the_film_enters_on_its_other_side(tmp_path):
    system = small_film(frames=200)
    positions, *_ = system.simulate(tmp_path, 1, lambda share, what: None)
    cell = np.array([system.length, system.height])
    skin = 0.4  # LAMMPS wraps when it looks for neighbours anew
    assert ((positions > -skin) & (positions < cell + skin)).all()
    steps = np.abs(np.diff(positions, axis=0))
    assert (steps > 0.5 * cell).any(), "nobody crossed: the film tells nothing"


def test_the_rim_of_a_test_is_held_and_has_no_holes(tmp_path):
    random = np.random.default_rng(6)
    start = np.stack(np.meshgrid(np.arange(0.0, 200.0, 10.0), np.arange(0.0, 160.0, 10.0)), axis=-1).reshape(-1, 2)
    places = start + np.cumsum(0.4 * random.standard_normal((60, len(start), 2)), axis=0)
    rows = [(f, k, *places[f, k]) for f in range(60) for k in range(len(start)) if (f, k) != (30, 0)]
    table = pd.DataFrame(rows, columns=["frame", "particle", "x", "y"])
    # one of the rim leaves, and one comes
    table = table[(table["particle"] != 5) | (table["frame"] < 20)]
    table = table[(table["particle"] != 7) | (table["frame"] > 20)]
    table.to_csv(tmp_path / "tracks.csv", index=False)
    system = video(tracks=str(tmp_path / "tracks.csv"), edge=2.5, overdamped=False)
    system.generate(tmp_path / "out" / "test" / "film_0.h5", begin=0.0, end=1.0, seed=0, complete=True)
    traj = gm.read_trajectory(tmp_path / "out" / "test" / "film_0.h5")
    assert traj.num_particles == len(start) - 1
    assert torch.equal(traj.positions[:, traj.prescribed], traj.positions[:1, traj.prescribed].expand(60, -1, -1))
    assert float(traj.velocities[:, traj.prescribed].abs().max()) == 0.0
    assert float(traj.velocities[:, ~traj.prescribed].abs().min(dim=0).values.max()) > 0.0
    free = traj.positions[0, ~traj.prescribed]
    assert bool(((free > 1.9) & (free < torch.tensor([17.6, 13.6]))).all())


def test_a_rollout_is_looked_at_as_the_film_is():
    times = 0.1 * torch.arange(60, dtype=torch.float64)
    truth = moving(
        torch.ones(60, 8, dtype=torch.bool), metadata={"localisation": {"position": 0.0, "window": 7, "order": 3}}
    )
    shaken = 0.01 * torch.randn(60, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    run = gm.Trajectory(truth.positions + shaken, shaken / 0.1, box=Box.free(2), dt=0.1, times=times)
    seen = filmed(run, truth, seed=0)
    assert torch.equal(seen.positions, run.positions)
    assert np.allclose(seen.velocities, Window(7, 3, 0.1).slopes(run.positions.numpy()))
    assert films(baseline(dpd_settings(2)), truth)
    assert not films(baseline(dpd_settings(2)), run), "velocities that are exact"
    assert not films(baseline(gnn_settings(2)), truth), "it has learned slopes"


def train_on_tracers(monkeypatch, folder: Path, *, count: int, frames: int, size: tuple[int, int], steps: int):
    """Folder of pictures -> model, and MSD of tracks and model up to a quarter of the test."""
    tracer_frames(folder / "frames", count, frames, size, step=1.2)
    run_command(
        monkeypatch,
        folder,
        "train",
        "experiment=tracers",
        "film=frames",
        "pixel=0.1",
        f"frame_time={1.0 / 24.0}",
        "dark=true",
        "model.cutoff=1.5",
        f"optimizer.steps={steps}",
        f"optimizer.steps_per_epoch={steps // 2}",
        "out=out",
        *(f"trainer.{key}={value}" for key, value in SILENT.items()),
    )
    return json.loads((folder / "out" / "metrics.json").read_text())


def test_a_folder_of_frames_becomes_a_model(tmp_path, monkeypatch):
    metrics = train_on_tracers(monkeypatch, tmp_path, count=60, frames=40, size=(160, 120), steps=4)
    assert (tmp_path / "data" / "video" / "tracking.png").stat().st_size > 10_000
    record = json.loads((tmp_path / "data" / "video" / "tracking.json").read_text())
    assert record["frames"] == 40
    assert record["locating"]["dark"] is True
    traj = gm.read_trajectory(tmp_path / "data" / "video" / "train" / "film_0.h5")
    assert traj.units == {"length": "um", "time": "s"}
    assert traj.dt == pytest.approx(1.0 / 24.0)
    assert not bool(traj.present.all()), "particles come and go"
    assert metrics["scores"]["film"]["solvent_temperature"] == pytest.approx(1.0)


@pytest.mark.slow
def test_tracers_diffuse_in_the_model_as_in_the_film(tmp_path, monkeypatch):
    metrics = train_on_tracers(monkeypatch, tmp_path, count=640, frames=200, size=(640, 480), steps=400)
    assert metrics["scores"]["film"]["msd"] < 0.1
    test = gm.read_trajectory(tmp_path / "data" / "video" / "test" / "film_0.h5")
    lags, found = msd(test, 0.25 * (len(test) - 1) * test.dt)
    # 1.2 pixels of 0.1 a frame and component
    expected = 2.0 * 2.0 * 0.5 * 0.12**2 * lags * 24.0
    assert np.abs(found[1:] / expected[1:] - 1.0).max() < 0.1
