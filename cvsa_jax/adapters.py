"""Models of other kinds as denoisers: those that predict the noise, v, x_0 or the score, under any schedule.

A variance-preserving model sees x_t = sqrt(kept) x_0 + sqrt(1 - kept) e, a variance-exploding one x_0 + sigma e. A
denoiser's x = x_0 + sigma e is the first divided by sqrt(kept), at sigma = sqrt((1 - kept) / kept). `kept` is the
literature's alpha bar.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cvsa_jax.settings import nearest
from cvsa_jax.types import as_partial

KNOTS = 4096
# x_0 from (x, x_in, output, sigma, a): x_in = a x is what the model saw; a = sqrt(kept), or 1 of an exploding one.
PREDICTIONS: dict[str, Callable[..., jax.Array]] = {
    "epsilon": lambda x, x_in, output, sigma, a: x - sigma * output,
    "v": lambda x, x_in, output, sigma, a: a * x_in - sigma * a * output,
    "x0": lambda x, x_in, output, sigma, a: output,
    "score": lambda x, x_in, output, sigma, a: x + sigma**2 * a * output,
}


@flax.struct.dataclass
class Schedule:
    """What a model is told at each noise level: `preserving` and `exploding` make one.

    Args:
      levels: (K,) increasing log sigma. times: (K,) what the model is told there. None with a label.
      label: sigma -> what the model is told, in place of the table.
      preserves: whether the model sees sqrt(kept) x, of variance one, or x itself.
    """

    levels: jax.Array | None = None
    times: jax.Array | None = None
    label: Partial | None = None
    preserves: bool = flax.struct.field(pytree_node=False, default=True)

    def time(self, sigma: jax.Array | float) -> jax.Array:
        """t of a noise level, between the table's linearly in log sigma; beyond the table its first or last."""
        if self.label is not None:
            return jnp.asarray(self.label(sigma))
        assert self.levels is not None  # as there is no label
        assert self.times is not None
        return jnp.interp(jnp.log(sigma), self.levels, self.times)


def preserving(
    kept: np.ndarray | Callable | None = None,
    *,
    times: tuple[float, float] = (1e-5, 1.0),
    label: Callable | None = None,
) -> Schedule:
    """A variance-preserving schedule.

    Args:
      kept: (T,) alpha bar at t = 0, ..., T - 1, as `linear_kept` and `cosine_kept` give it; or a NumPy function of t.
      times: of a function, the first and the last t > 0 that the model knows.
      label: in place of `kept` the JAX function sigma -> t, where it is known in closed form.

    Raises:
      ValueError: unless one of them is given, and kept falls and is in (0, 1).
    """
    if label is not None and kept is None:
        return Schedule(label=as_partial(label), preserves=True)
    if kept is None or label is not None:
        raise ValueError("a schedule needs either alpha bar or a label")
    if callable(kept):
        t = np.union1d(np.geomspace(*times, KNOTS), np.linspace(*times, KNOTS))
        values = np.asarray(kept(t), np.float64)
    else:
        values = np.asarray(kept, np.float64)
        t = np.arange(values.size, dtype=np.float64)
    if not ((values > 0) & (values < 1)).all():
        raise ValueError("alpha bar must be above 0 and below 1 everywhere")
    return _table(((1 - values) / values) ** 0.5, t, True)


def exploding(
    sigmas: np.ndarray | None = None, times: np.ndarray | None = None, *, label: Callable | None = None
) -> Schedule:
    """A variance-exploding schedule.

    Args:
      sigmas: (T,) the noise levels, rising or falling.
      times: (T,) what the model is told at each; None is 0, ..., T - 1.
      label: in place of both the JAX function sigma -> t, as jnp.log, or lambda sigma: sigma.

    Raises:
      ValueError: unless one is given, and the levels are positive and rise or fall.
    """
    if label is not None and sigmas is None:
        return Schedule(label=as_partial(label), preserves=False)
    if sigmas is None or label is not None:
        raise ValueError("a schedule needs either its noise levels or a label")
    levels = np.asarray(sigmas, np.float64)
    if levels.ndim != 1 or levels.size < 2:
        raise ValueError(f"a schedule needs two or more noise levels in a row, got the shape {levels.shape}")
    told = np.arange(levels.size, dtype=np.float64) if times is None else np.asarray(times, np.float64)
    if levels.shape != told.shape:
        raise ValueError(f"there are {levels.size} noise levels, but times of the shape {told.shape}")
    return _table(levels[::-1], told[::-1], False) if levels[0] > levels[-1] else _table(levels, told, False)


