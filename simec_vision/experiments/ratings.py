"""Ratings of movies by users, what is known of both, and four ways to hold some of them out."""

import csv
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from simec_vision.items import InputError

DRAWN, MOVIELENS = "drawn ratings", "ml-100k"
SEEN, NEW_MOVIES, NEW_USERS, NEW_EITHER = "T1, seen", "T2a, new movies", "T2b, new users", "T3, new either"
SCENARIOS = (SEEN, NEW_MOVIES, NEW_USERS, NEW_EITHER)
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class Features:
    """What is known of items.

    Args:
        names: Of the features.
        table: Sparse by rows, 0 or 1, shape ``(item, feature)``: there may be as many features as items.
        items: What the items are called.
    """

    names: Sequence[str]
    table: Any
    items: Sequence[str]


@dataclass(frozen=True)
class Ratings:
    """Ratings, and what is known of movies and users.

    Args:
        movies: Number of the movie of each rating, shape ``(rating,)``.
        users: The same of the user.
        values: The ratings.
        of_movies: Features of movies.
        of_users: Features of users; none makes new users a matter of means.
        folds: Held-out ratings of the given folds, each of shape ``(rating,)``; empty where there are none.
    """

    movies: NDArray[np.int64]
    users: NDArray[np.int64]
    values: NDArray[np.float64]
    of_movies: Features
    of_users: Features
    folds: tuple[NDArray[np.bool_], ...] = field(default=())


@cache
def read_ratings(root: str, dataset: str) -> Ratings:
    """Read MovieLens 100k as published, or tables of one's own, or draw ratings.

    A folder of tables has ``ratings.csv`` with the columns user, movie and rating, ``movies.csv`` with movie and
    features (separated by ``;``), and perhaps ``users.csv`` with user and features.

    Raises:
        InputError: if files are not there or not of that form.
    """
    if dataset == DRAWN:
        return drawn_ratings()
    return movielens(Path(root) / dataset) if dataset == MOVIELENS else tables(Path(root) / dataset)


def movielens(folder: Path) -> Ratings:
    """Read MovieLens 100k: genres and decades of movies; age, gender and occupation of users; five folds."""
    needed = ["u.data", "u.item", "u.user", *(f"u{fold}.test" for fold in range(1, 6))]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"Expected MovieLens 100k in {folder}, but {missing[0]} is not there: get ml-100k.zip from "
            "https://grouplens.org/datasets/movielens/100k/ and name the folder above ml-100k by --root"
        )
    users, movies, values = _numbers(folder / "u.data")
    keys = users * len(movies) + movies
    folds = []
    for fold in range(1, 6):
        user, movie, _ = _numbers(folder / f"u{fold}.test")
        folds.append(np.isin(keys, user * len(movies) + movie))
    return Ratings(movies, users, values.astype(np.float64), _movies(folder), _users(folder), tuple(folds))


