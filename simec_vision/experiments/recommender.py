"""The experiment ``recommender``: ratings of movies that nobody has rated yet, from what the movies are.

After notebook 07_recommender_systems of Horn's simec (2020), whose data are MovieLens 10M with features of TMDB.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.cli.runs import write_text
from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.figures import Curves, Map, draw_curves, draw_maps
from simec_vision.experiments.rating_cells import PLACES, content, explained, rated, shrunken, spectrum
from simec_vision.experiments.rating_models import METHODS
from simec_vision.experiments.ratings import (
    DRAWN,
    MOVIELENS,
    NEW_EITHER,
    NEW_MOVIES,
    NEW_USERS,
    SCENARIOS,
    SEEN,
    Ratings,
    read_ratings,
)
from simec_vision.experiments.results import Check, markdown
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment

OURS, THEIRS = "means + SimEc(X)", "means + SimEc(X), original recipe"
FREE, COSINE = "means + SimEc(I)", "cosine of features"
LEFT_OUT = {
    "means + SVD": {NEW_MOVIES, NEW_USERS, NEW_EITHER},
    FREE: {NEW_MOVIES, NEW_USERS, NEW_EITHER},
    "means + ridge": {NEW_EITHER},
    THEIRS: {NEW_USERS, NEW_EITHER},
}
"""Method → scenarios that it says nothing of."""
MOST_FEATURES = 500
"""With more features there is no ridge regression for each user."""

RESIDUAL, SHOWN_VALUES = "what means leave", 60
SPECTRUM = tuple(
    Table("spectrum", f"value_{place}", f"Ratings less their means, 0 where unknown: singular value {place}", "data", 0)
    for place in PLACES
)
RATED = Table("ratings", "rmse", "Root mean squared error of held-out ratings", "held out", 4)
SHRUNKEN = Table("shrinkage", "rmse", "Root mean squared error of means alone, by their shrinkage c", "held out", 4)
SHOWN_SHRINKAGES = (0.0, 0.1, 0.5, 0.9, 1.0)
COMPARED = (
    *((NEW_MOVIES, OURS, other) for other in ("means, c = 1", "means", "means + ridge", "means + SVD + ridge", THEIRS)),
    *((new, OURS, other) for new in (NEW_USERS, NEW_EITHER) for other in ("means", "means + SVD + ridge")),
    *((SEEN, FREE, other) for other in ("means, c = 1", "means", "means + SVD")),
)
"""What is held out, and which method shall err less than which."""
TABLES = (
    RATED,
    Table("ratings", "clipped", "The same, of predictions cut to the range of ratings", "held out", 4),
    Table("ratings", "mae", "Mean absolute error of held-out ratings", "held out", 4),
    Table("ratings", "shrinkage", "Shrinkage c of means that validation chose", "held out", 2),
    Table(
        "ratings",
        "own_means",
        "Share of draws in which it left the means of rows out of what is learned",
        "held out",
        1,
    ),
    SHRUNKEN,
    *SPECTRUM,
    Table("shrinkage", "mae", "Mean absolute error of the same", "held out", 4),
    Table(
        "content", "pearson_seen", "Movies alike by content and by ratings: Pearson's r, movies learned from", "data"
    ),
    Table("content", "pearson_new", "The same, new movies with all", "data"),
    Table(
        "content", "spearman_seen", "Movies alike by content and by ratings: Spearman's ρ, movies learned from", "data"
    ),
    Table("content", "spearman_new", "The same, new movies with all", "data"),
)


def recommender(
    config: str,
    root: str = "data",
    dataset: str = MOVIELENS,
    seeds: list[int] = [0, 1, 2, 3, 4],  # noqa: B006  # never changed, and the parser shows it
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Predict ratings of seen and of new movies and users, recommend by content, and explain a prediction by features.

    Args:
        config: All options as YAML, for the experiment's folder.
        root: The folder above the data set's.
        dataset: ml-100k (MovieLens 100k as published), or another folder, such as ml-10m, with ratings.csv (user,
            movie, rating), movies.csv (movie, features; separated by ;) and perhaps users.csv (user, features).
        seeds: Which folds, or draws of what is held out, and seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        quick: Drawn ratings in place of real ones, one seed.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/recommender,
            runs/recommender-2, …
    """
    name = DRAWN if quick else dataset
    ratings = read_ratings(root, name)
    cells = [*planned(root, name, ratings, seeds[:1] if quick else seeds)]
    run_experiment("recommender", cells, TABLES, claims, figures, config, processes, out, comparable=name == "ml-10m")


