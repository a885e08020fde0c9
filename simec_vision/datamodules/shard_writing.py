"""Writing any source of images as shards."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.datamodules.shard_files import webdataset
from simec_vision.datamodules.shard_index import NAME, SPLIT, make_index
from simec_vision.files import new_folder
from simec_vision.items import InputError

AT_A_TIME = 256
"""Images that are fetched together."""


def write_shards(
    data: ImageDataModule,
    root: str | Path,
    per_shard: int = 10_000,
    suffix: Literal[".png", ".jpg"] = ".png",
    seed: int = 0,
) -> None:
    """Write the images of a source, their attributes and splits as shards for ``Shards`` to read; all or nothing.

    Items come in a random order, so that shards read at the same time are a fair sample of all.

    Args:
        data: The source.
        root: The folder to make; it must not exist or be empty.
        per_shard: Items in a tar file.
        suffix: ``.png`` keeps every pixel; ``.jpg`` (quality 95) is several times smaller and faster to decode.
        seed: Seed of the order.

    Raises:
        InputError: if the folder holds anything, an attribute is called ``name`` or ``split``, or there is no library.
    """
    library = webdataset()
    for taken in (NAME, SPLIT):
        if taken in data.items.columns:
            raise InputError(f"Expected no attribute {taken!r}, under which shards keep something else: rename it")
    splits = _splits(data)
    order = np.random.default_rng(seed).permutation(len(data.items))
    with new_folder(Path(root)) as unfinished:
        pattern = str(unfinished).replace("%", "%%") + "/shard-%06d.tar"
        with library.ShardWriter(pattern, per_shard, maxsize=1e15, verbose=0, encoder=False, mtime=0) as writer:
            for item, image in _images(data, order):
                said = json.dumps({**_attributes(data, item), SPLIT: str(splits[item])}).encode()
                writer.write({"__key__": f"{item:09d}", suffix[1:]: _encoded(image, suffix), "json": said})
        make_index(unfinished)


def _images(data: ImageDataModule, order: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for start in range(0, len(order), AT_A_TIME):
        items = order[start : start + AT_A_TIME]
        yield from zip(items.tolist(), data.images(items), strict=True)


def _encoded(image: NDArray[np.uint8], suffix: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, {".png": "png", ".jpg": "jpeg"}[suffix], quality=95)
    return content.getvalue()


def _attributes(data: ImageDataModule, item: int) -> dict[str, Any]:
    columns = {name: _plain(values[item]) for name, values in data.items.columns.items()}
    return {NAME: str(data.items.names[item]), **columns}


def _plain(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain


def _splits(data: ImageDataModule) -> NDArray[np.str_]:
    """Give the name of each item's split, empty where it is in none."""
    names = np.full(len(data.items), "", dtype="U10")
    for name, items in data.loaded.splits.items():
        names[items] = name
    return names
