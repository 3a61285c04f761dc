"""Tables, folders of data sets, and the programs that compare, ablate and draw."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from cvsa_jax import metrics
from cvsa_jax.evaluation import comparison, datasets, tables
from cvsa_jax.evaluation.rows import ROWS, judged_by, may
from cvsa_jax.evaluation.tables import Figure, Grid, figure
from cvsa_jax.jobs import selection
from cvsa_jax.measures import Measure
from cvsa_jax.operators import find_task
from cvsa_jax.types import InputError, UnsuitableError


def rows(path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def example() -> Grid:
    grid = Grid("a_task", ["x", "y", "z"], {"psnr": Measure("PSNR", True, 1), "e": Measure("error", False, 2),
                                            "s": Measure("s", None, 0)})  # fmt: skip
    for row, values in {"x": (20.04, 0.5, 3), "y": (19.96, 0.2, 1)}.items():
        for column, value in zip(grid.columns, values, strict=True):
            grid.cells[row, column] = Figure(value, 0.3 if column == "psnr" else math.nan)
    grid.cells["z", "psnr"] = Figure(note="it cannot")
    return grid


def test_tables_mark_the_best_as_printed():
    """Equal in print, both bold; less is better of an error; a time is neither; a dash has its reason."""
    assert example().markdown().splitlines() == [
        "### a_task", "", "| method | PSNR ↑ | error ↓ | s |", "|---|---|---|---|",
        "| x | **20.0** ± 0.3 | 0.50 | 3 |", "| y | **20.0** ± 0.3 | **0.20** | 1 |", "| z | - | - | - |", "",
        "- z: it cannot",
    ]  # fmt: skip
    overview = tables.Overview([example()], ("psnr", "e", "missing"))
    assert overview.markdown().splitlines() == [
        "| method | a_task |", "|---|---|", "| | PSNR ↑ / error ↓ |", "| x | **20.0** / 0.50 |",
        "| y | **20.0** / **0.20** |", "| z | - |",
    ]  # fmt: skip
    text = overview.latex("50 % done")
    assert r"Method & a\_task \\" in text
    assert r"x & \textbf{20.0} / 0.50 \\" in text
    assert r"y & \textbf{20.0} / \textbf{0.20} \\" in text
    assert r"z & -- \\" in text
    assert r"\caption{50 \% done}" in text


def test_intervals_of_means_hold_them():
    """In 95 of 100 draws; of one number there is none, and what is not finite is left out."""
    draws = np.random.default_rng(0).normal(3, 2, (4000, 5))
    inside = [abs(m - 3) <= h for m, h in map(metrics.mean_interval, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert math.isnan(figure([1.0]).half)
    assert figure([1.0, math.inf, 3.0]).value == 2
    assert math.isnan(figure([math.nan]).value)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("FFHQ", "images1024x1024/00000"),
        ("CelebA-HQ", "CelebA-HQ-img"),
        ("AFHQ dog", "val/dog"),
        ("Products-6k", "test/groceries"),
    ],
)
def test_known_sets_are_recognised(name, place, tmp_path, capsys):
    """Their first images in the order of their numbers; that others are left out is said."""
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / "train").mkdir()
    if name == "Products-6k":  # whose `test` may be anyone's
        assert datasets.locate(str(tmp_path)) == (tmp_path.name, tmp_path)
        (tmp_path / "test" / "clothing").mkdir()
    for number in (10, 2, 1):
        Image.new("RGB", (8, 8)).save(tmp_path / place / f"{number}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "0.png")
    found, folder = datasets.locate(str(tmp_path))
    assert found == name
    assert [f.split("/")[-1] for f in datasets.first_images(folder, 2)] == ["1.png", "2.png"]
    told = capsys.readouterr().err
    assert f"is {name}: the images of {folder.relative_to(tmp_path)} are read, and no others of it" in told
    assert told.count("\n") == 1


def test_lists_name_what_is_there(tmp_path):
    (tmp_path / "list.txt").write_text("clothing_003.png\n\nclothing_001.png\n")
    found = selection.read_list(str(tmp_path / "list.txt"), SAMPLES)
    assert [f.name for f in found] == ["clothing_003.png", "clothing_001.png"]
    (tmp_path / "list.txt").write_text("none.png\n")
    with pytest.raises(InputError, match="which is not there"):
        selection.read_list(str(tmp_path / "list.txt"), SAMPLES)
    with pytest.raises(InputError, match="cannot read the list"):
        selection.read_list(str(tmp_path / "other.txt"), SAMPLES)


@pytest.mark.parametrize("evaluations", [50, 100, 1000, 1500, 4000])
@pytest.mark.parametrize("task", ["sr4", "box_inpaint", "phase_retrieval"])
def test_equal_evaluations_are_nearly_equal(task, evaluations, tmp_path):
    """Never more than asked for, and of one image no less than nine tenths; of one chain and of several alike."""
    plan = comparison.Plan([task], list(comparison.ROWS), {"input": str(SAMPLES)}, evaluations, tmp_path)
    several = [1, 4] if task == "phase_retrieval" else [1, 2, 4]
    for row in comparison.ROWS:
        if not may(row, find_task(task)) or row == "classical":
            continue
        if (task, row) == ("phase_retrieval", "cvsa_sample"):
            with pytest.raises(UnsuitableError):
                comparison.job_of(plan, task, row)
            continue
        jobs = [comparison.job_of(plan, task, row, number) for number in range(len(comparison.shares(plan, task, row)))]
        longest = None if row in ("cvsa", "cvsa_sample", "paper") else 1000
        fitting = [n for n in several if longest is None or evaluations // n <= longest]
        assert [job.method.num_samples for job in jobs] == ([1] if row == "cvsa_sample" else fitting)
        assert len({job.job.output for job in jobs}) == len(jobs)
        for method in (job.method for job in jobs):
            total = method.num_steps * method.num_samples * (1 + getattr(method, "num_corrections", 0))
            assert 0.9 * evaluations <= total <= evaluations


def test_more_evaluations_than_a_method_has_are_refused(tmp_path):
    """They would be compared with fewer; ours takes them, and so does the paper's."""
    plan = comparison.Plan(["denoise"], ["dps"], {"input": str(SAMPLES)}, 5000, tmp_path)
    with pytest.raises(ValueError, match="--evaluations=5000: DPS takes at most 4003; see --methods"):
        comparison.check(plan)
    comparison.check(plan._replace(evaluations=4003))
    comparison.check(plan._replace(rows=["cvsa", "paper", "classical"]))


