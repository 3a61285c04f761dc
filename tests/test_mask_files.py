"""Masks from files: each way to paint one is read as the hole that it is, or is refused in one line."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image, ImageFilter

from cvsa_jax import images
from cvsa_jax.images import to_bytes
from cvsa_jax.jobs import inputs, pairing, resolve
from cvsa_jax.jobs.selection import Chosen
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.operators import Mask, find_task, make_operator
from cvsa_jax.operators.known_pixels import membrane, put_back, seen_pixels
from cvsa_jax.operators.mask_files import read_mask, recognise
from cvsa_jax.operators.misplaced import misplaced
from cvsa_jax.settings import read_files
from cvsa_jax.types import InputError

HEIGHT, WIDTH = 40, 60
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
# No symmetry, nowhere at the border, a tenth of the picture.
HOLE = ((ROWS - 15) ** 2 + (COLUMNS - 22) ** 2 < 80) | ((ROWS > 24) & (ROWS < 29) & (COLUMNS > 8) & (COLUMNS < 19))
RED = np.array([230, 20, 30], np.uint8)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A shipped photograph, (HEIGHT, WIDTH, 3) of 8 bits."""
    with Image.open(SAMPLES / "clothing_001.png") as image:
        return np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT)))


def found(path, photo=None, means="auto", measured=False):
    """What is missing of a mask file, as shares, and the remark."""
    look = lambda: None if photo is None else photo / 255  # noqa: E731
    hole = recognise(read_mask(str(path)), means, look, measured)
    return hole.share, hole.remark


def reader(root, mask, task="mask_inpaint", measured=True, image_size=None, **settings) -> inputs.Reader:
    found = find_task(task)
    own = read_files(found.settings(mask=str(mask), **settings))
    return inputs.Reader(found, own, 3, image_size, measured, GaussianSettings().model(), 0, root=root)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path, **options)
    return path


def level(white) -> np.ndarray:
    return np.uint8(255 * white)


def rgba(colour, alpha) -> np.ndarray:
    return np.dstack([np.broadcast_to(np.uint8(colour), (*HOLE.shape, 3)), level(alpha)])


