"""The correction that brings the model's own runs to the structure of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import dpd_settings

import gnn_metriplectic as gm
from gnn_metriplectic.analysis import rdf
from gnn_metriplectic.learning.module import CHECKPOINT_FORMAT, MetriplecticModule
from gnn_metriplectic.learning.structure import BINS, match_structure
from gnn_metriplectic.terms.tabulated import TabulatedPotential

BOX = gm.Box.cubic(4.0, 2)
RHO = torch.arange(BINS, dtype=torch.float64) / BINS


def gas(model: gm.ParticleModel, seed: int, steps: int = 400) -> gm.Trajectory:
    """Twenty-five particles from a lattice, once they have forgotten it."""
    lattice = 0.8 * torch.cartesian_prod(torch.arange(5), torch.arange(5)).double()
    vel = torch.randn(25, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state = gm.State(lattice, vel, torch.zeros(25, dtype=torch.float64))
    return gm.simulate(model, state, box=BOX, dt=0.02, steps=steps, seed=seed)[steps // 4 :]


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    """A checkpoint without pair forces, and runs of the same model with them."""
    settings = {**dpd_settings(2), "dt": 0.02, "correction": BINS}
    with torch.random.fork_rng():
        torch.manual_seed(0)
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
    correction.pass_through(3.0 * (1.0 - RHO**2) ** 2)
    truth = module.model.double().requires_grad_(False)
    return path, [gas(truth, seed=1, steps=400)], truth


def test_the_model_has_the_structure_of_the_data_after_it(soft):
    path, data, _ = soft
    untouched = path.with_name("untouched.ckpt")
    untouched.write_bytes(path.read_bytes())

    def error(checkpoint) -> float:
        run = gas(gm.load(checkpoint).double(), seed=7, steps=600)
        (r, own), (_, true) = (rdf(t, bins=8, r_max=1.0, every=4) for t in (run, soft_run))
        return float((r * np.square(own - true)).sum())

    soft_run = gas(soft[2], seed=8, steps=600)
    match_structure(path, data, temperature=1.0)
    assert error(path) < 0.5 * error(untouched)
    assert not list(path.parent.glob("*.partial"))


@pytest.mark.filterwarnings("ignore:a run of the model failed")  # as those of a training as short may
@pytest.mark.parametrize("kind", ["metriplectic", "dpd"])
def test_a_training_ends_with_it(soft, tmp_path, capsys, kind):
    data = [t[:40] for t in soft[1]]
    options = {"kind": kind, "cutoff": 1.0, "structure": "corrected", "steps": 20, "steps_per_epoch": 10}
    model = gm.fit(data, out=tmp_path, **options)
    assert "matching the structure" in capsys.readouterr().out
    again = gm.load(tmp_path / "best.ckpt").state_dict()
    assert all(torch.equal(values, again[name]) for name, values in model.state_dict().items())
    last = gm.load(tmp_path / "last.ckpt").potential
    assert not (last.parts[1] if kind == "dpd" else last).spline.value.any(), "which a training goes on from"
    gm.fit(data, out=tmp_path / "next", start_from=tmp_path / "best.ckpt", **options)


def test_it_keeps_the_floating_type_of_a_training(soft, tmp_path):
    data = [t[:40] for t in soft[1]]
    options = {"kind": "dpd", "cutoff": 1.0, "structure": "corrected", "steps": 2, "steps_per_epoch": 1}
    model = gm.fit(data, out=tmp_path, trainer={"precision": "64-true"}, **options)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert (model.friction.network.layers[0].weight.float() != model.friction.network.layers[0].weight).any()


def test_mixtures_are_refused(soft):
    traj = soft[1][0]
    mixture = gm.Trajectory(traj.positions, traj.velocities, box=traj.box, dt=traj.dt, species=torch.arange(25) % 2)
    with pytest.raises(ValueError, match="structure=corrected is of fluids of one species, without a solvent"):
        gm.fit(mixture, cutoff=1.0, structure="corrected", steps=1, steps_per_epoch=1)


def test_a_model_that_cannot_run_is_left_as_it_is(soft, tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes(soft[0].read_bytes())
    content = torch.load(path, weights_only=True)
    content["state_dict"]["model.log_mass"].fill_(float("nan"))
    torch.save(content, path)
    with pytest.warns(UserWarning, match=r"a run of the model failed .*: its forces stay as the training left them"):
        match_structure(path, soft[1], temperature=1.0)
    gm.load(path)


def test_it_is_the_same_with_the_same_seed(soft, tmp_path):
    path, data, _ = soft
    found = []
    for name in ("one", "two"):
        copy = tmp_path / name
        copy.write_bytes(path.read_bytes())
        match_structure(copy, [t[:40] for t in data], temperature=1.0, seed=3)
        found.append(gm.load(copy).potential.parts[1].spline.value)
    assert torch.equal(*found)


def test_a_potential_between_nodes_is_smooth_and_ends_at_the_cutoff():
    potential = TabulatedPotential.between(2.0, torch.tensor([3.0, 1.0, -0.5, 0.2]))
    r = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 1.999999, 0.7], dtype=torch.float64, requires_grad=True)
    ends = torch.arange(14).view(2, 7)
    value, slope = potential(gm.Pairs(ends, r.unsqueeze(1) * torch.tensor([1.0, 0.0]).double(), 14))
    torch.testing.assert_close(value[:5], torch.tensor([3.0, 1.0, -0.5, 0.2, 0.0]).double())
    assert value[5].abs() < 1e-9
    assert slope[5].abs() < 1e-4
    (expected,) = torch.autograd.grad(value.sum(), r)
    torch.testing.assert_close(slope[6], expected[6])
    # the slope at a node is that of its neighbours
    torch.testing.assert_close(slope[1], torch.tensor((-0.5 - 3.0) / 1.0).double())
