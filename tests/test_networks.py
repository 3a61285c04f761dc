"""The U-Net and its preconditioning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, networks, prior_from_denoiser, spectral
from cvsa_jax.models.convolution import same_convolution
from cvsa_jax.models.unet import UNet, depth_to_space, space_to_depth
from cvsa_jax.parameterizations import Parameterization, own

SMALL = {"channels": (8, 16), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1), "patch": 2}


def test_convolution_and_its_gradients_are_the_librarys():
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    weight = jax.random.normal(jax.random.key(2), (2, 6, 7, 5))

    def library(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    np.testing.assert_allclose(same_convolution(x, kernel), library(x, kernel), atol=1e-5)
    found = jax.grad(lambda x, k: jnp.vdot(same_convolution(x, k), weight), (0, 1))(x, kernel)
    expected = jax.grad(lambda x, k: jnp.vdot(library(x, k), weight), (0, 1))(x, kernel)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_space_to_depth_inverts():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    np.testing.assert_array_equal(depth_to_space(space_to_depth(x, 2), 2), x)
    np.testing.assert_array_equal(space_to_depth(x, 2)[0, 1, 2].reshape(2, 2, 3), x[0, 2:4, 4:6])


@pytest.mark.parametrize("attention", [False, True])
def test_network_runs_on_every_size_of_its_stride(attention):
    module = UNet(**SMALL, attention=attention)
    params = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros(1))
    for height, width in [(4, 4), (8, 20), (16, 12)]:
        assert height % module.stride == width % module.stride == 0
        image = jnp.zeros((2, height, width, 3))
        out = jax.eval_shape(module.apply, params, image, jnp.zeros(2))
        assert (out.shape, out.dtype) == (image.shape, jnp.float32)


def test_no_pixel_of_a_cell_is_treated_alike_by_accident(tiny_spec, tiny_params):
    """The output depends on every input pixel of its neighbourhood, across the stem's 2x2 cells."""
    module = tiny_spec.build()
    x = jax.random.normal(jax.random.key(0), (16, 16, 6))

    def centre(x):
        return module.apply(tiny_params, x[None], jnp.zeros(1))[0, 8, 8, 0]

    gradient = np.abs(jax.grad(centre)(x)).max(-1)
    assert (gradient[5:12, 5:12] > 0).all()


