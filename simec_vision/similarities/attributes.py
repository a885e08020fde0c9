"""Similarities of the items' attributes: classes, numbers, sets."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.items import InputError, Items, nearest
from simec_vision.similarities.base import Similarity, TargetSimilarity, counts_of_known


def same_class(a: Tensor, b: Tensor) -> Tensor:
    """Compare classes: 1 where equal, 0 where not, NaN where either is unknown.

    Args:
        a: Class of each item, shape ``(batch,)``, negative where unknown.
        b: Class of each reference, shape ``(reference,)``.

    Returns:
        Shape ``(batch, reference)``, float32.
    """
    same = (a[:, None] == b[None]).float()
    return same.masked_fill((a[:, None] < 0) | (b[None] < 0), torch.nan)


def attribute_distance(a: Tensor, b: Tensor, range: float) -> Tensor:
    """Compare numbers: 1 − |a − b| / range, NaN where either is.

    Args:
        a: Value of each item, shape ``(batch,)``.
        b: Value of each reference, shape ``(reference,)``.
        range: Distance at which the similarity is 0.

    Returns:
        Shape ``(batch, reference)``, in the type of the values.
    """
    return 1 - (a[:, None] - b[None]).abs() / range


OVERLAPS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "simpson": lambda both, a, b: both / torch.minimum(a, b),
    "jaccard": lambda both, a, b: both / (a + b - both),
    "dice": lambda both, a, b: 2 * both / (a + b),
}
"""Overlap coefficients from |A∩B|, |A| and |B|."""


def set_overlap(a: Tensor, b: Tensor, coefficient: str) -> Tensor:
    """Compare sets by one of :data:`OVERLAPS`, NaN where either is empty.

    Args:
        a: Members of each item's set, shape ``(batch, member)`` of 0 and 1.
        b: Members of each reference's set, shape ``(reference, member)``.
        coefficient: ``simpson``, ``jaccard`` or ``dice``.

    Returns:
        Shape ``(batch, reference)``, in the type of the memberships.
    """
    mine, theirs = a.sum(dim=1)[:, None], b.sum(dim=1)[None]
    with torch.autocast(a.device.type, enabled=False):
        both = a @ b.T
    return OVERLAPS[coefficient](both, mine, theirs).masked_fill((mine == 0) | (theirs == 0), torch.nan)


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
    codes: Tensor

    def __init__(self, references: NDArray[np.int64], labels: Tensor) -> None:
        super().__init__(references)
        self._fixed("labels", labels)
        classes, codes = self.labels[self.references].unique(return_inverse=True)
        self._fixed("codes", codes)
        self._num_factors = len(classes) if bool((classes >= 0).all()) else 0
        self.complete = bool((self.labels >= 0).all())

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        mine, theirs = self.labels[index], self.labels[self.references[columns]]
        return (mine[:, None] == theirs).float() if self.complete else same_class(mine, theirs)

    def known_counts(self) -> Tensor:
        """See :meth:`TargetSimilarity.known_counts`."""
        return counts_of_known(self.labels[self.references] >= 0)

    @property
    def num_factors(self) -> int:
        """How many classes the references have; 0 where one's class is unknown."""
        return self._num_factors

    def factors(self, columns: Tensor | None = None) -> Tensor:
        """Give the references' classes, one-hot."""
        codes = self.codes if columns is None else self.codes[columns]
        return nn.functional.one_hot(codes, self.num_factors).float()


class AttributeDistance(Similarity):
    """Similarity 1 − |a − b| / range of a numeric attribute.

    Args:
        attribute: The numeric attribute that is compared.
        range: Distance at which the similarity is 0; default: largest minus smallest known value of all items.

    Raises:
        InputError: for a range that is no positive number.
    """

    def __init__(self, attribute: str, range: float | None = None) -> None:
        if range is not None and not 0 < range < np.inf:
            raise InputError(
                f"Expected range as a positive number, the distance at which {attribute!r} has "
                f"similarity 0, got {range}"
            )
        self.attribute = attribute
        self.range = range

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`; raises :class:`InputError` for a constant attribute."""
        values = items.numbers(self.attribute)
        low, high = _extremes(values)
        extent = high - low if self.range is None else self.range
        if not extent > 0:
            raise InputError(
                f"Expected attribute {self.attribute!r} to vary between items, but no two known values differ"
            )
        # Differences are taken in float32, so large values that differ little are brought near 0 first.
        return _AttributeDistance(references, torch.from_numpy(values - low).float(), extent)

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return np.isfinite(items.numbers(self.attribute))


def _extremes(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


class _AttributeDistance(TargetSimilarity):
    values: Tensor

    def __init__(self, references: NDArray[np.int64], values: Tensor, range: float) -> None:
        super().__init__(references)
        self._fixed("values", values)
        self.range = range
        self.complete = bool(values.isfinite().all())

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        return attribute_distance(self.values[index], self.values[self.references[columns]], self.range)

    def known_counts(self) -> Tensor:
        """See :meth:`TargetSimilarity.known_counts`."""
        return counts_of_known(~self.values[self.references].isnan())


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
        return _SetOverlap(references, torch.from_numpy(items.sets(self.attribute)[0]), self.coefficient)

    def known(self, items: Items) -> NDArray[np.bool_]:
        """See :meth:`Similarity.known`."""
        return items.sets(self.attribute)[0].sum(axis=1) > 0


class _SetOverlap(TargetSimilarity):
    membership: Tensor

    def __init__(self, references: NDArray[np.int64], membership: Tensor, coefficient: str) -> None:
        super().__init__(references)
        self._fixed("membership", membership)
        self.coefficient = coefficient
        self.complete = bool(membership.any(dim=1).all())

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        return set_overlap(self.membership[index], self.membership[self.references[columns]], self.coefficient)

    def known_counts(self) -> Tensor:
        """See :meth:`TargetSimilarity.known_counts`."""
        return counts_of_known(self.membership[self.references].any(dim=1))
