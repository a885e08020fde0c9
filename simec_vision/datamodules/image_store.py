"""Where uint8 images lie: in memory, in a memory-mapped cache file, or in their own files; always whole batches."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from simec_vision.files import replacing
from simec_vision.items import InputError

MEMORY_LIMIT = 4 * 2**30
"""Bytes up to which images are decoded once into one array; larger sets are read from their files batch by batch."""

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
"""How the names of image files end, in small letters."""


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
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """See :class:`ImageSource`."""
        # Stored with channels last, a batch is one gather, and permuting it costs nothing.
        return torch.from_numpy(np.ascontiguousarray(self.images[index])).permute(0, 3, 1, 2)


class ImageFiles:
    """Images read from their files whenever they are fetched, for sets larger than memory.

    Args:
        paths: One file an item.
        decode: Path → uint8 of shape ``(height, width, channel)``.
    """

    def __init__(self, paths: Sequence[Path], decode: Callable[[Path], NDArray[np.uint8]]) -> None:
        self.paths, self.decode = paths, decode

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """See :class:`ImageSource`."""
        images = np.stack([self.decode(self.paths[i]) for i in index])
        return torch.from_numpy(images).permute(0, 3, 1, 2)


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


def cache_folder() -> Path:
    """Give the folder of cache files: ``$SIMEC_VISION_CACHE``, or ``simec_vision`` in the user's cache folder."""
    own = os.environ.get("SIMEC_VISION_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "simec_vision"


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
    if not path.exists():
        _check_room(folder, int(np.prod(shape, dtype=np.int64)))
        with replacing(path) as unfinished:
            array = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
            fill(array)
            array.flush()
        _remove_others(path, name)
    return np.load(path, mmap_mode="r", allow_pickle=False)


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


def decode_image(path: Path, size: tuple[int, int] | None, fit: str = "error") -> NDArray[np.uint8]:
    """Decode an image file to RGB; transparency is laid on white, grey becomes three equal channels.

    Args:
        path: The file.
        size: Height and width that is expected; default: as it is.
        fit: For another size: ``error``, ``resize`` to it, ``pad`` with white (centred, after shrinking if larger), or
            ``square``: pad with white to a square, then resize.

    Returns:
        uint8 of shape ``(height, width, 3)``.

    Raises:
        InputError: naming the file that is no image, is damaged, or has another size.
    """
    image = _opened(path)
    if size is None or (image.height, image.width) == tuple(size):
        return np.asarray(image)
    if fit not in FITS:
        raise InputError(
            f"Expected {path} to be {size[1]} x {size[0]} pixels like the others, got {image.width} x {image.height}. "
            "Give a size and fit=resize or fit=pad to bring all to one size"
        )
    return np.asarray(FITS[fit](image, (size[1], size[0])))


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return _on_white(image)
    except UnidentifiedImageError as error:
        raise InputError(f"Expected an image in {path}: no image format is recognised") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"Expected an image in {path}: {error}") from error


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255 instead of scaling them
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.width > size[0] or image.height > size[1]:
        return ImageOps.pad(image, size, color="white")
    canvas = Image.new("RGB", size, "white")
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def _squared(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    side = max(image.size)
    square = _padded(image, (side, side))
    return square if square.size == size else _resized(square, size)


FITS: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "resize": _resized,
    "pad": _padded,
    "square": _squared,
}
"""Ways to bring an image to a width and height."""


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
        first = _opened(paths[0])
        size = (first.height, first.width)
    shape = (len(paths), *size, 3)
    decode = partial(decode_image, size=size, fit=fit)
    if np.prod(shape, dtype=np.int64) > limit:
        return ImageFiles(paths, decode)
    if not cache:
        images = np.empty(shape, dtype=np.uint8)
        _decode_into(images, paths, decode)
        return ImageStore(images)
    key = content_key({"size": size, "fit": fit}, paths)
    return ImageStore(cached_array(name, key, shape, lambda array: _decode_into(array, paths, decode)))


def _decode_into(images: NDArray[np.uint8], paths: Sequence[Path], decode: Callable[[Path], NDArray[np.uint8]]) -> None:
    """Decode files into rows of an array; threads help, as decoders release the interpreter lock."""

    def row(number: int) -> str | None:
        try:
            images[number] = decode(paths[number])
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        failures = [failure for failure in pool.map(row, range(len(paths))) if failure]
    if failures:
        more = f" ({len(failures) - 1} more of the {len(paths)} images cannot be used either)" if failures[1:] else ""
        raise InputError(failures[0] + more)
