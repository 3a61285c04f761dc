"""What a job says of answers that are likely to be wrong."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import TASKS, images, make_operator, preset_of
from cvsa_jax.jobs import cautions, resolve
from cvsa_jax.jobs.inputs import Entry, Measured
from cvsa_jax.noise import GaussianNoise, PoissonNoise
from cvsa_jax.operators import Identity, find_task

PLACES = {"input": "images", "output": "results"}


def measured_by(operator, y) -> Measured:
    return Measured(Entry(pathlib.Path("a.png"), "a", (32, 32, 3), "a"), None, np.asarray(y), operator)


def blank(operator=Identity(), shape=(32, 32, 3), level=0.0):  # noqa: B008
    return measured_by(operator, np.full(shape, level, np.float32))


@pytest.mark.parametrize("ratio", [0.49, 1.0, 1.58])
def test_right_restorations_are_silent(ratio):
    """The extremes of what presets leave on the shipped photographs, docs/results.md."""
    for task in TASKS.values():
        assert cautions.misfit(0.05 * ratio, GaussianNoise(0.05), blank(), task) is None


@pytest.mark.parametrize(
    ("task", "residual", "words"),
    [
        ("motion_deblur", 0.25, "the residual is 0.25, but the noise 0.05: look at the kernel, the range"),
        ("mask_inpaint", 0.25, "look at the mask, the range"),
        ("checkout", 0.25, "look at the kernel, the mask, the range"),
        ("blind_motion_deblur", 0.25, "look at the range"),
        ("sr4", 0.25, "look at how the image was shrunk, the range"),
        ("phase_retrieval", 0.25, "magnitudes, not their squares, where frequency zero is, --oversampling"),
        ("denoise", 0.25, "and the number of steps"),
        ("denoise", 0.01, "the residual is 0.01, but the noise 0.05: --noise_std is too large"),
    ],
)
def test_a_residual_unlike_the_noise_is_told(task, residual, words):
    found = cautions.misfit(residual, GaussianNoise(0.05), blank(), find_task(task))
    assert found is not None
    assert words in found


def test_the_noise_is_that_of_what_is_measured():
    """Under a mask nothing counts; photons scatter with the light: 4 m / rate^2, m of them."""
    mask = make_operator("box_inpaint", np.random.default_rng(0), 32, 32)
    y = np.where(np.asarray(mask(jnp.ones((32, 32, 3)))) > 0, np.float32(0.5), np.float32(99))
    assert cautions.expected_residual(PoissonNoise(100.0), measured_by(mask, y)) == pytest.approx((4 * 75) ** 0.5 / 100)
    scanner = make_operator("mri", np.random.default_rng(0), 32, 32)
    complex_y = np.zeros((32, 32, 3), np.complex64)
    assert cautions.expected_residual(GaussianNoise(0.2), measured_by(scanner, complex_y)) == pytest.approx(0.2)


def test_few_numbers_may_scatter():
    """Of four numbers the root mean square itself scatters by a third of the noise."""
    few, many = (blank(shape=(n, 1, 1)) for n in (4, 4000))
    assert cautions.misfit(0.12, GaussianNoise(0.05), few, TASKS["denoise"]) is None
    assert cautions.misfit(0.12, GaussianNoise(0.05), many, TASKS["denoise"]) is not None


def test_answers_that_are_no_images_are_told():
    x = np.zeros((2, 10, 10, 1), np.float32)
    x[:, :, :1] = 1.15
    assert cautions.out_of_range(x, TASKS["denoise"]) is None
    x[:, :, :1] = -1.3
    found = str(cautions.out_of_range(x, TASKS["motion_deblur"]))
    assert found.startswith("10% of the answer lies beyond [-1.2, 1.2]")
    assert "look at the kernel, the range of the values" in found
    assert cautions.much_noise(0.4, TASKS["denoise"]) is None
    assert "noise of 0.8: look at whether these are" in str(cautions.much_noise(0.8, TASKS["phase_retrieval"]))


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if not task.requires])
def test_few_steps_are_told(task):
    """Below the least number, of this package's method alone; a preset has enough, and a correction counts as one."""
    least = cautions.least_steps(TASKS[task])
    told = lambda **given: cautions.few_steps(TASKS[task], resolve({"task": task, **given, **PLACES}).method)  # noqa: E731
    assert least <= preset_of(task).sampler.num_steps
    assert told() is None
    assert told(num_steps=least) is None
    assert told(num_steps=least - 1) == (
        f"--num_steps={least - 1} is few for {task}: {least} stay within 1.5 dB of the preset"
    )
    assert told(num_steps=6, num_corrections=9) is None
    if not TASKS[task].blind:
        assert told(method="diffpir", num_steps=3) is None


def test_joined_tasks_need_the_steps_of_both():
    assert cautions.least_steps(find_task("motion_deblur+sr4")) == 15
    assert cautions.least_steps(find_task("sr2+mri")) == 35


def test_a_diverged_loop_is_traced_to_its_measurement():
    method = resolve({"task": "denoise", **PLACES}).method
    y = np.full((4, 4, 1), 255.0, np.float32)
    y[0] = 0
    found = cautions.divergence(measured_by(Identity(), y), np.array([np.nan, 40.0]), method)
    assert found == (
        "the loop diverged; its measurement is 0 to 255, its residual 40; "
        "take more steps, or sampler ancestral with covariance"
    )
    y[1, 1] = np.nan
    baseline = resolve({"task": "denoise", "method": "dps", **PLACES}).method
    found = cautions.divergence(measured_by(Identity(), y), np.array([np.nan]), baseline)
    assert found == "the loop diverged; its measurement is 0 to 255, 1 not finite, its residual not finite"
    scanner = make_operator("mri", np.random.default_rng(0), 4, 4)
    found = cautions.divergence(measured_by(scanner, np.full((4, 4, 1), 3 + 4j)), np.array([1.0]), baseline)
    assert "its measurement is 5 to 5" in found


def test_a_job_warns_and_keeps_it(run_restore, tiny_checkpoint, photos, tmp_path):
    """On the screen and in summary.json; the job itself succeeds. What diverged names no file that is not there."""
    images.save_image(tmp_path / "a.png", photos[0])
    few = ["--task=denoise", f"--input={tmp_path / 'a.png'}", f"--checkpoint={tiny_checkpoint}", "--num_samples=1"]
    done = run_restore(*few, "--num_steps=2", "--noise_std=.01", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "warning: --num_steps=2 is few for denoise: 10 stay within 1.5 dB of the preset" in done.stderr
    (text,) = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"].values()
    assert f"warning: a: {text}" in done.stderr
    assert "but the noise 0.01: look at the range of the values" in text
    done = run_restore(
        *few, "--num_steps=3", "--sampler=euler_maruyama", "--time_grid=uniform", f"--output={tmp_path / 'lost'}"
    )
    assert done.returncode == 1
    assert "the loop diverged; its measurement is -" in done.stderr
    assert "grid.png" not in done.stdout
    assert not (tmp_path / "lost" / "grid.png").exists()
