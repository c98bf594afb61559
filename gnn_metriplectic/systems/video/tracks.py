"""Tracks as tables, and from them trajectories in which particles come and go.

A table has a row for each sighting: ``frame``, ``particle``, ``x``, ``y``, in pixels (or in the units of the file), and
``mass`` or ``size`` where there is one, by which species are told apart.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

# TrackMate's names for ours
_TRACKMATE = {
    "FRAME": "frame", "TRACK_ID": "particle", "POSITION_X": "x", "POSITION_Y": "y", "TOTAL_INTENSITY_CH1": "mass",
    "RADIUS": "size",
}  # fmt: skip


# bins of the logarithm of a brightness, and rounds in which species and the variance within them are found in turn
CLASSES, ROUNDS = 500, 5


def read_tracks(path: str | Path) -> pd.DataFrame:
    """Tracks of trackpy (CSV, HDF) or TrackMate (its CSV of spots in tracks, its XML of tracks).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read or lacks a column, or numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of tracks {path}")
    try:
        if path.suffix.lower() == ".xml":
            table = _read_xml(path)
        elif path.suffix.lower() in (".h5", ".hdf", ".hdf5"):
            table = _read_hdf(path)
        else:
            table = pd.read_csv(path, low_memory=False)
    except (ImportError, OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        raise ValueError(f"{path} cannot be read as tracks: {' '.join(str(error).split())}") from error
    table = table.rename(columns={name: ours for name, ours in _TRACKMATE.items() if name in table})
    missing = [name for name in ("frame", "particle", "x", "y") if name not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    kept = [name for name in ("frame", "particle", "x", "y", "mass", "size", "ep") if name in table]
    # TrackMate has lines of units below its header
    table = table[kept].apply(pd.to_numeric, errors="coerce").dropna(subset=["frame", "particle", "x", "y"])
    if table.empty:
        raise ValueError(f"{path} has no numbers in frame, particle, x and y")
    return table.astype({"frame": int, "particle": int}).sort_values(["frame", "particle"], ignore_index=True)


def _read_xml(path: Path) -> pd.DataFrame:
    rows = []
    for number, track in enumerate(ElementTree.parse(path).getroot().iter("particle")):
        rows += [(int(d.get("t")), number, float(d.get("x")), float(d.get("y"))) for d in track.iter("detection")]
    return pd.DataFrame(rows, columns=["frame", "particle", "x", "y"])


def _read_hdf(path: Path) -> pd.DataFrame:
    """What ``trackpy.PandasHDFStore`` or ``DataFrame.to_hdf`` wrote: a table, or a table a frame."""
    with pd.HDFStore(path, mode="r") as store:
        return pd.concat([store[key] for key in store.keys()])  # noqa: SIM118


def tell_species(values: np.ndarray, count: int, sightings: np.ndarray | None = None) -> np.ndarray:
    """Species ``[n]`` from 0, the smallest, to ``count - 1`` by one number of each particle.

    Cuts of its logarithm at the least -ln of the likelihood of which particle is in which species, with normal spreads
    of one variance (Symons, Biometrics 37, 35, 1981): with the least variance alone (Fisher and Jenks) a species of
    many is cut in two where another has few.

    Args:
        values: ``[n]``, brightness or size.
        count: number of species.
        sightings: ``[n]``, by which particles count; by default all the same. Short tracks tell little.

    Raises:
        ValueError: numbers that are not positive, or fewer different ones than species.
    """
    if count == 1:
        return np.zeros(len(values), dtype=np.int64)
    if not (values > 0).all() or len(np.unique(values)) < count:
        raise ValueError(f"{count} species cannot be told apart by the brightness of {len(values)} particles")
    logs = np.log(values)
    weights = np.ones(len(logs)) if sightings is None else sightings / sightings.mean()
    edges = np.linspace(logs.min(), logs.max(), CLASSES + 1)
    place = np.digitize(logs, edges[1:-1])
    filled = np.unique(place)
    moments = [np.bincount(place, weights * logs**k, CLASSES)[filled] for k in range(3)]
    first, last = np.meshgrid(np.arange(len(filled) + 1), np.arange(len(filled) + 1), indexing="ij")
    number, total, squares = (np.concatenate([[0.0], np.cumsum(m)])[[last, first]] for m in moments)
    number, total, squares = (ends[0] - ends[1] for ends in (number, total, squares))
    apart = last > first  # bins from first to last - 1 are a species
    share = np.where(apart, number, 1.0)
    within = np.where(apart, squares - total**2 / share, np.inf)
    surprise = -share * np.log(share / weights.sum())
    cuts = _cuts(within, count)
    for _ in range(ROUNDS):
        ends = [0, *cuts, len(filled)]
        variance = max(sum(within[i, j] for i, j in pairwise(ends)) / weights.sum(), (edges[1] - edges[0]) ** 2)
        cuts = _cuts(within / (2.0 * variance) + surprise, count)
    return np.searchsorted(edges[filled[cuts]], logs, side="right")


def _cuts(cost: np.ndarray, count: int) -> list[int]:
    """First bins of all species but the first, at the least sum of ``cost [first, last]``."""
    best, steps = cost[0], []
    for _ in range(count - 1):
        total = best[:, None] + cost
        steps.append(total.argmin(axis=0))
        best = total.min(axis=0)
    end, cuts = len(cost) - 1, []
    for step in reversed(steps):
        end = int(step[end])
        cuts.append(end)
    return cuts[::-1]


def fill(
    table: pd.DataFrame, begin: int, end: int, shortest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tracks between two frames, those of at least ``shortest`` sightings, on a grid of frames.

    Returns:
        positions ``[T, N, 2]``, between the sightings on a straight line and beyond them the nearest; whether a
        particle was seen ``[T, N]``; the tracks' numbers ``[N]``; whether it was there, or in a gap ``[T, N]``.

    Raises:
        ValueError: no track is long enough.
    """
    part = table[(table["frame"] >= begin) & (table["frame"] < end)]
    counts = part["particle"].value_counts()
    numbers = np.sort(counts[counts >= shortest].index.to_numpy())
    if len(numbers) < 2:
        raise ValueError(
            f"tracks are too short: between frames {begin} and {end} {len(numbers)} have {shortest} sightings or more "
            f"(the longest has {int(counts.max()) if len(counts) else 0}): take a larger memory or search_range, a "
            "smaller lag or window, or a film with more frames a second"
        )
    part = part[part["particle"].isin(numbers)]
    column = np.searchsorted(numbers, part["particle"].to_numpy())
    frame = part["frame"].to_numpy() - begin
    positions = np.full((end - begin, len(numbers), 2), np.nan)
    positions[frame, column] = part[["x", "y"]].to_numpy()
    seen = np.isfinite(positions[..., 0])
    frames = np.arange(end - begin)
    alive = np.zeros_like(seen)
    for k in range(len(numbers)):
        known = np.flatnonzero(seen[:, k])
        alive[known[0] : known[-1] + 1, k] = True
        for d in range(2):
            positions[:, k, d] = np.interp(frames, known, positions[known, k, d])
    return positions, seen, numbers, alive


def localisation_error(positions: np.ndarray, seen: np.ndarray, *, overdamped: bool) -> float:
    """Standard deviation of the error of a coordinate, from what in the motion is noise.

    Without inertia successive displacements have the covariance -σ² (Vestergaard, Blainey and Flyvbjerg, Phys. Rev. E
    89, 022726, 2014); smooth motion has small sixth differences, whose variance is 924 σ².

    Args:
        positions, seen: ``[T, N, 2]`` and ``[T, N]``.
        overdamped: which of the two.
    """
    order = 2 if overdamped else 6
    if len(positions) <= order:
        return float("nan")
    window = np.lib.stride_tricks.sliding_window_view(seen, order + 1, axis=0).all(axis=-1)
    if overdamped:
        steps = np.diff(positions, axis=0)
        variance = -(steps[1:] * steps[:-1])[window].mean()
    else:
        variance = (np.diff(positions, order, axis=0)[window] ** 2).mean() / 924.0
    return float(max(variance, 0.0) ** 0.5)


def median_of(table: pd.DataFrame, numbers: Sequence[int], name: str) -> np.ndarray:
    """Median of a column over each track, ``[N]``."""
    return table.groupby("particle")[name].median().loc[list(numbers)].to_numpy()
