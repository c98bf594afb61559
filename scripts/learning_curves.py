"""Validation loss of trainings against wall time, and when each was near its end.

    .venv/bin/python scripts/learning_curves.py "ideal gas=outputs/ideal_gas" "stars=outputs/star_polymer_11" \\
        --out docs/figures/learning.png

Each argument is a name and the folder of a finished training, whose last.ckpt keeps the curve. The clock is that of the
training, validation among it and whatever else the machine did.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from gnn_metriplectic.analysis.style import ACCENT, BAND, RC, figure
from gnn_metriplectic.learning.callbacks import learning_curve
from gnn_metriplectic.learning.fit import read_checkpoint

# nats a particle above the last loss, from which on a training counts as near its end
NEAR = 0.2


def read_curve(folder: str) -> dict[str, np.ndarray]:
    """Rows of the learning curve, with ``minutes`` of wall time.

    Raises ValueError where the checkpoint kept none.
    """
    curve = learning_curve(read_checkpoint(Path(folder) / "last.ckpt"))
    if curve is None or not curve["step"]:
        raise ValueError(f"{folder}/last.ckpt holds no learning curve")
    rows = {name: np.array(values) for name, values in curve.items()}
    return {**rows, "minutes": rows["wall_time"] / 60}


def near_from(curve: dict[str, np.ndarray]) -> float:
    """Minutes after which the validation loss stays within `NEAR` of its last value."""
    away = np.flatnonzero(curve["val"] > curve["val"][-1] + NEAR)
    return float(curve["minutes"][away[-1] + 1 if len(away) else 0])


def draw(curves: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """One panel a training."""
    with figure(3.7 * len(curves), 3.4) as fig:
        panels = fig.subplots(1, len(curves), squeeze=False)[0]
        for axes, (name, curve) in zip(panels, curves.items(), strict=True):
            axes.plot(curve["minutes"], curve["train"], color=BAND, linewidth=1.2, label="training")
            axes.plot(curve["minutes"], curve["val"], color=ACCENT, marker="o", markersize=3, label="validation")
            near = {"color": "#444c56", "linewidth": 0.9, "linestyle": (0, (2, 2))}
            axes.axvline(near_from(curve), label=f"within {NEAR:g} of the last from here", **near)
            low, high = min(curve["val"].min(), curve["train"].min()), np.percentile(curve["val"], 90)
            # the first losses are larger by orders of magnitude
            axes.set_ylim(low - 0.08 * (high - low), high + 0.15 * (high - low))
            axes.set_xlim(left=0)
            axes.set(title=name, xlabel="minutes of training", ylabel="loss, nats a particle")
        fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, facecolor="white", dpi=RC["savefig.dpi"], metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainings", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/learning.png"), help="the figure")
    options = parser.parse_args()
    named = [training.partition("=") for training in options.trainings]
    if not all(folder for _, _, folder in named):
        parser.error(f"{options.trainings}: give each training as NAME=FOLDER")
    curves = {name: read_curve(folder) for name, _, folder in named}
    for name, curve in curves.items():
        print(
            f"{name}: {curve['step'][-1]:.0f} steps in {curve['minutes'][-1]:.1f} min; validation loss "
            f"{curve['val'][-1]:.3f}, within {NEAR} of it from {near_from(curve):.1f} min on"
        )
    draw(curves, options.out)


if __name__ == "__main__":
    main()
