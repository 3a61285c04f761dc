"""Priors: a Gaussian denoiser, or a network trained on the diffusion itself.

Both answer one question, E[x_0 | u_t]; the velocity score follows from it exactly.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial

from cvsa_jax import spectral
from cvsa_jax.calibration import Calibration, checked, white_error
from cvsa_jax.coefficients import Coefficients, coefficients
from cvsa_jax.diffusion import CLD
from cvsa_jax.pyramid import levels_of
from cvsa_jax.spectral import Spectrum
from cvsa_jax.types import Denoiser, as_partial


class AnyPrior(Protocol):
    """What guidance asks of a prior: `Prior`, or one of several things as one array."""

    @property
    def cld(self) -> CLD:
        """The diffusion."""
        ...

    @property
    def mean(self) -> Callable[[jax.Array, jax.Array, Coefficients], jax.Array]:
        """(x, v, Coefficients) -> E[x_0 | u_t]."""
        ...

    def at(self, image_shape: tuple[int, ...], /) -> "AnyPrior":
        """The same with what was measured on images of such a size."""
        ...

    def error_variance(self, noise: jax.Array, /) -> jax.Array:
        """r_t^2, a number or one for each entry."""
        ...

    def error_covariance(self, noise: jax.Array, image_shape: tuple[int, ...], /) -> Callable | None:
        """Cov[x_0 | u_t] as a function; None if it is white."""
        ...

    def error_gain(self, noise: jax.Array, image_shape: tuple[int, ...], /) -> Callable | None:
        """n -> the function S (S + n I)^-1; None if it is not known."""
        ...


@flax.struct.dataclass
class Prior:
    """A prior over images, a pytree: pass it through jit, vmap and grad.

    Args:
      mean: (x, v, Coefficients) -> E[x_0 | u_t] for one image.
      cld: the diffusion.
      calibration: measured denoising error; None is that of a white Gaussian of deviation 1/2.
      spectrum: power spectrum of the data, if known: how that error is spread over the frequencies.
      stride: the sides of the images that it takes are multiples of this.
      channels: of the images that it takes; None is any number.
      highest_noise: the largest noise that the denoiser knows; None if it knows all that a diffusion asks for.
      image_size: side of the images that calibration and spectrum are of; larger, larger_spectra: the same of images
        of twice, four times that side and so on.
    """

    mean: Partial
    cld: CLD = flax.struct.field(pytree_node=False)
    calibration: Calibration | None = None
    spectrum: Spectrum | None = flax.struct.field(pytree_node=False, default=None)
    stride: int = flax.struct.field(pytree_node=False, default=1)
    channels: int | None = flax.struct.field(pytree_node=False, default=None)
    highest_noise: float | None = flax.struct.field(pytree_node=False, default=None)
    image_size: int | None = flax.struct.field(pytree_node=False, default=None)
    larger: tuple[Calibration, ...] = ()
    larger_spectra: tuple[Spectrum, ...] = flax.struct.field(pytree_node=False, default=())

    def __post_init__(self):
        # Arrays on a device, and what stands for arrays in a tree, pass: `prior_from_denoiser` has looked at them.
        curve = self.calibration
        if isinstance(curve, Calibration) and all(isinstance(a, np.ndarray | list) for a in curve):
            curve.check()

    def canvas(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The smallest shape that it takes and that holds an image (H, W, C).

        Raises:
          ValueError: if it is no image shape, or its channels are neither the prior's own nor one.
        """
        if len(image_shape) != 3:
            raise ValueError(f"an image has the shape (H, W, C), got {tuple(image_shape)}")
        height, width, channels = image_shape
        if self.channels not in (None, channels) and channels != 1:
            raise ValueError(f"the prior is of {self.channels} channels, and cannot restore {channels}")
        return height + -height % self.stride, width + -width % self.stride, self.channels or channels

    def at(self, image_shape: tuple[int, ...]) -> "Prior":
        """The same with calibration and spectrum of images (H, W, C) of such a size, as far as they were measured."""
        level = min(levels_of(image_shape, self.image_size), len(self.larger))
        if not level:
            return self
        spectrum = self.larger_spectra[level - 1] if self.larger_spectra else self.spectrum
        return dataclasses.replace(self, calibration=self.larger[level - 1], spectrum=spectrum, image_size=None)

    def posterior_mean(self, x: jax.Array, v: jax.Array, t) -> jax.Array:
        """E[x_0 | x_t = x, v_t = v], at a concrete time 0 < t <= 1.

        Raises:
          ValueError: if the time is another, or traced.
        """
        return self.mean(x, v, _at(self.cld, t))

    def velocity_score(self, x: jax.Array, v: jax.Array, t) -> jax.Array:
        """grad_v log p(u_t) = d_t E[x_0|u_t] - S^xv x - S^vv v, S the precision of u_t."""
        c = _at(self.cld, t)
        return velocity_score(self.mean(x, v, c), x, v, c)

    def denoise(self, x: jax.Array, noise: jax.Array) -> jax.Array:
        """E[x_0 | x_0 + noise e = x], of a prior that was made from a denoiser.

        Raises:
          ValueError: of a prior whose network was trained on the diffusion itself.
        """
        if (denoise := denoiser_of(self)) is None:
            raise ValueError("this prior's network was trained on the diffusion itself and is no denoiser")
        return denoise(x, noise)

    def error_variance(self, noise: jax.Array) -> jax.Array:
        """r_t^2, the mean squared error of E[x_0|u_t] per pixel at effective noise `noise`.

        The ratio to that of a white Gaussian is interpolated in log noise, so that the
        right limits (noise^2 below the table, a constant above) hold outside it.
        """
        white = white_error(noise)
        return white if self.calibration is None else white * self.calibration.ratio(noise)

    def error_covariance(self, noise: jax.Array, image_shape: tuple[int, ...]) -> Callable | None:
        """Cov[x_0 | u_t] at effective noise `noise`, as a function of an image; None if it is white.

        With a spectrum V it is diagonal in the coefficients of `spectral.forward`, the
        error of the Wiener filter, V s^2 / (V + s^2), scaled to the mean `error_variance`.
        """
        if self.spectrum is None:
            return None
        s = self.error_spectrum(noise, self.spectrum.variances(*image_shape[:2]))
        return lambda x: spectral.backward(s * spectral.forward(x))

    def error_gain(self, noise: jax.Array, image_shape: tuple[int, ...]) -> Callable | None:
        """n -> the function S (S + n I)^-1 of an image, S = `error_covariance`; None if that is."""
        if self.spectrum is None:
            return None
        s = self.error_spectrum(noise, self.spectrum.variances(*image_shape[:2]))
        return lambda n: lambda x: spectral.backward(s / (s + n) * spectral.forward(x))

    def error_spectrum(self, noise: jax.Array, variance: jax.Array | np.ndarray) -> jax.Array:
        """V s^2 / (V + s^2) at the data's variances V, scaled to the mean `error_variance`."""
        v = jnp.asarray(variance, jnp.result_type(float))
        error = v / (v / noise + noise)  # up to s, without its square
        return error * (self.error_variance(noise) / jnp.mean(error))


