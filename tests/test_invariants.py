"""The laws of invariants.py on the models of this package."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import (
    baseline,
    dpd_settings,
    hookean_solid,
    ideal_gas,
    learned_model,
    learned_solid,
    pairs_of_state,
    random_rotation,
    scattered,
    solid,
)
from invariants import ModelInvariants, SolidInvariants, StepLaws, StructureLaws, SymmetryLaws, observe

from gnn_metriplectic.geometry import Bonds, Box, Reference, neighbor_pairs


class TestIdealGas(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return ideal_gas(dimension)


class TestGasOfTwoMasses(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return ideal_gas(dimension, mass=[0.5, 2.0])


class TestLearnedModel(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return learned_model(dimension)


class TestLearnedModelOfTwoSpecies(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return learned_model(dimension, mass=[0.5, 2.0], seed=2)


class TestLearnedModelWithPairPotential(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return learned_model(dimension, mass=[0.5, 2.0], potential=True)


class TestLearnedModelInSinglePrecision(SymmetryLaws):
    dtype = torch.float32

    @pytest.fixture
    def model(self, dimension):
        return learned_model(dimension).float()


class TestDissipativeParticleDynamics(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return baseline(dpd_settings(dimension))


class TestDissipativeParticleDynamicsOfTwoSpecies(ModelInvariants):
    @pytest.fixture
    def model(self, dimension):
        return baseline(dpd_settings(dimension, [0.5, 2.0]), seed=1)


class TestSpringNetwork(SolidInvariants):
    @pytest.fixture
    def model(self, dimension):
        return baseline(solid(dpd_settings(dimension)))

    def test_a_pair_that_crosses_the_cutoff_changes_nothing(self, model):
        """Whatever is within the cutoff: its pairs are the reference neighbours."""
        state = scattered(model, 12)
        pairs = neighbor_pairs(state.pos, Box.free(model.dimension), model.cutoff, reference=state.reference)
        fewer = pairs.select(torch.arange(pairs.num_pairs) % 2 == 0)
        for found, expected in zip(observe(model, state, fewer), observe(model, state, pairs), strict=True):
            assert torch.equal(found, expected)

    def test_a_rigid_motion_of_the_reference_has_no_elastic_energy(self, model):
        state = scattered(model, 12)
        turn = random_rotation(model.dimension)
        bonds = state.reference.pairs.with_displacement(state.reference.displacement @ turn.T)
        own = bonds.with_displacement(bonds.displacement, Bonds(state.reference, bonds))
        assert model.potential(own)[0].abs().max() < 1e-20

    def test_only_rigid_motions_of_a_solid_at_rest_are_free(self, model):
        state = scattered(model, 16)
        pos, box = state.pos, Box.free(model.dimension)
        reference = Reference.from_positions(pos, box, model.cutoff)

        def forces(flat: torch.Tensor) -> torch.Tensor:
            moved = replace(state, pos=flat.view(pos.shape), reference=reference)
            return model.brackets(moved, pairs_of_state(model, moved, box))[0].forces().reshape(-1)

        values = torch.linalg.eigvalsh(-torch.autograd.functional.jacobian(forces, pos.reshape(-1)))
        rigid = model.dimension * (model.dimension + 1) // 2
        assert values[:rigid].abs().max() < 1e-10 * values[-1]
        assert values[rigid] > 1e-4 * values[-1]


class TestHookeanSolid(SolidInvariants):
    @pytest.fixture
    def model(self, dimension):
        return hookean_solid(dimension)


class TestLearnedSolid(SolidInvariants):
    @pytest.fixture
    def model(self, dimension):
        return learned_solid(dimension)


class TestSolidOfAPairNetwork(StructureLaws, StepLaws):
    """Rotations it does not know: it is exempt from the laws of symmetry."""

    steps = 60

    @pytest.fixture
    def model(self, dimension):
        return learned_solid(dimension, "pair_network")

    def test_reversible_part_keeps_the_angular_momentum(self):
        """Exempt."""
