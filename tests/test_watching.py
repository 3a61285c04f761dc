"""What is told of a job while it runs, and of what it took."""

import io
import json
import sys

import jax
import jax.numpy as jnp
import pytest
from conftest import SAMPLES

from cvsa_jax import CLD, prior_from_denoiser
from cvsa_jax.jobs import prepare, resolve, watching
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.jobs.watching import DEVICE, INPUT, WRITING, Trace, Watch
from cvsa_jax.types import InputError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes by hand."""
    now = [100.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    return now


def test_times_are_said_as_people_do():
    assert [watching.duration(s) for s in (0, 59.4, 235, 7512)] == ["0 s", "59 s", "3 min 55 s", "2 h 5 min"]
    assert watching.line(12.4, 200, 0.8) == "12 of 200 images, 0.8 images/s, 3 min 54 s left"
    assert watching.line(3 - 1e-9, 4, 0.0) == "3 of 4 images, 0 images/s, time left unknown"


def test_a_log_has_a_line_a_minute_whose_rate_is_without_the_start(clock, capsys):
    with Watch(200) as watch:
        clock[0] += 50  # programs are made
        watch.step(2)
        for _ in range(130):
            clock[0] += 1
            watch.step(0.5)
    lines = capsys.readouterr().err
    assert "\r" not in lines
    assert lines.splitlines() == [
        "7 of 200 images, 0.5 images/s, 6 min 26 s left",
        "37 of 200 images, 0.5 images/s, 5 min 26 s left",
        "67 of 200 images, 0.5 images/s, 4 min 26 s left",
    ]


def test_a_terminal_has_a_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Watch(4) as watch:
        watch.step(1.5)
        assert watch._bar is not None
        watch._bar.refresh()
    text = screen.getvalue()
    assert "1.5 of 4 images" in text
    assert "image/s" in text


def test_the_record_adds_up(clock):
    """Of a run of ten seconds; programs of other runs are not counted."""
    with Watch(4) as watch:
        watch.add(DEVICE, 5.0)
        with watch.spent(INPUT):
            clock[0] += 2
        watch.restored()
        with watch.spent(WRITING):
            clock[0] += 8
        watch.restored()
        jax.monitoring.record_event_duration_secs(watching.COMPILE, 1.5)
        found = watch.record(4)
    jax.monitoring.record_event_duration_secs(watching.COMPILE, 1.5)
    assert watch.record(4)["compile_seconds"] == 1.5
    memory = found.pop("peak_memory_bytes")
    assert 2**24 < memory < 2**40
    assert found == {
        "of": "the last run", "images": 4, "images_per_second": 0.4, "seconds": 10.0, "compile_seconds": 1.5,
        "first_batch_seconds": 2.0, "input_wait_seconds": 2.0, "write_wait_seconds": 8.0, "device_busy_share": 0.5,
        "peak_memory_of": "process",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "traced"),
    [("aaaaaa", [1, 2, 3]), ("aab", [1]), ("abba", [2, 3]), ("abcab", [3, 4])],
)
def test_a_trace_is_of_a_few_batches_that_compile_nothing(monkeypatch, tmp_path, kinds, traced):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("on"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("off"))
    trace = Trace(str(tmp_path / "trace"), kinds)
    for i in range(len(kinds)):
        trace.begin(i)
        calls.append(i)
        trace.end(i)
    trace.end()
    assert calls[calls.index("on") + 1 : calls.index("off")] == traced
    assert calls.count("on") == calls.count("off") == 1
    calls.clear()
    trace.begin(traced[0])
    trace.end()  # after an error
    assert calls == ["on", "off"]


def test_a_trace_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="no two batches are alike: lower --batch_size"):
        Trace(str(tmp_path), "abc")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"cannot write to --profile={tmp_path / 'file'}"):
        Trace(str(tmp_path / "file"), "aa")
    Trace(None, "abc")
    Trace(str(tmp_path / "none"), "")  # all is done already


def test_a_job_says_what_it_took_and_leaves_a_trace(monkeypatch, tmp_path):
    """And of a job that went on, what its last run took."""
    prior = prior_from_denoiser(lambda x, sigma: x / (1 + 4 * sigma**2) + jnp.zeros(3), CLD())
    monkeypatch.setattr(RestorationJob, "prior", lambda self: prior)
    given = {"task": "denoise", "input": str(SAMPLES), "image_size": 8, "num_steps": 2, "num_samples": 1, "limit": 4}
    given |= {"output": str(tmp_path / "out"), "batch_size": 1, "profile": str(tmp_path / "trace")}
    prepare(resolve(given)).run()
    kinds = {path.suffix for path in (tmp_path / "trace").rglob("*") if path.is_file()}
    assert ".pb" in kinds  # *.xplane.pb, which XProf reads
    assert ".gz" in kinds  # *.trace.json.gz, which Perfetto reads
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["performance"]
    assert found["images"] == 4
    assert 0 < found["compile_seconds"] <= found["seconds"]
    assert 0 < found["device_busy_share"] < 1
    prepare(resolve({**given, "limit": 6})).run()
    again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert again["images"] == 6
    assert (again["performance"]["of"], again["performance"]["images"]) == ("the last run", 2)
