"""Public weights, in the format that they are published in, as a prior of ours."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import checkpoints
from cvsa_jax.importers.formats import FORMATS, find_format, make_options, parse_options
from cvsa_jax.importers.known import KNOWN
from cvsa_jax.importers.source import Imported, Source, read_source, state_of
from cvsa_jax.networks import build_prior
from cvsa_jax.priors import denoiser_of
from cvsa_jax.settings import Settings, require, setting


@dataclasses.dataclass(frozen=True)
class ModelSettings(Settings):
    """A model to import."""

    source: str | None = setting(None, "A file of weights, or a folder of the diffusers library.")
    format: str | None = setting(
        None, "The format of the source.", choices=FORMATS, otherwise="found by its keys and files"
    )
    model: str | None = setting(None, "The public model that it is, where its file does not say all.", choices=KNOWN)
    options: str | None = setting(
        None, "What the file does not say, name=value,name=value; --list_options prints the names."
    )
    list_options: bool = setting(False, "Print every format's options and the public models that are known.")
    verify: str | None = setting(None, "An .npz of recorded inputs and outputs, which the prior must reproduce.")
    output: str | None = setting(None, "Folder of the prior; of --network, the .npz file.")


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
    count = sum(int(np.prod(a.shape)) for a in jax.tree.leaves(imported.params))
    if known and known.parameters not in (None, count):
        raise ValueError(f"--model={model} has {known.parameters:,} parameters, but {source.path} {count:,}")
    facts = {"source": source.path.name, "format": name, "parameters": count, "notes": imported.notes}
    if known:
        facts |= {"model": model, "home": known.home}
    return Model(imported, facts)


def recognised(source: Source, name: str) -> str | None:
    """The known model of a file's published name and number of parameters; None if there is none."""
    candidates = {key: k for key, k in KNOWN.items() if k.format == name and k.file == source.path.name}
    if not candidates:
        return None
    try:
        count = sum(int(np.prod(a.shape)) for a in state_of(source).values())
    except ValueError:  # a file that holds more than a network
        return None
    return next((key for key, k in candidates.items() if k.parameters == count), None)


# Recorded files: (inputs as the network or the prior sees them, what came out, in float64 first where it is there).
_RECORDED = {
    "the network's output": (("x", "t"), ("x", "noise_labels"), ("u", "t")),
    "the denoised image": (("y", "sigma"),),
}
_OUTPUTS = {"the network's output": ("out64", "out_ema64", "out", "out_ema"), "the denoised image": ("denoised", "D")}
TOLERANCE = 1e-3


def verify(model: Model, path: str | pathlib.Path) -> list[str]:
    """Compare a model with recorded outputs, arrays of images (.., B, C, H, W): a line for each of them.

    The arrays are x (B, C, H, W) and t or noise_labels (K,), or u and t, with the network's output out (K, B, C, H, W)
    (out64 in place of it where there is one), and y (K, B, C, H, W) and sigma (K,) with denoised or D.

    Raises:
      ValueError: if the file cannot be read or has none of these, or an output differs by more than TOLERANCE.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            recorded = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    spec = model.imported.spec
    params = jax.tree.map(jnp.asarray, model.imported.params)
    network = spec.network("float32", class_label=0 if spec.needs_class else None)
    prior = build_prior(spec, params, dtype="float32", class_label=network.class_label)
    denoise = denoiser_of(prior)
    lines = []
    for kind, pairs in _RECORDED.items():
        inputs = next((pair for pair in pairs if all(name in recorded for name in pair)), None)
        output = next((name for name in _OUTPUTS[kind] if name in recorded), None)
        if inputs is None or output is None or (kind == "the denoised image" and denoise is None):
            continue
        images, levels = (recorded[name] for name in inputs)
        found = []
        for i, level in enumerate(levels):
            batch = jnp.asarray(np.moveaxis(images if kind == "the network's output" else images[i], 1, -1))
            if kind == "the network's output":
                out = jax.jit(network)(params, batch, jnp.full(batch.shape[:1], level, jnp.float32))
            else:
                assert denoise is not None  # or it was left out above
                out = jax.jit(jax.vmap(denoise, (0, None)))(batch, jnp.float32(level))
            found.append(np.moveaxis(np.asarray(out), -1, 1))
        want = recorded[output]
        got = np.stack(found)
        if got.shape != want.shape and got.shape[2] > want.shape[2]:
            got = got[:, :, : want.shape[2]]
        if got.shape != want.shape:
            raise ValueError(f"{path}: {output} is {want.shape}, but the model gives {got.shape}")
        error = float(np.sqrt(np.mean((got.astype(np.float64) - want) ** 2)) / np.abs(want).max())
        if not error <= TOLERANCE:
            raise ValueError(f"{path}: {kind} is not {output}: root mean square error {error:.2g} of its maximum")
        lines.append(f"{kind} is {output}: root mean square error {error:.2g} of its maximum")
    if not lines:
        raise ValueError(
            f"{path} has no recorded inputs and outputs; see the documentation of jobs.import_model.verify"
        )
    return lines


def write_model(folder: pathlib.Path, model: Model) -> None:
    """Write the prior; one of ours with what was stored of it, in place of where it comes from."""
    spec, params, _, told = model.imported
    if told is None:
        checkpoints.save_prior(folder, spec, params, None, model.facts)
        return
    checkpoints.save_prior(folder, spec, params, told.calibration, told.training, told.spectrum)
    if told.calibration is not None and told.calibrated_on is not None:
        checkpoints.save_statistics(folder, told.calibration, told.spectrum, told.calibrated_on)
