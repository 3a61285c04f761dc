"""A prior in a format that other programs read."""

import dataclasses
import os
import pathlib

from cvsa_jax import checkpoints
from cvsa_jax.exporters import FORMATS, Export
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.settings import Settings, like, require, setting
from cvsa_jax.types import InputError
from cvsa_jax.writing import whole


@dataclasses.dataclass(frozen=True)
class ExportSettings(Settings):
    """A prior to export."""

    checkpoint: str = like(JobSettings, "checkpoint")
    output: str | None = setting(
        None, "The file, X.safetensors; of --format=diffusers a folder. It must not exist.", path=True
    )
    format: str = setting("safetensors", "How it is written.", choices=FORMATS)


def prepare(own: ExportSettings) -> Export:
    """Read the prior, and see whether the format can hold it.

    Raises:
      ValueError: if there is no such prior, the format cannot hold it, or the output exists or has another suffix.
    """
    require({"output": own.output}, "output")
    output, kind = pathlib.Path(str(own.output)), FORMATS[own.format]
    if os.path.lexists(output):
        raise InputError(f"--output={output} exists")
    if kind.suffix and output.suffix != kind.suffix:
        raise InputError(f"--output must end in {kind.suffix}, got {output}")
    return kind.prepare(checkpoints.read_prior(own.checkpoint))


def write(own: ExportSettings, export: Export) -> None:
    """Write it, whole or not at all."""
    output = pathlib.Path(str(own.output))
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole(output) as part:
        export.write(part)
