"""Tables, figures and checks of an experiment's results."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.files import replacing

Means = dict[str, dict[int, tuple[float, float]]]
"""Row → column → mean and standard deviation over seeds."""


def means(lines: Sequence[Mapping[str, Any]], row: str, column: str, value: str, factor: float = 1.0) -> Means:
    """Average a value of lines over everything but a row's and a column's name; population standard deviation."""
    groups: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        groups.setdefault(line[row], {}).setdefault(line[column], []).append(factor * line[value])
    return {
        name: {key: (fmean(values), pstdev(values)) for key, values in sorted(columns.items())}
        for name, columns in groups.items()
    }


class Printed(float):
    """A number as it was printed, with ``digits`` after the point, zeros at the end included."""

    digits: int

    def __new__(cls, text: str) -> "Printed":
        """Read it."""
        number = super().__new__(cls, text)
        number.digits = max(0, -int(Decimal(text).as_tuple().exponent))
        return number


def original(name: str) -> dict[str, Any]:
    """Read numbers of the original that come with this package; those with a point as :class:`Printed`."""
    text = (files("simec_vision.experiments") / "original" / f"{name}.json").read_text()
    return json.loads(text, parse_float=Printed)


def original_means(labels: Sequence[int], table: Mapping[str, Mapping[str, Sequence[float]]]) -> Means:
    """Bring a table of the original, row → ``mean`` and ``std`` for each number of labels, into our form."""
    return {
        name: dict(zip(labels, zip(row["mean"], row["std"], strict=True), strict=True)) for name, row in table.items()
    }


@dataclass(frozen=True)
class Check:
    """A claim, and what was measured.

    Args:
        claim: In words.
        expected: What should come out.
        measured: What came out.
        ok: Whether it holds.
    """

    claim: str
    expected: str
    measured: str
    ok: bool

    def verdict(self) -> str:
        """Say in a line whether it holds."""
        return f"{'holds' if self.ok else 'FAILS'}: {self.claim}: {self.measured}"

    def told(self) -> dict[str, Any]:
        """Give it as ``summary.json`` has it."""
        return {"claim": self.claim, "expected": self.expected, "measured": self.measured, "ok": bool(self.ok)}


def repeats(ours: Means, theirs: Means, where: str = "") -> Iterator[Check]:
    """Check each accuracy against the original's: within 2 standard deviations (the larger of both), or 2 points."""
    for name, cells in ours.items():
        for count, (mean, std) in cells.items():
            if count in theirs.get(name, {}):
                other, other_std = theirs[name][count]
                within = max(2.0, 2 * max(std, other_std))
                claim = f"{where}{name} with {count} labels repeats the original"
                yield Check(claim, f"{other:.2f} ± {within:.2f}", f"{mean:.2f}", abs(mean - other) <= within)


def error(given: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean squared difference of all entries."""
    return float(np.mean((given - other) ** 2))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table; the first row is its head, the first column is aligned left, the others right."""
    head, *body = rows
    ruler = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *body)) + "\n"


def spread(value: tuple[float, float] | None, digits: int = 2) -> str:
    """Write mean ± standard deviation, or nothing."""
    return "" if value is None else f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def accuracy_rows(ours: Means, theirs: Means, columns: Sequence[int]) -> list[list[str]]:
    """Write a table of ways to pretrain by numbers of labels, the original's below ours where there are any."""
    rows = [["pretrained on", *map(str, columns)]]
    for name, cells in ours.items():
        rows.append([name, *(spread(cells.get(column)) for column in columns)])
        if name in theirs:
            rows.append(["  original", *(spread(theirs[name].get(column)) for column in columns)])
    return rows


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write lines as a table, a column each name; the file appears whole or not at all."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(lines)


def learning_curves(ours: Means, theirs: Means, path: Path, title: str, label: str = "test accuracy in %") -> None:
    """Draw accuracy by number of labels: our mean ± standard deviation, the original's mean as a thin line.

    Args:
        ours: Way to pretrain → number of labels → mean and standard deviation.
        theirs: The same of the original; rows that ours lack are left out.
        path: The PNG file; it appears whole or not at all.
        title: What stands above.
        label: What is measured.
    """
    from simec_vision.explain.charts import INK, new_figure, plain, save

    figure = new_figure(8.0, 4.6)
    axis = figure.subplots()
    for (name, cells), (colour, dashes) in zip(ours.items(), LINES * 3, strict=False):
        x = list(cells)
        mean, std = ([pair[part] for pair in cells.values()] for part in (0, 1))
        axis.plot(x, mean, color=colour, linestyle=dashes, linewidth=2, marker="o", markersize=3.5, label=name)
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        given = {count: pair[0] for count, pair in theirs.get(name, {}).items() if x[0] <= count <= x[-1]}
        axis.plot([*given], [*given.values()], color=colour, linestyle=dashes, linewidth=0.8)
    plain(axis, "y")
    axis.set_xscale("log")
    ticks = sorted({count for cells in ours.values() for count in cells})
    axis.set_xticks(ticks, [f"{count:,}" for count in ticks])
    axis.minorticks_off()
    axis.set_xlabel("labelled images", fontsize=9.5, color=INK)
    axis.set_ylabel(label, fontsize=9.5, color=INK)
    axis.set_title(title, fontsize=10.5, color=INK, loc="left")
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    save(figure, path)


COLOURS = ("#222222", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#0072B2", "#CC79A7")
LINES = [(colour, dashes) for dashes in ("-", "--") for colour in COLOURS]
"""Colour and dashes of each curve; the colour-blind can tell the colours apart (Okabe & Ito 2008)."""
