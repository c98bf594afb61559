"""What a model is trained on, and what training does."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import torch
from helpers import CUTOFF, SILENT, gas_system, synthetic
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch_geometric.data import Batch

import gnn_metriplectic as gm
from gnn_metriplectic.geometry import Box, neighbor_pairs
from gnn_metriplectic.geometry.fields import taylor_green_pattern
from gnn_metriplectic.learning import TransitionData, TransitionDataset, measure_scales
from gnn_metriplectic.learning.data import SeededSampler
from gnn_metriplectic.learning.transitions import pairs_of

BOXES = {
    "free": Box.free(3),
    "flat": Box.cubic(1.0, 2),
    "cubic": Box.cubic(1.0, 3),
    "tilted": Box.triclinic([[1.0, 0.0, 0.0], [0.3, 0.9, 0.0], [-0.2, 0.1, 1.1]]),
    "sheared": Box.cubic(1.0, 3, shear_rate=3.0),
}
REACH = 0.3


def dataset(*trajectories, cutoff: float = REACH, lag: int = 2, dtype=torch.float64, **options) -> TransitionDataset:
    return TransitionDataset(trajectories, cutoff=cutoff, lag=lag, dtype=dtype, **options)


def brute_force(pos, box: Box, cutoff: float, time: float) -> dict[tuple[int, int], tuple[np.ndarray, float]]:
    """Displacement and velocity shift of each pair within the cutoff, by a search over all images."""
    found = {}
    images = [np.zeros(box.dimension)] if box.is_free else itertools.product(range(-6, 7), repeat=box.dimension)
    images = np.array(list(images))
    lattice = np.zeros((box.dimension, box.dimension)) if box.is_free else box.lattice_at(time).numpy()
    for i, j in itertools.combinations(range(len(pos)), 2):
        displacements = (pos[i] - pos[j]).numpy() - images @ lattice
        distances = np.linalg.norm(displacements, axis=1)
        if distances.min() < cutoff:
            nearest = distances.argmin()
            found[i, j] = displacements[nearest], -images[nearest][1] * box.velocity_gradient
    return found


def close_pairs(item, pairs, cutoff: float):
    """The pairs of an item within the cutoff at one time, in the form of `brute_force`."""
    shifts = np.zeros(pairs.num_pairs) if pairs.velocity_shift is None else pairs.velocity_shift[:, 0].numpy()
    rows = zip(pairs.index.T.tolist(), pairs.displacement.numpy(), shifts, strict=True)
    return {tuple(index): (d, shift) for index, d, shift in rows if np.linalg.norm(d) < cutoff}


@pytest.mark.parametrize("kind", BOXES)
def test_a_transition_holds_the_pairs_of_both_its_frames(kind):
    box = BOXES[kind]
    traj = synthetic(box, count=16, speed=0.8)
    item = dataset(traj)[3]
    start, end = pairs_of(item)
    expected = [brute_force(traj.positions[f], box, REACH, float(traj.times[f])) for f in (3, 5)]
    assert set(expected[0]) - set(expected[1])  # pairs leave
    assert set(expected[1]) - set(expected[0])  # and others come
    for pairs, truth in zip((start, end), expected, strict=True):
        found = close_pairs(item, pairs, REACH)
        assert set(found) == set(truth)
        for key, (displacement, shift) in truth.items():
            np.testing.assert_allclose(found[key][0], displacement, atol=1e-12)
            assert found[key][1] == pytest.approx(shift, abs=1e-12)
    assert start.num_pairs == len(set(expected[0]) | set(expected[1]))


def test_a_sheared_box_gives_velocity_shifts_and_others_beside_it_give_zeros():
    sheared, still = synthetic(BOXES["sheared"]), synthetic(BOXES["cubic"], seed=1)
    items = dataset(sheared, still)
    rows = items[0].velocity_shift[:, 0] / 3.0  # cells up or down, each moving by the shear rate times its height
    assert rows.any()
    torch.testing.assert_close(rows, rows.round())
    assert not items[len(items) - 1].velocity_shift.any()
    assert "velocity_shift" not in dataset(still)[0]


def test_the_acceleration_is_the_mean_of_both_frames():
    forcing = gm.TaylorGreenForcing(4.0, 1.0)
    traj = synthetic(BOXES["cubic"], forcing=forcing.to_dict())
    expected = [forcing.acceleration(traj.positions[f], 0.0) for f in (1, 3)]
    item = dataset(traj)[1]
    torch.testing.assert_close(item.acceleration, 0.5 * (expected[0] + expected[1]))
    assert (expected[0] - expected[1]).abs().max() > 0.1
    assert not dataset(synthetic(BOXES["cubic"]))[1].acceleration.any()


def test_trajectories_of_different_number_box_and_temperature_keep_their_own():
    boxes = [Box.cubic(1.0, 3), Box.orthorhombic([1.0, 1.2, 0.8])]
    trajectories = [
        synthetic(box, count=n, frames=t, speed=v, seed=k, mass=2.0)
        for k, (box, n, t, v) in enumerate(zip(boxes, (20, 30), (5, 8), (1.0, 3.0), strict=True))
    ]
    items = dataset(*trajectories)
    assert len(items) == (5 - 2) + (8 - 2)
    first, second = items[2], items[3]
    assert (first.num_nodes, second.num_nodes) == (20, 30)
    torch.testing.assert_close(first.vel, trajectories[0].velocities[2])
    torch.testing.assert_close(second.next_vel, trajectories[1].velocities[2])
    assert float(first.particle_volume) == pytest.approx(1.0 / 20)
    assert float(second.particle_volume) == pytest.approx(0.96 / 30)
    for item, traj in ((first, trajectories[0]), (second, trajectories[1])):
        peculiar = traj.velocities[0] - traj.velocities[0].mean(dim=0)
        expected = 2.0 * float((peculiar**2).sum()) / (3 * (traj.num_particles - 1))
        assert float(item.temperature) == pytest.approx(expected)
    assert items.dt == pytest.approx(2 * 0.02)


def test_a_batch_keeps_the_pairs_of_its_graphs_apart():
    items = dataset(synthetic(BOXES["cubic"], count=20), synthetic(BOXES["sheared"], count=30, seed=1))
    graphs = [items[0], items[len(items) - 1]]
    for batched, *parts in zip(pairs_of(Batch.from_data_list(graphs)), *map(pairs_of, graphs), strict=True):
        assert batched.num_particles == 50
        assert torch.equal(batched.index, torch.cat([parts[0].index, parts[1].index + 20], dim=1))
        assert torch.equal(batched.displacement, torch.cat([p.displacement for p in parts]))
        assert torch.equal(batched.velocity_shift, torch.cat([p.velocity_shift for p in parts]))


def test_a_thermometer_of_all_atoms_goes_before_the_kinetic_temperature_of_the_particles():
    traj = synthetic(BOXES["cubic"], count=20, frames=4)
    known = gm.Trajectory(
        traj.positions,
        traj.velocities,
        box=traj.box,
        dt=traj.dt,
        metadata={"observed": {"temperature": 1.25, "pressure": 3.0}},
    )
    assert float(dataset(known)[0].temperature) == 1.25
    assert float(dataset(traj)[0].temperature) != 1.25


def test_the_kinetic_temperature_leaves_out_the_forced_flow():
    forcing = gm.TaylorGreenForcing(4.0, 1.0)
    still = synthetic(BOXES["cubic"], count=400, frames=3)
    flow = 5.0 * taylor_green_pattern(still.positions, forcing.length)
    moving = gm.Trajectory(
        still.positions, still.velocities + flow, box=still.box, dt=still.dt, forcing=forcing.to_dict()
    )
    temperature = dataset(still).temperatures[0]
    assert dataset(moving).temperatures[0] == pytest.approx(temperature, rel=0.02)
    assert float((moving.velocities**2).mean()) > 2.0 * temperature


def test_species_prescribed_particles_and_entropies_come_with_the_transition():
    species, prescribed = torch.arange(24) % 3, torch.arange(24) < 5
    entropies = torch.randn(7, 24, dtype=torch.float64)
    traj = synthetic(BOXES["cubic"], species=species, prescribed=prescribed, entropies=entropies)
    item = dataset(traj, observed=True)[4]
    assert torch.equal(item.species, species)
    assert torch.equal(item.active, ~prescribed)
    assert torch.equal(item.entropy, entropies[4])
    assert torch.equal(item.next_entropy, entropies[6])
    plain = dataset(synthetic(BOXES["cubic"], entropies=entropies))[0]
    assert plain.active.all()
    assert "entropy" not in plain
    assert "species" not in plain


def test_items_are_of_the_asked_type_with_distances_from_double_precision():
    far = synthetic(BOXES["cubic"])
    far = gm.Trajectory(far.positions + 1e4, far.velocities, box=far.box, dt=far.dt)
    exact, rough = (dataset(far, dtype=dtype)[0] for dtype in (torch.float64, torch.float32))
    assert rough.displacement.dtype == rough.vel.dtype == rough.acceleration.dtype == torch.float32
    # positions of 1e4 in float32 would be off by 1e-3
    torch.testing.assert_close(rough.displacement.double(), exact.displacement, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataset(), "no trajectories"),
        (lambda: dataset(synthetic(BOXES["cubic"]), lag=0), "lag is 0"),
        (lambda: dataset(synthetic(BOXES["cubic"]), lag=7), "trajectory 0 has 7 frames; a lag of 7 needs at least 8"),
        (
            lambda: dataset(synthetic(BOXES["cubic"]), synthetic(BOXES["cubic"], dt=0.03)),
            "trajectory 1 has dimension 3 and frame spacing 0.03, the first has 3 and 0.02",
        ),
        (
            lambda: dataset(synthetic(BOXES["cubic"]), synthetic(BOXES["flat"])),
            "trajectory 1 has dimension 2 and frame spacing 0.02",
        ),
        (
            lambda: dataset(synthetic(BOXES["cubic"]), synthetic(BOXES["cubic"], species=torch.zeros(24).long())),
            "trajectory 1 and the first do not both name species",
        ),
        (lambda: dataset(synthetic(BOXES["cubic"]), observed=True), "trajectory 0 has none: use entropy=encoded"),
        (lambda: dataset(synthetic(BOXES["cubic"]), cutoff=0.51), "over half the box"),
    ],
)
def test_trajectories_that_cannot_be_learned_from_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def drawn(epoch: int = 0, count: int = 24, population: int = 1000, **options) -> list[int]:
    sampler = SeededSampler(population, count, **{"seed": 3, **options})
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_depends_on_seed_and_epoch_alone():
    assert drawn(2) == drawn(2)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert drawn(2) == drawn(2)
    assert drawn(2) != drawn(1)
    assert drawn(2) != drawn(2, seed=4)
    assert set(drawn(0, 5000, 7)) == set(range(7))


def test_ranks_share_what_one_process_would_draw():
    whole = drawn(5)
    parts = [drawn(5, rank=rank, ranks=3) for rank in range(3)]
    assert [len(part) for part in parts] == [8, 8, 8]
    assert [item for together in zip(*parts, strict=True) for item in together] == whole


def test_training_batches_are_those_of_the_sampler_and_validation_is_spread_evenly():
    items = dataset(synthetic(BOXES["cubic"], frames=42))
    data = TransitionData(items, items, batch_size=4, steps_per_epoch=3, seed=5, validation_graphs=5)
    batches = list(data.train_dataloader())
    order = list(SeededSampler(40, 12, seed=5))
    assert [batch.num_graphs for batch in batches] == [4, 4, 4]
    torch.testing.assert_close(batches[1].displacement, torch.cat([items[k].displacement for k in order[4:8]]))
    held_out = torch.cat([batch.displacement for batch in data.val_dataloader()])
    torch.testing.assert_close(held_out, torch.cat([items[k].displacement for k in (0, 9, 19, 29, 39)]))


@pytest.mark.parametrize("name", ["batch_size", "steps_per_epoch"])
def test_empty_batches_and_epochs_are_refused(name):
    items = dataset(synthetic(BOXES["cubic"]))
    with pytest.raises(ValueError, match=f"{name} is 0"):
        TransitionData(items, items, **{"batch_size": 2, "steps_per_epoch": 2, name: 0})


def test_scales_are_those_of_the_transitions():
    generator = torch.Generator().manual_seed(0)
    still = synthetic(BOXES["cubic"], count=60, frames=400, dt=1e-3)
    kicks = 0.1 * torch.randn(still.velocities.shape, generator=generator, dtype=torch.float64)
    traj = gm.Trajectory(still.positions, still.velocities + kicks, box=still.box, dt=1e-3, mass=3.0)
    items = dataset(traj, lag=4)
    scales = measure_scales(items)
    picks = np.unique(np.linspace(0, len(items) - 1, 32).astype(int))
    neighbors = [2.0 * len(brute_force(traj.positions[k], traj.box, REACH, 0.0)) / 60 for k in picks[::8]]
    assert scales.neighbors == pytest.approx(np.mean(neighbors), rel=0.1)
    assert scales.energy == pytest.approx(items.temperatures[0])
    assert scales.speed == pytest.approx((scales.energy / 3.0) ** 0.5)
    assert scales.volume == pytest.approx(1.0 / 60)
    assert scales.increment == pytest.approx(2 * 0.1**2, rel=0.1)
    assert (scales.mass, scales.entropy) == (3.0, 1.0)
    found = [neighbor_pairs(traj.positions[k], traj.box, REACH).distance.min() for k in picks]
    assert scales.nearest == pytest.approx(float(min(found)), abs=0.05 * REACH)
    assert scales.nearest >= min(found)


def test_scales_know_the_spread_of_observed_entropies():
    entropies = 7.0 * torch.randn(7, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    traj = synthetic(BOXES["cubic"], entropies=entropies + 100.0)
    kicked = gm.Trajectory(
        traj.positions,
        traj.velocities * torch.linspace(1.0, 1.1, 7, dtype=torch.float64)[:, None, None],
        box=traj.box,
        dt=traj.dt,
        entropies=traj.entropies,
    )
    assert measure_scales(dataset(kicked, observed=True)).entropy == pytest.approx(float(entropies.std()))


@pytest.mark.parametrize(("speed", "what"), [(0.0, "kinetic temperature"), (1.0, "change of velocity")])
def test_scales_refuse_particles_that_nothing_moves(speed, what):
    with pytest.raises(ValueError, match=f"{what} of the training data is"):
        measure_scales(dataset(synthetic(BOXES["cubic"], speed=speed)))


def coloured(box: Box, memory: float, *, count: int = 60, frames: int = 200, dt: float = 0.01, heating: float = 0.0):
    """Velocities that forget themselves over a time ``memory``, at k_B T = 1 (rising by ``heating`` over the run)."""
    generator = torch.Generator().manual_seed(1)
    keep = float(np.exp(-dt / memory))
    vel = [torch.randn(count, box.dimension, generator=generator, dtype=torch.float64)]
    for _ in range(frames - 1):
        noise = torch.randn(count, box.dimension, generator=generator, dtype=torch.float64)
        vel.append(keep * vel[-1] + (1.0 - keep**2) ** 0.5 * noise)
    vel = torch.stack(vel) * torch.linspace(1.0, (1.0 + heating) ** 0.5, frames, dtype=torch.float64)[:, None, None]
    pos = torch.rand(count, box.dimension, generator=generator, dtype=torch.float64) + dt * vel.cumsum(dim=0)
    return gm.Trajectory(pos, vel, box=box, dt=dt)


def test_inspect_measures_and_suggests():
    survey = gm.inspect(coloured(Box.cubic(1.0, 3), 0.5))
    assert (survey.frames, survey.particles, survey.dimension) == (200, 60, 3)
    assert survey.kinetic_temperature == pytest.approx(1.0, rel=0.1)
    # a ball of the suggested cutoff holds 16 at the mean density
    assert survey.cutoff == pytest.approx((16.0 / 60.0 * 3.0 / (4.0 * np.pi)) ** (1 / 3))
    assert survey.neighbors == pytest.approx(16.0, rel=0.1)
    assert survey.ballistic_time == pytest.approx(0.5 * np.log(1 / 0.9), abs=0.015)
    assert survey.lag == round(survey.ballistic_time / 0.01)
    assert survey.warnings == []
    assert "suggested lag" in str(survey)


@pytest.mark.parametrize("box", [Box.free(3), Box.cubic(1.0, 2)], ids=["free", "flat"])
def test_inspect_suggests_a_cutoff_of_some_sixteen_neighbours_in_any_box(box):
    traj = synthetic(box, count=200, frames=2)
    cutoff = gm.inspect(traj).cutoff
    pairs = gm.neighbor_pairs(traj.positions[0], box, cutoff)
    assert 2.0 * pairs.num_pairs / 200 == pytest.approx(16.0, abs=2.0)


@pytest.mark.parametrize(
    ("traj", "cutoff", "warning"),
    [
        (coloured(Box.cubic(1.0, 3), 0.5), 0.2, "make a rough density: use a larger cutoff"),
        (coloured(Box.cubic(1.0, 3), 0.5, count=200), 0.5, "cost much time: use a smaller cutoff"),
        (coloured(Box.cubic(1.0, 3), 0.5, heating=1.0), None, "equilibrium it is not"),
        (synthetic(Box.cubic(1.0, 3), frames=40), None, "velocities hardly decorrelate"),
        (coloured(Box.cubic(1.0, 3), 0.02), None, "frames are widely spaced"),
    ],
)
def test_inspect_warns_of(traj, cutoff, warning):
    warnings = gm.inspect(traj, cutoff=cutoff).warnings
    assert sum(warning in w for w in warnings) == 1
    assert warning in str(gm.inspect(traj, cutoff=cutoff))


def test_inspect_refuses_a_cutoff_over_half_the_box():
    with pytest.raises(ValueError, match="over half the box"):
        gm.inspect(synthetic(BOXES["cubic"]), cutoff=0.6)


@pytest.fixture(scope="module")
def gas(tmp_path_factory) -> gm.Trajectory:
    """The ideal gas at rest: 40 particles, 100 frames."""
    path = tmp_path_factory.mktemp("gas") / "gas.h5"
    gas_system(equilibration=150).generate(path, scenario="self_diffusion", temperature=1.0, frames=100, seed=1)
    return gm.read_trajectory(path)


def fit(trajectories, steps: int = 2, **options) -> gm.MetriplecticModel:
    options = {"cutoff": CUTOFF, "lag": 4, "steps_per_epoch": steps, "trainer": SILENT, **options}
    return gm.fit(trajectories, steps=steps, **options)


class Losses(Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.values.append(float(outputs["loss"]))


@pytest.mark.parametrize("integrator", ["energy_conserving", "euler_maruyama"])
def test_ten_steps_lower_the_loss(gas, integrator):
    losses = Losses()
    fit(gas, 10, callbacks=[losses], integrator=integrator)
    assert len(losses.values) == 10
    assert np.mean(losses.values[-3:]) < np.mean(losses.values[:3]) - 0.3


@pytest.mark.parametrize("temperature", ["equilibrium", "learned"])
def test_ties_come_before_the_likelihood(gas, temperature):
    pulls = []

    class Spy(Callback):
        def on_after_backward(self, trainer, pl_module) -> None:
            # the friction is in the likelihood alone
            pulls.append(max(float(p.grad.abs().max()) for p in pl_module.model.friction.parameters()))

    fit(gas, 20, callbacks=[Spy()], temperature=temperature)
    assert (pulls[0] == 0.0) == (temperature == "equilibrium")
    assert min(pulls[1:]) > 0.0


def weights(model: gm.MetriplecticModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_substeps_divide_the_step_of_the_model_and_change_nothing_else(gas):
    whole, fine = (fit(gas, substeps=count) for count in (1, 4))
    assert fine.dt == pytest.approx(whole.dt / 4)
    for name, value in whole.state_dict().items():
        assert torch.equal(fine.state_dict()[name], value), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(gas):
    torch.manual_seed(1)
    first = weights(fit(gas, 6, seed=5))
    torch.manual_seed(2)  # the state of the caller's generator does not matter
    assert same(first, weights(fit(gas, 6, seed=5)))
    assert not same(first, weights(fit(gas, 6, seed=6)))


def test_workers_that_prepare_batches_change_nothing(gas):
    assert same(weights(fit(gas, 4)), weights(fit(gas, 4, workers=1)))


def test_the_mass_is_that_of_the_trajectories_or_the_one_given(gas):
    heavy = gm.Trajectory(gas.positions, gas.velocities, box=gas.box, dt=gas.dt, mass=4.0)
    assert float(fit(heavy).mass) == pytest.approx(4.0)
    given = fit(heavy, mass=2.5)
    assert float(given.mass) == pytest.approx(2.5)
    assert not given.log_mass.requires_grad


def test_a_learned_mass_starts_at_that_of_the_trajectories_and_moves(gas):
    model = fit(gas, 4, mass="learned")
    mass = float(model.mass.detach())
    assert mass != 1.0
    assert mass == pytest.approx(1.0, abs=0.05)


def test_masses_of_species_come_from_the_trajectories(gas):
    species = torch.arange(40) % 2
    mass = 1.0 + 2.0 * species.double()
    mixed = gm.Trajectory(gas.positions, gas.velocities, box=gas.box, dt=gas.dt, species=species, mass=mass)
    torch.testing.assert_close(fit(mixed).mass, torch.tensor([1.0, 3.0]), check_dtype=False)


def test_a_trajectory_alone_gives_its_last_tenth_for_validation(gas):
    seen = {}

    class Spy(Callback):
        def on_fit_start(self, trainer, pl_module) -> None:
            seen["train"] = trainer.datamodule.train.trajectories
            seen["validation"] = trainer.datamodule.validation.dataset.trajectories

    fit(gas, callbacks=[Spy()])
    assert [len(t) for t in seen["train"]] == [90]
    assert [len(t) for t in seen["validation"]] == [10]
    assert torch.equal(seen["validation"][0].positions, gas.positions[90:])
    other = gas[20:60]
    fit(gas, callbacks=[Spy()], validation=other)
    assert [len(t) for t in seen["train"]] == [100]
    assert seen["validation"][0] is other


def test_a_fluid_has_a_pair_potential_where_it_is_asked_for(gas):
    assert fit(gas).potential is None
    model = fit(gas, terms={"potential": {"width": 8, "depth": 1}})
    assert float(model.potential.network.layers[-1].bias.abs()) > 0, "which training alone moves from zero"


def test_trainer_options_reach_lightning(gas):
    seen = {}

    class Spy(Callback):
        def on_fit_start(self, trainer, pl_module) -> None:
            seen.update(every=trainer.log_every_n_steps, accumulate=trainer.accumulate_grad_batches)

    fit(gas, callbacks=[Spy()], trainer={**SILENT, "log_every_n_steps": 3, "accumulate_grad_batches": 2})
    assert seen == {"every": 3, "accumulate": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 5, "steps_per_epoch": 2}, "steps is 5; it must be a multiple of steps_per_epoch, 2"),
        ({"entropy": "known"}, "entropy is 'known'"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"integrator": "leapfrog"}, r"integrator is 'leapfrog'; choose one of \['energy_conserving', 'euler"),
        ({"mass": "heavy"}, "mass is 'heavy'"),
        ({"mass": -1.0}, "mass is -1.0"),
        ({"terms": {"viscosity": {}}}, "term 'viscosity' is unknown"),
        ({"terms": {"kernel": {"widht": 3}}}, "widht"),
        ({"terms": {"kernel": None}}, "term 'kernel' is None, and a metriplectic model cannot be without"),
        ({"trainer": {"max_epochs": 3}}, "max_epochs"),
        ({"trainer": {"devics": 3}}, "devics"),
        ({"lag": 200}, "trajectory 0 has 100 frames; a lag of 200"),
        ({"cutoff": 0.3}, "over half the box"),
        ({"cutoff": -1.0}, "cutoff is -1.0; it must be a positive number"),
        ({"lag": 2.5}, "lag is 2.5; it must be a whole number, at least 1"),
        ({"substeps": 0}, "substeps is 0; it must be a whole number"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number"),
        ({"lr": -1.0}, "lr is -1.0; it must be a positive number"),
        ({"clip": -1.0}, "clip is -1.0; it must be a positive number"),
        ({"warmup": 3.0}, "warmup is 3.0; it is a share of the steps"),
        ({"validation": "held_out.h5"}, "validation is the path 'held_out.h5': give the trajectory"),
    ],
)
def test_settings_that_make_no_training_are_refused(gas, options, message):
    with pytest.raises(ValueError, match=message):
        fit(gas, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gas.h5", "trajectories is the path 'gas.h5': give the trajectory, as by gm.read_trajectory"),
        (["gas.h5"], "trajectories: str is no trajectory; give a gm.Trajectory"),
        (3, "trajectories: int is no trajectory"),
        ([], "there are no trajectories"),
        (
            [synthetic(BOXES["cubic"], frames=30), synthetic(BOXES["flat"], frames=30)],
            "trajectory 1 has dimension 2 and frame spacing 0.02, the first has 3",
        ),
    ],
)
def test_what_is_no_training_set_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fit(given)


def test_a_validation_of_another_dimension_is_named_as_such(gas):
    with pytest.raises(ValueError, match="a validation trajectory has dimension 2"):
        fit(gas, validation=synthetic(BOXES["flat"], frames=30, dt=gas.dt))


def test_a_training_says_nothing_of_devices_and_services(gas, tmp_path, caplog, recwarn):
    caplog.set_level("INFO")
    level = logging.getLogger("lightning.pytorch").level
    fit(gas, logger=CSVLogger(tmp_path), out=tmp_path)
    assert not [record.message for record in caplog.records if "lightning" in record.name]
    assert not [str(w.message) for w in recwarn if "log_every_n_steps" in str(w.message)]
    assert logging.getLogger("lightning.pytorch").level == level


def test_particles_of_one_species_and_different_mass_are_refused(gas):
    mass = torch.linspace(1.0, 2.0, 40)
    traj = gm.Trajectory(gas.positions, gas.velocities, box=gas.box, dt=gas.dt, mass=mass)
    with pytest.raises(ValueError, match="particles of species 0 have masses from 1 to 2"):
        fit(traj)


@pytest.mark.parametrize("kind", ["metriplectic", "dpd"])
def test_forces_may_be_held_to_the_structure(gas, kind):
    free, held = (fit(gas, 8, kind=kind, structure=structure) for structure in ("learned", "equilibrium"))
    pairs = gm.neighbor_pairs(gas.positions[0].double(), gas.box, CUTOFF)
    forces = []
    for model in (free, held):
        model, state = model.double(), gm.State.from_frame(gas, 0, model.double())
        forces.append(model.brackets(state, pairs)[0].forces())
    assert torch.isfinite(forces[1]).all()
    assert not torch.allclose(*forces)


def test_the_structure_of_particles_in_a_solvent_does_not_hold_forces(gas):
    with pytest.raises(ValueError, match="structure=equilibrium is of fluids of one species"):
        fit(gas, structure="equilibrium", solvent="inertial")


@pytest.fixture(scope="module")
def short(gas) -> tuple[gm.MetriplecticModel, TransitionDataset]:
    """A model after a short training, and what it was trained on."""
    model = fit(gas, 600, temperature="equilibrium", validation=gas, batch_size=2, lr=5e-3)
    return model, TransitionDataset([gas], cutoff=CUTOFF, lag=4)


@torch.no_grad()
def seen_by(model: gm.MetriplecticModel, items: TransitionDataset):
    """Entropies, temperatures k_B T and volumes of the model over every third transition."""
    batch = Batch.from_data_list([items[k] for k in range(0, len(items), 3)])
    pairs, _ = pairs_of(batch)
    entropy = model.encode(pairs, batch.vel)
    state = gm.State(torch.zeros_like(batch.vel), batch.vel, entropy)
    return entropy, model.k_B * model.temperature(state, pairs), model.configuration(pairs, None).volume


def test_after_a_short_training_entropies_have_mean_zero_and_variance_one(short):
    entropy, _, _ = seen_by(*short)
    assert float(entropy.mean()) == pytest.approx(0.0, abs=0.15)
    assert float(entropy.var()) == pytest.approx(1.0, abs=0.15)


def test_after_a_short_training_the_mean_volume_is_that_of_the_box(short, gas):
    _, _, volume = seen_by(*short)
    assert float(volume.mean()) == pytest.approx(gas.box.volume / gas.num_particles, rel=0.04)


def test_temperature_of_equilibrium_is_the_kinetic_one(short):
    _, temperature, _ = seen_by(*short)
    assert float(temperature.mean()) == pytest.approx(short[1].temperatures[0], rel=0.03)


@pytest.mark.slow
def test_with_observed_entropies_the_true_temperatures_are_learned(tmp_path):
    system = gas_system(particles=300, length=0.6 ** (1 / 3), equilibration=400)

    def run(temperature: float, frames: int, seed: int) -> gm.Trajectory:
        path = tmp_path / f"{seed}.h5"
        system.generate(path, scenario="self_diffusion", temperature=temperature, frames=frames, seed=seed)
        return gm.read_trajectory(path)

    train = [run(temperature, 400, seed) for seed, temperature in enumerate((0.8, 1.0, 1.25))]
    model = fit(train, 1200, entropy="observed").double()
    held_out, truth = run(1.1, 81, 9), system.model()
    learned, true = [], []
    with torch.no_grad():
        for frame in range(0, 81, 20):
            state = gm.State.from_frame(held_out, frame, model)
            pairs = gm.neighbor_pairs(state.pos, held_out.box, CUTOFF)
            learned.append(model.k_B * model.temperature(state, pairs))
            true.append(truth.k_B * truth.temperature(state, pairs))
    learned, true = torch.cat(learned), torch.cat(true)
    assert float(torch.corrcoef(torch.stack([learned, true]))[0, 1]) > 0.99
    # 400 frames of 300 particles have kinetic temperatures 1 to 3 % off the true ones, and so what is learned of them
    assert float(learned.mean()) == pytest.approx(float(true.mean()), rel=0.05)
