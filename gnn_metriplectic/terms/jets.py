"""Small networks of one variable that carry their exact derivative along (forward mode).

A term of the model is a function of one or two numbers, and the drift needs its slope. Carrying the
tangent through the layers costs one more matrix product and no autograd graph of a gradient.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn_metriplectic.terms.linear import Linear, linear
from gnn_metriplectic.terms.rows import by_rows


def silu_jet(x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU of ``x`` and its derivative along ``tangent``."""
    gate = torch.sigmoid(x)
    value = x * gate
    return value, tangent * torch.lerp(value, value.new_ones(()), gate)


class ScalarNetwork(nn.Module):
    """A SiLU network of one number, with its slope on request.

    ``shift`` (``[M, width]``) enters the first hidden layer: that is where species come in.
    """

    def __init__(self, outputs: int, *, width: int, depth: int) -> None:
        super().__init__()
        sizes = [1] + [width] * depth + [outputs]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        # inputs live on [0, 1]: spread the kinks of the first layer over it
        nn.init.normal_(self.layers[0].weight, std=3.0)
        nn.init.uniform_(self.layers[0].bias, -3.0, 3.0)
        nn.init.normal_(self.layers[-1].weight, std=0.1 / width**0.5)
        nn.init.zeros_(self.layers[-1].bias)

    @by_rows
    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Values ``[M, outputs]`` at ``x`` ``[M]``."""
        hidden = self.layers[0](x.unsqueeze(-1))
        if shift is not None:
            hidden = hidden + shift
        for layer in self.layers[1:-1]:
            hidden = layer(functional.silu(hidden))
        last = self.layers[-1]
        # few outputs, stored by columns: twice as fast
        return torch.addmm(last.bias.unsqueeze(1), last.weight, functional.silu(hidden).T).T

    @by_rows
    def jet(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values and slopes d/dx, both ``[M, outputs]``, at ``x`` ``[M]``."""
        value = self.layers[0](x.unsqueeze(-1))
        if shift is not None:
            value = value + shift
        slope = self.layers[0].weight.squeeze(1).expand_as(value)
        for layer in self.layers[1:]:
            value, slope = silu_jet(value, slope)
            value, slope = layer(value), linear(slope, layer.weight)
        return value, slope


class SpeciesShift(nn.Module):
    """What the species at the two ends of a pair add to a hidden layer; symmetric, zero for one species."""

    def __init__(self, species: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(species, width) if species > 1 else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.3)

    def forward(self, first: Tensor | None, second: Tensor | None) -> Tensor | None:
        """``[M, width]`` from species ``[M]``, or None for one species."""
        if self.table is None:
            return None
        return self.table(first) + self.table(second)
