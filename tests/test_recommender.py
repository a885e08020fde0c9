"""Recommendation and manifolds: their data, models against slow twins, the quick experiments."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap

from simec_vision.cli.main import main
from simec_vision.experiments.manifold import claims as surface_claims
from simec_vision.experiments.manifold import distance_match, matches, squared_correlation
from simec_vision.experiments.manifold_data import NEIGHBOURS, bandwidth, laplacian, surface, view
from simec_vision.experiments.rating_cells import cosine, errors, rated
from simec_vision.experiments.rating_models import (
    FROM_FEATURES,
    METHODS,
    Task,
    decomposed,
    encoder_of_features,
    ridge,
    svd_ridge,
    weighed,
)
from simec_vision.experiments.ratings import (
    DRAWN,
    NEW_EITHER,
    NEW_MOVIES,
    NEW_USERS,
    SCENARIOS,
    SEEN,
    Ratings,
    drawn_ratings,
    held_out,
    marked,
    movielens,
    tables,
)
from simec_vision.experiments.recommender import paired
from simec_vision.experiments.table_report import Found
from simec_vision.items import InputError
from simec_vision.kernels import geodesic
from simec_vision.metrics import similarity_match

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]


def some_ratings():
    movies, users = (marked([*"abc"], [["x"], ["x", "y"], ["z"]]), marked([*"pq"], [["u"], ["v"]]))
    return Ratings(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1]), np.array([5.0, 3.0, 4.0, 1.0]), movies, users)


def test_means_are_shrunken_and_new_items_add_nothing():
    task = Task(some_ratings(), SEEN, np.array([True, True, True, False]), 0.5)
    assert task.deviations[0] == 4
    assert task.means().tolist() == [4 + 0.5 * 0.5, 4 - 0.5, 4 + 0.5 * 0.5, 4 - 0.5]
    assert task.residual.nnz == 3
    assert task.features[0].shape == (3, 3)  # x, y and 1: no known movie has z
    turned = Task(some_ratings(), NEW_USERS, np.ones(4, dtype=bool))
    assert turned.residual.shape == (2, 3)


def test_predictions_are_cut_to_the_range_of_ratings():
    found = errors(np.array([6.0, 2.0]), np.array([5.0, 4.0]), np.array([1.0, 5.0]))
    assert found == pytest.approx({"rmse": 2.5**0.5, "clipped": 2**0.5, "mae": 1.5})


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_held_out_is_new(scenario):
    ratings = drawn_ratings()
    test = held_out(ratings, scenario, 1)
    valid = held_out(ratings, scenario, 1, ~test)
    assert not (test & valid).any()
    assert (test != held_out(ratings, scenario, 2)).any()
    assert 0.2 < test.mean() < 0.45
    for part, known in ((test, ~test), (valid, ~test & ~valid)):
        old = [np.isin(items[part], items[known]) for items in (ratings.movies, ratings.users)]
        new = {SEEN: None, NEW_MOVIES: ~old[0], NEW_USERS: ~old[1], NEW_EITHER: ~old[0] | ~old[1]}[scenario]
        assert new is None or new.all()


def test_every_known_rating_counts_the_same():
    entries = sparse.csr_array(np.array([[1.0, 0, 2.0], [0, 0, 0], [0, 3.0, 0]], dtype=np.float32))
    given = weighed(np.ones((3, 2), np.float32), entries)
    assert given.entries.shape == (2, 3)
    counts = np.diff(given.entries.indptr)
    losses = np.add.reduceat(given.entries.data**2, given.entries.indptr[:-1]) / counts
    assert losses.sum() == pytest.approx((entries.data**2).sum() / 1.5)


def test_an_encoder_of_features_finds_what_ridge_regression_finds():
    random = np.random.default_rng(0)
    features = random.integers(0, 2, (60, 4)).astype(np.float32)
    whole = features @ random.normal(size=(4, 2)) @ random.normal(size=(2, 9))
    known = random.random(whole.shape) < 0.7
    entries = sparse.csr_array(np.where(known, whole, 0).astype(np.float32))
    made = encoder_of_features(features, entries, 3, 1e-7, 0, epochs=300)
    assert np.abs(made.predict(features) - whole).max() < 0.1


def test_ridge_regression_of_each_column():
    ratings = drawn_ratings()
    task = Task(ratings, NEW_MOVIES, ~held_out(ratings, NEW_MOVIES, 0))
    rows, weights = ridge(task, 2.0, 0)
    chosen = task.train & (ratings.users == 7)
    x, y = rows[ratings.movies[chosen]], (ratings.values - task.means())[chosen]
    gradient = x.T @ (x @ weights[7] - y) + 2 * weights[7]
    assert np.abs(gradient).max() < 1e-5


def test_tables_of_ones_own_are_read():
    folder = Path("mine")
    folder.mkdir()
    with pytest.raises(InputError, match=r"ratings\.csv with the columns user, movie, rating, but it is not there"):
        tables(folder)
    (folder / "ratings.csv").write_text("user,movie,rating\nu1,m2,3.5\nu2,m1,0.5\n")
    (folder / "movies.csv").write_text("movie,features\nm1,Drama; british pub\nm3,Horror\n")
    ratings = tables(folder)
    assert ratings.values.tolist() == [3.5, 0.5]
    assert ratings.of_movies.names == ["Drama", "british pub"]
    assert ratings.of_movies.table.toarray().tolist() == [[1, 1], [0, 0]]
    assert (ratings.movies.tolist(), ratings.users.tolist()) == ([1, 0], [0, 1])
    assert ratings.of_users.table.shape == (2, 0)
    (folder / "movies.csv").write_text("movie,tags\nm1,Drama\n")
    with pytest.raises(InputError, match="got no features"):
        tables(folder)
    for text, message in (
        ("user,movie,rating\n", "rows below the head"),
        ("user,movie,rating\nu1,m2,good\n", r"numbers in the column rating .* 'good'"),
        ("user,movie,rating\nu1,m2,nan\n", r"finite numbers in the column rating .* nan"),
        ("user,movie,rating\n\nu1,m2\n", r"3 columns in line 3 .* got 2"),
    ):
        (folder / "ratings.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            tables(folder)
    with pytest.raises(InputError, match=r"u\.data is not there: get ml-100k\.zip"):
        movielens(folder)
    assert main("experiment", ["recommender", "--root", "none"]) == 2


def test_a_folder_as_published_is_read():
    folder = Path("ml-100k")
    folder.mkdir()
    (folder / "u.data").write_text("2 \t 1\t3\t881250949\n1 \t 2\t5\t881250949\n")
    genres = "|".join("1" if place in (5, 11) else "0" for place in range(19))
    (folder / "u.item").write_text(f"1 |One (1995) |01-Jan-1995 | |url |{genres}\n2|Two|||url|{genres}\n")
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    for fold in range(1, 6):
        (folder / f"u{fold}.test").write_text("1\t2\t5\t1\n")
    ratings = movielens(folder)
    assert (ratings.movies.tolist(), ratings.users.tolist()) == ([0, 1], [1, 0])
    assert ratings.of_movies.names == ["1990s", "Comedy", "Horror"]
    assert ratings.of_movies.table.toarray().tolist() == [[1, 1, 1], [0, 1, 1]]
    assert ratings.of_users.names == ["F", "M", "age 20s", "age 50s", "other", "technician"]
    assert held_out(ratings, SEEN, 3).tolist() == [False, True]
    for text, told in (("", "got none"), ("1\ttwo\t3\t4\n", "numbers, in each line")):
        (folder / "u.data").write_text(text)
        with pytest.raises(InputError, match=told):
            movielens(folder)


def test_cosine_of_nothing_is_zero():
    assert cosine(np.array([[3.0, 4.0], [0.0, 0.0], [4.0, 3.0]])).tolist() == [
        pytest.approx([1, 0, 0.96]),
        [0, 0, 0],
        pytest.approx([0.96, 0, 1]),
    ]


def test_validation_chooses_the_shrinkage():
    found = rated("data", DRAWN, SEEN, "means", 0)
    assert 0 < found["shrinkage"] < 1
    assert found["rmse"] < rated("data", DRAWN, SEEN, "means, c = 1", 0)["rmse"]


def test_five_folds_hold_each_movie_out_once():
    drawn = drawn_ratings()
    ratings = replace(drawn, folds=tuple(np.arange(len(drawn.values)) % 5 == fold for fold in range(5)))
    folds = [held_out(ratings, NEW_MOVIES, fold) for fold in range(5)]
    assert (np.sum(folds, axis=0) == 1).all()
    assert all(not set(ratings.movies[fold]) & set(ratings.movies[~fold]) for fold in folds)
    assert {len(set(ratings.movies[fold])) for fold in folds} == {30}
    assert (folds[0] == held_out(ratings, NEW_MOVIES, 5)).all()


@pytest.mark.parametrize("method", FROM_FEATURES)
def test_validation_chooses_whether_means_are_left_out(monkeypatch, method):
    seen = []

    def told(task, option, seed):
        rows, columns = task.shape
        seen.append((task.own_means, option, int(task.train.sum())))
        return np.full((rows, 1), 0.0 if (task.own_means, option) == (True, 1) else 3.0), np.ones((columns, 1))

    monkeypatch.setitem(METHODS, method, (told, (0, 1)))
    found = rated("data", DRAWN, NEW_MOVIES, method, 0)
    *tried, last = seen
    assert [each[:2] for each in tried] == [(True, 0), (True, 1), (False, 0), (False, 1)]
    assert (last[:2], found["own_means"], found["option"]) == ((True, 1), 1, 1)
    assert {each[2] for each in tried} == {int((~out_of(0) & ~validation_of(0)).sum())}
    assert last[2] == (~out_of(0)).sum()
    seen.clear()
    rated("data", DRAWN, SEEN, method, 0)
    assert [each[:2] for each in seen] == [(True, 0), (True, 1), (True, 1)]


def out_of(draw):
    return held_out(drawn_ratings(), NEW_MOVIES, draw)


def validation_of(draw):
    return held_out(drawn_ratings(), NEW_MOVIES, draw, ~out_of(draw))


def test_what_is_left_to_features_is_what_means_of_rows_said():
    ratings = drawn_ratings()
    known = ~held_out(ratings, NEW_MOVIES, 0)
    left, whole = (Task(ratings, NEW_MOVIES, known, 0.5, own) for own in (True, False))
    gap = (whole.residual - left.residual).toarray()[ratings.movies[known], ratings.users[known]]
    assert np.abs(gap - 0.5 * left.deviations[1][ratings.movies[known]]).max() < 1e-6


def test_decompositions_are_predicted_by_ridge_regression_with_an_intercept():
    ratings = drawn_ratings()
    task = Task(ratings, NEW_MOVIES, ~held_out(ratings, NEW_MOVIES, 0))
    rows, columns = svd_ridge(task, (3, 10.0), 0)
    u, v = decomposed(task, 3)
    known = np.unique(ratings.movies[task.train])
    x = task.features[0].toarray().astype(float)
    x, y = x - x[known].mean(axis=0), u[known] - u[known].mean(axis=0)
    weights = np.linalg.solve(x[known].T @ x[known] + 10 * np.eye(x.shape[1]), x[known].T @ y)
    assert np.abs(rows - (x @ weights + u[known].mean(axis=0))).max() < 1e-6
    assert np.array_equal(columns, v)


def test_baselines_have_as_many_options_as_encoders():
    counts = {name: len(options) for name, (_, options) in METHODS.items()}
    ours = max(counts["means + SimEc(I)"], counts["means + SimEc(X)"])
    assert min(counts[name] for name in ("means + SVD", "means + ridge", "means + SVD + ridge")) >= ours


def test_differences_are_paired_by_draw():
    errors_of = {"means + SimEc(X)": {0: 0.9, 1: 1.1, 2: 1.0}, "means": {1: 1.2, 2: 1.2, 3: 9.0}}
    lines = [
        {"table": "ratings", "row": row, "column": NEW_MOVIES, "seed": seed, "values": {"rmse": value}}
        for row, values in errors_of.items()
        for seed, value in values.items()
    ]
    lines.append({**lines[0], "table": "shrinkage"})
    found = Found(lines, {}, Path(), [])
    assert paired(found, NEW_MOVIES, "means + SimEc(X)", "means").told() == "-0.1500 ± 0.0500, less in 2 of 2 draws"
    assert paired(found, NEW_USERS, "means + SimEc(X)", "means") is None


def test_a_view_is_that_of_pca_or_of_isomap():
    points, new = surface("S-curve", 80)[0], surface("S-curve", 20, new=True)[0]
    outside, within = view("S-curve", 80, "linear kernel"), view("S-curve", 80, "geodesic")
    assert np.abs(within.similarities - geodesic(points, NEIGHBOURS)).max() < 1e-9
    isomap = Isomap(n_neighbors=NEIGHBOURS, n_components=2).fit(points)
    assert distance_match(within.embedding, isomap.embedding_) == pytest.approx(1)
    assert distance_match(within.place(new), isomap.transform(new)) == pytest.approx(1)
    assert distance_match(outside.place(new), PCA(2).fit(points).transform(new)) == pytest.approx(1)
    assert matches(outside.embedding, outside.similarities)["r2"] > 0.9
    expected = similarity_match(*(torch.from_numpy(part) for part in (outside.similarities, within.similarities)))
    assert squared_correlation(outside.similarities, within.similarities) == pytest.approx(expected["r2"])


@pytest.mark.parametrize(
    ("value", "points", "new"), [(0.9951, True, True), (0.9949, False, True), (0.979, False, False)]
)
def test_points_of_the_cut_sphere_shall_lie_as_isomap_places_them(value, points, new):
    values = {"distance_r2": value, "new_r2": value}
    line = {"table": "cut sphere", "row": "SimEc", "column": "geodesic", "seed": 0, "values": values}
    found = [check.ok for check in surface_claims(Found([line], {}, Path(), []))]
    assert found == [points, new]


def test_surfaces_are_the_originals():
    assert bandwidth(surface("S-curve", 3000)[0]) == pytest.approx(0.246217, abs=5e-7)
    points, place = surface("cut sphere", 5000)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.ones(5000))
    assert np.abs(points[:, 2]).max() < np.cos(np.pi / 10)
    assert (place.min(), place.max()) == pytest.approx((0.0006, 5.782), abs=5e-4)
    few = surface("S-curve", 80)[0]
    embedding = laplacian(few, 10)
    assert np.abs(embedding.sum(axis=0)).max() < 1e-8
    assert not np.array_equal(few, surface("S-curve", 80, new=True)[0])


def test_ratings_are_predicted_as_the_original_claimed():
    assert main("experiment", ["recommender", "--quick", "true"]) == 0
    folder = Path("runs/recommender")
    summary = json.loads((folder / "summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 15
    assert "less in 1 of 1 draws" in (folder / "differences.md").read_text()
    assert "| c = 0.5 |" in (folder / "table.md").read_text()
    assert "sum of all features" in (folder / "explanation.md").read_text()
    assert all((folder / f"{name}.png").stat().st_size > 10_000 for name in ("content", "spectrum"))


def test_surfaces_are_seen_from_outside_and_from_within():
    assert main("experiment", ["manifold", "--quick", "true"]) == 0
    folder = Path("runs/manifold")
    summary = json.loads((folder / "summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 10
    assert all((folder / f"{name}.png").stat().st_size > 50_000 for name in ("S-curve", "cut_sphere"))
