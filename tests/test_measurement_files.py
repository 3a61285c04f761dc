"""Arrays that people bring as measurements: the same numbers by any file and layout, or one line that says why not."""

import re

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from cvsa_jax.jobs import inputs
from cvsa_jax.jobs.measurements import MeasurementSettings, is_array, read_measurement
from cvsa_jax.jobs.selection import Chosen
from cvsa_jax.jobs.settings import resolve
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.operators import FourierMagnitude, find_task
from cvsa_jax.operators.fourier import centred_transform
from cvsa_jax.operators.tomography import radon
from cvsa_jax.types import InputError

SR2, PHASE = find_task("sr2"), find_task("phase_retrieval")
MRI, CT = find_task("mri"), find_task("ct")
PICTURE = np.random.default_rng(0).uniform(-1, 1, (8, 10, 3)).astype(np.float32)


def write(path, array):
    if path.suffix == ".npz":
        np.savez(path, other=np.zeros(3), y=array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"measurement": array, "note": "text"})
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb")
    else:
        np.save(path, array)
    return path


def read(path, task=SR2, limits=None, **settings):
    return read_measurement(path, 3, task, task.settings(**settings), limits)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif"])
def test_every_file_gives_the_same_numbers(tmp_path, suffix):
    path = write(tmp_path / f"y{suffix}", PICTURE)
    assert is_array(path)
    np.testing.assert_array_equal(read(path), PICTURE)


def test_a_tiff_of_whole_numbers_is_a_picture(tmp_path):
    assert not is_array(write(tmp_path / "y.tif", np.zeros((8, 10, 3), np.uint16)))


LAYOUTS = {
    "HWC": lambda a: a, "CHW": lambda a: np.moveaxis(a, -1, 0), "1HWC": lambda a: a[None],
    "1CHW": lambda a: np.moveaxis(a, -1, 0)[None], "float64": lambda a: a.astype(float),
    "big-endian": lambda a: a.astype(">f4"), "Fortran": np.asfortranarray,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_numbers(tmp_path, layout):
    found = read(write(tmp_path / "y.npy", LAYOUTS[layout](PICTURE)))
    np.testing.assert_array_equal(found, PICTURE)
    assert found.dtype == np.float32


def test_grey_layouts(tmp_path):
    grey = PICTURE[..., :1]
    for array in (grey, grey[..., 0], grey[None, ..., 0], grey[None]):
        np.testing.assert_array_equal(read(write(tmp_path / "y.npy", array)), grey)


def test_half_precision_is_read(tmp_path):
    found = read(write(tmp_path / "y.npy", PICTURE.astype(np.float16)))
    np.testing.assert_allclose(found, PICTURE, atol=5e-4)


@pytest.mark.parametrize("shape", [(3, 9, 3), (1, 3, 9, 3), (1, 9, 1), (1, 9, 3)])
def test_a_layout_of_two_readings_is_refused(tmp_path, shape):
    with pytest.raises(InputError, match=r"channels may be first or last"):
        read(write(tmp_path / "y.npy", np.full(shape, -0.5)))


@pytest.mark.parametrize(
    ("array", "offer"),
    [
        ((PICTURE + 1) / 2, "--range=0,1, or --range=-1,1 if"),
        ((PICTURE + 1) * 127.5, "--range=0,255"),
        (np.uint8((PICTURE + 1) * 127.5), "uint8, but numbers in .* --range=0,255"),
        (np.uint16((PICTURE + 1) * 32767.5), "--range=0,65535"),
    ],
)
def test_a_range_that_is_not_that_of_pictures_is_named_and_can_be_given(tmp_path, array, offer):
    path = write(tmp_path / "y.npy", array)
    with pytest.raises(InputError, match=offer) as caught:
        read(path)
    assert f"{array.min():g} to {array.max():g}" in str(caught.value)
    limits = offer.split("--range=")[1].split(", or")[0]
    np.testing.assert_allclose(read(path, limits=tuple(map(float, limits.split(",")))), PICTURE, atol=0.008)


def test_noise_beyond_the_range_is_no_other_range(tmp_path):
    noisy = PICTURE + np.random.default_rng(1).normal(0, 0.5, PICTURE.shape).astype(np.float32)
    np.testing.assert_array_equal(read(write(tmp_path / "y.npy", noisy)), noisy)
    bright = np.abs(PICTURE)
    np.testing.assert_array_equal(read(write(tmp_path / "y.npy", bright), limits=(-1.0, 1.0)), bright)


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("y.npz", {"a": PICTURE, "b": PICTURE}, r"holds 2 arrays \(a \(8x10x3\), b"),
        ("y.npz", {"y": np.array([{}], object)}, "cannot read"),
        ("y.mat", {"a": PICTURE, "b": PICTURE}, r"holds 2 arrays \(a \(8x10x3\), b"),
    ],
)
def test_files_without_the_one_array_are_one_line(tmp_path, name, arrays, message):
    save = np.savez if name.endswith("npz") else lambda path, **named: scipy.io.savemat(path, named)
    save(tmp_path / name, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["y.npy", "y.npz", "y.mat", "y.tif"])
