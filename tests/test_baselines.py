"""Each baseline against its equations, written again in float64 NumPy for a Gaussian prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from references import dense_matrix

from cvsa_jax import CLD, Gaussian, prior_from_denoiser, run_steps
from cvsa_jax.baselines import BASELINES, BLIND_BASELINES, baseline_loop, constants, restore_classically
from cvsa_jax.baselines import base as baseline
from cvsa_jax.baselines.blind_dps import blind_dps
from cvsa_jax.baselines.daps import daps
from cvsa_jax.baselines.ddnm import whole_times
from cvsa_jax.baselines.ddrm import ddrm
from cvsa_jax.baselines.diffpir import quadratic_times
from cvsa_jax.baselines.dps import dps
from cvsa_jax.baselines.ilvr import ilvr
from cvsa_jax.baselines.mcg import mcg, projection
from cvsa_jax.baselines.pigdm import pigdm
from cvsa_jax.blind import BlindConvolution
from cvsa_jax.jobs.baseline_constants import (
    CONSTANTS,
    ELSEWHERE,
    NUM_STEPS,
    PUBLISHED,
    RELEASED,
    constants_of,
    documented,
)
from cvsa_jax.jobs.methods import METHODS
from cvsa_jax.noise import PoissonNoise
from cvsa_jax.operators import (
    TASKS,
    Matrix,
    View,
    as_operator,
    find_task,
    image_to_kernel,
    make_operator,
    singular_form,
)
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.operators.masks import given_mask
from cvsa_jax.operators.separable import bicubic_matrix, reduction_factor
from cvsa_jax.types import UnsuitableError

SHAPE, VARIANCE, STEPS = (3, 2, 1), 0.25, 5
GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.normal(size=(2, 6)) / 3
Y, NOISE_STD = GENERATOR.normal(size=2), 0.2


def chain_of(name, num_steps=STEPS, **options):
    denoise = Gaussian(jnp.zeros(SHAPE), VARIANCE)
    args = denoise, jnp.asarray(Y), Matrix(jnp.asarray(MATRIX)), NOISE_STD, SHAPE, num_steps
    return BASELINES[name].factory(*args, **options)


def reference(name, x, noise, kept, before, level, then):
    """One step of the baseline on the flat image x, with its noise given."""
    shrink = VARIANCE / (VARIANCE + level**2)
    if name == "ddrm":
        u, s, vt = np.linalg.svd(MATRIX)
        z, guess, e = vt @ x, vt @ (shrink * x), vt @ noise
        measured, new = (u.T @ Y) / s, np.empty(6)
        for i in range(6):
            kept_noise = (1 - 0.85**2) ** 0.5 * then
            if i >= 2:
                new[i] = guess[i] + kept_noise * (z[i] - guess[i]) / level + 0.85 * then * e[i]
            elif then < NOISE_STD / s[i]:
                new[i] = guess[i] + kept_noise * (measured[i] - guess[i]) / (NOISE_STD / s[i]) + 0.85 * then * e[i]
            else:
                new[i] = measured[i] + (then**2 - (NOISE_STD / s[i]) ** 2) ** 0.5 * e[i]
        return vt.T @ new
    jacobian = shrink / kept**0.5
    estimate = jacobian * x
    r = Y - MATRIX @ estimate
    ratio = kept / before
    if name == "dps":
        mean = before**0.5 * (1 - ratio) / (1 - kept) * estimate + ratio**0.5 * (1 - before) / (1 - kept) * x
        drawn = mean + ((1 - before) / (1 - kept) * (1 - ratio)) ** 0.5 * noise
        return drawn + 0.5 * jacobian * MATRIX.T @ r / np.linalg.norm(r)
    spread = ((1 - before) / (1 - kept) * (1 - ratio)) ** 0.5
    if name == "ddnm":
        u, s, vt = np.linalg.svd(MATRIX)
        e, guess, error = vt @ noise, vt @ estimate, vt @ (x - kept**0.5 * estimate) / (1 - kept) ** 0.5
        measured, (scale, sigma, eta) = u.T @ Y / s, (before**0.5, (1 - before) ** 0.5, 0.85)
        new = scale * guess + sigma * ((1 - eta**2) ** 0.5 * error + eta * e)
        for i in range(2):
            n = NOISE_STD / s[i]
            if sigma >= scale * n:
                new[i] = scale * measured[i] + (sigma**2 - scale**2 * n**2) ** 0.5 * e[i]
            else:
                far = (measured[i] - guess[i]) / n
                new[i] = scale * guess[i] + sigma * ((1 - eta**2) ** 0.5 * far + eta * e[i])
        return vt.T @ new
    if name == "diffpir":
        trust = 3 / level**2
        near = np.linalg.solve(
            MATRIX.T @ MATRIX / NOISE_STD**2 + trust * np.eye(6), MATRIX.T @ Y / NOISE_STD**2 + trust * estimate
        )
        error = (x - kept**0.5 * near) / (1 - kept) ** 0.5
        return before**0.5 * near + (1 - before) ** 0.5 * (0.7**0.5 * error + 0.3**0.5 * noise)
    variance = level**2 * VARIANCE / (level**2 + VARIANCE)
    guide = variance * jacobian * MATRIX.T @ np.linalg.solve(variance * MATRIX @ MATRIX.T + NOISE_STD**2 * np.eye(2), r)
    error = (x - kept**0.5 * estimate) / (1 - kept) ** 0.5
    old = (1 - before - spread**2) ** 0.5
    return before**0.5 * estimate + old * error + spread * noise + (before * kept) ** 0.5 * guide


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dps", {"step_size": 0.5}),
        ("pigdm", {"data_variance": VARIANCE}),
        ("ddrm", {}),
        ("ddnm", {"repeats": 1}),
        ("diffpir", {"trust": 3.0, "zeta": 0.3}),
    ],
)
def test_steps_are_the_equations(float64, name, options):
    chain = chain_of(name, **options)
    own = {"ddnm": [800, 600, 400, 200, 0], "diffpir": [999, 499, 292, 133, 0]}
    rates = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[own.get(name, [999, 749, 500, 250, 0])]
    befores = np.append(rates[1:], 1.0)
    levels = ((1 - rates) / rates) ** 0.5
    state = chain.init(jax.random.key(0), SHAPE)
    for index in range(STEPS):
        _, noise = baseline.draw(state)
        then = levels[index + 1] if index + 1 < STEPS else 0.0
        expected = reference(
            name, np.asarray(state.x).ravel(), np.asarray(noise).ravel(), rates[index], befores[index],
            levels[index], then,
        )  # fmt: skip
        state, info = chain.step(state, index)
        np.testing.assert_allclose(np.asarray(state.x).ravel(), expected, rtol=1e-7, atol=1e-9)
        assert np.isfinite(info.residual)


def test_published_grids_of_times():
    assert list(whole_times(100)) == list(range(990, -1, -10))
    assert whole_times(600)[0] == 998
    times = quadratic_times(100)
    assert [times[i] for i in (0, 1, 2, 50, 98, 99)] == [999, 899, 857, 289, 5, 0]
    for count in (2, 3, 100, 1000):
        times = quadratic_times(count)
        assert (times[0], times[-1]) == (999, 0)
        assert (np.diff(times) <= 0).all()


def test_projections_satisfy_their_constraint():
    """MCG's last image measures y, where H can be undone without lifting the noise."""
    denoise, key = Gaussian(jnp.zeros((16, 12, 3)), VARIANCE), jax.random.key(5)
    for task, settings in (("random_inpaint", {"missing": 0.5}), ("sr2", {})):
        operator = make_operator(task, np.random.default_rng(1), 16, 12, **settings)
        y = operator(jax.random.normal(key, (16, 12, 3)))
        chain = mcg(denoise, y, operator, 0.0, (16, 12, 3), STEPS)
        state, _ = run_steps(chain, chain.init(key, (16, 12, 3)), 0, STEPS)
        np.testing.assert_allclose(operator(state.x), y, atol=2e-4)


