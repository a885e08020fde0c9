"""Embedding and predicting arrays with a trained model, some items at a time."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.arrays.scaling import values_of
from simec_vision.model import SimilarityModel

CHUNK = 4096
"""Items that are embedded together."""


@torch.inference_mode()
def _apply(model: SimilarityModel, items: Any, accelerator: str, function: Callable[[Any, Tensor], Tensor]) -> NDArray:
    """Apply a function to the model and items ``(item, …)`` in the items' own type; give ``(item, …)``."""
    device = "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    dtype = torch.float64 if items.dtype == np.float64 else torch.float32
    if dtype == torch.float64 or device != "cpu":
        model = deepcopy(model).to(device, dtype)
    results = []
    for start in range(0, items.shape[0], CHUNK):
        part = items[start : start + CHUNK]
        dense = part.toarray() if hasattr(part, "tocsr") else np.ascontiguousarray(part)
        results.append(function(model, torch.tensor(dense, device=device)).cpu().numpy())
    return np.concatenate(results)


def embed(model: SimilarityModel, items: Any, accelerator: str = "auto") -> NDArray:
    """Embed items ``(item, …)``: ``(item, embedding)``."""
    return _apply(model, items, accelerator, lambda own, part: own.embed(part))


def predict(model: SimilarityModel, items: Any, accelerator: str, sigmoid: bool, form: str) -> Any:
    """Predict similarities of items, in the form of the target similarities."""

    def all_heads(own: Any, part: Tensor) -> Tensor:
        product = torch.cat([*own(part).values()], dim=1)
        return product.sigmoid() if sigmoid else product

    sizes = [model.head(name).num_references for name in model.heads]
    together = _apply(model, items, accelerator, all_heads)
    parts = np.split(together, np.cumsum(sizes)[:-1], axis=1)
    if form == "named":
        return dict(zip(model.heads, parts, strict=True))
    if form == "stack":
        return np.stack(parts, axis=2)
    return parts[0][:, 0] if form == "vector" else parts[0]


def determination(predicted: Any, similarities: dict[str, Any], form: str) -> float:
    """Give r² of predicted similarities, in their form, over the known entries; the mean over similarities."""
    if form == "stack":
        predicted = {name: predicted[:, :, number] for number, name in enumerate(similarities)}
    elif form != "named":
        predicted = {name: predicted.reshape(len(predicted), -1) for name in similarities}
    return float(np.mean([_determination(predicted[name], matrix) for name, matrix in similarities.items()]))


def _determination(predicted: NDArray, matrix: Any) -> float:
    """Give 1 − Σ (p − t)² / Σ (t − mean t)², 0 where the target is constant and not met."""
    if hasattr(matrix, "tocsr"):
        entries = matrix.tocoo()
        known = ~np.isnan(entries.data)
        guess = predicted[entries.row[known], entries.col[known]]
    else:
        guess = predicted[~np.isnan(matrix)]
    truth = values_of(matrix).astype(np.float64)
    left, spread = ((guess - truth) ** 2).sum(), ((truth - truth.mean()) ** 2).sum()
    return float(1 - left / spread) if spread > 0 else float(left == 0)