def test_damaged_files_are_one_line(tmp_path, name):
    path = write(tmp_path / name, PICTURE)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM" + bytes(400)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"y\.\w+") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_matlabs_newer_format_is_named(tmp_path):
    (tmp_path / "y.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(InputError, match=r"MATLAB's format 7\.3; save it with '-v7'"):
        read(tmp_path / "y.mat")


def test_a_scalar_beside_the_measurement_is_no_question(tmp_path):
    np.savez(tmp_path / "y.npz", image=PICTURE, noise=0.05)
    np.testing.assert_array_equal(read(tmp_path / "y.npz"), PICTURE)


def test_a_tiff_of_floats_is_turned_upright_and_uncompressed_as_a_picture_is(tmp_path):
    tifffile.imwrite(tmp_path / "y.tif", np.rot90(PICTURE), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(read(tmp_path / "y.tif"), PICTURE)
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / "y.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "y.tif"), PICTURE[..., :1])


def test_a_range_that_is_given_is_held_against_the_values(tmp_path):
    for array, limits in (((PICTURE + 1) / 2, (0.0, 255.0)), ((PICTURE + 1) * 127.5, (0.0, 1.0))):
        with pytest.raises(InputError, match="which is not --range=0,"):
            read(write(tmp_path / "y.npy", array), limits=limits)


def test_complex_numbers_behind_real_ones_of_their_shape_are_refused(tmp_path):
    job = inputs.Reader(SR2, SR2.settings(), 3, None, True, GaussianSettings().model(), 0, root=tmp_path)
    files = [write(tmp_path / "a.npy", PICTURE), write(tmp_path / "b.npy", PICTURE + 0.1j)]
    entries, failures = job.check([Chosen(f, f.stem, f.name, f.stem) for f in files])
    assert [entry.name for entry in entries] == ["a"]
    assert failures["b"] == f"{files[1]}: sr2 measures real numbers, but the input has complex numbers"


def test_a_header_of_a_tiff_without_pages_is_no_array(tmp_path):
    (tmp_path / "y.tif").write_bytes(b"II*\0\x08")
    assert not is_array(tmp_path / "y.tif")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y * 32, "at most 1 of an image in [-1, 1]: divide, by 32"),
        (lambda y: np.fft.ifftshift(y, (0, 1)), "frequency zero is in the corner"),
    ],
)
def test_what_no_scanner_measures_of_an_image_is_refused(tmp_path, photos, change, message):
    y = np.asarray(centred_transform(photos[0]))
    np.testing.assert_array_equal(read(write(tmp_path / "y.npy", y), MRI), y)
    with pytest.raises(InputError, match=re.escape(message)):
        read(write(tmp_path / "y.npy", change(y)), MRI)


def test_sums_along_rays_are_those_of_an_image(tmp_path, photos):
    y = np.asarray(radon(np.arange(0, 180, 20))(photos[0]))
    np.testing.assert_array_equal(read(write(tmp_path / "y.npy", y), CT), y)
    with pytest.raises(InputError, match="divided by the root of its side, are at most 8"):
        read(write(tmp_path / "y.npy", 10 * y), CT)


def test_ranges_are_two_numbers():
    assert MeasurementSettings(range=("0", "255")).range == (0.0, 255.0)
    for bad in (("0",), ("255", "0"), ("a", "b"), ("0", "nan")):
        with pytest.raises(ValueError, match="range must be two numbers"):
            MeasurementSettings(range=bad)
    job = {"task": "sr2", "input": "a", "output": "b"}
    assert resolve({**job, "range": ("0", "1")}).job.range == (0.0, 1.0)  # clean pictures of floats have one too


@pytest.fixture(scope="module")
def magnitudes(photos) -> np.ndarray:
    return np.asarray(FourierMagnitude(8, 8)(photos[0]))


def test_magnitudes_in_every_convention_are_the_same(tmp_path, magnitudes):
    path = write(tmp_path / "y.npy", magnitudes)
    np.testing.assert_array_equal(read(path, PHASE), magnitudes)
    np.testing.assert_array_equal(read(write(path, np.fft.ifftshift(magnitudes, (0, 1))), PHASE), magnitudes)
    found = read(write(path, magnitudes**2), PHASE, phase_measures="intensity")
    np.testing.assert_allclose(found, magnitudes, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y**2, "these are intensities, --phase_measures=intensity"),
        (lambda y: y * 48, "the transform is not orthonormal, divide by 48"),
        (lambda y: (y * 48) ** 2, "divide by 2304 and give --phase_measures=intensity"),
        (lambda y: np.roll(y, 1, 0), r"frequency zero is neither at \(24, 24\) nor at \(0, 0\)"),
        (lambda y: -y, "these are no magnitudes"),
        (lambda y: y[:47], r"no image has a padded side of 47 with --oversampling=2"),
    ],
)
def test_what_no_image_measures_is_refused(tmp_path, magnitudes, change, message):
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "y.npy", change(magnitudes)), PHASE)
