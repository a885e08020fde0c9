"""Where uint8 images lie: in memory, in a memory-mapped cache file, or in their own files; always whole batches."""

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.datamodules.decoding import decode_image, decode_into, empty_batch, opened
from simec_vision.files import cache_folder, replacing
from simec_vision.items import InputError

MEMORY_LIMIT = 4_000_000_000
"""Bytes up to which images are decoded once into one array; larger sets are read from their files batch by batch."""

DECODING = 2
"""Version of the decoding; part of the cache file's key, so raise it whenever it changes a pixel."""

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
"""How the names of image files end, in small letters."""


RELEASED = 2**28
"""Bytes of a mapped file that may become resident before its pages are let go."""

AROUND = 2**21
"""Bytes that Linux may make resident around every place that is read, where it has them in memory."""


class ImageSource(Protocol):
    """Gives uint8 images by index, whole batches at a time."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """Give images as uint8 of shape ``(batch, channel, height, width)``, channels last in memory."""
        ...


class ImageStore:
    """Images decoded once, in one array.

    Args:
        images: uint8 of shape ``(item, height, width, channel)``, in memory or memory-mapped.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images, self._fetched = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getstate__(self) -> dict[str, Any]:
        """Let a worker process map the file itself: pickled, a memory-mapped array would become a copy of all of it."""
        place = mapped_place(self.images)
        return {"images": self.images} if place is None else {"place": place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ImageStore.__init__(self, state["images"] if "images" in state else mapped(*state["place"]))

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """See :class:`ImageSource`."""
        # Stored with channels last, a batch is one gather, and permuting it costs nothing.
        batch = np.ascontiguousarray(self.images[index])
        self._fetched += max(batch.nbytes, AROUND * len(index))
        if self._fetched > RELEASED:
            self._fetched = 0
            release(self.images)
        return torch.from_numpy(batch).permute(0, 3, 1, 2)


Place = tuple[str, int, tuple[int, ...], tuple[int, ...]]
"""Where in a file an array of bytes lies: path, first byte, shape and strides."""


def mapped_place(array: NDArray[np.uint8]) -> Place | None:
    """Find where in its file a memory-mapped array, or a view of one, lies; None for one in memory."""
    if not isinstance(array, np.memmap) or getattr(array, "_mmap", None) is None:
        return None
    whole = np.frombuffer(array._mmap, dtype=np.uint8)  # type: ignore[attr-defined]
    start = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    return str(array.filename), start + array.ctypes.data - whole.ctypes.data, array.shape, array.strides


def release(array: NDArray[np.uint8]) -> None:
    """Let go of the pages of a memory-mapped, read-only array, so that resident memory does not grow with its file.

    The system keeps them as long as nobody else needs the memory.
    """
    if mapped_place(array) is not None and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def mapped(path: str, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[np.uint8]:
    """Memory-map what :func:`mapped_place` found, read-only."""
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    return np.lib.stride_tricks.as_strided(whole[start:], shape, strides, subok=True, writeable=False)


class ImageFiles:
    """Images read from their files whenever they are fetched, for sets larger than memory.

    Args:
        paths: One file an item.
        shape: Height, width and channels of the images.
        decode: Path → uint8 of that shape.
    """

    def __init__(
        self, paths: Sequence[Path], shape: tuple[int, int, int], decode: Callable[[Path], NDArray[np.uint8]]
    ) -> None:
        self.paths, self.shape, self.decode = paths, shape, decode

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """See :class:`ImageSource`."""
        images = empty_batch((len(index), *self.shape))
        decode_into(images.numpy(), [self.paths[i] for i in index], self.decode)
        return images.permute(0, 3, 1, 2)


def find_images(folder: Path) -> list[Path]:
    """Find the image files in a folder and below it, sorted by path; hidden files and folders are left out."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES and name[0] != "."]
        found += [os.path.join(parent, name) for name in images]
    return [Path(path) for path in sorted(found)]


def some(names: Sequence[object], shown: int = 3) -> str:
    """List the first few names and count the others: ``a, b, c and 4 more``."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more


def content_key(options: dict[str, object], paths: Sequence[Path] = ()) -> str:
    """Make a key that changes with the options and with any file's name, size or modification time."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:20]


def store_name(kind: str, root: Path) -> str:
    """Name the cache file of the images below a folder, so that no two folders share one."""
    return f"{kind}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]}"


def cached_array(
    name: str, key: str, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], None], folder: Path | None = None
) -> NDArray[np.uint8]:
    """Memory-map a cache file, made first if there is none with this key; it replaces older ones of the name.

    Args:
        name: What the array is, the stem of its file name.
        key: From :func:`content_key`.
        shape: Shape of the array.
        fill: Writes the content into the empty array.
        folder: Where cache files lie; default: :func:`cache_folder`.

    Returns:
        A read-only memory-mapped uint8 array.

    Raises:
        InputError: if the folder cannot be written to or has too little room.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / f"{name}-{key}.npy"
    with suppress(FileNotFoundError, NotADirectoryError):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    _check_room(folder, int(np.prod(shape, dtype=np.int64)))
    with FileLock(folder / f".{name}.lock"):  # of several processes, one makes it and the others wait
        if not path.exists():
            _make_array(path, shape, fill)
        _remove_others(path, name)
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _make_array(path: Path, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], None]) -> None:
    with replacing(path) as unfinished:
        array = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        fill(array)
        array.flush()


def _check_room(folder: Path, needed: int) -> None:
    """Check before a cache file is written: a memory-mapped file on a full disk ends the process without a word."""
    way_out = "Set SIMEC_VISION_CACHE to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(f"Expected to keep decoded images in {folder}: {error}. {way_out}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"Expected to keep decoded images in {folder}, which cannot be written to. {way_out}")
    if free < needed:
        raise InputError(f"Expected {needed:,} free bytes for decoded images in {folder}, got {free:,}. {way_out}")


def _remove_others(path: Path, name: str) -> None:
    for old in path.parent.glob(f"{name}-{'[0-9a-f]' * 20}.npy"):
        if old != path:
            old.unlink(missing_ok=True)


def open_images(
    name: str,
    paths: Sequence[Path],
    size: tuple[int, int] | None = None,
    fit: str = "error",
    cache: bool = True,
    limit: int = MEMORY_LIMIT,
) -> ImageSource:
    """Open image files: decoded once into a cache file where they fit, read batch by batch where they do not.

    Args:
        name: What the images are, for the name of the cache file: from :func:`store_name`.
        paths: One file an item.
        size: Height and width; default: that of the first image, which all others must have too.
        fit: What to do with other sizes, see :func:`decode_image`.
        cache: Keep the decoded images in a cache file; otherwise in memory.
        limit: Bytes up to which the images are decoded once.

    Returns:
        A source of the images in the order of ``paths``.

    Raises:
        InputError: naming the first files that are no image, are damaged, or have another size, and counting them;
            for images that are read batch by batch when they are read.
    """
    if size is None:
        first = opened(paths[0])
        size = (first.height, first.width)
    shape = (len(paths), *size, 3)
    decode = partial(decode_image, size=size, fit=fit)
    if np.prod(shape, dtype=np.int64) > limit:
        return ImageFiles(paths, (*size, 3), decode)
    if not cache:
        images = np.empty(shape, dtype=np.uint8)
        decode_into(images, paths, decode)
        return ImageStore(images)
    key = content_key({"size": size, "fit": fit, "decoding": DECODING}, paths)
    name = f"{name}-{size[0]}x{size[1]}-{fit}"  # another size does not replace this one, which may be in use
    return ImageStore(cached_array(name, key, shape, lambda array: decode_into(array, paths, decode)))