def indexed() -> Image.Image:
    """A label picture: index 1 is dark red, as tools for segmentation write it."""
    image = Image.fromarray(HOLE.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


PLAIN = {
    "a.png": level(HOLE),
    "b.png": HOLE.astype(np.uint8),
    "c.png": HOLE,
    "d.png": np.repeat(level(HOLE)[..., None], 3, -1),
    "e.png": level(HOLE).astype(np.uint16) * 257,
    "f.png": HOLE.astype(np.uint16),
    "g.tif": HOLE.astype(np.float32),
    "h.tif": HOLE.astype(np.int32),
    "i.bmp": level(HOLE),
    "j.npy": HOLE,
    "k.npy": level(HOLE),
    "l.npy": HOLE[..., None].astype(np.float64),
    "m.png": np.uint8(100 + 50 * HOLE),
    "n.npy": ~(~HOLE)[None],
}


@pytest.mark.parametrize("name", PLAIN)
def test_white_on_black_is_white_missing_in_every_file(tmp_path, name):
    share, remark = found(save(tmp_path / name, PLAIN[name]))
    np.testing.assert_array_equal(share, HOLE)
    assert remark == ""


@pytest.mark.parametrize("quality", [60, 95])
def test_a_lossy_file_and_a_smooth_edge_leave_the_mask_hard(tmp_path, quality):
    large = np.kron(level(HOLE), np.ones((4, 4), np.uint8))
    share, _ = found(save(tmp_path / "a.jpg", large, quality=quality))
    np.testing.assert_array_equal(share, large > 0)
    smooth = np.asarray(Image.fromarray(large).filter(ImageFilter.GaussianBlur(0.7)))
    share, _ = found(save(tmp_path / "b.png", smooth))
    np.testing.assert_array_equal(share, smooth >= 128)


def test_black_on_white_is_black_missing_and_said(tmp_path):
    path = save(tmp_path / "a.png", level(~HOLE))
    share, remark = found(path)
    np.testing.assert_array_equal(share, HOLE)
    assert remark == f"the mask {path}: black is missing, as white surrounds it; if white is, give --mask_means=white"
    scratch = np.ones_like(HOLE)
    scratch[5:35, 20:22] = False
    np.testing.assert_array_equal(found(save(tmp_path / "b.png", level(scratch)))[0], ~scratch)


def test_where_white_surrounds_nothing_it_is_missing(tmp_path):
    """Half of a picture, and pixels that are lost at random, whichever is more."""
    half = COLUMNS > 15
    np.testing.assert_array_equal(found(save(tmp_path / "a.png", level(half)))[0], half)
    scattered = np.random.default_rng(0).random(HOLE.shape) < 0.92
    share, remark = found(save(tmp_path / "b.png", level(scattered)))
    np.testing.assert_array_equal(share, scattered)
    assert remark == ""


def test_where_the_photograph_says_otherwise_the_flag_is_asked_for(tmp_path, photo):
    """White round black, and the photograph is flat where white is: its border may be what is missing."""
    path = save(tmp_path / "a.png", level(~HOLE))
    framed = np.where(HOLE[..., None], photo, 255)
    with pytest.raises(InputError, match=r"a.png of 40x60 pixels .* give --mask_means=white or black"):
        found(path, framed, measured=True)
    np.testing.assert_array_equal(found(path, framed, "white", measured=True)[0], ~HOLE)
    np.testing.assert_array_equal(found(path, photo, measured=True)[0], HOLE)
    np.testing.assert_array_equal(found(path, framed, measured=False)[0], HOLE)


@pytest.mark.parametrize("means", ["white", "black"])
def test_the_flag_decides(tmp_path, means):
    for array in (level(HOLE), level(~HOLE), HOLE.astype(np.uint8), level(HOLE).astype(np.uint16) * 257):
        share, remark = found(save(tmp_path / "a.png", array), means=means)
        np.testing.assert_array_equal(share, array == (array.max() if means == "white" else 0))
        assert remark == ""


def test_transparency_is_the_mask(tmp_path, photo):
    """What was erased from a copy of the photograph, or from a sheet; or strokes of one colour on an empty layer."""
    for i, picture in enumerate((photo, np.uint8([255, 255, 255]), np.uint8([0, 0, 0]))):
        share, remark = found(save(tmp_path / f"{i}.png", rgba(picture, ~HOLE)))
        np.testing.assert_array_equal(share, HOLE)
        assert "what is transparent is missing" in remark
    for i, colour in enumerate((RED, np.uint8([255, 255, 255]), np.uint8([0, 0, 0]))):
        path = save(tmp_path / f"layer{i}.png", rgba(colour, HOLE))
        share, remark = found(path)
        np.testing.assert_array_equal(share, HOLE)
        assert "its strokes are missing" in remark
        np.testing.assert_array_equal(found(path, means="alpha")[0], ~HOLE)
    grey = np.dstack([photo[..., 0], level(~HOLE)])
    np.testing.assert_array_equal(found(save(tmp_path / "la.png", grey))[0], HOLE)
    half = save(tmp_path / "half.png", rgba(RED, COLUMNS > 30))
    with pytest.raises(InputError, match="of one colour and transparent: give --mask_means=alpha"):
        found(half)
    opaque = save(tmp_path / "opaque.png", rgba(np.repeat(level(HOLE)[..., None], 3, -1), np.ones_like(HOLE)))
    np.testing.assert_array_equal(found(opaque)[0], HOLE)
    with pytest.raises(InputError, match="has nothing transparent"):
        found(opaque, means="alpha")


@pytest.mark.parametrize("colour", [(230, 20, 30), (255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 255)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_painted_copy_is_compared_with_the_photograph(tmp_path, photo, colour, name):
    """Lossless to the pixel, but for pixels that had the colour already; after JPEG to a pixel at the edge."""
    painted = np.where(HOLE[..., None], np.uint8(colour), photo)
    path = save(tmp_path / name, painted, **({"quality": 95, "subsampling": 0} if name.endswith("jpg") else {}))
    share, remark = found(path, photo)
    different = (np.abs(painted.astype(int) - photo).max(-1) > 1) & HOLE
    wrong = (share > 0) != different
    assert wrong.mean() < (0.02 if name.endswith("jpg") else 1e-9)
    assert remark == f"the mask {path} is the photograph, painted over"
    np.testing.assert_array_equal(found(path, photo, "painted")[0], share)


def test_a_soft_brush_over_the_copy_hides_what_it_touched(tmp_path, photo):
    weight = np.asarray(Image.fromarray(level(HOLE)).filter(ImageFilter.GaussianBlur(0.6)), float)[..., None] / 255
    painted = np.uint8(np.round(weight * RED + (1 - weight) * photo))
    share, _ = found(save(tmp_path / "a.png", painted), photo)
    changed = np.abs(painted.astype(int) - photo).max(-1) > 3
    assert (share[changed] == 1).mean() > 0.98
    assert share[(painted == photo).all(-1)].max() == 0


def test_a_copy_that_is_not_painted_over_is_refused(tmp_path, photo):
    with pytest.raises(InputError, match=r"a.png of 40x60 pixels is the photograph itself: nothing is painted"):
        found(save(tmp_path / "a.png", photo), photo)
    other = photo[::-1].copy()
    for means, message in (("auto", "neither black and white"), ("painted", "is no copy of the photograph")):
        with pytest.raises(InputError, match=message):
            found(save(tmp_path / "b.png", other), photo, means)
    with pytest.raises(InputError, match="is no copy of the photograph"):
        found(save(tmp_path / "c.png", np.where(HOLE[..., None], RED, photo)), None, "painted")


def test_strokes_on_a_grey_ground_are_missing(tmp_path):
    for ground in (0, 255):
        picture = np.where(HOLE[..., None], RED, np.uint8(ground))
        for name in ("a.png", "a.gif"):
            share, _ = found(save(tmp_path / name, picture))
            np.testing.assert_array_equal(share, HOLE)
    indexed().save(tmp_path / "labels.png")
    np.testing.assert_array_equal(found(tmp_path / "labels.png")[0], HOLE)
    two = np.where(HOLE[..., None], RED, np.uint8([20, 230, 30]))
    with pytest.raises(InputError, match="neither black and white"):
        found(save(tmp_path / "b.png", two))


def test_a_soft_mask_keeps_its_greys_as_shares(tmp_path):
    ramp = np.clip((COLUMNS - 20) / 20, 0, 1) * (ROWS < 25)
    share, _ = found(save(tmp_path / "a.png", level(ramp)))
    np.testing.assert_allclose(share, ramp, atol=1 / 255 + 8 / 255)
    np.testing.assert_array_equal(share[ramp == 0], 0)
    np.testing.assert_array_equal(share[ramp == 1], 1)
    np.testing.assert_allclose(found(save(tmp_path / "b.npy", ramp))[0], share, atol=1 / 255)
    np.testing.assert_allclose(found(tmp_path / "a.png", means="black")[0], 1 - share, atol=1e-9)
    with pytest.raises(InputError, match="give --mask_means=white or black"):
        found(save(tmp_path / "c.png", np.uint8(90 + 60 * ramp)))


def test_a_soft_mask_is_no_painted_copy_where_it_is_alike_by_chance(tmp_path, photo):
    for row, column, width in ((10, 20, 4), (25, 40, 8), (30, 10, 6)):
        soft = np.exp(-((ROWS - row) ** 2 + (COLUMNS - column) ** 2) / (2 * width**2))
        share, _ = found(save(tmp_path / "a.png", level(soft)), photo)
        np.testing.assert_allclose(share, soft, atol=1 / 255 + 8 / 255)


def test_strokes_that_are_see_through_are_missing_like_others(tmp_path):
    for alpha in (60, 128, 255):
        share, remark = found(save(tmp_path / "a.png", rgba(RED, HOLE * alpha / 255)))
        np.testing.assert_array_equal(share, HOLE)
        assert "strokes are missing" in remark


def test_what_says_nothing_of_a_hole_is_refused(tmp_path):
    with pytest.raises(InputError, match="the same grey everywhere"):
        found(save(tmp_path / "a.png", np.full((HEIGHT, WIDTH), 128, np.uint8)))
    ground = np.where(HOLE[..., None], np.uint8(0), np.uint8([0, 255, 0]))
    with pytest.raises(InputError, match="give --mask_means=white or black"):
        found(save(tmp_path / "b.png", ground))


def test_an_array_that_hides_nearly_everything_says_so(tmp_path):
    share, remark = found(save(tmp_path / "a.npy", ~HOLE))
    np.testing.assert_array_equal(share, ~HOLE)
    assert "if 1 means measured, give --mask_means=black" in remark


def test_a_soft_pixel_of_a_photograph_counts_as_much_as_it_is_seen(tmp_path, photo):
    """A photograph is not darkened where it is half seen: its data are y = seen x, so that x is what fits them."""
    ramp = np.clip((COLUMNS - 20) / 20, 0, 1) * (ROWS < 25)
    path, mask = save(tmp_path / "in" / "a.png", photo), save(tmp_path / "m.png", level(ramp))
    job = reader(tmp_path / "in", mask)
    measured = job.measure(job.check([Chosen(path, "a", "a.png", "a")])[0][0])
    x = photo / 127.5 - 1
    seen = np.asarray(measured.operator.seen)
    assert ((seen > 0) & (seen < 1)).sum() > 200
    np.testing.assert_allclose(measured.measurement, seen * x, atol=1e-5)
    hard = reader(tmp_path / "in", save(tmp_path / "h.png", level(HOLE)))
    entries, _ = hard.check([Chosen(path, "a", "a.png", "a")])
    np.testing.assert_allclose(hard.measure(entries[0]).measurement, x, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "of 40x60 pixels has nothing missing (black everywhere)"),
        (np.full((HEIGHT, WIDTH), 255, np.uint8), "of 40x60 pixels is missing everywhere (white everywhere)"),
        (rgba(RED, np.zeros_like(HOLE)), "of 40x60 pixels is missing everywhere"),
        (level(HOLE)[:-1], "the mask has 39x60 pixels, but the image has 40x60"),
        (level(HOLE).T.copy(), "the mask has 60x40 pixels, but the image has 40x60: it lies on its side"),
        (np.kron(level(HOLE), np.ones((2, 2), np.uint8)), "the mask has 80x120 pixels, but the image has 40x60"),
    ],
)
def test_a_hole_that_cannot_be_filled_is_refused_with_sizes(tmp_path, photo, array, message):
    path = save(tmp_path / "in" / "a.png", photo)
    mask = save(tmp_path / "m.png", array)
    for measured in (True, False):
        entries, failures = reader(tmp_path / "in", mask, measured=measured).check([Chosen(path, "a", "a.png", "a")])
        assert entries == []
        assert message in failures["a"]
        assert "\n" not in failures["a"]


def test_files_that_are_no_masks_are_one_line(tmp_path, photo):
    (tmp_path / "a.png").write_bytes(b"nothing")
    for path, message in (
        (tmp_path / "a.png", "cannot read"),
        (tmp_path / "none.png", "none.png"),
        (save(tmp_path / "b.npy", np.ones((2, 4, 5))), r"is no matrix, but of shape \(2, 4, 5\)"),
        (save(tmp_path / "c.npy", np.full((4, 4), np.nan)), "NaN"),
        (save(tmp_path / "d.npy", np.eye(4) - 1), "from -1 to 0"),
    ):
        with pytest.raises(InputError, match=message):
            read_mask(str(path))


def test_a_mask_is_turned_upright_like_a_photograph(tmp_path):
    """All eight orientations of a camera."""
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's transpositions that undo them
    for orientation, undo in turns.items():
        inverse = {4: 2, 2: 4}.get(undo, undo)
        stored = Image.fromarray(level(HOLE)).transpose(Image.Transpose(inverse))
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(found(tmp_path / "a.png")[0], HOLE, err_msg=str(orientation))


@pytest.mark.parametrize("measured", [True, False])
def test_a_mask_of_the_photographs_size_is_cut_and_resized_with_it(tmp_path, photo, measured):
    """The hole stays over the same things: a photograph that is white where the mask is gives the same picture."""
    path = save(tmp_path / "in" / "a.png", np.repeat(level(HOLE)[..., None], 3, -1))
    mask = save(tmp_path / "m.png", level(HOLE))
    job = reader(tmp_path / "in", mask, measured=measured, image_size=20)
    assert job.check([Chosen(path, "a", "a.png", "a")])[1] == {}
    square = HOLE[:, 10:50].reshape(20, 2, 20, 2).mean((1, 3))
    settings, _ = pairing.settings_of(job.task, job.settings, pairing.Source(path, tmp_path / "in", measured, 20))
    np.testing.assert_array_equal(settings.mask, 1.0 * (square == 0))
    picture = (job._read(path)[0][..., 0] + 1) / 2
    assert (picture[settings.mask == 1] < 0.2).all()
    own = reader(tmp_path / "in", save(tmp_path / "s.png", level(square > 0)), measured=measured, image_size=20)
    same, _ = pairing.settings_of(own.task, own.settings, pairing.Source(path, tmp_path / "in", measured, 20))
    np.testing.assert_array_equal(same.mask, settings.mask)


def test_a_hole_outside_the_centre_square_is_refused(tmp_path, photo):
    path = save(tmp_path / "in" / "a.png", photo)
    mask = save(tmp_path / "m.png", level(COLUMNS < 8))
    _, failures = reader(tmp_path / "in", mask, image_size=20).check([Chosen(path, "a", "a.png", "a")])
    assert "has nothing missing within the centre square" in failures["a"]
    entries, _ = reader(tmp_path / "in", mask).check([Chosen(path, "a", "a.png", "a")])
    assert len(entries) == 1


def test_a_mask_before_a_reduction_has_the_size_of_the_image(tmp_path, photo):
    """Of which the measured photograph is half; resized, it takes a mask of twice its size along."""
    path = save(tmp_path / "in" / "a.png", photo[:20, :20])
    whole = HOLE[:40, :40]
    job = reader(tmp_path / "in", save(tmp_path / "m.png", level(whole)), "mask_inpaint+sr2", image_size=10)
    settings, _ = pairing.settings_of(job.task, job.settings, pairing.Source(path, tmp_path / "in", True, 10))
    np.testing.assert_array_equal(settings.mask, 1.0 * (whole.reshape(20, 2, 20, 2).mean((1, 3)) == 0))
    assert job.check([Chosen(path, "a", "a.png", "a")])[1] == {}


def test_a_folder_gives_each_image_its_own_mask(tmp_path, photo):
    holes = {"a": HOLE, "sub/b": HOLE[::-1], "c": HOLE[:, ::-1]}
    files = [Chosen(save(tmp_path / "in" / f"{n}.jpg", photo), n, f"{n}.jpg", n) for n in (*holes, "d", "e")]
    save(tmp_path / "m" / "a.png", level(holes["a"]))
    save(tmp_path / "m" / "sub" / "b_mask.png", level(holes["sub/b"]))
    save(tmp_path / "m" / "c.jpg.png", np.where(holes["c"][..., None], RED, images.open_image(files[2].path)))
    save(tmp_path / "m" / "e.png", level(HOLE)[:9])
    job = reader(tmp_path / "in", tmp_path / "m")
    entries, failures = job.check(files)
    assert [e.name for e in entries] == list(holes)
    assert f"d.jpg: the folder {tmp_path / 'm'} has no mask of that name, such as d.png" in failures["d"]
    assert "e.jpg: the mask has 9x60 pixels, but the image has 40x60" in failures["e"]
    for entry in entries:
        missing = np.asarray(job.measure(entry).operator.seen)[..., 0] == 0
        assert (missing != holes[entry.name]).mean() < 0.002, entry.name


def test_flags_of_masks_that_have_no_effect_are_refused():
    places = {"input": "in", "output": "out"}
    for given, message in (
        ({"task": "checkout", "mask_means": "black"}, "--mask_means has no effect without --mask"),
        ({"task": "denoise", "keep_known": True}, "--keep_known has no effect with --task=denoise"),
        ({"task": "checkout", "keep_known": False}, "--keep_known has no effect with --task=checkout"),
        ({"task": "mask_inpaint", "mask": "a.png", "mask_means": "grey"}, "mask_means must be one of auto, white"),
        ({"task": "sr2", "mask_means": "white"}, "--mask_means belongs to --task=mask_inpaint, checkout"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(places | given)


@pytest.mark.parametrize(
    ("task", "measured", "given", "expected"),
    [
        ("mask_inpaint", True, None, True), ("mask_inpaint", False, None, False), ("mask_inpaint", True, False, False),
        ("box_inpaint", False, True, True), ("box_inpaint+random_inpaint", True, None, True),
        ("checkout", True, None, False), ("mask_inpaint+sr2", True, None, False),
    ],
)  # fmt: skip
def test_measured_pixels_are_put_back_by_default_where_nothing_else_was_done(task, measured, given, expected):
    assert pairing.keeps(find_task(task), given, measured) is expected


def test_pixels_that_are_put_back_are_the_files_to_the_last_level(photo):
    y = np.float32(photo) / np.float32(127.5) - 1
    estimate = np.clip(y + 0.3 * np.random.default_rng(0).normal(size=y.shape), -1.5, 1.5).astype(np.float32)
    spoilt = np.where(HOLE[..., None], np.nan, y)
    result = put_back(estimate, spoilt, 1.0 - HOLE)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(to_bytes(result)[~HOLE], photo[~HOLE])
    assert np.isfinite(result).all()


def test_what_fits_is_left_and_what_is_shifted_fits_again(photo):
    """No seam: a restoration that differs by a constant, or by a plane, gives the photograph itself."""
    y = photo / 127.5 - 1
    plane = (0.2 + 0.01 * ROWS - 0.004 * COLUMNS)[..., None] * np.array([1, -1, 0.5])
    for change in (0.0, 0.3, plane):
        np.testing.assert_allclose(put_back(y + change, y, 1.0 - HOLE), y, atol=1e-9)


def test_the_membrane_is_harmonic_and_within_its_border():
    generator = np.random.default_rng(0)
    hole = np.zeros((12, 9), bool)
    hole[2:9, 0:6] = True  # touches the image's border
    hole[10, 7] = True
    values = generator.normal(size=(12, 9, 2))
    c = membrane(values, hole)
    np.testing.assert_array_equal(c[~hole], values[~hole])
    padded = np.pad(c, [(1, 1), (1, 1), (0, 0)], mode="edge")  # no slope across the image's border
    mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    np.testing.assert_allclose(c[hole], mean[hole], atol=1e-12)
    assert values[~hole].min() <= c[hole].min() <= c[hole].max() <= values[~hole].max()


def test_a_large_hole_is_solved_as_a_small_one(monkeypatch):
    """By halves and conjugate gradients, to a fraction of a level."""
    rows, columns = np.mgrid[:130, :97]
    hole = (np.hypot(rows - 60, columns - 50) < 40) | (rows > 120)
    values = np.stack([np.sin(rows / 9) + columns / 50, np.cos(columns / 7)], -1) / 4  # half of the range of an image
    exact = membrane(values, hole)
    monkeypatch.setattr("cvsa_jax.operators.known_pixels.DIRECT", 100)
    assert np.abs(membrane(values, hole) - exact).max() < 0.25 / 127.5


def test_a_soft_mask_mixes_the_photograph_and_the_restoration(photo):
    """By the share that is seen, with no step at the mask's edges."""
    x, seen = photo / 127.5 - 1, 1 - np.clip((COLUMNS - 20) / 20, 0, 1)
    y, e = seen[..., None] * x, np.clip(x + 0.2, -1, 1)
    result = put_back(e, y, seen)
    np.testing.assert_array_equal(result[seen == 1], y[seen == 1])
    np.testing.assert_allclose(result[:, 21:40], x[:, 21:40], atol=0.41)
    constant = put_back(x + 0.2, y, seen)
    np.testing.assert_allclose(constant, x, atol=1e-9)
    np.testing.assert_allclose(put_back(x, 0.5 * x, np.full(seen.shape, 0.5)), x, atol=1e-9)


def test_masks_one_after_another_hide_what_either_hides():
    operator = make_operator("box_inpaint+random_inpaint", np.random.default_rng(0), 16, 16)
    seen = seen_pixels(operator)
    np.testing.assert_array_equal(seen, np.asarray(operator(jnp.ones((16, 16, 1))))[..., 0])
    assert isinstance(make_operator("box_inpaint", np.random.default_rng(0), 16, 16), Mask)


def test_a_measured_inpainting_keeps_the_files_pixels(run_restore, tiny_checkpoint, tmp_path):
    """Through the command: to the last level, the holes of two images each by their own mask, one of them missing."""
    pixels = {}
    for i, name in enumerate(("a", "b", "c")):
        with Image.open(SAMPLES / f"clothing_{('001', '003', '008')[i]}.png") as image:
            pixels[name] = np.asarray(image.convert("RGB").resize((16, 16)))
        save(tmp_path / "in" / f"{name}.png", pixels[name])
    hole = np.zeros((16, 16), bool)
    hole[4:9, 6:12] = True
    holes = {"a": hole, "b": hole.T}
    for name, own in holes.items():
        save(tmp_path / "masks" / f"{name}.png", level(own))
    run = functools.partial(
        run_restore, "--task=mask_inpaint", "--measured", f"--input={tmp_path / 'in'}", "--num_steps=2",
        f"--mask={tmp_path / 'masks'}", f"--checkpoint={tiny_checkpoint}", "--num_samples=1",
    )  # fmt: skip
    done = run(f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert "c.png: the folder" in done.stderr
    other = run(f"--output={tmp_path / 'free'}", "--keep_known=false")
    assert other.returncode == 1
    for name, own in holes.items():
        kept, free = (np.asarray(Image.open(tmp_path / d / "restored" / f"{name}.png")) for d in ("out", "free"))
        np.testing.assert_array_equal(kept[~own], pixels[name][~own])
        assert (free[~own] != pixels[name][~own]).mean() > 0.1
        seam = put_back(free / 127.5 - 1, pixels[name] / 127.5 - 1, 1.0 - own)
        off = np.abs(kept.astype(float) - to_bytes(seam))  # more than a level only where the free one was clipped
        assert (off <= 1).mean() > 0.95


@pytest.mark.parametrize("name", ["clothing_001.png", "groceries_002.png", "groceries_022.png"])
def test_what_jpeg_does_to_a_copy_is_no_paint(tmp_path, name):
    """Strong compression of colours, over all of the photograph, beside a stroke and alone."""
    with Image.open(SAMPLES / name) as image:
        large = np.asarray(image.convert("RGB"))
    hole = np.kron(HOLE, np.ones((2, 2), bool))
    photo, options = large[:80, :120], {"quality": 75, "subsampling": 2}
    with pytest.raises(InputError, match="is the photograph itself"):
        found(save(tmp_path / "a.jpg", photo, **options), photo)
    share, _ = found(save(tmp_path / "b.jpg", np.where(hole[..., None], RED, photo), **options), photo)
    assert share[hole].mean() > 0.99
    grown = np.asarray(Image.fromarray(level(hole)).filter(ImageFilter.MaxFilter(5))) > 0
    assert share[~grown].mean() < 0.002


SCATTERED = np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.92


@pytest.mark.parametrize("hole", [HOLE, SCATTERED], ids=["strokes", "scattered"])
@pytest.mark.parametrize(
    ("move", "words"),
    [
        (lambda a: np.roll(a, (3, -2), (0, 1)), "shifted by 3 pixels up and 2 pixels to the right"),
        (lambda a: np.roll(a, 1, 1), "shifted by 1 pixel to the left"),
        (lambda a: a[::-1], "upside down"),
        (lambda a: a[:, ::-1], "mirrored"),
    ],
    ids=["shifted", "by one", "upside down", "mirrored"],
)
def test_a_mask_beside_the_hole_of_the_photograph_is_told(photo, hole, move, words):
    """Painted at one place, masked at another. At the borders a shift of scattered pixels has lost a few."""
    picture = np.where(hole[..., None], RED, photo) / 255
    mask = move(hole)
    assert misplaced(hole, picture) == ""
    if hole is HOLE or "shifted by 3" not in words:
        assert misplaced(mask, picture) == words


@pytest.mark.parametrize("quality", [60, 90])
def test_a_mask_beside_a_hole_in_a_lossy_file_is_told(tmp_path, photo, quality):
    """Losses blur the edge of the paint; by a few pixels the place is known still."""
    large = np.asarray(Image.fromarray(np.where(HOLE[..., None], RED, photo)).resize((2 * WIDTH, 2 * HEIGHT), 0))
    path = save(tmp_path / "a.jpg", large, quality=quality)
    hole = HOLE.repeat(2, 0).repeat(2, 1)
    picture = np.asarray(images.open_image(path).convert("RGB")) / 255
    assert misplaced(hole, picture) == ""
    assert misplaced(np.roll(hole, (-8, 12), (0, 1)), picture) == "shifted by 8 pixels down and 12 pixels to the left"


def test_a_mask_far_from_the_hole_is_told(photo):
    """They share no pixel, so that the colour is found outside the mask."""
    painted = np.zeros_like(HOLE)
    painted[2:32, 30:58] = True
    mask = np.roll(painted, -29, 1)
    picture = np.where(painted[..., None], 255, np.minimum(photo, 200)) / 255
    assert misplaced(mask, picture) == "shifted by 29 pixels to the right"


def test_a_photograph_that_is_not_painted_on_has_no_hole_to_fit(photo):
    white = np.where((ROWS < 10)[..., None], 255, photo) / 255  # flat, but of another shape
    ground = np.where(HOLE[..., None], photo, 255) / 255  # the mask is to remove what lies on it
    for picture in (photo / 255, white, ground, np.ones_like(white)):
        for mask in (HOLE, SCATTERED, np.roll(HOLE, 5, 0)):
            assert misplaced(mask, picture) == ""


def test_a_job_says_that_a_mask_may_be_misplaced(tmp_path, photo):
    save(tmp_path / "a.png", np.where(HOLE[..., None], RED, photo))
    mask = save(tmp_path / "masks/a.png", level(np.roll(HOLE, 4, 1)))
    source = pairing.Source(tmp_path / "a.png", tmp_path, True, None)
    settings = read_files(find_task("mask_inpaint").settings(mask=str(mask)))
    _, remarks = pairing.settings_of(find_task("mask_inpaint"), settings, source)
    assert len(remarks) == 1
    assert "would fit what is of one colour if it were shifted by 4 pixels to the left" in remarks[0]
    assert "misplaced" not in str(pairing.settings_of(
        find_task("mask_inpaint"), settings, pairing.Source(tmp_path / "a.png", tmp_path, False, None)))  # fmt: skip
