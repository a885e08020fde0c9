"""What similar means: rules that give the target similarities of any items to the references, a batch at a time.

A :class:`Similarity` is a description (``AttributeDistance("HeelHeight")``). Bound to items and references it becomes
a :class:`TargetSimilarity`, a module that computes the rows of a batch on its device. No items × references matrix is
ever built; only one that the user brought is read, row by row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.items import InputError, Items, nearest

CHUNK = 1024
"""Rows of references that are looked at together when statistics over the references are taken."""


class TargetSimilarity(nn.Module, ABC):
    """Give target similarities of items to the references, NaN where unknown.

    Args:
        references: Index of each reference among the items, shape ``(reference,)``.
    """

    references: Tensor

    def __init__(self, references: NDArray[np.int64]) -> None:
        super().__init__()
        self._fixed("references", torch.as_tensor(references, dtype=torch.long))

    def _fixed(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor that follows the module to its device but is no part of a checkpoint."""
        self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return len(self.references)

    @abstractmethod
    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        """Compute the similarities of items ``index`` to the references at positions ``columns``."""

    def forward(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        """Give the target similarities of some items.

        Args:
            index: Which items, shape ``(batch,)``.
            columns: Positions among the references, shape ``(column,)``; default: all.

        Returns:
            Shape ``(batch, column)``, float32, NaN where unknown.
        """
        if columns is None:
            columns = torch.arange(len(self), device=self.references.device)
        return self.rows(index, columns)

    def gram(self, columns: Tensor | None = None) -> Tensor:
        """Give the references' own similarities, shape ``(column, column)``."""
        chosen = self.references if columns is None else self.references[columns]
        return self(chosen, columns)


class Similarity(ABC):
    """Describe what similar means; :meth:`bind` makes it computable."""

    @abstractmethod
    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """Prepare the target similarities of these items to these references.

        Args:
            items: The items and their attributes.
            references: Index of each reference among the items, shape ``(reference,)``.
        """

    def known(self, items: Items) -> NDArray[np.bool_]:
        """Say for each item whether its similarities can be known at all, shape ``(item,)``."""
        return np.ones(len(items), dtype=bool)


class SameClass(Similarity):
    """Similarity 1 between items of the same class and 0 otherwise; unknown where a class is unknown.

    Args:
        attribute: The categorical attribute that is compared.
    """

    def __init__(self, attribute: str = "label") -> None:
        self.attribute = attribute

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        return _SameClass(references, torch.from_numpy(items.classes(self.attribute)[0]))

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return items.classes(self.attribute)[0] >= 0


class _SameClass(TargetSimilarity):
    labels: Tensor

    def __init__(self, references: NDArray[np.int64], labels: Tensor) -> None:
        super().__init__(references)
        self._fixed("labels", labels)

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        mine, theirs = self.labels[index][:, None], self.labels[self.references[columns]][None]
        same = (mine == theirs).float()
        return same.masked_fill((mine < 0) | (theirs < 0), torch.nan)


class AttributeDistance(Similarity):
    """Similarity 1 − |a − b| / range of a numeric attribute.

    Args:
        attribute: The numeric attribute that is compared.
        range: Distance at which the similarity is 0; default: largest minus smallest known value of all items.
    """

    def __init__(self, attribute: str, range: float | None = None) -> None:
        self.attribute = attribute
        self.range = range

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`; raises :class:`InputError` for a constant attribute."""
        values = items.numbers(self.attribute)
        extent = self.range or float(np.nanmax(values) - np.nanmin(values)) if np.isfinite(values).any() else 0.0
        if not extent > 0:
            raise InputError(f"Expected attribute {self.attribute!r} to vary between items, but it has one value only")
        return _AttributeDistance(references, torch.from_numpy(values / extent).float())

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return np.isfinite(items.numbers(self.attribute))


class _AttributeDistance(TargetSimilarity):
    values: Tensor

    def __init__(self, references: NDArray[np.int64], values: Tensor) -> None:
        super().__init__(references)
        self._fixed("values", values)

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        return 1 - (self.values[index][:, None] - self.values[self.references[columns]][None]).abs()


OVERLAPS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "simpson": lambda both, a, b: both / torch.minimum(a, b),
    "jaccard": lambda both, a, b: both / (a + b - both),
    "dice": lambda both, a, b: 2 * both / (a + b),
}
"""Overlap coefficients from |A∩B|, |A| and |B|."""


class SetOverlap(Similarity):
    """Overlap of two sets: Simpson |A∩B| / min(|A|, |B|), Jaccard |A∩B| / |A∪B| or Dice 2 |A∩B| / (|A| + |B|).

    An empty set is an unknown one.

    Args:
        attribute: The set-valued attribute that is compared, its members written ``Buckle;Ankle Strap``.
        coefficient: ``simpson``, ``jaccard`` or ``dice``.
    """

    def __init__(self, attribute: str, coefficient: Literal["simpson", "jaccard", "dice"] = "simpson") -> None:
        if coefficient not in OVERLAPS:
            raise InputError(f"Expected an overlap coefficient, got {coefficient!r}: {nearest(coefficient, [*OVERLAPS])}")
        self.attribute = attribute
        self.coefficient = coefficient

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        membership = torch.from_numpy(items.sets(self.attribute)[0])
        return _SetOverlap(references, membership, OVERLAPS[self.coefficient])

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return items.sets(self.attribute)[0].any(axis=1)


class _SetOverlap(TargetSimilarity):
    membership: Tensor

    def __init__(
        self, references: NDArray[np.int64], membership: Tensor, overlap: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__(references)
        self._fixed("membership", membership)
        self.overlap = overlap

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        mine, theirs = self.membership[index], self.membership[self.references[columns]]
        a, b = mine.sum(dim=1)[:, None], theirs.sum(dim=1)[None]
        with torch.autocast(mine.device.type, enabled=False):
            both = mine @ theirs.T
        return self.overlap(both, a, b).masked_fill((a == 0) | (b == 0), torch.nan)


KERNELS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linear": lambda a, b, gamma: a @ b.T,
    "rbf": lambda a, b, gamma: torch.exp(-gamma * torch.cdist(a, b) ** 2),
    "cosine": lambda a, b, gamma: nn.functional.normalize(a) @ nn.functional.normalize(b).T,
}
"""Kernels of two feature matrices ``(batch, feature)`` and ``(reference, feature)``."""


class Kernel(Similarity):
    """A kernel on pixels or on the rows of a features file.

    Centring and scaling take their statistics over the references' own block, so that training and held-out items are
    treated alike: centred k̃_ij = k_ij − mean_j' k_ij' − mean_i' k_i'j + mean k, scaled (k − min) / (max − min).

    Args:
        kind: ``linear`` a·b, ``rbf`` exp(−gamma |a − b|²) or ``cosine`` a·b / (|a| |b|).
        features: ``pixels``, or a ``.npy`` file of shape ``(item, feature)``, which is read row by row.
        gamma: Width of the RBF kernel; default: 1 / number of features.
        centre: Centre the kernel over the references.
        scale: Scale the kernel to [0, 1] over the references.
    """

    def __init__(
        self,
        kind: Literal["linear", "rbf", "cosine"] = "linear",
        features: str = "pixels",
        gamma: float | None = None,
        centre: bool = False,
        scale: bool = False,
    ) -> None:
        if kind not in KERNELS:
            raise InputError(f"Expected a kernel, got {kind!r}: {nearest(kind, [*KERNELS])}")
        self.kind, self.features, self.gamma, self.centre, self.scale = kind, features, gamma, centre, scale

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        target = _Kernel(references, _feature_rows(self.features, items), KERNELS[self.kind], self.gamma)
        if self.centre:
            target.centre()
        if self.scale:
            target.scale()
        return target


def _feature_rows(features: str, items: Items) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Give a function from item indices to their features."""
    if features != "pixels":
        matrix = open_matrix(features, len(items))
        return lambda index: np.asarray(matrix[index], dtype=np.float32)
    if items.pixels is None:
        raise InputError("Expected items with pixels for a kernel on pixels; give a features file instead")
    return items.pixels


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


class _Kernel(TargetSimilarity):
    reference_features: Tensor
    column_mean: Tensor
    offset: Tensor
    factor: Tensor

    def __init__(
        self,
        references: NDArray[np.int64],
        features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        kernel: Callable[[Tensor, Tensor, float], Tensor],
        gamma: float | None,
    ) -> None:
        super().__init__(references)
        self.features, self.kernel, self.centred = features, kernel, False
        self._fixed("reference_features", torch.from_numpy(features(references)))
        self.gamma = gamma if gamma is not None else 1 / self.reference_features.shape[1]
        self._fixed("column_mean", torch.zeros(len(references)))
        self._fixed("offset", torch.zeros(()))
        self._fixed("factor", torch.ones(()))

    def _all_rows(self, index: Tensor) -> Tensor:
        features = torch.from_numpy(self.features(index.cpu().numpy())).to(self.reference_features)
        with torch.autocast(features.device.type, enabled=False):
            kernel = self.kernel(features, self.reference_features, self.gamma)
        if self.centred:
            kernel = kernel - kernel.mean(dim=1, keepdim=True) - self.column_mean + self.column_mean.mean()
        return (kernel - self.offset) * self.factor

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        rows = self._all_rows(index)
        return rows if len(columns) == len(self) else rows[:, columns]

    def centre(self) -> None:
        """Take the column means over the references' own block; from now on rows are centred."""
        sums = [self._all_rows(chunk).double().sum(dim=0) for chunk in self.references.split(CHUNK)]
        self.column_mean = (torch.stack(sums).sum(dim=0) / len(self)).float()
        self.centred = True

    def scale(self) -> None:
        """Take the extremes over the references' own block; from now on that block spans [0, 1]."""
        extremes = [torch.stack(self._all_rows(chunk).aminmax()) for chunk in self.references.split(CHUNK)]
        low, high = torch.stack(extremes)[:, 0].min(), torch.stack(extremes)[:, 1].max()
        self.offset, self.factor = low, 1 / (high - low)


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
                f"Expected a similarity matrix of shape (item, item) = ({len(items)}, {len(items)}) or (item, reference)"
                f" = ({len(items)}, {len(references)}), got {tuple(matrix.shape)}. Its rows follow the items' order"
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
        pairs: The pairs as ``(name of a, name of b, similarity)``; each counts in both directions.
        column: Where the pairs come from, when the data source read them itself (see ``ImageTable``).
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
        entries = {**dict(zip(zip(a, b, strict=True), pairs, strict=True))}
        entries |= {(j, i): pair for (i, j), pair in entries.items() if (j, i) not in entries}
        rows, columns = np.array(list(entries), dtype=np.int64).T
        values = np.array([pair[2] for pair in entries.values()], dtype=np.float32)
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
    import csv

    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected a CSV file of pairs at {path}: {error}") from error
    missing = {"a", "b", "similarity"} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"Expected the columns a, b, similarity in {path}, which has no {', '.join(sorted(missing))}")
    return [_pair(path, number, row) for number, row in enumerate(rows, start=2)]


def _pair(path: str | Path, number: int, row: dict[str, str]) -> tuple[str, str, float]:
    try:
        return row["a"], row["b"], float(row["similarity"])
    except (TypeError, ValueError):
        raise InputError(f"Expected a number as similarity in {path}, row {number}, got {row['similarity']!r}") from None


class WeightedSum(Similarity):
    """Weighted sum Σ_k w_k s_k of similarities; unknown where any part is unknown.

    Args:
        similarities: The parts.
        weights: One weight a part.
    """

    def __init__(self, similarities: list[Similarity], weights: list[float]) -> None:
        if len(similarities) != len(weights) or not similarities:
            raise InputError(f"Expected one weight a similarity, got {len(weights)} for {len(similarities)}")
        self.similarities, self.weights = similarities, weights

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        return _WeightedSum(references, [part.bind(items, references) for part in self.similarities], self.weights)

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return np.logical_and.reduce([part.known(items) for part in self.similarities])


class _WeightedSum(TargetSimilarity):
    def __init__(self, references: NDArray[np.int64], parts: list[TargetSimilarity], weights: list[float]) -> None:
        super().__init__(references)
        self.parts, self.weights = nn.ModuleList(parts), weights

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        scaled = [weight * part(index, columns) for weight, part in zip(self.weights, self.parts, strict=True)]
        return torch.stack(scaled).sum(dim=0)


class Function(Similarity):
    """Any Python function of the items' attributes.

    Args:
        function: ``function(a, b)`` with the attributes of some items and of some references, each a dictionary of
            name → array ``(batch,)`` or ``(reference,)``; it returns ``(batch, reference)``, NaN where unknown.
    """

    def __init__(self, function: Callable[[dict[str, NDArray], dict[str, NDArray]], Any]) -> None:
        self.function = function

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        return _Function(references, items, self.function)


class _Function(TargetSimilarity):
    def __init__(self, references: NDArray[np.int64], items: Items, function: Callable[..., Any]) -> None:
        super().__init__(references)
        self.columns = {"name": items.names, **items.columns}
        self.function = function

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        mine = {name: values[index.cpu().numpy()] for name, values in self.columns.items()}
        chosen = self.references[columns].cpu().numpy()
        theirs = {name: values[chosen] for name, values in self.columns.items()}
        result = torch.as_tensor(self.function(mine, theirs), dtype=torch.float32, device=self.references.device)
        if result.shape != (len(index), len(columns)):
            raise InputError(
                f"Expected the similarity function to return shape (batch, reference) = ({len(index)}, {len(columns)}),"
                f" got {tuple(result.shape)}. Write a[:, None] and b[None, :] to compare all pairs"
            )
        return result


def choose_references(
    items: Items, candidates: NDArray[np.int64], references: int | list[str], seed: int = 0
) -> NDArray[np.int64]:
    """Choose the references: a seeded sample of the candidates, or the items of the given names.

    Args:
        items: All items.
        candidates: Index of the items to sample from (the training items whose similarities are known).
        references: How many to sample, or the names of the items to take.
        seed: Seed of the sample.

    Returns:
        Index of each reference among the items, shape ``(reference,)``.

    Raises:
        InputError: if more are asked for than there are, or a name is not among the items.
    """
    if not isinstance(references, int):
        return items.positions(references)
    if not 0 < references <= len(candidates):
        raise InputError(
            f"Expected at most as many references as known training items ({len(candidates)}), got {references}"
        )
    return np.random.default_rng(seed).choice(candidates, references, replace=False)
