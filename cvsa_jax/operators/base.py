"""What an operator is, and how it measures."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cvsa_jax.noise import GaussianNoise, NoiseModel, as_noise
from cvsa_jax.types import as_partial

OPTIONAL = ("restrict", "measure", "expected", "project", "first_guess", "reduced", "solve_gram", "near_gram",
            "blur_kernel", "picture")  # fmt: skip
CG_ITERATIONS = 15


class Operator:
    """A measurement x -> H(x) of one image (H, W, C). Subclasses are pytrees: `@flax.struct.dataclass`.

    Only `__call__` is needed. Each of the other methods has a default that is right for every operator, and a
    subclass that knows better overrides it; `offers` tells whether it does.
    """

    CLASSES: ClassVar[dict[str, type["Operator"]]] = {}

    @property
    def by_entry(self) -> bool:
        """Whether `solve_gram` also takes one noise_variance for each entry of y."""
        return False

    @property
    def gram_iterations(self) -> int:
        """How many iterations of conjugate gradients do for `solve_gram` where it has no closed form."""
        return CG_ITERATIONS

    def __init_subclass__(cls, **facts):
        super().__init_subclass__(**facts)
        Operator.CLASSES[stored_name(cls)] = cls

    def __call__(self, x: jax.Array, *kernel: jax.Array) -> Any:
        raise NotImplementedError

    def restrict(self, y: Any) -> Any:
        """y with the entries that carry no data (under a mask) set to zero, also where y is NaN there.

        What carries data is left as it is, so that doing it twice changes nothing.
        """
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

    def reduced(self, y: Any, noise: NoiseModel, factor: int) -> "tuple[Any, Operator, NoiseModel] | None":
        """What y tells of the image's means over squares of factor x factor pixels: a measurement of that smaller
        image (its sides rounded up), its operator and noise; None if it is not known."""
        return None

    def solve_gram(self, r: jax.Array, noise_variance, prior_variance) -> jax.Array | None:
        """(noise_variance I + prior_variance H H')^-1 r in closed form; None leaves it to conjugate gradients."""
        return None

    def padded(self, shape: tuple[int, ...], larger: tuple[int, ...]) -> "Operator | None":
        """The same measurement of an image (H, W, C) that lies top left in a larger one, of which no more is seen.

        It measures y with zeros right and below, which carry no data: under a prior of independent pixels its guidance
        inside is that of the image alone, up to rounding. None where what is seen would change.
        """
        return None

    def near_gram(self, r: jax.Array, noise_variance, variances: jax.Array) -> jax.Array | None:
        """Near (noise_variance I + H S H')^-1 r, a symmetric positive function of r; None if it is not known.

        S is diagonal in `spectral.forward`, with these variances, of r's height and width and the image's channels.
        Guidance begins each iteration of its inner solve with it.
        """
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


def measured_shapes(operator: Callable, image_shape: tuple[int, ...]) -> Any:
    """The shapes and kinds of H(x), as of `jax.eval_shape`, for an image of that shape in the working precision.

    Raises:
      ValueError: if H does not take such an image, or what it measures is not real or complex numbers.
    """
    image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.result_type(float))
    try:
        found = jax.eval_shape(operator, image)
    except Exception as error:  # H may be anyone's, and fails in as many ways
        raise ValueError(f"the operator does not take an image of shape {image.shape}: {error}") from error
    leaves = jax.tree.leaves(found)
    if not sum(leaf.size for leaf in leaves):
        raise ValueError(f"the operator measures nothing of an image {image.shape}")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise ValueError(f"the operator measures {leaf.dtype}, but real or complex numbers are needed")
    return found


def simulate(key: jax.Array, operator: Callable, image: jax.Array, noise: Any) -> Any:
    """A measurement y of an image: `operator.measure(x)` with noise, in the working precision.

    A number is the deviation of Gaussian noise; of a complex entry, of its real and its imaginary part. An array has
    one for each entry, a tree of numbers or arrays those of each part of y. Entries under a mask are zero.

    Raises:
      ValueError: on noise that is out of range, or does not go with the measurement.
    """
    operator, model = as_operator(operator), as_noise(noise)
    model.check()
    clean = operator.measure(jnp.asarray(image, jnp.result_type(float)))
    leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, clean))
    keys = [key] if len(leaves) == 1 else list(jax.random.split(key, len(leaves)))
    noises = parts_of(model, [jnp.shape(leaf) for leaf in leaves])
    noisy = [_sample(n, k, leaf) for n, k, leaf in zip(noises, keys, leaves, strict=True)]
    return operator.restrict(jax.tree.unflatten(tree, noisy))


def parts_of(noise: NoiseModel, shapes: Sequence[tuple[int, ...]]) -> list[NoiseModel]:
    """The noise of each part of a measurement: the same, or that of each part's own deviation.

    Args:
      noise: of the whole. shapes: of the parts.

    Raises:
      ValueError: on deviations that are not one, one for each part, or for each part one for each of its entries.
    """
    if not isinstance(noise, GaussianNoise):
        return [noise] * len(shapes)
    stds = jax.tree.leaves(noise.std)
    if jax.tree_util.all_leaves([noise.std]) and jnp.ndim(noise.std) == 0:
        stds = stds * len(shapes)
    if len(stds) != len(shapes):
        raise ValueError(f"noise_std has {len(stds)} parts, but the measurement has {len(shapes)}")
    for std, shape in zip(stds, shapes, strict=True):
        if not _spans(jnp.shape(std), tuple(shape)):
            raise ValueError(
                f"noise_std of shape {jnp.shape(std)} does not go with a measurement of shape {tuple(shape)}"
            )
    return [GaussianNoise(std) for std in stds]


def _spans(small: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(small, shape) == shape
    except ValueError:
        return False


def _sample(model: NoiseModel, key: jax.Array, clean: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(clean):
        return model.sample(key, clean)
    real, imaginary = jax.random.split(key)
    return jax.lax.complex(model.sample(real, clean.real), model.sample(imaginary, clean.imag))
