"""Particles from molecular dynamics: a LAMMPS run in many file formats, and real files of other programs."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import MDAnalysis
import MDAnalysisTests.datafiles as real
import numpy as np
import pytest
from helpers import run_command

import gnn_metriplectic as gm
from gnn_metriplectic.lammps.launch import run_lammps
from gnn_metriplectic.systems import ensure_dataset, read_split
from gnn_metriplectic.systems.molecular import TrajectorySystem
from gnn_metriplectic.trajectory import Trajectory, read_trajectory

MOLECULES, SPACING, TIMESTEP, LENGTH = 60, 0.05, 0.005, 7.5
LJ = {"units": "lj", "timestep": TIMESTEP}
TRIMER = """trimer

3 atoms
2 bonds

Coords

1 0 0 0
2 0.97 0 0
3 1.94 0 0

Types

1 1
2 2
3 1

Bonds

1 1 1 2
2 1 2 3
"""
INPUT = """
units           lj
atom_style      molecular
{region}
create_box      2 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 8
mass            1 1.0
mass            2 2.0
molecule        trimer ${{folder}}/trimer.txt
bond_style      harmonic
bond_coeff      1 200.0 0.97
create_atoms    0 random 60 7 NULL mol trimer 7
pair_style      soft 1.1
pair_coeff      * * 20.0
minimize        0 1e-3 200 1000
pair_style      lj/cut 1.122462048309373
pair_modify     shift yes
pair_coeff      * * 1.0 1.0
minimize        0 1e-3 200 1000
velocity        all create 2.0 7
reset_timestep  0
timestep        0.005
fix             move all nve
run             100
write_data      ${{folder}}/melt.data nocoeff
compute         molecule all chunk/atom molecule
compute         centre all com/chunk molecule
compute         speed all vcm/chunk molecule
fix             out all ave/time 10 1 10 c_centre[*] c_speed[*] mode vector file ${{folder}}/centres.dat format " %.12g"
dump            1 all custom 10 ${{folder}}/wrapped.dump id mol type mass x y z vx vy vz
dump            2 all custom 10 ${{folder}}/images.lammpstrj id x y z ix iy iz vx vy vz
dump            3 all custom 10 ${{folder}}/unwrapped.dump id xu yu zu vx vy vz
dump            4 all custom 10 ${{folder}}/scaled.dump id type xs ys zs vx vy vz
dump            5 all dcd 10 ${{folder}}/melt.dcd
run             300
"""
CUBE = f"region box block -1 {LENGTH - 1} -1 {LENGTH - 1} -1 {LENGTH - 1}"
TILTED = f"region box prism -1 {LENGTH - 1} -1 {LENGTH - 1} -1 {LENGTH - 1} 1.5 -1.0 0.7"


class Melt:
    """Files of a LAMMPS run, and its centres and velocities as LAMMPS computes them, ``[T, N, 3]``."""

    def __init__(self, folder: Path, region: str) -> None:
        self.folder, script = folder, folder / "melt.in"
        (folder / "trimer.txt").write_text(TRIMER)
        script.write_text(INPUT.format(region=region))
        run_lammps(script, {"folder": folder}, processes=1)
        # fix ave/time writes three lines of comment, then blocks of a line with the step and one a molecule
        text = [line.split() for line in (folder / "centres.dat").read_text().splitlines()[3:]]
        rows = np.array([line[1:] for line in text if len(line) == 7], dtype=float)
        self.centres, self.velocities = np.split(rows.reshape(-1, MOLECULES, 6), 2, axis=-1)

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def melt(tmp_path_factory) -> Melt:
    return Melt(tmp_path_factory.mktemp("melt"), CUBE)


@pytest.fixture(scope="module")
def tilted(tmp_path_factory) -> Melt:
    return Melt(tmp_path_factory.mktemp("tilted"), TILTED)


def particles(folder: Path, begin: float = 0.0, end: float = 1.0, **settings) -> Trajectory:
    """What the package makes of a trajectory, without its remarks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TrajectorySystem(**settings).generate(
            folder / "out.h5", begin=begin, end=end, seed=0, advance=lambda share, what: None
        )
    return read_trajectory(folder / "out.h5")


def refused(folder: Path, message: str, **settings) -> None:
    """Check that settings are refused with ``message``, in one line, and leave nothing behind."""
    target = folder / "refused"
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        particles(target, **settings)
    assert "\n" not in str(error.value)
    assert not list(target.glob("*"))


