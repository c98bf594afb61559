"""Topology and trajectory opened with MDAnalysis: formats, units, and what LAMMPS' files say of themselves."""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnn_metriplectic.systems.molecular.settings import ANGSTROM_PS, ATOM_STYLES, UNITS, TrajectorySettings

DUMP = "LAMMPSDUMP"
# formats whose units MDAnalysis only assumes
UNITLESS = (DUMP, "LAMMPS", "DATA", "XYZ", "TXYZ", "GSD")
IMAGES = ("ix", "iy", "iz")


@dataclass(frozen=True)
class Files:
    """An open topology and trajectory.

    Attributes:
        universe: of MDAnalysis.
        format: MDAnalysis' name of the trajectory's.
        columns, boundary: of a LAMMPS dump, such as ``["id", "xu", ...]`` and ``["pp", "pp", "pp"]``; else empty.
        has_molecule_ids: whether residues of the universe are LAMMPS' molecules.
        has_masses: whether the topology tells them.
        units: names of length, time, velocity, mass and energy.
    """

    universe: Any
    format: str
    columns: list[str]
    boundary: list[str]
    has_molecule_ids: bool
    has_masses: bool
    units: dict[str, str]

    @property
    def images(self) -> bool:
        """Whether coordinates are wrapped, with the numbers of images beside them."""
        return not self._plain and set(IMAGES) <= set(self.columns)

    @property
    def unwrapped(self) -> bool:
        """Whether coordinates do not jump at the boundary, by themselves or with their images."""
        return self._plain or self.images

    @property
    def _plain(self) -> bool:
        return bool({"xu", "xsu"} & set(self.columns))


