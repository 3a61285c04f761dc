"""Time and memory of one guided step against the size of the image, with tiles and without, as docs/large.png.

    python -m experiments.large --output=results/large

Deblurs one square image of each of --sides with the shipped prior. `memory_mib` is what the compiled step needs by its
own account; the seconds are of a compiled step, of --repeats the median. Writes large.csv, in which sizes that are
there are not measured again, and large.png.
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import matplotlib

from cvsa_jax import checkpoints, commands, tiles
from cvsa_jax.batch import guided_loops
from cvsa_jax.commands.flags import Groups
from cvsa_jax.evaluation.step import compiled_guided, seconds
from cvsa_jax.jobs import records
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.settings import Settings, build, fields, like, require, setting

COLUMNS = ("side", "tile", "seconds", "memory_mib")


@dataclasses.dataclass(frozen=True)
class LargeSettings(Settings):
    """What is measured."""

    output: str | None = setting(None, "Folder of the results.", free=True)
    checkpoint: str = like(JobSettings, "checkpoint")
    task: str = setting("motion_deblur", "Task to time.")
    sides: tuple[str, ...] = setting(("128", "256", "512", "1024", "2048", "4096"), "Sides of the images in pixels.")
    tile: int = setting(512, "Side of the tiles; 0 is none.", "pixels", low=0)
    repeats: int = setting(1, "Timed steps of each size.", low=1)


def measured(own: LargeSettings, side: int) -> dict[str, Any]:
    """A row of one size."""
    whole = checkpoints.load_prior(own.checkpoint).prior
    prior = tiles.tiled(whole, own.tile) if own.tile else whole
    loops = guided_loops(prior, GaussianSettings().model(), SamplerSettings("ancestral", num_steps=2), None)
    step = compiled_guided(prior, (1, side, side, prior.channels or 3), own.task, 1, loops)
    times = [seconds(step.call) for _ in range(own.repeats)]  # compiled before
    return {
        "side": side,
        "tile": own.tile,
        "seconds": round(statistics.median(times), 3),
        "memory_mib": step.memory_mib,
    }


def plot(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Seconds and memory over the number of pixels, both logarithmic, beside a line of slope one."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(1, 2, figsize=(8, 3))
    for axis, column, unit in zip(axes, ("seconds", "memory_mib"), ("seconds a step", "MiB a step"), strict=True):
        for tile in sorted({int(row["tile"]) for row in rows}):
            own = [r for r in rows if int(r["tile"]) == tile and r[column] not in ("", None)]
            points = sorted((int(r["side"]) ** 2 / 1e6, float(r[column])) for r in own)
            if not points:  # a platform need not tell the memory
                continue
            x, y = zip(*points, strict=True)
            name, colour = (f"tiles of {tile}", "tab:blue") if tile else ("the whole image", "tab:red")
            axis.loglog(x, y, "o-", color=colour, label=name)
            if tile:
                axis.loglog(x, [y[-1] * a / x[-1] for a in x], "k:", label="as the pixels")
        axis.set(xlabel="megapixels", ylabel=unit)
        axis.grid(alpha=0.3)
    axes[1].legend()
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def groups() -> Groups:
    """The program's flags."""
    return {"Sizes": ("", fields(LargeSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The measuring."""
    require(given, "output")
    own = build(LargeSettings, given)

    def work():
        folder = pathlib.Path(str(own.output))
        folder.mkdir(parents=True, exist_ok=True)
        rows = records.read_rows(folder / "large.csv")
        for side in map(int, own.sides):
            if (str(side), str(own.tile)) not in {(str(row["side"]), str(row["tile"])) for row in rows}:
                rows.append(measured(own, side))
                records.write_rows(folder / "large.csv", COLUMNS, rows)
                print(rows[-1], flush=True)
        plot(folder / "large.png", rows)

    return work


if __name__ == "__main__":
    commands.run("experiments.large")
