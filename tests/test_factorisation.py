"""Factorisation from both sides, beside the singular value decomposition."""

import numpy as np
import pytest
from scipy import sparse

import simec_vision.factorisation
from simec_vision import InputError, SimilarityEncoder, factorise
from simec_vision.factorisation import _without_some, start_factors


def experiment_matrix():
    """Make the original's matrix of experiment 00: four plateaus of singular values."""
    u, s, v = np.linalg.svd(np.random.RandomState(28).random_sample((500, 700)), full_matrices=False)
    s[0] = s[1] + 1
    s[:10] *= 50
    s[10:20] *= 20
    s[20:100] *= 10
    matrix = (u * s) @ v
    return matrix / np.abs(matrix).max()


def truncated(matrix, dim):
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :dim] * s[:dim]) @ v[:dim]


def error(one, other):
    return float(((one - other) ** 2).mean())


def test_known_matrices_reach_the_best_answer():
    matrix = experiment_matrix()
    assert matrix.var() == pytest.approx(0.03583, abs=1e-5)
    factors = factorise(matrix, 100, epochs=30)
    assert factors.rows.shape == (500, 100)
    assert factors.columns.shape == (700, 100)
    assert error(factors.reconstruction(), matrix) < 1.2 * error(truncated(matrix, 100), matrix)


def test_missing_entries_are_filled_better_than_by_the_decomposition():
    matrix = experiment_matrix()
    known = np.random.RandomState(15).random_sample(matrix.shape) > 0.5
    told = np.where(known, matrix, np.nan)
    filled = truncated(np.where(known, matrix, matrix.mean()), 50)
    found = error(factorise(told, 50).reconstruction(), matrix)
    assert error(filled, matrix) == pytest.approx(0.0145, abs=2e-4)
    assert found <= 0.0051


def test_long_embeddings_do_not_learn_what_unknown_entries_were_filled_with():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 80))
    known = rng.random(matrix.shape) < 0.7
    stored = sparse.csr_array(np.where(known, matrix, 0))
    told = np.where(known, matrix, np.nan)
    found = error(factorise(told, 60, epochs=200).reconstruction(), matrix)
    of_stored = error(factorise(stored, 60, epochs=200).reconstruction(), matrix)
    from_filled = error(factorise(told, 60, l2=2e-5, start="svd", epochs=200).reconstruction(), matrix)
    assert found < 0.1 * from_filled
    assert of_stored == pytest.approx(found, rel=0.1)


def test_both_sides_from_features_are_as_good_as_one():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 4)) @ rng.normal(size=(4, 30))
    one = factorise(matrix, 3)
    template = SimilarityEncoder(epochs=300, lr=0.02)
    both = factorise(matrix, 3, row_features=np.eye(40), column_features=np.eye(30), estimator=template)
    best = error(truncated(matrix, 3), matrix)
    assert error(one.reconstruction(), matrix) < 1.05 * best
    assert error(both.reconstruction(), matrix) < 1.05 * best
    np.testing.assert_allclose(both.column_encoder.transform(np.eye(30)), both.columns, rtol=1e-5)


def test_both_sides_agree_though_some_dimensions_are_small():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(size, 40)))[0] for size in (100, 80))
    matrix = 50 * u * np.geomspace(1, 1e-3, 40) @ v.T
    both = factorise(matrix, 30, np.eye(100), np.eye(80))
    one = both.row_encoder.predict(np.eye(100))
    assert error(both.reconstruction(), matrix) < 1.05 * error(one, matrix)
    np.testing.assert_allclose(both.column_encoder.predict(np.eye(80)).T, both.reconstruction(), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_rows_that_have_not_been_learned_are_told():
    template = SimilarityEncoder(lr=1e30, recipe="torch", hidden=(3,), activation="relu", epochs=3)
    with pytest.raises(InputError, match="lower its lr"):
        factorise(np.eye(9, 8), 2, np.eye(9), np.eye(8), estimator=template)


@pytest.mark.parametrize("stored", [False, True])
def test_known_entries_are_held_out_wherever_they_are(stored):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 30)).astype(np.float32)
    matrix[0, :5], matrix[1, :5] = 0, np.nan
    known = ~np.isnan(matrix)
    given = sparse.csr_array((matrix.ravel(), np.nonzero(np.ones_like(matrix)))) if stored else matrix
    kept, (row, column), truth = _without_some(given, 0)
    assert len(truth) == int(0.1 * known.sum())
    np.testing.assert_array_equal(truth, matrix[row, column])
    left = kept.toarray() if stored else np.nan_to_num(kept)
    assert not left[row, column].any()
    assert np.count_nonzero(left) == np.count_nonzero(np.nan_to_num(matrix)) - np.count_nonzero(truth)
    assert not stored or kept.nnz == known.sum() - len(truth)


def test_few_entries_and_wrong_starts():
    told = np.full((3, 4), np.nan)
    told[0, 0] = 2.0
    assert np.isfinite(factorise(told, 2, epochs=5).reconstruction()).all()
    with pytest.raises(InputError, match="Expected start svd or random, got 'SVD'"):
        factorise(np.eye(3), 2, start="SVD")


@pytest.mark.parametrize("large", [5, 10**6])
def test_the_start_is_the_decomposition_with_unknown_entries_at_the_mean(large, monkeypatch):
    monkeypatch.setattr(simec_vision.factorisation, "LARGE", large)
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 30)) + 1
    known = rng.random(matrix.shape) < 0.6
    expected = truncated(np.where(known, matrix, matrix[known].mean()), 3)
    stored = sparse.csr_array(np.where(known, matrix, 0))
    for given in (np.where(known, matrix, np.nan), stored):
        rows, columns = start_factors(given, 3)
        np.testing.assert_allclose(rows @ columns.T, expected, atol=1e-5)


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(InputError, match="Expected S as one matrix"):
        factorise(np.zeros((3, 4, 2)), 2)
