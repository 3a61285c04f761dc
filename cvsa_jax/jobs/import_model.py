"""Public weights, in the format that they are published in, as a prior of ours."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import checkpoints
from cvsa_jax.descriptions import Description
from cvsa_jax.importers.arrays import read_tree
from cvsa_jax.importers.formats import FORMATS, find_format, make_options, parse_options
from cvsa_jax.importers.known import KNOWN
from cvsa_jax.importers.source import Imported, Source, plain_state, read_source
from cvsa_jax.networks import build_prior
from cvsa_jax.priors import denoiser_of
from cvsa_jax.settings import Settings, require, setting


@dataclasses.dataclass(frozen=True)
class ModelSettings(Settings):
    """A model to import."""

    source: str | None = setting(None, "A file of weights, or a folder of the diffusers library.", path=True)
    format: str | None = setting(
        None, "The format of the source.", choices=FORMATS, otherwise="found by its keys and files"
    )
    model: str | None = setting(None, "The public model that it is, where its file does not say all.", choices=KNOWN)
    options: str | None = setting(
        None, "What the file does not say, name=value,name=value; --list_options prints the names."
    )
    list_options: bool = setting(False, "Print every format's options and the public models that are known.")
    verify: str | None = setting(
        None, "An .npz of recorded inputs and outputs, which the prior must reproduce.", path=True
    )
    output: str | None = setting(None, "Folder of the prior; of --network, the .npz file.", path=True)


class Model(NamedTuple):
    """A model that was read and can be written. facts: for prior.json."""

    imported: Imported
    facts: dict[str, Any]


def read_model(own: ModelSettings) -> Model:
    """Read and convert a source, in memory.

    Raises:
      ValueError: if it cannot be read, is of no known format, lacks what must be told, or contradicts what was told.
    """
    require({"source": own.source}, "source")
    source = read_source(pathlib.Path(str(own.source)))
    name = own.format or find_format(source)
    if own.format and not FORMATS[name].matches(source):
        raise ValueError(f"{source.path} is not in the format {name}")
    model = own.model or recognised(source, name)
    known = KNOWN[model] if model else None
    if known and known.format != name:
        raise ValueError(f"--model={model} is in the format {known.format}, but {source.path} in {name}")
    options = make_options(name, parse_options(own.options or ""), known.options if known else {})
    imported = FORMATS[name].convert(source, options)
    count = sum(a.size for a in jax.tree.leaves(imported.params))
    if known and known.parameters not in (None, count):
        raise ValueError(f"--model={model} has {known.parameters:,} parameters, but {source.path} {count:,}")
    facts = {"source": source.path.name, "format": name, "parameters": count, "notes": imported.notes}
    if known:
        facts |= {"model": model, "home": known.home}
    return Model(imported, facts)


def recognised(source: Source, name: str) -> str | None:
    """The known model of a file's published name and number of parameters; None if there is none."""
    count = sum(a.size for a in plain_state(source).values())  # none of a file that holds more than a network
    same = (name, source.path.name, count)
    return next((key for key, k in KNOWN.items() if (k.format, k.file, k.parameters) == same), None)


class Recorded(NamedTuple):
    """What a recorded file may hold: names of (images, levels), of which one pair is there, and of what came out."""

    what: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]  # in float64 first, where it is there


RAW = Recorded(
    "the network's output", (("x", "t"), ("x", "noise_labels"), ("u", "t")), ("out64", "out_ema64", "out", "out_ema")
)
DENOISED = Recorded("the denoised image", (("y", "sigma"),), ("denoised", "D"))
TOLERANCE = 1e-3


def verify(model: Model, path: str | pathlib.Path) -> list[str]:
    """Compare a model with recorded outputs, arrays of images (.., B, C, H, W): a line for each of them.

    The arrays are x (B, C, H, W) and t or noise_labels (K,), or u and t, with the network's output out (K, B, C, H, W)
    (out64 in place of it where there is one), and y (K, B, C, H, W) and sigma (K,) with denoised or D.

    Raises:
      ValueError: if the file cannot be read or has none of these, or an output differs by more than TOLERANCE.
    """
    arrays, spec = read_tree(path), model.imported.spec
    params = jax.tree.map(jnp.asarray, model.imported.params)
    network = spec.network("float32", class_label=0 if spec.needs_class else None)
    answer = jax.jit(lambda batch, level: network(params, batch, jnp.full(batch.shape[:1], level)))
    answers = [(RAW, answer)]
    denoise = denoiser_of(build_prior(spec, params, dtype="float32", class_label=network.class_label))
    if denoise is not None:
        answers.append((DENOISED, jax.jit(jax.vmap(denoise, (0, None)))))
    found = [_compared(path, arrays, recorded, answer) for recorded, answer in answers]
    lines = [line for line in found if line is not None]
    if not lines:
        raise ValueError(
            f"{path} has no recorded inputs and outputs; see the documentation of jobs.import_model.verify"
        )
    return lines


def _compared(path, arrays: dict[str, np.ndarray], recorded: Recorded, answer: Callable) -> str | None:
    """How far an answer (images (B, H, W, C), level) is from what was recorded; None if nothing was."""
    inputs = next((pair for pair in recorded.inputs if arrays.keys() >= {*pair}), None)
    output = next((name for name in recorded.outputs if name in arrays), None)
    if inputs is None or output is None:
        return None
    images, levels = (np.asarray(arrays[name], np.float32) for name in inputs)
    batches = images if images.ndim == 5 else [images] * len(levels)
    shown = ((jnp.asarray(np.moveaxis(batch, 1, -1)), level) for batch, level in zip(batches, levels, strict=True))
    want, got = arrays[output], np.stack([np.moveaxis(np.asarray(answer(*each)), -1, 1) for each in shown])
    got = got[:, :, : want.shape[2]]
    if got.shape != want.shape:
        raise ValueError(f"{path}: {output} is {want.shape}, but the model gives {got.shape}")
    error = float(np.sqrt(np.mean((got.astype(np.float64) - want) ** 2)) / np.abs(want).max())
    if not error <= TOLERANCE:
        raise ValueError(f"{path}: {recorded.what} is not {output}: root mean square error {error:.2g} of its maximum")
    return f"{recorded.what} is {output}: root mean square error {error:.2g} of its maximum"


def write_model(folder: pathlib.Path, model: Model) -> None:
    """Write the prior; one of ours with what was stored of it, in place of where it comes from."""
    spec, params, _, told = model.imported
    told = told or Description(spec, None, None, model.facts)
    checkpoints.save_prior(
        folder, spec, params, told.calibration, told.training, told.spectrum, told.calibrated_on, told.levels
    )
