"""Which part of a job a process does: `--shard=I/N`, and the processes of one job."""

import hashlib
import re
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils

from cvsa_jax.types import InputError


def parse(text: str | None) -> tuple[int, int]:
    """(I, N) of the text 'I/N', I from 1 to N; (1, 1) of None.

    Raises:
      InputError: if it is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", "1/1" if text is None else text, re.ASCII)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise InputError(f"shard must be I/N with I from 1 to N, as in 2/4; got {text!r}")
    return number, count


class Writer(NamedTuple):
    """Who writes into a folder of results.

    The parts of a folder are numbered: process p of P of shard i of n, all counted from zero, is part i + n p of n P.
    Each part has its manifest and its lock; process 0 alone makes the tables.
    """

    shard: int = 0
    shards: int = 1
    process: int = 0
    processes: int = 1

    @property
    def part(self) -> int:
        """Its number, from zero."""
        return self.shard + self.shards * self.process

    @property
    def parts(self) -> int:
        """How many there are."""
        return self.shards * self.processes

    @property
    def manifest(self) -> str:
        """The name of its file."""
        return "manifest.jsonl" if self.parts == 1 else f"manifest.{self.part + 1}-of-{self.parts}.jsonl"

    @property
    def makes_tables(self) -> bool:
        """Whether it makes what is of all images."""
        return self.process == 0

    def takes(self, name: str) -> bool:
        """Whether an image is of its shard.

        By a hash of the name alone: no image changes its shard when others come, and shards that see a folder at
        different times never take one twice. The checksum CRC-32 would not do: names that differ in a digit may
        agree in its last bits.
        """
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        return number % self.shards == self.shard

    def meet(self, where: str) -> None:
        """Wait for the other processes of this job."""
        if self.processes > 1:
            multihost_utils.sync_global_devices(f"cvsa {where}")


WHOLE = Writer()  # a process that does all of a job


def writer_of(shard: str | None) -> Writer:
    """The writer of this process, for a value of `--shard`."""
    number, count = parse(shard)
    return Writer(number - 1, count, jax.process_index(), jax.process_count())