def enlargement(size: int, factor: int) -> np.ndarray:
    """Cubic interpolation (a = -1/2) from ceil(size / factor) samples; weights beyond the border are left out."""
    count = -(-size // factor)
    matrix = np.zeros((size, count))
    for i in range(size):
        distance = np.abs((i + 0.5) / factor - 0.5 - np.arange(count))
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        matrix[i] = weights / weights.sum()
    return matrix


@pytest.mark.parametrize(
    ("task", "factor", "size"), [("denoise", 2, (16, 12)), ("sr2", 2, (15, 12)), ("sr4", 4, (16, 12))]
)
def test_ilvr_is_its_equation(float64, task, factor, size):
    """x_s = x' + U (D q(r) - D x'), with U the bicubic enlargement, on a larger canvas too."""
    shape = (16, 12, 3)
    denoise, operator = Gaussian(jnp.zeros(shape), VARIANCE), make_operator(task, np.random.default_rng(1), *size)
    lower = [bicubic_matrix(n, factor) for n in size]
    upper = [enlargement(n, factor) for n in size]
    y = jax.random.normal(jax.random.key(5), jax.eval_shape(operator, jnp.zeros((*size, 3))).shape)
    chain = ilvr(denoise, y, View(operator, *size), 0.0, shape, STEPS)
    state, now = chain.init(jax.random.key(0), shape), baseline.schedule(STEPS).at(2)
    key, z = baseline.draw(state)
    e = np.asarray(jax.random.normal(jax.random.split(key)[0], shape))
    drawn = np.array(baseline.ddpm(state.x, baseline.denoised(denoise, state.x, now), z, now))

    def low(image):
        return np.einsum("ij,jkc,lk->ilc", lower[0], np.asarray(image)[: size[0], : size[1]], lower[1])

    reference_low = np.asarray(y) if task != "denoise" else low(y)
    kept = float(now.before)
    change = kept**0.5 * reference_low + (1 - kept) ** 0.5 * low(e) - low(drawn)
    drawn[: size[0], : size[1]] += np.einsum("ij,jkc,lk->ilc", upper[0], change, upper[1])
    np.testing.assert_allclose(chain.step(state, 2)[0].x, drawn, atol=1e-6)  # the matrices of D are float32


@pytest.mark.parametrize("task", ["random_inpaint", "box_inpaint", "checkout", "gaussian_deblur+random_inpaint"])
def test_ilvr_takes_no_picture_with_holes(task):
    prior = prior_from_denoiser(Gaussian(jnp.zeros((16, 16, 1)), VARIANCE), CLD())
    operator = make_operator(task, np.random.default_rng(0), 16, 16)
    with pytest.raises(UnsuitableError, match="holes"):
        baseline_loop("ilvr", jnp.zeros((16, 16, 1)), operator, prior, (16, 16, 1), 10, 0.1)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("gaussian_deblur", {"kernel_std": 2.0}),
        ("motion_deblur", {"kernel_size": 5}),
        ("motion_deblur+sr2", {"kernel_size": 5}),
    ],
)
def test_mcg_steps_towards_a_blurred_measurement(task, settings):
    """By H'(y - H x)/(H'H 1), which lifts no noise as the inverse does; H from its columns."""
    shape = (8, 8, 1)
    operator = make_operator(task, np.random.default_rng(0), 8, 8, **settings)
    x, matrix = np.asarray(jax.random.normal(jax.random.key(0), shape)), dense_matrix(operator, shape)
    y = jax.random.normal(jax.random.key(1), jax.eval_shape(operator, x).shape)
    moved = projection(operator, shape)(jnp.asarray(x), y)
    r = np.asarray(y).ravel() - matrix @ x.ravel()
    expected = x.ravel() + matrix.T @ r / (matrix.T @ (matrix @ np.ones(64)))
    np.testing.assert_allclose(moved.ravel(), expected, rtol=1e-4, atol=1e-4)
    assert float(jnp.linalg.norm(moved - x)) < 3 * np.linalg.norm(r) * len(x.ravel()) / len(r)


