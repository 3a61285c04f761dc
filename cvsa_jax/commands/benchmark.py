"""Time a guided step against the bare network, and whole restorations, as JSON and as plots.

    cvsa benchmark
    cvsa benchmark --parts=throughput,devices,processes --batch_sizes=1,4,16 --output=results/speed

`ratio` is the time of one guided step over that of one value-and-vjp of the same network at the same batch, which
is the least that a guided step can cost. The two are timed in turn, so that a busy machine slows both; the ratio
is the median over the repeats. `memory_mib` is what the compiled program needs at most, by its own account; `gflop`
those of one step, and `share_of_peak` of what a known accelerator can do at most.

A whole restoration reads, measures, restores and writes as `cvsa restore` does, with few steps. `images_per_s` leaves
out the first batch, `start_s` is until that is restored.

    cvsa benchmark --random_weights=ffhq_10m --image_size=256 --batch_size=1 --task=sr4 --repeats=1 --steps_per_call=2

times a public model at its size without its weights.

    cvsa benchmark --vs=deepinv --input=FOLDER --output=results/deepinv

compares with deepinv's DPS, DiffPIR and DDRM on the same weights, measurements and cores: PSNR against seconds.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.diffusion import CLD
from cvsa_jax.evaluation import versus
from cvsa_jax.evaluation.benchmark import BenchmarkSettings, benchmark, save
from cvsa_jax.evaluation.versus import VersusSettings
from cvsa_jax.jobs import records
from cvsa_jax.plans import takes_particles
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.settings import build, fields, refuse, replaced

# What has an effect in some parts alone.
OF_PARTS = {
    "batch_sizes": ("step", "throughput"), "repeats": ("step",), "batches": ("throughput", "devices", "processes"),
    "devices": ("devices",), "processes": ("processes",),
}  # fmt: skip


def groups() -> Groups:
    """The verb's flags."""
    return {
        "Benchmark": ("", fields(BenchmarkSettings)),
        "Comparison": ("With --vs alone.", fields(VersusSettings)),
        "Diffusion": ("", fields(CLD)),
    }


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The timing, or the comparison."""
    own, cld = build(BenchmarkSettings, given), build(CLD, given)
    if "vs" in given:
        return _comparison(given, own, cld)
    refuse({f.name: "without --vs" for f in fields(VersusSettings)}, given)
    idle = {name: f"without --parts={' or '.join(ps)}" for name, ps in OF_PARTS.items() if not set(ps) & set(own.parts)}
    if own.batch_sizes and not {"devices", "processes"} & set(own.parts):
        idle["batch_size"] = "beside --batch_sizes"
    refuse(replaced([BenchmarkSettings], given) | idle, given)
    if takes_particles(SamplerSettings(own.sampler)):
        raise ValueError(f"--sampler={own.sampler} runs a population, which is not timed")

    def work() -> None:
        record = benchmark(own, cld)
        if own.output is not None:
            with records.writable(pathlib.Path(own.output)):
                save(pathlib.Path(own.output), record)
        print(json.dumps(records.plain(record), indent=1))

    return work


def _comparison(given: dict[str, Any], shared: BenchmarkSettings, cld: CLD) -> Callable[[], None]:
    own = build(VersusSettings, given)
    refuse(replaced([VersusSettings], given), given)
    versus.check(own, shared)

    def work() -> None:
        record, folder = versus.compare(own, shared, cld), pathlib.Path(str(shared.output))
        with records.writable(folder):
            versus.save(folder, record)
        print(versus.table(record["rows"]))
        for row in record["lead"]:
            if row["lead_db"] is not None:
                ahead, seconds = f"{row['lead_db']:+.2f} dB to {row['best_other']}", f"{row[own.clock]:.2f} s"
                print(f"{row['task']}: {ahead} in {seconds} an image")

    return work
