"""Similarities that the user brought: matrices, sparse matrices and lists of pairs, read row by row."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.items import InputError, Items
from simec_vision.similarities.base import Similarity, TargetSimilarity

CHUNK = 1024
"""Rows of a matrix that are looked at together."""


def open_matrix(path: str | Path, num_rows: int) -> NDArray:
    """Memory-map a ``.npy`` matrix with one row an item.

    Raises:
        InputError: if the file is missing, is no ``.npy`` matrix of numbers, or has another number of rows.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"Expected a .npy matrix of numbers at {path}: {error}") from error
    if matrix.ndim != 2 or len(matrix) != num_rows:
        raise InputError(f"Expected {path} of shape (item, …) = ({num_rows}, …), got {matrix.shape}")
    return matrix


class Precomputed(Similarity):
    """Similarities that the user brought, NaN where unknown.

    Args:
        matrix: An array, a ``.npy`` file (memory-mapped), a scipy sparse matrix or its ``.npz`` file (what is not
            stored is unknown, a stored zero is a zero), of shape ``(item, item)`` or ``(item, reference)``.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`; raises :class:`InputError` for a matrix of another shape or all unknown."""
        matrix = _read_matrix(self.matrix, len(items))
        if matrix.shape[0] != len(items) or matrix.shape[1] not in (len(items), len(references)):
            raise InputError(
                f"Expected a similarity matrix of shape (item, item) = ({len(items)}, {len(items)}) or "
                f"(item, reference) = ({len(items)}, {len(references)}), got {tuple(matrix.shape)}. "
                "Its rows follow the items' order"
            )
        columns = references if matrix.shape[1] == len(items) else np.arange(len(references))
        target = _Precomputed(references, matrix, columns)
        if torch.isnan(target(target.references)).all() and not _any_known(matrix):
            raise InputError("Expected a similarity matrix with known values, but every one is NaN or absent")
        return target


def _any_known(matrix: Any) -> bool:
    """Look for one known value, some rows at a time."""
    if hasattr(matrix, "tocsr"):
        return bool(np.isfinite(matrix.data).any())
    return any(np.isfinite(matrix[start : start + CHUNK]).any() for start in range(0, len(matrix), CHUNK))


def _read_matrix(matrix: Any, num_rows: int) -> Any:
    """Open a matrix given as an array, a sparse matrix, or the path of either."""
    from scipy import sparse

    if sparse.issparse(matrix):
        return sparse.csr_array(matrix)
    if not isinstance(matrix, str | Path):
        return np.asarray(matrix)
    if Path(matrix).suffix != ".npz":
        return open_matrix(matrix, num_rows)
    try:
        return sparse.csr_array(sparse.load_npz(matrix))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Expected a scipy sparse matrix at {matrix}: {error}") from error


class _Precomputed(TargetSimilarity):
    def __init__(self, references: NDArray[np.int64], matrix: Any, columns: NDArray[np.int64]) -> None:
        super().__init__(references)
        self.matrix, self.columns = matrix, columns

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        chosen = self.columns[columns.cpu().numpy()]
        read = _sparse_rows if hasattr(self.matrix, "tocsr") else _dense_rows
        return torch.from_numpy(read(self.matrix, index.cpu().numpy(), chosen)).to(self.references.device)


def _dense_rows(matrix: NDArray, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(matrix[rows][:, columns], dtype=np.float32)


def _sparse_rows(matrix: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Fill the stored entries of some rows into unknowns; stored zeros stay zeros."""
    block = matrix[rows][:, columns].tocoo()
    dense = np.full(block.shape, np.nan, dtype=np.float32)
    dense[block.row, block.col] = block.data
    return dense


class PairList(Similarity):
    """Similarities of single pairs, as read from a CSV file ``a,b,similarity``; all other pairs are unknown.

    Args:
        pairs: A CSV file with the columns ``a``, ``b`` and ``similarity``, or the pairs as ``(name of a, name of b,
            similarity)``. Each counts in both directions, unless the list gives the other direction its own value.
    """

    def __init__(self, pairs: str | list[tuple[str, str, float]]) -> None:
        self.pairs = pairs

    def matrix(self, items: Items) -> Any:
        """Build the sparse item × item matrix.

        Raises:
            InputError: naming the row of an unknown item, a missing column or a value that is not a number.
        """
        from scipy import sparse

        pairs = read_pairs(self.pairs) if isinstance(self.pairs, str) else self.pairs
        a, b = items.positions([pair[0] for pair in pairs]), items.positions([pair[1] for pair in pairs])
        entries: dict[tuple[int, int], float] = {}
        for i, j, pair in zip(a.tolist(), b.tolist(), pairs, strict=True):
            if entries.setdefault((i, j), pair[2]) != pair[2]:
                raise InputError(
                    f"Expected one similarity of {pair[0]!r} and {pair[1]!r}, got {entries[i, j]} and {pair[2]}"
                )
        entries |= {(j, i): value for (i, j), value in entries.items() if (j, i) not in entries}
        rows, columns = np.array(list(entries), dtype=np.int64).T
        values = np.array(list(entries.values()), dtype=np.float32)
        return sparse.csr_array((values, (rows, columns)), shape=(len(items), len(items)))

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        return Precomputed(self.matrix(items)).bind(items, references)

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return np.diff(self.matrix(items).indptr) > 0


def read_pairs(path: str | Path) -> list[tuple[str, str, float]]:
    """Read a CSV file with the columns ``a``, ``b`` and ``similarity``.

    Raises:
        InputError: naming the file and the row or column that is wrong.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Expected a CSV file of pairs at {path}: {error}") from error
    missing = {"a", "b", "similarity"} - set(names)
    if missing:
        raise InputError(f"Expected the columns a, b, similarity in {path}, which has no {', '.join(sorted(missing))}")
    if not rows:
        raise InputError(f"Expected pairs in {path}, which has a header only")
    return [_pair(path, number, row) for number, row in enumerate(rows, start=2)]


def _pair(path: str | Path, number: int, row: dict[str, str]) -> tuple[str, str, float]:
    try:
        similarity = float(row["similarity"])
    except (TypeError, ValueError):
        similarity = float("nan")
    if not np.isfinite(similarity):
        raise InputError(
            f"Expected a number as similarity in {path}, row {number}, got {row['similarity']!r}; "
            "leave out a pair whose similarity is unknown"
        )
    return row["a"], row["b"], similarity
