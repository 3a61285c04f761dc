"""Which files a job takes, and what it calls them."""

import pathlib

from cvsa_jax import folders
from cvsa_jax.jobs.measurements import ARRAYS
from cvsa_jax.types import InputError


def output_names(files: list[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Names relative to the folder, without the suffix where that stays unambiguous."""
    relative = [f.relative_to(root) if root.is_dir() else pathlib.Path(f.name) for f in files]
    stems = [str(r.with_suffix("")) for r in relative]
    return [s if stems.count(s) == 1 else str(r) for s, r in zip(stems, relative, strict=True)]


def list_inputs(path: str, measured: bool) -> list[pathlib.Path]:
    """The images, and of measurements the arrays, below a path; where a name has both, the array."""
    files = folders.list_images(path, ARRAYS if measured else ())
    arrays = {f.with_suffix("") for f in files if f.suffix.lower() in ARRAYS}
    return [f for f in files if f.suffix.lower() in ARRAYS or f.with_suffix("") not in arrays]


def read_list(path: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """The images that a text file names, a path a line, below a folder.

    Raises:
      InputError: if the file cannot be read, names nothing, or names what is not there.
    """
    try:
        names = [line.strip() for line in pathlib.Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {path}: {error}") from error
    for name in names:
        if pathlib.Path(name).is_absolute() or ".." in pathlib.Path(name).parts:
            raise InputError(f"the list {path} names {name}, which is not below {folder}")
    files = [folder / name for name in dict.fromkeys(names)]
    missing = [f for f in files if not f.is_file()]
    if missing or not files:
        raise InputError(f"the list {path} names {missing[0] if missing else 'no image'}, which is not there")
    return files
