"""Shards: images in tar files of the WebDataset layout, for sets beyond one disk; attributes in arrays beside them.

The images of a batch are read from their shards by position, so batches are as exact as those of any other source: the
same on any number of workers and processes, each item once an epoch, and repeated by a resumed run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.datamodules.decoding import decode_image, decode_into, empty_batch
from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation
from simec_vision.datamodules.image_table import checked_size, suggested_similarities
from simec_vision.datamodules.shard_files import ShardFiles
from simec_vision.datamodules.shard_index import SPLIT, ShardIndex, read_index, read_or_make_index
from simec_vision.datamodules.splits import SPLITS, check_shares, said_or_drawn
from simec_vision.items import InputError, Items, nearest
from simec_vision.similarities import Similarity

LANES, TOGETHER = 8, 4
"""Shards are dealt to so many lanes, and so many of a lane's are mixed at a time."""


class ShardImages:
    """Images read from their shards whenever they are fetched.

    Args:
        files: Where the shards lie.
        index: What is where in them.
        size: Height and width of the images.
        fit: What to do with images of another size, see :func:`~simec_vision.datamodules.decoding.decode_image`.
    """

    def __init__(self, files: ShardFiles, index: ShardIndex, size: tuple[int, int], fit: str) -> None:
        self.files, self.shards, self.places = files, index.shards, index.places
        self.size, self.fit = size, fit

    def __len__(self) -> int:
        return len(self.places)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process map the places itself: pickled, they would be copied."""
        return _opened_again, (self.files, self.size, self.fit)

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """See :class:`~simec_vision.datamodules.image_store.ImageSource`."""
        images = empty_batch((len(index), *self.size, 3))
        decode_into(images.numpy(), read_members(self.files, self.shards, self.places[index]), self._decode)
        return images.permute(0, 3, 1, 2)

    def _decode(self, member: tuple[Path, bytes]) -> NDArray[np.uint8]:
        return decode_image(member[0], self.size, self.fit, member[1])

    def permutation(self, items: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Give an order in which items that lie together are wanted at about the same time."""
        return order_by_shards(self.places[items, 0], np.random.default_rng((seed, epoch)))


def _opened_again(files: ShardFiles, size: tuple[int, int], fit: str) -> ShardImages:
    return ShardImages(files, read_index(files), size, fit)


def read_members(files: ShardFiles, shards: Sequence[str], places: NDArray[np.int64]) -> list[tuple[Path, bytes]]:
    """Read images out of their shards; each shard is opened once.

    Args:
        files: Where the shards lie.
        shards: Their names.
        places: Shard, first byte and length of each image, shape ``(image, 3)``.

    Returns:
        What to call each image, and its bytes.

    Raises:
        InputError: naming the shard that cannot be read.
    """
    members = [(Path(), b"")] * len(places)
    for shard in np.unique(places[:, 0]).tolist():
        path = files.local(shards[shard])
        try:
            with open(path, "rb", buffering=0) as file:
                for row in np.flatnonzero(places[:, 0] == shard).tolist():
                    file.seek(places[row, 1])
                    members[row] = path / f"byte {places[row, 1]}", file.read(places[row, 2])
        except OSError as error:
            raise InputError(f"Expected to read the shard {path}: {error.strerror}") from error
    return members


def order_by_shards(
    shards: NDArray[np.int64], random: np.random.Generator, lanes: int = LANES, together: int = TOGETHER
) -> NDArray[np.int64]:
    """Order items at random so that few shards are read at a time.

    Shards, in random order, are dealt to lanes. A lane takes ``together`` of its shards at a time and mixes their
    items; the lanes take turns. So up to ``lanes · together`` shards are mixed (all items where there are no more),
    and of P processes, where P divides ``lanes``, each reads from its own shards only, but for the ends of lanes.

    Args:
        shards: The shard of each item, shape ``(item,)``.
        random: Where randomness comes from.
        lanes: How many shards are read side by side.
        together: Shards of a lane whose items are mixed.

    Returns:
        A permutation, shape ``(item,)``.
    """
    _, shard = np.unique(shards, return_inverse=True)
    turn = random.permutation(int(shard.max(initial=-1)) + 1)[shard]
    lane, window = turn % lanes, turn // lanes // together
    mixed = np.lexsort((random.random(len(shard), dtype=np.float32), window, lane))
    starts = np.searchsorted(lane[mixed], np.arange(lanes))
    place = np.arange(len(mixed)) - starts[lane[mixed]]
    return mixed[np.lexsort((lane[mixed], place))]


