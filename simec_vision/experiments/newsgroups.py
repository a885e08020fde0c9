"""Seven of the 20 newsgroups as counts of words and of frequent pairs of words, from files that are there already."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.sources import terms_of
from simec_vision.items import InputError

GROUPS = (
    "comp.graphics", "rec.autos", "rec.sport.baseball", "sci.med", "sci.space", "soc.religion.christian",
    "talk.politics.guns",
)  # fmt: skip
PAIR_COUNT, PAIR_SHARE = 2, 0.1
"""A pair is a term if it comes more often than the first, and more than this share of its more frequent word."""

Split = tuple[list[str], NDArray[np.int64]]
"""Texts, and the number of the group of each."""


@cache
def newsgroups(root: str) -> tuple[Any, NDArray[np.int64], Any, NDArray[np.int64]]:
    """Read the posts' features ``(post, term)``, sparse, and groups, those of the training set and of the test set.

    Headers, footers and quotes are taken out, and posts of at most three words left out.

    Raises:
        InputError: if the files are not there.
    """
    (train, groups), (new, others) = (_long_enough(*read_posts(Path(root), which)) for which in ("train", "test"))
    features, held_out = text_features(train, new)
    return features, groups, held_out, others


def read_posts(root: Path, which: str) -> Split:
    """Read the posts of a split in the order in which scikit-learn's ``fetch_20newsgroups(random_state=42)`` has them.

    It shuffles all 20 groups with seed 0, and those that are chosen again.

    Raises:
        InputError: if the folder, or one of a chosen group in it, is not there.
    """
    from sklearn.datasets import load_files

    name = f"20news-bydate-{which}"
    folder = next((path for path in (root / name, root / "20news-bydate" / name) if path.is_dir()), None)
    if folder is None:
        raise InputError(
            f"Expected the folders 20news-bydate-train and 20news-bydate-test in {root}: unpack 20news-bydate.tar.gz "
            "from http://qwone.com/~jason/20Newsgroups there, or name the folder above them by --root"
        )
    missing = [group for group in GROUPS if not (folder / group).is_dir()]
    if missing:
        raise InputError(f"Expected a folder for each newsgroup, but {folder} has no {', '.join(missing)}")
    found = load_files(folder, encoding="latin1", random_state=0)
    groups = np.array([GROUPS.index(name) if name in GROUPS else -1 for name in found.target_names])[found.target]
    chosen = np.flatnonzero(groups >= 0)
    np.random.RandomState(42).shuffle(chosen)
    return [_body(found.data[place]) for place in chosen], groups[chosen]


def _body(text: str) -> str:
    from sklearn.datasets import _twenty_newsgroups as cleaning

    return cleaning.strip_newsgroup_quoting(cleaning.strip_newsgroup_footer(cleaning.strip_newsgroup_header(text)))


def _long_enough(texts: Sequence[str], groups: NDArray[np.int64]) -> Split:
    kept = [place for place, text in enumerate(texts) if len(text.split()) > 3]
    return [texts[place] for place in kept], groups[kept]


def text_features(train: Sequence[str], new: Sequence[str]) -> tuple[Any, Any]:
    """Count terms in texts, weigh rare ones up, and divide each text by its largest.

    A weight is log(number of training texts / those with the term), over the largest such. Terms that no training text
    has are left out.

    Args:
        train: Texts that terms are taken from.
        new: Other texts.

    Returns:
        Features of both, sparse, shape ``(text, term)``.
    """
    words = [terms_of(text) for text in train]
    pairs = frequent_pairs(words)
    counts = [Counter(joined(one, pairs)) for one in words]
    documents = Counter(term for count in counts for term in count)
    places = {term: place for place, term in enumerate(sorted(documents))}
    weights = np.array([log(len(train) / documents[term]) for term in places])
    weights /= weights.max()
    others = [Counter(joined(terms_of(text), pairs)) for text in new]
    return _weighted(counts, places, weights), _weighted(others, places, weights)


def frequent_pairs(texts: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    """Find the pairs of neighbouring words that are terms of their own."""
    single = Counter(word for text in texts for word in text)
    double = Counter(pair for text in texts for pair in pairwise(text))
    return {
        (one, other)
        for (one, other), count in double.items()
        if count > PAIR_COUNT and count / max(single[one], single[other]) > PAIR_SHARE
    }


def joined(words: Sequence[str], pairs: set[tuple[str, str]]) -> list[str]:
    """Write frequent pairs as one term, from the left."""
    terms: list[str] = []
    place = 0
    while place < len(words):
        pair = tuple(words[place : place + 2])
        terms.append("_".join(pair) if pair in pairs else words[place])
        place += 2 if pair in pairs else 1
    return terms


def _weighted(counts: Sequence[Counter[str]], places: dict[str, int], weights: NDArray[np.float64]) -> Any:
    """Weigh counts, each text's over its largest before and after."""
    from scipy import sparse

    table = sparse.lil_matrix((len(counts), len(places)))
    for row, count in enumerate(counts):
        known = {places[term]: number for term, number in count.items() if term in places}
        values = np.array([*known.values()], dtype=float) / max(count.values(), default=1) * weights[[*known]]
        largest = values.max(initial=0.0)
        for place, value in zip(known, values / (largest or 1.0), strict=True):
            table[row, place] = value
    return table.tocsr()
