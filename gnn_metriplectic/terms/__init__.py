"""What is learned (or given by a formula): kernel, equation of state, friction, entropy encoder."""

from gnn_metriplectic.terms.analytic import IdealGas, LucyKernel, SDPDFriction
from gnn_metriplectic.terms.density import DensityKernel, LearnedKernel
from gnn_metriplectic.terms.energy import EquationOfState, LearnedEquationOfState, Thermo
from gnn_metriplectic.terms.entropy import EntropyEncoder
from gnn_metriplectic.terms.friction import Friction, FrictionTerm, LearnedFriction

__all__ = [
    "DensityKernel",
    "EntropyEncoder",
    "EquationOfState",
    "Friction",
    "FrictionTerm",
    "IdealGas",
    "LearnedEquationOfState",
    "LearnedFriction",
    "LearnedKernel",
    "LucyKernel",
    "SDPDFriction",
    "Thermo",
]
