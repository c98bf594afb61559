"""The radial distribution function g(r)."""

from __future__ import annotations

import math

import freud
import numpy as np

from gnn_metriplectic.geometry.box import Box
from gnn_metriplectic.trajectory import Trajectory


def rdf(
    traj: Trajectory, *, bins: int = 75, r_max: float | None = None, every: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Radial distribution function, averaged over frames, 1 for an ideal gas of any finite size.

    Periodic boxes of any shape, sheared ones at the strain of each frame, in two or three dimensions,
    are counted and normalised by freud (Ramasubramani et al., Comput. Phys. Commun. 254, 107275, 2020).
    In free space pairs are counted by freud, and divided by those expected of as many particles spread
    evenly over the frame's bounding box, edges included (the translation correction of Ohser and
    Stoyan): N (N-1)/V² · shell volume · isotropic set covariance of the box. A fluid that prescribed particles hold in
    free space is looked at in a box about its middle, from free particles that are farther from the edge of the box
    than r (the border method).

    Args:
        traj: the trajectory.
        bins: number of bins between 0 and ``r_max``.
        r_max: largest distance; by default ``largest_radius``.
        every: use one frame in so many; neighbouring frames hold nearly the same structure.

    Returns:
        ``(r, g)``, each ``[bins]``: bin centres in units of length, and g(r).

    Raises:
        ValueError: if ``r_max`` is not positive, is over half the box, or reaches beyond what is known of a held fluid.
    """
    limit = largest_radius(traj)
    r_max = limit if r_max is None else float(r_max)
    ceiling = 2 * limit if traj.box.is_free else limit * (1 + 1e-9)
    if not 0 < r_max <= ceiling:
        raise ValueError(f"r_max is {r_max:g}; it must be positive and at most {ceiling:g} in this box")
    if bins < 1 or every < 1:
        raise ValueError(f"bins is {bins} and every is {every}; both must be at least 1")
    if _is_held(traj):
        return _rdf_within(traj, bins, r_max, every)
    counter = freud.density.RDF(bins=bins, r_max=r_max, normalization_mode="finite_size")
    if traj.box.is_free:
        return _rdf_in_free_space(traj, counter, r_max, every)
    for frame in range(0, len(traj), every):
        time = float(traj.times[frame])
        cell = _freud_box(traj.box, time)
        points = traj.box.wrap(traj.positions[frame].double(), time).numpy()
        counter.compute((cell, cell.wrap(_three_columns(points))), reset=False)
    return np.asarray(counter.bin_centers, dtype=float), np.asarray(counter.rdf, dtype=float)


def largest_radius(traj: Trajectory) -> float:
    """Half the distance between the closest faces (at any strain); in free space half the first frame's extent.

    A quarter of that of the middle where prescribed particles hold a fluid in free space.
    """
    if _is_held(traj):
        low, high = _middle(traj)
        return 0.25 * float((high - low).min())
    if traj.box.is_free:
        return 0.5 * float(np.min(np.ptp(traj.positions[0].double().numpy(), axis=0)))
    times = [0.0]
    if traj.box.shear_rate:  # the most tilted cell of the cycle
        times.append((0.5 * traj.box.lengths[0] - traj.box.lattice[1][0]) / traj.box.velocity_gradient)
    inverses = [np.linalg.inv(traj.box.lattice_at(time).numpy()) for time in times]
    # freud counts in float32 and wants strictly less than half
    return 0.5 * min(float(1.0 / np.linalg.norm(inverse, axis=0).max()) for inverse in inverses) * (1 - 1e-5)


def _freud_box(box: Box, time: float) -> freud.box.Box:
    lattice = box.lattice_at(time).numpy()
    tilt = lattice[1, 0] / lattice[1, 1]
    if box.dimension == 2:
        return freud.box.Box(lattice[0, 0], lattice[1, 1], xy=tilt, is2D=True)
    return freud.box.Box(*np.diag(lattice), xy=tilt, xz=lattice[2, 0] / lattice[2, 2], yz=lattice[2, 1] / lattice[2, 2])


def _three_columns(points: np.ndarray) -> np.ndarray:
    return points if points.shape[1] == 3 else np.column_stack([points, np.zeros(len(points))])


def _is_held(traj: Trajectory) -> bool:
    return traj.box.is_free and traj.prescribed is not None and traj.reference is None


def _middle(traj: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Two corners ``[D]`` of what has 80 % of the free particles along each axis in the first frame."""
    places = traj.positions[0, ~traj.prescribed].double().numpy()
    return tuple(np.quantile(places, [0.1, 0.9], axis=0))


