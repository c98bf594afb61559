"""Trajectories in memory and on disk."""

from __future__ import annotations

import json
import warnings

import h5py
import numpy as np
import pytest
import torch

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.trajectory import Trajectory, TrajectoryWriter, read_trajectory, write_trajectory

FRAMES, PARTICLES, DT = 12, 7, 0.05


def drifting(dimension: int = 3, dtype: torch.dtype = torch.float64, box: Box | None = None, **extra) -> Trajectory:
    """Particles on straight lines."""
    generator = torch.Generator().manual_seed(3)
    start = 5 * torch.rand(PARTICLES, dimension, generator=generator, dtype=torch.float64)
    velocity = torch.randn(PARTICLES, dimension, generator=generator, dtype=torch.float64)
    times = DT * torch.arange(FRAMES, dtype=torch.float64)
    positions = start + times[:, None, None] * velocity
    velocities = velocity.expand(FRAMES, -1, -1).clone()
    box = Box.cubic(5.0, dimension) if box is None else box
    return Trajectory(positions.to(dtype), velocities.to(dtype), box=box, dt=DT, **extra)


BOXES = {
    "free": Box.free(2),
    "square": Box.cubic(5.0, 2),
    "cubic": Box.cubic(5.0, 3),
    "triclinic": Box.triclinic([[5.0, 0, 0], [1.0, 5.0, 0], [0.1, -0.7, 4.0]]),
    "sheared": Box.cubic(5.0, 3, shear_rate=0.3),
}


class TestTrajectory:
    def test_numpy_arrays_and_their_precision_are_kept(self):
        positions = np.random.default_rng(0).random((3, 4, 2)).astype(np.float32)
        traj = Trajectory(positions, np.zeros_like(positions), box=Box.free(2), dt=1.0)
        assert traj.positions.dtype == torch.float32
        np.testing.assert_array_equal(np.asarray(traj.positions), positions)

    def test_slice_keeps_times_and_multiplies_the_step(self):
        traj = drifting()
        part = traj[2:10:3]
        assert len(part) == 3
        assert part.dt == pytest.approx(3 * DT)
        torch.testing.assert_close(part.times, traj.times[2:10:3])
        torch.testing.assert_close(part.positions, traj.positions[2:10:3])

    def test_index_is_refused_with_advice(self):
        with pytest.raises(TypeError, match="slice"):
            drifting()[3]

    def test_empty_and_backward_slices_are_refused(self):
        with pytest.raises(ValueError, match="none"):
            drifting()[20:30]
        with pytest.raises(ValueError, match="forward"):
            drifting()[::-1]

    def test_without_drift_removes_momentum_and_displacement_of_the_centre(self):
        mass = torch.arange(1.0, PARTICLES + 1, dtype=torch.float64)
        still = drifting(mass=mass).without_drift()
        weight = mass[:, None] / mass.sum()
        assert float((weight * still.velocities).sum(1).abs().max()) < 1e-14
        centre = (weight * still.positions).sum(1)
        assert float((centre - centre[0]).abs().max()) < 1e-13

    def test_fingerprint_tells_the_last_bit(self):
        traj = drifting()
        same, other = drifting(), drifting()
        other.positions[5, 2, 1] = np.nextafter(float(other.positions[5, 2, 1]), 1e9)
        assert traj.fingerprint() == same.fingerprint()
        assert traj.fingerprint() != other.fingerprint()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_error_names_frame_and_particle_of_a_value_that_is_not_finite(self, value):
        traj = drifting()
        positions = traj.positions.clone()
        positions[7, 4, 0] = value
        with pytest.raises(ValueError, match="particle 4 in frame 7"):
            Trajectory(positions, traj.velocities, box=traj.box, dt=DT)

    @pytest.mark.parametrize("particles", [0, 1])
    def test_fewer_than_two_particles_are_refused(self, particles):
        empty = np.zeros((3, particles, 3))
        with pytest.raises(ValueError, match=f"{particles} particle"):
            Trajectory(empty, empty, box=Box.free(3), dt=1.0)

    def test_no_frames_are_refused(self):
        with pytest.raises(ValueError, match="no frames"):
            Trajectory(np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), box=Box.free(3), dt=1.0)

    def test_missing_velocities_say_how_to_get_them(self):
        with pytest.raises(ValueError, match="central differences"):
            Trajectory(np.zeros((3, 4, 3)), None, box=Box.free(3), dt=1.0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dt": 0.0}, "dt is 0.0"),
            ({"dt": float("nan")}, "dt is nan"),
            ({"mass": -1.0}, "mass is -1.0"),
            ({"mass": torch.tensor([1.0, 1, 1, 0, 1, 1, 1])}, "particle 3"),
            ({"mass": torch.ones(3)}, "mass has shape"),
            ({"box": Box.free(2)}, "dimension 2"),
            ({"times": DT * torch.tensor([0, 1, 2, 3, 4, 5, 5, 7, 8, 9, 10, 11])}, "frame 5"),
            ({"times": DT * torch.tensor([0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12])}, "frames 5 and 6"),
            ({"species": torch.ones(PARTICLES)}, "integers"),
            ({"entropies": torch.ones(FRAMES, 2)}, "entropies has shape"),
            ({"velocities": torch.ones(FRAMES, 2, 3)}, "velocities has shape"),
        ],
    )
    def test_inconsistent_input_is_refused_in_words(self, change, message):
        traj = drifting()
        given = {"positions": traj.positions, "velocities": traj.velocities, "box": traj.box, "dt": DT} | change
        positions, velocities = given.pop("positions"), given.pop("velocities")
        with pytest.raises(ValueError, match=message):
            Trajectory(positions, velocities, **given)

    @pytest.mark.parametrize("name", ["square", "cubic", "triclinic", "sheared"])
    def test_wrapped_positions_are_recognised(self, name):
        box = BOXES[name]
        traj = drifting(box.dimension, box=box)
        wrapped = box.wrap(traj.positions - traj.positions[5] + 1e-9)  # every particle passes the origin
        with pytest.raises(ValueError, match="look wrapped"):
            Trajectory(wrapped, traj.velocities, box=box, dt=DT)

    def test_long_steps_of_a_fast_flow_are_not_taken_for_wrapping(self):
        traj = drifting()
        coarse = Trajectory(100 * traj.positions, 100 * traj.velocities, box=traj.box, dt=DT)
        assert len(coarse) == FRAMES


