"""Energy conservation and temperature of both integrators against the time step, on the analytic ideal gas.

    .venv/bin/python scripts/conservation.py --out docs/figures

Every run starts from the same equilibrium state and covers the same physical time. Energies and
temperatures are taken at the same times for all steps, one largest step apart. Error bars come from
blocks in time; where a run heats, they include its trend. Writes conservation.json and conservation.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.lines import Line2D
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gnn_metriplectic.analysis import block_bootstrap, energy_drift, kinetic_temperature, momentum_drift, total_momentum
from gnn_metriplectic.analysis.report import write_metrics
from gnn_metriplectic.analysis.style import ACCENT, MODEL, RC, TRUTH, figure
from gnn_metriplectic.dynamics import Thermostat, simulate
from gnn_metriplectic.geometry import Box, neighbor_pairs
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.terms import IdealGas, LucyKernel, SDPDFriction
from gnn_metriplectic.trajectory import Trajectory

PARTICLES = 500
BOX = Box.cubic(1.0, 3)
TEMPERATURE = 1.0
STEPS = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
# the share of each run that is left for the positions to settle, and the blocks of the rest
SETTLING, BLOCKS = 0.1, 12
SCHEMES = {"energy_conserving": ("energy conserving", ACCENT), "euler_maruyama": ("Euler-Maruyama", MODEL)}


def ideal_gas() -> MetriplecticModel:
    return MetriplecticModel(
        LucyKernel(0.2, dimension=3),
        IdealGas(atoms=20.0, k_B=1.0, temperature=TEMPERATURE, volume=BOX.volume / PARTICLES),
        SDPDFriction(shear_viscosity=20.0, bulk_viscosity=5.0, conductivity=200.0),
        mass=1.0,
        k_B=1.0,
        dt=5e-4,
        dimension=3,
    ).double()


def equilibrated(model: MetriplecticModel, seed: int) -> State:
    """Random positions relaxed with a thermostat, then velocities and entropies of the canonical ensemble."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(PARTICLES, 3, generator=generator, dtype=torch.float64)
    state = State.equilibrium(model, pos, BOX, temperature=TEMPERATURE, seed=seed)
    bath = Thermostat(TEMPERATURE, 0.01)
    traj = simulate(model, state, box=BOX, dt=5e-4, steps=400, seed=seed, every=400, thermostat=bath)
    return State.equilibrium(model, traj.positions[-1], BOX, temperature=TEMPERATURE, seed=seed + 1)


