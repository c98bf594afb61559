"""The brackets of GENERIC: antisymmetric (reversible) and symmetric positive semi-definite (friction, solvent)."""

from gnn_metriplectic.brackets.bath import BathBracket
from gnn_metriplectic.brackets.dissipative import DissipativeBracket
from gnn_metriplectic.brackets.poisson import PoissonBracket

__all__ = ["BathBracket", "DissipativeBracket", "PoissonBracket"]
