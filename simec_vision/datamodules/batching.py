"""From a source of images to batches: the order of the items over all processes, whole fetches, the next one ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from simec_vision.datamodules.image_store import ImageSource, ImageStore
from simec_vision.items import InputError, OwnInputError

CHUNK = 65_536
"""Items of an epoch's order that are Python numbers at a time; as such, all of a hundred million would fill 4 GB."""


class WholeBatches(Dataset[tuple[Tensor, Tensor]]):
    """The images of a source; a batch is one fetch.

    An item that is only there to make the processes' shares equal comes as −1 − item (see :class:`TrainingOrder`).
    """

    def __init__(self, images: ImageSource) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        images, index = self._fetched([item])
        return images[0], index[0]

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor] | InputError:
        try:
            return self._fetched(items)
        except InputError as error:
            return error  # raised here, it would leave a worker process with that one's traceback in its message

    def _fetched(self, items: list[int]) -> tuple[Tensor, Tensor]:
        index = np.array(items, dtype=np.int64)
        return self.images.fetch(np.where(index < 0, -1 - index, index)), torch.from_numpy(index)


class EveryItem(DistributedSampler[int]):
    """Every item once, in order, over all processes: nothing is repeated to make their shares equal.

    Args:
        items: Index of the items, shape ``(item,)``.
        processes: How many processes there are.
        rank: Which of them this is.
    """

    def __init__(self, items: NDArray[np.int64], processes: int, rank: int) -> None:
        super().__init__(items, processes, rank, shuffle=False)  # type: ignore[arg-type]
        self.items = items

    def __iter__(self) -> Iterator[int]:
        return _numbers(self.items[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return len(range(self.rank, len(self.items), self.num_replicas))


class TrainingOrder(DistributedSampler[int]):
    """All items in a new order each epoch, the same whatever the number of processes, which take turns.

    Where the items do not divide by the processes, the last ones are dropped, or the first ones come again, given as
    −1 − item.

    Args:
        items: Index of the items, shape ``(item,)``.
        processes: How many processes there are.
        rank: Which of them this is.
        images: Where the images come from; it may have an order of its own that suits it.
        seed: Seed of the order.
        drop: Whether the last items are dropped.
    """

    def __init__(
        self, items: NDArray[np.int64], processes: int, rank: int, images: ImageSource, seed: int, drop: bool
    ) -> None:
        super().__init__(items, processes, rank, shuffle=True, seed=seed, drop_last=drop)  # type: ignore[arg-type]
        self.items, self.images = items, images

    def __iter__(self) -> Iterator[int]:
        order = self.items[self._permutation()]
        repeated = -1 - np.resize(order, max(0, self.total_size - len(order)))
        return _numbers(np.concatenate([order[: self.total_size], repeated])[self.rank :: self.num_replicas])

    def _permutation(self) -> NDArray[np.int64]:
        own = getattr(self.images, "permutation", None)
        if own is not None:
            return own(self.items, self.seed, self.epoch)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(len(self.items), generator=generator).numpy()


def _numbers(items: NDArray[np.int64]) -> Iterator[int]:
    for start in range(0, len(items), CHUNK):
        yield from items[start : start + CHUNK].tolist()


class BatchLoader(DataLoader[Any]):
    """A loader whose next batch is prepared while this one is computed on, by its workers or else by a thread.

    A batch that cannot be had raises its :class:`OwnInputError` here, in the process that trains.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches, data = super().__iter__(), self.dataset
        threaded = not self.num_workers and isinstance(data, WholeBatches) and _worth_a_thread(data.images)
        for batch in ahead(batches) if threaded else batches:
            if isinstance(batch, InputError):
                raise OwnInputError(str(batch))
            yield batch


def _worth_a_thread(images: ImageSource) -> bool:
    """Say whether a thread shall prepare batches.

    Not for training on the processor on images in memory, where a fetch takes 0.1 ms and a step 100 (measured,
    CifarCNN, batch 256); for decoding, reading from shards, and the copies to a GPU.
    """
    return torch.cuda.is_available() or not isinstance(images, ImageStore)


def ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Give the same batches, each asked for before the one before it is used up."""
    own_device = partial(torch.cuda.set_device, torch.cuda.current_device()) if torch.cuda.is_available() else None
    with ThreadPoolExecutor(1, initializer=own_device) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def batch_loader(images: ImageSource, sampler: DistributedSampler[int], size: int, drop: bool, workers: int) -> Any:
    """Make the loader of a process.

    Args:
        images: Where the images come from.
        sampler: This process's items.
        size: Images in a batch of this process.
        drop: Leave out a last batch that is smaller.
        workers: Processes that prepare batches.

    Returns:
        A loader of ``(images, index)``: uint8 ``(batch, channel, height, width)`` and int64 ``(batch,)``.
    """
    return BatchLoader(
        WholeBatches(images), size, sampler=sampler, drop_last=drop, collate_fn=_as_is,
        num_workers=workers, persistent_workers=workers > 0, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def _as_is(batch: Any) -> Any:
    return batch
