"""Blurs that averaged light, in files of encoded values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2xyz

from cvsa_jax.jobs.settings import resolve
from cvsa_jax.operators import Convolution, LinearLight, find_task, in_linear_light, load_operator, save_operator
from cvsa_jax.operators.light import decode, encode
from cvsa_jax.operators.registry import fits


def drawn(task, curve, side=16, **settings):
    changed = in_linear_light(find_task(task), curve)
    return changed.build(np.random.default_rng(0), side, side, changed.settings(**settings))


def test_the_curve_is_srgbs():
    """scikit-image's, of grey."""
    values = np.linspace(0, 1, 101)
    white = rgb2xyz(np.repeat(values[:, None], 3, 1)[None])[0, :, 1]
    np.testing.assert_allclose(decode(jnp.asarray(values)), white / white[-1], atol=1e-6)


@pytest.mark.parametrize("power", [None, 1.8, 2.2])
def test_encoding_undoes_decoding_and_all_slopes_are_finite(power):
    values = jnp.concatenate([jnp.linspace(-5.0, 5.0, 1001), jnp.array([0.0, -0.0, 1.0, 1e-30, 0.04045, 0.04])])
    np.testing.assert_allclose(encode(decode(values, power), power), values, atol=2e-5)
    for curve in (decode, encode):
        slopes = jax.vmap(jax.grad(lambda v: curve(v, power)))(values)  # noqa: B023
        assert np.isfinite(slopes).all()
        assert (slopes > 0).all()


@pytest.mark.parametrize(("curve", "middle"), [("srgb", 0.735357), ("2.2", 0.5 ** (1 / 2.2))])
def test_between_black_and_white_lies_half_the_light(curve, middle):
    """A mean over two pixels at a step: half the light is .735 in sRGB, and not .5."""
    step = jnp.where(jnp.arange(16)[None, :, None] < 7, -1.0, 1.0) * jnp.ones((16, 1, 1))
    y = (np.asarray(drawn("sr2", curve, sr_method="area")(step)) + 1) / 2
    np.testing.assert_allclose(y[:, 3], middle, atol=1e-5)
    np.testing.assert_allclose(y[:, :3], 0, atol=1e-5)
    np.testing.assert_allclose(y[:, 4:], 1, atol=1e-5)


@pytest.mark.parametrize("curve", ["srgb", "2.2"])
def test_gradients_are_finite_at_black_and_beyond(curve):
    operator = drawn("gaussian_deblur", curve)
    for value in (-1.0, -3.0, 0.0, 4.0):
        image = jnp.full((16, 16, 1), value)
        assert np.isfinite(jax.grad(lambda x: (operator(x) ** 2).sum())(image)).all()


def test_only_averages_are_in_linear_light(tmp_path):
    """Neighbours together; what a mask or a file does to values stays one of values. Stored, it is the same."""
    joined = drawn("motion_deblur+sr2", "srgb", kernel_size=5)
    assert isinstance(joined, LinearLight)
    last = drawn("motion_deblur+jpeg", "srgb", kernel_size=5)
    assert isinstance(last.first, LinearLight)
    assert isinstance(last.first.operator, Convolution)
    assert fits(find_task("motion_deblur+jpeg"), last)
    image = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (16, 16, 3)), jnp.float32)
    save_operator(tmp_path / "a.npz", joined)
    np.testing.assert_array_equal(load_operator(tmp_path / "a.npz")(image), joined(image))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "denoise"}, "--gamma_decode has no effect on denoise"),
        ({"task": "blind_motion_deblur"}, "--gamma_decode has no effect on blind_motion_deblur"),
        ({"gamma_decode": "lab"}, "gamma_decode must be srgb, or a power"),
        ({"gamma_decode": ".5"}, "gamma_decode must be srgb, or a power"),
        ({"operator": "a.npz"}, "--gamma_decode has no effect beside --operator"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        resolve({"task": "sr2", "input": "a", "output": "b", "gamma_decode": "srgb", **changes})


def test_without_the_flag_nothing_changes():
    assert in_linear_light(find_task("sr2"), None) is find_task("sr2")
