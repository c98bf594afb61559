"""States, and what acts on them: what does not fit is refused where it is made or first used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ideal_gas, learned_model, scattered

import gnn_metriplectic as gm
from gnn_metriplectic.geometry import Box

BOX = Box.free(3)


def made(**changes) -> gm.State:
    fields = {"pos": torch.zeros(4, 3), "vel": torch.zeros(4, 3), "entropy": torch.zeros(4)}
    return gm.State(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos": np.zeros((4, 3))}, "positions are of type ndarray; give tensors"),
        ({"entropy": 0.0}, "entropies are of type float; give tensors"),
        ({"species": [0, 0, 1, 1]}, "species are of type list; give tensors"),
        ({"vel": torch.zeros(4, 3).double()}, "velocities are torch.float64 and positions torch.float32"),
        ({"pos": torch.zeros(4, 3).long()}, "positions are torch.int64 .* must be of one floating type"),
        ({"species": torch.zeros(4)}, "species are torch.float32; they must be integers"),
        ({"vel": torch.zeros(3, 3)}, r"velocities have shape \(3, 3\)"),
        ({"entropy": torch.zeros(4, 1)}, r"entropies have shape \(4, 1\); 4 particles need \[4\]"),
    ],
)
def test_a_state_of_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)


USES = {
    "drift": lambda model, state, pairs: model.drift(state, pairs),
    "covariance": lambda model, state, pairs: model.covariance(state, pairs, 0.1),
    "energy": lambda model, state, pairs: model.energy(state, pairs),
    "temperature": lambda model, state, pairs: model.temperature(state, pairs),
    "momentum": lambda model, state, pairs: model.momentum(state),
    "stress": lambda model, state, pairs: model.stress(state, pairs),
    "friction": lambda model, state, pairs: model.friction_matrix(state, pairs),
    "encode": lambda model, state, pairs: model.encode(pairs, state.vel, state.species),
    "simulate": lambda model, state, pairs: gm.simulate(model, state, box=BOX, dt=0.01, steps=1),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (None, "the model has 2 species and the state names none"),
        (-1, "species -1 is unknown to a model of 2 species, numbered from 0"),
        (2, "species 2 is unknown to a model of 2 species"),
    ],
)
def test_species_that_a_model_does_not_know_are_refused_by_all_that_need_them(use, kind, message):
    model = learned_model(3, mass=[1.0, 2.0])
    state = scattered(model, 8)
    pairs = gm.neighbor_pairs(state.pos, BOX, model.cutoff)
    species = None if kind is None else torch.full((8,), kind)
    with pytest.raises(ValueError, match=message):
        use(model, gm.State(state.pos, state.vel, state.entropy, species), pairs)


def test_an_equilibrium_is_drawn_with_seed_0_unless_another_is_given():
    model = ideal_gas(3).double()
    pos = scattered(model, 8).pos
    drawn = [gm.State.equilibrium(model, pos, BOX, temperature=1.0, **seed) for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert torch.equal(drawn[0].vel, drawn[1].vel)
    assert not torch.equal(drawn[0].vel, drawn[2].vel)


@pytest.mark.parametrize(("temperature", "time", "named"), [(-1.0, 0.1, "temperature"), (1.0, 0.0, "relaxation time")])
def test_a_thermostat_is_of_positive_temperature_and_time(temperature, time, named):
    with pytest.raises(ValueError, match=rf"the {named} of the thermostat is .*; it must be a positive number"):
        gm.Thermostat(temperature, time)


@pytest.mark.parametrize("mask", [torch.ones(4), torch.ones(4, 1, dtype=torch.bool), [True, False]])
def test_prescribed_particles_are_named_by_bools(mask):
    with pytest.raises(ValueError, match="must be a tensor of bools, one a particle"):
        gm.Prescribed(mask, lambda time: (torch.zeros(4, 3), torch.zeros(4, 3)))
