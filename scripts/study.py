"""Train and score variants of an experiment and put their scores into one table; what is done is not done again.

    .venv/bin/python scripts/study.py scripts/studies/star_polymer_11.yaml [--only "lag 4"] [--out outputs/study]

The file names the experiment, the seeds and, by name, the overrides of each variant. Writes table.md and table.json;
scores are means over seeds (and their spread), each with the floor of the data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

COLUMNS = ("rdf", "msd", "vacf")


def train(experiment: str, seed: int, overrides: list[str], out: Path) -> dict | None:
    """Scores of one training, or None where it failed (its output is in ``<out>.log``)."""
    if not (out / "metrics.json").is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "gnn_metriplectic.commands.train", f"experiment={experiment}", f"seed={seed}"]
        command += [f"out={out}", *overrides]
        if (out / "last.ckpt").is_file():
            command.append("ckpt_path=last")
        with out.with_suffix(".log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    path = out / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else None


def row(name: str, scenario: str, found: list[dict]) -> dict[str, object]:
    """Means and spreads over seeds of one variant."""
    scores = [metrics["scores"][scenario] for metrics in found]
    values = {key: [s[key] for s in scores] for key in COLUMNS}
    values["kinetic_temperature"] = [s["kinetic_temperature"] / s["kinetic_temperature_truth"] - 1.0 for s in scores]
    values["temperature"] = [s["temperature"] / s["kinetic_temperature_truth"] - 1.0 for s in scores]
    values["D"] = [s["D"] / s["D_truth"] - 1.0 for s in scores]
    values["seconds"] = [metrics["seconds"]["train"] for metrics in found]
    spread = {key: float(np.std(v, ddof=1)) if len(v) > 1 else None for key, v in values.items()}
    mean = {key: float(np.mean(v)) for key, v in values.items()}
    return {"variant": name, "scenario": scenario, "seeds": len(found), "mean": mean, "spread": spread}


def cell(entry: dict, key: str, *, percent: bool = False) -> str:
    factor, digits = (100.0, 1) if percent else (1.0, 3)
    text = f"{factor * entry['mean'][key]:{'+' if percent else ''}.{digits}f}"
    spread = entry["spread"][key]
    return text + (f" ± {factor * spread:.{digits}f}" if spread is not None else "") + (" %" if percent else "")


def markdown(rows: list[dict], floors: dict[str, dict]) -> str:
    lines = ["| variant | scenario | RDF | MSD | VACF | kinetic T | k_B <T> | D | training |", "|" + "---|" * 9]
    for entry in rows:
        cells = [cell(entry, key) for key in COLUMNS]
        cells += [cell(entry, key, percent=True) for key in ("kinetic_temperature", "temperature", "D")]
        cells.append(f"{entry['mean']['seconds']:.0f} s")
        lines.append(f"| {entry['variant']} | {entry['scenario']} | " + " | ".join(cells) + " |")
    for scenario, floor in floors.items():
        known = " | ".join(f"{floor[key]:.3f}" for key in COLUMNS)
        lines.append(f"| *floor* | {scenario} | {known} | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those of the file")
    parser.add_argument("--out", type=Path, help="folder; by default outputs/study_<experiment>")
    options = parser.parse_args()
    study = yaml.safe_load(options.study.read_text())
    out = options.out or Path("outputs") / f"study_{study['experiment']}"
    unknown = set(options.only or ()) - set(study["variants"])
    if unknown:
        sys.exit(f"study.py: {options.study} has no variant {sorted(unknown)}; known: {list(study['variants'])}")
    rows, floors = [], {}
    for name, overrides in study["variants"].items():
        if options.only and name not in options.only:
            continue
        folder = name.replace(" ", "_").replace("(", "").replace(")", "")
        tried = [
            train(study["experiment"], seed, overrides, out / f"{folder}_seed{seed}")
            for seed in options.seeds or study["seeds"]
        ]
        found = [metrics for metrics in tried if metrics is not None]
        if not found:
            print(f"{name}: no training ended; see {out / folder}_seed*.log")
            continue
        for scenario in found[0]["scores"]:
            rows.append(row(name, scenario, found))
        floors.update(found[0]["floor"])
        text = markdown(rows, floors)
        (out / "table.md").write_text(text)
        (out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
        print(text)


if __name__ == "__main__":
    main()
