"""CIFAR-10: 60,000 photographs of 32 × 32 pixels in ten classes.

Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
"""

import pickle
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation
from simec_vision.datamodules.image_store import ImageStore
from simec_vision.datamodules.splits import check_shares, ordered_split
from simec_vision.items import InputError, Items
from simec_vision.similarities import SameClass, Similarity

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Class names in the order of the official labels 0 to 9."""

BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
PIXELS = 3 * 32 * 32


class _Archive(NamedTuple):
    """An unpacked archive: the files of its training batches and of its test batch."""

    train: list[Path]
    test: Path


class CIFAR10(ImageDataModule):
    """CIFAR-10 from its official binary or Python archive; similar means of the same class.

    The official test images are the test split. The training images are put into the order of
    ``RandomState(split_seed).permutation``, and the last of them are for validation: 45,000 and 5,000. An item
    is called ``train/00000`` or ``test/00000`` after its place in the archive; ``label`` is the name of its class.

    The Python archive consists of pickles. They are read by an unpickler that makes arrays, text and lists only, so no
    file can make it run anything; the binary archive needs none of this and is read where both are there.

    Args:
        root: Folder with ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.
        download: Fetch the Python archive (170 MB) where neither is there; its checksum is verified.
        validation: Share of the training images that is held out for validation.
        split_seed: Seed of the split.
        batches: How batches are made.

    Raises:
        InputError: for a share that cannot be.
    """

    def __init__(
        self,
        root: str | Path = "data/cifar10",
        download: bool = False,
        validation: float = 0.1,
        split_seed: int = 15,
        batches: Batches = Batches(),
    ) -> None:
        super().__init__(batches, Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
        check_shares(validation=validation)
        self.root, self.download, self.validation, self.split_seed = root, download, validation, split_seed

    def prepare_data(self) -> None:
        """Download the archive where that was asked for and none is there; one process a machine does this."""
        folder = Path(self.root).expanduser()
        if self.download and not any((folder / name).is_dir() for name in (BINARY, PYTHON)):
            download_cifar10(folder)

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        self.prepare_data()
        archive = _find(Path(self.root).expanduser())
        images, labels, num_train = _read(archive)
        names = [f"train/{i:05d}" for i in range(num_train)] + [f"test/{i:05d}" for i in range(len(labels) - num_train)]
        splits = ordered_split(np.arange(num_train), {"validation": self.validation}, self.split_seed)
        splits["test"] = np.arange(num_train, len(labels))
        return Loaded(Items(np.array(names), {"label": np.array(CLASSES)[labels]}), ImageStore(images), splits)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``class``: 1 between images of the same class, 0 otherwise."""
        return {"class": SameClass("label")}


