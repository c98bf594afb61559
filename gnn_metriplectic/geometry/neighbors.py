"""Neighbour pairs, each once, and the sums over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vesin_torch import NeighborList

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.geometry.incidence import Incidence, stable_order

if TYPE_CHECKING:
    from gnn_metriplectic.geometry.reference import Bonds, Reference

BACKENDS = ("auto", "vesin", "torch_cluster")


@dataclass(frozen=True)
class Pairs:
    """Pairs i < j of particles closer than a cutoff, each once.

    Attributes:
        index: ``[2, E]`` int64 (int32 in rollouts, where memory counts), the two particles of each pair.
        displacement: ``[E, D]``, r_i - r_j of the interacting images, in units of length.
        num_particles: N.
        velocity_shift: ``[E, D]`` or None; v_ij = v_i - v_j + velocity_shift (Lees-Edwards images).
        volume: of the periodic cell; None in free space and for several graphs laid end to end.
        bonds: of a solid, its reference neighbours at the same positions; None in a fluid.
    """

    index: Tensor
    displacement: Tensor
    num_particles: int
    velocity_shift: Tensor | None = None
    volume: float | None = None
    bonds: Bonds | None = None

    @cached_property
    def distance(self) -> Tensor:
        """Length of the displacement, ``[E]``."""
        return torch.linalg.vector_norm(self.displacement, dim=-1)

    @cached_property
    def direction(self) -> Tensor:
        """Unit vectors e_ij, ``[E, D]``; zero where two particles coincide."""
        tiny = torch.finfo(self.displacement.dtype).tiny
        # stored by columns (see `Incidence`)
        return self.displacement.T.contiguous().T / self.distance.clamp(min=tiny).unsqueeze(-1)

    @property
    def num_pairs(self) -> int:
        """E."""
        return self.index.shape[1]

    @cached_property
    def incidence(self) -> Incidence:
        """Sums over pairs and differences between ends."""
        return Incidence(self.index, self.num_particles)

    def ends(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``[N, ...]`` of the particles at the two ends, each ``[E, ...]``."""
        first, second = self.incidence.gather(values).view(2, self.num_pairs, *values.shape[1:])
        return first, second

    def sum_of_ends(self, values: Tensor) -> Tensor:
        """Values ``[N, ...]`` of i plus those of j, ``[E, ...]``."""
        return self.incidence.spread(values)

    def difference_of_ends(self, values: Tensor) -> Tensor:
        """Values ``[N, ...]`` of i less those of j, ``[E, ...]``."""
        return self.incidence.difference(values)

    def relative(self, velocities: Tensor) -> Tensor:
        """Relative velocities v_ij ``[E, D]`` from ``[N, D]``, image shift included."""
        difference = self.difference_of_ends(velocities)
        return difference if self.velocity_shift is None else difference + self.velocity_shift

    def total(self, values: Tensor) -> Tensor:
        """Sum of symmetric pair values ``[E, ...]`` over the pairs of each particle, ``[N, ...]``."""
        return self.incidence.total(values)

    def net(self, values: Tensor) -> Tensor:
        """Sum of antisymmetric pair values ``[E, ...]`` (added to i, taken from j), ``[N, ...]``."""
        return self.incidence.net(values)

    def total_of_ends(self, first: Tensor, second: Tensor) -> Tensor:
        """Sum over pairs where i receives ``first`` and j ``second``, both ``[E, ...]``."""
        return self.incidence.scatter(torch.cat([first, second]))

    @classmethod
    def none(cls, num_particles: int, like: Tensor) -> Pairs:
        """No pairs of N particles, in the type and dimension of displacements ``[..., D]``."""
        index = torch.zeros(2, 0, dtype=torch.long, device=like.device)
        return cls(index, like.new_zeros(0, like.shape[-1]), num_particles)

    @classmethod
    def joined(cls, parts: Sequence[Pairs], members: Sequence[Tensor], num_particles: int) -> Pairs:
        """Pairs of blocks in one, i < j, each numbered in ``members`` ``[n]``, the particles of its block."""
        index = torch.cat([of[pairs.index] for pairs, of in zip(parts, members, strict=True)], dim=1)
        sign = torch.where(index[0] < index[1], 1, -1).unsqueeze(1)
        displacement = sign * torch.cat([pairs.displacement for pairs in parts])
        shifts, shift = [pairs.velocity_shift for pairs in parts], None
        if shifts[0] is not None:
            shift = sign * torch.cat(shifts)
        return cls(index.sort(dim=0).values, displacement, num_particles, shift, parts[0].volume)

    def with_displacement(self, displacement: Tensor, bonds: Bonds | None = None) -> Pairs:
        """The same pairs at other displacements ``[E, D]``, in a solid with its reference neighbours there."""
        pairs = replace(self, displacement=displacement, bonds=bonds)
        pairs.__dict__["incidence"] = self.incidence  # it depends on the index alone
        return pairs

    @property
    def bonded(self) -> Pairs:
        """The reference neighbours of a solid as its only pairs, row by row those of ``bonds.reference``."""
        pairs = replace(self.bonds.pairs, volume=self.volume, bonds=self.bonds)
        pairs.__dict__["incidence"] = self.bonds.pairs.incidence
        return pairs

    def moved(self, step: Tensor, elapsed: float | Tensor = 0.0) -> Pairs:
        """The same pairs after particles moved by ``step`` ``[N, D]`` in a time ``elapsed`` (scalar or ``[E, 1]``)."""
        displacement = self.displacement + self.difference_of_ends(step)
        if self.velocity_shift is not None:
            displacement = displacement + self.velocity_shift * elapsed
        return self.with_displacement(displacement, None if self.bonds is None else self.bonds.moved(step))

    def select(self, mask: Tensor) -> Pairs:
        """The pairs where ``mask`` ``[E]`` is true."""
        shift = None if self.velocity_shift is None else self.velocity_shift[mask]
        return Pairs(self.index[:, mask], self.displacement[mask], self.num_particles, shift, self.volume, self.bonds)


