"""What an experiment of tables found: tables beside the original's numbers, checks of its claims, figures."""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from types import MappingProxyType
from typing import Any

from simec_vision.cli.runs import write_text
from simec_vision.cli.sweep import check_choices
from simec_vision.experiments.cells import Cell, Line, made
from simec_vision.experiments.results import Check, markdown, original, write_csv
from simec_vision.experiments.study import open_study
from simec_vision.files import write_json
from simec_vision.items import InputError

Grid = dict[str, dict[str, tuple[float, float]]]
"""Row → column → mean and standard deviation over the seeds."""


@dataclass(frozen=True)
class Table:
    """How a table is shown.

    Args:
        name: Of its cells, and in the original's numbers.
        value: Which of a cell's values it shows.
        title: What stands above.
        columns: What varies along it.
        digits: Of each number, after the point.
    """

    name: str
    value: str
    title: str
    columns: str
    digits: int = 5


@dataclass(frozen=True)
class Found:
    """What came out, for claims and figures to look at.

    Args:
        lines: Of all cells.
        theirs: The original's numbers: table → value → row → column → number.
        folder: Where files go.
        cells: The cells, whose arrays :func:`simec_vision.experiments.cells.arrays_of` reads.
    """

    lines: Sequence[Line]
    theirs: Mapping[str, Any]
    folder: Path
    cells: Sequence[Cell]

    def grid(self, table: str, value: str) -> Grid:
        """Average a value of a table over the seeds; population standard deviation."""
        groups: dict[str, dict[str, list[float]]] = {}
        for line in self.lines:
            if line["table"] == table and value in line["values"]:
                groups.setdefault(line["row"], {}).setdefault(line["column"], []).append(line["values"][value])
        return {
            row: {column: (fmean(values), _spread(values)) for column, values in columns.items()}
            for row, columns in groups.items()
        }

    def original(self, table: str, value: str) -> dict[str, dict[str, float]]:
        """Give the original's numbers of a table, row → column → number; empty where it has none."""
        return self.theirs.get(table, {}).get(value, {})

    def cell(self, table: str, row: str, column: str, value: str) -> float | None:
        """Give the mean of one cell, or None where it was not made."""
        found = self.grid(table, value).get(row, {}).get(column)
        return None if found is None else found[0]


def _spread(values: Sequence[float]) -> float:
    return pstdev(values) if all(map(math.isfinite, values)) else math.nan


def run_experiment(
    name: str,
    cells: Sequence[Cell],
    tables: Sequence[Table],
    claims: Callable[[Found], Iterator[Check]],
    figures: Callable[[Found], None],
    config: str,
    processes: int,
    out: str | None,
    comparable: bool = True,
) -> None:
    """Make an experiment's cells, and write ``cells.jsonl``, ``table.md``, ``table.csv``, ``summary.json``, figures.

    Args:
        name: The experiment, which names its folder and the original's numbers.
        cells: What is made.
        tables: What is shown of it.
        claims: Gives checks.
        figures: Draws into the folder.
        config: All options as YAML.
        processes: Cells at once.
        out: Folder, new, empty or of the same experiment; default: the first such of ``runs/NAME``,
            ``runs/NAME-2``, …
        comparable: Whether the data are the original's, so that its numbers stand beside ours.

    Raises:
        InputError: if there is nothing to make, or seeds are none, negative or named twice; or from a cell.
    """
    _check(cells, config, processes)
    folder = open_study(out, name, config)
    print(f"Experiment {name} in {folder}: {len(cells)} cells", flush=True)
    lines = made(cells, folder, processes)
    found = Found(lines, original(name)["tables"] if comparable else {}, folder, cells)
    shown = [text for table in tables if (text := _shown(table, found))]
    checks = [*claims(found)]
    figures(found)
    write_text(folder / "table.md", "\n".join(shown))
    write_csv(folder / "table.csv", [_flat(line) for line in lines])
    seconds = round(sum(line["seconds"] for line in lines), 1)
    write_json(
        folder / "summary.json", {"checks": [check.told() for check in checks], "cells": len(lines), "seconds": seconds}
    )
    print("\n".join([*shown, *(check.verdict() for check in checks), f"Saved {folder}"]))


def _check(cells: Sequence[Cell], config: str, processes: int) -> None:
    """Make sure that there is something to make, before a folder is."""
    import yaml

    seeds = (yaml.safe_load(config) or {}).get("seeds")
    if seeds is not None:
        check_choices({"seeds": seeds}, processes)
    if wrong := [seed for seed in seeds or [] if seed < 0]:
        raise InputError(f"Expected seeds from 0 on, got {wrong[0]}")
    if not cells:
        raise InputError("Expected cells to make, but these options leave none: name other parts, or leave out --quick")


