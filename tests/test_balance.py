"""The balance of forces in equilibrium: the identity itself, and what it says of forces that are wrong."""

from __future__ import annotations

import pytest
import torch

from gnn_metriplectic.geometry import Box, Pairs, neighbor_pairs
from gnn_metriplectic.learning.balance import _radial_fields, balance, imbalance

CUTOFF, KT = 1.0, 0.7


def potential(r: torch.Tensor) -> torch.Tensor:
    return 4.0 * (1.0 - r * r) ** 2


@pytest.fixture(scope="module", params=[2, 3])
def pairs(request) -> Pairs:
    """Pairs alone in the canonical ensemble of `potential`: r of the density r^(D-1) exp(-φ / k_B T)."""
    dimension, random = request.param, torch.Generator().manual_seed(1)
    grid = (torch.arange(100_000, dtype=torch.float64) + 0.5) * CUTOFF / 100_000
    share = torch.cumsum(grid ** (dimension - 1) * torch.exp(-potential(grid) / KT), dim=0)
    # quantiles, which have the distribution without its noise
    quantile = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    r = grid[torch.searchsorted(share / share[-1], quantile).clamp(max=len(grid) - 1)]
    direction = torch.nn.functional.normalize(
        torch.randn(len(r), dimension, generator=random, dtype=torch.float64), dim=1
    )
    return Pairs(torch.arange(2 * len(r)).view(-1, 2).T, r.unsqueeze(1) * direction, 2 * len(r))


def missing(pairs: Pairs, strength: float) -> float:
    """The imbalance of forces that are ``strength`` times those of the potential."""
    r = pairs.distance
    forces = pairs.net((16.0 * strength * r * (1.0 - r * r)).unsqueeze(1) * pairs.direction)
    thermal = torch.full((pairs.num_particles,), KT, dtype=torch.float64)
    everyone = torch.ones(pairs.num_particles, dtype=torch.bool)
    return float(imbalance(balance(pairs, forces, thermal, everyone, CUTOFF)))


def test_forces_of_the_ensemble_are_balanced(pairs):
    assert missing(pairs, 1.0) < 5e-3


@pytest.mark.parametrize("strength", [0.8, 1.3])
def test_the_imbalance_is_the_share_of_the_mean_square_force_that_is_missing(pairs, strength):
    assert missing(pairs, strength) == pytest.approx((1.0 - strength) ** 2, rel=0.1)


@pytest.mark.parametrize("dimension", [2, 3])
def test_divergences_are_those_of_the_fields(dimension):
    box = Box.cubic(2.5, dimension)
    pos = 2.5 * torch.rand(12, dimension, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    _, divergence = _radial_fields(neighbor_pairs(pos, box, CUTOFF), CUTOFF)
    expected, step = torch.zeros_like(divergence), 1e-6
    for particle in range(len(pos)):
        for axis in range(dimension):
            ends = []
            for sign in (1.0, -1.0):
                moved = pos.clone()
                moved[particle, axis] += sign * step
                fields, _ = _radial_fields(neighbor_pairs(moved, box, CUTOFF), CUTOFF)
                ends.append(fields[particle, :, axis])
            expected[particle] += (ends[0] - ends[1]) / (2.0 * step)
    torch.testing.assert_close(divergence, expected, rtol=1e-6, atol=1e-6)


def test_only_free_particles_count():
    pos = torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.5]], dtype=torch.float64)
    pairs = neighbor_pairs(pos, Box.free(2), CUTOFF)
    forces, thermal = torch.ones_like(pos), torch.ones(3, dtype=torch.float64)
    free = torch.tensor([True, True, False])
    found = balance(pairs, forces, thermal, free, CUTOFF)
    forces = torch.where(free.unsqueeze(1), forces, 1e6)
    torch.testing.assert_close(balance(pairs, forces, thermal, free, CUTOFF), found)
