"""The command-line programs, run as a user runs them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, SAMPLES
from PIL import Image

from cvsa_jax import checkpoints, data, folders, networks, operators, spectral
from cvsa_jax.baselines import BASELINES
from cvsa_jax.denoising import denoising_error
from cvsa_jax.evaluation import uncertainty
from cvsa_jax.images import save_image
from cvsa_jax.jobs import resolve
from cvsa_jax.presets import AIMS, preset_of
from cvsa_jax.types import InputError

FEW = ("--num_steps=6", "--num_samples=1")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path), np.int32)


def rows(path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def tree(folder) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Three colour images of two sizes, a grey one, and a file that is no image."""
    folder = tmp_path_factory.mktemp("inputs")
    files = folders.list_images(SAMPLES)
    for i, size in enumerate([(32, 32), (32, 32), (37, 26)]):
        Image.open(files[i]).resize(size).save(folder / f"colour{i}.png")
    Image.open(files[3]).convert("L").resize((30, 23)).save(folder / "grey.png")
    (folder / "broken.png").write_bytes(b"\x89PNG, but not really")
    return folder


@pytest.fixture(scope="module")
def restore(run_program, run_restore, tiny_checkpoint):
    """In this process; in one of its own where the environment is another."""

    def run(*arguments, **environment):
        few = () if "--method=classical" in arguments else FEW
        flags = f"--checkpoint={tiny_checkpoint}", *few, *arguments
        return run_program("restore", *flags, **environment) if environment else run_restore(*flags)

    return run


@pytest.fixture(scope="module")
def tiny_kernels(tmp_path_factory):
    """An untrained prior of kernels of 8x8, saved."""
    options = {"channels": (8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1), "patch": 1}
    drawn = data.draw_kernels(64, 8, 0)
    spec = networks.NetworkSpec(
        image_size=8, image_channels=1, options=options, spectrum=spectral.estimate_spectrum(drawn)
    )
    params = spec.init(jax.random.key(0))
    folder, prior = tmp_path_factory.mktemp("kernels"), networks.build_prior(spec, params)
    checkpoints.save_prior(folder, spec, params, denoising_error(prior, drawn, jax.random.key(1)), {})
    return folder


@pytest.fixture(scope="module")
def job(restore, inputs, tmp_path_factory):
    """A folder restored, one of its files unreadable."""
    output = tmp_path_factory.mktemp("job")
    done = restore("--task=motion_deblur", f"--input={inputs}", f"--output={output}", "--batch_size=3")
    return output, done


def test_bad_file_is_reported_and_the_others_are_done(job, inputs):
    output, done = job
    assert done.returncode == 1
    assert f"skipped: cannot read {inputs / 'broken.png'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("motion_deblur: 4 images, PSNR ")
    assert f"pictures: {output / 'grid.png'}" in done.stdout
    assert {r["image"] for r in rows(output / "metrics.csv")} == {"colour0", "colour1", "colour2", "grey"}
    assert list(json.loads((output / "summary.json").read_text())["failures"]) == ["broken"]


def test_every_file_is_written_at_the_inputs_size(job, inputs):
    output, _ = job
    for name in ("colour0", "colour2", "grey"):
        size = Image.open(inputs / f"{name}.png").size
        for kind in ("restored", "measurement", "truth"):
            image = Image.open(output / kind / f"{name}.png")
            assert (image.size, image.mode) == (size, "L" if name == "grey" else "RGB")
        np.testing.assert_array_equal(pixels(output / "truth" / f"{name}.png"), pixels(inputs / f"{name}.png"))
        kernel = np.load(output / "operator" / f"{name}.npy")
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert Image.open(output / "grid.png").size[0] > 3 * 32


def test_metrics_are_those_of_the_files(job):
    output, _ = job
    table = rows(output / "metrics.csv")
    residuals = {r["image"]: float(r["residual"]) for r in rows(output / "residuals.csv")}
    assert list(table[0]) == [
        "image", "psnr_measurement", "ssim_measurement", "psnr", "ssim", "seconds", "network_evaluations", "residual",
    ]  # fmt: skip
    for row in table:
        truth, restored, measured = (
            pixels(output / kind / f"{row['image']}.png") for kind in ("truth", "restored", "measurement")
        )
        for column, picture in (("psnr", restored), ("psnr_measurement", measured)):
            expected = 10 * np.log10(255**2 / np.mean((truth - picture) ** 2.0))
            assert float(row[column]) == pytest.approx(expected, abs=1e-3)
        assert row["network_evaluations"] == "6"
        assert float(row["seconds"]) > 0
        assert float(row["residual"]) == pytest.approx(residuals[row["image"]], abs=1e-4)


