"""What all sources of images share: items, splits, whole batches, normalisation and augmentation on the device."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from simec_vision.datamodules.augmentation import cut_out, flip_and_shift, mix_colours, uniform
from simec_vision.datamodules.batching import EveryItem, TrainingOrder, batch_loader
from simec_vision.datamodules.image_store import ImageSource
from simec_vision.items import InputError, Items, nearest
from simec_vision.similarities import Similarity


@dataclass(frozen=True)
class Batches:
    """How batches are made.

    Args:
        size: Images in a batch, over all processes together.
        flip: Mirror every other training image left and right.
        shift: Move training images by up to so many pixels.
        colour: Mix the colour channels of training images at random, every weight of the mix changed by up to so much.
        workers: Processes that prepare batches; 0 prepares them in the training process.
        seed: Seed of the order and of the augmentation.
        erase: Paint over a square with an edge of so many pixels, maybe outside in part, somewhere in each training
            image, in the image's mean colour (cutout).
    """

    size: int = 256
    flip: bool = True
    shift: int = 4
    colour: float = 0.0
    workers: int = 0
    seed: int = 0
    erase: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or min(self.shift, self.colour, self.erase, self.workers) < 0:
            raise InputError(
                f"Expected batches of at least 1 image, with shift, colour, erase and workers of at least 0, got size "
                f"{self.size}, shift {self.shift}, colour {self.colour}, erase {self.erase} and workers {self.workers}"
            )


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel of images scaled to [0, 1]."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise uint8 images ``(batch, channel, height, width)`` to float32."""
        batch, channels, height, width = images.shape
        mean, std = (torch.tensor(values, device=images.device).repeat(width) for values in (self.mean, self.std))
        rows = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels)  # long rows: three times as fast
        normalised = rows.float().mul_(1 / (255 * std)).sub_(mean / std)
        return normalised.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Loaded(NamedTuple):
    """What a source of images gives: its items, their images and the index of the items in each split."""

    items: Items
    images: ImageSource
    splits: dict[str, NDArray[np.int64]]