def open_files(settings: TrajectorySettings) -> Files:
    """Open what ``settings`` name.

    Raises:
        FileNotFoundError: for a file that is not there, or without MDAnalysis.
        ValueError: for files that MDAnalysis does not read or that do not tell their units.
    """
    for name in ("topology", "trajectory", "mapping_file"):
        path = getattr(settings, name)
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path} ({name}=...)")
    mda = mdanalysis()
    options: dict[str, Any] = {"to_guess": (), "convert_units": settings.units is None}
    columns, boundary = _dump_header(settings.trajectory)
    topology_columns, _ = _dump_header(settings.topology)
    kind = DUMP if topology_columns else _known_format(settings.topology)
    if kind is None and _is_data_file(settings.topology):
        kind, options["atom_style"] = "DATA", _atom_style(settings)
    form = DUMP if columns else _known_format(settings.trajectory)
    if form == "DCD" and (kind in ("DATA", DUMP) or settings.units is not None):
        # of the two readers of this format the one that need not take the time for CHARMM's
        form, options["timeunit"] = "LAMMPS", "ps"
    if form == DUMP:
        names = {"unwrapped": "xu", "scaled_unwrapped": "xsu", "unscaled": "x", "scaled": "xs"}
        found = [name for name, column in names.items() if column in columns]
        if not found:
            raise ValueError(
                f"{settings.trajectory} has the columns {' '.join(columns)}: no coordinates are among them"
            )
        options["lammps_coordinate_convention"] = found[0]
        options["additional_columns"] = [c for c in IMAGES if c in columns]
    if form == "XYZ":
        _check_xyz(settings.trajectory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = mda.Universe(
                settings.topology, settings.trajectory, topology_format=kind, format=form, **options
            )
            len(universe.trajectory)
    except Exception as error:  # parsers and readers raise many kinds
        hint = "the ending of its name tells the format of a file: is it the right one?"
        if "unit" in str(error):
            hint = "if its numbers are in units that it does not name, give units=lj, real, ..."
        raise ValueError(
            f"MDAnalysis cannot read {settings.topology} with {settings.trajectory}: {one_line(error)} ({hint})"
        ) from error
    found = universe.trajectory.format
    form = found if isinstance(found, str) else found[0]
    return Files(
        universe=universe,
        format=form,
        columns=columns,
        boundary=boundary,
        has_molecule_ids="mol" in topology_columns or "resid" in options.get("atom_style", "").split(),
        # MDAnalysis makes up those of a dump
        has_masses=hasattr(universe.atoms, "masses") and (kind != DUMP or "mass" in topology_columns),
        units=_units(settings, form),
    )


def mdanalysis() -> Any:
    """The package MDAnalysis, silent. Raises FileNotFoundError where it is not installed."""
    # it reports what it imports and reads, and warns of packages that only its writers need
    logging.getLogger("MDAnalysis").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import MDAnalysis
    except ImportError:
        raise FileNotFoundError("MDAnalysis is not installed: pip install 'gnn-metriplectic[md]'") from None
    return MDAnalysis


def one_line(error: BaseException) -> str:
    """What an error of another package says, without line breaks."""
    return " ".join((str(error) or type(error).__name__).split())


def _units(settings: TrajectorySettings, form: str) -> dict[str, str]:
    if settings.units is None and form in UNITLESS:
        raise ValueError(
            f"{settings.trajectory} does not tell its units: give units=lj, or what LAMMPS calls them: "
            f"{', '.join(list(UNITS)[1:])} (metal is Angstrom, ps and amu, real has fs)"
        )
    if settings.units not in (None, "lj") and form not in (*UNITLESS, "H5MD"):
        raise ValueError(
            f"units is {settings.units}, but {form} files are read in Angstrom, ps and amu: leave it out (or give lj "
            "if the numbers in it are reduced)"
        )
    length, time, mass = ANGSTROM_PS if settings.units is None else UNITS[settings.units]
    energy = "epsilon" if settings.units == "lj" else f"{mass} {length}2 {time}-2"
    return {"length": length, "time": time, "velocity": f"{length} {time}-1", "mass": mass, "energy": energy}


def _known_format(path: str) -> str | None:
    """MDAnalysis' name of a format that must be told, by the ending; None leaves it to MDAnalysis."""
    ending = Path(path).name.lower().removesuffix(".gz").removesuffix(".bz2").rpartition(".")[2]
    return {"dcd": "DCD", "xyz": "XYZ", "h5": "H5MD"}.get(ending)


def _lines(path: str) -> Iterator[str]:
    """Lines of a text file, plain or compressed; none of a binary one."""
    from MDAnalysis.lib.util import anyopen

    try:
        with anyopen(path) as file:
            yield from file
    except (UnicodeDecodeError, OSError, EOFError):
        return


def _head(path: str, lines: int) -> list[str]:
    return list(itertools.islice(_lines(path), lines))


def _dump_header(path: str) -> tuple[list[str], list[str]]:
    """Columns and boundaries of a LAMMPS dump; empty lists for any other file."""
    head = _head(path, 9)
    if not head or not head[0].startswith("ITEM:"):
        return [], []
    if not head[0].startswith("ITEM: TIMESTEP"):
        raise ValueError(
            f"{path} begins with {head[0].strip()!r}: MDAnalysis reads dumps written without dump_modify units and time"
        )
    columns = head[8].split()[2:] if len(head) == 9 else []
    if "id" not in columns:
        raise ValueError(f"{path} has the columns {' '.join(columns)}: a dump needs id, to tell which atom is which")
    return columns, [side for side in head[4].split()[3:] if set(side) <= set("pfsm")]


def _is_data_file(path: str) -> bool:
    return any(re.match(r"\s*\d+\s+atoms\s*(#|$)", line) for line in _head(path, 40)[1:])


def _atom_style(settings: TrajectorySettings) -> str:
    """Columns of the atoms in a LAMMPS data file, as MDAnalysis takes them."""
    if settings.atom_style is not None:
        return ATOM_STYLES.get(settings.atom_style, settings.atom_style)
    lines = _lines(settings.topology)
    section = next((line for line in lines if line.split("#")[0].strip() == "Atoms"), "")
    hint = section.partition("#")[2].strip()
    width = len(next((line for line in lines if line.strip()), "").split("#")[0].split())
    if not hint:
        # other numbers of columns, with or without images, belong to more than one style
        hint = {5: "atomic", 8: "atomic", 7: "full", 10: "full"}.get(width, hint)
    if hint not in ATOM_STYLES:
        raise ValueError(
            f"{settings.topology} has atoms of style {hint or 'that it does not name'} with {width} columns: give "
            f"atom_style=, one of {', '.join(ATOM_STYLES)}, or the columns such as 'id resid type charge x y z'"
        )
    return ATOM_STYLES[hint]


def _check_xyz(path: str) -> None:
    head = _head(path, 2)
    columns = re.search(r"Properties=\"?(\S+)", head[1]) if len(head) == 2 else None
    if columns and not re.match(r"[^:]+:S:1:pos:R:3", columns.group(1)):
        raise ValueError(f"{path} has the columns {columns.group(1)}: MDAnalysis takes species:S:1:pos:R:3 first")
