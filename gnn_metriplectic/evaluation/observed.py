"""What is known of the true system itself: measured in its trajectories, beside literature values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gnn_metriplectic.analysis.curves import Curves
from gnn_metriplectic.analysis.transport import diffusion_coefficient, msd, msd_dimension
from gnn_metriplectic.trajectory import Trajectory

# lags of D at late times, in shares of a run: momentum has had the time to reach the images of a particle, which slow
# it down, and a run still holds several such lags
_LATE = (0.1, 0.15)
# of a cubic box: Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004)
_YEH_HUMMER = 2.837297


def observed_quantities(
    runs: list[Trajectory], parts: list[Curves], *, window: tuple[float, float], reference: Mapping[str, float] | None
) -> dict[str, dict[str, Any]]:
    """Quantities of the true runs that carry measurements, such as those of `StarPolymerSystem`.

    Args:
        runs: of one scenario; what their ``metadata["observed"]`` holds as numbers is averaged.
        parts: their curves.
        window: of lags for D. ``D_late`` is that of lags of 0.1 to 0.15 of a run, if these are later, and
            ``D_unbounded`` the same without the effect of the finite box (Yeh and Hummer).
        reference: values from the literature by the same names.

    Returns:
        name -> ``{"value", "error", "reference"}``: the mean over the runs, its standard error (None for one run)
        and the literature value (None where there is none). Empty where nothing was measured.
    """
    seen = [run.metadata.get("observed", {}) if run.metadata else {} for run in runs]
    names = [name for name, value in seen[0].items() if isinstance(value, (int, float))]
    columns = {name: [observed[name] for observed in seen] for name in names}
    if not columns:
        return {}
    columns["kinetic_temperature"] = [part.mean_kinetic_temperature for part in parts]
    columns["D"] = [diffusion_coefficient(part.lags, part.msd, part.dimension, window) for part in parts]
    late = tuple(share * (len(runs[0]) - 1) * runs[0].dt for share in _LATE)
    if late[0] > window[1]:
        curves = [msd(run, late[1]) for run in runs]
        columns["D_late"] = [diffusion_coefficient(*curve, msd_dimension(runs[0]), late) for curve in curves]
    if "viscosity" in columns and not runs[0].box.is_free:
        density = float(runs[0].masses.sum()) / runs[0].box.volume
        columns["kinematic_viscosity"] = [value / density for value in columns["viscosity"]]
        if "D_late" in columns:
            viscosity, length = float(np.mean(columns["viscosity"])), runs[0].box.volume ** (1.0 / 3.0)
            temperature = float(np.mean(columns["kinetic_temperature"]))
            shift = _YEH_HUMMER * temperature / (6.0 * np.pi * viscosity * length)
            columns["D_unbounded"] = [value + shift for value in columns["D_late"]]
    reference = reference or {}
    return {
        name: {
            "value": float(np.mean(values)),
            "error": float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None,
            "reference": reference.get(name),
        }
        for name, values in columns.items()
    }
