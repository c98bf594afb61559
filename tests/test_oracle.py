"""The exact derivatives of the terms against plain automatic differentiation of the whole model."""

from __future__ import annotations

import pytest
import torch
from conftest import learned_model, scattered, tilted_box
from oracle import plain_autograd

from gnn_metriplectic.geometry import transition_pairs
from gnn_metriplectic.learning.likelihood import negative_log_likelihood
from gnn_metriplectic.models import State


@pytest.mark.parametrize("dimension", [2, 3])
def test_likelihood_and_its_gradient_are_those_of_plain_autograd(dimension):
    model, box = learned_model(dimension).requires_grad_(True), tilted_box(dimension)
    state = scattered(model, 20, box=box)
    generator = torch.Generator().manual_seed(3)
    noise = [0.01 * torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (state.pos, state.vel)]
    end = State(state.pos + noise[0], state.vel + noise[1], state.entropy + noise[0][:, 0])
    before = transition_pairs(state.pos, end.pos, box, model.cutoff)
    pairs = before, before.moved(end.pos - state.pos)
    found = []
    for kind in (model, plain_autograd(model)):
        configurations = tuple(kind.configuration(p, None) for p in pairs)
        nll = negative_log_likelihood(kind, state, end, configurations, model.dt).mean()
        parameters = [p for p in kind.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(nll, parameters, allow_unused=True)
        found.append((nll, [g for g in gradient if g is not None]))
    (ours, gradient), (plain, reference) = found
    torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
    assert len(gradient) == len(reference) > 10
    for a, b in zip(gradient, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 * float(b.abs().max()))
