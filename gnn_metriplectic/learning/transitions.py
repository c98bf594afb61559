"""Transitions x(t) -> x(t + lag) of trajectories, as PyTorch Geometric graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from gnn_metriplectic.analysis.flow import local_flow
from gnn_metriplectic.analysis.transport import kinetic_temperature
from gnn_metriplectic.dynamics import forcing_from
from gnn_metriplectic.geometry import Bonds, Pairs, Reference, transition_pairs
from gnn_metriplectic.learning.patches import Patch, patch, patch_grid
from gnn_metriplectic.trajectory import Trajectory, warn_if_torn
from gnn_metriplectic.trajectory.window import EXACT, Sight, window_of

# graphs that are kept once made, so that their neighbours are not searched again
KEPT_BYTES = 1 << 30


class TransitionDataset(Dataset):
    """All transitions of some trajectories over a lag, in the order of trajectories and frames.

    The trajectories may differ in particle number, box, forcing and temperature, but share the
    spacing of frames, the dimension and what they observe.

    Each item is a ``Data`` with velocities ``vel`` and ``next_vel`` ``[N, D]``; ``pair_index``
    ``[2, E]``, ``displacement`` and ``next_displacement`` ``[E, D]`` of the pairs within the cutoff at
    either time; ``velocity_shift`` ``[E, D]`` if any box is sheared; ``acceleration`` ``[N, D]`` by
    outer forces, the mean of both times; ``active`` ``[N]``, whether the particle moves freely and is no halo;
    ``prescribed`` ``[N]`` bool if any particle is; ``species`` ``[N]`` if any; ``entropy`` and ``next_entropy``
    ``[N]`` where observed; and for the graph its ``particle_volume`` and
    ``temperature`` (k_B T of its trajectory: that of all its atoms where the metadata tell what was ``observed``, else
    the kinetic one, relative to the flow that its forcing drives). Of solids also
    ``reference_index`` ``[2, B]``, ``reference_displacement``, ``bond_displacement`` and ``next_bond_displacement``
    ``[B, D]``, and ``reach``.

    Of tracks that come and go an item has the particles seen at both times, and those within the cutoff of one that is
    not (or of the edge of the view) are not active. Measured positions also have ``sight`` ``[1, 4]``, how their
    velocities were seen (`Sight`), from ``metadata["localisation"]``: ``position``, the standard deviation of a
    coordinate, and ``window`` and ``order`` of the slopes that are the velocities.

    Args:
        trajectories: at least one.
        cutoff: of the pairs, in units of length.
        lag: frames from the start to the end of a transition.
        observed: whether the entropies of the trajectories are given to the learner.
        patch: particles a patch, where snapshots are too large for memory; None for whole snapshots.
        hops: of the encoder; the halo of a patch reaches as many cutoffs and one more.
        overdamped: whether the velocities of the items are displacements over the lag, for models without inertia.
        dtype: of the floating-point tensors; distances are taken in float64 first.

    Raises:
        ValueError: trajectories that do not fit together or are shorter than the lag.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        *,
        cutoff: float,
        lag: int,
        observed: bool = False,
        patch: int | None = None,
        hops: int = 2,
        overdamped: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not trajectories:
            raise ValueError("there are no trajectories to learn from")
        if patch is not None and patch < 1:
            raise ValueError(f"patch is {patch} particles; it must be at least 1")
        if lag < 1:
            raise ValueError(f"lag is {lag} frames; it must be at least 1")
        first = trajectories[0]
        for number, traj in enumerate(trajectories):
            if traj.dimension != first.dimension or abs(traj.dt / first.dt - 1.0) > 1e-9:
                raise ValueError(
                    f"trajectory {number} has dimension {traj.dimension} and frame spacing {traj.dt:g}, the first has "
                    f"{first.dimension} and {first.dt:g}: train on trajectories that share both"
                )
            if len(traj) <= lag:
                raise ValueError(f"trajectory {number} has {len(traj)} frames; a lag of {lag} needs at least {lag + 1}")
            if (traj.species is None) != (first.species is None):
                raise ValueError(f"trajectory {number} and the first do not both name species")
            _check_solid(number, traj, first, cutoff, patch)
            if patch is not None and traj.present is not None:
                raise ValueError("patches are cut from whole snapshots: learn from tracks with patch=null")
            if observed and traj.entropies is None:
                raise ValueError(
                    f"entropy=observed needs entropies, and trajectory {number} has none: use entropy=encoded"
                )
            traj.box.check_cutoff(cutoff)
        self.trajectories, self.cutoff, self.lag = list(trajectories), cutoff, lag
        self.observed, self.hops, self.overdamped, self.dtype = observed, hops, overdamped, dtype
        self.dt = lag * first.dt
        self.sheared = any(t.box.shear_rate for t in trajectories)
        self.measured = any("localisation" in (t.metadata or {}) for t in trajectories)
        self.sights = [_sight(t, lag, overdamped) for t in trajectories]
        self.driven = any(t.prescribed is not None for t in trajectories)
        self.solid = first.reference is not None
        self.forcings = [forcing_from(t.forcing) for t in trajectories]
        self.temperatures = [_temperature(t, overdamped) for t in trajectories]
        self.grids = [
            (1,) * t.dimension if patch is None else patch_grid(t.box, t.num_particles, patch, t.positions[0].double())
            for t in trajectories
        ]
        self._kept: dict[int, Data] = {}
        self._room = KEPT_BYTES
        self.starts = [
            (k, frame, number)
            for k, t in enumerate(trajectories)
            for frame in range(len(t) - lag)
            for number in range(math.prod(self.grids[k]))
            if t.present is None or self._teaches(t, frame)
        ]
        if not self.starts:
            raise ValueError(
                f"no particle is seen at two times {lag} frames apart with all that is within {cutoff:g} of it: tracks "
                "are too short for this lag, or the cutoff is too large for the view"
            )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, item: int) -> Data:
        if item not in self._kept:
            made = self._make(item)
            size = sum(value.nbytes for value in made.to_dict().values() if isinstance(value, Tensor))
            if size > self._room:
                return made
            self._kept[item], self._room = made, self._room - size
        return self._kept[item]

    def _make(self, item: int) -> Data:
        number, frame, place = self.starts[item]
        traj = self.trajectories[number]
        pos, next_pos = (traj.positions[f].double() for f in (frame, frame + self.lag))
        active = torch.ones(len(pos), dtype=torch.bool) if traj.prescribed is None else ~traj.prescribed
        active = active & self._surrounded(traj, frame)
        part = self._part(number, frame, place, pos, next_pos)
        members = slice(None) if part is None else part.members
        if traj.present is not None:
            members = seen_at(traj, (frame, frame + self.lag)).nonzero().squeeze(1)
        pos, next_pos, active = pos[members], next_pos[members], active[members]
        if part is not None:
            active = active & part.interior
        time, reference = float(traj.times[frame]), traj.reference
        pairs = transition_pairs(pos, next_pos, traj.box, self.cutoff, time, self.dt, reference=reference)
        moved = pairs.moved(next_pos - pos, self.dt)
        acceleration = torch.zeros_like(pos)
        forcing = self.forcings[number]
        if forcing is not None:
            times = traj.times[frame], traj.times[frame + self.lag]
            acceleration = 0.5 * sum(
                forcing.acceleration(r, float(t)) for r, t in zip((pos, next_pos), times, strict=True)
            )
        vel, next_vel = (traj.velocities[f][members] for f in (frame, frame + self.lag))
        if self.overdamped:
            vel, next_vel = torch.zeros_like(vel), (next_pos - pos) / self.dt
        data = Data(
            num_nodes=len(pos),
            vel=vel.to(self.dtype),
            next_vel=next_vel.to(self.dtype),
            pair_index=pairs.index,
            displacement=pairs.displacement.to(self.dtype),
            next_displacement=moved.displacement.to(self.dtype),
            acceleration=acceleration.to(self.dtype),
            active=active,
            particle_volume=torch.tensor([particle_volume(traj, pairs, self.cutoff)], dtype=self.dtype),
            temperature=torch.tensor([self.temperatures[number]], dtype=self.dtype),
        )
        if self.sheared:
            shift = torch.zeros_like(pairs.displacement) if pairs.velocity_shift is None else pairs.velocity_shift
            data.velocity_shift = shift.to(self.dtype)
        if self.measured:
            data.sight = torch.tensor([self.sights[number]], dtype=self.dtype)
        if self.driven:
            none = torch.zeros(traj.num_particles, dtype=torch.bool)
            data.prescribed = (none if traj.prescribed is None else traj.prescribed)[members]
        if reference is not None:
            data.reference_index = reference.index
            data.reference_displacement = reference.displacement.to(self.dtype)
            data.bond_displacement = pairs.bonds.pairs.displacement.to(self.dtype)
            data.next_bond_displacement = moved.bonds.pairs.displacement.to(self.dtype)
            data.reach = torch.tensor([reference.reach], dtype=self.dtype)
        if traj.species is not None:
            data.species = traj.species[members]
        if self.observed:
            data.entropy = traj.entropies[frame][members].to(self.dtype)
            data.next_entropy = traj.entropies[frame + self.lag][members].to(self.dtype)
        return data

    def _teaches(self, traj: Trajectory, frame: int) -> bool:
        """Whether there is something to learn from the transition that begins at ``frame``."""
        both = seen_at(traj, (frame, frame + self.lag))
        free = both if traj.prescribed is None else both & ~traj.prescribed
        return bool((free & self._surrounded(traj, frame)).any())

    def _surrounded(self, traj: Trajectory, frame: int) -> Tensor:
        """Whether all that a particle can feel was seen at both times, ``[N]`` bool."""
        ends = (frame, frame + self.lag)
        return surrounded(traj, self.cutoff, seen_at(traj, ends), ends)

    def _part(self, number: int, frame: int, place: int, pos: Tensor, next_pos: Tensor) -> Patch | None:
        """The patch ``place`` of a snapshot, with all that its likelihood depends on; None for the whole."""
        grid = self.grids[number]
        if math.prod(grid) == 1:
            return None
        traj = self.trajectories[number]
        step = next_pos - pos
        gap = 2.0 * float(torch.linalg.vector_norm(step - step.mean(dim=0), dim=1).max())
        gap += abs(traj.box.velocity_gradient * self.dt)
        # a force needs the density and the entropy of the partner
        halo = (1 + max(self.hops, 1)) * (self.cutoff + gap)
        return patch(pos, traj.box, grid, place, halo, float(traj.times[frame]))


