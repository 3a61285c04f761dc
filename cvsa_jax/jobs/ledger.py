"""What a job keeps account of in its folder: the images that are done, their figures, their files."""

import contextlib
import csv
import functools
import pathlib
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from cvsa_jax import writing
from cvsa_jax.jobs import folder_lock, manifest, records, tiling
from cvsa_jax.jobs.folder_lock import FolderLock
from cvsa_jax.jobs.manifest import Account, Manifest
from cvsa_jax.jobs.shards import WHOLE, Writer
from cvsa_jax.types import InputError

OTHER = "name another folder"
WAY_OUT = f"give --overwrite to begin anew, or {OTHER}"


class Ledger:
    """The manifests of a folder of results, and what is made of them: metrics.csv, residuals.csv, files.csv (the input
    of each name) and summary.json. Several threads may use it.

    Args:
      folder: of the job. measures: the columns of metrics.csv behind the name.
      settings: of the job, as JSON gives them back. overwrite: whether what is there is given up.
      writer: which part of the folder this process writes. pictures: folders of them. damaged: as `manifest.damaged`.

    Raises:
      InputError: if the folder holds something else, or its account is damaged.
    """

    def __init__(
        self, folder: pathlib.Path, measures: Sequence[str], settings: dict, overwrite: bool,
        writer: Writer = WHOLE, pictures: Collection[str] = (), damaged: Callable = manifest.damaged,
    ):  # fmt: skip
        self._folder, self._overwrite, self._writer, self._pictures = folder, overwrite, writer, pictures
        self._summary, self._metrics, self._residuals, self._files = (folder / name for name in manifest.ACCOUNT)
        self._guard, self._lock, self._manifest = threading.RLock(), None, None
        self._account, self._adopted = Account(), []
        self.columns, self.settings, self.damaged = ["image", *measures], settings, {}
        self.files: dict[str, str] = {}  # of each name, also of images that are not done
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output={folder} is a file, not a folder")
        if self._summary.exists() and not overwrite:
            self.settings = self._agreed()
            self._account, self._adopted, self.files = self._read()
            own = [line for name, line in self._account.done.items() if writer.takes(name)]
            self.damaged = damaged(folder, own)
        elif not overwrite and folder.exists() and any(map(folder_lock.foreign, folder.iterdir())):
            raise InputError(f"--output={folder} is not empty; {OTHER} or give --overwrite")

    def _agreed(self) -> dict[str, Any]:
        """The settings with those that the folder has settled; raises InputError if they are others."""
        stored = records.read_json(self._summary, WAY_OUT)
        before, now = tiling.agreed(stored.get("settings") or {}, self.settings)
        if before != now:
            raise self._mixed()
        return now

    def _mixed(self) -> InputError:
        return InputError(f"--output={self._folder} holds a job with other settings; {OTHER} or give --overwrite")

    def _read(self) -> tuple[Account, list[dict], dict[str, str]]:
        """What the folder says now: the account, the lines of it that are in no manifest yet, the file of each name."""
        account, new, digest = manifest.read(self._folder), [], manifest.digest_of(self.settings)
        named = manifest.named(self._folder, account)
        if not manifest.files(self._folder):  # of an earlier version
            warnings = records.read_json(self._summary, WAY_OUT).get("warnings") or {}
            new = manifest.adopted(self._folder, self.columns, named, warnings, digest)
            for line in new:
                account.take(line)
        if any(line["settings"] != digest for line in account.done.values()):
            raise self._mixed()
        return account, new, named

    @property
    def done(self) -> set[str]:
        """Names of the images that are done, their files whole."""
        with self._guard:
            return self._account.done.keys() - self.damaged.keys()

    @property
    def rows(self) -> list[dict]:
        """Of metrics.csv: what is done, by name."""
        with self._guard:
            lines = [self._account.done[name] for name in sorted(self.done)]
        empty = dict.fromkeys(self.columns, "")
        return [{k: v for k, v in (empty | line["row"] | {"image": line["image"]}).items() if k in empty}
                for line in lines]  # fmt: skip

    @property
    def warnings(self) -> dict[str, str]:
        """What an image's answer should be looked at for, by name."""
        with self._guard:
            return dict(sorted(self._account.warnings.items()))

    def failures(self, names: Collection[str]) -> dict[str, str]:
        """Why images could not be restored, of some names."""
        with self._guard:
            return {name: self._account.failures[name] for name in names if name in self._account.failures}

    def begin(self, record: Mapping[str, Any]) -> None:
        """Take this part of the folder and write what is known; nothing is written before this.

        Args:
          record: of summary.json.

        Raises:
          InputError: if the folder cannot be written to, another job writes to it, or one has written meanwhile.
        """
        with records.writable(self._folder):
            clear = functools.partial(writing.clear, self._folder, self._pictures)
            self._lock = FolderLock(self._folder, self._writer.part, self._writer.parts, clear)
            with self._lock.tables():
                if self._overwrite:
                    self._wipe()
                elif self._summary.exists():
                    self._follow(record["settings"])
                records.write_json(self._summary, self._settled(record) | {"warnings": self.warnings})
                self._manifest = Manifest(self._folder / self._writer.manifest, self._adopted)
                failed = [name for name in self._account.failures if self._writer.takes(name)]
                self._append(*(self._account.line(manifest.AGAIN, name) for name in (*self.damaged, *failed)))
                self.damaged = {}
                self._write_tables()

    def join(self) -> None:
        """Take this part of a folder that another process of the job has begun, behind all that it says."""
        with records.writable(self._folder):
            self._lock = FolderLock(self._folder, self._writer.part, self._writer.parts)
            self._manifest = Manifest(self._folder / self._writer.manifest)
            self.read_again()
            self.damaged = {}

    def _wipe(self) -> None:
        """Give up what is there: first what would count as done, then the pictures of the job that it was."""
        stale = self._summary.exists()  # else they are not of a job
        for path in (*manifest.files(self._folder), self._metrics, self._residuals, self._files):
            path.unlink(missing_ok=True)
        for kind in self._pictures if stale else ():
            shutil.rmtree(self._folder / kind, ignore_errors=True)

    def _follow(self, settings: dict[str, Any]) -> None:
        """Go on from what others wrote since this was made.

        Raises:
          InputError: if that is of this part, names other files, or settled another tile than `settings` have.
        """
        self.settings = self._agreed()
        before, now = tiling.agreed(self.settings, settings)
        account, self._adopted, named = self._read()
        own = [{n: line["time"] for n, line in a.done.items() if self._writer.takes(n)}
               for a in (account, self._account)]  # fmt: skip
        given = {*self.files.values()}
        other = any(self.files[n] != file if n in self.files else file in given for n, file in named.items())
        if other or own[0] != own[1] or before != now:
            raise InputError(f"another job has just written to --output={self._folder}; give the command again")
        self._account, self.files = account, named | self.files

    def _settled(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record of summary.json, with a tile that another part has settled."""
        if not self._overwrite and self._summary.exists():
            stored = records.read_json(self._summary, WAY_OUT).get("settings") or {}
            return {**record, "settings": tiling.agreed(stored, record["settings"])[1]}
        return dict(record)

    def _append(self, *lines: dict) -> None:
        """Write lines and count them."""
        with self._guard:
            if self._manifest is not None and lines:
                self._manifest.append(*lines)
            for line in lines:
                self._account.take(line)

    @property
    def kinds(self) -> Counter[str]:
        """How many images of each kind this part has done."""
        with self._guard:
            lines = [self._account.done[name] for name in self.done if self._writer.takes(name)]
        return Counter(str(line.get("kind")) for line in lines)

    def add(
        self, name: str, kind: str, files: Mapping[str, str], row: Mapping[str, str], residuals: Sequence,
        warning: str | None = None, sizes: Sequence[int] = (), origin: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Count an image as done.

        Args:
          name: of the image. kind: of images that share a program. files: checksum by path below the folder. row: of
            metrics.csv, by column; what is not there stays empty. residuals: (residual, whether it was taken) of each
            sample. warning: as in `warn`. sizes: of the files, in bytes. origin: of `origins.of_image`.
        """
        with self._guard:
            facts = {"file": self.files.get(name, ""), "kind": kind, "files": files, "sizes": sizes, "row": row}
            if self._writer.parts == 1:  # else each part waits for its end
                with self._metrics.open("a", newline="", encoding="utf-8") as table:
                    csv.DictWriter(table, self.columns, "").writerow({"image": name, **row})
            joined = manifest.joined(self._account.warnings.get(name), warning)
            facts |= {"residuals": residuals, "warning": joined, "origin": origin}
            self._append(self._account.line(manifest.DONE, name, **facts, settings=manifest.digest_of(self.settings)))

    def warn(self, name: str, text: str) -> None:
        """Keep what an image's answer should be looked at for, at once: a job may be stopped."""
        with self._guard:
            self._append(self._account.line(manifest.WARNED, name, text=text))

    def close(self, failures: Mapping[str, str]) -> None:
        """Write the last lines of this part."""
        with self._guard:
            self._append(*(self._account.line(manifest.FAILED, name, why=why) for name, why in failures.items()))

    @contextlib.contextmanager
    def tables(self) -> Iterator[None]:
        """Read what all parts have done and make the tables; no other part does so while this lasts."""
        assert self._lock is not None
        with self._lock.tables():
            self.read_again()
            self._write_tables()
            yield

    def read_again(self) -> None:
        """Take over what others have done since, and how they named files that this part never saw."""
        with self._guard:
            self._account = manifest.read(self._folder)
            self.files = manifest.named(self._folder, self._account) | self.files

    def summarise(self, record: Mapping[str, Any]) -> None:
        """Write summary.json, within `tables`."""
        records.write_json(self._summary, self._settled(record) | {"warnings": self.warnings})

    def _write_tables(self) -> None:
        records.write_rows(self._metrics, self.columns, self.rows)
        lines = [self._account.done[name] for name in sorted(self._account.done)]
        found = ((line["image"], i, f"{residual:.6g}", "yes" if taken else "no")
                 for line in lines for i, (residual, taken) in enumerate(line["residuals"]))  # fmt: skip
        tables = (self._residuals, manifest.RESIDUALS, found), (self._files, manifest.FILES, self.files.items())
        for path, columns, rows in tables:
            records.write_rows(path, columns, (dict(zip(columns, row, strict=True)) for row in rows))

    def release(self) -> None:
        """Let other jobs write to the folder."""
        if self._manifest is not None:
            self._manifest.close()
        if self._lock is not None:
            self._lock.release()
