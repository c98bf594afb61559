"""How well particles were found, at a glance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def draw_tracking(path: Path, frame: np.ndarray | None, table: pd.DataFrame, record: dict[str, Any]) -> None:
    """Write a PNG: first frame with what was found in it, particles a frame, fractions of pixels, brightness.

    Positions have no preferred fraction of a pixel: a dip in its histogram tells of too small a diameter.
    """
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.8, 1.0]), None
    grid = left[1].get_subplotspec().subgridspec(3, 1)
    left[1].remove()
    right = [figure.add_subplot(grid[k]) for k in range(3)]
    first = table[table["frame"] == table["frame"].min()]
    axes = left[0]
    if frame is not None:
        axes.imshow(frame, cmap="gray")
    axes.plot(first["x"], first["y"], "o", mfc="none", mec="tab:orange", ms=7, lw=0.8)
    axes.set_aspect("equal")
    photons = record["error_of_photons"]
    beside = "" if photons is None else f" (by the light alone {photons:.3f})"
    axes.set_title(
        f"frame 0: {len(first)} particles; {record['tracks']} tracks, the longest of {record['longest']} of "
        f"{record['frames']} frames\nerror of a coordinate {record['error']:.3f} pixels{beside}\n"
        + ", ".join(f"{k}={v:.4g}" for k, v in (record["locating"] or {}).items()),
        fontsize=9,
    )
    counts = table.groupby("frame").size()
    right[0].plot(counts.index, counts.to_numpy(), lw=0.8)
    right[0].set(xlabel="frame", ylabel="particles")
    for name in ("x", "y"):
        right[1].hist(table[name] % 1.0, bins=40, histtype="step", density=True, label=name)
    right[1].set(xlabel="fraction of a pixel", ylabel="density", ylim=(0, None))
    right[1].legend()
    if "mass" in table:
        right[2].hist(np.log10(table.groupby("particle")["mass"].median()), bins=60, histtype="stepfilled")
        right[2].set(xlabel="log10 brightness of a track (mass)", ylabel="tracks")
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=110, format="png")
    os.replace(partial, path)
