"""Reading H5MD, our own files and those of other programs. The layout is described in ``h5md``."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from gnn_metriplectic.geometry import Box, Reference
from gnn_metriplectic.trajectory.h5md_write import PROVENANCE, REFERENCE
from gnn_metriplectic.trajectory.trajectory import Trajectory


def read_trajectory(path: str | os.PathLike[str]) -> Trajectory:
    """The trajectory in the H5MD file ``path``.

    A file of another program needs positions and velocities at the same, evenly spaced frames. Its
    first group of particles is read; an ``image`` element unwraps the positions; particles listed in
    changing order are sorted by ``id``; a missing mass becomes 1 with a warning.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is cut short, is no H5MD file, has no velocities, or uses a layout that
            cannot be represented (a box that changes size, walls, frames that do not match), and for
            all that ``Trajectory`` refuses.
    """
    path = Path(path)
    if not path.is_file():
        partial = path.with_name(path.name + ".partial")
        hint = f"; {partial} is what an interrupted run left and is not complete" if partial.exists() else ""
        raise FileNotFoundError(f"there is no trajectory file {path}{hint}")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except OSError as error:
        reason = "is cut short (an interrupted copy or a full disk?)" if "truncated" in str(error) else "cannot be read"
        raise ValueError(f"{path} {reason}: {error}. Copy or generate it again; H5MD is an HDF5 file") from error
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from None


def _read(path: Path, file: h5py.File) -> Trajectory:
    groups = [name for name, item in file.get("particles", {}).items() if isinstance(item, h5py.Group)]
    if not groups:
        raise ValueError(f"{path} has no group /particles: it is no H5MD trajectory (convert it, e.g. with MDAnalysis)")
    group = file["particles"]["all" if "all" in groups else groups[0]]
    for name in ("position", "velocity"):
        if name not in group:
            have = ", ".join(sorted(group)) or "nothing"
            advice = "write them with the trajectory"
            if name == "velocity":
                advice += ", or compute them by central differences and build a Trajectory by hand"
            raise ValueError(f"{path} has no {name} in {group.name} (it has {have}): {advice}")
    provenance = _provenance(file)
    positions, times = _element(path, group, "position")
    velocities, _ = _element(path, group, "velocity", len(positions))
    entropies = _element(path, group, "entropy", len(positions))[0] if "entropy" in group else None
    box = _box(path, group, provenance)
    if "image" in group and not box.is_free:
        image = _element(path, group, "image", len(positions))[0]
        positions = positions + image @ np.asarray(box.lattice, dtype=positions.dtype)
    dt = provenance.get("dt")
    if dt is None:
        if times is None or len(times) < 2:
            raise ValueError(f"{path} does not tell the time between its frames: build a Trajectory with dt by hand")
        dt = float(times[-1] - times[0]) / (len(times) - 1)
    mass = _constant(group, "mass")
    if mass is None:
        warnings.warn(f"{path} has no mass; every particle is given mass 1", stacklevel=3)
        mass = 1.0
    if provenance.get("mass") is not None:
        mass = provenance["mass"]
    species = _constant(group, "species")
    if isinstance(group.get("id"), h5py.Group):
        order = np.argsort(_element(path, group, "id", len(positions))[0], axis=1, kind="stable")
        positions, velocities = (np.take_along_axis(a, order[..., None], axis=1) for a in (positions, velocities))
        # mass and species of the first frame belong to that frame's order
        mass = mass[order[0]] if np.ndim(mass) else mass
        species = None if species is None else species[order[0]]
        entropies = None if entropies is None else np.take_along_axis(entropies, order, axis=1)
    prescribed, present = (file.get(f"{PROVENANCE}/{name}") for name in ("prescribed", "present"))
    return Trajectory(
        positions,
        velocities,
        box=box,
        dt=dt,
        mass=mass,
        species=species,
        entropies=entropies,
        times=times,
        units=provenance["units"] if "units" in provenance else _units(group),
        forcing=provenance.get("forcing"),
        prescribed=None if prescribed is None else prescribed[()],
        reference=_reference(file, positions.shape[1]),
        present=None if present is None else present[()],
        view=provenance.get("view"),
        metadata=provenance.get("metadata"),
    )


def _reference(file: h5py.File, particles: int) -> Reference | None:
    displacement = file.get(f"{PROVENANCE}/reference_displacement")
    if displacement is None:
        return None
    index = torch.from_numpy(file[REFERENCE][()].T.copy())
    reach = float(displacement.attrs["reach"])
    return Reference(index, torch.from_numpy(displacement[()]), particles, reach)


def _provenance(file: h5py.File) -> dict[str, Any]:
    if PROVENANCE not in file:
        return {}
    return {key: json.loads(value) for key, value in file[PROVENANCE].attrs.items()}


def _element(
    path: Path, group: h5py.Group, name: str, frames: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values ``[T, ...]`` and times ``[T]`` of a time-dependent element (one frame if it is fixed)."""
    item = group[name]
    if isinstance(item, h5py.Dataset):  # fixed in time
        values = item[()][None]
        return (values if frames is None else np.broadcast_to(values, (frames, *values.shape[1:]))), None
    if "value" not in item:
        raise ValueError(f"{path}: {item.name} has no dataset 'value'; this layout is not H5MD 1.1")
    values = item["value"][()]
    if frames is not None and len(values) != frames:
        raise ValueError(f"{path}: {item.name} has {len(values)} frames, position {frames}: store both at every frame")
    if "time" not in item:
        return values, None
    time = item["time"][()]
    if np.ndim(time) == 0:  # H5MD's fixed interval, with an optional offset
        time = float(item["time"].attrs.get("offset", 0.0)) + np.arange(len(values)) * float(time)
    return values, np.asarray(time, dtype=np.float64)


