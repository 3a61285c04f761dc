"""What fails, and what becomes of it: one line that names the file or the flag, and the rest goes on."""

import csv
import errno
import hashlib
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from cvsa_jax import commands, images, measures, writing
from cvsa_jax.commands import VERBS
from cvsa_jax.evaluation.finished import FinishedJob
from cvsa_jax.jobs import manifest, prepare, records, resolve
from cvsa_jax.jobs.bundle import Bundle
from cvsa_jax.jobs.folder_lock import FolderLock
from cvsa_jax.jobs.ledger import Ledger
from cvsa_jax.jobs.manifest import Manifest
from cvsa_jax.pictures import formats
from cvsa_jax.types import InputError

JOB = {"task": "sr2", "method": "classical", "noise_std": 0.05}
NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def photos_folder(tmp_path) -> pathlib.Path:
    """Three small photographs, one of them named as another with a suffix."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, source in {"a.png": "clothing_001", "a.png.png": "clothing_003", "b.png": "clothing_008"}.items():
        Image.open(SAMPLES / f"{source}.png").convert("L").resize((8, 8)).save(folder / name)
    return folder


@pytest.fixture
def job(photos_folder, tmp_path):
    """A job that is ready to run; more settings by name."""
    return lambda **more: prepare(
        resolve({**JOB, "input": str(photos_folder), "output": str(tmp_path / "out"), "batch_size": 1, **more})
    )


@pytest.fixture
def restore(run_restore, photos_folder, tmp_path):
    """`cvsa restore` of these photographs into OUT, in this process."""
    given = [f"--{name}={value}" for name, value in JOB.items()]
    return lambda *more: run_restore(*given, f"--input={photos_folder}", f"--output={tmp_path / 'out'}", *more)


def tree(folder: pathlib.Path) -> dict[str, tuple]:
    return {str(p): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns) for p in folder.rglob("*")}


def refused(done) -> str:
    """The one line of a command that did nothing."""
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def rows(path: pathlib.Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# What is read back.

COLUMNS = ["image", "psnr"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("image,psnr\r\na,1.25\r\nb,2.50\r\n", ["a", "b"]),
        ("image,psnr\r\na,1.25\r\nb,2.50", ["a"]),  # may have been 2.5071
        ("image,psnr\r\na,1.25\r\nb,2.50\r", ["a"]),
        ("image,psnr\r\na,1.25\r\nb\r\n", ["a"]),
        ('image,psnr\r\na,1.25\r\n"b\nc', ["a"]),
        ('image,psnr\r\n"b\nc",1.25\r\n', ["b\nc"]),
        ("image,psnr\r\na,1.25\r\nb,1,2\r\n", ["a"]),
        ("image,psnr\r\na,1.25\r\nb,1.\0\0\r\n", ["a"]),
        ("image,psnr\r\na,\r\n", ["a"]),
        ("image,ps", []),
        ("image\r\na\r\n", []),
        ("", []),
    ],
)
def test_rows_that_are_not_whole_are_done_again(tmp_path, text, kept):
    (tmp_path / "summary.json").write_text('{"settings": {}}')
    (tmp_path / "metrics.csv").write_bytes(text.encode())
    ledger = Ledger(tmp_path, COLUMNS[1:], {}, overwrite=False)
    assert [row["image"] for row in ledger.rows] == kept


@pytest.mark.parametrize("text", ["", '{"settings": {"ta', "[]", "null", "\0\0\0", "caf\xe9"])
def test_a_damaged_record_is_one_line_with_the_way_out(restore, tmp_path, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_bytes(text.encode("latin-1"))
    before = tree(out)
    line = refused(restore())
    assert f"{out / 'summary.json'} is damaged (" in line
    assert line.endswith("; give --overwrite to begin anew, or name another folder\n")
    assert tree(out) == before
    with pytest.raises(InputError, match="holds no finished job of cvsa restore"):
        FinishedJob(out)
    with pytest.raises(InputError, match=r"--output=.* is not an empty folder|is damaged"):
        records.claim_folder(out, {})


def test_a_damaged_folder_is_begun_anew_where_that_is_asked_for(restore, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text("")
    assert restore("--overwrite").returncode == 0
    assert len(rows(out / "metrics.csv")) == 3
    assert json.loads((out / "summary.json").read_text())["images"] == 3
    assert not (out / ".lock").exists()
    # A table that was cut is completed, and what is whole in it is left alone.
    text = (out / "metrics.csv").read_bytes()
    (out / "metrics.csv").write_bytes(text[:-3])
    stays = [p.stat().st_mtime_ns for p in (out / "restored").glob("a*.png")]
    done = restore()
    assert done.returncode == 0, done.stderr
    assert [p.stat().st_mtime_ns for p in (out / "restored").glob("a*.png")] == stays
    figures = lambda table: [line.split(b",")[:5] for line in table.splitlines()]  # noqa: E731
    assert figures((out / "metrics.csv").read_bytes()) == figures(text)


# Folders that cannot be written to.


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_an_output_that_is_no_folder_is_one_line(restore, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    line = refused(restore(f"--output={tmp_path / place}"))
    assert f"--output={tmp_path / place}" in line
    assert "[Errno" not in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_an_output_that_cannot_be_written_to_is_one_line(restore, tmp_path, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    assert refused(restore()) == f"error: cannot write to --output={tmp_path / 'out'}: {os.strerror(number)}\n"


def test_the_input_is_only_read(restore, photos_folder):
    before = tree(photos_folder)
    assert restore().returncode == 0
    assert tree(photos_folder) == before


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full once the line of image `a` has been written to the manifest."""
    append = Manifest.append

    def refuse(*args):
        raise NO_SPACE

    def failing(self, *lines):
        with monkeypatch.context() as inner:
            if any(line["image"] == "a" and line["event"] == manifest.DONE for line in lines):
                inner.setattr(os, "fsync", refuse)
            append(self, *lines)

    with monkeypatch.context() as outer:
        outer.setattr(Manifest, "append", failing)
        yield outer


