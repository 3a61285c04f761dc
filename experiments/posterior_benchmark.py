"""Compare posterior samples with posteriors that are known in closed form.

    python -m experiments.posterior_benchmark --output=results/posteriors

Two families of problems (--problems): `mixture`, a mixture of 25 Gaussians in 8, 80 and 800
dimensions of which 1, 2 or 4 numbers are measured; and `field`, a Gaussian random field of
64x64 under blur, mask and x4. Every method has the same exact prior. Writes mixture.csv
(each problem), mixture.md (mean sliced 1-Wasserstein distances), scatter.png, field.csv and
field.md. The same command goes on where it was stopped.
"""

import dataclasses
import functools
import pathlib
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvsa_jax import commands, restore
from cvsa_jax.baselines import baseline_loop
from cvsa_jax.commands.flags import Groups
from cvsa_jax.jobs import records
from cvsa_jax.plans import takes_particles
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.samplers import run_steps
from cvsa_jax.settings import Settings, build, fields, setting
from experiments import posteriors
from experiments.posterior_report import EXACT, Table, field_markdown, mixture_markdown, scatter

FAMILIES = ("mixture", "field")


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings(Settings):
    """What is compared."""

    output: str | None = setting(None, "Folder of the results.", free=True, path=True)
    problems: tuple[str, ...] = setting(
        FAMILIES, "Families; may be repeated.", choices=FAMILIES, several=True, free=True
    )
    dimensions: tuple[str, ...] = setting(("8", "80", "800"), "Dimensions of the mixture, even.", free=True)
    measured: tuple[str, ...] = setting(("1", "2", "4"), "Numbers measured of the mixture.", free=True)
    num_problems: int = setting(20, "Problems of each kind.", low=1, free=True)
    num_samples: int = setting(1000, "Posterior samples of each method and measurement.", low=20)
    methods: tuple[str, ...] = setting(
        (), "Only methods whose name contains this; may be repeated.", otherwise="all", several=True, free=True
    )
    field_size: int = setting(64, "Side of the random field.", "pixels", low=8)


FIELD_TASKS = ("gaussian_deblur", "random_inpaint", "sr4")
FIELD_TRUTHS = 2
FIELD_NOISE = 0.05


def guided(sampler: str, guidance: str, num_steps: int, time_grid: str = "logarithmic", **options):
    """(prior, denoise, key, y, operator, noise_std, shape, count) -> samples, by `restore`."""

    def run(prior, denoise, key, y, operator, noise_std, shape, count):
        settings = SamplerSettings(sampler, guidance, num_steps, time_grid=time_grid, **options)
        one = functools.partial(
            restore, measurement=y, operator=operator, prior=prior, image_shape=shape, noise_std=noise_std,
            settings=settings,
        )  # fmt: skip
        if takes_particles(settings):
            return one(key, num_particles=count).image
        return jax.vmap(lambda k: one(k).image)(jax.random.split(key, count))

    return run


def baseline(name: str, num_steps: int, **options):
    """The same for one of the baselines."""

    def run(prior, denoise, key, y, operator, noise_std, shape, count):
        chain = baseline_loop(name, y, operator, prior, shape, num_steps, noise_std, **options)

        def one(k):
            return run_steps(chain, chain.init(k, shape), 0, num_steps)[0].x

        return jax.vmap(one)(jax.random.split(key, count))

    return run


MIXTURE_VARIANCE = 129.0  # per coordinate: 64 times the mean of (-2..2)^2, and one

METHODS = {
    "particles + second_moment, 100": guided("particles", "second_moment", 100),
    "particles + second_moment, 20": guided("particles", "second_moment", 20),
    "particles + covariance, 100": guided("particles", "covariance", 100),
    "ancestral + second_moment, 50": guided("ancestral", "second_moment", 50),
    "ancestral + second_moment, 50, 1 correction": guided("ancestral", "second_moment", 50, num_corrections=1),
    "ancestral + covariance, 50": guided("ancestral", "covariance", 50),
    "ancestral + diagonal_covariance, 50": guided("ancestral", "diagonal_covariance", 50),
    "ancestral + plug_in, 50": guided("ancestral", "plug_in", 50),
    "decoupled + second_moment, 50": guided("decoupled", "second_moment", 50),
    "decoupled + covariance, 50": guided("decoupled", "covariance", 50),
    "ancestral_multistep + second_moment, 50": guided("ancestral_multistep", "second_moment", 50),
    "ddim + second_moment, 50": guided("ddim", "second_moment", 50),
    "multistep + second_moment, 50": guided("multistep", "second_moment", 50),
    "sscs + second_moment, 1000": guided("sscs", "second_moment", 1000, "quadratic"),
    "euler_maruyama + second_moment, 1000": guided("euler_maruyama", "second_moment", 1000, "uniform"),
    "euler_maruyama + normalized_plug_in, 1000": guided("euler_maruyama", "normalized_plug_in", 1000, "uniform"),
    "euler_maruyama + plug_in, 1000": guided("euler_maruyama", "plug_in", 1000, "uniform"),
    "euler_maruyama + printed_plug_in, 1000 (the paper)": guided("euler_maruyama", "printed_plug_in", 1000, "uniform"),
    "DPS, 1000": baseline("dps", 1000),
    "PiGDM, 100": baseline("pigdm", 100, data_variance=MIXTURE_VARIANCE),
    "DDRM, 100": baseline("ddrm", 100),
}
FIELD_METHODS = {
    f"{sampler} + {guidance}, 50": guided(sampler, guidance, 50)
    for sampler, guidance in (
        ("ancestral_multistep", "second_moment"),
        ("ancestral_multistep", "spectral_covariance"),
        ("ancestral_multistep", "covariance"),
        ("ancestral_multistep", "diagonal_covariance"),
        ("multistep", "second_moment"),
        ("ancestral", "second_moment"),
    )
}


