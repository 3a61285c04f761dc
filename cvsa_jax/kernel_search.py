"""The kernel of a blind task: many guesses, refined by joint chains, judged by their evidence.

A single joint chain of image and kernel mostly ends in a kernel that is too narrow: at high noise
the mean image is smooth, a narrow kernel explains it, and image and kernel then agree on a blurred
picture. What tells kernels apart is the evidence, p(y | k) with the image integrated out, whose
determinant a chain's gradient lacks.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.blind import BlindConvolution, Layout, PairPrior, blind_loop
from cvsa_jax.evidence import JUDGED_NOISES, NUM_JUDGED, evidence, first_evidence
from cvsa_jax.metrics import kernel_mse
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators.algebra import conjugate_gradients
from cvsa_jax.operators.identity import Identity
from cvsa_jax.operators.kernel_blur import REFLECT, Convolution
from cvsa_jax.operators.kernels import centred, draw_kernels, image_to_kernel, kernel_to_image
from cvsa_jax.operators.task import BlindSettings
from cvsa_jax.operators.view import View
from cvsa_jax.plans import make_plan
from cvsa_jax.priors import Prior
from cvsa_jax.restoration import run_steps, view
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.samplers.base import diffuse

DISTINCT = 0.004


class SearchSettings(NamedTuple):
    """How the kernel is searched for.

    bank_size: kernels drawn from the generator, as first guesses. family: of them, see `draw_kernel`.
    num_guesses: of them that are refined, each also turned by 180 degrees, which the first evidence
    cannot tell apart. noises: effective noise that each round's chains start from. num_steps: of each
    chain. num_kept: of a round's chains, from which the next round's start.
    """

    bank_size: int = 4096
    family: str | None = None
    num_guesses: int = BlindSettings.search_guesses
    noises: tuple[float, ...] = (1.5, 1.0, 0.5)
    num_steps: int = 25
    num_kept: int = 4

    @property
    def num_rounds(self) -> int:
        """Rounds of refinement."""
        return len(self.noises)

    @property
    def num_evaluations(self) -> int:
        """Network evaluations of one image, at most."""
        judged = len(JUDGED_NOISES) * NUM_JUDGED
        return len(self.noises) * 2 * self.num_guesses * (self.num_steps + judged)


DEFAULT_SEARCH = SearchSettings()


def wiener(measurement: jax.Array, operator: Convolution, view: View, canvas, prior: Prior, noise_variance: float):
    """The Gaussian posterior mean of the image under the prior's spectrum, on the canvas."""
    spread, forward = prior.at(canvas).error_covariance(jnp.asarray(1e3), canvas), lambda x: operator(view.crop(x))
    assert spread is not None
    transpose = jax.linear_transpose(forward, jax.ShapeDtypeStruct(canvas, measurement.dtype))

    def gram(w):
        return noise_variance * w + forward(spread(transpose(w)[0]))

    w = conjugate_gradients(gram, measurement, lambda r: operator.solve_gram(r, noise_variance, 0.25), 12)
    return spread(transpose(w)[0])


def first_distinct(kernels: np.ndarray, order: np.ndarray, count: int) -> list[int]:
    """The first `count` in that order of which no two are alike: `kernel_mse` above DISTINCT, also turned.

    The error without a shift is no less than that after the best one, so that most of those that are alike are
    known by one matrix product.

    Args:
      kernels: (N, K, K). order: indices of them, the best first.
    """
    scaled = kernels / np.maximum(kernels.max((1, 2), keepdims=True), np.finfo(kernels.dtype).tiny)
    flat, chosen = scaled.reshape(len(kernels), -1), []
    squares, alike = np.einsum("nk,nk->n", flat, flat), np.zeros(len(kernels), bool)
    for index in order:
        kernel = kernels[index]
        if alike[index] or not all(
            min(kernel_mse(kernel, other), kernel_mse(kernel[::-1, ::-1], other)) > DISTINCT
            for other in kernels[chosen]
        ):
            continue
        chosen.append(int(index))
        if len(chosen) == count:
            break
        for own in (flat[index], flat[index][::-1]):
            unmoved = (squares + squares[index] - 2 * flat @ own) / flat.shape[1]
            alike |= unmoved < 0.99 * DISTINCT  # well below, whatever the product rounds to
    return chosen


