"""Similarities made of others, or of any Python function."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.items import InputError, Items
from simec_vision.similarities.base import Similarity, TargetSimilarity


def weighted_sum(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Sum target similarities of one shape ``(batch, reference)``: Σ_k w_k s_k, NaN where any part is."""
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(dim=0)


class WeightedSum(Similarity):
    """Weighted sum Σ_k w_k s_k of similarities; unknown where any part is unknown.

    Args:
        similarities: The parts.
        weights: One weight a part.
    """

    def __init__(self, similarities: list[Similarity], weights: list[float]) -> None:
        if len(similarities) != len(weights) or not similarities:
            raise InputError(f"Expected one weight a similarity, got {len(weights)} for {len(similarities)}")
        if not np.isfinite(weights).all():
            raise InputError(f"Expected weights as finite numbers, got {weights}")
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
        self.complete = all(part.complete for part in parts)

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        return weighted_sum([part(index, columns) for part in self.parts], self.weights)


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
