"""Boxes and pairs against brute force, and pair noise against known answers."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gnn_metriplectic.geometry import (
    Box,
    Pairs,
    VerletList,
    neighbor_pairs,
    neighbors,
    pair_normals,
    transition_pairs,
)
from gnn_metriplectic.geometry.noise import philox
from gnn_metriplectic.geometry.partition import spatial_order

BOXES = {
    "free plane": Box.free(2),
    "free space": Box.free(3),
    "square": Box.cubic(2.3, 2),
    "cubic": Box.cubic(2.3, 3),
    "oblong": Box.orthorhombic([2.1, 3.0, 4.2]),
    "triclinic plane": Box.triclinic([[2.6, 0.0], [1.1, 2.4]]),
    "triclinic": Box.triclinic([[2.6, 0.0, 0.0], [0.9, 2.4, 0.0], [-0.7, 0.6, 2.8]]),
    "sheared plane": Box.cubic(2.9, 2, shear_rate=0.7),
    "sheared": Box.cubic(2.9, 3, shear_rate=-0.7),
}
TIMES = [0.0, 0.37, 2.5, 41.3]
CUTOFF = 1.0

Found = dict[tuple[int, int], tuple[Tensor, Tensor]]


@pytest.fixture(params=BOXES, ids=lambda name: name.replace(" ", "_"))
def box(request) -> Box:
    return BOXES[request.param]


def scatter(box: Box, count: int = 40, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Positions over and around the cell."""
    generator = torch.Generator().manual_seed(seed)
    fractional = spread * torch.rand(count, box.dimension, generator=generator, dtype=torch.float64)
    return fractional @ (2.5 * torch.eye(box.dimension, dtype=torch.float64) if box.is_free else box.lattice_at(0.0))


def brute_force(pos: Tensor, box: Box, time: float, reach: int = 4) -> Found:
    """Displacement and velocity shift of every pair within the cutoff, over all images; the tilt is never reduced."""
    zero = torch.zeros(1, box.dimension, dtype=torch.float64)
    images, speeds = zero, zero
    if not box.is_free:
        lattice = torch.tensor(box.lattice, dtype=torch.float64)
        tilt = box.shear_rate * box.lengths[1] * time
        turns = round(tilt / box.lengths[0])
        steps = [torch.tensor(n) for n in itertools.product(range(-reach, reach + 1), repeat=box.dimension)]
        steps = torch.stack(steps).double()
        images, speeds = steps @ lattice, torch.zeros_like(steps)
        images[:, 0] += steps[:, 1] * (tilt - turns * box.lengths[0])
        speeds[:, 0] = steps[:, 1] * box.shear_rate * box.lengths[1]
    found: Found = {}
    for i, j in itertools.combinations(range(len(pos)), 2):
        displacement = pos[i] - pos[j] - images
        near = (displacement.norm(dim=1) < CUTOFF).nonzero().flatten().tolist()
        assert len(near) <= 1
        for image in near:
            found[i, j] = displacement[image], -speeds[image]
    return found


def as_dict(pairs) -> Found:
    shift = torch.zeros_like(pairs.displacement) if pairs.velocity_shift is None else pairs.velocity_shift
    found = {tuple(p): (d, s) for p, d, s in zip(pairs.index.T.tolist(), pairs.displacement, shift, strict=True)}
    assert len(found) == pairs.num_pairs, "each pair once"
    return found


def assert_same_pairs(actual: Found, expected: Found) -> None:
    assert actual.keys() == expected.keys()
    assert len(expected) > 5
    for pair, (displacement, shift) in expected.items():
        assert torch.allclose(actual[pair][0], displacement, rtol=0, atol=1e-12), pair
        assert torch.allclose(actual[pair][1], shift, rtol=0, atol=1e-12), pair


@pytest.mark.parametrize("time", TIMES)
def test_pairs_are_those_of_brute_force(box, time):
    pos = scatter(box)
    pairs = neighbor_pairs(pos, box, CUTOFF, time)
    assert_same_pairs(as_dict(pairs), brute_force(pos, box, time))
    assert (pairs.index[0] < pairs.index[1]).all()
    order = pairs.index[0] * len(pos) + pairs.index[1]
    assert (order.diff() > 0).all(), "pairs come in order"


def test_positions_need_not_be_wrapped(box):
    pos = scatter(box, spread=3.0)
    expected = as_dict(neighbor_pairs(box.wrap(pos, 0.6), box, CUTOFF, 0.6))
    assert_same_pairs(
        {k: (v[0], 0 * v[1]) for k, v in as_dict(neighbor_pairs(pos, box, CUTOFF, 0.6)).items()},
        {k: (v[0], 0 * v[1]) for k, v in expected.items()},
    )


