"""From a bare network to a denoiser or a velocity network: the preconditioning.

A network is described by a `NetworkSpec`, which a checkpoint stores, so that the two
always travel together.
"""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from cvsa_jax import spectral
from cvsa_jax.diffusion import CLD
from cvsa_jax.models.unet import UNet
from cvsa_jax.priors import Calibration, Prior, prior_from_denoiser, prior_from_velocity_network

MODELS: dict[str, type[nn.Module]] = {"unet": UNet}
PARAMETERIZATIONS = ("denoiser", "velocity")
DTYPES = ("float32", "bfloat16")
SMALLEST_NOISE, LARGEST_NOISE = 2e-3, 300.0  # of the label; training draws these at most


def as_dtype(dtype: Any) -> jnp.dtype:
    """One of DTYPES, by its name or itself.

    Raises:
      ValueError: if it is another.
    """
    found = next((name for name in DTYPES if dtype == name or dtype == jnp.dtype(name)), None)
    if found is None:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return jnp.dtype(found)


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """What is needed to rebuild a prior from its parameters.

    Args:
      parameterization: 'denoiser' (EDM preconditioning) or 'velocity' (mixed score).
      image_channels: 3 for colour, 1 for grey.
      image_size: side of the training images, in pixels.
      data_std: standard deviation of the data, used by the preconditioning.
      spectrum: power spectrum of the data, for a denoiser preconditioned frequency by
        frequency; None is EDM's preconditioning by data_std alone.
      model: name in MODELS.
      options: keyword arguments of the model.
      cld: the diffusion; for 'velocity' the one that was trained with.
    """

    parameterization: str = "denoiser"
    image_channels: int = 3
    image_size: int = 64
    data_std: float = 0.5
    model: str = "unet"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    spectrum: spectral.Spectrum | None = None
    cld: CLD = dataclasses.field(default_factory=CLD)

    def __post_init__(self):
        if self.parameterization not in PARAMETERIZATIONS:
            raise ValueError(f"parameterization must be one of {', '.join(PARAMETERIZATIONS)}")
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        if self.image_size % self.stride:
            raise ValueError(f"image_size must be a multiple of {self.stride}, got {self.image_size}")

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return self.build().stride

    def build(self, dtype: Any = None, remat: bool = False) -> nn.Module:
        """The Flax module.

        Args:
          dtype: of the arithmetic inside, in DTYPES; parameters, input and output are float32 in any case. None
            is bfloat16 on accelerators, float32 on a CPU.
          remat: keep only the input of each block for the pullback and compute what is inside again: less
            memory, more time, the same values.
        """
        if dtype is None:
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        options = {"out_channels": self.image_channels, "dtype": as_dtype(dtype), "remat": remat}
        return MODELS[self.model](**options, **self.options)

    def init(self, key: jax.Array):
        """Fresh parameters."""
        twice = self.parameterization == "velocity" or self.spectrum is not None
        channels = self.image_channels * (2 if twice else 1)
        image = jnp.zeros((1, self.image_size, self.image_size, channels))
        return self.build().init(key, image, jnp.zeros((1,)))


