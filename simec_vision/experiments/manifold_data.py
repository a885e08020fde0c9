"""Points on two surfaces in space, and the embeddings of other methods, all of scikit-learn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.kernels import centre

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Coordinates ``(point, 3)`` and where each is along the surface, ``(point,)``."""

NEIGHBOURS = 10
SLOW = ("LLE, standard", "LLE, LTSA", "LLE, Hessian", "LLE, modified", "MDS", "t-SNE", "Laplacian, 1500 neighbours")


@cache
def surface(name: str, count: int, new: bool = False) -> Points:
    """Draw points of the ``S-curve`` or the ``cut sphere``.

    Args:
        name: Which surface.
        count: How many.
        new: Others than those that are learned from.
    """
    if name == "S-curve":
        from sklearn.datasets import make_s_curve

        return make_s_curve(count, random_state=1 if new else 0)
    return cut_sphere(count, 2 if new else 1)


def cut_sphere(count: int, seed: int) -> Points:
    """Draw points of a sphere that lacks its poles and a slit of 0.5 from one to the other; the place is the longitude.

    The points are the first that are between the poles; half as many more are drawn, of which a fifth is not.
    """
    random = np.random.RandomState(seed)
    drawn = int(1.5 * count)
    longitude, latitude = random.rand(drawn) * (2 * np.pi - 0.5), random.rand(drawn) * np.pi
    kept = np.flatnonzero((latitude > np.pi / 10) & (latitude < 9 * np.pi / 10))[:count]
    p, t = longitude[kept], latitude[kept]
    return np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=1), p


def bandwidth(points: NDArray[np.float64]) -> float:
    """Give γ = 1 / median², of the distances between points."""
    from scipy.spatial.distance import pdist, squareform

    return float(1 / np.median(squareform(pdist(points))) ** 2)


def laplacian(points: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Embed by the second and third eigenvector of the graph Laplacian degree − W, times the roots of the eigenvalues.

    W is the graph of nearest neighbours, the mean of both directions.
    """
    from scipy.linalg import eigh
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(points, min(neighbours, len(points) - 1)).toarray()
    graph = (graph + graph.T) / 2
    values, vectors = eigh(np.diag(graph.sum(axis=1)) - graph, subset_by_index=[1, 2])
    return vectors * np.sqrt(np.maximum(values, 0))


def _locally_linear(method: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def embed(points: NDArray[np.float64]) -> NDArray[np.float64]:
        from sklearn.manifold import LocallyLinearEmbedding

        solver = "dense" if len(points) < 600 else "auto"
        made = LocallyLinearEmbedding(
            n_neighbors=NEIGHBOURS, n_components=2, method=method, eigen_solver=solver, random_state=0
        )
        return made.fit_transform(points)

    return embed


def _gaussian(factor: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def embed(points: NDArray[np.float64]) -> NDArray[np.float64]:
        from sklearn.decomposition import KernelPCA

        gamma = factor * bandwidth(points)
        return KernelPCA(2, kernel="rbf", gamma=gamma, eigen_solver="arpack", random_state=0).fit_transform(points)

    return embed


@dataclass(frozen=True)
class View:
    """How points look from outside or from within.

    Args:
        similarities: Centred, of all points, shape ``(point, point)``.
        embedding: What their eigenvectors give, shape ``(point, 2)``.
        place: Embeds new points.
    """

    similarities: NDArray[np.float64]
    embedding: NDArray[np.float64]
    place: Callable[[NDArray[np.float64]], NDArray[np.float64]]


@lru_cache(maxsize=1)
def view(name: str, count: int, similarity: str) -> View:
    """See a surface by the ``linear kernel``, as PCA does, or by ``geodesic`` similarities, as isomap does.

    The last one is kept, as all seeds need it and isomap takes long.
    """
    points = surface(name, count)[0]
    if similarity == "linear kernel":
        made = _pca(points)
        return View(centre(points @ points.T), made.transform(points), made.transform)
    made = _isomap(points)
    return View(centre(-0.5 * made.dist_matrix_**2), made.embedding_, made.transform)


def _pca(points: NDArray[np.float64]) -> Any:
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit(points)


def _isomap(points: NDArray[np.float64]) -> Any:
    from sklearn.manifold import Isomap

    return Isomap(n_neighbors=NEIGHBOURS, n_components=2).fit(points)


def _spectral(points: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.manifold import SpectralEmbedding

    return SpectralEmbedding(2, n_neighbors=NEIGHBOURS, affinity="nearest_neighbors", random_state=0).fit_transform(
        points
    )


def _scaled(points: NDArray[np.float64]) -> NDArray[np.float64]:
    from inspect import signature

    from sklearn.manifold import MDS

    known = {"n_init": 1, "max_iter": 100, "random_state": 0, "init": "random", "normalized_stress": False}
    return MDS(2, **{key: value for key, value in known.items() if key in signature(MDS).parameters}).fit_transform(
        points
    )


def _neighbours(points: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.manifold import TSNE

    return TSNE(2, init="pca", random_state=0).fit_transform(points)


METHODS: dict[str, Callable[[NDArray[np.float64]], NDArray[Any]]] = {
    "as they are": lambda points: points[:, [0, 2]],
    "PCA": lambda points: _pca(points).transform(points),
    "kernel PCA, γ/2": _gaussian(0.5),
    "kernel PCA, 15 γ": _gaussian(15),
    "isomap": lambda points: _isomap(points).embedding_,
    "LLE, standard": _locally_linear("standard"),
    "LLE, LTSA": _locally_linear("ltsa"),
    "LLE, Hessian": _locally_linear("hessian"),
    "LLE, modified": _locally_linear("modified"),
    "spectral": _spectral,
    "Laplacian, 6 neighbours": lambda points: laplacian(points, 6),
    "Laplacian, 1500 neighbours": lambda points: laplacian(points, len(points) // 2),
    "MDS": _scaled,
    "t-SNE": _neighbours,
}
"""Name → embedding ``(point, 2)`` of points."""