class ImageDataModule(pl.LightningDataModule, ABC):
    """A source of images: gives ``(images, index)``, or ``(images, label)`` after :meth:`use_labels`.

    Images are fetched as uint8 and normalised, and in training augmented, after they have come to the device. The
    order and the augmentation depend on seed and epoch alone: one process and several see the same global batches.

    Args:
        batches: How batches are made.
        normalisation: Mean and standard deviation of the channels.
    """

    label = "label"
    """The attribute that is the class, unless told otherwise."""

    def __init__(self, batches: Batches, normalisation: Normalisation) -> None:
        super().__init__()
        self.batches = batches
        self.normalisation = normalisation
        self.memory_format = torch.channels_last
        self._loaded: Loaded | None = None
        self._kept: NDArray[np.bool_] | None = None
        self._labels: Tensor | None = None
        self._train: NDArray[np.int64] | None = None

    @abstractmethod
    def load(self) -> Loaded:
        """Read items, images and splits (``train``, ``validation``, and ``test`` where there is one)."""

    @abstractmethod
    def similarities(self) -> dict[str, Similarity]:
        """Give the similarities that these items suggest, by head name; what pretraining uses unless told otherwise."""

    def setup(self, stage: str | None = None) -> None:
        """Load what there is, once."""
        if self._loaded is None:
            items, images, splits = _load(self)
            self._loaded = Loaded(replace(items, pixels=self._pixels), images, splits)

    def _pixels(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.normalised(index).flatten(1).numpy()

    @property
    def loaded(self) -> Loaded:
        """Items, images and splits; loaded on first use."""
        self.setup()
        assert self._loaded is not None
        return self._loaded

    @property
    def items(self) -> Items:
        """The items and their attributes."""
        return self.loaded.items

    def split(self, name: str) -> NDArray[np.int64]:
        """Give the index of the items of ``train``, ``validation`` or ``test`` (validation where there is no test)."""
        splits = self.loaded.splits
        return splits["validation"] if name == "test" and "test" not in splits else splits[name]

    def images(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give images as they are, uint8 of shape ``(batch, height, width, channel)``, for drawing."""
        return self.loaded.images.fetch(np.asarray(index)).permute(0, 2, 3, 1).numpy()

    def normalised(self, index: NDArray[np.int64]) -> Tensor:
        """Give normalised images ``(batch, channel, height, width)``, not augmented."""
        return self.normalisation(self.loaded.images.fetch(np.asarray(index)))

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        channels, height, width = self.loaded.images.fetch(np.arange(1)).shape[1:]
        return channels, height, width

    def use_only(self, wanted: Mapping[str, Sequence[str]]) -> None:
        """Use only some items from now on, in all splits: those that have one of the wanted values of each attribute.

        Args:
            wanted: Attribute → values, such as ``label`` → cat, dog; nothing keeps all.

        Raises:
            InputError: if there is no such attribute or value, or no item of the training split has what is wanted.
        """
        if not wanted:
            return
        kept = np.logical_and.reduce([self.items.has(name, values) for name, values in wanted.items()])
        splits = {name: index[kept[index]] for name, index in self.loaded.splits.items()}
        if not len(splits["train"]):
            raise InputError(f"Expected training items to keep, but none has what is wanted: {dict(wanted)}")
        self._kept, self._loaded = kept, self.loaded._replace(splits=splits)

    def use_labels(
        self, attribute: str, count: int | None = None, seed: int = 0, per_class: bool = False
    ) -> list[str]:  # fmt: skip
        """Give ``(images, label)`` from now on.

        Args:
            attribute: The categorical attribute that is the label.
            count: Train on so many labelled images only: the first of a seeded permutation of the training items, so
                that fewer labels are always among more (25 ⊂ 50 ⊂ 100).
            seed: Seed of that permutation.
            per_class: Take so many of each class, or all of it where there are fewer.

        Returns:
            The class names, of items that are kept; a label is a position in this list.

        Raises:
            InputError: if the attribute does not exist, or fewer training items have a known label.
        """
        codes, names = self.items.classes(attribute)
        if self._kept is not None:
            codes, names = _occurring(np.where(self._kept, codes, -1), names)
        self._labels = torch.from_numpy(codes)
        known = self.split("train")[codes[self.split("train")] >= 0]
        self._train = nested_subset(known, count, seed, codes[known] if per_class else None)
        return names

    @property
    def labels(self) -> Tensor:
        """The label of every item, shape ``(item,)``, −1 where unknown, after :meth:`use_labels`."""
        assert self._labels is not None, "call use_labels first"
        return self._labels

    def subset(self, name: str) -> NDArray[np.int64]:
        """Give the index of the items that a split's batches hold: the labelled ones after :meth:`use_labels`."""
        if self._labels is None:
            return self.split(name)
        known = self.split(name)[self._labels.numpy()[self.split(name)] >= 0]
        return self._train if name == "train" and self._train is not None else known

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Give the training batches, in a new seeded order each epoch."""
        items, per_process = self.subset("train"), self._per_process()
        self.check_for_processes(self._processes()[0], "train")
        # Similarities can spare the last, smaller batch; few labels cannot.
        drop = self._labels is None and len(items) >= self.batches.size
        order = TrainingOrder(items, *self._processes(), self.loaded.images, self.batches.seed, drop)
        return batch_loader(self.loaded.images, order, per_process, drop, self.batches.workers)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Give the validation batches."""
        return self._in_order("validation")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Give the test batches."""
        return self._in_order("test")

    def check_for_processes(self, processes: int, *splits: str) -> None:
        """Make sure that every process has a share of the items of some splits, and that none counts twice.

        Args:
            processes: How many there are.
            splits: Which.

        Raises:
            InputError: naming the split with fewer items than processes; or if there are fewer training items than a
                batch, which do not divide by the processes: where there are labels, those that come again are left out
                of the loss, where there are none they would count twice.
        """
        for name in splits:
            count = len(self.subset(name))
            again = name == "train" and self._labels is not None
            if 0 < count < processes and not again:
                raise InputError(
                    f"Expected at least {processes} items of the split {name}, one for each process, got {count}: put "
                    "more into it, or start fewer processes"
                )
            if name == "train" and not again and count < self.batches.size and count % processes:
                raise InputError(
                    f"Expected training items that divide by {processes} processes, or a batch of them, got {count}: "
                    f"take batches.size {count - count % processes}"
                )

    def _in_order(self, name: str) -> DataLoader[tuple[Tensor, Tensor]]:
        self.check_for_processes(self._processes()[0], name)
        order = EveryItem(self.subset(name), *self._processes())
        size = max(self.batches.size // self._processes()[0], 256)
        return batch_loader(self.loaded.images, order, size, False, self.batches.workers)

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _per_process(self) -> int:
        processes = self._processes()[0]
        if self.batches.size % processes:
            raise InputError(f"Expected a batch size divisible by {processes} processes, got {self.batches.size}")
        return self.batches.size // processes

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment and normalise a batch on its device; give labels instead of indices after :meth:`use_labels`.

        An item that is there only to make the processes' shares equal has the label −1.
        """
        images, given = batch
        index = torch.where(given < 0, -1 - given, given)
        if self.trainer is not None and self.trainer.training:
            images = self.augmented(images, index, self.trainer.current_epoch)
        images = self.normalisation(images).contiguous(memory_format=self.memory_format)
        return images, index if self._labels is None else self._known_labels(given)

    def _known_labels(self, index: Tensor) -> Tensor:
        assert self._labels is not None
        return self._labels.to(index.device)[index.clamp(min=0)].where(index >= 0, -1)

    def augmented(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Vary uint8 images of the given items as in an epoch."""
        mixed = 3 + images.shape[1] ** 2
        random = uniform(self.batches.seed, epoch, index, draws=mixed + 2)
        if self.batches.flip or self.batches.shift:
            images = flip_and_shift(images, random[:, :3], self.batches.flip, self.batches.shift)
        if self.batches.colour:
            images = mix_colours(images, random[:, 3:mixed], self.batches.colour)
        return cut_out(images, random[:, mixed:], self.batches.erase) if self.batches.erase else images


_REMEMBERED: dict[str, Loaded] | None = None


def remember() -> None:
    """Let all sources of this package with the same options share what they load, in this process, from now on.

    For processes that make many runs on files that nobody changes meanwhile.
    """
    global _REMEMBERED
    _REMEMBERED = {}


def _load(data: ImageDataModule) -> Loaded:
    kind = f"{type(data).__module__}.{type(data).__name__}"
    if _REMEMBERED is None or not kind.startswith("simec_vision.datamodules."):
        return data.load()
    options = {name: value for name, value in vars(data).items() if not name.startswith("_") and name != "batches"}
    key = f"{kind} {sorted(options.items(), key=lambda pair: pair[0])!r}"
    if key not in _REMEMBERED:
        _REMEMBERED[key] = data.load()
    return _REMEMBERED[key]


def _occurring(codes: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Renumber codes ``(item,)``, −1 where unknown, so that every class has an item."""
    used, renumbered = np.unique(codes, return_inverse=True)
    unknown = int(np.sum(used < 0))
    return renumbered - unknown, [names[code] for code in used[unknown:]]


def nested_subset(
    candidates: NDArray[np.int64], count: int | None, seed: int, classes: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Give the first of a seeded permutation of items, all where no count is given.

    Args:
        candidates: The items, shape ``(item,)``.
        count: How many.
        seed: Seed of the permutation.
        classes: Their classes, shape ``(item,)``, of each of which ``count`` are taken, or all where there are fewer.

    Raises:
        InputError: if there are fewer, in the largest class where classes are given.
    """
    if count is None:
        return candidates
    most = len(candidates) if classes is None else max(np.bincount(classes), default=0)
    if not 0 < count <= most:
        where = "labelled training items" if classes is None else "labelled training items of the largest class"
        raise InputError(f"Expected at most as many labels as {where} ({most}), got {count}; null takes all")
    order = np.random.RandomState(seed).permutation(len(candidates))
    if classes is None:
        return candidates[order[:count]]
    first = [order[classes[order] == one][:count] for one in np.unique(classes)]
    return candidates[order[np.isin(order, np.concatenate(first))]]


def known_name(name: str, known: list[str], what: str) -> str:
    """Check a name against the known ones.

    Raises:
        InputError: naming the nearest known one.
    """
    if name not in known:
        raise InputError(f"Expected {what}, got {name!r}: {nearest(name, known)}")
    return name
