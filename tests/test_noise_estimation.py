"""Noise estimated from measurements: each estimator where its answer is known, and jobs that use it."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SAMPLES

from cvsa_jax import CLD, Gaussian, SamplerSettings, batch, images, make_operator, prior_from_denoiser
from cvsa_jax import noise_estimation as estimation
from cvsa_jax.baselines import BASELINES, constants
from cvsa_jax.commands import flags
from cvsa_jax.data import load_squares
from cvsa_jax.folders import list_images
from cvsa_jax.jobs import resolve
from cvsa_jax.jobs.settings import known
from cvsa_jax.noise import GaussianNoise, PoissonGaussianSettings
from cvsa_jax.operators import Identity, Task, convolution, find_task, simulate
from cvsa_jax.spectral import estimate_spectrum

PLACES = {"input": "images", "output": "results"}


def white(variance: float, spectrum=None, channels=None):
    """A prior of independent pixels."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(variance)), CLD())
    return dataclasses.replace(prior, spectrum=spectrum, channels=channels)


def noise(shape, std: float, seed: int = 0) -> np.ndarray:
    return std * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_finest_detail_of_a_plane_is_its_noise():
    """A tilted plane adds nothing; what is not seen adds nothing either, whatever it holds."""
    rows, columns = np.mgrid[:96, :96] / 96
    y = noise((96, 96, 3), 0.1) + (rows + columns)[..., None] - 1
    seen = np.ones((96, 96), bool)
    assert estimation.wavelet_std(y, seen) == pytest.approx(0.1, rel=0.03)
    seen[20:40, 30:70] = False
    hidden = np.where(seen[..., None], y, 7.0)
    assert estimation.wavelet_std(hidden, seen) == estimation.wavelet_std(np.where(seen[..., None], y, -3.0), seen)
    assert estimation.wavelet_std(hidden, seen) == pytest.approx(0.1, rel=0.04)
    assert np.isnan(estimation.wavelet_std(y[:3, :3], seen[:3, :3]))


def test_the_noise_of_a_gain_is_told_as_if_the_picture_had_none():
    """y = 2 x + n of white pixels of variance v: the maximum is at s^2 = mean y^2 - 4 v."""
    variance, y = 0.005, noise((24, 21, 3), 0.25)
    operator = make_operator("hdr", np.random.default_rng(0), 24, 21, hdr_gain=2.0)
    estimator = estimation.NoiseEstimator(find_task("hdr"), white(variance, channels=3))
    exact = np.sqrt(np.mean(y**2) - 4 * variance)
    assert estimator(y, operator, y.shape) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("start", [0.1, 0.6])
def test_the_likeliest_noise_of_white_pixels(channels, start):
    """y ~ N(0, v + s^2): the maximum is at s^2 = mean y^2 - v. A grey pixel is the mean of three of variance v."""
    variance, y = 0.02, noise((24, 21, channels), 0.3)
    prior = white(variance, channels=3)
    own = variance if channels == 3 else variance / 3
    seen = np.ones((24, 21), bool)
    exact = np.sqrt(np.mean(y**2) - own)
    assert estimation.denoised_std(y, seen, prior, start) == pytest.approx(exact, rel=0.01 if channels == 3 else 0.03)
    seen[:8] = False
    y[:8] = 5.0
    exact = np.sqrt(np.mean(y[8:] ** 2) - own)
    assert estimation.denoised_std(y, seen, prior, start) == pytest.approx(exact, rel=0.01 if channels == 3 else 0.03)


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_the_noise_of_blurred_photographs(std):
    photos = load_squares(list_images(SAMPLES)[:3], 64, 3)
    prior, blur = (
        white(0.1, estimate_spectrum(photos)),
        make_operator("motion_deblur", np.random.default_rng(0), 64, 64),
    )
    estimator = estimation.NoiseEstimator(find_task("motion_deblur"), prior)
    for number, x in enumerate(photos):
        y = np.asarray(simulate(jax.random.key(number), blur, jnp.asarray(x), std))
        assert estimator(y, blur, x.shape) == pytest.approx(std, rel=0.1)