def test_what_mcg_cannot_see_it_leaves():
    """H'H 1 is zero under a mask behind a blur, and beyond a clip."""
    shape = (12, 12, 1)
    for task in ("motion_deblur+random_inpaint", "hdr"):
        operator = make_operator(task, np.random.default_rng(0), 12, 12)
        x = 2 * jax.random.normal(jax.random.key(0), shape)
        moved = projection(operator, shape)(x, operator(jnp.zeros(shape)))
        assert np.isfinite(moved).all()
        blind = jax.vjp(operator, x)[1](jax.jvp(operator, (x,), (jnp.ones(shape),))[1])[0] == 0
        assert (np.asarray(moved == x) | ~np.asarray(blind)).all()
        assert float(jnp.abs(moved - x).max()) > 0.1


def posterior(noise_std):
    """Mean and covariance of x given Y under N(0, VARIANCE I)."""
    gain = VARIANCE * MATRIX.T @ np.linalg.inv(VARIANCE * MATRIX @ MATRIX.T + noise_std**2 * np.eye(2))
    return gain @ Y, VARIANCE * (np.eye(6) - gain @ MATRIX)


def test_daps_draws_what_it_says():
    """Of one level: N(x_0hat, r^2 I) times the likelihood, and the next level's noise."""
    denoise, matrix = Gaussian(jnp.zeros(SHAPE), VARIANCE), Matrix(jnp.asarray(MATRIX, jnp.float32))
    y = jnp.asarray(Y, jnp.float32)
    options = {"step_size": 0.001, "decay": 1.0, "tau": NOISE_STD, "langevin_steps": 2000}  # until they have mixed
    chain = daps(denoise, y, matrix, NOISE_STD, SHAPE, 40, ode_steps=2, **options)
    levels = (100 ** (1 / 7) + np.arange(20) / 20 * (0.1 ** (1 / 7) - 100 ** (1 / 7))) ** 7
    number = int(np.argmin(np.abs(levels - 0.4)))
    noise, then = levels[number], levels[number + 1]
    x = np.linspace(-1, 1, 6)
    start = chain.init(jax.random.key(1), SHAPE)._replace(x=jnp.asarray(x, jnp.float32).reshape(SHAPE))
    run = jax.jit(jax.vmap(lambda k: run_steps(chain, start._replace(key=k), 2 * number, 2)[0].x.ravel()))
    samples = np.asarray(run(jax.random.split(jax.random.key(0), 4000)))
    middle = ((noise ** (1 / 7) + 0.01 ** (1 / 7)) / 2) ** 7
    for now, after in ((noise, middle), (middle, 0.01)):
        x = x + (after - now) / now * (x - VARIANCE / (VARIANCE + now**2) * x)
    # The published code's gradient of |y - H x|^2/tau^2 has no half.
    covariance = np.linalg.inv(np.eye(6) / noise**2 + 2 * MATRIX.T @ MATRIX / NOISE_STD**2)
    mean = covariance @ (x / noise**2 + 2 * MATRIX.T @ Y / NOISE_STD**2)
    covariance = covariance + then**2 * np.eye(6)
    scale = np.sqrt(np.diag(covariance))
    outer = np.outer(scale, scale)
    np.testing.assert_allclose(samples.mean(0) / scale, mean / scale, atol=0.08)
    np.testing.assert_allclose(np.cov(samples.T) / outer, covariance / outer, atol=0.1)


