"""Particles made of atoms: their masses and names, and how their atoms are joined across the boundary."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from gnn_metriplectic.systems.molecular.files import Files
from gnn_metriplectic.systems.molecular.members import bonds, find_members
from gnn_metriplectic.systems.molecular.settings import TrajectorySettings


@dataclass(frozen=True)
class Particles:
    """What makes the particles.

    Attributes:
        atoms: ``[A]`` their indices, particle after particle.
        starts: ``[N]`` where each particle begins in ``atoms``.
        weights: ``[A]`` mass of an atom over that of its particle.
        parents: ``[levels, A]`` places in ``atoms``: the neighbour of an atom within its particle towards the first,
            then 2, 4, 8, ... neighbours on.
        mass: of a particle, one number or ``[N]``.
        species: ``[N]`` or None.
        names: of the species.
        notes: what the user should know.
    """

    atoms: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    parents: list[np.ndarray]
    mass: float | torch.Tensor
    species: torch.Tensor | None
    names: list[str]
    notes: list[str]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mass-weighted mean ``[N, 3]`` of ``values`` ``[A, 3]``."""
        return np.add.reduceat(self.weights[:, None] * values, self.starts, axis=0)

    def join(self, positions: np.ndarray, lattice: np.ndarray) -> tuple[np.ndarray, float, int]:
        """Positions ``[A, 3]`` with every atom beside its neighbour, the largest step left, and its particle.

        The step is the largest fractional coordinate from an atom to its neighbour, at most 1/2.
        """
        fractional = (positions - positions[self.parents[0]]) @ np.linalg.inv(lattice)
        images = -np.round(fractional)
        left = np.abs(fractional + images).max(axis=1)
        worst = int(left.argmax())
        if images.any():
            for parent in self.parents:
                images = images + images[parent]
            positions = positions + images @ lattice
        return positions, float(left[worst]), int(np.searchsorted(self.starts, worst, side="right")) - 1


def find_particles(files: Files, settings: TrajectorySettings) -> Particles:
    """Map the atoms of a topology to particles.

    Raises:
        ValueError: fewer than two particles, one without mass, or a topology that lacks what the settings need.
    """
    atoms, labels = find_members(files, settings)
    order = np.argsort(labels, kind="stable")
    atoms, labels = atoms[order], np.unique(labels[order], return_inverse=True)[1]
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    if len(starts) < 2:
        raise ValueError(
            f"mapping={settings.mapping} makes one particle of {settings.topology}: at least two are needed"
        )
    masses = _masses(files, settings, atoms)
    notes = ["masses are guessed from the names of atoms"] if settings.masses == "guess" else []
    left = int((np.delete(masses, atoms) > 0.0).sum())
    if left:
        notes.append(f"{left} of {len(masses)} atoms belong to no particle: the momentum that they carry is missing")
    masses = masses[atoms]
    total = np.add.reduceat(masses, starts)
    if not (total > 0.0).all():
        raise ValueError(
            f"the particle of atom {atoms[starts[total.argmin()]]} of {settings.topology} has mass 0: take massless "
            "sites out with select=..., or let a mapping by molecules keep them"
        )
    uniform = np.ptp(total) <= 1e-6 * total.max()
    species, names = None, []
    if settings.species != "none":
        found = _names(files, settings, atoms, starts) if settings.species == "name" else [f"{m:.6g}" for m in total]
        names, numbers = np.unique(found, return_inverse=True)
        species, names = torch.from_numpy(numbers), names.tolist()
    return Particles(
        atoms=atoms,
        starts=starts,
        weights=masses / total[labels],
        parents=_parents(files, atoms, labels, starts),
        mass=float(total[0]) if uniform else torch.from_numpy(total),
        species=species,
        names=names,
        notes=notes,
    )


def _masses(files: Files, settings: TrajectorySettings, chosen: np.ndarray) -> np.ndarray:
    """Mass of every atom, checked for the ``chosen`` ones; massless sites are allowed where the topology has them."""
    universe, guess = files.universe, settings.masses == "guess"
    if guess:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe.guess_TopologyAttrs(context="default", to_guess=["types", "masses"], force_guess=["masses"])
    elif settings.masses is not None:
        return np.full(len(universe.atoms), float(settings.masses))
    elif not files.has_masses:
        raise ValueError(
            f"{settings.topology} has no masses: give masses=guess (by the names of atoms), the mass of every atom "
            "such as masses=1.0, or a topology that has them"
        )
    found = np.asarray(universe.atoms.masses, dtype=np.float64)
    wrong = ~np.isfinite(found[chosen]) | (found[chosen] < 0.0) | (guess & (found[chosen] == 0.0))
    if wrong.any():
        atom = universe.atoms[int(chosen[wrong.argmax()])]
        name = getattr(atom, "name", getattr(atom, "type", "without name"))
        if guess:
            raise ValueError(
                f"the name of atom {atom.index} ({name}) of {settings.topology} does not tell its mass: give a "
                f"topology with masses, or leave it out with select='not name {name}'"
            )
        raise ValueError(f"the mass of atom {atom.index} ({name}) of {settings.topology} is {found[atom.index]:g}")
    return found


def _names(files: Files, settings: TrajectorySettings, atoms: np.ndarray, starts: np.ndarray) -> list[str]:
    """What each particle is called: its molecule, or its residues in order."""
    every = files.universe.atoms
    if settings.mapping == "molecule" and hasattr(every, "moltypes"):
        return [str(name) for name in every.moltypes[atoms[starts]]]
    if not hasattr(every, "resnames"):
        raise ValueError(
            f"{settings.topology} has no names of residues or molecules: give species=mass or species=none"
        )
    residues = every.resindices[atoms]
    first = np.flatnonzero((np.diff(residues, prepend=-1) != 0) | np.isin(np.arange(len(atoms)), starts))
    names = every.resnames[atoms[first]]
    return ["-".join(group) for group in np.split(names, np.searchsorted(first, starts[1:]))]


def _parents(files: Files, atoms: np.ndarray, labels: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """The places, in ``atoms``, towards the first atom of a particle: one neighbour on, then 2, 4, 8, ...

    Neighbours are bonded. What bonds do not connect hangs on the atom before it in the particle.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    size, place = len(atoms), np.full(len(files.universe.atoms), -1)
    place[atoms] = np.arange(size)
    edges = bonds(files.universe)
    edges = np.empty((0, 2), dtype=int) if edges is None else place[edges]
    edges = edges[(edges >= 0).all(axis=1)]
    edges = edges[labels[edges[:, 0]] == labels[edges[:, 1]]]

    def graph(edges: np.ndarray, nodes: int):
        return coo_array((np.ones(len(edges)), edges.T), shape=(nodes, nodes)).tocsr()

    parts = connected_components(graph(edges, size), directed=False)[1]
    heads = np.setdiff1d(np.unique(parts, return_index=True)[1], starts)
    # an additional node holds the first atoms of all particles together
    roots = np.stack([np.full(len(starts), size), starts], axis=1)
    edges = np.concatenate([edges, np.stack([heads - 1, heads], axis=1), roots])
    parent = breadth_first_order(graph(edges, size + 1), size, directed=False)[1][:size]
    parent[starts] = starts
    levels = [parent]
    while (levels[-1][levels[-1]] != levels[-1]).any():
        levels.append(levels[-1][levels[-1]])
    return levels
