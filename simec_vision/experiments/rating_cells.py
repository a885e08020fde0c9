"""What the experiment ``recommender`` measures: predicted ratings, recommendation by content, an explanation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.rating_models import (
    FIXED,
    FROM_FEATURES,
    METHODS,
    SHRINKAGES,
    Task,
    encoder_of_features,
    nothing,
)
from simec_vision.experiments.ratings import (
    DRAWN,
    MOVIELENS,
    NEW_MOVIES,
    NEW_USERS,
    SEEN,
    Ratings,
    held_out,
    read_ratings,
)

LEAST = {DRAWN: 10, MOVIELENS: 50}
"""How many ratings a movie has to have to be compared by them; else 1000, as in the original."""


SHOWN_PAIRS = 2000
QUICK_OPTIONS = 2
"""How many options the quick version tries of an encoder."""


def errors(predicted: NDArray[np.float64], given: NDArray[np.float64], known: NDArray[np.float64]) -> dict[str, float]:
    """Measure predicted ratings, as they are and cut to the range of known ones.

    Returns:
        ``rmse``, the root of the mean squared error, ``mae``, the mean absolute error, and ``clipped``, the first of
        ratings that are cut.
    """
    cut = np.clip(predicted, known.min(), known.max())
    gaps, cut_gaps = predicted - given, cut - given
    root = {name: float(np.sqrt(np.mean(part**2))) for name, part in (("rmse", gaps), ("clipped", cut_gaps))}
    return {**root, "mae": float(np.abs(gaps).mean())}


def _rmse(task: Task, factors: Any, chosen: NDArray[np.bool_]) -> float:
    return float(np.sqrt(np.mean((task.predict(factors, chosen) - task.ratings.values[chosen]) ** 2)))


def rated(root: str, dataset: str, scenario: str, method: str, seed: int) -> dict[str, float]:
    """Measure a method, whose shrinkage of means and then other options validation within training chooses.

    Args:
        root: The folder above the data.
        dataset: Which.
        scenario: What is held out.
        method: One of :data:`METHODS`.
        seed: Number of the fold or draw, and seed of training.
    """
    ratings = read_ratings(root, dataset)
    test = held_out(ratings, scenario, seed)
    valid = held_out(ratings, scenario, seed, ~test)
    inner = ~test & ~valid
    made, options = METHODS[method]
    options = options[-QUICK_OPTIONS:] if dataset == DRAWN and "SimEc" in method else options
    c = 1.0 if method in FIXED else _shrinkage(ratings, scenario, inner, valid)
    means = (True, False) if method in FROM_FEATURES and scenario in (NEW_MOVIES, NEW_USERS) else (True,)
    choices, best = [(own, place) for own in means for place in range(len(options))], 0
    if len(choices) > 1:
        trial = {own: Task(ratings, scenario, inner, c, own) for own in means}
        tried = (_rmse(trial[own], made(trial[own], options[place], seed), valid) for own, place in choices)
        best = int(np.argmin([*tried]))
    own, place = choices[best]
    task = Task(ratings, scenario, ~test, c, own)
    predicted = task.predict(made(task, options[place], seed), test)
    chosen = {"shrinkage": c, "own_means": float(own), "option": place}
    return {**errors(predicted, ratings.values[test], ratings.values[~test]), **chosen}


def _shrinkage(ratings: Ratings, scenario: str, known: NDArray[np.bool_], valid: NDArray[np.bool_]) -> float:
    """Choose c of means by validation ratings."""
    tasks = [Task(ratings, scenario, known, c) for c in SHRINKAGES]
    return min(tasks, key=lambda task: _rmse(task, nothing(task, None, 0), valid)).shrinkage


def shrunken(root: str, dataset: str, scenario: str, shrinkage: float, seed: int) -> dict[str, float]:
    """Measure means alone that are shrunken so much."""
    ratings = read_ratings(root, dataset)
    test = held_out(ratings, scenario, seed)
    predicted = Task(ratings, scenario, ~test, shrinkage).means()[test]
    return errors(predicted, ratings.values[test], ratings.values[~test])


def _everything(root: str, dataset: str) -> Task:
    ratings = read_ratings(root, dataset)
    return Task(ratings, SEEN, np.ones(len(ratings.values), dtype=bool))


PLACES = (1, 10, 100, 1000)
"""Of the singular values that are told, from the largest on; the last is the last that is drawn."""
DENSE = 3000
"""Up to so many movies or users, all singular values are found at once."""


def spectrum(root: str, dataset: str, seed: int) -> dict[str, Any]:
    """Give the largest singular values of what means leave of ratings, 0 where unknown."""
    from scipy.sparse.linalg import svds

    residual = _everything(root, dataset).residual.astype(np.float64)
    least = min(residual.shape)
    if least <= DENSE:
        values = np.linalg.svd(residual.toarray(), compute_uv=False)[: PLACES[-1]]
    else:
        values = svds(residual, PLACES[-1], v0=np.ones(least), return_singular_vectors=False)[::-1]
    told = {f"value_{place}": values[place - 1] for place in PLACES if place <= len(values)}
    return {**told, "values": values.astype(np.float32)}


def content(root: str, dataset: str, method: str, seed: int) -> dict[str, Any]:
    """Compare movies by content with how alike they are rated, those that were learned from and new ones.

    Alike: the cosine of what means leave of their ratings, 0 where unknown. A fifth of the movies is new; they are
    compared with all others and with each other.

    Args:
        root: The folder above the data.
        dataset: Which.
        method: ``cosine of features``, ``SimEc`` or ``SimEc, original recipe``.
        seed: Of what is held out, and of training.

    Returns:
        Correlations, and ``pairs`` to look at: by content, by ratings, whether one is new; shape ``(pair, 3)``.
    """
    task = _everything(root, dataset)
    often = np.flatnonzero(np.diff(task.residual.indptr) >= LEAST.get(dataset, 1000))
    features, target = task.ratings.of_movies.table[often].toarray(), cosine(task.residual[often])
    new = _a_fifth(len(often), 13 + seed)
    predicted = cosine(features) if method.startswith("cosine") else _compared(features, target, new, method, seed)
    old, with_new = _pairs(new)
    drawn = np.random.RandomState(0).permutation(np.flatnonzero(old | with_new))[:SHOWN_PAIRS]
    shown = [part.ravel()[drawn] for part in (predicted, target, with_new)]
    return {
        "pairs": np.stack(shown, axis=1).astype(np.float32),
        **_correlations(predicted[old], target[old], "seen"),
        **_correlations(predicted[with_new], target[with_new], "new"),
    }


def _a_fifth(count: int, seed: int) -> NDArray[np.bool_]:
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.RandomState(seed).permutation(count)[: count // 5]] = True
    return chosen


def _pairs(new: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which pairs, each once, have no new movie, and which have one; both of shape ``(movie, movie)``."""
    pairs, either = np.triu(np.ones((len(new), len(new)), dtype=bool), 1), new[:, None] | new
    return pairs & ~either, pairs & either


