"""gnnm-export: a trained model as tables, for LAMMPS and for rollouts without networks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from gnn_metriplectic.commands.cli import command
from gnn_metriplectic.dynamics import EnergyConserving
from gnn_metriplectic.learning import load, read_checkpoint
from gnn_metriplectic.models import tabulate, write_tables


@command("export")
def main(config: DictConfig) -> None:
    """Write the tables of a checkpoint and print their errors."""
    path = Path(config.checkpoint)
    model = load(path)
    tables = tabulate(
        model,
        entropy=_interval(config.entropy, "entropy"),
        volume=_interval(config.volume, "volume"),
        margin=config.margin,
        tolerance=config.tolerance,
    )
    provenance = {
        **read_checkpoint(path)["hyper_parameters"]["provenance"],
        "checkpoint": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    write_tables(tables, config.out, provenance=provenance, sweeps=EnergyConserving.sweeps)
    table = Table("quantity", "largest error")
    for name, error in tables.errors.items():
        table.add_row(name, f"{error:.1e}")
    Console().print(table)
    law = tables.model.equation_of_state
    print(f"entropies from {law.entropy[0]:.4g} to {law.entropy[1]:.4g}; tables in {config.out}")


def _interval(given: list[float] | None, name: str) -> tuple[float, float] | None:
    if given is None:
        return None
    if len(given) != 2:
        raise ValueError(f"{name} is {list(given)}; give the range as [least,greatest]")
    return float(given[0]), float(given[1])


if __name__ == "__main__":
    main()
