"""Similarities of the items' attributes: classes, numbers, sets."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.items import InputError, Items, nearest
from simec_vision.similarities.base import Similarity, TargetSimilarity


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
        extent = self.range if self.range is not None else _extent(values)
        if not extent > 0:
            raise InputError(f"Expected attribute {self.attribute!r} to vary between items, but it has one value only")
        return _AttributeDistance(references, torch.from_numpy(values / extent).float())

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return np.isfinite(items.numbers(self.attribute))


def _extent(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.max() - known.min()) if len(known) else 0.0


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
            raise InputError(
                f"Expected an overlap coefficient, got {coefficient!r}: {nearest(coefficient, [*OVERLAPS])}"
            )
        self.attribute = attribute
        self.coefficient = coefficient

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        membership = torch.from_numpy(items.sets(self.attribute)[0])
        return _SetOverlap(references, membership, OVERLAPS[self.coefficient])

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return items.sets(self.attribute)[0].sum(axis=1) > 0


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
