"""Similarities that the user brought as a matrix or a sparse matrix, read row by row."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.items import InputError, Items, read_names
from simec_vision.similarities.base import CHUNK, Similarity, TargetSimilarity

# --- matrices and their files -----------------------------------------------------------------------------------------


def open_matrix(path: str | Path) -> NDArray:
    """Memory-map the matrix of numbers in a ``.npy`` file.

    Raises:
        InputError: if the file is missing or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            is_array = file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX
        matrix = np.load(path, mmap_mode="r", allow_pickle=False) if is_array else None
    except OSError as error:
        raise InputError(f"Expected a .npy matrix of numbers at {path}: {error}") from error
    except ValueError:  # damaged, or Python objects; numpy's own advice on these would mislead
        matrix = None
    if matrix is None:
        raise InputError(
            f"Expected a .npy matrix of numbers at {path}, got a file of another kind: numpy.save writes one; give a "
            "scipy sparse matrix as .npz"
        )
    return _numbers(matrix, path)


def _numbers(matrix: Any, source: object) -> Any:
    """Make sure that an array, dense or sparse, is a matrix of numbers."""
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise InputError(
            f"Expected a matrix (2 dimensions) of real numbers in {source}, got {matrix.ndim} dimensions of type "
            f"{matrix.dtype}"
        )
    return matrix


def read_matrix(matrix: Any) -> Any:
    """Open a matrix given as an array, a sparse matrix, or the path of either.

    Returns:
        A scipy sparse matrix by rows, or an array, which is memory-mapped if it came from a file.

    Raises:
        InputError: if it is none of these, or no matrix of numbers.
    """
    from scipy import sparse

    if isinstance(matrix, str | Path):
        return _open_sparse(matrix) if Path(matrix).suffix == ".npz" else open_matrix(matrix)
    if sparse.issparse(matrix):
        rows = sparse.csr_array(matrix, copy=True)
        rows.sum_duplicates()  # an entry that is stored twice counts as scipy counts it
        return _numbers(rows, "the given sparse matrix")
    try:
        array = matrix if isinstance(matrix, np.memmap) else np.asarray(matrix)
    except ValueError as error:
        raise InputError("Expected a matrix with rows of one length, got rows of different lengths") from error
    return _numbers(array, "the given matrix")


def _open_sparse(path: str | Path) -> Any:
    from scipy import sparse

    try:
        with open(path, "rb") as file:
            matrix = sparse.load_npz(file)
    except OSError as error:
        raise InputError(f"Expected a scipy sparse matrix at {path}: {error}") from error
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"Expected a scipy sparse matrix at {path}, got a file of another kind; scipy.sparse.save_npz writes one"
        ) from error
    return _numbers(sparse.csr_array(matrix), path)


def finite_rows(rows: NDArray, names: NDArray[np.str_], what: str) -> NDArray[np.float32]:
    """Convert rows of numbers to float32.

    Args:
        rows: Shape ``(batch, …)``, NaN where unknown.
        names: The items that the rows belong to, shape ``(batch,)``.
        what: What the numbers are, for the message.

    Raises:
        InputError: naming the first item that has an infinite number, or one too large.
    """
    with np.errstate(over="ignore"):
        numbers = np.asarray(rows, dtype=np.float32)
    infinite = np.flatnonzero(np.isinf(numbers).any(axis=1))
    if len(infinite):
        raise InputError(
            f"Expected finite {what} of item {str(names[infinite[0]])!r}, got an infinite one in its row: correct it, "
            "or write NaN where it is unknown"
        )
    return numbers


# --- the similarity ---------------------------------------------------------------------------------------------------


