"""Every shipped operator keeps the laws, and one that breaks a law is caught by the law's name."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call
from test_operators import EVERY, draw

from cvsa_jax import Operator, check_operator
from cvsa_jax.operators import find_task

SHAPE = (16, 16, 2)


# One task of each kind of operator.
KINDS = {find_task(t).makes: t for t in EVERY if not find_task(t).blind}


@pytest.mark.parametrize("task", KINDS.values())
def test_shipped_operators_keep_the_laws(task):
    """The derivative of a clip at its kink, or of a rounding, is the business of test_operators.py."""
    shape = (16, 16, 3) if "jpeg" in task else SHAPE
    report = check_operator(draw(task, shape), shape, raises=False)
    assert set(report.failures) <= ({"gradient"} if "hdr" in task else set()), str(report)
    assert report.linear == find_task(task).linear


@pytest.mark.parametrize("task", ["ct", "sr2"])
def test_and_sharply_in_float64(task, float64):
    report = check_operator(jax.tree.map(lambda a: a.astype(float), draw(task, SHAPE)), SHAPE)
    assert report.passed
    assert report.linear


@jax.custom_vjp
def lopsided(x):
    return 3 * x


lopsided.defvjp(lambda x: (lopsided(x), None), lambda _, y: (2 * y,))


def misdirected(x):
    return linear_call(lambda _, x: 3 * x, lambda _, y: 2 * y, (), x)


@jax.custom_jvp
def rough(x):
    return x**3


rough.defjvp(lambda x, t: (rough(*x), 2 * x[0] ** 2 * t[0]))


@flax.struct.dataclass
class Sound(Operator):
    """Half of the pixels, twice as bright; a law is broken by another method."""

    seen: jax.Array

    def __call__(self, x):
        return 2 * self.seen * x

    def restrict(self, y):
        return self.seen * y

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + 4 * prior_variance * self.seen)


class WrongGram(Sound):
    """The gain forgotten."""

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + prior_variance * self.seen)


class WrongRestriction(Sound):
    """Not a projection."""

    def restrict(self, y):
        return self.seen * y / 2


class WrongExpectation(Sound):
    """Not H without uncertainty."""

    def expected(self, x, std):
        return self(x) + 0.1 + std


class NoGradient(Sound):
    """The root of a distance that is zero."""

    def __call__(self, x):
        return jnp.sqrt((x - x) ** 2) + self.seen * x


class Concrete(Sound):
    """Looks at values, as NumPy code does."""

    def __call__(self, x):
        return 2 * self.seen * x * (2 if bool(jnp.isnan(x).any()) else 1)


@flax.struct.dataclass
class Misshapen(Sound):
    """One of its methods gives something else than it stands for."""

    law: str = flax.struct.field(pytree_node=False, default="")
    fault: Callable = flax.struct.field(pytree_node=False, default=abs)

    def given(self, name, a):
        return self.fault(a) if self.law == name else a

    def measure(self, x):
        return self.given("measure", self(x))

    def expected(self, x, std):
        return self.given("expected", self(x))

    def restrict(self, y):
        return self.given("restrict", super().restrict(y))

    def project(self, x, y):
        return self.given("project", x)

    def solve_gram(self, r, noise_variance, prior_variance):
        return self.given("solve_gram", super().solve_gram(r, noise_variance, prior_variance))


SEEN = jnp.asarray(np.arange(256).reshape(16, 16, 1) % 2, jnp.float32)


def test_the_sound_one_passes():
    report = check_operator(Sound(SEEN), SHAPE)
    assert report.passed
    assert report.linear
    assert {"adjoint", "solve_gram", "restrict", "gradient", "jit", "vmap"} <= {check.name for check in report.checks}
    assert "ok   solve_gram" in str(report)


@pytest.mark.parametrize(
    ("operator", "law"),
    [
        (WrongGram(SEEN), "solve_gram"),
        (WrongRestriction(SEEN), "restrict"),
        (WrongExpectation(SEEN), "expected"),
        (NoGradient(SEEN), "gradient"),
        (NoGradient(SEEN), "adjoint"),
        (rough, "gradient"),
        (lambda x: x / (x > -2).astype(x.dtype).sum() * 0 + jnp.log(x), "finite"),
        (lambda x: x.astype(jnp.float16), "precision"),
    ],
)
def test_what_is_broken_is_named(operator, law):
    with pytest.raises(ValueError, match=f"does not keep .*{law}"):
        check_operator(operator, SHAPE)
    report = check_operator(operator, SHAPE, raises=False)
    assert law in report.failures
    assert f"FAIL {law}" in str(report)


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("measure", lambda a: a[:1]),  # which passes by broadcasting
        ("measure", lambda a: a.astype(int)),
        ("expected", lambda a: a[:4]),
        ("expected", lambda a: (a, a)),
        ("restrict", lambda a: a[:4]),
        ("restrict", lambda a: None),
        ("project", lambda a: a[:4]),
        ("solve_gram", lambda a: a[:4]),
        ("solve_gram", lambda a: a @ a),
    ],
)
def test_methods_of_another_shape_or_kind_are_named(method, fault):
    report = check_operator(Misshapen(SEEN, method, fault), SHAPE, raises=False)
    assert report.failures == (method,)
    assert f"FAIL {method}" in str(report)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda x: jnp.round(100 * x).astype(int), "measures int32, but real or complex numbers are needed"),
        (lambda x: (x, x > 0), "measures bool, but real or complex numbers are needed"),
        (lambda x: None, r"measures nothing of an image \(16, 16, 2\)"),
        (lambda x: x[:0], "measures nothing"),
        (lambda x: x.numpy(), r"does not take an image of shape \(16, 16, 2\)"),
    ],
)
def test_what_is_no_measurement_is_refused(operator, message):
    with pytest.raises(ValueError, match=message):
        check_operator(operator, SHAPE)


def test_a_number_is_a_measurement():
    assert not check_operator(lambda x: 1.0, SHAPE, raises=False).linear
    assert check_operator(lambda x: x.mean(), SHAPE).linear


def test_a_wrong_custom_adjoint_is_found():
    """Of `jax.custom_vjp`, from which guidance takes the forward derivative too, and of a transpose of one's own."""
    for operator, others in ((lopsided, {"gradient"}), (misdirected, {"vmap"})):
        report = check_operator(operator, SHAPE, raises=False)
        assert set(report.failures) == {"adjoint"} | others, str(report)
        assert report.linear


def test_what_cannot_be_traced_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"does not take an image of shape \(16, 16, 2\)"):
        check_operator(Concrete(SEEN), SHAPE)
    with pytest.raises(ValueError, match="does not take an image"):
        check_operator(Sound(SEEN[:3]), SHAPE)


def test_stand_ins_are_told_and_pass():
    """JPEG's smooth form is not what is measured; its distance is told."""
    report = check_operator(draw("jpeg", (16, 16, 3)), (16, 16, 3))
    told = next(check for check in report.checks if check.name == "measure")
    assert told.passed
    assert 0.001 < told.found < 1
