"""What an operator is, and the linear algebra that autodiff gives every one of them."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jax.tree_util import Partial

from cvsa_jax.noise import NoiseModel, as_noise
from cvsa_jax.types import as_partial

CG_ITERATIONS = 15
OPTIONAL = ("restrict", "measure", "expected", "project", "first_guess", "solve_gram", "blur_kernel", "picture")


class Operator:
    """A measurement x -> H(x) of one image (H, W, C). Subclasses are pytrees: `@flax.struct.dataclass`.

    Only `__call__` is needed. Each of the other methods has a default that is right for every operator, and a
    subclass that knows better overrides it; `offers` tells whether it does.
    """

    CLASSES: ClassVar[dict[str, type["Operator"]]] = {}

    def __init_subclass__(cls, **facts):
        super().__init_subclass__(**facts)
        Operator.CLASSES[stored_name(cls)] = cls

    def __call__(self, x: jax.Array, *kernel: jax.Array) -> Any:
        raise NotImplementedError

    def restrict(self, y: Any) -> Any:
        """y with the entries that carry no data (under a mask) set to zero."""
        return y

    def measure(self, x: jax.Array) -> Any:
        """What is measured in truth, where H(x) is a smooth stand-in for it."""
        return self(x)

    def expected(self, x: jax.Array, std: jax.Array) -> Any:
        """The mean of H(x + std e) over e ~ N(0, I), or a stand-in for it.

        Guidance takes it for H, with the uncertainty of x_0hat as std: where H is flat, as beyond a clip, H
        itself has no gradient.
        """
        return self(x)

    def project(self, x: jax.Array, y: Any) -> jax.Array | None:
        """An image near x that measures y; None if there is no such search."""
        return None

    def first_guess(self, y: Any, key: jax.Array) -> jax.Array | None:
        """An image to begin with; None if there is none."""
        return None

    def solve_gram(self, r: jax.Array, noise_variance, prior_variance) -> jax.Array | None:
        """(noise_variance I + prior_variance H H')^-1 r in closed form; None leaves it to conjugate gradients."""
        return None

    def blur_kernel(self) -> np.ndarray | None:
        """The kernel (h, w) of a blur that is the same everywhere; None of others."""
        return None

    def picture(self) -> np.ndarray | None:
        """The operator as an image in [-1, 1], (h, w, 1), for people; None if there is nothing to see."""
        kernel = self.blur_kernel()
        return None if kernel is None else kernel_picture(kernel)

    def offers(self, method: str) -> bool:
        """Whether the operator has its own form of a method in OPTIONAL."""
        return getattr(type(self), method) is not getattr(Operator, method)

    def store(self, keep: Callable) -> dict:
        """The fields for a file; `keep` turns each value into what JSON takes."""
        return {f.name: keep(getattr(self, f.name)) for f in dataclasses.fields(cast(Any, self))}

    @classmethod
    def load(cls, fields: dict) -> "Operator":
        """The operator of the fields that `store` gave, read back."""
        return cls(**fields)


def kernel_picture(kernel: np.ndarray) -> np.ndarray:
    """A kernel (h, w) as an image in [-1, 1], scaled to its maximum."""
    return 2 * kernel[..., None] / max(kernel.max(), 1e-12) - 1


def stored_name(cls: type) -> str:
    """How files call a class: ours by its name alone, others with their module."""
    return cls.__name__ if cls.__module__.startswith("cvsa_jax.") else f"{cls.__module__}:{cls.__qualname__}"


@flax.struct.dataclass
class Function(Operator):
    """A plain function of one image as an operator."""

    function: Partial

    def __call__(self, x: jax.Array) -> Any:
        return self.function(x)


def as_operator(operator: Callable) -> Operator:
    """An operator as it is; any other function of one image, wrapped.

    Raises:
      ValueError: if it is no function, or has methods of an operator that a wrapped function would lose.
    """
    if isinstance(operator, Operator):
        return operator
    if not callable(operator):
        raise ValueError(f"an operator must be a function of one image, got a {type(operator).__name__}")
    lost = [name for name in OPTIONAL if hasattr(operator, name)]
    if lost:
        raise ValueError(f"derive {type(operator).__name__} from cvsa_jax.Operator, so that its {lost[0]} is used")
    return Function(as_partial(operator))


def adjoint(operator: Callable, image_shape: tuple[int, ...]) -> Callable:
    """H' of a linear operator, by transposing its program: <H x, y> = <x, H' y>."""
    example = jax.ShapeDtypeStruct(image_shape, jnp.result_type(float))
    transpose = jax.linear_transpose(operator, example)
    return lambda y: transpose(y)[0]


def solve_gram(
    operator: Operator, forward: Callable, backward: Callable, r: jax.Array, noise_variance, prior_variance
) -> jax.Array:
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
    if operator.offers("solve_gram"):
        return cast(jax.Array, operator.solve_gram(r, noise_variance, prior_variance))

    def apply(w):
        return noise_variance * w + forward(prior_variance * backward(w))

    return cast(jax.Array, cg(apply, r, tol=1e-3, maxiter=CG_ITERATIONS)[0])


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


def simulate(key: jax.Array, operator: Callable, image: jax.Array, noise: float | NoiseModel) -> Any:
    """A measurement y of an image: `operator.measure(x)` with noise, in the working precision.

    A number is the deviation of Gaussian noise; of a complex entry, of its real and its imaginary part.
    Entries under a mask are zero.
    """
    operator, model = as_operator(operator), as_noise(noise)
    clean = operator.measure(jnp.asarray(image, jnp.result_type(float)))
    leaves, tree = jax.tree.flatten(clean)
    keys = [key] if len(leaves) == 1 else list(jax.random.split(key, len(leaves)))
    noisy = [_sample(model, k, leaf) for k, leaf in zip(keys, leaves, strict=True)]
    return operator.restrict(jax.tree.unflatten(tree, noisy))


def _sample(model: NoiseModel, key: jax.Array, clean: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(clean):
        return model.sample(key, clean)
    real, imaginary = jax.random.split(key)
    return jax.lax.complex(model.sample(real, clean.real), model.sample(imaginary, clean.imag))
