"""`cvsa benchmark`: what is counted, what is timed, and the comparison with another library."""

import dataclasses
import importlib.util
import json
import os
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SAMPLES
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from cvsa_jax import checkpoints, operators
from cvsa_jax.evaluation import against_deepinv, benchmark, hardware, scaling, step, throughput, versus
from cvsa_jax.jobs import prepare, resolve
from cvsa_jax.operators import convolution
from cvsa_jax.types import InputError

TINY = ("--image_size=16", "--batch_size=2", "--steps_per_call=2", "--repeats=2")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
needs_deepinv = pytest.mark.skipif(importlib.util.find_spec("deepinv") is None, reason="deepinv is not installed")


# A step.


def test_a_step_is_told_for_each_batch_size_and_kept(run_verb, tiny_checkpoint, tmp_path):
    """As JSON on the terminal and in the folder, with a plot; a second run does not write over it."""
    flags = (f"--checkpoint={tiny_checkpoint}", *TINY, "--batch_sizes=1,2", "--task=denoise", f"--output={tmp_path}")
    done = run_verb("benchmark", *(f for f in flags if not f.startswith("--batch_size=")))
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == record
    assert Image.open(tmp_path / "benchmark.png").size[0] > 300
    one, two = record["step"]
    assert [one["batch_size"], two["batch_size"]] == [1, 2]
    assert two["gflop"] == pytest.approx(2 * one["gflop"], rel=0.2)
    for row in (one, two):
        assert row["ratio"] > 0
        assert row["gflop_per_s"] == pytest.approx(1e3 * row["gflop"] / row["guided_step_ms"], rel=0.2, abs=0.1)
        assert row["share_of_peak"] is None  # of a CPU
    again = run_verb("benchmark", f"--checkpoint={tiny_checkpoint}", f"--output={tmp_path}")
    assert again.returncode == 1
    assert "name another folder" in again.stderr


def test_every_task_that_needs_no_file_is_timed(monkeypatch, tiny_prior):
    program = step.Program(lambda: None, None, 1.0, None)
    monkeypatch.setattr(step, "compiled_bare", lambda *_: program)
    monkeypatch.setattr(step, "compiled_guided", lambda *_: program)
    own = benchmark.BenchmarkSettings(image_size=16)
    found = [row["task"] for row in benchmark._steps(own, tiny_prior.cld, tiny_prior)]
    assert found == [n for n, t in operators.TASKS.items() if not t.requires and not t.blind]
    assert {"sr4", "checkout", "phase_retrieval", "hdr"} < set(found)


def test_flops_are_those_of_one_step():
    """A product of matrices has 2 n^3 of them, and a loop of any length those of its body."""
    a = jnp.ones((16, 16))
    loop = lambda length: lambda a: jax.lax.scan(lambda x, _: (x @ a, None), a, length=length)[0]  # noqa: E731
    assert step.compiled(lambda a: a @ a, a).flops == pytest.approx(2 * 16**3)
    assert [step.compiled(loop(n), a).flops for n in (2, 7)] == pytest.approx([2 * 16**3] * 2, rel=0.01)


def test_a_kept_program_has_no_time_of_compiling(tmp_path):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    try:
        for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        found = []
        for anew in (False, False, True):
            with step.compiling_anew(anew):
                found.append(step.compiled(lambda a: jnp.sin(a) @ a.T, jnp.ones((5, 7))).compile_s)
            jax.clear_caches()
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert found[0] > 0
    assert found[1] is None
    assert found[2] > 0


@pytest.mark.parametrize(
    ("kind", "tera"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("NVIDIA A100-SXM4-80GB", 312),
     ("TPU v4", 275), ("TPU v5 lite", 197), ("TPU v5e", 197), ("TPU v5p", 459), ("TPU v5", 459), ("TPU v6 lite", 918)],
)  # fmt: skip
def test_peaks_are_of_the_right_device(kind, tera, monkeypatch):
    """Each with its source; the share is that of one device."""
    assert hardware.peak(kind)[0] == tera * 1e12
    assert hardware.peak(kind)[1].startswith("https://")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(device_kind=kind)] * 4)
    assert hardware.share_of_peak(tera * 1e12 / 4) == 0.25


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA GeForce RTX 4090", "TPU v4 lite", "TPU v7x"])
def test_other_devices_have_no_share(kind, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(device_kind=kind)])
    assert hardware.share_of_peak(1e12) is None


# Whole restorations.


