"""A short film of two trajectories side by side, small enough to stand inside an HTML page."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from gnn_metriplectic.trajectory import Trajectory

PALETTE, SIGNED_PALETTE = "viridis", "RdBu_r"
_PIXELS = 400  # longest edge of one panel
_GAP = 20
_OVERSAMPLE = 3  # discs are drawn larger and scaled down, which smooths their edges
_FRAMES = 60
_LAYERS = 1.7  # thickness of the slab in spacings: thin enough to tell particles apart


@dataclass(frozen=True)
class Colouring:
    """What colours the particles, on one scale for truth and model.

    Attributes:
        truth, model: ``[T, N]`` at the frames of each.
        least, most: ends of the scale.
        palette: of Matplotlib.
    """

    truth: np.ndarray
    model: np.ndarray
    least: float
    most: float
    palette: str

    @classmethod
    def speed(cls, truth: Trajectory, model: Trajectory) -> Colouring:
        """By |v|, from 0 to what few particles of the first true frame exceed."""
        speeds = [traj.velocities.double().norm(dim=-1).numpy() for traj in (truth, model)]
        return cls(*speeds, 0.0, float(np.quantile(speeds[0][0], 0.98)) or 1.0, PALETTE)

    @classmethod
    def signed(cls, truth: np.ndarray, model: np.ndarray) -> Colouring:
        """By a quantity of either sign, ``[T, N]``; zero is white."""
        most = float(np.quantile(np.abs(truth), 0.98)) or 1.0
        return cls(truth, model, -most, most, SIGNED_PALETTE)

    def of(self, values: np.ndarray) -> np.ndarray:
        """Colours ``[N, 3]``."""
        return matplotlib.colormaps[self.palette](np.clip((values - self.least) / (self.most - self.least), 0, 1))[
            :, :3
        ]


def film(
    truth: Trajectory,
    model: Trajectory,
    *,
    colouring: Colouring | None = None,
    whole: bool = False,
    max_bytes: int = 1_500_000,
) -> bytes:
    """Truth on the left, model on the right, at equal times, as an animated WebP that repeats.

    Particles are coloured discs. Three dimensions are seen along z, through a slab thin enough to tell particles
    apart.

    Args:
        truth, model: first frames of both are shown together; the film ends with the shorter.
        colouring: by speed if not given.
        whole: whether frames are spread over the whole run, and not as far apart as makes motion visible.
        max_bytes: frames are left out evenly until the file is smaller.

    Returns:
        The file's content.
    """
    colouring = colouring or Colouring.speed(truth, model)
    spacing = _spacing(truth)
    speed = float((truth.velocities[:: max(1, len(truth) // 20)].double() ** 2).sum(-1).mean() ** 0.5)
    interval = max(truth.dt, model.dt, 0.1 * spacing / max(speed, 1e-300))
    span = min((len(t) - 1) * t.dt for t in (truth, model))
    if whole:
        interval = max(truth.dt, model.dt, span / (_FRAMES - 1))
    times = np.arange(min(_FRAMES, int(span / interval) + 1)) * interval
    corner, size = _view(truth)
    pictures = [_side_by_side(truth, model, t, corner, size, spacing, colouring) for t in times]
    duration = 70
    while True:
        buffer = io.BytesIO()
        pictures[0].save(
            buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=duration, loop=0, quality=55, method=2
        )
        if buffer.tell() <= max_bytes or len(pictures) == 1:
            return buffer.getvalue()
        fewer = max(1, int(0.9 * len(pictures) * max_bytes / buffer.tell()))
        duration = round(duration * len(pictures) / fewer)
        pictures = [pictures[k] for k in np.linspace(0, len(pictures) - 1, fewer).astype(int)]


def _side_by_side(
    truth: Trajectory,
    model: Trajectory,
    time: float,
    corner: np.ndarray,
    size: np.ndarray,
    spacing: float,
    colouring: Colouring,
) -> Image.Image:
    panels = []
    for traj, values in ((truth, colouring.truth), (model, colouring.model)):
        frame = min(round(time / traj.dt), len(traj) - 1)
        panels.append(_panel(traj, frame, corner, size, spacing, colouring.of(values[frame])))
    width, height = panels[0].size
    both = Image.new("RGB", (2 * width + _GAP, height), "white")
    both.paste(panels[0], (0, 0))
    both.paste(panels[1], (width + _GAP, 0))
    return both


def _panel(
    traj: Trajectory, frame: int, corner: np.ndarray, size: np.ndarray, spacing: float, colours: np.ndarray
) -> Image.Image:
    points = traj.box.wrap(traj.positions[frame].double(), float(traj.times[frame])).numpy().copy()
    if not traj.box.is_free:
        points[:, 0] %= traj.box.lengths[0]  # a skewed cell, shown as the rectangle that tiles space alike
    order, depth = np.arange(len(points)), np.zeros(len(points))
    if points.shape[1] == 3:
        thickness = min(size[2], _LAYERS * spacing)
        # 0 at the front of the slab, 1 at its back
        depth = (corner[2] + 0.5 * (size[2] + thickness) - points[:, 2]) / thickness
        order = order[(depth >= 0) & (depth <= 1)]
        order = order[np.argsort(-depth[order])]
    scale = _OVERSAMPLE * _PIXELS / size[:2].max()
    shape = np.maximum(1, np.round(size[:2] * scale)).astype(int)
    image = Image.new("RGB", tuple(shape), "#fbfcfd")
    draw = ImageDraw.Draw(image)
    for index in order:
        x, y = (points[index, :2] - corner[:2]) * scale
        y = shape[1] - y
        radius = 0.32 * spacing * scale * (1 - 0.35 * depth[index])
        colour = colours[index] + (1 - colours[index]) * 0.55 * depth[index]
        fill, edge = (tuple(int(255 * c) for c in shade) for shade in (colour, 0.8 * colour))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=edge, width=_OVERSAMPLE)
    draw.rectangle((0, 0, shape[0] - 1, shape[1] - 1), outline="#aab2bd", width=_OVERSAMPLE)
    return image.reduce(_OVERSAMPLE)


def _view(traj: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Lower corner and size of what is shown: the cell, or all places visited, with a margin."""
    if not traj.box.is_free:
        return np.zeros(traj.dimension), np.array(traj.box.lengths)
    every = traj.positions[:: max(1, len(traj) // 50)].double().numpy().reshape(-1, traj.dimension)
    low, high = every.min(axis=0), every.max(axis=0)
    margin = 0.04 * (high - low).max()
    return low - margin, high - low + 2 * margin


def _spacing(traj: Trajectory) -> float:
    """Distance between neighbours if particles were on a cubic lattice."""
    volume = float(np.prod(_view(traj)[1]))
    return (volume / traj.num_particles) ** (1 / traj.dimension)