def chosen(own: BenchmarkSettings, methods: dict) -> dict:
    """Those that --methods names."""
    return {n: m for n, m in methods.items() if not own.methods or any(part in n for part in own.methods)}


def run_mixture(own: BenchmarkSettings, folder: pathlib.Path, dimensions: list[int], measured: list[int]) -> None:
    """Every method on every problem, the table and the scatter plot."""
    columns = ("method", "d", "d_y", "problem", "distance", "seconds")
    table, methods = Table(folder / "mixture.csv", columns, 4), chosen(own, METHODS)
    cells = [(d, m) for d in dimensions for m in measured]
    clouds: dict = {}
    total = len(cells) * own.num_problems * (len(methods) + 1)
    with tqdm(total=total, unit="run") as bar:
        for d, m in cells:
            # One compilation serves all problems of a cell.
            programs = {n: jax.jit(method, static_argnums=(6, 7)) for n, method in methods.items()}
            for number in range(own.num_problems):
                problem = posteriors.mixture_problem(number, d, m)
                prior = posteriors.mixture_prior(problem, number)
                plotted = (d, m) == cells[0] and number < 3
                seed = (7, number, d, m)
                exact = problem.posterior_samples(np.random.default_rng((*seed, 0)), own.num_samples)
                y, noise_std = jnp.asarray(problem.measurement, jnp.float32), jnp.float32(problem.noise_std)
                for name in (EXACT, *methods):
                    bar.update()
                    if table.has(name, d, m, number) and not plotted:
                        continue
                    clock = time.perf_counter()
                    if name == EXACT:
                        found = problem.posterior_samples(np.random.default_rng((*seed, 1)), own.num_samples)
                    else:
                        key = jax.random.fold_in(jax.random.key(number), zlib.crc32(name.encode()))
                        found = programs[name](
                            prior, problem.denoiser, key, y, problem.operator, noise_std, problem.image_shape,
                            own.num_samples,
                        )  # fmt: skip
                        found = np.asarray(found, np.float64).reshape(own.num_samples, d)
                    seconds = time.perf_counter() - clock
                    if plotted:
                        clouds[number, name] = exact, found
                    if not table.has(name, d, m, number):
                        distance = posteriors.sliced_wasserstein(exact, found, np.random.default_rng((*seed, 2)))
                        table.add(name, d, m, number, distance, seconds)
    (folder / "mixture.md").write_text(mixture_markdown(table, list(METHODS), cells))
    scatter(folder / "scatter.png", clouds)


def run_field(own: BenchmarkSettings, folder: pathlib.Path) -> None:
    """Each form of guidance on the random field: error of the mean, deviation, coverage."""
    columns = ("method", "task", "mean_error", "chance", "deviation_ratio", "coverage", "seconds")
    table, count = Table(folder / "field.csv", columns, 2), own.num_samples
    for task in tqdm(FIELD_TASKS, unit="task"):
        todo = {n: m for n, m in chosen(own, FIELD_METHODS).items() if not table.has(n, task)}
        if not todo:
            continue
        problem = posteriors.field_problem(task, own.field_size, FIELD_TRUTHS, FIELD_NOISE, 0)
        generator = np.random.default_rng(1)
        clean = np.stack([np.asarray(problem.operator(jnp.asarray(x))) for x in problem.truths])
        measured = clean + FIELD_NOISE * generator.normal(size=clean.shape)
        measured = np.asarray(problem.operator.restrict(jnp.asarray(measured)))
        exact, deviation = problem.exact(measured)
        for name, method in todo.items():
            program, clock = jax.jit(method, static_argnums=(6, 7)), time.perf_counter()
            samples = np.stack([
                np.asarray(program(
                    problem.prior, None, jax.random.key(i), jnp.asarray(y, jnp.float32), problem.operator,
                    FIELD_NOISE, problem.truths.shape[1:], count,
                ))
                for i, y in enumerate(measured)
            ])  # fmt: skip
            table.add(name, task, *posteriors.field_figures(samples, problem.truths, exact, deviation),
                      time.perf_counter() - clock)  # fmt: skip
    (folder / "field.md").write_text(field_markdown(table))


def groups() -> Groups:
    """The program's flags."""
    return {"Benchmark": ("", fields(BenchmarkSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The benchmark."""
    own = build(BenchmarkSettings, given)
    if own.output is None:
        raise ValueError("--output is required")
    dimensions, measured = [int(v) for v in own.dimensions], [int(v) for v in own.measured]
    for d in dimensions:
        if d < 2 or d % 2 or d < max(measured):
            raise ValueError(f"--dimensions must be even and no less than --measured, got {d}")
    if min(measured) < 1:
        raise ValueError("--measured must be at least 1")
    folder = pathlib.Path(own.output)
    records.claim_folder(folder, {"num_samples": own.num_samples, "field_size": own.field_size})

    def work() -> None:
        if "mixture" in own.problems:
            run_mixture(own, folder, dimensions, measured)
            print((folder / "mixture.md").read_text())
        if "field" in own.problems:
            run_field(own, folder)
            print((folder / "field.md").read_text())

    return work


if __name__ == "__main__":
    commands.run("experiments.posterior_benchmark")
