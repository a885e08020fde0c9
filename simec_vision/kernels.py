"""Similarities that come as whole matrices: centring, decompositions with negative eigenvalues, geodesics.

Thin functions of numpy arrays over scikit-learn and scipy. The best head for the references' own similarities is
:func:`simec_vision.heads.head_weight`; how well matrices and embeddings match say
:func:`simec_vision.metrics.similarity_match` and :func:`simec_vision.metrics.embedding_match`.
"""

from contextlib import suppress
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simec_vision.items import InputError


def centre(kernel: ArrayLike) -> NDArray:
    """Centre a kernel in its feature space: H K H with H = I − 11ᵀ / n, as scikit-learn's KernelCenterer.

    Args:
        kernel: Symmetric similarities, shape ``(item, item)``.

    Raises:
        InputError: if it is not a square matrix of finite numbers.
    """
    return centre_blocks(kernel)[0]


def centre_blocks(kernel: ArrayLike, block: ArrayLike | None = None) -> tuple[NDArray, NDArray | None]:
    """Centre a kernel, and by the same mean in feature space the similarities of new items to its items.

    Args:
        kernel: Symmetric similarities, shape ``(item, item)``.
        block: Similarities of new items to these, shape ``(new, item)``.

    Returns:
        Both, centred: where new items are some of the items, the block is these rows of the centred kernel.

    Raises:
        InputError: for other shapes or numbers that are not finite.
    """
    from sklearn.preprocessing import KernelCenterer

    kernel = _square(kernel, "kernel")
    centerer = KernelCenterer().fit(kernel)
    centred = centerer.transform(kernel)
    if block is None:
        return (centred + centred.T) / 2, None
    block = np.asarray(block, dtype=np.float64)
    if block.ndim != 2 or block.shape[1] != len(kernel):
        raise InputError(f"Expected block of shape (new, item) = (any, {len(kernel)}), got {block.shape}")
    return (centred + centred.T) / 2, centerer.transform(block)


def eigen_factors(similarity: ArrayLike, dim: int) -> tuple[NDArray, NDArray]:
    """Factorise symmetric similarities of which some eigenvalues may be negative.

    With S = V diag(λ) Vᵀ and the d eigenvalues largest by |λ|, the embedding V_d sign(λ_d) √|λ_d| and the head
    V_d √|λ_d| give ``embedding @ head.T``, the nearest matrix of rank d (Eckart & Young 1936). Inner products of
    embeddings alone can only be the part with λ > 0, which :func:`simec_vision.heads.head_weight` gives.

    Args:
        similarity: Shape ``(item, item)``, symmetric.
        dim: Length of an embedding (d); dimensions beyond the number of items are 0.

    Returns:
        Embedding and head, each of shape ``(item, embedding)``.

    Raises:
        InputError: if it is not a square matrix of finite numbers.
    """
    values, vectors = _eigh(similarity)
    order = np.argsort(-np.abs(values), kind="stable")[:dim]
    head = np.zeros((len(values), dim))
    head[:, : len(order)] = vectors[:, order] * np.sqrt(np.abs(values[order]))
    signs = np.ones(dim)
    signs[: len(order)] = np.where(values[order] < 0, -1.0, 1.0)
    return head * signs, head


FEW = 50
"""Of so many times as many items, the largest eigenvectors are found one after the other (Lanczos)."""


