"""Files of pictures: each is read right, at its full depth, or reported in one line; and written as is asked for."""

import io
import itertools
import struct
import zlib

import numpy as np
import picture_files
import pytest
import tifffile
from conftest import SAMPLES
from PIL import Image, ImageCms, ImageOps

from cvsa_jax import images
from cvsa_jax.pictures import Carried, formats, metadata, profiles, read_picture
from cvsa_jax.types import InputError

WORDS = np.random.default_rng(0).integers(1, 65536, (9, 11, 4), dtype=np.uint16)
BYTES = (WORDS >> 8).astype(np.uint8)
LAST = 2e-7  # rounding of float32 in [-1, 1]


def unit(words: np.ndarray) -> np.ndarray:
    """16-bit levels in [-1, 1]."""
    return words / 32767.5 - 1


def deep_files(folder):
    """(file, its values in [-1, 1]) of more than 8 bits, in every form that is at hand."""
    files = {f"{c}.png": (picture_files.png16(WORDS[..., :c]), WORDS[..., :c]) for c in (1, 3)}
    files["alpha_grey.png"] = picture_files.png16(WORDS[..., :2]), WORDS[..., :1]
    files["alpha.png"] = picture_files.png16(WORDS), WORDS[..., :3]
    files |= {f"lzw{o}.tif": (picture_files.tiff_lzw(WORDS[..., :3], n), WORDS[..., :3]) for o, n in ("i<", "m>")}
    big = WORDS[..., :3].astype(">u2").tobytes()
    files["colour.ppm"] = b"P6 11 9 65535\n" + big, WORDS[..., :3]
    files["grey.pgm"] = b"P5 11 9 65535\n" + WORDS[..., 0].astype(">u2").tobytes(), WORDS[..., :1]
    files["grey.pfm"] = b"Pf\n11 9\n-1.0\n" + (WORDS[::-1, :, 0] / 65535).astype("<f4").tobytes(), WORDS[..., :1]
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    found = {name: unit(words) for name, (_, words) in files.items()}
    one, three = WORDS[..., 0], WORDS[..., :3]
    written = {
        "planes": (np.moveaxis(three, -1, 0), {"planarconfig": "separate", "compression": "zlib"}, three),
        "u32": (three.astype(np.uint32) * 65537, {"photometric": "rgb"}, three),
        "f64": (three / 65535, {"photometric": "rgb"}, three),
        "f32": ((three / 65535).astype(np.float32), {"photometric": "minisblack", "planarconfig": "contig"}, three),
        "signed": (unit(three).astype(np.float32), {"photometric": "rgb", "compression": "zlib"}, three),
        "white_is_zero": (65535 - one, {"photometric": "miniswhite"}, WORDS[..., :1]),
        "bigtiff": (three, {"photometric": "rgb", "bigtiff": True}, three),
        "motorola": (one, {"byteorder": ">", "predictor": 2, "compression": "zlib"}, WORDS[..., :1]),
        "extra": (WORDS, {"photometric": "rgb", "extrasamples": ["unspecified"]}, three),
    }
    for name, (values, options, words) in written.items():
        if name == "planes":
            options = options | {"photometric": "rgb"}
        tifffile.imwrite(folder / f"{name}.tif", values, **options)
        found[f"{name}.tif"] = unit(words)
    Image.fromarray(one).save(folder / "lzw_grey.tif", compression="tiff_lzw")
    Image.fromarray((one / 65535).astype(np.float32)).save(folder / "lzw_float.tif", compression="tiff_lzw")
    return found | dict.fromkeys(("lzw_grey.tif", "lzw_float.tif"), unit(WORDS[..., :1]))


def test_more_than_8_bits_are_read_at_their_full_depth(tmp_path):
    for name, expected in deep_files(tmp_path).items():
        found = read_picture(tmp_path / name)
        assert found.depth > 8, name
        np.testing.assert_allclose(found.pixels, expected, atol=LAST, err_msg=name)


