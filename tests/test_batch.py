"""Batches of any size: as if each image were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, Gaussian, SamplerSettings, batch, prior_from_denoiser, restore, simulate
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import View, make_operator

SETTINGS = {"sampler": "ancestral", "guidance": "covariance"}


def restorer_of(prior, num_steps, **options):
    loops = batch.guided_loops(prior, GaussianNoise(0.05), SamplerSettings(num_steps=num_steps, **SETTINGS), None)
    return batch.BatchRestorer(prior, loops, num_steps, **options)


def problem(photos, height, width, count=3, task="gaussian_deblur"):
    generator = np.random.default_rng(0)
    drawn = [make_operator(task, generator, height, width) for _ in range(count)]
    images = photos[:count, :height, :width]
    measurements = np.stack([np.asarray(h(jnp.asarray(x))) for h, x in zip(drawn, images, strict=True)])
    return jax.random.split(jax.random.key(0), count), measurements, drawn


def test_chunks_and_progress_do_not_change_the_result(photos, tiny_prior):
    inputs = problem(photos, 32, 32)
    seen = []
    whole = restorer_of(tiny_prior, 7, chunk=7)(*inputs, (32, 32, 3))
    parts = restorer_of(tiny_prior, 7, chunk=3)(*inputs, (32, 32, 3), seen.append)
    assert seen == [3, 3, 1]
    assert parts.trace.residual.shape == (3, 7)
    assert parts.residuals.shape == (3,)
    np.testing.assert_allclose(parts.images, whole.images, atol=2e-4)
    np.testing.assert_allclose(parts.trace.residual, whole.trace.residual, rtol=1e-3)
    seen = np.stack([h(jnp.asarray(x)) for h, x in zip(inputs[2], parts.images, strict=True)])
    np.testing.assert_allclose(parts.residuals, np.sqrt(np.mean((seen - inputs[1]) ** 2, (1, 2, 3))), rtol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (21, 30)])
def test_batch_equals_restore(photos, tiny_prior, height, width):
    keys, measurements, drawn = problem(photos, height, width)
    restorer = restorer_of(tiny_prior, 6)
    canvas = tiny_prior.canvas((height, width, 3))
    found = restorer(keys, measurements, drawn, (height, width, 3))
    assert canvas[0] % 4 == canvas[1] % 4 == 0
    assert found.images.shape == (3, height, width, 3)
    for i in range(3):
        view = View(drawn[i], height, width)
        alone = jax.jit(
            lambda k, y, h: (
                restore(k, y, h, tiny_prior, image_shape=canvas, noise_std=0.05, num_steps=6, **SETTINGS).image
            )
        )(keys[i], measurements[i], view)
        np.testing.assert_allclose(found.images[i], view.crop(alone), atol=2e-4)


def test_grey_under_a_colour_prior(photos, tiny_prior):
    keys, measurements, drawn = problem(photos[..., :1], 32, 32)
    found = restorer_of(tiny_prior, 6)(keys, measurements, drawn, (32, 32, 1))
    assert found.images.shape == (3, 32, 32, 1)
    alone = jax.jit(lambda k, y, h: restore(k, y, h, tiny_prior, image_shape=(32, 32, 1), noise_std=0.05, num_steps=6,
                                            **SETTINGS).image)  # fmt: skip
    for i in range(3):
        np.testing.assert_allclose(found.images[i], alone(keys[i], measurements[i], drawn[i]), atol=2e-4)


def test_one_program_for_one_shape(photos, tiny_prior):
    inputs = problem(photos, 32, 32)
    restorer = restorer_of(tiny_prior, 6, chunk=6)
    restorer(*inputs, (32, 32, 3))
    programs = len(restorer._compiled)
    restorer(*inputs, (32, 32, 3))
    assert len(restorer._compiled) == programs == 3


def test_a_short_batch_is_served_by_the_program_of_the_full_one(photos, tiny_prior):
    """Filled up it gives the same images, and what fills it up is dropped; batches may wait for each other."""
    keys, measurements, drawn = problem(photos, 32, 32)
    restorer = restorer_of(tiny_prior, 6, chunk=6)
    first = restorer.begin(keys, measurements, drawn, (32, 32, 3))
    last = restorer.begin(keys[:1], measurements[:1], drawn[:1], (32, 32, 3), size=3)
    seen = []
    whole, short = first.result(seen.append), last.result()
    assert len(restorer._compiled) == 3 and seen == [6]
    assert short.images.shape == (1, 32, 32, 3) and short.trace.residual.shape == (1, 6)
    np.testing.assert_array_equal(short.images[0], whole.images[0])
    run = next(program for key, program in restorer._compiled.items() if key[0] == "run 6")
    assert run.memory_analysis().alias_size_in_bytes >= 2 * whole.images.nbytes, "x and v keep their memory"


SMALL = (5, 6, 1)


def small_prior():
    """A Gaussian of colour images whose sides are multiples of four."""
    return prior_from_denoiser(Gaussian(jnp.array([0.1, -0.2, 0.3]), 0.25), CLD()).replace(stride=4, channels=3)


def several(x):
    """A complex sensor and a real one."""
    return jnp.fft.rfft2(x, axes=(0, 1), norm="ortho"), x[::2]


def test_complex_measurements_of_several_sensors():
    """As `restore`; the residuals are over all real numbers of the measurement."""
    noise = GaussianNoise((0.1, 0.3))
    images = jax.random.uniform(jax.random.key(0), (2, *SMALL), minval=-1.0)
    keys = jax.random.split(jax.random.key(1), 2)
    measurements = jax.vmap(lambda k, x: simulate(k, several, x, 0.1))(keys, images)
    loops = batch.guided_loops(small_prior(), noise, SamplerSettings(num_steps=5, **SETTINGS), None)
    found = batch.BatchRestorer(small_prior(), loops, 5)(keys, measurements, [several] * 2, SMALL)
    assert found.images.shape == (2, *SMALL)
    for i in range(2):
        y = jax.tree.map(lambda a, i=i: a[i], measurements)
        alone = restore(
            keys[i], y, several, small_prior(), image_shape=SMALL, noise_std=(0.1, 0.3), num_steps=5, **SETTINGS
        )
        np.testing.assert_allclose(found.images[i], alone.image, atol=1e-5)
        np.testing.assert_allclose(found.trace.residual[i], alone.trace.residual, rtol=1e-4)
        z, part = jax.tree.map(jnp.subtract, y, several(jnp.asarray(found.images[i])))
        numbers = np.concatenate([z.real.ravel(), z.imag.ravel(), part.ravel()])
        assert found.residuals[i] == pytest.approx(np.sqrt(np.mean(numbers**2)), rel=1e-4)


def test_particles_are_all_returned_and_are_the_samples():
    settings = SamplerSettings("particles", "covariance", num_steps=4, num_particles=3)
    loops = batch.guided_loops(small_prior(), GaussianNoise(0.2), settings, None)
    keys, measurements = jax.random.split(jax.random.key(0), 2), np.zeros((2, *SMALL), np.float32)
    found = batch.BatchRestorer(small_prior(), loops, 4)(keys, measurements, [lambda x: x] * 2, SMALL)
    assert found.images.shape == (2, 3, *SMALL)
    expected = np.sqrt(np.mean(found.images**2, (2, 3, 4)))
    np.testing.assert_allclose(found.residuals, expected, rtol=1e-4)
    np.testing.assert_array_equal(found.part(1, 2).images, found.images[1])


def test_baselines_run_in_batches():
    loops = batch.baseline_loops("dps", GaussianNoise(0.1), 6, {"step_size": 0.5}, None)
    keys, measurements = jax.random.split(jax.random.key(0), 2), np.zeros((2, *SMALL), np.float32)
    found = batch.BatchRestorer(small_prior(), loops, 6, chunk=4)(keys, measurements, [lambda x: x] * 2, SMALL)
    assert found.images.shape == (2, *SMALL)
    assert np.isfinite(found.images).all()
    alone = batch.BatchRestorer(small_prior(), loops, 6)(keys[1:], measurements[1:], [lambda x: x], SMALL)
    np.testing.assert_allclose(alone.images[0], found.images[1], atol=1e-5)


def test_what_does_not_fit_is_refused_before_anything_compiles():
    """By `check`, and the priors' canvas, before the prior is traced; one step is traced of what fits."""

    def denoise(x, sigma):
        raise AssertionError("traced")

    prior = prior_from_denoiser(denoise, CLD()).replace(stride=4, channels=3)
    restorer = restorer_of(prior, 6)
    with pytest.raises(AssertionError, match="traced"):
        restorer.check(np.zeros(SMALL, np.float32), lambda x: x, SMALL)
    for measurement, shape, message in (
        (np.zeros((5, 7, 1), np.float32), SMALL, "but the operator measures"),
        (np.zeros(SMALL, np.uint8), SMALL, "is uint8, but numbers"),
        (np.zeros((5, 6, 2), np.float32), (5, 6, 2), "of 3 channels, and cannot restore 2"),
    ):
        with pytest.raises(ValueError, match=message):
            restorer.check(measurement, lambda x: x, shape)
    with pytest.raises(ValueError, match="noise_std must be positive"):
        batch.guided_loops(prior, GaussianNoise(0.0), SamplerSettings(), None)