def neighbor_pairs(
    pos: Tensor,
    box: Box,
    cutoff: float,
    time: float = 0.0,
    *,
    backend: str = "auto",
    reference: Reference | None = None,
) -> Pairs:
    """Pairs of particles closer than ``cutoff``, differentiable in ``pos``.

    Args:
        pos: ``[N, D]``, unwrapped or wrapped, in units of length.
        box: free or periodic; Lees-Edwards images are taken at ``time``.
        cutoff: in units of length, at most half the box.
        time: in units of time; only a sheared box looks at it.
        backend: ``vesin``, ``torch_cluster`` (the ``pyg`` extra) or ``auto`` (torch-cluster for
            tensors on a GPU when it is installed, else vesin); the results are equal.
        reference: of a solid, whose reference neighbours then come along as ``.bonds``.

    Returns:
        Pairs sorted by (i, j), so that sums do not depend on the search.

    Raises:
        ValueError: wrong dimension, non-finite positions, a cutoff over half the box, or a reference of another
            number of particles.
    """
    check_positions(pos, box)
    box.check_cutoff(cutoff)
    pairs = _pairs_within(pos, box, cutoff, time, backend)
    return pairs if reference is None else replace(pairs, bonds=reference.bonds(pos, box))


def check_positions(pos: Tensor, box: Box) -> None:
    """Raise ValueError unless positions are finite and of the dimension of the box."""
    if pos.dim() != 2 or pos.shape[1] != box.dimension:
        raise ValueError(
            f"positions have shape {tuple(pos.shape)}; a box of dimension {box.dimension} needs [N, {box.dimension}]"
        )
    if not torch.isfinite(pos).all():
        bad = int((~torch.isfinite(pos)).any(dim=1).nonzero()[0])
        where = pos[bad].tolist()
        raise ValueError(f"position of particle {bad} is {where}: the simulation has blown up or the input is damaged")


def transition_pairs(
    pos: Tensor,
    next_pos: Tensor,
    box: Box,
    cutoff: float,
    time: float = 0.0,
    elapsed: float = 0.0,
    *,
    reference: Reference | None = None,
) -> Pairs:
    """Pairs closer than ``cutoff`` before or after a step from ``pos`` to ``next_pos`` (both ``[N, D]``).

    The displacements are those before; ``pairs.moved(next_pos - pos, elapsed)`` gives those after.
    Raises ValueError as `neighbor_pairs` does.
    """
    box.check_cutoff(cutoff)
    step = next_pos - pos
    relative = step - step.mean(dim=0)
    reach = 2.0 * float(torch.linalg.vector_norm(relative, dim=1).max()) + abs(box.velocity_gradient * elapsed)
    # beyond half the box a particle meets two images of another, and its own: of the former at most
    # one is within the cutoff at either time, so that a pair comes twice only if it changes images
    pairs = _pairs_within(pos, box, cutoff + reach, time, "auto")
    closest = torch.minimum(pairs.distance, pairs.moved(step, elapsed).distance)
    pairs = pairs.select((closest < cutoff) & (pairs.index[0] != pairs.index[1]))
    return pairs if reference is None else replace(pairs, bonds=reference.bonds(pos, box))