def test_what_a_wrong_kernel_cannot_explain_is_no_noise(photos):
    """Under a kernel that is too wide the detail of a photograph would all be noise, were it not for its wavelets."""
    prior, x = white(0.1, estimate_spectrum(photos)), photos[0]
    y = x + noise(x.shape, 0.01)
    taps = np.exp(-(np.arange(-6, 7) ** 2) / 8)
    wide = convolution(np.outer(taps, taps) / taps.sum() ** 2)
    found = estimation.NoiseEstimator(find_task("gaussian_deblur"), prior)(y, wide, x.shape)
    assert found == pytest.approx(estimation.wavelet_std(y, np.ones((32, 32), bool)))
    assert found is not None
    assert found < 0.7 * estimation.spectral_std(y, np.asarray(wide.kernel), prior)


def test_the_noise_of_scanners(photos):
    """The rays that miss the image hold noise alone; so does what a transform falls to."""
    x, prior = jnp.asarray(photos[0]), white(0.1, estimate_spectrum(photos))
    for task, std, tolerance in (
        ("ct", 0.004, 0.15),
        ("ct", 0.3, 0.15),
        ("mri", 0.2, 0.1),
        ("phase_retrieval", 0.3, 0.15),
    ):
        operator = make_operator(task, np.random.default_rng(0), 32, 32)
        y = np.asarray(simulate(jax.random.key(0), operator, x, std))
        assert estimation.NoiseEstimator(find_task(task), prior)(y, operator, (32, 32, 3)) == pytest.approx(
            std, rel=tolerance
        )


def test_pixels_that_are_alone_or_saturated(photos):
    """Of lost pixels that lie everywhere nothing is told; saturated ones have lost their noise and do not count."""
    prior = white(0.2)
    lost = make_operator("random_inpaint", np.random.default_rng(0), 32, 32)
    estimator = estimation.NoiseEstimator(find_task("random_inpaint"), prior)
    assert estimator(np.asarray(lost(jnp.asarray(photos[0]))), lost, (32, 32, 3)) is None
    y = noise((64, 64, 3), 0.2)
    y[:, :48] = 1.0
    found = estimation.NoiseEstimator(find_task("denoise"), white(0.02))(y, Identity(), y.shape)
    assert found == pytest.approx(np.sqrt(np.mean(y[:, 48:] ** 2) - 0.02), rel=0.01)


def test_what_no_estimator_knows_is_refused():
    task = Task("voltage", "of a thing", lambda *a: Identity(), (Identity,), picture=False)
    with pytest.raises(ValueError, match="--noise_std=auto does not know what voltage measures: give a number"):
        estimation.NoiseEstimator(task, white(0.1))
    with pytest.raises(ValueError, match="needs a prior that knows its data's spectrum"):
        estimation.NoiseEstimator(find_task("mri"), white(0.1))


def test_each_image_of_a_batch_has_its_own_noise():
    """As one alone whose noise is a constant; other noise, and other neighbours, compile nothing."""
    prior, shape = white(0.2), (6, 5, 3)
    ys, keys = jnp.asarray(noise((3, *shape), 0.4)), jax.random.split(jax.random.key(0), 3)
    settings = SamplerSettings(num_steps=4)
    own = batch.BatchRestorer(prior, batch.guided_loops(prior, GaussianNoise(0.7), settings, None), 4)
    stds, shift = (0.05, 0.2, 0.6), lambda _: None
    found = own(keys, ys, [Identity()] * 3, shape, shift, [GaussianNoise(s) for s in stds])
    programs = len(own._compiled)
    for i, std in enumerate(stds):
        constant = batch.BatchRestorer(prior, batch.guided_loops(prior, GaussianNoise(std), settings, None), 4)
        alone = constant(keys[i : i + 1], ys[i : i + 1], [Identity()], shape)
        np.testing.assert_allclose(found.images[i], alone.images[0], atol=1e-5)
    again = own(keys, ys, [Identity()] * 3, shape, shift, [GaussianNoise(s) for s in (0.3, 0.2, 0.01)])
    assert len(own._compiled) == programs
    np.testing.assert_array_equal(again.images[1], found.images[1])


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_take_noise_that_varies(name, tiny_prior):
    loops = batch.baseline_loops(name, GaussianNoise(0.05), 10, constants(name), None)
    restorer = batch.BatchRestorer(tiny_prior, loops, 10)
    traced = jax.eval_shape(lambda: jnp.zeros(()))
    blur = make_operator("gaussian_deblur", np.random.default_rng(0), 16, 16)
    restorer.check(np.zeros((16, 16, 3), np.float32), blur, (16, 16, 3), GaussianNoise(traced))