def test_a_transparent_colour_of_16_bits_is_that_colour_alone(tmp_path):
    words = WORDS[..., :3].copy()
    words[2, 3] = words[0, 0] + np.array([0, 0, 1], np.uint16)  # the same 8 bits
    chunk = b"tRNS", struct.pack(">3H", *words[0, 0])
    (tmp_path / "a.png").write_bytes(picture_files.png16(words, chunk))
    alpha = read_picture(tmp_path / "a.png").alpha
    assert alpha is not None and alpha[0, 0] == 0 and (alpha == 0).sum() == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "bmp", "gif"])
def test_8_bits_of_srgb_are_read_as_pillow_reads_them(tmp_path, mode, suffix):
    """Bit for bit, those that nothing shows through; with and without the profile of sRGB."""
    image, path = Image.fromarray(BYTES[..., :3]).convert(mode), tmp_path / f"a.{suffix}"
    try:
        image.save(path)
    except (OSError, ValueError):
        pytest.skip(f"there is no {suffix} of {mode}")
    with Image.open(path) as stored:
        kept = stored.convert("L" if stored.mode in ("1", "L", "LA") else "RGB")
        grey = stored.mode in ("1", "L", "LA")
    np.testing.assert_array_equal(np.asarray(images.open_image(path)), np.asarray(kept))
    np.testing.assert_array_equal(images.read_image(path), images.to_float(kept))
    if mode == "RGB" and suffix in ("png", "tif", "jpg", "webp"):
        image.save(path, icc_profile=profiles.srgb())
        np.testing.assert_array_equal(np.asarray(images.open_image(path)), np.asarray(kept))
    square = read_picture(path).square(6).pixels
    np.testing.assert_array_equal(square, images.to_float(images.centre_square(kept, 6)))
    assert square.shape[-1] == (1 if grey else 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_at_every_depth(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    flat = Image.fromarray(BYTES[..., :3])
    flat.save(tmp_path / "a.png", exif=exif)
    flat.save(tmp_path / "a.tif", exif=exif)
    flat.save(tmp_path / "a.webp", exif=exif, lossless=True)
    with Image.open(tmp_path / "a.png") as stored:
        expected = images.to_float(ImageOps.exif_transpose(stored))
    deep = (BYTES[..., :3].astype(np.uint16)) * 257
    (tmp_path / "b.png").write_bytes(picture_files.png16(deep, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    for name in ("a.png", "a.tif", "a.webp", "b.png", "b.tif"):
        found = read_picture(tmp_path / name)
        np.testing.assert_allclose(found.pixels, expected, atol=LAST, err_msg=name)
        if found.carried.exif is not None:
            carried = Image.Exif()
            carried.load(found.carried.exif)
            assert carried[0x0112] == 1


@pytest.mark.parametrize("profile", ["swapped", 1.0, 1.8])
def test_profiles_are_turned_into_srgb_at_every_depth(tmp_path, profile):
    """ImageCms gives the right value, to half a level; the same file of 16 bits has the same colours."""
    icc = picture_files.swapped_profile() if profile == "swapped" else picture_files.gamma_profile(profile)
    flat = Image.fromarray(BYTES[..., :3])
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    right = ImageCms.profileToProfile(flat, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(np.asarray(right, int) - BYTES[..., :3]).max() > 15
    flat.save(tmp_path / "a.png", icc_profile=icc)
    found = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found.levels, np.asarray(right))
    deep = picture_files.png16(BYTES[..., :3].astype(np.uint16) * 257, (b"iCCP", b"x\0\0" + zlib.compress(icc)))
    (tmp_path / "b.png").write_bytes(deep)
    assert np.abs(read_picture(tmp_path / "b.png").pixels - found.pixels).max() < 0.6 / 127.5
    written = formats.write_picture(tmp_path, "c", found.pixels, "png", found.carried)
    np.testing.assert_array_equal(read_picture(written).levels, found.levels)  # it is not converted twice


def test_profiles_of_grey_at_every_depth(tmp_path):
    """Light that is linear: 2 of 255 is 21.66 of 255 in sRGB, by its formula."""
    icc = picture_files.gamma_profile(1.0, grey=True)
    light = BYTES[..., 0] / 255
    right = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    Image.fromarray(BYTES[..., 0]).save(tmp_path / "a.png", icc_profile=icc)
    assert np.abs(read_picture(tmp_path / "a.png").levels[..., 0] - right).max() < 0.55
    deep = picture_files.png16(BYTES[..., :1].astype(np.uint16) * 257, (b"iCCP", b"x\0\0" + zlib.compress(icc)))
    (tmp_path / "b.png").write_bytes(deep)
    assert np.abs((read_picture(tmp_path / "b.png").pixels[..., 0] + 1) * 127.5 - right).max() < 0.02


@pytest.mark.parametrize("icc", [b"junk" * 50, profiles.srgb()[:200], picture_files.gamma_profile(1.0, grey=True)])
def test_profiles_of_no_use_are_said(tmp_path, icc):
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "a.png", icc_profile=icc)
    found = read_picture(tmp_path / "a.png")
    assert "taken as sRGB" in found.notes[0]
    np.testing.assert_array_equal(found.levels, BYTES[..., :3])


def test_what_nothing_shows_of_does_not_poison_its_surroundings(tmp_path):
    """Hidden pixels take the colour of the nearest that is seen; all others stay as they are."""
    pixels = BYTES.copy()
    pixels[..., 3] = np.maximum(pixels[..., 3], 1)
    pixels[3:6, 4:7, 3] = 0
    pixels[3:6, 4:7, :3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found, seen = read_picture(tmp_path / "a.png"), pixels[..., 3] > 0
    np.testing.assert_array_equal(found.levels[seen], pixels[..., :3][seen])
    np.testing.assert_array_equal(found.levels[4, 4], pixels[4, 3, :3])
    assert found.alpha is not None
    np.testing.assert_allclose(found.alpha, pixels[..., 3] / 255)
    palette = Image.fromarray(BYTES[..., :3]).convert("P")
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    alpha = read_picture(tmp_path / "p.png").alpha
    assert alpha is not None and alpha[0, 0] == 0 and alpha.max() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[-3.2, 71.0]], np.float32), "32-bit floating-point numbers from -3.2 to 71, neither [0, 1] nor"),
        (np.array([[-0.02, 0.9]], np.float32), "from -0.02 to 0.9, neither"),
        (np.array([[0, 65535]], np.uint32), "32-bit whole numbers from 0 to 65535, where white would be 4.29497e+09"),
        (np.array([[-5, 300]], np.int16), "16-bit whole numbers with a sign from -5 to 300"),
        (np.array([[0, 200]], np.uint16), "16-bit whole numbers from 0 to 200, where white would be 65535"),
        (np.array([[np.nan, np.nan]], np.float32), "it holds no number that is finite"),
    ],
)
def test_values_of_no_sensible_reading_are_refused_with_their_range(tmp_path, values, message):
    tifffile.imwrite(tmp_path / "a.tif", np.repeat(values, 4, 0))
    with pytest.raises(InputError) as error:
        read_picture(tmp_path / "a.tif")
    assert message in str(error.value) and str(tmp_path / "a.tif") in str(error.value)
    assert "\n" not in str(error.value)
    finite = values[np.isfinite(values)]
    if finite.size:
        assert "--range=LOW,HIGH" in str(error.value)
        found = read_picture(tmp_path / "a.tif", (float(finite.min()), float(finite.max()))).pixels
        np.testing.assert_allclose(found[0, :, 0], [-1, 1], atol=LAST)


