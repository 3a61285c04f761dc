"""One self-contained page of a run: summary, table, and each image before and after. Needs no network."""

import base64
import html
import json
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from experiments import comparison
from experiments.tables import Grid, arrow

STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #2b7a4b; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: right; vertical-align: middle; }
th:first-child, td:first-child, .text { text-align: left; }
td { white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; padding: .25rem 0; }
th button:focus-visible, input:focus-visible { outline: 2px solid var(--mark); }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.pair { display: grid; width: 12rem; } .pair > * { grid-area: 1 / 1; }
.pair img { width: 12rem; height: auto; image-rendering: pixelated; display: block; }
.pair .after { clip-path: inset(0 0 0 var(--at, 50%)); }
.pair input { align-self: end; width: 100%; margin: 0; accent-color: var(--mark); }
.names { display: flex; justify-content: space-between; width: 12rem; font-size: .8rem; opacity: .75; }
details { margin-top: 1rem; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { opacity: .75; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  #images thead { display: block; } #images thead tr { display: flex; flex-wrap: wrap; gap: 0 .75rem; }
  #images thead th { border: 0; padding: 0; }
  #images tbody tr { display: block; border-bottom: 1px solid var(--line); padding: .75rem 0; }
  #images tbody td { display: flex; justify-content: space-between; border: 0; padding: .1rem 0; }
  #images tbody td::before { content: attr(data-label); opacity: .75; }
  #images tbody td.picture { display: block; } #images tbody td.picture::before { content: none; }
  .pair, .pair img, .names { width: 100%; }
}
"""
SCRIPT = """
for (const input of document.querySelectorAll('.pair input')) {
  const move = () => input.parentElement.style.setProperty('--at', input.value + '%');
  input.addEventListener('input', move);
  move();
}
const value = (row, i) => {
  const text = row.cells[i].dataset.value;
  return text === undefined ? row.cells[i].textContent.trim() : text === '' ? NaN : Number(text);
};
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => head.querySelector('button').addEventListener('click', () => {
    const up = head.getAttribute('aria-sort') !== 'ascending';
    heads.forEach(h => h.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [value(a, i), value(b, i)];
      if (typeof x === 'string') return up ? x.localeCompare(y) : y.localeCompare(x);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return up ? x - y : y - x;
    });
    table.tBodies[0].append(...rows);
  }));
}
"""


class Row(NamedTuple):
    """One image: its name, before and after as PNG files, their captions, and its figures by heading."""

    name: str
    before: pathlib.Path
    after: pathlib.Path
    captions: tuple[str, str]
    figures: dict[str, str | float]


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
    before, after = (
        f'<img class="{kind}" alt="{html.escape(f"{caption} of {row.name}")}" src="{_embedded(path)}">'
        for kind, caption, path in zip(("before", "after"), row.captions, (row.before, row.after), strict=True)
    )
    names = "".join(f"<span>{html.escape(c)}</span>" for c in row.captions)
    label = html.escape(f"{row.captions[0]} or {row.captions[1]} of {row.name}")
    return (
        f'<td class="picture text"><div class="pair">{before}{after}'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}"></div>'
        f'<div class="names">{names}</div></td>'
    )


def _embedded(path: pathlib.Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def grid_table(grid: Grid) -> str:
    """A table of figures as HTML, the best in bold, the notes below."""
    heads = ["method", *(f"{m.heading}{arrow(m)}" for m in grid.columns.values())]
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
    """Write report.html of a folder of `experiments.restore`, from its files; the path."""
    record = json.loads((folder / "summary.json").read_text())
    rows = []
    for r in comparison.read_rows(folder / "metrics.csv"):
        name, figures = r["image"], {}
        for column, text in r.items():
            if column != "image" and text:
                figures[column.replace("_", " ")] = float(text)
        pictures = folder / "measurement" / f"{name}.png", folder / "restored" / f"{name}.png"
        rows.append(Row(name, *pictures, ("measurement", "restored"), figures))
    settings = record["settings"]
    means = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in record.get("means", {}).items())
    path = folder / "report.html"
    summary = f"{len(rows)} images; in the mean: {means}." if means else f"{len(rows)} images."
    path.write_text(page(settings["task"], summary, "", rows, settings | record["versions"]))
    return path


def _job_rows(folder: pathlib.Path, label: str, facts: dict, count: int, headings: dict[str, str]) -> list[Row]:
    """The first images of a job, truth against restoration; figures by column of metrics.csv, under their headings."""
    kind, rows = comparison.estimates(folder), []
    for r in comparison.read_rows(folder / "metrics.csv")[:count]:
        name, figures = r["image"], dict(facts)
        for column, heading in headings.items():
            text = r.get(comparison.column_of(column, kind))
            if text:
                figures[heading] = float(text)
        pictures = folder / "truth" / f"{name}.png", folder / kind / f"{name}.png"
        rows.append(Row(name, *pictures, ("truth", label), figures))
    return rows


def comparison_report(
    plan: comparison.Plan, refused: dict, grids: Sequence[Grid], summary: str, count: int
) -> pathlib.Path:
    """Write report.html of `experiments.evaluate`: its tables, and the first images under every method; the path."""
    columns = "psnr", "ssim", "kernel_mse", "seconds", "network_evaluations"
    headings = {c: comparison.MEASURES[c].heading for c in columns}
    rows = []
    for task in plan.tasks:
        for method in plan.rows:
            if (task, method) not in refused:
                folder, label = comparison.folder_of(plan, task, method), comparison.ROWS[method][0]
                rows += _job_rows(folder, label, {"task": task, "method": label}, count, headings)
    record = json.loads((plan.output / "comparison.json").read_text())
    path, body = plan.output / "report.html", "".join(grid_table(grid) for grid in grids)
    path.write_text(page("Comparison", summary, body, rows, record["settings"] | record["versions"]))
    return path


def ablation_report(
    output: pathlib.Path, grids: Sequence[Grid], jobs: dict[str, pathlib.Path], settings: dict, count: int = 4
) -> pathlib.Path:
    """Write report.html of `experiments.ablate`: tables, plots, the first images of each job by label; the path."""
    headings = {"psnr": "PSNR", "ssim": "SSIM"}
    rows = [
        row for label, folder in jobs.items() for row in _job_rows(folder, label, {"value": label}, count, headings)
    ]
    body = "".join(
        f'{grid_table(grid)}<img alt="{html.escape(grid.title)}" style="max-width:100%" '
        f'src="{_embedded(output / f"{grid.title}.png")}">'
        for grid in grids
    )
    path = output / "report.html"
    path.write_text(page("Ablation", "One constant at a time.", body, rows, settings))
    return path
