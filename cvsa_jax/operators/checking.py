"""Whether an operator keeps the laws that guidance and the samplers rely on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators.algebra import linearised
from cvsa_jax.operators.base import Operator, as_operator, measured_shapes, simulate
from cvsa_jax.operators.stacked import stack

# (n, p). A closed form may be an approximation, as that of a blur whose border is mirrored.
GRAM_LEVELS, GRAM_STEPS, GRAM_TOLERANCE = ((0.01, 0.01), (0.0025, 0.01), (1.0, 0.1)), 300, 0.05
DRAWS = 256
INFORMATION = float("inf")


class Check(NamedTuple):
    """One law: `found` is the size of what departs from it, relative to what it is compared with.

    passed: found is finite and at most `tolerance`, which is infinite where a departure is allowed and only told.
    """

    name: str
    found: float
    tolerance: float
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether the law holds."""
        return bool(np.isfinite(self.found) and self.found <= self.tolerance)


class Report(NamedTuple):
    """What `check_operator` found: `str` of it is a table, a line for each check.

    measurement: the shape and the kind of what is measured, in words. linear: whether H is linear.
    """

    measurement: str
    linear: bool
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every law holds."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """The names of the laws that do not hold."""
        return tuple(check.name for check in self.checks if not check.passed)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"{'linear' if self.linear else 'nonlinear'}, measures {self.measurement}"]
        for check in self.checks:
            limit = "" if check.tolerance == INFORMATION else f" (at most {check.tolerance:.0e})"
            remark = f"; {check.remark}" if check.remark else ""
            lines.append(
                f"{'ok  ' if check.passed else 'FAIL'} {check.name.ljust(width)} {check.found:.1e}{limit}{remark}"
            )
        return "\n".join(lines)


def check_operator(
    operator: Callable, image_shape: tuple[int, int, int], *, key: jax.Array | None = None, noise_std: float = 0.05,
    raises: bool = True,
) -> Report:  # fmt: skip
    """Test an operator's own methods against their definitions, at a random image in [-.9, .9].

    finite: H(x) and its noisy measurement are. precision: they are in the working precision.
    derivative: guidance can have J, the forward derivative, and J'; of a `jax.custom_vjp`, J from J'.
    adjoint: <J d, w> = <d, J' w>; of a linear H with H d in place of J d.
    gradient: J d is the central difference of H along d; in float32 coarse, in float64 sharp.
    linear: H(2 x - 3 d) = 2 H(x) - 3 H(d); decides `linear`, and never fails.
    solve_gram: its own closed form of (n I + p H H')^-1 r, under jit and at n, p in GRAM_LEVELS, is what conjugate
    gradients find; only of a linear H.
    restrict: twice is once, and H(x) is not changed by it.
    measure: its distance from H, where it is another function; never fails unless it is not finite.
    Each method, and `project`, gives the shapes and kinds of what it stands for.
    expected: at std 0 it is H. mean: its distance from the mean of H over DRAWS draws at std .3, a stand-in is
    allowed, so that it never fails unless it is not finite.
    jit, vmap: under both, H is what it is without.

    Args:
      operator: an `Operator`, or any JAX function of one image.
      image_shape: (H, W, C) of the images.
      key: of the random images; None is a fixed one. noise_std: of the simulated measurement.
      raises: whether a law that does not hold raises.

    Returns: the report, whose `str` is a table.

    Raises:
      ValueError: names the laws that do not hold, with the table; or, always, as `measured_shapes` does.
    """
    whole, key = as_operator(operator), jax.random.key(0) if key is None else key
    keys = iter(jax.random.split(key, 8))
    working = jnp.result_type(float)
    x = jax.random.uniform(next(keys), image_shape, working, -0.9, 0.9)
    d = jax.random.normal(next(keys), image_shape, working)
    measured = measured_shapes(whole, image_shape)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), measured)
    h: Operator = stack(zeros, whole, GaussianNoise(noise_std))[1]
    run = jax.jit(lambda x: h(x))
    y, sharp = jnp.asarray(h(x)), working == jnp.float64
    unfit = _unfit(whole, h, x, zeros, y)
    noisy = y if {"measure", "restrict"} & unfit.keys() else simulate(next(keys), h, x, noise_std)
    w = jax.random.normal(next(keys), y.shape, y.dtype)
    size = 1e-6 if sharp else 1e-2
    difference = (run(x + size * d) - run(x - size * d)) / (2 * size)
    change, back, why = _derivative(h, x, d, w)
    off_line = _relative(run(2 * x - 3 * d), 2 * y - 3 * run(d))
    linear = off_line <= (1e-9 if sharp else 1e-4)
    exact, smooth = (1e-9, 1e-5) if sharp else (1e-4, 1e-4 if linear else 0.1)
    found = [
        Check("finite", 0.0 if _finite(y) and _finite(noisy) else float("nan"), 0.0),
        Check("precision", 0.0 if y.dtype == working else 1.0, 0.0, "" if y.dtype == working else f"H is {y.dtype}"),
        Check("linear", off_line, INFORMATION, "" if linear else "it is not"),
        Check("derivative", float("nan") if why else 0.0, 0.0, why),
        Check("adjoint", _adjoint_error(run(d) if linear else change, w, d, back), exact),
        Check("gradient", _relative(change, difference), smooth),
    ]
    if linear and h.offers("solve_gram") and not {"solve_gram", "restrict"} & unfit.keys():
        found += _gram_checks(h, x, next(keys))
    if "restrict" not in unfit:
        kept = h.restrict(w)
        found += [Check("restrict", max(_relative(h.restrict(kept), kept), _relative(h.restrict(y), y)), exact)]
    if h.offers("measure") and "measure" not in unfit:
        found += [Check("measure", _relative(h.measure(x), y), INFORMATION, "its distance from H")]
    if h.offers("expected") and "expected" not in unfit:
        draws = x + 0.3 * jax.random.normal(next(keys), (DRAWS, *image_shape), working)
        mean = jax.lax.map(h, draws).mean(0)
        found += [
            Check("expected", _relative(h.expected(x, jnp.zeros((), working)), y), 10 * exact),
            Check("mean", _relative(h.expected(x, jnp.asarray(0.3, working)), mean), INFORMATION,
                  f"from the mean over {DRAWS} draws"),
        ]  # fmt: skip
    found += list(unfit.values())
    found += [Check("jit", _relative(run(x), y), exact), _vmapped(h, jnp.stack([x, d]), jnp.stack([y, run(d)]), exact)]
    report = Report(", ".join(map(_words, jax.tree.leaves(measured))), linear, tuple(found))
    if raises and not report.passed:
        raise ValueError(f"the operator does not keep {', '.join(report.failures)}\n{report}")
    return report


def _unfit(whole: Operator, h: Operator, x: jax.Array, measured: Any, y: jax.Array) -> dict[str, Check]:
    """A failed check of each method that cannot be had, or not in the shape and kind of what it stands for.

    measured: as H(x) is, y: the same as one vector, which h measures.
    """
    number, found = jnp.zeros((), x.dtype), {}
    for name, owner, arguments, wanted in (
        ("measure", whole, (x,), measured),
        ("expected", whole, (x, number), measured),
        ("restrict", whole, (measured,), measured),
        ("project", whole, (x, measured), x),
        ("solve_gram", h, (y, number, number), y),
    ):
        try:
            given = jax.eval_shape(getattr(owner, name), *arguments)
        except Exception as error:  # it may be anyone's
            found[name] = Check(name, float("nan"), 0.0, _line(error))
            continue
        has, needs = (jax.tree.map(_words, tree) for tree in (given, wanted))
        if has != needs and not (given is None and name in ("project", "solve_gram")):
            found[name] = Check(name, float("nan"), 0.0, f"it gives {has}, not {needs}")
    return found


def _gram_checks(h: Operator, x: jax.Array, key: jax.Array) -> list[Check]:
    """The largest error of the closed form over GRAM_LEVELS, for r that H can measure."""
    r, transpose = h.restrict(jax.random.normal(key, h(x).shape, x.dtype)), jax.vjp(h, x)[1]

    @jax.jit
    def error(n, p):
        w = h.solve_gram(r, n, p)
        if w is None:
            return None
        exact = cg(lambda w: n * w + p * h(transpose(w)[0]), r, tol=1e-6, maxiter=GRAM_STEPS)[0]
        return jnp.linalg.norm(w - exact) / jnp.linalg.norm(exact)

    found = [error(jnp.asarray(n, x.dtype), jnp.asarray(p, x.dtype)) for n, p in GRAM_LEVELS]
    return [] if any(one is None for one in found) else [Check("solve_gram", float(np.max(found)), GRAM_TOLERANCE)]


def _derivative(h: Callable, x: jax.Array, d: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array, str]:
    """(J d, J' w, what is wrong) as guidance has them, or as far as they can be had otherwise."""
    try:
        _, forward, backward = linearised(h, x)
        return forward(d), backward(w), ""
    except (TypeError, ValueError, NotImplementedError) as error:
        why = _line(error)
    nothing = jnp.full_like(w, jnp.nan), jnp.full_like(x, jnp.nan), why
    try:
        return nothing[0], jax.vjp(h, x)[1](w)[0], why
    except (TypeError, ValueError, NotImplementedError):
        return nothing


def _vmapped(h: Callable, both: jax.Array, wanted: jax.Array, tolerance: float) -> Check:
    try:
        return Check("vmap", _relative(jax.jit(jax.vmap(h))(both), wanted), tolerance)
    except (TypeError, ValueError, NotImplementedError) as error:
        return Check("vmap", float("nan"), tolerance, _line(error))


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _adjoint_error(change: jax.Array, w: jax.Array, d: jax.Array, back: jax.Array) -> float:
    """|<J d, w> - <d, J' w>| over the size that either product could have."""
    left, right = (np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in ((change, w), (d, back)))
    return float(abs(left - right) / max(_size(change) * _size(w), _size(d) * _size(back), 1e-30))


def _relative(found: jax.Array, wanted: jax.Array) -> float:
    return _size(found - wanted) / max(_size(wanted), 1e-12)


def _size(a: jax.Array) -> float:
    return float(np.linalg.norm(np.asarray(a, np.float64)))


def _finite(a: Any) -> bool:
    return bool(jnp.isfinite(a).all())


def _words(leaf: Any) -> str:
    return f"{leaf.dtype} {tuple(leaf.shape)}"