@pytest.mark.parametrize(("level", "length"), [(0, 1.0), (19, 1 - 0.7 * 19 / 21)])
def test_the_langevin_steps_of_daps_shorten(float64, level, length):
    """What two measurements move apart in one step is 2 h H' (y - y') / tau^2."""
    denoise, other = Gaussian(jnp.zeros(SHAPE), VARIANCE), Y + np.array([0.3, -0.2])
    options = {"langevin_steps": 1, "step_size": 1e-3, "decay": 0.3, "tau": 0.1, "ode_steps": 2}
    chains = [daps(denoise, jnp.asarray(y), Matrix(jnp.asarray(MATRIX)), 1.0, SHAPE, 40, **options) for y in (Y, other)]
    state = chains[0].init(jax.random.key(0), SHAPE)
    first, second = (chain.step(state, 2 * level + 1)[0].x.ravel() for chain in chains)
    np.testing.assert_allclose(second - first, length * 0.2 * MATRIX.T @ (other - Y), rtol=1e-6, atol=1e-9)


def test_ddnm_travels_back_in_time(float64):
    """A level is done again from its own result, noised back to it; the last time goes on."""
    once, thrice = chain_of("ddnm", repeats=1), chain_of("ddnm", num_steps=3 * STEPS, repeats=3)
    state, now = once.init(jax.random.key(0), SHAPE), baseline.schedule(STEPS, whole_times).at(1)
    x = once.step(state, 1)[0].x
    _, e = baseline.draw(state._replace(key=baseline.draw(state)[0]))
    share = now.kept / now.before
    for index, expected in ((3, x * share**0.5 + (1 - share) ** 0.5 * e), (5, x)):
        np.testing.assert_allclose(thrice.step(state, index)[0].x, expected, rtol=1e-9)


def test_pigdm_follows_the_exact_score_of_a_gaussian(float64):
    """Its guide is sqrt(kept_s kept_t) r^2 times the gradient of log p(y | x_t), which has a closed form here."""
    denoise, now = Gaussian(jnp.zeros(SHAPE), VARIANCE), baseline.schedule(STEPS).at(2)
    with_y = [
        pigdm(denoise, jnp.asarray(y), Matrix(jnp.asarray(MATRIX)), NOISE_STD, SHAPE, STEPS, data_variance=VARIANCE)
        for y in (Y, Y + np.array([0.3, -0.2]))
    ]
    state = with_y[0].init(jax.random.key(0), SHAPE)
    # What differs between two measurements is the guide alone.
    moved = np.asarray(with_y[1].step(state, 2)[0].x - with_y[0].step(state, 2)[0].x).ravel()
    r2 = float(now.noise**2 * VARIANCE / (now.noise**2 + VARIANCE))
    covariance = r2 * MATRIX @ MATRIX.T + NOISE_STD**2 * np.eye(2)

    def log_density(x, y):
        r = y - MATRIX @ (VARIANCE / (VARIANCE + now.noise**2) * x / jnp.sqrt(now.kept)).ravel()
        return -r @ np.linalg.solve(covariance, np.eye(2)) @ r / 2

    scores = [jax.grad(log_density)(state.x, jnp.asarray(y)).ravel() for y in (Y, Y + np.array([0.3, -0.2]))]
    np.testing.assert_allclose(moved, np.sqrt(now.before * now.kept) * r2 * (scores[1] - scores[0]), rtol=1e-8)