class KernelSearch:
    """Finds the kernel of one measurement after the other; compiled once for a shape.

    Args:
      prior: of images, with a spectrum. kernel_prior: of kernels.
      kernel_side: of the kernel's image.
      noise_std: of the measurement.
      settings: see `SearchSettings`.
      boundary: of the blur.

    Raises:
      ValueError: if the prior has no spectrum.
    """

    def __init__(
        self, prior: Prior, kernel_prior: Prior, kernel_side: int, noise_std: float,
        settings: SearchSettings = DEFAULT_SEARCH, boundary: str = REFLECT,
    ):  # fmt: skip
        if prior.spectrum is None:
            raise ValueError("the kernel search needs a prior that knows its data's spectrum; start from noise instead")
        self._priors, self._side, self._noise = (prior, kernel_prior), kernel_side, GaussianNoise(noise_std)
        self._variance, self.settings, self._boundary = noise_std**2, settings, boundary
        size = kernel_side - (kernel_side + 1) % 2
        self._bank = draw_kernels(np.random.default_rng(0), settings.bank_size, size, settings.family).astype(
            np.float32
        )
        self._plans = {noise: self._plan(noise) for noise in settings.noises}
        self._compiled: dict = {}

    def _plan(self, noise: float):
        """(first time, loop's plan) of a round of chains that start at an effective noise."""
        cld = self._priors[0].cld
        time = float(cld.time_of_noise(np.array(noise)))
        return time, make_plan(SamplerSettings(num_steps=self.settings.num_steps, t_start=time), cld)

    def guesses(self, measurement: np.ndarray, noise_std: jax.Array | None = None) -> np.ndarray:
        """The kernels of the bank with the largest evidence, no two alike, each followed by itself turned."""
        args = jnp.asarray(measurement), jnp.asarray(self._bank), noise_std
        order = np.argsort(np.asarray(self._program(self._first, *args)(*args)))
        chosen = [self._bank[index] for index in first_distinct(self._bank, order, self.settings.num_guesses)]
        chosen += [chosen[0]] * (self.settings.num_guesses - len(chosen))
        return np.stack([k for kernel in chosen for k in (kernel, kernel[::-1, ::-1])])

    def _first(self, y, bank, noise_std):
        variance = self._variance if noise_std is None else noise_std**2
        return first_evidence(y, bank, self._priors[0].at(y.shape).spectrum, variance)

    def _round(self, keys, y, kernels, images, priors, noise_std, *, noise):
        """(images, kernel images, costs) of the joint chains that start from kernels (and images, if there are)."""
        (prior, kernel_prior), (time, plan) = priors, self._plans[noise]
        model, variance = self._noise, self._variance
        if noise_std is not None:
            model, variance = GaussianNoise(noise_std), noise_std**2
        canvas, seen = prior.canvas(y.shape), view(Identity(), prior, y.shape)
        pair = PairPrior(prior, kernel_prior, Layout(canvas, self._side))
        operator = dataclasses.replace(seen, operator=BlindConvolution(self._boundary))
        chain = blind_loop(y, operator, pair, model, plan)

        @jax.vmap
        def refine(key, kernel, image):
            image_key, kernel_key, init_key, judge_key = jax.random.split(key, 4)
            if image is None:
                weights = image_to_kernel(kernel)
                image = wiener(y, Convolution(weights, self._boundary), seen, canvas, prior, variance)
            x, v = diffuse(prior.cld, time, image, image_key)
            k, kernel_v = diffuse(prior.cld, time, kernel, kernel_key)
            state = chain.init(init_key, canvas)._replace(x=x, v=v, k=k, kernel_v=kernel_v)
            last = run_steps(chain, state, 0, self.settings.num_steps)[0]
            assert last.k is not None
            cost = evidence(judge_key, y, last.x, image_to_kernel(last.k), prior, seen.crop, variance)
            return last.x, last.k, cost

        return refine(keys, kernels, images)

    def _program(self, function: Callable, *args, **settings):
        """The function compiled for the shapes of these arguments."""
        name = (function.__name__, *settings.values(), str(jax.tree.map(jnp.shape, args)))
        if name not in self._compiled:
            self._compiled[name] = jax.jit(functools.partial(function, **settings)).lower(*args).compile()
        return self._compiled[name]

    def prepare(self, shape: tuple[int, int, int], own_noise: bool = False) -> None:
        """Compile for measurements of that shape, so that no measurement's time holds it.

        Args:
          shape: (H, W, C). own_noise: whether each has its own noise.
        """
        count, y, noise_std = 2 * self.settings.num_guesses, jnp.zeros(shape), jnp.ones(()) if own_noise else None
        self._program(self._first, y, jnp.asarray(self._bank), noise_std)
        keys = jax.random.split(jax.random.key(0), count)
        kernels, images = jnp.zeros((count, self._side, self._side, 1)), None
        for noise in self.settings.noises:
            self._program(self._round, keys, y, kernels, images, self._priors, noise_std, noise=noise)
            images = jnp.zeros((count, *self._priors[0].canvas(shape)))

    def __call__(
        self, key: jax.Array, measurement: np.ndarray, progress: Callable[[int], object] = lambda _: None,
        noise_std: float | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The kernel (K, K) with the largest evidence, sum 1, its centre of mass nearest the middle.

        Args:
          key: PRNG key. measurement: (H, W, C). progress: called with the number of rounds just done.
          noise_std: of this measurement; None is that of the search.
        """
        own = None if noise_std is None else jnp.asarray(noise_std, jnp.result_type(float))
        guesses = self.guesses(measurement, own)
        kernels = jnp.asarray(np.stack([kernel_to_image(g, self._side) for g in guesses]), jnp.float32)
        y, images, found = jnp.asarray(measurement), None, []
        for index, noise in enumerate(self.settings.noises):
            keys = jax.random.split(jax.random.fold_in(key, index), len(guesses))
            args = keys, y, kernels, images, self._priors, own
            x, k, cost = self._program(self._round, *args, noise=noise)(*args)
            cost = np.where(np.isfinite(cost), np.asarray(cost), np.inf)
            found.append((np.asarray(k), cost))
            picked = np.resize(np.argsort(cost)[: self.settings.num_kept], len(guesses))
            kernels, images = k[picked], x[picked]
            progress(1)
        kernels, costs = (np.concatenate(part) for part in zip(*found, strict=True))
        return centred(np.asarray(image_to_kernel(jnp.asarray(kernels[np.argmin(costs)])), np.float64))
