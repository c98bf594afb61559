"""What happens beside training."""

from __future__ import annotations

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class History(Callback):
    """The learning curve, kept in the checkpoint so that it survives an interruption.

    Attributes:
        rows: lists ``step``, ``train``, ``val`` (losses in nats a particle) and ``wall_time`` (seconds).
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {"step": [], "train": [], "val": [], "wall_time": []}
        self.before, self.started = 0.0, 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()
        self.before = self.rows["wall_time"][-1] if self.rows["wall_time"] else 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the losses."""
        measured = trainer.callback_metrics
        if "val/loss" in measured and "train/loss" in measured:
            elapsed = self.before + time.monotonic() - self.started
            values = trainer.global_step, measured["train/loss"], measured["val/loss"], elapsed
            for column, value in zip(self.rows.values(), values, strict=True):
                column.append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state_dict["rows"]


def learning_curve(checkpoint: dict[str, Any]) -> dict[str, list[float]] | None:
    """The rows of the `History` in a loaded checkpoint, if it has one."""
    state = checkpoint.get("callbacks", {}).get("History")
    return None if state is None else state["rows"]