class TestH5MD:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("name", BOXES)
    def test_round_trip_gives_back_the_same_bits(self, tmp_path, name, dtype):
        box = BOXES[name]
        traj = drifting(
            box.dimension,
            dtype,
            box,
            mass=torch.rand(PARTICLES) + 0.1,
            species=torch.arange(PARTICLES) % 2,
            entropies=torch.randn(FRAMES, PARTICLES, dtype=dtype),
            times=3.7 + DT * torch.arange(FRAMES, dtype=torch.float64),
            units={"length": "nm", "time": "ps"},
            forcing={"name": "taylor_green", "amplitude": 5.0, "length": 1.0},
            prescribed=torch.arange(PARTICLES) < 2,
            metadata={"seed": 4, "k_B": 1.380649e-23, "nested": {"a": [1, 2.5, None]}},
        )
        write_trajectory(tmp_path / "a.h5", traj)
        back = read_trajectory(tmp_path / "a.h5")
        for field in ("positions", "velocities", "entropies", "times", "mass", "species", "prescribed"):
            found, expected = getattr(back, field), getattr(traj, field)
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
        for field in ("box", "dt", "units", "forcing", "metadata"):
            assert getattr(back, field) == getattr(traj, field)
        assert back.fingerprint() == traj.fingerprint()

    def test_one_mass_for_all_comes_back_as_one_number(self, tmp_path):
        write_trajectory(tmp_path / "a.h5", drifting(mass=11.0))
        assert read_trajectory(tmp_path / "a.h5").mass == 11.0

    def test_streaming_equals_writing_at_once(self, tmp_path):
        traj = drifting()
        write_trajectory(tmp_path / "once.h5", traj)
        with TrajectoryWriter(tmp_path / "stream.h5", box=traj.box, dt=traj.dt) as writer:
            for frame in range(FRAMES):
                writer.append(traj.positions[frame], traj.velocities[frame])
        fingerprints = {read_trajectory(tmp_path / f"{name}.h5").fingerprint() for name in ("once", "stream")}
        assert len(fingerprints) == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["once.h5", "stream.h5"]

    def test_an_exception_leaves_no_file(self, tmp_path):
        traj = drifting()

        def interrupted():
            with TrajectoryWriter(tmp_path / "run.h5", box=traj.box, dt=DT) as writer:
                writer.append(traj.positions[0], traj.velocities[0])
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert list(tmp_path.iterdir()) == []

    def test_a_file_without_frames_is_refused(self, tmp_path):
        with (
            pytest.raises(ValueError, match="no frame"),
            TrajectoryWriter(tmp_path / "run.h5", box=Box.free(2), dt=DT),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_frame_of_other_shape_is_refused(self, tmp_path):
        traj = drifting()
        with TrajectoryWriter(tmp_path / "run.h5", box=traj.box, dt=DT) as writer:
            writer.append(traj.positions[0], traj.velocities[0])
            with pytest.raises(ValueError, match="every frame must hold the same"):
                writer.append(traj.positions[1, :3], traj.velocities[1, :3])
            with pytest.raises(ValueError, match="every frame must hold the same"):
                writer.append(traj.positions[1], traj.velocities[1], torch.zeros(PARTICLES))
            with pytest.raises(ValueError, match="must be finite"):
                writer.append(traj.positions[1] * float("nan"), traj.velocities[1])

    def test_metadata_that_is_not_json_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="metadata must be plain JSON"):
            write_trajectory(tmp_path / "a.h5", drifting(metadata={"model": object()}))

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.h5"):
            read_trajectory(tmp_path / "none.h5")

    def test_file_cut_short_is_recognised(self, tmp_path):
        write_trajectory(tmp_path / "a.h5", drifting())
        content = (tmp_path / "a.h5").read_bytes()
        (tmp_path / "b.h5").write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="cut short"):
            read_trajectory(tmp_path / "b.h5")

    def test_a_file_of_another_kind_is_refused(self, tmp_path):
        (tmp_path / "a.h5").write_text("step 1\n")
        with pytest.raises(ValueError, match="cannot be read"):
            read_trajectory(tmp_path / "a.h5")
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["x"] = [1, 2]
        with pytest.raises(ValueError, match="no H5MD"):
            read_trajectory(tmp_path / "b.h5")

    def test_missing_velocities_are_named(self, tmp_path):
        write_trajectory(tmp_path / "a.h5", drifting())
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["particles/all/velocity"]
        with pytest.raises(ValueError, match="no velocity"):
            read_trajectory(tmp_path / "a.h5")

    def test_provenance_is_json(self, tmp_path):
        write_trajectory(tmp_path / "a.h5", drifting(metadata={"seed": 1}))
        with h5py.File(tmp_path / "a.h5") as file:
            assert list(file["h5md"].attrs["version"]) == [1, 1]
            assert json.loads(file["parameters/gnn_metriplectic"].attrs["metadata"]) == {"seed": 1}


