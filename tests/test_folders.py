"""Folders as people have them: what is listed, what outputs are called, lists, paths and seeds."""

import importlib
import itertools
import json
import os
import pathlib
import unicodedata
import zlib

import jax
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from cvsa_jax import folders
from cvsa_jax.commands import VERBS, flags
from cvsa_jax.evaluation import datasets
from cvsa_jax.importers import arrays
from cvsa_jax.jobs import inputs, run, selection
from cvsa_jax.jobs.calibrate import CalibrateSettings
from cvsa_jax.jobs.settings import JobSettings, known, resolve
from cvsa_jax.jobs.training_settings import TrainingSettings
from cvsa_jax.operators.mask_files import read_mask
from cvsa_jax.seeds import LARGEST, key_of_seed
from cvsa_jax.settings import fields, read_files
from cvsa_jax.types import InputError


def touch(root: pathlib.Path, *names: str) -> None:
    """Files of one grey pixel each, whatever they are called."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(path, "PNG")


def listed(root: pathlib.Path, **more) -> set[str]:
    return {str(p.relative_to(root)) for p in folders.list_images(root, **more)}


KEPT = [
    "a.png",
    "B.JpG",
    "sub/c d.TIF",
    "x.png/100%.webp",
    "é.png",
    "e\u0301.png",
    "new\nline.png",
    "#1.png",
    "a.png.png",
]
LEFT = [
    ".hidden.png", "._a.png", "sub/._c d.TIF", ".ipynb_checkpoints/a-checkpoint.png", ".git/x.png", "notes.txt",
    "Thumbs.db", "a.png~", "__MACOSX/sub/a.png", "@eaDir/a.png/SYNO.jpg", "$RECYCLE.BIN/a.png", "a.xmp",
]  # fmt: skip


def test_what_people_see_is_listed_and_what_programs_leave_is_not(tmp_path):
    touch(tmp_path, *KEPT, *LEFT)
    os.mkfifo(tmp_path / "pipe.png")  # whose reader would wait for ever
    assert listed(tmp_path) == set(KEPT)
    found = folders.list_images(tmp_path)
    assert found == sorted(found)
    assert folders.list_images(tmp_path / ".hidden.png") == [tmp_path / ".hidden.png"]  # it was asked for


def test_links_are_followed_once_and_change_no_path(tmp_path):
    """Those to files too; a folder is listed by its own path, and one that leads back or nowhere does no harm."""
    root, away = tmp_path / "in", tmp_path / "away"
    touch(root, "z/one.png")
    touch(away, "two.png", "deep/three.png")
    touch(tmp_path, "above.png")
    before = listed(root)
    (root / "a").symlink_to(root / "z")
    (root / "z" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "circle.png").symlink_to(root / "circle.png")
    assert before == {"z/one.png"}
    assert listed(root) == before | {"circle.png"}
    (root / "ext").symlink_to(away)
    (root / "later").symlink_to(away / "deep")
    (root / "file.png").symlink_to(away / "two.png")
    (root / "gone.png").symlink_to(away / "gone.png")
    new = {"ext/two.png", "ext/deep/three.png", "file.png", "gone.png", "circle.png"}
    assert listed(root) == before | new
    (tmp_path / "link").symlink_to(root)
    assert listed(tmp_path / "link") == before | new


def test_an_empty_folder_says_what_was_left_out(tmp_path):
    with pytest.raises(InputError, match=r"no image \(.png, .*\) in .*$") as caught:
        folders.list_images(tmp_path)
    assert "left out" not in str(caught.value)
    touch(tmp_path, "._a.png", "._b.png", "notes.txt")
    with pytest.raises(InputError) as caught:
        folders.list_images(tmp_path)
    assert str(caught.value).endswith(
        "; left out are hidden files and folders: ._a.png and 1 more; files of other kinds: notes.txt"
    )


def test_results_inside_the_input_are_no_input(tmp_path):
    """Those of this job, of a comparison's set, and of other jobs; what a user names is taken."""
    touch(tmp_path, "a.png", "out/restored/a.png", "old/restored/a.png", "set/figures/sr4.png", "other/b.png")
    record = json.dumps({"settings": {}, "versions": {}})
    (tmp_path / "old" / "summary.json").write_text(record)
    (tmp_path / "set" / "settings.json").write_text(record)
    (tmp_path / "other" / "settings.json").write_text('{"theme": "dark"}')
    find = lambda root, out: {str(f.relative_to(root)) for f in selection.list_inputs(str(root), False, str(out))}  # noqa: E731
    assert find(tmp_path, tmp_path / "out") == {"a.png", "other/b.png"}
    assert find(tmp_path, tmp_path / "not_yet") == {"a.png", "other/b.png", "out/restored/a.png"}
    assert find(tmp_path / "old", tmp_path / "out") == {"restored/a.png"}
    assert datasets.first_images(tmp_path, None, str(tmp_path / "out")) == ["a.png", "other/b.png"]
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is --input itself"):
        selection.list_inputs(str(tmp_path), False, str(tmp_path / "link"))
    with pytest.raises(InputError, match="--overwrite would remove"):
        files = folders.list_images(tmp_path / "old")
        selection.refuse_removed(files, tmp_path / "old", ["truth", "restored"])