def download_cifar10(folder: Path) -> None:
    """Download the official Python archive, verify its checksum and unpack it; the unpacked folder appears whole.

    Raises:
        InputError: if it cannot be fetched, or the checksum differs.
    """
    from torchvision.datasets import CIFAR10 as OFFICIAL
    from torchvision.datasets.utils import download_and_extract_archive

    unfinished = folder / ".unpacking"
    try:
        download_and_extract_archive(OFFICIAL.url, str(folder), str(unfinished), OFFICIAL.filename, OFFICIAL.tgz_md5)
        (unfinished / OFFICIAL.base_folder).rename(folder / PYTHON)
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(f"Expected to download CIFAR-10 from {OFFICIAL.url} to {folder}, got: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


# --- the archive ------------------------------------------------------------------------------------------------------


def _find(root: Path) -> _Archive:
    """Find the binary archive, or else the Python one, in or at a folder."""
    for name, suffix in ((BINARY, ".bin"), (PYTHON, "")):
        for folder in (root / name, root):
            if (folder / f"data_batch_1{suffix}").is_file() or (folder != root and folder.is_dir()):
                train = [folder / f"data_batch_{number}{suffix}" for number in range(1, 6)]
                return _complete(_Archive(train, folder / f"test_batch{suffix}"))
    hint = ". For class folders of images use ImageTable" if (root / "train").is_dir() else ""
    raise InputError(
        f"Expected CIFAR-10 in {root} ({BINARY}/data_batch_1.bin … or {PYTHON}/data_batch_1 …), got neither: unpack "
        f"cifar-10-binary.tar.gz or cifar-10-python.tar.gz there, or set download{hint}"
    )


def _complete(archive: _Archive) -> _Archive:
    missing = [file for file in (*archive.train, archive.test) if not file.is_file()]
    if missing:
        names = ", ".join(file.name for file in missing)
        raise InputError(
            f"Expected data_batch_1 to 5 and test_batch in {missing[0].parent}, which lacks {names}: unpack it again"
        )
    return archive


def _read(archive: _Archive) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Read all batches into one array.

    Returns:
        Images ``(item, height, width, channel)``, labels ``(item,)``, and how many, which are first, are for training.
    """
    files = [*archive.train, archive.test]
    room = sum(file.stat().st_size for file in files) // PIXELS  # memory that is never written to is never taken
    images, labels, starts = np.empty((room, 32, 32, 3), dtype=np.uint8), np.empty(room, dtype=np.int64), [0]
    for file in files:
        pixels, classes = _binary_batch(file) if file.suffix == ".bin" else _python_batch(file)
        filled = slice(starts[-1], starts[-1] + len(classes))
        images[filled] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels[filled] = classes
        starts.append(filled.stop)
    return images[: starts[-1]], labels[: starts[-1]], starts[-2]


def _binary_batch(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read records of one byte for the label and 3 × 32 × 32 bytes of red, green and blue."""
    content = np.fromfile(file, dtype=np.uint8)
    if not len(content) or len(content) % (PIXELS + 1):
        raise InputError(f"Expected records of {PIXELS + 1} bytes in {file}, got {len(content)} bytes: unpack it again")
    records = content.reshape(-1, PIXELS + 1)
    return records[:, 1:], _checked_labels(file, records[:, 0].astype(np.int64))


def _python_batch(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a pickled dictionary with ``data`` of shape ``(item, 3072)`` and ``labels``."""
    content = read_plain_pickle(file)
    data, labels = (content.get("data"), content.get("labels")) if isinstance(content, dict) else (None, None)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (PIXELS,):
        raise InputError(f"Expected uint8 data of shape (item, pixel) = (…, {PIXELS}) in {file}: unpack it again")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(isinstance(v, int) for v in labels):
        raise InputError(f"Expected a list of {len(data)} labels, one an image, in {file}: unpack it again")
    return data, _checked_labels(file, np.array(labels, dtype=np.int64))


def _checked_labels(file: Path, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        raise InputError(
            f"Expected labels from 0 to 9 in {file}, got {labels[wrong[0]]} for image {wrong[0]}: is this CIFAR-100?"
        )
    return labels


# --- pickles that can only hold data ----------------------------------------------------------------------------------


def read_plain_pickle(file: Path) -> Any:
    """Read a pickle of numbers, text, lists, dictionaries and arrays, as Python 2 and 3 write them.

    Raises:
        InputError: if the pickle asks for anything else, which could run a program, or is damaged.
    """
    try:
        with open(file, "rb") as opened:
            return _PlainUnpickler(opened, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{error} in {file}: this is not the official archive, do not use it") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"Expected a batch of CIFAR-10 in {file}, which is damaged ({error}): unpack it again"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows only what the pickle of an array needs."""

    def find_class(self, module: str, name: str) -> Any:
        """Give one of the known makers of arrays, whatever the pickle asks for."""
        if (module, name) not in _MAKERS:
            raise InputError(f"Expected a pickle of arrays, lists and text only, got {module}.{name}")
        return _MAKERS[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """Turn text into the bytes that it stands for; Python 3 writes bytes so for Python 2."""
    if encoding != "latin1":
        raise InputError(f"Expected bytes written as latin1, got {encoding!r}")
    return text.encode("latin1")


_MAKERS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("_codecs", "encode"): _latin1,
}
"""What a pickle of an array asks for, before and after NumPy 2."""