@pytest.mark.parametrize("form", formats.FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [8, 16])
def test_each_form_gives_back_what_was_written(tmp_path, form, channels, depth):
    alpha = np.maximum(BYTES[..., 3], 1) / 255
    smooth = np.mgrid[-0.9:0.9:9j, -0.9:0.9:11j].sum(0)[..., None] / 2 * np.linspace(1, 0.5, channels)
    carried = Carried(depth, alpha, None, profiles.srgb(), (300.0, 150.0))
    path = formats.write_picture(tmp_path, "some.name", smooth, form, carried)
    assert formats.find_picture(tmp_path, "some.name") == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    words = form == "png16" or (form == "tiff" and depth == 16)
    exact = {"npy": LAST, "jpeg": 4 / 127.5}.get(form, 0.51 / (32767.5 if words else 127.5))
    assert np.abs(formats.read_back(path, channels) - smooth).max() <= exact
    if form == "npy":
        assert np.load(path).dtype == np.float32
        assert formats.read_back(formats.write_picture(tmp_path, "b", 3 * smooth, form)).max() > 2
        return
    found = read_picture(path)
    assert found.depth == (16 if words else 8)
    if form != "jpeg":
        assert found.alpha is not None
        np.testing.assert_allclose(found.alpha, alpha, atol=0.51 / 255)
    if form != "webp":
        assert found.carried.dpi == pytest.approx((300, 150), rel=1e-3)
    assert (found.carried.icc is not None) == (channels == 3)


