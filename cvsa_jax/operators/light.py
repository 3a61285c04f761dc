"""Blur in linear light: files hold values that were encoded after light had been averaged."""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.chain import Chain, chain
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.operators.separable import Separable
from cvsa_jax.operators.task import Task

SRGB = "srgb"
TOE = 0.04  # below it a pure power is a straight line, so that its inverse has a finite slope at black
# What averages light, and can be told to do so.
AVERAGES = (Convolution, Separable)


@flax.struct.dataclass
class LinearLight(Operator):
    """H'(x) = encode(H(decode(x))): H averages light, x and y are encoded, all in [-1, 1].

    decode is the sRGB curve, or a pure power with a straight line below TOE. Beyond white both go on along their
    tangents and below black along their first line, so that every gradient is finite.

    Args:
      operator: H. power: of the curve; None is sRGB.

    References: IEC 61966-2-1 (sRGB).
    """

    operator: Operator
    power: float | None = flax.struct.field(pytree_node=False, default=None)

    def _through(self, x: jax.Array, measure) -> jax.Array:
        light = 2 * decode((x + 1) / 2, self.power) - 1
        return 2 * encode((measure(light) + 1) / 2, self.power) - 1

    def __call__(self, x: jax.Array, *kernel: jax.Array) -> jax.Array:
        return self._through(x, self.operator)

    def measure(self, x: jax.Array) -> jax.Array:
        return self._through(x, self.operator.measure)

    def picture(self) -> np.ndarray | None:
        return self.operator.picture()


def _curve(power: float | None) -> tuple[float, float, float, float]:
    """(exponent, offset a of ((u + a) / (1 + a))^exponent, end of the line, its slope)."""
    if power is None:
        return 2.4, 0.055, 0.04045, 1 / 12.92
    return power, 0.0, TOE, TOE ** (power - 1)


def decode(value: jax.Array, power: float | None = None) -> jax.Array:
    """Light of encoded values, 0 black and 1 white."""
    exponent, a, end, slope = _curve(power)
    inside = jnp.clip(value, end, 1.0)
    curved = ((inside + a) / (1 + a)) ** exponent
    beyond = 1 + exponent / (1 + a) * (value - 1)
    return jnp.where(value <= end, slope * value, jnp.where(value > 1, beyond, curved))


def encode(light: jax.Array, power: float | None = None) -> jax.Array:
    """The inverse of `decode`."""
    exponent, a, end, slope = _curve(power)
    first = slope * end
    curved = (1 + a) * jnp.clip(light, first, 1.0) ** (1 / exponent) - a
    beyond = 1 + (light - 1) * (1 + a) / exponent
    return jnp.where(light <= first, light / slope, jnp.where(light > 1, beyond, curved))


def as_power(curve: str) -> float | None:
    """The exponent of a pure power; None of 'srgb'.

    Raises:
      ValueError: unless it is 'srgb' or a number above 1 and at most 4.
    """
    try:
        if curve == SRGB or 1 < float(curve) <= 4:
            return None if curve == SRGB else float(curve)
    except ValueError:
        pass
    raise ValueError(f"gamma_decode must be {SRGB}, or a power above 1 and at most 4 as in 2.2, got {curve!r}")


def in_linear_light(task: Task, curve: str | None) -> Task:
    """The task with its blurs and reductions in linear light; None leaves it as it is.

    Raises:
      ValueError: if the curve is none, or the task has no blur of encoded values.
    """
    if curve is None:
        return task
    power = as_power(curve)
    if task.blind or not any(kind in AVERAGES for kind in task.makes):
        raise ValueError(f"--gamma_decode has no effect on {task.name}: it is of known blurs and reductions")

    def build(generator, height, width, settings):
        return _wrapped(task.build(generator, height, width, settings), power)

    return dataclasses.replace(task, build=build, linear=False)


def _wrapped(operator: Operator, power: float | None) -> Operator:
    """The operator with every run of neighbouring averages in linear light."""
    runs: list[Operator] = []
    for part in _parts(operator):
        averages = isinstance(part, AVERAGES)
        if averages and runs and isinstance(runs[-1], LinearLight):
            runs[-1] = LinearLight(Chain(runs[-1].operator, part), power)
        else:
            runs.append(LinearLight(part, power) if averages else part)
    return functools.reduce(chain, runs)


def _parts(operator: Operator) -> list[Operator]:
    return [*_parts(operator.first), *_parts(operator.last)] if isinstance(operator, Chain) else [operator]
