"""Pair potentials measured before the training, where velocities were seen through a window.

The velocity of a track is a slope over some frames, and changes over a lag by

    u_i(L) - u_i(0) = Σ_g κ_g a_i(t_g),    a_i = -(1 / m_i) Σ_j φ'(r_ij) e_ij - (ζ / m_i) v_i + noise,

which is linear in the values of φ at its nodes and in ζ. A regression on the same times is biased however short the
lag: places and velocities hold some of the noise, and their errors, and in a dense fluid φ' may change by a smooth
function at hardly any force, so that a small bias of the forces is a large one of φ' (Brückner, Ronceray and
Broedersz, Phys. Rev. Lett. 125, 058103, 2020, for one particle). What was seen before the first window knows nothing
of that noise. So the regressors at that time are instruments z (two-stage least squares):

    Σ z (Δu - x·c) = 0,    weighed by the inverse of Σ z zᵀ,

with a prior for a φ that is smooth on its nodes, which decides where there are no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.learning.transitions import seen_at, surrounded
from gnn_metriplectic.terms import MeasuredPotential
from gnn_metriplectic.trajectory import Trajectory
from gnn_metriplectic.trajectory.window import Window, window_of

# changes of velocity that are looked at, at most
INTERVALS = 500
# frames over which velocities change
LAG = 2
# standard deviations of the prior, in k_B T: of second differences of φ from node to node, and of φ
ROUGHNESS, SIZE = 1.0, 1e3
# of the estimate of the noise, which the weights need
ROUNDS = 3


@dataclass
class _Sums:
    """Σ of products over rows: of instruments z, regressors x and changes y; for `_Sums.solve`."""

    zx: Tensor
    zz: Tensor
    xx: Tensor
    zy: Tensor
    xy: Tensor
    yy: float = 0.0
    count: int = 0

    @classmethod
    def none(cls, size: int) -> _Sums:
        """Of no rows, of so many columns."""
        squares = (torch.zeros(size, size, dtype=torch.float64) for _ in range(3))
        return cls(*squares, *(torch.zeros(size, dtype=torch.float64) for _ in range(2)))

    def add(self, x: Tensor, z: Tensor, y: Tensor) -> None:
        """Count rows."""
        self.zx += z.T @ x
        self.zz += z.T @ z
        self.xx += x.T @ x
        self.zy += z.T @ y
        self.xy += x.T @ y
        self.yy += float(y @ y)
        self.count += len(y)

    def solve(self, prior: Tensor) -> Tensor:
        """The coefficients, with the inverse covariance ``prior`` of what is known before."""
        size = self.zz.diagonal().sqrt()
        size = torch.where(size > 0.0, size, 1.0)
        # columns without data have nothing to weigh
        weight = torch.linalg.pinv(self.zz / size / size[:, None], rtol=1e-10, hermitian=True) / size / size[:, None]
        noise = self.yy / self.count
        for _ in range(ROUNDS):
            found = torch.linalg.solve(
                self.zx.T @ weight @ self.zx / noise + prior, self.zx.T @ weight @ self.zy / noise
            )
            noise = float(self.yy - 2.0 * found @ self.xy + found @ self.xx @ found) / self.count
        return found


@torch.no_grad()
def measure_potential(
    potential: MeasuredPotential, trajectories: Sequence[Trajectory], *, mass: Tensor, temperature: float
) -> None:
    """Give a potential the values at its nodes that the forces of the trajectories have.

    Args:
        potential: of a fluid; its values are replaced.
        trajectories: of particles whose velocities are slopes of their places.
        mass: of each species, ``[S]``.
        temperature: k_B T, of which the prior has its scale.

    Raises:
        ValueError: velocities that are not slopes, or no particle that is seen long enough with all around it.
    """
    kinds, species = potential.kinds, len(mass)
    size = kinds * potential.nodes + species
    sums = _Sums.none(size)
    total = sum(len(t) for t in trajectories)
    for traj in trajectories:
        window = window_of(traj.metadata, traj.dt)
        if window is None:
            raise ValueError(
                "a potential is measured where velocities are slopes of places (a film's tracks): give a network, "
                "model.terms.potential={width: 32, depth: 2}"
            )
        half = window.frames // 2
        before, after = half + 3, LAG + half + 1
        looks = min(max(round(INTERVALS * len(traj) / total), 1), max(len(traj) - before - after, 0))
        for start in np.linspace(before, len(traj) - 1 - after, looks).astype(int).tolist():
            rows = _rows(potential, traj, window, start, mass)
            if rows is not None:
                sums.add(*rows)
    if sums.count == 0:
        raise ValueError(
            f"no particle is seen over {before + after + 1} frames with all that is within {potential.cutoff:g} of it: "
            "tracks are too short, or the cutoff is too large for the view"
        )
    nodes = potential.nodes
    rough = torch.zeros(size, size, dtype=torch.float64)
    bend = torch.diff(torch.eye(nodes + 1, dtype=torch.float64), n=2, dim=0)[:, :nodes] / (ROUGHNESS * temperature)
    for kind in range(kinds):
        part = slice(kind * nodes, (kind + 1) * nodes)
        rough[part, part] = bend.T @ bend + torch.eye(nodes, dtype=torch.float64) / (SIZE * temperature) ** 2
    rough[range(-species, 0), range(-species, 0)] = torch.finfo(torch.float64).eps  # of ζ nothing is known
    potential.pass_through(sums.solve(rough)[: kinds * nodes].reshape(kinds, nodes))


def _rows(
    potential: MeasuredPotential, traj: Trajectory, window: Window, start: int, mass: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Regressors, instruments ``[R, C]`` and changes of velocity ``[R]`` from frame ``start`` on, or None of nobody."""
    half = window.frames // 2
    first, last = start - half - 3, start + LAG + half + 1
    seen = seen_at(traj, range(first, last + 1))
    active = seen & surrounded(traj, potential.cutoff, seen, (first, start, last))
    if traj.prescribed is not None:
        active &= ~traj.prescribed
    if not bool(active.any()):
        return None
    active = active[seen]
    species = torch.zeros(traj.num_particles, dtype=torch.long) if traj.species is None else traj.species
    species = species[seen]
    places = traj.positions[first : last + 1, seen].double()
    origin = start - first
    slopes, weights = window.change(LAG), window.response(LAG)
    change = sum(w * places[origin - half + k, active] for k, w in enumerate(slopes))

    def regressors(frame: int, back: int) -> Tensor:
        """Forces of each node and velocities of each species, ``[A, D, C]``, with velocities from ``back`` frames."""
        forces = potential.force_of_nodes(
            neighbor_pairs(places[frame], traj.box, potential.cutoff, float(traj.times[first + frame])), species
        )[active]
        ahead = frame if back == 2 else frame + 1
        velocity = (places[ahead, active] - places[ahead - 2, active]) / (2.0 * traj.dt)
        drag = -velocity.unsqueeze(2) * torch.nn.functional.one_hot(species[active], len(mass)).unsqueeze(1)
        return torch.cat([forces, drag], dim=2) / mass[species[active]].reshape(-1, 1, 1)

    now = sum(w * regressors(origin - half + k, 1) for k, w in enumerate(weights))
    instruments = sum(weights) * regressors(origin - half - 1, 2)
    return now.flatten(0, 1), instruments.flatten(0, 1), change.flatten()
