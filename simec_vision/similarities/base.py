"""What every similarity can do: become computable for given items and references."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.items import InputError, Items

CHUNK = 1024
"""Items or references whose similarities are looked at together."""

CHUNK_PAIRS = 2**24
"""At most about this many similarities are looked at together, fewer items where there are very many references."""

KEPT_PAIRS = 2**24
"""Most pairs of references whose similarities are kept once they were computed (64 MB)."""

COUNTED_PAIRS = 2**30
"""Most pairs of references that are looked at only to count which of their similarities are known."""


class TargetSimilarity(nn.Module, ABC):
    """Give target similarities of items to the references, NaN where unknown.

    Args:
        references: Index of each reference among the items, shape ``(reference,)``.
    """

    references: Tensor
    complete = False
    """Whether all target similarities are certainly known, so that losses need look for no NaN."""
    _kept: Tensor | None = None

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
        if self._kept is not None and self._kept.device == self.references.device:
            return self._kept if columns is None else self._kept[columns[:, None], columns]
        chosen = self.references if columns is None else self.references[columns]
        return self(chosen, columns)

    def keep_gram(self) -> None:
        """Compute the references' own similarities once and for all, if they are at most :data:`KEPT_PAIRS`.

        A kernel of long vectors, such as pixels, would else cost more at every step than all the rest of it.
        """
        if self._kept is None and len(self) ** 2 <= KEPT_PAIRS:
            self._kept = self.gram()

    def gram_chunks(self) -> Iterator[Tensor]:
        """Give the references' own similarities some rows at a time, each of shape ``(chunk, reference)``."""
        return (self(chunk) for chunk in self.references.split(min(CHUNK, max(1, CHUNK_PAIRS // len(self)))))

    def known_counts(self) -> Tensor | None:
        """Count for each reference how many of its similarities to all references are known, shape ``(reference,)``.

        Unless the kind of similarity says it otherwise, it looks at all of :meth:`gram`, so keep the result; None where
        these are more than :data:`COUNTED_PAIRS`.
        """
        if len(self) ** 2 > COUNTED_PAIRS:
            return None
        return torch.cat([(~rows.isnan()).sum(dim=1) for rows in self.gram_chunks()])

    @property
    def num_factors(self) -> int:
        """Length of the vectors whose inner products are the references' own similarities; 0 where there are none."""
        return 0

    def factors(self, columns: Tensor | None = None) -> Tensor:
        """Give those vectors, F of shape ``(column, factor)`` with ``gram(columns)`` = F Fᵀ.

        Args:
            columns: Positions among the references, shape ``(column,)``; default: all.

        Raises:
            NotImplementedError: where :attr:`num_factors` is 0.
        """
        raise NotImplementedError(f"{type(self).__name__} has no factors")


def counts_of_known(known: Tensor) -> Tensor:
    """Count known similarities where one is known if both references are.

    Args:
        known: Which references are, shape ``(reference,)``.

    Returns:
        For each reference how many of its similarities to all references are known, shape ``(reference,)``.
    """
    return known * known.sum()


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
        """Say for each item whether similarities to it can be known at all, shape ``(item,)``.

        References are sampled among these items.
        """
        return np.ones(len(items), dtype=bool)


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
    if not isinstance(references, int | np.integer):
        return items.positions(references)
    if not 0 < references <= len(candidates):
        raise InputError(
            f"Expected from 1 reference to as many as known training items ({len(candidates)}), got {references}"
        )
    return np.random.default_rng(seed).choice(candidates, references, replace=False)