class Finished:
    """A job of which figures and failures are known."""

    def __init__(self, psnr, failures=0):
        self.psnr, self.failures, self.rows = psnr, range(failures), psnr

    def figures(self, measure):
        assert measure == "psnr"
        return self.psnr


def test_the_best_number_of_chains_is_shown():
    """By the mean over the images; a job in which images failed is not better for it; equal, the first."""
    one, two, lame, none = Finished([20, 21]), Finished([19, 23]), Finished([30], 1), Finished([], 2)
    assert comparison.best([one, two], "psnr") is two
    assert comparison.best([two, one], "psnr") is two
    assert comparison.best([one, lame], "psnr") is one
    assert comparison.best([none, lame], "psnr") is lame
    assert comparison.best([one, Finished([21, 20])], "psnr") is one
    assert judged_by("diffpir_texture") == "patch_distance"
    assert {judged_by(row) for row in comparison.ROWS if row != "diffpir_texture"} == {"psnr"}


@pytest.fixture(scope="module")
def compared(run_verb, tiny_checkpoint, tmp_path_factory):
    """Two tasks, three methods, two images."""
    output = tmp_path_factory.mktemp("compared")

    def run():
        return run_verb(
            "evaluate", "--tasks=sr2,motion_deblur", "--methods=cvsa,ddrm,classical", f"--data={SAMPLES}", "--limit=2",
            "--image_size=16", "--evaluations=8", f"--checkpoint={tiny_checkpoint}", f"--output={output}",
        )  # fmt: skip

    done = run()
    assert done.returncode == 0, done.stderr
    return output, run


def test_comparison_is_what_the_files_say(compared):
    output, _ = compared
    long = rows(output / "per_image.csv")
    assert list(long[0]) == ["task", "method", "image", "metric", "value"]
    jobs = [
        ("sr2", "cvsa"),
        ("sr2", "ddrm"),
        ("sr2", "classical"),
        ("motion_deblur", "cvsa"),
        ("motion_deblur", "classical"),
    ]
    assert {(r["task"], r["method"]) for r in long} == set(jobs)
    table = (output / "table.md").read_text()
    record = json.loads((output / "comparison.json").read_text())
    for task, method in jobs:
        folders = [output / "jobs" / task / name for name in (method, f"{method}_x2", f"{method}_x4")]
        every = [rows(folder / "metrics.csv") for folder in folders if folder.exists()]
        assert len(every) == (1 if method == "classical" else 3)
        means = [np.mean([float(r["psnr"]) for r in own]) for own in every]
        best = int(np.argmax(means))
        own = every[best]
        assert len(own) == 2
        assert f"--output={folders[best]}" in record["commands"][f"{task}, {method}"]
        section = table.split(f"### {task}\n")[1].split("### ")[0]
        (line,) = (line for line in section.splitlines() if line.startswith(f"| {ROWS[method][0]} |"))
        assert line.split("|")[-2].strip() == ("-" if method == "classical" else str(2**best))
        if len(means) == 3:
            assert list(record["chains"][f"{task}, {method}"].values()) == pytest.approx(means)
        values = [float(r["value"]) for r in long if (r["task"], r["method"], r["metric"]) == (task, method, "psnr")]
        np.testing.assert_allclose(values, [float(r["psnr"]) for r in own])
        assert f"{np.mean(values):.2f}" in table
    measured = {tuple((output / "jobs" / "sr2" / m / "measurement").glob("*.png")) for m in ("cvsa", "ddrm")}
    assert len({tuple(p.read_bytes() for p in sorted(files)) for files in measured}) == 1
    assert "- DDRM: a blur whose image is reflected" in table
    assert "patch distance" in table
    assert "motion\\_deblur" in (output / "table.tex").read_text()
    assert "--task=sr2" in record["commands"]["sr2, ddrm"]
    assert list(record["refused"]) == ["motion_deblur, ddrm"]
    sources = {(r["task"], r["constant"]): r for r in rows(output / "constants.csv")}
    assert set(sources) == {("sr2", "eta"), ("sr2", "eta_b")}
    assert (sources["sr2", "eta"]["value"], sources["sr2", "eta"]["source"]) == ("0.85", "its paper's")
    for name in ("figures/sr2.png", "figures/motion_deblur.png", "report.html"):
        assert (output / name).stat().st_size > 1000