def same_paths(traj: Trajectory, centres: np.ndarray, tolerance: float) -> None:
    """Check that particles move as ``centres`` do, and start from the same places up to origin and images."""
    off = traj.positions.numpy() - centres
    assert np.abs(off - off[0]).max() < tolerance
    apart = (off[0] - off[0][0]) @ np.linalg.inv(np.array(traj.box.lattice))
    assert np.abs(apart - np.round(apart)).max() < tolerance


SOURCES = {
    "wrapped dump, bonds of the data file": ("melt.data", "wrapped.dump", {}),
    "images": ("melt.data", "images.lammpstrj", {}),
    "unwrapped dump": ("melt.data", "unwrapped.dump", {}),
    "scaled dump": ("melt.data", "scaled.dump", {}),
    "dump alone, no bonds": ("wrapped.dump", "wrapped.dump", {}),
    "fragments": ("melt.data", "wrapped.dump", {"mapping": "fragment"}),
    "residues": ("melt.data", "wrapped.dump", {"mapping": "residue"}),
}


@pytest.mark.parametrize("box", ["melt", "tilted"])
@pytest.mark.parametrize("source", SOURCES)
def test_centres_and_velocities_are_those_that_lammps_computes(tmp_path, request, box, source):
    run = request.getfixturevalue(box)
    topology, trajectory, options = SOURCES[source]
    settings = {"topology": run[topology], "trajectory": run[trajectory], "mapping": "molecule", **LJ, **options}
    traj = particles(tmp_path, **settings)
    centres, velocities = run.centres, run.velocities
    if options.get("mapping") == "fragment":  # numbered by first atom, which is the order of creation too
        assert traj.num_particles == MOLECULES
    assert (len(traj), traj.num_particles, traj.mass) == (31, MOLECULES, 4.0)
    assert traj.dt == pytest.approx(SPACING, rel=1e-12)
    assert traj.times[0] == pytest.approx(100 * TIMESTEP)
    same_paths(traj, centres, 2e-5)
    np.testing.assert_allclose(traj.velocities.numpy(), velocities, atol=2e-5)
    skew = [[0.0, 0.0, 0.0]] * 3 if box == "melt" else [[0, 0, 0], [1.5, 0, 0], [-1.0, 0.7, 0]]
    np.testing.assert_allclose(traj.box.lattice, LENGTH * np.eye(3) + skew, rtol=1e-6, atol=1e-6)
    assert traj.units["length"] == "sigma"
    assert traj.metadata["velocities"] == "file"


def test_the_run_takes_molecules_through_the_boundary(melt):
    cells = np.floor((melt.centres + 1.0) / LENGTH)
    assert (cells[0] != cells[-1]).any(axis=-1).sum() > 5