def _flat(line: Line) -> dict[str, Any]:
    named = {name: line[name] for name in ("table", "row", "column", "seed")}
    return {**named, **line["values"], "seconds": line["seconds"]}


def _shown(table: Table, found: Found) -> str:
    """Write a table as Markdown, the original's row below each of ours; empty where there is none of its cells."""
    ours, theirs = found.grid(table.name, table.value), found.original(table.name, table.value)
    columns = list(dict.fromkeys(column for cells in ours.values() for column in cells))
    rows = [[table.columns, *columns]]
    for name, cells in ours.items():
        rows.append([name, *(_number(cells.get(column), table.digits) for column in columns)])
        if name in theirs:
            known = theirs[name]
            rows.append(["  original", *(_printed(known.get(column), table) for column in columns)])
    return f"{table.title}\n\n{markdown(rows)}" if ours else ""


def _number(value: tuple[float, float] | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value[0]:.{digits}f}" + (f" ± {value[1]:.{digits}f}" if value[1] else "")


def _printed(number: float | None, table: Table) -> str:
    """Write a number of the original with the digits that it has there, as far as the table shows them."""
    return "" if number is None else f"{number:.{min(table.digits, _digits(number, table))}f}"


def _digits(number: float, table: Table) -> int:
    return getattr(number, "digits", table.digits)


UNIT = 0.6
"""Of the last digit that the original shows: how far off a number that involves no chance may be. Half a unit is lost
by rounding; the rest is for sums in another order."""


def exactly(
    found: Found,
    table: Table,
    rows: Sequence[str],
    share: float = 0.0,
    others: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[Check]:
    """Check, a row each, that deterministic numbers are the original's, each to the digits that it was printed with.

    Args:
        found: What came out.
        table: Of which table; its digits stand for those of whole numbers.
        rows: Which rows.
        share: How far off relative to the number is fine beside that.
        others: Columns → another share; such columns are judged on their own.
    """
    columns = found.original(table.name, table.value)
    for part in dict.fromkeys((share, *others.values())):
        judged = {column for row in rows for column in columns.get(row, {}) if others.get(column, share) == part}
        yield from _near(found, table, rows, part, judged)


def _near(found: Found, table: Table, rows: Sequence[str], share: float, judged: Container[str]) -> Iterator[Check]:
    def fine(theirs: float) -> float:
        return UNIT * 10.0 ** -_digits(theirs, table) + share * abs(theirs)

    for row, column, ours, theirs in _worst(found, table, rows, lambda a, b: abs(a - b) / fine(b), judged):
        digits, how = _digits(theirs, table), f"up to {100 * share:g} %" if share else "to the digits shown"
        told = f"worst {ours:.{digits}f} against {theirs:.{digits}f} ({column})"
        claim = f"{table.title}: {row} is the original's number {how}"
        yield Check(claim, f"at most {fine(theirs):.2g} apart", told, abs(ours - theirs) <= fine(theirs))


def reached(found: Found, table: Table, rows: Sequence[str], share: float = 0.1, more: bool = False) -> Iterator[Check]:
    """Check, a row each, that errors are at most a tenth above the original's (or scores at most a tenth below).

    Args:
        found: What came out.
        table: Of which table.
        rows: Which rows.
        share: How much above, relative to the original.
        more: Whether more is better.
    """
    sign = -1 if more else 1
    for row, column, ours, theirs in _worst(found, table, rows, lambda a, b: sign * (a - b) / max(abs(b), 1e-12)):
        limit = theirs * (1 + sign * share)
        claim = f"{table.title}: {row} reaches the original's number, up to {share:.0%}"
        told = f"worst {ours:.{table.digits}f} against {theirs:.{table.digits}f} ({column})"
        expected = f"at {'least' if more else 'most'} {limit:.{table.digits}f}"
        yield Check(claim, expected, told, sign * ours <= sign * limit)


def _worst(
    found: Found,
    table: Table,
    rows: Sequence[str],
    gap: Callable[[float, float], float],
    judged: Container[str] | None = None,
) -> Iterator[tuple[str, str, float, float]]:
    """Give of each row the column where ours is farthest off, or not a number, with ours and the original's number.

    Args:
        found: What came out.
        table: Of which table.
        rows: Which rows.
        gap: Says how far ours is from the original's, in units of what is fine, so that no column hides another.
        judged: Which columns; default: all.
    """
    ours, theirs = found.grid(table.name, table.value), found.original(table.name, table.value)
    for row in rows:
        columns = [c for c in theirs.get(row, {}) if c in ours.get(row, {}) and (judged is None or c in judged)]
        both = [(column, ours[row][column][0], theirs[row][column]) for column in columns]
        if both:
            yield (row, *max(both, key=lambda each: (math.isnan(each[1]), gap(each[1], each[2]))))
