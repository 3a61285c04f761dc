"""Critically-damped Langevin diffusion (CLD): exact tables in float64 NumPy.

The state is u = (x, v), position and velocity, each of the image's shape. Every
matrix here is 2x2 and acts on (x, v) for each pixel alike.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from cvsa_jax.settings import Settings, require_known, setting

SMALLEST_TIME = 1e-3
SMALLEST_NOISE = 1e-15  # float32 holds its square, and the square's inverse


@dataclasses.dataclass(frozen=True)
class CLD(Settings):
    """The diffusion dx = b/M v dt, dv = -b x dt - G b/M v dt + sqrt(2 G b) dw.

    Args:
      mass: M > 0, how strongly position and velocity are coupled.
      friction: G > 0; None is critical damping, G = 2 sqrt(M). Smaller values are
        under-damped, larger ones over-damped.
      beta: b > 0, the rate, so that time runs in [0, 1].
      gamma: > 0; the initial velocity is N(0, gamma M).

    Raises:
      ValueError: if a constant is not positive and finite.

    References: Dockhorn, Vahdat, Kreis (2021), arXiv:2112.07068.

    Deviation: the CVSA paper prints "+" for the friction in (1); that diffusion diverges.
    """

    mass: float = setting(0.25, "M, how strongly position and velocity are coupled.", above=0)
    friction: float | None = setting(
        None, "Gamma, how strongly the velocity is damped.", above=0, otherwise="2 sqrt(M), critical damping"
    )
    beta: float = setting(4.0, "The diffusion's rate.", above=0)
    gamma: float = setting(0.04, "The initial velocity has the variance gamma * M.", above=0)

    def __post_init__(self):
        super().__post_init__()
        require_known(self, "mass", "friction", "beta", "gamma")

    @property
    def damping(self) -> float:
        """The friction G in use."""
        return 2.0 * self.mass**0.5 if self.friction is None else self.friction

    @property
    def stationary_covariance(self) -> np.ndarray:
        """diag(1, M), the covariance of (x, v) as t grows."""
        return np.diag([1.0, self.mass])

    def transition(self, t) -> np.ndarray:
        """D_t = exp(A t), A = b [[0, 1/M], [-1, -G/M]]; shape t.shape + (2, 2).

        With A = -r I + N and N^2 = q I (q < 0 under-damped, 0 critical, > 0
        over-damped), D_t = exp(-r t) (cosh(sqrt(q) t) I + sinh(sqrt(q) t)/sqrt(q) N).
        """
        t = np.asarray(t, np.float64)[..., None, None]
        rate = self.beta * self.damping / (2 * self.mass)
        q = self.beta**2 * (self.damping**2 / (4 * self.mass**2) - 1 / self.mass)
        root = np.sqrt(abs(q))
        if root < 1e-6 * self.beta:  # critical up to rounding
            even, odd = np.exp(-rate * t), t * np.exp(-rate * t)
        elif q < 0:
            even = np.exp(-rate * t) * np.cos(root * t)
            odd = np.exp(-rate * t) * np.sin(root * t) / root
        else:  # exponents are joined first, so that neither overflows
            up, down = np.exp((root - rate) * t), np.exp(-(root + rate) * t)
            even, odd = (up + down) / 2, (up - down) / (2 * root)
        shift = np.array([[rate, self.beta / self.mass], [-self.beta, -rate]])
        return even * np.eye(2) + odd * shift

    def process_covariance(self, t) -> np.ndarray:
        """Covariance of u_t given u_0: int_0^t D_s diag(0, 2 G b) D_s' ds.

        The closed form diag(1, M) - D_t diag(1, M) D_t' loses all its digits for short
        times (the xx entry grows like t^3), so those use Gauss-Legendre quadrature,
        which is exact to rounding there.
        """
        t = np.asarray(t, np.float64)
        d = self.transition(t)
        stationary = self.stationary_covariance
        closed = stationary - d @ stationary @ np.swapaxes(d, -1, -2)
        nodes, weights = np.polynomial.legendre.leggauss(24)
        kick = self.transition(t[..., None] * (nodes + 1) / 2)[..., :, 1]
        outer = kick[..., :, None] * kick[..., None, :]
        quadrature = np.einsum("n,...nij->...ij", weights / 2, outer)
        quadrature = quadrature * (t * 2 * self.damping * self.beta)[..., None, None]
        rate = self.beta * max(self.damping / self.mass, self.mass**-0.5)
        return np.where((t * rate < 2.0)[..., None, None], quadrature, closed)

    def covariance(self, t) -> np.ndarray:
        """S_t, the covariance of u_t given x_0: D_t diag(0, gamma M) D_t' + process part.

        Equal to S_inf + D_t (S_0 - S_inf) D_t'. The initial velocity is integrated out.
        Deviation: (11) of the paper has two misprints and holds for G^2 = 4M alone.
        """
        kick = self.transition(t)[..., :, 1]
        initial = self.gamma * self.mass * kick[..., :, None] * kick[..., None, :]
        return initial + self.process_covariance(t)

    def data_direction(self, t) -> np.ndarray:
        """a_t = D_t (1, 0)', so that E[u_t | x_0] = a_t x_0; shape t.shape + (2,)."""
        return self.transition(t)[..., :, 0]

    def precision(self, t) -> np.ndarray:
        """The inverse of S_t, for t > 0.

        Raises:
          ValueError: at a time so short that S_t is singular to double precision.
        """
        try:
            return np.linalg.inv(self.covariance(t))
        except np.linalg.LinAlgError as error:
            raise ValueError("the time is too short for double precision: change t_end or the diffusion") from error

    def data_coefficient(self, t) -> np.ndarray:
        """d_t = [S_t^-1 a_t]_v, which is negative: grad_v log p(u_t|x_0) = d_t x_0 + ..."""
        return np.einsum("...i,...i->...", self.precision(t)[..., 1, :], self.data_direction(t))

    def effective_noise(self, t) -> np.ndarray:
        """s_eff = (a_t' S_t^-1 a_t)^-1/2: u_t tells of x_0 what x_0 + s_eff e tells.

        Increasing in t for every friction, since u_t is a Markov process.
        """
        a = self.data_direction(t)
        return np.einsum("...i,...ij,...j->...", a, self.precision(t), a) ** -0.5

    def time_of_noise(self, noise) -> np.ndarray:
        """The time t at which effective_noise(t) = noise, by bisection in log t.

        Raises:
          ValueError: on a noise below SMALLEST_NOISE.
        """
        noise = np.asarray(noise, np.float64)
        if (noise < SMALLEST_NOISE).any():
            raise ValueError(f"a noise of {noise.min():g} is below {SMALLEST_NOISE:g} and cannot be computed with")
        low, high = np.full(noise.shape, -16.0), np.full(noise.shape, 3.0)
        while (above := self.effective_noise(np.exp(low)) > noise).any():  # no lower: S_t is soon singular
            low = np.where(above, low - 1, low)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.effective_noise(np.exp(middle)) > noise
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.exp((low + high) / 2)


