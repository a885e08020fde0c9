"""Factors of a matrix of similarities between two kinds of items, rectangular and perhaps known in part."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, nn

from simec_vision.arrays.recipes import RECIPES
from simec_vision.arrays.scaling import root_mean_square, values_of
from simec_vision.arrays.targets import ONE, filled, read_similarities
from simec_vision.encoders import Encoder, dense_layers
from simec_vision.estimator import SimilarityEncoder
from simec_vision.items import InputError, nearest

LARGE = 500
"""Rows or columns from which on only the largest singular values are sought where they are few."""

STEPS = 1500
"""Steps that free embeddings are trained for."""

ENCODER_STEPS = 2000
"""The same of each encoder of features, unless an estimator is given. Measured on one-hot vectors of 500 rows and 700
columns, 100 dimensions: the error from both sides is .3 % above that from one, with the estimator's 800 steps 57 %."""

L2S = (8e-5, 4e-5, 2e-5, 6e-6, 2e-6)
"""Strengths of the L2 penalty of free embeddings, of which held-out entries choose where not everything is known.

Measured on 500 × 700. The same strength weighs more the more entries there are, as it sums over rows and columns while
the error is a mean: give ``l2`` for matrices of other sizes by far.
"""

HELD_OUT, MOST_HELD_OUT = 0.1, 100_000
"""Share of the known entries that choose, and how many at most."""

SMALL = 0.3
"""Size of random inner products to start from, as a share of the root mean square of S, is the square of this."""


