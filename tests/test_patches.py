"""Training on patches gives the gradients of whole snapshots."""

from __future__ import annotations

import pytest
import torch
from conftest import learned_settings, scattered
from torch_geometric.data import Batch

from gnn_metriplectic.geometry import Box
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.learning.transitions import TransitionDataset
from gnn_metriplectic.trajectory import Trajectory

BOXES = {
    "free": Box.free(2),
    "periodic": Box.cubic(13.0, 2),
    "sheared": Box.cubic(13.0, 2, shear_rate=0.4),
    "triclinic": Box.triclinic([[13.0, 0.0], [3.0, 12.5]]),
}


@pytest.fixture(scope="module")
def module():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        built = MetriplecticModule(learned_settings(2), {"lr": 1e-3, "steps": 10, "warmup": 0.1})
    return built.double().eval()


def snapshot(module, box: Box) -> Trajectory:
    still = Box.cubic(13.0, 2) if box.is_free else Box(box.dimension, box.lattice)
    state = scattered(module.model, 700, box=still)
    generator = torch.Generator().manual_seed(2)
    kick, jump = (0.02 * torch.randn(state.pos.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return Trajectory(
        torch.stack([state.pos, state.pos + jump]), torch.stack([state.vel, state.vel + kick]), box=box, dt=0.01
    )


def items(trajectory: Trajectory, patch: int | None) -> list:
    dataset = TransitionDataset([trajectory], cutoff=1.0, lag=1, patch=patch, hops=2, dtype=torch.float64)
    return [dataset[k] for k in range(len(dataset))]


def summed(module, graphs: list) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Likelihood of all interior particles, its gradients, and their number."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for graph in graphs:
        batch = Batch.from_data_list([graph])
        inside = int(batch.active.sum())
        total, count = total + module(batch) * inside, count + inside
    parameters = [p for p in module.model.parameters() if p.requires_grad]
    return total.detach(), torch.autograd.grad(total, parameters), count


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_gradients_of_patches_add_up_to_those_of_the_snapshot(module, box):
    trajectory = snapshot(module, box)
    whole, parts = items(trajectory, None), items(trajectory, 60)
    assert len(whole) == 1
    assert len(parts) >= 9
    assert max(part.num_nodes for part in parts) < 0.7 * trajectory.num_particles
    loss, gradient, count = summed(module, whole)
    sum_loss, sum_gradient, sum_count = summed(module, parts)
    assert sum_count == count == trajectory.num_particles
    torch.testing.assert_close(sum_loss, loss, rtol=1e-11, atol=0.0)
    for a, b in zip(sum_gradient, gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11 * float(b.abs().max()) + 1e-14)


def test_a_patch_of_all_is_the_snapshot(module):
    trajectory = snapshot(module, BOXES["periodic"])
    (part,) = items(trajectory, 10_000)
    assert part.num_nodes == trajectory.num_particles
    assert bool(part.active.all())


def test_a_patch_without_particles_is_refused(module):
    with pytest.raises(ValueError, match="patch is 0 particles"):
        items(snapshot(module, BOXES["free"]), 0)