class TestForeignH5MD:
    def write(self, path, traj, *, images=True, mass=True, shuffle=False):
        """A file as other programs lay it out: wrapped positions with images, fixed box, fixed interval."""
        edge = traj.box.lengths[0]
        image = torch.floor(traj.positions / edge).to(torch.int64).numpy()
        wrapped = traj.positions.numpy() - image * edge
        order = [np.arange(PARTICLES) for _ in range(FRAMES)]
        if shuffle:
            order = [np.random.default_rng(k).permutation(PARTICLES) for k in range(FRAMES)]
        with h5py.File(path, "w") as file:
            group = file.create_group("particles/beads")
            group.create_group("box").attrs.update({"dimension": 3, "boundary": ["periodic"] * 3})
            group["box/edges"] = np.full(3, edge)
            for name, values in (("position", wrapped), ("velocity", traj.velocities.numpy())):
                group[f"{name}/value"] = np.stack([v[o] for v, o in zip(values, order, strict=True)])
                group[f"{name}/step"], group[f"{name}/time"] = 10, DT
            group["position/value"].attrs["unit"] = "Angstrom"
            if images:
                group["image/value"] = np.stack([v[o] for v, o in zip(image, order, strict=True)])
            if mass:
                group["mass"] = np.full(PARTICLES, 2.0)
            if shuffle:
                group["id/value"] = np.stack(order)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_images_unwrap_and_ids_sort(self, tmp_path, shuffle):
        traj = drifting()
        self.write(tmp_path / "a.h5", traj, shuffle=shuffle)
        back = read_trajectory(tmp_path / "a.h5")
        torch.testing.assert_close(back.positions, traj.positions)
        torch.testing.assert_close(back.velocities, traj.velocities)
        assert back.dt == pytest.approx(DT)
        assert back.units == {"length": "Angstrom"}
        assert float(back.masses[0]) == 2.0

    def test_without_mass_it_is_1_with_a_warning(self, tmp_path):
        self.write(tmp_path / "a.h5", drifting(), mass=False)
        with pytest.warns(UserWarning, match="no mass"):
            assert read_trajectory(tmp_path / "a.h5").mass == 1.0

    def test_wrapped_positions_without_images_are_refused(self, tmp_path):
        traj = drifting()
        traj.positions -= traj.positions[5].clone()
        self.write(tmp_path / "a.h5", traj, images=False)
        with pytest.raises(ValueError, match="look wrapped"):
            read_trajectory(tmp_path / "a.h5")

    def test_a_box_that_changes_size_is_refused(self, tmp_path):
        self.write(tmp_path / "a.h5", drifting())
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["particles/beads/box/edges"]
            file["particles/beads/box/edges/value"] = np.linspace(5, 6, FRAMES)[:, None] * np.ones(3)
        with pytest.raises(ValueError, match="box changes at frame 1"):
            read_trajectory(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["cubic", "triclinic", "sheared"])
