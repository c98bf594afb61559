"""Particles in frames by trackpy: choosing its parameters, finding, and linking into tracks.

Crocker and Grier, J. Colloid Interface Sci. 179, 298 (1996); Allan et al., trackpy, doi:10.5281/zenodo.1213240.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gnn_metriplectic.systems.video.film import INSTALL

_TRY = "look at a frame, and try dark=true for particles darker than the ground, another diameter, or less minmass"


@dataclass(frozen=True)
class Locating:
    """Parameters of trackpy, in pixels; None where they are to be suggested.

    Attributes:
        diameter: odd, of a spot.
        minmass: least brightness of a spot, summed over it.
        separation: least distance of two spots; the diameter by default.
        search_range: farthest that a particle goes from frame to frame.
        memory: frames for which a particle may be lost.
        dark: whether particles are dark on a bright ground.
    """

    diameter: int | None
    minmass: float | None
    separation: float | None
    search_range: float | None
    memory: int
    dark: bool

    def suggested(self, frame: np.ndarray) -> Locating:
        """With what is missing chosen by a look at a frame.

        Raises:
            ValueError: a diameter that is even or too small, or a frame without particles.
        """
        diameter = suggest_diameter(frame) if self.diameter is None else self.diameter
        if diameter < 3 or diameter % 2 == 0:
            raise ValueError(f"diameter is {diameter} pixels; it must be odd and at least 3")
        known = replace(self, diameter=diameter, separation=self.separation or float(diameter))
        spots = known.spots(frame, minmass=self.minmass or 0.0)
        if len(spots) == 0:
            raise ValueError(f"no particles found with diameter={diameter} and minmass={self.minmass or 0}; {_TRY}")
        minmass = self.minmass
        if minmass is None:
            minmass = suggest_minmass(frame, spots["mass"].to_numpy(), diameter)
            spots = spots[spots["mass"] >= minmass]
            if spots.empty:
                raise ValueError(f"no particles found: all spots of {diameter} pixels are as faint as noise; {_TRY}")
        reach = self.search_range or suggest_search_range(spots[["x", "y"]].to_numpy(), diameter)
        return replace(known, minmass=float(minmass), search_range=float(reach))

    def spots(self, frame: np.ndarray, *, minmass: float | None = None) -> pd.DataFrame:
        """Spots of one frame: x, y, mass, size, signal, ep (the error that photon noise leaves in x and y)."""
        return _trackpy().locate(
            frame,
            self.diameter,
            minmass=self.minmass if minmass is None else minmass,
            separation=self.separation,
            invert=self.dark,
            engine="python",
        )


def suggest_diameter(frame: np.ndarray) -> int:
    """Odd diameter of the spots, from the width of the autocorrelation of a frame."""
    from scipy.ndimage import gaussian_filter

    values = frame.astype(np.float64)
    values = gaussian_filter(values, 1.0) - gaussian_filter(values, max(frame.shape) / 20.0)
    spectrum = np.abs(np.fft.rfft2(values - values.mean())) ** 2
    correlation = np.fft.irfft2(spectrum, frame.shape)
    profile = 0.5 * (correlation[0, : frame.shape[1] // 2] + np.resize(correlation[:, 0], frame.shape[1] // 2))
    below = np.flatnonzero(profile < 0.5 * profile[0])
    half = float(below[0]) if below.size else 3.0
    sigma = half / (2.0 * np.log(2.0) ** 0.5)  # exp(-r² / 4σ²) of Gaussian spots
    return int(2 * max(round(1.9 * sigma), 1) + 1)


def suggest_minmass(frame: np.ndarray, masses: np.ndarray, diameter: int) -> float:
    """Half of a faint particle, but twice what noise alone adds up to over a spot.

    The noise of a pixel is told by second differences in both directions, which no picture has (Immerkær, Comput. Vis.
    Image Underst. 64, 300, 1996); trackpy's smoothing leaves 1 / 2√π of it.
    """
    values = frame.astype(np.float64)
    for axis in (0, 1):
        values = np.diff(values, 2, axis=axis)
    pixel = np.median(np.abs(values)) / (0.6745 * 6.0)
    noise = 0.25 * np.pi * diameter**2 * pixel / (2.0 * np.pi**0.5)
    real = masses[masses > 2.0 * noise]
    return max(2.0 * noise, 0.5 * float(np.quantile(real, 0.05)) if len(real) else 0.0)


def suggest_search_range(places: np.ndarray, diameter: int) -> float:
    """0.4 of the usual distance to the nearest neighbour, at most two diameters."""
    from scipy.spatial import cKDTree

    if len(places) < 2:
        return float(diameter)
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    return float(min(0.4 * np.median(nearest), 2.0 * diameter))


def locate(
    frames: Iterable[np.ndarray], settings: Locating, advance: Callable[[int], None] | None = None
) -> pd.DataFrame:
    """Spots of all frames: the columns of `Locating.spots` and ``frame``.

    Raises:
        ValueError: fewer than two frames, or no particle in any.
    """
    found = []
    for number, frame in enumerate(frames):
        found.append(settings.spots(frame).assign(frame=number))
        if advance is not None:
            advance(number)
    if len(found) < 2:
        raise ValueError(f"the film has {len(found)} frame(s); a film is needed, to learn from its motion")
    table = pd.concat(found, ignore_index=True)
    if table.empty:
        raise ValueError("no particles found in any frame: lower minmass, or try another diameter or dark=true")
    return table


def link(spots: pd.DataFrame, settings: Locating) -> pd.DataFrame:
    """The same rows with ``particle``, the number of the track."""
    trackpy = _trackpy()
    trackpy.quiet()
    return trackpy.link(spots, settings.search_range, memory=settings.memory)


def _trackpy():
    try:
        import trackpy
    except ImportError as error:
        raise FileNotFoundError(f"trackpy is not installed: {INSTALL}") from error
    return trackpy