def test_comparison_goes_on_where_it_was_stopped(compared):
    output, run = compared
    job = output / "jobs" / "sr2" / "ddrm"
    table = (output / "table.md").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in output.rglob("restored/*.png") if p.parent.parent != job}
    lines = (job / "manifest.jsonl").read_text().splitlines(keepends=True)
    (job / "manifest.jsonl").write_text("".join(lines[:-1]))
    shutil.rmtree(output / "figures")
    done = run()
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert [r["image"] for r in rows(job / "metrics.csv")] == ["clothing_001", "clothing_003"]
    strip = lambda text: [line.rsplit("|", 4)[0] for line in text.splitlines()]  # noqa: E731  without the seconds
    assert strip((output / "table.md").read_text()) == strip(table)


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("evaluate", ["--preset=table1", "--output=OUT"], "--data is required"),
        ("evaluate", ["--tasks=sr3", "--data=DATA", "--output=OUT"], "task must be one of"),
        ("evaluate", ["--tasks=sr4", "--methods=best", "--data=DATA", "--output=OUT"], "got 'best'"),
        (
            "evaluate",
            ["--preset=table1", "--data=DATA", "--output=OUT", "--inception_weights=no.npz"],
            "cannot read no.npz",
        ),
        (
            "ablate",
            ["--task=sr4", "--input=DATA", "--output=OUT", "--sweep=masss=1,2"],
            "Unknown command line flag 'masss'",
        ),
        ("ablate", ["--task=sr4", "--input=DATA", "--output=OUT", "--sweep=mass=1,heavy"], "mass"),
        ("figures", ["--kind=path", "--task=blind_motion_deblur", "--input=DATA", "--output=OUT"], "kernel is known"),
    ],
)
def test_bad_input_is_one_line(run_verb, program, arguments, message, tmp_path):
    arguments = [a.replace("DATA", str(SAMPLES)).replace("OUT", str(tmp_path / "out")) for a in arguments]
    done = run_verb(program, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.*"))


def test_ablation_varies_one_constant_at_a_time(run_verb, tiny_checkpoint, tmp_path):
    output = tmp_path / "out"
    done = run_verb(
        "ablate", "--task=sr2", f"--input={SAMPLES}", "--limit=2", "--image_size=16", f"--checkpoint={tiny_checkpoint}",
        "--num_samples=1", "--num_steps=4", "--sweep=mass=.1,1", "--sweep=guidance=covariance,plug_in",
        f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = rows(output / "ablation.csv")
    assert {(r["sweep"], r["value"]) for r in table} == {
        ("mass", ".1"), ("mass", "1"), ("guidance", "covariance"), ("guidance", "plug_in"),
    }  # fmt: skip
    assert len([r for r in table if r["metric"] == "residual" and float(r["figure"]) > 0]) == 8
    settings_of = lambda job: json.loads((output / job / "summary.json").read_text())["settings"]  # noqa: E731
    assert settings_of("mass=.1")["mass"] == 0.1
    assert settings_of("guidance=plug_in")["mass"] == 0.25
    # Two plots, and two pictures of each image of each of four jobs.
    assert (output / "report.html").read_text().count("data:image/png;base64,") == 2 + 2 * 2 * 4
    for name in ("mass.png", "guidance.png"):
        assert Image.open(output / name).size[0] > 600


def test_path_shows_position_and_velocity(run_verb, tiny_checkpoint, tmp_path):
    done = run_verb(
        "figures", "--kind=path", "--task=sr2", f"--input={SAMPLES / 'clothing_001.png'}", "--image_size=16",
        "--num_steps=5", "--num_frames=3", f"--checkpoint={tiny_checkpoint}", f"--output={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "path.png").size == (4 * 130 - 2, 3 * 130 - 2 + 16)
    film = Image.open(tmp_path / "path.webp")
    assert film.n_frames == 6
