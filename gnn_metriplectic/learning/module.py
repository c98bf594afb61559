"""The LightningModule: a model, its likelihood, its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

from gnn_metriplectic.allocator import keep_freed_memory
from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.learning.balance import balance
from gnn_metriplectic.learning.likelihood import negative_log_likelihood
from gnn_metriplectic.learning.processes import Mean, least_of_all, of_all_processes, process_count
from gnn_metriplectic.learning.ties import Ties
from gnn_metriplectic.learning.transitions import pairs_of
from gnn_metriplectic.models import GraphNetwork, MetriplecticModel, ParticleModel, State, build_model
from gnn_metriplectic.models.particles import Configuration
from gnn_metriplectic.terms.entropy import negentropy
from gnn_metriplectic.trajectory.window import EXACT, Sight

CHECKPOINT_FORMAT = 4
TEMPERATURES = ("learned", "equilibrium")
STRUCTURES = ("learned", "corrected", "equilibrium")
# weight of the negentropy of S; one makes the loss the information about the future, and more keeps S near the
# Gaussian of thermal fluctuations
NEGENTROPY = 2.0
# entropies that stand for the training set in the estimate of their distribution
RECENT = 20_000
# share of the steps in which the likelihood gains its weight
TIES_FIRST = 0.075
# spread of random numbers that blur the encoded entropies of solids, an error that the likelihood knows of: their
# neighbourhoods are frozen, and an entropy that tells them apart and never changes would raise it without bound. Those
# of particles with inertia in a liquid nearly are; there it is less, as forces at a blurred entropy are a noise
BLUR, BLUR_IN_LIQUID = 0.3, 0.1


class MetriplecticModule(lightning.LightningModule):
    """Maximum-likelihood training of a `MetriplecticModel` or of a baseline.

    Args:
        model: settings of `build_model`, plain values.
        optimizer: ``lr``, ``steps`` of the whole schedule and ``warmup`` as a share of them.
        temperature: ``learned``, or ``equilibrium`` where every trajectory is in local equilibrium: then
            k_B <T> of each graph is held at the temperature of its trajectory, and in a solvent at that
            of the solvent, which is learned. Without entropy there is no T.
        structure: with ``equilibrium``, where every trajectory is at rest, forces are held to the structure of the data
            (`balance`); ``learned`` and ``corrected`` (after the training, `structure`) are the same here.
        integrator: whose map is the mean of the likelihood; None for the default of the model.
        gauge_steps: batches over which the running statistics of the gauge average.
        provenance: what the model was trained on (units, fingerprint, versions), kept with it.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        model: dict[str, Any],
        optimizer: dict[str, Any],
        temperature: str = "learned",
        structure: str = "learned",
        integrator: str | None = None,
        gauge_steps: int = 50,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (("temperature", temperature, TEMPERATURES), ("structure", structure, STRUCTURES)):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {choices}")
        # parameters are float32 in training; .double() makes a float64 model
        self.model: ParticleModel = build_model(**model).float()
        integrator = integrator or self.model.integrators[0]
        self.model.check_integrator(integrator)
        self.save_hyperparameters()
        self.ties = Ties()
        if self.model.has_entropy:
            self.register_buffer("recent", torch.randn(RECENT))

    @classmethod
    def load_from_checkpoint(cls, *arguments: Any, **options: Any) -> MetriplecticModule:
        """The module of a checkpoint, ready to run: as in `load`, no parameter asks for a gradient.

        A training that is to go on from a checkpoint takes it by ``ckpt_path``.
        """
        return super().load_from_checkpoint(*arguments, **options).eval().requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of a batch in nats a particle, 0-dim."""
        return self._loss(batch)["nll"]

    def _loss(self, batch: Batch) -> dict[str, Any]:
        """What the loss of a batch is made of; in training, of the batches of all processes.

        Returns:
            ``nll`` a particle, 0-dim, the number ``count`` of free particles, and the ``moments`` of `Ties`. With
            entropy also the free particles' ``entropies`` at both ends, ``[2 count]``.
        """
        pairs, next_pairs = pairs_of(batch)
        species = batch.species if "species" in batch else None
        free, count = batch.active, int(batch.active.sum())
        mean = Mean(count, batch.vel) if self.training else lambda value: value
        entropy, next_entropy = self._entropies(batch, pairs, next_pairs, species, mean)
        nowhere = torch.zeros_like(batch.vel)  # only displacements matter
        start = State(nowhere, self._disturbed(batch.vel), entropy, species)
        end = State(nowhere, batch.next_vel, next_entropy, species)
        before, after = (self.model.configuration(p, species) for p in (pairs, next_pairs))
        nll = negative_log_likelihood(
            self.model,
            start,
            end,
            (before, after),
            self.hparams.model["dt"],
            acceleration=batch.acceleration,
            prescribed=batch.prescribed if "prescribed" in batch else None,
            sight=Sight(*batch.sight[batch.batch].T) if "sight" in batch else EXACT,
            entropy_noise=2.0 * self._blur**2,
            integrator=self.hparams.integrator,
        )
        moments = self._moments(batch, before, entropy, species, mean)
        parts = {"nll": mean(nll[free].mean()), "count": count, "moments": moments}
        if not self.model.has_entropy:
            return parts
        entropies = torch.cat([entropy[free], next_entropy[free]])
        if self.training:
            seen = (entropies, before.volume[free])
            ends = torch.stack([torch.stack([x.detach().min(), -x.detach().max()]) for x in seen])
            self.model.see(*(least_of_all(ends) * ends.new_tensor([1.0, -1.0])))
        return {**parts, "entropies": entropies}

    def _moments(
        self,
        batch: Batch,
        configuration: Configuration,
        entropy: Tensor,
        species: Tensor | None,
        mean: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """What `Ties` holds, of the start of the transitions; ``mean`` is of the free particles of all processes."""
        moments: dict[str, Tensor] = {}
        if not isinstance(self.model, MetriplecticModel):
            return moments
        free = batch.active
        if self.model.has_entropy:
            due = batch.particle_volume[batch.batch]
            moments["volume"] = mean((configuration.volume / due)[free].mean())
        thermo = self.model.thermo(configuration, entropy, species)
        if self.model.has_entropy and self.hparams.temperature == "equilibrium":
            temperature, bath = self.model.k_B * thermo.temperature, self.model.bath
            of_graphs = scatter(temperature[free], batch.batch[free], dim_size=batch.num_graphs, reduce="mean")
            # a solvent at rest is the thermometer, whatever flows in it
            off = of_graphs / (batch.temperature if bath is None else bath.temperature) - 1.0
            over_graphs = Mean(batch.num_graphs, off) if self.training else lambda value: value
            moments["temperature"] = over_graphs((off**2).mean())
        if self.hparams.structure == "equilibrium":
            forces = self.model.poisson(configuration, thermo).forces()
            thermal = batch.temperature[batch.batch]
            moments["forces"] = mean(balance(configuration.pairs, forces, thermal, free, self.model.cutoff))
        return moments

    def _entropies(
        self,
        batch: Batch,
        pairs: Pairs,
        next_pairs: Pairs,
        species: Tensor | None,
        mean: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Entropies at the start and the end, each ``[N]``; ``mean`` of this process becomes that of all."""
        encoder = self.model.encoder
        if not self.model.has_entropy:
            nothing = batch.vel.new_zeros(len(batch.vel))
            return nothing, nothing
        if encoder is None:
            return batch.entropy, batch.next_entropy
        vel, next_vel = (self.model.known_velocities(v) for v in (batch.vel, batch.next_vel))
        raw = torch.cat([encoder.raw(pairs, vel, species), encoder.raw(next_pairs, next_vel, species)])
        if self.training:
            counted = raw[torch.cat([batch.active, batch.active])]
            own = counted.detach().mean()
            middle = mean(own)
            variance = mean(counted.detach().var(unbiased=False) + (own - middle) ** 2)
            encoder.follow(middle, variance, weight=self._gauge_weight)
            entropy = encoder.standardise(raw, counted, mean)
        else:
            entropy = encoder.standardise(raw)
        if self._blur:
            entropy = entropy + self._blur * self._random(entropy)
        return entropy.chunk(2)

    @property
    def _blur(self) -> float:
        """Spread of what is added to the entropies of an encoder that sees frozen neighbourhoods."""
        if not self.model.has_entropy or self.model.encoder is None:
            return 0.0
        if self.model.is_solid:
            return BLUR
        return BLUR_IN_LIQUID if self.model.has_solvent and not self.model.is_overdamped else 0.0

    def _disturbed(self, velocities: Tensor) -> Tensor:
        """Velocities with the noise in which a graph network is trained, both ``[N, D]``."""
        if not (self.training and isinstance(self.model, GraphNetwork) and self.model.noise):
            return velocities
        return velocities + self.model.noise * self.model.speed * self._random(velocities)

    def _random(self, like: Tensor) -> Tensor:
        """Normal numbers of the step and the process alone, so that a training that goes on repeats itself."""
        random = torch.Generator().manual_seed(self.global_step * process_count() + self.global_rank)
        return torch.randn(like.shape, generator=random).to(like)

    def _negentropy(self, entropies: Tensor) -> Tensor:
        """Negentropy of the entropies of recent batches, with the gradient of this one's, 0-dim.

        A batch alone is no sample of the training set: its few graphs have their own temperatures.
        """
        if self.model.encoder is None:
            return entropies.new_zeros(())
        everyone = of_all_processes(entropies)
        sample = torch.cat([*everyone, self.recent])
        # gradients of processes are averaged, whatever the number of particles each has
        share = sum(part.numel() for part in everyone) / (process_count() * sample.numel())
        value = negentropy(sample)
        with torch.no_grad():
            self.recent.copy_(sample[: self.recent.numel()])
        return value.detach() + (value - value.detach()) / share

    @property
    def _likelihood_weight(self) -> float:
        """From 0 to 1 over the first steps where temperatures are tied, so that the ties come first.

        Against them stands an entropy that falls with temperature, minus the kinetic energy: it obeys the first law
        over a step, and a training that has found it stays there.
        """
        if self.hparams.temperature != "equilibrium":
            return 1.0
        return min(self.global_step / (TIES_FIRST * self.hparams.optimizer["steps"]), 1.0) ** 2

    @property
    def _gauge_weight(self) -> float:
        slow = 1.0 / self.hparams.gauge_steps
        if "start_from" in (self.hparams.provenance or {}):
            return slow  # the gauge of the weights that it starts from is not to be thrown away
        # a plain average at first, then an exponential one
        return max(1.0 / (1.0 + self.global_step), slow)

    def on_fit_start(self) -> None:
        keep_freed_memory()

    def on_train_epoch_start(self) -> None:
        if self.model.has_entropy:
            self.model.forget()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        parts, size = self._loss(batch), batch.num_graphs
        likely = parts["nll"]
        loss = self._likelihood_weight * likely
        if parts["moments"]:
            ties = self.ties(self.ties.follow(parts["moments"], self.global_step))
            self.log("train/ties", ties.detach(), batch_size=size)
            loss = loss + ties
        if self.model.has_entropy:
            shape = NEGENTROPY * self._negentropy(parts["entropies"])
            self.log("train/negentropy", shape.detach() / NEGENTROPY, batch_size=size)
            self.log("k_B", self.model.k_B.detach(), batch_size=size)
            likely, loss = likely + shape, loss + shape
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {float(loss)} at step {self.global_step}: lower optimizer.lr, or look for outliers in "
                "the data"
            )
        self.log("train/loss", likely.detach(), prog_bar=True, batch_size=size)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.validated: list[dict[str, Any]] = []

    def validation_step(self, batch: Batch, index: int) -> None:
        self.validated.append(self._loss(batch))

    def on_validation_epoch_end(self) -> None:
        parts = self.validated
        count = torch.tensor([part["count"] for part in parts]).to(parts[0]["nll"])
        over_processes = Mean(int(count.sum()), count)

        def mean(values: list[Tensor]) -> Tensor:
            return over_processes(torch.einsum("b,b...->...", count, torch.stack(values)) / count.sum())

        loss = mean([part["nll"] for part in parts])
        moments = {name: mean([part["moments"][name] for part in parts]) for name in parts[0]["moments"]}
        if moments:
            # a checkpoint whose temperature is off is not the best, however likely it makes the data
            ties = self.ties(moments)
            self.log("val/ties", ties, sync_dist=True)
            loss = loss + ties
        if self.model.encoder is not None:
            entropies = torch.cat([part["entropies"] for part in parts])
            loss = loss + NEGENTROPY * negentropy(torch.cat(of_all_processes(entropies)))
        self.log("val/loss", loss, prog_bar=True, sync_dist=True)

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
        self.to(checkpoint["state_dict"]["model.log_mass"].dtype)


def check_format(checkpoint: dict[str, Any]) -> None:
    """Raise ValueError for a file that is not ours or that another version wrote."""
    header = checkpoint.get("gnn_metriplectic") if isinstance(checkpoint, dict) else None
    if header is None:
        raise ValueError("this is not a checkpoint of gnn_metriplectic (no 'gnn_metriplectic' entry)")
    number = header.get("format") if isinstance(header, dict) else None
    if not isinstance(number, int):
        raise ValueError(f"this is a damaged checkpoint: its format is {number!r}, and should be a number")
    if number != CHECKPOINT_FORMAT:
        newer = number > CHECKPOINT_FORMAT
        remedy = "update gnn-metriplectic" if newer else "train again, or use the version of its time"
        raise ValueError(f"the checkpoint has format {number} and this version reads {CHECKPOINT_FORMAT}: {remedy}")
