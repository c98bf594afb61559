"""The LightningModule: a model, its likelihood, its optimiser."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

from gnn_metriplectic.geometry import Pairs, batch_pairs
from gnn_metriplectic.learning.likelihood import negative_log_likelihood
from gnn_metriplectic.learning.transitions import pairs_of
from gnn_metriplectic.models import MetriplecticModel, State, build_model
from gnn_metriplectic.terms.entropy import negentropy

CHECKPOINT_FORMAT = 1


class MetriplecticModule(lightning.LightningModule):
    """Maximum-likelihood training of a `MetriplecticModel`.

    Args:
        model: settings of `build_model`, plain values.
        optimizer: ``lr``, ``steps`` of the whole schedule and ``warmup`` as a share of them.
        temperature: ``learned``, or ``equilibrium`` where every trajectory is at equilibrium: then
            k_B <T> of each graph is held at the kinetic temperature of its trajectory.
        integrator: whose map is the mean of the likelihood.
        gauge_steps: batches over which the running statistics of the gauge average.
        provenance: what the model was trained on (units, fingerprint, versions), kept with it.
    """

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        temperature: str = "learned",
        integrator: str = "energy_conserving",
        gauge_steps: int = 50,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if temperature not in ("learned", "equilibrium"):
            raise ValueError(f"temperature is {temperature!r}; choose 'learned' or 'equilibrium'")
        self.save_hyperparameters()
        # parameters are float32 in training; .double() makes a float64 model
        self.model: MetriplecticModel = build_model(**model).float()

    def forward(self, batch: Batch) -> Tensor:
        """Loss of a batch in nats a particle, 0-dim."""
        return self._loss(batch)[0]

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        pairs, next_pairs = pairs_of(batch)
        species = batch.species if "species" in batch else None
        entropy, next_entropy, shape = self._entropies(batch, pairs, next_pairs, species)
        nowhere = torch.zeros_like(batch.vel)  # only displacements matter
        start, end = State(nowhere, batch.vel, entropy, species), State(nowhere, batch.next_vel, next_entropy, species)
        nll = negative_log_likelihood(
            self.model,
            start,
            end,
            (pairs, next_pairs),
            self.model.dt,
            acceleration=batch.acceleration,
            integrator=self.hparams.integrator,
        )
        volume, _ = self.model.kernel.volume(pairs, species)
        excess = torch.log((volume / batch.particle_volume[batch.batch])[batch.active].mean())
        # the scale of W is a gauge: the likelihood does not change along it, this picks a point
        loss = nll[batch.active].mean() + shape + 10.0 * excess**2
        measured = {"loss": loss.detach(), "negentropy": shape.detach()}
        if self.hparams.temperature == "equilibrium":
            temperature = self.model.k_B * self.model.temperature(start, pairs)
            ratio = scatter(temperature, batch.batch, reduce="mean") / batch.kinetic_temperature
            # stiff enough that the mean is held within a fraction of a percent
            loss = loss + 100.0 * ((ratio - 1.0) ** 2).mean()
        return loss, measured

    def _entropies(
        self, batch: Batch, pairs: Pairs, next_pairs: Pairs, species: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Entropies at the start and the end, and how far from Gaussian they are together."""
        encoder = self.model.encoder
        if encoder is None:
            return batch.entropy, batch.next_entropy, batch.entropy.new_zeros(())
        both = batch_pairs([pairs, next_pairs])
        velocities = torch.cat([batch.vel, batch.next_vel])
        raw = encoder.raw(both, velocities, None if species is None else torch.cat([species, species]))
        free = torch.cat([batch.active, batch.active])
        mean, variance = raw[free].mean(), raw[free].var(unbiased=False)
        if self.training:
            shared = self._shared(torch.stack([mean.detach(), variance.detach()]))
            encoder.follow(*shared, weight=self._gauge_weight)
        entropies = encoder.standardise(raw, (mean, variance) if self.training else None)
        return *entropies.chunk(2), negentropy(entropies[free])

    @property
    def _gauge_weight(self) -> float:
        # a plain average at first, then an exponential one
        return max(1.0 / (1.0 + self.global_step), 1.0 / self.hparams.gauge_steps)

    def _shared(self, values: Tensor) -> Tensor:
        """The mean over processes, so that all ranks keep one gauge."""
        return self.all_gather(values).view(-1, *values.shape).mean(dim=0) if self.trainer.world_size > 1 else values

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss, measured = self._loss(batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {float(loss)} at step {self.global_step}: lower optimizer.lr, or look for outliers in "
                "the data"
            )
        self.log("train/loss", measured["loss"], prog_bar=True, batch_size=batch.num_graphs)
        self.log("negentropy", measured["negentropy"], batch_size=batch.num_graphs)
        self.log("k_B", self.model.k_B.detach(), batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        loss, _ = self._loss(batch)
        self.log("val/loss", loss, prog_bar=True, batch_size=batch.num_graphs, sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.hparams.optimizer
        optimizer = torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=settings["lr"])
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings["lr"],
            total_steps=settings["steps"] + 1,
            pct_start=settings["warmup"],
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gnn_metriplectic"] = {"format": CHECKPOINT_FORMAT}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_format(checkpoint)


def check_format(checkpoint: dict[str, Any]) -> None:
    """Raise ValueError for a file that is not ours or that a newer version wrote."""
    header = checkpoint.get("gnn_metriplectic")
    if header is None:
        raise ValueError("this is not a checkpoint of gnn_metriplectic (no 'gnn_metriplectic' entry)")
    if header["format"] > CHECKPOINT_FORMAT:
        raise ValueError(
            f"the checkpoint has format {header['format']} and this version reads up to {CHECKPOINT_FORMAT}: "
            "update gnn-metriplectic"
        )
