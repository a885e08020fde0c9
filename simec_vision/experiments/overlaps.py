"""Digits 0 and 7 by the overlap of their ink, which is no inner product: the data, and cells that learn it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.embedding_cells import SHOWN
from simec_vision.experiments.figures import Map
from simec_vision.experiments.results import error
from simec_vision.experiments.sources import digits, drawn, mnist
from simec_vision.kernels import centre_blocks, simpson, split_by_sign

COUNT = 5000
"""Digits that the original drew."""
SIGNS = ("S1", "S2")
"""What the similarities of the positive eigenvalues are called, and those of the negative ones."""
HIDDEN = 200
L2: dict[str, Any] = {"l2_hidden": 1e-7, "l2_embedding": 1e-4, "l2_head": 1e-7}
"""The original's settings."""


@dataclass(frozen=True)
class Overlaps:
    """Digits 0 and 7, and how they overlap.

    Args:
        features: Pixels of the digits that are learned from, less their mean, shape ``(item, pixel)``.
        held_out: Those of held-out digits, less the same mean.
        classes: Of the digits that are learned from, shape ``(item,)``.
        ink: Share of their pixels that is ink, shape ``(item,)``.
        similarity: |a ∩ b| / min(|a|, |b|) of their ink, centred, shape ``(item, item)``.
        block: The same of held-out digits to these, by the same mean.
    """

    features: NDArray[np.float64]
    held_out: NDArray[np.float64]
    classes: NDArray[np.int64]
    ink: NDArray[np.float64]
    similarity: NDArray[np.float64]
    block: NDArray[np.float64]


@cache
def overlaps(root: str | None, more: int = 0) -> Overlaps:
    """Draw 5000 digits 0 and 7, and compare them.

    Args:
        root: Folder of MNIST/raw; None takes the few of scikit-learn's digits.
        more: So many others are held out; 0 holds out the first fifth of the 5000.
    """
    images, classes = digits() if root is None else mnist(root)
    chosen = np.isin(classes, (0, 7))
    images, classes = images[chosen], classes[chosen]
    if root is None:
        images = images - images.min(axis=0)
    images, classes = drawn((images, classes), COUNT + more)
    ink = (images >= 0.5 if root else images >= images.mean()).astype(np.float64)
    place = np.arange(len(ink))
    held = place >= COUNT if more else place < len(ink) // 5
    similarity, block = centre_blocks(simpson(ink[~held]), simpson(ink[held], ink[~held]))
    assert block is not None
    features = images - images[~held].mean(axis=0)
    return Overlaps(features[~held], features[held], classes[~held], ink[~held].mean(axis=1), similarity, block)


@cache
def eigen(root: str | None, more: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give eigenvalues, the smallest first, and eigenvectors of the similarities."""
    return np.linalg.eigh(overlaps(root, more).similarity)


@cache
def by_sign(root: str | None, more: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split the similarities into S1 − S2 by the sign of their eigenvalues."""
    return split_by_sign(overlaps(root, more).similarity)


@cache
def scaled(root: str | None, more: int) -> dict[str, NDArray[np.float64]]:
    """Give S1 and S2, each over its largest eigenvalue, and then both over their largest absolute entry."""
    values = eigen(root, more)[0]
    signs = [part / size for part, size in zip(by_sign(root, more), (values[-1], -values[0]), strict=True)]
    largest = max(np.abs(part).max() for part in signs)
    return {name: part / largest for name, part in zip(SIGNS, signs, strict=True)}


def digits_eigenvalue(place: int, root: str | None, seed: int, more: int = 0) -> dict[str, float]:
    """Give one eigenvalue by its place from the largest (1) or the smallest (−1)."""
    return {"value": eigen(root, more)[0][-place if place > 0 else -1 - place]}


def decomposed(dim: int, root: str | None, signed: bool, seed: int, more: int = 0) -> dict[str, float]:
    """Measure eigenvectors: the largest with their inner products, or those largest by |λ| with their signs.

    Held-out digits are projected on them, which takes their similarities to all others.
    """
    given = overlaps(root, more)
    values, vectors = eigen(root, more)
    order = np.argsort(-np.abs(values) if signed else -values, kind="stable")[:dim]
    weights = values[order] if signed else np.abs(values[order])
    chosen = vectors[:, order]
    return {
        "train": error((chosen * weights) @ chosen.T, given.similarity),
        "test": error(given.block @ (chosen * (weights / values[order])) @ chosen.T, given.block),
    }


def encoded_digits(dim: int, root: str | None, original: bool, seed: int, more: int = 0) -> dict[str, float]:
    """Measure predicted similarities to all training digits, of these and of held-out ones."""
    from simec_vision.estimator import SimilarityEncoder

    given = overlaps(root, more)
    options: dict[str, Any] = {"gram_penalty": 0.0, "epochs": 25 if root else 100}
    if original:
        options = {"recipe": "keras", "lr": 8e-4, "epochs": 25, **L2}
    made = SimilarityEncoder(dim, hidden=[HIDDEN], seed=seed, **options).fit(given.features, given.similarity)
    return {
        "train": error(made.predict(given.features), given.similarity),
        "test": error(made.predict(given.held_out), given.block),
    }


def mapped(embedding: NDArray[Any], root: str | None, more: int) -> dict[str, Any]:
    """Keep a map, and say how well its coordinates tell the class and how much ink there is, as shares of variance."""
    given = overlaps(root, more)
    told = {"class": told_by(embedding, given.classes), "ink": told_by(embedding, given.ink)}
    shown = {"points": embedding, "classes": given.classes, "weights": given.ink}
    return told | {name: array[:SHOWN] for name, array in shown.items()}


def class_and_ink(shown: Mapping[str, Mapping[str, NDArray[Any]]]) -> list[Map]:
    """Give each map, title → the arrays of :func:`mapped`, by class, and then each by ink."""
    by_class = [Map(f"{title}: class", a["points"], a["classes"], names="07") for title, a in shown.items()]
    return by_class + [Map(f"{title}: ink", a["points"], a["weights"]) for title, a in shown.items()]


def told_by(points: NDArray[Any], value: NDArray[Any]) -> float:
    """Give the share of a value's variance that is linear in coordinates, R² of the training points themselves."""
    from sklearn.linear_model import LinearRegression

    return float(LinearRegression().fit(points, value).score(points, value))