CONTENT_L2 = (1e-4, 3e-4, 1e-3)
"""Strengths of L2, of which those movies choose that are held out of those learned from."""


def _compared(
    features: NDArray[np.float32], target: NDArray[np.float64], new: NDArray[np.bool_], method: str, seed: int
) -> NDArray[np.float64]:
    """Compare all movies by embeddings that are learned without the new ones."""
    from simec_vision.estimator import SimilarityEncoder

    if "original" in method:
        made = SimilarityEncoder(100, hidden=(500,), recipe="keras", gram_penalty=10.0, lr=1e-3, epochs=20, seed=seed)
        return _products(made, features, target, new)
    known, valid = np.flatnonzero(~new), _a_fifth(int((~new).sum()), 1013 + seed)
    own, inner, chosen = features[known], target[np.ix_(known, known)], _pairs(valid)[1]
    encoders = [
        SimilarityEncoder(20, hidden=(100,), l2_hidden=l2, l2_embedding=l2, epochs=60, seed=seed) for l2 in CONTENT_L2
    ]
    tried = [np.corrcoef(_products(each, own, inner, valid)[chosen], inner[chosen])[0, 1] for each in encoders]
    return _products(encoders[int(np.argmax(tried))], features, target, new)


def _products(
    encoder: Any, features: NDArray[np.float32], target: NDArray[np.float64], new: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Train without new movies; give inner products of embeddings of all."""
    embedding = encoder.fit(features[~new], target[np.ix_(~new, ~new)]).transform(features).astype(np.float64)
    return embedding @ embedding.T


def cosine(rows: Any) -> NDArray[np.float64]:
    """Give the cosine of each row with each, 0 for rows of zeros; of dense or sparse rows ``(row, column)``."""
    from scipy import sparse

    table = sparse.csr_array(rows, dtype=np.float64)
    lengths = np.sqrt((table * table).sum(axis=1))
    unit = sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ table
    return (unit @ unit.T).toarray()


def _correlations(predicted: NDArray[np.float64], target: NDArray[np.float64], which: str) -> dict[str, float]:
    from scipy.stats import spearmanr

    pearson = float(np.corrcoef(predicted, target)[0, 1])
    return {f"pearson_{which}": pearson, f"spearman_{which}": float(spearmanr(predicted, target).statistic)}


def explained(root: str, dataset: str, seed: int) -> dict[str, Any]:
    """Explain what a linear encoder predicts for a movie and the users for whom it predicts most and least.

    The contribution of feature f of movie m for user u is x_f W_f · h_u; their sum is the prediction. The movie is that
    with the most features among those with enough ratings.

    Returns:
        ``gap``, how far sums are from predictions at most; ``contributions``, shape ``(2, feature)``; ``predicted``,
        shape ``(2,)``; ``movie`` and ``users``.
    """
    task = _everything(root, dataset)
    features = task.features[0]
    made = encoder_of_features(features, task.residual, 20, 1e-4, seed)
    encoder: Any = made.model_.encoder
    weights = encoder.layers.weight.detach().numpy().astype(np.float64).T
    often = np.flatnonzero(np.diff(task.residual.indptr) >= LEAST.get(dataset, 1000))
    movie = int(often[np.argmax(features[often].sum(axis=1))])
    own = features[[movie]]
    parts = own.data[:, None] * (weights[own.indices] @ made.head_.astype(np.float64).T)
    predicted = made.predict(own)[0]
    users = np.array([np.argmax(predicted), np.argmin(predicted)])
    gap = float(np.abs(parts.sum(axis=0) - predicted).max())
    contributions = np.zeros((2, features.shape[1]))
    contributions[:, own.indices] = parts[:, users].T
    told = {"contributions": contributions, "predicted": predicted[users], "users": users}
    return {"gap": gap, "movie": movie, **told}
