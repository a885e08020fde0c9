"""Images that a benchmark makes itself: random ones in memory or in a memory-mapped file, and given ones."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation
from simec_vision.datamodules.image_store import ImageSource, ImageStore
from simec_vision.files import replacing
from simec_vision.items import InputError, Items
from simec_vision.similarities import SameClass, Similarity

CHUNK = 10_000
"""Images that are made at once."""


class RepeatedImages:
    """More items than images: item i shows image i modulo their number, so that items cost no memory.

    Args:
        images: uint8 of shape ``(image, height, width, channel)``.
        count: How many items.
    """

    def __init__(self, images: NDArray[np.uint8], count: int) -> None:
        self.store, self.count = ImageStore(images), count

    def __len__(self) -> int:
        return self.count

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """See :class:`~simec_vision.datamodules.image_store.ImageSource`."""
        return self.store.fetch(index % len(self.store))


class GivenImages(ImageDataModule):
    """Images of a source with random classes; the last ones are held out.

    Args:
        source: Where the images lie.
        classes: How many classes.
        held_out: How many images are for validation.
        batches: How batches are made.
    """

    def __init__(
        self, source: ImageSource, classes: int = 10, held_out: int = 256, batches: Batches = Batches()
    ) -> None:
        super().__init__(batches, Normalisation())
        self.source, self.classes, self.held_out = source, classes, held_out

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        return labelled(self.source, self.classes, self.held_out)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``class``: 1 between images of the same class, 0 otherwise."""
        return {"class": SameClass("label")}


class RandomImages(ImageDataModule):
    """Random images with random classes, made when they are needed: no files.

    Args:
        count: How many items to train on.
        size: Height and width in pixels.
        classes: How many classes.
        held_out: How many further items for validation.
        distinct: How many different images, over and over again; 0 makes one for each item.
        batches: How batches are made.

    Raises:
        InputError: for fewer than 1 image, pixel, class or held-out item.
    """

    def __init__(
        self, count: int = 10_240, size: int = 32, classes: int = 10, held_out: int = 256, distinct: int = 0,
        batches: Batches = Batches(),
    ) -> None:  # fmt: skip
        super().__init__(batches, Normalisation())
        if min(count, size, classes, held_out) < 1 or distinct < 0:
            raise InputError(
                f"Expected at least 1 image, pixel, class and held-out image, and distinct of at least 0, got count "
                f"{count}, size {size}, classes {classes}, held_out {held_out} and distinct {distinct}"
            )
        self.count, self.side, self.classes, self.held_out = count, size, classes, held_out
        self.distinct = distinct

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        total = self.count + self.held_out
        images = random_pixels(min(self.distinct, total) or total, self.side)
        return labelled(RepeatedImages(images, total), self.classes, self.held_out)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``class``: 1 between images of the same class, 0 otherwise."""
        return {"class": SameClass("label")}


class Part(ImageDataModule):
    """Some of another source's images of known class, for a comparison on few.

    Args:
        whole: The other source.
        train: How many training images, a seeded choice.
        validation: How many validation images at most.
    """

    def __init__(self, whole: ImageDataModule, train: int, validation: int) -> None:
        super().__init__(whole.batches, whole.normalisation)
        self.whole, self.label, self.counts = whole, whole.label, {"train": train, "validation": validation}

    def prepare_data(self) -> None:
        """Prepare the other source."""
        self.whole.prepare_data()

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        loaded, random = self.whole.loaded, np.random.default_rng(0)
        known = SameClass(self.label).known(loaded.items)
        splits = {name: random.permutation(self.whole.split(name)) for name in self.counts}
        splits = {name: index[known[index]][: self.counts[name]] for name, index in splits.items()}
        return Loaded(loaded.items, loaded.images, splits)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``class``: 1 between images of the same class, 0 otherwise."""
        return {"class": SameClass(self.label)}


def labelled(images: ImageSource, classes: int, held_out: int) -> Loaded:
    """Give items with random classes ``label``; the last ``held_out`` images are for validation.

    Raises:
        InputError: if nothing is left to train on.
    """
    count, train = len(images), len(images) - held_out
    if train < 1:
        raise InputError(f"Expected more images than the {held_out} held-out ones, got {count}")
    labels = np.random.default_rng(0).integers(0, classes, count)
    items = Items(np.arange(count).astype(np.str_), {"label": labels})
    return Loaded(items, images, {"train": np.arange(train), "validation": np.arange(train, count)})


def random_pixels(count: int, size: int) -> NDArray[np.uint8]:
    """Make random images, uint8 of shape ``(image, height, width, channel)``."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write_random_pixels(path: Path, count: int, size: int) -> None:
    """Write random images to a ``.npy`` file, a chunk at a time; every page has content of its own."""
    random = np.random.default_rng(0)
    with replacing(path) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(count, size, size, 3))
        for start in range(0, count, CHUNK):
            part = array[start : start + CHUNK]
            part[...] = random.integers(0, 256, part.shape, dtype=np.uint8)
        array.flush()


def mapped(path: Path) -> ImageStore:
    """Open a file of :func:`write_random_pixels`, memory-mapped."""
    return ImageStore(np.load(path, mmap_mode="r", allow_pickle=False))


def in_memory(data: ImageDataModule, index: NDArray[np.int64]) -> Tensor:
    """Give normalised images with channels last, in memory, shape ``(batch, channel, height, width)``."""
    return data.normalised(index).contiguous(memory_format=torch.channels_last)
