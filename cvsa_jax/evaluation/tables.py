"""Tables of figures: the mean with its interval, the best in bold, in Markdown and LaTeX."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cvsa_jax import metrics
from cvsa_jax.measures import Measure


class Figure(NamedTuple):
    """A number in a cell. half: of its 95 % interval, or not a number. note: why it is not that of all images."""

    value: float = math.nan
    half: float = math.nan
    note: str = ""


def figure(values: Sequence[float]) -> Figure:
    """The mean of the finite values, with the interval of the mean over images."""
    kept = np.array([v for v in values if math.isfinite(v)])
    return Figure(*metrics.mean_interval(kept)) if len(kept) else Figure()


class Grid:
    """Figures by row and column; what is missing is a dash."""

    def __init__(self, title: str, rows: Sequence[str], columns: dict[str, Measure], kind: str = "method"):
        self.title, self.rows, self.columns, self.kind = title, list(rows), columns, kind
        self.cells: dict[tuple[str, str], Figure] = {}

    def best(self, column: str) -> float:
        """The best value, as it is printed; not a number if the column has no better and worse."""
        measure = self.columns[column]
        values = [self.cells.get((row, column), Figure()).value for row in self.rows]
        values = [round(v, measure.digits) for v in values if math.isfinite(v)]
        if measure.more is None or not values:
            return math.nan
        return max(values) if measure.more else min(values)

    def text(self, row: str, column: str, bold: str, dash: str, between: str | None) -> str:
        """A cell as it is printed; bold has a {} for what it marks, between joins the interval, if it is wanted."""
        cell, measure = self.cells.get((row, column), Figure()), self.columns[column]
        if not math.isfinite(cell.value):
            return dash
        text = f"{cell.value:.{measure.digits}f}"
        if round(cell.value, measure.digits) == self.best(column):
            text = bold.format(text)
        wanted = between is not None and measure.interval and math.isfinite(cell.half)
        return text + (f"{between}{cell.half:.{measure.digits}f}" if wanted else "")

    def notes(self) -> list[str]:
        """Why there are dashes, or images missing, a line for each row that has one."""
        out = []
        for row in self.rows:
            notes = {c.note for (r, _), c in self.cells.items() if r == row and c.note}
            out += [f"{row}: {note}" for note in sorted(notes)]
        return out

    def markdown(self) -> str:
        """With a heading and the notes below."""
        heads = [self.kind, *(f"{m.heading}{arrow(m)}" for m in self.columns.values())]
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in self.rows:
            cells = [self.text(row, column, "**{}**", "-", " ± ") for column in self.columns]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        notes = [f"- {note}" for note in self.notes()]
        return "\n".join([f"### {self.title}", "", *lines, *(["", *notes] if notes else []), ""])


def arrow(measure: Measure) -> str:
    """Which way is better."""
    return "" if measure.more is None else " ↑" if measure.more else " ↓"


class Overview:
    """Many tasks in the paper's shape: methods down, tasks across, `PSNR / SSIM / ...` in a cell.

    shown: the measures; a task has those of them that its grid has.
    """

    def __init__(self, grids: Sequence[Grid], shown: Sequence[str]):
        self._parts = [(grid, [c for c in shown if c in grid.columns]) for grid in grids]
        self.rows = list(dict.fromkeys(row for grid in grids for row in grid.rows))
        self.titles = [grid.title for grid in grids]

    def headings(self, arrow_of: Callable[[Measure], str]) -> list[str]:
        """What the numbers of each task's cells are."""
        return [" / ".join(f"{g.columns[c].heading}{arrow_of(g.columns[c])}" for c in cs) for g, cs in self._parts]

    def cells(self, row: str, bold: str, dash: str) -> list[str]:
        """A row without its name; a cell of dashes alone is one dash."""
        texts = [[grid.text(row, c, bold, dash, None) for c in cs] for grid, cs in self._parts]
        return [dash if all(t == dash for t in ts) else " / ".join(ts) for ts in texts]

    def markdown(self) -> str:
        lines = [f"| method | {' | '.join(self.titles)} |", "|---" * (1 + len(self.titles)) + "|"]
        lines.append(f"| | {' | '.join(self.headings(arrow))} |")
        lines += [f"| {row} | {' | '.join(self.cells(row, '**{}**', '-'))} |" for row in self.rows]
        return "\n".join([*lines, ""])

    def latex(self, caption: str) -> str:
        """A table environment."""
        heads, measures = map(_escape, self.titles), map(_escape, self.headings(_latex_arrow))
        lines = [
            r"\begin{table}", r"\centering", rf"\caption{{{_escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'c' * len(self.titles)}}}", r"\hline",
            f"Method & {' & '.join(heads)} \\\\", f" & {' & '.join(measures)} \\\\", r"\hline",
        ]  # fmt: skip
        for row in self.rows:
            cells = " & ".join(self.cells(row, r"\textbf{{{}}}", "--"))
            lines.append(f"{_escape(row)} & {cells} \\\\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def _latex_arrow(measure: Measure) -> str:
    return "" if measure.more is None else r"$\uparrow$" if measure.more else r"$\downarrow$"


def _escape(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("Π", r"$\Pi$")):
        text = text.replace(plain, escaped)
    return text
