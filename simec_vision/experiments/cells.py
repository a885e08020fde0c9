"""Experiments whose results are tables: each cell is made on its own, several at once, and a stopped one goes on."""

import json
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.cli.runs import write_text
from simec_vision.cli.sweep import workers
from simec_vision.files import replacing
from simec_vision.items import InputError

Line = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        table: The table's name.
        row: Which method.
        column: What is varied, such as the length of an embedding.
        make: A function of a module, called with ``seed`` and the options, maybe in another process; gives name →
            number, or array, which figures need.
        options: What it is called with; JSON can write them.
        seed: Of all that is random in it; the same method with other seeds is the same cell, averaged.
    """

    table: str
    row: str
    column: str
    make: Callable[..., Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def told(self) -> Line:
        """Give what tells it from others, as its line has it."""
        made_by = f"{self.make.__module__.rpartition('.')[2]}.{self.make.__qualname__}"
        which = {"table": self.table, "row": self.row, "column": self.column, "seed": self.seed, "made_by": made_by}
        return json.loads(json.dumps({**which, "options": dict(self.options)}))

    @property
    def name(self) -> str:
        """What its file of arrays is called."""
        words = (self.table, self.row, self.column, str(self.seed))
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", word) for word in words)


def made(cells: Sequence[Cell], folder: Path, processes: int = 1) -> list[Line]:
    """Make the cells that are not yet made, and give their lines.

    ``cells.jsonl`` has a line for each that is done: what it is, ``values``, ``seconds`` and, where it gave any, its
    file of ``arrays`` in ``arrays/``, from where :func:`arrays_of` reads them. A cell whose file is gone is made again,
    unless its line is of a version that did not name it.

    Args:
        cells: The cells; each has its own table, row, column and seed.
        folder: Where files go, and where an interrupted run of the same experiment has left its own.
        processes: Cells that are made at once, each with its share of the processor's threads; with 1, they are made
            one after the other in this process.

    Returns:
        Their lines, in their order.

    Raises:
        InputError: if a cell says so, or if there is no process to make them.
    """
    if processes < 1:
        raise InputError(f"Expected at least one process, got {processes}")
    path = folder / "cells.jsonl"
    kept = _read(path)
    keys = [_key(cell.told()) for cell in cells]
    todo = [cell for cell, key in zip(cells, keys, strict=True) if not _done(kept.get(key), folder)]
    if todo:
        with closing(_lines(todo, folder, processes)) as lines:
            for done, line in enumerate(lines, len(cells) - len(todo) + 1):
                kept = {**_read(path), **kept, _key(line): line}  # those of another run in this folder, too
                write_text(path, "".join(json.dumps(line) + "\n" for line in _ordered(keys, kept)))
                print(_progress(line, done, len(cells)), flush=True)
    return [kept[key] for key in keys]


def arrays_of(cell: Cell, folder: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays that a cell gave; empty if there were none."""
    path = folder / "arrays" / f"{cell.name}.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _lines(cells: Sequence[Cell], folder: Path, processes: int) -> Generator[Line, None, None]:
    """Make cells and give the line of each as soon as it is done."""
    if processes == 1:  # to start one takes as long as many a cell
        yield from (_make(cell, folder) for cell in cells)
        return
    with workers(processes) as pool:
        for future in as_completed([pool.submit(_make, cell, folder) for cell in cells]):
            yield future.result()


def _make(cell: Cell, folder: Path) -> Line:
    started = time.perf_counter()
    given = cell.make(seed=cell.seed, **cell.options)
    seconds = round(time.perf_counter() - started, 3)
    arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray) and value.ndim}
    if arrays:
        with replacing(folder / "arrays" / f"{cell.name}.npz") as partial:
            np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]  # NumPy's signature
    values = {name: float(value) for name, value in given.items() if name not in arrays}
    line = {**cell.told(), "values": values, "seconds": seconds}
    return line | {"arrays": f"{cell.name}.npz"} if arrays else line


def _key(line: Line) -> str:
    return json.dumps([line[name] for name in ("table", "row", "column", "seed", "made_by", "options")], sort_keys=True)


def _read(path: Path) -> dict[str, Line]:
    lines = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    return {_key(line): line for line in lines}


def _done(line: Line | None, folder: Path) -> bool:
    """Tell whether a cell has been made and its arrays, if it gave any, are still there."""
    return line is not None and (not line.get("arrays") or (folder / "arrays" / line["arrays"]).is_file())


def _ordered(keys: Sequence[str], kept: Mapping[str, Line]) -> list[Line]:
    """Give the lines of these keys in their order, then those of earlier runs with other cells."""
    ours = [kept[key] for key in keys if key in kept]
    return ours + [line for key, line in kept.items() if key not in set(keys)]


def _progress(line: Line, done: int, count: int) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in line["values"].items())
    return f"[{done}/{count}] {line['table']}, {line['row']}, {line['column']}: {values} ({line['seconds']:.1f} s)"
