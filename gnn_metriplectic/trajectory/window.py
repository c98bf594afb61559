"""What a window does to a velocity.

The velocity of a track is the slope of a polynomial fitted to its places in a window of frames (Savitzky and Golay),

    u(t) = Σ_k c_k r(t + k h) = ∫ w(s) v(t + s) ds,    w constant between frames, even, ∫ w ds = 1.

Of a cubic ∫ w s² ds = 0, so that motion that is smooth over the window, such as forces make, is seen as it is. Friction
and noise are not: with a friction γ = ζ/m and its noise at k_B T, and errors of variance σ² in the places, to first
order in γ

    <u(0) u(L)> = (k_B T / m) (1 - γ m(L)) + σ² e(L)
    m(L) = ∬ w(s) w(s') |L + s - s'| ds ds',    e(L) = Σ_k c_k c_{k+L}

(the second order has ∬ w w' (L + s - s')² = L² for a cubic). So the noise in u(L) - u(0) is that of the time
m(L) - m(0) in place of L, and it has σ² 2 (e(0) - e(L)) beside. The friction is that with which one velocity
that is seen tells the next, <u(0) u(L)> / <u²>: errors, too, are forgotten, which looks like friction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.signal import savgol_coeffs, savgol_filter
from torch import Tensor


class Sight(NamedTuple):
    """How velocities at two times were seen, each one number or one a particle.

    Attributes:
        share: (m(L) - m(0)) / L, the share of the time L between them for which friction and noise show.
        memory: m(0), in units of time.
        error: variance of the error of a component of a velocity.
        noise: variance of the error of a component of their difference.
    """

    share: Tensor | float = 1.0
    memory: Tensor | float = 0.0
    error: Tensor | float = 0.0
    noise: Tensor | float = 0.0


# velocities as they are
EXACT = Sight()


@dataclass(frozen=True)
class Window:
    """A window of frames whose slopes are velocities.

    Attributes:
        frames: odd.
        degree: of the polynomials, below ``frames``.
        dt: h, time between frames.
    """

    frames: int
    degree: int
    dt: float

    def slopes(self, positions: np.ndarray) -> np.ndarray:
        """Velocities at all frames of ``positions`` ``[T, ...]``, at the ends those of the last whole window."""
        return savgol_filter(positions, self.frames, self.degree, deriv=1, delta=self.dt, axis=0, mode="interp")

    def whole(self, seen: np.ndarray) -> np.ndarray:
        """Whether all of the window about a frame was ``seen`` ``[T, N]``; not so at the ends."""
        half = self.frames // 2
        found = np.zeros_like(seen)
        found[half : len(seen) - half] = np.lib.stride_tricks.sliding_window_view(seen, self.frames, axis=0).all(-1)
        return found

    def spread(self, lag: int) -> float:
        """e(L) over a lag in frames, the autocovariance of the error of a velocity for places with errors of 1."""
        weights = self._weights
        return float(weights[lag:] @ weights[: len(weights) - lag]) if lag < self.frames else 0.0

    def delay(self, lag: int) -> float:
        """m(L) over a lag in frames, in units of time."""
        between = -np.cumsum(self._weights)[:-1] * self.dt  # w h: slopes weigh steps between frames
        pairs = np.correlate(between, between, mode="full")
        apart = lag + np.arange(len(pairs)) - (len(between) - 1)
        cubes = np.abs(apart[:, None] + np.array([1, 0, -1])) ** 3
        return float(self.dt * pairs @ cubes @ np.array([1, -2, 1]) / 6.0)  # |x| averaged over two intervals

    def change(self, lag: int) -> np.ndarray:
        """Weights of the places at frames -half to lag + half in u(L) - u(0)."""
        weights = np.zeros(self.frames + lag)
        weights[lag:] += self._weights
        weights[: self.frames] -= self._weights
        return weights

    def response(self, lag: int) -> np.ndarray:
        """κ, weights of the accelerations at these frames in u(L) - u(0), in units of time; linear between frames."""
        frames = np.arange(self.frames + lag)
        since = (frames[:, None] - frames).astype(float)
        # ∫ (t - s)+ ds over an acceleration that rises to 1 at a frame and falls to 0 at the next
        moved = np.where(since == 0, 1.0 / 6.0, since.clip(min=0.0)) * self.dt**2
        return self.change(lag) @ moved

    def sight(self, lag: int, error: float) -> Sight:
        """How velocities ``lag`` frames apart are seen, with an ``error`` (standard deviation) of a coordinate."""
        first, then = self.spread(0), self.spread(lag)
        share = (self.delay(lag) - self.delay(0)) / (lag * self.dt)
        return Sight(share, self.delay(0), error**2 * first, 2.0 * error**2 * (first - then))

    @cached_property
    def _weights(self) -> np.ndarray:
        return savgol_coeffs(self.frames, self.degree, deriv=1, delta=self.dt, use="dot")


def window_of(metadata: dict[str, Any] | None, dt: float) -> Window | None:
    """The window of a trajectory's velocities from its ``metadata``; None where they are exact.

    Raises:
        ValueError: errors of positions without the window of the velocities, or the window without the errors.
    """
    known = (metadata or {}).get("localisation")
    if known is None:
        return None
    if missing := sorted({"position", "window", "order"} - known.keys()):
        raise ValueError(
            f"localisation tells {sorted(known)} and no {', '.join(missing)}: generate this film's data anew"
        )
    return Window(known["window"], known["order"], dt)
