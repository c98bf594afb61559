"""What is learned (or given by a formula): kernel, equation of state, friction, entropy encoder."""

from gnn_metriplectic.terms.analytic import IdealGas, LucyKernel, SDPDFriction
from gnn_metriplectic.terms.bath import SolventBath
from gnn_metriplectic.terms.density import DensityKernel, LearnedKernel
from gnn_metriplectic.terms.elasticity import (
    ElasticEnergy,
    HookeanShear,
    HookeanVolume,
    LearnedShear,
    LearnedVolume,
    Strained,
)
from gnn_metriplectic.terms.energy import Bound, EquationOfState, LearnedEquationOfState, Thermo
from gnn_metriplectic.terms.entropy import EntropyEncoder
from gnn_metriplectic.terms.friction import Friction, FrictionTerm, LearnedFriction
from gnn_metriplectic.terms.isothermal import HeatBath, PairFriction
from gnn_metriplectic.terms.measured import MeasuredPotential
from gnn_metriplectic.terms.potential import LearnedPotential, PairPotential, PotentialSum, SpringPotential
from gnn_metriplectic.terms.strain import DeformationGradient, PairStrain, Strain, StrainTerm

__all__ = [
    "Bound",
    "DeformationGradient",
    "DensityKernel",
    "ElasticEnergy",
    "EntropyEncoder",
    "EquationOfState",
    "Friction",
    "FrictionTerm",
    "HeatBath",
    "HookeanShear",
    "HookeanVolume",
    "IdealGas",
    "LearnedEquationOfState",
    "LearnedFriction",
    "LearnedKernel",
    "LearnedPotential",
    "LearnedShear",
    "LearnedVolume",
    "LucyKernel",
    "MeasuredPotential",
    "PairFriction",
    "PairPotential",
    "PairStrain",
    "PotentialSum",
    "SDPDFriction",
    "SolventBath",
    "SpringPotential",
    "Strain",
    "StrainTerm",
    "Strained",
    "Thermo",
]