def test_summary_records_every_setting(job, tiny_checkpoint):
    """What decides the result, as it was resolved; nothing of other tasks, noises and methods."""
    output, _ = job
    record = json.loads((output / "summary.json").read_text())
    assert record["settings"] == {
        "task": "motion_deblur", "measured": False, "operator": None, "checkpoint": str(tiny_checkpoint),
        "high_noise_checkpoint": None, "switch_noise": None, "class_label": None,
        "range": None, "gamma_decode": None, "keep_known": None, "format": None, "tile": None, "pyramid": True,
        "dtype": None, "image_size": None, "noise": "gaussian", "method": "cvsa", "seed": 0, "bucket": 0, "retry": True,
        "kernel": None, "boundary": "reflect", "kernel_size": None, "motion_intensity": 0.5, "noise_std": 0.05,
        "sampler": "decoupled", "guidance": "spectral_covariance", "num_steps": 6, "num_corrections": 0,
        "time_grid": "logarithmic", "t_start": 1.0, "t_end": 0.001, "start": "noise", "data_weight": 2.0,
        "aim": "accuracy", "num_samples": 1, "combine": "mean",
        "mass": 0.25, "friction": None, "beta": 4.0, "gamma": 0.04,
    }  # fmt: skip
    assert {"--task=motion_deblur", "--num_steps=6", "--num_samples=1"} < set(record["command"])
    assert {"cvsa_jax", "jax", "jaxlib", "flax", "numpy", "python", "hardware"} <= record["versions"].keys()
    assert record["means"]["psnr"] > 0


def test_company_does_not_matter(job, restore, inputs, tmp_path):
    """Alone, in another batch size, on more devices: the same picture, up to rounding."""
    output, _ = job
    single = restore("--task=motion_deblur", f"--input={inputs / 'colour1.png'}", f"--output={tmp_path / 'a'}")
    two = restore(
        "--task=motion_deblur", f"--input={inputs}", f"--output={tmp_path / 'b'}", "--batch_size=2",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )  # fmt: skip
    assert single.returncode == 0, single.stderr
    assert "2 x cpu" in (tmp_path / "b" / "summary.json").read_text()
    assert two.returncode == 1
    expected = pixels(output / "restored" / "colour1.png")
    for folder in ("a", "b"):
        found = pixels(tmp_path / folder / "restored" / "colour1.png")
        assert np.abs(found - expected).max() <= 1
        np.testing.assert_array_equal(
            pixels(tmp_path / folder / "measurement" / "colour1.png"), pixels(output / "measurement" / "colour1.png")
        )


def test_results_are_never_overwritten_by_accident(job, restore, inputs, tmp_path):
    output = tmp_path / "copy"
    shutil.copytree(job[0], output)
    before = tree(output)
    other = restore("--task=motion_deblur", f"--input={inputs}", f"--output={output}", "--seed=1")
    assert other.returncode == 1
    assert "other settings" in other.stderr
    assert tree(output) == before
    # The same command finishes what is missing and leaves the rest alone.
    lines = (output / "manifest.jsonl").read_text().splitlines(keepends=True)
    (output / "manifest.jsonl").write_text("".join(line for line in lines if "colour2" not in line))
    os.utime(output / "restored" / "colour0.png", (1, 1))
    again = restore("--task=motion_deblur", f"--input={inputs}", f"--output={output}")
    assert again.returncode == 1  # the broken file is still broken
    assert (output / "restored" / "colour0.png").stat().st_mtime == 1
    assert {r["image"] for r in rows(output / "metrics.csv")} == {"colour0", "colour1", "colour2", "grey"}
    replaced = restore(
        "--task=denoise", f"--input={inputs / 'grey.png'}", f"--output={output}", "--overwrite", "--num_steps=2"
    )
    assert replaced.returncode == 0, replaced.stderr
    assert [r["image"] for r in rows(output / "metrics.csv")] == ["grey"]


