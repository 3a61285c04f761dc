"""Time a guided step against the bare network, as JSON.

    cvsa benchmark

`ratio` is the time of one guided step over that of one value-and-vjp of the same network at the same batch, which
is the least that a guided step can cost. The two are timed in turn, so that a busy machine slows both; the ratio
is the median over the repeats. `memory_mib` is what the compiled program needs at most, by its own account.

    cvsa benchmark --random_weights=ffhq_10m --image_size=256 --batch_size=1 --task=sr4 --repeats=1 --steps_per_call=2

times a public model at its size without its weights.
"""

import json
from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.diffusion import CLD
from cvsa_jax.evaluation.benchmark import BenchmarkSettings, benchmark
from cvsa_jax.plans import takes_particles
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.settings import build, fields, refuse, replaced


def groups() -> Groups:
    """The verb's flags."""
    return {"Benchmark": ("", fields(BenchmarkSettings)), "Diffusion": ("", fields(CLD))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The timing."""
    own, cld = build(BenchmarkSettings, given), build(CLD, given)
    refuse(replaced([BenchmarkSettings], given), given)
    if takes_particles(SamplerSettings(own.sampler)):
        raise ValueError(f"--sampler={own.sampler} runs a population, which is not timed")
    return lambda: print(json.dumps(benchmark(own, cld), indent=1))
