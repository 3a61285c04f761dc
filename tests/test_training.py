"""Losses at their known values, the optimiser, and the measured denoising error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, Gaussian, networks, prior_from_denoiser, training
from cvsa_jax.denoising import denoising_error
from cvsa_jax.parameterizations import TRAINABLE
from cvsa_jax.priors import coefficients

SMALL = {"channels": (8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1), "patch": 1}


def test_loss_of_the_constant_shrinkage_is_one():
    """EDM's weights make the loss of F = 0 equal to 1 at every noise level, for white data."""
    spec = networks.NetworkSpec(image_size=8, options=SMALL)
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), jax.eval_shape(spec.init, jax.random.key(0)))
    images = 0.5 * jax.random.normal(jax.random.key(1), (512, 8, 8, 3))
    loss = jax.jit(training.denoiser_loss(spec))(params, jax.random.key(2), images)
    assert float(loss) == pytest.approx(1.0, abs=4 * (2 / images.size) ** 0.5 * 2)


def test_denoiser_loss_is_least_at_the_posterior_mean(monkeypatch):
    """Among k x / (1 + s^2 / .25), the loss of white Gaussian data is least at k = 1."""
    spec = networks.NetworkSpec(image_size=8, options=SMALL)
    images = 0.5 * jax.random.normal(jax.random.key(1), (256, 8, 8, 3))

    def loss(k):
        exact = lambda spec, module, params, x, s: k * x / (1 + s[:, None, None, None] ** 2 / 0.25)  # noqa: E731
        monkeypatch.setattr(training, "edm_denoise", exact)
        return float(training.denoiser_loss(spec)(None, jax.random.key(2), images))

    assert loss(1.0) < min(loss(0.9), loss(1.1))


def test_velocity_loss_vanishes_at_the_exact_score(monkeypatch):
    """For one known image alpha = -(score + v/S^vv) L^vv is reached exactly: the target is that."""
    spec = networks.NetworkSpec(parameterization="velocity", image_size=8, options=SMALL)
    image, cld = jax.random.uniform(jax.random.key(0), (8, 8, 3), minval=-1.0), CLD()
    times = np.asarray(training._time_table(cld).time)

    def exact_alpha(module, mass, params, u, t):
        c = coefficients(cld, times)
        row = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32)[jnp.searchsorted(times, t), None, None, None], c)
        x, v = jnp.split(u, 2, -1)
        score = row.data * image - row.precision_xv * x - row.precision_vv * v
        return -(score + v / row.variance_v) * row.std_v

    monkeypatch.setattr(training, "velocity_alpha", exact_alpha)
    loss = training.velocity_loss(spec)(None, jax.random.key(1), jnp.broadcast_to(image, (64, 8, 8, 3)))
    assert float(loss) < 1e-5
    monkeypatch.setattr(training, "velocity_alpha", lambda *args: 0.9 * exact_alpha(*args))
    worse = training.velocity_loss(spec)(None, jax.random.key(1), jnp.broadcast_to(image, (64, 8, 8, 3)))
    assert float(worse) > 50 * float(loss)


def test_training_noise_covers_the_diffusion():
    sigma = np.asarray(training.draw_training_noise(jax.random.key(0), 100000))
    assert np.median(sigma) == pytest.approx(np.exp(-1.1), rel=0.05)
    assert (sigma > 30).mean() == pytest.approx(0.1 * np.log(300 / 30) / np.log(300 / 0.002), rel=0.1)
    assert sigma.min() > 0
    assert sigma.max() > 247.6


@pytest.mark.parametrize("parameterization", TRAINABLE)
def test_steps_reduce_the_loss_and_depend_on_the_key_alone(photos, parameterization):
    spec = networks.NetworkSpec(parameterization=parameterization, image_size=16, options=SMALL)
    optimizer = training.make_optimizer(3e-3, 5, 60)
    step = jax.jit(training.train_step(spec, optimizer, 0.9))
    images = jnp.asarray(photos[:, ::2, ::2])

    def run():
        state, losses = jax.jit(lambda: training.init_state(spec, optimizer, 0))(), []
        for _ in range(60):
            state, loss = step(state, images)
            losses.append(float(loss))
        return state, losses

    state, losses = run()
    again, same = run()
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:5])
    assert losses == same
    assert int(state.step) == 60
    for a, b in zip(jax.tree.leaves(state.average), jax.tree.leaves(again.average), strict=True):
        np.testing.assert_array_equal(a, b)


def test_average_is_the_recursion(photos):
    spec = networks.NetworkSpec(image_size=16, options=SMALL)
    optimizer = training.make_optimizer(1e-2, 0, 5)
    step = jax.jit(training.train_step(spec, optimizer, 0.2))
    state = training.init_state(spec, optimizer, 0)
    leaf = lambda tree: np.asarray(jax.tree.leaves(tree)[3])  # noqa: E731
    expected = leaf(state.average)
    for n in range(3):
        state, _ = step(state, jnp.asarray(photos[:2, ::2, ::2]))
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * leaf(state.params)
        np.testing.assert_allclose(leaf(state.average), expected, rtol=1e-5, atol=1e-7)


def test_denoising_error_of_an_exact_prior():
    """A Gaussian's error is d^2 s^2 / (d^2 + s^2), whatever the batches."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros((8, 8, 3)), 0.25), CLD())
    images = np.asarray(0.5 * jax.random.normal(jax.random.key(0), (400, 8, 8, 3)))
    found = denoising_error(prior, images, jax.random.key(1), batch_size=150)
    s = np.array(found.noise)
    np.testing.assert_allclose(found.error, 0.25 * s**2 / (0.25 + s**2), rtol=4 * (2 / images.size) ** 0.5)