@pytest.mark.parametrize("ending", ["trr", "xtc", "h5md", "xyz"])
def test_the_same_frames_in_other_formats_make_the_same_particles(tmp_path, melt, ending):
    path, options = tmp_path / f"melt.{ending}", {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u = MDAnalysis.Universe(
            melt["melt.data"], melt["wrapped.dump"], atom_style="id resid type x y z", format="LAMMPSDUMP", dt=TIMESTEP
        )
        if ending == "h5md":
            options = {"lengthunit": "Angstrom", "timeunit": "ps", "velocityunit": "Angstrom/ps"}
        with MDAnalysis.Writer(str(path), n_atoms=len(u.atoms), **options) as writer:
            for _ in u.trajectory:
                writer.write(u.atoms)
    # what the formats do not hold: the time of their frames, the units, the box
    more = {"spacing": SPACING} if ending == "xyz" else {}
    more |= {"units": "metal", "box": [LENGTH] * 3} if ending == "xyz" else {}
    traj = particles(tmp_path, topology=melt["melt.data"], trajectory=str(path), mapping="molecule", **more)
    kept = ending in ("trr", "h5md")  # velocities
    centres = melt.centres if kept else melt.centres[1:-1]
    # decimals that the formats keep
    rounding = 5e-3 if ending == "xtc" else 2e-5
    assert (len(traj), traj.dt) == (len(centres), pytest.approx(SPACING, rel=1e-5))
    assert (traj.units["length"], traj.units["time"]) == ("Angstrom", "ps")
    same_paths(traj, centres, 2 * rounding)
    if kept:
        np.testing.assert_allclose(traj.velocities.numpy(), melt.velocities, atol=2e-5)
    else:
        differences = (melt.centres[2:] - melt.centres[:-2]) / (2 * SPACING)
        np.testing.assert_allclose(traj.velocities.numpy(), differences, atol=2 * rounding / SPACING)


def test_a_dcd_of_lammps_keeps_its_time_and_gets_its_velocities_from_differences(tmp_path, melt):
    settings = {"topology": melt["melt.data"], "trajectory": melt["melt.dcd"], "mapping": "molecule", "units": "lj"}
    system = TrajectorySystem(**settings)
    with pytest.warns(UserWarning, match=r"melt\.dcd has no velocities: they are central differences over 2 x 0\.05"):
        system.generate(tmp_path / "out.h5", begin=0.0, end=1.0, seed=0, advance=lambda share, what: None)
    traj = read_trajectory(tmp_path / "out.h5")
    assert (len(traj), traj.dt) == (29, pytest.approx(SPACING, rel=1e-6))
    same_paths(traj, melt.centres[1:-1], 5e-5)
    assert traj.metadata["velocities"] == "central differences"
    assert "central differences" in traj.metadata["notes"][0]


def test_a_tpr_and_trr_give_molecules_in_angstrom_and_ps(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u = MDAnalysis.Universe(real.TPR_xvf, real.TRR_xvf)
        box = u.dimensions.copy()
        u.atoms.unwrap(compound="fragments", reference=None)
        start = u.atoms.positions.astype(float)
        number = np.unique(u.atoms.molnums, return_inverse=True)[1]
        drift = np.random.default_rng(0).normal(scale=8.0, size=(number.max() + 1, 3))
        with MDAnalysis.Writer(str(tmp_path / "drift.trr"), n_atoms=len(u.atoms)) as writer:
            for frame in range(4):
                u.atoms.positions = start + 0.5 * frame * drift[number]
                u.atoms.velocities = drift[number]
                u.dimensions = box
                u.atoms.wrap()
                u.trajectory.ts.time = 100.0 + 0.5 * frame
                writer.write(u.atoms)
        weights = u.atoms.masses
        total = np.bincount(number, weights)
        centre = np.stack([np.bincount(number, weights * start[:, d]) / total for d in range(3)], axis=1)
    settings = {"topology": real.TPR_xvf, "trajectory": str(tmp_path / "drift.trr"), "mapping": "molecule"}
    traj = particles(tmp_path, species="name", **settings)
    expected = centre + 0.5 * np.arange(4)[:, None, None] * drift
    same_paths(traj, expected, 1e-3)
    np.testing.assert_allclose(traj.velocities.numpy(), np.broadcast_to(drift, expected.shape), atol=1e-4)
    np.testing.assert_allclose(traj.masses.numpy(), total, rtol=1e-6)
    assert (traj.dt, traj.units["length"], traj.units["time"]) == (0.5, "Angstrom", "ps")
    names = np.array(traj.metadata["species_names"])[traj.species.numpy()]
    assert set(names) == set(u.atoms.moltypes)
    assert (names[1:10] == np.array([m.moltypes[0] for m in u.atoms.groupby("molnums").values()])[1:10]).all()
    # the same molecules without bonds or masses in the topology
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u.atoms.write(str(tmp_path / "start.gro"))
    water = {"mapping": "residue", "select": "resname SOL and not name MW", "masses": "guess"}
    water = particles(tmp_path, **{**settings, "topology": str(tmp_path / "start.gro"), **water})
    mass = traj.masses.numpy()
    light = np.flatnonzero(np.isclose(mass, 18.0154))
    assert water.num_particles == len(light)
    same_paths(water, expected[:, light], 2e-3)


def test_residues_of_a_real_dcd_are_those_of_mdanalysis(tmp_path):
    traj = particles(tmp_path, topology=real.PSF, trajectory=real.DCD, mapping="residue", box="free", species="name")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u = MDAnalysis.Universe(real.PSF, real.DCD)
        centres = np.array([u.atoms.center_of_mass(compound="residues") for _ in u.trajectory])
    np.testing.assert_allclose(traj.positions.numpy(), centres[1:-1], atol=1e-4)
    np.testing.assert_allclose(traj.velocities.numpy(), (centres[2:] - centres[:-2]) / (2 * traj.dt), atol=1e-4)
    assert traj.dt == pytest.approx(1.0, rel=1e-6)
    assert [traj.metadata["species_names"][k] for k in traj.species[:4]] == list(u.residues.resnames[:4])
    assert traj.box.is_free


def test_a_real_xyz_takes_units_and_box_from_its_user(tmp_path):
    known = {"topology": real.XYZ_psf, "trajectory": real.XYZ, "mapping": "residue"}
    traj = particles(tmp_path, units="metal", spacing=2.0, box="free", **known)
    assert (traj.dt, len(traj), traj.units["time"]) == (2.0, 8, "ps")
    refused(tmp_path, r"does not tell its units: give units=lj, or .*metal is Angstrom, ps", box="free", **known)
    refused(tmp_path, r"2r9r-1b\.xyz does not hold the time .*give spacing=", units="real", box="free", **known)
    refused(tmp_path, r"2r9r-1b\.xyz has no box: give its edges, box=\[", units="real", spacing=1.0, **known)


def test_parts_follow_each_other_in_time_with_stride_and_skip(tmp_path, melt):
    settings = {"topology": melt["melt.data"], "trajectory": melt["unwrapped.dump"], "mapping": "molecule", **LJ}
    cuts = [particles(tmp_path, begin=a, end=b, skip=1, stride=2, **settings) for a, b in ((0, 0.6), (0.6, 1.0))]
    assert [len(part) for part in cuts] == [9, 6]
    assert [part.dt for part in cuts] == [pytest.approx(2 * SPACING)] * 2
    found = np.concatenate([part.positions.numpy() for part in cuts])
    np.testing.assert_allclose(found, melt.centres[1::2] + 1.0, atol=2e-5)
    times = np.concatenate([part.times.numpy() for part in cuts])
    np.testing.assert_allclose(np.diff(times), 2 * SPACING, rtol=1e-9)


def test_a_particle_may_be_any_group_of_atoms(tmp_path, melt):
    lines = ["# dimers and a pair of atoms", "", "resid 1 and type 1", "3 4  # atoms counted from 0", "resid 3"]
    (tmp_path / "groups.txt").write_text("\n".join(lines))
    settings = {"topology": melt["melt.data"], "trajectory": melt["wrapped.dump"], **LJ}
    settings |= {"mapping": "file", "mapping_file": str(tmp_path / "groups.txt"), "species": "mass"}
    traj = particles(tmp_path, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u = MDAnalysis.Universe(
            melt["melt.data"], melt["unwrapped.dump"], atom_style="id resid type x y z", format="LAMMPSDUMP", dt=1
        )
        groups = [u.select_atoms(s) for s in ("resid 1 and type 1", "index 3 4", "resid 3")]
        centres = np.array([[g.center_of_mass() for g in groups] for _ in u.trajectory])
        velocities = np.array([[g.masses @ g.velocities / g.masses.sum() for g in groups] for _ in u.trajectory])
    same_paths(traj, centres, 5e-5)
    np.testing.assert_allclose(traj.velocities.numpy(), velocities, atol=5e-5)
    assert traj.masses.tolist() == [2.0, 3.0, 4.0]
    assert traj.species.tolist() == [0, 1, 2]
    assert "173 of 180 atoms belong to no particle" in " ".join(traj.metadata["notes"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("resid 1\nresid 99", r"groups.txt, line 2: no atom matches 'resid 99'"),
        ("resid 1\n\n0 3", r"groups.txt, line 3: atom 0 already belongs to the particle of line 1"),
        ("resid 1\n7 180", r"groups.txt, line 2: atom 180 is not there, indices go from 0 to 179"),
        ("resid 1\nresidue two", r"groups.txt, line 2: MDAnalysis does not understand 'residue two'"),
        ("# nothing", r"groups.txt names no particles: write one a line"),
        ("resid 1", "mapping=file makes one particle of .*at least two"),
    ],
)
def test_groups_that_make_no_particles_are_named_by_line(tmp_path, melt, lines, message):
    (tmp_path / "groups.txt").write_text(lines)
    settings = {"mapping": "file", "mapping_file": str(tmp_path / "groups.txt"), **LJ}
    refused(tmp_path, message, topology=melt["melt.data"], trajectory=melt["wrapped.dump"], **settings)


def spoiled(path: str, folder: Path, change) -> str:
    """A copy of a dump with ``change`` made to the list of its frames, each a list of lines."""
    lines = Path(path).read_text().splitlines()
    frames = [lines[k : k + 189] for k in range(0, len(lines), 189)]
    text = "\n".join(line for frame in change(frames) for line in frame) + "\n"
    (folder / "spoiled.dump").write_text(text)
    return str(folder / "spoiled.dump")


def word(frame: int, molecule: str, column: int, change):
    """Change one column of the atoms of one molecule in one frame."""

    def spoil(frames):
        for k in range(9, 189):
            words = frames[frame][k].split()
            if words[1] == molecule:
                words[column] = change(words[column])
                frames[frame][k] = " ".join(words)
        return frames

    return spoil


def replaced(frame: int, line: int, text: str):
    def change(frames):
        frames[frame][line] = text
        return frames

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:1], "has one frame"),
        (lambda f: f[:7] + f[9:], "frames 6 and 7 are 0.15 apart in time, others 0.05"),
        (lambda f: f[:1] + f, "step goes from 100 to 100 at frame 1; it must rise"),
        (word(3, "1", 6, lambda x: "nan"), r"the position of atom 0 in frame 3 is \[.*, nan\]: repair the file"),
        (word(3, "1", 9, lambda x: "inf"), r"the velocity of atom 0 in frame 3 is \[.*, inf"),
        (replaced(4, 5, "-1 6.6"), r"the box is \[7.6, 7.5, .* in frame 4 and \[7.5, .*constant volume"),
        (replaced(5, 3, "179"), "frame 5 cannot be read: Number of atoms in trajectory changed"),
        (replaced(0, 4, "ITEM: BOX BOUNDS pp pp ff"), "boundaries pp pp ff; only all periodic or none"),
        (replaced(0, 0, "ITEM: UNITS"), "begins with 'ITEM: UNITS': MDAnalysis reads dumps written without"),
        (replaced(0, 8, "ITEM: ATOMS n mol type mass x y z vx vy vz"), "a dump needs id"),
        (replaced(0, 8, "ITEM: ATOMS id mol type mass a b c vx vy vz"), "no coordinates are among them"),
        (
            word(5, "3", 5, lambda y: str(float(y) + 0.45 * LENGTH)),
            "particle 2 moves by 0.4. of the box from frame 4 to 5, too far to tell through which side",
        ),
    ],
)
def test_frames_that_cannot_be_used_are_named(tmp_path, melt, change, message):
    trajectory = spoiled(melt["wrapped.dump"], tmp_path, change)
    settings = {"topology": melt["melt.data"], "mapping": "molecule", **LJ}
    refused(tmp_path, message, trajectory=trajectory, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology": None}, "topology must be given"),
        ({"mapping": "chain"}, "mapping is 'chain'; choose one of molecule, residue, fragment, file"),
        ({"units": "SI"}, "units is 'SI'; choose one of lj, real, metal"),
        ({"units": None}, "wrapped.dump does not tell its units: give units=lj"),
        ({"species": "name"}, "melt.data has no names of residues or molecules: give species=mass"),
        ({"timestep": None}, "does not hold the time of its frames: give spacing=.* or timestep="),
        ({"timestep": -1.0}, "timestep is -1.0; it must be a positive number"),
        ({"timestep": 10 * TIMESTEP}, r"particles move by 0\.(09|1).* times their velocity.*timestep"),
        ({"timestep": 0.2 * TIMESTEP}, r"particles move by (4\.9|5).* times their velocity.*timestep"),
        ({"spacing": 0.2}, "spacing is 0.2, but the frames of .* are 0.05 apart"),
        ({"box": [7.5, 7.5, 7.5]}, r"box is \[7.5, 7.5, 7.5\], but .* has a box of its own, .*leave it out"),
        ({"box": "big"}, "box is 'big'; give free, or 3 edges"),
        ({"mapping": "file"}, "mapping=file and mapping_file"),
        ({"select": "resname WAT"}, "MDAnalysis does not understand|no atom matches"),
        ({"skip": 30}, "leave 1; 0 to 1 of them are 1, and a part needs at least 2"),
        ({"stride": 0}, "stride is 0; it must be a whole number of at least 1"),
        ({"trajectory": "nowhere.dump"}, "there is no file nowhere.dump .trajectory="),
        ({"atom_style": "sphere"}, "atom_style is 'sphere'; give one of atomic, charge"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, melt, changes, message):
    good = {"topology": melt["melt.data"], "trajectory": melt["wrapped.dump"], "mapping": "molecule", **LJ}
    refused(tmp_path, message, **{**good, **changes})


def test_a_topology_must_have_what_the_mapping_and_the_masses_need(tmp_path, melt):
    text = Path(melt["melt.data"]).read_text()
    dump = {"trajectory": melt["wrapped.dump"], "mapping": "molecule", **LJ}

    def data(name: str, change) -> str:
        (tmp_path / name).write_text(change(text))
        return str(tmp_path / name)

    loose = data("loose.data", lambda t: t.replace("\n1 1 1 ", "\n1 0 1 ").replace("\n2 1 2 ", "\n2 0 2 "))
    refused(tmp_path, r"2 atoms of .*loose.data have molecule id 0.*select='not resid 0'", topology=loose, **dump)
    assert particles(tmp_path, topology=loose, select="not resid 0", **dump).num_particles == MOLECULES
    silent = data("silent.data", lambda t: t.replace("Atoms # molecular", "Atoms"))
    refused(tmp_path, "style that it does not name with 9 columns: give atom_style=, one of", topology=silent, **dump)
    same = particles(tmp_path, topology=silent, atom_style="molecular", **dump)
    same_paths(same, melt.centres, 2e-5)
    light = data("light.data", lambda t: t.replace("Masses\n\n1 1\n2 2\n", ""))
    refused(tmp_path, r"light.data has no masses: give masses=guess .*masses=1.0", topology=light, **dump)
    assert particles(tmp_path, topology=light, masses=1.5, **dump).mass == 4.5
    bare = {**dump, "topology": melt["scaled.dump"], "trajectory": melt["scaled.dump"], "masses": 1.0}
    refused(tmp_path, r"scaled.dump has no molecule ids, which mapping=molecule needs: use mapping=file", **bare)
    refused(tmp_path, "has no bonds, which mapping=fragment needs", **{**bare, "mapping": "fragment"})
    refused(tmp_path, r"adk.psf has no molecule ids.*use mapping=fragment, mapping=residue, mapping=file", **ADK)


ADK = {"topology": real.PSF, "trajectory": real.DCD, "mapping": "molecule", "box": "free"}


def test_files_that_are_no_molecular_dynamics_are_named(tmp_path, melt):
    script = {"topology": melt["melt.in"], "trajectory": melt["wrapped.dump"], "mapping": "molecule", **LJ}
    refused(tmp_path, "MDAnalysis cannot read .*melt.in with .*wrapped.dump: .*the ending of its name", **script)
    (tmp_path / "bare.xyz").write_text("1\nProperties=pos:R:3:species:S:1\n0 0 0 C\n")
    mixed = {**script, "topology": melt["melt.data"], "trajectory": str(tmp_path / "bare.xyz")}
    refused(tmp_path, "bare.xyz has the columns pos:R:3:species:S:1: MDAnalysis takes species:S:1:pos:R:3", **mixed)


def test_a_box_that_breathes_is_refused(tmp_path):
    real_h5md = {"topology": real.TPR_xvf, "trajectory": real.H5MD_xvf, "mapping": "molecule"}
    refused(tmp_path, r"cobrotoxin.h5md: the box is .* in frame 1 .*only boxes that keep their shape", **real_h5md)


def test_real_units_are_not_renamed(tmp_path):
    settings = {"topology": real.TPR_xvf, "trajectory": real.TRR_xvf, "mapping": "molecule", "units": "real"}
    refused(tmp_path, "units is real, but TRR files are read in Angstrom, ps and amu: leave it out", **settings)


def test_sparse_molecules_must_not_span_the_box(tmp_path, melt):
    (tmp_path / "groups.txt").write_text("resid 1 to 30\nresid 31 to 60\n")
    settings = {"mapping": "file", "mapping_file": str(tmp_path / "groups.txt"), **LJ}
    message = "two atoms of particle . that stand side by side are 0.* of the box apart, too far to join them"
    refused(tmp_path, message, topology=melt["melt.data"], trajectory=melt["wrapped.dump"], **settings)


def test_motion_in_a_plane_has_two_dimensions(tmp_path, melt):
    def flat(frames):
        for frame in frames:
            for k in range(9, 189):
                words = frame[k].split()
                frame[k] = " ".join([*words[:6], "0", *words[7:9], "0"])
        return frames

    path = spoiled(melt["wrapped.dump"], tmp_path, flat)
    traj = particles(tmp_path, topology=path, trajectory=path, mapping="molecule", dimension=2, **LJ)
    assert traj.dimension == traj.box.dimension == 2
    same_paths(traj, melt.centres[..., :2], 2e-5)
    # a film of a slab: no box in the file, and motion along z that does not count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u = MDAnalysis.Universe(melt["wrapped.dump"], format="LAMMPSDUMP", topology_format="LAMMPSDUMP", dt=1)
        u.atoms.write(str(tmp_path / "slab.xyz"), frames="all")
    known = {"units": "lj", "spacing": SPACING, "box": [LENGTH] * 2, "dimension": 2}
    slab = str(tmp_path / "slab.xyz")
    traj = particles(tmp_path, topology=melt["melt.data"], trajectory=slab, mapping="molecule", **known)
    same_paths(traj, melt.centres[1:-1, :, :2], 2e-5)


def overrides(melt: Melt) -> list[str]:
    files = [f"topology={melt['melt.data']}", f"trajectory={melt['wrapped.dump']}"]
    # a fifth of so short a run would be too little to score
    test = "system.test=[{name: run, runs: 1, begin: 0.5, end: 1.0}]"
    return ["system=trajectory", *files, "mapping=molecule", "units=lj", f"timestep={TIMESTEP}", test]


def test_the_commands_generate_train_and_score(tmp_path, melt, monkeypatch, capsys):
    run_command(monkeypatch, tmp_path, "generate", *overrides(melt))
    said = capsys.readouterr().out
    assert "data/trajectory/train  run: 1 x 22 frames of 60 particles" in said
    lengths = {split: len(read_split(tmp_path / "data/trajectory", split)["run"][0]) for split in ("train", "test")}
    assert lengths == {"train": 22, "test": 15}
    small = ["model.cutoff=2.0", "optimizer.steps=4", "optimizer.steps_per_epoch=2", "optimizer.batch_size=2"]
    run_command(monkeypatch, tmp_path, "train", *overrides(melt), *small, "trainer.enable_progress_bar=false")
    metrics = json.loads((tmp_path / "outputs/trajectory/metrics.json").read_text())
    scores = metrics["scores"]["run"]
    # a quarter of 14 steps, and half of it
    assert [scores["max_lag_time"], *scores["window"]] == pytest.approx([0.15, 0.075, 0.15])
    assert scores["kinetic_temperature"] > 0
    assert -1.0 <= metrics["entropy"]["autocorrelation"] <= 1.0
    assert gm.load(tmp_path / "outputs/trajectory/best.ckpt").dt == pytest.approx(SPACING)
    again = [*overrides(melt), "checkpoint=outputs/trajectory/best.ckpt"]
    run_command(monkeypatch, tmp_path, "simulate", *again, "steps=2")
    assert len(read_trajectory(tmp_path / "run.h5")) == 3


def test_what_is_missing_is_named_before_any_work(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        run_command(monkeypatch, tmp_path, "generate", "system=trajectory", "topology=melt.data")
    assert str(error.value) == ("gnnm-generate: mapping, trajectory must be given, such as mapping=...")
    with pytest.raises(SystemExit) as error:
        run_command(
            monkeypatch, tmp_path, "generate", "system=trajectory", "topology=a", "trajectory=b", "mapping=file"
        )
    assert str(error.value) == "gnnm-generate: mapping=file and mapping_file=... (one particle a line) belong together"
    with pytest.raises(SystemExit):
        run_command(monkeypatch, tmp_path, "generate", "system=trajectory", "topologie=a")
    assert "Could not override 'topologie'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.h5"))


def test_data_outlives_the_files_that_it_was_made_from(tmp_path, melt):
    for name in ("melt.data", "wrapped.dump"):
        shutil.copy(melt[name], tmp_path / name)
    files = {"topology": str(tmp_path / "melt.data"), "trajectory": str(tmp_path / "wrapped.dump")}
    part = [{"name": "run", "runs": 1, "begin": 0.0, "end": 1.0}]
    settings = {"name": "trajectory", "parameters": {**files, "mapping": "molecule", **LJ}}
    settings |= {split: part for split in ("train", "validation", "test")}
    folder = ensure_dataset(settings, tmp_path / "data", seed=0)
    (tmp_path / "wrapped.dump").unlink()
    assert ensure_dataset(settings, tmp_path / "data", seed=0) == folder
    assert len(read_split(folder, "test")["run"][0]) == 31
