"""From image files to RGB pixels of one size, many at a time in threads."""

import io
import math
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import get_worker_info

from simec_vision.items import InputError


def decode_image(
    path: Path, size: tuple[int, int] | None, fit: str = "error", content: bytes | None = None
) -> NDArray[np.uint8]:
    """Decode an image file to RGB; transparency is laid on white, grey becomes three equal channels.

    Args:
        path: The file.
        size: Height and width that is expected; default: as it is.
        fit: For another size: ``error``, ``resize`` to it, ``pad`` with white (centred, after shrinking if larger), or
            ``square``: pad with white to a square, then resize.
        content: What is in the file, where it has been read already.

    Returns:
        uint8 of shape ``(height, width, 3)``.

    Raises:
        InputError: naming the file that is no image, is damaged, or has another size.
    """
    wanted = (size[1], size[0]) if size is not None and fit in FITS else None
    image = opened(path, wanted, content)
    if size is None or (image.height, image.width) == tuple(size):
        return np.asarray(image)
    if fit not in FITS:
        raise InputError(
            f"Expected {path} to be {size[1]} x {size[0]} pixels like the others, got {image.width} x {image.height}. "
            "Give a size and fit=resize or fit=pad to bring all to one size"
        )
    return np.asarray(FITS[fit](image, (size[1], size[0])))


def opened(path: Path, wanted: tuple[int, int] | None = None, content: bytes | None = None) -> Image.Image:
    """Open an image as RGB.

    Args:
        path: The file.
        wanted: Width and height that it will be brought to. A JPEG of more than twice these is decoded to a half, a
            quarter or an eighth, never below twice these, which is several times as fast.
        content: What is in the file, where it has been read already.

    Raises:
        InputError: naming the file that is no image or is damaged.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            if wanted is not None:
                image.draft("RGB", (2 * wanted[0], 2 * wanted[1]))
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


def empty_batch(shape: tuple[int, ...]) -> Tensor:
    """Make room for a uint8 batch; in a loader's worker in shared memory, so that handing it over copies nothing."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's default_collate does
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def decode_into(images: NDArray[np.uint8], sources: Sequence[Any], decode: Callable[[Any], NDArray[np.uint8]]) -> None:
    """Decode images into rows of an array, in threads, as decoders release the interpreter lock.

    Args:
        images: Where to, shape ``(image, height, width, channel)``.
        sources: Where each image comes from.
        decode: Source → uint8 of shape ``(height, width, channel)``.

    Raises:
        InputError: of the first image that cannot be decoded, and how many others there are.
    """

    def some_rows(start: int) -> list[tuple[int, str]]:
        rows = range(start, len(images), parts)
        return [(row, fault) for row in rows if (fault := _decode_row(images, row, sources, decode))]

    threads = decoding_threads()
    parts = min(len(images), 8 * threads) if threads > 1 else 1  # a task a row would cost more than a small image
    if parts <= 1:
        failures = some_rows(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            failures = sorted(failure for part in pool.map(some_rows, range(parts)) for failure in part)
    if failures:
        more = f" ({len(failures) - 1} more of the {len(images)} images cannot be used either)" if failures[1:] else ""
        raise InputError(failures[0][1] + more)


def _decode_row(
    images: NDArray[np.uint8], row: int, sources: Sequence[Any], decode: Callable[[Any], NDArray[np.uint8]]
) -> str | None:
    try:
        images[row] = decode(sources[row])
    except InputError as error:
        return str(error)
    return None


def decoding_threads() -> int:
    """Share the processor's cores among the worker processes that decode at the same time."""
    worker = get_worker_info()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (worker.num_workers if worker else 1))
