"""The paper's nonlinear blur: a network that blurs by a code (blur-kernel-space encoding)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.models.blur_encoder import CODE_FEATURES, STRIDE, BlurEncoder

CODE_STD = 1.2


@flax.struct.dataclass
class EncodedBlur:
    """H(x) = clip(2 net((x + 1)/2, code) - 1, -1, 1): one code for the measurement and for guidance.

    Images are mirrored at the border up to a multiple of 128, which the network needs; grey ones
    are repeated in three channels and averaged.

    Args:
      params: of `BlurEncoder`.
      code: (ceil(H/128), ceil(W/128), CODE_FEATURES).
      source: the file of the parameters, for `load_operator`.
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


def _three(shape, margins) -> tuple[int, int, int]:
    return shape[0] + margins[0][1], shape[1] + margins[1][1], 3


def encoded_blur(
    generator: np.random.Generator, height: int, width: int, params: dict, source: str = ""
) -> EncodedBlur:
    """With a code drawn from N(0, CODE_STD^2)."""
    shape = (-(-height // STRIDE), -(-width // STRIDE), CODE_FEATURES)
    code = CODE_STD * generator.normal(size=shape)
    dtype = jnp.result_type(float)
    return EncodedBlur(jax.tree.map(lambda a: jnp.asarray(a, dtype), params), jnp.asarray(code, dtype), source)
