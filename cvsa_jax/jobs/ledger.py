"""What a job keeps account of in its folder: the images that are done, their figures, their files."""

import contextlib
import csv
import pathlib
import shutil
from collections.abc import Iterable, Sequence

from cvsa_jax import writing
from cvsa_jax.jobs import records, tiling
from cvsa_jax.jobs.folder_lock import NAME as LOCK
from cvsa_jax.jobs.folder_lock import FolderLock
from cvsa_jax.types import InputError

WAY_OUT = "give --overwrite to begin anew, or name another folder"
_RESIDUALS = ("image", "sample", "residual", "chosen")
_FILES = ("image", "file")


class Ledger:
    """metrics.csv, residuals.csv, files.csv (the input of each name) and summary.json of one job's folder.

    Args:
      folder: of the job. measures: the columns of metrics.csv behind the name.
      settings: of the job, as JSON gives them back. overwrite: whether what is there is given up.

    Raises:
      InputError: if the folder holds something else, or its account is damaged.
    """

    def __init__(self, folder: pathlib.Path, measures: Sequence[str], settings: dict, overwrite: bool):
        self._folder, self._overwrite = folder, overwrite
        self._metrics, self._residuals, self._files = (folder / f"{n}.csv" for n in ("metrics", "residuals", "files"))
        self.columns = ["image", *measures]
        self.rows: list[dict] = []
        self.files: dict[str, str] = {}  # of each name, also of images that are not done
        self._lock: FolderLock | None = None
        self.settings = settings
        self.warnings: dict[str, str] = {}
        summary = folder / "summary.json"
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output={folder} is a file, not a folder")
        self._stale = overwrite and summary.exists()  # pictures of the job before would pass for those of this one
        if summary.exists() and not overwrite:
            stored = records.read_json(summary, WAY_OUT)
            before, self.settings = tiling.agreed(stored.get("settings") or {}, settings)
            if before != self.settings:
                raise InputError(
                    f"--output={folder} holds a job with other settings; name another folder or give --overwrite"
                )
            self.rows, self.files = self._read(), {r["image"]: r["file"] for r in self._table(self._files, _FILES)}
            noted, done = stored.get("warnings") or {}, self.done
            self.warnings = {name: text for name, text in noted.items() if name in done}
        elif folder.exists() and any(p.name != LOCK for p in folder.iterdir()) and not overwrite:
            raise InputError(f"--output={folder} is not empty; name another folder or give --overwrite")

    def _table(self, path: pathlib.Path, columns: Sequence[str]) -> list[dict]:
        """The whole rows of a table, if it has these columns."""
        return [row for row in records.read_rows(path) if {*row} == {*columns}]

    def _read(self) -> list[dict]:
        """The figures of what is done; a damaged row is done again."""
        rows = self._table(self._metrics, self.columns)
        return [row for row in rows if all(_sound(row[name]) for name in self.columns[1:])]

    @property
    def done(self) -> set[str]:
        """Names of the images that are done."""
        return {row["image"] for row in self.rows}

    def begin(self, record: dict, pictures: Sequence[str]) -> None:
        """Take the folder and write what is known; nothing is written before this.

        Args:
          record: of summary.json. pictures: the job's folders of them, which go where another job is overwritten.

        Raises:
          InputError: if the folder cannot be written to, or another job writes to it.
        """
        with records.writable(self._folder):
            self._lock = FolderLock(self._folder)
            if not self._overwrite and self._read() != self.rows:
                raise InputError(f"another job has just written to --output={self._folder}; give the command again")
            for kind in pictures if self._stale else ():
                shutil.rmtree(self._folder / kind, ignore_errors=True)
            records.write_json(self._folder / "summary.json", record | {"warnings": self.warnings})
            records.write_rows(self._metrics, self.columns, self.rows)
            files = [dict(zip(_FILES, pair, strict=True)) for pair in self.files.items()]
            records.write_rows(self._files, _FILES, files)
            kept = [row for row in self._table(self._residuals, _RESIDUALS) if row["image"] in self.done]
            records.write_rows(self._residuals, _RESIDUALS, kept)

    @contextlib.contextmanager
    def all_or_none(self, name: str):
        """While the files and rows of one image are written: what fails leaves none of them."""
        count = len(self.rows)
        try:
            with writing.all_or_none(self._folder, name, (self._metrics, self._residuals)):
                yield
        except BaseException:
            del self.rows[count:]
            raise

    def add(self, row: dict) -> None:
        """Count an image as done; row: by column, what is not there stays empty."""
        row = dict.fromkeys(self.columns, "") | row
        with self._metrics.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        self.rows.append(row)

    def add_residuals(self, name: str, residuals: Iterable[float], chosen: Sequence[bool]) -> None:
        """Note the residual of each sample of an image, and which were taken."""
        with self._residuals.open("a", newline="", encoding="utf-8") as file:
            for i, (residual, taken) in enumerate(zip(residuals, chosen, strict=True)):
                csv.writer(file).writerow([name, i, f"{residual:.6g}", "yes" if taken else "no"])

    def finish(self, record: dict) -> None:
        """Write the last record."""
        records.write_json(self._folder / "summary.json", record | {"warnings": self.warnings})

    def warn(self, name: str, text: str, record: dict) -> None:
        """Keep what an image's answer should be looked at for, in summary.json at once: a job may be stopped."""
        self.warnings[name] = text
        self.finish(record)

    def release(self) -> None:
        """Let other jobs write to the folder."""
        if self._lock is not None:
            self._lock.release()


def _sound(text: str) -> bool:
    """Whether a cell of the metrics is a number, or empty."""
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
