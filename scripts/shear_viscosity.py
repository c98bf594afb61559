"""Shear viscosity of a learned model under Lees-Edwards shear, beside the molecular dynamics that it replaces.

    .venv/bin/python scripts/shear_viscosity.py --checkpoint outputs/star_polymer_11/best.ckpt \
        --system star_polymer_11 --out outputs/star_polymer_11/shear.json

The model is not trained on sheared systems. Molecular dynamics: SLLOD with a Nosé-Hoover thermostat.
Model: a heat bath on the internal energies. Error bars come from blocks of time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gnn_metriplectic as gm
from gnn_metriplectic.analysis.metrics import write_metrics
from gnn_metriplectic.dynamics import Thermostat
from gnn_metriplectic.dynamics.integrators import EnergyConserving
from gnn_metriplectic.geometry import Box
from gnn_metriplectic.systems.star_polymer import StarPolymerSystem

BLOCKS = 10
# relaxation time of the heat bath, in steps of the model
RELAXATION = 5.0


@torch.no_grad()
def sheared_model(
    checkpoint: Path, start: gm.Trajectory, *, rate: float, settling: float, duration: float, seed: int
) -> dict[str, float]:
    """Viscosity, pressure and temperatures of the model in steady shear."""
    model = gm.load(checkpoint).double()
    box = Box.orthorhombic(start.box.lengths, shear_rate=rate)
    state = gm.State.from_frame(start, 0, model)
    vel = state.vel.clone()
    vel[:, 0] += rate * state.pos[:, 1]
    state = gm.State(state.pos, vel, state.entropy, state.species)
    temperature = start.metadata["temperature"]
    bath = Thermostat(temperature, RELAXATION * model.dt)
    scheme = EnergyConserving(model, box, model.dt, seed=seed, thermostat=bath)
    frame = scheme.start(state)
    steps, skip = round((settling + duration) / model.dt), round(settling / model.dt)
    rows = []
    for number in track(range(steps), description=f"model, rate {rate:g}"):
        frame = scheme.step(frame)
        if number < skip:
            continue
        state, pairs = frame.state, frame.configuration.pairs
        flow = torch.zeros_like(state.vel)
        flow[:, 0] = rate * state.pos[:, 1]
        stress = model.stress(state, pairs, flow=flow)
        kinetic = (model.masses(len(flow), None)[:, None] * (state.vel - flow) ** 2).sum() / (flow.numel() - 3)
        thermal = (model.k_B * model.temperature(state, pairs)).mean()
        rows.append([float(x) for x in (stress[1, 0] / rate, -stress.trace() / 3.0, kinetic, thermal)])
    values = np.array(rows)
    blocks = np.array([part[:, 0].mean() for part in np.array_split(values, BLOCKS)])
    return {
        "rate": rate,
        "viscosity": float(blocks.mean()),
        "error": float(blocks.std(ddof=1) / BLOCKS**0.5),
        "pressure": float(values[:, 1].mean()),
        "temperature": float(values[:, 2].mean()),
        "thermodynamic_temperature": float(values[:, 3].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--system", default="star_polymer_11", help="name of conf/system/NAME.yaml")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--duration", type=float, default=400.0, help="of each measurement, in units of time")
    parser.add_argument("--settling", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of the system's data")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; molecular dynamics in it is not run again")
    options = parser.parse_args()
    settings = yaml.safe_load((Path("conf/system") / f"{options.system}.yaml").read_text())
    data = options.data or Path("data") / options.system
    start = gm.read_trajectory(data / "test" / "melt_0.h5")
    system = StarPolymerSystem(**settings["parameters"])
    times = {"settling": options.settling, "duration": options.duration, "seed": options.seed}
    # the molecular dynamics does not depend on the model: keep it with the data
    kept = data / "shear.json"
    known = json.loads(kept.read_text()) if kept.is_file() else []
    truth = []
    for rate in options.rates:
        wanted = {"rate": rate, **times, "fix": "nvt"}
        found = next((row for row in known if wanted.items() <= row.items()), None)
        if found is None:
            found = {**system.shear(data, rate=rate, **times), **wanted}
            known.append(found)
            write_metrics(kept, known)
        truth.append(found)
    model = [sheared_model(options.checkpoint, start, rate=rate, **times) for rate in options.rates]
    table = Table(box=SIMPLE_HEAD)
    for heading in ("rate", "", "viscosity", "pressure", "kinetic T", "k_B <T>"):
        table.add_column(heading, justify="right")
    for true, learned in zip(truth, model, strict=True):
        for name, row in (("truth", true), ("model", learned)):
            thermal = row.get("thermodynamic_temperature")
            table.add_row(
                f"{row['rate']:g}",
                name,
                f"{row['viscosity']:.4f} ± {row['error']:.4f}",
                f"{row['pressure']:.4f}",
                f"{row['temperature']:.4f}",
                "" if thermal is None else f"{thermal:.4f}",
            )
    Console().print(table)
    write_metrics(options.out, {"truth": truth, "model": model, "checkpoint": str(options.checkpoint)})


if __name__ == "__main__":
    main()
