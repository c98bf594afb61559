"""gnnm-simulate: a rollout of a trained model or of its tables, from the first frame of a trajectory.

gnnm-simulate checkpoint=best.ckpt steps=1000
gnnm-simulate model=model.json start=state.h5 steps=1000
"""

from __future__ import annotations

import re
import sys

import torch
from omegaconf import DictConfig

from gnn_metriplectic.commands.cli import command, of_training, plain
from gnn_metriplectic.dynamics import Prescribed, forcing_from, simulate
from gnn_metriplectic.learning import load, read_checkpoint
from gnn_metriplectic.models import State, read_tables
from gnn_metriplectic.systems import ensure_dataset, read_split
from gnn_metriplectic.trajectory import read_trajectory
from gnn_metriplectic.trajectory.checks import check_vacant

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def main() -> None:
    """The console script."""
    # to Hydra, model=... would choose a file of conf/model
    sys.argv[1:] = [re.sub(r"^model=", "model.file=", word) for word in sys.argv[1:]]
    run()


@command("simulate")
def run(config: DictConfig) -> None:
    """Run the model and write its trajectory."""
    out = check_vacant(config.out)
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision is {config.precision!r}; choose one of {sorted(PRECISIONS)}")
    if config.checkpoint is None and config.model.file is None:
        raise ValueError("a model must be given: checkpoint=... or model=model.json")
    # tables have no encoder: the start has its entropies from the checkpoint, or in its file
    encoder = None if config.checkpoint is None else load(config.checkpoint).to(dtype=PRECISIONS[config.precision])
    model = encoder
    if config.model.file is not None:
        model = read_tables(config.model.file, range=config.range).to(dtype=PRECISIONS[config.precision])
    if config.checkpoint is None and config.start is None:
        raise ValueError("model.json has no encoder: give a start=... that holds entropies, or the checkpoint=... too")
    if config.start is None:
        config = of_training(config)
        data = ensure_dataset(plain(config.system), config.data, seed=config.data_seed)
        test = read_split(data, "test")
        if config.scenario is not None and config.scenario not in test:
            raise ValueError(f"scenario {config.scenario!r} is not among the test trajectories: {sorted(test)}")
        start = test[config.scenario or next(iter(test))][0]
    else:
        start = read_trajectory(config.start)
    trained = "energy_conserving"
    if config.checkpoint is not None:
        trained = read_checkpoint(config.checkpoint)["hyper_parameters"]["integrator"]
    traj = simulate(
        model,
        State.from_frame(start, config.frame, encoder or model),
        box=start.box,
        dt=model.dt if config.dt is None else config.dt,
        steps=config.steps,
        integrator=config.integrator or trained,
        inner_steps=config.inner_steps,
        seed=config.seed,
        every=config.every,
        out=out,
        forcing=forcing_from(start.forcing),
        prescribed=Prescribed.recorded(start),
        neighbors=config.neighbors,
        time=float(start.times[config.frame]),
        progress="simulating",
    )
    print(f"{len(traj)} frames of {traj.num_particles} particles in {out}")


if __name__ == "__main__":
    main()
