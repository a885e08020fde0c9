"""What a pretrained encoder is compared with: predictors of similarity that see no image."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.items import InputError
from simec_vision.metrics import SimilarityMatch

CHUNK = 1024
"""Items whose target similarities are looked at together."""


def _chunks(index: NDArray[np.int64], what: str) -> Iterator[NDArray[np.int64]]:
    """Give some items at a time."""
    if not len(index):
        raise InputError(f"Expected at least one {what} item to compare predictors by, got none: change the split")
    return (index[start : start + CHUNK] for start in range(0, len(index), CHUNK))


def class_means(
    target: Callable[[Tensor], Tensor], index: NDArray[np.int64], codes: NDArray[np.int64], classes: int
) -> Tensor:
    """Average the target similarities of the items of each class to every reference.

    Args:
        target: Gives target similarities, index ``(batch,)`` → ``(batch, reference)``, NaN where unknown.
        index: The items that are averaged: the training items, shape ``(item,)``.
        codes: The class of every item of the source, −1 where unknown.
        classes: How many classes there are.

    Returns:
        Shape ``(class + 1, reference)``, float32; the last row, which code −1 finds, is that of all items together.
        NaN where nothing is known.

    Raises:
        InputError: if there is no item.
    """
    totals = counts = torch.zeros(())
    for chunk in _chunks(index, "training"):
        member = torch.nn.functional.one_hot(torch.from_numpy(codes[chunk]) % (classes + 1), classes + 1).double()
        member[:, classes] = 1
        rows = target(torch.from_numpy(chunk)).double()
        totals = totals + member.T @ rows.nan_to_num(0.0)
        counts = counts + member.T @ (~rows.isnan()).double()
    return (totals / counts).float()


def blind_match(
    target: Callable[[Tensor], Tensor],
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    codes: NDArray[np.int64],
    classes: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure on held-out items two predictors that know the training items but see no image.

    Args:
        target: Gives target similarities, index ``(batch,)`` → ``(batch, reference)``, NaN where unknown.
        train: The items that the predictors know, shape ``(item,)``.
        held_out: The items that are predicted, shape ``(item,)``.
        codes: The class of every item of the source, −1 where unknown.
        classes: How many classes there are.

    Returns:
        For the constant (one number, the mean target similarity over the references), ``mse``; for the class means (for
        each reference its mean similarity to the items of the held-out item's class), ``mse``, ``r2`` and ``spearman``.

    Raises:
        InputError: if no item is known or none is held out.
    """
    means = class_means(target, train, codes, classes)
    overall = means[classes].nanmean()
    constant, by_class = SimilarityMatch(), SimilarityMatch(len(held_out) * means.shape[1])
    for chunk in _chunks(held_out, "held-out"):
        index = torch.from_numpy(chunk)
        rows, predicted = target(index), means[torch.from_numpy(codes[chunk])]
        constant.update(overall.expand_as(rows), rows)
        by_class.update(torch.where(predicted.isnan(), overall, predicted), rows, index)
    return {"mse": constant.compute()["mse"]}, by_class.compute()
