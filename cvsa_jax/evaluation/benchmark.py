"""The time of a guided step over that of the bare network."""

import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import checkpoints, operators
from cvsa_jax.batch import LoopMaker, guided_loops
from cvsa_jax.diffusion import CLD
from cvsa_jax.importers.published import STRUCTURES
from cvsa_jax.jobs import records
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.networks import build_prior
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.priors import Prior, coefficients
from cvsa_jax.restoration import view
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.samplers import run_steps
from cvsa_jax.settings import Settings, like, setting, values
from cvsa_jax.types import InputError

# Those that need no file, and whose operator is of an image alone.
TIMED = tuple(t.name for t in operators.TASKS.values() if not t.requires and not t.blind)


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings(Settings):
    """What is timed."""

    checkpoint: str = like(JobSettings, "checkpoint")
    random_weights: str | None = setting(
        None, "A public model's structure without its weights, in place of --checkpoint.", choices=STRUCTURES,
        replaces=("checkpoint",),
    )  # fmt: skip
    dtype: str | None = like(JobSettings, "dtype")
    remat: bool = like(JobSettings, "remat")
    task: tuple[str, ...] = setting((), "Task to time; may be repeated.", choices=TIMED, otherwise="all", several=True)
    image_size: int = setting(64, "Side of the images.", "pixels", low=8)
    batch_size: int = setting(8, "Images in a step.", low=1)
    steps_per_call: int = setting(8, "Steps of one timed call.", low=2)
    repeats: int = setting(9, "Timed pairs of calls for each task.", low=1)
    sampler: str = like(SamplerSettings, "sampler", "ancestral")
    guidance: str = like(SamplerSettings, "guidance")
    time_grid: str = like(SamplerSettings, "time_grid")


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


def compiled_guided(prior, shape, task: str, steps: int, loops: LoopMaker):
    """(`steps` guided steps of a batch, each image with its own operator and measurement; their memory in MiB)."""
    generator = np.random.default_rng(0)
    drawn = [operators.make_operator(task, generator, *shape[1:3]) for _ in range(shape[0])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(view(h, prior, shape[1:]) for h in drawn))
    images = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
    measurements = jax.vmap(lambda h, x: h(x))(stacked, images)

    def one(state, y, h, prior):
        return run_steps(loops(y, h, (prior, None), shape[1:]), state, 0, steps)[0]

    keys = jax.random.split(jax.random.key(1), shape[0])
    init = jax.vmap(lambda k, y, h: loops(y, h, (prior, None), shape[1:]).init(k, shape[1:]))
    states = jax.jit(init)(keys, measurements, stacked)
    args = (states, measurements, stacked, prior)
    program = jax.jit(jax.vmap(one, (0, 0, 0, None))).lower(*args).compile()
    return lambda: program(*args), memory(program)


def memory(program) -> float | None:
    """Of a compiled program, MiB: its inputs, its outputs and what it keeps between; None where that is not told."""
    found = program.memory_analysis()
    if found is None:
        return None
    parts = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return round((sum(parts) - found.alias_size_in_bytes) / 2**20, 1)


def timed_prior(own: BenchmarkSettings, cld: CLD) -> Prior:
    """The prior of --checkpoint, or one of --random_weights, whose weights are all alike."""
    if own.random_weights is None:
        return checkpoints.load_prior(own.checkpoint, cld, own.dtype, own.remat).prior
    spec = STRUCTURES[own.random_weights]
    shapes = jax.eval_shape(spec.init, jax.random.key(0))
    params = jax.tree.map(lambda a: jnp.full(a.shape, 0.01, a.dtype), shapes)
    return build_prior(spec, params, cld, dtype=own.dtype, remat=own.remat)


def seconds(call) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def benchmark(own: BenchmarkSettings, cld: CLD) -> dict:
    """The record of all tasks.

    Raises:
      InputError: if the images do not fit the network.
    """
    prior = timed_prior(own, cld)
    if own.image_size % prior.stride:
        raise InputError(f"--image_size must be a multiple of {prior.stride} for this network, got {own.image_size}")
    shape, steps = (own.batch_size, own.image_size, own.image_size, prior.channels or 3), own.steps_per_call
    settings = SamplerSettings(own.sampler, own.guidance, steps, time_grid=own.time_grid)
    loops = guided_loops(prior, GaussianSettings().model(), settings, None)
    bare = compiled_bare(prior, shape, steps)
    seconds(bare)
    record = {"settings": values(own) | values(cld), "versions": records.versions(), "tasks": {}}
    for task in dict.fromkeys(own.task or TIMED):
        guided, used = compiled_guided(prior, shape, task, steps, loops)
        seconds(guided)
        pairs = [(seconds(guided), seconds(bare)) for _ in range(own.repeats)]
        record["tasks"][task] = {
            "guided_step_ms": round(1e3 / steps * statistics.median(g for g, _ in pairs), 3),
            "bare_vjp_ms": round(1e3 / steps * statistics.median(b for _, b in pairs), 3),
            "ratio": round(statistics.median(g / b for g, b in pairs), 3),
            "memory_mib": used,
        }
    return record
