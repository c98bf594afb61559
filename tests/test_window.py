"""What a window of frames does to velocities, and that a likelihood which knows it finds the law behind a film."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import baseline, dpd_settings, ideal_gas, mismatch, pairs_of_state, scattered
from scipy.linalg import expm
from scipy.optimize import minimize
from test_likelihood import copies

from gnn_metriplectic.geometry import Box, Pairs
from gnn_metriplectic.learning.likelihood import _half_way, _stiffness, negative_log_likelihood
from gnn_metriplectic.models import State, build_model
from gnn_metriplectic.trajectory.window import EXACT, Sight, Window, window_of

SPACING, ERROR, FRICTION, STIFFNESS = 0.02, 0.003, 2.5, 124.0


def seen(stiffness: float, window: Window | None, lag: int, error: float = ERROR) -> np.ndarray:
    """Exact covariance of (u, u', r, r') of a mass 1 on a spring in a liquid of k_B T = 1; windows see errors, too."""
    rates, spread = np.array([[0.0, 1.0], [-stiffness, -FRICTION]]), np.diag([1.0 / stiffness, 1.0])
    if window is None:
        later = expm(SPACING * lag * rates) @ spread  # of (r', v') and (r, v)
        both = np.block([[spread, later.T], [later, spread]])
        order = [1, 3, 0, 2]
        return both[np.ix_(order, order)]
    half = window.frames // 2
    frames = np.arange(-half, lag + half + 1)
    apart = np.abs(frames[:, None] - frames)
    memory = np.array([(expm(SPACING * k * rates) @ spread)[0, 0] for k in range(len(frames))])
    rows = np.zeros((4, len(frames)))
    rows[0, : window.frames] = rows[1, lag : lag + window.frames] = window._weights
    rows[2, half] = rows[3, half + lag] = 1.0
    return rows @ (memory[apart] + error**2 * np.eye(len(frames))) @ rows.T


def test_smooth_motion_is_seen_as_it_is_and_errors_have_the_spread_that_is_told():
    times = 0.5 * np.arange(400)[:, None]
    window, random = Window(7, 3, 0.5), np.random.default_rng(3)
    assert np.allclose(window.slopes(times**3 - 4.0 * times), 3.0 * times**2 - 4.0)
    seen = window.slopes(0.1 * random.standard_normal((400, 400)))[3:-3]
    for lag in (0, 2, 8):
        assert (seen[: len(seen) - lag] * seen[lag:]).mean() == pytest.approx(
            0.01 * window.spread(lag), abs=0.01 * 0.03 * window.spread(0)
        )


@pytest.mark.parametrize("window", [Window(3, 1, SPACING), Window(5, 3, SPACING), Window(7, 3, SPACING)])
def test_delays_are_those_of_the_integral(window):
    fine = 400
    weight = np.repeat(-np.cumsum(window._weights)[:-1], fine) * SPACING / fine
    assert weight.sum() == pytest.approx(1.0)
    times = (np.arange(len(weight)) + 0.5) * SPACING / fine
    for lag in (0, 2, 9):
        apart = np.abs(lag * SPACING + times[:, None] - times)
        assert window.delay(lag) == pytest.approx(weight @ apart @ weight, abs=1e-5)
    assert window.delay(9) == pytest.approx(9 * SPACING), "far apart a window takes nothing off"


@pytest.mark.parametrize(
    ("frames", "lag", "error", "known"),
    [(7, 2, ERROR, True), (7, 2, ERROR, False), (7, 7, ERROR, True), (7, 7, ERROR, False), (5, 2, 0.01, True)],
)
def test_free_particles_of_a_film_tell_friction_and_temperature(frames, lag, error, known):
    window = Window(frames, 3, SPACING)
    draws = np.linalg.qr(np.random.default_rng(0).standard_normal((4000, 2)))[0] * 4000**0.5  # of covariance 1
    draws = torch.from_numpy(draws @ np.linalg.cholesky(seen(1e-4, window, lag, error)[:2, :2]).T)
    sight = window.sight(lag, error) if known else Sight(noise=window.sight(lag, error).noise)
    settings = {**dpd_settings(2), "solvent": "inertial", "dt": lag * SPACING}
    model = build_model(**settings).double().requires_grad_(False)
    found = [model.bath.log_friction, model.bath.log_temperature]
    for value in found:
        value.requires_grad_(True).data.fill_(0.0)
    nowhere = torch.zeros(len(draws), 2).double()
    start, end = (State(nowhere, vel.unsqueeze(1).expand(-1, 2), nowhere[:, 0]) for vel in draws.T)
    pairs = Pairs.none(len(nowhere), nowhere)
    configured = model.configuration(pairs, None)
    descent = torch.optim.LBFGS(found, max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        descent.zero_grad()
        nll = negative_log_likelihood(model, start, end, (configured, configured), lag * SPACING, sight=sight)
        nll.mean().backward()
        return nll.mean()

    descent.step(loss)
    friction, temperature = (float(value.detach().exp()) for value in found)
    right = friction == pytest.approx(FRICTION, rel=0.06) and temperature == pytest.approx(1.0, rel=0.03)
    assert right == known, f"friction {friction}, temperature {temperature}"


def fitted(covariance: np.ndarray, lag: int, sight: Sight, *, answers: bool) -> np.ndarray:
    """Scale of the spring, friction and k_B T by the likelihood's formula for one coordinate."""
    dt = lag * SPACING
    # by Simpson's rule, of the cubic through both ends
    force, bend = 0.5 * dt * STIFFNESS, dt**2 / 12.0 * STIFFNESS
    rows = np.array([[-1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [bend, -bend, force, force]])
    moments = rows @ covariance @ rows.T

    def loss(logs: np.ndarray) -> float:
        spring, friction, temperature = np.exp(logs)
        unseen = 1.0 + sight.memory * friction
        clean, step = temperature / unseen, 0.5 * dt * sight.share * friction * unseen
        kept = (clean * (1.0 - step) / (1.0 + step) + sight.error - 0.5 * sight.noise) / (clean + sight.error)
        drag = 2.0 * (1.0 - kept) / (1.0 + kept)
        variance = 2.0 * drag / dt * (clean + sight.error)
        row, answer = np.array([1.0, drag, spring]), spring * STIFFNESS * dt**2 / 6.0 if answers else 0.0
        residual = row @ moments @ row / (variance * dt) + np.log(variance * dt)
        return 0.5 * residual - np.log(1.0 + 0.5 * drag + answer)

    return np.exp(minimize(loss, [0.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12}).x)


@pytest.mark.parametrize("window", [None, Window(7, 3, SPACING)])
def test_forces_that_answer_to_the_noise_of_their_step_belong_to_the_determinant(window):
    sight = EXACT if window is None else window.sight(2, ERROR)
    covariance = seen(STIFFNESS, window, 2)
    spring, friction, temperature = fitted(covariance, 2, sight, answers=True)
    assert spring == pytest.approx(1.0, abs=0.03)
    assert friction == pytest.approx(FRICTION, rel=0.05)
    assert temperature == pytest.approx(1.0, abs=0.03)
    without = fitted(covariance, 2, sight, answers=False)
    assert without[0] < spring - 0.02
    assert without[2] < temperature - 0.02


def test_half_way_between_two_frames_is_on_the_cubic_through_both():
    model, dt = baseline(dpd_settings(2)), 0.3
    powers = scattered(model, 4).pos, scattered(model, 4).vel, scattered(model, 4, seed=1).vel, -scattered(model, 4).vel

    def motion(t: float) -> State:
        place = sum(part * t**n for n, part in enumerate(powers))
        return State(place, sum(n * part * t ** (n - 1) for n, part in enumerate(powers) if n), place[:, 0])

    start, end, middle = (motion(t) for t in (0.0, dt, 0.5 * dt))
    pairs = pairs_of_state(model, start, Box.free(2))
    before, after = (model.configuration(pairs.moved(s.pos - start.pos), None) for s in (start, end))
    expected = pairs.moved(middle.pos - start.pos).displacement
    assert mismatch(_half_way(before, after, start, end, dt).displacement, expected) < 1e-12


@pytest.mark.parametrize("film", [True, False])
def test_a_film_knows_forces_that_act_between_its_frames_alone(film):
    model, dt = baseline({**dpd_settings(2), "solvent": "inertial"}), 0.01
    model.potential.network.layers[-1].bias.requires_grad_(True)
    pairs = Pairs(torch.tensor([[0], [1]]), torch.tensor([[1.0, 0.3]]).double(), 2)
    passed = pairs.with_displacement(torch.tensor([[-1.0, 0.3]]).double())
    speed = torch.tensor([[-100.0, 0.1], [100.0, 0.0]]).double()
    start, end = State(0.0 * speed, speed, speed[:, 0]), State(0.0 * speed, speed, speed[:, 0])
    configured = [model.configuration(p, None) for p in (pairs, passed)]
    sight = Sight(share=1.0) if film else EXACT
    nll = negative_log_likelihood(model, start, end, configured, dt, sight=sight).sum()
    (slope,) = torch.autograd.grad(nll, model.potential.network.layers[-1].bias, allow_unused=True)
    assert (slope is not None and float(slope.abs()) > 0) == film


@pytest.mark.parametrize("model", [ideal_gas(2), baseline(dpd_settings(2))], ids=["gas", "dpd"])
def test_the_stiffness_is_the_trace_of_a_particle_s_own_hessian(model):
    state, count = scattered(model, 5, spacing=0.5), 4000
    pairs = pairs_of_state(model, state, Box.free(2))

    def forces(pos: torch.Tensor) -> torch.Tensor:
        moved = model.configuration(pairs.moved(pos - state.pos), state.species)
        return model.poisson(moved, model.thermo(moved, state.entropy, state.species)).forces()

    hessian = torch.autograd.functional.jacobian(forces, state.pos)
    expected = -torch.einsum("idid->i", hessian)
    many = copies(state, count)
    configuration = model.configuration(pairs_of_state(model, many, Box.free(2)), many.species)
    known = model.poisson(configuration, model.thermo(configuration, many.entropy, many.species)).forces()
    step = torch.full((len(known),), 1e-5, dtype=torch.float64)
    guesses = _stiffness(model, configuration, many, known, step).reshape(count, -1)
    assert expected.abs().max() > 0.1
    assert ((guesses.mean(dim=0) - expected).abs() < 4.5 * guesses.std(dim=0) / count**0.5 + 1e-4).all()


def test_a_change_of_velocity_is_the_response_to_the_accelerations_in_its_window():
    window, lag = Window(5, 3, 0.02), 2
    times = window.dt * np.arange(-2, lag + 3)
    for degree in (0, 1):  # accelerations that are linear between frames
        places = times ** (degree + 2) / ((degree + 1) * (degree + 2))
        change = window.slopes(places)[2 + lag] - window.slopes(places)[2]
        assert window.change(lag) @ places == pytest.approx(change, rel=1e-12)
        assert window.response(lag) @ times**degree == pytest.approx(change, rel=1e-12)
    kick = np.maximum(times - 0.5 * window.dt, 0.0)  # none of it is seen before, and all of it after
    assert window.response(lag).sum() == pytest.approx(lag * window.dt)
    assert window.change(6) @ np.concatenate([0.0 * kick[:4], window.dt * np.arange(7)]) == pytest.approx(1.0)


@pytest.mark.parametrize("missing", ["position", "window", "order"])
def test_errors_of_places_are_told_whole(missing):
    whole = {"position": ERROR, "window": 5, "order": 3}
    assert window_of({"localisation": whole}, SPACING) == Window(5, 3, SPACING)
    part = {key: value for key, value in whole.items() if key != missing}
    with pytest.raises(ValueError, match=f"and no {missing}"):
        window_of({"localisation": part}, SPACING)