# What outputs are called.

NAMES = [
    "a.png", "a.jpg", "a.png.png", "a.jpg.png", "a.jpeg", "A.png", "a.PNG", "a.tif", "b/a.png", "b/a.jpg", "é.png",
    "e\u0301.png", "x.jpg", "x.png/y.png", "x.png/y.jpg", "ß.png", "ss.png",
]  # fmt: skip


def chosen(root: pathlib.Path, names, before=None, done=()) -> dict[str, str]:
    """Name by file."""
    found = selection.choose([root / n for n in names], root, before or {}, done)
    assert [c.path for c in found] == [root / n for n in names]
    return {c.file: c.name for c in found}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "b/c d.TIFF", "a.b.png", "100%.webp", "y.npy"])
def test_alone_a_file_is_called_by_its_stem(tmp_path, name):
    assert chosen(tmp_path, [name]) == {name: name.rpartition(".")[0]}


def test_no_two_outputs_are_called_alike(tmp_path):
    """Nor where case or composition is not told apart, nor is a picture called as a folder; in any order."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        some = list(generator.permutation(NAMES)[: generator.integers(2, len(NAMES))])
        found = chosen(tmp_path, some)
        assert len({unicodedata.normalize("NFC", n).casefold() for n in found.values()}) == len(some)
        assert found == chosen(tmp_path, sorted(some))
        parents = {str(p) for n in found.values() for p in pathlib.PurePath(n).parents}
        assert not parents & {f"{n}.png" for n in found.values()}
    assert chosen(tmp_path, ["a.jpg", "a.png", "a.png.png"]) == {"a.png": "a", "a.jpg": "a.jpg", "a.png.png": "a.png"}


def test_what_is_done_keeps_its_name_whoever_comes(tmp_path):
    """Of any jobs one after the other; without their record too, as folders of earlier versions are."""
    generator = np.random.default_rng(1)
    for _ in range(50):
        order = list(generator.permutation(NAMES))
        before: dict[str, str] = {}
        for count in sorted(generator.integers(1, len(NAMES), 3)):
            names = chosen(tmp_path, order[:count], before)
            assert {name: file for file, name in names.items()}.items() >= before.items()
            before = {name: file for file, name in names.items()}
    for first, second in itertools.permutations(["a.png", "a.jpg"]):
        assert chosen(tmp_path, [second, first], {"a": first}, ["a"]) == {first: "a", second: second}
    assert chosen(tmp_path, ["a.png", "a.jpg"], {}, ["a"]) == {"a.png": "a", "a.jpg": "a.jpg"}
    assert chosen(tmp_path, ["a.png", "a.jpg"], {}, ["a.png", "a.jpg"]) == {"a.png": "a.png", "a.jpg": "a.jpg"}


def test_randomness_does_not_know_the_company(tmp_path):
    """The same key and the same drawn mask for a file, whatever its output is called; as it always was."""
    touch(tmp_path, "a.jpg", "a.png")
    keys = []
    for names in (["a.jpg"], ["a.jpg", "a.png"]):
        one = selection.choose([tmp_path / n for n in names], tmp_path, {})[0]
        entry = inputs.Entry(one.path, one.name, (1, 1, 1), one.stem)
        keys.append(jax.random.key_data(inputs.key_of(entry, 3, 1)).tolist())
    always = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), zlib.crc32(b"a")), 1)
    assert keys[0] == keys[1] == jax.random.key_data(always).tolist()


def test_names_that_are_no_text_can_be_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (one,) = selection.choose([tmp_path / name], tmp_path, {})
    assert (one.name, one.file, one.path.name) == ("caf%E9", "caf%E9.png", name)
    with pytest.raises(InputError, match=r"has two files caf%E9.png.*: rename one"):  # one would stand for both
        selection.choose([tmp_path / name, tmp_path / "caf%E9.png"], tmp_path, {})


def test_photographs_that_are_not_read_are_said(tmp_path, capsys):
    touch(tmp_path, "a.png", "b.gif", "c.HEIC", "d.heic", "e.npy", "notes.txt", ".f.heic")
    assert [f.name for f in selection.list_inputs(str(tmp_path), False)] == ["a.png", "b.gif"]
    assert "left out are 2 .heic, 1 .npy, which are not read\n" in capsys.readouterr().err
    assert len(selection.list_inputs(str(tmp_path), True)) == 3
    assert "left out are 2 .heic, which are not read\n" in capsys.readouterr().err


# Lists.


@pytest.mark.parametrize(
    "data",
    [
        b"a.png\nb c.png\n",
        b"\xef\xbb\xbfa.png\r\nb c.png",
        "a.png\r\nb c.png\r\n".encode("utf-16"),
        b"# photographs\n\na.png\n   \n  b c.png  \n# end",
        b"a.png\na.png\n./a.png\nb c.png\na.png\n",
        b"a.png # the red one\nb c.png\t# the blue one\n",
        b'"a.png"\n"b c.png"\n',
        b"a.png\rb c.png\r",
    ],
)
def test_lists_are_read_as_editors_write_them(tmp_path, data):
    touch(tmp_path, "a.png", "b c.png")
    (tmp_path / "list.txt").write_bytes(data)
    found = selection.read_list(str(tmp_path / "list.txt"), tmp_path)
    assert found == [tmp_path / "a.png", tmp_path / "b c.png"]


def test_lists_find_names_that_are_written_otherwise(tmp_path):
    """Backslashes, the other composition of a letter, and a file whose name looks like a comment."""
    touch(tmp_path, "sub/a.png", "e\u0301.png", "#1.png", "b #2.png")
    (tmp_path / "list.txt").write_text("sub\\a.png\né.png\n#1.png\nb #2.png\n#3.png\n", encoding="utf-8")
    found = selection.read_list(str(tmp_path / "list.txt"), tmp_path)
    assert [str(f.relative_to(tmp_path)) for f in found] == ["sub/a.png", "e\u0301.png", "#1.png", "b #2.png"]


def test_lists_may_be_of_windows_and_of_whole_paths(tmp_path, monkeypatch):
    touch(tmp_path / "in", "ü.png", "sub/a.png")
    (tmp_path / "list.txt").write_bytes("ü.png\r\n".encode("cp1252") + f"{tmp_path}/in/sub/a.png\n".encode())
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "in", pathlib.Path("in")):
        found = selection.read_list("list.txt", folder)
        assert found == [folder / "ü.png", folder / "sub" / "a.png"]


def test_lists_that_are_written_are_read_back(tmp_path):
    names = [*KEPT, " a.png ", '"q".png', "b #2.png", "tab\t.png", "a\u2028b.png", os.fsdecode(b"caf\xe9.png")]
    touch(tmp_path, *names)
    selection.write_list(tmp_path / "list.txt", names)
    assert selection.read_list(str(tmp_path / "list.txt"), tmp_path) == [tmp_path / n for n in names]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "names no image"),
        (b"# nothing\n", "names no image"),
        (b"a.png\nno such.png\n", "no such.png, which is not there"),
        ("a.png\n".encode("utf-16-le"), "is no UTF-8 text; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is no UTF-8 text"),
        (b"../a.png\n", "is not below"),
    ],
)
def test_other_lists_are_one_line(tmp_path, data, message):
    touch(tmp_path, "a.png")
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(InputError) as caught:
        selection.read_list(str(tmp_path / "list.txt"), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Paths in flags.


def groups(verb: str):
    return importlib.import_module(f"cvsa_jax.commands.{VERBS[verb][0]}").groups()


@pytest.mark.parametrize("verb", VERBS)
def test_every_path_flag_takes_home_and_variables(verb, monkeypatch):
    """Those that say that they are of files or folders; other flags take what they are given."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MINE", "my files")
    found = {f.name: f for _, some in groups(verb).values() for f in some if f.kind is str and f.setting.flag}
    paths = {name for name, f in found.items() if f.setting.path or f.setting.reads}
    assert {n for n in found if n.split("_")[-1] in ("input", "output", "data", "checkpoint", "weights")} - {
        "random_weights"
    } <= paths
    for name in paths:
        for text, meant in {
            "~/a": "/home/me/a", "$MINE/a": "my files/a", "${MINE}x": "my filesx", "a b": "a b", "50%": "50%",
            "a~b$5": "a~b$5", "./a/": "./a/",
        }.items():  # fmt: skip
            assert flags.parse([f"--{name}={text}"], groups(verb)) == {name: meant}
        for text, message in {
            "": "is empty",
            "$NOT_SET/a": "no variable NOT_SET",
            "~no_such_user/a": "no such user",
        }.items():
            with pytest.raises(ValueError, match=f"^--{name}.*{message}"):
                flags.parse([f"--{name}={text}"], groups(verb))
    for name in found.keys() - paths:
        assert flags.parse([f"--{name}=~"], groups(verb)) == {name: "~"}


