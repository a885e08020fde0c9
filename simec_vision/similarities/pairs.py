"""Similarities of single pairs, as people give them."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.items import InputError, Items
from simec_vision.similarities.base import Similarity, TargetSimilarity
from simec_vision.similarities.given import Precomputed

Pair = tuple[str, str, float, str]
"""Name of a, name of b, their similarity, and where that stands, such as ``row 3 of pairs.csv``."""


class PairList(Similarity):
    """Similarities of single pairs, as read from a CSV file ``a,b,similarity``; all other pairs are unknown.

    Args:
        pairs: A CSV file with the columns ``a``, ``b`` and ``similarity``, or the pairs as ``(name of a, name of b,
            similarity)``, and where wanted a fourth entry that says where each stands. Each counts in both directions,
            unless the list gives the other direction its own value.
    """

    def __init__(self, pairs: str | list[tuple[str, str, float]] | list[Pair]) -> None:
        self.pairs = pairs

    def matrix(self, items: Items) -> Any:
        """Build the sparse item × item matrix.

        Raises:
            InputError: naming the place of an unknown item, of a value that is no finite number, or of two pairs that
                contradict each other, or a missing column.
        """
        from scipy import sparse

        pairs = read_pairs(self.pairs) if isinstance(self.pairs, str) else _placed(self.pairs)
        names = [name for a, b, *_ in pairs for name in (a, b)]
        positions = items.positions(names, [place for *_, place in pairs for _ in range(2)]).reshape(-1, 2)
        entries = _entries(positions.tolist(), pairs)
        entries |= {(j, i): value for (i, j), value in entries.items() if (j, i) not in entries}
        rows, columns = np.array(list(entries), dtype=np.int64).T
        values = np.array(list(entries.values()))
        return sparse.csr_array((values, (rows, columns)), shape=(len(items), len(items)))

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        return Precomputed(self.matrix(items)).bind(items, references)

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return Precomputed(self.matrix(items)).known(items)


def _placed(pairs: Sequence[Any]) -> list[Pair]:
    """Say of each given pair where it stands, and check its similarity."""
    if not pairs:
        raise InputError("Expected at least one pair of items with their similarity, got none")
    placed = [pair if len(pair) == 4 else (*pair, f"pair {number}") for number, pair in enumerate(pairs, start=1)]
    return [(a, b, _similarity(value, place), place) for a, b, value, place in placed]


def _entries(positions: list[list[int]], pairs: list[Pair]) -> dict[tuple[int, int], float]:
    """Collect the similarity of each two items."""
    first: dict[tuple[int, int], Pair] = {}
    for (i, j), pair in zip(positions, pairs, strict=True):
        other = first.setdefault((i, j), pair)
        if other[2] != pair[2]:
            raise InputError(
                f"Expected one similarity of {pair[0]!r} and {pair[1]!r}, got {other[2]} and {pair[2]} "
                f"({other[3]} and {pair[3]}): keep one"
            )
    return {key: pair[2] for key, pair in first.items()}


def read_pairs(path: str | Path) -> list[Pair]:
    """Read a CSV file with the columns ``a``, ``b`` and ``similarity``.

    Raises:
        InputError: naming the file and the row or column that is wrong.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, names = [(f"row {reader.line_num} of {path}", row) for row in reader], reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Expected a CSV file of pairs at {path}: {error}") from error
    missing = {"a", "b", "similarity"} - set(names)
    if missing:
        raise InputError(f"Expected the columns a, b, similarity in {path}, which has no {', '.join(sorted(missing))}")
    if not rows:
        raise InputError(f"Expected pairs in {path}, which has a header only")
    return [_pair(place, row, len(names)) for place, row in rows]


def _pair(place: str, row: dict[str, str], columns: int) -> Pair:
    if None in row or None in row.values():
        got = "more" if None in row else f"{sum(cell is not None for cell in row.values())}"
        raise InputError(f"Expected {columns} cells in {place}, as in its header, got {got}")
    return row["a"], row["b"], _similarity(row["similarity"], place), place


def _similarity(value: Any, place: str) -> float:
    try:
        similarity = float(value)
    except (TypeError, ValueError):
        similarity = math.nan
    if not math.isfinite(similarity):
        raise InputError(
            f"Expected a finite number as similarity in {place}, got {value!r}; leave out a pair whose similarity is "
            "unknown"
        )
    return similarity