def test_an_image_that_cannot_be_written_leaves_nothing_and_the_rest_goes_on(restore, tmp_path, full_disk):
    """Of a picture, an array or a row; names that begin alike are not mistaken; the same command completes it."""
    done, out = restore(), tmp_path / "out"
    assert done.returncode == 1
    assert f"failed: a: cannot write {out}: No space left on device\n" in done.stderr
    assert "Traceback" not in done.stderr
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert {f for f in files if "/" in f} == {
        f"{kind}/{name}.{end}" for name in ("a.png", "b")
        for kind, end in (("restored", "png"), ("measurement", "png"), ("truth", "png"), ("operator", "npz"))
    }  # fmt: skip
    assert not {f for f in files if f.endswith(".part")}
    for table in ("metrics.csv", "residuals.csv"):
        assert {row["image"] for row in rows(out / table)} == {"a.png", "b"}
    assert list(json.loads((out / "summary.json").read_text())["failures"]) == ["a"]
    full_disk.undo()
    again = restore()
    assert again.returncode == 0, again.stderr
    assert {row["image"] for row in rows(out / "metrics.csv")} == {"a", "a.png", "b"}


@pytest.mark.parametrize(
    "error", [ValueError("EXIF is too long"), OverflowError(), RuntimeError("a\nb"), struct.error()]
)
def test_a_picture_that_its_writer_refuses_fails_alone(restore, tmp_path, monkeypatch, error):
    """Whatever the library raises; it is one line, and the rest goes on."""
    png = formats.FORMATS["png"]

    def refusing(path, *args):
        if path.name.startswith("a.png.part"):
            raise error
        png.write(path, *args)

    monkeypatch.setitem(formats.FORMATS, "png", png._replace(write=refusing))
    done, place = restore(), tmp_path / "out" / "restored" / "a.png"
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    why = " ".join(str(error).split()) or type(error).__name__
    assert f"failed: a: cannot write {place}: {why}\n" in done.stderr
    assert {row["image"] for row in rows(tmp_path / "out" / "metrics.csv")} == {"a.png", "b"}


def test_a_full_disk_ends_the_job(restore, tmp_path, monkeypatch, full_disk):
    """Its next images would be computed for nothing."""
    full = os.statvfs(tmp_path)  # a real answer, but for what is free
    usage = type("usage", (), {"total": full.f_blocks, "used": full.f_blocks, "free": 0})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    done = restore("--batch_size=1")
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"error: the disk of --output={tmp_path / 'out'} is full; make room: the same command goes on\n"
    )


