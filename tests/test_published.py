"""Published weights: imported terms against their formulas by automatic differentiation, and the laws that hold."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import silu, softplus

from gnn_metriplectic.dynamics import simulate
from gnn_metriplectic.geometry import Box, Pairs, neighbor_pairs
from gnn_metriplectic.models import MetriplecticModel, State, import_published
from gnn_metriplectic.terms.friction import BULK, HEAT, SHEAR

H, WIDTH, DT = 0.7, 8, 0.02
ARGS = {"dt": DT, "h": H, "boxsize": 2.0, "n_hidden": 2, "dim_hidden": WIDTH, "m": 9.0, "k_B": 9.0}


def made_up(dtype: torch.dtype, dimension: int) -> dict[str, torch.Tensor]:
    """A random state dict in the published layout."""
    generator = torch.Generator().manual_seed(dimension)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    params = {"log_m": draw(1) * 0.3, "log_k_B": draw(1) * 0.1 - 2.0, "model_U_vol.t": draw(1)}
    networks = {"model_W.MLP": 1, "model_A": 2, "model_B": 2, "model_C": 2, "teacher": 1 + dimension, "model_U_vol": 2}
    for name, inputs in networks.items():
        numbers = (0, 1, 2) if name == "model_U_vol" else (0, 2, 4)
        sizes = [inputs, WIDTH, WIDTH, 1]
        for number, fan_in, fan_out in zip(numbers, sizes[:-1], sizes[1:], strict=True):
            params[f"{name}.layers.{number}.weight"] = draw(fan_out, fan_in) * fan_in**-0.5
            params[f"{name}.layers.{number}.bias"] = 0.5 * draw(fan_out)
    return params


def save(folder, params: dict, args: dict = ARGS) -> tuple:
    torch.save(params, folder / "params.pt")
    (folder / "args.json").write_text(json.dumps(args))
    return folder / "params.pt", folder / "args.json"


def linear(params: dict, key: str, x: torch.Tensor) -> torch.Tensor:
    return x @ params[key + ".weight"].T + params[key + ".bias"]


def silu_formula(params: dict, name: str, *columns: torch.Tensor) -> torch.Tensor:
    """The network of a key, written out."""
    x = linear(params, f"{name}.layers.0", torch.stack(columns, dim=-1))
    x = linear(params, f"{name}.layers.2", silu(x))
    return linear(params, f"{name}.layers.4", silu(x)).squeeze(-1)


def energy_formula(params: dict, entropy: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    w1, w2, w3 = (params[f"model_U_vol.layers.{n}.weight"].abs() for n in range(3))
    b1, b2, b3 = (params[f"model_U_vol.layers.{n}.bias"] for n in range(3))
    x = torch.stack([entropy, volume], dim=-1) @ (w1 * w1.new_tensor([1.0, -1.0])).T + b1
    return (softplus(softplus(x) @ w2.T + b2) @ w3.T + b3).squeeze(-1)


def slope_of(values: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(values.sum(), inputs, create_graph=True)


@pytest.fixture(params=[(torch.float32, 2), (torch.float64, 2), (torch.float64, 3)], ids=["f32-2d", "f64-2d", "f64-3d"])
def published(request, tmp_path) -> tuple[dict, MetriplecticModel]:
    params = made_up(*request.param)
    return params, import_published(*save(tmp_path, params))


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def model(request, tmp_path) -> MetriplecticModel:
    return import_published(*save(tmp_path, made_up(torch.float64, request.param)))


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}


def line_of_pairs(distances: torch.Tensor, dimension: int) -> Pairs:
    """Particle 0 and its partners at ``distances`` along x."""
    count = len(distances)
    displacement = torch.zeros(count, dimension, dtype=distances.dtype)
    displacement[:, 0] = distances
    index = torch.stack([torch.zeros(count, dtype=torch.long), torch.arange(1, count + 1)])
    return Pairs(index, displacement, count + 1)


def scattered(model: MetriplecticModel, count: int, box: Box, seed: int = 0) -> State:
    random = torch.Generator().manual_seed(seed)
    shape = (count, model.dimension)
    pos = torch.rand(shape, generator=random, dtype=torch.float64) * (0.9 if box.is_free else box.lengths[0])
    vel = torch.randn(shape, generator=random, dtype=torch.float64)
    entropy = torch.randn(count, generator=random, dtype=torch.float64)
    return State(pos, vel, entropy).to(dtype=model.dtype)


def distances(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(0.02, 0.98, 25, dtype=dtype) * H


def test_floating_type_numbers_and_dimension_are_those_of_the_file(published):
    params, model = published
    assert all(value.dtype == params["log_m"].dtype for value in model.state_dict().values())
    assert model.mass == params["log_m"].exp().squeeze()
    assert model.k_B == params["log_k_B"].exp().squeeze()
    assert (model.cutoff, model.dt) == (H, DT)
    assert model.dimension == params["teacher.layers.0.weight"].shape[1] - 1


def test_kernel_and_its_slope_are_the_formula(published):
    params, model = published
    r = distances(model.dtype).requires_grad_()
    expected = torch.exp(silu_formula(params, "model_W.MLP", r / H)) * (1.0 - (r / H) ** 2)
    value, slope = model.kernel(line_of_pairs(r.detach(), model.dimension))
    torch.testing.assert_close(value, expected, **tolerance(model.dtype))
    torch.testing.assert_close(slope, slope_of(expected, r)[0], **tolerance(model.dtype))
    at_zero = torch.exp(silu_formula(params, "model_W.MLP", torch.zeros(26, dtype=model.dtype)))
    torch.testing.assert_close(model.kernel.at_zero(line_of_pairs(r.detach(), model.dimension)), at_zero)


def test_equation_of_state_is_the_formula_with_exact_derivatives(published):
    params, model = published
    entropy = torch.linspace(-3.0, 3.0, 30, dtype=model.dtype).requires_grad_()
    volume = torch.linspace(1.5, 0.1, 30, dtype=model.dtype).requires_grad_()
    energy = energy_formula(params, entropy, volume)
    temperature, pressure = slope_of(energy, entropy, volume)
    capacity = temperature / slope_of(temperature, entropy)[0]
    found = model.equation_of_state(entropy.detach(), volume.detach())
    for value, expected in zip(found, (energy, temperature, -pressure, capacity), strict=True):
        torch.testing.assert_close(value, expected, **tolerance(model.dtype))
    assert all((value > 0).all() for value in found[1:])


@pytest.mark.parametrize(("column", "name"), [(SHEAR, "model_A"), (BULK, "model_B"), (HEAT, "model_C")])
def test_friction_is_the_formula_with_exact_temperature_slopes(published, column, name):
    params, model = published
    pairs = line_of_pairs(distances(model.dtype), model.dimension)
    temperature = torch.linspace(0.3, 2.0, pairs.num_particles, dtype=model.dtype)
    first, second = (x.clone().requires_grad_() for x in pairs.ends(temperature))
    rho = pairs.distance / H
    squared = (silu_formula(params, name, rho, first) * silu_formula(params, name, rho, second)) ** 2
    fluctuation = torch.linspace(0.1, 0.4, pairs.num_particles, dtype=model.dtype)
    by_first, by_second = (
        c * x for c, x in zip(pairs.ends(fluctuation), slope_of(squared, first, second), strict=True)
    )
    ito = by_first - by_second if column == HEAT else by_first + by_second
    found = model.friction(pairs, temperature, fluctuation, temperature, pairs.distance)
    for value, expected in zip(found, (squared, ito), strict=True):
        torch.testing.assert_close(value[:, column], expected, **tolerance(model.dtype))


def test_pairs_beyond_the_cutoff_do_nothing(published):
    _, model = published
    pairs = line_of_pairs(torch.tensor([1.0, 1.3, 40.0], dtype=model.dtype) * H, model.dimension)
    ones = torch.ones(pairs.num_particles, dtype=model.dtype)
    for value in (*model.kernel(pairs), *model.friction(pairs, ones, ones, ones, ones[1:])):
        assert (value == 0).all()


def test_encoder_is_the_mean_of_both_orientations_over_neighbours(published):
    params, model = published
    state = scattered(model, 12, Box.free(model.dimension))
    state.pos[-1] += 10.0  # a particle alone
    pairs = neighbor_pairs(state.pos, Box.free(model.dimension), H)
    seen = [[] for _ in range(12)]
    for i in range(12):
        for j in range(12):
            r = (state.pos[i] - state.pos[j]).norm()
            if i != j and r < H:
                for sign in (1.0, -1.0):
                    relative = sign * (state.vel[i] - state.vel[j])
                    seen[i].append(silu_formula(params, "teacher", r / H, *relative))
    entropy = model.encode(pairs, state.vel)
    for i in range(11):
        torch.testing.assert_close(entropy[i], torch.stack(seen[i]).mean(), **tolerance(model.dtype))
    zeros = torch.zeros(model.dimension, dtype=model.dtype)
    torch.testing.assert_close(entropy[11], silu_formula(params, "teacher", torch.ones_like(zeros[0]), *zeros))


def test_encoder_does_not_see_numbering_boosts_or_the_direction_of_time(model):
    box = Box.cubic(2.0, model.dimension)
    state = scattered(model, 20, box)
    entropy = model.encode(neighbor_pairs(state.pos, box, H), state.vel)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    renumbered = model.encode(neighbor_pairs(state.pos[order], box, H), state.vel[order])
    torch.testing.assert_close(renumbered, entropy[order], rtol=1e-12, atol=1e-12)
    pairs = neighbor_pairs(state.pos, box, H)
    torch.testing.assert_close(model.encode(pairs, state.vel + 3.0), entropy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.encode(pairs, -state.vel), entropy, rtol=1e-12, atol=1e-12)


def test_force_is_the_gradient_of_the_energy(model):
    box = Box.cubic(2.0, model.dimension)
    state = scattered(model, 15, box)
    pos = state.pos.clone().requires_grad_()
    pairs = neighbor_pairs(pos, box, H)
    (gradient,) = torch.autograd.grad(model.energy(State(pos, state.vel, state.entropy), pairs), pos)
    poisson, _ = model.brackets(state, neighbor_pairs(state.pos, box, H))
    torch.testing.assert_close(poisson.forces(), -gradient, rtol=1e-10, atol=1e-11)
    assert float(gradient.norm()) > 1e-3


def test_irreversible_drift_is_the_dense_friction_bracket_and_its_divergence(model):
    box = Box.free(model.dimension)
    state = scattered(model, 4, box)
    state = State(0.4 * state.pos, state.vel, state.entropy)
    pairs = neighbor_pairs(state.pos, box, H)
    assert pairs.num_pairs == 6
    side = 4 * model.dimension

    def matrix(x: torch.Tensor) -> torch.Tensor:
        return model.friction_matrix(State(state.pos, x[:side].view(4, -1), x[side:]), pairs)

    x = torch.cat([state.vel.ravel(), state.entropy])
    jacobian = torch.autograd.functional.jacobian(matrix, x)
    divergence = torch.einsum("abb->a", jacobian)
    expected = matrix(x)[:, side:].sum(dim=1) + model.k_B * divergence
    _, dissipative = model.brackets(state, pairs)
    velocity, entropy = dissipative.drift(pairs.relative(state.vel))
    torch.testing.assert_close(torch.cat([velocity.ravel(), entropy]), expected, rtol=1e-10, atol=1e-11)


def test_friction_bracket_is_positive_and_leaves_the_energy(model):
    box = Box.cubic(2.0, model.dimension)
    state = scattered(model, 6, box)
    pairs = neighbor_pairs(state.pos, box, H)
    dense = model.friction_matrix(state, pairs)
    gradient = torch.cat([(model.mass * state.vel).ravel(), model.temperature(state, pairs)])
    scale = float(dense.detach().abs().max())
    assert float((dense - dense.T).detach().abs().max()) <= 1e-14 * scale
    assert float(torch.linalg.eigvalsh(dense.detach()).min()) > -1e-12 * scale
    assert float((dense @ gradient).detach().abs().max()) < 1e-12 * scale


def test_energy_and_momentum_are_conserved_in_a_rollout(model):
    box = Box.cubic(2.0, model.dimension)
    traj = simulate(model, scattered(model, 40, box), box=box, dt=1e-3, steps=20, seed=3)
    energies, momenta = [], []
    for frame in range(len(traj)):
        state = State(traj.positions[frame], traj.velocities[frame], traj.entropies[frame])
        energies.append(model.energy(state, neighbor_pairs(state.pos, box, H)))
        momenta.append(model.momentum(state))
    kinetic = float(model.kinetic_energy(state))
    assert float(torch.stack(energies).detach().max() - torch.stack(energies).detach().min()) < 1e-11 * kinetic
    assert float((torch.stack(momenta) - momenta[0]).abs().max()) < 1e-11 * kinetic


def test_a_rollout_starts_from_the_imported_encoder(published):
    _, model = published
    box = Box.cubic(2.0, model.dimension)
    given = scattered(model, 30, box)
    traj = simulate(model, given, box=box, dt=1e-3, steps=2)
    state = State.from_frame(traj, 0, model)
    assert state.entropy.dtype == model.dtype
    pairs = neighbor_pairs(given.pos, box, H)
    torch.testing.assert_close(state.entropy, model.encode(pairs, given.vel).detach())
    assert torch.isfinite(simulate(model, state, box=box, dt=1e-3, steps=2).velocities).all()


def test_the_random_state_of_the_caller_is_left_alone(tmp_path):
    paths = save(tmp_path, made_up(torch.float64, 2))
    before = torch.get_rng_state()
    import_published(*paths)
    assert torch.equal(before, torch.get_rng_state())


def test_free_space_has_no_box(tmp_path):
    import_published(*save(tmp_path, made_up(torch.float32, 2), {**ARGS, "boxsize": None}))


@pytest.mark.parametrize(
    "key", ["log_k_B", "log_m", "model_C.layers.2.bias", "model_U_vol.layers.1.weight", "teacher.layers.4.weight"]
)
def test_a_missing_key_is_named(tmp_path, key):
    params = made_up(torch.float32, 2)
    del params[key]
    with pytest.raises(ValueError, match=f"no key '{key}'"):
        import_published(*save(tmp_path, params))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("log_m", torch.zeros(2), r"log_m has shape \[2\]"),
        ("log_k_B", torch.tensor([torch.nan]), "log_k_B has values that are not finite"),
        ("log_k_B", 1.0, "log_k_B is a float"),
        ("model_A.layers.0.weight", torch.zeros(WIDTH, 3), r"model_A.layers.0.weight has shape \[8, 3\].*\[any, 2\]"),
        ("model_A.layers.2.bias", torch.zeros(3), r"model_A.layers.2.bias has shape \[3\].*\[8\]"),
        ("model_B.layers.4.weight", torch.zeros(2, WIDTH), r"model_B.layers.4.weight has shape \[2, 8\].*\[1, 8\]"),
        ("model_W.MLP.layers.2.weight", torch.zeros(9, WIDTH), r"layers.2.weight has shape \[9, 8\].*\[8, 8\]"),
        ("model_C.layers.0.weight", torch.zeros(WIDTH, 2).half(), "model_C.layers.0.weight is of type torch.float16"),
        ("teacher.layers.0.weight", torch.zeros(WIDTH, 6), "has 6 inputs"),
        ("model_W.MLP.layers.6.weight", torch.zeros(1, 1), "model_W.MLP has a layer model_W.MLP.layers.6"),
        ("model_U_vol.layers.3.bias", torch.zeros(1), "model_U_vol has a layer model_U_vol.layers.3"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        import_published(*save(tmp_path, {**made_up(torch.float32, 2), key: value}))


@pytest.mark.parametrize("name", ["dt", "h", "boxsize", "n_hidden", "dim_hidden"])
def test_a_missing_setting_is_named(tmp_path, name):
    args = {key: value for key, value in ARGS.items() if key != name}
    with pytest.raises(ValueError, match=f"lacks {name}"):
        import_published(*save(tmp_path, made_up(torch.float32, 2), args))


@pytest.mark.parametrize(
    ("name", "value"),
    [("dt", 0.0), ("h", "0.7"), ("boxsize", -1.0), ("boxsize", []), ("dim_hidden", 1.5), ("n_hidden", 7)],
)
def test_a_setting_out_of_range_is_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        import_published(*save(tmp_path, made_up(torch.float32, 2), {**ARGS, name: value}))


def test_files_that_are_missing_or_unreadable_are_named(tmp_path):
    params, args = save(tmp_path, made_up(torch.float32, 2))
    with pytest.raises(ValueError, match=r"there is no weights file .*absent\.pt"):
        import_published(tmp_path / "absent.pt", args)
    with pytest.raises(ValueError, match=r"there is no settings file .*absent\.json"):
        import_published(params, tmp_path / "absent.json")
    with pytest.raises(ValueError, match="not JSON"):
        import_published(params, params)
    with pytest.raises(ValueError, match="cannot be read as a file of tensors"):
        import_published(args, args)
    torch.save([1.0], params)
    with pytest.raises(ValueError, match="holds a list; expected a state dict"):
        import_published(params, args)
