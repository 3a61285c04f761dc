"""Losses, the train step, the moving average, validation: pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvsa_jax.diffusion import CLD, SMALLEST_TIME
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.own import (
    LARGEST_NOISE,
    SMALLEST_NOISE,
    edm_denoise,
    output_variance,
    velocity_alpha,
)  # fmt: skip
from cvsa_jax.priors import coefficients
from cvsa_jax.samplers.base import cholesky, noised, to_device
from cvsa_jax.seeds import key_of_seed


@flax.struct.dataclass
class TrainState:
    """All that a run needs to go on: saved whole, it resumes exactly.

    average: moving average of params, the ones to use. key: PRNG key data, from which
    each step folds its own.
    """

    step: jax.Array
    params: optax.Params
    average: optax.Params
    opt_state: optax.OptState
    key: jax.Array


def make_optimizer(learning_rate: float, warmup_steps: int, num_steps: int) -> optax.GradientTransformation:
    """Adam behind a clipped gradient; linear warm-up, then a cosine down to one percent."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, num_steps, end_value=0.01 * learning_rate
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


class RunKeys(NamedTuple):
    """The PRNG keys of a run: of the parameters that are drawn, and of its steps."""

    params: jax.Array
    train: jax.Array


def run_keys(seed: int) -> RunKeys:
    """Those of a seed."""
    return RunKeys(*jax.random.split(key_of_seed(seed)))


def init_state(spec: NetworkSpec, optimizer: optax.GradientTransformation, seed: int, params: Any = None) -> TrainState:
    """A fresh run's state, with parameters to begin with or drawn ones; jit it, which is faster than eagerly."""
    keys = run_keys(seed)
    params = spec.init(keys.params) if params is None else params
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        average=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        key=jax.random.key_data(keys.train),
    )


def draw_training_noise(key: jax.Array, count: int) -> jax.Array:
    """Noise levels for the denoiser loss, shape (count,).

    Nine in ten are log-normal, exp(N(-1.1, 1.1^2)); one in ten is uniform in the logarithm
    over [.002, 300]. Deviation: EDM has the log-normal alone; the reverse diffusion starts
    at an effective noise of 248, which that never draws.
    """
    choice_key, normal_key, uniform_key = jax.random.split(key, 3)
    normal = -1.1 + 1.1 * jax.random.normal(normal_key, (count,))
    wide = jax.random.uniform(uniform_key, (count,), minval=np.log(SMALLEST_NOISE), maxval=np.log(LARGEST_NOISE))
    return jnp.exp(jnp.where(jax.random.uniform(choice_key, (count,)) < 0.9, normal, wide))


def denoiser_loss(spec: NetworkSpec) -> Callable:
    """EDM's loss: mean of w(s) |D(x + s e; s) - x|^2.

    With EDM's preconditioning w(s) = (s^2 + d^2)/(s d)^2, one over c_out^2. With a spectrum
    w(s) = min(1, .3/s) over the mean of c_out^2.

    Returns: (params, key, images (B, H, W, C)) -> scalar.

    References: Karras et al. (2022), equation 2 and table 1.

    Deviation: the factor min(1, .3/s). At high noise what is left after the Wiener filter is
    mostly chance, and its gradient drowns that of the levels where there is something to learn.
    """
    network = spec.network()
    damping = 0.3 if spec.spectrum is not None else np.inf

    def loss(params, key, images):
        level_key, noise_key = jax.random.split(key)
        sigma = draw_training_noise(level_key, images.shape[0])
        noisy = images + sigma[:, None, None, None] * jax.random.normal(noise_key, images.shape)
        error = jnp.mean((edm_denoise(spec, network, params, noisy, sigma) - images) ** 2, (1, 2, 3))
        return jnp.mean(error * jnp.minimum(1.0, damping / sigma) / output_variance(spec, sigma))

    return loss


class _TimeTable(NamedTuple):
    time: jax.Array
    direction: jax.Array
    factor: jax.Array
    drift: jax.Array


def _time_table(cld: CLD, count: int = 4096) -> _TimeTable:
    time = SMALLEST_TIME + (1 - SMALLEST_TIME) * (np.arange(count) + 0.5) / count
    c = coefficients(cld, time)
    factor = cholesky(cld.covariance(time))
    direction = cld.data_direction(time)
    return _TimeTable(*map(to_device, (time, direction, factor, c.std_v / c.variance_v)))


def velocity_loss(spec: NetworkSpec) -> Callable:
    """Hybrid score matching: mean of |alpha(u_t, t) - (e_v - L^vv v_t / S^vv)|^2.

    u_t = a_t x_0 + L_t e; with s = -v/S^vv - alpha/L^vv this is the error of the score in
    units of 1/L^vv. Times come from a float64 table, uniform in [1e-3, 1].

    Returns: (params, key, images (B, H, W, C)) -> scalar.

    References: Dockhorn et al. (2021), section 3.1 and equation 9.
    """
    network, table = spec.network(), _time_table(spec.cld)

    def loss(params, key, images):
        time_key, x_key, v_key = jax.random.split(key, 3)
        index = jax.random.randint(time_key, images.shape[:1], 0, table.time.shape[0])
        rows = jax.tree.map(lambda a: jnp.expand_dims(a[index], (1, 2, 3)), table)
        e_x, e_v = jax.random.normal(x_key, images.shape), jax.random.normal(v_key, images.shape)
        x, v = noised(rows.direction, rows.factor, images, e_x, e_v)
        u = jnp.concatenate([x, v], -1)
        alpha = velocity_alpha(network, spec.cld.mass, params, u, table.time[index])
        return jnp.mean((alpha - (e_v - rows.drift * v)) ** 2)

    return loss


LOSSES = {"denoiser": denoiser_loss, "velocity": velocity_loss}


def train_step(spec: NetworkSpec, optimizer: optax.GradientTransformation, average_decay: float) -> Callable:
    """(TrainState, images) -> (TrainState, loss).

    The average's decay ramps as min(average_decay, (1 + n)/(10 + n)) at step n.
    """
    loss_function = LOSSES[spec.parameterization](spec)

    def step(state: TrainState, images: jax.Array):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        loss, gradient = jax.value_and_grad(loss_function)(state.params, key, images)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(average_decay, (1.0 + state.step) / (10.0 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return TrainState(state.step + 1, params, average, opt_state, state.key), loss

    return step