def _rdf_within(traj: Trajectory, bins: int, r_max: float, every: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = _middle(traj)
    free = ~traj.prescribed.numpy()
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = np.diff(edges**2) * np.pi if traj.dimension == 2 else np.diff(edges**3) * 4.0 / 3.0 * np.pi
    counts, expected = np.zeros(bins), np.zeros(bins)
    for frame in range(0, len(traj), every):
        places = traj.positions[frame].double().numpy()
        depth = np.minimum(places - low, high - places).min(axis=1)
        inside = depth > 0.0
        origins = inside & free
        distances = np.linalg.norm(places[origins, None] - places[None], axis=2)
        deep = depth[origins, None] >= edges[1:]  # origins of each shell
        which = np.digitize(distances, edges) - 1
        near = (which >= 0) & (which < bins) & (distances > 0.0)
        row, _ = np.nonzero(near)
        counts += np.bincount(which[near], deep[row, which[near]], minlength=bins)
        expected += deep.sum(axis=0) * (inside.sum() - 1) / np.prod(high - low) * shells
    if not expected.all():
        raise ValueError(
            f"r_max is {r_max:g}; no free particle is as far from the edge of the middle: take a smaller one"
        )
    return 0.5 * (edges[1:] + edges[:-1]), counts / expected


def _rdf_in_free_space(
    traj: Trajectory, counter: freud.density.RDF, r_max: float, every: int
) -> tuple[np.ndarray, np.ndarray]:
    edges = np.asarray(counter.bin_edges, dtype=float)
    expected = np.zeros(len(edges) - 1)
    particles, dimension = traj.num_particles, traj.dimension
    for frame in range(0, len(traj), every):
        points = traj.positions[frame].double().numpy()
        points = points - 0.5 * (points.min(axis=0) + points.max(axis=0))
        # Extreme points lie inside the region that they were drawn from, by 1/(N+1) of it at either end.
        window = np.ptp(points, axis=0) * (particles + 1) / (particles - 1)
        size = float(window.max()) + 2.1 * r_max  # no pair through the boundary
        cell = freud.box.Box.square(size) if dimension == 2 else freud.box.Box.cube(size)
        counter.compute((cell, _three_columns(points)), reset=False)
        expected += particles * (particles - 1) / np.prod(window) ** 2 * _expected_pairs(edges, window)
    counts = np.asarray(counter.bin_counts, dtype=float)
    return np.asarray(counter.bin_centers, dtype=float), counts / expected


def _expected_pairs(edges: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Integral over each shell of the volume that a box shares with its copy shifted by r, ``[bins]``.

    The shared volume prod_i (L_i - r |n_i|), averaged over directions n, is a polynomial in r for
    r up to the shortest edge.
    """
    pi = math.pi
    if len(window) == 2:
        a, b = window
        polynomial = [a * b, -2 * (a + b) / pi, 1 / pi]
        surface = [0.0, 2 * pi]
    else:
        a, b, c = window
        polynomial = [a * b * c, -(a * b + b * c + c * a) / 2, 2 * (a + b + c) / (3 * pi), -1 / (4 * pi)]
        surface = [0.0, 0.0, 4 * pi]
    integral = np.polynomial.Polynomial(np.polynomial.polynomial.polymul(polynomial, surface)).integ()
    return np.diff(integral(edges))
