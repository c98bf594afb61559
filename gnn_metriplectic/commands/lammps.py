"""gnnm-lammps: the LAMMPS plugin.

    gnnm-lammps build [lmp=LMP] [include=FOLDER]            compile it and print its path
    gnnm-lammps path  [lmp=LMP] [include=FOLDER]            print its path alone, for scripts; compiles it if need be
    gnnm-lammps example NAME [model=MODEL] [out=FOLDER]     write the example NAME into a folder

It is compiled again only where its sources, LAMMPS or the machine changed. lmp: the LAMMPS that is to load it, by
default that of this Python environment. include: the folder of its headers. model: a model.json of gnnm-export, whose
mass, time step and cutoff become the defaults of the example.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from gnn_metriplectic.lammps.build import build_plugin
from gnn_metriplectic.models import read_tables

EXAMPLES = Path(__file__).parents[1] / "lammps" / "examples"
OPTIONS = {"build": ("lmp", "include"), "path": ("lmp", "include"), "example": ("model", "out")}


def main() -> None:
    """The console script."""
    try:
        _run(sys.argv[1:])
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"gnnm-lammps: {error}")


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return
    verb, *words = words
    if verb not in OPTIONS:
        raise ValueError(f"{verb!r} is unknown; choose one of {', '.join(OPTIONS)}")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word]
    unknown = sorted(set(options) - set(OPTIONS[verb]))
    if unknown:
        raise ValueError(f"{verb} has no option {unknown[0]!r}; it takes {', '.join(OPTIONS[verb])}")
    if verb == "example":
        _example(names, **options)
        return
    if names:
        raise ValueError(f"{verb} takes no {names[0]!r}")
    if verb == "build":
        print("compiling the plugin (seconds, once)", file=sys.stderr)
    print(build_plugin(**options))


def _example(names: list[str], model: str | None = None, out: str | None = None) -> None:
    known = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir() and not folder.name.startswith("_"))
    if len(names) != 1 or names[0] not in known:
        raise ValueError(f"give the name of one example: {', '.join(known)}")
    defaults = {} if model is None else _defaults(Path(model))
    folder = Path(out or names[0])
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} exists already: choose another folder with out=...")
    shutil.copytree(EXAMPLES / names[0], folder, dirs_exist_ok=True)
    for name, value in defaults.items():
        script = folder / "in.lammps"
        text = re.sub(rf"^(variable {name} index) \S+", rf"\1 {value}", script.read_text(), flags=re.MULTILINE)
        script.write_text(text)
    print(f"{folder}: " + ", ".join(sorted(path.name for path in folder.iterdir())))


def _defaults(path: Path) -> dict[str, object]:
    """Variables of the examples that a model decides."""
    model = read_tables(path)
    # beyond half the skin in a step are partners that the neighbor list has not;
    # six standard deviations of the velocity at k_B T = 1
    skin = max(0.35 * model.cutoff, 12.0 * model.dt * float(model.mass) ** -0.5)
    return {"model": path, "mass": float(model.mass), "timestep": model.dt, "skin": round(skin, 6)}


if __name__ == "__main__":
    main()
