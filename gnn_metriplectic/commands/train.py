"""gnnm-train: data, training, scores."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import hydra
import wandb
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from gnn_metriplectic.analysis.metrics import print_table
from gnn_metriplectic.commands.cli import command, output_folder, plain
from gnn_metriplectic.evaluation import evaluate
from gnn_metriplectic.learning import fit, read_checkpoint
from gnn_metriplectic.learning.callbacks import learning_curve
from gnn_metriplectic.systems import ensure_dataset, ground_truth, read_split

# what `fit` has from the rest of the configuration, not from the groups model and optimizer
OUTSIDE_GROUPS = (
    "trajectories",
    "validation",
    "seed",
    "out",
    "ckpt_path",
    "start_from",
    "trainer",
    "logger",
    "callbacks",
    "workers",
)


@command("train")
def main(config: DictConfig) -> float:
    """Generate what is missing, train, evaluate, and print the scores; returns the validation loss for sweeps."""
    out = output_folder(config)
    last = out / "last.ckpt"
    if last.is_file() and config.ckpt_path is None:
        raise ValueError(
            f"{out} already holds a training: continue it with ckpt_path=last, or choose another folder with out=..."
        )
    training = {**_known(config, "model"), **_known(config, "optimizer")}
    started = time.monotonic()
    settings = plain(config.system)
    data = ensure_dataset(settings, config.data, seed=config.data_seed, generate=rank_zero_only.rank == 0)
    generated = time.monotonic()
    train, validation = ([t for runs in read_split(data, s).values() for t in runs] for s in ("train", "validation"))
    try:
        fit(
            train,
            validation=validation,
            seed=config.seed,
            out=out,
            ckpt_path=config.ckpt_path,
            start_from=config.start_from,
            trainer=plain(config.trainer),
            logger=_logger(config, out),
            callbacks=[KeepConfig(config, out)],
            workers=config.workers,
            **training,
        )
        if rank_zero_only.rank:
            return float("nan")  # the first process scores
        curve = learning_curve(read_checkpoint(last)) or {}
        metrics = evaluate(
            out / "best.ckpt",
            read_split(data, "test"),
            out,
            system=settings["name"],
            integrator=config.model.integrator,
            seed=config.seed,
            ground_truth=ground_truth(settings),
            seconds={"generate": generated - started, "train": curve.get("wall_time", [float("nan")])[-1]},
            **plain(config.system.scores),
        )
        if wandb.run is not None:
            _publish(metrics, out)
    finally:
        wandb.finish()  # else the next job of a multirun would go on with this one's run
    print_table(metrics)
    for what, file in (("checkpoint", "best.ckpt"), ("scores", "metrics.json"), ("report", "report.html")):
        print(f"{what:12}{out / file}")
    return min(curve.get("val", [float("nan")]))


def _publish(metrics: dict[str, Any], folder: Path) -> None:
    """Add scores, report and best checkpoint to the run of Weights & Biases, which has the rest from its logger."""
    for scenario, scores in metrics["scores"].items():
        wandb.run.summary.update(
            {f"scores/{scenario}/{name}": value for name, value in scores.items() if isinstance(value, float)}
        )
    wandb.run.log({"report": wandb.Html(folder / "report.html")})
    # of the logger's own both checkpoints would be called the best
    artifact = wandb.Artifact(f"model-{wandb.run.id}", type="model")
    artifact.add_file(str(folder / "best.ckpt"))
    wandb.run.log_artifact(artifact, aliases=["best"])


class KeepConfig(Callback):
    """Writes the configuration beside the checkpoints, and to the loggers, once the training begins.

    One that is refused leaves nothing.

    A training that goes on keeps the configuration that it began with.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config, self.folder = config, folder

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write config.yaml."""
        for logger in trainer.loggers:
            logger.log_hyperparams({"config": plain(self.config)})
        if trainer.is_global_zero and self.config.ckpt_path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.config, self.folder / "config.yaml")


def _known(config: DictConfig, group: str) -> dict[str, Any]:
    """The settings of a group, all of which `fit` must know."""
    settings = plain(config[group])
    known = [name for name in inspect.signature(fit).parameters if name not in OUTSIDE_GROUPS]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{group} has no setting {', '.join(unknown)}; known to the training: {', '.join(known)}")
    return settings


def _logger(config: DictConfig, out: Path) -> Any:
    return hydra.utils.instantiate(config.logger, save_dir=str(out)) if config.logger else False


if __name__ == "__main__":
    main()
