"""README's Python lines run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

from gnn_metriplectic.systems.ideal_gas import IdealGasSystem

README = Path(__file__).parents[1] / "README.md"


def test_readme_python_runs(tmp_path):
    gas = IdealGasSystem(
        particles=60,
        length=0.5,
        cutoff=0.2,
        dt=1e-3,
        atoms=20.0,
        shear_viscosity=20.0,
        bulk_viscosity=5.0,
        conductivity=200.0,
        forcing=10.0,
        shear_rate=2.0,
        equilibration=50,
    )
    data = tmp_path / "data/ideal_gas/test"
    data.mkdir(parents=True)
    gas.generate(data / "self_diffusion_0.h5", scenario="self_diffusion", temperature=1.0, frames=120, seed=0)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    done = subprocess.run(
        [sys.executable, "-c", code + "\nassert len(run) == 101"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "suggested lag" in done.stdout
