"""Counter-based random numbers for pairs, the same on every machine, device and rank.

Philox4x32-10 of Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*
(SC 2011), keyed by the seed and counted by (step, smaller tag, larger tag).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnn_metriplectic.geometry.vectors import columns

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four random 32-bit words for each counter.

    Args:
        counter: four int64 tensors of one shape with values below 2^32.
        key: two integers below 2^32.

    Returns:
        four int64 tensors of that shape with values below 2^32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # the product wraps at 64 bits, which keeps all its bits; what stands above the low word, sign extension or
        # the product itself, is masked where a word is multiplied next
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_WORD)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_WORD)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1 & _WORD, c2, c3 & _WORD


def pair_normals(index: Tensor, seed: int, step: int, count: int, *, tags: Tensor | None = None) -> Tensor:
    """Standard normal numbers of pairs, antisymmetric in the pair and independent of the order of pairs.

    Args:
        index: ``[2, E]`` particles of each pair.
        seed: from 0 to 2^64 - 1.
        step: from 0 to 2^32 - 1.
        count: numbers a pair, at most 4.
        tags: ``[N]`` identities of the particles (below 2^32), their position in the arrays by default.

    Returns:
        ``[E, count]`` float64.

    Raises:
        ValueError: seed, step or count out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must be from 0 to 2^64 - 1")
    if not 0 <= step < 2**32:
        raise ValueError(f"step is {step}; noise is defined for steps from 0 to 2^32 - 1")
    if not 1 <= count <= 4:
        raise ValueError(f"{count} numbers a pair were asked for; one counter gives at most 4")
    first, second = index.long() if tags is None else tags[index]
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    words = philox((low, high, torch.full_like(low, step), torch.zeros_like(low)), (seed & _WORD, seed >> 32))
    normals = []
    for u, v in (words[:2], words[2:]):  # Box and Muller
        radius, angle = torch.sqrt(-2.0 * torch.log(_uniform(u))), 2.0 * math.pi * _uniform(v)
        # odd in the exchange of the two particles
        radius = torch.where(first < second, radius, -radius)
        normals += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return columns(*normals[:count])


def _uniform(word: Tensor) -> Tensor:
    return (word.double() + 0.5) / 2.0**32
