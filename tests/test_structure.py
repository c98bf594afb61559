"""The correction that brings the model's own runs to the structure of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gnn_metriplectic as gm
from gnn_metriplectic.analysis import rdf
from gnn_metriplectic.learning.module import CHECKPOINT_FORMAT, MetriplecticModule
from gnn_metriplectic.learning.structure import BINS, match_structure
from gnn_metriplectic.terms.tabulated import TabulatedPotential

from conftest import dpd_settings

BOX = gm.Box.cubic(4.0, 2)
RHO = torch.arange(BINS, dtype=torch.float64) / BINS


def liquid(model: gm.ParticleModel, seed: int, steps: int = 400) -> gm.Trajectory:
    """Sixty particles from rest on a lattice, once they have forgotten it."""
    place = (torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"), dim=-1) * 0.5).view(-1, 2)
    pos = place[:60].double()
    vel = torch.randn(60, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state = gm.State(pos, vel, torch.zeros(60, dtype=torch.float64))
    return gm.simulate(model, state, box=BOX, dt=0.01, steps=steps, seed=seed)[steps // 4 :]


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    """A checkpoint without pair forces, and runs of the same model with them."""
    settings = {**dpd_settings(2), "correction": BINS}
    module = MetriplecticModule(settings, {"lr": 1e-3, "steps": 1, "warmup": 0.1})
    learned, correction = module.model.potential.parts
    torch.nn.init.zeros_(learned.network.layers[-1].weight)
    path = tmp_path_factory.mktemp("soft") / "best.ckpt"
    torch.save(
        {
            "hyper_parameters": dict(module.hparams),
            "state_dict": module.state_dict(),
            "gnn_metriplectic": {"format": CHECKPOINT_FORMAT},
        },
        path,
    )
    correction.pass_through(2.0 * (1.0 - RHO**2) ** 2)
    truth = module.model.double().requires_grad_(False)
    return path, [liquid(truth, seed) for seed in range(2)], truth


def test_the_model_has_the_structure_of_the_data_after_it(soft):
    path, data, _ = soft
    untouched = path.with_name("untouched.ckpt")
    untouched.write_bytes(path.read_bytes())

    def error(checkpoint) -> float:
        run = liquid(gm.load(checkpoint).double(), seed=7, steps=1200)
        own, true = (rdf(t, bins=16, r_max=1.0, every=4)[1] for t in (run, soft_run))
        return float(np.square(own - true).sum())

    soft_run = liquid(soft[2], seed=8, steps=1200)
    match_structure(path, data)
    assert error(path) < 0.15 * error(untouched)
    assert not list(path.parent.glob("*.partial"))


def test_it_is_the_same_with_the_same_seed(soft, tmp_path):
    path, data, _ = soft
    found = []
    for name in ("one", "two"):
        copy = tmp_path / name
        copy.write_bytes(path.read_bytes())
        match_structure(copy, [t[:40] for t in data], seed=3)
        found.append(gm.load(copy).potential.parts[1].spline.value)
    assert torch.equal(*found)


def test_a_potential_between_nodes_is_smooth_and_ends_at_the_cutoff():
    potential = TabulatedPotential.between(2.0, torch.tensor([3.0, 1.0, -0.5, 0.2]))
    r = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 1.999999, 0.7], dtype=torch.float64, requires_grad=True)
    ends = torch.arange(14).view(2, 7)
    value, slope = potential(gm.Pairs(ends, r.unsqueeze(1) * torch.tensor([1.0, 0.0]).double(), 14))
    torch.testing.assert_close(value[:5], torch.tensor([3.0, 1.0, -0.5, 0.2, 0.0]).double())
    assert abs(float(value[5])) < 1e-9
    assert abs(float(slope[5])) < 1e-4
    (expected,) = torch.autograd.grad(value.sum(), r)
    torch.testing.assert_close(slope[6], expected[6])
    # the slope at a node is that of its neighbours
    torch.testing.assert_close(slope[1], torch.tensor((-0.5 - 3.0) / 1.0).double())
