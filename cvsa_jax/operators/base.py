"""What operators share: the linear algebra that autodiff gives, and cropping."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from cvsa_jax.noise import NoiseModel, as_noise
from cvsa_jax.types import Operator

CG_ITERATIONS = 15


def adjoint(operator: Operator, image_shape: tuple[int, ...]) -> Callable:
    """H' of a linear operator, by transposing its program: <H x, y> = <x, H' y>."""
    example = jax.ShapeDtypeStruct(image_shape, jnp.result_type(float))
    transpose = jax.linear_transpose(operator, example)
    return lambda y: transpose(y)[0]


def restrict(operator: Operator, measurement: jax.Array) -> jax.Array:
    """The measurement with the entries that carry no data (under a mask) set to zero."""
    function = getattr(operator, "restrict", None)
    return measurement if function is None else function(measurement)


def solve_gram(operator: Operator, forward: Callable, backward: Callable, r, noise_variance, prior_variance):
    """w = (noise_variance I + prior_variance J J')^-1 r, J the operator's derivative.

    Uses the operator's own closed form if it has one, else CG_ITERATIONS of conjugate
    gradients from w = 0; the iterations of one image never depend on its neighbours.

    Args:
      operator: the operator.
      forward: p -> J p.
      backward: w -> J' w.
      r: of the measurement's shape.
      noise_variance: scalar > 0. prior_variance: the same; without a closed form also of x's shape.
    """
    exact = getattr(operator, "solve_gram", None)
    if exact is not None:
        return exact(r, noise_variance, prior_variance)

    def apply(w):
        return noise_variance * w + forward(prior_variance * backward(w))

    return cg(apply, r, tol=1e-3, maxiter=CG_ITERATIONS)[0]


def conjugate_gradients(
    apply: Callable, r: jax.Array, precondition: Callable, iterations: int, guess: jax.Array | None = None
) -> jax.Array:
    """An approximation to apply^-1 r by preconditioned conjugate gradients, unrolled.

    The first direction is `guess`, if there is one (a solution of a similar system), and its
    length is chosen like every other's, so that a bad guess does no harm. A direction along
    which `apply` is not positive (a network's Jacobian need not be) is not followed.

    Args:
      apply: symmetric positive, w -> A w.
      r: the right-hand side.
      precondition: symmetric positive, near A^-1.
      iterations: the fixed number of applications of A.
      guess: of r's shape.
    """
    tiny = jnp.finfo(r.dtype).tiny

    def follow(w, r, direction, slope):
        image = apply(direction)
        curvature = jnp.vdot(direction, image)
        length = jnp.where(curvature > tiny, slope / jnp.maximum(curvature, tiny), 0.0)
        return w + length * direction, r - length * image

    w = jnp.zeros_like(r)
    if guess is not None and iterations:
        w, r = follow(w, r, guess, jnp.vdot(r, guess))
        iterations -= 1
    direction = precondition(r)
    energy = jnp.vdot(r, direction)
    for _ in range(iterations):
        w, r = follow(w, r, direction, energy)
        z = precondition(r)
        new_energy = jnp.vdot(r, z)
        direction = z + new_energy / jnp.maximum(energy, tiny) * direction
        energy = new_energy
    return w


def simulate(key: jax.Array, operator: Operator, image: jax.Array, noise: float | NoiseModel) -> jax.Array:
    """A measurement y of an image: H(x), or `operator.measure(x)` where it has that, with noise.

    A number is the deviation of Gaussian noise. Entries under a mask are zero.
    """
    clean = getattr(operator, "measure", operator)(image)
    return restrict(operator, as_noise(noise).sample(key, clean))


def canvas_shape(height: int, width: int, stride: int, channels: int) -> tuple[int, int, int]:
    """The smallest shape that holds an image of height x width and whose sides are multiples of the stride."""
    return height + -height % stride, width + -width % stride, channels


@flax.struct.dataclass
class Identity:
    """H(x) = x: plain denoising."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + prior_variance)


@flax.struct.dataclass
class View:
    """H of a part of the canvas: its top left (height, width), its channels averaged if `grey`.

    The crop lets a network that needs multiples of its stride restore any size: the
    margin is filled by the prior and cut off afterwards. The average serves a grey
    measurement under a colour prior. With C the crop and G the average of c channels,
    C C' = I and G G' = I/c, so the operator's closed form of H H' stays valid.
    """

    operator: Operator
    height: int = flax.struct.field(pytree_node=False)
    width: int = flax.struct.field(pytree_node=False)
    grey: bool = flax.struct.field(pytree_node=False, default=False)

    def crop(self, x: jax.Array) -> jax.Array:
        """The part of the canvas that is looked at."""
        x = x[: self.height, : self.width]
        return x.mean(-1, keepdims=True) if self.grey else x

    def __call__(self, x: jax.Array, *kernel: jax.Array) -> jax.Array:
        return self.operator(self.crop(x), *kernel)

    def _project(self, project: Callable) -> Callable:
        def on_canvas(x, y):
            seen = self.crop(x)
            move = project(seen, y) - seen
            return x.at[: self.height, : self.width].add(move)  # of grey ones, each channel alike

        return on_canvas

    def __getattr__(self, name: str):
        """What the operator offers, for the canvas; what it does not offer, the view does not."""
        if name not in _SEEN:
            raise AttributeError(name)
        return _SEEN[name](self, getattr(self.operator, name))


_SEEN: dict[str, Callable[[View, Callable], Callable]] = {
    "restrict": lambda view, restrict: restrict,
    "first_guess": lambda view, guess: guess,
    "project": View._project,
    "expected": lambda view, expected: lambda x, std: expected(view.crop(x), std),
    "solve_gram": lambda view, exact: lambda r, noise, prior: exact(r, noise, prior / (3 if view.grey else 1)),
}
