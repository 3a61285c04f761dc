"""A prior of this package in one safetensors file, as `cvsa export` writes it.

Its arrays are named by their places in the parameters, as params/stem/kernel; the metadata has, under `cvsa_jax`, what
prior.json holds.
"""

import dataclasses
import json
from typing import Any, cast

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from cvsa_jax.descriptions import description_from_json
from cvsa_jax.importers.files import one_line_for
from cvsa_jax.importers.source import Imported, Source, state_of, take
from cvsa_jax.settings import Settings

SUMMARY = "a prior of this package, the safetensors file that cvsa export writes"
KEY, SEPARATOR = "cvsa_jax", "/"


@dataclasses.dataclass(frozen=True)
class Options(Settings):
    """None: the file tells all."""


def matches(source: Source) -> bool:
    """Whether a file is of this format."""
    return KEY in source.config.get("metadata", {})


def convert(source: Source, options: Options) -> Imported:
    """The file as a prior's description and its parameters.

    Raises:
      ValueError: if its description is damaged, or it has other parameters than that says.
    """
    with one_line_for(source.path):
        description = description_from_json(json.loads(source.config["metadata"][KEY]))
        expected = cast(dict[str, Any], jax.eval_shape(description.spec.init, jax.random.key(0)))
        if description.calibration is not None:
            description.calibration.check()
    paths = cast(dict[tuple, Any], flatten_dict(expected))
    params = take(state_of(source), [(SEPARATOR.join(path), path, np.asarray) for path in paths], expected)
    return Imported(description.spec, params, [], description)
