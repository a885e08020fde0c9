"""Where uint8 images lie: in memory, in a memory-mapped cache file, or in their own files; always whole batches."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.files import replacing
from simec_vision.items import InputError

MEMORY_LIMIT = 2 * 2**30
"""Bytes up to which images are decoded once into one array; larger sets are read from their files batch by batch."""


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


def cache_folder() -> Path:
    """Give the folder of cache files: ``$SIMEC_VISION_CACHE``, or ``simec_vision`` in the user's cache folder."""
    own = os.environ.get("SIMEC_VISION_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "simec_vision"


def content_key(options: dict[str, object], paths: Sequence[Path] = ()) -> str:
    """Make a key that changes with the options and with any file's name, size or modification time."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]


def cached_array(
    name: str, key: str, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], None], folder: Path | None = None
) -> NDArray[np.uint8]:
    """Memory-map a cache file, made first if there is none with this key; older ones of the name are removed.

    Args:
        name: What the array is, the stem of its file name.
        key: From :func:`content_key`.
        shape: Shape of the array.
        fill: Writes the content into the empty array.
        folder: Where cache files lie; default: :func:`cache_folder`.

    Returns:
        A read-only memory-mapped uint8 array.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / f"{name}-{key}.npy"
    if not path.exists():
        _remove_stale(folder, name)
        with replacing(path) as partial:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            fill(array)
            array.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _remove_stale(folder: Path, name: str) -> None:
    for old in folder.glob(f"{name}-{'[0-9a-f]' * 20}.npy"):
        old.unlink(missing_ok=True)


def decode_image(path: Path, size: tuple[int, int] | None, fit: str = "error") -> NDArray[np.uint8]:
    """Decode an image file to RGB; transparency is laid on white, grey becomes three equal channels.

    Args:
        path: The file.
        size: Height and width that is expected; default: as it is.
        fit: For another size: ``error``, ``resize`` to it, or ``pad`` with white (centred, after shrinking if larger).

    Returns:
        uint8 of shape ``(height, width, 3)``.

    Raises:
        InputError: naming the file that is no image, is damaged, or has another size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return _fitted(_on_white(image), path, size, fit)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        detail = "no image format is recognised" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"Expected an image in {path}: {detail}") from error


def _on_white(image):  # type: ignore[no-untyped-def]  # Pillow is imported only where an image is decoded
    from PIL import Image

    if not (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _fitted(image, path: Path, size: tuple[int, int] | None, fit: str) -> NDArray[np.uint8]:  # type: ignore[no-untyped-def]
    from PIL import Image, ImageOps

    if size is None or (image.height, image.width) == tuple(size):
        return np.asarray(image)
    if fit == "resize":
        return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    if fit == "pad":
        return np.asarray(ImageOps.pad(image, (size[1], size[0]), color="white") if _larger(image, size) else _padded(image, size))
    raise InputError(
        f"Expected {path} to be {size[1]}×{size[0]} pixels as the first image, got {image.width}×{image.height}. "
        "Give a size and fit=resize or fit=pad to bring all to one size"
    )


def _larger(image, size: tuple[int, int]) -> bool:  # type: ignore[no-untyped-def]
    return image.height > size[0] or image.width > size[1]


def _padded(image, size: tuple[int, int]):  # type: ignore[no-untyped-def]
    from PIL import Image

    canvas = Image.new("RGB", (size[1], size[0]), "white")
    canvas.paste(image, ((size[1] - image.width) // 2, (size[0] - image.height) // 2))
    return canvas


def open_images(
    name: str, paths: Sequence[Path], size: tuple[int, int] | None = None, fit: str = "error", cache: bool = True
) -> ImageSource:
    """Open image files: decoded once into a cache file where they fit, read batch by batch where they do not.

    Args:
        name: What the images are, for the name of the cache file.
        paths: One file an item.
        size: Height and width; default: that of the first image, which all others must have too.
        fit: What to do with other sizes, see :func:`decode_image`.
        cache: Keep the decoded images in a cache file; otherwise in memory.

    Returns:
        A source of the images in the order of ``paths``.
    """
    if size is None:
        size = decode_image(paths[0], None).shape[:2]
    shape = (len(paths), *size, 3)
    if np.prod(shape, dtype=np.int64) > MEMORY_LIMIT:
        return ImageFiles(paths, lambda path: decode_image(path, size, fit))
    if not cache:
        images = np.empty(shape, dtype=np.uint8)
        _decode_into(images, paths, size, fit)
        return ImageStore(images)
    key = content_key({"size": size, "fit": fit}, paths)
    return ImageStore(cached_array(name, key, shape, lambda array: _decode_into(array, paths, size, fit)))


def _decode_into(images: NDArray[np.uint8], paths: Sequence[Path], size: tuple[int, int], fit: str) -> None:
    """Decode files into rows of an array; threads help, as decoders release the interpreter lock."""
    with ThreadPoolExecutor() as pool:
        for row, image in enumerate(pool.map(lambda path: decode_image(path, size, fit), paths)):
            images[row] = image
