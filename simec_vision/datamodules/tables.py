"""Tables in CSV files: what is known about images, as text or numbers."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simec_vision.datamodules.image_store import some
from simec_vision.items import UNKNOWN, InputError


def read_table(path: Path) -> dict[str, list[str]]:
    """Read a CSV file: column name → the text of each row, white space around it removed.

    Raises:
        InputError: naming the file and the row that has more or fewer cells than the header, or why it cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Expected a CSV table in {path}: {error}") from error
    if len(rows) < 2:
        raise InputError(f"Expected a CSV table with a header and at least one row in {path}, got {len(rows)} lines")
    header = rows[0][1]
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"Expected {len(header)} cells as in the header of {path}, got {len(row)} in line {line}")
    if len(set(header)) < len(header):
        raise InputError(f"Expected every column of {path} once, got {some(repeated(header))} twice")
    return dict(zip(header, map(list, zip(*(row for _, row in rows[1:]), strict=True)), strict=True))


def repeated(names: Sequence[str]) -> list[str]:
    """Give the names that come more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def numbers_or_text(values: Sequence[str]) -> NDArray:
    """Turn the cells of a column into numbers, NaN where unknown, if all known ones are; otherwise keep the text.

    ``inf`` is a number here, so that what measures by numbers refuses it by name instead of taking numbers as classes.
    """
    known = [value not in UNKNOWN for value in values]
    try:
        numbers = [float(value) if is_known else np.nan for value, is_known in zip(values, known, strict=True)]
    except ValueError:
        numbers = []
    if not any(known) or not numbers or any("_" in value for value in values):
        return np.array([value if is_known else "" for value, is_known in zip(values, known, strict=True)])
    return np.array(numbers, dtype=np.float64)
