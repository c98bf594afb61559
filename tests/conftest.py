"""Models and states that several test files share."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gnn_metriplectic.geometry import Box, Reference, neighbor_pairs
from gnn_metriplectic.models import MetriplecticModel, ParticleModel, Scales, SpringNetwork, State, build_model
from gnn_metriplectic.terms import (
    DeformationGradient,
    HookeanShear,
    HookeanVolume,
    IdealGas,
    LucyKernel,
    PairStrain,
    SDPDFriction,
)

# what round-off may do to a law that is exact, relative to the largest number in it
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}
K_B = 0.2
TEMPERATURE = 5.0  # k_B T = 1


def ideal_gas(
    dimension: int,
    *,
    mass: float | list[float] = 1.0,
    k_B: float = K_B,
    volume: float = 0.3,
    viscosity: float = 1.5,
    conductivity: float = 1.0,
    atoms: float = 10.0,
) -> MetriplecticModel:
    """The analytic model: C = 15 k_B for ten atoms, so that Itô terms are several percent."""
    return MetriplecticModel(
        LucyKernel(1.0, dimension=dimension),
        IdealGas(atoms=atoms, k_B=K_B, temperature=TEMPERATURE, volume=volume),
        SDPDFriction(shear_viscosity=viscosity, bulk_viscosity=0.4 * viscosity, conductivity=conductivity),
        mass=mass,
        k_B=k_B,
        dt=0.01,
        dimension=dimension,
    )


def hookean_solid(dimension: int, *, mass: float | list[float] = 1.0, pair_strain: bool = False) -> MetriplecticModel:
    """The analytic solid: elastic energies of the order of k_B T = 1, C = 15 k_B."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        strain = PairStrain(1.0, dimension=dimension, width=6) if pair_strain else DeformationGradient()
    elastic = HookeanShear(shear_modulus=9.0, hourglass_modulus=7.0, volume=0.3)
    if pair_strain:
        elastic.moduli = elastic.moduli[:1]
    return (
        MetriplecticModel(
            LucyKernel(1.0, dimension=dimension),
            HookeanVolume(bulk_modulus=5.0, volume=0.3, heat_capacity=15.0 * K_B, temperature=TEMPERATURE),
            SDPDFriction(shear_viscosity=1.5, bulk_viscosity=0.6, conductivity=1.0),
            mass=mass,
            k_B=K_B,
            dt=0.01,
            dimension=dimension,
            strain=strain,
            elastic=elastic,
        )
        .double()
        .requires_grad_(False)
    )


def _common(dimension: int, mass: float | list[float]) -> dict:
    scales = Scales(energy=1.0, volume=0.3, speed=1.0, increment=0.1, neighbors=8.0, mass=1.0, entropy=1.0, nearest=0.3)
    return {
        "dimension": dimension,
        "cutoff": 1.0,
        "dt": 0.01,
        "mass": mass,
        "learn_mass": False,
        "entropy": "encoded",
        "scales": scales.to_dict(),
    }


def learned_settings(dimension: int, mass: float | list[float] = 1.0, entropy: str = "encoded") -> dict:
    """Settings of a small learned model."""
    return {
        **_common(dimension, mass),
        "entropy": entropy,
        "kernel": {"width": 8},
        "equation_of_state": {"width": 8},
        "friction": {"width": 8, "depth": 2, "rank": 3},
        "encoder": {"width": 8, "hops": 2},
    }


