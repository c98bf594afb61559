"""The LightningDataModule: random transitions for training, fixed ones for validation."""

from __future__ import annotations

from collections.abc import Iterator

import lightning
import numpy as np
import torch
from torch.utils.data import Sampler, Subset
from torch_geometric.loader import DataLoader

from gnn_metriplectic.learning.transitions import TransitionDataset


class SeededSampler(Sampler[int]):
    """Random items, with replacement, that depend on (seed, epoch, rank) alone.

    A training that stops at the end of an epoch and goes on later sees what it would have seen.

    Args:
        population: number of items.
        count: items an epoch, over all ranks.
        seed: of the draw.
    """

    def __init__(self, population: int, count: int, *, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.population, self.count, self.seed, self.rank, self.ranks = population, count, seed, rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.ranks

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng([self.seed, self.epoch]).integers(self.population, size=self.count)
        return iter(draw[self.rank :: self.ranks][: len(self)].tolist())


class TransitionData(lightning.LightningDataModule):
    """Batches of transitions as PyTorch Geometric graphs.

    Args:
        train, validation: the transitions.
        batch_size: graphs a batch and process.
        steps_per_epoch: batches from one validation (and checkpoint) to the next.
        seed: of the order.
        validation_graphs: transitions, evenly spread, on which checkpoints are compared.
        workers: processes that prepare batches; 0 prepares them in the training process.
    """

    def __init__(
        self,
        train: TransitionDataset,
        validation: TransitionDataset,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int = 0,
        validation_graphs: int = 32,
        workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("steps_per_epoch", steps_per_epoch)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self.train, self.batch_size, self.steps_per_epoch = train, batch_size, steps_per_epoch
        self.seed, self.workers = seed, workers
        picks = np.unique(np.linspace(0, len(validation) - 1, validation_graphs).astype(int))
        self.validation = Subset(validation, picks.tolist())

    def train_dataloader(self) -> DataLoader:
        """Batches of one epoch on this process."""
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        count = self.batch_size * self.steps_per_epoch * ranks
        sampler = SeededSampler(len(self.train), count, seed=self.seed, rank=rank, ranks=ranks)
        return self._loader(self.train, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """The fixed validation batches; every process has its share."""
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        share = max(len(self.validation) // ranks, 1)  # equal on all ranks, so that none waits for another
        picks = [(rank + k * ranks) % len(self.validation) for k in range(share)]
        return self._loader(Subset(self.validation, picks))

    def _loader(self, dataset, **options) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
