"""gnnm-simulate: a rollout of a trained model, from the first frame of a trajectory."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from gnn_metriplectic.commands.cli import command, plain
from gnn_metriplectic.dynamics import forcing_from, simulate
from gnn_metriplectic.learning import load
from gnn_metriplectic.models import State
from gnn_metriplectic.systems import ensure_dataset, read_split
from gnn_metriplectic.trajectory import read_trajectory

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@command("simulate")
def main(config: DictConfig) -> None:
    """Run the model and write its trajectory."""
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision is {config.precision!r}; choose one of {sorted(PRECISIONS)}")
    model = load(config.checkpoint).to(dtype=PRECISIONS[config.precision])
    if config.start is None:
        data = ensure_dataset(plain(config.system), config.data, seed=config.data_seed)
        test = read_split(data, "test")
        if config.scenario is not None and config.scenario not in test:
            raise ValueError(f"scenario {config.scenario!r} is not among the test trajectories: {sorted(test)}")
        start = test[config.scenario or next(iter(test))][0]
    else:
        start = read_trajectory(config.start)
    out = Path(config.out)
    run = simulate(
        model,
        State.from_frame(start, config.frame, model),
        box=start.box,
        dt=config.dt or model.dt,
        steps=config.steps,
        integrator=config.integrator,
        seed=config.seed,
        every=config.every,
        out=out,
        forcing=forcing_from(start.forcing),
        neighbors=config.neighbors,
        progress="simulating",
    )
    print(f"{len(run)} frames of {run.num_particles} particles in {out}")


if __name__ == "__main__":
    main()
