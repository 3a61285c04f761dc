"""Each baseline against its equations, written again in float64 NumPy for a Gaussian prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import Gaussian, run_steps
from cvsa_jax.baselines import BASELINES
from cvsa_jax.baselines import base as baseline
from cvsa_jax.operators import Matrix

SHAPE, VARIANCE, STEPS = (3, 2, 1), 0.25, 5
GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.normal(size=(2, 6)) / 3
Y, NOISE_STD = GENERATOR.normal(size=2), 0.2


def chain_of(name, **options):
    denoise = Gaussian(jnp.zeros(SHAPE), VARIANCE)
    return BASELINES[name](denoise, jnp.asarray(Y), Matrix(jnp.asarray(MATRIX)), NOISE_STD, STEPS, **options)


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
    variance = level**2 * VARIANCE / (level**2 + VARIANCE)
    guide = variance * jacobian * MATRIX.T @ np.linalg.solve(variance * MATRIX @ MATRIX.T + NOISE_STD**2 * np.eye(2), r)
    error = (x - kept**0.5 * estimate) / (1 - kept) ** 0.5
    fresh = ((1 - before) / (1 - kept) * (1 - ratio)) ** 0.5
    return before**0.5 * estimate + (1 - before - fresh**2) ** 0.5 * error + fresh * noise + kept**0.5 * guide


@pytest.mark.parametrize(
    ("name", "options"), [("dps", {"step_size": 0.5}), ("pigdm", {"data_variance": VARIANCE}), ("ddrm", {})]
)
def test_steps_are_the_equations(float64, name, options):
    chain = chain_of(name, **options)
    rates = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[999, 749, 500, 250, 0]]
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


@pytest.mark.parametrize("name", BASELINES)
def test_neighbours_do_not_matter(name):
    chain = chain_of(name)
    keys = jax.random.split(jax.random.key(3), 3)

    def run(key, scale):
        state = chain.init(key, SHAPE)
        return run_steps(chain, state._replace(x=scale * state.x), 0, STEPS)[0].x

    scales = jnp.array([1.0, 10.0, 1e3])
    together = jax.vmap(run)(keys, scales)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(keys[i], scales[i]), rtol=1e-4, atol=1e-5)


def test_ddrm_returns_a_clear_measurement():
    """Everything measured, almost without noise: the image is the measurement."""
    matrix = jnp.asarray(np.linalg.qr(GENERATOR.normal(size=(6, 6)))[0], jnp.float32)
    truth = jnp.linspace(-1, 1, 6).reshape(SHAPE)
    chain = BASELINES["ddrm"](Gaussian(jnp.zeros(SHAPE), VARIANCE), matrix @ truth.ravel(), Matrix(matrix), 1e-4, 20)
    state, _ = run_steps(chain, chain.init(jax.random.key(0), SHAPE), 0, 20)
    np.testing.assert_allclose(state.x, truth, atol=0.02)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_steps of a baseline"):
        BASELINES["dps"](None, jnp.zeros(2), lambda x: x, 0.1, 1001)
    with pytest.raises(ValueError, match="spectral form"):
        BASELINES["ddrm"](None, jnp.zeros(2), lambda x: x, 0.1, 10)
