"""Jobs that are stopped, killed, damaged or shared out give the files of one that nothing happened to."""

import csv
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, free_address
from PIL import Image

from cvsa_jax import operators, writing
from cvsa_jax.jobs import grid, manifest, prepare, records, resolve
from cvsa_jax.jobs.folder_lock import FolderLock
from cvsa_jax.jobs.ledger import Ledger
from cvsa_jax.jobs.manifest import Manifest
from cvsa_jax.jobs.outputs import Results
from cvsa_jax.jobs.shards import WHOLE, Writer, parse
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.types import InputError

CLASSICAL = {"task": "sr2", "method": "classical", "noise_std": 0.05}
IMAGES, BATCH, KILLS = 200, 16, 5
WAIT = 120  # seconds after which a job that hangs fails


def make_images(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Random pictures of 8x8."""
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def some_images(tmp_path) -> pathlib.Path:
    return make_images(tmp_path / "in", 6)


@pytest.fixture
def run(some_images, tmp_path):
    """A classical job of these images in a folder below; its folder."""

    def run(name: str, **more) -> pathlib.Path:
        out = tmp_path / name
        prepare(resolve({**CLASSICAL, "input": str(some_images), "output": str(out), **more})).run()
        return out

    return run


def rows(path: pathlib.Path) -> list[dict]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def contents(out: pathlib.Path) -> dict[str, object]:
    """Every file of a job, without times and places; the manifests as what they say together."""
    found: dict[str, object] = {}
    for path in (p for p in out.rglob("*") if p.is_file() and p.name != ".lock"):
        name = str(path.relative_to(out))
        if not name.startswith("manifest"):
            found[name] = rows(path) if path.name == "metrics.csv" else path.read_bytes()
    summary = json.loads(found.pop("summary.json"))  # type: ignore[arg-type]
    summary["means"].pop("seconds")
    found["summary.json"] = {k: v for k, v in summary.items() if k not in ("command", "versions", "performance")}
    account = manifest.read(out)
    kept = ("file", "files", "residuals", "settings", "warning")
    found["manifest"] = {name: [line[k] for k in kept] for name, line in account.done.items()}
    return found


class Killed(BaseException):
    """In place of SIGKILL."""


class Killer:
    """Kills a job at its N-th moment: the folder is then put back to what it was at that moment.

    A moment is just before or after a file gets its name, or amid a line of the manifest: what had been written by
    then is what SIGKILL would have left. Whatever the job does after it, such as to tidy up, is undone.
    """

    def __init__(self, monkeypatch, out: pathlib.Path):
        self._out, self._copy = out, out.with_name("at_the_kill")
        self._left, self.moments = -1, 0
        replace, append = os.replace, Manifest.append

        def replacing(source, target):
            self._pass()
            replace(source, target)
            self._pass()

        def appending(own, *lines):
            torn = self._left == 0
            if torn:
                own._file.write(json.dumps(lines[-1]).encode()[: 20 * len(lines)])
            self._pass()
            append(own, *lines)

        monkeypatch.setattr(writing.os, "replace", replacing)
        monkeypatch.setattr(Manifest, "append", appending)

    def _pass(self) -> None:
        self.moments += 1
        if self._left == 0 and not self._copy.exists():
            shutil.copytree(self._out, self._copy)
        if self._copy.exists():
            raise Killed
        self._left -= 1

    def at(self, moment: int, run) -> None:
        """Run a job and kill it at a moment from now."""
        self._left = moment
        try:
            run()
        except Killed:
            shutil.rmtree(self._out)
            self._copy.rename(self._out)
        self._left = -1


def test_a_job_that_is_killed_several_times_gives_every_file_bit_for_bit(tiny_checkpoint, tmp_path, monkeypatch):
    """200 images, killed at five random moments; what was done before a kill is not done again."""
    given = {"task": "sr2", "checkpoint": str(tiny_checkpoint), "num_steps": 2, "num_samples": 1, "batch_size": BATCH}
    given["noise_std"] = 0.4  # none is warned of, so that its moments are those of files
    given |= {"input": str(make_images(tmp_path / "in", IMAGES))}
    programs = None

    def job(name: str):
        nonlocal programs
        prepared = prepare(resolve({**given, "output": str(tmp_path / name)}))
        programs = prepared.restorer = programs or prepared.restorer  # compiled once
        return prepared

    out, generator = tmp_path / "killed", np.random.default_rng(0)
    killer, before, written = Killer(monkeypatch, out), 0, []
    write = Results.write
    monkeypatch.setattr(Results, "write", lambda own, *args: written.append(own.folder.name) or write(own, *args))
    for _ in range(KILLS):
        killer.at(int(generator.integers(0, 2 * 9 * IMAGES // KILLS)), lambda: job("killed").run())
        done = len(manifest.read(out).done)
        assert before <= done < IMAGES
        before = done
    assert before > IMAGES / 4
    job("killed").run()
    assert written.count("killed") <= IMAGES + KILLS  # beside all images those that were being written
    job("whole").run()
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("moment", [0, 1, 2, 3, 5, 9, 40])
def test_a_kill_at_any_moment_of_a_short_job(run, tmp_path, monkeypatch, moment):
    """Also as it begins, when its folder is hardly one."""
    killer = Killer(monkeypatch, tmp_path / "killed")
    killer.at(moment, lambda: run("killed"))
    assert contents(run("killed")) == contents(run("whole"))


@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_a_damaged_image_is_done_again_and_no_other(run, capsys, harm):
    out = run("out")
    before = contents(out)
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("00[!3].*")}
    victim = out / "restored" / "003.png"
    data = victim.read_bytes()
    victim.unlink()
    if harm != "gone":
        victim.write_bytes(data[:-1] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    capsys.readouterr()
    run("out")
    told = [line for line in capsys.readouterr().err.splitlines() if "restored" in line]
    assert told == ["done again: 003 (restored/003.png), missing, damaged or changed"]
    assert contents(out) == before
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_a_line_that_was_cut_costs_its_image_alone(run):
    out = run("out")
    before, path = contents(out), out / "manifest.jsonl"
    text = path.read_bytes()
    last = text.rindex(b"\n", 0, -1) + 1
    for length in (0, 1, 40, len(text) - last - 1):
        path.write_bytes(text[: last + length])
        assert len(manifest.read(out).done) == 5
        run("out")
        assert contents(out) == before


def test_a_folder_of_a_version_without_manifests_is_continued(run, some_images, tmp_path):
    out = run("out", limit=4)
    figures = rows(out / "metrics.csv"), rows(out / "residuals.csv")
    (out / "manifest.jsonl").unlink()
    stamps = {p: p.stat().st_mtime_ns for p in (out / "restored").iterdir()}
    run("out")
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert (rows(out / "metrics.csv")[:4], rows(out / "residuals.csv")[:4]) == figures
    found, whole = contents(out), contents(run("whole"))
    for one in (found, whole):
        del one["manifest"]  # no checksums of the older ones
    assert found == whole


def test_what_was_left_half_written_is_cleared(run, some_images):
    """But no folder that is called as such files are."""
    (some_images / "x.part").mkdir()
    shutil.copy(some_images / "000.png", some_images / "x.part" / "y.png")
    out = run("out")
    for place in ("grid.png.part", "restored/zzz.png.part", "restored/x.part/zzz.png.part"):
        (out / place).write_text("half")
    run("out")
    assert not [p for p in out.rglob("*.part") if p.is_file()]
    assert (out / "restored" / "x.part" / "y.png").exists()


# Shards.


def test_every_image_is_of_one_shard_whatever_the_others_are():
    names = [f"photo{i}" for i in range(3000)]
    for count in (1, 2, 3, 8):
        shares = [{n for n in names if Writer(i, count).takes(n)} for i in range(count)]
        assert sum(map(len, shares)) == len(names)
        assert set().union(*shares) == {*names}
        assert all(0.8 < len(share) * count / len(names) < 1.2 for share in shares)
    assert [n for n in names[:8] if Writer(0, 2).takes(n)] == ["photo0", "photo1", "photo5", "photo6", "photo7"]


def test_no_two_writers_have_a_manifest_or_a_lock_in_common():
    """Processes of shards too; and what a process does is of its shard."""
    writers = [Writer(i, 3, p, 2) for i, p in itertools.product(range(3), range(2))]
    assert {w.part for w in writers} == {*range(6)}
    assert {w.manifest for w in writers} == {f"manifest.{k}-of-6.jsonl" for k in range(1, 7)}
    assert all(manifest.NAMES.fullmatch(w.manifest) for w in (WHOLE, *writers))
    assert [w.makes_tables for w in writers] == [True, False] * 3


def test_shards_at_once_give_the_files_of_one_job(run, some_images, tmp_path, capsys):
    """Both begin before the first ends; the last says what is done of all, the first what is missing."""
    given = {**CLASSICAL, "input": str(some_images), "output": str(tmp_path / "out"), "report": True}
    first, second = (prepare(resolve({**given, "shard": f"{i}/2"})) for i in (1, 2))
    assert {e.name for e in first.entries}.isdisjoint(e.name for e in second.entries)
    second.run()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["missing"] == {"count": len(first.entries), "names": [e.name for e in first.entries]}
    first.run()
    assert {p.name for p in (tmp_path / "out").glob("*.jsonl")} == {"manifest.1-of-2.jsonl", "manifest.2-of-2.jsonl"}
    found, whole = contents(tmp_path / "out"), contents(run("whole"))
    assert found == whole
    assert len(whole["metrics.csv"]) == 6  # type: ignore[arg-type]
    # A whole job finds nothing to do, and what is damaged is of the shard that it is of.
    assert prepare(resolve({**given, "output": str(tmp_path / "out")})).entries == []
    (tmp_path / "out" / "restored" / f"{first.entries[0].name}.png").unlink()
    again = [prepare(resolve({**given, "shard": f"{i}/2"})) for i in (1, 2)]
    assert [len(one.entries) for one in again] == [1, 0]
    again[1].run()
    again[0].run()
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("kind", ["restored", "measurement", "truth"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_file_of_another_shard_that_goes_does_not_fail_this_one(run_restore, some_images, tmp_path, kind, cut):
    """Or is cut: its image is not in the grid, the page says so, and all others are in both."""
    flags = [f"--{k}={v}" for k, v in CLASSICAL.items()] + [f"--input={some_images}", f"--output={tmp_path / 'out'}"]
    assert run_restore(*flags, "--shard=1/2").returncode == 0
    name = next(n for n in (f"{i:03d}" for i in range(6)) if Writer(0, 2).takes(n))
    path = tmp_path / "out" / kind / f"{name}.png"
    path.write_bytes(path.read_bytes()[:40]) if cut else path.unlink()
    done = run_restore(*flags, "--shard=2/2", "--report")
    assert (done.returncode, done.stderr.count("error")) == (0, 0)
    assert len(rows(tmp_path / "out" / "metrics.csv")) == 6
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("not shown: ") == (kind != "truth" and not cut)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvsa_jax.plots.save_grid", lambda path, rows, titles, scale: drawn.append((rows, titles)))
        grid.draw(tmp_path / "out", [f"{i:03d}" for i in range(6)], False)
    assert [(sum(map(len, rows)), titles[:3]) for rows, titles in drawn] == [(15, ["truth", "measurement", "restored"])]


HOLD = """
import pathlib, sys
from cvsa_jax.jobs.folder_lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]), 1, 4)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_shard_excludes_itself_and_other_divisions(tmp_path):
    """Another process holds 2/4: 1/4 goes with it, 2/4, 1/3 and a whole job do not, until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    cleared = []
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for part, parts, holder in ((1, 4, f"process {other.pid} on "), (0, 3, "one of the 4"), (0, 1, "one of the 4")):
            with pytest.raises(InputError, match=rf"is being written to by another job \({holder}"):
                FolderLock(tmp_path, part, parts, lambda: cleared.append(1))
        beside = FolderLock(tmp_path, 0, 4, lambda: cleared.append(1))
        with beside.tables():
            pass
        beside.release()
        assert (tmp_path / ".lock").exists()  # the other one has it
        assert cleared == []
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    FolderLock(tmp_path, 0, 1, lambda: cleared.append(1)).release()
    assert cleared == [1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["0/4", "5/4", "a", "4", "1/", "-1/2", "1/0", "1/2/3", "", "1.0/2", "٣/٤"])
def test_a_bad_shard_is_one_line(run_restore, some_images, tmp_path, text):
    done = run_restore("--task=sr2", f"--input={some_images}", f"--output={tmp_path / 'out'}", f"--shard={text}")
    assert done.returncode == 1
    assert done.stderr == f"error: shard must be I/N with I from 1 to N, as in 2/4; got {text!r}\n"
    assert not (tmp_path / "out").exists()


def test_a_shard_of_no_images_ends_well(run_restore, some_images, tmp_path):
    """And of another job it is refused; it does not overwrite."""
    flags = [f"--{k}={v}" for k, v in CLASSICAL.items()] + [f"--input={some_images}", f"--output={tmp_path / 'out'}"]
    number = next(i for i in range(50) if not any(Writer(i, 50).takes(f"{n:03d}") for n in range(6)))
    done = run_restore(*flags, f"--shard={number + 1}/50")
    assert (done.returncode, done.stderr.count("error")) == (0, 0)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["missing"]["count"] == 6
    other = run_restore(*flags, "--shard=1/50", "--seed=1")
    assert (other.returncode, "holds a job with other settings" in other.stderr) == (1, True)
    anew = run_restore(*flags, "--shard=1/50", "--overwrite")
    assert (anew.returncode, "would remove what other shards did" in anew.stderr) == (1, True)


def test_the_processes_of_a_job_share_its_folder(run, some_images, tmp_path, monkeypatch):
    """Each writes its manifest; process 0 makes the tables of what all have done."""
    monkeypatch.setattr(Writer, "meet", lambda own, where: None)
    both = []
    for process in (0, 1):
        writer = Writer(process=process, processes=2)
        monkeypatch.setattr("cvsa_jax.jobs.outputs.writer_of", lambda shard, writer=writer: writer)
        both.append(prepare(resolve({**CLASSICAL, "input": str(some_images), "output": str(tmp_path / "out")})))
        both[-1].entries[:] = both[-1].entries[process::2]
    both[1].fail("999", "a reason")
    both[1].run()
    assert rows(tmp_path / "out" / "metrics.csv") == []
    both[0].run()
    monkeypatch.undo()
    assert contents(tmp_path / "out") == contents(run("whole"))
    assert len((tmp_path / "out" / "manifest.2-of-2.jsonl").read_text().splitlines()) == 4


# What a folder says.


def test_the_last_that_was_said_of_an_image_holds(tmp_path):
    """Whatever the clocks of the machines; failures and warnings go with what is done again."""
    early, late = Manifest(tmp_path / "manifest.1-of-2.jsonl"), Manifest(tmp_path / "manifest.2-of-2.jsonl")
    facts = {"file": "a.png", "files": {}, "row": {}, "residuals": [], "settings": "0", "warning": None}
    early.append({"event": manifest.DONE, "image": "a", "time": 1e12, **facts})
    early.append({"event": manifest.WARNED, "image": "a", "time": 1e12, "text": "look"})
    account = manifest.read(tmp_path)
    assert (account.done.keys(), account.warnings) == ({"a"}, {"a": "look"})
    late.append(account.line(manifest.AGAIN, "a"))
    account = manifest.read(tmp_path)
    assert (account.done, account.warnings) == ({}, {})
    late.append(account.line(manifest.FAILED, "a", why="no room"))
    assert manifest.read(tmp_path).failures == {"a": "no room"}
    early.append(manifest.read(tmp_path).line(manifest.DONE, "a", **facts))
    account = manifest.read(tmp_path)
    assert (account.done.keys(), account.failures) == ({"a"}, {})


def test_names_that_two_shards_give_differently_are_refused(tmp_path):
    """They listed a folder before and after a file came, and neither had written yet."""
    record = {"settings": {"tile": None}}
    first, second = (Ledger(tmp_path, ["psnr"], record["settings"], False, Writer(i, 2)) for i in (0, 1))
    first.files.update({"b": "b.jpg"})
    second.files.update({"b": "b.png", "b.jpg": "b.jpg"})
    first.begin(record)
    with pytest.raises(InputError, match="another job has just written to"):
        second.begin(record)
    second.release()
    first.release()


def test_a_name_that_was_given_is_never_given_up(tmp_path):
    """Whichever shard begins or ends first, whatever each of them listed; nor where files.csv is lost."""
    record = {"settings": {"tile": None}}
    ledger = lambda i: Ledger(tmp_path, ["psnr"], record["settings"], False, Writer(i, 2))  # noqa: E731
    for last in (0, 1):
        first, second = ledger(0), ledger(1)
        for one, name in ((first, f"a{last}"), (second, f"b{last}")):
            one.files[name] = f"{name}.jpg"
            one.begin(record)
            one.add(name, "", {}, {}, [])
        for one in (first, second)[:: 1 - 2 * last]:
            with one.tables():
                pass
            one.release()
        named = {f"{name}{i}": f"{name}{i}.jpg" for name in "ab" for i in range(last + 1)}
        assert {row["image"]: row["file"] for row in rows(tmp_path / "files.csv")} == named
    (tmp_path / "files.csv").unlink()
    assert ledger(0).files == named


def test_what_a_process_does_again_counts_whatever_its_clock(tmp_path, monkeypatch):
    """Process 0 takes back what is damaged, an hour ahead of the other that does it."""
    record, facts = {"settings": {"tile": None}}, ("a", "", {"restored/a.png": "0"}, {}, [])
    clock = 1e9
    monkeypatch.setattr("cvsa_jax.jobs.manifest.time.time", lambda: clock)
    for again in range(2):
        first, second = (
            Ledger(tmp_path, ["psnr"], record["settings"], False, Writer(process=p, processes=2)) for p in range(2)
        )
        assert (first.damaged, second.damaged) == ({"a": "restored/a.png"} if again else {},) * 2
        clock += 3600 * again
        first.begin(record)
        clock -= 3600 * again
        second.join()
        assert not (first.done or second.done)
        second.add(*facts)
        assert second.done == manifest.read(tmp_path).done.keys() == {"a"}
        for ledger in (first, second):
            ledger.release()


def test_every_warning_of_an_image_is_kept_once(tmp_path):
    """What was said of its measurement, and of its answer; also where a start says it again."""
    for text in ("its noise", "its noise", None):
        ledger = Ledger(tmp_path, ["psnr"], {"tile": None}, False)
        ledger.begin({"settings": {"tile": None}})
        if text is None:
            ledger.add("a", "", {}, {}, [], "its residual; its range")
        else:
            ledger.warn("a", text)
        ledger.summarise({"settings": {"tile": None}})
        ledger.release()
    found = {"a": "its noise; its residual; its range"}
    assert ledger.warnings == manifest.read(tmp_path).warnings == found
    assert records.read_json(tmp_path / "summary.json")["warnings"] == found


def test_another_tile_that_was_settled_meanwhile_is_refused(tmp_path):
    first, second, third = (Ledger(tmp_path, ["psnr"], {"tile": None}, False, Writer(i, 3)) for i in range(3))
    first.begin({"settings": {"tile": 512}})
    with pytest.raises(InputError, match="another job has just written to"):
        second.begin({"settings": {"tile": 128}})
    third.begin({"settings": {"tile": None}})
    assert records.read_json(tmp_path / "summary.json")["settings"]["tile"] == 512
    for ledger in (first, second, third):
        ledger.release()


def test_results_of_other_settings_are_never_mixed(run, tmp_path):
    """Nor where summary.json is that of another job."""
    out, other = run("out"), run("other", seed=1)
    shutil.copy(other / "summary.json", out / "summary.json")
    with pytest.raises(InputError, match="holds a job with other settings"):
        run("out", seed=1)


# SIGTERM.


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_sigterm_ends_a_job_after_its_batch(run_restore, run, some_images, tmp_path, monkeypatch, more):
    """With exit code 0, its tables, and what is left; and says which command goes on: not one that begins anew."""
    flags = [f"--{k}={v}" for k, v in CLASSICAL.items()] + [f"--input={some_images}", "--batch_size=1"]
    flags.append(f"--output={tmp_path / 'out'}")
    write, before = Results.write, signal.getsignal(signal.SIGTERM)

    def writing_one(own, *args):
        write(own, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", writing_one)
        patch.setattr("cvsa_jax.jobs.streaming.ahead", lambda *_: 1)  # the loop is two images ahead at most
        done = run_restore(*flags, *more)
    assert done.returncode == 0, done.stderr
    finished = len(rows(tmp_path / "out" / "metrics.csv"))
    left = 6 - finished
    assert 0 < finished < 6
    command = " ".join(["the same command", *(f"without {flag}" for flag in more)])
    assert f"stopped {tmp_path / 'out'}: {left} images left; {command} goes on from here\n" in done.stdout
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["missing"]["count"] == left
    assert signal.getsignal(signal.SIGTERM) == before
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "restored").iterdir()}
    assert run_restore(*flags).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert contents(tmp_path / "out") == contents(run("whole"))
    with monkeypatch.context() as patch:
        patch.setattr("cvsa_jax.jobs.run.restore_all", lambda _: signal.raise_signal(signal.SIGINT))
        done = run_restore(*flags, *more)
    assert (done.returncode, done.stderr) == (130, f"\nstopped; {command} goes on from here\n")


def test_a_program_of_several_jobs_ends_with_the_one_that_was_stopped(run_verb, some_images, tmp_path, monkeypatch):
    write = Results.write

    def writing_one(own, *args):
        write(own, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Results, "write", writing_one)
    done = run_verb(
        "ablate", "--task=sr2", "--method=classical", f"--input={some_images}", f"--output={tmp_path / 'out'}",
        "--batch_size=1", "--sweep=noise_std=.05,.1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "; the same command goes on from here\n" in done.stdout
    assert not (tmp_path / "out" / "noise_std=.1").exists()


def test_numbers_of_shards_are_read():
    assert parse(None) == (1, 1)
    assert parse("2/4") == (2, 4)


class Pair:
    """A job of two processes."""

    def __init__(self, out: pathlib.Path, **given):
        given |= {"output": out, "coordinator": free_address(), "num_processes": 2, "process_timeout": 10}
        command = [sys.executable, "-m", "cvsa_jax", "restore", *(f"--{k}={v}" for k, v in given.items())]
        variables = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        started = lambda i: subprocess.Popen([*command, f"--process_id={i}"], env=variables, stderr=subprocess.PIPE)  # noqa: E731
        self.out, self.processes = out, [started(i) for i in range(2)]

    def finished(self) -> int:
        """How many images the second has on record."""
        own = self.out / "manifest.2-of-2.jsonl"
        return len(own.read_bytes().splitlines()) if own.exists() else 0

    def end(self) -> list[int]:
        """The exit codes."""
        try:
            for p in self.processes:
                p.communicate(timeout=WAIT)
        finally:
            for p in self.processes:
                p.kill()
        return [p.returncode for p in self.processes]


def test_of_two_processes_one_is_killed_and_nothing_is_lost(tiny_checkpoint, tmp_path):
    """SIGKILL amid a job of both: the other ends with an error, and the same two commands complete the folder.

    What it has then is what one process makes, to the rounding of a level.
    """
    given = {"task": "sr2", "checkpoint": str(tiny_checkpoint), "num_steps": 40, "num_samples": 1, "batch_size": 4}
    given |= {"noise_std": 0.4, "input": str(make_images(tmp_path / "in", 24))}
    killed, began = Pair(tmp_path / "killed", **given), time.monotonic()
    while not killed.finished() and killed.processes[1].poll() is None and time.monotonic() < began + WAIT:
        time.sleep(0.01)
    killed.processes[1].kill()
    codes = killed.end()
    assert codes[0] != 0 and codes[1] == -signal.SIGKILL
    before = {name: line["files"] for name, line in manifest.read(killed.out).done.items()}
    assert 0 < len(before) < 24
    stamps = {p: p.stat().st_mtime_ns for name in before for p in killed.out.glob(f"restored/{name}.*")}
    assert Pair(killed.out, **given).end() == [0, 0]
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    prepare(resolve({**given, "output": str(tmp_path / "whole")})).run()
    names, others = (
        {p.relative_to(out) for p in out.rglob("*.*") if p.suffix != ".jsonl"}
        for out in (killed.out, tmp_path / "whole")
    )
    assert names == others and len(manifest.read(killed.out).done) == 24
    for name in (name for name in names if name.suffix == ".png" and len(name.parts) > 1):
        one, other = (np.asarray(Image.open(out / name), int) for out in (killed.out, tmp_path / "whole"))
        assert np.abs(one - other).max() <= 1


# Files that change behind their paths.


def test_a_file_that_a_setting_names_may_not_change_under_a_job(run, tmp_path):
    """Of whatever setting; a shard that began at once with another is refused as it begins."""
    kernel, stored, generator = tmp_path / "k.npy", tmp_path / "h.npz", np.random.default_rng(0)

    def write(array):
        np.save(kernel, array)
        operators.save_operator(stored, operators.make_operator("motion_deblur", generator, 8, 8))

    write(np.ones((3, 3)) / 9)
    given = {"kernel": {"task": "motion_deblur", "kernel": str(kernel)}}
    given["operator"] = {"task": "motion_deblur", "operator": str(stored)}
    for name, more in given.items():
        run(name, limit=1, **more)
    place = {"input": str(tmp_path / "in"), "output": str(tmp_path / "at_once")}
    late = Results(resolve({**CLASSICAL, **given["kernel"], **place, "shard": "1/2"}), False)
    write(np.eye(3) / 3)
    before = {name: contents(tmp_path / name) for name in given}
    for name, more in given.items():
        with pytest.raises(InputError, match=rf"--{name}=.* has changed since the job began; give --overwrite"):
            run(name, **more)
    assert {name: contents(tmp_path / name) for name in given} == before
    run("at_once", shard="2/2", **given["kernel"])
    with pytest.raises(InputError, match=r"--kernel=.* has changed since the job began"):
        late.begin()
    kernels = run("kernel", overwrite=True, **given["kernel"]) / "operator"
    assert np.load(kernels / "001.npy").shape == (3, 3)
    assert np.ptp(np.load(kernels / "001.npy")) > 0.3


def test_a_prior_and_its_arithmetic_may_not_change_under_a_job(tiny_checkpoint, some_images, tmp_path, monkeypatch):
    """By what is loaded of a prior; a copy of it elsewhere is another setting, a picture in its folder is nothing."""
    prior = shutil.copytree(tiny_checkpoint, tmp_path / "prior")
    given = {"task": "denoise", "input": str(some_images), "output": str(tmp_path / "out"), "num_steps": 2, "limit": 1}
    given |= {"checkpoint": str(prior), "num_samples": 1}
    prepare(resolve(given)).run()
    (prior / "samples.png").write_bytes(b"new")
    assert prepare(resolve(given)).left == 0
    with monkeypatch.context() as patch:
        patch.setattr(NetworkSpec, "arithmetic", lambda self, dtype=None: dtype or "bfloat16")
        with pytest.raises(InputError, match="was begun in float32, and here the network computes in bfloat16"):
            prepare(resolve(given))
    record = json.loads((prior / "prior.json").read_text())
    (prior / "prior.json").write_text(json.dumps(record | {"training": {"again": True}}))
    with pytest.raises(InputError, match=r"--checkpoint=.* has changed since the job began"):
        prepare(resolve(given))


def test_an_image_whose_own_files_change_is_done_again_and_no_other(run, some_images, tmp_path, capsys):
    """Its input, and its mask of a folder; the other images stay as they are."""
    (masks := tmp_path / "m").mkdir()
    for i in range(6):
        np.save(masks / f"{i:03d}.npy", np.eye(8))
    given = {"task": "mask_inpaint", "mask": str(masks)}
    first = contents(out := run("out", **given))
    times = {p.name: p.stat().st_mtime_ns for p in (out / "restored").iterdir()}
    np.save(masks / "002.npy", 1 - np.eye(8))
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(some_images / "004.png")
    capsys.readouterr()
    run("out", **given)
    told = capsys.readouterr().err
    assert (
        f"done again: 002 ({masks / '002.npy'}), 004 ({some_images / '004.png'}), missing, damaged or changed" in told
    )
    again = {n for n, t in times.items() if (out / "restored" / n).stat().st_mtime_ns != t}
    assert again == {"002.png", "004.png"}
    assert contents(out) == contents(run("whole", **given)) != first
    run("out", **given)
    assert "done again" not in capsys.readouterr().err


def test_a_folder_that_recorded_no_digests_is_continued(run, tmp_path):
    """Of an earlier version: it knows of no file what it was."""
    whole = contents(out := run("out"))
    summary = json.loads((out / "summary.json").read_text())
    summary.pop("made_of")
    (out / "summary.json").write_text(json.dumps(summary))
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()][:4]
    for line in lines:
        line.pop("origin")
    (out / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert contents(run("out")) == whole
