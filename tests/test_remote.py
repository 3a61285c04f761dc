"""Jobs whose files lie on a bucket, which memory:// stands for, give what they give here."""

import csv
import gc
import json
import sys
import time

import fsspec
import numpy as np
import pytest
from PIL import Image

from cvsa_jax import remote
from cvsa_jax.jobs import places, prepare, resolve
from cvsa_jax.jobs.outputs import Results
from cvsa_jax.jobs.shards import Writer
from cvsa_jax.types import InputError

GIVEN = {"task": "sr2", "method": "classical", "noise_std": 0.05, "batch_size": 2}
FREE = ("metrics.csv", "summary.json")  # which have times in them


@pytest.fixture
def bucket():
    """An empty memory://; contents by path."""
    system = fsspec.filesystem("memory")

    def empty():
        system.store.clear()
        system.pseudo_dirs[:] = [""]

    empty()
    yield system
    empty()


@pytest.fixture
def images(tmp_path, bucket):
    """Six pictures of 8x8, here and at memory://b/in, one of them deeper."""
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)):
        path = tmp_path / "in" / ("deep" if i == 5 else "") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        bucket.pipe_file(f"/b/in/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    return tmp_path / "in"


@pytest.fixture
def run(images):
    def run(output, source="memory://b/in", **more) -> Results:
        prepared = prepare(resolve({**GIVEN, "input": str(source), "output": str(output), **more}))
        prepared.run()
        return prepared.results

    return run


def stored(bucket, folder: str) -> dict[str, bytes]:
    """Every file of a folder of the bucket, by its path below; the manifests apart."""
    found = {name[len(folder) + 1 :]: bucket.cat_file(name) for name in bucket.find(folder)}
    return {name: data for name, data in found.items() if not name.startswith("manifest")}


def pictures(bucket, folder: str) -> dict[str, bytes]:
    return {name: data for name, data in stored(bucket, folder).items() if name not in FREE}


def summary(bucket, folder: str) -> dict:
    return json.loads(bucket.cat_file(f"{folder}/summary.json"))


def figures(table: bytes) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(table.decode().splitlines())]


def events(bucket, path: str) -> list[tuple[str, str]]:
    return [(line["event"], line["image"]) for line in map(json.loads, bucket.cat_file(path).splitlines())]