def test_ddrm_has_the_posterior_of_a_gaussian_without_noise():
    """Measured coefficients as measured, the others drawn from the prior, if eta = 0; its .85 loses variance."""
    denoise, matrix = Gaussian(jnp.zeros(SHAPE), VARIANCE), Matrix(jnp.asarray(MATRIX, jnp.float32))
    chain = ddrm(denoise, jnp.asarray(Y, jnp.float32), matrix, 1e-4, SHAPE, 400, eta=0.0)
    run = jax.jit(jax.vmap(lambda k: run_steps(chain, chain.init(k, SHAPE), 0, 400)[0].x.ravel()))
    samples = np.asarray(run(jax.random.split(jax.random.key(0), 3000)))
    mean, covariance = posterior(1e-4)
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.03)


def test_blind_dps_is_its_equations(float64):
    """A step of both chains, the gradients by central differences; a kernel of an even side, some of it clipped."""
    shape, side = (6, 6, 1), 4
    generator = np.random.default_rng(2)
    y = jnp.asarray(generator.normal(size=shape))
    image, kernel = Gaussian(jnp.zeros(shape), VARIANCE), Gaussian(jnp.full((side, side, 1), -0.5), VARIANCE)
    chain = blind_dps(image, kernel, y, BlindConvolution(), shape, side, STEPS)
    state = chain.init(jax.random.key(0), shape)
    state = state._replace(k=3 * state.k)
    new, _ = chain.step(state, 3)
    now = baseline.schedule(STEPS).at(3)

    def weights(k):
        c = (np.clip(np.asarray(baseline.denoised(kernel, k, now))[..., 0], -1, 1) + 1) / 2
        return c / c.sum()

    assert 0 < (weights(state.k) == 0).sum() < side**2 / 2

    def loss(x, k):
        # Its middle is at pixel (1, 1), that of an odd one in the middle.
        h = Convolution(jnp.asarray(np.pad(weights(k), ((1, 0), (1, 0)))))
        return float(jnp.linalg.norm(y - h(baseline.denoised(image, x, now))))

    def slope(which, i, h=1e-6):
        pair = [[state.x, state.k], [state.x, state.k]]
        for side_number, sign in enumerate((1, -1)):
            a = pair[side_number][which]
            pair[side_number][which] = a.ravel().at[i].add(sign * h).reshape(a.shape)
        return (loss(*pair[0]) - loss(*pair[1])) / (2 * h)

    _, x_key, k_key = jax.random.split(state.key, 3)
    for which, (old, denoiser, key, found) in enumerate(
        [(state.x, image, x_key, new.x), (state.k, kernel, k_key, new.k)]
    ):
        drawn = baseline.ddpm(old, baseline.denoised(denoiser, old, now), jax.random.normal(key, old.shape), now)
        moved = (drawn - found).ravel() / jnp.sqrt(now.kept)
        for i in (0, 4, old.size - 1):
            assert float(moved[i]) == pytest.approx(slope(which, i), rel=1e-5, abs=1e-7)


def test_the_kernel_of_blind_dps_keeps_its_small_weights(float64):
    """What is read of the last state is (clip(k, -1, 1) + 1)/2, scaled to sum 1; no floor."""
    shape, side = (6, 6, 1), 5
    image, kernel = Gaussian(jnp.zeros(shape), VARIANCE), Gaussian(jnp.full((side, side, 1), -0.98), 1e-4)
    chain = blind_dps(image, kernel, jnp.zeros(shape), BlindConvolution(), shape, side, 3, step_size=0.0)
    state = chain.init(jax.random.key(0), shape)
    state = state._replace(k=-0.98 + 0.01 * state.k)
    estimate = np.asarray(baseline.denoised(kernel, state.k, baseline.schedule(3).at(2)))[..., 0]
    c = (np.clip(estimate, -1, 1) + 1) / 2
    assert 0 < np.median(c) < c.max() < 0.03
    np.testing.assert_allclose(image_to_kernel(chain.step(state, 2)[0].k), c / c.sum(), atol=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_neighbours_do_not_matter(name):
    chain = chain_of(name) if name not in ("daps", "ilvr") else picture_chain(name)
    shape = SHAPE if name not in ("daps", "ilvr") else (8, 8, 1)
    keys, steps = jax.random.split(jax.random.key(3), 3), 4

    def run(key, scale):
        state = chain.init(key, shape)
        return run_steps(chain, state._replace(x=scale * state.x), 0, steps)[0].x

    scales = jnp.array([1.0, 10.0, 1e3])
    together = jax.vmap(run)(keys, scales)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(keys[i], scales[i]), rtol=1e-4, atol=1e-5)


