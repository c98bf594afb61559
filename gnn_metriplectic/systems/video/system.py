"""The system of a film: tracked once, cut into training, validation and test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from gnn_metriplectic.geometry import Box
from gnn_metriplectic.systems.video.film import read_film
from gnn_metriplectic.systems.video.locate import Locating, link, locate
from gnn_metriplectic.systems.video.picture import draw_tracking
from gnn_metriplectic.systems.video.tracks import fill, localisation_error, median_of, read_tracks, tell_species
from gnn_metriplectic.trajectory import Trajectory, write_trajectory
from gnn_metriplectic.trajectory.checks import check_positive
from gnn_metriplectic.trajectory.window import Window


@dataclass(frozen=True)
class VideoSystem:
    """Particles of a film, or of tracks that another program found in it.

    Attributes:
        film: a film, a TIFF stack or a folder of pictures; None where ``tracks`` are given.
        tracks: a file of tracks (trackpy's CSV or HDF, TrackMate's CSV or XML); None where trackpy finds them.
        pixel: length of a pixel (of the unit of the tracks).
        frame_time: time from frame to frame.
        length_unit, time_unit: names of both units.
        diameter, minmass, separation, search_range, memory, dark: of the tracking, see `Locating`.
        species: number of sizes to tell apart.
        prescribed: the species whose motion is imposed, such as a needle's, or None.
        edge: particles of a test that are within this length of the edge of the view at first are held where they are.
        overdamped: whether frames do not resolve inertia.
        window, order: frames and degree of the polynomials whose slopes are the velocities.
        mass: of a particle, or of each species.
        temperature: k_B T, where it is known; without inertia it is the unit of energy.
    """

    film: str | None
    tracks: str | None
    pixel: float
    frame_time: float
    length_unit: str
    time_unit: str
    diameter: int | None
    minmass: float | None
    separation: float | None
    search_range: float | None
    memory: int
    dark: bool
    species: int
    prescribed: int | None
    edge: float
    overdamped: bool
    window: int
    order: int
    mass: float | list[float]
    temperature: float | None

    # the film is tracked once
    serial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.film is None) == (self.tracks is None):
            raise ValueError("give a film=... or tracks=... of one, and not both")
        for name in ("pixel", "frame_time"):
            check_positive(f"{name} (the scale of the film)", getattr(self, name))
        if self.window % 2 == 0 or not 0 < self.order < self.window:
            raise ValueError(f"window is {self.window} and order {self.order}; window must be odd, and above the order")
        if not self.overdamped and self.order < 3:
            raise ValueError(f"order is {self.order}; slopes of parabolas lose what forces do: give 3 or more")
        if self.prescribed is not None and not 0 <= self.prescribed < self.species:
            raise ValueError(f"prescribed is species {self.prescribed} of {self.species}, numbered from 0")

    def generate(
        self,
        path: Path,
        *,
        begin: float,
        end: float,
        seed: int,
        complete: bool = False,
        advance: Callable[[float, str], None] | None = None,
    ) -> None:
        """Write one part of the film to ``path``; the film is tracked at the first call.

        Args:
            path: of the trajectory; tracks, their record and their picture lie one folder above.
            begin, end: of the part, as shares of the frames.
            seed: not used.
            complete: whether only particles that are there from beginning to end are taken, as a rollout needs.
            advance: told the share that is done, and the name of the stage.

        Raises:
            ValueError: a film that cannot be decoded, of one frame or without particles, or tracks too short.
            FileNotFoundError: a file that is not there, or a library that is missing.
        """
        table, record = self.track(path.parent.parent, advance or (lambda share, what: None))
        frames = record["frames"]
        first, last = round(begin * frames), round(end * frames)
        write_trajectory(path, self.trajectory(table, record, first, last, complete=complete))

    def track(self, folder: Path, advance: Callable[[float, str], None]) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The tracks in pixels and what is known of them, found where ``folder`` does not hold them yet.

        The record holds ``frames``, ``view`` (two corners), ``locating`` (the parameters in use), ``counts`` and
        ``error``, that of a coordinate in pixels.
        """
        kept, about = folder / "tracks.csv", folder / "tracking.json"
        if kept.is_file() and about.is_file():
            return read_tracks(kept), json.loads(about.read_text())
        frame = locating = None
        if self.tracks is not None:
            table = read_tracks(self.tracks)
            table["frame"] -= table["frame"].min()
            frames = int(table["frame"].max()) + 1
            view = [table[["x", "y"]].min().tolist(), table[["x", "y"]].max().tolist()]
            if frames < 2:
                raise ValueError(f"{self.tracks} has one frame; tracks are needed, to learn from their motion")
        else:
            frame = next(read_film(self.film))
            locating = self.locating(frame)
            # how long a film is, its end tells
            spots = locate(read_film(self.film), locating, lambda n: advance(n / (n + 500.0), f"tracking frame {n}"))
            advance(1.0, "linking")
            table = link(spots, locating)
            # spots are only found where all of them is in the picture
            rim = locating.diameter // 2
            frames, view = (
                int(spots["frame"].max()) + 1,
                [[rim, rim], [frame.shape[1] - 1.0 - rim, frame.shape[0] - 1.0 - rim]],
            )
        longest = int(table["particle"].value_counts().max())
        least = 3 if self.overdamped else self.window
        positions, seen, _, _ = fill(table, 0, frames, min(least, longest))
        record = {
            "frames": frames,
            "view": view,
            "locating": None if locating is None else asdict(locating),
            "particles_a_frame": len(table) / frames,
            "tracks": int(table["particle"].nunique()),
            "longest": longest,
            "error": localisation_error(positions, seen, overdamped=self.overdamped),
            "error_of_photons": float(table["ep"].median()) if "ep" in table else None,
        }
        folder.mkdir(parents=True, exist_ok=True)
        draw_tracking(folder / "tracking.png", frame, table, record)
        for file, write in ((kept, lambda to: table.to_csv(to, index=False)), (about, _json_writer(record))):
            partial = file.with_name(file.name + ".partial")
            write(partial)
            os.replace(partial, file)
        return table, record

    def locating(self, frame: np.ndarray) -> Locating:
        """Parameters of trackpy for a film that begins with ``frame``."""
        names = ("diameter", "minmass", "separation", "search_range", "memory", "dark")
        return Locating(**{name: getattr(self, name) for name in names}).suggested(frame)

    def trajectory(
        self, table: pd.DataFrame, record: dict[str, Any], first: int, last: int, *, complete: bool
    ) -> Trajectory:
        """Frames ``first`` to ``last - 1`` of the tracks in units of length and time; errors as in `generate`."""
        # without inertia velocities are for looking at, and displacements are learned from
        window, order = (3, 1) if self.overdamped else (self.window, self.order)
        if last - first < window:
            raise ValueError(
                f"frames {first} to {last} of {record['frames']} are fewer than the {window} that give velocities: "
                "give a longer film"
            )
        positions, seen, numbers, alive = fill(table, first, last, 2 if self.overdamped else window)
        positions, view, error = (self.pixel * np.array(x) for x in (positions, record["view"], record["error"]))
        rim = np.zeros(len(numbers), dtype=bool)
        if complete:
            whole = alive[[0, -1]].all(axis=0)
            if whole.sum() < 2:
                raise ValueError(
                    f"{int(whole.sum())} tracks last from frame {first} to {last}: take a shorter test (system.test), "
                    "a larger memory, or a larger search_range"
                )
            rim = alive[0] & (np.minimum(positions[0] - view[0], view[1] - positions[0]).min(axis=1) < self.edge)
            kept = whole | rim
            positions, seen, numbers, rim = positions[:, kept], seen[:, kept], numbers[kept], rim[kept]
        fit = Window(window, order, self.frame_time)
        velocities = fit.slopes(positions)
        kinds = None
        if self.species > 1:
            name = "mass" if "mass" in table else "size"
            if name not in table:
                raise ValueError("species need a column mass or size in the tracks: give species=1, or add one")
            kinds = tell_species(median_of(table, numbers, name), self.species, seen.sum(axis=0))
        prescribed = np.zeros(len(numbers), dtype=bool)
        if self.prescribed is not None:
            prescribed |= kinds == self.prescribed
        # it does no work, and over snapshots what it surrounds has the static averages of the film
        rim &= ~prescribed
        positions[:, rim], velocities[:, rim] = positions[0, rim], 0.0
        prescribed |= rim
        metadata: dict[str, Any] = {
            "system": "video",
            "settings": asdict(self),
            "tracking": record,
            "first_frame": first,
            "localisation": {"position": error, "window": window, "order": order},
        }
        if self.temperature is not None:
            metadata["temperature"] = self.temperature
        masses = np.broadcast_to(self.mass, self.species)
        return Trajectory(
            positions.astype(np.float32),
            velocities.astype(np.float32),
            box=Box.free(2),
            dt=self.frame_time,
            mass=float(masses[0]) if kinds is None else torch.as_tensor(masses[kinds].copy()),
            species=kinds,
            units={"length": self.length_unit, "time": self.time_unit},
            prescribed=prescribed if prescribed.any() else None,
            present=None if complete else (seen if self.overdamped else fit.whole(seen)),
            view=None if complete else view,
            metadata=metadata,
        )


def _json_writer(content: dict[str, Any]) -> Callable[[Path], Any]:
    return lambda to: to.write_text(json.dumps(content, indent=1))
