"""The paper's nonlinear blur: a network that blurs by a code (blur-kernel-space encoding)."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.importers import bkse
from cvsa_jax.models.blur_encoder import CODE_FEATURES, STRIDE, BlurEncoder
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import Settings, setting

CODE_STD = 1.2


@flax.struct.dataclass
class EncodedBlur(Operator):
    """H(x) = clip(2 net((x + 1)/2, code) - 1, -1, 1): one code for the measurement and for guidance.

    Images are mirrored at the border up to a multiple of 128, which the network needs; grey ones
    are repeated in three channels and averaged.

    Args:
      params: of `BlurEncoder`.
      code: (ceil(H/128), ceil(W/128), CODE_FEATURES).
      source: the file of the parameters, for `load`.
    """

    params: dict
    code: jax.Array
    source: str = flax.struct.field(pytree_node=False, default="")

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width, channels = x.shape
        margins = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
        image = jnp.broadcast_to(jnp.pad((x + 1) / 2, margins, mode="symmetric"), _three(x.shape, margins))
        blurred = BlurEncoder().apply({"params": self.params}, image[None], self.code[None])[0]
        blurred = jnp.clip(2 * blurred[:height, :width] - 1, -1.0, 1.0)
        return blurred if channels == 3 else blurred.mean(-1, keepdims=True)

    def store(self, keep: Callable) -> dict:
        """The code, and the file of the network, which is not stored again with each image."""
        if not self.source:
            raise ValueError("cannot store a blur encoder whose parameters are from no file")
        return {"code": keep(self.code), "source": keep(self.source)}

    @classmethod
    def load(cls, fields: dict) -> "EncodedBlur":
        return cls(_cast(read_weights(fields["source"]).params, fields["code"].dtype), **fields)


def _three(shape, margins) -> tuple[int, int, int]:
    return shape[0] + margins[0][1], shape[1] + margins[1][1], 3


def encoded_blur(
    generator: np.random.Generator, height: int, width: int, params: dict, source: str = ""
) -> EncodedBlur:
    """With a code drawn from N(0, CODE_STD^2)."""
    shape = (-(-height // STRIDE), -(-width // STRIDE), CODE_FEATURES)
    code = CODE_STD * generator.normal(size=shape)
    dtype = jnp.result_type(float)
    return EncodedBlur(_cast(params, dtype), jnp.asarray(code, dtype), source)


def _cast(params: dict, dtype) -> dict:
    """Arrays of that dtype are left as they are, so that all operators of a network hold the same ones."""
    return jax.tree.map(lambda a: a if a.dtype == dtype else jnp.asarray(a, dtype), params)


class EncoderWeights(NamedTuple):
    """The parameters of a `BlurEncoder`, and the file that they are from."""

    params: dict
    source: str


def read_weights(path: str) -> EncoderWeights:
    """The published file, or one of `cvsa import --network=bkse`.

    Raises:
      ValueError: if it cannot be read or is of another network.
    """
    if not os.path.exists(path):
        return EncoderWeights(bkse.load(path), path)  # which says so
    status = os.stat(path)
    return EncoderWeights(_read(path, status.st_mtime_ns, status.st_size), path)


@functools.lru_cache(maxsize=2)
def _read(path: str, modified: int, size: int) -> dict:
    """The parameters on the device, once for all operators that are of this state of the file."""
    return jax.tree.map(jnp.asarray, bkse.load(path))


@dataclasses.dataclass(frozen=True)
class EncoderSettings(Settings):
    """The paper's nonlinear blur."""

    bkse_weights: str | EncoderWeights | None = setting(
        None, "The blur encoder's published file, or one of `cvsa import`.", reads=read_weights
    )


def _encoded(generator, height, width, settings: EncoderSettings) -> EncodedBlur:
    if not isinstance(settings.bkse_weights, EncoderWeights):
        raise ValueError("bkse_deblur needs the published weights of the blur encoder: --bkse_weights=FILE")
    return encoded_blur(generator, height, width, *settings.bkse_weights)


TASKS = (
    Task(
        "bkse_deblur", "the paper's nonlinear blur, a network and a code", _encoded, (EncodedBlur,), EncoderSettings,
        drawn_by=("operator",), requires=("bkse_weights",), linear=False,
    ),
)  # fmt: skip