def picture_chain(name):
    operator = make_operator("denoise", np.random.default_rng(0), 8, 8)
    y = jnp.linspace(-1, 1, 64).reshape(8, 8, 1)
    return BASELINES[name].factory(Gaussian(jnp.zeros((8, 8, 1)), VARIANCE), y, operator, 0.2, (8, 8, 1), 4)


def test_ddrm_returns_a_clear_measurement():
    """Everything measured, almost without noise: the image is the measurement."""
    matrix = jnp.asarray(np.linalg.qr(GENERATOR.normal(size=(6, 6)))[0], jnp.float32)
    truth = jnp.linspace(-1, 1, 6).reshape(SHAPE)
    chain = ddrm(Gaussian(jnp.zeros(SHAPE), VARIANCE), matrix @ truth.ravel(), Matrix(matrix), 1e-4, SHAPE, 20)
    state, _ = run_steps(chain, chain.init(jax.random.key(0), SHAPE), 0, 20)
    np.testing.assert_allclose(state.x, truth, atol=0.02)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("denoise", {}),
        ("random_inpaint", {"missing": 0.5}),
        ("gaussian_deblur", {"kernel_std": 1.0}),
        ("sr4", {}),
        ("motion_deblur", {"boundary": "circular", "kernel_size": 5}),
    ],
)
@pytest.mark.parametrize("canvas", [(16, 12, 3), (16, 16, 3)])
def test_singular_values_are_the_operators(float64, task, settings, canvas):
    """H^+ H x is x where s is not zero, and H sees nothing where it is, but what was cut; on a larger canvas too."""
    operator = View(make_operator(task, np.random.default_rng(0), 16, 12, **settings), 16, 12)
    form, x = singular_form(operator, canvas), jax.random.normal(jax.random.key(0), canvas)
    z = form.forward(x)
    np.testing.assert_allclose(form.backward(z), x, atol=1e-9)
    seen = np.broadcast_to(form.singular_values, z.shape) > 0
    assert seen.any()
    invisible = operator(form.backward(jnp.where(seen, 0, z)))
    assert float(jnp.abs(invisible).max()) < 0.15
    visible = form.backward(jnp.where(seen, z, 0))
    np.testing.assert_allclose(
        np.where(seen, form.pseudo_inverse(operator(visible)), 0), np.where(seen, z, 0), atol=1e-7
    )


def test_classical_methods_improve_what_they_can(photos):
    """Nearer the truth than the measurement, in the mean of four photographs."""

    def error(a, b):
        return float(np.mean((a - b) ** 2))

    cases = {
        "denoise": {},
        "gaussian_deblur": {"kernel_std": 1.0},
        "motion_deblur": {"kernel_size": 7},
        "random_inpaint": {"missing": 0.5},
        "hdr": {},
        "motion_deblur+sr2": {"kernel_size": 7},
    }
    for task, settings in cases.items():
        before = after = 0.0
        for i, photo in enumerate(photos[:4]):
            operator = make_operator(task, np.random.default_rng(i), 32, 32, **settings)
            noise = 0.05 * jax.random.normal(jax.random.key(i), jax.eval_shape(operator, photo).shape)
            y = np.asarray(operator(photo) + noise)
            shown = y if y.shape == photo.shape else np.asarray(jax.image.resize(y, photo.shape, "cubic"))
            before += error(shown, photo)
            after += error(restore_classically(operator, y, 0.05, photo.shape), photo)
        assert after < before, task
    with pytest.raises(UnsuitableError, match="no classical method"):
        operator = make_operator("nonlinear_deblur", np.random.default_rng(0), 32, 32)
        restore_classically(operator, photos[0], 0.05, photos[0].shape)


@pytest.mark.parametrize(("side", "factor"), [(64, 4), (65, 4), (67, 4), (65, 2), (67, 8)])
def test_the_classical_enlargement_is_in_register(side, factor):
    """A slow wave comes back where it was, whether or not the side is a multiple of the factor."""
    wave = 0.45 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side)
    photo = np.add.outer(wave, wave)[..., None]
    operator = make_operator(f"sr{factor}", None, side, side)
    found = restore_classically(operator, np.asarray(operator(photo)), 0.0, photo.shape)
    np.testing.assert_allclose(found, photo, atol=0.03)
    for size in (2, 5, side):
        assert reduction_factor(np.eye(size)) == 1
        assert reduction_factor(bicubic_matrix(size, factor)) in (factor, size)  # all beyond the side are alike