def denoiser_of(prior: Prior) -> Partial | None:
    """(x, sigma) -> posterior mean, of a prior that was made from a denoiser; None of others."""
    return prior.mean.args[0] if prior.mean.func is _denoiser_mean else None


def velocity_score(mean: jax.Array, x: jax.Array, v: jax.Array, c: Coefficients) -> jax.Array:
    """[S^-1 (a x_0 - u)]_v for x_0 = mean: the score whose posterior mean is `mean`."""
    return c.data * mean - c.precision_xv * x - c.precision_vv * v


def _at(cld: CLD, t) -> Coefficients:
    if isinstance(t, Tracer):
        raise ValueError("the time must be a plain number, it cannot be an argument of a jitted function")
    if np.ndim(t) or not 0 < float(t) <= 1:
        raise ValueError(f"the time must be above 0 and at most 1, got {t}")
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.result_type(float)), coefficients(cld, t))


def _denoiser_mean(denoise, x, v, c):
    return denoise(c.mean_x * x + c.mean_v * v, c.noise)


def _network_mean(apply, params, x, v, c):
    alpha = apply(params, jnp.concatenate([x, v], -1), c.time)
    score = -v / c.variance_v - alpha / c.std_v
    return (c.precision_xv * x + c.precision_vv * v + score) / c.data


def prior_from_denoiser(denoise: Denoiser, cld: CLD, calibration: Calibration | None = None) -> Prior:
    """Any Gaussian denoiser as a prior, with no retraining.

    E[x_0 | u_t] = denoise(m_t, s_eff(t)) exactly, since u_t is x_0 along a_t plus Gaussian
    noise and m_t is sufficient for x_0. Variance-preserving and variance-exploding
    models are denoisers too.

    Args:
      denoise: (x, sigma) -> posterior mean, for one image. With parameters:
        `jax.tree_util.Partial(apply, params)`, which keeps them out of the compiled program.
      cld: the diffusion.
      calibration: the denoiser's measured error, used by guidance.
    """
    return Prior(Partial(_denoiser_mean, as_partial(denoise)), cld, checked(calibration))


def prior_from_velocity_network(apply: Callable, params, cld: CLD, calibration: Calibration | None = None) -> Prior:
    """A network trained on the diffusion itself, in the mixed-score form.

    s = -v / S^vv_t - alpha(u, t) / L^vv_t and E[x_0|u_t] = (P^xv x + P^vv v + s) / d_t,
    with P = S^-1 and S = L L'.

    Args:
      apply: (params, u, t) -> alpha, u = concat(x, v) on channels, for one image.
      params: the network's parameters.
      cld: the diffusion that it was trained with.
      calibration: measured error of its posterior mean, used by guidance.

    References: proposition 4.2 of the paper; Dockhorn et al. (2021), section 3.2.
    """
    return Prior(Partial(_network_mean, as_partial(apply), params), cld, checked(calibration))
