"""The balance of forces in equilibrium, which ties the learned forces to the structure of the data.

In the canonical ensemble, for any field G(r) of the positions (integrate exp(-E / k_B T) by parts),

    <F_i · G_i> = -k_B T <∇_i · G_i>,    F = -∂E/∂r at fixed entropy,

and with G_i = Σ_j φ(r_ij) e_ij for every function φ of distance it is the first equation of Yvon, Born and Green, which
has one pair force for one g(r): Mullinax and Noid, Phys. Rev. Lett. 103, 198104 (2009). A likelihood over a finite time
does not know it: what the particle remembers beyond that time goes into the forces.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs

# functions φ: hats over the cutoff
FUNCTIONS = 24
# of the mean of the diagonal, added to it: distances at which there is no pair are not known
REGULAR = 1e-3


def balance(pairs: Pairs, forces: Tensor, thermal: Tensor, free: Tensor, cutoff: float) -> Tensor:
    """Means over the free particles of F·G_k + k_B T ∇·G_k, of k_B T ∇·G_k and of G_k·G_l, ``[K, K + 2]``.

    Args:
        pairs: of the positions.
        forces: ``[N, D]``, reversible ones.
        thermal: k_B T of each particle's surroundings, ``[N]``.
        free: ``[N]`` bool, the particles that count.
        cutoff: of the functions.
    """
    fields, divergence = _radial_fields(pairs, cutoff)
    fields, divergence = fields[free], divergence[free]
    own = (thermal[free].unsqueeze(1) * divergence).mean(dim=0)
    work = torch.einsum("nkd,nd->k", fields, forces[free]) / len(fields)
    products = torch.einsum("nkd,nld->kl", fields, fields) / len(fields)
    return torch.cat([(work + own).unsqueeze(1), own.unsqueeze(1), products], dim=1)


def imbalance(moments: Tensor) -> Tensor:
    """Mean square of the force that is missing, over that of the mean force, 0-dim.

    Both are what the fields G can tell of it: the missing force is Σ_k c_k G_k with <G_k·G_l> c_l = -(F·G_k + ...).

    Args:
        moments: means of what `balance` gives, ``[K, K + 2]``.
    """
    products = moments[:, 2:].detach().double()
    diagonal = torch.diagonal(products).mean()
    products = products + REGULAR * diagonal * torch.eye(len(products), dtype=products.dtype, device=products.device)
    ends = moments[:, :2].double()
    missing, mean = (ends * torch.linalg.solve(products, ends)).sum(dim=0)
    return (missing / mean.detach()).to(moments.dtype)


@torch.no_grad()
def _radial_fields(pairs: Pairs, cutoff: float) -> tuple[Tensor, Tensor]:
    """G_i = Σ_j φ_k(r_ij) e_ij, ``[N, K, D]``, and its divergence with r_i, ``[N, K]``, of hats φ_k."""
    dimension, spacing = pairs.displacement.shape[1], cutoff / (FUNCTIONS + 1)
    place = pairs.distance / spacing
    inside = (place < FUNCTIONS + 1).to(place.dtype)
    left = place.floor().clamp(max=FUNCTIONS)
    share = place - left
    rows, fields, divergences = [], [], []
    for function, value, slope in ((left - 1, 1.0 - share, -1.0), (left, share, 1.0)):
        value = value * inside * ((function >= 0) & (function < FUNCTIONS))
        slope = slope * inside * ((function >= 0) & (function < FUNCTIONS)) / spacing
        spread = slope + (dimension - 1) * value / pairs.distance
        field = value.unsqueeze(1) * pairs.direction
        for end, sign in zip(pairs.index, (1.0, -1.0), strict=True):
            rows.append(end.long() * FUNCTIONS + function.clamp(0, FUNCTIONS - 1).long())
            fields.append(sign * field)
            divergences.append(spread)
    row, count = torch.cat(rows), pairs.num_particles * FUNCTIONS
    field = pairs.displacement.new_zeros(count, dimension).index_add_(0, row, torch.cat(fields))
    divergence = pairs.displacement.new_zeros(count).index_add_(0, row, torch.cat(divergences))
    return field.view(-1, FUNCTIONS, dimension), divergence.view(-1, FUNCTIONS)