class Precomputed(Similarity):
    """Similarities that the user brought, NaN where unknown.

    Args:
        matrix: An array, a ``.npy`` file (memory-mapped), a scipy sparse matrix or its ``.npz`` file (what is not
            stored is unknown, a stored zero is a zero), of shape ``(item, item)``, or ``(item, column)`` where
            ``references`` is given. Its rows follow the items' order.
        references: Names of the items that the columns stand for, as a list or as a text file of one a line; default:
            the columns follow the items' order. References are chosen among them.
    """

    def __init__(self, matrix: Any, references: str | list[str] | None = None) -> None:
        self.matrix, self.references = matrix, references

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """Prepare the target similarities of these items to these references; see :meth:`Similarity.bind`.

        Raises:
            InputError: for a matrix of another shape, without a column for a reference, with an infinite value, or in
                which nothing is known of any reference. In a memory-mapped matrix, only the rows that are read are
                searched for infinite values.
        """
        matrix, owners = read_matrix(self.matrix), self._owners(items)
        if matrix.shape != (len(items), len(owners)):
            raise InputError(_other_shape(matrix, len(items), len(references if self.references is None else owners)))
        columns = _columns_of(references, owners, items)
        if not _known_columns(matrix)[columns].any():
            raise InputError(
                f"Expected known similarities to the {len(references)} references, but every one is NaN or absent: "
                "choose others"
            )
        _refuse_infinite(matrix, items.names)
        return _Precomputed(references, matrix, columns, items.names)

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`: whether anything is known in the column of an item.

        Raises:
            InputError: if nothing is known at all.
        """
        matrix, owners = read_matrix(self.matrix), self._owners(items)
        if matrix.shape != (len(items), len(owners)):
            return super().known(items)  # binding says what is wrong, in terms of the references
        known = np.zeros(len(items), dtype=bool)
        known[owners] = _known_columns(matrix)
        if not known.any():
            raise InputError("Expected a similarity matrix with known values, but every one is NaN or absent")
        return known

    def _owners(self, items: Items) -> NDArray[np.int64]:
        """Give the index of the item that each column stands for."""
        if self.references is None:
            return np.arange(len(items))
        names = read_names(self.references) if isinstance(self.references, str) else self.references
        source = self.references if isinstance(self.references, str) else "the matrix's references"
        owners = items.positions(names, [f"column {number} of {source}" for number in range(1, len(names) + 1)])
        if len(set(names)) < len(names):
            raise InputError(f"Expected every name once in {source}, got {len(set(names))} in {len(names)} columns")
        return owners


def _other_shape(matrix: Any, items: int, columns: int) -> str:
    return (
        f"Expected a similarity matrix of shape (item, item) = ({items}, {items}) or, with its columns named by "
        f"`references`, (item, reference) = ({items}, {columns}), got {tuple(matrix.shape)}. "
        "Its rows follow the items' order"
    )


def _columns_of(references: NDArray[np.int64], owners: NDArray[np.int64], items: Items) -> NDArray[np.int64]:
    """Find the column of each reference."""
    column = np.full(len(items), -1)
    column[owners] = np.arange(len(owners))
    missing = references[column[references] < 0]
    if len(missing):
        raise InputError(
            f"Expected references among the {len(owners)} items that the matrix's columns stand for, got "
            f"{str(items.names[missing[0]])!r} and {len(missing) - 1} others without a column: choose from those"
        )
    return column[references]


def _known_columns(matrix: Any) -> NDArray[np.bool_]:
    """Say for each column whether anything in it is known, looking at no more rows of a dense matrix than it takes."""
    if hasattr(matrix, "tocsr"):
        return np.bincount(matrix.indices[~np.isnan(matrix.data)], minlength=matrix.shape[1]) > 0
    known = np.zeros(matrix.shape[1], dtype=bool)
    for start in range(0, len(matrix), CHUNK):
        known |= ~np.isnan(matrix[start : start + CHUNK]).all(axis=0)
        if known.all():
            break
    return known


def _refuse_infinite(matrix: Any, names: NDArray[np.str_]) -> None:
    """Search a matrix in memory for infinite values; a memory-mapped one is searched as it is read."""
    if hasattr(matrix, "tocsr"):
        with np.errstate(over="ignore"):
            infinite = np.flatnonzero(np.isinf(matrix.data.astype(np.float32)))[:1]
        rows = np.searchsorted(matrix.indptr, infinite, "right") - 1
        finite_rows(matrix.data[infinite][:, None], names[rows], "similarities")
    elif not isinstance(matrix, np.memmap):
        for start in range(0, len(matrix), CHUNK):
            finite_rows(matrix[start : start + CHUNK], names[start : start + CHUNK], "similarities")


class _Precomputed(TargetSimilarity):
    def __init__(
        self, references: NDArray[np.int64], matrix: Any, columns: NDArray[np.int64], names: NDArray[np.str_]
    ) -> None:
        super().__init__(references)
        self.matrix, self.columns, self.names = matrix, columns, names

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        items, chosen = index.cpu().numpy(), self.columns[columns.cpu().numpy()]
        read = _sparse_rows if hasattr(self.matrix, "tocsr") else _dense_rows
        rows = finite_rows(read(self.matrix, items, chosen), self.names[items], "similarities")
        return torch.from_numpy(rows).to(self.references.device)

    def known_counts(self) -> Tensor | None:
        """See :meth:`TargetSimilarity.known_counts`; a sparse matrix says it by what it stores."""
        if not hasattr(self.matrix, "tocsr"):
            return super().known_counts()
        block = self.matrix[self.references.cpu().numpy()][:, self.columns].tocoo()
        counts = np.bincount(block.row[~np.isnan(block.data)], minlength=len(self))
        return torch.from_numpy(counts).to(self.references.device)


def _dense_rows(matrix: NDArray, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray:
    return matrix[rows][:, columns]


def _sparse_rows(matrix: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray:
    """Fill the stored entries of some rows into unknowns; stored zeros stay zeros."""
    block = matrix[rows][:, columns].tocoo()
    dense = np.full(block.shape, np.nan)
    dense[block.row, block.col] = block.data
    return dense
