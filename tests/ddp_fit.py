"""Trains a few steps on one or two processes and writes the learning curve: `python ddp_fit.py KIND PROCESSES FOLDER`.

The graphs have 40 and 60 particles, so that the processes have unequal work.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from helpers import CUTOFF, SILENT
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

import gnn_metriplectic as gm


class Curve(Callback):
    """Losses of the steps."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def main(kind: str, processes: int, folder: Path) -> None:
    gas = [gm.read_trajectory(folder / f"gas_{particles}.h5") for particles in (40, 60)]
    curve, out = Curve(), folder / f"{kind}_{processes}"
    gm.fit(
        gas,
        validation=gas,
        kind=kind,
        cutoff=CUTOFF,
        lag=4,
        temperature="equilibrium",
        steps=6,
        steps_per_epoch=3,
        batch_size=4 // processes,
        lr=1e-3,
        out=out,
        callbacks=[curve],
        # double, as Adam makes a step of round-off where a gradient should vanish
        trainer={
            **SILENT,
            "precision": "64-true",
            "devices": processes,
            **({"strategy": "ddp"} if processes > 1 else {}),
        },
    )
    if rank_zero_only.rank == 0:
        (out / "curve.json").write_text(json.dumps(curve.rows))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
