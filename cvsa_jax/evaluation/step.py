"""The time of a guided step over that of the bare network, what it takes to compile, its memory and its FLOPs."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from cvsa_jax import operators
from cvsa_jax.batch import LoopMaker
from cvsa_jax.evaluation.hardware import share_of_peak
from cvsa_jax.priors import Prior, coefficients
from cvsa_jax.restoration import view
from cvsa_jax.samplers import run_steps

_KEPT, _SWITCH = "/jax/compilation_cache/cache_hits", "jax_enable_compilation_cache"


class Program(NamedTuple):
    """A compiled program of some steps with its arguments.

    call: runs it. compile_s: seconds to trace and compile it; None where the program was kept from an earlier run.
    memory_mib: its inputs, its outputs and what it keeps between, by its own account. flops: of one step, as XLA
    counts the traced program: multiplications and additions each, the body of a loop once, so that of an iterated
    inner solve one iteration is counted. None where the platform does not tell.
    """

    call: Callable[[], Any]
    compile_s: float | None
    memory_mib: float | None
    flops: float | None


def compiled(function: Callable, *args) -> Program:
    """The program of a function at some arguments."""
    start = time.perf_counter()
    with programs_kept() as kept:
        lowered = jax.jit(function).lower(*args)
        program = lowered.compile()
    spent = None if kept else round(time.perf_counter() - start, 3)
    # Of the traced program: in a compiled one the calls of an accelerator's own libraries have no count.
    costs = lowered.cost_analysis()
    flops = costs.get("flops") if isinstance(costs, dict) else None
    return Program(lambda: program(*args), spent, memory(program), flops)


@contextlib.contextmanager
def programs_kept() -> Iterator[list[str]]:
    """A list that grows by every program that is taken from those kept between runs."""
    found: list[str] = []

    def listen(event: str, **_) -> None:
        found.extend([event] if event == _KEPT else [])

    jax.monitoring.register_event_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(listen)


@contextlib.contextmanager
def compiling_anew(wanted: bool) -> Iterator[None]:
    """Inside, where it is wanted, every program is compiled, also one that was kept from an earlier run."""
    before = getattr(jax.config, _SWITCH)
    _take_kept(before and not wanted)
    try:
        yield
    finally:
        _take_kept(before)


def _take_kept(value: bool) -> None:
    if value != getattr(jax.config, _SWITCH):
        jax.config.update(_SWITCH, value)
        compilation_cache.reset_cache()  # it remembers whether it is in use; no file is removed


def compiled_bare(prior, shape, steps: int) -> Program:
    """`steps` values and pullbacks of the network in velocity, one after the other."""
    row = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), coefficients(prior.cld, 0.1))

    def one(prior, row, x, v):  # the row is no constant, as it is none in a guided step
        def step(v, _):
            value, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, row), v)
            return v + 1e-6 * pullback(value)[0], None  # each step needs the one before it

        return jax.lax.scan(step, v, length=steps)[0]

    zeros = jnp.zeros(shape)
    return compiled(jax.vmap(one, (None, None, 0, 0)), prior, row, zeros, zeros)


def compiled_guided(prior, shape, task: str, steps: int, loops: LoopMaker) -> Program:
    """`steps` guided steps of a batch, each image with its own operator and measurement."""
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
    return compiled(jax.vmap(one, (0, 0, 0, None)), states, measurements, stacked, prior)


def memory(program) -> float | None:
    """Of a compiled program, MiB: its inputs, its outputs and what it keeps between; None where that is not told."""
    found = program.memory_analysis()
    if found is None:
        return None
    parts = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return round((sum(parts) - found.alias_size_in_bytes) / 2**20, 1)


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def step_rows(
    prior: Prior, shape: tuple[int, ...], tasks: list[str], steps: int, repeats: int, loops: LoopMaker
) -> list[dict[str, Any]]:
    """A row for each task, of a batch of `shape`: medians over the repeats, the two programs timed in turn."""
    bare = compiled_bare(prior, shape, steps)
    seconds(bare.call)
    rows = []
    for task in tasks:
        guided = compiled_guided(prior, shape, task, steps, loops)
        seconds(guided.call)
        pairs = [(seconds(guided.call), seconds(bare.call)) for _ in range(repeats)]
        step = statistics.median(g for g, _ in pairs) / steps
        rows.append({
            "task": task,
            "batch_size": shape[0],
            "guided_step_ms": round(1e3 * step, 3),
            "bare_vjp_ms": round(1e3 / steps * statistics.median(b for _, b in pairs), 3),
            "ratio": round(statistics.median(g / b for g, b in pairs), 3),
            "memory_mib": guided.memory_mib,
            "compile_s": guided.compile_s,
            "gflop": guided.flops and round(guided.flops / 1e9, 3),
            "gflop_per_s": guided.flops and round(guided.flops / step / 1e9, 1),
            "share_of_peak": guided.flops and share_of_peak(guided.flops / step),
        })  # fmt: skip
    return rows
