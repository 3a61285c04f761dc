"""The loop: pure under jit, vmap and grad; one network evaluation and one trace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, Gaussian, prior_from_denoiser, restore
from cvsa_jax.guidance import GUIDANCES, ITERATIONS
from cvsa_jax.operators import Identity, OperatorOptions, View, make_operator
from cvsa_jax.samplers import SAMPLERS

SETTINGS = {"image_shape": (32, 32, 3), "noise_std": 0.05, "num_steps": 6}
# Each sampler, and each form of guidance: the two do not know of each other.
COMBINATIONS = [(s, "covariance") for s in SAMPLERS] + [("ancestral", g) for g in GUIDANCES if g != "covariance"]


def problem(photos, task="motion_deblur", count=8):
    """Operators, measurements and keys for `count` photographs, each with its own operator."""
    generator = np.random.default_rng(0)
    drawn = [make_operator(task, generator, 32, 32, OperatorOptions()) for _ in range(count)]
    operators = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    measurements = jax.vmap(lambda h, x: h(x))(operators, jnp.asarray(photos[:count]))
    return drawn, operators, measurements, jax.random.split(jax.random.key(5), count)


@pytest.mark.parametrize("task", ["motion_deblur", "random_inpaint", "sr4"])
def test_batch_gives_each_image_what_it_gives_alone(photos, tiny_prior, task):
    drawn, operators, measurements, keys = problem(photos, task)
    run = lambda k, y, h: restore(k, y, h, tiny_prior, **SETTINGS)  # noqa: E731
    together = jax.jit(jax.vmap(run))(keys, measurements, operators)
    alone = jax.jit(run)
    for i, operator in enumerate(drawn):
        single = alone(keys[i], measurements[i], operator)
        np.testing.assert_allclose(together.image[i], single.image, atol=2e-4)
        np.testing.assert_allclose(together.trace.residual[i], single.trace.residual, rtol=1e-3)


@pytest.mark.parametrize(("sampler", "guidance"), COMBINATIONS)
def test_eager_jit_and_vmap_agree(sampler, guidance):
    shape = (4, 4, 1)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    steps = 10 if sampler == "ancestral" else 400
    run = functools.partial(
        restore, operator=Identity(), prior=prior, image_shape=shape, noise_std=0.5, num_steps=steps,
        sampler=sampler, guidance=guidance, time_grid="quadratic",
    )  # fmt: skip
    key, y = jax.random.key(0), jnp.linspace(-0.5, 0.5, 16).reshape(shape)
    jitted = jax.jit(run)(key, y)
    mapped = jax.vmap(run)(key[None], y[None])
    with jax.disable_jit():
        eager = run(key, y) if sampler == "ancestral" else jitted  # minutes for each of the others
    assert np.isfinite(jitted.image).all()
    assert jitted.trace.residual.shape == (steps,)
    np.testing.assert_allclose(mapped.image[0], jitted.image, atol=1e-4)
    np.testing.assert_allclose(eager.image, jitted.image, atol=1e-4)


def test_gradient_through_the_loop(float64):
    """d image / d measurement by autodiff is that by central differences."""
    shape = (3, 3, 1)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    y = jnp.linspace(-1, 1, 9).reshape(shape)

    def total(y, noise_std):
        return jnp.sum(
            restore(jax.random.key(0), y, Identity(), prior, image_shape=shape, noise_std=noise_std, num_steps=8).image
            ** 2
        )

    by_y, by_noise = jax.grad(total, (0, 1))(y, 0.3)
    step = 1e-5
    shift = jnp.zeros(shape).at[1, 2, 0].set(step)
    slope = (total(y + shift, 0.3) - total(y - shift, 0.3)) / (2 * step)
    assert float(by_y[1, 2, 0]) == pytest.approx(float(slope), rel=1e-6)
    slope = (total(y, 0.3 + step) - total(y, 0.3 - step)) / (2 * step)
    assert float(by_noise) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize(("sampler", "guidance"), COMBINATIONS)
def test_one_trace_and_one_network_evaluation_a_step(sampler, guidance):
    """Python sees the network once; the device calls it num_steps times, and pulls back as often."""
    traces, values, pulls = 0, [], []
    shape, steps = (5, 4, 1), 7

    def evaluate(x, sigma):
        jax.debug.callback(lambda: values.append(1))
        return 0.5 * x

    network = jax.custom_vjp(evaluate)

    def forward(x, sigma):
        nonlocal traces
        traces += 1
        return evaluate(x, sigma), None

    def backward(_, g):
        jax.debug.callback(lambda: pulls.append(1))
        return 0.5 * g, None

    network.defvjp(forward, backward)
    prior = prior_from_denoiser(network, CLD())

    @jax.jit
    def run(key, y):
        return restore(
            key, y, Identity(), prior, image_shape=shape, noise_std=0.5, num_steps=steps, sampler=sampler,
            guidance=guidance,
        ).image  # fmt: skip

    for seed in range(2):
        jax.block_until_ready(run(jax.random.key(seed), jnp.ones(shape)))
    jax.effects_barrier()
    assert traces == 1
    assert len(values) == 2 * steps
    each = {"second_moment": 1 + ITERATIONS["second_moment"], "diagonal_covariance": 2, "projection": 0}.get(
        guidance, 1
    )
    assert len(pulls) == 2 * steps * each


def test_result_follows_the_measurement():
    """A measurement without noise of everything is returned."""
    shape = (8, 8, 3)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    y = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
    result = restore(jax.random.key(1), y, Identity(), prior, image_shape=shape, noise_std=1e-3, num_steps=20)
    np.testing.assert_allclose(result.image, y, atol=2e-3)


def test_weighted_data_have_the_tempered_posterior():
    """x ~ N(0, s^2), y = x + noise n: under p(y|x)^w the mean of x is w s^2 y / (w s^2 + noise^2)."""
    shape, variance, noise_std = (4, 4, 1), 0.25, 0.5
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), variance), CLD())
    y = jnp.linspace(-1.0, 1.0, 16).reshape(shape)
    keys = jax.random.split(jax.random.key(0), 4000)
    run = lambda key, w: restore(  # noqa: E731
        key, y, Identity(), prior, image_shape=shape, noise_std=noise_std, num_steps=60, sampler="multistep",
        guidance="covariance", data_weight=w,
    ).image  # fmt: skip
    for weight in (0.5, 1.0, 4.0):
        samples = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, weight)
        data = weight * variance
        np.testing.assert_allclose(samples.mean(0), data * y / (data + noise_std**2), atol=0.03)
        deviation = (variance * noise_std**2 / (data + noise_std**2)) ** 0.5
        np.testing.assert_allclose(samples.std(0).mean(), deviation, rtol=0.04)


def test_margin_does_not_reach_the_image():
    """A canvas larger than the image leaves a white prior's restoration of it unbiased by the margin."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros((8, 8, 1)), 0.25), CLD())
    y = jax.random.uniform(jax.random.key(0), (5, 7, 1), minval=-1.0)
    view = View(Identity(), 5, 7)
    result = restore(jax.random.key(1), y, view, prior, image_shape=(8, 8, 1), noise_std=1e-3, num_steps=20)
    np.testing.assert_allclose(view.crop(result.image), y, atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "euler"}, "sampler must be one of"),
        ({"guidance": "none"}, "guidance must be one of"),
        ({"time_grid": "cosine"}, "time_grid must be one of"),
        ({"num_steps": 1}, "num_steps must be at least 2"),
        ({"noise_std": 0.0}, "noise_std must be positive"),
        ({"t_end": 2.0}, "t_end"),
        ({"data_weight": 0.0}, "data_weight must be positive"),
    ],
)
def test_bad_settings_are_refused_before_anything_compiles(settings, message):
    def denoise(x, sigma):
        raise AssertionError("traced")

    prior = prior_from_denoiser(denoise, CLD())
    with pytest.raises(ValueError, match=message):
        restore(jax.random.key(0), jnp.ones((32, 32, 3)), Identity(), prior, **{**SETTINGS, **settings})
