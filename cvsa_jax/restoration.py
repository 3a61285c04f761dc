"""The loop: one `lax.scan` of a sampler's steps over the state (x, v, key)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.diffusion import TIME_GRIDS
from cvsa_jax.door import as_measurement, check_fit
from cvsa_jax.guesses import linear_solution
from cvsa_jax.guidance import GUIDANCES, conditional_mean, first_dual
from cvsa_jax.noise import NoiseModel, as_noise
from cvsa_jax.operators.base import Operator, as_operator
from cvsa_jax.operators.stacked import stack
from cvsa_jax.operators.view import View
from cvsa_jax.plans import Plan, enlargement, make_plan, of_size
from cvsa_jax.priors import AnyPrior, Prior
from cvsa_jax.sampler_settings import COARSE, NOISE, SOLUTION, SamplerSettings
from cvsa_jax.samplers import SAMPLERS, Loop, run_steps
from cvsa_jax.samplers.base import diffuse
from cvsa_jax.types import Info


class Restoration(NamedTuple):
    """image: (H, W, C) in about [-1, 1], (P, H, W, C) of particles. trace: Info stacked over the steps."""

    image: jax.Array
    trace: Info


def make_loop(measurement: Any, operator: Operator, prior: AnyPrior, noise: NoiseModel, plan: Plan) -> Loop:
    """The loop of one measurement; see `restore`."""
    settings, sampler, times = plan.settings, plan.sampler, plan.times
    given, whole = as_measurement(measurement, operator), operator
    measurement, operator, noise = stack(given, whole, noise)
    mean = conditional_mean(
        measurement, operator, prior, noise, settings.guidance, sampler.model_times, times[:-1] - times[1:],
        settings.data_weight,
    )  # fmt: skip

    def begin(key, image_shape):
        if settings.start == NOISE:
            return sampler.init(key, image_shape)
        guess_key, noise_key, init_key = jax.random.split(key, 3)
        if settings.start == COARSE:
            guess = _coarse(guess_key, measurement, operator, cast(Prior, prior), noise, settings, image_shape)
        else:
            guess = operator.first_guess(measurement, guess_key)
        if guess is None and settings.start == SOLUTION:
            guess = linear_solution(
                measurement, operator, noise, getattr(prior.at(image_shape), "spectrum", None), image_shape
            )
        if guess is None:
            raise ValueError("this operator has no first guess to start from; start from noise")
        x, v = diffuse(prior.cld, settings.t_start, _fit(guess, image_shape), noise_key)
        return sampler.init(init_key, image_shape)._replace(x=x, v=v)

    def init(key, image_shape):
        check_fit(given, whole, image_shape)
        state, dual = begin(key, image_shape), first_dual(measurement, settings.guidance)
        if dual is not None:
            dual = jnp.broadcast_to(dual, state.x.shape[: state.x.ndim - len(image_shape)] + dual.shape)
        return state._replace(dual=dual)

    return Loop(init, lambda state, index: sampler.step(state, index, mean))


def _fit(image: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An image on a canvas of that shape, its border and, if it is grey, its channel repeated."""
    margins = ((0, shape[0] - image.shape[0]), (0, shape[1] - image.shape[1]), (0, 0))
    return jnp.broadcast_to(jnp.pad(image, margins, mode="edge"), shape)


