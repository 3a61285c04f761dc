"""What jobs are given: arrays, lists, stored operators, folders of other jobs."""

import csv

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

FEW = ("--image_size=16", "--num_steps=3", "--num_samples=1")


@pytest.fixture
def restore(run_restore, tiny_checkpoint, tmp_path):
    """`cvsa restore` in this process, into OUTPUT below the test's folder."""
    photo = f"--input={SAMPLES / 'clothing_001.png'}"

    def run(output: str, *arguments: str, few: tuple[str, ...] = FEW):
        own = [] if any(a.startswith("--input") for a in arguments) else [photo]
        return run_restore(f"--checkpoint={tiny_checkpoint}", f"--output={tmp_path / output}", *own, *few, *arguments)

    return run


def test_a_reduction_may_come_before_phase_retrieval(restore, tmp_path):
    """And its measurement, an array, is restored at the image's own size."""
    done = restore("a", "--task=sr2+phase_retrieval")
    assert done.returncode == 0, done.stderr
    y = np.load(tmp_path / "a" / "measurement" / "clothing_001.npy")
    assert y.shape == (12, 12, 3)
    again = restore(
        "b", "--task=sr2+phase_retrieval", "--measured", f"--input={tmp_path / 'a' / 'measurement'}", few=FEW[1:]
    )
    assert again.returncode == 0, again.stderr
    picture = f"--input={tmp_path / 'a' / 'restored' / 'clothing_001.png'}"
    done = restore("c", "--task=phase_retrieval", "--measured", picture, few=FEW[1:])
    assert done.returncode == 1
    assert "is a picture, which cannot hold what phase_retrieval measures" in done.stderr
    assert Image.open(tmp_path / "b" / "restored" / "clothing_001.png").size == (16, 16)


def test_an_operator_of_another_factor_is_refused(restore, tmp_path):
    """Both reductions are of one class; only their sizes tell them apart."""
    assert restore("a", "--task=sr2").returncode == 0
    stored = f"--operator={tmp_path / 'a' / 'operator' / 'clothing_001.npz'}"
    assert restore("b", "--task=sr2", stored).returncode == 0
    done = restore("c", "--task=sr4", stored)
    assert done.returncode == 1
    assert "the operator measures 8x8, but sr4 of this image is 4x4" in done.stderr


def test_overwriting_leaves_no_pictures_of_the_job_before(restore, tmp_path):
    several = lambda n: ("--task=denoise", "--aim=posterior", f"--num_samples={n}")  # noqa: E731
    assert restore("a", *several(3), few=FEW[:2]).returncode == 0
    assert restore("a", *several(2), "--overwrite", few=FEW[:2]).returncode == 0
    assert sorted(p.name[-6:-4] for p in (tmp_path / "a" / "samples").iterdir()) == ["00", "01"]


def test_lists_name_each_image_once_and_below_the_folder(restore, tmp_path):
    (tmp_path / "list.txt").write_text("clothing_001.png\nclothing_001.png\n")
    done = restore("a", "--task=sr2", f"--input={SAMPLES}", f"--list={tmp_path / 'list.txt'}")
    assert done.returncode == 0, done.stderr
    assert "1 image, " in done.stdout
    for name in ("../clothing_001.png", str(SAMPLES.parent / "a.png")):
        (tmp_path / "list.txt").write_text(f"{name}\n")
        done = restore("b", "--task=sr2", f"--input={SAMPLES}", f"--list={tmp_path / 'list.txt'}")
        assert done.returncode == 1
        assert "which is not below" in done.stderr


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), "is uint8, but numbers in [-1, 1] are needed"),
        (np.zeros((8, 8, 3), np.complex64), "measures real numbers, but the input has complex numbers"),
        (np.full((8, 8, 3), np.nan), "holds NaN or infinite numbers"),
        (np.zeros((2, 8, 8, 3)), "is no (H, W), (H, W, 1) or (H, W, 3) array"),
        (np.array(["a"]), "cannot read"),
    ],
)
def test_arrays_that_are_no_measurements_are_one_line(restore, tmp_path, array, message):
    np.save(tmp_path / "y.npy", array)
    done = restore("a", "--task=sr2", "--measured", f"--input={tmp_path / 'y.npy'}", few=FEW[1:])
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_measured_goods_need_the_kernel_and_the_mask(restore, tmp_path):
    """Nothing else of the checkout is drawn, so that no operator of an earlier job is asked for."""
    np.save(tmp_path / "kernel.npy", np.eye(3))
    Image.fromarray(np.uint8(255 * (np.arange(256).reshape(16, 16) % 7 == 0))).save(tmp_path / "mask.png")
    files = f"--kernel={tmp_path / 'kernel.npy'}", f"--mask={tmp_path / 'mask.png'}"
    assert restore("a", "--task=checkout", "--measured", *files).returncode == 0
    done = restore("b", "--task=checkout", "--measured", files[0])
    assert done.returncode == 1
    assert "needs --mask=FILE, or the operator of an earlier job" in done.stderr


def test_a_cut_row_of_the_metrics_is_done_again(restore, tmp_path):
    """As a kill in the middle of a line left it, by a version that had no manifest."""
    assert restore("a", "--task=sr2").returncode == 0
    (tmp_path / "a" / "manifest.jsonl").unlink()
    path = tmp_path / "a" / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole[: whole.rindex(",") - 8])
    assert restore("a", "--task=sr2").returncode == 0
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["residual"]) > 0
    (tmp_path / "a" / "summary.json").write_text('{"settings": {"ta')
    done = restore("a", "--task=sr2")
    assert done.returncode == 1
    assert "summary.json is damaged" in done.stderr
