"""What the processes of a training (DDP) know together.

With every statistic of a batch taken over all of them, they learn what one process would with all their graphs in one
batch; in one process nothing here does anything.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def process_count() -> int:
    """How many train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


class Mean:
    """A mean over the items of all processes, from the mean over those of each; differentiable.

    Args:
        items: of this process.
        like: a tensor on the device that works.
    """

    def __init__(self, items: int, like: Tensor) -> None:
        self.processes, self.weight = process_count(), 1.0
        if self.processes > 1:
            own = like.new_tensor(float(items))
            self.weight = own / self._over_processes(own)

    def __call__(self, value: Tensor) -> Tensor:
        """From this process' mean."""
        return value if self.processes == 1 else self._over_processes(self.weight * value)

    def _over_processes(self, value: Tensor) -> Tensor:
        return _Sum.apply(value) / self.processes


class _Sum(torch.autograd.Function):
    """A sum over processes, each of which has a loss of its own that depends on it: gradients add up as well."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def of_all_processes(values: Tensor) -> list[Tensor]:
    """The values ``[n]`` of each process, of which n may differ; gradients flow to this one's."""
    return [values] if process_count() == 1 else gather_all_tensors(values)


def least_of_all(values: Tensor) -> Tensor:
    """The least of each value over the processes, without gradient."""
    if process_count() == 1:
        return values
    values = values.clone()
    torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MIN)
    return values
