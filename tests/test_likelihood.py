"""The likelihood is the density of the integrator's own steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import ideal_gas, learned_model, learned_settings, mismatch, pairs_of_state, scattered
from torch import Tensor
from torch_geometric.data import Batch, Data

from gnn_metriplectic.dynamics.integrators import EnergyConserving, EulerMaruyama
from gnn_metriplectic.geometry import Box, Pairs, batch_pairs, transition_pairs
from gnn_metriplectic.learning.likelihood import RESIDUALS, negative_log_likelihood
from gnn_metriplectic.learning.module import MetriplecticModule
from gnn_metriplectic.models import MetriplecticModel, State
from gnn_metriplectic.terms import Friction, FrictionTerm


def copies(state: State, count: int) -> State:
    """The same particles many times, out of reach of one another."""
    dimension = state.pos.shape[1]
    side = 1 + int(count ** (1.0 / dimension))
    corner = 5.0 * torch.cartesian_prod(*[torch.arange(side)] * dimension)[:count].to(state.pos)
    species = None if state.species is None else state.species.repeat(count)
    pos = (state.pos + corner.unsqueeze(1)).reshape(-1, dimension)
    return State(pos, state.vel.repeat(count, 1), state.entropy.repeat(count), species)


def transition(model: MetriplecticModel, start: State, end: State) -> tuple[Pairs, Pairs]:
    pairs = transition_pairs(start.pos, end.pos, Box.free(model.dimension), model.cutoff)
    return pairs, pairs.moved(end.pos - start.pos)


def configured(model: MetriplecticModel, start: State, pairs: tuple[Pairs, Pairs]):
    return tuple(model.configuration(p, start.species) for p in pairs)


@torch.no_grad()
def one_step(model: MetriplecticModel, start: State, dt: float, seed: int = 0, scheme=EnergyConserving) -> State:
    integrator = scheme(model, Box.free(model.dimension), dt, seed=seed)
    integrator.sweeps = 40
    return integrator.step(integrator.start(start)).state


def drag_rate(model: MetriplecticModel, state: State) -> float:
    """Largest γ = friction / m of a particle."""
    _, dissipative = model.brackets(state, pairs_of_state(model, state, Box.free(model.dimension)))
    blocks = dissipative.blocks(dissipative.drag) / dissipative.mass[:, None, None]
    return float(torch.linalg.eigvalsh(blocks)[..., -1].max())


def one_among_heavy(model_of, dimension: int) -> tuple[MetriplecticModel, State]:
    """A particle of mass 1 among three that a step hardly moves."""
    model = model_of(dimension, mass=[1.0, 1e8])
    state = scattered(model, 4, spacing=0.35)
    return model, replace(state, species=torch.tensor([0, 1, 1, 1]))


def viscous_gas(dimension: int, **options) -> MetriplecticModel:
    """Friction that acts before forces do: their work is booked along the path, not at the midpoint velocity."""
    return ideal_gas(dimension, viscosity=40.0, **options)


def viscous_learned(dimension: int, **options) -> MetriplecticModel:
    model = learned_model(dimension, **options)
    model.friction.squared_scale.mul_(torch.tensor([30.0, 30.0, 1.0]))
    return model


MODELS = pytest.mark.parametrize("model_of", [viscous_gas, viscous_learned], ids=["gas", "learned"])


@MODELS
@pytest.mark.parametrize("integrator", RESIDUALS)
def test_density_of_a_transition_integrates_to_one(model_of, integrator):
    model = model_of(2)
    state = scattered(model, 3, spacing=0.35)
    dt = 0.1 / drag_rate(model, state)
    pairs = pairs_of_state(model, state, Box.free(2))
    drift = model.drift(state, pairs)
    width = torch.sqrt(torch.diagonal(model.covariance(state, pairs, dt)[0]))
    center = torch.cat([state.vel[0] + dt * drift.vel[0], state.entropy[:1] + dt * drift.entropy[:1]])
    points = 49
    axes = [
        c + w * torch.linspace(-11.0, 11.0, points, dtype=torch.float64) for c, w in zip(center, width, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    start = copies(state, len(grid))
    end = copies(one_step(model, state, dt), len(grid))
    vel, entropy = end.vel.clone(), end.entropy.clone()
    vel[::3], entropy[::3] = grid[:, :2], grid[:, 2]
    end = replace(end, vel=vel, entropy=entropy, pos=end.pos)
    first, second = transition(model, start, end)
    nll = negative_log_likelihood(
        model, start, end, configured(model, start, (first, second)), dt, integrator=integrator
    )[::3]
    cell = torch.stack([axis[1] - axis[0] for axis in axes]).prod()
    assert float(torch.exp(-nll).sum() * cell) == pytest.approx(1.0, abs=1e-4)


@MODELS
@pytest.mark.parametrize("dimension", [2, 3])
def test_residuals_of_steps_among_heavy_partners_are_white(model_of, dimension):
    model, state = one_among_heavy(model_of, dimension)
    count, dt = 8000, 0.4 / drag_rate(model, state)
    start = copies(state, count)
    end = one_step(model, start, dt)
    residual, covariance, *_ = RESIDUALS["energy_conserving"](
        model, start, end, configured(model, start, transition(model, start, end)), dt, 0.0
    )
    factor = torch.linalg.cholesky(covariance[::4])
    white = torch.linalg.solve_triangular(factor, residual[::4].unsqueeze(2), upper=False).squeeze(2)
    assert white.mean(dim=0).abs().max() < 4.5 / count**0.5
    identity = torch.eye(dimension + 1, dtype=torch.float64)
    assert (torch.cov(white.T) - identity).abs().max() < 4.5 * (2.0 / count) ** 0.5
    assert ((white**4).mean(dim=0) - 3.0).abs().max() < 4.5 * (96.0 / count) ** 0.5


def test_density_is_that_of_the_sampled_steps():
    # the mean of p / q over samples of p, q another density, tells p: here the mean of exp(nll - nll of a moved model)
    model, state = one_among_heavy(viscous_gas, 2)
    count, dt = 8000, 0.3 / drag_rate(model, state)
    start = copies(state, count)
    end = one_step(model, start, dt)
    pairs = transition(model, start, end)
    nll = negative_log_likelihood(model, start, end, configured(model, start, pairs), dt)[::4]
    for change in (0.15, -0.15):
        with torch.no_grad():
            model.log_k_B.add_(change)
            ratio = torch.exp(
                nll - negative_log_likelihood(model, start, end, configured(model, start, pairs), dt)[::4]
            )
            model.log_k_B.sub_(change)
        error = float(ratio.std()) / count**0.5
        assert error < 0.01
        assert float(ratio.mean()) == pytest.approx(1.0, abs=4.5 * error)
        assert float(ratio.std()) > 0.05


class ScaledFriction(FrictionTerm):
    """A friction with its amplitudes² multiplied by two parameters, for momentum and for heat."""

    def __init__(self, friction: FrictionTerm, scale: Tensor) -> None:
        super().__init__()
        self.friction, self.scale = friction, scale

    def forward(self, *arguments) -> Friction:
        factors = torch.exp(self.scale[[0, 0, 1]])
        return Friction(*(factors * x for x in self.friction(*arguments)))


def scores(model: MetriplecticModel, start: State, end: State, dt: float, mask: Tensor, blocks: int):
    """Gradient of the mean nll along (ln k_B, ln drag, ln conduction) of each block of copies, and the mean Hessian."""
    pairs = transition(model, start, end)

    def nll(parameters: Tensor) -> Tensor:
        changed = MetriplecticModel(
            model.kernel,
            model.equation_of_state,
            ScaledFriction(model.friction, parameters[1:]),
            mass=model.mass.tolist(),
            k_B=1.0,
            dt=model.dt,
            dimension=model.dimension,
        )
        del changed.log_k_B
        changed.log_k_B = model.log_k_B + parameters[0]
        return (
            negative_log_likelihood(changed, start, end, configured(changed, start, pairs), dt)[mask]
            .view(blocks, -1)
            .mean(dim=1)
        )

    def slopes(at: Tensor) -> Tensor:
        return torch.stack([torch.func.jvp(nll, (at,), (unit,))[1] for unit in torch.eye(3, dtype=at.dtype)], dim=1)

    width = 1e-3 * torch.eye(3, dtype=torch.float64)
    hessian = torch.stack([(slopes(step) - slopes(-step)).mean(dim=0) / 2e-3 for step in width])
    return slopes(torch.zeros(3, dtype=torch.float64)), 0.5 * (hessian + hessian.T)


@MODELS
def test_scores_at_the_true_parameters_have_zero_mean(model_of):
    model, state = one_among_heavy(model_of, 3)
    count, dt = 8000, 0.4 / drag_rate(model, state)
    start = copies(state, count)
    end = one_step(model, start, dt, seed=1)
    gradients, hessian = scores(model, start, end, dt, start.species == 0, 40)
    error = gradients.std(dim=0) / 40**0.5
    assert (gradients.mean(dim=0).abs() < 4.5 * error).all()
    assert (torch.linalg.eigvalsh(hessian) > 0).all()
    # the spread of the scores is the curvature of the likelihood: only a density has both equal
    information = torch.cov(gradients.T) * count / 40
    assert 0.4 < float(information[0, 0] / hessian[0, 0]) < 1.9


@pytest.mark.parametrize(
    ("particles", "reach", "count"),
    [
        (2, 0.8, 6000),
        (4, 0.4, 3000),
        (16, 0.4, 800),
        *(pytest.param(16, r, 6000, marks=pytest.mark.slow) for r in (0.1, 0.2, 0.4)),
    ],
)
def test_friction_among_equal_masses_is_found(particles, reach, count):
    # partners recoil; what they answer one another is left out of a particle's likelihood
    model = viscous_gas(3, conductivity=40.0)
    single = scattered(model, particles, spacing=0.3)
    dt = reach / drag_rate(model, single)
    start = copies(single, count)
    start = State.equilibrium(model, start.pos, Box.free(3), temperature=1.0, seed=3)
    end = one_step(model, start, dt, seed=2)
    everyone = torch.ones(particles * count, dtype=torch.bool)
    gradients, hessian = scores(model, start, end, dt, everyone, 40)
    offset = -torch.linalg.solve(hessian, gradients.mean(dim=0))
    error = torch.linalg.solve(hessian, gradients.T).std(dim=1) / 40**0.5
    assert error.max() < (0.01 if particles * count > 50_000 and reach > 0.1 else 0.025)
    assert (offset.abs() < 0.01 + 3.0 * error).all()


def test_a_particle_without_neighbours_has_no_likelihood():
    model = ideal_gas(3)
    state = scattered(model, 4, spacing=0.3)
    lonely = State(
        torch.cat([state.pos, torch.full((1, 3), 30.0, dtype=torch.float64)]),
        torch.cat([state.vel, torch.ones(1, 3, dtype=torch.float64)]),
        torch.cat([state.entropy, torch.zeros(1, dtype=torch.float64)]),
    )
    end = one_step(model, lonely, 0.01)
    pairs = transition(model, lonely, end)
    nll = negative_log_likelihood(model, lonely, end, configured(model, lonely, pairs), 0.01)
    fewer = tuple(Pairs(p.index, p.displacement, 4) for p in pairs)
    end = State(end.pos[:4], end.vel[:4], end.entropy[:4])
    alone = negative_log_likelihood(model, state, end, configured(model, state, fewer), 0.01)
    assert nll[4] == 0
    assert mismatch(nll[:4], alone) < 1e-12


def test_a_particle_without_noise_in_one_direction_has_a_likelihood():
    model = learned_model(3).float()
    model.friction.squared_scale[:2] = torch.tensor([0.0, 0.2])  # along pairs only
    pos = torch.tensor([[0.0, 0.1, 0.0], [0.3, 0.5, 0.2], [0.5, 0.0, 0.6]])  # each has two partners
    state = State(pos, 0.1 * pos.flip(0), 0.1 * pos[:, 0])
    pairs = transition(model, state, state)
    found = {}
    for name, scale in (("along", 0.0), ("and hardly across", 1e-5)):
        model.friction.squared_scale[0] = scale
        configurations = configured(model, state, pairs)
        _, covariance, *_ = RESIDUALS["energy_conserving"](model, state, state, configurations, 0.01, 0.0)
        found[name] = torch.linalg.eigvalsh(covariance[:, :3, :3])
        assert torch.isfinite(negative_log_likelihood(model, state, state, configurations, 0.01)).all()
    assert (found["along"][:, 0] < 1e-6 * found["along"][:, 2]).all()
    assert (found["and hardly across"][:, 0] > 1e-6 * found["along"][:, 2]).all()


def test_an_outer_acceleration_moves_the_mean():
    model = ideal_gas(3, viscosity=1e-12)
    state = scattered(model, 4, spacing=0.3)
    push = torch.linspace(-3.0, 5.0, 12, dtype=torch.float64).view(4, 3)
    end = one_step(model, state, 0.01)
    pairs = transition(model, state, end)
    for integrator in RESIDUALS:
        residual = [
            RESIDUALS[integrator](model, state, end, configured(model, state, pairs), 0.01, acceleration)[0][:, :3]
            for acceleration in (0.0, push)
        ]
        change = residual[0] - residual[1]  # each particle's in a unit of its own
        assert mismatch(*(torch.nn.functional.normalize(x, dim=1) for x in (change, push))) < 1e-9


@pytest.mark.parametrize("step", [-0.04, 0.04])
@pytest.mark.parametrize("integrator", RESIDUALS)
def test_a_pair_that_begins_or_ends_counts_where_the_noise_is(integrator, step):
    model = ideal_gas(3)
    zero = torch.zeros(2, dtype=torch.float64)
    place = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    start, end = (
        State(place * distance, torch.full_like(place, 0.1), zero) for distance in (1.0 - 0.5 * step, 1.0 + 0.5 * step)
    )
    configurations = configured(model, start, transition(model, start, end))
    nll = negative_log_likelihood(model, start, end, configurations, 0.01, integrator=integrator)
    noisy = (step > 0) == (integrator == "euler_maruyama")  # friction acts at the start or at the end
    assert torch.isfinite(nll).all()
    assert bool((nll != 0).all()) is noisy


@pytest.mark.parametrize("integrator", RESIDUALS)
def test_likelihood_of_a_batch_is_that_of_its_graphs(integrator):
    model = learned_model(3, mass=[0.5, 2.0], seed=2)
    starts = [scattered(model, count, spacing=0.4, seed=count) for count in (4, 9)]
    ends = [one_step(model, start, 0.002) for start in starts]
    pairs = [transition(model, a, b) for a, b in zip(starts, ends, strict=True)]
    single = [
        negative_log_likelihood(model, a, b, configured(model, a, p), 0.002, integrator=integrator)
        for a, b, p in zip(starts, ends, pairs, strict=True)
    ]

    def joined(states: list[State]) -> State:
        return State(*(torch.cat([getattr(s, name) for s in states]) for name in ("pos", "vel", "entropy", "species")))

    batch = tuple(batch_pairs(column) for column in zip(*pairs, strict=True))
    together = negative_log_likelihood(
        model, joined(starts), joined(ends), configured(model, joined(starts), batch), 0.002, integrator=integrator
    )
    assert mismatch(together, torch.cat(single)) < 1e-11


def test_an_unknown_integrator_has_no_likelihood():
    model = ideal_gas(3)
    state = scattered(model, 4)
    with pytest.raises(ValueError, match="'leapfrog'"):
        negative_log_likelihood(
            model, state, state, configured(model, state, transition(model, state, state)), 0.01, integrator="leapfrog"
        )


def graph(module: MetriplecticModule, count: int) -> Data:
    """A transition with the mean volume that the model gives its particles."""
    model = module.model
    start = scattered(model, count, spacing=0.4, seed=count)
    end = one_step(model, start, model.dt)
    pairs, moved = transition(model, start, end)
    with torch.no_grad():
        volume, _ = model.kernel.volume(pairs, start.species)
    return Data(
        num_nodes=count,
        vel=start.vel,
        next_vel=end.vel,
        pair_index=pairs.index,
        displacement=pairs.displacement,
        next_displacement=moved.displacement,
        acceleration=torch.zeros_like(start.vel),
        active=torch.ones(count, dtype=torch.bool),
        particle_volume=volume.mean()[None],
        temperature=torch.ones(1, dtype=torch.float64),
        species=start.species,
        entropy=start.entropy,
        next_entropy=end.entropy,
    )


def test_loss_of_a_batch_is_the_mean_over_the_particles_of_its_graphs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = learned_settings(3, [0.5, 2.0], entropy="observed")
        module = MetriplecticModule(settings, {"lr": 1e-3, "steps": 10, "warmup": 0.1}).double()
    graphs = [graph(module, count) for count in (5, 12)]
    with torch.no_grad():
        losses = [float(module(Batch.from_data_list([g]))) for g in graphs]
        together = float(module(Batch.from_data_list(graphs)))
    assert together == pytest.approx((5 * losses[0] + 12 * losses[1]) / 17, rel=1e-11)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_euler_maruyama_has_the_likelihood_of_its_steps():
    model, state = one_among_heavy(viscous_gas, 3)
    count, dt = 8000, 0.3 / drag_rate(model, state)
    start = copies(state, count)
    end = one_step(model, start, dt, scheme=EulerMaruyama)
    residual, covariance, *_ = RESIDUALS["euler_maruyama"](
        model, start, end, configured(model, start, transition(model, start, end)), dt, 0.0
    )
    factor = torch.linalg.cholesky(covariance[::4])
    white = torch.linalg.solve_triangular(factor, residual[::4].unsqueeze(2), upper=False).squeeze(2)
    assert white.mean(dim=0).abs().max() < 4.5 / count**0.5
    assert (torch.cov(white.T) - torch.eye(4, dtype=torch.float64)).abs().max() < 4.5 * (2.0 / count) ** 0.5
