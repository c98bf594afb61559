"""gnnm-generate: training, validation and test trajectories of a system."""

from __future__ import annotations

from omegaconf import DictConfig

from gnn_metriplectic.commands.cli import command, plain
from gnn_metriplectic.systems import SPLITS, ensure_dataset, read_split


@command("generate")
def main(config: DictConfig) -> None:
    """Write the trajectories that are missing and say what is there."""
    folder = ensure_dataset(plain(config.system), config.out, seed=config.seed, workers=config.workers)
    for split in (name for name in SPLITS if config.system[name]):
        for name, runs in read_split(folder, split).items():
            first = runs[0]
            print(f"{folder / split}  {name}: {len(runs)} x {len(first)} frames of {first.num_particles} particles")


if __name__ == "__main__":
    main()
