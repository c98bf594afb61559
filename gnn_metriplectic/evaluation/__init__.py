"""Scoring a trained model: rollouts, entropy diagnostics, report."""

from gnn_metriplectic.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