def learned_model(
    dimension: int, *, mass: float | list[float] = 1.0, seed: int = 0, potential: bool = False
) -> MetriplecticModel:
    """A learned model whose networks are far from where they start, so that every term matters."""
    settings = learned_settings(dimension, mass)
    if potential:
        settings.update(potential={"width": 8, "depth": 2}, correction=8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(**settings).double()
        with torch.no_grad():
            model.kernel.log_height.add_(1.2)
            model.friction.radial.network.layers[-1].weight.mul_(3.0)
            model.friction.squared_scale[2] *= 0.2
            if potential:
                learned, correction = model.potential.parts
                _enlarge(learned.network.layers[-1])
                correction.pass_through(torch.cos(torch.arange(8)))
            state_law = model.equation_of_state
            state_law.second.add_(2.0)
            state_law.last.add_(2.0)
            state_law.log_exponent.add_(0.2 * torch.randn_like(state_law.log_exponent))
            if state_law.species_shift is not None:
                state_law.species_shift.weight.mul_(0.3)
            model.encoder.mean.fill_(0.1)
            model.encoder.variance.fill_(0.5)
    return model.requires_grad_(False)


def dpd_settings(dimension: int, mass: float | list[float] = 1.0) -> dict:
    """Settings of a small model of dissipative particle dynamics."""
    terms = {"potential": {"width": 8, "depth": 2}, "friction": {"width": 8, "depth": 2}}
    return {"kind": "dpd", **_common(dimension, mass), **terms}


def gnn_settings(dimension: int, mass: float | list[float] = 1.0) -> dict:
    """Settings of a small graph network."""
    return {"kind": "gnn", **_common(dimension, mass), "network": {"width": 8, "hops": 2}}


def solid(settings: dict) -> dict:
    """The settings of a baseline for a solid."""
    return {**settings, "scales": {**settings["scales"], "moduli": [3.0, 3.0, 3.0]}}


def baseline(settings: dict, seed: int = 0) -> ParticleModel:
    """A baseline, its networks far from where they start."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(**settings).double()
        with torch.no_grad():
            last = [model.decoder[-1]] if settings["kind"] == "gnn" else []
            if settings["kind"] == "dpd":
                last = [part.network.layers[-1] for part in (model.potential, model.friction)]
            for layer in last:
                _enlarge(layer)
    return model.requires_grad_(False)


def _enlarge(layer: torch.nn.Linear) -> None:
    layer.weight.mul_(10.0)
    layer.bias.add_(0.5)


def learned_solid_settings(dimension: int, measure: str = "deformation_gradient") -> dict:
    """Settings of a small learned solid."""
    settings = learned_settings(dimension)
    settings["scales"]["moduli"] = [3.0, 3.0, 3.0]
    return {**settings, "strain": {"measure": measure, "width": 8}, "elastic": {"width": 4}}


def learned_solid(dimension: int, measure: str = "deformation_gradient") -> MetriplecticModel:
    """A learned solid whose terms are all at work."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(**learned_solid_settings(dimension, measure)).double()
        with torch.no_grad():
            model.kernel.log_height.add_(1.2)
            model.friction.radial.network.layers[-1].weight.mul_(3.0)
            model.friction.squared_scale.mul_(torch.tensor([1.0, 1.0, 1e-3]))
            volume, shear = model.equation_of_state, model.elastic
            # a heat capacity of 25 k_B, so that Itô terms matter
            volume.log_exponent.add_(3.0)
            volume.log_coefficient.sub_(6.0)
            volume.expansion.add_(torch.tensor([0.3, -0.2, 0.1, 0.4]))
            volume.offset.add_(0.5)
            shear.log_bend.add_(1.0)
            shear.log_thermal.add_(2.0)
            model.log_k_B.add_(3.0)
            model.encoder.mean.fill_(0.1)
            model.encoder.variance.fill_(0.5)
    return model.requires_grad_(False)


def scattered(
    model: MetriplecticModel, count: int, *, box: Box | None = None, spacing: float = 0.45, seed: int = 0
) -> State:
    """Particles around a grid with random velocities and entropies; of as many species as the model has.

    A solid has its reference where the grid is a little less disturbed.
    """
    dimension = model.dimension
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    side = math.ceil(count ** (1.0 / dimension) - 1e-9)
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * dimension)
    grid = grid[torch.randperm(len(grid), generator=generator)[:count]]
    jitter = torch.rand(count, dimension, generator=generator, dtype=torch.float64) - 0.5
    place = grid + 0.5 + 0.6 * jitter
    pos = place * spacing if box is None or box.is_free else place / side @ box.lattice_at(0.0)
    kinds = model.log_mass.numel()
    species = None if kinds == 1 else torch.arange(count) % kinds
    state = State(pos, normal(count, dimension) + 0.3, 0.8 * normal(count), species)
    if model.is_solid:
        place = pos - 0.1 * spacing * normal(count, dimension)
        reference = Reference.from_positions(place, box or Box.free(dimension), model.cutoff)
        state = replace(state, reference=reference)
    return state.to(dtype=model.dtype)


def pairs_of_state(model: MetriplecticModel, state: State, box: Box, time: float = 0.0):
    """Pairs of a state that interact."""
    pairs = neighbor_pairs(state.pos, box, model.cutoff, time, reference=state.reference)
    return pairs.bonded if isinstance(model, SpringNetwork) else pairs


def tilted_box(dimension: int) -> Box:
    """A triclinic cell that holds a cutoff of 1."""
    if dimension == 2:
        return Box.triclinic([[3.0, 0.0], [0.7, 2.8]])
    return Box.triclinic([[3.0, 0.0, 0.0], [0.7, 2.8, 0.0], [-0.4, 0.5, 2.9]])


def mismatch(actual: Tensor, expected: Tensor, scale: float | Tensor | None = None) -> float:
    """Largest difference relative to the largest expected number (or ``scale``)."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    assert torch.isfinite(actual).all()
    size = expected.abs().max() if scale is None else torch.as_tensor(scale)
    return float(((actual - expected).abs().max() / size).detach())


def random_rotation(dimension: int, *, seed: int = 0, reflect: bool = False) -> Tensor:
    """Orthogonal matrix of determinant +1, or -1 with ``reflect``; float64."""
    matrix = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation, _ = torch.linalg.qr(matrix)
    if (torch.linalg.det(rotation) < 0) != reflect:
        rotation[:, 0] = -rotation[:, 0]
    return rotation
