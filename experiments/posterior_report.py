"""What the posterior benchmark writes: tables that grow, Markdown, the scatter plot."""

import csv
import pathlib

import matplotlib
import numpy as np

EXACT = "exact samples"
SCATTER_COLUMNS = 7
DIVERGED = 200.0  # no two points of the mixtures' projections are so far apart at any d


class Table:
    """A CSV that grows by whole rows, and knows which rows it has."""

    def __init__(self, path: pathlib.Path, columns: tuple[str, ...], num_keys: int):
        self.columns, self._keys, self.path = columns, columns[:num_keys], path
        self.rows: list[dict] = []
        if path.exists():
            with path.open() as file:
                self.rows = list(csv.DictReader(file))
        else:
            path.write_text(",".join(columns) + "\n")

    def has(self, *key) -> bool:
        wanted = [str(k) for k in key]
        return any([row[k] for k in self._keys] == wanted for row in self.rows)

    def add(self, *values) -> None:
        row = {c: f"{v:.5g}" if isinstance(v, float) else str(v) for c, v in zip(self.columns, values, strict=True)}
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def mean(self, column: str, **where) -> tuple[float, float, int, int]:
        """(mean, its standard error, count, diverged) of the rows that match, the mean without the diverged."""
        match = [float(r[column]) for r in self.rows if all(r[k] == str(v) for k, v in where.items())]
        good = [v for v in match if v < DIVERGED]  # false for not-a-number too
        error = np.std(good, ddof=1) / len(good) ** 0.5 if len(good) > 1 else np.nan
        return (float(np.mean(good)) if good else np.nan), float(error), len(match), len(match) - len(good)


def cell_text(mean: float, error: float, count: int, diverged: int) -> str:
    """A figure with its standard error, and how many problems have none."""
    if not count:
        return "-"
    text = f"{mean:.2f} ± {error:.2f}" if diverged < count else ""
    return f"{text} ({diverged} diverged)".strip() if diverged else text


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def mixture_markdown(table: Table, names: list[str], cells: list[tuple[int, int]]) -> str:
    """Mean distance ± its standard error; rows are methods, columns cells, the best beside the exact samples bold."""
    figures = {n: [table.mean("distance", method=n, d=d, d_y=m) for d, m in cells] for n in (EXACT, *names)}
    counts = [count for _, _, count, _ in figures[EXACT]]
    heads = [f"d = {d}, d_y = {m} ({n} problems)" for (d, m), n in zip(cells, counts, strict=True)]
    best = np.nanmin([[mean for mean, *_ in figures[n]] for n in names], 0)
    rows = []
    for name, row in figures.items():
        texts = [cell_text(*figure) for figure in row]
        bold = [f"**{t}**" if f[0] == least else t for t, f, least in zip(texts, row, best, strict=True)]
        rows.append([name, *bold])
    return markdown(["method, steps", *heads], rows)


def field_markdown(table: Table) -> str:
    """Error of the mean, deviation and coverage of each method and task."""
    heads = ["method, steps", "task", "error of the mean, %", "of exact samples, %"]
    rows = []
    for r in table.rows:
        error, chance, ratio, coverage = (float(r[c]) for c in table.columns[2:6])
        figures = f"{100 * error:.2f}", f"{100 * chance:.2f}", f"{ratio:.3f}", f"{100 * coverage:.1f}"
        rows.append([r["method"], r["task"], *figures])
    return markdown([*heads, "deviation / exact", "90 % coverage, %"], rows)


def scatter(path: pathlib.Path, clouds: dict) -> None:
    """The first two coordinates of the posteriors (grey) and of each method's samples."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    numbers = sorted({number for number, _ in clouds})
    names = list(dict.fromkeys(name for _, name in clouds))
    blocks = -(-len(names) // SCATTER_COLUMNS)
    rows, columns = blocks * len(numbers), min(len(names), SCATTER_COLUMNS)
    figure, axes = pyplot.subplots(rows, columns, figsize=(2.1 * columns, 2.0 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, name in enumerate(names):
        block, column = divmod(i, SCATTER_COLUMNS)
        for j, number in enumerate(numbers):
            exact, found = clouds[number, name]
            axis = axes[block * len(numbers) + j, column]
            axis.set_axis_on()
            axis.scatter(*exact[:, :2].T, s=4, color="0.75", linewidths=0)
            axis.scatter(*found[:, :2].T, s=3, color="tab:red", linewidths=0, alpha=0.5)
            axis.set(xlim=(-22, 22), ylim=(-22, 22), xticks=[], yticks=[])
            axis.set_title(name.replace(" + ", "\n") if j == 0 else "", fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
