"""What a user says of a trajectory, and what is refused before any file is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAPPINGS = ("molecule", "residue", "fragment", "file")
SPECIES = ("none", "name", "mass")
VELOCITIES = ("auto", "differences")
# length, time and mass of MDAnalysis, and of LAMMPS' unit styles
ANGSTROM_PS = ("Angstrom", "ps", "amu")
UNITS = {
    "lj": ("sigma", "tau", "m"),
    "real": ("Angstrom", "fs", "amu"),
    "metal": ANGSTROM_PS,
    "si": ("m", "s", "kg"),
    "cgs": ("cm", "s", "g"),
    "electron": ("Bohr", "fs", "amu"),
    "micro": ("um", "us", "pg"),
    "nano": ("nm", "ns", "ag"),
}
# columns of the atoms in a LAMMPS data file, as MDAnalysis calls them
ATOM_STYLES = {
    "atomic": "id type x y z",
    "charge": "id type charge x y z",
    **dict.fromkeys(("bond", "angle", "molecular"), "id resid type x y z"),
    "full": "id resid type charge x y z",
}


@dataclass(frozen=True)
class TrajectorySettings:
    """Where a trajectory is, and how its atoms make particles.

    Attributes:
        topology, trajectory: files, the same one where it holds both.
        mapping: ``molecule``, ``residue``, ``fragment`` (atoms connected by bonds), or ``file``.
        mapping_file: for ``mapping=file``: one particle a line, an MDAnalysis selection or indices of atoms from 0.
        select: selection of the atoms that the other mappings take.
        species: ``none``, or particles told apart by the ``name`` of their residues or molecule, or by ``mass``.
        masses: None for those of the topology, ``guess`` for MDAnalysis' guess by name, or the mass of every atom.
        units: None for Angstrom, ps and amu from a file that tells its units; else LAMMPS' name of those in which
            its numbers are, such as ``lj``; they are kept as they stand.
        spacing: time between two frames of the file, if it holds none.
        timestep: of the molecular dynamics, if the file holds numbers of steps (a LAMMPS dump).
        velocities: ``auto`` for those of the file, and central ``differences`` if it has none.
        skip, stride: frames left out at the beginning; then one in so many is taken.
        box: None for that of the file, ``free``, or the edges where the file has none.
        dimension: 3, or 2 for motion in the plane of x and y.
        atom_style: of a LAMMPS data file that does not name it.

    Raises:
        ValueError: for a setting that is missing or out of range.
    """

    topology: str | None
    trajectory: str | None
    mapping: str | None
    mapping_file: str | None = None
    select: str = "all"
    species: str = "none"
    masses: float | str | None = None
    units: str | None = None
    spacing: float | None = None
    timestep: float | None = None
    velocities: str = "auto"
    skip: int = 0
    stride: int = 1
    box: str | Sequence[float] | None = None
    dimension: int = 3
    atom_style: str | None = None

    def __post_init__(self) -> None:
        for name in ("topology", "trajectory", "mapping"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} must be given, such as {name}=...")
        choices = (("mapping", MAPPINGS), ("species", SPECIES), ("velocities", VELOCITIES), ("dimension", (2, 3)))
        for name, known in (*choices, ("units", (None, *UNITS))):
            if getattr(self, name) not in known:
                allowed = ", ".join(str(k) for k in known if k is not None)
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        for name in ("spacing", "timestep", "masses"):
            value = getattr(self, name)
            if value is None or (name == "masses" and value == "guess"):
                continue
            if not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}; it must be a positive number")
        for name, least in (("skip", 0), ("stride", 1)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a whole number of at least {least}")
        if not (self.box in (None, "free") or (not isinstance(self.box, str) and len(self.box) == self.dimension)):
            raise ValueError(f"box is {self.box!r}; give free, or {self.dimension} edges such as box=[10.0,...]")
        style = self.atom_style
        if not (style in (None, *ATOM_STYLES) or {"id", "type", "x", "y", "z"} <= set(style.split())):
            raise ValueError(
                f"atom_style is {style!r}; give one of {', '.join(ATOM_STYLES)}, or the columns such as "
                "'id resid type charge x y z'"
            )
        if (self.mapping == "file") != (self.mapping_file is not None):
            raise ValueError("mapping=file and mapping_file=... (one particle a line) belong together")
