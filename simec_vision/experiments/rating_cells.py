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
from simec_vision.experiments.ratings import DRAWN, MOVIELENS, NEW_MOVIES, NEW_USERS, SEEN, held_out, read_ratings

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
    """Measure a method; validation within training chooses the shrinkage of means, then its own option.

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
    c, own = 1.0, not (method in FROM_FEATURES and scenario in (NEW_MOVIES, NEW_USERS))
    if method not in FIXED:
        tasks = {c: Task(ratings, scenario, inner, c) for c in SHRINKAGES}
        c = min(SHRINKAGES, key=lambda each: _rmse(tasks[each], nothing(tasks[each], None, seed), valid))
    place = 0
    if len(options) > 1:
        task = Task(ratings, scenario, inner, c, own)
        place = int(np.argmin([_rmse(task, made(task, option, seed), valid) for option in options]))
    task = Task(ratings, scenario, ~test, c, own)
    predicted = task.predict(made(task, options[place], seed), test)
    return {**errors(predicted, ratings.values[test], ratings.values[~test]), "shrinkage": c, "option": place}


def _everything(root: str, dataset: str) -> Task:
    ratings = read_ratings(root, dataset)
    return Task(ratings, SEEN, np.ones(len(ratings.values), dtype=bool))


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
    features = np.asarray(task.ratings.of_movies.table[often], dtype=np.float32)
    target = cosine(task.residual[often].toarray().astype(np.float64))
    new = np.zeros(len(often), dtype=bool)
    new[np.random.RandomState(13 + seed).permutation(len(often))[: len(often) // 5]] = True
    predicted = cosine(features) if method.startswith("cosine") else _compared(features, target, new, method, seed)
    pairs = np.triu(np.ones(target.shape, dtype=bool), 1)
    either = new[:, None] | new
    drawn = np.random.RandomState(0).permutation(np.flatnonzero(pairs))[:SHOWN_PAIRS]
    shown = [part.ravel()[drawn] for part in (predicted, target, either)]
    return {
        "pairs": np.stack(shown, axis=1).astype(np.float32),
        **_correlations(predicted[pairs & ~either], target[pairs & ~either], "seen"),
        **_correlations(predicted[pairs & either], target[pairs & either], "new"),
    }


def _compared(
    features: NDArray[np.float32], target: NDArray[np.float64], new: NDArray[np.bool_], method: str, seed: int
) -> NDArray[np.float64]:
    from simec_vision.estimator import SimilarityEncoder

    made = SimilarityEncoder(20, hidden=(100,), l2_hidden=3e-4, l2_embedding=3e-4, epochs=60, seed=seed)
    if "original" in method:
        made = SimilarityEncoder(
            100, hidden=(500,), recipe="keras", gram_penalty=10.0, lr=1e-3, epochs=20, seed=seed
        )  # fmt: skip
    embedding = made.fit(features[~new], target[np.ix_(~new, ~new)]).transform(features).astype(np.float64)
    return embedding @ embedding.T


def cosine(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Give the cosine of each row with each, 0 for rows of zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1)
    return (unit @ unit.T).astype(np.float64)


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
    contributions = features[movie][:, None] * (weights @ made.head_.astype(np.float64).T)
    predicted = made.predict(features[movie][None])[0]
    users = np.array([np.argmax(predicted), np.argmin(predicted)])
    gap = float(np.abs(contributions.sum(axis=0) - predicted).max())
    told = {"contributions": contributions[:, users].T, "predicted": predicted[users], "users": users}
    return {"gap": gap, "movie": movie, **told}
