"""What a job is made of beside its settings: the content of the files that these name, and of each image's own."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from cvsa_jax import checkpoints
from cvsa_jax.jobs import manifest, records
from cvsa_jax.jobs.methods import CLASSICAL
from cvsa_jax.jobs.selection import Chosen
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.settings import fields
from cvsa_jax.types import InputError

LENGTH = 16  # of a digest, in hexadecimal digits
DTYPE = "dtype"
Files = Mapping[str, pathlib.Path]


def of_job(job: RestorationJob) -> dict[str, str]:
    """A digest of each file or prior that a setting names, by the setting; under `dtype` what the network computes in.

    Of a folder with a file for each image there is none: `of_image` has its files.
    """
    found = {}
    for group in job.groups:
        named = [f.name for f in fields(type(group)) if (f.setting.path or f.setting.reads) and not f.setting.free]
        texts = {name: text for name in named if isinstance(text := getattr(group, name), str)}
        found |= {name: digest for name, text in texts.items() if (digest := _content(text))}
    if job.job.method != CLASSICAL:
        priors = [p for p in (job.job.checkpoint, job.job.high_noise_checkpoint) if p is not None]
        found[DTYPE] = ", ".join(sorted({checkpoints.spec_of(prior).arithmetic(job.job.dtype) for prior in priors}))
    return found


def _content(path: str) -> str:
    """A digest of a file, or of what is loaded of a prior; empty of any other folder, and of what is not there."""
    if pathlib.Path(path).is_file():
        return _digest(pathlib.Path(path))
    folder = checkpoints.find_prior(path)
    files = [folder / "prior.json", *sorted((folder / "params").rglob("*"))]
    parts = {f.relative_to(folder).as_posix(): _digest(f) for f in files if f.is_file()}
    return manifest.digest_of(parts) if parts else ""


def _digest(path: pathlib.Path) -> str:
    return manifest.checksum(path)[:LENGTH]


def agreed(folder: pathlib.Path, job: RestorationJob, own: Mapping[str, str]) -> dict[str, str]:
    """What is to be recorded of a job in that folder: `own`, of `of_job`. An earlier version recorded nothing.

    Raises:
      InputError: if the job that the folder holds was begun with other files, or another arithmetic.
    """
    path = folder / manifest.SUMMARY
    if job.job.overwrite or not path.exists():
        return dict(own)
    before = records.read_json(path).get("made_of") or {}
    for name in (n for n in own if before.get(n, own[n]) != own[n]):
        what = f"--{name}={job.values()[name]} has changed since the job began"
        if name == DTYPE:
            what = f"the job was begun in {before[name]}, and here the network computes in {own[name]}"
        raise InputError(f"--output={folder}: {what}; give --overwrite to begin anew, or name another folder")
    return before | dict(own)


def of_image(files: Files) -> dict[str, str]:
    """A digest of each file that one image is made of, by what it is; of none that cannot be read."""
    found = {}
    for name, path in files.items():
        try:
            found[name] = _digest(path)
        except OSError:
            continue
    return found


def changed(folder: pathlib.Path, images: Iterable[Chosen], files_of: Callable[[Chosen], Files]) -> dict[str, str]:
    """Of images that are done: by name, a file of each that is another than the one it was made of, as far as is known.

    Args:
      folder: of results. images: those to look at. files_of: what an image is made of.
    """
    done = manifest.read(folder).done
    known = [(c, line["origin"]) for c in images if (line := done.get(c.name)) and line.get("origin")]

    def first(made: tuple[Chosen, Mapping[str, str]]) -> str | None:
        files = files_of(made[0])
        now = of_image(files)
        return next((str(files[name]) for name in now if made[1].get(name, now[name]) != now[name]), None)

    with ThreadPoolExecutor(manifest.THREADS) as pool:
        found = zip(known, pool.map(first, known), strict=True)
        return {image.name: file for (image, _), file in found if file is not None}
