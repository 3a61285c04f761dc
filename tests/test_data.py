"""Reading, writing, views of photographs, the resumable stream."""

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from cvsa_jax import data, folders, images
from cvsa_jax.types import InputError


def test_eight_bits_survive_the_round_trip(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    images.save_image(tmp_path / "new" / "a.png", pixels / 127.5 - 1)
    read = images.open_image(tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(np.asarray(read), pixels)
    np.testing.assert_array_equal(images.to_bytes(images.to_float(read)), pixels)
    np.testing.assert_array_equal(images.read_image(tmp_path / "new" / "a.png"), images.to_float(read))


def test_values_outside_are_clipped_not_stretched():
    np.testing.assert_array_equal(images.to_bytes(np.array([-7.0, -1.0, 0.0, 1.0, 7.0])), [0, 0, 128, 255, 255])


@pytest.mark.parametrize(
    ("mode", "expected"), [("L", "L"), ("1", "L"), ("LA", "L"), ("P", "RGB"), ("RGBA", "RGB"), ("CMYK", "RGB")]
)
def test_every_kind_of_file_is_colour_or_grey(tmp_path, mode, expected):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (5, 4)).save(path)
    assert images.open_image(path).mode == expected


def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(np.full((4, 5), 65535, np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(images.open_image(tmp_path / "a.png")).max() == 255


def test_photographs_are_turned_upright(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert images.open_image(tmp_path / "a.jpg").size == (4, 6)


def test_unreadable_files_say_so(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot read"):
        images.open_image(tmp_path / "a.png")
    with pytest.raises(InputError, match="no such file"):
        folders.list_images(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        folders.list_images(tmp_path / "empty")


@pytest.mark.parametrize("size", [(40, 70), (70, 40), (20, 20), (10, 300)])
def test_training_views_have_their_size(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    for seed in range(10):
        assert data.random_square(image, 32, np.random.default_rng(seed)).size == (32, 32)


def test_stream_is_seeded_shuffled_and_resumable():
    files = folders.list_images(SAMPLES)
    stream = data.training_batches(files, 16, 3, 4, seed=1)
    first = [next(stream) for _ in range(3)]
    position = stream.get_state()
    rest = [next(stream) for _ in range(3)]
    again = data.training_batches(files, 16, 3, 4, seed=1)
    again.set_state(position)
    for a, b in zip(rest, (next(again) for _ in range(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    other = next(data.training_batches(files, 16, 3, 4, seed=2))
    assert first[0].shape == (4, 16, 16, 3)
    assert first[0].dtype == np.float32
    assert not np.array_equal(first[0], other)
    assert not np.array_equal(first[0], first[1])


def test_files_that_cannot_be_read_are_reported_and_the_others_trained_on(tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).save(tmp_path / "good.png")
    files = folders.list_images(tmp_path)
    assert data.readable(files) == [tmp_path / "good.png"]
    stream = data.training_batches(files, 16, 3, 4, seed=1)
    for _ in range(3):
        np.testing.assert_array_equal(next(stream), np.ones((4, 16, 16, 3), np.float32))
    for line in (said := capsys.readouterr().err.splitlines()):
        assert line.startswith("skipped: cannot read")
        assert "bad.png" in line
    assert len(said) == 2
    (tmp_path / "good.png").write_bytes(b"nothing")
    for act in (lambda: data.readable(files), lambda: next(data.training_batches(files, 16, 3, 4, seed=1))):
        with pytest.raises(InputError, match=r"(good|bad)\.png"):
            act()


def test_validation_files_are_held_out():
    files = list(range(100))
    train, held_out = data.split_validation(files, 10)
    assert sorted(train + held_out) == files
    assert (len(train), len(held_out)) == (90, 10)
    assert data.split_validation(files, 10) == (train, held_out)
