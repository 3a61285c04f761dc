"""Slow float64 NumPy versions of what the package computes, from other formulas."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import Operator
from cvsa_jax.operators.stacked import stack


def integrated_moments(cld, t: float) -> tuple[np.ndarray, np.ndarray]:
    """(D_t, S_t) by integrating dD/dt = A D and dS/dt = A S + S A' + diag(0, 2 G b)."""
    a = cld.beta * np.array([[0, 1 / cld.mass], [-1, -cld.damping / cld.mass]])
    kick = np.diag([0, 2 * cld.damping * cld.beta])

    def slope(_, flat):
        d, s = flat[:4].reshape(2, 2), flat[4:].reshape(2, 2)
        return np.concatenate([(a @ d).ravel(), (a @ s + s @ a.T + kick).ravel()])

    start = np.concatenate([np.eye(2).ravel(), np.diag([0, cld.gamma * cld.mass]).ravel()])
    end = solve_ivp(slope, (0, t), start, "DOP853", rtol=1e-13, atol=1e-16).y[:, -1]
    return end[:4].reshape(2, 2), end[4:].reshape(2, 2)


def mixture_posterior_mean(u, weights, means, variance, direction, covariance) -> float:
    """E[x_0 | u_t = u] of a one-dimensional mixture, from the joint Gaussian of (x_0, u_t).

    Args:
      u: (2,), position and velocity of one pixel.
      weights, means: (K,). variance: of each component.
      direction, covariance: a_t and S_t, so that u_t | x_0 ~ N(a_t x_0, S_t).
    """
    total = variance * np.outer(direction, direction) + covariance
    log_weights, estimates = [], []
    for weight, mean in zip(weights, means, strict=True):
        rest = u - direction * mean
        solved = np.linalg.solve(total, rest)
        log_weights.append(np.log(weight) - rest @ solved / 2)
        estimates.append(mean + variance * direction @ solved)
    log_weights = np.array(log_weights)
    responsibility = np.exp(log_weights - log_weights.max())
    return float(responsibility @ np.array(estimates) / responsibility.sum())


def packed(operator: Operator, image_shape) -> Operator:
    """The operator with a measurement that is one real array: complex ones as their real and imaginary parts."""
    y = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(operator, jnp.zeros(image_shape)))
    return stack(y, operator, GaussianNoise(1.0))[1]


def dense_matrix(function, image_shape) -> np.ndarray:
    """The matrix of a linear function of an image, from its unit vectors."""
    units = np.eye(int(np.prod(image_shape)), dtype=np.float32).reshape(-1, *image_shape)
    columns = np.asarray(jax.jit(lambda units: jax.lax.map(function, units))(units), np.float64)
    return columns.reshape(len(units), -1).T


def euler_maruyama_moments(cld, times, guidance, noise_std, y, variance) -> tuple[float, float]:
    """Mean and deviation of x after Algorithm 1 under the prior N(0, variance) and H = 1.

    The posterior mean and both forms of guidance are linear in (x, v), so the chain is
    Gaussian and its moments follow a recursion, which is taken here without sampling.
    """
    rate = cld.damping * cld.beta
    mean, covariance = np.zeros(2), np.diag([1, cld.mass])
    for i, (t, h) in enumerate(zip(times[:-1], times[:-1] - times[1:], strict=True)):
        a, precision = cld.data_direction(t), np.linalg.inv(cld.covariance(t))
        noise_variance = 1 / (a @ precision @ a)
        shrink = variance / (variance + noise_variance)
        estimate = shrink * noise_variance * (a @ precision)  # x_0hat = estimate . u
        spread = noise_std**2 + (shrink * noise_variance if guidance == "covariance" else 0)
        pull = estimate[1] / spread
        score = (precision @ a)[1] * estimate - precision[1] - pull * estimate
        step = np.eye(2) + h * np.array([[0, -cld.beta / cld.mass], [cld.beta, rate / cld.mass]])
        step[1] += 2 * rate * h * score
        kick = 2 * rate * h if i < len(times) - 2 else 0
        mean = step @ mean + np.array([0, 2 * rate * h * pull * y])
        covariance = step @ covariance @ step.T + np.diag([0, kick])
    return mean[0], covariance[0, 0] ** 0.5