def _constant(group: h5py.Group, name: str) -> np.ndarray | None:
    """Values ``[N]`` of an element that does not change, or its first frame."""
    if name not in group:
        return None
    item = group[name]
    return item[()] if isinstance(item, h5py.Dataset) else item["value"][0]


def _box(path: Path, group: h5py.Group, provenance: dict[str, Any]) -> Box:
    if "box" in provenance:
        box = provenance["box"]
        return Box(box["dimension"], box["lattice"], box["shear_rate"])
    if "box" not in group or "dimension" not in group["box"].attrs:
        raise ValueError(f"{path} has no box in {group.name}; H5MD requires one")
    item = group["box"]
    dimension = int(item.attrs["dimension"])
    boundary = [b.decode() if isinstance(b, bytes) else str(b) for b in np.atleast_1d(item.attrs.get("boundary", []))]
    if not boundary or all(b == "none" for b in boundary):
        return Box.free(dimension)
    if any(b != "periodic" for b in boundary):
        raise ValueError(f"{path} has boundaries {boundary}; only all periodic or all none are supported")
    if "edges" not in item:
        raise ValueError(f"{path} has a periodic box without edges in {item.name}")
    edges = item["edges"]
    if isinstance(edges, h5py.Group):
        every = edges["value"][()]
        changed = np.abs(every - every[0]).reshape(len(every), -1).max(axis=1) > 1e-6 * np.abs(every[0]).max()
        if changed.any():
            raise ValueError(f"{path}: the box changes at frame {int(changed.argmax())}; it must keep its size")
        edges = every[0]
    else:
        edges = edges[()]
    edges = np.asarray(edges, dtype=np.float64)
    return Box.triclinic(edges) if edges.ndim == 2 else Box.orthorhombic(np.broadcast_to(edges, (dimension,)))


def _units(group: h5py.Group) -> dict[str, str] | None:
    found = {}
    for name, quantity in (("position/value", "length"), ("velocity/value", "velocity"), ("position/time", "time")):
        unit = group[name].attrs.get("unit") if name in group else None
        if unit is not None:
            found[quantity] = unit.decode() if isinstance(unit, bytes) else str(unit)
    return found or None