@pytest.mark.parametrize("time", TIMES)
def test_an_image_across_the_sheared_face_moves_with_the_shear(time):
    box = BOXES["sheared"]
    pos = scatter(box)
    vel = torch.randn(pos.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turns = torch.randint(-2, 3, (len(pos), 1), generator=torch.Generator().manual_seed(2)).double()
    flow = torch.tensor([[box.velocity_gradient, 0.0, 0.0]], dtype=torch.float64)
    pairs = neighbor_pairs(pos, box, CUTOFF, time)
    images = neighbor_pairs(pos + turns * box.lattice_at(time)[1], box, CUTOFF, time)
    assert torch.equal(pairs.index, images.index)
    assert torch.allclose(pairs.displacement, images.displacement, atol=1e-12)
    assert torch.allclose(pairs.relative(vel), images.relative(vel + turns * flow), atol=1e-12)
    assert pairs.velocity_shift.abs().max() > 0


@pytest.mark.parametrize("elapsed", [0.0, 0.3])
def test_transition_pairs_are_close_before_or_after(box, elapsed):
    if elapsed and not box.shear_rate:
        pytest.skip("only a sheared box looks at the time")
    pos = scatter(box)
    step = 0.15 * torch.randn(pos.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drift = torch.full((box.dimension,), 7.0, dtype=torch.float64)
    next_pos = pos + step + drift  # all together, which moves no pair
    time = 0.4
    pairs = transition_pairs(pos, next_pos, box, CUTOFF, time, elapsed)
    moved = pairs.moved(next_pos - pos, elapsed)
    before, after = brute_force(pos, box, time), brute_force(next_pos, box, time + elapsed, reach=5)
    near_before, near_after = pairs.distance < CUTOFF, moved.distance < CUTOFF
    assert (near_before | near_after).all()
    assert (near_before != near_after).any(), "some pairs come and some go"
    # a pair may meet through one image before and another after; each of them counts at its time
    assert_same_pairs(as_dict(pairs.select(near_before)), before)
    assert_same_pairs(as_dict(moved.select(near_after)), after)


def test_sums_over_pairs_are_those_of_a_loop():
    box = BOXES["cubic"]
    pairs = neighbor_pairs(scatter(box), box, CUTOFF)
    first, second = torch.rand(2, pairs.num_pairs, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.zeros(40, 3, dtype=torch.float64)
    for (i, j), a, b in zip(pairs.index.T.tolist(), first, second, strict=True):
        expected[i] += a
        expected[j] += b
    assert torch.allclose(pairs.total_of_ends(first, second), expected, atol=1e-13)
    assert torch.allclose(pairs.net(first), pairs.total_of_ends(first, -first), atol=1e-13)
    assert torch.allclose(pairs.total(first), pairs.total_of_ends(first, first), atol=1e-13)


def test_displacements_are_differentiable_in_the_positions():
    box = BOXES["triclinic"]
    pos = scatter(box).requires_grad_()
    pairs = neighbor_pairs(pos, box, CUTOFF)
    (gradient,) = torch.autograd.grad((pairs.distance**2).sum(), pos)
    assert torch.allclose(gradient, pairs.net(2.0 * pairs.displacement), atol=1e-12)


def test_two_particles_in_one_place_have_no_direction_and_no_infinity():
    pairs = neighbor_pairs(torch.zeros(2, 3, dtype=torch.float64), Box.free(3), CUTOFF)
    assert pairs.num_pairs == 1
    assert torch.equal(pairs.direction, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2])
def test_particles_out_of_reach_have_no_pairs(count):
    pos = 5.0 * torch.arange(count, dtype=torch.float64)[:, None].expand(count, 3)
    pairs = neighbor_pairs(pos, Box.free(3), CUTOFF)
    assert pairs.num_pairs == 0
    assert torch.equal(pairs.total(pairs.displacement), torch.zeros(count, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "extent",
    [
        (2e3, 2e3),
        (3e4, 1e5),
        (1e7, 1.0),
        (3e3, 3e3, 0.5),
        (1e6, 0.1, 0.1),
        (0.1, 0.1, 1e6),
        (1e5, 1e5, 1e5),
        (40.0, 40.0, 40.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("periodic", [False, True], ids=["free", "periodic"])
def test_a_thin_or_dilute_system_has_its_pairs(extent, periodic):
    dimension = len(extent)
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(500, dimension, generator=generator, dtype=torch.float64) * torch.tensor(extent)
    pos = torch.cat([first, first + 0.5 / dimension**0.5])
    box = Box.orthorhombic([max(x, 2.0) for x in extent]) if periodic else Box.free(dimension)
    displacement = pos[:, None] - pos[None]
    if periodic:
        lengths = torch.tensor(box.lengths)
        displacement = displacement - lengths * torch.round(displacement / lengths)
    near = (displacement.norm(dim=2) < CUTOFF).triu(1).nonzero()
    assert torch.equal(neighbor_pairs(pos, box, CUTOFF).index.T, near)
    assert len(near) >= 500


@pytest.mark.parametrize("time", TIMES)
def test_search_for_dilute_systems_finds_what_vesin_finds(box, time, monkeypatch):
    pos = scatter(box, spread=2.0)
    expected = as_dict(neighbor_pairs(pos, box, CUTOFF, time))
    monkeypatch.setattr(neighbors, "_VESIN_CELLS", 1.0)
    searched = []
    search = neighbors._sparse_search
    monkeypatch.setattr(neighbors, "_sparse_search", lambda *arguments: searched.append(1) or search(*arguments))
    assert_same_pairs(as_dict(neighbor_pairs(pos, box, CUTOFF, time)), expected)
    assert searched == [1]


def test_wrapped_positions_are_in_the_cell_and_differ_by_lattice_vectors(box):
    pos = scatter(box, spread=4.0) - 3.0
    wrapped = box.wrap(pos, 0.9)
    if box.is_free:
        assert torch.equal(wrapped, pos)
        return
    inverse = torch.linalg.inv(box.lattice_at(0.9))
    fractional = wrapped @ inverse
    assert (fractional > -1e-12).all()
    assert (fractional < 1.0 + 1e-12).all()
    turns = (pos - wrapped) @ inverse
    assert torch.allclose(turns, turns.round(), atol=1e-9)
    assert turns.abs().max() > 0.5


@pytest.mark.parametrize(
    ("box", "limit"),
    [
        (Box.cubic(2.0, 3), 1.0),
        (Box.orthorhombic([5.0, 3.0]), 1.5),
        (Box.triclinic([[2.0, 0.0], [1.0, 2.0]]), 2.0 / 5.0**0.5),  # area 4 over the long edge, halved
        (Box.cubic(2.0, 2, shear_rate=0.1), 2.0 / 5.0**0.5),  # at its most tilted
    ],
)
def test_a_cutoff_over_half_the_box_is_an_error(box, limit):
    box.check_cutoff(0.999 * limit)
    with pytest.raises(ValueError, match="over half the box"):
        box.check_cutoff(1.001 * limit)
    with pytest.raises(ValueError, match="over half the box"):
        neighbor_pairs(torch.zeros(2, box.dimension), box, 1.001 * limit)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cutoff_is_a_positive_length(cutoff):
    with pytest.raises(ValueError, match="must be a positive length"):
        Box.free(3).check_cutoff(cutoff)


def test_pairs_along_a_trajectory_are_those_of_a_search_at_each_step(box):
    pos, listed = scatter(box), VerletList(box, CUTOFF)
    generator = torch.Generator().manual_seed(2)
    for step in range(40):
        (_, (pairs,)), expected = listed.pairs(pos, 0.01 * step), neighbor_pairs(pos, box, CUTOFF, 0.01 * step)
        assert torch.equal(pairs.index, expected.index)
        assert torch.equal(pairs.displacement, expected.displacement)
        assert (pairs.velocity_shift is None) == (expected.velocity_shift is None)
        pos = pos + 0.01 * torch.randn(pos.shape, generator=generator, dtype=torch.float64)
    # Lees-Edwards images move against each other whether particles do or not
    assert listed.searches == 40 if box.shear_rate else 1 < listed.searches < 20


def test_blocks_of_pairs_hold_each_pair_once(box):
    pos = scatter(box, spread=1.5)
    expected = neighbor_pairs(pos, box, CUTOFF, 0.6)
    partition, blocks = VerletList(box, CUTOFF, block=15).pairs(pos, 0.6)
    assert len(blocks) > 3
    pairs = Pairs.joined(blocks, partition.members, len(pos))
    assert (pairs.index[0] < pairs.index[1]).all()
    assert_same_pairs(as_dict(pairs), as_dict(expected))
    values = torch.rand(len(pos), 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [block.total(block.sum_of_ends(part)) for block, part in zip(blocks, partition.split(values), strict=True)]
    torch.testing.assert_close(partition.total(parts), expected.total(expected.sum_of_ends(values)))


def test_particles_near_in_order_are_near_in_space(box):
    pos = scatter(box, count=2000, spread=3.0)
    order = spatial_order(pos, box, 0.2)
    assert torch.equal(order.sort().values, torch.arange(2000))
    wrapped = box.wrap(pos)
    # runs of 20 particles lie in a hundredth of the volume; cubes of so many are 0.2 (plane 0.1) of the edge wide
    spread = wrapped[order].view(100, 20, -1).std(dim=1).mean() / wrapped.std()
    assert spread < 0.4


def test_a_list_of_pairs_names_the_particle_whose_position_is_not_finite():
    pos, listed = torch.rand(5, 3), VerletList(Box.cubic(3.0, 3), CUTOFF)
    listed.pairs(pos)
    pos[3, 1] = float("nan")
    with pytest.raises(ValueError, match="particle 3"):
        listed.pairs(pos)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_position_that_is_not_finite_is_an_error_that_names_the_particle(bad):
    pos = torch.rand(5, 3)
    pos[3, 1] = bad
    with pytest.raises(ValueError, match="particle 3"):
        neighbor_pairs(pos, Box.cubic(3.0, 3), CUTOFF)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(4), "dimension is 4"),
        (lambda: Box.cubic(-1.0, 3), "must be positive"),
        (lambda: Box.cubic(float("nan"), 2), "not finite"),
        (lambda: Box.triclinic([[1.0, 0.2], [0.0, 1.0]]), "lower triangular"),
        (lambda: Box(3, ((1.0, 0.0), (0.0, 1.0))), "not 3 x 3"),
        (lambda: Box(2, None, 0.5), "no images to shear"),
        (lambda: neighbor_pairs(torch.zeros(3, 2), Box.free(3), 1.0), "needs"),
        (lambda: neighbor_pairs(torch.zeros(3, 3), Box.free(3), 1.0, backend="magic"), "magic"),
    ],
)
def test_a_box_that_cannot_be_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.pyg
@pytest.mark.parametrize("time", TIMES)
def test_torch_cluster_finds_what_vesin_finds(box, time):
    pytest.importorskip("torch_cluster")
    pos = scatter(box, spread=2.0)
    assert_same_pairs(
        as_dict(neighbor_pairs(pos, box, CUTOFF, time, backend="torch_cluster")),
        as_dict(neighbor_pairs(pos, box, CUTOFF, time, backend="vesin")),
    )


def words(*values: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([v], dtype=torch.int64) for v in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    assert tuple(int(w) for w in philox(words(*counter), key)) == expected


INDEX = torch.combinations(torch.arange(40)).T


def test_pair_noise_is_antisymmetric():
    assert torch.equal(pair_normals(INDEX.flip(0), 7, 3, 4), -pair_normals(INDEX, 7, 3, 4))


def test_pair_noise_does_not_depend_on_the_order_of_pairs():
    order = torch.randperm(INDEX.shape[1], generator=torch.Generator().manual_seed(0))
    assert torch.equal(pair_normals(INDEX[:, order], 7, 3, 4), pair_normals(INDEX, 7, 3, 4)[order])


def test_pair_noise_belongs_to_tags_wherever_particles_stand():
    place = torch.randperm(40, generator=torch.Generator().manual_seed(0))  # particle p stands at place[p]
    tags = torch.empty_like(place)
    tags[place] = torch.arange(40)
    assert torch.equal(pair_normals(place[INDEX], 7, 3, 4, tags=tags), pair_normals(INDEX, 7, 3, 4))


@pytest.mark.parametrize(("seed", "step"), [(8, 3), (7, 4), (7 + 2**32, 3)])
def test_pair_noise_changes_with_seed_and_step(seed, step):
    both = torch.stack([pair_normals(INDEX, 7, 3, 4), pair_normals(INDEX, seed, step, 4)])
    correlation = torch.corrcoef(both.flatten(1))[0, 1]
    assert abs(correlation) < 5.0 / both[0].numel() ** 0.5


def test_pair_noise_is_normal_and_uncorrelated():
    index = torch.combinations(torch.arange(500)).T
    sample = pair_normals(index, 11, 0, 4)
    count = len(sample)
    assert (sample.mean(dim=0).abs() < 5.0 / count**0.5).all()
    assert (torch.cov(sample.T) - torch.eye(4)).abs().max() < 5.0 * (2.0 / count) ** 0.5
    assert ((sample**4).mean(dim=0) - 3.0).abs().max() < 5.0 * (96.0 / count) ** 0.5
    # the largest distance of the distribution from the normal one: 1.95 / √n is exceeded once in a thousand
    ordered = torch.special.ndtr(sample.sort(dim=0).values)
    rank = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
    assert (ordered - rank).abs().max() < 2.2 / count**0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 3), "seed"),
        ((2**64, 0, 3), "seed"),
        ((0, 2**32, 3), "step"),
        ((0, -1, 3), "step"),
        ((0, 0, 5), "at most 4"),
    ],
)
def test_noise_out_of_its_range_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        pair_normals(INDEX, *arguments)


def test_a_sheared_box_whose_layers_along_z_lean_along_y_is_refused():
    with pytest.raises(ValueError, match="without y component"):
        Box.triclinic([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.2, 1.0]], shear_rate=1.0)
