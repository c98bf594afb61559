"""Which atoms belong to which particle: molecules, residues, fragments, or what a file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from gnn_metriplectic.systems.molecular.files import Files, one_line
from gnn_metriplectic.systems.molecular.settings import TrajectorySettings


def find_members(files: Files, settings: TrajectorySettings) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``[A]`` of the atoms that belong to particles, and a label ``[A]`` of the particle of each.

    Raises:
        ValueError: where the topology lacks what the mapping needs, or a selection or the mapping file is wrong.
    """
    universe = files.universe
    if settings.mapping == "file":
        return _members_of_file(universe, settings)
    atoms = _select(universe, settings.select, f"select={settings.select}")
    bonded = bonds(universe) is not None
    if settings.mapping == "fragment":
        if not bonded:
            raise ValueError(f"{settings.topology} has no bonds, which mapping=fragment needs: try mapping=residue")
        return atoms.indices, atoms.fragindices
    if settings.mapping == "residue":
        return atoms.indices, atoms.resindices
    if files.has_molecule_ids:
        free = atoms[atoms.resids == 0]
        if len(free):
            raise ValueError(
                f"{len(free)} atoms of {settings.topology} have molecule id 0, that is none: leave them out with "
                "select='not resid 0', or use mapping=file"
            )
        return atoms.indices, atoms.resids
    if hasattr(atoms, "molnums"):
        return atoms.indices, atoms.molnums
    works = [f"mapping={m}" for m, there in (("fragment", bonded), ("residue", len(atoms.residues) > 1)) if there]
    works = ", ".join([*works, "mapping=file"])
    raise ValueError(f"{settings.topology} has no molecule ids, which mapping=molecule needs: use {works}")


def bonds(universe: Any) -> np.ndarray | None:
    """Pairs of bonded atoms, ``[B, 2]``, or None."""
    found = np.array(universe.bonds.indices) if hasattr(universe, "bonds") else np.empty(0)
    return found if len(found) else None


def _members_of_file(universe: Any, settings: TrajectorySettings) -> tuple[np.ndarray, np.ndarray]:
    owner = np.zeros(len(universe.atoms), dtype=int)
    for number, line in enumerate(Path(settings.mapping_file).read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        where = f"{settings.mapping_file}, line {number}"
        if re.fullmatch(r"[\d\s]+", text):
            atoms = np.array(text.split(), dtype=int)
            if atoms.max() >= len(owner):
                raise ValueError(f"{where}: atom {atoms.max()} is not there, indices go from 0 to {len(owner) - 1}")
        else:
            atoms = _select(universe, text, where).indices
        taken = atoms[owner[atoms] != 0]
        if len(taken):
            raise ValueError(f"{where}: atom {taken[0]} already belongs to the particle of line {owner[taken[0]]}")
        owner[atoms] = number
    if not owner.any():
        raise ValueError(
            f"{settings.mapping_file} names no particles: write one a line, a selection or indices of atoms"
        )
    atoms = np.flatnonzero(owner)
    return atoms, owner[atoms]


def _select(universe: Any, text: str, where: str) -> Any:
    try:
        atoms = universe.select_atoms(text)
    except Exception as error:  # the parser raises many kinds
        raise ValueError(f"{where}: MDAnalysis does not understand {text!r}: {one_line(error)}") from error
    if not len(atoms):
        raise ValueError(f"{where}: no atom matches {text!r}")
    return atoms
