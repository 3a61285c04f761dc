"""A large image begins with a small one: what is not seen is filled by what is known of whole images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, prior_from_denoiser, restore
from cvsa_jax.batch import BatchRestorer, guided_loops
from cvsa_jax.jobs import resolve
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import make_operator
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.view import View
from cvsa_jax.presets import preset_of
from cvsa_jax.restoration import guided_sampler
from cvsa_jax.sampler_settings import SamplerSettings

SIDE = 8
SETTINGS = SamplerSettings(num_steps=20, guidance="covariance", start="coarse")


def _knows_small_images(x, sigma):
    """Images below twice SIDE have one colour; of larger ones it knows that pixels lie within ten of zero."""
    if min(x.shape[:2]) < 2 * SIDE:
        return jnp.broadcast_to(x.mean((0, 1)), x.shape) / (1 + sigma**2 / x.shape[0] / x.shape[1])
    return x / (1 + sigma**2 / 100)


def _prior(stride=1):
    return dataclasses.replace(prior_from_denoiser(_knows_small_images, CLD()), image_size=SIDE, stride=stride)


def _hole(height, width):
    seen = jnp.ones((height, width, 1)).at[height // 4 : -height // 4, width // 4 : -width // 4].set(0)
    return Mask(seen)


def _colour(height, width):
    return jnp.broadcast_to(jnp.array([0.6, -0.4, 0.2]), (height, width, 3))


@pytest.mark.parametrize("shape", [(16, 16), (21, 18), (32, 40)])
def test_a_wide_hole_has_the_colour_of_the_whole(shape):
    operator, truth = _hole(*shape), _colour(*shape)
    y = operator(truth + 0.02 * jax.random.normal(jax.random.key(1), truth.shape))
    hole = np.asarray(operator.seen[..., 0]) == 0

    def error(start):
        found = restore(
            jax.random.key(0), y, operator, _prior(), image_shape=(*shape, 3), noise_std=0.02, settings=SETTINGS,
            start=start,
        )  # fmt: skip
        return np.sqrt(np.mean((found.image - truth)[hole].mean(0) ** 2)), np.asarray(found.image)[~hole]

    (coarse, seen), (noise, _) = error("coarse"), error("noise")
    assert coarse < 0.25 and coarse < 0.4 * noise
    np.testing.assert_allclose(seen, truth[~hole], atol=0.1)


@pytest.mark.parametrize("shape", [(8, 8), (15, 12)])
def test_images_of_the_priors_own_size_begin_at_noise(shape):
    operator, y = _hole(*shape), _hole(*shape)(_colour(*shape))
    one, other = (
        restore(jax.random.key(0), y, operator, _prior(), image_shape=(*shape, 3), noise_std=0.1, settings=SETTINGS,
                start=start).image
        for start in ("coarse", "noise")
    )  # fmt: skip
    np.testing.assert_array_equal(one, other)


def test_a_batch_gives_what_each_image_gives_alone():
    shape, prior, noise = (21, 18), _prior(stride=4), GaussianNoise(0.05)
    operators = [_hole(*shape), Mask(_hole(*shape).seen.at[:3].set(0))]
    ys = jnp.stack([h(_colour(*shape)) for h in operators])
    keys = jax.random.split(jax.random.key(3), 2)
    batch = BatchRestorer(prior, guided_loops(prior, noise, SETTINGS, None), SETTINGS.num_steps)
    together = batch(keys, ys, operators, (*shape, 3)).images
    for key, y, operator, image in zip(keys, ys, operators, together, strict=True):
        alone = restore(key, y, operator, prior, image_shape=(*shape, 3), noise_std=noise, settings=SETTINGS).image
        np.testing.assert_allclose(image, alone, atol=2e-4)


@pytest.mark.parametrize("shape", [(8, 12), (9, 11)])
def test_a_reduced_mask_measures_the_means_of_squares(shape):
    generator = np.random.default_rng(0)
    seen = generator.choice([0.0, 0.5, 1.0], (*shape, 1), p=[0.6, 0.2, 0.2])
    seen[:4, :4] = 0
    seen[:4, 4:8] = 1
    operator, std = Mask(jnp.asarray(seen, jnp.float32)), 0.3
    y, small, noise = operator.reduced(operator(_colour(*shape)), GaussianNoise(std), 4)
    assert y.shape == (-(-shape[0] // 4), -(-shape[1] // 4), 3)
    np.testing.assert_allclose(y, small(_colour(*y.shape[:2])), atol=1e-6)  # of one colour every mean is that colour
    assert small.seen[0, 0, 0] == 0 and set(np.unique(small.seen)) == {0.0, 1.0}
    np.testing.assert_allclose(noise.std[0, 1], std / 4, rtol=1e-6)  # a square that is wholly seen: 16 pixels
    generated = std * jax.random.normal(jax.random.key(0), (2000, *shape, 3))
    draws = jax.vmap(lambda noise: operator.reduced(operator.restrict(noise), GaussianNoise(std), 4)[0])(generated)
    spread = np.std(draws, 0)
    assert (spread <= 1.1 * np.asarray(noise.std)).all()  # what noise alone leaves; the detail comes on top


def test_views_and_grey_reduce_alike():
    operator = _hole(20, 12)
    found = View(operator, 20, 12, 3).reduced(operator(jnp.full((20, 12, 1), 0.3)), GaussianNoise(0.1), 4)
    assert found is not None
    y, small, _ = found
    np.testing.assert_allclose(small(jnp.full((8, 8, 3), 0.3)), y, atol=1e-6)


def test_it_is_the_preset_of_holes_and_refused_where_it_means_nothing():
    assert preset_of("box_inpaint").sampler.start == preset_of("mask_inpaint").sampler.start == "coarse"
    blur = make_operator("gaussian_deblur", np.random.default_rng(0), 16, 16)
    y = blur(_colour(16, 16))
    with pytest.raises(ValueError, match="smaller image"):
        restore(jax.random.key(0), y, blur, _prior(), image_shape=y.shape, noise_std=0.1, settings=SETTINGS)
    with pytest.raises(ValueError, match="restore"):
        guided_sampler(y, blur, _prior(), noise_std=0.1, settings=SETTINGS)


@pytest.mark.parametrize("start", ["coarse", "solution"])
def test_a_blind_job_refuses_a_start_that_needs_the_kernel(start):
    with pytest.raises(ValueError, match=f"--start={start} is not for blind tasks"):
        resolve({"task": "blind_motion_deblur", "input": ".", "output": "x", "start": start})
