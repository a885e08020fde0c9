"""Data of the experiments on arrays: scikit-learn's digits, MNIST, word lists; what is missing is named."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simec_vision.items import InputError

Classified = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Features ``(item, feature)`` and classes ``(item,)``."""


@cache
def digits() -> Classified:
    """Give scikit-learn's 1797 digits of 8×8 pixels, 0 to 1, in their order, less their mean."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    return images / 16 - (images / 16).mean(axis=0), classes.astype(np.int64)


@cache
def mnist(root: str) -> Classified:
    """Read MNIST's 70,000 images, 0 to 1, sorted by class within both parts, as mldata.org once had them.

    Raises:
        InputError: if the files are not there.
    """
    from torchvision.datasets import MNIST

    images, classes = [], []
    for train in (True, False):
        try:
            part = MNIST(root, train=train, download=False)
        except (RuntimeError, ValueError, AssertionError) as error:  # the last two of damaged files
            raise InputError(
                f"Expected MNIST in {Path(root) / 'MNIST' / 'raw'}, but it is not there or damaged: name the folder "
                f"above MNIST by --root, or fetch it with torchvision.datasets.MNIST({root!r}, download=True)"
            ) from error
        order = np.argsort(part.targets.numpy(), kind="stable")
        images.append(part.data.numpy().reshape(-1, 784)[order] / 255)
        classes.append(part.targets.numpy()[order])
    return np.concatenate(images), np.concatenate(classes).astype(np.int64)


def check_there(parts: Sequence[str], root: str) -> None:
    """Read what parts of an experiment need from files, where the user learns at once what is missing.

    Raises:
        InputError: if MNIST or the newsgroups are among the parts and not there.
    """
    from simec_vision.experiments.newsgroups import newsgroups

    for part, read in (("mnist", mnist), ("newsgroups", newsgroups)):
        if part in parts:
            read(root)


def drawn(source: Classified, count: int, seed: int = 42) -> Classified:
    """Draw some items without replacement, as the original's notebooks did after seeding NumPy."""
    chosen = np.random.RandomState(seed).permutation(len(source[0]))[:count]
    return source[0][chosen], source[1][chosen]


def documents(root: str) -> list[str]:
    """Read 62 fairy tales of the Grimms and 62 NASA news releases of 2002 (both in the public domain).

    Raises:
        InputError: if the files are not there.
    """
    folder = Path(root) / "nonmetric"
    if not (folder / "grimm_all.txt").is_file() or not (folder / "nasa").is_dir():
        raise InputError(
            f"Expected the words' texts in {folder}: grimm_all.txt (Project Gutenberg 2591, tales 4 blank lines apart) "
            "and nasa/*.txt, both in data/nonmetric of https://github.com/cod3licious/simec; name the folder above "
            "nonmetric by --root"
        )
    tales = (folder / "grimm_all.txt").read_text(encoding="utf-8-sig").replace("\r", "")
    news = [path.read_text(encoding="utf-8", errors="replace") for path in sorted((folder / "nasa").glob("*.txt"))]
    return [*(tale for tale in re.split(r"\n{5,}", tales) if tale.strip()), *news]


def term_counts(texts: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
    """Count terms: lower case, digits as 1, letters, digits and hyphens kept; each document's counts over its largest.

    Returns:
        Counts ``(document, term)``, and the terms.
    """
    counted = [Counter(terms_of(text)) for text in texts]
    terms = sorted({term for counts in counted for term in counts})
    places = {term: place for place, term in enumerate(terms)}
    table = np.zeros((len(texts), len(terms)))
    for row, counts in zip(table, counted, strict=True):
        for term, count in counts.items():
            row[places[term]] = count / max(counts.values())
    return table, terms


def terms_of(text: str) -> list[str]:
    """Give a text's terms in their order: lower case, digits as 1, letters, digits and hyphens kept, addresses not."""
    import unicodedata

    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)).lower()
    plain = re.sub(r"(?:https?://|www\.)\S+", " ", plain)
    return re.sub(r"[^a-z0-9-]", " ", re.sub(r"[0-9]", "1", plain)).split()
