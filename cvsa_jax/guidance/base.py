"""What a form of guidance is given, and what it answers."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from cvsa_jax.operators.base import Operator


class Problem(NamedTuple):
    """What a form of guidance is given at one step.

    forward, backward: p -> J p and w -> J' w of the operator's derivative J at x_0hat.
    pull: w -> C' w. noise_variance: sigma^2, a number or of y's shape. error_variance: r_t^2, the mean variance of
    x_0 given u_t. error_covariance: that covariance as a function, None if it is white.
    image_shape: of x_0. dual: the last step's w, None at a form that does not iterate.
    data: d_t. mass: M. stiffness: 2 G b h d_t^2, so that an explicit step by p of size C moves
    x_0hat by stiffness C p. estimate: x_0hat. measurement: y. error_gain: n -> the function
    S (S + n I)^-1 of an image, S the error_covariance; None if it is white. precision: 1 / sigma^2 of each entry,
    where it differs and does not depend on H(x); else None.
    """

    operator: Operator
    forward: Callable
    backward: Callable
    residual: jax.Array
    pull: Callable
    noise_variance: jax.Array | float
    error_variance: jax.Array
    error_covariance: Callable | None
    image_shape: tuple[int, ...]
    dual: jax.Array | None
    data: jax.Array
    stiffness: jax.Array
    mass: float
    estimate: jax.Array
    measurement: jax.Array
    error_gain: Callable | None
    precision: jax.Array | float | None = None


class Solution(NamedTuple):
    """p = a C' H' w, and the w that it comes from, (sigma^2 I + H C H')^-1 r for some C.

    log_determinant: of that matrix, up to a number that all u_t of one time share; None
    where it is not known.
    """

    correction: jax.Array
    dual: jax.Array
    log_determinant: jax.Array | float | None = 0.0


class Form(NamedTuple):
    """A form of guidance.

    solve: Problem -> Solution. iterates: whether it solves by iteration, and so may begin at the last dual.
    """

    solve: Callable[[Problem], Solution]
    iterates: bool = False

    def __call__(self, problem: Problem) -> Solution:
        """The form's solution."""
        return self.solve(problem)