def test_measured_inputs_need_no_truth(job, restore, tmp_path):
    """What the first job wrote as measurement and operator is restored again from the files."""
    output, _ = job
    done = restore(
        "--task=motion_deblur", "--measured", f"--input={output / 'measurement' / 'colour2.png'}",
        f"--kernel={output / 'operator' / 'colour2.npy'}", f"--output={tmp_path / 'a'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "a" / "truth").exists()
    assert rows(tmp_path / "a" / "metrics.csv")[0]["psnr"] == ""
    assert Image.open(tmp_path / "a" / "restored" / "colour2.png").size == (37, 26)
    done = restore(
        "--task=sr2", "--measured", f"--input={output / 'measurement' / 'colour2.png'}", f"--output={tmp_path / 'b'}"
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "b" / "restored" / "colour2.png").size == (74, 52)


def test_mask_files_and_samples(restore, inputs, tmp_path):
    """A mask that another job wrote; several posterior samples, their mean and deviation."""
    source = f"--input={inputs / 'colour0.png'}"
    first = restore("--task=box_inpaint", source, f"--output={tmp_path / 'a'}")
    assert first.returncode == 0, first.stderr
    mask = tmp_path / "a" / "operator" / "colour0.png"
    missing = pixels(mask) == 255
    assert missing.sum() == 16 * 16
    done = restore(
        "--task=mask_inpaint", source, f"--mask={mask}", f"--output={tmp_path / 'b'}", "--num_samples=3",
        "--aim=posterior", "--batch_size=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    samples = np.stack([pixels(tmp_path / "b" / "samples" / f"colour0_{i:02d}.png") for i in range(3)])
    restored = pixels(tmp_path / "b" / "restored" / "colour0.png")
    inside = (samples > 0).all((0, 3)) & (samples < 255).all((0, 3))
    assert np.abs(samples.mean(0) - restored)[inside].max() <= 1.5
    deviation = pixels(tmp_path / "b" / "deviation" / "colour0.png")
    assert deviation[missing].mean() > 3 * deviation[~missing].mean()
    assert rows(tmp_path / "b" / "metrics.csv")[0]["network_evaluations"] == str(6 * (1 + 7) * 3)


def test_tasks_are_listed_with_their_presets(run_restore):
    done = run_restore("--list_tasks")
    assert done.returncode == 0, done.stderr
    blocks = dict(zip(operators.TASKS, done.stdout.split("\n\n"), strict=True))
    for task, block in blocks.items():
        assert block.startswith(f"{task}: ")
        for aim in AIMS if operators.find_task(task).posterior is not None else AIMS[:1]:
            preset = preset_of(task, aim)
            assert f"  {preset.sampler.sampler}, {preset.sampler.guidance}, {preset.sampler.time_grid}; " in block
            assert f" {preset.sampler.num_steps} steps" in block
            assert f" x {preset.num_samples} samples, {preset.combine}" in block


def test_an_aim_is_a_preset_and_its_samples_have_a_deviation(restore, inputs, tmp_path):
    """The chains of least error are no posterior samples, and have none."""
    settings = {}
    for aim in ("accuracy", "posterior"):
        arguments = ("--task=sr2", f"--input={inputs / 'colour0.png'}", f"--output={tmp_path / aim}", f"--aim={aim}")
        done = restore(*arguments, "--num_steps=3", "--num_samples=2")
        assert done.returncode == 0, done.stderr
        settings[aim] = json.loads((tmp_path / aim / "summary.json").read_text())["settings"]
        assert (tmp_path / aim / "samples" / "colour0_01.png").exists()
        assert (tmp_path / aim / "deviation" / "colour0.png").exists() == (aim == "posterior")
    assert settings["posterior"]["sampler"] == "multistep" != settings["accuracy"]["sampler"]
    done = restore(*arguments[:1], "--task=phase_retrieval", *arguments[1:], "--overwrite")
    assert done.returncode == 1
    assert "no posterior samples" in done.stderr


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({}, 2.0),
        ({"num_steps": 5, "num_samples": 1}, 2.0),
        ({"aim": "posterior"}, 2.0),
        ({"sampler": "euler_maruyama"}, 1.0),
        ({"guidance": "printed_plug_in"}, 1.0),
        ({"guidance": "covariance", "data_weight": 3.0}, 3.0),
        ({"method": "dps"}, None),
    ],
)
def test_only_a_preset_weights_the_likelihood(given, weight):
    job = resolve({"task": "motion_deblur", "input": "a", "output": "b", **given})
    assert job.values().get("data_weight") == weight


