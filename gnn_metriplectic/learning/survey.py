"""A look at trajectories before learning: sizes, times, and what to choose."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnn_metriplectic.analysis.transport import kinetic_temperature, vacf
from gnn_metriplectic.brackets import PoissonBracket
from gnn_metriplectic.brackets.elastic import ElasticForces
from gnn_metriplectic.geometry import Bonds, Pairs, Reference, dot, neighbor_pairs
from gnn_metriplectic.learning.transitions import TransitionDataset, pairs_of, particle_volume
from gnn_metriplectic.models import Scales
from gnn_metriplectic.terms import DeformationGradient, LucyKernel
from gnn_metriplectic.trajectory import Trajectory

# neighbours that make a density smooth, and those beyond which cost grows without gain
FEW_NEIGHBORS, GOOD_NEIGHBORS, MANY_NEIGHBORS = 8.0, 16.0, 60.0
# share of the pairs of the training that are too few to tell of their potential
FEW_PAIRS = 1e-4
# friction rate times the step of a solid where its forces hide it
SOLID_DRAG = 0.1


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
    increments, neighbors, volumes, distances = [], [], [], []
    for item, pick in zip(items, picks, strict=True):
        change = _change(item, dataset.dt)[item.active]
        increments.append(float((change - change.mean(dim=0)).square().mean()))
        pairs, _ = pairs_of(item)
        distances.append(pairs.distance[pairs.distance < dataset.cutoff].numpy())
        neighbors.append(2.0 * len(distances[-1]) / item.num_nodes)
        volumes.append(particle_volume(dataset.trajectories[dataset.starts[pick][0]], pairs, dataset.cutoff))
    mass = float(np.mean([float(t.masses.mean()) for t in dataset.trajectories]))
    energy, moduli, increment = float(np.mean(dataset.temperatures)), (), float(np.mean(increments))
    speed = (energy / mass) ** 0.5
    if dataset.solid:
        if not math.isfinite(energy):
            energy = min(_irregular_energy(item, mass) for item in items)
        moduli, drag = solid_forces(dataset, mass)
        increment = 2.0 * (drag * dataset.dt if drag > 0.0 else SOLID_DRAG) * energy / mass
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
        nearest=_nearest(np.concatenate(distances)),
        moduli=moduli,
    )


def _nearest(distances: np.ndarray) -> float:
    """A distance than which hardly a pair is nearer."""
    return float(np.quantile(distances, FEW_PAIRS)) if distances.size else 0.0


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


def solid_forces(dataset: TransitionDataset, mass: float, *, samples: int = 128) -> tuple[tuple[float, ...], float]:
    """First guesses of what the forces of a solid are made of, linear in them and fitted to the changes of velocity.

    Friction acts on the mean of the velocities before and after, and the latter has the noise of the step: in place of
    least squares the residual is orthogonal to what is known before (instrumental variables), the friction of the
    velocities before.

    Returns:
        Moduli as in `Scales`, positive; and the friction rate of a particle, which noise may make negative.
    """
    picks = np.unique(np.linspace(0, len(dataset) - 1, samples).astype(int)).tolist()
    dimension = dataset.trajectories[0].dimension
    kernel, measure = LucyKernel(dataset.cutoff, dimension=dimension), DeformationGradient()
    normal, right, size = (torch.zeros(*shape, dtype=torch.float64) for shape in ((5, 5), (5,), (5,)))
    force_size = 0.0
    for item in (dataset[k] for k in picks):
        columns = torch.zeros(*item.vel.shape, 5, dtype=torch.float64)
        for pairs in pairs_of(item):
            bonds = Bonds(*(_double(p) for p in (pairs.bonds.reference, pairs.bonds.pairs)))
            strain, double = measure(bonds), pairs.with_displacement(pairs.displacement.double(), bonds)
            for k in range(2):
                unit = torch.zeros_like(strain.measures)
                unit[:, k] = 1.0
                columns[..., k] += 0.5 * ElasticForces(strain, unit).forces()
            (volume, slope), (rest, _) = kernel.volume(double), kernel.volume(bonds.reference.pairs)
            pressure = (1.0 / (volume / rest) - 1.0) / rest
            columns[..., 2] += 0.5 * PoissonBracket(double, slope, pressure, volume).forces()
        # friction across and along the pair; it goes with the volumes, as that of the model
        window = (1.0 - (double.distance / dataset.cutoff) ** 2).clamp(min=0.0) ** 2
        window = window * torch.stack(double.ends(volume)).prod(dim=0)
        window = (mass * window / double.total(window).mean()).unsqueeze(1)
        known = columns.clone()
        for target, vel in ((known, item.vel), (columns, 0.5 * (item.vel + item.next_vel))):
            relative = double.relative(vel.double())
            along = dot(relative, double.direction).unsqueeze(1) * double.direction
            for k, part in ((3, relative), (4, along)):
                target[..., k] = -double.net(window * part)
        matrix, known = columns[item.active].flatten(0, 1), known[item.active].flatten(0, 1)
        force = (mass * _change(item, dataset.dt) / dataset.dt)[item.active].flatten()
        normal += known.T @ matrix
        right += known.T @ force
        size += (known**2).sum(dim=0)
        force_size += float((force**2).sum())
    size = size.sqrt()
    found = torch.linalg.lstsq(normal / size / size.unsqueeze(1), right / size).solution / size
    # noise may hide a part; then forces a tenth of all are the better start
    least = 0.1 * force_size**0.5 / size
    moduli = torch.where(found > 0.0, found, least)[:3]
    return tuple(moduli.tolist()), float(found[3] + found[4] / dimension)


def _double(part: Reference | Pairs) -> Reference | Pairs:
    if isinstance(part, Reference):
        return part.to(dtype=torch.float64)
    return part.with_displacement(part.displacement.double())
