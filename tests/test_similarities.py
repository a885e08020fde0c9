import io
import math
import os
from dataclasses import replace

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
from simec_vision.similarities.attributes import attribute_distance, same_class, set_overlap
from simec_vision.similarities.combined import weighted_sum
from simec_vision.similarities.kernels import KERNELS, centred, scaled
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


# --- formulas, in double precision ------------------------------------------------------------------------------------


def double(*size, seed=0, unknown=0.0):
    """Seeded random numbers, some of them NaN."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(*size, dtype=torch.float64, generator=generator)
    return numbers.masked_fill(torch.rand(*size, generator=generator) < unknown, math.nan)


def assert_equal(result, expected):
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=0, equal_nan=True)


def table_of(entry, a, b):
    return [[entry(x, y) for y in b.tolist()] for x in a.tolist()]


def test_attribute_distance_equals_loop():
    a, b = double(9, unknown=0.2), double(5, seed=1, unknown=0.2)
    assert_equal(attribute_distance(a, b, 3.7), table_of(lambda x, y: oracles.attribute_distance(x, y, 3.7), a, b))


def test_same_class_equals_loop():
    a, b = torch.tensor([2, 0, -1, 1, 1]), torch.tensor([1, -1, 2])
    assert_equal(same_class(a, b).double(), table_of(oracles.same_class, a, b))


@pytest.mark.parametrize("coefficient", ["simpson", "jaccard", "dice"])
def test_set_overlap_equals_loop(coefficient):
    a, b = (double(9, 5) > 0.4).double(), (double(6, 5, seed=1) > 0.4).double()
    assert 0 in a.sum(dim=1)

    def entry(x, y):
        return oracles.overlap(*({i for i, member in enumerate(row) if member} for row in (x, y)), coefficient)

    assert_equal(set_overlap(a, b, coefficient), table_of(entry, a, b))


@pytest.mark.parametrize("kind", ["linear", "rbf", "cosine"])
def test_kernel_formulas_equal_loops(kind):
    features, references = double(40, 6), double(30, 6, seed=1)
    rows, block = (
        table_of(lambda x, y: oracles.kernel(kind, x, y, 0.3), given, references) for given in (features, references)
    )
    kernel = KERNELS[kind](features, references, 0.3)
    assert_equal(kernel, rows)
    gram = torch.tensor(block, dtype=torch.float64)
    assert_equal(centred(kernel, gram.mean(dim=0)), oracles.centred(rows, block))
    assert_equal(scaled(kernel, *gram.aminmax()), oracles.scaled(rows, block))


def test_weighted_sum_equals_loop():
    parts = [double(4, 3, seed=seed, unknown=0.2) for seed in range(3)]
    expected = oracles.weighted_sum([part.tolist() for part in parts], [0.9, -0.5, 2.0])
    assert_equal(weighted_sum(parts, [0.9, -0.5, 2.0]), expected)


# --- similarities, which give single precision ------------------------------------------------------------------------


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


def test_large_values_that_differ_little_keep_their_similarity():
    times = 1.7e9 + np.arange(COUNT) * 10.0
    items = Items(np.array([f"item-{i}" for i in range(COUNT)]), {"time": times})
    equal(matrix_of(AttributeDistance("time"), items), loop(lambda i, j: 1 - abs(i - j) / 11))


def test_range_is_a_positive_number():
    for wrong in (0, -2.0, math.nan, math.inf):
        with pytest.raises(InputError, match=rf"range as a positive number, .*'heel'.*, got {wrong}"):
            AttributeDistance("heel", range=wrong)


def test_constant_kernel_is_not_scaled(items):
    same = Items(items.names, pixels=lambda index: np.ones((len(index), 4), dtype=np.float32))
    with pytest.raises(InputError, match=r"scale it to \[0, 1\], got values from 4 to 4: leave out scale"):
        Kernel(scale=True).bind(same, REFERENCES)


def test_distances_far_from_zero_keep_their_similarity():
    random = np.random.default_rng(0)
    features = 1000 + random.normal(size=(60, 10))
    items = Items(np.array([f"item-{i}" for i in range(60)]), pixels=lambda index: features[index].astype(np.float32))
    told = Kernel("rbf", gamma=0.1).bind(items, np.arange(60))(torch.arange(60))
    expected = np.exp(-0.1 * ((features[:, None] - features) ** 2).sum(axis=2))
    np.testing.assert_allclose(told.numpy(), expected, atol=1e-3)  # as exact as float32 keeps the features


def test_items_without_all_features_are_no_references(items, tmp_path):
    features = PIXELS.copy()
    features[[0, 4], 1] = np.nan
    np.save(tmp_path / "features.npy", features)
    kernel = Kernel(features=str(tmp_path / "features.npy"))
    assert np.flatnonzero(~kernel.known(items)).tolist() == [0, 4]
    assert Kernel().known(items).all()


@pytest.mark.parametrize(("value", "got"), [(np.nan, "NaN or infinity for 'item-9'"), (np.inf, "item 'item-9'")])
def test_features_of_references_are_finite(items, tmp_path, value, got):
    features = PIXELS.copy()
    features[9, 2] = value
    np.save(tmp_path / "features.npy", features)
    with pytest.raises(InputError, match=rf"finite features .*{got}"):
        Kernel(features=str(tmp_path / "features.npy"), centre=True).bind(items, REFERENCES)


def test_features_of_other_items_may_be_unknown_but_not_infinite(items, tmp_path):
    features = PIXELS.copy()
    features[1, 2], features[3, 0] = np.nan, -np.inf
    np.save(tmp_path / "features.npy", features)
    target = Kernel("cosine", features=str(tmp_path / "features.npy")).bind(items, REFERENCES)
    assert target(torch.tensor([0, 1, 2])).isnan().all(dim=1).tolist() == [False, True, False]
    assert target.known_counts().tolist() == [5] * 5
    with pytest.raises(InputError, match=r"finite features in .*features\.npy of item 'item-3'"):
        target(torch.tensor([2, 3]))


def test_kernel_on_a_features_file(items, tmp_path):
    np.save(tmp_path / "features.npy", PIXELS)
    equal(matrix_of(Kernel(features=str(tmp_path / "features.npy")), items), PIXELS @ PIXELS[REFERENCES].T, 1e-5)
    np.save(tmp_path / "features.npy", PIXELS[:7])
    with pytest.raises(InputError, match=r"features\.npy of shape \(item, feature\) = \(12, …\), got \(7, 6\)"):
        Kernel(features=str(tmp_path / "features.npy")).bind(items, REFERENCES)


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


@pytest.mark.parametrize("kernel", [Kernel(), Kernel("cosine"), Kernel(centre=True), Kernel("cosine", centre=True)])
def test_factors_of_kernels(items, kernel):
    target = kernel.bind(items, REFERENCES)
    columns = torch.tensor([3, 1])
    assert target.num_factors == 6
    equal(target.factors() @ target.factors().T, target.gram(), 1e-5)
    equal(target.factors(columns), target.factors()[columns])


def test_factors_of_classes(items):
    target = SameClass("label").bind(items, np.array([0, 3, 8, 1, 4]))
    equal(target.factors() @ target.factors().T, target.gram())
    equal(target.factors(torch.tensor([3, 1])), target.factors()[[3, 1]])
    assert target.num_factors == 3
    assert SameClass("label").bind(items, np.array([0, 3, 5])).num_factors == 2


@pytest.mark.parametrize("limit", [25, 24])
def test_references_own_similarities_are_kept_where_they_are_few(items, monkeypatch, limit):
    monkeypatch.setattr("simec_vision.similarities.base.KEPT_PAIRS", limit)
    target, columns = Kernel(centre=True).bind(items, REFERENCES), torch.tensor([3, 0, 4])
    all_of_them, some = target.gram(), target.gram(columns)
    target.keep_gram()
    monkeypatch.setattr(target, "rows", lambda *_: torch.full((3, 3), torch.nan))
    assert target.gram(columns).isnan().all() == (limit < 25)
    if limit == 25:
        torch.testing.assert_close(target.gram(columns), some)
        torch.testing.assert_close(target.gram(), all_of_them)


def test_what_has_no_factors(items):
    unknown = SameClass("label").bind(items, REFERENCES)  # item-2's class is unknown
    others = [Kernel("rbf"), Kernel(scale=True), AttributeDistance("heel"), SetOverlap("closure")]
    for target in [unknown, *(similarity.bind(items, REFERENCES) for similarity in others)]:
        assert target.num_factors == 0


def test_known_counts_are_those_of_the_gram(items, monkeypatch):
    references = np.arange(COUNT)
    stored = sparse.csr_array(np.where(np.abs(MATRIX) > 0.7, 1.0, 0.0))
    stored.data[3] = np.nan
    similarities = [SameClass("label"), AttributeDistance("heel"), SetOverlap("closure"), Precomputed(stored)]
    monkeypatch.setattr("simec_vision.similarities.base.COUNTED_PAIRS", 10)
    for similarity in similarities:
        target = similarity.bind(items, references)
        known = ~target.gram().isnan()
        assert 0 < known.sum() < COUNT**2
        assert target.known_counts().tolist() == known.sum(dim=1).tolist()
    assert Precomputed(MATRIX).bind(items, references).known_counts() is None


def test_complete_says_that_nothing_is_unknown(items):
    """So it is false as soon as one item, reference or not, has an unknown value."""
    columns = items.columns
    known = np.array([value != "" and value == value for value in columns["label"]])
    filled = {
        "label": np.where(known, columns["label"], "dog"),
        "heel": np.nan_to_num(columns["heel"]),
        "closure": np.where(np.isin(columns["closure"], ["", "nan"]), "a", columns["closure"]),
    }
    full = replace(items, columns=columns | filled)
    kinds = [SameClass("label"), AttributeDistance("heel"), SetOverlap("closure")]
    for kind in [*kinds, WeightedSum([kinds[0], kinds[1]], [0.5, 0.5])]:
        assert not kind.bind(items, REFERENCES).complete
        target = kind.bind(full, REFERENCES)
        assert target.complete
        assert not target(torch.arange(COUNT)).isnan().any()
    assert Kernel("linear").bind(items, REFERENCES).complete


@pytest.mark.parametrize("form", ["array", "npy", "npz"])
def test_precomputed(items, tmp_path, form):
    expected = MATRIX[:, REFERENCES].astype(np.float64)
    given = MATRIX
    if form == "npy":
        np.save(tmp_path / "s.npy", MATRIX)
        given = str(tmp_path / "s.npy")
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


@pytest.mark.parametrize("form", ["list", "file"])
def test_columns_belong_to_the_items_that_name_them(items, tmp_path, form):
    """Whatever references are chosen, in whatever order, each finds its own column."""
    owners = np.array([4, 9, 0, 11, 7, 2])
    names: list[str] | str = items.names[owners].tolist()
    if form == "file":
        (tmp_path / "columns.txt").write_text("\n".join(names) + "\n")
        names = str(tmp_path / "columns.txt")
    similarity = Precomputed(MATRIX[:, owners], names)
    equal(matrix_of(similarity, items), MATRIX[:, REFERENCES])
    assert similarity.known(items).nonzero()[0].tolist() == sorted(owners)
    sampled = choose_references(items, similarity.known(items).nonzero()[0], 4, seed=3)
    equal(similarity.bind(items, sampled)(torch.arange(COUNT)), MATRIX[:, sampled])
    with pytest.raises(InputError, match=r"among the 6 items .* got 'item-1' and 1 others without a column"):
        similarity.bind(items, np.array([4, 1, 3]))


def test_columns_are_named_or_those_of_all_items(items, tmp_path):
    with pytest.raises(
        InputError, match=r"\(12, 12\) or, .*`references`, \(item, reference\) = \(12, 5\), got \(12, 5\)"
    ):
        Precomputed(MATRIX[:, REFERENCES]).bind(items, REFERENCES)
    for names, message in (
        (["item-7", "item-2"], r"\(item, reference\) = \(12, 2\), got \(12, 3\)"),
        (["item-7", "item-2", "item-7"], r"every name once in .*references, got 2 in 3 columns"),
        (["item-7", "item-22", "item-0"], r"item in column 2 of .*references, got 'item-22': did you mean 'item-2'"),
        (str(tmp_path / "none.txt"), r"name of an item in each line at .*none\.txt"),
    ):
        with pytest.raises(InputError, match=message):
            Precomputed(MATRIX[:, :3], names).bind(items, np.array([7, 2]))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"names of items in .*empty\.txt, .* empty"):
        Precomputed(MATRIX[:, :3], str(tmp_path / "empty.txt")).known(items)


def test_precomputed_errors(items, tmp_path):
    with pytest.raises(InputError, match=r"\(12, 12\) or, .* \(item, reference\) = \(12, 5\), got \(12, 4\)"):
        Precomputed(MATRIX[:, :4]).bind(items, REFERENCES)
    assert Precomputed(MATRIX[:, :4]).known(items).all()  # left to binding, which says more
    for nothing in (np.full((COUNT, COUNT), np.nan), sparse.csr_array((COUNT, COUNT))):
        with pytest.raises(InputError, match="every one is NaN or absent"):
            Precomputed(nothing).bind(items, REFERENCES)
        with pytest.raises(InputError, match="every one is NaN or absent"):
            Precomputed(nothing).known(items)


def npy(path, array):
    with open(path, "wb") as file:
        np.save(file, array)


BAD_MATRICES = {
    "folder": (lambda path: path.mkdir(), r"numbers at .*s\.npy: .*directory"),
    "cut off": (lambda path: (npy(path, MATRIX), os.truncate(path, 200)), r"s\.npy, got a file of another kind"),
    "missing": (lambda path: None, r"numbers at .*s\.npy: .*No such file"),
    "objects": (lambda path: npy(path, np.array([[{}]], dtype=object)), r"at .*s\.npy, got a file of another kind"),
    "no npy": (lambda path: path.write_text("hello"), r"at .*s\.npy, got a file of another kind"),
    "empty": (lambda path: path.write_bytes(b""), r"at .*s\.npy, got a file of another kind"),
    "text": (lambda path: npy(path, np.array([["a"] * COUNT] * COUNT)), r"in .*s\.npy, got 2 dimensions of type <U1"),
    "complex": (lambda path: npy(path, MATRIX + 0j), r"real numbers in .*s\.npy, got 2 dimensions of type complex64"),
    "one number": (lambda path: npy(path, np.array(5)), r"in .*s\.npy, got 0 dimensions of type int64"),
    "cube": (lambda path: npy(path, np.zeros((12, 12, 1))), r"in .*s\.npy, got 3 dimensions of type float64"),
    "archive": (lambda path: path.write_bytes(archive(s=MATRIX)), r"at .*s\.npy, got a file of another kind"),
    "broken archive": (lambda path: path.write_bytes(archive(s=MATRIX)[:80]), r"s\.npy, got a file of another kind"),
}


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("case", BAD_MATRICES)
@pytest.mark.parametrize("what", ["matrix", "features"])
def test_a_file_that_is_no_matrix_of_numbers(items, tmp_path, case, what):
    write, message = BAD_MATRICES[case]
    path = tmp_path / "s.npy"
    write(path)
    similarity = Precomputed(str(path)) if what == "matrix" else Kernel(features=str(path))
    with pytest.raises(InputError, match=message) as error:
        similarity.bind(items, REFERENCES)
    assert "pickle" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [archive(s=MATRIX), archive(s=MATRIX)[:80], b"hello", b""])
def test_an_npz_that_is_no_sparse_matrix(items, tmp_path, content):
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"sparse matrix at .*s\.npz, got a file of another kind") as error:
        Precomputed(str(tmp_path / "s.npz")).bind(items, REFERENCES)
    assert "pickle" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "in the given matrix, got 0 dimensions of type int64"),
        (None, "in the given matrix, got 0 dimensions of type object"),
        ([[1.0], [1.0, 2.0]], "rows of one length"),
        (sparse.csr_array(MATRIX + 0j), "in the given sparse matrix, got 2 dimensions of type complex64"),
    ],
)
def test_a_value_that_is_no_matrix_of_numbers(items, given, message):
    with pytest.raises(InputError, match=message):
        Precomputed(given).bind(items, REFERENCES)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("form", ["array", "npy", "sparse"])
def test_infinite_similarity_is_named(items, tmp_path, value, form):
    matrix = MATRIX.astype(np.float64)
    matrix[6, 9] = value
    if form == "npy":
        np.save(tmp_path / "s.npy", matrix)
    given = {"array": matrix, "npy": str(tmp_path / "s.npy"), "sparse": sparse.csr_array(matrix)}[form]
    with pytest.raises(InputError, match="finite similarities of item 'item-6', got an infinite one"):
        Precomputed(given).bind(items, REFERENCES)(torch.arange(COUNT))
    if form == "array":
        with pytest.raises(InputError, match="'item-6'"):
            Precomputed(given).bind(items, REFERENCES)
    elif form == "npy":
        assert Precomputed(given).bind(items, REFERENCES)(torch.arange(6)).shape == (6, 5)  # read row by row


def one_column_known(column, form):
    matrix = np.full((COUNT, COUNT), np.nan)
    matrix[3, column] = 0.5
    stored = sparse.csr_array(([0.5, np.nan], ([3, 4], [column, 5])), shape=matrix.shape)
    return stored if form == "sparse" else matrix


@pytest.mark.parametrize("form", ["array", "sparse"])
def test_references_are_known_by_someone(items, form, monkeypatch):
    monkeypatch.setattr("simec_vision.similarities.given.CHUNK", 5)
    known = Precomputed(one_column_known(9, form))
    assert known.known(items).nonzero()[0].tolist() == [9]
    assert known.bind(items, REFERENCES).known_counts().tolist() == [0] * 5
    with pytest.raises(InputError, match="similarities to the 2 references, but every one is NaN or absent: choose"):
        known.bind(items, np.array([0, 1]))


@pytest.mark.parametrize("similarity", [AttributeDistance("heel"), SetOverlap("closure"), SameClass("label")])
def test_known_similarities_of_each_reference_are_counted(items, similarity, monkeypatch):
    monkeypatch.setattr("simec_vision.similarities.base.CHUNK", 2)
    target = similarity.bind(items, np.array([3, 2, 9, 10, 0]))
    assert target.known_counts().tolist() == (~target.gram().isnan()).sum(dim=1).tolist()
    assert 0 in target.known_counts()


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
        ("a,b,similarity\nitem-1,item-2,high\n", r"in row 2 of .*pairs\.csv, got 'high'"),
        ("a,b,similarity\n\nitem-1,item-2,inf\n", r"in row 3 of .*pairs\.csv, got 'inf'"),
        (
            "a,b,similarity\nitem-1,item-2,1\nitem-1,item-22,1\n",
            r"in row 3 of .*pairs\.csv, got 'item-22': did you mean 'item-2'",
        ),
        ("a,b,similarity\n", "which has a header only"),
        (
            "a,b,similarity\nitem-1,item-2,1\n\nitem-1,item-2,0\n",
            r"'item-1' and 'item-2', got 1.0 and 0.0 \(row 2 of .*pairs\.csv and row 4 of .*pairs\.csv\): keep one",
        ),
        ("similarity,a,b\n0.5,item-1,item-2\n0.5,item-1\n", r"Expected 3 cells in row 3 of .*pairs\.csv, .* got 2"),
        ("similarity,a,b\n0.5,item-1,item-2,item-3\n", r"Expected 3 cells in row 2 of .*pairs\.csv, .* got more"),
    ],
)
def test_pair_errors(items, tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        PairList(str(tmp_path / "pairs.csv")).bind(items, REFERENCES)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "at least one pair"),
        ([("item-1", "item-2", 1.0), ("item-1", "item-3", math.nan)], "finite number as similarity in pair 2, got nan"),
        ([("item-1", "item-2", 1.0), ("item-7", "item-3", 1e300)], "finite similarities of item 'item-3'"),
        ([("item-1", "item-2", 1.0), ("item-1", "item-22", 0.5)], "name of an item in pair 2, got 'item-22'"),
        ([("item-1", "item-2", 1.0, "my list, line 7"), ("item-1", "item-2", 0.5, "line 8")], r"7 and line 8\)"),
    ],
)
def test_given_pair_errors(items, pairs, message):
    with pytest.raises(InputError, match=message):
        PairList(pairs).bind(items, REFERENCES)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_weights_of_a_sum_are_numbers(weight):
    with pytest.raises(InputError, match="weights as finite numbers"):
        WeightedSum([SameClass("label"), SameClass("heel")], [0.5, weight])


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