def test_mdanalysis_opens_it(tmp_path, name):
    mda = pytest.importorskip("MDAnalysis")
    traj = drifting(box=BOXES[name])
    write_trajectory(tmp_path / "a.h5md", traj)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = mda.Universe.empty(PARTICLES, trajectory=True, velocities=True)
        universe.load_new(str(tmp_path / "a.h5md"), convert_units=False)
        assert universe.trajectory.n_frames == FRAMES
        for frame in (0, FRAMES - 1):
            step = universe.trajectory[frame]
            np.testing.assert_allclose(step.positions, traj.positions[frame].numpy(), rtol=1e-6)
            np.testing.assert_allclose(step.velocities, traj.velocities[frame].numpy(), rtol=1e-6)
            assert step.time == pytest.approx(float(traj.times[frame]))
            lattice = traj.box.lattice_at(float(traj.times[frame])).numpy()
            np.testing.assert_allclose(step.triclinic_dimensions, lattice, atol=1e-4)
        universe.trajectory.close()


def test_a_frame_interrupted_half_way_leaves_the_frames_before_it(tmp_path, monkeypatch):
    traj = drifting()
    writer = TrajectoryWriter(tmp_path / "cut.h5", box=traj.box, dt=traj.dt)
    writer.append(traj.positions[0], traj.velocities[0])
    grow = writer._grow

    def interrupted(name, rows):
        if name == "velocity/value":
            raise KeyboardInterrupt
        grow(name, rows)

    monkeypatch.setattr(writer, "_grow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.append(traj.positions[1], traj.velocities[1])
    writer.close()
    found = read_trajectory(tmp_path / "cut.h5")
    assert len(found) == 1
    assert torch.equal(found.positions[0], traj.positions[0])