class Table(Encoder):
    """One free embedding an item, for items of which nothing is known but their number.

    The same as a linear encoder without bias on one-hot vectors, at the cost of a look-up.

    Args:
        start: The embeddings to start from, shape ``(item, embedding)``.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__(nn.Embedding.from_pretrained(start.clone(), freeze=False), start.shape[1], {})

    def forward(self, images: Tensor) -> Tensor:
        """Embed items given by their numbers, shape ``(batch, 1)``: ``(batch, embedding)``."""
        return self.layers(images[:, 0].long())


@dataclass(frozen=True)
class Factorisation:
    """Two embeddings whose inner products are similarities.

    Args:
        rows: Of the rows' items, shape ``(row, embedding)``.
        columns: Of the columns' items, shape ``(column, embedding)``.
        row_encoder: What embeds rows from features, where these were given.
        column_encoder: The same of columns.
    """

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    row_encoder: SimilarityEncoder | None = None
    column_encoder: SimilarityEncoder | None = None

    def reconstruction(self) -> NDArray[np.float32]:
        """Give the whole predicted matrix, shape ``(row, column)``."""
        return self.rows @ self.columns.T


def factorise(
    S: Any,  # noqa: N803
    dim: int,
    row_features: Any = None,
    column_features: Any = None,
    estimator: SimilarityEncoder | None = None,
    l2: float | None = None,
    start: Literal["svd", "random"] | None = None,
    epochs: int | None = None,
    lr: float = 1e-2,
    batch_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
) -> Factorisation:
    """Factorise a matrix from both sides: S ≈ rows @ columns.T (Horn & Müller 2018, arXiv 1702.01824).

    An encoder embeds the rows and learns a head with one row for each column of S. Without features of the columns,
    that head is their embedding. With features, a second encoder learns to embed columns so that they predict S.T with
    the rows' embeddings as its frozen head; it learns along an orthonormal basis of these, without which those
    dimensions that rows hardly use would take very long. Unknown entries play no part in training.

    Where everything is known, the truncated singular value decomposition is the best answer (Eckart & Young 1936), and
    free embeddings start there. Else they start small and at random: the decomposition with unknown entries at the mean
    fits these as well, and as soon as embeddings are long enough to fit all entries, nothing leads away from it. So a
    row of which nothing is known has an embedding near 0: subtract the mean from S before if that is not what should
    be predicted of it. With features of the rows, the head starts from that decomposition.

    Args:
        S: Shape ``(row, column)``, NaN where unknown, or scipy sparse (what is stored is known).
        dim: Length of an embedding.
        row_features: Features of the rows, shape ``(row, feature)``; default: each row has a free embedding.
        column_features: The same of the columns.
        estimator: How encoders of features are made and trained; copies are fitted. Where both sides have features, the
            penalties of the second one count along the orthonormal basis. Default: a linear encoder each, trained for
            :data:`ENCODER_STEPS`.
        l2: Strength λ of λ (Σ rows² + Σ columns²) of free embeddings, beside the mean squared error of S over its root
            mean square; default: 0 where everything is known, else the one of :data:`L2S` with which the error on a
            tenth of the known entries is lowest after training on the others, a third of the epochs each (which makes
            the whole take about 2.7 times as long).
        start: Whether free embeddings start from the truncated decomposition with unknown entries at the mean (``svd``,
            better for ratings, which are noisy and of which few are known) or small (``random``); default: see above.
        epochs: Passes over the rows that free embeddings take; default: as many as :data:`STEPS` steps.
        lr: Largest learning rate of free embeddings.
        batch_size: Rows of a step of free embeddings; default: 32 to 256 by their number.
        seed: Seed of free embeddings' start and order, and of what is held out.
        accelerator: Lightning's name of the device for free embeddings; encoders have that of ``estimator``.

    Raises:
        InputError: for no matrix, features of another number of items, or another ``start``.
    """
    if start not in ("svd", "random", None):
        raise InputError(f"Expected start svd or random, got {start!r}: {nearest(str(start), ['svd', 'random'])}")
    matrices, form = read_similarities(S, None)
    if form != "matrix":
        raise InputError(f"Expected S as one matrix (row, column), got one of the form {form!r}")
    matrix, size = matrices[ONE], root_mean_square(matrices)
    made = [clone(estimator) if estimator else _linear(count) for count in matrix.shape]
    for_rows, for_columns = (one.set_params(embedding_dim=dim, gram_penalty=0.0) for one in made)
    row_encoder = column_encoder = None
    if row_features is None:
        batch = batch_size or RECIPES["fast"].batch(matrix.shape[0])
        epochs = epochs or max(1, STEPS // -(-matrix.shape[0] // batch))
        free = SimilarityEncoder(
            dim, gram_penalty=0.0, epochs=epochs, batch_size=batch, lr=lr, seed=seed, accelerator=accelerator
        )
        complete = _complete(matrix)
        small = start == "random" or (start is None and not complete)
        rows, columns = _small(matrix, size, free) if small else start_factors(matrix, dim)
        strength = l2 or 0.0
        if l2 is None and not complete:
            strength, rows, columns = _chosen_l2(matrix, size, rows, columns, free)
        free.set_params(l2_embedding=strength, l2_head=strength)
        rows, columns = _free_embeddings(matrix, size, rows, columns, free)
    else:
        row_encoder = for_rows.set_params(head_start=start_factors(matrix, dim)[1]).fit(row_features, matrix)
        rows, columns = row_encoder.transform(row_features).astype(np.float32), row_encoder.head_
    if column_features is not None:
        column_encoder = _column_encoder(for_columns, rows, column_features, matrix.T)
        columns = column_encoder.transform(column_features).astype(np.float32)
    return Factorisation(rows, columns, row_encoder, column_encoder)


SPANNED = 1e-4
"""Size of a direction of embeddings, over that of the largest, from which on they are taken to span it: float32 still
tells a thousand levels of what is ten thousand times smaller."""


def _column_encoder(made: SimilarityEncoder, rows: NDArray, features: Any, matrix: Any) -> SimilarityEncoder:
    """Train an encoder of columns whose frozen head is the rows' embeddings.

    Rows are first replaced by an orthonormal basis of what they span, along whose dimensions all columns' embeddings
    are learned at one pace; afterwards the encoder's last layer is changed to go with the rows themselves. An own
    encoder, or one whose embedding has an activation, learns with the rows as they are.

    Args:
        made: What is trained, in place.
        rows: Shape ``(row, embedding)``.
        features: Of the columns, shape ``(column, feature)``.
        matrix: S.T, shape ``(column, row)``.

    Returns:
        ``made``, whose ``head_`` and ``head_start`` are the rows.

    Raises:
        InputError: if rows are not finite.
    """
    if not np.isfinite(rows).all():
        raise InputError("Expected finite embeddings of rows, but their encoder has not learned: lower its lr")
    made.set_params(head_start=rows, head_frozen=True)
    if made.encoder is not None or made.embedding_activation != "none":
        return made.fit(features, matrix)
    u, s, v = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    kept = s > SPANNED * s.max(initial=0.0)
    size = np.sqrt((s**2).mean()) or 1.0
    basis = np.zeros_like(rows)
    basis[:, : kept.sum()] = size * u[:, kept]
    made.set_params(head_start=basis).fit(features, matrix)
    back = np.zeros((rows.shape[1], rows.shape[1]))
    back[:, : kept.sum()] = (size / s[kept, None] * v[kept]).T
    last = dense_layers(made.model_.encoder)[-1]
    for part in (last.weight, last.bias):
        part.data.copy_(torch.from_numpy(back) @ part.data.double())
    made.model_.head(ONE).weight.data.copy_(torch.from_numpy(rows))
    made._moments = None  # of the weights as they were
    return made.set_params(head_start=rows)


def _linear(items: int) -> SimilarityEncoder:
    """Make the encoder of features that is trained where none is given."""
    recipe = replace(RECIPES["fast"], steps=ENCODER_STEPS)
    return SimilarityEncoder(epochs=recipe.epochs(items, recipe.batch(items)))


def _complete(matrix: Any) -> bool:
    return len(values_of(matrix)) == matrix.shape[0] * matrix.shape[1]


def _small(matrix: Any, size: float, free: SimilarityEncoder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw embeddings whose inner products are small beside the similarities."""
    random, spread = np.random.default_rng(free.seed), SMALL * size**0.5 / free.embedding_dim**0.25
    rows, columns = (random.normal(0, spread, (count, free.embedding_dim)).astype(np.float32) for count in matrix.shape)
    return rows, columns