def test_the_first_batch_is_not_in_the_rate(tmp_path):
    """Nor is the time until the thread that writes has written it."""
    (tmp_path / "restored").mkdir()
    for name, stamp in (("a.png", 17), ("b.png", 20)):
        (tmp_path / "restored" / name).touch()
        os.utime(tmp_path / "restored" / name, (stamp, stamp))
    took = {"images": 32, "seconds": 14.0, "first_batch_seconds": 8.0}
    (tmp_path / "summary.json").write_text(json.dumps({"performance": took}))
    found = throughput.span(tmp_path, 8)
    assert (found.begin, found.end, found.rate) == pytest.approx((14, 20, 24 / 6))
    assert throughput.span(tmp_path, 32).rate is None


def test_the_share_of_time_in_which_all_run():
    assert scaling.overlap([(0, 4), (1, 5)]) == pytest.approx(3 / 5)
    assert scaling.overlap([(0, 1), (2, 3)]) == 0
    assert scaling.overlap([(0, 1)]) == 1


def test_whole_restorations_are_timed(run_verb, tiny_checkpoint, monkeypatch):
    """By the batch in this process; and by two processes, of which each has its own half of the images."""
    seen = []

    def here(jobs, folder):
        for job in jobs:
            seen.append(sorted(job.flags["list"].read_text().split()))
            given = {k: str(v) if k in ("input", "list", "output") else v for k, v in job.flags.items()}
            prepare(resolve(given)).run()
        return [100.0, 200.0]

    monkeypatch.setattr(scaling, "run", here)
    flags = (f"--checkpoint={tiny_checkpoint}", "--image_size=16", "--batch_size=2", "--steps_per_call=2")
    done = run_verb(
        "benchmark", *flags, "--task=denoise", "--parts=throughput,processes", "--processes=2", "--batches=2"
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    (whole,), (shared,) = record["throughput"], record["processes"]
    assert (whole["images"], shared["images"]) == (4, 8)
    assert whole["images_per_s"] > 0
    assert 0 < whole["start_s"] < whole["whole_s"]
    assert shared["process_peak_mib"] == 200
    assert len(seen[0]) == len(seen[1]) == 4
    assert not set(seen[0]) & set(seen[1])
    assert record["process_peak_mib"] > 50
    assert [panel.x_label for panel in benchmark.panels(record)] == ["images in a batch", "processes"]


def test_a_process_that_fails_is_told(tmp_path):
    job = scaling.Job({"task": "denoise"}, scaling.environment_of(range(2), True))
    with pytest.raises(InputError, match="cvsa restore failed: error: --input is required"):
        scaling.run([job], tmp_path)


def test_virtual_devices_replace_those_that_were_asked_for(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3 --xla_cpu_x=1")
    found = scaling.environment_of(range(4), kept=False)
    assert found["XLA_FLAGS"].split() == ["--xla_cpu_x=1", "--xla_force_host_platform_device_count=4"]
    assert found["JAX_ENABLE_COMPILATION_CACHE"] == "false"


# Another library.


def test_measurements_are_handed_over_in_unit_range():
    """Of x in [-1, 1] measured by H the measurement of (x + 1)/2 by the same H."""
    truths = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    kernel = np.arange(15.0).reshape(3, 5)
    drawn = [against_deepinv.problem(task, truths, 1e-9, 0) for task in ("random_inpaint", "gaussian_deblur")]
    mine = convolution(kernel, "circular")
    drawn.append(against_deepinv.Problem(truths, mine, np.asarray(jax.vmap(mine)(truths)), 0.0))
    for given in drawn:
        wanted = np.moveaxis(np.asarray(jax.vmap(given.operator)((truths + 1) / 2)), -1, 1)
        np.testing.assert_allclose(against_deepinv.in_unit_range(given), wanted, atol=1e-5)
    assert drawn[1].operator.boundary == "circular"  # as deepinv's


@needs_deepinv
@pytest.mark.parametrize("kernel", [None, np.arange(15.0).reshape(3, 5)])
def test_deepinv_has_the_same_operator(kernel):
    import torch

    truths = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    given = against_deepinv.problem("random_inpaint", truths, 0.0, 0)
    if kernel is not None:
        mine = convolution(kernel, "circular")
        given = given._replace(operator=mine, measurements=np.asarray(jax.vmap(mine)(truths)))
    unit = torch.tensor(np.moveaxis((truths + 1) / 2, -1, 1).copy())
    found = against_deepinv.physics(given).A(unit).numpy()
    np.testing.assert_allclose(found, against_deepinv.in_unit_range(given), atol=1e-5)


@needs_torch
def test_the_twin_is_our_network(tiny_checkpoint):
    """On [-1, 1], and on deepinv's [0, 1]: D'((x + 1)/2, s/2) = (D(x; s) + 1)/2."""
    import torch

    from cvsa_jax.evaluation import torch_twin

    loaded = checkpoints.load_prior(tiny_checkpoint, dtype="float32", pyramid=False)
    twin = torch_twin.Denoiser(loaded.spec, loaded.network.args[0], 32)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    for sigma in (0.01, 0.5, 20.0):
        wanted = np.asarray(jax.vmap(lambda one, s=sigma: loaded.prior.denoise(one, jnp.float32(s)))(x))
        with torch.no_grad():
            found = twin(torch.tensor(np.moveaxis((x + 1) / 2, -1, 1).copy()), sigma / 2).numpy()
        np.testing.assert_allclose(2 * np.moveaxis(found, 1, -1) - 1, wanted, atol=2e-5)
    assert twin.evaluations == 3


@needs_deepinv
def test_methods_take_the_evaluations_that_they_are_given(tiny_checkpoint, photos, tmp_path, run_verb):
    flags = (f"--checkpoint={tiny_checkpoint}", "--image_size=32", "--repeats=1", "--task=random_inpaint")
    done = run_verb(
        "benchmark", "--vs=deepinv", *flags, f"--input={SAMPLES}", "--limit=2", "--evaluations=5",
        "--own_evaluations=4", f"--output={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "deepinv.json").read_text())
    assert {row["method"]: row["evaluations"] for row in record["rows"]} == {
        "CVSA": 4, "DPS": 5, "DiffPIR": 5, "DDRM": 5
    }  # fmt: skip
    assert all(np.isfinite(row["psnr"]) and row["seconds"] > 0 for row in record["rows"])
    assert (tmp_path / "deepinv.png").exists()
    assert done.stdout.startswith("| task |")


def test_leads_are_over_what_takes_no_longer():
    def row(method, seconds, psnr):
        return {"task": "t", "method": method, "seconds": seconds, "processor_seconds": 1.0, "psnr": psnr,
                "evaluations": 3}  # fmt: skip

    rows = [row("CVSA", 1.0, 20.0), row("DPS", 0.9, 15.0), row("DDRM", 1.0, 17.5), row("DiffPIR", 1.1, 19.0)]
    assert versus.leads(rows, "seconds")[0]["lead_db"] == 2.5
    assert versus.leads(rows, "processor_seconds")[0]["best_other"] == "DiffPIR"
    assert versus.leads(rows[:1], "seconds")[0]["lead_db"] is None
    assert versus.table(rows).splitlines()[2] == "| `t` | CVSA | 3 | 20.00 | 1.00 | 1.00 |"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--vs=deepinv", "--parts=step"), "--parts has no effect beside --vs"),
        (("--evaluations=5",), "--evaluations has no effect without --vs"),
        (("--vs=deepinv",), "--input is required"),
        (("--vs=deepinv", f"--input={SAMPLES}", "--output=o", "--task=sr4"), "random_inpaint, box_inpaint"),
        (("--vs=deepinv", f"--input={SAMPLES}", "--output=o"), "the extra cvsa_jax[deepinv]"),
        (("--vs=deepinv", "--own_evaluations=1"), "at least 2"),
        (("--parts=step", "--devices=2"), "--devices has no effect without --parts=devices"),
        (("--parts=throughput", "--random_weights=ffdnet_color"), "--parts=step alone"),
        (("--parts=step", "--batch_sizes=1,x"), "whole numbers"),
        (("--batch_sizes=1,2", "--batch_size=3"), "--batch_size has no effect beside --batch_sizes"),
    ],
)
def test_what_cannot_be_done_is_refused(flags, message, run_verb, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(against_deepinv, "import_module", missing)
    done = run_verb("benchmark", *flags)
    assert done.returncode == 1
    assert re.search(re.escape(message), done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_prior_without_a_twin_is_refused(tiny_spec):
    attends = dataclasses.replace(tiny_spec, options=tiny_spec.options | {"attention": True})
    against_deepinv.check_twin(tiny_spec, (16, 16, 3))
    with pytest.raises(InputError, match="multiple of"):
        against_deepinv.check_twin(tiny_spec, (18, 18, 3))
    with pytest.raises(InputError, match="without attention"):
        against_deepinv.check_twin(attends, (16, 16, 3))