@pytest.mark.parametrize(("task", "at_1000"), [("sr4", 1.0), ("box_inpaint", 0.3)])
@pytest.mark.parametrize("steps", [10, 1000])
def test_the_steps_of_dps_go_as_far_together_at_any_number(task, at_1000, steps):
    job = resolve({"task": task, "input": "a", "output": "b", "method": "dps", "num_steps": steps})
    assert job.method.constants()["step_size"] * steps == pytest.approx(1000 * at_1000)


def test_evaluate_reports_the_coverage_of_the_files(restore, run_verb, inputs, tmp_path):
    """A population of particles is a job's samples; the share of truths in their 90 % intervals is counted."""
    output = tmp_path / "a"
    done = restore(
        "--task=sr2",
        f"--input={inputs / 'colour0.png'}",
        f"--output={output}",
        "--sampler=particles",
        "--num_samples=4",
    )
    assert done.returncode == 0, done.stderr
    assert rows(output / "metrics.csv")[0]["network_evaluations"] == "24"
    judged = run_verb("evaluate", f"--results={output}")
    assert judged.returncode == 0, judged.stderr
    means = json.loads(judged.stdout)["means"]
    truth = pixels(output / "truth" / "colour0.png")
    samples = np.stack([pixels(output / "samples" / f"colour0_{i:02d}.png") for i in range(4)])
    half = 2.3533634 * (1 + 1 / 4) ** 0.5 * samples.std(0, ddof=1)  # Student's t, 3 degrees of freedom, 95 %
    inside = np.abs(truth - samples.mean(0)) <= half + 0.5
    assert means["coverage"] == pytest.approx(inside.mean(), abs=2e-3)
    assert means["psnr_mean"] == pytest.approx(float(rows(output / "metrics.csv")[0]["psnr"]), abs=0.1)
    assert rows(output / "uncertainty.csv")[0]["image"] == "colour0"


def test_only_posterior_samples_are_judged(tmp_path):
    """Chains that minimise error are refused; what is printed is JSON where a sample is the truth itself."""
    truth = np.random.default_rng(0).uniform(-1, 1, (8, 8, 3))
    for name, samples in (("a", (truth, truth[::-1])), ("b", (truth[::-1], -truth))):
        save_image(tmp_path / "truth" / f"{name}.png", truth)
        for i, sample in enumerate(samples):
            save_image(tmp_path / "samples" / f"{name}_{i:02d}.png", sample)
    (tmp_path / "metrics.csv").write_text("image,psnr\na,1\nb,1\n")
    with pytest.raises(InputError, match=r"no posterior samples.*--aim=posterior"):
        uncertainty.report(tmp_path, 0.9)
    (tmp_path / "deviation").mkdir()
    means = json.loads(json.dumps(uncertainty.report(tmp_path, 0.9), allow_nan=False))["means"]
    alone = [float(row["psnr_sample"]) for row in rows(tmp_path / "uncertainty.csv")]
    assert alone[0] == float("inf")
    assert means["psnr_sample"] == pytest.approx(alone[1], abs=1e-3)
    (tmp_path / "metrics.csv").write_text("image,psnr\na,1\n")
    assert uncertainty.report(tmp_path, 0.9)["means"]["psnr_sample"] is None


def test_evaluate_says_what_is_missing(run_verb, job, tmp_path):
    for folder, message in ((tmp_path, "no metrics.csv"), (job[0], "--aim=posterior")):
        done = run_verb("evaluate", f"--results={folder}")
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_posterior_benchmark_writes_its_tables_and_goes_on(run_verb, tmp_path):
    few = [
        f"--output={tmp_path / 'out'}", "--dimensions=4", "--measured=1", "--num_samples=40", "--field_size=8",
        "--methods=ancestral + covariance", "--methods=DDRM", "--methods=ancestral_multistep + spectral",
    ]  # fmt: skip
    first = run_verb("experiments.posterior_benchmark", *few, "--num_problems=1")
    assert first.returncode == 0, first.stderr
    before = (tmp_path / "out" / "mixture.csv").read_text()
    again = run_verb("experiments.posterior_benchmark", *few, "--num_problems=2")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "mixture.csv").read_text().startswith(before)
    table = rows(tmp_path / "out" / "mixture.csv")
    assert len(table) == 2 * 3
    assert all(0 < float(r["distance"]) < 30 for r in table)
    assert "(2 problems)" in (tmp_path / "out" / "mixture.md").read_text()
    field = rows(tmp_path / "out" / "field.csv")
    assert len(field) == 3
    assert all(0.5 < float(r["coverage"]) <= 1 for r in field)
    assert (tmp_path / "out" / "scatter.png").exists()
    other = run_verb("experiments.posterior_benchmark", *few, "--num_samples=50")
    assert other.returncode == 1
    assert "other settings" in other.stderr