def test_a_file_of_that_very_name_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "$NOT_SET.png")
    assert flags.parse(["--input=$NOT_SET.png"], known()) == {"input": "$NOT_SET.png"}
    two = flags.parse(["--weights=~/a,~/b"], groups("import"))
    assert two == {"weights": ",".join(os.path.expanduser(p) for p in ("~/a", "~/b"))}


# Seeds.

SEEDS = (0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 2**32, LARGEST)


def test_every_seed_of_64_bits_is_its_own():
    """One of 32 bits is the key that it always was; in float64 so is every one that JAX takes."""
    data = {s: tuple(jax.random.key_data(key_of_seed(s)).tolist()) for s in SEEDS}
    assert len(set(data.values())) == len(SEEDS)
    for seed in (s for s in SEEDS if s < 2**32):
        assert data[seed] == tuple(jax.random.key_data(jax.random.key(seed)).tolist())
    with jax.enable_x64(True):
        for seed in (s for s in SEEDS if s < 2**63):
            assert data[seed] == tuple(jax.random.key_data(jax.random.key(seed)).tolist())
    entry = inputs.Entry(SAMPLES, "a", (1, 1, 1), "a")
    assert len({tuple(jax.random.key_data(inputs.key_of(entry, s, 0)).tolist()) for s in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("owner", [JobSettings, TrainingSettings, CalibrateSettings])
@pytest.mark.parametrize("seed", [-1, LARGEST + 1, 10**400])
def test_other_seeds_are_refused_by_name(owner, seed):
    given = {"data": "a", "output": "b"} if owner is TrainingSettings else {}
    with pytest.raises(ValueError, match=r"^seed must be at least 0 and at most 18446744073709551615, got "):
        owner(**given, seed=seed)
    assert owner(**given, seed=LARGEST).seed == LARGEST
    (field,) = [f for f in fields(owner) if f.name == "seed"]
    assert f"at most {LARGEST}" in flags.describe(field)
    assert flags.parse([f"--seed={LARGEST}"], {"": ("", [field])}) == {"seed": LARGEST}


def test_weights_that_cannot_be_written_are_an_error_of_the_file(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*x\.safetensors"):
        arrays.save_safetensors(tmp_path / "none" / "x.safetensors", {"a": np.zeros(2)}, {})


# What a job names beside its images, in the folder of them.


def beside(root: pathlib.Path, task: str, **more) -> set[str]:
    """What a measured job takes for images of a folder."""
    given = {"task": task, "input": str(root), "output": str(root / "out"), "measured": True, "method": "classical"}
    job = resolve({**given, "noise_std": 0.05, **more})
    return {str(p.relative_to(root)) for p in run.images_of(job, root, read_files(job.operator))}


def test_what_a_job_takes_from_beside_its_images_is_no_image_and_supersedes_none(tmp_path):
    """A kernel, a mask, an operator: whatever its name, and where there is nothing else the job is refused."""
    touch(tmp_path, "a.png", "b.png", "m/b.png")
    np.save(tmp_path / "a.npy", np.ones((3, 3)) / 9)
    assert beside(tmp_path, "gaussian_deblur", kernel=str(tmp_path / "a.npy")) == {"a.png", "b.png", "m/b.png"}
    assert beside(tmp_path, "denoise") == {"a.npy", "b.png", "m/b.png"}
    assert beside(tmp_path, "denoise", operator=str(tmp_path / "a.npy")) == {"a.png", "b.png", "m/b.png"}
    assert beside(tmp_path, "mask_inpaint", mask=str(tmp_path / "m")) == {"a.npy", "b.png"}
    with pytest.raises(InputError, match=r"no image in .* beside the masks"):
        beside(tmp_path / "m", "mask_inpaint", mask=str(tmp_path / "m" / "b.png"))


def test_images_and_their_masks_or_kernels_may_lie_in_one_folder(tmp_path):
    """No image is its own, and what is another's is no image; also of images in a folder below."""
    masks, kernels = tmp_path / "masks", tmp_path / "kernels"
    touch(masks, "a.jpg", "a_mask.png", "sub/b.png", "sub/B-mask.png", "c.png", "c.png.png", "d_mask.png")
    images = {"a.jpg", "sub/b.png", "c.png", "d_mask.png"}
    assert beside(masks, "mask_inpaint", mask=str(masks)) == images
    assert beside(masks / "sub", "mask_inpaint", mask=str(masks)) == {"b.png", "B-mask.png"}
    found = read_mask(str(masks))
    assert {n: found.find(pathlib.PurePath(n), masks / n).name for n in ("a.jpg", "c.png")} == {
        "a.jpg": "a_mask.png", "c.png": "c.png.png",
    }  # fmt: skip
    with pytest.raises(InputError, match="no mask of that name"):
        found.find(pathlib.PurePath("d_mask.png"), masks / "d_mask.png")
    touch(masks, "a.png")
    with pytest.raises(InputError, match=r"a.jpg and a.png of .* may each be the mask of the other"):
        beside(masks, "mask_inpaint", mask=str(masks))
    touch(kernels, "a.png", "b.tif")
    (kernels / "a.npy").touch()
    assert beside(kernels, "gaussian_deblur", kernel=str(kernels)) == {"a.png", "b.tif"}
