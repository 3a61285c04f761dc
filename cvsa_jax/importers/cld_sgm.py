"""Weights of CLD-SGM, a network that was trained on the diffusion itself, as a prior.

A checkpoint holds the network's layers in the order in which they run, and the moving averages of its parameters as a
list in that order. The layers show the structure; the diffusion is not in the file.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.importers.cld_arrays import Layer, layers_of, parameters
from cvsa_jax.importers.source import Imported, Source
from cvsa_jax.models.edm_blocks import decoder, encoder
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.cld_sgm import DEFAULTS, mean_rate
from cvsa_jax.settings import Settings, setting, text_of

SUMMARY = "CLD-SGM, a checkpoint (.pth) of a velocity network with its moving averages"
WEIGHTS = ("ema", "model")
ATTENTION_SIDE, USUAL_SIDE = 16, 32  # where every published network attends; of an image without attention
POST_PAPER = {"beta0": 0.1, "beta1": 6.9}  # of the network for CelebA-HQ with four blocks, trained after the paper
POSITIONAL_EPS = 1e-6  # of the networks for CelebA-HQ


@dataclasses.dataclass(frozen=True)
class Options(Settings):
    """What the file does not tell; the names are those of the official settings."""

    beta0: float | None = setting(
        None, "The diffusion's rate is beta0 + beta1 t.", low=0, otherwise="4; 0.1 of CelebA-HQ with four blocks"
    )
    beta1: float | None = setting(
        None, "The slope of the diffusion's rate.", otherwise="0; 6.9 of CelebA-HQ with four blocks"
    )
    m_inv: float = setting(4.0, "One over the mass M.", above=0)
    gamma: float = setting(0.04, "The initial velocity has the variance gamma / m_inv.", above=0)
    numerical_eps: float | None = setting(
        None, "What training added to the variances.", low=0, otherwise=f"1e-9, or {POSITIONAL_EPS:g} of CelebA-HQ"
    )
    mixed_score: bool = setting(True, "Whether the network predicts what the score of a Gaussian leaves.")
    use_fir: bool | None = setting(
        None, "Whether the filter (1, 3, 3, 1) resamples, or the mean and the nearest pixel.",
        otherwise="as the file shows, else whether it has a Fourier embedding",
    )  # fmt: skip
    skip_rescale: bool = setting(True, "Whether sums are divided by sqrt(2).")
    image_size: int | None = setting(
        None, "Side of the training images.", "pixels", low=1, otherwise="that with attention at 16, or 32"
    )
    weights: str = setting(WEIGHTS[0], "The moving averages, or the last step's weights.", choices=WEIGHTS)


class Structure(NamedTuple):
    """What the layers show.

    options: of the network. places: our name of each layer. channels: of the image. fir: whether the pyramid is
    filtered; None if there is none or it does not show.
    """

    options: dict[str, Any]
    places: list[tuple[str, ...]]
    channels: int
    fir: bool | None


# What the encoder's kind is, and whether the filter resamples, by the layers that add to the pyramid of the input.
PYRAMIDS: dict[str, tuple[str, bool | None]] = {
    "": ("standard", None), "filtered": ("residual", True), "strided": ("strided", False), "added": ("skip", None)
}  # fmt: skip


def matches(source: Source) -> bool:
    """Whether a file is of this format."""
    tree = source.tree
    model = tree.get("model", tree) if isinstance(tree, Mapping) else None
    return isinstance(model, Mapping) and any("all_modules.1." in str(key) for key in model)


def convert(source: Source, options: Options) -> Imported:
    """The file as a prior's description and its parameters.

    Raises:
      ValueError: if it is another network, or an option contradicts it.

    References: Dockhorn, Vahdat, Kreis (2021), arXiv:2112.07068, appendix E; models/ncsnpp.py of nv-tlabs/CLD-SGM.
    """
    layers = layers_of(_arrays(source.tree, options.weights))
    found = _structure(layers)
    fourier = found.options["embedding"] == "log_fourier"
    constants = _constants(options, fourier, found.options["num_blocks"])
    if options.use_fir is not None and found.fir not in (None, options.use_fir):
        raise ValueError(f"use_fir is {options.use_fir}, but the pyramid in the file says {found.fir}")
    fir = next(known for known in (options.use_fir, found.fir, fourier) if known is not None)
    network = found.options | {
        "taps": (1, 3, 3, 1) if fir else (1, 1), "skip_scale": 0.5**0.5 if options.skip_rescale else 1.0,
        "out_channels": found.channels,
    }  # fmt: skip
    side = ATTENTION_SIDE << found.options["attention"][0] if found.options["attention"] else USUAL_SIDE
    spec = NetworkSpec(
        parameterization="cld_sgm", image_channels=found.channels, image_size=options.image_size or side,
        model="song_unet", options=network, constants=constants,
        cld=CLD(1 / options.m_inv, None, mean_rate(constants["beta0"], constants["beta1"]), options.gamma),
    )  # fmt: skip
    taken = constants | {"image_size": side} | ({} if found.fir is not None else {"use_fir": fir})
    guessed = [f"{name}={text_of(v)}" for name, v in taken.items() if getattr(options, name, "") is None]
    notes = [f"not in the file, taken as published of its kind: {','.join(guessed)} (--options)"] if guessed else []
    return Imported(spec, parameters(spec, layers, found.places), notes)


def _constants(options: Options, fourier: bool, blocks: int) -> dict[str, Any]:
    constants = {name: DEFAULTS[name] for name in ("beta0", "beta1", "numerical_eps")}
    constants |= {} if fourier else {"numerical_eps": POSITIONAL_EPS}
    if not fourier and blocks == 4 and options.beta0 is options.beta1 is None:
        constants |= POST_PAPER
    constants |= {name: given for name in constants if (given := getattr(options, name)) is not None}
    beta0, beta1 = constants["beta0"], constants["beta1"]
    if beta0 + min(beta1, 0) < 0 or mean_rate(beta0, beta1) <= 0:
        raise ValueError(f"the rate beta0 + beta1 t must be positive between 0 and 1, got beta0 {beta0:g} and beta1 "
                         f"{beta1:g}")  # fmt: skip
    return constants | {"mixed_score": options.mixed_score}


def _arrays(tree: Mapping[str, Any], weights: str) -> dict[str, np.ndarray]:
    """The arrays of the network by name, the averages in place of those that were trained."""
    model = tree.get("model", tree)
    state = {str(key): np.asarray(value) for key, value in model.items()}
    if weights == "model":
        return state
    record = tree.get("ema")
    averages = record.get("shadow_params") if isinstance(record, Mapping) else None
    if not isinstance(averages, list | tuple):
        raise ValueError("the file has no moving averages (ema.shadow_params): the others are --options=weights=model")
    trained = [name for name in state if not name.endswith("all_modules.0.W")]  # these frequencies are not
    if len(averages) != len(trained):
        raise ValueError(f"the file has {len(averages)} moving averages of {len(trained)} parameters")
    for name, array in zip(trained, averages, strict=True):
        if np.shape(array) != state[name].shape:
            raise ValueError(f"the average of {name} is {np.shape(array)}, the parameter {state[name].shape}")
        state[name] = np.asarray(array)
    return state


def _structure(layers: list[Layer]) -> Structure:
    kinds = [layer.kind for layer in layers]
    start = 1 if kinds[:1] == ["waves"] else 0
    if kinds[start : start + 3] != ["dense", "dense", "convolution"] or kinds[-1] != "convolution":
        raise ValueError("the layers must begin with two dense ones, after the frequencies if there are any, and a "
                         f"convolution, and end with one; they are {', '.join(kinds[:4])} ... {kinds[-1]}")  # fmt: skip
    (base, inputs, *_), outputs = layers[start + 2].shape, layers[-1].shape[0]
    if inputs != 2 * outputs:
        raise ValueError(f"the network takes {inputs} channels and gives {outputs}: a velocity network takes twice "
                         "what it gives, the position and the velocity")  # fmt: skip
    blocks = [layer for layer in layers if layer.kind in ("block", "resampling")]
    # A level has n blocks down and n + 1 up, the samplings between the levels and two in the middle make 3 L.
    sampling = next((i for i, layer in enumerate(blocks) if layer.kind == "resampling"), None)
    count = sampling or (len(blocks) - 3) // 2
    levels = len(blocks) // (2 * count + 3) if count > 0 else 0
    first = blocks[: levels * (count + 1) : count + 1]  # of each level
    pyramid = next((kind for kind in kinds if kind in PYRAMIDS), "")
    options = {
        "model_channels": base, "channel_mult": tuple(layer.shape[0] // base for layer in first), "num_blocks": count,
        "attention": tuple(i for i, layer in enumerate(first) if kinds[layer.number + 1] == "attention"),
        "channel_mult_emb": layers[start].shape[0] // base, "channel_mult_noise": layers[start].shape[1] // base,
        "embedding": "log_fourier" if start else "positional", "encoder": PYRAMIDS[pyramid][0],
        "decoder": "skip" if kinds.count("norm") > 1 else "standard",
    }  # fmt: skip
    expected = _order(options)
    for (place, kind), layer in zip(expected, layers, strict=False):
        if layer.kind != kind and (kind, layer.kind) != ("block", "resampling"):
            raise ValueError(f"all_modules.{layer.number} is of the kind {layer.kind!r}, where {kind!r} was expected "
                             f"({'.'.join(place)})")  # fmt: skip
    if len(expected) != len(layers):
        raise ValueError(f"the file has {len(layers)} layers, a network of {levels} levels of {count} blocks has "
                         f"{len(expected)}")  # fmt: skip
    return Structure(options, [place for place, _ in expected], outputs, PYRAMIDS[pyramid][1])


def _order(options: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """(our name, kind) of each layer of a network, in the order in which the file has them."""
    levels, count = len(options["channel_mult"]), options["num_blocks"]
    pyramid = next(kind for kind, (ours, _) in PYRAMIDS.items() if ours == options["encoder"])
    found: list[tuple[tuple[str, ...], str]] = []
    found += [(("embedding", "frequency"), "waves")] if options["embedding"] == "log_fourier" else []
    found += [(("embedding", "layer0"), "dense"), (("embedding", "layer1"), "dense")]
    for entry in [*encoder(levels, count, options["attention"]),
                  *decoder(levels, count, options["attention"], everywhere=False)]:  # fmt: skip
        kind = {"first": "convolution", "down": "resampling", "up": "resampling"}.get(entry.kind, "block")
        found.append(((entry.name,), kind))
        if entry.attends:
            found.append(((entry.name, "attention"), "attention"))
        if entry.kind == "down" and pyramid:
            found.append(((f"enc{entry.level}_pyramid",), pyramid))
        if entry.name == f"dec{entry.level}_block{count}" and (options["decoder"] == "skip" or entry.level == 0):
            found += [((f"out{entry.level}_norm",), "norm"), ((f"out{entry.level}_conv",), "convolution")]
    return found
