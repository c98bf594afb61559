"""The laws of invariants.py on the models of this package."""

from __future__ import annotations

import pytest
import torch
from conftest import baseline, dpd_settings, hookean_solid, ideal_gas, learned_model, learned_solid
from invariants import ModelInvariants, SolidInvariants, StepLaws, StructureLaws, SymmetryLaws


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
