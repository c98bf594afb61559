"""Affine maps of many rows.

For wide layers in single precision on a CPU, training uses the products of oneDNN, which PyTorch has on board for
compiled graphs: on AMD Zen 5 they take 40 % of the time of MKL's (docs/decisions.md). Elsewhere they are PyTorch's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.transforms import transforming

# numbers in a weight from which the product gains more than its new memory costs
_WIDE = 64 * 64
_FAST = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b: ``[M, n]``, ``[m, n]``, ``[m]`` -> ``[M, m]``."""
    suits = _FAST and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and len(x) > 0
    suits = suits and weight.numel() >= _WIDE and torch.is_grad_enabled()
    if not suits or transforming():
        return functional.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """``[M, n]`` -> ``[M, m]``."""
        return linear(input, self.weight, self.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """The product, whose gradients are products again and as differentiable."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight.T) if needs_x else None,
            gradient.T @ x if needs_weight else None,
            gradient.sum(dim=0) if needs_bias else None,
        )
