"""Target similarities given as arrays: what the user may give, and how training reads them."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from simec_vision.items import InputError
from simec_vision.similarities.base import TargetSimilarity

Form = Literal["vector", "matrix", "stack", "named"]
"""What the user gave: one reference, one similarity, several in one array, or several by name."""

ONE = "similarity"
"""Name of the head of the only similarity."""

ASYMMETRY = 1e-4
"""How far, relative to the largest similarity, the references' own similarities may be from symmetric."""

PAIRS = 10
"""Pairs of references known both ways, or all that there are, from which symmetry is told."""


class GivenTargets(TargetSimilarity):
    """Similarities in memory, dense.

    Args:
        matrix: Shape ``(item, reference)``, NaN where unknown.
        own: The references' own similarities, shape ``(reference, reference)``, where they are needed.
    """

    def __init__(self, matrix: Tensor, own: Tensor | None) -> None:
        super().__init__(np.arange(matrix.shape[1]))
        self._fixed("matrix", matrix)
        self._fixed("own", own)  # type: ignore[arg-type]
        self.complete = not any(part.isnan().any() for part in (matrix, own) if part is not None)

    matrix: Tensor
    own: Tensor

    def forward(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        """See :meth:`TargetSimilarity.forward`."""
        return self.matrix.index_select(0, index) if columns is None else self.rows(index, columns)

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        """See :meth:`TargetSimilarity.rows`."""
        return self.matrix.index_select(0, index).index_select(1, columns)

    def gram(self, columns: Tensor | None = None) -> Tensor:
        """See :meth:`TargetSimilarity.gram`."""
        return self.own if columns is None else self.own.index_select(0, columns).index_select(1, columns)

    def known_counts(self) -> Tensor:
        """See :meth:`TargetSimilarity.known_counts`."""
        return (~self.own.isnan()).sum(dim=1)


class SparseTargets(GivenTargets):
    """Similarities in memory of which only the known ones are stored.

    Args:
        matrix: A scipy sparse matrix by rows, shape ``(item, reference)``; a stored zero is a known zero.
        own: As in :class:`GivenTargets`.
    """

    starts: Tensor
    places: Tensor

    def __init__(self, matrix: Any, own: Tensor | None) -> None:
        super().__init__(torch.empty(0, matrix.shape[1]), own)
        self._fixed("starts", torch.from_numpy(matrix.indptr.astype(np.int64)))
        self._fixed("places", torch.from_numpy(matrix.indices.astype(np.int64)))
        self._fixed("values", torch.from_numpy(matrix.data))
        self.complete = False

    values: Tensor

    def forward(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        """See :meth:`TargetSimilarity.forward`."""
        first, counts = self.starts[index], self.starts[index + 1] - self.starts[index]
        row = torch.repeat_interleave(torch.arange(len(index), device=index.device), counts)
        stored = torch.arange(len(row), device=index.device) + (first - counts.cumsum(0) + counts)[row]
        dense = self.values.new_full((len(index), len(self)), float("nan"))
        dense[row, self.places[stored]] = self.values[stored]
        return dense if columns is None else dense[:, columns]

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        """See :meth:`TargetSimilarity.rows`."""
        return self(index, columns)


def read_similarities(given: Any, items: int | None) -> tuple[dict[str, Any], Form]:
    """Read target similarities in any of the forms that may be given.

    Args:
        given: An array of shape ``(item,)``, ``(item, reference)`` or ``(item, reference, similarity)``, NaN where
            unknown; a scipy sparse matrix ``(item, reference)``, which stores what is known; or a dict name → matrix.
        items: How many items there are.

    Returns:
        Head name → matrix ``(item, reference)``, float32, dense or sparse by rows; and the form.

    Raises:
        InputError: for anything else, another number of items, or values that are not finite in float32.
    """
    if given is None:
        raise InputError("This estimator requires y to be passed, but the target y is None: give target similarities")
    parts, form = _parts(given)
    matrices = {name: _matrix(part, name, items) for name, part in parts.items()}
    for name, matrix in matrices.items():
        if not len(known := matrix.data if hasattr(matrix, "tocsr") else matrix[~np.isnan(matrix)]):
            raise InputError(f"Expected known target similarities{_of(name)}, got none: every entry is NaN or absent")
        if not np.isfinite(known[~np.isnan(known)]).all():
            raise InputError(f"Expected finite target similarities{_of(name)}, got infinity: write NaN where unknown")
    return matrices, form


def _parts(given: Any) -> tuple[dict[str, Any], Form]:
    if isinstance(given, Mapping):
        if not given:
            raise InputError("Expected target similarities by name, got an empty dict")
        return {str(name): part for name, part in given.items()}, "named"
    if hasattr(given, "tocsr"):
        return {ONE: given}, "matrix"
    array = np.asarray(given)
    if array.ndim == 3 and array.shape[2]:
        return {f"{ONE}_{number}": array[:, :, number] for number in range(array.shape[2])}, "stack"
    if array.ndim not in (1, 2):
        raise InputError(f"Expected target similarities of 1, 2 or 3 dimensions, got shape {array.shape}")
    return ({ONE: array}, "matrix") if array.ndim == 2 else ({ONE: array[:, None]}, "vector")


def _of(name: str) -> str:
    return "" if name == ONE else f" of {name!r}"


def _matrix(part: Any, name: str, items: int | None) -> Any:
    from scipy import sparse

    try:
        with np.errstate(over="ignore"):
            if sparse.issparse(part):
                matrix = sparse.csr_array(part).astype(np.float32)
                matrix.sum_duplicates()
            else:
                matrix = np.ascontiguousarray(np.asarray(part), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"Expected target similarities{_of(name)} that are numbers: {error}") from error
    if matrix.ndim != 2 or (items is not None and matrix.shape[0] != items) or not matrix.shape[1]:
        raise InputError(
            f"Expected target similarities{_of(name)} of shape (item, reference) = ({items}, at least 1), got "
            f"{matrix.shape}: a row for each row of X"
        )
    return matrix


def own_similarities(matrix: Any) -> np.ndarray | None:
    """Take the references' own similarities from the first rows, if the references can be the first items.

    Args:
        matrix: Target similarities ``(item, reference)``, dense or sparse.

    Returns:
        The first rows ``(reference, reference)``, NaN where unknown; None where there are too few rows, one reference
        only, or where these rows are not symmetric, so that the references are other items. So few pairs known both
        ways that they might agree by chance are no symmetry.
    """
    items, references = matrix.shape
    if not 1 < references <= items:
        return None
    block = matrix[:references]
    own = filled(block) if hasattr(block, "tocsr") else block
    gaps = np.abs(own - own.T)
    told = np.isfinite(gaps)
    if not told.any():
        return None
    scale, known = np.nanmax(np.abs(own)), np.isfinite(own).sum() - np.isfinite(own.diagonal()).sum()
    both_ways = told.sum() - told.diagonal().sum()
    # Where all that is known is alike, such as links alone, only that it is known both ways tells.
    alike = np.ptp(own[told]) <= ASYMMETRY * scale
    least = 0.9 * known if alike else min(2 * PAIRS, references * (references - 1))
    return own if scale > 0 and both_ways >= max(least, 1) and not (gaps > ASYMMETRY * scale).any() else None


def filled(matrix: Any) -> np.ndarray:
    """Make a sparse matrix dense, NaN where nothing is stored."""
    entries = matrix.tocoo()
    dense = np.full(matrix.shape, np.nan, dtype=np.float32)
    dense[entries.row, entries.col] = entries.data
    return dense


def check_own(own: Any, references: int, name: str) -> np.ndarray:
    """Check the references' own similarities that the user gave.

    Raises:
        InputError: for another shape, or infinity.
    """
    gram = filled(own) if hasattr(own, "tocsr") else np.asarray(own, dtype=np.float32)
    if gram.shape != (references, references) or np.isinf(gram).any():
        fold = gram.ndim == 2 and gram.shape[1] == references > len(gram)
        hint = f". Where cross-validation takes it apart as it does X, give {{{name!r}: gram}}" if fold else ""
        raise InputError(
            f"Expected gram{_of(name)} as finite numbers of shape (reference, reference) = ({references}, "
            f"{references}), got {gram.shape}{hint}"
        )
    return gram


def bound(matrix: Any, own: Tensor | None) -> TargetSimilarity:
    """Make the module that training reads."""
    return SparseTargets(matrix, own) if hasattr(matrix, "tocsr") else GivenTargets(torch.from_numpy(matrix), own)
