"""Functions of rows, block by block."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch

# rows a block: what a network makes of them on the way stays in the cache, and in memory that is used again
ROWS = 1 << 14


def by_rows(method: Callable) -> Callable:
    """A method of tensors ``[M, ...]`` (or None) each row of whose results comes from one row of them.

    Without gradient it is called on blocks of rows, so that its memory hardly grows with their number.
    """

    @wraps(method)
    def blockwise(self, *rows):
        count = len(rows[0])
        if torch.is_grad_enabled() or count <= ROWS:
            return method(self, *rows)
        parts = zip(*([None] * -(-count // ROWS) if x is None else x.split(ROWS) for x in rows), strict=True)
        found = [method(self, *part) for part in parts]
        if isinstance(found[0], torch.Tensor):
            return _joined(found)
        columns = [_joined(parts) for parts in zip(*found, strict=True)]
        return type(found[0])._make(columns) if hasattr(found[0], "_make") else tuple(columns)

    return blockwise


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    # stored by columns (see `Incidence`)
    return torch.cat([x.movedim(0, -1) for x in parts], dim=-1).movedim(-1, 0)
