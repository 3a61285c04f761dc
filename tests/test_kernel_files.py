"""Kernels from files: each kind is read as the blur that it is, or is refused in one line."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.ndimage
from PIL import Image

from cvsa_jax.jobs import inputs, pairing
from cvsa_jax.jobs.buckets import batches
from cvsa_jax.jobs.selection import Chosen
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.operators import find_task, make_operator
from cvsa_jax.operators.kernel_files import read_kernel, scaled_kernel
from cvsa_jax.operators.paired_files import PairedFiles
from cvsa_jax.settings import read_files
from cvsa_jax.types import InputError

# Nothing about it is symmetric, its levels are whole numbers, its largest is 255.
LEVELS = np.array([[0, 10, 20], [255, 40, 0], [30, 0, 5]])
SHARES = LEVELS / LEVELS.sum()


def _chosen(path) -> Chosen:
    return Chosen(path, path.stem, path.name, path.stem)


def write(path, array, **options):
    """A file of an array, by its suffix."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, kernel=array, note="a shaken camera")
    elif path.suffix in (".txt", ".csv"):
        np.savetxt(path, array, delimiter="," if path.suffix == ".csv" else " ", header="a shaken camera")
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"k": array} | options)
    else:
        Image.fromarray(array).save(path)
    return str(path)


def blur(path: str, height=12, width=10, task="motion_deblur", **settings):
    """The operator of a task with that kernel."""
    settings = read_files(find_task(task).settings(kernel=path, **settings))
    return make_operator(task, np.random.default_rng(0), height, width, settings)


def reader(folder, task="motion_deblur", measured=True, image_size=None, **settings) -> inputs.Reader:
    found = find_task(task)
    own = read_files(found.settings(**settings))
    return inputs.Reader(found, own, 3, image_size, measured, GaussianSettings().model(), 0, root=folder)


def save_photo(path, height=12, width=10, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.npy", SHARES),
        ("a.npy", LEVELS.astype(np.uint8)),
        ("a.npy", LEVELS[..., None].astype(np.float32)),
        ("a.npy", LEVELS[None]),
        ("a.npy", LEVELS[None, None]),
        ("a.npy", np.repeat(SHARES[None], 3, 0)),
        ("a.npy", np.pad(SHARES, 40)),
        ("a.npy", np.pad(SHARES, ((40, 39), (60, 59)))),
        ("a.npz", SHARES),
        ("a.npy", np.repeat(SHARES[..., None], 3, -1)),
        ("a.mat", SHARES),
        ("a.txt", SHARES),
        ("a.csv", LEVELS),
        ("a.png", LEVELS.astype(np.uint8)),
        ("a.png", np.repeat(LEVELS[..., None].astype(np.uint8), 3, -1)),
        ("a.png", (LEVELS * 257).astype(np.uint16)),
        ("a.tif", SHARES.astype(np.float32)),
        ("a.tif", SHARES.astype(np.float64)),
        ("a.tif", (SHARES * 100).astype(np.float32)),
        ("a.tif", (LEVELS * 1000).astype(np.int32)),
    ],
)
def test_every_kind_of_file_is_the_same_kernel(tmp_path, name, array):
    kernel = blur(write(tmp_path / name, array)).blur_kernel()
    np.testing.assert_allclose(kernel, SHARES, atol=1e-6)


def test_a_blur_is_the_convolution_with_the_file(tmp_path):
    """Not the correlation, which turns the kernel by 180 degrees: SciPy's convolution, mirrored alike."""
    image = np.random.default_rng(0).uniform(-1, 1, (12, 10, 1))
    expected = scipy.ndimage.convolve(image[..., 0], SHARES, mode="mirror")
    found = blur(write(tmp_path / "k.png", LEVELS.astype(np.uint8)))(jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-5)
    turned = scipy.ndimage.correlate(image[..., 0], SHARES, mode="mirror")
    assert np.abs(turned - expected).max() > 0.1


@pytest.mark.parametrize("shape", [(4, 4), (4, 3), (3, 2), (1, 2), (6, 5)])
def test_an_even_kernel_keeps_the_centre_that_scipy_gives_it(tmp_path, shape):
    """Entry n // 2: nothing is shifted by half a pixel or a whole one."""
    generator = np.random.default_rng(1)
    kernel, image = generator.uniform(size=shape), generator.uniform(-1, 1, (12, 10))
    operator = blur(write(tmp_path / "k.npy", kernel), boundary="circular")
    expected = scipy.ndimage.convolve(image, kernel / kernel.sum(), mode="wrap")
    np.testing.assert_allclose(operator(jnp.asarray(image[..., None], jnp.float32))[..., 0], expected, atol=1e-5)
    assert f"{shape[0]}x{shape[1]}" in read_kernel(str(tmp_path / "k.npy")).remark