def _coarse(key, measurement, operator, prior: Prior, noise, settings: SamplerSettings, image_shape) -> jax.Array:
    """An image restored from noise at the prior's own side, and enlarged again by cubic interpolation."""
    factor = enlargement(prior.image_size, image_shape)
    found = operator.reduced(measurement, noise, factor)
    if found is None:
        raise ValueError("this operator does not tell what it measures of a smaller image; start from noise")
    y, h, coarse_noise = found
    shape = (-(-image_shape[0] // factor), -(-image_shape[1] // factor), image_shape[2])
    canvas = prior.canvas(shape)
    plan = make_plan(dataclasses.replace(settings, start=NOISE, t_start=1.0), prior.cld, prior.highest_noise)
    h = h if isinstance(h, View) else View(h, *shape[:2])
    loop = make_loop(y, h, prior, coarse_noise, plan)
    state, _ = run_steps(loop, loop.init(key, canvas), 0, settings.num_steps)
    small = state.x[: shape[0], : shape[1]]
    large = jax.image.resize(small, (shape[0] * factor, shape[1] * factor, shape[2]), "cubic")
    return large[: image_shape[0], : image_shape[1]]


def guided_sampler(
    measurement: Any,
    operator: Callable,
    prior: Prior,
    *,
    noise_std: Any,
    settings: SamplerSettings | None = None,
    **changes,
) -> Loop:
    """The loop of one restoration, (init, step), for those who run it themselves.

    Arguments and errors are those of `restore`. The image shape given to `init` must be one that the prior
    takes: `Prior.canvas` gives it, and a `View` of the operator looks at the image on it.
    """
    chosen = dataclasses.replace(settings or SamplerSettings(), **changes)
    if chosen.start == COARSE:
        raise ValueError("a small image comes first, which `restore` does; start from noise or a guess")
    noise = as_noise(noise_std)
    noise.check()
    plan = make_plan(chosen, prior.cld, prior.highest_noise)
    return make_loop(measurement, as_operator(operator), prior, noise, plan)


def view(operator: Operator, prior: Prior, image_shape: tuple[int, ...]) -> View:
    """The operator of an image (H, W, C) as it looks at the prior's canvas; grey is the mean of the prior's colours."""
    height, width, channels = image_shape
    return View(operator, height, width, prior.canvas(image_shape)[-1] if channels == 1 else 1)


def restore(
    key: jax.Array,
    measurement: Any,
    operator: Callable,
    prior: Prior,
    *,
    image_shape: tuple[int, int, int],
    noise_std: Any,
    settings: SamplerSettings | None = None,
    **changes,
) -> Restoration:
    """Restore one image x from y = H(x) + noise_std n. Pure: works under jit, vmap and grad.

    Args:
      key: PRNG key; all randomness comes from it.
      measurement: y, of the shape of H(x): real or complex numbers, or a tuple (any tree) of such arrays.
      operator: H, an `Operator` or any JAX function of one image (H, W, C).
      prior: the prior.
      image_shape: (H, W, C) of x, any height and width; C is the prior's, or 1.
      noise_std: > 0, on the scale of images in [-1, 1], for the real and for the imaginary part: a number, or one
        for each entry of y; for a tuple one of them, or a tuple; or a `NoiseModel`, such as `PoissonNoise`.
      settings: how the loop runs, by default SamplerSettings().
      changes: single fields of `SamplerSettings` in place of those of `settings`.

    Returns: the restored image, and per step the residual.

    Raises:
      ValueError: before anything compiles, on an unknown name, a value out of range, or a measurement that is
        not what the operator measures, holds NaN or whole numbers.

    Note:
      Called without jit it compiles once for the shapes of the arrays, `image_shape`, the settings and what is no
      array of operator and prior. As under jit, a plain function is known by its identity: a fresh lambda at each
      call compiles anew, and what a function takes from outside is read when it is first called.

    Example:
      For a batch: `jax.vmap(lambda k, y: restore(k, y, operator, prior, ...))(keys, ys)`.
    """
    chosen, operator = dataclasses.replace(settings or SamplerSettings(), **changes), as_operator(operator)
    noise, shape = as_noise(noise_std), tuple(image_shape)
    noise.check()
    given, canvas = as_measurement(measurement, operator), prior.canvas(shape)
    check_fit(given, operator if canvas == shape else view(operator, prior, shape), canvas)
    return _cached(_restored, shape, chosen, (key, given, operator, prior, noise, chosen.data_weight))


def _restored(image_shape, settings: SamplerSettings, key, measurement, operator, prior, noise, weight) -> Restoration:
    """`restore` of what it has checked."""
    canvas, height, width = prior.canvas(image_shape), *image_shape[:2]
    same, seen = canvas == image_shape, view(operator, prior, image_shape)
    settings = dataclasses.replace(settings, data_weight=weight)
    plan = of_size(make_plan(settings, prior.cld, prior.highest_noise), prior, canvas)
    loop = make_loop(measurement, operator if same else seen, prior, noise, plan)
    state, trace = run_steps(loop, loop.init(key, canvas), 0, settings.num_steps)
    if same:
        return Restoration(state.x, trace)
    image = state.x[..., :height, :width, :]
    return Restoration(image.mean(-1, keepdims=True) if seen.averaged > 1 else image, trace)


def _cached(function: Callable, image_shape, settings: SamplerSettings, arguments: tuple) -> Any:
    """function(image_shape, settings, *arguments) by a program that is kept.

    Its inputs are the arrays of the arguments, the noise and the weight; all else is part of it. What cannot be kept,
    as an operator that must see its arrays' values or that cannot be compared, is run as it is.
    """
    leaves, tree = jax.tree.flatten(arguments[:4])
    varies = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, varies, strict=True) if array]
    rest = tuple(None if array else leaf for leaf, array in zip(leaves, varies, strict=True))
    # What the names of the settings stand for now: a registry may change.
    named = tuple(
        registry.get(name) if isinstance(name, str) else name
        for registry, name in (
            (SAMPLERS, settings.sampler),
            (GUIDANCES, settings.guidance),
            (TIME_GRIDS, settings.time_grid),
        )
    )
    named += tuple(map(type, rest))  # 1 and True are equal, and not the same
    plain = dataclasses.replace(settings, data_weight=1.0)
    try:
        return _program(function, image_shape, plain, tree, rest, named)(arrays, arguments[4:])
    except (TypeError, ValueError, IndexError):
        pass  # the same error comes again, if it is one of the arguments' own
    return function(image_shape, settings, *arguments)


@functools.lru_cache(maxsize=32)  # a loop with a fresh lambda at each turn fills it, and no more
def _program(function, image_shape, settings, tree, rest, named) -> Callable:
    """The function of arguments that are put together again, (arrays, free) -> result; `named` tells programs apart."""

    def run(arrays, free):
        arrays = iter(arrays)
        arguments = jax.tree.unflatten(tree, [next(arrays) if leaf is None else leaf for leaf in rest])
        return function(image_shape, settings, *arguments, *free)

    return jax.jit(run)
