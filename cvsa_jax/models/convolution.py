"""The network's convolution, whose gradient in x runs fast inside `lax.scan`."""

import jax
import jax.numpy as jnp

_LAYOUT = ("NHWC", "HWIO", "NHWC")


@jax.custom_jvp
def same_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, zero padding to the same size: (B, H, W, I), (h, w, I, O) -> (B, H, W, O); h and w odd.

    Its transpose in x is the convolution with the turned kernel. That is what autodiff gives too, but inside
    `lax.scan` XLA folds the turn into a convolution that its CPU library does not take: 3.4 ms became 77 ms
    (8x32x32x48, jax 0.10.2). So the derivative in x is stated as the transpose of that convolution; transposed
    again it is the convolution itself. `jax.custom_vjp` would have no forward mode.
    """
    return _plain(x, kernel)


def _plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


@same_convolution.defjvp
def _(primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    out = _plain(x, kernel)
    (moved,) = jax.linear_transpose(lambda z: _plain(z, turned), out)(dx)
    return out, moved + _plain(x, dkernel)