def _uniform(cld: CLD, fraction, start, end):
    return start + fraction * (end - start)


def _quadratic(cld: CLD, fraction, start, end):
    return (start**0.5 + fraction * (end**0.5 - start**0.5)) ** 2


def _logarithmic(cld: CLD, fraction, start, end):
    high, low = np.log(cld.effective_noise(np.array([start, end])))
    return cld.time_of_noise(np.exp(high + fraction * (low - high)))


def _edm(cld: CLD, fraction, start, end, rho: float = 7.0):
    high, low = cld.effective_noise(np.array([start, end])) ** (1 / rho)
    return cld.time_of_noise((high + fraction * (low - high)) ** rho)


TIME_GRIDS: dict[str, Callable] = {
    "uniform": _uniform,
    "quadratic": _quadratic,
    "logarithmic": _logarithmic,
    "edm": _edm,
}


def time_grid(name: str, num_steps: int, cld: CLD, t_start: float = 1.0, t_end: float = SMALLEST_TIME) -> np.ndarray:
    """Times t_start = t_0 > ... > t_{N-1} = t_end, then 0: N steps, N network evaluations.

    Args:
      name: 'uniform' (the paper's: t = 1, 1 - 1/N, ...), 'quadratic' (uniform in
        sqrt t), 'logarithmic' (uniform in log s_eff) or 'edm' (uniform in
        s_eff^(1/7), Karras et al. 2022, equation 5).
      num_steps: N >= 2.
      cld: the diffusion.
      t_start, t_end: 0 < t_end < t_start <= 1.

    Returns: float64 array of N + 1 times.

    Raises:
      ValueError: on an unknown name, a range that is empty, or a diffusion whose tables double precision cannot
        hold there, or in which it does not tell the times apart.
    """
    if name not in TIME_GRIDS:
        raise ValueError(f"time_grid must be one of {', '.join(TIME_GRIDS)}, got {name!r}")
    if num_steps < 2:
        raise ValueError(f"num_steps must be at least 2, got {num_steps}")
    if not 0 < t_end < t_start <= 1:
        raise ValueError(f"need 0 < t_end < t_start <= 1, got {t_end} and {t_start}")
    with np.errstate(all="ignore"):
        noise = cld.effective_noise(np.array([t_start, t_end]))
    if not (np.isfinite(noise).all() and noise[1] > SMALLEST_NOISE):
        name, level, end = ("t_start", noise[0], t_start) if noise[1] > SMALLEST_NOISE else ("t_end", noise[1], t_end)
        raise ValueError(
            f"at {name}={end:g} the diffusion has the effective noise {level:.2g}, which cannot be computed with; "
            "change it, beta or mass"
        )
    fraction = np.arange(num_steps) / (num_steps - 1)
    times = TIME_GRIDS[name](cld, fraction, t_start, t_end)
    times[0], times[-1] = t_start, t_end  # exact, whatever the inverse rounds to
    if not (np.diff(times) < 0).all():
        raise ValueError(f"{num_steps} times from {t_start:g} to {t_end:g} are not told apart: take fewer steps")
    return np.append(times, 0.0)