def _table(sigmas: np.ndarray, times: np.ndarray, preserves: bool) -> Schedule:
    if not np.isfinite(times).all():
        raise ValueError("what a model is told must be finite at each noise level")
    if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas > 0).all() or not (np.diff(sigmas) > 0).all():
        raise ValueError("a schedule needs two or more noise levels, positive and each different from the one before")
    working = jnp.result_type(float)
    return Schedule(jnp.asarray(np.log(sigmas), working), jnp.asarray(times, working), preserves=preserves)


def linear_kept(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02, power: float = 1.0) -> np.ndarray:
    """(num_steps,) alpha bar of rates that rise linearly from `first` to `last`, float64.

    Args:
      power: the rates' power that is linear; 1/2 is the schedule that is called scaled linear.

    References: Ho, Jain, Abbeel (2020), arXiv:2006.11239, section 4.
    """
    return np.cumprod(1 - np.linspace(first**power, last**power, num_steps) ** (1 / power))


def cosine_kept(num_steps: int = 1000) -> np.ndarray:
    """(num_steps,) alpha bar cos^2((t + .008)/1.008 pi/2) at t = (i + 1)/num_steps, its rates at most .999, float64.

    References: Nichol, Dhariwal (2021), arXiv:2102.09672, equation 17.
    """
    curve = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - curve[1:] / curve[:-1], 0.999))


@flax.struct.dataclass
class Adapted:
    """A model as a denoiser (x, sigma) -> E[x_0 | x_0 + sigma e = x]; see `as_denoiser`."""

    model: Partial
    schedule: Schedule
    predicts: str = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)
    rounded: bool = flax.struct.field(pytree_node=False)

    def __call__(self, x: jax.Array, sigma: jax.Array | float) -> jax.Array:
        sigma = jnp.asarray(sigma, x.dtype)
        t = self.schedule.time(sigma).astype(x.dtype)
        t = jnp.round(t) if self.rounded else t
        a = 1 / jnp.sqrt(1 + sigma**2) if self.schedule.preserves else jnp.ones_like(sigma)
        x_in = a * x
        output = self.model(x_in[None], t[None])[0] if self.batched else self.model(x_in, t)
        output = output[..., : x.shape[-1]].astype(x.dtype)
        return PREDICTIONS[self.predicts](x, x_in, output, sigma, a)


def as_denoiser(
    model: Callable, schedule: Schedule, predicts: str = "epsilon", *, batched: bool = False, rounded: bool = False
) -> Adapted:
    """A model that predicts something else as the denoiser that `prior_from_denoiser` takes.

    With a = sqrt(kept), or 1 of an exploding schedule, the model is shown a x and the t of sigma, and
    x_0hat = x - sigma epsilon, a (a x) - sigma a v, x_0, or x + sigma^2 a score: the score is of what it is shown, and
    v = sqrt(kept) epsilon - sqrt(1 - kept) x_0.

    sigma may be anything; t is between the schedule's by interpolation in log sigma. Where sigma is above the
    schedule's highest level or below its lowest, t stays there, and the formulas keep sigma itself.

    Args:
      model: (x, t) -> prediction (H, W, C) for one image and a scalar t, floating; with parameters
        `jax.tree_util.Partial(apply, params)`. Channels beyond the image's, as learned variances, are dropped.
      schedule: `preserving(...)` or `exploding(...)`.
      predicts: one of PREDICTIONS.
      batched: whether the model wants (1, H, W, C) and t of shape (1,).
      rounded: whether t is rounded to a whole number, for a model that looks it up in a table. The model's own level
        then differs from sigma by up to half a step, which no scaling of x makes good: it sees a x at sigma, as EDM's
        wrapper of such models does. Leave it where the model takes fractions.

    Raises:
      ValueError: on another prediction, or v of an exploding schedule, which has none.

    References: Salimans, Ho (2022), arXiv:2202.00512, appendix D, for v.

    Example:
      prior_from_denoiser(as_denoiser(Partial(network.apply, params), preserving(linear_kept())), CLD())
    """
    if predicts not in PREDICTIONS:
        raise ValueError(f"predicts must be one of {', '.join(PREDICTIONS)}, got {predicts!r}"
                         f"{nearest(predicts, PREDICTIONS)}")  # fmt: skip
    if predicts == "v" and not schedule.preserves:
        raise ValueError("v is of a variance-preserving schedule; an exploding one has none")
    return Adapted(as_partial(model), schedule, predicts, batched, rounded)
