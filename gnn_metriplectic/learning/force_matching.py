"""Pair potentials and the liquid measured before the training, where velocities were seen through a window.

The velocity of a track is a slope over some frames, and changes over a lag by

    u_i(L) - u_i(0) = Σ_g κ_g a_i(t_g),    a_i = -(1 / m_i) Σ_j φ'(r_ij) e_ij - (ζ / m_i) v_i + noise,

which is linear in the values of φ at its nodes and in ζ. A regression on the same times is biased however short the
lag: places and velocities hold some of the noise, and their errors, and in a dense fluid φ' may change by a smooth
function at hardly any force, so that a small bias of the forces is a large one of φ' (Brückner, Ronceray and
Broedersz, Phys. Rev. Lett. 125, 058103, 2020, for one particle). What was seen before the first window knows nothing
of that noise. So the regressors where particles were then about to go are instruments z (two-stage least squares):

    Σ z (Δu - x·c) = 0,    weighed by the inverse of Σ z zᵀ,

with a prior for a φ that is smooth on its nodes, which decides where there are no data. Where nothing changes on the
average the liquid takes by friction what forces work and its noise gives,

    Σ_i ζ_i <v_i²> = Σ_i <f_i·v_i> + Σ_i D ζ_i k_B T_s / m_i,

which tells k_B T_s whatever stirs the particles. (So does the size of the noise, but what the errors of places and
of forces add to it, or take off, is not known well enough.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from gnn_metriplectic.geometry import neighbor_pairs
from gnn_metriplectic.learning.transitions import seen_at, surrounded
from gnn_metriplectic.terms import MeasuredPotential
from gnn_metriplectic.trajectory import Trajectory
from gnn_metriplectic.trajectory.window import Sight, Window, window_of

# changes of velocity that are looked at, about, if there are as many frames
INTERVALS = 1200
# frames over which velocities change, and frames before them that tell where particles go
LAG, PAST = 2, 7
# standard deviations of the prior, in k_B T: of the curvature of φ in the coordinate of its nodes, and of φ
CURVATURE, SIZE = 30.0, 1e3
# of the estimate of the noise, which the weights need
ROUNDS = 3


@dataclass(frozen=True)
class Liquid:
    """What particles move in.

    Attributes:
        friction: ζ of each species, force over velocity, ``[S]``; 0 of one whose motion is imposed.
        temperature: k_B T_s, in units of energy.
    """

    friction: Tensor
    temperature: float


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


@dataclass
class _Power:
    """Σ over particles and frames, for `_Power.temperature`.

    Attributes:
        work: of f·v of each node, ``[C]``.
        squared, count, unseen: of each species v² as it is seen, but without its error, the number, and that times
            m(0), ``[S]``.
    """

    work: Tensor
    squared: Tensor
    count: Tensor
    unseen: Tensor

    @classmethod
    def none(cls, nodes: int, species: int) -> _Power:
        """Of nobody."""
        return cls(*(torch.zeros(size, dtype=torch.float64) for size in (nodes, species, species, species)))

    def add(self, forces: Tensor, velocity: Tensor, kinds: Tensor, sight: Sight) -> None:
        """Count particles of species ``kinds`` ``[A]`` with ``forces`` ``[A, D, C]`` of nodes, and ``velocity``."""
        self.work += torch.einsum("adc,ad->c", forces, velocity)
        squared = (velocity**2 - sight.error).sum(dim=1)
        one = torch.ones_like(squared)
        for total, values in ((self.squared, squared), (self.count, one), (self.unseen, sight.memory * one)):
            total.index_add_(0, kinds, values)

    def temperature(self, values: Tensor, friction: Tensor, mass: Tensor, dimension: int) -> float:
        """k_B T_s, where nodes have ``values`` ``[C]``.

        A window takes off v² what the noise gives, D m(0) ζ k_B T_s / m², whatever else moves a particle.
        """
        rate = friction / mass
        gained = dimension * (rate @ self.count - rate**2 @ self.unseen)
        return float((friction @ self.squared - self.work @ values) / gained)


@torch.no_grad()
def measure_forces(
    potential: MeasuredPotential,
    trajectories: Sequence[Trajectory],
    *,
    mass: Tensor,
    temperature: float,
    progress: bool = False,
) -> Liquid:
    """Give a potential the values at its nodes that the forces of the trajectories have, and find their liquid.

    Args:
        potential: of a fluid; its values are replaced.
        trajectories: of particles whose velocities are slopes of their places.
        mass: of each species, ``[S]``.
        temperature: k_B T, of which the prior has its scale.
        progress: whether to show a bar.

    Raises:
        ValueError: velocities that are not slopes, outer forces, a species (but a prescribed one) none of whose
            particles is seen long enough with all around it, or a friction or temperature that cannot be.
    """
    kinds, nodes, species = potential.kinds, potential.nodes, len(mass)
    size = kinds * nodes + species
    sums, power = _Sums.none(size), _Power.none(kinds * nodes, species)
    every = max(sum(len(t) for t in trajectories) // INTERVALS, 1)
    for number, traj in enumerate(trajectories):
        window = window_of(traj.metadata, traj.dt)
        if window is None:
            raise ValueError(
                "a potential is measured where velocities are slopes of places (a film's tracks): give a network, "
                "model.terms.potential={width: 32, depth: 2}"
            )
        if traj.forcing is not None:
            raise ValueError(
                "a potential is measured of particles that feel one another and their liquid, and this trajectory has "
                "outer forces (forcing): give a network, model.terms.potential={width: 32, depth: 2}"
            )
        film = _Film(potential, traj, window, mass)
        starts = range(film.before, len(traj) - film.after, every)
        what = f"forces, trajectory {number + 1} of {len(trajectories)}"
        for start in track(starts, description=what, disable=not progress):
            seen, known = film.there(start)
            if bool(known.any()):
                sums.add(*film.rows(start, seen, known))
                power.add(*film.motion(start, known))
    unknown = [kind for kind in range(species) if power.count[kind] == 0 and not _imposed(trajectories, kind)]
    if unknown:
        raise ValueError(
            f"no particle of species {unknown} is seen over {film.before + film.after + 1} frames with all that is "
            f"within {potential.cutoff:g} of it: tracks are too short, or the cutoff is too large for the view"
        )
    prior = torch.zeros(size, size, dtype=torch.float64)
    bend = torch.diff(torch.eye(nodes + 1, dtype=torch.float64), n=2, dim=0)[:, :nodes]
    bend *= nodes**2 / (CURVATURE * temperature)
    for kind in range(kinds):
        part = slice(kind * nodes, (kind + 1) * nodes)
        prior[part, part] = bend.T @ bend + torch.eye(nodes, dtype=torch.float64) / (SIZE * temperature) ** 2
    prior[range(-species, 0), range(-species, 0)] = torch.finfo(torch.float64).eps  # of ζ nothing is known
    found = sums.solve(prior)
    values, friction = found[:-species], found[-species:]
    warmth = power.temperature(values, friction, mass, trajectories[0].dimension)
    if bool((friction < 0.0).any()) or not warmth > 0.0:
        raise ValueError(
            f"the liquid is measured to have friction {[round(float(x), 3) for x in friction]} of the species and a "
            f"k_B T of {warmth:.3g}, and neither can be negative: tracks are too few or too uncertain; give more "
            "frames, or let the likelihood find forces and liquid, model.terms.potential={width: 32, depth: 2}"
        )
    potential.pass_through(values.reshape(kinds, nodes))
    return Liquid(friction, warmth)


def _imposed(trajectories: Sequence[Trajectory], kind: int) -> bool:
    """Whether all particles of a species are prescribed."""
    return all(
        traj.prescribed is not None and traj.species is not None and bool(traj.prescribed[traj.species == kind].all())
        for traj in trajectories
    )


class _Film:
    """Rows of the regression from a trajectory, by the frames at which its changes of velocity begin, in order.

    Attributes:
        before, after: frames that a row needs on both sides of its own.
    """

    def __init__(self, potential: MeasuredPotential, traj: Trajectory, window: Window, mass: Tensor) -> None:
        self.potential, self.traj, self.mass = potential, traj, mass
        self.half = window.frames // 2
        self.before, self.after = self.half + PAST, LAG + self.half + 1
        self.change, self.response = window.change(LAG), window.response(LAG)
        self.sight = window.sight(LAG, traj.metadata["localisation"]["position"])
        # the parabola through the frames before, and its slope, in the middle of the change
        frames = np.arange(PAST) - PAST + 1.0
        ahead = self.half + 1 + 0.5 * LAG
        fit = np.linalg.pinv(np.vander(frames, 3, increasing=True))
        self.place, self.slope = np.array([1.0, ahead, ahead**2]) @ fit, np.array([0.0, 1.0, 2.0 * ahead]) @ fit
        self.species = torch.zeros(traj.num_particles, dtype=torch.long) if traj.species is None else traj.species
        self._kept: dict[int, Tensor] = {}

    def there(self, start: int) -> tuple[Tensor, Tensor]:
        """Who is seen all the time that a row from frame ``start`` needs, and of whom all forces are known, ``[N]``."""
        first, last = start - self.before, start + self.after
        seen = seen_at(self.traj, range(first, last + 1))
        known = seen & surrounded(self.traj, self.potential.cutoff, seen, (first, start, last))
        return seen, known if self.traj.prescribed is None else known & ~self.traj.prescribed

    def rows(self, start: int, seen: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Regressors, instruments ``[R, C]`` and changes of velocity ``[R]`` of the ``known`` from frame ``start``."""
        traj = self.traj
        places = traj.positions[start - self.before : start + self.after + 1].double()
        origin = self.before
        change = sum(w * places[origin - self.half + k, known] for k, w in enumerate(self.change))
        now = 0.0
        for k, weight in enumerate(self.response):
            forces = self._forces_at(start - self.half + k)
            there = origin - self.half + k
            velocity = (places[there + 1] - places[there - 1]) / (2.0 * traj.dt)
            now = now + weight * self._regressors(forces, velocity, known)
        past = places[:PAST]
        expected = sum(w * p for w, p in zip(self.place, past, strict=True))
        velocity = sum(w * p for w, p in zip(self.slope / traj.dt, past, strict=True))
        forces = self._forces(expected, seen, start)
        instruments = self.response.sum() * self._regressors(forces, velocity, known)
        return now.flatten(0, 1), instruments.flatten(0, 1), change.flatten()

    def motion(self, start: int, known: Tensor) -> tuple[Tensor, Tensor, Tensor, Sight]:
        """Forces of nodes on the ``known``, their velocities and species, and sight."""
        velocity = self.traj.velocities[start, known].double()
        return self._forces_at(start)[known], velocity, self.species[known], self.sight

    def _forces_at(self, frame: int) -> Tensor:
        """Forces of each node on all particles at a frame; rows that overlap share them."""
        if frame not in self._kept:
            self._kept = {f: forces for f, forces in self._kept.items() if abs(f - frame) <= self.before + self.after}
            self._kept[frame] = self._forces(self.traj.positions[frame].double(), seen_at(self.traj, [frame]), frame)
        return self._kept[frame]

    def _forces(self, places: Tensor, seen: Tensor, frame: int) -> Tensor:
        """Forces of each node on all particles, among those that are seen, ``[N, D, C]``."""
        pairs = neighbor_pairs(places[seen], self.traj.box, self.potential.cutoff, float(self.traj.times[frame]))
        among = self.potential.force_of_nodes(pairs, self.species[seen])
        forces = among.new_zeros(len(places), *among.shape[1:])
        forces[seen] = among
        return forces

    def _regressors(self, forces: Tensor, velocity: Tensor, known: Tensor) -> Tensor:
        """Of each node and of the friction of each species, ``[A, D, C]``."""
        species = self.species[known]
        drag = -velocity[known].unsqueeze(2) * functional.one_hot(species, len(self.mass)).unsqueeze(1)
        return torch.cat([forces[known], drag], dim=2) / self.mass[species].reshape(-1, 1, 1)
