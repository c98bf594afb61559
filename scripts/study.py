"""Train and score experiments by variants by seeds into one table and one figure; what is done is not done again.

    .venv/bin/python scripts/study.py scripts/studies/comparison.yaml
    .venv/bin/python scripts/study.py scripts/studies/star_polymer_11.yaml --only default "lag 4" --seeds 0 1

A study is a file with

    variants:     name -> overrides of gnnm-train
    experiments:  name -> {seeds, variants (names, all by default), overrides (for all variants)}
                  or, of one alone, `experiment: name` and `seeds: [...]`
    minutes:      of training, after which every cell stops (optional)
    transfer:     experiment -> overrides of gnnm-evaluate for conditions never seen, of its first seed (optional)

Each cell has its folder, so that a study that was stopped goes on where it was. What failed is in the table with its
reason, and is tried again with --retry. Writes table.md, table.json and figure.png into the folder of the study.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from study_summary import draw, markdown, summarise

from gnn_metriplectic.learning import read_checkpoint


@dataclass(frozen=True)
class Cell:
    """One training of the study.

    Attributes:
        experiment, variant, seed: which.
        folder: of its checkpoints and scores.
        training: overrides of gnnm-train.
        transfer: overrides of gnnm-evaluate for other conditions; None where none are asked for.
    """

    experiment: str
    variant: str
    seed: int
    folder: Path
    training: list[str]
    transfer: list[str] | None

    def run(self, *, retry: bool) -> None:
        """Do what is not done."""
        words = [f"experiment={self.experiment}", f"seed={self.seed}", f"out={self.folder}", *self.training]
        if (self.folder / "last.ckpt").is_file():
            words.append("ckpt_path=last")
        if self._command("train", words, self.folder, retry=retry) and self.transfer is not None:
            out = self.folder / "transfer"
            words = [f"checkpoint={self.folder / 'best.ckpt'}", f"out={out}", *self.transfer]
            self._command("evaluate", words, out, retry=retry)

    @staticmethod
    def _command(name: str, words: list[str], out: Path, *, retry: bool) -> bool:
        """Run ``gnnm-<name>`` unless ``out`` has its scores or the reason of a failure; whether there are scores."""
        scores, reason, said = out / "metrics.json", _beside(out, ".failed"), _beside(out, ".log")
        if scores.is_file() or (reason.is_file() and not retry):
            return scores.is_file()
        reason.unlink(missing_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        with said.open("w") as log:
            command = [sys.executable, "-m", f"gnn_metriplectic.commands.{name}", *words]
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode > 0:  # a signal is no failure of the cell
            # Hydra's last words are none about the reason
            lines = [line for line in said.read_text().splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
            reason.write_text((lines[-1] if lines else f"exit code {done.returncode}") + "\n")
        return scores.is_file()

    def result(self) -> dict[str, Any]:
        """Scores, of the conditions of the training and of others, and how far the training came."""
        found: dict[str, Any] = {"experiment": self.experiment, "variant": self.variant, "seed": self.seed}
        for part, out in (("metrics", self.folder), ("transfer", self.folder / "transfer")):
            if (out / "metrics.json").is_file():
                found[part] = json.loads((out / "metrics.json").read_text())
            elif _beside(out, ".failed").is_file():
                found.setdefault("failed", {})[part] = _beside(out, ".failed").read_text().strip()
        if (self.folder / "last.ckpt").is_file():
            content = read_checkpoint(self.folder / "last.ckpt")
            found["trained"] = content["global_step"] / content["hyper_parameters"]["optimizer"]["steps"]
            found["parameters"] = sum(
                value.numel() for name, value in content["state_dict"].items() if name.startswith("model.")
            )
        return found


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)


def cells(study: dict[str, Any], out: Path, options: argparse.Namespace) -> Iterator[Cell]:
    """The cells of a study, in the order of its file; the variants of one seed stand together."""
    alone = "experiment" in study
    experiments = {study["experiment"]: {"seeds": study["seeds"]}} if alone else study["experiments"]
    minutes = options.minutes if options.minutes is not None else study.get("minutes")
    shared = list(options.override)
    if minutes is not None:
        days, seconds = divmod(round(60 * minutes), 86400)
        shared.append(f"trainer.max_time='{days}:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}'")
    data = [] if options.data is None else [f"data={options.data}/${{system.name}}"]
    for experiment, settings in experiments.items():
        if options.experiments and experiment not in options.experiments:
            continue
        transfer = (study.get("transfer") or {}).get(experiment)
        if transfer is not None:
            transfer = [*transfer, *data]
        for seed in options.seeds or settings["seeds"]:
            elsewhere = transfer if seed == settings["seeds"][0] else None
            for variant in settings.get("variants", study["variants"]):
                if options.only and variant not in options.only:
                    continue
                name = f"{variant.replace(' ', '_').replace('(', '').replace(')', '')}_seed{seed}"
                training = [*settings.get("overrides", ()), *study["variants"][variant], *data, *shared]
                folder = out / name if alone else out / experiment / name
                yield Cell(experiment, variant, seed, folder, training, elsewhere)


def check(study: dict[str, Any], path: Path, options: argparse.Namespace) -> None:
    """End with one sentence where the study or the options name what does not exist."""
    if not isinstance(study, dict) or "variants" not in study or not {"experiment", "experiments"} & set(study):
        sys.exit(f"study.py: {path} has to name its variants, and an experiment or experiments")
    experiments = [study["experiment"]] if "experiment" in study else list(study["experiments"])
    wanted = [
        ("variant", options.only or (), list(study["variants"])),
        ("experiment", options.experiments or (), experiments),
        ("experiment", study.get("transfer") or (), experiments),
    ]
    if "experiments" in study:
        for settings in study["experiments"].values():
            wanted.append(("variant", settings.get("variants", ()), list(study["variants"])))
    for kind, names, known in wanted:
        unknown = sorted(set(names) - set(known))
        if unknown:
            sys.exit(f"study.py: {path} has no {kind} {unknown}; known: {known}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--experiments", nargs="+", help="of those of the study, these")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those of the file")
    parser.add_argument("--minutes", type=float, help="of training a cell, instead of those of the file")
    parser.add_argument("--data", type=Path, help="folder that holds a folder of trajectories for each system")
    parser.add_argument(
        "--override", nargs="+", default=[], help="overrides for all trainings, such as optimizer.steps"
    )
    parser.add_argument("--out", type=Path, help="folder; by default outputs/study_<experiment or name of the file>")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument("--summary", action="store_true", help="only write the table and figure of what is there")
    options = parser.parse_args()
    study = yaml.safe_load(options.study.read_text())
    check(study, options.study, options)
    out = options.out or Path("outputs") / f"study_{study.get('experiment', options.study.stem)}"
    todo = list(cells(study, out, options))
    for number, cell in enumerate(todo):
        if options.summary:
            break
        what = f"{cell.experiment}, {cell.variant}, seed {cell.seed}"
        print(f"[{number + 1}/{len(todo)}] {what}: {cell.folder}", flush=True)
        cell.run(retry=options.retry)
        write(out, todo)
    print(write(out, todo))


def write(out: Path, todo: list[Cell]) -> str:
    """The table and the figure of what is there."""
    rows = summarise([cell.result() for cell in todo])
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(rows)
    (out / "table.md").write_text(text)
    (out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    if any("mean" in row for row in rows):
        draw(rows, out / "figure.png")
    return text


if __name__ == "__main__":
    main()
