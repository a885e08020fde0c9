"""What pretraining on similarities is compared with: auto-encoders, and predictors of similarity that see no image.

Label pretraining, the third, is fine-tuning (:mod:`simec_vision.finetuning`) on all labels from random weights.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.items import InputError
from simec_vision.metrics import SimilarityMatch
from simec_vision.optimisation import Optimisation, configured
from simec_vision.processes import Average, keep_local, share_buffers
from simec_vision.training import Training

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


class AutoEncoding(Training):
    """Train an auto-encoder to give normalised images back: mean squared error over all pixels.

    Args:
        autoencoder: Maps images ``(batch, channel, height, width)`` to images of that shape, such as
            :class:`simec_vision.decoders.MirrorAutoEncoder`.
        optimisation: Optimiser and schedule.
        seed: Seed of dropout.
    """

    def __init__(self, autoencoder: nn.Module, optimisation: Optimisation | None = None, seed: int = 0) -> None:
        super().__init__(optimisation, seed)
        self.autoencoder = autoencoder
        keep_local(self)
        self._error = Average()

    def forward(self, images: Tensor) -> Tensor:
        """Give images back as they come out of their embeddings."""
        return self.autoencoder(images)

    def configure_optimizers(self) -> Any:
        """Make optimiser and schedule."""
        return configured(self.autoencoder.parameters(), self.optimisation, self.trainer, self.monitor)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the mean squared error of a batch of images."""
        loss = F.mse_loss(self(batch[0]).float(), batch[0])
        self.log_epoch("train/loss", loss, len(batch[0]), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to measure."""
        share_buffers(self.autoencoder)
        self._error = Average()

    def on_test_epoch_start(self) -> None:
        """Begin to measure."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure the error of a batch."""
        self._error.update(F.mse_loss(self(batch[0]).float(), batch[0]), len(batch[0]))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure the error of a batch."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the mean squared error of the validation images."""
        self.log("validation/loss", self._error.compute(), prog_bar=True, sync_dist=False)

    def on_test_epoch_end(self) -> None:
        """Log the mean squared error of the test images."""
        self.log("reconstruction/mse", self._error.compute(), sync_dist=False)
