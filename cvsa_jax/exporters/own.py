"""A prior in one safetensors file, which `cvsa import` takes back with all that is known of it."""

import functools
import json
import pathlib
from typing import cast

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from cvsa_jax.descriptions import StoredPrior
from cvsa_jax.exporters.base import Export, Format
from cvsa_jax.importers.arrays import save_safetensors
from cvsa_jax.importers.own import KEY, SEPARATOR


def _write(stored: StoredPrior, path: pathlib.Path) -> None:
    params = jax.tree.map(np.asarray, stored.params)
    state = cast(dict[str, np.ndarray], flatten_dict(params, sep=SEPARATOR))
    save_safetensors(path, state, {KEY: json.dumps(stored.record)})


def _prepare(stored: StoredPrior) -> Export:
    return Export(functools.partial(_write, stored), [])


SAFETENSORS = Format(".safetensors", _prepare)
