"""What a trajectory must satisfy, and the words to say so when it does not."""

from __future__ import annotations

import math
import os
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnn_metriplectic.geometry.box import Box

# Frames are tested in slabs of this many numbers, so that a long trajectory is never copied whole.
_SLAB = 4_000_000


def as_float_tensor(name: str, values: Tensor | np.ndarray) -> Tensor:
    """``values`` on the CPU in float32 or float64 (other kinds of number become float64)."""
    try:
        tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an array of numbers: {error}") from error
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float64)


def check_frames(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``values`` has ``shape`` ``[T, N, ...]`` and every number is finite."""
    if tuple(values.shape) != shape:
        raise ValueError(f"{name} has shape {list(values.shape)}; expected {list(shape)} to match the positions")
    step = max(1, _SLAB // max(1, values[0].numel()))
    for start in range(0, len(values), step):
        finite = torch.isfinite(values[start : start + step])
        if not bool(finite.all()):
            frame, particle = (~finite).nonzero()[0, :2].tolist()
            frame += start
            raise ValueError(
                f"{name} of particle {particle} in frame {frame} is {values[frame, particle].tolist()}: "
                "every value must be finite; drop the frames from there on, or repair the file"
            )


def check_positive(name: str, value: float) -> float:
    """``value`` as a float. Raises ValueError unless it is positive and finite."""
    if not (isinstance(value, (int, float, np.number)) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; it must be a positive number")
    return float(value)


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """``value`` as an int. Raises ValueError unless it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def check_vacant(path: str | os.PathLike[str]) -> Path:
    """``path``. Raises ValueError where a file or folder is there already."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    if path.exists():
        raise ValueError(f"{path} exists already: give another name, or remove it first")
    return path


def check_times(times: Tensor, dt: float, frames: int) -> None:
    """Raise ValueError unless ``times`` ``[T]`` rise in even steps of ``dt``."""
    if tuple(times.shape) != (frames,):
        raise ValueError(f"times has shape {list(times.shape)}; expected [{frames}], one a frame")
    if not bool(torch.isfinite(times).all()):
        raise ValueError(f"the time of frame {int((~torch.isfinite(times)).nonzero()[0])} is not finite")
    steps = times.diff()
    if bool((steps <= 0).any()):
        frame = int((steps <= 0).nonzero()[0])
        raise ValueError(
            f"time does not rise from frame {frame} ({times[frame]:g}) to frame {frame + 1} ({times[frame + 1]:g}): "
            "sort the frames and remove repeated ones"
        )
    # Times that passed through float32 are off by its rounding.
    slack = 0.01 * dt + 4e-7 * float(times.abs().max())
    uneven = (steps - dt).abs() > slack
    if bool(uneven.any()):
        frame = int(uneven.nonzero()[0])
        raise ValueError(
            f"frames {frame} and {frame + 1} are {float(steps[frame]):g} apart in time but dt is {dt:g}: "
            "frames must be evenly spaced; cut the trajectory at the gap or correct dt"
        )


def check_unwrapped(positions: Tensor, box: Box) -> None:
    """Raise ValueError if particles jump by over half the box though all stay within one cell.

    Sparse frames of a long diffusion jump as far, but they spread beyond the cell as they do.
    """
    if box.is_free or len(positions) < 2:
        return
    inverse = torch.linalg.inv(torch.tensor(box.lattice, dtype=torch.float64))
    step = max(1, _SLAB // positions[0].numel())
    # along x the cell of a sheared box leans to either side
    axes = slice(1, None) if box.shear_rate else slice(None)
    lowest, highest = positions.new_full((box.dimension,), torch.inf).double(), None
    jump = None
    for start in range(0, len(positions) - 1, step):
        fractional = positions[start : start + step + 1].to(torch.float64) @ inverse
        low, high = fractional.amin(dim=(0, 1)), fractional.amax(dim=(0, 1))
        lowest, highest = torch.minimum(lowest, low), high if highest is None else torch.maximum(highest, high)
        far = (fractional.diff(dim=0)[..., axes].abs() > 0.5).any(dim=-1)
        if jump is None and bool(far.any()):
            frame, particle = far.nonzero()[0].tolist()
            jump = start + frame, particle
    if jump is not None and bool((highest - lowest <= 1.0 + 1e-6)[axes].all()):
        frame, particle = jump
        moved = (positions[frame + 1, particle] - positions[frame, particle]).tolist()
        raise ValueError(
            f"particle {particle} jumps by {[round(d, 4) for d in moved]} from frame {frame} to {frame + 1}, more than "
            "half the box, and no particle ever leaves the cell: the positions look wrapped; unwrap them (add image * "
            "box length, or write unwrapped coordinates)"
        )
