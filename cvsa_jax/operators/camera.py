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
# Up to this side all poses are computed at once; of larger images each by itself, or memory would be twelvefold.
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
    """The mean over the poses."""
    if max(light.shape[:2]) <= TOGETHER:
        return jnp.mean(jax.vmap(lambda pose: _warp(light, pose))(poses), 0)
    warped = jax.checkpoint(_warp, prevent_cse=False)
    total = jax.lax.scan(lambda total, pose: (total + warped(light, pose), None), jnp.zeros_like(light), poses)[0]
    return total / len(poses)


def _warp(image: jax.Array, pose: jax.Array) -> jax.Array:
    """The image seen from a pose, by bilinear interpolation of mirrored pixels."""
    height, width, _ = image.shape
    down, right, angle = pose
    row = jnp.arange(height, dtype=image.dtype)[:, None] - (height - 1) / 2
    column = jnp.arange(width, dtype=image.dtype) - (width - 1) / 2
    rows = jnp.cos(angle) * row - jnp.sin(angle) * column + (height - 1) / 2 + down
    columns = jnp.sin(angle) * row + jnp.cos(angle) * column + (width - 1) / 2 + right
    channel = lambda c: jax.scipy.ndimage.map_coordinates(c, [rows, columns], 1, mode="mirror")  # noqa: E731
    return jax.vmap(channel, -1, -1)(image)


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
