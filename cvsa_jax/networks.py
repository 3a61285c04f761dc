"""A network's description, which a checkpoint stores beside its parameters, and the prior that it makes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from cvsa_jax import spectral
from cvsa_jax.diffusion import CLD
from cvsa_jax.models.dhariwal_unet import DhariwalUNet
from cvsa_jax.models.dncnn import DnCNN
from cvsa_jax.models.drunet import DRUNet
from cvsa_jax.models.epsilon_unet import EpsilonUNet
from cvsa_jax.models.ffdnet import FFDNet
from cvsa_jax.models.song_unet import SongUNet
from cvsa_jax.models.unet import UNet
from cvsa_jax.parameterizations import PARAMETERIZATIONS, Network
from cvsa_jax.priors import Calibration, Prior, denoiser_of, prior_from_denoiser
from cvsa_jax.pyramid import Level, pyramid
from cvsa_jax.settings import nearest

MODELS: dict[str, type[nn.Module]] = {
    "dhariwal_unet": DhariwalUNet, "dncnn": DnCNN, "drunet": DRUNet, "epsilon_unet": EpsilonUNet,
    "ffdnet": FFDNet, "song_unet": SongUNet, "unet": UNet,
}  # fmt: skip
DTYPES = ("float32", "bfloat16")
HIDES = 50.0  # the noise from which on hardly more than the mean of an image in [-1, 1] can be told


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
      parameterization: what the network predicts, and so how it becomes a prior: a name in PARAMETERIZATIONS.
      image_channels: 3 for colour, 1 for grey.
      image_size: side of the training images, in pixels.
      data_std: standard deviation of the data, used by the preconditioning.
      spectrum: power spectrum of the data, for a denoiser preconditioned frequency by
        frequency; None is EDM's preconditioning by data_std alone.
      model: name in MODELS.
      options: keyword arguments of the model.
      constants: numbers of the parameterization, such as the schedule of a discrete diffusion.
      classes: number of classes of a class-conditional network; 0 of others.
      needs_class: whether it cannot run without one of them.
      highest_noise: the largest noise that it was trained for; None if there is no such limit. From HIDES on the
        prior knows all noise: see `build_prior`.
      cld: the diffusion; of a velocity network the one that it was trained with.
    """

    parameterization: str = "denoiser"
    image_channels: int = 3
    image_size: int = 64
    data_std: float = 0.5
    model: str = "unet"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    spectrum: spectral.Spectrum | None = None
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)
    classes: int = 0
    needs_class: bool = False
    highest_noise: float | None = None
    cld: CLD = dataclasses.field(default_factory=CLD)

    def __post_init__(self):
        for name, known in (("parameterization", PARAMETERIZATIONS), ("model", MODELS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}{nearest(value, known)}")
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
            is bfloat16 on accelerators, float32 on a CPU and of a network that predicts the image itself.
          remat: keep only the input of each block for the pullback and compute what is inside again: less
            memory, more time, the same values.
        """
        own: dict[str, Any] = {"out_channels": self.image_channels, **self.options}
        return MODELS[self.model](**own, dtype=as_dtype(self.arithmetic(dtype)), remat=remat)

    def arithmetic(self, dtype: Any = None) -> Any:
        """What `build` computes in on this machine, if it is given that dtype."""
        if dtype is not None:
            return dtype
        exact = jax.default_backend() == "cpu" or PARAMETERIZATIONS[self.parameterization].exact
        return "float32" if exact else "bfloat16"

    def network(self, dtype: Any = None, remat: bool = False, class_label: int | None = None) -> Network:
        """The module with a class.

        Raises:
          ValueError: if the network has no such class, or needs one.
        """
        if class_label is None and self.needs_class:
            raise ValueError(f"this network must be told a class, 0 to {self.classes - 1}: class_label")
        if class_label is not None and not 0 <= class_label < self.classes:
            known = f"0 to {self.classes - 1}" if self.classes else "no classes"
            raise ValueError(f"class_label is {class_label}, but this network knows {known}")
        return Network(self.build(dtype, remat), class_label)

    def init(self, key: jax.Array):
        """Fresh parameters."""
        channels = self.image_channels * PARAMETERIZATIONS[self.parameterization].inputs(self)
        image = jnp.zeros((1, self.image_size, self.image_size, channels))
        classes = (jnp.zeros((1,), jnp.int32),) if self.classes else ()
        return self.build().init(key, image, jnp.zeros((1,)), *classes)


def _brought_down(denoise, limit, x, sigma):
    """D(x h/s; h) where s is above h: x/s = x_0/s + e has the noise h when it is scaled by h."""
    sigma = jnp.asarray(sigma, x.dtype)
    return denoise(x * jnp.minimum(1.0, limit / sigma), jnp.minimum(sigma, limit))


def build_prior(
    spec: NetworkSpec, params, cld: CLD | None = None, calibration: Calibration | None = None, dtype: Any = None,
    remat: bool = False, *, spectrum: spectral.Spectrum | None = None, class_label: int | None = None,
    levels: tuple[Level, ...] = (),
) -> Prior:  # fmt: skip
    """The prior of a trained network.

    A denoiser that was trained for noise up to h, h at least HIDES, is asked for D(x h/s; h) at a noise s above: what
    is left of an image there is little, and h/s of that is what it sees. Below HIDES the prior's `highest_noise` is h.

    Args:
      spec: its description.
      params: its parameters.
      cld: the diffusion to run; None is `spec.cld`. A denoiser serves any diffusion, a
        velocity network only the one that it was trained with.
      calibration: its measured denoising error.
      dtype, remat: see `NetworkSpec.build`.
      spectrum: of the images, for guidance; None is that of the preconditioning.
      class_label: the class that a class-conditional network is asked for.
      levels: what was measured on larger images, where a denoiser is then asked at several resolutions; see `pyramid`.

    Raises:
      ValueError: if a velocity network is asked for another diffusion, or a class does not fit.
    """
    cld, kind = cld or spec.cld, PARAMETERIZATIONS[spec.parameterization]
    if kind.fixed and cld != spec.cld:
        raise ValueError(f"this velocity network was trained with {spec.cld}, not {cld}")
    if calibration is not None:
        calibration.check()
    prior, highest = kind.prior(spec, spec.network(dtype, remat, class_label), params, cld), spec.highest_noise
    if highest is not None and highest >= HIDES and (denoise := denoiser_of(prior)) is not None:
        prior, highest = prior_from_denoiser(Partial(_brought_down, denoise, highest), cld), None
    if levels and (denoise := denoiser_of(prior)) is not None:
        prior = prior_from_denoiser(pyramid(denoise, levels, spec.image_size, spec.stride), cld)
    return dataclasses.replace(
        prior,
        calibration=calibration,
        spectrum=spec.spectrum if spectrum is None else spectrum,
        stride=spec.stride,
        channels=spec.image_channels,
        highest_noise=highest,
        image_size=spec.image_size,
        larger=tuple(level.calibration for level in levels),
        larger_spectra=tuple(level.spectrum for level in levels),
    )
