"""gnnm-evaluate: scores of a checkpoint on the test trajectories of a system."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from gnn_metriplectic.analysis.metrics import print_table
from gnn_metriplectic.commands.cli import command, of_training, plain
from gnn_metriplectic.evaluation import evaluate
from gnn_metriplectic.learning import load
from gnn_metriplectic.systems import ensure_dataset, ground_truth, read_split


@command("evaluate")
def main(config: DictConfig) -> None:
    """Write metrics.json and report.html, by default beside the checkpoint, and print the scores.

    Those of another system than the checkpoint has scores of go into a folder of its name.
    """
    load(config.checkpoint)  # a bad file stops here, before any data is made
    config = of_training(config)
    settings = plain(config.system)
    data = ensure_dataset(settings, config.data, seed=config.data_seed)
    out = Path(config.out or _folder_of(settings["name"], Path(config.checkpoint)))
    metrics = evaluate(
        config.checkpoint,
        read_split(data, "test"),
        out,
        system=settings["name"],
        integrator=config.integrator,
        seed=config.seed,
        ground_truth=ground_truth(settings),
        **plain(config.system.scores),
    )
    print_table(metrics)
    print(f"\nscores   {out / 'metrics.json'}\nreport   {out / 'report.html'}")


def _folder_of(system: str, checkpoint: Path) -> Path:
    scores = checkpoint.with_name("metrics.json")
    known = json.loads(scores.read_text())["system"] if scores.is_file() else system
    return checkpoint.parent if known == system else checkpoint.parent / system


if __name__ == "__main__":
    main()