@torch.no_grad()
def energies(model: MetriplecticModel, traj: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Total energy, kinetic energy, and k_B times the mean temperature of each frame."""
    rows = []
    for frame in zip(traj.positions, traj.velocities, traj.entropies, strict=True):
        state = State(*frame)
        pairs = neighbor_pairs(state.pos, BOX, model.cutoff)
        temperature = model.k_B * model.temperature(state, pairs).mean()
        rows.append([float(x) for x in (model.energy(state, pairs), model.kinetic_energy(state), temperature)])
    return tuple(np.array(rows).T)


def mean_and_error(series: np.ndarray) -> tuple[float, float]:
    """Mean after settling, and its standard error from blocks."""
    settled = series[int(SETTLING * len(series)) :]
    return float(settled.mean()), float(block_bootstrap(settled, BLOCKS).std())


def measure(
    model: MetriplecticModel, start: State, scheme: str, dt: float, total: float, interval: float, seed: int
) -> dict:
    """One run: conservation and temperatures."""
    begin = time.perf_counter()
    every = round(interval / dt)
    row = {"integrator": scheme, "dt": dt, "steps": every * round(total / interval)}
    try:
        traj = simulate(model, start, box=BOX, dt=dt, steps=row["steps"], integrator=scheme, seed=seed, every=every)
    except ValueError as error:  # the scheme is not stable at this step
        return {**row, "failure": str(error)}
    energy, kinetic, temperature = energies(model, traj)
    row["energy_spread"] = energy_drift(energy, kinetic)
    row["energy_rate"] = (energy[-1] - energy[0]) / kinetic.mean() / total
    row["momentum_drift"] = momentum_drift(*total_momentum(traj))
    row["kinetic_temperature"], row["kinetic_temperature_error"] = mean_and_error(kinetic_temperature(traj))
    row["temperature"], row["temperature_error"] = mean_and_error(temperature)
    row["seconds"] = time.perf_counter() - begin
    return row


def print_rows(rows: list[dict], total: float, console: Console) -> None:
    table = Table(
        title=f"Ideal gas, {PARTICLES} particles, time {total:g}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for name in ("integrator", "dt", "spread of E\n/ kinetic", "momentum\ndrift", "kinetic T", "k_B <T>"):
        table.add_column(name, justify="left" if name == "integrator" else "right", no_wrap=True)
    for row in rows:
        label = SCHEMES[row["integrator"]][0]
        if "failure" in row:
            table.add_row(label, f"{row['dt']:g}", "not stable")
            continue
        temperatures = (
            f"{row[name]:.3f}±{row[name + '_error']:.3f}" for name in ("kinetic_temperature", "temperature")
        )
        spread, momentum = f"{row['energy_spread']:.1e}", f"{row['momentum_drift']:.0e}"
        table.add_row(label, f"{row['dt']:g}", spread, momentum, *temperatures)
    console.print(table)


def draw(rows: list[dict], total: float, path: Path) -> None:
    with figure(9.4, 3.9) as fig:
        left, right = fig.subplots(1, 2)
        draw_energy(left, rows, total)
        draw_temperatures(right, rows)
        for axes in (left, right):
            steps = sorted({row["dt"] for row in rows})
            axes.set_xscale("log")
            axes.set(xlabel="time step dt", xlim=(steps[0] / 1.35, steps[-1] * 1.35))
            axes.set_xticks(steps, [f"{step:g}" for step in steps])
            axes.minorticks_off()
        fig.savefig(path, facecolor="white", dpi=RC["savefig.dpi"], metadata={"Software": None})


def draw_energy(axes, rows: list[dict], total: float) -> None:
    for scheme, (label, colour) in SCHEMES.items():
        dt, spread = columns(rows, scheme, "dt", "energy_spread")
        axes.loglog(dt, spread, "o-", color=colour, label=label, markersize=5.5)
    axes.set(title="Total energy", ylabel=f"spread of E over time {total:g} / kinetic energy", ylim=(1e-16, 1e4))
    axes.set_yticks(10.0 ** np.arange(-15, 4, 3))
    axes.axhline(1.0, color=TRUTH, linewidth=0.8, linestyle=":", zorder=0)
    axes.legend(loc="center right")


def draw_temperatures(axes, rows: list[dict]) -> None:
    kinds = {
        "kinetic_temperature": ("kinetic, m⟨v²⟩/3", "o", "full"),
        "temperature": ("thermodynamic, $k_B$⟨T⟩", "s", "none"),
    }
    # the energy-conserving scheme decides the range; what heats beyond it is marked at the edge
    highest = max([TEMPERATURE, *columns(rows, "energy_conserving", "kinetic_temperature")[0]])
    lowest = min([TEMPERATURE, *columns(rows, "energy_conserving", "temperature")[0]])
    top = TEMPERATURE + 2.5 * max(highest - TEMPERATURE, 0.02)
    for scheme, (_, colour) in SCHEMES.items():
        for number, (kind, (_, marker, fill)) in enumerate(kinds.items()):
            dt, value, error = columns(rows, scheme, "dt", kind, f"{kind}_error")
            shown = value <= top
            style = {"color": colour, "marker": marker, "fillstyle": fill, "markersize": 5.5}
            axes.errorbar(
                dt[shown], value[shown], error[shown], capsize=2.5, linestyle="-" if number == 0 else "--", **style
            )
            for x, y in zip(dt[~shown], value[~shown], strict=True):
                height = 0.97 - 0.075 * number
                axes.plot(x, height, transform=axes.get_xaxis_transform(), clip_on=False, **style)
                axes.annotate(
                    f"{y:.2f} ↑",
                    (x, height),
                    xycoords=axes.get_xaxis_transform(),
                    xytext=(-7, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    color=colour,
                    fontsize=8.5,
                )
    axes.axhline(TEMPERATURE, color=TRUTH, linewidth=0.8, linestyle=":", zorder=0)
    axes.set(title="Temperature", ylabel="temperature, units of energy", ylim=(lowest - 0.015 * TEMPERATURE, top))
    handles = [
        Line2D([], [], color=TRUTH, marker=marker, fillstyle=fill, linestyle=style, label=label, markersize=5.5)
        for (label, marker, fill), style in zip(kinds.values(), ("-", "--"), strict=True)
    ]
    handles += [Line2D([], [], color=colour, linewidth=3, label=label) for label, colour in SCHEMES.values()]
    # between what heats and what does not
    axes.legend(handles=handles, loc="center right", bbox_to_anchor=(1.0, 0.62))


def columns(rows: list[dict], scheme: str, *names: str) -> tuple[np.ndarray, ...]:
    chosen = [row for row in rows if row["integrator"] == scheme and "failure" not in row]
    return tuple(np.array([row[name] for row in chosen]) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder of the two files")
    parser.add_argument(
        "--steps", type=float, nargs="+", default=list(STEPS), metavar="DT", help="time steps to compare"
    )
    parser.add_argument("--time", type=float, default=4.0, help="physical time of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the initial state and the noise")
    options = parser.parse_args()
    interval = max(options.steps)
    if min(options.steps) <= 0 or any(abs(interval / dt - round(interval / dt)) > 1e-6 for dt in options.steps):
        parser.error(f"--steps {options.steps}: the largest must be a whole multiple of every other")
    if options.time < 2 * BLOCKS * interval:
        parser.error(f"--time {options.time:g} is too short: {BLOCKS} blocks need at least {2 * BLOCKS * interval:g}")

    console, begin = Console(), time.perf_counter()
    model = ideal_gas()
    start = equilibrated(model, options.seed)
    rows = []
    for scheme in SCHEMES:
        for dt in sorted(options.steps):
            rows.append(measure(model, start, scheme, dt, options.time, interval, options.seed + 2))
            outcome = rows[-1].get("failure") or f"{rows[-1]['seconds']:.1f} s"
            console.print(f"{scheme} dt {dt:g}: {outcome}", markup=False, highlight=False)
    print_rows(rows, options.time, console)
    settings = {"particles": PARTICLES, "time": options.time, "seed": options.seed, "frame_interval": interval}
    settings |= {"settling": SETTLING, "blocks": BLOCKS, "temperature": TEMPERATURE}
    write_metrics(options.out / "conservation.json", {**settings, "runs": rows, "seconds": time.perf_counter() - begin})
    draw(rows, options.time, options.out / "conservation.png")
    console.print(
        f"wrote conservation.json and conservation.png to {options.out} ({time.perf_counter() - begin:.0f} s)"
    )


if __name__ == "__main__":
    main()
