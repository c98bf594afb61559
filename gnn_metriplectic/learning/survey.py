"""A look at trajectories before learning: sizes, times, and what to choose."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnn_metriplectic.analysis.transport import kinetic_temperature, vacf
from gnn_metriplectic.brackets.elastic import ElasticForces
from gnn_metriplectic.geometry import Bonds, neighbor_pairs
from gnn_metriplectic.learning.transitions import TransitionDataset, pairs_of, particle_volume
from gnn_metriplectic.models import Scales
from gnn_metriplectic.terms import DeformationGradient
from gnn_metriplectic.trajectory import Trajectory

# neighbours that make a density smooth, and those beyond which cost grows without gain
FEW_NEIGHBORS, GOOD_NEIGHBORS, MANY_NEIGHBORS = 8.0, 16.0, 60.0
# of a solid, whose forces hide the noise: first guess of the share of a velocity's variance that a step renews
SOLID_DRAG = 0.2


@dataclass(frozen=True)
class Survey:
    """What `inspect` found; printing it gives a table.

    Attributes:
        frames, particles, dimension: of the trajectory.
        neighbors: mean number within the cutoff.
        kinetic_temperature: k_B T, in units of energy.
        ballistic_time: when the velocity autocorrelation has lost a tenth, in units of time.
        cutoff: the one given, or else suggested.
        lag: suggested, in frames.
        warnings: what may go wrong, in words.
    """

    frames: int
    particles: int
    dimension: int
    neighbors: float
    kinetic_temperature: float
    ballistic_time: float
    cutoff: float
    lag: int
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [
            f"frames                {self.frames}",
            f"particles             {self.particles} in {self.dimension} dimensions",
            f"cutoff                {self.cutoff:.4g}  ({self.neighbors:.1f} neighbours a particle)",
            f"kinetic temperature   {self.kinetic_temperature:.4g}",
            f"ballistic time        {self.ballistic_time:.4g}",
            f"suggested lag         {self.lag} frames",
        ]
        return "\n".join(rows + [f"warning: {w}" for w in self.warnings])


def inspect(traj: Trajectory, *, cutoff: float | None = None) -> Survey:
    """Neighbours, temperature and times of a trajectory, with a suggested cutoff and lag.

    The suggested cutoff holds about 16 neighbours; the suggested lag is the frame at which the
    velocity autocorrelation has lost a tenth, beyond the ballistic regime and short enough for
    friction to act in small steps.

    Args:
        traj: the trajectory.
        cutoff: in units of length, or None for the suggestion.

    Raises:
        ValueError: a cutoff over half the box.
    """
    notes = []
    if cutoff is None:
        cutoff = _suggest_cutoff(traj)
    frames = np.unique(np.linspace(0, len(traj) - 1, 10).astype(int))
    found = [neighbor_pairs(traj.positions[f].double(), traj.box, cutoff, float(traj.times[f])) for f in frames]
    neighbors = float(np.mean([2.0 * p.num_pairs / traj.num_particles for p in found]))
    if neighbors < FEW_NEIGHBORS:
        notes.append(f"{neighbors:.1f} neighbours a particle make a rough density: use a larger cutoff")
    if neighbors > MANY_NEIGHBORS:
        notes.append(f"{neighbors:.0f} neighbours a particle cost much time: use a smaller cutoff")
    temperatures = kinetic_temperature(traj)
    half = len(temperatures) // 2
    if half >= 10:
        early, late = temperatures[:half].mean(), temperatures[half:].mean()
        if abs(late / early - 1.0) > 0.05:
            notes.append(f"kinetic temperature goes from {early:.4g} to {late:.4g}: equilibrium it is not")
    ballistic, lag = float("nan"), 1
    if len(traj) >= 10:
        lags, correlation = vacf(traj, (len(traj) - 1) // 2 * traj.dt)
        below = np.flatnonzero(correlation < 0.9 * correlation[0])
        if below.size:
            ballistic, lag = float(lags[below[0]]), int(max(below[0], 1))
        else:
            notes.append(
                "velocities hardly decorrelate within half the trajectory: it is too short, or friction is weak"
            )
        if lag == 1 and below.size:
            notes.append(
                "velocities lose a tenth or more from frame to frame: frames are widely spaced, and friction may come "
                "out low"
            )
    return Survey(
        len(traj),
        traj.num_particles,
        traj.dimension,
        neighbors,
        float(temperatures.mean()),
        ballistic,
        cutoff,
        lag,
        notes,
    )


def _suggest_cutoff(traj: Trajectory) -> float:
    if traj.box.is_free:
        distances = torch.cdist(traj.positions[0].double(), traj.positions[0].double())
        rank = min(int(GOOD_NEIGHBORS), traj.num_particles - 1)
        return float(distances.sort(dim=1).values[:, rank].median())
    volume = GOOD_NEIGHBORS * traj.box.volume / traj.num_particles
    unit = {2: np.pi, 3: 4.0 * np.pi / 3.0}[traj.dimension]
    return float(min((volume / unit) ** (1.0 / traj.dimension), 0.5 * traj.box.height))


def measure_scales(dataset: TransitionDataset, *, samples: int = 32) -> Scales:
    """Typical sizes of the transitions, from which networks start."""
    picks = np.unique(np.linspace(0, len(dataset) - 1, samples).astype(int))
    items = [dataset[int(k)] for k in picks]
    increments, neighbors, volumes = [], [], []
    for item, pick in zip(items, picks, strict=True):
        change = _change(item, dataset.dt)[item.active]
        increments.append(float((change - change.mean(dim=0)).square().mean()))
        pairs, _ = pairs_of(item)
        neighbors.append(2.0 * int((pairs.distance < dataset.cutoff).sum()) / item.num_nodes)
        volumes.append(particle_volume(dataset.trajectories[dataset.starts[pick][0]], pairs, dataset.cutoff))
    mass = float(np.mean([float(t.masses.mean()) for t in dataset.trajectories]))
    energy, stiffness, increment = float(np.mean(dataset.temperatures)), 0.0, float(np.mean(increments))
    speed = (energy / mass) ** 0.5
    if dataset.solid:
        if not math.isfinite(energy):
            energy = min(_irregular_energy(item, mass) for item in items)
        stiffness = _stiffness(items, dataset.dt, mass)
        increment = SOLID_DRAG * energy / mass
        speed = float(np.mean([float(item.vel.square().mean()) for item in items])) ** 0.5
    for name, value in (("kinetic temperature", energy), ("change of velocity", increment), ("speed", speed)):
        if not value > 0:
            raise ValueError(
                f"the {name} of the training data is {value}: particles do not move, there is nothing to learn"
            )
    return Scales(
        energy=energy,
        volume=float(np.mean(volumes)),
        speed=speed,
        increment=increment,
        neighbors=float(np.mean(neighbors)),
        mass=mass,
        entropy=float(torch.cat([t.entropies.ravel() for t in dataset.trajectories]).std())
        if dataset.observed
        else 1.0,
        stiffness=stiffness,
    )


def _change(item: Data, dt: float) -> Tensor:
    """What forces between particles did to the velocities, ``[N, D]``."""
    return (item.next_vel - item.vel - dt * item.acceleration).double()


def _irregular_energy(item: Data, mass: float) -> float:
    """k_B T of a solid at the start of a transition: what its neighbours' velocities have beyond a uniform gradient."""
    reference = pairs_of(item)[0].bonds.reference.to(dtype=torch.float64)
    relative = reference.pairs.difference_of_ends(item.vel.double())
    measures = DeformationGradient()(Bonds(reference, reference.pairs.with_displacement(relative))).measures
    # H is the mean of |v_ij - ∇v r⁰|² over that of |r⁰|², and a v_ij has the variance of two particles
    count = reference.pairs.total(reference.weight)
    squared = measures[:, 1] * reference.shape_tensor.diagonal(dim1=1, dim2=2).sum(dim=1) / count
    return max(0.5 * mass * float(squared.median()) / item.vel.shape[1], torch.finfo(torch.float32).tiny)


def _stiffness(items: list[Data], dt: float, mass: float) -> float:
    """Energy of a unit of I2 a particle, by least squares of forces that a unit of it would have; positive."""
    match = size = reach = 0.0
    for item in items:
        force = mass * _change(item, dt) / dt
        bonds = pairs_of(item)[0].bonds
        reference = bonds.reference.to(dtype=torch.float64)
        strain = DeformationGradient()(
            Bonds(reference, reference.pairs.with_displacement(bonds.pairs.displacement.double()))
        )
        unit = ElasticForces(strain, torch.ones_like(strain.measures)).forces()[item.active]
        force = force[item.active]
        match += float((force * unit).sum())
        size += float((unit * unit).sum())
        reach += float((force * force).sum())
    # noise may hide the match; then forces of the right size are the better start
    return max(match / size, 0.1 * (reach / size) ** 0.5)