def damaged_files(folder):
    """(name, whether it may be read at all) of files that are cut, changed, too large or something else."""
    intact = {}
    for kind, options in (
        ("png", {}), ("jpg", {"quality": 95}), ("tif", {"compression": "tiff_lzw"}), ("webp", {"lossless": True}),
        ("bmp", {}), ("gif", {}), ("ppm", {}),
    ):  # fmt: skip
        data = io.BytesIO()
        Image.open(SAMPLES / "clothing_001.png").convert("RGB").resize((40, 32)).save(
            data, Image.registered_extensions()[f".{kind}"], **options
        )
        intact[kind] = data.getvalue()
    deep = np.random.default_rng(1).integers(0, 65536, (32, 40, 3), dtype=np.uint16)
    intact["deep.png"] = picture_files.png16(deep)
    intact["deep.ppm"] = b"P6 40 32 65535\n" + deep.astype(">u2").tobytes()
    for name, options in (("raw.tif", {}), ("zlib.tif", {"compression": "zlib"}), ("float.tif", {})):
        data = io.BytesIO()
        tifffile.imwrite(data, deep / 65535 if name == "float.tif" else deep, photometric="rgb", **options)
        intact[name] = data.getvalue()
    for name, data in intact.items():
        for part in (0, 6, len(data) // 3, len(data) // 2, 4 * len(data) // 5):
            (folder / f"cut{part}_{name}").write_bytes(data[:part])
    for name in ("png", "deep.png"):
        for place in (20, 45, len(intact[name]) // 2):
            changed = bytearray(intact[name])
            changed[place] ^= 0x10
            (folder / f"flip{place}_{name}").write_bytes(changed)
    head = b"\x89PNG\r\n\x1a\n" + picture_files.png16(deep)[8:33].replace(
        struct.pack(">II", 40, 32), struct.pack(">II", 60000, 60000)
    )
    head = head[:-4] + struct.pack(">I", zlib.crc32(head[12:-4]))
    (folder / "bomb.png").write_bytes(head + intact["deep.png"][33:])
    (folder / "bomb.ppm").write_bytes(b"P6 60000 60000 65535\n" + b"\0" * 100)
    (folder / "words.jpg").write_text("no picture at all\n" * 20)
    (folder / "page.png").write_text("<!doctype html><p>404</p>")
    return intact


def test_damaged_files_are_each_reported_in_one_line(tmp_path):
    """Sixty files and more: not one is read as something else than it was."""
    intact = damaged_files(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 60
    for path in files:
        try:
            found = read_picture(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        # A cut GIF or WebP may have all its pixels; then they are right.
        kind = path.name.split("_", 1)[1]
        whole = tmp_path / f"whole_{kind}"
        whole.write_bytes(intact[kind])
        np.testing.assert_array_equal(found.levels, read_picture(whole).levels, err_msg=path.name)


def test_damaged_exif_is_said_and_the_picture_is_read(tmp_path):
    flat = Image.fromarray(BYTES[..., :3])
    flat.save(tmp_path / "a.png", exif=b"Exif\0\0" + b"garbage!" * 9)
    (tmp_path / "b.png").write_bytes(picture_files.png16(WORDS[..., :3], (b"eXIf", b"garbage!" * 9)))
    for name, right in (("a.png", images.to_float(flat)), ("b.png", unit(WORDS[..., :3]))):
        found = read_picture(tmp_path / name)
        assert found.notes == ("its EXIF is damaged: it is taken to be upright",)
        np.testing.assert_allclose(found.pixels, right, atol=LAST)


def test_a_range_that_says_nothing_of_8_bits_is_said(tmp_path):
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "a.png")
    assert "--range is of floats" in read_picture(tmp_path / "a.png", (16.0, 235.0)).notes[0]
    assert read_picture(tmp_path / "a.png", (0.0, 255.0)).notes == ()


def test_the_small_copy_in_a_raw_file_is_not_the_photograph(tmp_path):
    tifffile.imwrite(tmp_path / "a.dng", BYTES[..., :3], photometric="rgb", subfiletype=1)
    with pytest.raises(InputError, match="its first page is a small copy"):
        read_picture(tmp_path / "a.dng")


def test_a_photograph_of_a_phone_that_cannot_be_read_says_what_to_do(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    with pytest.raises(InputError, match="it is HEIC, which is not read here; convert it to PNG or JPEG"):
        read_picture(tmp_path / "a.jpg")


FEW = "--num_steps=2", "--num_samples=1"


@pytest.fixture
def restore(run_restore, tiny_checkpoint, tmp_path):
    """`cvsa restore --task=denoise --measured` of the files in the test's folder in/, into out/."""
    (tmp_path / "in").mkdir()

    def run(*arguments: str, task: str = "denoise"):
        own = f"--task={task}", f"--checkpoint={tiny_checkpoint}", f"--input={tmp_path / 'in'}", "--measured"
        return run_restore(*own, f"--output={tmp_path / 'out'}", *FEW, *arguments)

    return run


def photograph() -> np.ndarray:
    with Image.open(SAMPLES / "clothing_001.png") as image:
        return np.asarray(image.convert("RGB").resize((16, 16)))


def test_a_restored_picture_has_what_its_file_had(restore, tmp_path):
    """16 bits, opacity, EXIF set upright, the resolution; the profile is that of sRGB. The rest of a folder goes on."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Some Camera"
    exif.get_ifd(0x8769).update({0x9003: "2020:01:02 03:04:05", 0xA002: 99})
    wide = photograph()[:8]
    icc = picture_files.swapped_profile()
    Image.fromarray(wide).save(tmp_path / "in" / "phone.jpg", exif=exif, icc_profile=icc, dpi=(240, 240))
    alpha = np.full((16, 16, 1), 255, np.uint8)
    alpha[:5] = 100
    alpha[12:, 12:] = 0
    cut_out = np.concatenate([photograph(), alpha], -1)
    (tmp_path / "in" / "deep.png").write_bytes(picture_files.png16(cut_out.astype(np.uint16) * 257))
    (tmp_path / "in" / "broken.png").write_bytes(picture_files.png16(cut_out.astype(np.uint16))[:300])
    pages = [Image.fromarray(photograph()), Image.fromarray(photograph())]
    pages[0].save(tmp_path / "in" / "pages.tif", save_all=True, append_images=pages[1:])
    done = restore()
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "broken.png" in line and "skipped" in line]
    assert "pages.tif: only the first of its 2 pages is taken" in done.stderr
    with Image.open(tmp_path / "out" / "restored" / "phone.png") as phone:
        assert phone.size == (8, 16) and phone.getexif()[0x010F] == "Some Camera" and phone.getexif()[0x0112] == 1
        inside = phone.getexif().get_ifd(0x8769)
        assert (inside[0x9003], inside[0xA002]) == ("2020:01:02 03:04:05", 8)
        assert phone.info["icc_profile"] == profiles.srgb()
        assert phone.info["dpi"] == pytest.approx((240, 240), rel=1e-3)
    deep = read_picture(tmp_path / "out" / "restored" / "deep.png")
    assert deep.depth == 16 and deep.alpha is not None
    np.testing.assert_allclose(deep.alpha, alpha[..., 0] / 255, atol=1e-4)
    assert len(np.unique(deep.levels)) > 300
    assert not (tmp_path / "out" / "restored" / "broken.png").exists()
    assert (tmp_path / "out" / "grid.png").exists()


def test_opacity_grows_with_the_picture(restore, tmp_path):
    alpha = np.tile(np.linspace(40, 250, 8).round().astype(np.uint8), (8, 1))
    small = np.concatenate([photograph()[:8, :8], alpha[..., None]], -1)
    Image.fromarray(small).save(tmp_path / "in" / "a.png")
    assert restore(task="sr2").returncode == 0
    found = read_picture(tmp_path / "out" / "restored" / "a.png").alpha
    right = np.asarray(Image.fromarray(alpha).resize((16, 16), Image.Resampling.BICUBIC)) / 255
    assert found is not None
    np.testing.assert_allclose(found, right, atol=1.1 / 255)


@pytest.mark.parametrize("form", ["tiff", "webp", "jpeg", "npy"])
def test_results_of_every_form_can_be_judged(run_verb, tiny_checkpoint, tmp_path, form):
    """The grid, the report and the judgement of samples read them back; a grey photograph stays grey."""
    Image.fromarray(photograph()).convert("L").save(tmp_path / "grey.png")
    flags = f"--checkpoint={tiny_checkpoint}", "--task=denoise", f"--input={tmp_path / 'grey.png'}", "--num_steps=2"
    several = "--aim=posterior", "--num_samples=2", "--report", f"--format={form}", f"--output={tmp_path / 'out'}"
    done = run_verb("restore", *flags, *several)
    assert done.returncode == 0, done.stderr
    path = formats.find_picture(tmp_path / "out" / "restored", "grey")
    assert path.suffix == formats.FORMATS[form].suffix
    assert (tmp_path / "out" / "grid.png").exists() and (tmp_path / "out" / "report.html").exists()
    judged = run_verb("evaluate", f"--results={tmp_path / 'out'}")
    assert judged.returncode == 0, judged.stderr


def test_a_form_that_has_no_place_for_a_picture_says_so(tmp_path):
    assert formats.losses("jpeg", Carried(alpha=np.zeros((2, 2)))) != []
    assert formats.losses("png", Carried(alpha=np.zeros((2, 2)))) == []
    with pytest.raises(InputError, match="--format=webp holds sides up to 16383, but the picture has 4x20000"):
        formats.check_size("webp", (4, 20000, 3))


@pytest.mark.parametrize("form", ["png", "png16", "tiff", "jpeg"])
def test_what_a_file_says_is_written_whatever_it_is_or_its_loss_is_told(tmp_path, form):
    """EXIF with and without a part for the camera, small and too large for a JPEG; resolutions of any order."""
    said = {}
    for length, inside in itertools.product((9, 65400, 70000), (False, True)):
        exif = Image.Exif()
        exif[0x013B] = "é" * length
        if inside:
            exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
        said[f"exif {length} {inside}"] = Carried(exif=exif.tobytes())
    said |= {f"dpi {n:g}": Carried(dpi=(n, 240.0)) for n in (1.0, 65535.0, 65536.0, metadata.FINEST)}
    for depth, (name, carried) in itertools.product((8, 16), said.items()):
        carried = carried._replace(depth=depth)
        back = read_picture(formats.write_picture(tmp_path, "a", np.zeros((4, 4, 3)), form, carried)).carried
        lost = formats.losses(form, carried)
        if carried.exif is not None:
            assert (back.exif is None) == (lost == [f"its EXIF is not written: --format={form} has no place for it"])
        elif (told := back.dpi) is None or told[1] != pytest.approx(240, rel=0.1):
            assert lost == [f"its resolution is not written: --format={form} has no place for it"], name
        else:
            assert not lost and told[0] == pytest.approx(carried.dpi[0], rel=1e-3, abs=0.6)
    assert [metadata.resolution({"dpi": (n, 240)}) for n in (0, -1, np.nan, np.inf, 1.5e8)] == [None] * 5
