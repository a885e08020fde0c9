import math

import numpy as np
import pytest
import torch
from scipy import sparse

from simec_vision import InputError, Items
from simec_vision.similarities import (
    AttributeDistance,
    Function,
    Kernel,
    PairList,
    Precomputed,
    SameClass,
    SetOverlap,
    WeightedSum,
    choose_references,
)
from tests import oracles

COUNT, REFERENCES = 12, np.array([7, 2, 9, 0, 4])
PIXELS = np.random.default_rng(0).normal(size=(COUNT, 6)).astype(np.float32)
MATRIX = np.random.default_rng(1).normal(size=(COUNT, COUNT)).astype(np.float32)


@pytest.fixture
def items():
    names = np.array([f"item-{i}" for i in range(COUNT)])
    sets = ["a;b", "a", "", "b;c;d", "a;b;c", "d", "a;d", "c", "b;c", "a;b;c;d", "nan", "d;a"]
    columns = {
        "label": np.array(["cat", "dog", "", "cat", "emu", "dog", "cat", "dog", "emu", "cat", "dog", "cat"]),
        "heel": np.array([0, 1, 2, np.nan, 4, 5, 6, 3, 2, 1, 0, 6.0]),
        "closure": np.array(sets),
        "price": np.array([str(i * 1.5) for i in range(COUNT)]),
    }
    return Items(names, columns, pixels=lambda index: PIXELS[index])


def matrix_of(similarity, items):
    return similarity.bind(items, REFERENCES)(torch.arange(COUNT)).double().numpy()


def loop(entry):
    return np.array([[entry(i, j) for j in REFERENCES] for i in range(COUNT)], dtype=np.float64)


def equal(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=0, equal_nan=True)


def test_same_class(items):
    label = items.columns["label"]
    expected = loop(lambda i, j: math.nan if "" in (label[i], label[j]) else float(label[i] == label[j]))
    equal(matrix_of(SameClass("label"), items), expected)
    assert SameClass("label").known(items).sum() == COUNT - 1


@pytest.mark.parametrize("extent", [None, 10.0])
def test_attribute_distance(items, extent):
    heel = items.columns["heel"]
    equal(
        matrix_of(AttributeDistance("heel", extent), items),
        loop(lambda i, j: 1 - abs(heel[i] - heel[j]) / (extent or 6)),
    )


@pytest.mark.parametrize("coefficient", ["simpson", "jaccard", "dice"])
def test_set_overlap(items, coefficient):
    sets = [set(text.split(";")) - {"", "nan"} for text in items.columns["closure"]]
    expected = loop(lambda i, j: oracles.overlap(sets[i], sets[j], coefficient))
    equal(matrix_of(SetOverlap("closure", coefficient), items), expected)


@pytest.mark.parametrize("kind", ["linear", "rbf", "cosine"])
@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_kernel(items, kind, centre, scale):
    raw = np.array(
        [
            [oracles.kernel(kind, PIXELS[i].tolist(), PIXELS[j].tolist(), 1 / 6) for j in REFERENCES]
            for i in range(COUNT)
        ]
    )
    block = raw[REFERENCES]
    if centre:
        means = block.mean(axis=0)
        raw = raw - raw.mean(axis=1, keepdims=True) - means + means.mean()
        block = raw[REFERENCES]
        equal(block.sum(axis=0), 0)
    if scale:
        raw = (raw - block.min()) / (block.max() - block.min())
    equal(matrix_of(Kernel(kind, centre=centre, scale=scale), items), raw, 1e-5)


def test_kernel_on_a_features_file(items, tmp_path):
    np.save(tmp_path / "features.npy", PIXELS)
    equal(matrix_of(Kernel(features=str(tmp_path / "features.npy")), items), PIXELS @ PIXELS[REFERENCES].T, 1e-5)


def test_references_own_similarities_are_symmetric(items):
    for similarity in (
        SameClass("label"),
        AttributeDistance("heel"),
        SetOverlap("closure"),
        Kernel("rbf", centre=True),
    ):
        gram = similarity.bind(items, REFERENCES).gram()
        equal(gram, gram.T)


def test_columns_are_a_part_of_all(items):
    columns = torch.tensor([3, 1])
    similarities = [
        SameClass("label"),
        AttributeDistance("heel"),
        SetOverlap("closure"),
        Kernel(centre=True, scale=True),
    ]
    similarities += [Precomputed(MATRIX), Precomputed(sparse.csr_array(np.abs(MATRIX) > 0.5).astype(float))]
    similarities += [Function(lambda a, b: a["heel"][:, None] * b["heel"][None])]
    similarities.append(WeightedSum([AttributeDistance("heel"), Kernel()], [0.5, 2.0]))
    for similarity in similarities:
        target = similarity.bind(items, REFERENCES)
        equal(target(torch.arange(COUNT), columns), target(torch.arange(COUNT))[:, columns])
        equal(target.gram(columns), target.gram()[columns][:, columns])


@pytest.mark.parametrize("form", ["array", "npy", "npz", "columns"])
def test_precomputed(items, tmp_path, form):
    expected = MATRIX[:, REFERENCES].astype(np.float64)
    given = MATRIX
    if form == "npy":
        np.save(tmp_path / "s.npy", MATRIX)
        given = str(tmp_path / "s.npy")
    elif form == "columns":
        given = MATRIX[:, REFERENCES]
    elif form == "npz":
        stored = np.abs(MATRIX) > 0.7
        rows, columns = stored.nonzero()
        values = MATRIX[stored]
        values[0] = 0.0  # a stored zero is a zero
        sparse.save_npz(tmp_path / "s.npz", sparse.csr_array((values, (rows, columns)), shape=MATRIX.shape))
        dense = np.full(MATRIX.shape, np.nan)
        dense[rows, columns] = values
        expected, given = dense[:, REFERENCES], str(tmp_path / "s.npz")
    equal(matrix_of(Precomputed(given), items), expected)


