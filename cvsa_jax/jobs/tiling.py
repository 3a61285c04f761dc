"""What a job does with photographs that are too large for the network: tiles, and smaller batches."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from cvsa_jax import processes, tiles
from cvsa_jax.jobs import buckets
from cvsa_jax.jobs.inputs import Entry
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.priors import Prior
from cvsa_jax.types import InputError

# No image up to this side is ever tiled unless --tile says so; nothing needs to be known of the machine for them.
SMALL = tiles.SIDES[-1]


def tiled(prior: Prior, tile: int | None) -> Prior:
    """The prior with --tile; 0, or not settled yet, is without.

    Raises:
      InputError: if the tile does not suit the prior.
    """
    try:
        return tiles.tiled(prior, tile) if tile else prior
    except ValueError as error:
        raise InputError(f"--tile={tile}: {error}") from error


def agreed(stored: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the job that a folder holds and of the one that goes on with it, their tiles made comparable.

    An automatic tile is that which the job began with, on whatever machine. A job that settled none had no large image.
    """
    before, now = dict(stored), dict(own)
    tile, chosen = before.setdefault("tile", None), now.setdefault("tile", None)
    if chosen is None:
        now["tile"] = tile
    elif tile is None and (chosen == 0 or chosen >= SMALL):
        before["tile"] = chosen
    return before, now


def settled(job: RestorationJob, prior: Prior, entries: Iterable[Entry], stored: int | None) -> RestorationJob:
    """The job with its tile known where one of its images is large; it decides what comes out, and is recorded.

    Args:
      prior: of the images, without tiles. entries: the images. stored: the tile of an earlier run of the same job.

    All processes of a job call at the same time: the one with the least memory decides.

    Raises:
      InputError: if images are to be cut by rows, and in tiles.
    """
    tile = job.job.tile if job.job.tile is not None else stored
    if tile and job.job.split_rows:
        raise InputError(f"--split_rows sees an image as a whole, not in tiles of {tile} pixels: give --tile=0")
    if tile is None and any(large(buckets.shape_of(entry, job.job.bucket)) for entry in entries):
        tile = 0 if job.job.split_rows else tiles.automatic_tile(prior, processes.least(tiles.memory()))
    return dataclasses.replace(job, job=dataclasses.replace(job.job, tile=tile))


def large(shape: tuple[int, ...]) -> bool:
    """Whether an image is so large that its memory counts."""
    return max(shape[:2]) > SMALL


def batch_limit(job: RestorationJob, prior: Prior) -> Callable[[tuple[int, int, int]], int]:
    """(H, W, C) -> how many samples of such an image go together: --batch_size, less where the memory asks for it.

    All processes of a job call at the same time, and get the limits of the one with the least memory; what they get
    each asks by itself.
    """
    available = processes.least(tiles.memory() * (jax.local_device_count() if job.job.split_rows else 1))

    def limit(shape):
        if not large(shape):
            return job.job.batch_size
        return min(job.job.batch_size, tiles.largest_batch(prior, job.job.tile or 0, shape, available))

    return limit
