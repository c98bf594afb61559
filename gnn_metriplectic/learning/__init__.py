"""Learning a model from transitions: data, likelihood, Lightning module, fitting."""

from gnn_metriplectic.learning.checkpoints import load, read_checkpoint
from gnn_metriplectic.learning.data import TransitionData
from gnn_metriplectic.learning.fit import fit
from gnn_metriplectic.learning.likelihood import negative_log_likelihood
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.learning.survey import inspect, measure_scales
from gnn_metriplectic.learning.transitions import TransitionDataset

__all__ = [
    "MetriplecticModule",
    "TransitionData",
    "TransitionDataset",
    "fit",
    "inspect",
    "load",
    "measure_scales",
    "negative_log_likelihood",
    "read_checkpoint",
]
