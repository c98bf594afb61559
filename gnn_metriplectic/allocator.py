"""Memory that the arrays of one step free stays with the process for the next.

The C library returns large freed arrays to the kernel, which clears each page again when the next operation asks
for it: a rollout step of 1,000 particles touched some 1,500 new pages, a quarter of its time (docs/performance.md).
"""

from __future__ import annotations

import ctypes
from functools import cache

# mallopt(3) of glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# arrays up to this size come from the heap; the few larger ones go back when freed, so that the heap has no large holes
HEAP_ARRAY_BYTES = 64 << 20
# what the top of the heap may hold unused
UNUSED_BYTES = 512 << 20


@cache
def keep_freed_memory() -> None:
    """Let the heap keep what is freed; without effect where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, HEAP_ARRAY_BYTES)
    mallopt(_TRIM_THRESHOLD, UNUSED_BYTES)
