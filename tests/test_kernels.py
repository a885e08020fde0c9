"""Centring, indefinite similarities, overlap of sets, geodesics: against formulas and the original's numbers."""

import numpy as np
import pytest
import torch

from simec_vision import InputError, head_weight
from simec_vision.kernels import (
    centre,
    centre_blocks,
    eigen_factors,
    geodesic,
    geodesic_blocks,
    largest_eigenvectors,
    simpson,
    split_by_sign,
)

D1 = """
2.36 2.59 1.78 4.74 4.82 4.98 4.72 2.39 1.60 4.98 5.06 5.22 4.96 2.09
5.29 5.37 5.53 5.27 5.08 5.16 5.32 5.06 1.20 1.82 1.62 2.98 1.78 2.02
"""
D2 = """
4.15 2.03 4.14 1.26 4.33 .69 4.85 4.70 .57 4.37 1.82 4.24 2.02 4.69
1.85 4.88 1.68 5.40 4.36 1.83 4.23 2.67 4.55 .73 5.07 4.42 2.14 4.94
"""
"""Upper triangles of the eight points' distances (Laub & Müller 2004)."""


def eight_points():
    gaps = np.zeros((8, 8))
    gaps[np.triu_indices(8, 1)] = np.array(D1.split(), float) - np.array(D2.split(), float)
    return centre(-0.5 * (gaps + gaps.T))


def test_centring_is_h_k_h_and_blocks_follow():
    x = np.random.default_rng(0).normal(size=(12, 3)) + 5
    h = np.eye(8) - 1 / 8
    kernel, block = x[:8] @ x[:8].T, x[8:] @ x[:8].T
    centred, new = centre_blocks(kernel, block)
    np.testing.assert_allclose(centred, h @ kernel @ h, atol=1e-9)
    moved = x - x[:8].mean(axis=0)
    np.testing.assert_allclose(new, moved[8:] @ moved[:8].T, atol=1e-9)
    np.testing.assert_allclose(centre_blocks(kernel, kernel[2:5])[1], centred[2:5], atol=1e-9)


def test_the_eight_points_have_the_original_eigenvalues():
    values = np.linalg.eigvalsh(eight_points())[::-1]
    expected = [6.138923, 0.931076, 0.603175, 0.237121, 0, -0.186109, -0.381796, -5.694890]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_indefinite_similarities_are_met_by_embedding_and_head():
    similarity = eight_points()
    embedding, head = eigen_factors(similarity, 2)
    assert ((embedding @ head.T - similarity) ** 2).mean() == pytest.approx(0.02293, abs=1e-5)
    alone = head_weight(torch.from_numpy(similarity), 2).numpy()
    assert ((alone @ alone.T - similarity) ** 2).mean() > 0.5  # an inner product with itself cannot be negative
    whole = eigen_factors(similarity, 10)
    np.testing.assert_allclose(whole[0] @ whole[1].T, similarity, atol=1e-9)


def test_both_signs_are_inner_products_and_add_up():
    similarity = eight_points()
    positive, negative = split_by_sign(similarity)
    np.testing.assert_allclose(positive - negative, similarity, atol=1e-9)
    assert min(np.linalg.eigvalsh(positive)[0], np.linalg.eigvalsh(negative)[0]) > -1e-9
    assert np.linalg.eigvalsh(negative)[-1] == pytest.approx(5.694890, abs=1e-6)


def test_simpson_divides_by_the_smaller_set():
    sets = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]
    expected = [[1, 1, 0.5, 0], [1, 1, 0, 0], [0.5, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(simpson(sets), expected)
    np.testing.assert_allclose(simpson(sets, sets[:2]), np.array(expected)[:, :2])


def test_a_curve_is_unrolled_by_geodesics():
    angle = np.linspace(0, np.pi, 60)
    kernel = geodesic(np.stack([np.cos(angle), np.sin(angle)], axis=1), 4)
    values, vectors = np.linalg.eigh(kernel)
    assert values[-1] / np.abs(values).sum() > 0.98  # a line
    assert abs(np.corrcoef(vectors[:, -1], angle)[0, 1]) > 0.999


def test_new_items_join_the_curve_as_isomap_places_them():
    from sklearn.datasets import make_s_curve
    from sklearn.manifold import Isomap

    points, new = make_s_curve(150, random_state=0)[0], make_s_curve(20, random_state=1)[0]
    kernel, block = geodesic_blocks(points, points[5:9])
    np.testing.assert_allclose(block, kernel[5:9], atol=1e-9)
    values, vectors = np.linalg.eigh(kernel)
    placed = geodesic_blocks(points, new)[1] @ vectors[:, :-3:-1] / np.sqrt(values[:-3:-1])
    isomap = Isomap(n_neighbors=10, n_components=2, eigen_solver="dense").fit(points).transform(new)
    np.testing.assert_allclose(np.abs(placed), np.abs(isomap), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: centre(np.zeros((2, 3))), r"\(item, item\), got shape \(2, 3\)"),
        (lambda: centre_blocks(np.eye(3), np.eye(2)), r"\(any, 3\), got \(2, 2\)"),
        (lambda: simpson([[0.5]]), "0 and 1"),
        (lambda: geodesic(np.eye(3), 3), "below the number of items, got 3"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("name", ["products", "classes", "negative", "nothing"])
def test_few_of_many_eigenvectors_are_those_of_a_whole_decomposition(name):
    random = np.random.default_rng(0)
    features = random.standard_normal((1200, 40)) * np.linspace(3, 1, 40)
    classes = np.repeat(np.arange(6), 200)
    same = (classes[:, None] == classes).astype(float)  # one eigenvalue six times
    matrix = {"products": features @ features.T, "classes": same, "negative": -same, "nothing": 0 * same}[name]
    values, vectors = largest_eigenvectors(matrix, 8)
    expected = np.linalg.eigvalsh(matrix)[::-1][:8]
    np.testing.assert_allclose(values, expected, atol=1e-8)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-10)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-8)