def batch_pairs(items: Sequence[Pairs]) -> Pairs:
    """One `Pairs` for graphs laid end to end (particle numbers offset)."""
    offset, index = 0, []
    for pairs in items:
        index.append(pairs.index + offset)
        offset += pairs.num_particles
    shifts = [p.velocity_shift for p in items]
    velocity_shift = None
    if any(s is not None for s in shifts):
        velocity_shift = torch.cat(
            [torch.zeros_like(p.displacement) if s is None else s for p, s in zip(items, shifts, strict=True)]
        )
    bonds = None if items[0].bonds is None else items[0].bonds.batch([pairs.bonds for pairs in items])
    displacement = torch.cat([pairs.displacement for pairs in items])
    return Pairs(torch.cat(index, dim=1), displacement, offset, velocity_shift, bonds=bonds)


def _pairs_within(pos: Tensor, box: Box, radius: float, time: float, backend: str) -> Pairs:
    """All pairs of images closer than ``radius``, i < j, in the order of (i, j, image)."""
    ((index, shift),) = images_within(pos, box, radius, time, backend)
    displacement = pos.index_select(0, index[0]) - pos.index_select(0, index[1])
    if not box.is_free:
        displacement = displacement - image_offset(shift, box, time, pos)
    volume = None if box.is_free else box.volume
    return Pairs(index, displacement, pos.shape[0], image_speed(shift, box, pos), volume)