def planned(root: str, name: str, ratings: Ratings, seeds: list[int]) -> Iterator[Cell]:
    """List the cells."""
    own: dict[str, Any] = {"root": root, "dataset": name}
    many, unknown = len(ratings.of_movies.names) > MOST_FEATURES, not len(ratings.of_users.names)
    for scenario in SCENARIOS:
        for method in METHODS:
            said = scenario not in LEFT_OUT.get(method, ()) and not (many and method == "means + ridge")
            if said and not (unknown and scenario in (NEW_USERS, NEW_EITHER) and "+" in method):
                which = {**own, "scenario": scenario, "method": method}
                yield from (Cell("ratings", method, scenario, rated, which, seed) for seed in seeds)
        for c in SHOWN_SHRINKAGES:
            which = {**own, "scenario": scenario, "shrinkage": c}
            yield from (Cell("shrinkage", f"c = {c:g}", scenario, shrunken, which, seed) for seed in seeds)
    yield Cell("spectrum", RESIDUAL, name, spectrum, own)
    for method in (COSINE, "SimEc", "SimEc, original recipe"):
        for seed in seeds:
            yield Cell("content", method, name, content, {**own, "method": method}, seed)
    yield from (Cell("explanation", "SimEc(X)", name, explained, own, seed) for seed in seeds[:1])


def claims(found: Found) -> Iterator[Check]:
    """Check what the original claimed, by root mean squared errors over the same draws."""
    yield from reached(found, RATED, [OURS, THEIRS, FREE], 0.005)
    for scenario, ours, other in COMPARED:
        yield from _below(found, scenario, ours, other)
    yield from _content(found)
    for table in SPECTRUM:
        yield from exactly(found, table, [RESIDUAL], 0.02)  # read off a figure
    for cell in (cell for cell in found.cells if cell.table == "explanation"):
        gap = found.cell(cell.table, cell.row, cell.column, "gap")
        if gap is not None:
            claim = "contributions of features sum to the prediction"
            yield Check(claim, "at most 1e-5 apart, in ratings", f"{gap:.1e}", gap <= 1e-5)


@dataclass(frozen=True)
class Paired:
    """Errors of two methods over the same draws.

    Args:
        ours: Root mean squared errors, shape ``(draw,)``.
        other: The same of what it is compared with.
    """

    ours: NDArray[np.float64]
    other: NDArray[np.float64]

    def told(self) -> str:
        """Give mean and population standard deviation of the differences, and how many are below 0."""
        gaps = self.ours - self.other
        return f"{gaps.mean():+.4f} ± {gaps.std():.4f}, less in {(gaps < 0).sum()} of {len(gaps)} draws"


def paired(found: Found, scenario: str, ours: str, other: str) -> Paired | None:
    """Pair the errors of two methods by draw; None where there are none."""
    lines = [line for line in found.lines if (line["table"], line["column"]) == ("ratings", scenario)]
    one, two = ({line["seed"]: line["values"]["rmse"] for line in lines if line["row"] == row} for row in (ours, other))
    draws = [seed for seed in one if seed in two]
    return Paired(*(np.array([errors[seed] for seed in draws]) for errors in (one, two))) if draws else None


def _below(found: Found, scenario: str, ours: str, other: str) -> Iterator[Check]:
    """Check that one method errs less than another, and say by how much over the draws."""
    both = paired(found, scenario, ours, other)
    if both is not None:
        one, two = both.ours.mean(), both.other.mean()
        told = f"{one:.4f}, difference {both.told()}"
        yield Check(f"{scenario}: {ours} errs less than {other}", f"below {two:.4f}", told, bool(one < two))


