"""Recommendation and manifolds: their data, models against slow twins, the quick experiments."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from simec_vision.cli.main import main
from simec_vision.experiments.manifold_data import bandwidth, laplacian, surface
from simec_vision.experiments.rating_cells import cosine, errors, rated
from simec_vision.experiments.rating_models import Task, encoder_of_features, ridge, weighed
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
from simec_vision.items import InputError

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
    assert ratings.of_movies.table.tolist() == [[1, 1], [0, 0]]
    assert ratings.of_users.table.shape == (2, 0)
    (folder / "movies.csv").write_text("movie,tags\nm1,Drama\n")
    with pytest.raises(InputError, match="got no features"):
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
    assert ratings.of_movies.table.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert ratings.of_users.names == ["F", "M", "age 20s", "age 50s", "other", "technician"]
    assert held_out(ratings, SEEN, 3).tolist() == [False, True]


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
    assert main("experiment", ["recommender", "--quick", "true", "--processes", "2"]) == 0
    folder = Path("runs/recommender")
    summary = json.loads((folder / "summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 15
    assert "sum of all features" in (folder / "explanation.md").read_text()
    assert (folder / "content.png").stat().st_size > 10_000


def test_surfaces_are_seen_from_outside_and_from_within():
    assert main("experiment", ["manifold", "--quick", "true", "--processes", "2"]) == 0
    folder = Path("runs/manifold")
    summary = json.loads((folder / "summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 10
    assert all((folder / f"{name}.png").stat().st_size > 50_000 for name in ("S-curve", "cut_sphere"))