def test_precomputed_errors(items, tmp_path):
    with pytest.raises(InputError, match=r"\(12, 12\) or \(item, reference\) = \(12, 5\), got \(12, 4\)"):
        Precomputed(MATRIX[:, :4]).bind(items, REFERENCES)
    with pytest.raises(InputError, match="every one is NaN"):
        Precomputed(np.full((COUNT, COUNT), np.nan)).bind(items, REFERENCES)
    with pytest.raises(InputError, match=r"missing\.npy"):
        Precomputed(str(tmp_path / "missing.npy")).bind(items, REFERENCES)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"pickled\.npy"):
        Precomputed(str(tmp_path / "pickled.npy")).bind(items, REFERENCES)


def test_pairs_count_both_ways_and_others_are_unknown(items, tmp_path):
    (tmp_path / "pairs.csv").write_text("a,b,similarity\nitem-7,item-1,0.25\nitem-2,item-7,0\n")
    result = matrix_of(PairList(str(tmp_path / "pairs.csv")), items)
    assert result[1, 0] == 0.25
    assert result[2, 0] == 0.0
    assert result[7, 1] == 0.0
    assert np.isfinite(result).sum() == 3
    assert PairList(str(tmp_path / "pairs.csv")).known(items).nonzero()[0].tolist() == [1, 2, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nitem-1,item-2\n", r"pairs\.csv, which has no similarity"),
        ("a,b,similarity\nitem-1,item-2,high\n", "row 2, got 'high'"),
        ("a,b,similarity\nitem-1,item-22,1\n", "got 'item-22': did you mean 'item-2'"),
        ("a,b,similarity\n", "which has a header only"),
        ("a,b,similarity\nitem-1,item-2,1\nitem-1,item-2,0\n", "'item-1' and 'item-2', got 1.0 and 0.0"),
    ],
)
def test_pair_errors(items, tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        PairList(str(tmp_path / "pairs.csv")).bind(items, REFERENCES)


def test_weighted_sum_and_function(items):
    heel = items.columns["heel"]
    summed = matrix_of(WeightedSum([AttributeDistance("heel"), SameClass("label")], [0.9, 0.1]), items)
    equal(summed, 0.9 * matrix_of(AttributeDistance("heel"), items) + 0.1 * matrix_of(SameClass("label"), items))
    own = Function(lambda a, b: np.exp(-np.abs(a["heel"][:, None] - b["heel"][None, :])))
    equal(matrix_of(own, items), loop(lambda i, j: math.exp(-abs(heel[i] - heel[j]))))
    with pytest.raises(InputError, match=r"\(12, 5\), got \(12,\)"):
        matrix_of(Function(lambda a, b: a["heel"]), items)


def test_text_that_is_no_number_is_named(items):
    equal(items.numbers("price"), np.arange(COUNT) * 1.5)
    items.columns["price"] = np.where(np.arange(COUNT) == 4, "cheap", items.columns["price"])
    with pytest.raises(InputError, match=r"'price' of item 'item-4', got 'cheap'"):
        AttributeDistance("price").bind(items, REFERENCES)
    with pytest.raises(InputError, match="got 'hel': did you mean 'heel'"):
        AttributeDistance("hel").bind(items, REFERENCES)
    items.columns["same"] = np.ones(COUNT)
    with pytest.raises(InputError, match="'same' to vary"):
        AttributeDistance("same").bind(items, REFERENCES)


def test_references_are_a_seeded_sample_or_named(items):
    candidates = np.arange(3, 11)
    chosen = choose_references(items, candidates, 5, seed=1)
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(candidates)
    assert np.array_equal(chosen, choose_references(items, candidates, 5, seed=1))
    assert not np.array_equal(chosen, choose_references(items, candidates, 5, seed=2))
    assert choose_references(items, candidates, ["item-4", "item-1"]).tolist() == [4, 1]
    with pytest.raises(InputError, match=r"\(8\), got 9"):
        choose_references(items, candidates, 9)
    with pytest.raises(InputError, match="got 'item-99'"):
        choose_references(items, candidates, ["item-99"])


@pytest.mark.parametrize("values", [[0.5, np.inf], ["0.5", "-inf"]])
def test_infinite_attribute_is_named(values):
    items = Items(np.array(["a", "b"]), {"price": np.array(values)})
    with pytest.raises(InputError, match=r"finite number for 'price' of item 'b', got '-?inf'"):
        AttributeDistance("price").bind(items, np.arange(2))


def test_numbers_that_differ_are_different_classes():
    values = np.array([1000001, 1000002, math.nan, 0.1234567, 0.1234568, 3, -0.0])
    items = Items(np.array(list("abcdefg")), {"id": values, "half": np.array([0.1] * 7, dtype=np.float32)})
    codes, names = items.classes("id")
    assert names == ["0", "0.1234567", "0.1234568", "1000001", "1000002", "3"]
    assert codes.tolist() == [3, 4, -1, 1, 2, 5, 0]
    assert items.classes("half")[1] == ["0.1"]
