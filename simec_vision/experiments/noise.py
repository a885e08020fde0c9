"""Images with noise added to their pixels or beside them, and similarities that know of no noise."""

from dataclasses import replace
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.sources import digits, drawn, mnist
from simec_vision.experiments.tasks import Items, Task, by_features, one_hot
from simec_vision.kernels import largest_eigenvectors

Noise = Literal["white", "correlated", "white_dims", "correlated_dims"]
MOST, RANK, HELD_OUT = 10, 100, 1000
"""Sets of noisy dimensions drawn, each as many as there are pixels; rank of correlated noise; images held out."""


@cache
def clean(data: str, root: str) -> Items:
    """Give 5000 images of MNIST and 1000 held-out ones, or 1200 and 597 of the digits, less the mean of the first."""
    features, classes = drawn(mnist(root), 5000 + HELD_OUT) if data == "mnist" else drawn(digits(), 1797)
    train = 5000 if data == "mnist" else 1200
    mean = features[:train].mean(axis=0)
    return Items(features[:train] - mean, classes[:train], features[train:] - mean, classes[train:])


@lru_cache(maxsize=2)
def similarities(data: str, kernel: str, root: str) -> Task:
    """Give the clean images and their similarities: inner products, or whether classes are the same."""
    items = clean(data, root)
    features = one_hot(items) if kernel == "classes" else (items.features, items.held_out)
    return by_features(items, *features)


@lru_cache(maxsize=2)
def noisy(data: str, kernel: str, noise: Noise, level: float, root: str) -> Task:
    """Give noisy images with the similarities of the clean ones.

    Args:
        data: ``mnist`` or ``digits``.
        kernel: ``linear`` or ``classes``.
        noise: White or correlated, added to pixels or as dimensions of its own (``_dims``).
        level: Its standard deviation over that of the pixels; or how many times as many dimensions as pixels.
        root: Folder of MNIST/raw.
    """
    task = similarities(data, kernel, root)
    items, size = task.items, task.items.features.shape[1]
    if not level:
        return task
    parts, both = (items.features, items.held_out), drawn_noise(data, noise, root)
    if noise.endswith("_dims"):
        count = int(level * size)
        shown = [np.hstack([part, more[:, :count]]) for part, more in zip(parts, both, strict=True)]
    else:
        shown = [part + level * more for part, more in zip(parts, both, strict=True)]
    return replace(task, items=replace(items, features=shown[0], held_out=shown[1]))


@lru_cache(maxsize=1)
def drawn_noise(data: str, noise: Noise, root: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the noise of images and, by another seed, of held-out ones, as strong as the pixels vary."""
    items = clean(data, root)
    (count, pixels), size = items.features.shape, items.features.std()
    width = pixels * (MOST if noise.endswith("_dims") else 1)
    random, other = np.random.RandomState(15), np.random.RandomState(16)
    if noise.startswith("white"):
        mine, new = random.randn(count, width), other.randn(len(items.held_out), width)
    else:
        mixing = mixing_matrix(width, random)
        mine, new = random.randn(count, RANK) @ mixing, other.randn(len(items.held_out), RANK) @ mixing
    scale = size / mine.std()
    return mine * scale, new * scale


def mixing_matrix(width: int, random: np.random.RandomState) -> NDArray[np.float64]:
    """Draw how white noise is mixed: by the largest eigenvalues λ of (R + Rᵀ + 1) / 3, so that VΛVᵀ is the covariance.

    Args:
        width: How many dimensions.
        random: Random numbers.

    Returns:
        √λ vᵀ, shape ``(RANK or fewer, width)``.
    """
    given = random.randn(width, width)
    symmetric = 0.33 * (given + given.T + np.eye(width))
    values, vectors = largest_eigenvectors(symmetric, min(RANK, width))
    mixing = np.zeros((RANK, width))
    mixing[: len(values)] = (vectors * np.sqrt(np.abs(values))).T
    return mixing