def within(true, seconds: float = 10) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("form", [None, "npy"])
def test_a_job_on_a_bucket_gives_the_files_of_one_here(run, bucket, images, tmp_path, capsys, form):
    run(here := tmp_path / "out", images, format=form)
    folder = run("memory://b/out", format=form).folder
    theirs = {p.relative_to(here).as_posix(): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    own = {name: data for name, data in theirs.items() if name not in (*FREE, "manifest.jsonl", ".lock")}
    assert len(own) > 20
    assert pictures(bucket, "/b/out") == own
    assert stored(bucket, "/b/out").keys() == own.keys() | {*FREE}
    assert figures(stored(bucket, "/b/out")["metrics.csv"]) == figures(theirs["metrics.csv"])
    told = bucket.cat_file("/b/out/summary.json").decode() + capsys.readouterr().err
    assert "--output=memory://b/out" in told
    assert str(folder) not in told


def test_pictures_leave_the_temporary_folders(run, bucket, monkeypatch):
    """But for those that the grid is made of; and all of it goes with the job."""
    left, end = [], places.RemotePlace.end
    monkeypatch.setattr(places.RemotePlace, "end", lambda own: left.extend(own.folder.rglob("*.*")) or end(own))
    monkeypatch.setattr(places.grid, "IMAGES", 2)
    root = run("memory://b/out").folder
    assert {path.name for path in left if path.parent.name == "truth"} == {"000.png", "001.png"}
    gc.collect()
    assert not root.exists()


def test_a_job_that_is_killed_goes_on_and_what_is_removed_or_cut_is_done_again(run, bucket, monkeypatch, capsys):
    class Killed(BaseException):
        """In place of SIGKILL."""

    put, count = remote.Folder.put, 0

    def killed(own, *args):
        raise Killed

    def putting(own, names):
        nonlocal count
        count += 1
        if count == 6:  # behind the record, the tables, three images
            within(lambda: len(events(bucket, "/b/out/manifest.jsonl")) == 3)
            monkeypatch.setattr(remote.Folder, "put_bytes", killed)
            raise Killed
        put(own, names)

    monkeypatch.setattr(places, "PAUSE", 0.0)
    monkeypatch.setattr(remote.Folder, "put", putting)
    with pytest.raises(Killed):
        run("memory://b/out")
    monkeypatch.undo()
    run("memory://b/out")
    assert len(events(bucket, "/b/out/manifest.jsonl")) == 6  # none of the first three again
    run("memory://b/whole")
    assert pictures(bucket, "/b/out") == pictures(bucket, "/b/whole")
    bucket.rm_file("/b/out/restored/deep/005.png")
    bucket.pipe_file("/b/out/truth/001.png", b"short")
    capsys.readouterr()
    run("memory://b/out")
    told = "done again: 001 (truth/001.png), deep/005 (restored/deep/005.png), missing, damaged or changed"
    assert told in capsys.readouterr().err
    assert events(bucket, "/b/out/manifest.jsonl")[6:] == [
        ("again", "001"), ("again", "deep/005"), ("done", "001"), ("done", "deep/005")
    ]  # fmt: skip
    assert pictures(bucket, "/b/out") == pictures(bucket, "/b/whole")


def test_an_image_counts_once_all_its_files_are_there(run, bucket, monkeypatch):
    """A line of the manifest never names what the bucket does not have."""
    pipe = remote.Folder.put_bytes

    def checked(own, name, data):
        for line in map(json.loads, data.splitlines()):
            assert {f"/b/out/{file}" for file in line["files"]} <= {*bucket.find("/b/out")}
        pipe(own, name, data)
        time.sleep(0.01)

    monkeypatch.setattr(places, "PAUSE", 0.0)
    monkeypatch.setattr(remote.Folder, "put_bytes", checked)
    run("memory://b/out")
    assert len(events(bucket, "/b/out/manifest.jsonl")) == 6


def test_an_interrupt_loses_no_line(run, bucket, monkeypatch):
    keep, count = places.RemotePlace.keep, 0

    def keeping(own, files):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        keep(own, files)

    monkeypatch.setattr(places, "PAUSE", 1000.0)
    monkeypatch.setattr(places.RemotePlace, "keep", keeping)
    with pytest.raises(KeyboardInterrupt):
        run("memory://b/out")
    assert len(events(bucket, "/b/out/manifest.jsonl")) == 3


def test_lines_that_wait_go_up_while_the_device_works(run, bucket, monkeypatch):
    """Not only with the next image, which may be far."""
    place = places.RemotePlace("memory://b/out", False)
    (place.folder / "m.jsonl").write_text('{"a": 1}\n{"cut')
    monkeypatch.setattr(place, "_pause", 0.02)
    with place.open("m.jsonl"):
        place.note()
        assert not bucket.exists("/b/out/m.jsonl")
        within(lambda: bucket.exists("/b/out/m.jsonl"))
    assert bucket.cat_file("/b/out/m.jsonl") == b'{"a": 1}\n'


def test_shards_share_a_folder_and_fetch_their_own_images_alone(run, bucket, monkeypatch):
    fetched, fetch = [], places.RemoteSource.fetch
    monkeypatch.setattr(
        places.RemoteSource, "fetch", lambda own, files: fetch(own, files := [*files]) or fetched.extend(files)
    )
    first, second = run("memory://b/out", shard="1/2"), run("memory://b/out", shard="2/2")
    assert len(fetched) == len({path.name for path in fetched}) == 6
    assert len(first.rows) < 6 == len(second.rows)
    fetched.clear()
    run("memory://b/out")
    assert not fetched
    run("memory://b/whole")
    assert pictures(bucket, "/b/out") == pictures(bucket, "/b/whole")
    assert summary(bucket, "/b/out")["missing"]["count"] == 0


def test_the_processes_of_a_job_share_a_folder(run, images, bucket, monkeypatch):
    """Each has a temporary folder of its own, and a manifest; process 0 makes the tables of what all have done."""
    monkeypatch.setattr(Writer, "meet", lambda own, where: None)
    both = []
    for process in (0, 1):
        writer = Writer(process=process, processes=2)
        monkeypatch.setattr("cvsa_jax.jobs.outputs.writer_of", lambda shard, writer=writer: writer)
        both.append(prepare(resolve({**GIVEN, "input": "memory://b/in", "output": "memory://b/out"})))
        both[-1].entries[:] = both[-1].entries[process::2]
    both[1].run()
    both[0].run()
    monkeypatch.undo()
    run("memory://b/whole")
    assert pictures(bucket, "/b/out") == pictures(bucket, "/b/whole")
    assert len(events(bucket, "/b/out/manifest.2-of-2.jsonl")) == 3


def test_a_process_knows_what_another_took_back(run, bucket, monkeypatch):
    """Which began an hour ahead of it: else what it does again would not count."""
    run("memory://b/out")
    bucket.rm_file("/b/out/restored/001.png")
    job = resolve({**GIVEN, "input": "memory://b/in", "output": "memory://b/out"})
    monkeypatch.setattr(Writer, "meet", lambda own, where: None)
    first, second = (Results(job, False, Writer(process=p, processes=2)) for p in (0, 1))
    now = time.time()
    for results, clock in ((first, now + 3600), (second, now)):
        monkeypatch.setattr("cvsa_jax.jobs.manifest.time.time", lambda clock=clock: clock)
        results.begin()
    assert "001" not in second.done
    assert second._ledger._account.line("done", "001")["time"] > now + 3600


def test_a_folder_of_others_is_refused_and_overwriting_removes_what_the_job_made(run, bucket):
    bucket.pipe_file("/b/other/letter.txt", b"")
    with pytest.raises(InputError, match=r"^--output=memory://b/other is not empty"):
        run("memory://b/other")
    run("memory://b/out")
    bucket.pipe_file("/b/out/letter.txt", b"kept")
    with pytest.raises(InputError, match=r"^--output=memory://b/out holds a job with other settings"):
        run("memory://b/out", seed=1)
    with pytest.raises(InputError, match="--overwrite would remove memory://b/out/truth"):
        run("memory://b/out", "memory://b/out/truth", overwrite=True)
    run("memory://b/out", seed=1, limit=2, overwrite=True)
    assert bucket.cat_file("/b/out/letter.txt") == b"kept"
    assert {n for n in stored(bucket, "/b/out") if "restored" in n} == {"restored/000.png", "restored/001.png"}
    assert summary(bucket, "/b/out")["images"] == 2


def test_names_are_chosen_as_they_are_here(run, bucket, images, tmp_path, capsys):
    """Hidden files, results of other jobs and the output are left out; a list and a limit choose; a file is one."""
    for name in (".hidden.png", "a//b.png", "../up.png", "notes.txt", "out/old.png"):
        bucket.store[f"/b/in/{name}"] = bucket.store["/b/in/000.png"]
    run("memory://b/in/done", limit=1)
    assert len(run("memory://b/in/out2").rows) == 7  # with out/old.png
    assert "2 files whose names are no paths" in capsys.readouterr().err
    assert len(run("memory://b/in/out2", limit=1).rows) == 7
    (tmp_path / "some.txt").write_text("deep/005.png\n001.png\n")
    assert [row["image"] for row in run("memory://b/list", list=str(tmp_path / "some.txt")).rows] == ["001", "deep/005"]
    assert [row["image"] for row in run("memory://b/one", "memory://b/in/deep/005.png").rows] == ["005"]
    run(tmp_path / "here", images)
    assert bucket.cat_file("/b/list/restored/001.png") == (tmp_path / "here/restored/001.png").read_bytes()


def test_an_image_that_cannot_be_read_is_named_by_its_address(run, bucket, capsys):
    bucket.pipe_file("/b/in/004.png", b"no picture")
    results = run("memory://b/out")
    assert len(results.rows) == 5
    assert "memory://b/in/004.png" in summary(bucket, "/b/out")["failures"]["004"]
    assert "cannot read memory://b/in/004.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": "memory://b/none"}, "no such file or folder: memory://b/none"),
        ({"input": "memory://b/in/"}, "--output=memory://b/in is --input itself; name another folder"),
        ({"input": "nowhere://b/in"}, "cannot open nowhere://b/in: Protocol not known: nowhere"),
        ({"output": "memory://"}, "memory:// names no bucket"),
        ({"input": "gs://b/in"}, "gs://b/in needs the package gcsfs: pip install gcsfs"),
        ({"output": "s3://b/out"}, "s3://b/out needs the package s3fs: pip install s3fs"),
        ({"input": "file:///b/in"}, "file:///b/in is on this machine: give its path, without file://"),
        (
            {"mask": "gs://b/mask.png"},
            "--mask=gs://b/mask.png: only --input and --output of cvsa restore take a bucket",
        ),
        ({"output": "memory://b/in/000.png"}, "--output=memory://b/in/000.png is a file, not a folder"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run_restore, images, monkeypatch, flags, message):
    for package in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    given = {**GIVEN, "task": "mask_inpaint" if "mask" in flags else "sr2", "input": "memory://b/in"}
    given |= {"output": "memory://b/in", **flags}
    done = run_restore(*(f"--{name}={value}" for name, value in given.items()))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.removeprefix("error: ").startswith(message)


