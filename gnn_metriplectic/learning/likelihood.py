"""The likelihood of a transition, whose mean is the integrator's own map.

Both frames of a transition are known, so the map of `EnergyConserving` can be evaluated on them, particle by
particle:

    momentum   η_i = m (v_i' - u_i) - dt Σ_j F_ij(v̄_ij),    u_i = v_i + ½ dt (a(r, S) + a(r', S))
    energy     η_i = U(S_i', V_i') - U(S_i, V_i') + Σ_j [½ dt F_ij·v̄_ij - dt q_ij + dt (k_B / 2 m_j) tr Ĝ_ij]
    with       v̄_ij = P_ij [½ (u_i + v_i') - u_j],    Ĝ_ij = P_ij G_ij P_ij,    P_ij = (1 + ½ dt R_ij / m_j)⁻¹

A particle's own midpoint velocity is known; that of a partner has half the recoil from the impulse
J_ij = dt F_ij + F̃_ij, and P_ij = (1 + ½ dt R_ij / m_j)⁻¹ is what remains of a pair's friction F = -R v and noise
when J_ij = dt F_ij(½ (u_i + v_i') - u_j + ½ J_ij / m_j) + F̃_ij is solved.

η is Gaussian with covariance 2 k_B dt Σ_j [[Ĝ, -½ Ĝ v*], [., ¼ v*ᵀĜv* + K²]], v* = v̄ + ½ dt F_ij / m_j, and the
change of variables (v', S') -> η has the determinant det(m + ½ dt Σ_j P_ij R_ij) T(S_i', V_i'). The last term of
the energy is the mean heat that recoil from the noise leaves. Reversible work changes the energy at fixed entropy,
which is why U(S, V') stands where the integrator books it, and friction does its work at v̄: the integrator's bookings
differ where the force changes the velocity much in a step. A prescribed particle j has u_j = ½ (v_j + v_j') and no
recoil, 1/m_j = 0.

In a solvent η has dt ζ v̄_i and -dt q_s beside these, with v̄_i = ½ (u_i + v_i') known, and the covariance its noise. A
partner recoils less, by m_j + ½ dt ζ_j in place of m_j, and its u_j is smaller by the ratio of the two.

Velocities that are slopes of a film show friction and noise less than they act, and errors besides
(`trajectory.window`): G and ζ have a share of their size in η, and the solvent's are those that the errors leave seen.
Errors of displacements and of entropies that were read off neighbours add their variance. And where the map has r'
before the noise of its step, a film has r' = r + ½ dt (v + v') and what is left. The mean way there is the cubic
through places and velocities at both ends, and Simpson's rule gives the mean force on it,
⅙ (f + 4 f(½ (r + r') + ⅛ dt (v - v')) + f'). It answers to v', and -⅙ dt² ∂f_i/∂r_i stands beside the friction in the
determinant. With ½ (f + f') the forces of the built-in film came out 10 % stiff (27 % over 3 frames), so 5 %
(docs/video.md).

For one moving particle the density is exact, and for the momenta of two; among more it leaves out how the partners
answer one another, of second order in γ dt. With γ dt = 0.4 and 3 or 15 partners the friction is found within the
error of 1 % (tests/test_likelihood.py); without the recoil it was 9 and 2.8 % low. In a solid, where a pair keeps its
distance, near pairs lose and far ones gain by what is left out, and u_j has the mean answer of j to its other partners.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnn_metriplectic.brackets import DissipativeBracket
from gnn_metriplectic.brackets.dissipative import apply_tensor, block_matrix, multiply_tensors
from gnn_metriplectic.geometry import Pairs
from gnn_metriplectic.learning.displacements import overdamped_residual
from gnn_metriplectic.learning.sight import one_body_as_seen, pairs_as_seen
from gnn_metriplectic.models import ParticleModel, State
from gnn_metriplectic.models.particles import Configuration
from gnn_metriplectic.trajectory.window import EXACT, Sight


def negative_log_likelihood(
    model: ParticleModel,
    start: State,
    end: State,
    configurations: tuple[Configuration, Configuration],
    dt: float,
    *,
    acceleration: Tensor | float = 0.0,
    prescribed: Tensor | None = None,
    sight: Sight = EXACT,
    entropy_noise: float = 0.0,
    integrator: str = "energy_conserving",
) -> Tensor:
    """-log p(v', S' | x, r') of each particle, ``[N]``, in nats; 0 without neighbours or solvent.

    Of a model without entropy it is -log p(v' | x, r'), the marginal of the same Gaussian.

    Args:
        model: whose transition it is.
        start, end: states before and after.
        configurations: of the same pairs before and after.
        dt: from before to after, in units of time.
        acceleration: ``[N, D]`` by outer forces, the mean of both times.
        prescribed: ``[N]`` bool, particles whose motion was imposed: they do not recoil, and what is returned for
            them means nothing.
        sight: how v and v' were seen, each of its numbers one or ``[N]`` (without inertia: (r' - r) / dt, which
            ``end`` has for velocities).
        entropy_noise: variance of the error of S' - S.
        integrator: one of the model's own, whose map is the mean.

    Raises:
        ValueError: an unknown integrator.
    """
    if integrator not in LIKELIHOODS:
        raise ValueError(f"no likelihood belongs to the integrator {integrator!r}; choose one of {sorted(LIKELIHOODS)}")
    residual, covariance, log_determinant, pairs = LIKELIHOODS[integrator](
        model, start, end, configurations, dt, acceleration, prescribed, sight, entropy_noise
    )
    if not model.has_entropy:
        # in a heat bath ∂ε'/∂S' = T, which is also the unit of the residual, so that the determinant stays
        moving = slice(model.dimension)
        residual, covariance = residual[:, moving], covariance[:, moving, moving]
    # without a neighbour or solvent nothing is random; the identity keeps the factorisation defined
    touched = pairs.total((pairs.distance < model.cutoff).to(residual.dtype)) > 0
    if model.has_solvent:
        touched = torch.ones_like(touched)
    identity = torch.eye(residual.shape[1], dtype=residual.dtype, device=residual.device)
    covariance = torch.where(touched[:, None, None], covariance, identity)
    # friction may vanish across all pairs of a particle, which then has no noise in one direction
    variance = covariance.diagonal(dim1=1, dim2=2)
    velocity = variance[:, : model.dimension].mean(dim=1, keepdim=True).expand(-1, model.dimension)
    least = ROUND_OFF * torch.finfo(variance.dtype).eps * torch.cat([velocity, variance[:, model.dimension :]], dim=1)
    factor = torch.linalg.cholesky(covariance + torch.diag_embed(least))
    white = torch.linalg.solve_triangular(factor, residual.unsqueeze(2), upper=False).squeeze(2)
    half_log = torch.log(torch.diagonal(factor, dim1=1, dim2=2)).sum(dim=1)
    constant = 0.5 * residual.shape[1] * math.log(2.0 * math.pi)
    nll = 0.5 * (white**2).sum(dim=1) + half_log + constant - log_determinant
    return torch.where(touched, nll, torch.zeros_like(nll))


def _energy_conserving(
    model,
    start: State,
    end: State,
    configurations,
    dt: float,
    acceleration,
    prescribed=None,
    sight=EXACT,
    entropy_noise=0.0,
):
    before, after = configurations
    thermo_before = model.thermo(before, start.entropy, start.species)
    thermo = model.thermo(after, start.entropy, start.species)
    thermo_end = model.thermo(after, end.entropy, start.species)
    dissipative, solvent = model.dissipative(after, thermo, start.species), model.solvent(thermo, start.species)
    drag, spread = one_body_as_seen(dissipative, solvent, sight, dt)
    if sight is not EXACT:
        dissipative = pairs_as_seen(dissipative, sight)
    pairs, mass = after.pairs, dissipative.mass.unsqueeze(1)

    forces = model.poisson(after, thermo).forces()
    reversible = 0.5 * (model.poisson(before, thermo_before).forces() + forces)
    if sight is not EXACT:
        middle = model.configuration(_half_way(before, after, start, end, dt), start.species)
        at_middle = model.poisson(middle, model.thermo(middle, start.entropy, start.species)).forces()
        reversible = (reversible + 2.0 * at_middle) / 3.0
    kicked = own = start.vel + dt * acceleration + dt * reversible / mass
    inertia = dissipative.mass + 0.5 * dt * drag
    inverse_mass = 1.0 / inertia
    kicked = kicked * (dissipative.mass * inverse_mass).unsqueeze(1)
    if prescribed is not None:  # their partners see them at the middle of their way, whatever the impulse
        kicked = torch.where(prescribed.unsqueeze(1), 0.5 * (start.vel + end.vel), kicked)
        inverse_mass = inverse_mass.masked_fill(prescribed, 0.0)

    # what each end of a pair sees: its own midpoint, and the other's start with half its recoil
    relative = pairs.relative(kicked)
    half_first, half_second = pairs.ends(0.5 * (own + end.vel) - kicked)
    seen = relative + half_first, relative - half_second
    if model.is_solid:
        answer_first, answer_second = _answers(dissipative, relative, 0.5 * dt * inverse_mass.unsqueeze(1))
        seen = seen[0] - answer_second, seen[1] + answer_first
    recoil = dissipative.recoil(dt, inverse_mass)
    first, second = (apply_tensor(p, pairs.direction, v) for p, v in zip(recoil, seen, strict=True))
    force_first, force_second = dissipative.friction_forces(first), dissipative.friction_forces(second)
    momentum = mass * (end.vel - own) - dt * pairs.total_of_ends(force_first, -force_second)
    momentum = momentum + 0.5 * dt * drag.unsqueeze(1) * (own + end.vel)

    random = tuple(multiply_tensors(p, p, dissipative.tensor) for p in recoil)
    inverse_first, inverse_second = pairs.ends(inverse_mass.unsqueeze(1))
    flow = dissipative.heat_flow()
    spent_first, spent_second = (
        0.5 * model.k_B * dissipative.trace(g) * inverse.squeeze(1)
        for g, inverse in zip(random, (inverse_second, inverse_first), strict=True)
    )
    heating = pairs.total_of_ends(
        dissipative.friction_heat(first) + flow - spent_first, dissipative.friction_heat(second) - flow - spent_second
    )
    energy = thermo_end.energy - thermo.energy - dt * heating
    corner, side, last = dissipative.moments(
        random,
        # a random impulse does its work on the mean velocity with another half of the recoil
        (first + 0.5 * dt * force_first * inverse_second, second + 0.5 * dt * force_second * inverse_first),
    )
    if solvent is not None:
        energy, last = energy - dt * solvent.heat_flow(), last + solvent.energy_variance()
    identity = torch.eye(momentum.shape[1], dtype=momentum.dtype, device=momentum.device)
    corner = corner + spread[:, None, None] * identity
    last = last + entropy_noise * thermo.temperature**2 / dt

    # in units of thermal momentum and energy, so that single precision serves any system of units
    unit = torch.cat(
        [
            torch.sqrt(mass * model.k_B * thermo.temperature.unsqueeze(1)).expand_as(momentum),
            (model.k_B * thermo.temperature).unsqueeze(1),
        ],
        dim=1,
    ).detach()
    covariance = dt * block_matrix(corner, side, last) / (unit.unsqueeze(1) * unit.unsqueeze(2))
    residual = torch.cat([momentum, energy.unsqueeze(1)], dim=1) / unit
    drags = (multiply_tensors(p, dissipative.drag) for p in recoil)
    jacobian = inertia[:, None, None] * identity + 0.5 * dt * dissipative.blocks(*drags)
    log_determinant = torch.logdet(jacobian) + torch.log(thermo_end.temperature) - torch.log(unit).sum(dim=1)
    if sight is not EXACT:
        step = 0.5 * dt * (model.k_B * thermo.temperature / dissipative.mass).sqrt().detach()
        answer = dt**2 / 6.0 * _stiffness(model, after, start, forces, step) / (model.dimension * inertia)
        log_determinant = log_determinant + model.dimension * torch.log1p(answer.clamp(min=-0.5))
    return residual, covariance, log_determinant, pairs


def _half_way(before: Configuration, after: Configuration, start: State, end: State, dt: float) -> Pairs:
    """The pairs in the middle of the cubic through places and velocities at both ends, the mean of all ways there."""
    pairs = after.pairs
    bend = 0.125 * dt * pairs.difference_of_ends(start.vel - end.vel)
    return pairs.with_displacement(0.5 * (before.pairs.displacement + pairs.displacement) + bend)


def _stiffness(model, configuration: Configuration, start: State, forces: Tensor, step: Tensor) -> Tensor:
    """An unbiased guess of tr -∂f_i/∂r_i at fixed entropies, ``[N]``, by moving all particles at random.

    Args:
        model: whose forces.
        configuration: where they are ``forces`` ``[N, D]``.
        start: with the entropies and species.
        step: length that each is moved by along every axis, ``[N]``.
    """
    pairs = configuration.pairs
    # of the batch alone, so that a training repeats itself
    random = torch.Generator().manual_seed(pairs.num_pairs)
    signs = (2.0 * torch.randint(2, forces.shape, generator=random) - 1.0).to(forces)
    moved = model.configuration(pairs.moved(step.unsqueeze(1) * signs), start.species)
    there = model.poisson(moved, model.thermo(moved, start.entropy, start.species)).forces()
    return (signs * (forces - there)).sum(dim=1) / step


def _answers(dissipative: DissipativeBracket, relative: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """What friction with all but the other end does to i and j of each pair by the middle of a step, ``[E, D]`` each.

    Args:
        dissipative: whose friction it is.
        relative: v_ij before friction, ``[E, D]``.
        half: ½ dt / m of each particle, 0 where it is held, ``[N, 1]``.
    """
    pairs, shift = dissipative.pairs, 0.0
    for _ in range(ANSWERS):
        force = dissipative.friction_forces(relative + shift)
        moved = half * pairs.net(force)
        shift = pairs.difference_of_ends(moved)
    (first, second), (half_first, half_second) = pairs.ends(moved), pairs.ends(half)
    return first - half_first * force, second + half_second * force


def _euler_maruyama(
    model,
    start: State,
    end: State,
    configurations,
    dt: float,
    acceleration,
    prescribed=None,
    sight=EXACT,
    entropy_noise=0.0,
):
    pairs = configurations[0].pairs
    drift = model.drift(start, pairs)
    velocity = end.vel - start.vel - dt * (drift.vel + acceleration)
    entropy = end.entropy - start.entropy - dt * drift.entropy
    residual = torch.cat([velocity, entropy.unsqueeze(1)], dim=1)
    measured = torch.full_like(residual, entropy_noise)
    measured[:, :-1] = torch.as_tensor(sight.noise).reshape(-1, 1)
    covariance = model.covariance(start, pairs, dt) + torch.diag_embed(measured)
    return residual, covariance, torch.zeros_like(entropy), pairs


def _increment(
    model,
    start: State,
    end: State,
    configurations,
    dt: float,
    acceleration,
    prescribed=None,
    sight=EXACT,
    entropy_noise=0.0,
):
    pairs = configurations[0].pairs
    mean, factor = model(pairs, start.vel, start.species)
    residual, factor = (end.vel - start.vel - dt * acceleration - mean) / model.unit, factor / model.unit
    log_determinant = residual.new_full((len(residual),), -model.dimension * math.log(model.unit))
    measured = torch.as_tensor(sight.noise / model.unit**2, dtype=residual.dtype).reshape(-1, 1).expand_as(residual)
    return residual, factor @ factor.mT + torch.diag_embed(measured), log_determinant, pairs


# of the variances of a particle, in units of the precision, by which its covariance is kept from being singular
ROUND_OFF = 8.0

# sweeps for the mean velocities of partners
ANSWERS = 2

# each gives the residual, its covariance, ln |d residual / d (v', S')|, and the pairs that its noise belongs to
RESIDUALS = {"energy_conserving": _energy_conserving, "euler_maruyama": _euler_maruyama}
LIKELIHOODS = {**RESIDUALS, "overdamped": overdamped_residual, "increment": _increment}
