"""Long rollouts of trained models from one true frame: drift of energy, momentum and temperature.

    .venv/bin/python scripts/long_run.py outputs/study_comparison/ideal_gas/*_seed0/best.ckpt \
        --start data/ideal_gas/test/self_diffusion_0.h5 --steps 1000000 --out outputs/long

Runs in float64. Kinetic temperatures are means over tenths of the run, over that of the true run. A rollout that ends
early is told with the step and its reason. What is done is not done again. Writes table.md and table.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

import gnn_metriplectic as gm
from gnn_metriplectic.analysis import kinetic_temperature
from gnn_metriplectic.dynamics.start import start_of
from gnn_metriplectic.evaluation.rollouts import measure

FRAMES = 1000


def run(checkpoint: Path, truth: gm.Trajectory, steps: int, out: Path, seed: int) -> dict[str, Any]:
    """What one rollout came to."""
    model = gm.load(checkpoint).double()
    begun = time.monotonic()
    path = out.with_name(out.name + ".h5")
    path.unlink(missing_ok=True)  # of a run that was stopped
    try:
        found = gm.simulate(
            model,
            start_of(model, truth),
            box=truth.box,
            dt=model.dt,
            steps=steps,
            every=max(steps // FRAMES, 1),
            seed=seed,
            out=path,
            time=float(truth.times[0]),
            progress=str(checkpoint),
        )
    except ValueError as error:
        return {"checkpoint": str(checkpoint), "steps": steps, "failed": str(error)}
    rollout = measure(model, found)
    true = float(kinetic_temperature(truth).mean())
    tenths = [float(part.mean()) / true for part in np.array_split(kinetic_temperature(found), 10)]
    drifts = {"energy_drift": rollout.energy_drift, "momentum_drift": rollout.momentum_drift}
    return {
        "checkpoint": str(checkpoint),
        "steps": steps,
        "time": steps * model.dt,
        "kinetic_temperature": tenths,
        **{name: value for name, value in drifts.items() if math.isfinite(value)},
        "seconds": time.monotonic() - begun,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | time | kinetic T, first tenth | last tenth | energy drift | momentum drift |", "|" + "---|" * 6]
    for row in rows:
        name = Path(row["checkpoint"]).parent.name
        if "failed" in row:
            lines.append(f"| {name} | | {row['failed']} | | | |")
            continue
        first, last = row["kinetic_temperature"][0], row["kinetic_temperature"][-1]
        drifts = (f"{row[key]:.0e}" if key in row else "" for key in ("energy_drift", "momentum_drift"))
        lines.append(f"| {name} | {row['time']:g} | {first:.3f} | {last:.3f} | " + " | ".join(drifts) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--start", type=Path, required=True, help="H5MD file of a true run, at rest")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/long"))
    options = parser.parse_args()
    truth = gm.read_trajectory(options.start)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for checkpoint in options.checkpoints:
        path = options.out / f"{checkpoint.parent.name}_{options.steps}.json"
        if not path.is_file():
            row = run(checkpoint, truth, options.steps, path.with_suffix(""), options.seed)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(row, indent=1) + "\n")
            partial.replace(path)
        rows.append(json.loads(path.read_text()))
        (options.out / "table.md").write_text(markdown(rows))
        (options.out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
