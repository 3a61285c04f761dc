"""Problems whose posterior is known in closed form, and the distances to it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import CLD, Calibration, GaussianMixture, Prior, prior_from_denoiser, spectral
from cvsa_jax.denoising import VALIDATION_NOISES, denoising_error
from cvsa_jax.operators import Matrix, Operator, make_operator
from cvsa_jax.posterior import interval


class MixtureProblem(NamedTuple):
    """y = A x + noise_std n under a mixture of 25 Gaussians of unit covariance, float64 NumPy.

    weights: (25,). means: (25, d). matrix: (d_y, d). measurement: (d_y,).
    """

    weights: np.ndarray
    means: np.ndarray
    matrix: np.ndarray
    noise_std: float
    measurement: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.means.shape[1], 1, 1

    @property
    def operator(self) -> Matrix:
        return Matrix(jnp.asarray(self.matrix, jnp.float32))

    @property
    def denoiser(self) -> GaussianMixture:
        means = self.means.reshape(-1, *self.image_shape)
        return GaussianMixture(jnp.asarray(self.weights, jnp.float32), jnp.asarray(means, jnp.float32), 1.0)

    def posterior_samples(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Exact samples, (count, d): the posterior is a mixture too.

        Component k has weight w_k N(y; A m_k, A A' + s^2 I), mean m_k + A' (A A' + s^2 I)^-1 (y - A m_k)
        and covariance I - A' (A A' + s^2 I)^-1 A.
        """
        gram = self.matrix @ self.matrix.T + self.noise_std**2 * np.eye(len(self.matrix))
        rest = self.measurement - self.means @ self.matrix.T
        solved = np.linalg.solve(gram, rest.T).T
        logits = np.log(self.weights) - np.sum(rest * solved, 1) / 2
        weights = np.exp(logits - logits.max())
        component = generator.choice(len(weights), count, p=weights / weights.sum())
        # x + A'(AA' + s^2 I)^-1 (y' - A x) for a draw x of the prior and its own y'.
        x = self.means[component] + generator.normal(size=(count, self.means.shape[1]))
        y = x @ self.matrix.T + self.noise_std * generator.normal(size=(count, len(self.matrix)))
        return x + np.linalg.solve(gram, (self.measurement - y).T).T @ self.matrix


