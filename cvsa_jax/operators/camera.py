"""Nonlinear blur: a shaken camera averages light, not pixel values, and its sensor saturates."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.kernel_blur import ShakeSettings
from cvsa_jax.operators.kernels import camera_path
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import setting

GAMMA = 2.2
TOE = 0.01
SHARPNESS = 8
NUM_POSES = 12
GRAM_ITERATIONS = 10  # at noise .01 more change nothing, eight cost .07 dB
# Up to this side what the poses see is computed once for all products of a step; of larger images anew for each.
TOGETHER = 512


@flax.struct.dataclass
class CameraShake(Operator):
    """H(x) = response(mean_i warp_i(light(x))): the exposure of a camera that moves and turns.

    light(x) = u |u|^(GAMMA - 1) with u = (x + 1)/2 is linear light. Each pose moves and turns the
    image (bilinear, mirrored at the border), so that the blur differs from place to place. The
    sensor sees exposure times the mean l, saturates smoothly, l / (1 + l^8)^(1/8), and answers by
    ((l + TOE)^(1/GAMMA) - TOE^(1/GAMMA)) / ((1 + TOE)^(1/GAMMA) - TOE^(1/GAMMA)), in [-1, 1].

    Args:
      poses: (N, 3), shifts down and right in pixels and the angle in radians.
      exposure: 1 just fills the range; above, bright areas saturate.
    """

    poses: jax.Array
    exposure: jax.Array

    @property
    def gram_iterations(self) -> int:
        return GRAM_ITERATIONS

    def __call__(self, x: jax.Array) -> jax.Array:
        u = (x + 1) / 2
        light = u * jnp.abs(u) ** (GAMMA - 1)
        seen = self.exposure * _exposed(light, self.poses)
        seen = (seen + jnp.sqrt(seen**2 + TOE**2)) / 2  # positive also where the prior's guess is below black
        seen = seen / (1 + seen**SHARPNESS) ** (1 / SHARPNESS)
        low, high = TOE ** (1 / GAMMA), (1 + TOE) ** (1 / GAMMA)
        return 2 * ((seen + TOE) ** (1 / GAMMA) - low) / (high - low) - 1

    def picture(self) -> np.ndarray:
        """The path of the camera, a white point for each pose, on a square that just holds it."""
        places = np.asarray(self.poses)[:, :2]
        reach = int(np.ceil(np.abs(places).max())) + 1
        canvas = np.full((2 * reach + 1, 2 * reach + 1, 1), -1.0)
        rows, columns = (np.round(places) + reach).astype(int).T
        canvas[rows, columns] = 1.0
        return canvas


def _exposed(light: jax.Array, poses: jax.Array) -> jax.Array:
    """The mean over the poses, one after the other.

    A pixel of a pose mixes the four neighbours of a place between pixels. They are packed side by side first: one
    gather of a pose then fetches all four, and one scatter puts them back in the transpose.
    """
    height, width, channels = light.shape
    cells = jnp.concatenate([light[:-1, :-1], light[:-1, 1:], light[1:, :-1], light[1:, 1:]], -1)
    cells = cells.reshape(-1, 4 * channels)

    def add(total, pose):
        cell, weights = _places(pose, height, width, light.dtype)
        return total + jnp.repeat(weights, channels, -1) * cells.at[cell].get(mode="promise_in_bounds"), None

    # Of a large image the weights of all poses are too much to keep for the transpose.
    add = add if max(height, width) <= TOGETHER else jax.checkpoint(add, prevent_cse=False)
    total = jax.lax.scan(add, jnp.zeros((height, width, 4 * channels), light.dtype), poses)[0]
    return total.reshape(height, width, 4, channels).sum(2) / len(poses)


def _places(pose: jax.Array, height: int, width: int, dtype) -> tuple[jax.Array, jax.Array]:
    """Where a pose sees each pixel: (cell (H, W), weights (H, W, 4)) of bilinear interpolation of mirrored pixels.

    Cell i (W - 1) + j has the pixels (i, j), (i, j + 1), (i + 1, j) and (i + 1, j + 1), in the order of the weights.
    """
    down, right, angle = pose
    row = jnp.arange(height, dtype=dtype)[:, None] - (height - 1) / 2
    column = jnp.arange(width, dtype=dtype) - (width - 1) / 2
    rows = jnp.cos(angle) * row - jnp.sin(angle) * column + (height - 1) / 2 + down
    columns = jnp.sin(angle) * row + jnp.cos(angle) * column + (width - 1) / 2 + right
    (first_row, below), (first_column, beside) = _between(rows, height), _between(columns, width)
    weights = (1 - below) * (1 - beside), (1 - below) * beside, below * (1 - beside), below * beside
    return first_row * (width - 1) + first_column, jnp.stack(weights, -1)


def _between(place: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """(i, share): the mirrored place lies by share of the way from pixel i to the next."""
    place = count - 1 - jnp.abs(jnp.mod(place, 2 * (count - 1)) - (count - 1))
    first = jnp.clip(jnp.floor(place), 0, count - 2)
    return first.astype(jnp.int32), place - first


def camera_shake(
    generator: np.random.Generator, height: int, width: int, intensity: float, exposure: float
) -> CameraShake:
    """A shake as in `motion_kernel` over 61/256 of the shorter side, that also turns by up to 3 degrees.

    Raises:
      ValueError: if the intensity is not in [0, 1] or the exposure not positive.
    """
    if not 0 <= intensity <= 1:
        raise ValueError(f"the intensity must be in [0, 1], got {intensity}")
    if not exposure > 0:
        raise ValueError(f"the exposure must be positive, got {exposure}")
    diagonal = 2**0.5 * 61 / 256 * min(height, width)
    path = camera_path(generator, intensity, diagonal)
    position = np.linspace(0, len(path) - 1, NUM_POSES)
    moved = [np.interp(position, np.arange(len(path)), part) for part in (path.imag, path.real)]
    turned = np.linspace(-1, 1, NUM_POSES) * generator.uniform(-1, 1) * np.radians(3.0)
    poses = np.stack([*moved, turned], -1)
    return CameraShake(jnp.asarray(poses, jnp.result_type(float)), jnp.asarray(exposure, jnp.result_type(float)))


@dataclasses.dataclass(frozen=True)
class CameraSettings(ShakeSettings):
    """A shaken camera that saturates."""

    exposure: float = setting(1.2, "Exposure of the camera; above 1 bright areas saturate.", above=0)


def _shake(generator, height, width, settings: CameraSettings) -> CameraShake:
    return camera_shake(generator, height, width, settings.motion_intensity, settings.exposure)


TASKS = (
    Task(
        "nonlinear_deblur", "a camera's shake and saturation", _shake, (CameraShake,), CameraSettings,
        drawn_by=("operator",), linear=False,
    ),
)  # fmt: skip
