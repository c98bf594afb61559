"""Writing H5MD, frame by frame or at once. The layout is described in ``h5md``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from gnn_metriplectic.geometry import Box, Reference
from gnn_metriplectic.trajectory.checks import as_float_tensor, check_frames, check_positive
from gnn_metriplectic.trajectory.trajectory import Trajectory

PROVENANCE = "parameters/gnn_metriplectic"
REFERENCE = "connectivity/reference"
# HDF5 keeps an attribute in the header of its object, which holds at most 64 KiB.
_ATTRIBUTE_LIMIT = 60_000
_CHUNK_BYTES = 1 << 18
_GROWING = (
    "position/step",
    "position/time",
    "position/value",
    "velocity/value",
    "entropy/value",
    "box/edges/value",
)


class TrajectoryWriter:
    """Write an H5MD file one frame after the other; memory does not grow with the number of frames.

    ::

        with TrajectoryWriter("run.h5", box=box, dt=0.1) as writer:
            for positions, velocities in frames:
                writer.append(positions, velocities)

    The frames go to ``<path>.partial``, which takes its final name when the block ends well and is
    removed when it ends by an exception: a file under the final name is always whole.

    Args:
        path: the file; its folder is made if missing, an existing file is replaced on success.
        box, dt, mass, species, units, forcing, prescribed, reference, present, view, metadata: as in ``Trajectory``.

    Raises:
        ValueError: for frames whose shape changes or whose values are not finite, or metadata that
            is not plain JSON; at the end, if there was no frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        box: Box,
        dt: float,
        mass: float | Tensor = 1.0,
        species: Tensor | None = None,
        units: dict[str, str] | None = None,
        forcing: dict[str, Any] | None = None,
        prescribed: Tensor | None = None,
        reference: Reference | None = None,
        present: Tensor | None = None,
        view: Tensor | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.box, self.dt = box, check_positive("dt", dt)
        self.frames = 0
        self._mass, self._species, self._prescribed, self._reference = mass, species, prescribed, reference
        self._present = present
        self._units = units or {}
        scalar_mass = not (isinstance(mass, Tensor) and mass.ndim) and not hasattr(mass, "__len__")
        self._provenance = {
            "box": {"lattice": box.lattice, "shear_rate": box.shear_rate, "dimension": box.dimension},
            "dt": self.dt,
            "mass": float(mass) if scalar_mass else None,
            "units": units,
            "forcing": forcing,
            "view": None if view is None else torch.as_tensor(view).tolist(),
            "metadata": metadata,
        }
        encoded = {key: _to_json(key, value) for key, value in self._provenance.items()}
        self._partial = self.path.with_name(self.path.name + ".partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: h5py.File | None = h5py.File(self._partial, "w")
        header = self._file.create_group("h5md")
        header.attrs["version"] = np.array([1, 1], dtype=np.int32)
        header.create_group("author").attrs["name"] = os.environ.get("USER", "unknown")
        header.create_group("creator").attrs.update({"name": "gnn_metriplectic", "version": "1"})
        self._file.create_group(PROVENANCE).attrs.update(encoded)
        self._particles = self._file.create_group("particles/all")

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def append(
        self,
        positions: Tensor | np.ndarray,
        velocities: Tensor | np.ndarray,
        entropies: Tensor | np.ndarray | None = None,
        time: float | None = None,
    ) -> None:
        """Add one frame: positions and velocities ``[N, D]``, entropies ``[N]``; time by default ``frame * dt``."""
        frame = [None if a is None else as_float_tensor("frame", a)[None] for a in (positions, velocities, entropies)]
        self.extend(*frame, times=None if time is None else torch.tensor([time], dtype=torch.float64))

    def extend(
        self,
        positions: Tensor | np.ndarray,
        velocities: Tensor | np.ndarray,
        entropies: Tensor | np.ndarray | None = None,
        times: Tensor | np.ndarray | None = None,
    ) -> None:
        """Add ``k`` frames: positions and velocities ``[k, N, D]``, entropies ``[k, N]``, times ``[k]``."""
        if self._file is None:
            raise ValueError(f"the writer of {self.path} is closed; open a new one")
        arrays = {
            "position": as_float_tensor("positions", positions),
            "velocity": as_float_tensor("velocities", velocities),
        }
        shape = tuple(arrays["position"].shape)
        if len(shape) != 3 or shape[2] != self.box.dimension:
            raise ValueError(f"positions have shape {list(shape[1:])}; expected [particles, {self.box.dimension}]")
        if entropies is not None:
            arrays["entropy"] = as_float_tensor("entropies", entropies)
        for name, values in arrays.items():
            check_frames(name, values, shape if name != "entropy" else shape[:2])
        if self.frames == 0:
            self._create(arrays)
        expected = {name for name in ("position", "velocity", "entropy") if name in self._particles}
        particles = self._particles["position/value"].shape[1]
        if set(arrays) != expected or shape[1] != particles:
            raise ValueError(
                f"frame {self.frames} has {sorted(arrays)} of {shape[1]} particles; "
                f"the first had {sorted(expected)} of {particles}: every frame must hold the same"
            )
        count = np.arange(self.frames, self.frames + shape[0])
        clock = count * self.dt if times is None else np.asarray(times, dtype=np.float64)
        self._grow("position/step", count)
        self._grow("position/time", clock)
        for name, values in arrays.items():
            self._grow(f"{name}/value", values.numpy())
        if not self.box.is_free:
            still = None if self.box.shear_rate else self._edges(0.0)
            self._grow("box/edges/value", np.stack([self._edges(t) if still is None else still for t in clock]))
        self.frames += shape[0]

    def _edges(self, time: float) -> np.ndarray:
        lattice = self.box.lattice_at(float(time)).numpy()
        skewed = self.box.shear_rate != 0 or np.any(lattice != np.diag(np.diag(lattice)))
        return lattice if skewed else np.diag(lattice).copy()

    def _create(self, arrays: dict[str, Tensor]) -> None:
        """Lay out the datasets once the first frame gives the number and type of the particles."""
        group, particles = self._particles, arrays["position"].shape[1]
        box = group.create_group("box")
        box.attrs["dimension"] = self.box.dimension
        box.attrs["boundary"] = ["none" if self.box.is_free else "periodic"] * self.box.dimension
        step = group.create_dataset("position/step", shape=(0,), maxshape=(None,), dtype=np.int64, chunks=(1024,))
        time = group.create_dataset("position/time", shape=(0,), maxshape=(None,), dtype=np.float64, chunks=(1024,))
        shapes = {f"{name}/value": values.numpy()[0] for name, values in arrays.items()}
        if not self.box.is_free:
            shapes["box/edges/value"] = self._edges(0.0)
        for name, frame in shapes.items():
            rows = max(1, min(1024, _CHUNK_BYTES // frame.nbytes))
            data = group.create_dataset(
                name,
                shape=(0, *frame.shape),
                maxshape=(None, *frame.shape),
                dtype=frame.dtype,
                chunks=(rows, *frame.shape),
            )
            if name != "position/value":
                data.parent["step"], data.parent["time"] = step, time
        mass = as_float_tensor("mass", self._mass)
        group["mass"] = np.broadcast_to(mass.numpy(), (particles,))
        group["id"] = np.arange(particles)
        if self._species is not None:
            group["species"] = torch.as_tensor(self._species).cpu().numpy()
        if self._prescribed is not None:
            self._file[f"{PROVENANCE}/prescribed"] = torch.as_tensor(self._prescribed).cpu().numpy().astype(bool)
        if self._present is not None:
            present = torch.as_tensor(self._present).cpu().numpy()
            self._file.create_dataset(f"{PROVENANCE}/present", data=present, compression="gzip")
        if self._reference is not None:
            self._write_reference(self._reference.to(device="cpu"))
        for name, quantity in (("position/value", "length"), ("velocity/value", "velocity"), ("position/time", "time")):
            # "reduced" is not a unit of H5MD's units module, and readers reject what they cannot parse.
            if self._units.get(quantity, "reduced") != "reduced":
                group[name].attrs["unit"] = self._units[quantity]

    def _write_reference(self, reference: Reference) -> None:
        self._file[REFERENCE] = reference.index.T.numpy()
        # the specification asks a list of tuples to name the particles that it counts
        self._file[REFERENCE].attrs["particles_group"] = self._particles.ref
        self._file[f"{PROVENANCE}/reference_displacement"] = reference.displacement.numpy()
        self._file[f"{PROVENANCE}/reference_displacement"].attrs["reach"] = reference.reach

    def _grow(self, name: str, rows: np.ndarray) -> None:
        data = self._particles[name]
        data.resize(self.frames + len(rows), axis=0)
        data[self.frames :] = rows

    def close(self) -> None:
        """Finish the file under its final name. Raises ValueError (and leaves no file) if it has no frame."""
        if self._file is None:
            return
        if self.frames == 0:
            self.abort()
            raise ValueError(f"no frame was written to {self.path}; append at least one")
        for name in _GROWING:  # a frame that was interrupted has reached only some of them
            if name in self._particles:
                self._particles[name].resize(self.frames, axis=0)
        self._file.close()
        self._file = None
        os.replace(self._partial, self.path)

    def abort(self) -> None:
        """Give up: close and remove the unfinished file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)


def write_trajectory(path: str | os.PathLike[str], traj: Trajectory) -> None:
    """Write ``traj`` to the H5MD file ``path``; ``read_trajectory`` gives back the same bits."""
    names = (
        "box",
        "dt",
        "mass",
        "species",
        "units",
        "forcing",
        "prescribed",
        "reference",
        "present",
        "view",
        "metadata",
    )
    with TrajectoryWriter(path, **{name: getattr(traj, name) for name in names}) as writer:
        writer.extend(traj.positions, traj.velocities, traj.entropies, traj.times)


def _to_json(name: str, value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be plain JSON (numbers, strings, lists, dicts): {error}") from error
    if len(text) > _ATTRIBUTE_LIMIT:
        raise ValueError(f"{name} is {len(text)} characters of JSON; at most {_ATTRIBUTE_LIMIT} fit")
    return text
