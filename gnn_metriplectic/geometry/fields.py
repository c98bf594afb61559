"""Known vector fields."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def taylor_green_pattern(positions: Tensor, length: float) -> Tensor:
    """(sin kx cos ky cos kz, -cos kx sin ky cos kz, 0) with k = 2π/length, without cos kz in two dimensions.

    Args:
        positions: ``[..., D]``.
        length: period, in units of length.

    Returns:
        ``[..., D]``, of amplitude 1, without divergence.
    """
    phase = 2 * math.pi / length * positions
    x, y = phase[..., 0], phase[..., 1]
    depth = torch.cos(phase[..., 2]) if positions.shape[-1] == 3 else torch.ones_like(x)
    pattern = torch.zeros_like(positions)
    pattern[..., 0] = torch.sin(x) * torch.cos(y) * depth
    pattern[..., 1] = -torch.cos(x) * torch.sin(y) * depth
    return pattern