def test_a_bucket_that_refuses_ends_the_job_in_one_line(run, bucket, monkeypatch):
    def refused(path, data):
        raise KeyError("not yours")  # whatever a file system raises

    monkeypatch.setattr(bucket, "pipe_file", refused)
    with pytest.raises(InputError, match=r"^cannot write memory://b/out/manifest.jsonl: 'not yours'$"):
        run("memory://b/out")


def test_the_command_line_names_addresses(run_restore, bucket, images, tmp_path):
    flags = [f"--{name}={value}" for name, value in GIVEN.items()]
    flags += ["--report", "--output=memory://b/out"]
    done = run_restore(*flags, "--input=memory://b/in")
    assert done.returncode == 0
    told = ["pictures: memory://b/out/grid.png, memory://b/out/restored", "report: memory://b/out/report.html"]
    assert done.stdout.splitlines()[-2:] == told
    page = bucket.cat_file("/b/out/report.html")
    assert run_restore(*flags[:-1], f"--input={images}", f"--output={tmp_path / 'out'}").returncode == 0
    assert page.count(b"data:image") == (tmp_path / "out" / "report.html").read_bytes().count(b"data:image") > 6


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("ablate", ["--sweep=mass=.1,1", "--task=sr2", "--input=memory://b/in", "--output=out"]),
        ("ablate", ["--sweep=mass=.1,1", "--task=sr2", "--input=in", "--output=memory://b/out"]),
        ("evaluate", ["--results=memory://b/out"]),
        ("train", ["--data=memory://b/in", "--output=out"]),
    ],
)
def test_only_restore_takes_a_bucket(run_verb, images, tmp_path, monkeypatch, verb, flags):
    monkeypatch.chdir(tmp_path)
    done = run_verb(verb, *flags)
    assert done.returncode == 1
    assert "only --input and --output of cvsa restore take a bucket" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_local_pays_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    prepare(resolve({**GIVEN, "input": str(images), "output": str(tmp_path / "out")})).run()
    with pytest.raises(ImportError):
        remote.Folder("memory://b")
