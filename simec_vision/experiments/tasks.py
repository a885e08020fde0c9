"""What the experiments on arrays embed: circles, a surface, digits, MNIST, newsgroups, by kernels, ways or classes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.manifold_data import surface
from simec_vision.experiments.sources import digits, drawn, mnist
from simec_vision.kernels import largest_eigenvectors

Data = Literal["circles", "digits", "digits, 1000 rows", "mnist", "newsgroups", "S-curve", "S-curve, 400 points"]
Kernel = Literal["linear", "rbf", "geodesic", "classes"]
WIDTHS = {"mnist": 0.5}
"""Data → γ of the radial kernel times the squared median distance; 1 for others, as in the original."""
MOST = 100
"""Eigenvectors of a kernel that are found and kept, at most."""


@dataclass(frozen=True)
class Items:
    """Items to learn from, and held-out ones.

    Args:
        features: Shape ``(item, feature)``, dense or sparse.
        classes: Shape ``(item,)``; of points on a surface, where they are along it.
        held_out: Features of new items; None where there are none.
        held_out_classes: Their classes.
    """

    features: Any
    classes: NDArray[Any]
    held_out: Any = None
    held_out_classes: NDArray[Any] | None = None


@dataclass(frozen=True)
class Task:
    """Items, and what their embeddings' inner products should be.

    Args:
        items: The items.
        target: Similarities, shape ``(item, item)``.
        held_out_target: The same of held-out items, centred by themselves as in the original.
        eigenvectors: Gives the best embedding of a length, of the items and of those held out where it knows them.
        block: Similarities of held-out items to the items, centred by the items' mean; None where they are not kept.
    """

    items: Items
    target: NDArray[np.float64]
    held_out_target: NDArray[np.float64] | None
    eigenvectors: Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64] | None]]
    block: NDArray[np.float64] | None = None


@cache
def items(data: Data, root: str) -> Items:
    """Give the items of one source.

    Args:
        data: Which.
        root: Folder of files, for MNIST and newsgroups.
    """
    if data == "circles":
        (train, colours), (new, others) = three_circles(1000, 3), three_circles(500, 5)
        return Items(train - train.mean(axis=0), colours, new - train.mean(axis=0), others)
    if data == "mnist":
        features, classes = drawn(mnist(root), 10_000)
        mean = features[2000:].mean(axis=0)
        return Items(features[2000:] - mean, classes[2000:], features[:2000] - mean, classes[:2000])
    if data == "newsgroups":
        from simec_vision.experiments.newsgroups import newsgroups

        return Items(*newsgroups(root))
    if data in ("S-curve", "S-curve, 400 points"):
        count = 3000 if data == "S-curve" else 400
        return Items(*surface("S-curve", count), *surface("S-curve", count // 3, new=True))
    features, classes = digits()
    if data == "digits":
        return Items(features, classes)
    mean = features[:1000].mean(axis=0)
    return Items(features[:1000] - mean, classes[:1000], features[1000:] - mean, classes[1000:])


def three_circles(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw points on three rings, each with a dense middle, one above the other; their class is which."""
    from sklearn.datasets import make_circles

    random = np.random.RandomState(seed)
    rings = [make_circles(count, noise=0.05, factor=0.01, random_state=random)[0] for _ in range(3)]
    height = np.repeat([-1.0, 0.0, 1.0], count)
    points = np.column_stack([np.concatenate(rings), height])
    chosen = random.permutation(3 * count)[:count]
    return points[chosen], (height[chosen] + 2).astype(np.int64)


@lru_cache(maxsize=2)
def task(data: Data, kernel: Kernel, root: str) -> Task:
    """Give the items of a source and their similarities.

    Args:
        data: Which source.
        kernel: What similar means; all similarities are centred.
        root: Folder of files, for MNIST and newsgroups.
    """
    given = items(data, root)
    if kernel == "linear":
        return by_features(given, given.features, given.held_out)
    if kernel == "classes":
        return by_features(given, *one_hot(given))
    if kernel == "rbf":
        return radial(given, WIDTHS.get(data, 1.0))
    from simec_vision.kernels import geodesic_blocks

    target, block = geodesic_blocks(given.features, given.held_out)
    return Task(given, target, None, _spectral(target, block))


def one_hot(given: Items) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Give features whose inner products say whether two items have the same class."""
    known = np.unique(given.classes)
    new = given.held_out_classes
    hot = (given.classes[:, None] == known).astype(float)
    return hot, None if new is None else (new[:, None] == known).astype(float)


def by_features(given: Items, features: Any, held_out: Any) -> Task:
    """Make a task of centred inner products; their eigenvectors are principal components."""
    from sklearn.decomposition import PCA

    most = min(MOST, *features.shape)
    small = not hasattr(features, "tocsr") and features.shape[1] <= 1000
    solver = "covariance_eigh" if small else "arpack"
    components = PCA(most if small else min(most, min(features.shape) - 1), svd_solver=solver, random_state=0)

    @cache
    def scores() -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        mine = components.fit_transform(features)
        return mine, None if held_out is None else components.transform(held_out)

    def eigenvectors(dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        mine, new = scores()
        return mine[:, :dim], None if new is None else new[:, :dim]

    new = None if held_out is None else inner_products(held_out)
    return Task(given, inner_products(features), new, eigenvectors)


def inner_products(features: Any) -> NDArray[np.float64]:
    """Give centred inner products ``(item, item)`` of features, dense or sparse."""
    from simec_vision.kernels import centre

    product = features @ features.T
    return centre(product.toarray() if hasattr(product, "toarray") else product)


def radial(given: Items, width: float) -> Task:
    """Make a task of the centred kernel exp(−γ d²), with γ = width over the squared median distance."""
    from simec_vision.kernels import centre, centre_blocks

    kernels, new = radial_kernels(given, width)
    target, block = centre_blocks(*kernels)
    return Task(given, target, None if new is None else centre(new), _spectral(target, block), block)


def median_distance(given: Items) -> float:
    """Give the median of all distances of items, those to themselves included."""
    from sklearn.metrics import pairwise_distances

    return float(np.median(pairwise_distances(given.features)))


def gamma(given: Items, width: float) -> float:
    """Give γ of the radial kernel: width over the squared median distance."""
    return width / median_distance(given) ** 2


def radial_kernels(given: Items, width: float) -> tuple[tuple[NDArray[Any], NDArray[Any] | None], NDArray[Any] | None]:
    """Give exp(−γ d²) among items, of held-out items to them, and among those held out."""
    from sklearn.metrics.pairwise import rbf_kernel

    narrow = gamma(given, width)
    mine = rbf_kernel(given.features, gamma=narrow)
    if given.held_out is None:
        return (mine, None), None
    block = rbf_kernel(given.held_out, given.features, gamma=narrow)
    return (mine, block), rbf_kernel(given.held_out, gamma=narrow)


def _spectral(target: NDArray[np.float64], block: NDArray[np.float64] | None) -> Callable[[int], Any]:
    """Give the embedding √λ v by the largest eigenvalues, and that of new items by their block of the kernel."""

    @cache
    def largest() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return largest_eigenvectors(target, MOST)

    def eigenvectors(dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        values, vectors = (part[..., :dim] for part in largest())
        size = np.sqrt(np.abs(values))
        return vectors * size, None if block is None else block @ vectors / size

    return eigenvectors
