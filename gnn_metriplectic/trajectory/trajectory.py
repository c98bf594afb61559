"""Frames of a particle system, evenly spaced in time, with what is needed to interpret them."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Box, Reference
from gnn_metriplectic.trajectory.checks import (
    as_float_tensor,
    check_frames,
    check_positive,
    check_times,
    check_unwrapped,
)


@dataclass(eq=False, repr=False)
class Trajectory:
    """``T`` frames of ``N`` particles in ``D`` dimensions, on the CPU.

    Arrays may be given as NumPy arrays or tensors; float32 and float64 are kept. ``traj[100:300:2]``
    is a shorter trajectory over the same memory, its ``dt`` multiplied by the step.

    Attributes:
        positions: ``[T, N, D]``, units of length, unwrapped (never folded back into the box).
        velocities: ``[T, N, D]``, units of length over time.
        box: the cell, or free space.
        dt: time between two frames.
        mass: one mass for all, or ``[N]``.
        species: ``[N]`` integers, or None.
        entropies: ``[T, N]`` in units of entropy, or None. Of the ground truth or of a model.
        times: ``[T]`` float64; by default ``0, dt, 2 dt, ...``.
        units: names of the units, such as ``{"length": "nm", "time": "ps"}``, or None if unknown.
        forcing: the body force as a plain dict, such as ``{"name": "taylor_green", "amplitude": 5.0}``.
        prescribed: ``[N]`` bool, particles whose motion was imposed, or None.
        reference: neighbours of a solid in its reference configuration, or None for a fluid.
        present: ``[T, N]`` bool, of tracks that come, go and have gaps: whether the particle was seen in the frame.
            Where it was not, its position is a guess (between the frames beside a gap) or its nearest known one. None
            where all are there always.
        view: two corners ``[2, D]`` of what a camera saw, beyond which there may be particles; None where there are
            none.
        metadata: provenance as plain JSON values: seed, system, scenario, k_B, temperature, ...

    Raises:
        ValueError: for shapes that do not fit, fewer than one frame or two particles, a value that is
            not finite (frame and particle are named), missing velocities, uneven times, a step or mass
            that is not positive, or positions that look wrapped.
    """

    positions: Tensor
    velocities: Tensor | None = None
    _: KW_ONLY
    box: Box
    dt: float
    mass: float | Tensor = 1.0
    species: Tensor | None = None
    entropies: Tensor | None = None
    times: Tensor | None = None
    units: dict[str, str] | None = None
    forcing: dict[str, Any] | None = None
    prescribed: Tensor | None = None
    reference: Reference | None = None
    present: Tensor | None = None
    view: Tensor | None = None
    metadata: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.positions = as_float_tensor("positions", self.positions)
        if self.positions.ndim != 3:
            raise ValueError(f"positions has shape {list(self.positions.shape)}; expected [T, N, D]")
        frames, particles, dimension = self.positions.shape
        if frames < 1:
            raise ValueError("the trajectory has no frames; at least one is needed")
        if particles < 2:
            raise ValueError(f"the trajectory has {particles} particle(s); pair interactions need at least two")
        if dimension != self.box.dimension:
            raise ValueError(f"positions have {dimension} components but the box has dimension {self.box.dimension}")
        if self.velocities is None:
            raise ValueError(
                "velocities are missing: write them with the trajectory, or compute them from unwrapped positions, "
                "for instance by central differences, numpy.gradient(positions, dt, axis=0)"
            )
        self.dt = check_positive("dt", self.dt)
        check_frames("positions", self.positions, (frames, particles, dimension))
        self.velocities = as_float_tensor("velocities", self.velocities)
        check_frames("velocities", self.velocities, (frames, particles, dimension))
        if self.entropies is not None:
            self.entropies = as_float_tensor("entropies", self.entropies)
            check_frames("entropies", self.entropies, (frames, particles))
        self._set_times()
        self._set_particles(particles)
        self._set_sight(frames, particles, dimension)
        check_unwrapped(self.positions, self.box)

    def _set_times(self) -> None:
        if self.times is None:
            self.times = torch.arange(len(self.positions), dtype=torch.float64) * self.dt
        self.times = torch.as_tensor(self.times).detach().cpu().to(torch.float64)
        check_times(self.times, self.dt, len(self.positions))

    def _set_sight(self, frames: int, particles: int, dimension: int) -> None:
        if self.present is not None:
            self.present = torch.as_tensor(self.present).detach().cpu()
            if tuple(self.present.shape) != (frames, particles) or self.present.dtype != torch.bool:
                raise ValueError(
                    f"present is {self.present.dtype} of shape {list(self.present.shape)}; it must be bools "
                    f"[{frames}, {particles}]"
                )
        if self.view is not None:
            self.view = torch.as_tensor(self.view, dtype=torch.float64)
            if tuple(self.view.shape) != (2, dimension) or not bool((self.view[0] < self.view[1]).all()):
                raise ValueError(f"view is {self.view.tolist()}; it must be two corners, the lower one first")

    def _set_particles(self, particles: int) -> None:
        if isinstance(self.mass, Tensor) or hasattr(self.mass, "__len__"):
            self.mass = as_float_tensor("mass", self.mass)
        if isinstance(self.mass, Tensor) and self.mass.ndim == 0:
            self.mass = float(self.mass)
        if isinstance(self.mass, Tensor):
            if tuple(self.mass.shape) != (particles,):
                raise ValueError(f"mass has shape {list(self.mass.shape)}; expected one number or [{particles}]")
            wrong = ~(torch.isfinite(self.mass) & (self.mass > 0))
            if bool(wrong.any()):
                index = int(wrong.nonzero()[0])
                raise ValueError(f"the mass of particle {index} is {float(self.mass[index])}; it must be positive")
        else:
            self.mass = check_positive("mass", self.mass)
        for name in ("species", "prescribed"):
            values = getattr(self, name)
            if values is None:
                continue
            values = torch.as_tensor(values).detach().cpu()
            if tuple(values.shape) != (particles,):
                raise ValueError(f"{name} has shape {list(values.shape)}; expected [{particles}], one a particle")
            if values.is_floating_point():
                raise ValueError(f"{name} is of type {values.dtype}; give integers (species) or bools (prescribed)")
            setattr(self, name, values.to(torch.int64 if name == "species" else torch.bool))
        if self.reference is not None:
            self.reference = self.reference.to(device="cpu")
            count, dimension = self.reference.num_particles, self.reference.displacement.shape[1]
            if (count, dimension) != (particles, self.box.dimension):
                raise ValueError(
                    f"the reference has {count} particles in {dimension} dimensions and the trajectory {particles} in "
                    f"{self.box.dimension}"
                )

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        box = "free" if self.box.is_free else "x".join(f"{x:g}" for x in self.box.lengths)
        frames, particles, dimension = self.positions.shape
        return f"Trajectory({frames} frames, {particles} particles, {dimension}D, box={box}, dt={self.dt:g})"

    def __getitem__(self, frames: slice) -> Trajectory:
        """The frames of a slice. Raises TypeError for a bare index, ValueError for no frames or a step < 1."""
        if not isinstance(frames, slice):
            raise TypeError(f"take frames by a slice, such as traj[{frames}:], or index traj.positions")
        start, stop, step = frames.indices(len(self))
        if step < 1:
            raise ValueError(f"slice step is {step}; time runs forward, so it must be at least 1")
        if start >= stop:
            raise ValueError(f"frames {start} to {stop} of {len(self)} are none; at least one is needed")
        # Already checked frames are not checked again: coarse ones may rightly move by over half a box.
        part = copy.copy(self)
        part.dt = self.dt * step
        for name in ("positions", "velocities", "entropies", "times", "present"):
            values = getattr(self, name)
            setattr(part, name, None if values is None else values[frames])
        return part

    def __iter__(self):
        raise TypeError("a trajectory is not iterable: loop over traj.positions and traj.velocities")

    @property
    def num_particles(self) -> int:
        """``N``."""
        return self.positions.shape[1]

    @property
    def dimension(self) -> int:
        """``D``, 2 or 3."""
        return self.positions.shape[2]

    @property
    def masses(self) -> Tensor:
        """Mass of every particle, ``[N]``, in the type of the velocities."""
        if isinstance(self.mass, Tensor):
            return self.mass.to(self.velocities)
        return torch.full((self.num_particles,), self.mass, dtype=self.velocities.dtype)

    def without_drift(self) -> Trajectory:
        """The trajectory seen from its centre of mass: mean velocity zero, displacement removed with it.

        Raises ValueError in a sheared box, where the frame of rest depends on height (use the
        peculiar velocities of ``analysis.transport``).
        """
        if self.box.shear_rate:
            raise ValueError(f"the box is sheared at rate {self.box.shear_rate:g}: its drift depends on height")
        weight = (self.masses.double() / self.masses.double().sum())[:, None]
        centre = (self.positions.double() * weight).sum(dim=1, keepdim=True)
        velocity = (self.velocities.double() * weight).sum(dim=1, keepdim=True)
        still = copy.copy(self)
        still.positions = self.positions - (centre - centre[:1]).to(self.positions)
        still.velocities = self.velocities - velocity.to(self.velocities)
        return still

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of frames, masses, species, reference, box and step."""
        digest = hashlib.sha256(repr((self.box, self.dt, self.mass if isinstance(self.mass, float) else None)).encode())
        for name in ("positions", "velocities", "entropies", "times", "mass", "species", "prescribed", "present"):
            values = getattr(self, name)
            if isinstance(values, Tensor):
                digest.update(f"{name}{list(values.shape)}{values.dtype}".encode())
                digest.update(values.contiguous().numpy().data)
        if self.reference is not None:
            for values in (self.reference.index, self.reference.displacement):
                digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()[:16]
