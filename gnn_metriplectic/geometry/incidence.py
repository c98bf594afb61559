"""Sums over the pairs of a particle, and values at the ends of a pair, as sparse matrix products."""

from __future__ import annotations

import math
import warnings
from functools import cached_property

import torch
from torch import Tensor

from gnn_metriplectic.transforms import transforming

# each operation and its transpose, which is what its gradient needs
_TRANSPOSED = {
    "gather": "scatter",
    "scatter": "gather",
    "total": "spread",
    "spread": "total",
    "net": "difference",
    "difference": "net",
}


# results on pairs with up to so many columns are stored by columns
NARROW = 32


class Incidence:
    """Which particles each pair joins. All operations are linear and differentiable any number of times.

    Narrow results on pairs, such as vectors, are stored by columns: operations on ``[E, D]`` with ``[E, 1]`` then
    run along the pairs, five times as fast as along so short an axis.

    Args:
        index: ``[2, E]`` integers, the particles i and j of each pair.
        num_particles: N.
    """

    def __init__(self, index: Tensor, num_particles: int) -> None:
        self.index, self.num_particles = index, num_particles
        self._matrices: dict[tuple[str, torch.dtype], Tensor] = {}

    def gather(self, values: Tensor) -> Tensor:
        """Values ``[N, ...]`` at all ends, ``[2 E, ...]``: the first ends and then the second."""
        return _apply(values, self, "gather")

    def scatter(self, values: Tensor) -> Tensor:
        """Sum of the values ``[2 E, ...]`` of all ends, ``[N, ...]``."""
        return _apply(values, self, "scatter")

    def total(self, values: Tensor) -> Tensor:
        """Sum of pair values ``[E, ...]`` over the pairs of each particle, ``[N, ...]``."""
        return _apply(values, self, "total")

    def spread(self, values: Tensor) -> Tensor:
        """Values ``[N, ...]`` at i plus those at j, ``[E, ...]``."""
        return _apply(values, self, "spread")

    def net(self, values: Tensor) -> Tensor:
        """Sum of pair values ``[E, ...]``, added to i and taken from j, ``[N, ...]``."""
        return _apply(values, self, "net")

    def difference(self, values: Tensor) -> Tensor:
        """Values ``[N, ...]`` at i less those at j, ``[E, ...]``."""
        return _apply(values, self, "difference")

    def product(self, name: str, values: Tensor) -> Tensor:
        """An operation on a matrix of values, without its gradient."""
        if name == "gather":
            return values.T.index_select(1, self._ends).T
        if name in ("spread", "difference") and values.shape[1] <= NARROW:
            first, second = (values.T.index_select(1, end) for end in self.index)
            return (first.add_(second) if name == "spread" else first.sub_(second)).T
        key = name, values.dtype
        if key not in self._matrices:
            self._matrices[key] = self._matrix(*key)
        return self._matrices[key] @ values.contiguous()

    @cached_property
    def _ends(self) -> Tensor:
        return self.index.reshape(-1)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """Row pointers ``[N + 1]`` and the ends ``[2 E]`` in the order of their particles, both int32."""
        order = stable_order(self._ends).int()
        pointers = torch.zeros(self.num_particles + 1, dtype=torch.int32, device=order.device)
        pointers[1:] = torch.bincount(self._ends, minlength=self.num_particles).cumsum(0)
        return pointers, order

    def _matrix(self, name: str, dtype: torch.dtype) -> Tensor:
        count, device = self.index.shape[1], self.index.device
        if name in ("spread", "difference"):
            pointers = torch.arange(0, 2 * count + 1, 2, dtype=torch.int32, device=device)
            values = torch.tensor([1.0, -1.0 if name == "difference" else 1.0], dtype=dtype, device=device)
            return _csr(pointers, self.index.T.reshape(-1), values.repeat(count), (count, self.num_particles))
        pointers, order = self._rows
        values = torch.ones_like(order, dtype=dtype)
        if name == "scatter":
            return _csr(pointers, order, values, (self.num_particles, 2 * count))
        first = order < count
        if name == "net":
            values = torch.where(first, values, -values)
        return _csr(pointers, torch.where(first, order, order - count), values, (self.num_particles, count))


def stable_order(keys: Tensor) -> Tensor:
    """The order that sorts non-negative integers ``[M]``, equal ones as they come."""
    bits = len(keys).bit_length()
    # in place: for the pairs of a large system each array is new memory
    unique = (keys.long() << bits).bitwise_or_(torch.arange(len(keys), device=keys.device))
    if unique.device.type == "cpu":
        unique.numpy().sort()  # vectorised: a tenth of the time of torch.argsort
    else:
        unique = torch.sort(unique).values
    return unique.bitwise_and_((1 << bits) - 1)


def _csr(pointers: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        # 32-bit indices: MKL would convert others in each product
        return torch.sparse_csr_tensor(pointers, columns.int(), values, size, check_invariants=False)


def _apply(values: Tensor, incidence: Incidence, name: str) -> Tensor:
    """An operation on values with any trailing dimensions."""
    matrix = values if values.dim() == 2 else values.reshape(values.shape[0], math.prod(values.shape[1:]))
    # rollouts take no gradient, and applying the function takes as long as a product of a thousand particles
    traced = torch.is_grad_enabled() or transforming()
    result = _Linear.apply(matrix, incidence, name) if traced else incidence.product(name, matrix)
    return result if values.dim() == 2 else result.reshape(result.shape[0], *values.shape[1:])


class _Linear(torch.autograd.Function):
    """An operation of an incidence on a matrix of values; its gradient is the transposed operation."""

    @staticmethod
    def forward(values: Tensor, incidence: Incidence, name: str) -> Tensor:
        return incidence.product(name, values)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.incidence, ctx.name = inputs

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Linear.apply(gradient, ctx.incidence, _TRANSPOSED[ctx.name]), None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_):
        return _Linear.apply(tangent, ctx.incidence, ctx.name)

    @staticmethod
    def vmap(info, in_dims, values: Tensor, incidence: Incidence, name: str):
        return _apply(values.movedim(in_dims[0], -1), incidence, name), -1
