"""LAMMPS runs from states of this package, and what they wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import gnn_metriplectic as gm
from gnn_metriplectic.lammps import build_plugin, run_lammps

HEAD = """
units lj
dimension ${dimension}
atom_style atomic
newton on
plugin load ${plugin}
"""
START = """
fix entropy all property/atom d_entropy
read_data state.data fix entropy NULL Entropies
"""
STYLES = """
pair_style metriplectic ${seed}
pair_coeff * * ${model}
neighbor 0.1 bin
neigh_modify every 1 delay 0 check yes
timestep ${dt}
"""
FIX = "fix move all metriplectic integrator ${integrator}\n"
COLUMNS = "id x y z vx vy vz fx fy fz d_entropy"
OUTPUT = f"""
thermo_style custom step pe ke etotal press f_move f_move[2] f_move[4] pxx pyy pzz pxy pxz pyz
thermo_modify norm no format float %.16g
thermo ${{every}}
dump frames all custom ${{every}} frames.txt {COLUMNS} f_move[1] f_move[2] f_move[6]
dump_modify frames sort id format float %.17g
"""
RUN = "run ${steps}\n"
SCRIPT = HEAD + START + STYLES + FIX + OUTPUT + RUN


@dataclass
class Result:
    """What a run wrote: frames by column, ``[T, N]`` each, thermo lines by column, and all text."""

    frames: dict[str, Tensor]
    thermo: dict[str, Tensor]
    text: str

    def vectors(self, names: str, dimension: int) -> Tensor:
        """Columns x y z, vx vy vz or fx fy fz as ``[T, N, D]``."""
        return torch.stack([self.frames[name] for name in names.split()[:dimension]], dim=2)


def write_data(path: Path, state: gm.State, box: gm.Box, masses: tuple[float, ...] = (1.0,), types=None) -> None:
    """A LAMMPS data file with a section of entropies; particles are wrapped into the box."""
    count, dimension = state.pos.shape
    lattice = torch.zeros(3, 3, dtype=torch.float64)
    lattice[2, 2] = 1.0
    lattice[:dimension, :dimension] = box.lattice_at(0.0)
    lines = ["state", "", f"{count} atoms", f"{len(masses)} atom types"]
    for k, axis in enumerate("xyz"):
        low = -0.5 if k >= dimension else 0.0
        lines.append(f"{low!r} {low + float(lattice[k, k])!r} {axis}lo {axis}hi")
    lines.append(" ".join(repr(float(x)) for x in (lattice[1, 0], lattice[2, 0], lattice[2, 1])) + " xy xz yz")
    lines += ["", "Masses", "", *(f"{k} {m!r}" for k, m in enumerate(masses, 1))]
    pos = box.wrap(state.pos).tolist()
    kinds = types or [1] * count
    flat = [0.0] * (3 - dimension)
    lines += ["", "Atoms # atomic", ""]
    lines += [f"{i} {k} " + " ".join(map(repr, r + flat)) for i, (k, r) in enumerate(zip(kinds, pos, strict=True), 1)]
    lines += ["", "Velocities", "", *(f"{i} " + " ".join(map(repr, v + flat)) for i, v in numbered(state.vel))]
    lines += ["", "Entropies", "", *(f"{i} {s!r}" for i, s in numbered(state.entropy)), ""]
    path.write_text("\n".join(lines))


def numbered(values: Tensor):
    return enumerate(values.tolist(), 1)


def run(
    folder: Path,
    model: Path,
    script: str = SCRIPT,
    *,
    dimension: int = 3,
    steps: int = 0,
    every: int = 100,
    dt: float = 0.01,
    seed: int = 3,
    integrator: str = "energy_conserving",
    processes: int = 1,
) -> Result:
    """Run a script in a folder that holds ``state.data``."""
    (folder / "in.lammps").write_text(script)
    variables = {
        "plugin": build_plugin(),
        "model": model,
        "dimension": dimension,
        "steps": steps,
        "every": every,
        "dt": dt,
        "seed": seed,
        "integrator": integrator,
    }
    text = run_lammps(folder / "in.lammps", variables, processes=processes, cwd=folder)
    frames = folder / "frames.txt"
    return Result(read_frames(frames) if frames.is_file() else {}, read_thermo(text), text)


def read_frames(path: Path) -> dict[str, Tensor]:
    frames, names = [], []
    for block in path.read_text().split("ITEM: TIMESTEP\n")[1:]:
        head, rows = block.split("ITEM: ATOMS ")[1].split("\n", 1)
        names = head.split()
        frames.append(torch.tensor([[float(x) for x in row.split()] for row in rows.splitlines()], dtype=torch.float64))
    return dict(zip(names, torch.stack(frames).unbind(2), strict=True)) if frames else {}


def read_thermo(text: str) -> dict[str, Tensor]:
    """The last table of thermo output."""
    head = re.findall(r"^ *(Step .*)$", text, re.MULTILINE)
    if not head:
        return {}
    names = head[-1].split()
    rows = []
    for line in text[text.rindex(head[-1]) :].splitlines()[1:]:
        if not re.match(r"^ *\d+ ", line) or len(line.split()) != len(names):
            if line.startswith("Loop time"):
                break
            continue
        rows.append([float(x) for x in line.split()])
    return dict(zip(names, torch.tensor(rows, dtype=torch.float64).unbind(1), strict=True))