def seen_at(traj: Trajectory, frames: Sequence[int]) -> Tensor:
    """Which particles were seen at all of some frames, ``[N]`` bool."""
    if traj.present is None:
        return torch.ones(traj.num_particles, dtype=torch.bool)
    return traj.present[list(frames)].all(dim=0)


def surrounded(traj: Trajectory, cutoff: float, seen: Tensor, frames: Sequence[int]) -> Tensor:
    """Whether all within the cutoff of a particle is there at some frames, ``[N]`` bool.

    Args:
        traj: of particles that may come and go, in a view that may end.
        cutoff: how far a particle feels others.
        seen: ``[N]`` bool, those that count as being there.
        frames: at which they may come near.
    """
    whole = torch.ones(traj.num_particles, dtype=torch.bool)
    for frame in frames:
        places = traj.positions[frame].double()
        if traj.view is not None:
            low, high = traj.view
            whole &= ((places > low + cutoff) & (places < high - cutoff)).all(dim=1)
        if traj.present is None:
            continue
        # in a gap, too, a particle is about where it is guessed to be
        lost = ~seen & traj.present[: frame + 1].any(dim=0) & traj.present[frame:].any(dim=0)
        if bool(lost.any()):
            whole &= torch.cdist(places, places[lost]).amin(dim=1) > cutoff
    return whole


