"""deepinv's DPS, DiffPIR and DDRM against CVSA: the same weights, measurements and cores, in one run.

deepinv gets the network in PyTorch (`torch_twin`), our operator handed over as its own physics, and images in [0, 1].
Every method restores all images as one batch. Each is timed in turn with the others, so that a busy machine slows all.
"""

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import checkpoints, metrics, operators
from cvsa_jax.batch import BatchRestorer, guided_loops
from cvsa_jax.diffusion import CLD
from cvsa_jax.evaluation.rows import CHAINS
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import Convolution, Mask, Operator
from cvsa_jax.plans import evaluations_of
from cvsa_jax.presets import preset_of
from cvsa_jax.seeds import key_of_seed
from cvsa_jax.types import InputError

OURS, THEIRS = "CVSA", ("DPS", "DiffPIR", "DDRM")
EXTRA = "pip install deepinv torch (the extra cvsa_jax[deepinv])"
# The tasks that both have, with the settings for which deepinv has the same operator.
SHARED: dict[str, dict[str, Any]] = {
    "random_inpaint": {}, "box_inpaint": {}, "denoise": {},
    "gaussian_deblur": {"boundary": "circular"}, "motion_deblur": {"boundary": "circular"},
}  # fmt: skip
WALL, PROCESSOR = CLOCKS = "seconds", "processor_seconds"
USUAL = ("random_inpaint", "box_inpaint", "gaussian_deblur")
# Constants of each of their methods, of which the best by PSNR counts; the first are deepinv's own.
CONSTANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "DPS": ({"weight": 1.0}, {"weight": 10.0}),
    "DiffPIR": ({"lambda_": 7.0, "zeta": 0.1}, {"lambda_": 7.0, "zeta": 0.5}),
    "DDRM": ({"eta": 0.85},),
}


class Problem(NamedTuple):
    """Measurements (N, ...) of truths (N, H, W, C) by one operator, with noise of deviation `noise`."""

    truths: np.ndarray
    operator: Operator
    measurements: np.ndarray
    noise: float


class Method(NamedTuple):
    """One way to restore a problem. run: all images (N, H, W, C) in [-1, 1]; evaluations: of the network, an image."""

    name: str
    constants: dict[str, Any]
    run: Callable[[], np.ndarray]
    evaluations: Callable[[], int]


def require() -> None:
    """Raises InputError unless deepinv and PyTorch can be imported."""
    try:
        for name in ("torch", "deepinv"):
            import_module(name)
    except ImportError as error:
        raise InputError(f"--vs=deepinv: {error}; {EXTRA}") from error


def problem(task: str, truths: np.ndarray, noise: float, seed: int) -> Problem:
    """All images measured by one drawn operator, since deepinv's DDRM knows no operator for each image."""
    height, width = truths.shape[1:3]
    operator = operators.make_operator(task, np.random.default_rng(seed), height, width, **SHARED[task])
    keys = jax.random.split(key_of_seed(seed), len(truths))
    measured = [operators.simulate(k, operator, jnp.asarray(x), noise) for k, x in zip(keys, truths, strict=True)]
    return Problem(truths, operator, np.stack(measured), noise)


def in_unit_range(given: Problem) -> np.ndarray:
    """The measurements of the images in [0, 1], (N, C, H, W): H((x + 1)/2) = (H x + H 1)/2, the noise halved."""
    ones = np.asarray(given.operator(jnp.ones(given.truths.shape[1:])))
    return np.moveaxis((given.measurements + ones) / 2, -1, 1).astype(np.float32)


def physics(given: Problem):
    """Our operator as deepinv's, on images (N, C, H, W) in [0, 1].

    Raises:
      InputError: if deepinv has no such operator.
    """
    import deepinv  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    height, width, channels = given.truths.shape[1:]
    shape, own = (channels, height, width), given.operator
    noise = deepinv.physics.GaussianNoise(given.noise / 2)
    if isinstance(own, Convolution) and own.boundary == "circular":
        kernel = torch.tensor(np.asarray(own.kernel, np.float32)[None, None])
        return deepinv.physics.BlurFFT(img_size=shape, filter=kernel, noise_model=noise)
    if isinstance(own, Mask) or type(own).__name__ == "Identity":
        seen = own.seen if isinstance(own, Mask) else np.ones((height, width, 1))
        mask = np.broadcast_to(np.moveaxis(np.asarray(seen, np.float32), -1, 0), shape).copy()
        return deepinv.physics.Inpainting(img_size=shape, mask=torch.tensor(mask), noise_model=noise)
    raise InputError(f"deepinv has no {type(own).__name__} like ours")


def _sampler(name: str, denoiser, evaluations: int, constants: dict[str, Any], noise: float):
    import torch  # pyright: ignore[reportMissingImports]
    from deepinv import optim, sampling  # pyright: ignore[reportMissingImports]

    if name == "DPS":  # which asks the network at all of its times but the last
        return sampling.DPS(denoiser, num_steps=evaluations + 1, rng=torch.Generator(), **constants)
    if name == "DiffPIR":
        fidelity = optim.data_fidelity.L2()
        return sampling.DiffPIR(denoiser, fidelity, sigma=noise / 2, max_iter=evaluations, **constants)
    return sampling.DDRM(denoiser, sigmas=np.linspace(1, 0, evaluations), **constants)