def test_untrained_denoiser_is_the_wiener_filter(tiny_spec, photos):
    """With a network that returns zero, each coefficient is shrunk by its own signal-to-noise ratio."""
    params = jax.tree.map(jnp.zeros_like, jax.eval_shape(tiny_spec.init, jax.random.key(0)))
    params = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), params)
    x, sigma = jnp.asarray(photos[:2]), jnp.array([0.1, 2.0])
    found = own.edm_denoise(tiny_spec, tiny_spec.network(), params, x, sigma)
    variance = tiny_spec.spectrum.grid(32, 32)
    expected = spectral.backward(spectral.forward(x) * variance / (variance + sigma[:, None, None, None] ** 2))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scalar_preconditioning_is_edms():
    """c_skip x + c_out F(c_in x, ln(s)/4), as in table 1 of the paper."""
    spec = networks.NetworkSpec(image_size=16, data_std=0.4, options=SMALL)
    module, params = spec.build(), spec.init(jax.random.key(0))
    params = jax.tree.map(lambda a: a + 0.05, params)
    x, s, d = jax.random.normal(jax.random.key(1), (1, 16, 16, 3)), 0.7, 0.4
    inner = module.apply(params, x / (s**2 + d**2) ** 0.5, jnp.log(jnp.array([s])) / 4)
    expected = d**2 / (s**2 + d**2) * x + s * d / (s**2 + d**2) ** 0.5 * inner
    found = own.edm_denoise(spec, spec.network(), params, x, jnp.array([s]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_output_variance_is_the_untrained_error():
    spec = networks.NetworkSpec(image_size=16, data_std=0.4, options=SMALL)
    sigma = jnp.array([0.1, 0.4, 3.0])
    np.testing.assert_allclose(own.output_variance(spec, sigma), 0.16 * sigma**2 / (0.16 + sigma**2), rtol=1e-5)


def test_a_velocity_network_serves_its_own_diffusion_alone():
    spec = networks.NetworkSpec(parameterization="velocity", image_size=16, options=SMALL)
    params = spec.init(jax.random.key(0))
    prior = networks.build_prior(spec, params)
    x = jax.random.normal(jax.random.key(1), (16, 16, 3))
    assert prior.posterior_mean(x, x, 0.3).shape == x.shape
    with pytest.raises(ValueError, match="was trained with"):
        networks.build_prior(spec, params, CLD(mass=1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameterization": "score"}, "parameterization"),
        ({"model": "vit"}, "model"),
        ({"image_size": 30, "options": SMALL}, "multiple of 4"),
    ],
)
def test_bad_descriptions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        networks.NetworkSpec(**settings)


@pytest.mark.parametrize("attention", [False, True])
def test_rematerialised_blocks_give_the_same(attention):
    """The same parameters, values and gradients; less is kept for the pullback."""
    spec = networks.NetworkSpec(image_size=16, options=SMALL | {"attention": attention})
    params = jax.tree.map(lambda a: a + 0.05, spec.init(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (16, 16, 3))
    plain, again = (networks.build_prior(spec, params, remat=remat) for remat in (False, True))
    assert jax.tree.structure(spec.build(remat=True).init(jax.random.key(0), x[None], jnp.zeros(1))) == (
        jax.tree.structure(params)
    )

    def pulled(prior, x):
        mean, back = jax.vjp(lambda x: prior.posterior_mean(x, -x, 0.3), x)
        return mean, back(mean)[0]

    for found, expected in zip(jax.jit(pulled)(again, x), jax.jit(pulled)(plain, x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    kept = [str(jax.make_jaxpr(lambda x, p=p: pulled(p, x))(x)).count("remat") for p in (plain, again)]
    assert kept[0] == 0 < kept[1]


def test_bfloat16_inside_is_near_and_float32_outside():
    spec = networks.NetworkSpec(image_size=16, options=SMALL)
    params = jax.tree.map(lambda a: a + 0.05, spec.init(jax.random.key(0)))
    x = 0.5 * jax.random.normal(jax.random.key(1), (16, 16, 3))
    full, half = (
        networks.build_prior(spec, params, dtype=d).posterior_mean(x, -x, 0.05) for d in ("float32", jnp.bfloat16)
    )
    assert half.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(networks.build_prior(spec, params, dtype="bfloat16"))} == {full.dtype}
    assert 1e-6 < np.abs(half - full).max() < 0.05 * np.abs(full).max()
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16"):
        networks.build_prior(spec, params, dtype="int8")


@pytest.mark.parametrize("highest", [None, 20.0, 80.0])
def test_a_network_is_never_told_more_noise_than_it_knows(highest, monkeypatch):
    """From HIDES on the image is brought down to the network's own highest noise; below, the prior says its limit."""
    asked = []

    def denoise(x, sigma):
        asked.append(sigma)
        return x / (1 + sigma**2)

    made = Parameterization(lambda spec, network, params, cld: prior_from_denoiser(denoise, cld), "a test")
    monkeypatch.setitem(networks.PARAMETERIZATIONS, "test", made)
    spec = networks.NetworkSpec(parameterization="test", image_size=16, options=SMALL, highest_noise=highest)
    prior = networks.build_prior(spec, {})
    assert prior.highest_noise == (20.0 if highest == 20 else None)
    x = jax.random.normal(jax.random.key(0), (4, 4, 3))
    for sigma in (3.0, 79.0, 240.0):
        found = prior.denoise(x, jnp.float32(sigma))
        limit = min(sigma, 80.0) if highest == 80 else sigma
        assert float(asked[-1]) == pytest.approx(limit)
        np.testing.assert_allclose(found, x * (limit / sigma) / (1 + limit**2), rtol=1e-5)