def largest_eigenvectors(similarity: ArrayLike, count: int) -> tuple[NDArray, NDArray]:
    """Give the largest eigenvalues of symmetric similarities, in descending order, and their eigenvectors.

    Where few of many are asked for, scipy's ARPACK finds them (5000 items, 10 eigenvectors: in a tenth of the time),
    from a start that is always the same; otherwise, and where ARPACK gives up, LAPACK. They agree to rounding errors.

    Args:
        similarity: Shape ``(item, item)``, symmetric.
        count: How many, at most as many as items.

    Returns:
        Shapes ``(count,)`` and ``(item, count)``, the eigenvectors as columns of length 1.

    Raises:
        InputError: if it is not a square matrix of finite numbers.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackError, eigsh

    matrix = _square(similarity, "similarity")
    size, count = len(matrix), min(count, len(matrix))
    if size > 1000 and count * FEW <= size:
        with suppress(ArpackError):
            values, vectors = eigsh(matrix, count, which="LA", v0=np.random.RandomState(0).randn(size))
            order = np.argsort(values)[::-1]
            return values[order], vectors[:, order]
    values, vectors = eigh(matrix, subset_by_index=[size - count, size - 1])
    return values[::-1], vectors[:, ::-1]


def split_by_sign(similarity: ArrayLike) -> tuple[NDArray, NDArray]:
    """Split symmetric similarities S = S₁ − S₂ by the sign of their eigenvalues; both parts are inner products.

    Both say different things about non-metric data, and are learned together as two similarities (Laub & Müller 2004;
    notebook 02 of Horn's simec, 2020), each divided by its largest eigenvalue.

    Args:
        similarity: Shape ``(item, item)``, symmetric.

    Returns:
        S₁ = V₊ λ₊ V₊ᵀ and S₂ = V₋ |λ₋| V₋ᵀ, same shape.

    Raises:
        InputError: if it is not a square matrix of finite numbers.
    """
    values, vectors = _eigh(similarity)
    positive, negative = ((vectors * np.maximum(sign * values, 0)) @ vectors.T for sign in (1, -1))
    return positive, negative


def simpson(sets: ArrayLike, others: ArrayLike | None = None) -> NDArray:
    """Compare sets by |a ∩ b| / min(|a|, |b|), which is no inner product (Simpson 1960); 0 for an empty set.

    Args:
        sets: Membership of 0 and 1 (such as ink of binary pixels), shape ``(item, member)``.
        others: What they are compared with, shape ``(other, member)``; default: themselves.

    Returns:
        Shape ``(item, other)``.

    Raises:
        InputError: for numbers other than 0 and 1.
    """
    mine = _membership(sets)
    theirs = mine if others is None else _membership(others)
    smaller = np.minimum(mine.sum(axis=1)[:, None], theirs.sum(axis=1))
    return np.divide(mine @ theirs.T, smaller, out=np.zeros(smaller.shape), where=smaller > 0)


def geodesic(features: Any, neighbours: int = 10) -> NDArray:
    """Compare items along the manifold they lie on: −D²/2, centred, whose eigenvectors are isomap's embedding.

    D are the lengths of shortest paths in the graph of nearest neighbours (Tenenbaum et al. 2000), by scikit-learn's
    Isomap.

    Args:
        features: Shape ``(item, feature)``.
        neighbours: Nearest neighbours of each item.

    Returns:
        Shape ``(item, item)``, in squared units of the features.

    Raises:
        InputError: for fewer items than ``neighbours`` + 1.
    """
    return geodesic_blocks(features, None, neighbours)[0]


def geodesic_blocks(features: Any, new: Any = None, neighbours: int = 10) -> tuple[NDArray, NDArray | None]:
    """Compare items as :func:`geodesic` does, and new items with them, by the same mean.

    The shortest path from a new item goes through one of its nearest neighbours among the items, as isomap has it.

    Args:
        features: Shape ``(item, feature)``.
        new: Features of new items, shape ``(new, feature)``.
        neighbours: Nearest neighbours of each item.

    Returns:
        Shapes ``(item, item)`` and ``(new, item)``, or None in place of the second.

    Raises:
        InputError: for fewer items than ``neighbours`` + 1.
    """
    from sklearn.manifold import Isomap

    if not 0 < neighbours < np.shape(features)[0]:
        raise InputError(f"Expected neighbours from 1 to below the number of items, got {neighbours}")
    graph = Isomap(n_neighbors=neighbours, n_components=1).fit(features)
    ways = np.asarray(graph.dist_matrix_, dtype=np.float64)
    if new is None:
        return centre(-0.5 * ways**2), None
    steps, nearest = graph.nbrs_.kneighbors(new)
    longer = (step[:, None] + ways[one] for step, one in zip(steps.T, nearest.T, strict=True))
    return centre_blocks(-0.5 * ways**2, -0.5 * reduce(np.minimum, longer) ** 2)


def _eigh(similarity: ArrayLike) -> tuple[NDArray, NDArray]:
    from scipy.linalg import eigh

    matrix = _square(similarity, "similarity")
    return eigh((matrix + matrix.T) / 2)


def _square(matrix: ArrayLike, name: str) -> NDArray:
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not np.isfinite(array).all():
        raise InputError(f"Expected {name} as finite numbers of shape (item, item), got shape {array.shape}")
    return array


def _membership(sets: ArrayLike) -> NDArray:
    array = np.asarray(sets, dtype=np.float64)
    if array.ndim != 2 or not np.isin(array, (0, 1)).all():
        raise InputError(f"Expected sets as 0 and 1 of shape (item, member), got shape {array.shape}")
    return array