def test_the_classical_filling_undoes_the_gain_of_a_soft_mask(photos):
    """A pixel that is seen through a filter comes back as it was; what lies under a hole does not matter."""
    seen = np.ones((32, 32))
    seen[:, :16], seen[10:14, 10:14] = 0.5, 0
    operator, hole = given_mask(seen, 32, 32), seen == 0
    y = np.where(hole[..., None], np.nan, operator(photos[0]))
    found = restore_classically(operator, y, 0.01, photos[0].shape)
    np.testing.assert_allclose(found[~hole], photos[0][~hole], atol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "task", ["denoise", "gaussian_deblur", "motion_deblur", "random_inpaint", "sr4", "hdr", "jpeg"]
)
def test_the_classical_methods_take_measurements_without_noise(photos, task):
    operator = make_operator(task, np.random.default_rng(0), 32, 32)
    y = np.asarray(operator(photos[0]))
    assert np.isfinite(restore_classically(operator, y, 0.0, photos[0].shape)).all()
    flat = Convolution(jnp.pad(jnp.full((1, 4), 0.25), ((2, 2), (1, 0))))  # it removes some frequencies altogether
    assert np.isfinite(restore_classically(flat, np.ones((12, 12, 1)), 0.0, (12, 12, 1))).all()


def test_bad_settings_are_refused():
    prior, same = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), VARIANCE), CLD()), as_operator(lambda x: x)
    with pytest.raises(ValueError, match="num_steps of a baseline"):
        dps(None, jnp.zeros(2), same, 0.1, SHAPE, 1001)
    with pytest.raises(ValueError, match="multiple of 2"):
        daps(None, jnp.zeros(2), same, 0.1, SHAPE, 7, ode_steps=2)
    for name in ("ddrm", "ddnm"):
        with pytest.raises(UnsuitableError, match="no singular values"):
            baseline_loop(name, jnp.zeros(SHAPE), lambda x: x, prior, SHAPE, 10, 0.1)
    with pytest.raises(UnsuitableError, match="takes the measurement for a picture"):
        baseline_loop("ilvr", jnp.zeros(2), Matrix(jnp.asarray(MATRIX)), prior, SHAPE, 10, 0.1)
    with pytest.raises(ValueError, match=r"the measurement is \(2,\), but the operator measures \(3, 2, 1\)"):
        baseline_loop("dps", jnp.zeros(2), lambda x: x, prior, SHAPE, 10, 0.1)
    with pytest.raises(UnsuitableError, match="Gaussian noise alone"):
        baseline_loop("dps", jnp.zeros(2), lambda x: x, prior, SHAPE, 10, PoissonNoise(10.0))
    with pytest.raises(ValueError, match="noise_std must be positive"):
        baseline_loop("dps", jnp.zeros(2), lambda x: x, prior, SHAPE, 10, 0.0)


@pytest.mark.parametrize("name", ["dps", "mcg", "pigdm", "diffpir", "daps"])
def test_complex_measurements_of_several_sensors(name):
    """For methods that take any function: the same chain as of their real numbers in one vector."""
    shape = (4, 4, 1)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), VARIANCE), CLD())
    sensors = lambda x: (jnp.fft.rfft2(x, axes=(0, 1), norm="ortho"), x[::2])  # noqa: E731

    def vector(x):
        z, part = sensors(x)
        return jnp.concatenate([z.real.ravel(), z.imag.ravel(), part.ravel()])

    truth = jnp.linspace(-0.5, 0.5, 16).reshape(shape)
    ends = []
    for operator, noise_std in ((sensors, (0.1, 0.3)), (vector, jnp.repeat(jnp.array([0.1, 0.3]), np.array([24, 8])))):
        loop = baseline_loop(name, operator(truth), operator, prior, shape, 10, noise_std)
        ends.append(jax.jit(lambda loop=loop: run_steps(loop, loop.init(jax.random.key(0), shape), 0, 10))())
    np.testing.assert_allclose(ends[0][0].x, ends[1][0].x, atol=1e-5)
    np.testing.assert_allclose(ends[0][1].residual, ends[1][1].residual, rtol=1e-4)


def test_every_constant_has_a_source_and_the_documents_have_them_all():
    """The table of docs/method.md is the registry, row by row."""
    methods = BASELINES | BLIND_BASELINES
    stated = {(entry.method, entry.name) for entry in CONSTANTS}
    assert stated == {(m, name) for m in methods for name in (NUM_STEPS, *constants(m))}
    assert all(entry.source and set(entry.tasks) <= set(TASKS) for entry in CONSTANTS)
    rows = documented()
    table = [
        f"| {' | '.join(rows[0])} |",
        "|---" * len(rows[0]) + "|",
        *(f"| {' | '.join(r.values())} |" for r in rows),
    ]
    lines = [f"- `{method}`: {', '.join(f'`{task}`' for task in tasks)}" for method, tasks in RELEASED.items()]
    page = (ROOT / "docs" / "method.md").read_text()
    assert "\n".join(table) in page
    assert "\n".join(lines) in page