def pairs_of(data: Data) -> tuple[Pairs, Pairs]:
    """Pairs of a transition (or batch of them) at its start and its end."""
    shift = data.velocity_shift if "velocity_shift" in data else None
    pairs = Pairs(data.pair_index, data.displacement, data.num_nodes, shift)
    if "reference_index" not in data:
        return pairs, pairs.with_displacement(data.next_displacement)
    reference = Reference(data.reference_index, data.reference_displacement, data.num_nodes, float(data.reach[0]))
    bonds, next_bonds = (
        Bonds(reference, reference.pairs.with_displacement(displacement))
        for displacement in (data.bond_displacement, data.next_bond_displacement)
    )
    start = pairs.with_displacement(data.displacement, bonds)
    return start, pairs.with_displacement(data.next_displacement, next_bonds)


def _sight(traj: Trajectory, lag: int, overdamped: bool) -> Sight:
    """How the velocities (or displacements) of its transitions were seen."""
    error = (traj.metadata or {}).get("localisation", {}).get("position", 0.0)
    if overdamped:
        return Sight(noise=2.0 * (error / (lag * traj.dt)) ** 2)
    window = window_of(traj.metadata, traj.dt)
    if window is None:
        return EXACT
    if window.degree < 3:
        raise ValueError(
            "the velocities of this film are differences of positions, as it was tracked without inertia: give "
            "model.solvent=overdamped, or overdamped=false (and other data=...) where its frames resolve inertia"
        )
    return window.sight(lag, error)


