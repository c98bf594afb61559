"""Whether `torch.func` is transforming what runs."""

from __future__ import annotations

import torch


def transforming() -> bool:
    """True within ``vmap``, ``jvp`` and the like, and where this version of PyTorch does not tell."""
    # private to PyTorch; where it is gone, callers go the way that every transform understands
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is None or active()
