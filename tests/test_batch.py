"""Batches of any size: as if each image were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import batch, restore
from cvsa_jax.operators import OperatorOptions, View, make_operator

SETTINGS = {"noise_std": 0.05, "sampler": "ancestral", "guidance": "covariance"}


def problem(photos, height, width, count=3, task="gaussian_deblur"):
    generator = np.random.default_rng(0)
    drawn = [make_operator(task, generator, height, width, OperatorOptions()) for _ in range(count)]
    images = photos[:count, :height, :width]
    measurements = np.stack([np.asarray(h(jnp.asarray(x))) for h, x in zip(drawn, images, strict=True)])
    return jax.random.split(jax.random.key(0), count), measurements, drawn


def test_chunks_and_progress_do_not_change_the_result(photos, tiny_prior):
    inputs = problem(photos, 32, 32)
    seen = []
    whole = batch.BatchRestorer(tiny_prior, 4, 3, 7, chunk=7, **SETTINGS)(*inputs, (32, 32, 3))
    parts = batch.BatchRestorer(tiny_prior, 4, 3, 7, chunk=3, **SETTINGS)(*inputs, (32, 32, 3), seen.append)
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
    restorer = batch.BatchRestorer(tiny_prior, 4, 3, 6, **SETTINGS)
    canvas = restorer.canvas(height, width)
    found = restorer(keys, measurements, drawn, (height, width, 3))
    assert canvas[0] % 4 == canvas[1] % 4 == 0
    assert found.images.shape == (3, height, width, 3)
    for i in range(3):
        view = View(drawn[i], height, width)
        alone = jax.jit(
            lambda k, y, h: restore(k, y, h, tiny_prior, image_shape=canvas, num_steps=6, **SETTINGS).image
        )(keys[i], measurements[i], view)
        np.testing.assert_allclose(found.images[i], view.crop(alone), atol=2e-4)


def test_grey_under_a_colour_prior(photos, tiny_prior):
    keys, measurements, drawn = problem(photos[..., :1], 32, 32)
    found = batch.BatchRestorer(tiny_prior, 4, 3, 6, **SETTINGS)(keys, measurements, drawn, (32, 32, 1))
    assert found.images.shape == (3, 32, 32, 1)
    assert np.isfinite(found.images).all()


def test_one_program_for_one_shape(photos, tiny_prior):
    inputs = problem(photos, 32, 32)
    restorer = batch.BatchRestorer(tiny_prior, 4, 3, 6, chunk=6, **SETTINGS)
    restorer(*inputs, (32, 32, 3))
    programs = len(restorer._compiled)
    restorer(*inputs, (32, 32, 3))
    assert len(restorer._compiled) == programs == 3