def mixture_problem(seed: int, dimension: int, num_measured: int) -> MixtureProblem:
    """A random problem: means (8i, 8j, 8i, 8j, ...) for i, j in -2..2, weights uniform on the simplex.

    A has singular values U(0, 1) and random directions; noise_std is U(0, 1) of the largest.

    References: Cardoso et al. (2023), Monte Carlo guided diffusion, arXiv:2308.07983, section 5.
    """
    generator = np.random.default_rng((seed, dimension, num_measured))
    grid = 8.0 * np.array([(i, j) for i in range(-2, 3) for j in range(-2, 3)])
    means = np.tile(grid, (1, dimension // 2))
    weights = generator.dirichlet(np.ones(len(means)))
    values = np.sort(generator.uniform(size=num_measured))
    left = np.linalg.qr(generator.normal(size=(num_measured, num_measured)))[0]
    right = np.linalg.qr(generator.normal(size=(dimension, num_measured)))[0]
    matrix, noise_std = left * values @ right.T, generator.uniform() * values.max()
    truth = means[generator.choice(len(means), p=weights)] + generator.normal(size=dimension)
    measurement = matrix @ truth + noise_std * generator.normal(size=num_measured)
    return MixtureProblem(weights, means, matrix, noise_std, measurement)


def mixture_prior(problem: MixtureProblem, seed: int) -> Prior:
    """The exact prior of a problem, its denoising error measured on its own samples."""
    samples_key, error_key = jax.random.split(jax.random.key(seed))
    prior = prior_from_denoiser(problem.denoiser, CLD())
    samples = problem.denoiser.sample(samples_key, 500)
    return dataclasses.replace(prior, calibration=denoising_error(prior, samples, error_key, 500))


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, generator: np.random.Generator, directions: int = 1000) -> float:
    """Mean over random unit directions of the 1-Wasserstein distance of the projections.

    Args:
      a, b: (N, d), as many samples each.
    """
    unit = generator.normal(size=(a.shape[1], directions))
    unit /= np.linalg.norm(unit, axis=0)
    return float(np.mean(np.abs(np.sort(a @ unit, 0) - np.sort(b @ unit, 0))))


class FieldProblem(NamedTuple):
    """A Gaussian random field of a red spectrum, measured linearly; the posterior in float64.

    prior: exact, with its spectrum and calibration. operator: H. truths: (N, S, S, 1).
    matrix: H, (m, S^2). variance: (S, S, 1), of the coefficients of `spectral.forward`.
    """

    prior: Prior
    operator: Operator
    truths: np.ndarray
    matrix: np.ndarray
    variance: np.ndarray
    noise_std: float

    def exact(self, measurements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means (N, S, S, 1) of measurements (N, ...), and the deviation (S, S, 1) they share."""
        shape = self.variance.shape
        basis = spectral.cosine_matrix(shape[0])
        rotation = np.kron(basis, basis)  # rows of the two-dimensional transform
        covariance = (rotation.T * self.variance.ravel()) @ rotation
        cross = covariance @ self.matrix.T
        gram = self.matrix @ cross + self.noise_std**2 * np.eye(len(self.matrix))
        gain = np.linalg.solve(gram, cross.T).T
        means = measurements.reshape(len(measurements), -1) @ gain.T
        deviation = np.sqrt(np.diag(covariance) - np.einsum("ij,ij->i", gain, cross))
        return means.reshape(-1, *shape), deviation.reshape(shape)


def field_problem(task: str, size: int, count: int, noise_std: float, seed: int) -> FieldProblem:
    """A field whose power falls as 1/frequency^2, of a deviation of about 1/2, under one of the tasks."""
    generator = np.random.default_rng((seed, size))
    red = spectral.Spectrum((tuple(float(v) for v in 6e-3 / np.array(spectral.KNOTS) ** 2),), (0.1,))
    variance = red.grid(size, size)
    noise = np.array(VALIDATION_NOISES)
    error = np.array([np.mean(variance * s**2 / (variance + s**2)) for s in noise])
    denoise = spectral.SpectralGaussian(jnp.asarray(variance, jnp.float32))
    prior = dataclasses.replace(prior_from_denoiser(denoise, CLD(), Calibration(noise, error)), spectrum=red)
    basis = spectral.cosine_matrix(size)
    white = generator.normal(size=(count, size, size)) * np.sqrt(variance[..., 0])
    truths = np.einsum("ki,nkl,lj->nij", basis, white, basis)[..., None]
    changes = {"missing": 0.7} if task == "random_inpaint" else {}
    operator = make_operator(task, generator, size, size, **changes)
    units = jnp.eye(size * size, dtype=jnp.float32).reshape(-1, size, size, 1)
    matrix = np.asarray(jax.lax.map(lambda x: operator(x).ravel(), units), np.float64).T
    return FieldProblem(prior, operator, truths.astype(np.float32), matrix, variance, noise_std)


def field_figures(samples: np.ndarray, truths: np.ndarray, exact: np.ndarray, deviation: np.ndarray) -> tuple:
    """(error, chance, ratio, coverage) of samples (N truths, K samples, S, S, 1).

    error: |mean of the samples - exact mean| / |exact mean|, over all truths. chance: that
    error of K exact samples. ratio: root mean square deviation of the samples over the exact
    one. coverage: share of the pixels whose truth lies in `interval`.
    """
    count = samples.shape[1]
    mean, size = samples.mean(1), np.sqrt(np.sum(exact**2))
    error = np.sqrt(np.sum((mean - exact) ** 2)) / size
    chance = np.sqrt(len(truths) * np.sum(deviation**2) / count) / size
    ratio = np.sqrt(np.mean(samples.var(1, ddof=1)) / np.mean(deviation**2))
    low, high = interval(samples, axis=1)
    return error, chance, ratio, float(np.mean((low <= truths) & (truths <= high)))
