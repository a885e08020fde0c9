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

    def gram_chunks(self) -> Iterator[Tensor]:
        """Give the references' own similarities some rows at a time, each of shape ``(chunk, reference)``."""
        return (self(chunk) for chunk in self.references.split(CHUNK))

    def known_counts(self) -> Tensor:
        """Count for each reference how many of its similarities to all references are known, shape ``(reference,)``.

        It looks at all of :meth:`gram`, so keep the result.
        """
        return torch.cat([(~rows.isnan()).sum(dim=1) for rows in self.gram_chunks()])


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
    if not isinstance(references, int):
        return items.positions(references)
    if not 0 < references <= len(candidates):
        raise InputError(
            f"Expected at most as many references as known training items ({len(candidates)}), got {references}"
        )
    return np.random.default_rng(seed).choice(candidates, references, replace=False)
