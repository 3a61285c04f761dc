"""One self-contained page of a run: summary, table, and each image before and after. Needs no network."""

import base64
import html
import io
import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from cvsa_jax.evaluation.finished import FinishedJob
from cvsa_jax.evaluation.tables import Grid, arrow
from cvsa_jax.measures import MEASURES, column_of
from cvsa_jax.pictures import formats
from cvsa_jax.pictures.levels import to_bytes
from cvsa_jax.types import InputError
from cvsa_jax.writing import write_text

_FOLDER = pathlib.Path(__file__).parent
# What browsers show, by suffix.
_SHOWN = {".png": "png", ".jpg": "jpeg", ".webp": "webp"}
STYLE, SCRIPT = ((_FOLDER / f"report.{kind}").read_text() for kind in ("css", "js"))


class Row(NamedTuple):
    """One image: its name, before and after as files of pictures, their captions, and its figures by heading."""

    name: str
    before: pathlib.Path
    after: pathlib.Path
    captions: tuple[str, str]
    figures: Mapping[str, str | float]


def page(title: str, summary: str, body: str, rows: Sequence[Row], settings: dict) -> str:
    """The page as text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}</style></head><body>'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p>{body}{_images(rows)}"
        f"<details><summary>Settings</summary><dl>{_facts(settings)}</dl></details>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _facts(settings: dict) -> str:
    return "".join(f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd>" for k, v in settings.items())


def _images(rows: Sequence[Row]) -> str:
    heads = ["image", "picture", *dict.fromkeys(h for row in rows for h in row.figures)]
    words = {h for row in rows for h, v in row.figures.items() if isinstance(v, str)} | {"image", "picture"}
    kinds = ["text" if h in words else "" for h in heads]
    top = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{html.escape(h)}</button></th>'
        for h, kind in zip(heads, kinds, strict=True)
    )
    lines = []
    for row in rows:
        cells = [f'<td class="text" data-label="image">{html.escape(row.name)}</td>', _slider(row)]
        for h in heads[2:]:
            v = row.figures.get(h, math.nan)
            label = f'data-label="{html.escape(h)}"'
            if isinstance(v, str):
                cells.append(f'<td class="text" {label}>{html.escape(v)}</td>')
            else:
                finite = math.isfinite(v)
                cells.append(f'<td {label} data-value="{v if finite else ""}">{f"{v:.4g}" if finite else "-"}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<h2>Images</h2><div class="scroll"><table id="images" class="sortable">'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _slider(row: Row) -> str:
    """Sorted by its name; the right part of the picture is the restoration, from the slider on."""
    try:
        before, after = (
            f'<img class="{kind}" alt="{html.escape(f"{caption} of {row.name}")}" src="{_embedded(path)}">'
            for kind, caption, path in zip(("before", "after"), row.captions, (row.before, row.after), strict=True)
        )
    except (InputError, OSError) as error:  # gone since, as another shard's may be
        return f'<td class="picture text">{html.escape(f"not shown: {error}")}</td>'
    names = "".join(f"<span>{html.escape(c)}</span>" for c in row.captions)
    label = html.escape(f"{row.captions[0]} or {row.captions[1]} of {row.name}")
    return (
        f'<td class="picture text"><div class="pair">{before}{after}'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}"></div>'
        f'<div class="names">{names}</div></td>'
    )


def _embedded(path: pathlib.Path) -> str:
    """A picture as an address; of a form that browsers do not show as a PNG."""
    kind, data = _SHOWN.get(path.suffix), path.read_bytes()
    if kind is None:
        kind, whole = "png", io.BytesIO()
        pixels = to_bytes(formats.read_back(path, 3))
        Image.fromarray(pixels).save(whole, "PNG")
        data = whole.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def grid_table(grid: Grid) -> str:
    """A table of figures as HTML, the best in bold, the notes below."""
    heads = [grid.kind, *(f"{m.heading}{arrow(m)}" for m in grid.columns.values())]
    top = "".join(f'<th scope="col"><button type="button">{html.escape(h)}</button></th>' for h in heads)
    lines = []
    for name in grid.rows:
        cells = [f"<td>{html.escape(name)}</td>"]
        for column in grid.columns:
            value = grid.cells[name, column].value if (name, column) in grid.cells else math.nan
            text = grid.text(name, column, "<b>{}</b>", "-", " ± ")
            cells.append(f'<td data-value="{value if math.isfinite(value) else ""}">{text}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{html.escape(n)}</li>" for n in grid.notes())
    return (
        f'<h2>{html.escape(grid.title)}</h2><div class="scroll"><table class="sortable"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{f'<ul>{notes}</ul>' if notes else ''}"
    )


def job_report(folder: pathlib.Path) -> pathlib.Path:
    """Write report.html of a restoration job, from its files; the path."""
    done = FinishedJob(folder)
    rows = []
    for r in done.rows:
        figures = {heading(c): float(text) for c, text in r.items() if c != "image" and text}
        pictures = done.picture("measurement", r["image"]), done.picture("restored", r["image"])
        rows.append(Row(r["image"], *pictures, ("measurement", "restored"), figures))
    means = ", ".join(f"{heading(k)} {v:.4g}" for k, v in done.record.get("means", {}).items())
    path = folder / "report.html"
    summary = f"{len(rows)} images; in the mean: {means}." if means else f"{len(rows)} images."
    settings = (
        done.settings | done.record["versions"] | {"command": f"cvsa restore {shlex.join(done.record['command'])}"}
    )
    write_text(path, page(done.settings["task"], summary, "", rows, settings))
    return path


def heading(column: str) -> str:
    """Of a column of metrics.csv."""
    return MEASURES[column].heading if column in MEASURES else column.replace("_", " ")


def job_rows(done: FinishedJob, label: str, facts: dict, count: int, names: Sequence[str]) -> list[Row]:
    """The first images of a job, truth against restoration, with some of the measures under their headings."""
    rows = []
    for r in done.rows[:count]:
        figures = dict(facts)
        for name in names:
            text = r.get(column_of(name, done.task))
            if text:
                figures[MEASURES[name].heading] = float(text)
        pictures = done.picture("truth", r["image"]), done.picture(done.kind, r["image"])
        rows.append(Row(r["image"], *pictures, ("truth", label), figures))
    return rows


def write_report(
    path: pathlib.Path, title: str, summary: str, grids: Sequence[Grid], rows: Sequence[Row], settings: dict,
    plots: dict[str, pathlib.Path] | None = None,
) -> pathlib.Path:  # fmt: skip
    """Write a page of tables, each with its plot by title if there is one, and images; the path."""
    body = []
    for grid in grids:
        body.append(grid_table(grid))
        if plots and grid.title in plots:
            source, name = _embedded(plots[grid.title]), html.escape(grid.title)
            body.append(f'<img alt="{name}" style="max-width:100%" src="{source}">')
    write_text(path, page(title, summary, "".join(body), rows, settings))
    return path
