"""Kernels, equations of state, friction and the entropy objective, against automatic differentiation."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import TOLERANCE, ideal_gas, learned_model, mismatch
from torch import Tensor

from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.models.table_errors import errors_of_law
from gnn_metriplectic.terms import IdealGas, LearnedEquationOfState, SDPDFriction
from gnn_metriplectic.terms.entropy import negentropy
from gnn_metriplectic.terms.friction import BULK, HEAT, SHEAR
from gnn_metriplectic.terms.tabulated import TabulatedEquationOfState
from gnn_metriplectic.transforms import transforming

EXACT = TOLERANCE[torch.float64]
MODELS = {
    "gas": ideal_gas,
    "learned": learned_model,
    "two species": lambda dimension: learned_model(dimension, mass=[0.5, 2.0], seed=2),
}


@pytest.fixture(params=MODELS, ids=lambda name: name.replace(" ", "_"))
def name(request) -> str:
    return request.param


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def model(request, name):
    return MODELS[name](request.param)


def species_of(model, count: int) -> Tensor | None:
    kinds = model.log_mass.numel()
    return None if kinds == 1 else torch.arange(count) % kinds


def separate_pairs(distance: Tensor, dimension: int) -> Pairs:
    """Pairs (0, 1), (2, 3), ... at given distances."""
    displacement = torch.cat([distance[:, None], distance.new_zeros(len(distance), dimension - 1)], dim=1)
    return Pairs(torch.arange(2 * len(distance)).view(-1, 2).T, displacement, 2 * len(distance))


def random_states(count: int = 200) -> tuple[Tensor, Tensor]:
    """Entropies and volumes over a wide range."""
    generator = torch.Generator().manual_seed(0)
    entropy = 2.0 * torch.randn(count, generator=generator, dtype=torch.float64)
    return entropy, 0.3 * torch.exp(0.7 * torch.randn(count, generator=generator, dtype=torch.float64))


class TestKernel:
    def test_value_and_slope_vanish_at_the_cutoff(self, model):
        pairs = separate_pairs(torch.tensor([1.0, 1.2], dtype=torch.float64), model.dimension)
        value, slope = model.kernel(pairs, species_of(model, 4))
        assert value.abs().max() == 0
        assert slope.abs().max() == 0

    def test_slope_is_the_derivative_of_the_value(self, model):
        distance = torch.linspace(0.01, 0.999, 50, dtype=torch.float64, requires_grad=True)
        value, slope = model.kernel(separate_pairs(distance, model.dimension), species_of(model, 100))
        assert mismatch(slope, torch.autograd.grad(value.sum(), distance)[0]) < EXACT
        assert (value > 0).all()

    @torch.no_grad()
    def test_value_falls_with_distance_whatever_the_weights(self, model):
        random = torch.Generator().manual_seed(1)
        for parameter in model.kernel.parameters():
            parameter.add_(2.0 * torch.randn(parameter.shape, generator=random))
        distance = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
        _, slope = model.kernel(separate_pairs(distance, model.dimension), species_of(model, 400))
        assert (slope < 0).all()

    def test_value_at_zero_is_the_limit_of_the_pair(self, model):
        pairs = separate_pairs(torch.tensor([1e-9], dtype=torch.float64), model.dimension)
        alike = None if model.log_mass.numel() == 1 else torch.tensor([1, 1])
        value, _ = model.kernel(pairs, alike)
        assert mismatch(model.kernel.at_zero(pairs, alike), value.expand(2)) < 1e-7

    def test_volume_is_the_inverse_of_the_density(self, model):
        pairs = separate_pairs(torch.tensor([0.3], dtype=torch.float64), model.dimension)
        kinds = species_of(model, 2)
        volume, _ = model.kernel.volume(pairs, kinds)
        density = model.kernel.at_zero(pairs, kinds) + model.kernel(pairs, kinds)[0]
        assert mismatch(1.0 / volume, density) < EXACT


@pytest.mark.parametrize("dimension", [2, 3])
def test_lucy_kernel_is_normalised(dimension):
    kernel = ideal_gas(dimension).kernel
    r = torch.linspace(0.0, 1.0, 20001, dtype=torch.float64)
    value, _ = kernel(separate_pairs(r, dimension))
    shell = {2: 2.0 * math.pi * r, 3: 4.0 * math.pi * r**2}[dimension]
    assert float(torch.trapezoid(value * shell, r)) == pytest.approx(1.0, abs=1e-8)


class TestEquationOfState:
    def test_temperature_pressure_and_capacity_are_derivatives_of_the_energy(self, model):
        entropy, volume = (x.requires_grad_() for x in random_states())
        thermo = model.equation_of_state(entropy, volume, species_of(model, 200))
        temperature, slope = torch.autograd.grad(thermo.energy.sum(), (entropy, volume), create_graph=True)
        (curvature,) = torch.autograd.grad(temperature.sum(), entropy)
        assert ((thermo.temperature - temperature).abs() / temperature < EXACT).all()
        assert ((thermo.pressure + slope).abs() / thermo.pressure < EXACT).all()
        assert ((thermo.heat_capacity * curvature / temperature - 1.0).abs() < EXACT).all()

    def test_energy_is_convex_with_positive_temperature_and_pressure(self, model):
        entropy, volume = (x.requires_grad_() for x in random_states())
        thermo = model.equation_of_state(entropy, volume, species_of(model, 200))
        rows = [
            torch.autograd.grad(x.sum(), (entropy, volume), retain_graph=True)
            for x in (thermo.temperature, -thermo.pressure)
        ]
        determinant = rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
        assert (thermo.temperature > 0).all()
        assert (thermo.pressure > 0).all()
        assert (rows[0][0] > 0).all()
        assert (determinant > -EXACT * rows[0][0] * rows[1][1]).all()

    def test_temperature_grows_without_bound(self, model):
        entropy = torch.linspace(0.0, 60.0, 7, dtype=torch.float64)
        kinds = species_of(model, 7)
        thermo = model.equation_of_state(entropy, torch.full_like(entropy, 0.3), None if kinds is None else 0 * kinds)
        assert (thermo.temperature.diff() > 0).all()
        assert thermo.temperature[-1] > 1e3 * thermo.temperature[0]

    def test_entropy_of_the_energy_is_the_entropy(self, model):
        entropy, volume = random_states()
        kinds = species_of(model, 200)
        thermo = model.equation_of_state(entropy, volume, kinds)
        for guess in (entropy, entropy + 0.1, torch.zeros_like(entropy), entropy.roll(1)):
            found, _ = model.equation_of_state.entropy_of(thermo.energy, volume, guess, kinds)
            back = model.equation_of_state(found, volume, kinds).energy
            assert ((back - thermo.energy).abs() / thermo.energy).max() < 1e-14 * 10
            # an error of the energy is one of the entropy by 1/T
            assert ((found - entropy).abs() * thermo.temperature / thermo.energy).max() < 1e-13

    def test_an_energy_without_temperature_is_an_error_that_names_the_particle(self, model):
        entropy, volume = (x[:5] for x in random_states())
        kinds = species_of(model, 5)
        energy = model.equation_of_state(entropy, volume, kinds).energy.clone()
        energy[3] = -1.0
        with pytest.raises(ValueError, match=r"particle 3 has internal energy -1 .*no temperature"):
            model.equation_of_state.entropy_of(energy, volume, entropy, kinds)


def test_ideal_gas_obeys_its_law():
    gas = IdealGas(atoms=7.0, k_B=0.2, temperature=5.0, volume=0.3)
    entropy, volume = random_states()
    thermo = gas(entropy, volume)
    assert mismatch(thermo.pressure * volume, 7.0 * 0.2 * thermo.temperature) < EXACT
    assert mismatch(thermo.energy, 1.5 * 7.0 * 0.2 * thermo.temperature) < EXACT
    reference = gas(torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.3, dtype=torch.float64))
    assert float(reference.temperature) == pytest.approx(5.0, rel=1e-14)


class TestFriction:
    def amplitudes(self, model, distance: Tensor, temperature: Tensor, fluctuation: Tensor, flip: bool = False):
        pairs = separate_pairs(distance, model.dimension)
        kinds = species_of(model, 2 * len(distance))
        if flip:
            pairs = Pairs(pairs.index.flip(0), -pairs.displacement, pairs.num_particles)
        volume = torch.linspace(0.2, 0.5, len(temperature), dtype=torch.float64)
        _, slope = model.kernel(pairs, kinds)
        return model.friction(pairs, temperature, fluctuation, volume, slope, kinds)

    def sample(self, requires_grad: bool = False):
        distance = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        temperature = 5.0 * torch.exp(0.4 * torch.randn(80, generator=generator, dtype=torch.float64))
        return distance, temperature.requires_grad_(requires_grad)

    def test_slopes_are_derivatives_with_the_two_temperatures(self, model):
        distance, temperature = self.sample(requires_grad=True)
        fluctuation = torch.linspace(0.1, 0.6, len(temperature), dtype=torch.float64)
        friction = self.amplitudes(model, distance, temperature, fluctuation)
        for channel, sign in ((SHEAR, 1.0), (BULK, 1.0), (HEAT, -1.0)):
            (gradient,) = torch.autograd.grad(friction.squared[:, channel].sum(), temperature, retain_graph=True)
            first, second = (fluctuation * gradient).view(-1, 2).unbind(dim=1)
            assert mismatch(friction.ito[:, channel], first + sign * second) < EXACT
            assert first.abs().max() > 0

    def test_amplitudes_are_symmetric_in_the_pair(self, model):
        distance, temperature = self.sample()
        fluctuation = torch.linspace(0.1, 0.6, len(temperature), dtype=torch.float64)
        one, other = (self.amplitudes(model, distance, temperature, fluctuation, flip) for flip in (False, True))
        assert mismatch(other.squared, one.squared) < EXACT
        assert mismatch(other.ito[:, [SHEAR, BULK]], one.ito[:, [SHEAR, BULK]]) < EXACT
        assert mismatch(other.ito[:, HEAT], -one.ito[:, HEAT]) < EXACT

    def test_amplitudes_are_positive_and_vanish_at_the_cutoff(self, model):
        distance, temperature = self.sample()
        assert (self.amplitudes(model, distance, temperature, temperature).squared > 0).all()
        distance = torch.tensor([1.0, 1.1], dtype=torch.float64)
        assert self.amplitudes(model, distance, temperature[:4], temperature[:4]).squared.abs().max() == 0


@torch.no_grad()
def test_friction_and_conduction_of_a_pair_are_bounded_whatever_the_weights():
    friction = learned_model(3).friction
    random = torch.Generator().manual_seed(1)
    for parameter in friction.parameters():
        parameter.mul_(10.0).add_(torch.randn(parameter.shape, generator=random))
    pairs = separate_pairs(torch.linspace(0.0, 0.99, 400, dtype=torch.float64), 3)
    temperature = friction.temperature_scale * torch.exp(3.0 * torch.randn(800, generator=random, dtype=torch.float64))
    nothing = torch.zeros_like(temperature)
    squared = friction(pairs, temperature, nothing, nothing + 1.0, nothing[:400]).squared
    first, second = (temperature / friction.temperature_scale).view(-1, 2).unbind(dim=1)
    power = torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    largest = torch.exp(4.0 * friction.radial.most) * friction.squared_scale
    share = squared / (largest * (first * second).unsqueeze(1) ** power)
    assert (share <= 1.0).all()
    assert share.max() > 0.1


def test_shear_and_bulk_viscosity_of_sdpd_obey_their_bound():
    with pytest.raises(ValueError, match="bulk viscosity"):
        SDPDFriction(shear_viscosity=1.0, bulk_viscosity=1.7, conductivity=1.0)


def test_encoder_is_standardised_by_its_running_statistics():
    encoder = learned_model(3).encoder
    raw = torch.linspace(-1.0, 2.0, 50, dtype=torch.float64)
    encoder.follow(raw.mean(), raw.var(unbiased=False), 1.0)
    value = encoder.standardise(raw)
    assert abs(float(value.mean())) < 1e-14
    assert float(value.var(unbiased=False)) == pytest.approx(1.0, abs=1e-13)


def test_running_statistics_are_those_of_all_batches_together():
    encoder = learned_model(3).encoder
    batches = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batches = batches * torch.tensor([[1.0], [2.0], [0.5], [1.5], [1.0]]) + torch.arange(5)[:, None]
    for number, batch in enumerate(batches):
        encoder.follow(batch.mean(), batch.var(unbiased=False), 1.0 / (number + 1))
    assert float(encoder.mean) == pytest.approx(float(batches.mean()), rel=1e-12)
    assert float(encoder.variance) == pytest.approx(float(batches.var(unbiased=False)), rel=1e-12)


def test_scaling_and_shifting_the_raw_entropy_has_no_gradient():
    encoder = learned_model(3).encoder
    raw = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = raw.mean()
    encoder.follow(mean, raw.var(unbiased=False), 1.0)
    parameters = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    scale, shift, bend = parameters

    def loss(gauge: bool) -> Tensor:
        shaped = raw + bend * raw**3
        changed = mean + torch.exp(scale) * (shaped - mean) + shift
        return (encoder.standardise(changed, changed if gauge else None) ** 4).mean()

    (free,) = torch.autograd.grad(loss(False), parameters)
    (gradient,) = torch.autograd.grad(loss(True), parameters)
    assert abs(float(gradient[0])) < 1e-12 * abs(float(free[0]))
    assert abs(float(gradient[1])) < 1e-12 * abs(float(free[0]))
    assert abs(float(gradient[2])) > 0.1, "the shape has one"


def test_gradient_of_the_statistics_is_the_mean_over_batches_however_unlike():
    encoder = learned_model(3).encoder
    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(5, 40, generator=generator, dtype=torch.float64) + torch.arange(5)[:, None]
    encoder.follow(batches.mean(), batches.var(unbiased=False), 1.0)
    value = torch.tensor([0.7, -1.3], dtype=torch.float64)

    def gradient(counted: Tensor) -> Tensor:
        parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        changed = counted + parameters[0] * counted**2 + parameters[1] * torch.sin(counted)
        return torch.autograd.grad((encoder.standardise(value, changed) ** 3).sum(), parameters)[0]

    parts = torch.stack([gradient(batch) for batch in batches])
    assert mismatch(parts.mean(dim=0), gradient(batches.ravel())) < EXACT
    assert mismatch(parts[0], parts[1]) > 0.1


def test_a_normal_sample_has_no_negentropy():
    sample = torch.randn(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(float(negentropy(sample))) < 0.05


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        # half the width of a uniform and the scale of an exponential distribution of variance 1
        (lambda u: (2.0 * u - 1.0) * 3.0**0.5, 0.5 * math.log(2 * math.pi * math.e) - math.log(2.0 * 3.0**0.5)),
        (lambda u: -torch.log1p(-u) - 1.0, 0.5 * math.log(2 * math.pi * math.e) - 1.0),
    ],
    ids=["uniform", "exponential"],
)
def test_negentropy_is_that_of_the_distribution(sample, expected):
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(negentropy(sample(uniform))) == pytest.approx(expected, abs=0.03)


def test_shrinking_all_entropies_but_outliers_costs_as_much_as_the_likelihood_gains():
    # ln of the width is what a likelihood gains when S shrinks; outliers hold the variance
    generator = torch.Generator().manual_seed(0)
    bulk = torch.randn(20000, generator=generator, dtype=torch.float64)
    outliers = 30.0 * torch.sign(torch.randn(20, generator=generator, dtype=torch.float64))

    def shrunk(width: float) -> Tensor:
        return negentropy(torch.cat([width * bulk, outliers]))

    for width in (0.3, 0.1, 0.03):
        assert float(shrunk(width) - shrunk(1.0)) == pytest.approx(-math.log(width), rel=0.06)


def test_negentropy_is_differentiable():
    sample = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(negentropy, (sample,))


def test_blocks_of_rows_change_no_value(model, monkeypatch):
    count, generator = 50, torch.Generator().manual_seed(4)
    pairs = separate_pairs(torch.rand(count, generator=generator, dtype=torch.float64), model.dimension)
    entropy, volume = torch.rand(2, 2 * count, generator=generator, dtype=torch.float64) + 0.1
    kinds = species_of(model, 2 * count)

    def values() -> list[Tensor]:
        thermo = model.equation_of_state(entropy, volume, kinds)
        temperature, slope = thermo.temperature, model.kernel(pairs, kinds)[1]
        friction = model.friction(pairs, temperature, 0.01 * temperature, volume, slope, kinds)
        return [slope, *thermo, *friction]

    with torch.no_grad():
        whole = values()
        monkeypatch.setattr("gnn_metriplectic.terms.rows.ROWS", 7)
        pieces = values()
    for ours, expected in zip(pieces, whole, strict=True):
        assert mismatch(ours, expected) < EXACT


def test_a_pytorch_that_does_not_tell_of_transforms_gives_the_same(model, monkeypatch):
    pairs = separate_pairs(torch.linspace(0.1, 0.9, 10, dtype=torch.float64), model.dimension)
    kinds = species_of(model, 20)
    with torch.no_grad():
        expected = model.kernel.volume(pairs, kinds)
        monkeypatch.setattr("gnn_metriplectic.transforms.torch", SimpleNamespace(_C=None))
        assert transforming()
        ours = model.kernel.volume(pairs, kinds)
    for a, b in zip(ours, expected, strict=True):
        assert mismatch(a, b) < EXACT


def test_rigid_particles_have_no_pressure():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        law = LearnedEquationOfState(
            energy=1.0, volume=0.5, entropy=1.0, heat_capacity=3.0, width=8, compressible=False
        ).double()
    entropy = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)
    near, far = (law(entropy, torch.full_like(entropy, volume)) for volume in (0.1, 1.0))
    assert torch.equal(near.energy, far.energy)
    assert not near.pressure.any()
    assert bool((near.temperature.diff() > 0.0).all())
    table = TabulatedEquationOfState.of(law.requires_grad_(False), (-2.0, 2.0), (-2.0, 0.0), (32, 4))
    errors = errors_of_law(table, law)
    assert max(errors.values()) < 1e-3
    assert errors["P V"] < 1e-6