def test_a_constant_is_called_published_only_for_a_task_that_was():
    """The published nonlinear blur is `bkse_deblur`; its constants serve the camera's too, but are not its own."""
    assert all(set(tasks) <= set(TASKS) for tasks in RELEASED.values())
    for method, tasks in RELEASED.items():
        for task in TASKS:
            sources = {source for _, source in constants_of(method, task, 1000).values()}
            assert not sources & {ELSEWHERE if task in tasks else PUBLISHED}, (method, task)
    own, camera = (constants_of("daps", task, 1000) for task in ("bkse_deblur", "nonlinear_deblur"))
    assert own["step_size"] == (1e-5, PUBLISHED)
    assert own["langevin_steps"] == (200, PUBLISHED)
    assert camera["step_size"] == (1e-5, ELSEWHERE)
    assert constants_of("daps", "denoise", 1000)["tau"] == (0.01, ELSEWHERE)


@pytest.mark.parametrize(
    ("name", "constant", "allowed", "refused"),
    [
        *((n, c, (0.0, 0.5, 1.0), (-0.1, 1.5, float("inf"))) for n, c in (
            ("ddrm", "eta"), ("ddrm", "eta_b"), ("ddnm", "eta"), ("diffpir", "zeta"), ("daps", "decay"),
        )),
        *((n, c, (1e-5, 20.0), (0.0, -1.0, float("nan"))) for n, c in (
            ("dps", "step_size"), ("mcg", "step_size"), ("daps", "step_size"), ("blind_dps", "step_size"),
            ("pigdm", "data_variance"), ("diffpir_texture", "trust"), ("daps", "tau"),
        )),
        *((n, c, (1, 3), (0, -2)) for n, c in (
            ("daps", "ode_steps"), ("daps", "langevin_steps"), ("ddnm", "repeats"), ("ilvr", "factor"),
        )),
    ],
)  # fmt: skip
def test_constants_out_of_range_are_refused(name, constant, allowed, refused):
    """Before anything compiles, on the command line and in Python: with them a chain diverges or is no number."""
    task, prior = find_task("denoise"), prior_from_denoiser(Gaussian(jnp.zeros((8, 8, 1)), VARIANCE), CLD())
    fill = METHODS[name].fill
    for value in allowed:
        made = fill(task, {"method_settings": (f"{constant}={value}",)})
        assert made.constants()[constant] == value
    for value in refused:
        with pytest.raises(ValueError, match=f"^--method_settings={constant}={value}: {constant} must be "):
            fill(task, {"method_settings": (f"{constant}={value}",)})
        if name in BASELINES:
            with pytest.raises(ValueError, match=f"^{constant} must be "):
                baseline_loop(name, jnp.zeros((8, 8, 1)), lambda x: x, prior, (8, 8, 1), 10, 0.1, **{constant: value})


def test_every_constant_has_been_given_a_range():
    """A new constant of a method is a count, or is named among the ranges."""
    for name, entry in (BASELINES | BLIND_BASELINES).items():
        assert all(isinstance(d, int) or key in entry.ranges for key, d in constants(name).items()), name


def settings_of(method, task, *texts, **given):
    """The constants of a job."""
    made = METHODS[method].fill(find_task(task), given | {"method_settings": texts} if texts else given)
    return made.num_steps, made.constants()


def test_constants_are_those_of_the_task_and_of_the_number_of_steps():
    """Longer steps where they are fewer; DAPS has five steps of the flow at its own number; what is given counts."""
    assert settings_of("dps", "sr4") == (1000, {"step_size": 1.0})
    assert settings_of("dps", "hdr", num_steps=100) == (100, {"step_size": 3.0})
    assert settings_of("mcg", "hdr", num_steps=100)[1] == {"step_size": 10.0}
    assert settings_of("blind_dps", "blind_motion_deblur", num_steps=50)[1] == {"step_size": 20.0}
    assert settings_of("mcg", "hdr", "step_size=2", num_steps=100)[1] == {"step_size": 2.0}
    steps, daps_constants = settings_of("daps", "nonlinear_deblur")
    assert (steps, daps_constants["ode_steps"], daps_constants["langevin_steps"]) == (1000, 5, 200)
    assert daps_constants["step_size"] == 1e-5
    assert [settings_of("pigdm", task)[0] for task in ("gaussian_deblur", "box_inpaint")] == [50, 100]
    assert settings_of("daps", "sr4", num_steps=100)[1]["ode_steps"] == 1
    published = {"gaussian_deblur": (1.75, 0.3), "sr4": (0.5, 0.25), "box_inpaint": (0.25, 1.0)}
    for task, pair in published.items():
        assert tuple(settings_of("diffpir_texture", task)[1].values()) == pair