def test_files_appear_whole_and_errors_name_them(tmp_path):
    def write():
        with writing.whole(tmp_path / "a.csv") as part:
            part.write_text("half")
            raise NO_SPACE

    with pytest.raises(OSError, match=r"No space left on device: .*a\.csv") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x", "sub/x", "x[1]", "50%"])
def test_of_one_image_all_is_written_or_nothing(tmp_path, name):
    """Files of other images, whose names begin alike, stay; of what is there at the end the checksums are right."""
    others = [f"restored/{name}.png.png", f"restored/{name}_00.png", f"samples/{name}_00_01.png"]
    for place in others:
        images.save_image(tmp_path / place, np.zeros((1, 1, 1)))

    def write(error: Exception | None):
        with Bundle(tmp_path, name) as bundle:
            bundle.picture("restored", np.zeros((1, 1, 1)))
            bundle.picture("samples", np.zeros((1, 1, 1)), behind="_00")
            bundle.kernel("kernel", np.ones((3, 3)))
            if error is not None:
                raise error
            return bundle.checksums()

    with pytest.raises(OSError, match="No space"):
        write(NO_SPACE)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {*others}
    found = write(None)
    assert {*found} == {f"restored/{name}.png", f"samples/{name}_00.png", f"kernel/{name}.png", f"kernel/{name}.npy"}
    for place, checksum in found.items():
        assert hashlib.sha256((tmp_path / place).read_bytes()).hexdigest() == checksum


# One image of many.


def test_a_file_that_goes_while_a_job_runs_is_reported(job, photos_folder, capsys):
    prepared = job()
    (photos_folder / "a.png").unlink()
    prepared.run()
    assert list(prepared.failures) == ["a"]
    assert {row["image"] for row in prepared.results.rows} == {"a.png", "b"}
    assert "failed: a: cannot read" in capsys.readouterr().err


GREY = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)


@pytest.mark.parametrize(
    ("suffix", "later"),
    [
        (".png", GREY[:, :6]), (".png", GREY[..., None].repeat(3, -1)), (".npy", GREY[:6] / 255),
        (".npy", GREY / 255 + 0.1j), (".kernel", np.eye(5)),
    ],
)  # fmt: skip
def test_a_file_that_becomes_another_while_a_job_runs_fails_alone(tmp_path, suffix, later):
    """Of another size, in colour, complex; or its kernel: there is no batch of it and others."""
    measured, folder, kernels = suffix == ".npy", tmp_path / "in", tmp_path / "kernels"

    def write(path, array):
        path.parent.mkdir(exist_ok=True)
        np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)

    for name in ("a", "b"):
        write(folder / f"{name}.npy" if measured else folder / f"{name}.png", GREY / 255 if measured else GREY)
        write(kernels / f"{name}.npy", np.eye(3))
    more = {"task": "motion_deblur", "kernel": str(kernels)} if suffix == ".kernel" else {"task": "denoise"}
    more |= {"range": (0.0, 1.0), "measured": True} if measured else {}
    given = {**JOB, **more, "input": str(folder), "output": str(tmp_path / "out"), "batch_size": 2}
    prepared = prepare(resolve(given))
    write(kernels / "a.npy" if suffix == ".kernel" else folder / f"a{suffix}", later)
    prepared.run()
    assert [row["image"] for row in prepared.results.rows] == ["b"]
    assert list(prepared.failures) == ["a"]


def test_a_batch_that_does_not_fit_in_memory_is_reported(job, capsys):
    prepared, count = job(), 0
    run = prepared.restorer

    class Failing:
        """The job's own, which finds no memory for its first batch."""

        check = run.check

        def __call__(self, *args):
            nonlocal count
            count += 1
            if count == 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 3 bytes")
            return run(*args)

    prepared.restorer = Failing()
    prepared.run()
    assert prepared.failures == {"a": "RESOURCE_EXHAUSTED: Out of memory; lower --batch_size, now 1"}
    assert {row["image"] for row in prepared.results.rows} == {"a.png", "b"}
    assert capsys.readouterr().err.count("failed: ") == 1


# Neighbours.


