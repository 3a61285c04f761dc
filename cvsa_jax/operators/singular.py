"""Singular values of the operators that have them in closed form; several of the baselines need them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.numerics import at_least_single
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.dense import Matrix
from cvsa_jax.operators.identity import Identity
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.separable import Separable
from cvsa_jax.operators.view import View
from cvsa_jax.transforms import whole
from cvsa_jax.types import UnsuitableError

# Below this a blur's singular value counts as zero, as in the published code of DDRM: dividing by
# it would lift the noise more than thirty times.
CUT = 3e-2


class SpectralForm(NamedTuple):
    """H = U diag(s) V' with V' square and orthogonal (or unitary).

    singular_values: s, broadcasts against z; zero where H sees nothing, or less than CUT. forward: image -> z = V' x.
    backward: its inverse. pseudo_inverse: y -> diag(s)^+ U' y, zero where s is.
    """

    singular_values: jax.Array
    forward: Callable
    backward: Callable
    pseudo_inverse: Callable


@functools.singledispatch
def singular_form(operator: Operator, image_shape: tuple[int, ...]) -> SpectralForm:
    """The singular value decomposition of a linear operator on images of that shape.

    Raises:
      UnsuitableError: if it is not known in closed form.
    """
    raise UnsuitableError("its operator has no singular values in closed form")


@singular_form.register
def _(operator: Identity, image_shape) -> SpectralForm:
    same = lambda x: x  # noqa: E731
    return SpectralForm(jnp.ones((1, 1, 1)), same, same, same)


@singular_form.register
def _(operator: Mask, image_shape) -> SpectralForm:
    same = lambda x: x  # noqa: E731
    kept = jnp.where(operator.seen < CUT, 0.0, operator.seen)
    inverse = jnp.where(kept > 0, 1 / jnp.where(kept > 0, kept, 1.0), 0.0)
    return SpectralForm(kept, same, same, lambda y: inverse * operator.restrict(y))


@singular_form.register
def _(operator: Separable, image_shape) -> SpectralForm:
    """A x B' has the products of the singular values of A and B."""
    both = map(at_least_single, (operator.rows, operator.columns))
    (ua, sa, va), (ub, sb, vb) = (jnp.linalg.svd(m, full_matrices=True) for m in both)
    product = sa[:, None, None] * sb[None, :, None]
    kept = jnp.where(product < CUT, 0.0, product)
    height, width = va.shape[0], vb.shape[0]
    fill = lambda a: jnp.pad(a, ((0, height - len(sa)), (0, width - len(sb)), (0, 0)))  # noqa: E731

    def pseudo_inverse(y):
        z = _both(ua.T, y, ub.T)
        return fill(jnp.where(kept > 0, z / jnp.where(kept > 0, kept, 1.0), 0.0))

    return SpectralForm(fill(kept), lambda x: _both(va, x, vb), lambda z: _both(va.T, z, vb.T), pseudo_inverse)


def _both(left, x, right):
    return jnp.einsum("ij,jkc,lk->ilc", left, x, right, precision=jax.lax.Precision.HIGHEST)


@singular_form.register
def _(operator: Convolution, image_shape) -> SpectralForm:
    """Circular ones: the Fourier transform, s = |K|."""
    if operator.boundary != "circular":
        raise UnsuitableError("a blur whose image is reflected at the border has no singular values in closed form; "
                         "--boundary=circular has")  # fmt: skip
    height, width = image_shape[:2]
    spectrum = operator.spectrum((height, width))[..., None]
    size = jnp.abs(spectrum)
    kept = jnp.where(size < CUT, 0.0, size)
    forward = lambda x: whole(lambda x: jnp.fft.rfft2(x, axes=(0, 1), norm="ortho"), x)  # noqa: E731
    inverse = jnp.where(kept > 0, spectrum.conj() / jnp.where(kept > 0, size, 1.0) ** 2, 0.0)
    # The coefficients z = V' x are those of x itself; U takes the phase of K.
    return SpectralForm(
        kept,
        forward,
        lambda z: whole(lambda z: jnp.fft.irfft2(z, s=(height, width), axes=(0, 1), norm="ortho"), z),
        lambda y: inverse * forward(y),
    )


@singular_form.register
def _(operator: Matrix, image_shape) -> SpectralForm:
    u, s, vt = jnp.linalg.svd(at_least_single(operator.matrix), full_matrices=True)
    n, rank = vt.shape[0], s.shape[0]
    kept = jnp.where(s > 1e-6 * s[0], s, 0.0)
    inverse = jnp.where(kept > 0, 1 / jnp.where(kept > 0, s, 1.0), 0.0)
    return SpectralForm(
        jnp.zeros(n, s.dtype).at[:rank].set(kept),
        lambda x: vt @ x.ravel(),
        lambda z: (vt.T @ z).reshape(image_shape),
        lambda y: jnp.zeros(n, s.dtype).at[:rank].set(inverse * (u.T @ y.ravel())[:rank]),
    )


@singular_form.register
def _(operator: View, image_shape) -> SpectralForm:
    """The part's own, and the margin's pixels as they are, one after the other in a vector."""
    part = (operator.height, operator.width, image_shape[-1])
    if operator.averaged > 1:
        raise UnsuitableError("a grey measurement under a colour prior has no singular values in closed form")
    own = singular_form(operator.operator, part)
    if part == tuple(image_shape):
        return own
    seen = np.zeros(image_shape, bool)
    seen[: operator.height, : operator.width] = True
    inside, margin = np.flatnonzero(seen), np.flatnonzero(~seen)
    z = jax.eval_shape(own.forward, jax.ShapeDtypeStruct(part, jnp.result_type(float)))
    size = int(np.prod(z.shape))

    def backward(z_all):
        image = jnp.zeros(seen.size, z_all.real.dtype).at[margin].set(z_all[size:].real)
        return image.at[inside].set(own.backward(z_all[:size].reshape(z.shape)).ravel()).reshape(image_shape)

    join = lambda a, rest: jnp.concatenate([a.ravel(), rest.astype(a.dtype)])  # noqa: E731
    return SpectralForm(
        join(jnp.broadcast_to(own.singular_values, z.shape), jnp.zeros(len(margin))),
        lambda x: join(own.forward(operator.crop(x)), x.ravel()[margin]),
        backward,
        lambda y: join(own.pseudo_inverse(y), jnp.zeros(len(margin))),
    )