@pytest.mark.parametrize("task", ["motion_deblur+sr2", "checkout", "gaussian_deblur", "mask_inpaint+motion_deblur"])
def test_composed_tasks_blur_by_the_file(tmp_path, task):
    mask = np.zeros((12, 10), np.uint8)
    mask[2:4, 3:5] = 255
    own = {"mask": write(tmp_path / "m.png", mask)} if "mask" in task or task == "checkout" else {}
    write(tmp_path / "k.npy", SHARES)
    job = reader(tmp_path, task, kernel=str(tmp_path / "k.npy"), **own)
    photo = save_photo(tmp_path / "photo.png")
    settings, _ = pairing.settings_of(job.task, job.settings, pairing.Source(photo, tmp_path, True, None))
    operator = make_operator(task, np.random.default_rng(0), 12, 10, settings)
    image = np.random.default_rng(0).uniform(-1, 1, (12, 10, 1)).astype(np.float32)
    seen = 1 - mask[..., None] / 255.0
    blurred = scipy.ndimage.convolve(
        (image * seen if task.startswith("mask") else image)[..., 0], SHARES, mode="mirror"
    )
    if task == "checkout":
        blurred = blurred * seen[..., 0]
    if task == "motion_deblur+sr2":
        blurred = make_operator("sr2", np.random.default_rng(0), 12, 10)(jnp.asarray(blurred[..., None]))[..., 0]
    np.testing.assert_allclose(operator(jnp.asarray(image))[..., 0], blurred, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("k.npy", np.zeros((3, 3)), "is zero everywhere"),
        ("k.npy", -np.eye(3), "sums to -3"),
        ("k.npy", np.full((3, 3), np.nan), "holds NaN or infinite numbers"),
        ("k.npy", np.ones((2, 3, 3, 1)), r"is no matrix, but of shape \(2, 3, 3, 1\)"),
        ("k.npy", np.ones(5), r"is no matrix, but of shape \(5,\)"),
        ("k.npy", np.random.default_rng(0).uniform(size=(3, 3, 3)), "differs between its colours"),
        ("k.npy", np.ones((0, 3)), "holds no numbers"),
        ("k.npy", np.eye(3) * 1j, "holds complex numbers"),
        ("k.npy", np.array([["a"]]), "cannot read"),
        ("k.csv", np.full((3, 3), np.nan), "holds NaN or infinite numbers"),
        ("k.png", np.zeros((5, 5), np.uint8), "is zero everywhere"),
        ("k.png", np.random.default_rng(0).integers(0, 255, (5, 5, 3), np.uint8), "differs between its colours"),
        ("k.png", 255 - np.pad(np.full((3, 3), 200, np.uint8), 3), "dark on a bright ground"),
    ],
)
def test_what_is_no_kernel_is_one_line_with_the_file(tmp_path, name, array, message):
    path = write(tmp_path / name, array)
    with pytest.raises(InputError, match=message) as caught:
        read_kernel(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1 2\n3\n", "row;column\n1;2\n", "\xff\xfe", "", "# nothing\n"])
def test_text_that_is_no_matrix_is_one_line(tmp_path, text):
    path = tmp_path / "k.csv"
    path.write_text(text, "latin-1")
    with pytest.raises(InputError, match=r"k\.csv (must be rows of equally many numbers|holds no numbers)"):
        read_kernel(str(path))


def test_a_spreadsheets_table_is_a_kernel(tmp_path):
    """Semicolons, decimal commas, a byte order mark and an empty last line, as many spreadsheets write them."""
    path = tmp_path / "k.csv"
    cells = [[f"{share:.8f}".replace(".", ",") for share in row] for row in SHARES]
    path.write_text("\ufeff" + "\r\n".join(";".join(row) for row in cells) + "\r\n\r\n", "utf-8")
    np.testing.assert_allclose(blur(str(path)).blur_kernel(), SHARES, atol=1e-6)


def test_variables_of_a_mat_file_are_told_apart(tmp_path):
    """Scalars and text are no kernels; of two matrices one must be named."""
    one = write(tmp_path / "one.mat", SHARES, gain=2.0, text="a kernel", cells=np.array([[1], ["a"]], object))
    np.testing.assert_allclose(read_kernel(one).values, SHARES)
    two = write(tmp_path / "two.mat", SHARES, image=np.ones((8, 8)))
    with pytest.raises(InputError, match=r"holds 2 arrays \(k \(3x3\), image \(8x8\)\): .*or give FILE:NAME"):
        read_kernel(two)
    np.testing.assert_allclose(read_kernel(f"{two}:k").values, SHARES)
    with pytest.raises(InputError, match="has no array psf, but k, image"):
        read_kernel(f"{two}:psf")


def test_a_mat_file_of_another_format_or_damaged_is_one_line(tmp_path):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(header.ljust(600, b"\0"))
    with pytest.raises(InputError, match=r"cannot read .*new.mat: MATLAB's format 7.3; save it with '-v7'"):
        read_kernel(str(tmp_path / "new.mat"))
    whole = write(tmp_path / "cut.mat", np.random.default_rng(0).uniform(size=(31, 31)))
    data = (tmp_path / "cut.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot read .*cut\.mat as an array") as caught:
        read_kernel(whole)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no such file: .*none\.mat"):
        read_kernel(str(tmp_path / "none.mat"))


def test_an_array_that_is_scaled_is_said_once(tmp_path, capsys):
    files = [_chosen(save_photo(tmp_path / "in" / f"{n}.png", seed=n)) for n in range(3)]
    kernel = write(tmp_path / "k.npy", 7.0 * SHARES)
    entries, failures = reader(tmp_path / "in", kernel=kernel).check(files)
    assert (len(entries), failures) == (3, {})
    assert capsys.readouterr().err == f"the kernel {kernel} sums to 7 and is scaled to 1\n"
    for quiet in (write(tmp_path / "b.npy", SHARES), write(tmp_path / "c.png", LEVELS.astype(np.uint8))):
        reader(tmp_path / "in", kernel=quiet).check(files)
        assert capsys.readouterr().err == ""


def test_a_kernel_larger_than_the_image_is_one_line(tmp_path):
    photo = save_photo(tmp_path / "in" / "a.png")
    kernel = write(tmp_path / "k.npy", np.ones((5, 11)))
    _, failures = reader(tmp_path / "in", kernel=kernel).check([Chosen(photo, "a", "a.png", "a")])
    assert failures == {"a": f"{photo}: the kernel of 5x11 is larger than the image of 12x10"}


def test_a_folder_gives_each_image_its_own(tmp_path):
    """By its name below the folder; what is missing or wrong is reported of that image, the others are done."""
    names = ("a", "sub/a", "b", "c", "Big")
    files = [Chosen(save_photo(tmp_path / "in" / f"{n}.png", seed=i), n, f"{n}.png", n) for i, n in enumerate(names)]
    kernels = {n: np.random.default_rng(i).uniform(size=(3, 3)) for i, n in enumerate(names)}
    (tmp_path / "k" / "sub").mkdir(parents=True)
    write(tmp_path / "k" / "a.npy", kernels["a"])
    write(tmp_path / "k" / "sub" / "a.mat", kernels["sub/a"])
    write(tmp_path / "k" / "b_kernel.npy", kernels["b"])
    write(tmp_path / "k" / "big.npy", kernels["Big"])
    job = reader(tmp_path / "in", kernel=str(tmp_path / "k"))
    entries, failures = job.check(files)
    assert [e.name for e in entries] == ["a", "sub/a", "b", "Big"]
    assert list(failures) == ["c"]
    assert f"c.png: the folder {tmp_path / 'k'} has no kernel of that name" in failures["c"]
    for entry in entries:
        expected = kernels[entry.name] / kernels[entry.name].sum()
        np.testing.assert_allclose(job.measure(entry).operator.blur_kernel(), expected, atol=1e-6)
    write(tmp_path / "k" / "c.npy", np.zeros((3, 3)))
    write(tmp_path / "k" / "a.mat", kernels["a"])
    _, failures = reader(tmp_path / "in", kernel=str(tmp_path / "k")).check(files)
    assert "is zero everywhere" in failures["c"]
    assert "has a.mat and a.npy, but one kernel is needed" in failures["a"]


def test_one_image_finds_its_kernel_in_a_folder(tmp_path):
    photo = save_photo(tmp_path / "in" / "a.jpg")
    (tmp_path / "k").mkdir()
    write(tmp_path / "k" / "a.npy", SHARES)
    entries, failures = reader(photo, kernel=str(tmp_path / "k")).check([Chosen(photo, "a", "a.png", "a")])
    assert (len(entries), failures) == (1, {})


def test_a_folder_of_kernels_among_the_images_is_no_image(tmp_path):
    photo = save_photo(tmp_path / "a.png")
    (tmp_path / "kernels").mkdir()
    kernel = tmp_path / "kernels" / "a.png"
    write(kernel, LEVELS.astype(np.uint8))
    settings = read_files(find_task("motion_deblur").settings(kernel=str(tmp_path / "kernels")))
    assert isinstance(settings.kernel, PairedFiles)
    assert pairing.without_own([photo, kernel], settings, tmp_path) == [photo]
    one = read_files(find_task("motion_deblur").settings(kernel=str(kernel)))
    assert pairing.without_own([photo, kernel], one, tmp_path) == [photo]


@pytest.mark.parametrize("factor", [0.5, 0.3, 1.0, 2.0])
def test_a_resized_kernel_keeps_its_sum_its_place_and_its_width(factor):
    """Its mean and its variance are those of the squares that it is made of, but for what a new pixel blurs."""
    kernel = np.random.default_rng(0).uniform(size=(15, 9))
    found = scaled_kernel(kernel, factor)
    assert found.sum() == pytest.approx(kernel.sum())
    assert all(n % 2 for n in found.shape)
    if factor == 1:
        np.testing.assert_allclose(found, kernel, atol=1e-12)
    for axis in (0, 1):
        old, new = (a.sum(1 - axis) / a.sum() for a in (kernel, found))
        place, at = (np.arange(len(a)) - len(a) // 2 for a in (old, new))
        assert new @ at == pytest.approx(factor * (old @ place), abs=0.02)
        variance = factor**2 * (old @ place**2 - (old @ place) ** 2)
        assert new @ at**2 - (new @ at) ** 2 == pytest.approx(variance, abs=0.25 + 0.1 * factor**2)


def test_image_size_takes_the_kernel_of_a_photograph_with_it(tmp_path, capsys):
    """Of measured files, and says so; the kernel of a clean image is one of the resized image."""
    photo = save_photo(tmp_path / "in" / "a.png", 40, 60)
    kernel = write(tmp_path / "k.npy", np.full((9, 1), 1 / 9))
    job = reader(tmp_path / "in", kernel=kernel, image_size=20)
    entries, _ = job.check([Chosen(photo, "a", "a.png", "a")])
    found = job.measure(entries[0]).operator.blur_kernel()
    np.testing.assert_allclose(found, scaled_kernel(np.full((9, 1), 1 / 9), 0.5), atol=1e-6)
    assert found.shape == (5, 1)
    assert "is of the files, and is resized with them: 9x1 to 5x1" in capsys.readouterr().err
    same = reader(tmp_path / "in", kernel=kernel, image_size=40)
    assert same.measure(same.check([Chosen(photo, "a", "a.png", "a")])[0][0]).operator.blur_kernel().shape == (9, 1)
    clean = reader(tmp_path / "in", kernel=kernel, image_size=20, measured=False)
    source = pairing.Source(photo, tmp_path / "in", False, 20)
    assert np.shape(pairing.settings_of(clean.task, clean.settings, source)[0].kernel) == (9, 1)
    wide = reader(tmp_path / "in", "gaussian_deblur", kernel_std=2.0, image_size=20)
    settings, remarks = pairing.settings_of(wide.task, wide.settings, pairing.Source(photo, tmp_path / "in", True, 20))
    assert settings.kernel_std == 1.0
    assert "--kernel_std=2 is of the files" in remarks[0]


def test_kernels_of_several_sizes_are_not_restored_in_one_batch(tmp_path):
    """A batch stacks its operators; images of one size whose kernels differ in size stand in batches of their own."""
    files = [_chosen(save_photo(tmp_path / "in" / f"{n}.png", seed=n)) for n in range(3)]
    (tmp_path / "k").mkdir()
    for (_, name, _, _), side in zip(files, (3, 5, 3), strict=True):
        write(tmp_path / "k" / f"{name}.npy", np.eye(side))
    entries, _ = reader(tmp_path / "in", kernel=str(tmp_path / "k")).check(files)
    assert [[e.name for e, _ in one.pairs] for one in batches(entries, 1, 8, False)] == [["0", "2"], ["1"]]
    kernel = write(tmp_path / "k.npy", np.eye(9))
    for one, side in zip(files, (20, 40, 20), strict=True):
        save_photo(one.path, side, side)
    entries, _ = reader(tmp_path / "in", kernel=kernel, image_size=20).check(files)
    assert [[e.name for e, _ in one.pairs] for one in batches(entries, 1, 8, False)] == [["0", "2"], ["1"]]
