"""Time a guided step against the bare network, as JSON.

    python -m experiments.benchmark

`ratio` is the time of one guided step over that of one value-and-vjp of the same network
at the same batch, which is the least that a guided step can cost. The two are timed in
turn, so that a busy machine slows both; the ratio is the median over the repeats.
"""

import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from cvsa_jax import checkpoints, guidance, operators, samplers
from cvsa_jax.diffusion import TIME_GRIDS
from cvsa_jax.priors import coefficients
from cvsa_jax.restore import guided_sampler, run_steps
from experiments import common

TIMED_TASKS = tuple(t for t in operators.TASKS if t != "mask_inpaint")
flags.DEFINE_string("checkpoint", str(common.DEFAULT_CHECKPOINT), "Folder of the prior.")
flags.DEFINE_multi_enum("task", list(TIMED_TASKS), list(TIMED_TASKS), "Task to time; may be repeated.")
flags.DEFINE_integer("image_size", 64, "Side of the images.", lower_bound=8)
flags.DEFINE_integer("batch_size", 8, "Images per step.", lower_bound=1)
flags.DEFINE_integer("steps_per_call", 8, "Steps of one timed call.", lower_bound=2)
flags.DEFINE_integer("repeats", 9, "Timed pairs of calls for each task.", lower_bound=1)
flags.DEFINE_enum("sampler", "ancestral", list(samplers.SAMPLERS), "The reverse-time sampler.")
flags.DEFINE_enum("guidance", "spectral_covariance", list(guidance.GUIDANCES), "Form of the observation score.")
flags.DEFINE_enum("time_grid", "logarithmic", list(TIME_GRIDS), "How the times are spaced.")
common.define_diffusion_flags()
FLAGS = flags.FLAGS


def compiled_bare(prior, shape, steps: int):
    """`steps` values and pullbacks of the network in velocity, one after the other."""
    row = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), coefficients(prior.cld, 0.1))

    def one(prior, row, x, v):  # the row is no constant, as it is none in a guided step
        def step(v, _):
            value, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, row), v)
            return v + 1e-6 * pullback(value)[0], None  # each step needs the one before it

        return jax.lax.scan(step, v, length=steps)[0]

    zeros = jnp.zeros(shape)
    program = jax.jit(jax.vmap(one, (None, None, 0, 0))).lower(prior, row, zeros, zeros).compile()
    return lambda: program(prior, row, zeros, zeros)


def compiled_guided(prior, shape, task: str, steps: int):
    """`steps` guided steps of a batch, each image with its own operator and measurement."""
    generator = np.random.default_rng(0)
    options = operators.OperatorOptions()
    drawn = [operators.make_operator(task, generator, *shape[1:3], options) for _ in range(shape[0])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    images = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
    measurements = jax.vmap(lambda h, x: h(x))(stacked, images)

    def chain(y, h, prior):
        return guided_sampler(
            y, h, prior, noise_std=0.05, num_steps=steps, sampler=FLAGS.sampler,
            guidance=FLAGS.guidance, time_grid_name=FLAGS.time_grid,
        )  # fmt: skip

    def one(state, y, h, prior):
        return run_steps(chain(y, h, prior), state, 0, steps)[0]

    keys = jax.random.split(jax.random.key(1), shape[0])
    init = jax.vmap(lambda k, y, h: chain(y, h, prior).init(k, shape[1:]))
    states = jax.jit(init)(keys, measurements, stacked)
    args = (states, measurements, stacked, prior)
    program = jax.jit(jax.vmap(one, (0, 0, 0, None))).lower(*args).compile()
    return lambda: program(*args)


def seconds(call) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def main() -> None:
    with common.user_errors():
        loaded = checkpoints.load_prior(FLAGS.checkpoint, common.diffusion_from_flags())
        stride = loaded.spec.build().stride
        if FLAGS.image_size % stride:
            raise ValueError(f"--image_size must be a multiple of {stride} for this network")
    shape = (FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, loaded.spec.image_channels)
    steps = FLAGS.steps_per_call
    bare = compiled_bare(loaded.prior, shape, steps)
    seconds(bare)
    record = {"settings": common.flag_values(), "versions": common.versions(), "tasks": {}}
    for task in dict.fromkeys(FLAGS.task):
        guided = compiled_guided(loaded.prior, shape, task, steps)
        seconds(guided)
        pairs = [(seconds(guided), seconds(bare)) for _ in range(FLAGS.repeats)]
        record["tasks"][task] = {
            "guided_step_ms": round(1e3 / steps * statistics.median(g for g, _ in pairs), 3),
            "bare_vjp_ms": round(1e3 / steps * statistics.median(b for _, b in pairs), 3),
            "ratio": round(statistics.median(g / b for g, b in pairs), 3),
        }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    common.run(main)
