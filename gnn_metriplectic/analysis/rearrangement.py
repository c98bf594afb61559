"""How particles around a driven body flow and rearrange.

D²_min of Falk and Langer, Phys. Rev. E 57, 7192 (1998): what is left of the motion of a neighbourhood once the best
linear map is taken off, per neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnn_metriplectic.trajectory import Trajectory


def d2min(before: np.ndarray, after: np.ndarray, cutoff: float) -> np.ndarray:
    """D²_min of each particle, ``[N]`` (NaN with fewer than D + 1 neighbours), from positions ``[N, D]`` in free space.

    Args:
        before, after: positions at both times.
        cutoff: of the neighbours, at the first.
    """
    separation = before[:, None] - before[None]
    near = np.linalg.norm(separation, axis=2) < cutoff
    np.fill_diagonal(near, False)
    found = np.full(len(before), np.nan)
    for k, row in enumerate(near):
        if row.sum() > before.shape[1]:
            old, new = before[row] - before[k], after[row] - after[k]
            linear, *_ = np.linalg.lstsq(old, new, rcond=None)
            found[k] = ((new - old @ linear) ** 2).sum() / row.sum()
    return found


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of two numbers of each particle, where both are finite."""
    finite = np.isfinite(first) & np.isfinite(second)
    ranks = [np.argsort(np.argsort(x[finite])) for x in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


@dataclass(frozen=True)
class Drive:
    """A body that swings along x.

    Attributes:
        mask: ``[N]``, its particles.
        frequency: in cycles a time.
    """

    mask: np.ndarray
    frequency: float

    @classmethod
    def of(cls, traj: Trajectory, kind: int) -> Drive:
        """The particles of species ``kind``, at the strongest frequency of their motion."""
        mask = (traj.species == kind).numpy()
        place = traj.positions[:, mask, 0].double().mean(dim=1).numpy()
        place = place - np.polyval(np.polyfit(np.arange(len(place)), place, 1), np.arange(len(place)))
        # a long transform finds frequencies between those of the length
        padded = 16 * len(place)
        spectrum = np.abs(np.fft.rfft(place * np.hanning(len(place)), padded))
        return cls(mask, float(np.fft.rfftfreq(padded, traj.dt)[1 + spectrum[1:].argmax()]))

    def periods(self, traj: Trajectory) -> int:
        """Frames of the whole periods that a trajectory holds; all of them if none."""
        period = 1.0 / (self.frequency * traj.dt)
        return round(int((len(traj) - 1) / period) * period) or len(traj)


def flow_profile(traj: Trajectory, drive: Drive, edges: np.ndarray) -> np.ndarray:
    """Amplitude of v_x at the drive's frequency over the body's own, complex, by the distance from it in y, ``[B]``.

    Args:
        traj: with the body and what it drives; prescribed particles beside the body do not count.
        drive: the body.
        edges: ``[B + 1]`` of the bins; NaN where nothing is.
    """
    frames = drive.periods(traj)
    phase = np.exp(-2j * np.pi * drive.frequency * traj.times[-frames:].numpy())
    swing = 2.0 * (traj.velocities[-frames:, :, 0].double().numpy() * phase[:, None]).mean(axis=0)
    place = traj.positions[-frames:].double().mean(dim=0).numpy()
    body = place[drive.mask]
    free = ~drive.mask if traj.prescribed is None else ~traj.prescribed.numpy()
    beside = free & (place[:, 0] > body[:, 0].min()) & (place[:, 0] < body[:, 0].max())
    which = np.digitize(np.abs(place[:, 1] - body[:, 1].mean()), edges) - 1
    means = [swing[beside & (which == k)] for k in range(len(edges) - 1)]
    return np.array([m.mean() if len(m) else np.nan for m in means]) / swing[drive.mask].mean()