def images_within(
    pos: Tensor, box: Box, radius: float, time: float, backend: str, block: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images closer than ``radius`` in the order of (i, j), in blocks of so many pairs or all at once.

    Yields:
        particles i < j ``[2, e]``, and by how many cells j is moved ``[e, D]``.
    """
    first, second, shift = _search(backend, pos.device)(pos.detach(), box, radius, time)
    swap = first > second
    if bool(swap.any()):
        first, second = torch.where(swap, second, first), torch.where(swap, first, second)
        shift = torch.where(swap.unsqueeze(1), -shift, shift)
    order = stable_order(second)
    order = order[stable_order(first[order])]
    for part in order.split(block or max(len(order), 1)):
        yield torch.stack([first[part], second[part]]), shift[part]


def image_offset(shift: Tensor, box: Box, time: float, like: Tensor) -> Tensor:
    """What images moved by ``shift`` ``[E, D]`` cells are moved by in space, ``[E, D]``, in the type of ``like``."""
    return (shift.double() @ box.lattice_at(time).to(like.device)).to(like.dtype)


def image_speed(shift: Tensor, box: Box, like: Tensor) -> Tensor | None:
    """Velocity shift ``[E, D]`` of images moved by ``shift`` cells, in the type of ``like``; None without shear."""
    if not box.shear_rate:
        return None
    velocity_shift = like.new_zeros(shift.shape)
    velocity_shift[:, 0] = -box.velocity_gradient * shift[:, 1].to(like.dtype)
    return velocity_shift


def _search(backend: str, device: torch.device):
    """The search (pos, box, radius, time) -> (i, j, image shift [E, D]) of a backend; r_j + shift is near r_i."""
    if backend not in BACKENDS:
        raise ValueError(f"neighbour backend is {backend!r}; choose one of {BACKENDS}")
    installed = find_spec("torch_cluster") is not None
    if backend == "torch_cluster" and not installed:
        raise ValueError("neighbour backend torch_cluster is not installed: pip install 'gnn-metriplectic[pyg]'")
    if backend == "torch_cluster" or (backend == "auto" and device.type == "cuda" and installed):
        return _torch_cluster_search
    return _vesin_search


# vesin spreads at most this many cells over a system in proportion to its extents (and divides by zero, which ends
# the process, where a thin direction gets none)
_VESIN_CELLS = 1e5


@lru_cache(maxsize=8)
def _vesin_list(radius: float, threads: int) -> NeighborList:
    return NeighborList(cutoff=radius, full_list=False, n_threads=threads)


def _vesin_search(pos: Tensor, box: Box, radius: float, time: float) -> tuple[Tensor, Tensor, Tensor]:
    dimension = box.dimension
    points = torch.zeros(pos.shape[0], 3, dtype=torch.float64)
    points[:, :dimension] = pos
    cell = torch.eye(3, dtype=torch.float64)
    periodic = torch.zeros(3, dtype=torch.bool)
    if not box.is_free:
        cell[:dimension, :dimension] = box.lattice_at(time)
        periodic[:dimension] = True
    if points.shape[0] > 1:
        extent = points.amax(dim=0) - points.amin(dim=0)
        heights = 1.0 / torch.linalg.inv(cell).norm(dim=0)
        cells = (torch.where(periodic, heights, extent) / radius).clamp(min=1.0)
        excess = float(cells.prod()) / _VESIN_CELLS
        if excess > 0.5 and float(cells.min()) < 3.0 * excess ** (1.0 / 3.0):
            return _sparse_search(pos, box, radius, time)
    i, j, shift = _vesin_list(radius, torch.get_num_threads()).compute(
        points, cell, periodic=periodic, quantities="ijS"
    )
    return i.long().to(pos.device), j.long().to(pos.device), shift[:, :dimension].to(pos.device)


def _sparse_search(pos: Tensor, box: Box, radius: float, time: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cells by sorting, for thin and dilute systems; only occupied cells take memory."""
    pos, dimension = pos.double(), box.dimension
    if box.is_free:
        origin = pos.amin(dim=0)
        lattice = torch.diag((pos.amax(dim=0) - origin).clamp(min=radius) * (1.0 + 1e-9))
    else:
        origin, lattice = torch.zeros_like(pos[0]), box.lattice_at(time).to(pos)
    inverse = torch.linalg.inv(lattice)
    heights = 1.0 / inverse.norm(dim=0)
    counts = torch.floor(heights / radius).clamp(min=1.0, max=2.0**20)
    fractional = (pos - origin) @ inverse
    home = torch.floor(fractional)
    # round-off must not place a particle beyond the last cell
    place = torch.minimum(torch.floor((fractional - home) * counts), counts - 1.0).long()
    home, counts = home.long(), counts.long()
    reach = torch.ceil(radius / (heights / counts) - 1e-9).long().tolist()
    stride = torch.cat([counts.new_ones(1), counts.cumprod(dim=0)[:-1]])
    keys, order = torch.sort((place * stride).sum(dim=1))
    found = []
    steps = [torch.arange(-n, n + 1, device=pos.device) for n in reach]
    for step in torch.cartesian_prod(*steps).view(-1, dimension):
        image = torch.div(place + step, counts, rounding_mode="floor")
        key = ((place + step - image * counts) * stride).sum(dim=1)
        begin, end = torch.searchsorted(keys, key), torch.searchsorted(keys, key, right=True)
        if box.is_free:
            end = torch.where((image == 0).all(dim=1), end, begin)
        size = end - begin
        i = torch.repeat_interleave(torch.arange(len(pos), device=pos.device), size)
        within = torch.arange(len(i), device=pos.device) - torch.repeat_interleave(size.cumsum(dim=0) - size, size)
        j = order[begin[i] + within]
        shift = image[i] + home[i] - home[j]
        near = torch.linalg.vector_norm(pos[j] + shift.double() @ lattice - pos[i], dim=1) < radius
        keep = near & (i < j)
        found.append((i[keep], j[keep], shift[keep]))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def _torch_cluster_search(pos: Tensor, box: Box, radius: float, time: float) -> tuple[Tensor, Tensor, Tensor]:
    """Search among the particles and copies of them in the surrounding cells."""
    from torch_cluster import radius as radius_search

    count, dimension = pos.shape
    home = torch.zeros(count, dimension, dtype=torch.long, device=pos.device)
    points, owner, image = pos, torch.arange(count, device=pos.device), home
    if not box.is_free:
        lattice = box.lattice_at(time).to(pos.device)
        fractional = pos.double() @ torch.linalg.inv(lattice)
        home = torch.floor(fractional).long()
        steps = [torch.arange(-1, 2, device=pos.device)] * dimension
        cells = torch.cartesian_prod(*steps)
        wrapped = (fractional - home).unsqueeze(0) + cells.unsqueeze(1)
        heights = 1.0 / torch.linalg.inv(lattice).norm(dim=0)
        margin = radius / heights
        near = ((wrapped > -margin) & (wrapped < 1.0 + margin)).all(dim=-1)
        cell_of, owner = near.nonzero(as_tuple=True)
        points, image = (wrapped[near] @ lattice).to(pos.dtype), cells[cell_of]
        pos = ((fractional - home) @ lattice).to(pos.dtype)
    center, neighbor = radius_search(points, pos, radius, max_num_neighbors=points.shape[0])
    j = owner[neighbor]
    shift = image[neighbor] + home[center] - home[j]
    keep = center < j
    return center[keep], j[keep], shift[keep]