@pytest.mark.parametrize("noisy", ["noise_std=25", "noise_std=2.5"])
def test_noise_on_another_scale_is_explained(noisy):
    value = float(noisy.partition("=")[2])
    wanted = rf"noise_std={value:g} .* 2 \* {value:g} / 255 = {2 * value / 255:.3g}"
    for kind in ({}, {"noise": "poisson_gaussian"}, {"measured": True}):
        with pytest.raises(ValueError, match=wanted):
            resolve({"task": "denoise", "noise_std": value, **kind, **PLACES})
    job = resolve({"task": "denoise", "noise": "poisson", "photons": 2000.0, **PLACES})
    assert job.values()["photons"] == 2000


def test_which_jobs_estimate():
    """Measured ones, where the noise is Gaussian and an estimator knows the task; clean ones keep .05."""

    def std(task, **given):
        return getattr(resolve({"task": task, **given, **PLACES}).noise, "noise_std", None)

    assert std("denoise") == 0.05
    for task in ("denoise", "sr4", "mri", "ct", "phase_retrieval", "sr2+phase_retrieval", "motion_deblur+sr4"):
        assert std(task, measured=True) == "auto"
    assert std("denoise", measured=True, noise_std=0.3) == 0.3
    assert std("denoise", measured=True, noise="poisson") is None
    assert std("denoise", measured=True, noise="poisson_gaussian") == 0.05
    with pytest.raises(ValueError, match="--noise_std=auto estimates the noise of measurements: give --measured"):
        std("denoise", noise_std="auto")
    with pytest.raises(ValueError, match="--noise=poisson_gaussian give a number"):
        PoissonGaussianSettings(noise_std="auto")
    with pytest.raises(ValueError, match="--noise_std belongs to"):
        std("denoise", measured=True, noise="poisson", noise_std="auto")
    with pytest.raises(ValueError, match="noise_std must be a number, got 'auto'"):
        GaussianNoise("auto").check()


def test_a_number_or_a_word_as_a_flag():
    read = lambda text: flags.parse([f"--noise_std={text}"], known())["noise_std"]  # noqa: E731
    assert read("auto") == "auto"
    assert read(".25") == 0.25
    with pytest.raises(ValueError, match="must be a number or auto"):
        read("automatic")
    assert "positive or auto" in flags.help_text("", known())


def test_a_measured_job_tells_the_noise_of_each_image(run_restore, tiny_checkpoint, photos, tmp_path):
    """On the screen, in metrics.csv and in summary.json; a given number is kept, and each image is as if alone."""
    for name, std in (("calm", 0.02), ("rough", 0.4)):
        images.save_image(tmp_path / "in" / f"{name}.png", photos[0] / 2 + noise((32, 32, 3), std))
    few = ["--task=denoise", "--measured", f"--checkpoint={tiny_checkpoint}", "--num_steps=2", "--num_samples=1"]
    few += ["--batch_size=1"]
    done = run_restore(*few, f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = record["noise_std"]
    assert found["rough"] > 3 * found["calm"]
    assert f"rough: noise {found['rough']:.2g}"[:-1] in done.stderr
    assert record["settings"]["noise_std"] == "auto"
    with (tmp_path / "out" / "metrics.csv").open() as file:
        assert {row["image"]: float(row["noise_std"]) for row in csv.DictReader(file)} == found
    done = run_restore(*few, f"--input={tmp_path / 'in' / 'rough.png'}", f"--output={tmp_path / 'alone'}")
    alone, both = (images.read_image(tmp_path / n / "restored" / "rough.png") for n in ("alone", "out"))
    assert np.abs(alone - both).max() <= 2 / 255
    assert json.loads((tmp_path / "alone" / "summary.json").read_text())["noise_std"] == {"rough": found["rough"]}