def theirs(name: str, given: Problem, denoiser, evaluations: int, constants: dict[str, Any], seed: int) -> Method:
    """One of deepinv's methods, as it documents it but for the constants."""
    import torch  # pyright: ignore[reportMissingImports]

    own, y = physics(given), torch.tensor(in_unit_range(given))

    def run() -> np.ndarray:
        denoiser.evaluations = 0
        torch.manual_seed(seed)  # DiffPIR and DDRM take a seed of 0 for none
        with torch.no_grad():
            found = _sampler(name, denoiser, evaluations, constants, given.noise)(y, own, seed=seed + 1)
        return 2 * np.moveaxis(found.numpy(), 1, -1) - 1

    return Method(name, constants, run, lambda: denoiser.evaluations)


def ours(task: str, given: Problem, prior, evaluations: int, chains: int, seed: int) -> Method:
    """CVSA with the task's preset but for its chains and their steps, which take so many evaluations together."""
    preset, count = preset_of(task), len(given.truths)
    each = chains * evaluations_of(preset.sampler)
    steps = max(2, evaluations // each)
    settings = preset.but({"num_steps": steps}).sampler
    loops = guided_loops(prior, GaussianNoise(given.noise), settings, None)
    restorer = BatchRestorer(prior, loops, steps, chunk=steps)
    keys = jax.random.split(key_of_seed(seed), count * chains)
    measured = np.repeat(given.measurements, chains, 0)

    def run() -> np.ndarray:
        found = restorer(keys, measured, [given.operator] * len(keys), given.truths.shape[1:]).images
        return found.reshape(count, chains, *found.shape[1:]).mean(1)

    return Method(OURS, {"num_samples": chains, "num_steps": steps}, run, lambda: steps * each)


def timed(method: Method, given: Problem) -> dict[str, float]:
    """One run: PSNR in dB, the mean over the images; wall-clock and processor seconds an image."""
    wall, processor = time.perf_counter(), time.process_time()
    found = method.run()
    spent = time.perf_counter() - wall, time.process_time() - processor
    psnr = np.mean([metrics.psnr(x, z) for x, z in zip(given.truths, found, strict=True)])
    return {"psnr": float(psnr), WALL: spent[0] / len(found), PROCESSOR: spent[1] / len(found)}


def rows(
    checkpoint: str, cld: CLD, truths: np.ndarray, tasks: Sequence[str], counts: Mapping[str, Sequence[int]],
    noise: float, repeats: int, seed: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each task, method and number of evaluations; counts: those numbers, by method.

    `psnr` is that of the best of a method's CONSTANTS, of CVSA of the best of CHAINS; `tried` has all. Each runs once
    before it is timed; the seconds are medians over the repeats.

    Raises:
      InputError: if the network has no twin in PyTorch, or needs images of another size.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from cvsa_jax.evaluation import torch_twin

    torch.set_num_threads(cores())
    loaded = checkpoints.load_prior(checkpoint, cld, "float32", pyramid=False)
    check_twin(loaded.spec, truths.shape[1:])
    assert loaded.network is not None
    denoiser = torch_twin.Denoiser(loaded.spec, loaded.network.args[0], truths.shape[1])
    for task in tasks:
        given = problem(task, truths, noise, seed)
        best = []
        for count in counts[OURS]:
            chains = [n for n in CHAINS if 2 * n <= count] or CHAINS[:1]
            best.append(_best([ours(task, given, loaded.prior, count, n, seed) for n in chains], given))
        for name in THEIRS:
            for count in counts[name]:
                tried = [theirs(name, given, denoiser, count, some, seed) for some in CONSTANTS[name]]
                best.append(_best(tried, given))
        runs = [[timed(method, given) for method, _ in best] for _ in range(repeats)]
        for (_, row), own in zip(best, zip(*runs, strict=True), strict=True):
            seconds = {name: round(statistics.median(r[name] for r in own), 4) for name in CLOCKS}
            yield {"task": task} | row | seconds


def _best(methods: Sequence[Method], given: Problem) -> tuple[Method, dict[str, Any]]:
    """Of one method with several constants that of the largest PSNR, and its row but for the times."""
    found = [(timed(method, given)["psnr"], method.evaluations()) for method in methods]
    number = max(range(len(methods)), key=lambda i: found[i][0])
    tried = [{"constants": m.constants, "psnr": round(p, 3)} for m, (p, _) in zip(methods, found, strict=True)]
    psnr, evaluations = found[number]
    best = methods[number]
    row = {"method": best.name, "evaluations": evaluations, "psnr": round(psnr, 3), "constants": best.constants}
    return best, row | {"tried": tried}


def check_twin(spec: NetworkSpec, shape: tuple[int, ...]) -> None:
    """Raises InputError unless the network has a twin in PyTorch, and takes square images of that shape."""
    twin = spec.model == "unet" and spec.parameterization == "denoiser" and spec.spectrum is not None
    if not twin or spec.options.get("attention", False):
        raise InputError("--vs=deepinv needs a prior that `cvsa train` made: a denoiser by a U-Net without attention")
    if shape[0] % spec.stride:
        raise InputError(f"--image_size must be a multiple of {spec.stride} for this network, got {shape[0]}")


def versions() -> dict[str, str]:
    """Of what is compared with."""
    return {name: importlib.metadata.version(name) for name in ("deepinv", "torch")}


def cores() -> int:
    """The processors that this process may use; JAX uses all of them, and so PyTorch does."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
