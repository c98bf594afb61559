"""The state of a particle system: positions, velocities, entropies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Box, Pairs, Reference, neighbor_pairs

if TYPE_CHECKING:
    from gnn_metriplectic.models.metriplectic import MetriplecticModel
    from gnn_metriplectic.models.particles import Configuration, ParticleModel
    from gnn_metriplectic.trajectory import Trajectory


@dataclass(frozen=True)
class State:
    """State of N particles in D dimensions.

    Attributes:
        pos: ``[N, D]``, unwrapped, in units of length.
        vel: ``[N, D]``, in units of velocity.
        entropy: ``[N]``, in the units of k_B.
        species: ``[N]`` integers, or None for one species.
        reference: neighbours of a solid, or None for a fluid.

    Raises:
        ValueError: what is no tensor, shapes that do not fit, or floating types that differ.
    """

    pos: Tensor
    vel: Tensor
    entropy: Tensor
    species: Tensor | None = None
    reference: Reference | None = None

    def __post_init__(self) -> None:
        for name, values in (*self._numbers(), ("species", self.species)):
            if not (isinstance(values, Tensor) or (name == "species" and values is None)):
                raise ValueError(f"{name} are of type {type(values).__name__}; give tensors, as by torch.as_tensor")
        for name, values in self._numbers():
            if not values.is_floating_point() or values.dtype != self.pos.dtype:
                raise ValueError(
                    f"{name} are {values.dtype} and positions {self.pos.dtype}: all must be of one floating type"
                )
        if self.species is not None and self.species.is_floating_point():
            raise ValueError(f"species are {self.species.dtype}; they must be integers")
        count = self.pos.shape[0]
        if self.pos.dim() != 2 or self.pos.shape[1] not in (2, 3):
            raise ValueError(f"positions have shape {tuple(self.pos.shape)}; they must be [N, 2] or [N, 3]")
        if self.vel.shape != self.pos.shape:
            raise ValueError(f"velocities have shape {tuple(self.vel.shape)} and positions {tuple(self.pos.shape)}")
        if self.entropy.shape != (count,):
            raise ValueError(f"entropies have shape {tuple(self.entropy.shape)}; {count} particles need [{count}]")
        if self.species is not None and self.species.shape != (count,):
            raise ValueError(f"species have shape {tuple(self.species.shape)}; {count} particles need [{count}]")
        if self.reference is not None and self.reference.num_particles != count:
            raise ValueError(f"the reference has {self.reference.num_particles} particles and the state {count}")

    def _numbers(self) -> tuple[tuple[str, Tensor], ...]:
        return ("positions", self.pos), ("velocities", self.vel), ("entropies", self.entropy)

    def check_finite(self) -> None:
        """Raise ValueError that names the first field and particle whose value is NaN or infinite."""
        for name, values in self._numbers():
            finite = torch.isfinite(values).view(len(values), -1).all(dim=1)
            if not bool(finite.all()):
                particle = int((~finite).nonzero()[0])
                raise ValueError(f"{name} of particle {particle} are {values[particle].tolist()}; all must be finite")

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> State:
        """The same state in another floating type or on another device."""
        pos, vel, entropy = (x.to(dtype=dtype, device=device) for x in (self.pos, self.vel, self.entropy))
        species = None if self.species is None else self.species.to(device=device)
        reference = None if self.reference is None else self.reference.to(dtype=dtype, device=device)
        return State(pos, vel, entropy, species, reference)

    @classmethod
    def from_frame(cls, traj: Trajectory, frame: int, model: ParticleModel, *, encode: bool = True) -> State:
        """State of one frame of a trajectory, in the floating type and on the device of the model.

        The entropy comes from the model's encoder; from the trajectory if the model has none, or with ``encode=False``
        (frames of the model's own rollouts). It is zero where the model has no entropy.

        Raises:
            ValueError: a frame that does not exist, another dimension, or no source of entropy.
        """
        if not (isinstance(frame, Integral) and -len(traj) <= frame < len(traj)):
            raise ValueError(f"frame {frame} does not exist: the trajectory has {len(traj)}")
        if traj.dimension != model.dimension:
            raise ValueError(f"the trajectory has dimension {traj.dimension} and the model {model.dimension}")
        like = {"dtype": model.dtype, "device": model.device}
        pos, vel = traj.positions[frame].to(**like), traj.velocities[frame].to(**like)
        species = None if traj.species is None else traj.species.to(model.device)
        reference = None if traj.reference is None else traj.reference.to(**like)
        if not model.has_entropy:
            return cls(pos, vel, pos.new_zeros(len(pos)), species, reference)
        if model.encoder is None or not encode:
            if traj.entropies is None:
                raise ValueError(
                    "the entropy is not to be encoded and the trajectory holds none"
                    if model.encoder
                    else "the model has no entropy encoder and the trajectory holds no entropies"
                )
            return cls(pos, vel, traj.entropies[frame].to(**like), species, reference)
        pairs = neighbor_pairs(pos, traj.box, model.cutoff, float(traj.times[frame]), reference=reference)
        with torch.no_grad():
            return cls(pos, vel, model.encode(pairs, vel, species), species, reference)

    def with_energy(self, model: MetriplecticModel, pairs: Pairs, energy: float) -> State:
        """The same positions and velocities at another total energy, all entropies moved by one amount.

        As velocities are scaled in molecular dynamics to begin a run at a given energy, but where C is large: the
        entropies.

        Args:
            model: whose energy it is.
            pairs: of the state.
            energy: kinetic and internal, of all particles.

        Raises:
            ValueError: an energy that no entropies give.
        """
        with torch.no_grad():
            configuration = model.configuration(pairs, self.species)
            law, volume = model.law(configuration), configuration.volume
            wanted, entropy = energy - float(model.kinetic_energy(self)), self.entropy
            for _ in range(50):
                thermo = law.anywhere(entropy, volume, self.species)
                # Newton's step of the sum, at most a heat capacity
                step = (wanted - thermo.energy.sum()) / thermo.temperature.sum()
                entropy = (
                    entropy + torch.clamp(step / thermo.heat_capacity.mean(), -1.0, 1.0) * thermo.heat_capacity.mean()
                )
                if float(step.abs() * thermo.temperature.sum()) <= 16.0 * torch.finfo(model.dtype).eps * abs(wanted):
                    return replace(self, entropy=entropy)
        raise ValueError(f"no entropies give the total energy {energy:g}: the model was trained elsewhere")

    @classmethod
    def equilibrium(
        cls,
        model: ParticleModel,
        pos: Tensor,
        box: Box,
        *,
        temperature: float,
        seed: int = 0,
        species: Tensor | None = None,
        reference: Reference | None = None,
    ) -> State:
        """Velocities and entropies drawn from the canonical ensemble at given positions.

        p(v, S) ∝ exp[(S - (½ m v² + U(S, V)) / T) / k_B] for each particle, then the total momentum
        is removed. Without entropy, velocities alone.

        Args:
            model: of which this is an equilibrium.
            pos: ``[N, D]``, in units of length.
            box: where the particles are.
            temperature: k_B T, in units of energy.
            seed: of the draw.
            species: ``[N]`` or None.
            reference: neighbours of a solid, or None.

        Raises:
            ValueError: a temperature that is not positive, or that no entropy gives.
        """
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be positive")
        pos = torch.as_tensor(pos).to(dtype=model.dtype, device=model.device)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            mass = model.masses(pos.shape[0], species).unsqueeze(1)
            vel = torch.randn(pos.shape, generator=generator, dtype=torch.float64).to(pos)
            vel = vel * torch.sqrt(temperature / mass)
            vel = vel - (mass * vel).sum(dim=0) / mass.sum()
            if not model.has_entropy:
                return cls(pos, vel, pos.new_zeros(len(pos)), species, reference)
            configuration = model.configuration(neighbor_pairs(pos, box, model.cutoff, reference=reference), species)
            uniform = torch.rand(pos.shape[0], generator=generator, dtype=torch.float64).to(pos)
            entropy = _draw_entropy(model, configuration, species, temperature / model.k_B, uniform)
        return cls(pos, vel, entropy, species, reference)


def _draw_entropy(
    model: MetriplecticModel,
    configuration: Configuration,
    species: Tensor | None,
    temperature: Tensor,
    uniform: Tensor,
) -> Tensor:
    """Entropies from p(S) ∝ exp[(S - U(S, V)/T) / k_B] by inverting its distribution on a grid."""
    law, volume = model.law(configuration), configuration.volume
    mode = torch.zeros_like(volume)
    for _ in range(100):
        thermo = law.anywhere(mode, volume, species)
        step = thermo.heat_capacity * torch.log(temperature / thermo.temperature)
        mode = mode + torch.clamp(step, -2.0 * thermo.heat_capacity, 2.0 * thermo.heat_capacity)
        if float((step / thermo.heat_capacity).abs().max()) < 1e-6:
            break
    else:
        raise ValueError(f"no entropy gives the temperature {float(temperature):g}: the model was trained elsewhere")
    width = torch.sqrt(model.k_B * thermo.heat_capacity)
    offsets = torch.linspace(-8.0, 8.0, 801, dtype=volume.dtype, device=volume.device)
    grid = mode.unsqueeze(1) + width.unsqueeze(1) * offsets
    count = grid.shape[1]
    energy = torch.stack([law.anywhere(column, volume, species).energy for column in grid.T], dim=1)
    log_density = (grid - energy / temperature) / model.k_B
    density = torch.exp(log_density - log_density.max(dim=1, keepdim=True).values)
    cumulative = torch.cumulative_trapezoid(density, dim=1)
    target = uniform * cumulative[:, -1]
    right = torch.searchsorted(cumulative, target.unsqueeze(1)).clamp(max=count - 2)
    below = torch.where(
        right > 0, cumulative.gather(1, (right - 1).clamp(min=0)), torch.zeros_like(target).unsqueeze(1)
    )
    fraction = (target.unsqueeze(1) - below) / (cumulative.gather(1, right) - below)
    return (grid.gather(1, right) + fraction.clamp(0.0, 1.0) * (grid[:, 1:2] - grid[:, :1])).squeeze(1)