def edm_denoise(spec: NetworkSpec, module: nn.Module, params, x: jax.Array, sigma: jax.Array) -> jax.Array:
    """D(x; s) = c_skip x + c_out F(c_in x; c_noise) for a batch.

    c_skip = d^2/(s^2+d^2), c_out = s d/sqrt(s^2+d^2), c_in = 1/sqrt(s^2+d^2),
    c_noise = ln(s)/4, where d is the standard deviation of the data.

    With a spectrum, d^2 is the variance of each coefficient of `spectral.forward`, in which
    x and F are then scaled, and F is shown the image scaled as a whole beside the image scaled
    by coefficient. D then starts as the Wiener filter of the data instead of a constant
    shrinkage: on photographs the network is spared learning five orders of magnitude of
    amplitude, and the few images that a CPU can train on go into what is not linear.

    Args:
      spec: the network's description; module: as built by it.
      x: (B, H, W, C).
      sigma: (B,).

    References: Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364, table 1.

    Deviation: the spectrum; EDM's form is `spectrum=None`.
    """
    label = jnp.log(jnp.clip(sigma, SMALLEST_NOISE, LARGEST_NOISE)) / 4
    s = sigma[:, None, None, None]
    scaled = x / jnp.hypot(s, spec.data_std)  # whose square float32 may not hold
    if spec.spectrum is None:
        c_skip, c_out = _skip_and_out(spec.data_std**2, s)
        return c_skip * x + c_out * cast(jax.Array, module.apply(params, scaled, label))
    variance = jnp.asarray(spec.spectrum.grid(*x.shape[1:3]), x.dtype)
    c_skip, c_out = _skip_and_out(variance, s)
    z = spectral.forward(x)
    white = spectral.backward(z / jnp.hypot(s, jnp.sqrt(variance)))
    output = cast(jax.Array, module.apply(params, jnp.concatenate([scaled, white], -1), label))
    return spectral.backward(c_skip * z + c_out * spectral.forward(output))


def _skip_and_out(variance, s):
    deviation = jnp.sqrt(variance)
    shrink = deviation / jnp.hypot(s, deviation)
    return shrink**2, s * shrink


def output_variance(spec: NetworkSpec, sigma: jax.Array) -> jax.Array:
    """The mean of c_out^2 over an image, (B,): the error per pixel of D before training."""
    s = sigma[:, None, None, None]
    variance = jnp.full((1, 1, 1), spec.data_std**2)
    if spec.spectrum is not None:
        variance = jnp.asarray(spec.spectrum.grid(spec.image_size, spec.image_size), sigma.dtype)
    return jnp.mean(_skip_and_out(variance, s)[1] ** 2, (1, 2, 3))


def velocity_alpha(module: nn.Module, mass: float, params, u: jax.Array, t: jax.Array) -> jax.Array:
    """alpha(u, t) for a batch; the velocity enters in units of its own deviation sqrt(M)."""
    position, velocity = jnp.split(u, 2, -1)
    u = jnp.concatenate([position, velocity / mass**0.5], -1)
    return cast(jax.Array, module.apply(params, u, jnp.log(t) / 4))


def _one_denoise(spec, module, params, x, sigma):
    sigma = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), (1,))
    return edm_denoise(spec, module, params, x[None], sigma)[0]


def _one_alpha(module, mass, params, u, t):
    t = jnp.broadcast_to(jnp.asarray(t, u.dtype), (1,))
    return velocity_alpha(module, mass, params, u[None], t)[0]


@dataclasses.dataclass(frozen=True)
class _Static:
    """A function with static leading arguments that hashes by value, so jit caches it."""

    function: Any
    arguments: tuple

    def __call__(self, *args):
        return self.function(*self.arguments, *args)


def build_prior(
    spec: NetworkSpec, params, cld: CLD | None = None, calibration: Calibration | None = None, dtype: Any = None,
    remat: bool = False,
) -> Prior:  # fmt: skip
    """The prior of a trained network.

    Args:
      spec: its description.
      params: its parameters.
      cld: the diffusion to run; None is `spec.cld`. A denoiser serves any diffusion, a
        velocity network only the one that it was trained with.
      calibration: its measured denoising error.
      dtype, remat: see `NetworkSpec.build`.

    Raises:
      ValueError: if a velocity network is asked for another diffusion.
    """
    cld = cld or spec.cld
    module = spec.build(dtype, remat)
    sizes = {"stride": spec.stride, "channels": spec.image_channels}
    if spec.parameterization == "denoiser":
        denoise = Partial(_Static(_one_denoise, (spec, module)), params)
        prior = prior_from_denoiser(denoise, cld, calibration)
        return dataclasses.replace(prior, spectrum=spec.spectrum, **sizes)
    if cld != spec.cld:
        raise ValueError(f"this velocity network was trained with {spec.cld}, not {cld}")
    alpha = Partial(_Static(_one_alpha, (module, cld.mass)))
    return dataclasses.replace(prior_from_velocity_network(alpha, params, cld, calibration), **sizes)