def _content(found: Found) -> Iterator[Check]:
    for value, which in (("pearson_seen", "movies learned from"), ("pearson_new", "new movies")):
        grid = found.grid("content", value)
        if COSINE in grid and "SimEc" in grid:
            (column, (plain, _)), ours = next(iter(grid[COSINE].items())), grid["SimEc"]
            claim = f"{which}: embeddings say better than features which movies are rated alike: Pearson's r"
            yield Check(claim, f"above {plain:.4f}", f"{ours[column][0]:.4f}", ours[column][0] > plain)


PAIRS = ("both learned from", "with a new movie")
"""Pairs of movies, as a figure names them."""


def figures(found: Found) -> None:
    """Draw pairs of movies, singular values and, of several draws, errors; write differences and an explanation."""
    write_text(found.folder / "differences.md", _differences(found))
    shown: dict[str, Map] = {}
    for cell in (cell for cell in found.cells if cell.table == "content"):
        pairs = arrays_of(cell, found.folder)["pairs"]
        title = f"{cell.row} (across), alike by ratings (up)"
        shown.setdefault(cell.row, Map(title, pairs[:, :2], pairs[:, 2], names=PAIRS))
    draw_maps([*shown.values()], found.folder / "content.png", columns=3, size=4.2)
    if len({cell.seed for cell in found.cells}) > 1:
        panels = [Curves(name, "fold or draw", "root mean squared error", _errors(found, name)) for name in SCENARIOS]
        draw_curves(panels, found.folder / "errors.png", columns=2)
    for cell in (cell for cell in found.cells if cell.table == "spectrum"):
        values = arrays_of(cell, found.folder)["values"]
        places = np.unique(np.geomspace(1, len(values), SHOWN_VALUES).round().astype(int))
        curve = {float(place): (float(values[place - 1]), 0.0) for place in places}
        panel = Curves("Ratings less their means", "place", "singular value", {cell.column: curve})
        draw_curves([panel], found.folder / "spectrum.png")
    for cell in (cell for cell in found.cells if cell.table == "explanation"):
        write_text(found.folder / "explanation.md", _explanation(cell, found))


def _errors(found: Found, scenario: str) -> dict[str, Any]:
    """Give method → draw → error, without the means that are not shrunken."""
    lines = [line for line in found.lines if (line["table"], line["column"]) == ("ratings", scenario)]
    lines = [line for line in lines if "c = 1" not in line["row"]]
    rows = dict.fromkeys(line["row"] for line in lines)
    return {
        row: {float(line["seed"]): (line["values"]["rmse"], 0.0) for line in lines if line["row"] == row}
        for row in rows
    }


def _differences(found: Found) -> str:
    """Write by how much errors of two methods differ over the same draws."""
    rows = [["held out", "errs", "than", "difference"]]
    for scenario, ours, other in COMPARED:
        both = paired(found, scenario, ours, other)
        if both is not None:
            rows.append([scenario, f"{ours}: {both.ours.mean():.4f}", f"{other}: {both.other.mean():.4f}", both.told()])
    return f"Differences of root mean squared errors, draw by draw (population standard deviation)\n\n{markdown(rows)}"


def _explanation(cell: Cell, found: Found) -> str:
    """Write which features speak for and against a movie."""
    arrays = arrays_of(cell, found.folder)
    ratings = read_ratings(cell.options["root"], cell.options["dataset"])
    movie = round(found.cell(cell.table, cell.row, cell.column, "movie") or 0)
    used = np.flatnonzero(ratings.of_movies.table.sum(axis=0)).tolist()
    names = [*(ratings.of_movies.names[place] for place in used), "every movie"]
    users = [ratings.of_users.items[user] for user in arrays["users"]]
    order = np.argsort(-np.abs(arrays["contributions"]).max(axis=0))
    rows = [["feature", *(f"user {user}" for user in users)]]
    for place in order[:15]:
        if arrays["contributions"][:, place].any():
            rows.append([names[place], *(f"{part:+.3f}" for part in arrays["contributions"][:, place])])
    rows.append(["sum of all features", *(f"{part:+.3f}" for part in arrays["contributions"].sum(axis=1))])
    title = f"What speaks for and against {ratings.of_movies.items[movie]}, beside means of the movie and the user"
    return f"{title}\n\n{markdown(rows)}"
