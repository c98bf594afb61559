"""The irreversible part: M symmetric positive semi-definite with M ∇E = 0, its drift and its noise.

Each pair exchanges momentum by a friction tensor G and energy by heat conduction K²; the work of
the friction force on v is the heat that it leaves in the two particles.

    G = (A²/2) I + (A²/2 + (B² - A²)/D) e eᵀ                               tr G = (D+1) A²/2 + (B² - A²)/D
    F_ij = -½ [(β_i + β_j) G + k_B (∂_iG/C_i + ∂_jG/C_j)] v_ij             β_i = (1 - k_B/C_i) / T_i
    q_ij = K² (β_i - β_j) + k_B (∂_iK²/C_i - ∂_jK²/C_j)
    F̃_ij = √(2 k_B dt) [(A/√2) ξ + (√(A²(1 - 1/D) + B²/D) - A/√2) (e·ξ) e]

    symbol        variable
    A², B², K²    friction.squared[:, SHEAR | BULK | HEAT]
    k_B (∂_i X/C_i ± ∂_j X/C_j)                  friction.ito, + for A², B² and - for K²
    T, C          thermo.temperature, thermo.heat_capacity
    β             inverse_temperature

A tensor x I + y e eᵀ is held as its two numbers (x, y), ``[E, 2]``. F and q are M∇S_tot + k_B ∇·M
written for momenta and internal energies; drift() adds the Itô terms that come with S(ε).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs, columns, dot
from gnn_metriplectic.terms.energy import Thermo
from gnn_metriplectic.terms.friction import BULK, HEAT, SHEAR, Friction


def friction_tensor(squared: Tensor, dimension: int) -> Tensor:
    """(x, y) of G = x I + y e eᵀ, ``[E, 2]``, from (A², B², K²) ``[E, 3]``; linear in them."""
    half = 0.5 * squared[:, SHEAR]
    return columns(half, half + (squared[:, BULK] - squared[:, SHEAR]) / dimension)


def apply_tensor(tensor: Tensor, direction: Tensor, vectors: Tensor) -> Tensor:
    """(x I + y e eᵀ) u for each pair: ``[E, 2]``, ``[E, D]``, ``[E, D]`` -> ``[E, D]``."""
    along = dot(direction, vectors).unsqueeze(1)
    return tensor[:, :1] * vectors + tensor[:, 1:] * along * direction


def multiply_tensors(*tensors: Tensor) -> Tensor:
    """Product of tensors x I + y e eᵀ about the same e, which commute: (x, y) ``[E, 2]``."""
    across, along = tensors[0][:, 0], tensors[0].sum(dim=1)
    for tensor in tensors[1:]:
        across, along = across * tensor[:, 0], along * tensor.sum(dim=1)
    return columns(across, along - across)


def invert_tensor(tensor: Tensor) -> Tensor:
    """(x, y) of the inverse of x I + y e eᵀ, ``[E, 2]``."""
    across, along = 1.0 / tensor[:, 0], 1.0 / tensor.sum(dim=1)
    return columns(across, along - across)


def dense_tensor(tensor: Tensor, direction: Tensor) -> Tensor:
    """x I + y e eᵀ of each pair as ``[E, D, D]``."""
    identity = torch.eye(direction.shape[1], dtype=direction.dtype, device=direction.device)
    outer = direction.unsqueeze(2) * direction.unsqueeze(1)
    return tensor[:, 0, None, None] * identity + tensor[:, 1, None, None] * outer


def block_matrix(corner: Tensor, side: Tensor, last: Tensor) -> Tensor:
    """Symmetric ``[N, D+1, D+1]`` from its blocks ``[N, D, D]``, ``[N, D]`` and ``[N]``."""
    bottom = torch.cat([side, last.unsqueeze(1)], dim=1)
    return torch.cat([torch.cat([corner, side.unsqueeze(2)], dim=2), bottom.unsqueeze(1)], dim=1)


@dataclass(frozen=True)
class DissipativeBracket:
    """M at one configuration and temperature; velocities are given to each method.

    Attributes:
        pairs: the interacting pairs.
        friction: squared amplitudes of each pair.
        thermo: state of each particle.
        mass: of each particle, ``[N]``.
        k_B: Boltzmann's constant, 0-dim tensor.
    """

    pairs: Pairs
    friction: Friction
    thermo: Thermo
    mass: Tensor
    k_B: Tensor

    @cached_property
    def tensor(self) -> Tensor:
        """G of each pair, as (x, y) ``[E, 2]``."""
        return friction_tensor(self.friction.squared, self.dimension)

    @cached_property
    def drag(self) -> Tensor:
        """R of each pair, as (x, y) ``[E, 2]``: the mean friction force is F_ij = -R v_ij."""
        both = self.pairs.sum_of_ends(self.inverse_temperature).unsqueeze(1)
        return 0.5 * (both * self.tensor + friction_tensor(self.friction.ito, self.dimension))

    @property
    def dimension(self) -> int:
        """D."""
        return self.pairs.displacement.shape[1]

    @cached_property
    def inverse_temperature(self) -> Tensor:
        """β = (1 - k_B/C) / T, ``[N]``."""
        return (1.0 - self.k_B / self.thermo.heat_capacity) / self.thermo.temperature

    @cached_property
    def outer(self) -> Tensor:
        """e eᵀ of each pair row by row, ``[E, D²]``."""
        rows = self.pairs.direction.T
        return (rows.unsqueeze(1) * rows.unsqueeze(0)).flatten(0, 1).T

    def friction_forces(self, relative: Tensor) -> Tensor:
        """Mean friction force F_ij on i of each pair, ``[E, D]``, at relative velocities ``[E, D]``."""
        return -apply_tensor(self.drag, self.pairs.direction, relative)

    def friction_heat(self, relative: Tensor) -> Tensor:
        """Heat -½ F_ij·v_ij that friction leaves in each end of a pair, ``[E]``, in units of power."""
        return 0.5 * self._form(self.drag, relative)

    def recoil(self, dt: float, inverse_mass: Tensor) -> tuple[Tensor, Tensor]:
        """P = (1 + ½ dt R/m)⁻¹ for i and for j, with m of the other end, (x, y) ``[E, 2]`` each.

        ``inverse_mass`` ``[N]`` is zero for particles that are held on their way.

        Of a pair alone, J = P (F_ij(w) dt + F̃) is the impulse on i that solves J = F_ij(w + ½ J/m_j) dt + F̃: the
        midpoint velocity w + ½ J/m_j has the partner's recoil in it.
        """
        one = torch.tensor([1.0, 0.0], dtype=self.drag.dtype, device=self.drag.device)
        first, second = self.pairs.ends(0.5 * dt * inverse_mass.unsqueeze(1))
        return invert_tensor(one + second * self.drag), invert_tensor(one + first * self.drag)

    def heat_flow(self) -> Tensor:
        """Mean heat q_ij into i (out of j) of each pair, ``[E]``, in units of power."""
        difference = self.pairs.difference_of_ends(self.inverse_temperature)
        return self.friction.squared[:, HEAT] * difference + self.friction.ito[:, HEAT]

    def blocks(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """Σ_j (x I + y e eᵀ) of each particle, ``[N, D, D]``.

        Args:
            first: ``[E, 2]``, what i receives from each pair.
            second: what j receives, where it is not the same.
        """
        parts = [
            torch.cat([tensor[:, :1].T, (tensor[:, 1:] * self.outer).T]).T
            for tensor in (first, second)
            if tensor is not None
        ]
        total = self.pairs.total(parts[0]) if second is None else self.pairs.total_of_ends(*parts)
        identity = torch.eye(self.dimension, dtype=total.dtype, device=total.device)
        return total[:, 1:].unflatten(1, identity.shape) + total[:, :1, None] * identity

    def trace(self, tensor: Tensor) -> Tensor:
        """tr (x I + y e eᵀ) of each pair, ``[E]``."""
        return self.dimension * tensor[:, 0] + tensor[:, 1]

    def heating(self, tensor: Tensor, relative: Tensor) -> Tensor:
        """¼ v_ijᵀ G v_ij + K² of each pair, ``[E]``: 2 k_B of it is the variance of an end's energy rate."""
        return 0.25 * self._form(tensor, relative) + self.friction.squared[:, HEAT]

    def _form(self, tensor: Tensor, vectors: Tensor) -> Tensor:
        """uᵀ (x I + y e eᵀ) u of each pair, ``[E]``."""
        return tensor[:, 0] * dot(vectors, vectors) + tensor[:, 1] * dot(self.pairs.direction, vectors) ** 2

    def drift(self, relative: Tensor) -> tuple[Tensor, Tensor]:
        """M∇S_tot + k_B ∇·M for velocities ``[N, D]`` and entropies ``[N]``, per unit time.

        The Itô sense: the last two terms of dS are the kinetic energy that the noise creates and
        the curvature of S(ε).
        """
        forces, heat = self.friction_forces(relative), self.friction_heat(relative)
        # the kinetic energy that noise creates on each end is drawn half from each
        inverse_mass = self.pairs.sum_of_ends(1.0 / self.mass)
        heat = heat - 0.5 * self.k_B * self.trace(self.tensor) * inverse_mass
        energy = self.pairs.total(heat) + self.pairs.net(self.heat_flow())
        curvature = self.k_B / self.thermo.heat_capacity * self.pairs.total(self.heating(self.tensor, relative))
        temperature = self.thermo.temperature
        return self.pairs.net(forces) / self.mass.unsqueeze(1), (energy - curvature / temperature) / temperature

    def moments(self, tensors: tuple[Tensor, Tensor], relative: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Noise covariance of each particle over (m v, ε) per unit time.

        Args:
            tensors: G of the noise on i and on j of each pair, ``[E, 2]`` each.
            relative: the v_ij that i and j see, ``[E, D]`` each.

        Returns:
            momentum-momentum ``[N, D, D]``, momentum-energy ``[N, D]``, energy-energy ``[N]``.
        """
        twice = 2.0 * self.k_B
        first, second = (apply_tensor(g, self.pairs.direction, v) for g, v in zip(tensors, relative, strict=True))
        # each end takes the heat -½ F̃·v_ij; for j both F̃ and v_ij change sign, and so their product with F̃
        mixed = -0.5 * self.pairs.total_of_ends(first, -second)
        energy = self.pairs.total_of_ends(*(self.heating(g, v) for g, v in zip(tensors, relative, strict=True)))
        return twice * self.blocks(*tensors), twice * mixed, twice * energy

    def covariance(self, relative: Tensor) -> Tensor:
        """Noise covariance of each particle over (v, S) per unit time, ``[N, D+1, D+1]``."""
        momentum, mixed, energy = self.moments((self.tensor, self.tensor), (relative, relative))
        mass, temperature = self.mass, self.thermo.temperature
        return block_matrix(
            momentum / mass[:, None, None] ** 2, mixed / (mass * temperature)[:, None], energy / temperature**2
        )

    def sample(self, normals: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """Random force impulse on i ``[E, D]`` and random heat into i ``[E]`` of each pair over ``dt``.

        Args:
            normals: ``[E, D+1]`` standard normal numbers, antisymmetric in the pair.
            dt: in units of time.
        """
        shear = torch.sqrt(0.5 * self.friction.squared[:, SHEAR])
        along = torch.sqrt(self.tensor.sum(dim=1))
        amplitudes = columns(shear, along - shear)
        scale = torch.sqrt(2.0 * self.k_B * dt)
        force = scale * apply_tensor(amplitudes, self.pairs.direction, normals[:, :-1])
        return force, scale * torch.sqrt(self.friction.squared[:, HEAT]) * normals[:, -1]

    def matrix(self, velocities: Tensor) -> Tensor:
        """Dense M over [v.ravel(), S], square of side N (D + 1). For tests and teaching; small N."""
        count, dimension = velocities.shape
        side = count * dimension
        relative = self.pairs.relative(velocities)
        temperature = self.thermo.temperature
        matrix = velocities.new_zeros(side + count, side + count)
        for pair, (i, j) in enumerate(self.pairs.index.T.tolist()):
            # columns: D force channels and one of heat, seen by (v_i, v_j, S_i, S_j)
            direction = self.pairs.direction[pair : pair + 1]
            g = dense_tensor(self.tensor[pair : pair + 1], direction)[0]
            rows = velocities.new_zeros(side + count, dimension)
            identity = torch.eye(dimension, dtype=velocities.dtype)
            for end, sign in ((i, 1.0), (j, -1.0)):
                block = slice(end * dimension, (end + 1) * dimension)
                rows = _with(rows, block, sign * identity / self.mass[end])
                rows = _with(
                    rows, slice(side + end, side + end + 1), -0.5 * relative[pair : pair + 1] / temperature[end]
                )
            heat = velocities.new_zeros(side + count)
            heat = _with(heat, slice(side + i, side + i + 1), 1.0 / temperature[i : i + 1])
            heat = _with(heat, slice(side + j, side + j + 1), -1.0 / temperature[j : j + 1])
            matrix = matrix + rows @ g @ rows.T + self.friction.squared[pair, HEAT] * torch.outer(heat, heat)
        return matrix


def _with(target: Tensor, rows: slice, values: Tensor) -> Tensor:
    """``target`` with some rows replaced, differentiable in ``values``."""
    target = target.clone()
    target[rows] = values
    return target