def test_phase_retrieval_reports_every_start(restore, inputs, tmp_path):
    """The start of least residual is the restoration; arrays of magnitudes can be restored as measured."""
    source = f"--input={inputs / 'colour2.png'}"
    few = ("--num_samples=3", "--num_steps=4")
    done = restore("--task=phase_retrieval", source, f"--output={tmp_path / 'a'}", *few)
    assert done.returncode == 0, done.stderr
    table = rows(tmp_path / "a" / "residuals.csv")
    assert [r["sample"] for r in table] == ["0", "1", "2"]
    best = min(table, key=lambda r: float(r["residual"]))
    assert [r["sample"] for r in table if r["chosen"] == "yes"] == [best["sample"]]
    chosen = pixels(tmp_path / "a" / "samples" / f"colour2_{int(best['sample']):02d}.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a" / "restored" / "colour2.png"), chosen)
    row = rows(tmp_path / "a" / "metrics.csv")[0]
    assert row["psnr_measurement"] == ""
    assert float(row["psnr_aligned"]) >= float(row["psnr"]) - 0.1
    y = np.load(tmp_path / "a" / "measurement" / "colour2.npy")
    assert y.shape == (26 + 2 * (26 // 4), 37 + 2 * (37 // 4), 3)
    again = restore(
        "--task=phase_retrieval", "--measured", f"--input={tmp_path / 'a' / 'measurement'}",
        f"--output={tmp_path / 'b'}", "--noise_std=.05", *few,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    first, second = (pixels(tmp_path / name / "restored" / "colour2.png") for name in "ab")
    assert np.abs(first - second).max() <= 1


def test_blind_jobs_write_image_and_kernel(restore, inputs, tiny_kernels, tmp_path):
    """By the search, and by algorithm 2 as printed."""
    common = ("--task=blind_motion_deblur", f"--input={inputs / 'colour0.png'}", f"--kernel_checkpoint={tiny_kernels}")
    search = restore(*common, f"--output={tmp_path / 'a'}", "--search_guesses=1")
    assert search.returncode == 0, search.stderr
    printed = restore(
        *common, f"--output={tmp_path / 'b'}", "--start=noise", "--guidance=plug_in", "--sampler=euler_maruyama",
        "--time_grid=uniform", "--num_steps=300",
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    for name in "ab":
        kernel = np.load(tmp_path / name / "kernel" / "colour0.npy")
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
        row = rows(tmp_path / name / "metrics.csv")[0]
        assert 0 <= float(row["kernel_mse"]) < 1
        assert float(row["psnr_aligned"]) >= float(row["psnr"]) - 0.1
    assert rows(tmp_path / "b" / "metrics.csv")[0]["network_evaluations"] == "300"


def test_chained_operators_photons_and_stored_operators(restore, inputs, tmp_path):
    """A composition under Poisson noise; its operator, as it was written, restores its measurement."""
    task = ("--task=motion_deblur+sr2", "--noise=poisson", "--photons=300")
    first = restore(*task, f"--input={inputs / 'colour0.png'}", f"--output={tmp_path / 'a'}")
    assert first.returncode == 0, first.stderr
    assert pixels(tmp_path / "a" / "measurement" / "colour0.png").shape == (16, 16, 3)
    stored = f"--operator={tmp_path / 'a' / 'operator' / 'colour0.npz'}"
    second = restore(
        *task, "--measured", f"--input={tmp_path / 'a' / 'measurement'}", f"--output={tmp_path / 'b'}", stored
    )
    assert second.returncode == 0, second.stderr
    assert pixels(tmp_path / "b" / "restored" / "colour0.png").shape == (32, 32, 3)
    wrong = restore(*task, f"--input={inputs / 'colour2.png'}", f"--output={tmp_path / 'c'}", stored)
    assert wrong.returncode == 1
    assert "the operator does not fit an image of 26x37" in wrong.stderr
    assert not (tmp_path / "c").exists()


def test_kernels_are_trained_on_without_files(run_verb, tmp_path):
    short = [*TRAIN[1:], "--data=kernels", "--num_steps=20", "--sample_every=20"]
    done = run_verb("train", *short, f"--output={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    loaded = checkpoints.load_prior(tmp_path / "run" / "prior")
    assert loaded.spec.image_channels == 1
    assert loaded.training["kernels_held_out"] == 4
    colour = run_verb("train", *short, "--image_channels=3", f"--output={tmp_path / 'other'}")
    assert colour.returncode == 1
    assert "kernels have one channel" in colour.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=sr4", "--input=no/such/file.png", "--output=OUT"], "no such file or folder"),
        (["--task=sr4", "--input=BROKEN", "--output=OUT"], "cannot read"),
        (["--task=deblur", "--input=IMAGE", "--output=OUT"], "task must be one of"),
        (["--task=sr4", "--input=IMAGE"], "--output is required"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--checkpoint=none"], "no prior in"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--checkpoint=MISMATCH"], "does not match"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--noise_std=0"], "noise_std must be positive"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--num_steps=1"], "num_steps must be at least 2"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--mass=-1"], "mass must be positive"),
        (["--task=mask_inpaint", "--input=IMAGE", "--output=OUT"], "mask_inpaint needs --mask=FILE"),
        (["--task=motion_deblur", "--measured", "--input=IMAGE", "--output=OUT"], "--kernel"),
        (
            ["--task=motion_deblur", "--input=IMAGE", "--output=OUT", "--kernel_size=8"],
            "kernel_size must be odd and at least 3",
        ),
        (["--task=motion_deblur", "--input=IMAGE", "--output=OUT", "--kernel=none.npy"], "none.npy"),
        (["--task=sr4+deblur", "--input=IMAGE", "--output=OUT"], "got 'deblur'"),
        (["--task=bkse_deblur", "--input=IMAGE", "--output=OUT"], "--bkse_weights"),
        (["--task=checkout", "--measured", "--input=IMAGE", "--output=OUT"], "--operator=FILE.npz"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--operator=IMAGE"], "as an operator"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--noise=poisson", "--photons=0"], "photons must be positive"),
        (["--task=blind_motion_deblur", "--input=IMAGE", "--output=OUT", "--kernel_checkpoint=none"], "no prior in"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--start=guess"], "no first guess"),
        (
            ["--task=motion_deblur", "--input=IMAGE", "--output=OUT", "--method=ddrm"],
            "DDRM cannot do motion_deblur: a ",
        ),
        (["--task=phase_retrieval", "--input=IMAGE", "--output=OUT", "--method=ilvr"], "for a picture"),
        (["--task=nonlinear_deblur", "--input=IMAGE", "--output=OUT", "--method=classical"], "no classical method"),
        (["--task=blind_motion_deblur", "--input=IMAGE", "--output=OUT", "--method=dps"], "must be given the kernel"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--method=blind_dps"], "for blind tasks alone"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--method=dps", "--guidance=plug_in"], "belongs to"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--method=dps", "--aim=posterior"], "--aim belongs to"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--method=dps", "--method_settings=eta=1"], "step_size"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--method=daps", "--method_settings=step_size=x"], "no float"),
        (["--task=sr4", "--input=IMAGE", "--output=OUT", "--method=dps", "--noise=poisson"], "Gaussian noise alone"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_one(restore, inputs, tiny_checkpoint, tmp_path, arguments, message):
    mismatch = tmp_path / "mismatch"
    shutil.copytree(tiny_checkpoint, mismatch)
    record = json.loads((mismatch / "prior.json").read_text())
    record["network"]["options"]["channels"] = [8, 16]
    (mismatch / "prior.json").write_text(json.dumps(record))
    names = {"OUT": tmp_path / "out", "BROKEN": inputs / "broken.png", "IMAGE": inputs / "colour0.png"}
    for name, value in (names | {"MISMATCH": mismatch}).items():
        arguments = [a.replace(name, str(value)) for a in arguments]
    done = restore(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_process_itself_refuses_what_it_does_not_know(run_program, inputs, tmp_path):
    image = f"--input={inputs / 'colour0.png'}"
    done = run_program("restore", "--task=sr4", image, f"--output={tmp_path / 'out'}", "--step=5")
    assert done.returncode == 1
    assert "Unknown command line flag 'step'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_method_restores_from_the_command_line(restore, inputs, tiny_kernels, tmp_path):
    """The same measurement for all of them; evaluations as counted, the classical one without any."""
    image = f"--input={inputs / 'colour0.png'}"
    measured = set()
    for method in (*BASELINES, "classical"):
        output = tmp_path / method
        done = restore("--task=sr2", image, f"--output={output}", f"--method={method}")
        assert done.returncode == 0, done.stderr
        row = rows(output / "metrics.csv")[0]
        assert row["network_evaluations"] == ("0" if method == "classical" else "6")
        measured.add((output / "measurement" / "colour0.png").read_bytes())
    assert len(measured) == 1
    output, kernels = tmp_path / "blind", f"--kernel_checkpoint={tiny_kernels}"
    done = restore("--task=blind_motion_deblur", image, f"--output={output}", "--method=blind_dps", kernels)
    assert done.returncode == 0, done.stderr
    assert rows(output / "metrics.csv")[0]["network_evaluations"] == "6"
    assert (output / "kernel" / "colour0.png").exists()


def test_explicit_sampler_that_diverges_is_reported(restore, inputs, tmp_path):
    """Not a picture of noise with a good conscience: an error, and exit code 1."""
    done = restore(
        "--task=denoise", f"--input={inputs / 'colour0.png'}", f"--output={tmp_path / 'a'}",
        "--sampler=euler_maruyama", "--num_steps=3", "--time_grid=uniform",
    )  # fmt: skip
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert not (tmp_path / "a" / "restored").exists()


TRAIN = [
    f"--data={SAMPLES}", "--image_size=16", "--channels=8,8", "--encoder_blocks=1,1", "--decoder_blocks=1,1",
    "--batch_size=4", "--num_validation=4", "--num_steps=120", "--save_every=20", "--log_every=20",
    "--sample_every=120", "--warmup_steps=5",
]  # fmt: skip


def test_killed_training_ends_as_if_it_had_not_been(run_program, run_verb, tmp_path):
    """SIGKILL in the middle; the same command again gives the same losses and the same prior."""
    whole = run_verb("train", *TRAIN, f"--output={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "cvsa_jax", "train", *TRAIN, f"--output={tmp_path / 'killed'}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (tmp_path / "killed" / "checkpoints" / "20").exists() and time.time() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "prior").exists()
    other = run_verb("train", *TRAIN, f"--output={tmp_path / 'killed'}", "--learning_rate=0.1")
    assert other.returncode == 1
    assert "--learning_rate=" in other.stderr
    again = run_program("train", *TRAIN, f"--output={tmp_path / 'killed'}")
    assert again.returncode == 0, again.stderr
    assert "continuing at step" in again.stdout
    losses = [[(r["step"], r["loss"]) for r in rows(tmp_path / n / "metrics.csv")] for n in ("whole", "killed")]
    assert losses[0] == losses[1]
    a, b = (checkpoints.load_prior(tmp_path / n / "prior") for n in ("whole", "killed"))
    x = np.random.default_rng(0).normal(size=(16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(a.prior.posterior_mean(x, x, 0.1), b.prior.posterior_mean(x, x, 0.1))
    np.testing.assert_array_equal(a.prior.calibration.error, b.prior.calibration.error)
    assert str(tmp_path) not in (tmp_path / "whole" / "prior" / "prior.json").read_text()
    assert (tmp_path / "whole" / "samples" / "0000120.png").exists()
    assert len(rows(tmp_path / "whole" / "validation.csv")[0]) == 17


def test_training_on_two_devices_is_training_on_one(run_program, run_verb, tmp_path):
    short = [*TRAIN, "--num_steps=20", "--sample_every=20", "--log_every=5", "--parameterization=velocity"]
    one = run_verb("train", *short, f"--output={tmp_path / 'one'}")
    flag = "--xla_force_host_platform_device_count=2"
    two = run_program("train", *short, f"--output={tmp_path / 'two'}", XLA_FLAGS=flag)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    losses = [[float(r["loss"]) for r in rows(tmp_path / n / "metrics.csv")] for n in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=none"], "no such file or folder"),
        (["--channels=8"], "same length"),
        (["--batch_size=100"], "only 12 training images"),
        (["--num_validation=16"], "16 validation images"),
        (["--image_size=18"], "multiple of 4"),
        (["--warmup_steps=500"], "--warmup_steps"),
    ],
)
def test_bad_training_settings_are_one_line(run_verb, tmp_path, arguments, message):
    done = run_verb("train", *TRAIN, f"--output={tmp_path / 'run'}", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "run").exists()
