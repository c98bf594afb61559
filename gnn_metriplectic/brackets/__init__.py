"""The two brackets of GENERIC: antisymmetric (reversible) and symmetric positive semi-definite (friction)."""

from gnn_metriplectic.brackets.dissipative import DissipativeBracket
from gnn_metriplectic.brackets.poisson import PoissonBracket

__all__ = ["DissipativeBracket", "PoissonBracket"]
