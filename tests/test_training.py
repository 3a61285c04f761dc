"""Losses at their known values, the optimiser, and the measured denoising error."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SAMPLES
from test_quality import random_params

from cvsa_jax import CLD, Gaussian, growing, networks, prior_from_denoiser, training
from cvsa_jax.denoising import denoising_error
from cvsa_jax.jobs.train import TrainingRun
from cvsa_jax.jobs.training_settings import TrainingSettings
from cvsa_jax.parameterizations import TRAINABLE
from cvsa_jax.priors import coefficients
from cvsa_jax.types import InputError

LARGER = {"channels": (8, 8, 16), "encoder_blocks": (2, 1, 1), "decoder_blocks": (1, 3, 2), "attention": True}
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


# Growing.


def nonzero_params(spec):
    """Parameters of which none is zero, so that every part of the network counts."""
    return random_params(jax.eval_shape(spec.init, jax.random.key(0)))


@pytest.mark.parametrize(
    "larger",
    [{}, LARGER, {"channels": (8, 8, 8, 8), "encoder_blocks": (1,) * 4, "decoder_blocks": (1,) * 4}],
    ids=["as it was", "all at once", "two levels"],
)
def test_a_grown_network_computes_what_it_did_and_learns_in_every_part(larger):
    small = networks.NetworkSpec(image_size=16, options=SMALL)
    large = dataclasses.replace(small, options=SMALL | larger)
    params = nonzero_params(small)
    grown = growing.grow(small, params, large, jax.random.key(1))
    x, label = jax.random.normal(jax.random.key(2), (2, 16, 16, 3)), jnp.array([0.3, -0.5])
    run = lambda spec, p: spec.build("float32").apply(p, x, label)  # noqa: E731
    before = run(small, params)
    assert float(jnp.abs(before).max()) > 0.1
    np.testing.assert_allclose(run(large, grown), before, rtol=1e-4, atol=1e-4)
    assert jax.tree.map(jnp.shape, grown) == jax.tree.map(jnp.shape, jax.eval_shape(large.init, jax.random.key(0)))
    loss = lambda p: jnp.mean((run(large, p) - jnp.sin(9 * x)) ** 2)  # noqa: E731
    far = lambda a, g: a - 0.01 * g / jnp.maximum(jnp.abs(g).max(), 1e-20)  # noqa: E731
    descend = jax.jit(lambda p: jax.tree.map(far, p, jax.grad(loss)(p)))
    moved = grown
    for _ in range(5):  # what lies behind zeros moves once they have
        moved = descend(moved)
    changes = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), moved, grown))
    assert all(change > 0 for path, change in changes if path[-1].key == "kernel")


@pytest.mark.parametrize(
    ("options", "facts", "message"),
    [
        ({"channels": (8, 16)}, {}, "its patch is 1 and its channels 8,8"),
        ({"patch": 2}, {}, "its patch is 1"),
        ({"encoder_blocks": (1, 2)}, {"image_channels": 1}, "its image_channels is 3, not 1"),
        ({}, {"parameterization": "velocity"}, "its parameterization is 'denoiser', not 'velocity'"),
    ],
)
def test_a_network_that_cannot_compute_what_it_did_is_refused(options, facts, message):
    small = networks.NetworkSpec(image_size=16, options=SMALL)
    large = dataclasses.replace(small, options=SMALL | options, **facts)
    with pytest.raises(InputError, match=message):
        growing.grow(small, nonzero_params(small), large, jax.random.key(1))


def test_networks_of_others_cannot_grow():
    with pytest.raises(InputError, match="it is a ffdnet; only networks of `cvsa train`"):
        growing.shape_of(networks.NetworkSpec(model="ffdnet", image_size=16))


def test_blocks_and_attention_cannot_be_taken_away():
    small = networks.NetworkSpec(image_size=16, options=SMALL | {"encoder_blocks": (1, 2), "attention": True})
    params = nonzero_params(small)
    for options, message in (({"attention": True}, "fewer blocks"), ({"encoder_blocks": (1, 2)}, "it attends")):
        with pytest.raises(InputError, match=message):
            growing.grow(small, params, dataclasses.replace(small, options=SMALL | options), jax.random.key(1))


def test_a_run_begins_with_the_prior_it_is_told(tiny_checkpoint, tiny_spec, tiny_prior, photos):
    """With the spectrum and the shape of that; what a flag says is its own."""
    shape = {"encoder_blocks": ("2", "1"), "attention": True}
    given = {"data": str(SAMPLES), "output": "unused", "num_validation": 8, "batch_size": 4, "image_size": 32}
    begun = lambda **more: TrainingRun(TrainingSettings(**given, **more), CLD())  # noqa: E731
    run = begun(start=str(tiny_checkpoint), **shape)
    assert run.own.channels == tiny_spec.options["channels"] and run.own.encoder_blocks == (2, 1) and run.own.attention
    assert run._spec.spectrum == tiny_spec.spectrum
    optimizer = training.make_optimizer(1e-3, 10, 100)
    state = training.init_state(run._spec, optimizer, 0, run._params)
    prior = networks.build_prior(run._spec, state.average)
    denoise = lambda p: jax.jit(p.denoise)(photos[0], 0.5)  # noqa: E731
    np.testing.assert_allclose(denoise(prior), denoise(tiny_prior), atol=1e-5)
    with pytest.raises(InputError, match=r"--start=.* cannot be continued so: its patch is 2 and its channels 8,8"):
        begun(start=str(tiny_checkpoint), channels=("8", "16"))
    with pytest.raises(InputError, match=r"--start=.* cannot be continued so: its image_channels is 3, not 1"):
        begun(start=str(tiny_checkpoint), image_channels=1)
    with pytest.raises(InputError, match=r"--start=.* cannot be continued so: its preconditioning is spectral, not sc"):
        begun(start=str(tiny_checkpoint), preconditioning="scalar")
    with pytest.raises(InputError, match="no prior in"):
        begun(start="nowhere")
