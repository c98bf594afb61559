"""The time of frames: what a file holds of it, and what its user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnn_metriplectic.systems.molecular.files import DUMP
from gnn_metriplectic.systems.molecular.settings import TrajectorySettings


@dataclass(frozen=True)
class Clock:
    """Time of evenly spaced frames, in the units of the particles.

    Attributes:
        dt: between two frames of the file.
        ticks: what counts it: ``time`` or ``step`` of a frame, or None for the number of the frame.
        tick: time that one of them stands for.
    """

    dt: float
    ticks: str | None
    tick: float

    def time(self, ts: Any) -> float:
        """Time of a frame of MDAnalysis."""
        return self.tick * float(ts.frame if self.ticks is None else ts.data[self.ticks])

    def fits(self, before: float, now: float) -> bool:
        """Whether two times are ``dt`` apart, up to rounding in the file."""
        return abs(now - before - self.dt) <= _slack(self.dt, now)


def read_clock(settings: TrajectorySettings, form: str, data: Sequence[Mapping[str, Any]], count: int) -> Clock:
    """How time passes in a trajectory.

    Args:
        settings: for ``timestep`` and ``spacing``.
        form: MDAnalysis' name of the format.
        data: what the first, second and last frame hold beside coordinates.
        count: frames in the file.

    Raises:
        ValueError: a time that is missing, told twice, or does not rise.
    """
    name = settings.trajectory
    # MDAnalysis makes up the times of dumps
    ticks = next((t for t in ("time", "step") if t in data[0] and (t, form) != ("time", DUMP)), None)
    if settings.timestep is not None and ticks != "step":
        held = "holds the times of its frames" if ticks else "holds no numbers of steps (give spacing=...)"
        raise ValueError(f"{name} {held}: leave timestep out")
    if ticks != "time" and settings.timestep is None and settings.spacing is None:
        hint = "" if ticks is None else ", or timestep=... of the molecular dynamics"
        raise ValueError(f"{name} does not hold the time of its frames: give spacing=... from frame to frame{hint}")
    if ticks is None:
        return Clock(float(settings.spacing), None, float(settings.spacing))
    first, second, last = (float(d[ticks]) for d in data)
    gap, mean = second - first, (last - first) / (count - 1)
    if not gap > 0.0:
        raise ValueError(
            f"{name}: {ticks} goes from {first:g} to {second:g} at frame 1; it must rise: remove repeated frames"
        )
    # the mean over all is exact where times are rounded; where it differs, a gap follows
    gap = mean if abs(mean - gap) <= _slack(gap, last) else gap
    tick = 1.0 if ticks == "time" else settings.timestep or settings.spacing / gap
    # 0.02 rather than 0.0199999996, as times in float32 give
    dt, plain = gap * tick, float(f"{gap * tick:.6g}")
    dt = plain if abs(plain - dt) < 1e-6 * dt else dt
    if settings.spacing is not None and abs(settings.spacing / dt - 1.0) > 0.01:
        raise ValueError(f"spacing is {settings.spacing:g}, but the frames of {name} are {dt:g} apart: leave it out")
    return Clock(dt, ticks, tick)


def _slack(gap: float, time: float) -> float:
    # times are often held in float32
    return 0.01 * gap + 4e-7 * abs(time)