class Shards(ImageDataModule):
    """Images in tar files as WebDataset lays them out, which :func:`write_shards` makes of any other source.

    Members of a tar file that share their name up to the first dot are an item: an image, and where given a ``.json``
    of its attributes (with ``name`` and ``split`` among them where wanted) and a ``.cls``, its class. What is where is
    kept in the folder ``index`` beside the shards, made on first use, and memory-mapped.

    Args:
        root: Folder of the tar files, or its address (``https://…``, ``gs://…``), which needs ``index`` there.
        size: Pixels that every image shall have, one number or height and width; default: those of the first image.
        fit: What to do with images of another size: ``error``, ``resize``, or ``pad`` with white.
        validation: Share of the training images that is held out where no attribute ``split`` names any.
        test: Share that is held out for the test where there is no attribute ``split``.
        split_seed: Seed of the split that these shares make.
        mean: Mean of each colour channel, for normalisation.
        std: Standard deviation of each colour channel, for normalisation.
        keep: Gigabytes of shards from an address that are kept in the cache folder; the oldest go first.
        batches: How batches are made.

    Raises:
        InputError: for an option that cannot be.
    """

    def __init__(
        self,
        root: str | Path = "data/shards",
        size: int | tuple[int, int] | None = None,
        fit: Literal["error", "resize", "pad"] = "error",
        validation: float = 0.1,
        test: float = 0.1,
        split_seed: int = 15,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
        keep: float = 100.0,
        batches: Batches = Batches(),
    ) -> None:
        super().__init__(batches, Normalisation(mean, std))
        check_shares(validation=validation, test=test)
        self.root, self.image_size, self.fit, self.keep = root, checked_size(size), fit, keep
        self.shares, self.split_seed = {"validation": validation, "test": test}, split_seed

    def prepare_data(self) -> None:
        """Find out what is where in the shards, in one process a machine."""
        self.setup()

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        files = ShardFiles(str(self.root), self.keep)
        index = read_or_make_index(files)
        size = self.image_size or _first_size(files, index)
        said = _said_splits(str(self.root), index)
        splits = said_or_drawn(str(self.root), said, len(index.names), self.shares, self.split_seed)
        attributes = {name: values for name, values in index.columns.items() if name != SPLIT}
        return Loaded(Items(index.names, attributes), ShardImages(files, index, size, self.fit), splits)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``class`` for a label, else one head an attribute.

        Raises:
            InputError: if nothing says how similar the images are.
        """
        return suggested_similarities(self.items, str(self.root))


def _said_splits(root: str, index: ShardIndex) -> NDArray[np.str_]:
    """Give what the attribute ``split`` means, empty where there is none or nothing is said of an item."""
    if SPLIT not in index.columns:
        return np.array([], dtype=np.str_)
    values, which = np.unique(index.columns[SPLIT], return_inverse=True)
    for value in values.tolist():
        if value and value not in SPLITS:
            raise InputError(f"Expected a split of the items in {root}, got {value!r}: {nearest(value, [*SPLITS])}")
    return np.array([SPLITS.get(value, "") for value in values.tolist()])[which]


def _first_size(files: ShardFiles, index: ShardIndex) -> tuple[int, int]:
    ((name, content),) = read_members(files, index.shards, index.places[:1])
    height, width, _ = decode_image(name, None, content=content).shape
    return height, width
