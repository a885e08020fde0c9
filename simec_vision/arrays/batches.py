"""Batches sliced from one tensor in memory, without a loader."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class TensorBatches:
    """Items of one tensor or sparse matrix in a new order each epoch, as Lightning's ``train_dataloaders``.

    Args:
        items: A tensor of shape ``(item, …)``, or a scipy sparse matrix by rows, of which each batch is made dense.
        index: Which of them, shape ``(chosen,)``.
        size: Items of a batch; the last one of an epoch may be smaller.
        seed: Seed of the order; None keeps that of ``index``.
        epoch: Number of the first epoch, which draws the order together with the seed.
    """

    def __init__(self, items: Any, index: Tensor, size: int, seed: int | None = None, epoch: int = 0) -> None:
        self.items, self.index, self.size = items, index, size
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return -(-len(self.index) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order()
        self.epoch += 1
        for part in order.split(self.size):
            yield rows_of(self.items, part), part

    def _order(self) -> Tensor:
        if self.seed is None:
            return self.index
        drawn = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.index))
        return self.index[torch.from_numpy(drawn).to(self.index.device)]

    def to(self, device: torch.device) -> "TensorBatches":
        """Hold the items on a device, unless they are sparse."""
        self.index = self.index.to(device)
        self.items = self.items.to(device) if isinstance(self.items, Tensor) else self.items
        return self


def rows_of(items: Any, index: Tensor) -> Tensor:
    """Take rows of a tensor, or of a scipy sparse matrix as a dense tensor on the index's device."""
    if isinstance(items, Tensor):
        return items.index_select(0, index)  # a quarter of the time of items[index] (measured)
    return torch.from_numpy(items[index.cpu().numpy()].toarray()).to(index.device)