def _temperature(traj: Trajectory, overdamped: bool) -> float:
    """k_B T of a trajectory, in units of energy."""
    known = traj.metadata or {}
    if overdamped:
        return float(known.get("temperature", 1.0))
    if traj.present is not None:
        moving = traj.present if traj.prescribed is None else traj.present & ~traj.prescribed
        return float((traj.masses.unsqueeze(1) * traj.velocities.double() ** 2)[moving].mean())
    if traj.reference is not None:
        return float(known.get("temperature", math.nan))
    if "temperature" in known.get("observed", {}):
        # atoms are many: over 20 time units the centres of 1,000 stars tell T to 1 %, their beads to 0.1 %
        return float(known["observed"]["temperature"])
    return float(kinetic_temperature(traj, local_flow(traj)[1]).mean())


def _check_solid(number: int, traj: Trajectory, first: Trajectory, cutoff: float, patch: int | None) -> None:
    """Raise ValueError for a reference that does not fit; warn where the solid is torn."""
    if (traj.reference is None) != (first.reference is None):
        raise ValueError(f"trajectory {number} and the first do not both have reference neighbours: a solid or a fluid")
    if traj.reference is None:
        return
    if patch is not None:
        raise ValueError("patches would cut reference neighbours apart: train solids on whole snapshots, patch=null")
    if abs(traj.reference.reach / cutoff - 1.0) > 1e-6:
        raise ValueError(
            f"reference neighbours of trajectory {number} reach {traj.reference.reach:g} and the cutoff is {cutoff:g}; "
            "they must be equal: make the reference with Reference.from_positions(..., cutoff)"
        )
    warn_if_torn(traj, f"trajectory {number}")


def particle_volume(traj: Trajectory, pairs: Pairs, cutoff: float) -> float:
    """Volume of the box over N; in free space, of the ball of the cutoff over the particles in it.

    Of tracks that come and go N are those of the pairs, not all that were ever seen.
    """
    if not traj.box.is_free:
        return traj.box.volume / traj.num_particles
    ball = {2: torch.pi, 3: 4.0 * torch.pi / 3.0}[traj.dimension] * cutoff**traj.dimension
    return ball / (1.0 + 2.0 * int((pairs.distance < cutoff).sum()) / pairs.num_particles)
