"""What predicts ratings: means, and on what means leave, decompositions, ridge regression, Similarity Encoders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simec_vision.encoders import Encoder
from simec_vision.experiments.ratings import NEW_EITHER, NEW_MOVIES, NEW_USERS, Ratings

Factors = tuple[NDArray[Any], NDArray[Any]]
"""Embeddings of rows and columns, whose inner products are what is predicted beside means."""

SHRINKAGES = tuple(round(0.1 * tenth, 1) for tenth in range(11))


@dataclass(frozen=True)
class Task:
    """Ratings to learn from, with items that may be new as rows: users with new users, else movies.

    Args:
        ratings: All ratings.
        scenario: What is held out.
        train: Which ratings are known, shape ``(rating,)``.
        shrinkage: c of the means model.
        own_means: Whether the rows' means are left out of what else is learned, as in the original. New rows have no
            means: features may say of them how well they are liked by all, if that has not been left out.
    """

    ratings: Ratings
    scenario: str
    train: NDArray[np.bool_]
    shrinkage: float = 1.0
    own_means: bool = True

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each rating."""
        both = self.ratings.movies, self.ratings.users
        return both[::-1] if self.scenario == NEW_USERS else both

    @cached_property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        both = self.ratings.of_movies.table.shape[0], self.ratings.of_users.table.shape[0]
        return both[::-1] if self.scenario == NEW_USERS else both

    @cached_property
    def features(self) -> tuple[Any, Any]:
        """Features of rows and columns that some row or column with known ratings has, and a 1; sparse by rows."""
        both = self.ratings.of_movies.table, self.ratings.of_users.table
        rows, columns = both[::-1] if self.scenario == NEW_USERS else both
        return self._known(rows, self.places[0]), self._known(columns, self.places[1])

    def _known(self, table: Any, items: NDArray[np.int64]) -> Any:
        from scipy import sparse

        one = sparse.csr_array(np.ones((table.shape[0], 1), np.float32))
        return sparse.hstack([table[:, self.used(table, items)], one], "csr")

    def used(self, table: Any, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Say which features some item with known ratings has."""
        return np.flatnonzero(table[np.unique(items[self.train])].sum(axis=0))

    @cached_property
    def deviations(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Mean of all known ratings, and how far the means of rows and columns are from it; 0 for new ones."""
        values = self.ratings.values[self.train]
        mean = float(values.mean())
        both = []
        for items, size in zip(self.places, self.shape, strict=True):
            counts = np.bincount(items[self.train], minlength=size)
            sums = np.bincount(items[self.train], values - mean, size)
            both.append(sums / np.maximum(counts, 1))
        return mean, both[0], both[1]

    def means(self) -> NDArray[np.float64]:
        """Give what means predict: μ + c (row mean − μ) + c (column mean − μ), shape ``(rating,)``."""
        mean, rows, columns = self.deviations
        return mean + self.shrinkage * (rows[self.places[0]] + columns[self.places[1]])

    @cached_property
    def residual(self) -> Any:
        """What means leave of known ratings, sparse; what is stored is known, be it 0."""
        from scipy import sparse

        rows, columns = (items[self.train] for items in self.places)
        back = 0.0 if self.own_means else self.shrinkage * self.deviations[1][rows]
        left = (self.ratings.values - self.means())[self.train] + back
        return sparse.csr_array(sparse.coo_array((left.astype(np.float32), (rows, columns)), shape=self.shape))

    def predict(self, factors: Factors, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Predict chosen ratings: means and inner products."""
        rows, columns = (part[items[chosen]] for part, items in zip(factors, self.places, strict=True))
        return self.means()[chosen] + np.einsum("rd,rd->r", rows, columns, dtype=np.float64)


def nothing(task: Task, option: None, seed: int) -> Factors:
    """Add nothing to means."""
    rows, columns = task.shape
    return np.zeros((rows, 1)), np.zeros((columns, 1))


def decomposed(task: Task, dim: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Decompose what means leave, with unknown entries at 0: U s, V."""
    from scipy.sparse.linalg import svds

    smallest = min(task.residual.shape)
    u, s, v = svds(task.residual.astype(np.float64), min(dim, smallest - 1), v0=np.ones(smallest))
    return u * s, v.T


def svd(task: Task, dim: int, seed: int) -> Factors:
    """Add the truncated singular value decomposition."""
    return decomposed(task, dim)


def svd_ridge(task: Task, option: tuple[int, float], seed: int) -> Factors:
    """Add the decomposition, with factors predicted from features, of columns only where they are new."""
    from sklearn.linear_model import Ridge

    predicted = []
    for factors, items, features in zip(decomposed(task, option[0]), task.places, task.features, strict=True):
        known = np.unique(items[task.train])
        exact = features.astype(np.float64)
        predicted.append(Ridge(alpha=option[1], tol=1e-8).fit(exact[known], factors[known]).predict(exact))
        last = factors
    return predicted[0], _where_new(task, last, predicted[1])


def _where_new(task: Task, known: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]:
    """Take what is predicted for columns without known ratings, if there may be such, else what is known."""
    if task.scenario != NEW_EITHER:
        return known
    new = np.ones(len(known), dtype=bool)
    new[task.places[1][task.train]] = False
    return np.where(new[:, None], predicted, known)


def ridge(task: Task, alpha: float, seed: int) -> Factors:
    """Add for each column a ridge regression on features of the rows that it has known ratings with."""
    features, known = task.features[0].toarray().astype(np.float64), task.residual.tocsc()
    weights = np.zeros((known.shape[1], features.shape[1]))
    penalty = alpha * np.eye(features.shape[1])
    for column in np.flatnonzero(np.diff(known.indptr)):
        part = slice(known.indptr[column], known.indptr[column + 1])
        x = features[known.indices[part]]
        weights[column] = np.linalg.solve(x.T @ x + penalty, x.T @ known.data[part])
    return features, weights


class Linear(Encoder):
    """A linear encoder of features, without bias: what it predicts is a sum over features.

    Args:
        features: How many.
        embedding_dim: Length of an embedding.
    """

    def __init__(self, features: int, embedding_dim: int) -> None:
        super().__init__(nn.Linear(features, embedding_dim, bias=False), embedding_dim, {})


@dataclass(frozen=True)
class Weighed:
    """Known entries, and rows of features, times the root of the row's number of entries.

    The loss is a mean over each row's known entries; so every entry counts the same, for an encoder without bias.
    """

    features: Any
    entries: Any
    roots: NDArray[np.float32]


def weighed(features: Any, entries: Any) -> Weighed:
    """Weigh rows ``(row, feature)`` and their sparse entries ``(row, column)``; rows without entries are left out."""
    from scipy import sparse

    counts = np.diff(entries.indptr)
    roots = np.sqrt(counts / counts[counts > 0].mean()).astype(np.float32)
    kept = np.flatnonzero(counts)
    return Weighed(
        sparse.diags_array(roots[kept]) @ features[kept], (sparse.diags_array(roots) @ entries).tocsr()[kept], roots
    )


def encoder_of_features(features: Any, entries: Any, dim: int, l2: float, seed: int, **options: Any) -> Any:
    """Train a linear encoder of features on known entries only; unknown ones play no part."""
    from simec_vision.estimator import SimilarityEncoder

    given = weighed(features, entries)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Linear(features.shape[1], dim)
    made = SimilarityEncoder(
        dim, encoder=encoder, gram_penalty=0.0, l2_embedding=l2, l2_head=l2, seed=seed,
        **{"epochs": EPOCHS, **options},
    )  # fmt: skip
    return made.fit(given.features, given.entries)


EPOCHS = 60
"""Passes over the rows."""


def encoded(task: Task, option: tuple[int, float], seed: int) -> Factors:
    """Add an encoder of the rows' features and its head; new columns have their own encoder with a frozen head."""
    first = encoder_of_features(task.features[0], task.residual, *option, seed)
    rows, head = first.transform(task.features[0]), first.head_
    if task.scenario != NEW_EITHER:
        return rows, head
    turned = task.residual.T.tocsr()
    second = encoder_of_features(
        task.features[1], turned, *option, seed, head_start=rows, head_frozen=True
    ).transform(task.features[1])  # fmt: skip
    return rows, _where_new(task, head, second)


def free(task: Task, option: tuple[int, float], seed: int) -> Factors:
    """Add free embeddings of rows and columns, learned from known ratings only."""
    from simec_vision.factorisation import factorise

    given = weighed(np.zeros((task.shape[0], 1), np.float32), task.residual)
    kept = given.roots > 0
    made = factorise(given.entries, option[0], l2=option[1], start="svd", epochs=EPOCHS, seed=seed)
    rows = np.zeros((len(kept), option[0]), dtype=np.float32)
    rows[kept] = made.rows / given.roots[kept, None]
    return rows, made.columns


def original(task: Task, option: None, seed: int) -> Factors:
    """Add the original's encoder of features, whose unknown ratings are trained as 0."""
    from simec_vision.estimator import SimilarityEncoder

    rate = 0.005 if task.scenario == NEW_MOVIES else 0.0075
    rows = np.unique(task.places[0][task.train])
    made = SimilarityEncoder(100, recipe="keras", lr=rate, epochs=20, seed=seed)
    made.fit(task.features[0][rows], task.residual[rows].toarray())  # dense, as each unknown rating is a target of 0
    return made.transform(task.features[0]), made.head_


Method = Callable[[Task, Any, int], Factors]
METHODS: dict[str, tuple[Method, Sequence[Any]]] = {
    "means, c = 1": (nothing, (None,)),
    "means": (nothing, (None,)),
    "means + SVD": (svd, (2, 3, 5, 7, 10, 14, 20, 35, 50, 100)),
    "means + ridge": (ridge, (1.0, 3.0, 7.0, 10.0, 15.0, 30.0, 60.0, 100.0, 250.0)),
    "means + SVD + ridge": (svd_ridge, tuple((d, a) for d in (10, 50, 100) for a in (1.0, 10.0, 100.0, 250.0))),
    "means + SimEc(I)": (free, tuple((d, l2) for d in (40, 20, 10) for l2 in (3e-4, 1e-3, 3e-3))),
    "means + SimEc(X)": (encoded, tuple((d, l2) for d in (40, 20, 10) for l2 in (5e-4, 1e-3, 2e-3))),
    "means + SimEc(X), original recipe": (original, (None,)),
}
"""Name → what it adds to means, and the options of which validation chooses; of a baseline as many as of an encoder."""

FIXED = ("means, c = 1", "means + SimEc(X), original recipe")
"""What takes means with c = 1, as the original did; for the others validation chooses c."""

FROM_FEATURES = ("means + ridge", "means + SVD + ridge", "means + SimEc(X)")
"""What predicts new rows from features; validation chooses whether their means are among what it predicts, too."""