def _chosen_l2(
    matrix: Any, size: float, rows: NDArray, columns: NDArray, free: SimilarityEncoder
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """Choose the strength of the L2 penalty with which held-out entries are predicted best.

    From the strongest to the weakest, each goes on from where the one before has ended (a path, as in Mazumder et al.
    2010), since a weak penalty alone takes long to forget what a start has put into dimensions that are not needed.

    Returns:
        The strength, and rows and columns as they were with it.
    """
    trained, (row, column), truth = _without_some(matrix, free.seed)
    if not len(truth):
        return L2S[0], rows, columns
    quick = clone(free).set_params(epochs=max(1, (free.epochs or 1) // 3))
    best, least = (L2S[0], rows, columns), np.inf
    for strength in L2S:
        quick.set_params(l2_embedding=strength, l2_head=strength)
        rows, columns = _free_embeddings(trained, size, rows, columns, quick)
        found = float(((np.einsum("nd,nd->n", rows[row], columns[column]) - truth) ** 2).mean())
        if found < least:
            best, least = (strength, rows, columns), found
    return best


def _without_some(matrix: Any, seed: int) -> tuple[Any, tuple[NDArray, NDArray], NDArray]:
    """Hold out some known entries: the matrix without them, their rows and columns, and what they are."""
    from scipy.sparse import csr_array

    if hasattr(matrix, "tocsr"):
        stored = matrix.tocoo()
        known = ~np.isnan(stored.data)  # NaN is unknown, stored or not
        places, values = np.stack([*stored.coords])[:, known], stored.data[known]
    else:
        places = np.stack(np.nonzero(~np.isnan(matrix)))
        values = matrix[tuple(places)]
    held = np.zeros(len(values), dtype=bool)
    count = min(MOST_HELD_OUT, int(HELD_OUT * len(values)))
    held[np.random.default_rng(seed).permutation(len(values))[:count]] = True
    row, column = places[:, held]
    if hasattr(matrix, "tocsr"):
        kept = csr_array((values[~held], tuple(places[:, ~held])), shape=matrix.shape)
    else:
        kept = matrix.copy()
        kept[row, column] = np.nan
    return kept, (row, column), values[held]


def _free_embeddings(
    matrix: Any, size: float, rows: NDArray, columns: NDArray, free: SimilarityEncoder
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Train a table of the rows' embeddings and a head of the columns', on similarities of size 1."""
    root, items = np.float32(size**0.5), np.arange(len(rows))[:, None]
    made = clone(free).set_params(encoder=Table(torch.from_numpy(rows / root)), head_start=columns / root)
    made.fit(items, matrix / np.float32(size))
    return root * made.transform(items).astype(np.float32), root * made.head_


def start_factors(matrix: Any, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take the truncated singular value decomposition U √s, V √s of a matrix with unknown entries at the mean.

    Args:
        matrix: Shape ``(row, column)``, dense (NaN = unknown) or sparse (what is stored is known).
        dim: How many singular values; columns beyond those that there are are 0.

    Returns:
        Shapes ``(row, dim)`` and ``(column, dim)``.
    """
    from scipy.sparse.linalg import svds

    mean, smallest = values_of(matrix).mean(dtype=np.float64), min(matrix.shape)
    if smallest > LARGE and dim < smallest // 5:
        whole = _operator(matrix, mean) if hasattr(matrix, "tocsr") else np.where(np.isnan(matrix), mean, matrix)
        u, s, v = svds(whole, dim, v0=np.ones(smallest))
        u, s, v = u[:, ::-1], s[::-1], v[::-1]  # they come in ascending order
    else:
        dense = filled(matrix) if hasattr(matrix, "tocsr") else matrix
        u, s, v = np.linalg.svd(np.where(np.isnan(dense), mean, dense), full_matrices=False)
    kept = min(dim, len(s))
    rows, columns = (np.zeros((count, dim), dtype=np.float32) for count in matrix.shape)
    rows[:, :kept], columns[:, :kept] = u[:, :kept] * np.sqrt(s[:kept]), v[:kept].T * np.sqrt(s[:kept])
    return rows, columns


def _operator(matrix: Any, mean: float) -> Any:
    """Give a sparse matrix with the mean at what is not stored, as products only."""
    from scipy.sparse.linalg import LinearOperator

    residual = matrix.astype(np.float64)
    residual.data = np.nan_to_num(residual.data - mean)

    def times(vector: NDArray) -> NDArray:
        return residual @ vector + mean * vector.sum(axis=0)

    def transposed(vector: NDArray) -> NDArray:
        return residual.T @ vector + mean * vector.sum(axis=0)

    return LinearOperator(matrix.shape, matvec=times, rmatvec=transposed, matmat=times, rmatmat=transposed, dtype=float)
