"""Particles as a microscope would show them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Microscope:
    """Gaussian spots on an uneven ground, with shot noise, read noise, and 8 bits.

    Attributes:
        width, height: of a frame, in pixels.
        spread: standard deviation of the spot of each species, in pixels.
        brightness: of its centre, in grey levels; negative for dark particles.
        ground: grey level of the ground.
        unevenness: by which share the light falls off towards the corners.
        gain: grey levels a photon.
        read_noise: in grey levels.
    """

    width: int
    height: int
    spread: tuple[float, ...]
    brightness: tuple[float, ...]
    ground: float = 40.0
    unevenness: float = 0.3
    gain: float = 0.25
    read_noise: float = 1.0

    def frame(self, places: np.ndarray, species: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A picture ``[height, width]`` uint8 of particles at ``places`` ``[n, 2]`` (x, y), in pixels."""
        picture = np.full((self.height, self.width), float(self.ground))
        reach = int(np.ceil(4.5 * max(self.spread)))
        offsets = np.arange(-reach, reach + 1)
        for kind, (sigma, peak) in enumerate(zip(self.spread, self.brightness, strict=True)):
            points = places[species == kind]
            near = (points > -reach).all(axis=1) & (points < (self.width + reach, self.height + reach)).all(axis=1)
            points = points[near]
            corner = np.round(points).astype(int)
            spots = [np.exp(-((offsets - (p - c)[:, None]) ** 2) / (2.0 * sigma**2)) for p, c in
                     ((points[:, d], corner[:, d]) for d in range(2))]  # fmt: skip
            rows, columns = (corner[:, d, None] + offsets for d in (1, 0))
            inside = ((rows >= 0) & (rows < self.height))[:, :, None] & ((columns >= 0) & (columns < self.width))[
                :, None
            ]
            values = peak * spots[1][:, :, None] * spots[0][:, None, :]
            index = rows.clip(0, self.height - 1)[:, :, None] * self.width + columns.clip(0, self.width - 1)[:, None]
            picture += np.bincount(index[inside], values[inside], self.width * self.height).reshape(picture.shape)
        y, x = np.mgrid[-1.0 : 1.0 : self.height * 1j, -1.0 : 1.0 : self.width * 1j]
        picture = picture * (1.0 - 0.5 * self.unevenness * (x**2 + y**2))
        picture = self.gain * random.poisson(np.maximum(picture, 0.0) / self.gain)
        picture = picture + self.read_noise * random.standard_normal(picture.shape)
        return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def score_tracking(
    found: np.ndarray, truth: np.ndarray, reach: float, view: tuple[float, float], margin: float
) -> tuple[int, int, int, np.ndarray]:
    """Match what was found in a frame with what was there, nearest first.

    Args:
        found, truth: ``[n, 2]`` and ``[m, 2]``.
        reach: farthest that a pair may be apart.
        view, margin: width and height; what is nearer than ``margin`` to an edge does not count.

    Returns:
        pairs, true particles and found ones that count, and the differences of the pairs ``[pairs, 2]``.
    """
    from scipy.optimize import linear_sum_assignment

    distance = np.linalg.norm(found[:, None] - truth[None], axis=2)
    rows, columns = linear_sum_assignment(np.minimum(distance, 2.0 * reach))
    close = distance[rows, columns] < reach
    rows, columns = rows[close], columns[close]

    def inner(points: np.ndarray) -> np.ndarray:
        return ((points > margin) & (points < np.array(view) - margin)).all(axis=1)

    counted = inner(truth)[columns]
    extra = np.setdiff1d(np.flatnonzero(inner(found)), rows)
    pairs = int(counted.sum())
    return pairs, int(inner(truth).sum()), pairs + len(extra), (found[rows] - truth[columns])[counted]
