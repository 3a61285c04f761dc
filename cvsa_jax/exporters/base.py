"""What a format of an exported prior is."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from cvsa_jax.descriptions import StoredPrior


class Export(NamedTuple):
    """A prior that fits its format. write: to a path that is not there yet. notes: lines for the user."""

    write: Callable[[pathlib.Path], None]
    notes: list[str]


class Format(NamedTuple):
    """How a prior is written.

    suffix: of the file; empty where a folder is written.
    prepare: the prior as an Export; ValueError, one line, if the format cannot hold it.
    """

    suffix: str
    prepare: Callable[[StoredPrior], Export]