def _numbers(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Read number of user and movie, from 0, and rating."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, about which the error below tells more
            numbers = np.loadtxt(path, dtype=np.int64, usecols=(0, 1, 2), ndmin=2)
    except ValueError as error:
        raise InputError(f"Expected user, movie and rating, numbers, in each line of {path}: {error}") from error
    if not len(numbers):
        raise InputError(f"Expected lines of user, movie and rating in {path}, got none")
    user, movie, rating = numbers.T
    return user - 1, movie - 1, rating


def _rows(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="latin-1").splitlines()
    return [[word.strip() for word in line.split("|")] for line in lines if line.strip()]


def _movies(folder: Path) -> Features:
    rows = _rows(folder / "u.item")
    told = []
    for row in rows:
        genres = [genre for genre, mark in zip(GENRES, row[-len(GENRES) :], strict=True) if mark == "1"]
        told.append([*genres, *([f"{row[2][-4:-1]}0s"] if row[2] else [])])
    return marked([row[1] for row in rows], told)


def _users(folder: Path) -> Features:
    rows = _rows(folder / "u.user")
    return marked([row[0] for row in rows], [[f"age {int(row[1]) // 10}0s", row[2], row[3]] for row in rows])


def marked(items: Sequence[str], told: Sequence[Sequence[str]]) -> Features:
    """Turn the words told of each item into features of 0 and 1."""
    names = sorted({word for words in told for word in words})
    places = {name: place for place, name in enumerate(names)}
    rows = [sorted({places[word] for word in words}) for words in told]
    columns, starts = np.array([each for row in rows for each in row], np.int64), np.cumsum([0, *map(len, rows)])
    ones = np.ones(len(columns), np.float32)
    return Features(names, sparse.csr_array((ones, columns, starts), shape=(len(items), len(names))), items)


def tables(folder: Path) -> Ratings:
    """Read ``ratings.csv``, ``movies.csv`` and ``users.csv``."""
    places = {kind: defaultdict[str, int](count().__next__) for kind in ("movie", "user")}
    path = folder / "ratings.csv"
    lines = _rows_of(path, ("user", "movie", "rating"))
    triples = ((places["user"][user], places["movie"][movie], _rating(given, path)) for user, movie, given in lines)
    rated = np.fromiter(triples, dtype="i8,i8,f8")  # line by line, as there may be millions
    features = {"movie": dict(_features(folder / "movies.csv", "movie")), "user": dict[str, list[str]]()}
    if (folder / "users.csv").is_file():
        features["user"] = dict(_features(folder / "users.csv", "user"))
    names = {kind: sorted(found) for kind, found in places.items()}
    movies, users = (
        _by_name(rated[part], names[kind], places[kind]) for part, kind in (("f1", "movie"), ("f0", "user"))
    )
    of_movies, of_users = (
        marked(names[kind], [told.get(name, []) for name in names[kind]]) for kind, told in features.items()
    )
    return Ratings(movies, users, rated["f2"].copy(), of_movies, of_users)


def _by_name(numbers: NDArray[np.int64], names: Sequence[str], places: Mapping[str, int]) -> NDArray[np.int64]:
    """Number items by their sorted names rather than by which came first."""
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[[places[name] for name in names]] = np.arange(len(names))
    return ranks[numbers]


def _rating(text: str, path: Path) -> float:
    try:
        given = float(text)
    except ValueError as error:
        raise InputError(f"Expected numbers in the column rating of {path}: {error}") from error
    if not math.isfinite(given):
        raise InputError(f"Expected finite numbers in the column rating of {path}, got {text}")
    return given


def _features(path: Path, kind: str) -> Iterator[tuple[str, list[str]]]:
    for name, words in _rows_of(path, (kind, "features")):
        yield name, [word.strip() for word in words.split(";") if word.strip()]


def _rows_of(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Read these columns of a table, a row at a time."""
    if not path.is_file():
        raise InputError(
            f"Expected {path} with the columns {', '.join(columns)}, but it is not there: make it of MovieLens 10M "
            "(https://grouplens.org/datasets/movielens/10m/) and genres, keywords and directors of TMDB, joined by ;"
        )
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        head, empty = next(rows, []), True
        if lacking := [column for column in columns if column not in head]:
            raise InputError(f"Expected the columns {', '.join(columns)} in {path}, got no {', '.join(lacking)}")
        chosen = itemgetter(*map(head.index, columns))
        for row in filter(None, rows):
            if len(row) != len(head):
                raise InputError(f"Expected {len(head)} columns in line {rows.line_num} of {path}, got {len(row)}")
            empty = False
            yield chosen(row)
    if empty:
        raise InputError(f"Expected rows below the head of {path}, got none")


@cache
def drawn_ratings(movies: int = 150, users: int = 200, seed: int = 0) -> Ratings:
    """Draw ratings from 1 to 5: tastes that depend in part on what users are, for what movies are made of; noise."""
    random = np.random.default_rng(seed)
    made_of, are = (random.random((count, size)) < 0.3 for count, size in ((movies, 12), (users, 6)))
    taste = are @ random.normal(0, 0.5, (6, 3)) + random.normal(0, 0.5, (users, 3))
    liked = (made_of @ random.normal(0, 0.6, (12, 3))) @ taste.T
    biases = random.normal(0, 0.3, movies)[:, None] + random.normal(0, 0.4, users)
    wished = 3.4 + biases + liked - liked.mean() + random.normal(0, 0.4, liked.shape)
    movie, user = np.nonzero(random.random(wished.shape) < 0.3)
    values = np.clip(np.rint(wished[movie, user]), 1, 5)
    of_movies, of_users = (
        Features(
            [f"{kind} {n}" for n in range(table.shape[1])],
            sparse.csr_array(table.astype(np.float32)),
            [*map(str, range(len(table)))],
        )
        for kind, table in (("made of", made_of), ("are", are))
    )
    return Ratings(movie, user, values, of_movies, of_users)


def held_out(ratings: Ratings, scenario: str, draw: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Choose ratings to hold out, as the original's scenarios do: 30 %, or those of 30 % of the movies or users.

    With ``T3`` those of 15 % of the movies and of 20 % of the users. Where folds are given, they take the place of
    ``T1``, and as many folds of movies that of ``T2a``, so that each movie is held out once.

    Args:
        ratings: The ratings.
        scenario: One of :data:`SCENARIOS`.
        draw: Number of the fold, or of the draw.
        among: Which ratings are chosen from, for validation within training; default: all, and given folds.

    Returns:
        Shape ``(rating,)``.
    """
    if among is None and ratings.folds and scenario in (SEEN, NEW_MOVIES):
        folds = ratings.folds if scenario == SEEN else movie_folds(ratings)
        return folds[draw % len(folds)]
    random = np.random.RandomState(13 + draw + (1000 if among is not None else 0))
    if scenario == SEEN:
        chosen = random.rand(len(ratings.values)) < 0.3
    else:
        chosen = np.zeros(len(ratings.values), dtype=bool)
        for items, share in _shares(ratings, scenario):
            present = np.unique(items if among is None else items[among])
            chosen |= np.isin(items, random.permutation(present)[: round(share * len(present))])
    return chosen if among is None else chosen & among


def movie_folds(ratings: Ratings) -> list[NDArray[np.bool_]]:
    """Split the movies into as many parts as there are folds; the ratings of each part, shape ``(rating,)``."""
    movies = np.random.RandomState(13).permutation(np.unique(ratings.movies))
    return [np.isin(ratings.movies, part) for part in np.array_split(movies, len(ratings.folds))]


def _shares(ratings: Ratings, scenario: str) -> Iterator[tuple[NDArray[np.int64], float]]:
    if scenario in (NEW_MOVIES, NEW_EITHER):
        yield ratings.movies, 0.3 if scenario == NEW_MOVIES else 0.15
    if scenario in (NEW_USERS, NEW_EITHER):
        yield ratings.users, 0.3 if scenario == NEW_USERS else 0.2