def test_a_neighbour_of_the_same_stem_changes_nothing(restore, photos_folder, tmp_path):
    """a.jpg comes to a finished job: the others stay as they are, and it gets a name and figures of its own."""
    assert restore().returncode == 0
    restored = tmp_path / "out" / "restored"
    before = tree(restored)
    Image.open(SAMPLES / "clothing_015.png").convert("L").resize((8, 8)).save(photos_folder / "a.jpg")
    done = restore()
    assert done.returncode == 0, done.stderr
    after = tree(restored)
    assert after.keys() - before.keys() == {str(restored / "a.jpg.png")}
    assert {k: v for k, v in after.items() if k in before} == before
    assert {r["image"]: r["file"] for r in rows(tmp_path / "out" / "files.csv")} == {
        "a": "a.png", "a.png": "a.png.png", "b": "b.png", "a.jpg": "a.jpg",
    }  # fmt: skip
    alone = restore(f"--input={photos_folder / 'a.jpg'}", f"--output={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    for kind in ("restored", "measurement"):
        pictures = (tmp_path / "alone" / kind / "a.png", tmp_path / "out" / kind / "a.jpg.png")
        np.testing.assert_array_equal(*(np.asarray(Image.open(p)) for p in pictures))


def test_a_job_does_not_restore_its_own_results(restore, photos_folder):
    for _ in range(2):
        assert restore(f"--output={photos_folder / 'out'}").returncode == 0
    assert len(rows(photos_folder / "out" / "metrics.csv")) == 3
    line = refused(restore(f"--output={photos_folder}"))
    assert "is --input itself" in line


# Two jobs.

HOLD = """
import sys
from cvsa_jax.jobs.folder_lock import FolderLock
import pathlib
lock = FolderLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_two_jobs_do_not_write_into_one_folder(restore, tmp_path):
    """The second is refused while the first lives; a killed one holds nothing."""
    out = tmp_path / "out"
    assert restore().returncode == 0
    before = tree(out / "restored")
    environment = os.environ | {"PYTHONPATH": str(SAMPLES.parent.parent)}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for more in ((), ("--overwrite",)):
            line = refused(restore(*more))
            assert f"--output={out} is being written to by another job (process {other.pid} on " in line
        with pytest.raises(InputError, match="is being written to by another job"):
            FolderLock(out)
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert tree(out / "restored") == before
    done = restore()
    assert done.returncode == 0, done.stderr


def test_a_job_that_was_overtaken_begins_again(job):
    """It was prepared before another one wrote: it does not write its older account over that."""
    first = job()
    folder, settings = first.results.folder, records.plain(first.job.record())
    columns = measures.columns(first.job.task)
    older = Ledger(folder, columns, settings, overwrite=False)
    first.run()
    assert Ledger(folder, columns, settings, overwrite=True).rows == []
    with pytest.raises(InputError, match="another job has just written to"):
        older.begin({"settings": settings})
    older.release()
    assert len(rows(folder / "metrics.csv")) == 3


def test_a_folder_may_be_held_again(tmp_path):
    """By this process, and by others once it is released."""
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.release()
    second.release()
    assert not list(tmp_path.iterdir())
    FolderLock(tmp_path).release()


# The machine.


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_device_is_one_line_of_every_verb(run_verb, monkeypatch, verb):
    def missing():
        raise RuntimeError("Unable to initialize backend 'cuda'\nand more")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", missing)
    line = refused(run_verb(verb))
    assert line == (
        "error: JAX_PLATFORMS=cuda: this machine has no such device (Unable to initialize backend 'cuda'); "
        "unset it, or give JAX_PLATFORMS=cpu\n"
    )
    assert run_verb(verb, "--help").returncode == 0


def test_the_process_itself_says_that_a_device_is_missing(run_program):
    """Of a verb whose module makes arrays when it is read."""
    done = run_program("benchmark", JAX_PLATFORMS="none_such")
    assert refused(done).startswith("error: JAX_PLATFORMS=none_such: this machine has no such device")


def test_errors_of_files_have_no_numbers(capsys):
    with pytest.raises(SystemExit), commands.user_errors(InputError):
        pathlib.Path("/none/such").read_text()
    assert capsys.readouterr().err == "error: /none/such: No such file or directory\n"
