"""The estimator: what it learns, what it takes, that it goes on, and that its words reach the Lightning pieces."""

import json

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from simec_vision import InputError, SimilarityEncoder
from simec_vision.arrays import fitting
from simec_vision.arrays.batches import TensorBatches
from simec_vision.arrays.fitting import Training, read_grams
from simec_vision.arrays.scaling import AT_ONCE, known_square_sum, measure
from simec_vision.arrays.targets import SparseTargets, own_similarities, read_similarities
from simec_vision.encoders import MLP
from simec_vision.losses import gram_penalty, masked_mse, orthogonality_penalty


def make(items=60, features=5, seed=0):
    """Give features, their centred linear kernel, and what a rank-2 approximation leaves of it."""
    x = np.random.default_rng(seed).normal(size=(items, features)) * np.linspace(3, 0.1, features)
    x -= x.mean(axis=0)
    return x, x @ x.T


def test_linear_encoder_finds_the_two_principal_components():
    x, kernel = make()
    estimator = SimilarityEncoder(2, epochs=150).fit(x + 7, 100 * kernel[:, :40])
    values, vectors = np.linalg.eigh(kernel)
    best = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T
    embedding = estimator.transform(x + 7)
    smallest = ((best - kernel) ** 2).mean()
    assert ((embedding @ embedding.T / 100 - kernel) ** 2).mean() < 1.2 * smallest
    assert ((estimator.predict(x + 7) / 100 - kernel[:, :40]) ** 2).mean() < 1.2 * ((best - kernel)[:, :40] ** 2).mean()
    np.testing.assert_allclose(estimator.predict(x + 7), embedding @ estimator.head_.T, rtol=1e-5, atol=1e-3)
    assert estimator.n_iter_ == 150
    assert estimator.history_["train/loss"][-1] < estimator.history_["train/loss"][0]


def test_score_is_the_share_of_variance_told_of_known_entries():
    x, kernel = make()
    estimator = SimilarityEncoder(2, epochs=3).fit(x, kernel)
    target = kernel.copy()
    target[3, 4] = np.nan
    known = ~np.isnan(target)
    gap, spread = (estimator.predict(x) - target)[known], (target[known] - target[known].mean())
    assert estimator.score(x, target) == pytest.approx(1 - (gap**2).sum() / (spread**2).sum(), abs=1e-6)


def test_a_seed_gives_the_same_and_leaves_random_numbers_alone():
    x, kernel = make()
    before = torch.random.get_rng_state()
    first, again, other = (SimilarityEncoder(2, epochs=2, seed=s).fit(x, kernel[:, :9]).transform(x) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_nothing_is_said_or_written(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    x, kernel = make()
    SimilarityEncoder(2, epochs=2, validation=0.2).fit(x, kernel)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embeddings_have_the_type_of_the_inputs(dtype):
    x, kernel = make()
    estimator = SimilarityEncoder(2, epochs=1).fit(x.astype(dtype), kernel.astype(dtype))
    assert estimator.transform(x.astype(dtype)).dtype == dtype


# --- forms of target similarities -------------------------------------------------------------------------------------


def test_one_reference_gives_one_prediction_an_item():
    x, kernel = make()
    assert SimilarityEncoder(2, epochs=1).fit(x, kernel[:, 0]).predict(x).shape == (60,)


def test_unknown_entries_play_no_part():
    x, kernel = make()
    known = np.random.default_rng(1).random(kernel.shape) < 0.7
    first = SimilarityEncoder(2, epochs=3, gram_penalty=0).fit(x, np.where(known, kernel, np.nan))
    stored = sparse.csr_array(np.where(known, kernel + 1e3, 0))  # no known zero gets lost
    stored.data -= 1e3
    second = SimilarityEncoder(2, epochs=3, gram_penalty=0).fit(x, stored)
    np.testing.assert_allclose(first.transform(x), second.transform(x), rtol=1e-3, atol=1e-3)


def test_a_stored_zero_is_known_and_sparse_rows_are_read_right():
    matrix = sparse.csr_array((np.array([0.0, 2.0, 5.0]), np.array([2, 0, 1]), np.array([0, 2, 2, 3])), shape=(3, 3))
    (read,) = read_similarities(matrix, 3)[0].values()
    rows = SparseTargets(read, None)(torch.tensor([2, 0, 1]), torch.tensor([0, 1, 2]))
    nan = float("nan")
    expected = torch.tensor([[nan, 5.0, nan], [2.0, nan, 0.0], [nan, nan, nan]])
    torch.testing.assert_close(rows, expected, equal_nan=True)


def test_sparse_inputs_are_as_good_as_dense_ones():
    x, kernel = make()
    x[x < 0] = 0
    dense = SimilarityEncoder(2, epochs=20, recipe="keras").fit(x, kernel)
    thin = SimilarityEncoder(2, epochs=20, recipe="keras").fit(sparse.csr_array(x), kernel)
    np.testing.assert_allclose(dense.transform(x), thin.transform(sparse.csr_matrix(x)), rtol=1e-4, atol=1e-4)


def test_several_similarities_have_a_head_each():
    x, kernel = make()
    stack = np.stack([kernel, -kernel], axis=2)
    stacked = SimilarityEncoder(2, epochs=2, gram_penalty=0).fit(x, stack)
    named = SimilarityEncoder(2, epochs=2, gram_penalty=0).fit(x, {"one": kernel, "other": -kernel[:, :7]})
    assert stacked.predict(x).shape == stack.shape
    assert {name: part.shape for name, part in named.predict(x).items()} == {"one": (60, 60), "other": (60, 7)}
    assert set(named.head_) == {"one", "other"}
    assert stacked.score(x, stack) < 1
    assert named.score(x, {"one": kernel}) < 1
    with pytest.raises(InputError, match="as many references as before"):
        named.score(x, {"third": kernel})


def test_references_are_the_first_items_only_where_that_can_be():
    _, kernel = make()
    assert own_similarities(kernel[:, :8].astype(np.float32)).shape == (8, 8)
    assert own_similarities(kernel[::-1, :8]) is None
    assert own_similarities(kernel[:, :1]) is None
    assert own_similarities(kernel[:8]) is None
    random = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.2):  # at first two or three pairs known both ways, if any
        known = [random.random((90, 60)) < share for _ in range(20)]
        assert [own_similarities(np.where(each, 1.0, np.nan)) for each in known] == [None] * 20
    links = np.triu(random.random((60, 60)) < 0.1, 1)
    assert own_similarities(np.where(links | links.T, 1.0, np.nan)) is not None


# --- what is minimised ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "start"), [("keras", 0.0), ("torch", 1 / 3)])
def test_recipes_minimise_the_original_objective(recipe, start):
    x, kernel = make()
    options = {"l2_hidden": 0.1, "l2_embedding": 0.2, "l2_head": 0.3, "gram_penalty": 0.5, "orthogonality_penalty": 0.7}
    estimator = SimilarityEncoder(3, hidden=(4,), recipe=recipe, epochs=1, batch_size=60, optimizer="sgd", lr=0.0)
    estimator.set_params(**options).fit(x, kernel[:, :20])
    encoder, head = estimator.model_.encoder.layers, estimator.model_.heads["similarity"].weight
    target = torch.from_numpy(kernel[:, :20]).float()
    predicted = estimator.model_(torch.from_numpy(x).float())["similarity"]
    expected = masked_mse(predicted, target) + 0.5 * gram_penalty(head, target[:20])
    expected += 0.1 * (encoder[1].weight ** 2).sum() + 0.2 * (encoder[3].weight ** 2).sum() + 0.3 * (head**2).sum()
    if start == 0:
        expected += 0.7 * orthogonality_penalty(head)
    assert estimator.history_["train/loss"][0] == pytest.approx(expected.item(), rel=1e-4)


def test_recipes_differ_as_the_original_implementations_do():
    x, kernel = make()
    similarities, _ = read_similarities(kernel, 60)
    both = {
        name: Training(SimilarityEncoder(2, recipe=name), x, similarities, read_grams(None, similarities))
        for name in ("keras", "torch")
    }
    keras, torch_ = (training.optimisation(False) for training in both.values())
    assert (keras.optimizer, keras.schedule, torch_.optimizer, torch_.schedule) == (
        "adamax",
        "constant",
        "adam",
        "plateau",
    )
    assert torch_.plateau_start == 4
    assert keras.lr == torch_.lr == 5e-4
    assert both["torch"].objective().orthogonality_start == pytest.approx(1 / 3)
    assert both["keras"].objective().l2 == {"encoder": 1e-8, "encoder.layers.1": 1e-5, "heads": 0.0}
    biases = both["keras"].build().encoder.layers[1].bias
    assert (biases == 0).all()
    assert not (both["torch"].build().encoder.layers[1].bias == 0).all()


@pytest.mark.parametrize("recipe", ["keras", "torch"])
def test_recipes_learn(recipe):
    x, kernel = make()
    assert SimilarityEncoder(3, recipe=recipe, epochs=150, lr=0.02).fit(x, kernel).score(x, kernel) > 0.9


def test_dimensions_that_a_frozen_head_does_not_read_are_zero():
    items = np.random.default_rng(0).normal(size=(20, 3))
    kernel = items @ items.T
    made = SimilarityEncoder(25, head_start="eigen", head_frozen=True, hidden=[8]).fit(items, kernel)
    embedding = made.transform(items)
    assert not embedding[:, 20:].any()
    assert np.abs(embedding[:, 3:]).max() < 0.02 * np.abs(embedding).max()
    np.testing.assert_allclose(embedding @ embedding.T, kernel, atol=0.1 * np.abs(kernel).max())
    assert embedding[:, 0].std() > 0.1
    free = SimilarityEncoder(25, head_start="eigen", hidden=[8], epochs=1).fit(items, kernel)
    assert free.transform(items)[:, 20:].any()


def test_a_frozen_head_stays_and_the_encoder_learns():
    x, kernel = make()
    values, vectors = np.linalg.eigh(kernel)
    head = vectors[:40, -2:] * np.sqrt(values[-2:])
    options = {"head_start": head, "head_frozen": True, "gram_penalty": 1.0, "orthogonality_penalty": 1.0}
    estimator = SimilarityEncoder(2, epochs=150, l2_head=5.0, **options).fit(x, kernel[:, :40])
    np.testing.assert_array_equal(estimator.head_, head.astype(np.float32))
    expected = np.linalg.lstsq(head, kernel[:, :40].T, rcond=None)[0].T
    np.testing.assert_allclose(estimator.transform(x), expected, atol=0.1)


def test_eigen_start_is_the_best_head():
    x, kernel = make()
    similarities, _ = read_similarities(kernel, 60)
    training = Training(SimilarityEncoder(2), x, similarities, read_grams(None, similarities))
    training.measure(np.ones(60, dtype=bool))
    training.scaling.fold(model := training.build())
    head = model.head("similarity").weight.detach().double().numpy()
    values, vectors = np.linalg.eigh(kernel)
    np.testing.assert_allclose(head @ head.T, (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T, atol=1e-3)


@pytest.mark.parametrize(("loss", "output"), [("bce", "none"), ("mse", "sigmoid")])
def test_probabilities_lie_between_0_and_1(loss, output):
    x, kernel = make()
    same = (kernel > 0).astype(float)
    estimator = SimilarityEncoder(4, epochs=150, loss=loss, output_activation=output).fit(x, same)
    predicted = estimator.predict(x)
    assert 0 <= predicted.min() <= predicted.max() <= 1
    assert ((predicted > 0.5) == same).mean() > 0.9


def test_scaling_folds_in_and_out():
    x, kernel = make()
    similarities, _ = read_similarities(1000 * kernel, 60)
    training = Training(SimilarityEncoder(2, hidden=(3,)), x + 5, similarities, read_grams(None, similarities))
    training.measure(np.ones(60, dtype=bool))
    model = training.build()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scaled = model(torch.from_numpy(training.scaling.inputs(x + 5)))["similarity"]
    training.scaling.fold(model)
    unscaled = model(torch.from_numpy(x + 5).float())["similarity"]
    torch.testing.assert_close(unscaled, scaled * training.scaling.similarity, rtol=1e-3, atol=1e-2)
    training.scaling.fold(model, back=True)
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old, rtol=1e-5, atol=1e-5)
    assert measure(np.zeros((3, 2)), {}).size == 1


def test_scaling_by_parts_is_that_of_the_whole():
    random = np.random.default_rng(0)
    items = random.normal(3, 5, size=(400, 700)).astype(np.float32)
    similarities = random.normal(0, 40, size=(400, 700)).astype(np.float32)
    similarities[random.random((400, 700)) < 0.5] = np.nan
    scaling = measure(items, {"similarity": similarities})
    assert items.size > 2 * AT_ONCE
    assert scaling.size == 4  # the power of 2 nearest to 5
    assert scaling.similarity == 64  # the power of 4 nearest to 40
    squares, count = known_square_sum(similarities)
    assert squares == pytest.approx(np.nansum(similarities.astype(float) ** 2), rel=1e-12)
    assert count == (~np.isnan(similarities)).sum()
    growing = np.repeat(np.arange(400.0)[:, None], 700, axis=1)  # other parts have other sizes
    assert measure(growing, {}).size == 2 ** round(np.log2(growing.std()))
    assert measure(growing[:150], {}).size != measure(growing, {}).size
    assert np.array_equal(scaling.inputs(items), ((items - items.mean(axis=0, dtype=float)) / 4).astype(np.float32))


def test_wide_inputs_are_made_smaller():
    random = np.random.default_rng(0)
    images = random.normal(size=(50, 784))
    for stored in (np.asarray, sparse.csr_array):
        assert measure(stored(images), {}).size == 1
        assert measure(stored(np.tile(images, 16)), {}).size == 16
    rare = sparse.random_array((400, 8000), density=1 / 200, rng=random).astype(bool).astype(float)
    # a root mean square of 1/16, at which 40 ones reach 640, or about twice that less their means
    assert measure(rare, {}).size == 32 / 16
    assert measure(rare.toarray(), {}).size == 64 / 16
    assert measure(np.eye(500), {}).size == measure(sparse.eye_array(500), {}).size == 1 / 16


@pytest.mark.parametrize("stored", ["toarray", "tocsr"])
def test_rare_features_do_not_run_away(stored):
    """Posts of two subjects: each has words of its subject and, as most words are, some that hardly any other has."""
    random = np.random.default_rng(0)
    subject = random.integers(0, 2, 600)
    shared = (random.random((600, 40)) < 0.2) * (np.arange(40) % 2 == subject[:, None])
    rare = sparse.random_array((600, 6000), density=0.005, rng=random).astype(bool).astype(float)
    x = getattr(sparse.hstack([sparse.csr_array(shared.astype(float)), rare]), stored)()
    same = np.equal.outer(subject, subject) - 0.5
    made = SimilarityEncoder(2, l2_embedding=1e-4).fit(x[:400], same[:400, :400])
    known, new = made.transform(x[:400]), made.transform(x[400:])
    assert ((known @ known.T - same[:400, :400]) ** 2).mean() < 0.02
    assert ((new @ new.T - same[400:, 400:]) ** 2).mean() < 0.25  # that of embeddings of 0


@pytest.mark.parametrize("hidden", [(), (10,)])
def test_more_features_than_items(hidden):
    """Two factors of twenty features, and 3000 more of noise: what is learned fits, and new items do not blow up.

    Embeddings of 0 would err by 1.14 of the similarities' size there: nothing can be learned of so few items.
    """
    random = np.random.default_rng(0)
    clean = random.normal(size=(300, 2)) @ random.normal(size=(2, 20))
    x = np.hstack([clean, random.normal(size=(300, 3000))])
    kernel = clean @ clean.T
    size = (kernel**2).mean()
    made = SimilarityEncoder(2, hidden=hidden, l2_embedding=1e-4, epochs=30).fit(x[:200], kernel[:200, :200])
    known, new = made.transform(x[:200]), made.transform(x[200:])
    assert ((known @ known.T - kernel[:200, :200]) ** 2).mean() < 0.1 * size
    assert ((new @ new.T - kernel[200:, 200:]) ** 2).mean() < 1.1 * size


# --- going on, saving, validation -------------------------------------------------------------------------------------


def test_parts_are_as_good_as_one_fit_and_survive_saving(tmp_path):
    x, kernel = make()
    options = {"recipe": "keras", "gram_penalty": 0.5, "hidden": (4,), "lr": 0.01}
    whole = SimilarityEncoder(2, epochs=3, **options).fit(x, kernel)
    parts = SimilarityEncoder(2, **options).partial_fit(x, kernel)
    parts.save(tmp_path / "saved")
    parts = SimilarityEncoder.load(tmp_path / "saved").partial_fit(x, kernel, epochs=2)
    np.testing.assert_allclose(parts.transform(x), whole.transform(x), rtol=1e-5, atol=1e-6)
    assert parts.n_iter_ == 3
    np.testing.assert_allclose(parts.history_["train/loss"], whole.history_["train/loss"], rtol=1e-5)


def test_a_saved_estimator_is_the_same(tmp_path):
    x, kernel = make()
    head = np.ones((60, 2), dtype=np.float32)
    saved = SimilarityEncoder(2, epochs=2, hidden=(3,), head_start=head, activation=["relu"]).fit(x, kernel)
    saved.save(tmp_path / "one")
    loaded = SimilarityEncoder.load(tmp_path / "one")
    np.testing.assert_array_equal(loaded.transform(x), saved.transform(x))
    np.testing.assert_array_equal(loaded.head_start, head)
    assert loaded.get_params()["activation"] == ["relu"]
    assert loaded.history_ == saved.history_
    np.testing.assert_allclose(clone(loaded).fit(x, kernel).transform(x), saved.transform(x), rtol=1e-6)
    with pytest.raises(InputError, match="holds something"):
        saved.save(tmp_path / "one")
    with pytest.raises(InputError, match=r"no .*estimator\.json"):
        SimilarityEncoder.load(tmp_path)


def test_the_best_epoch_is_restored():
    x, kernel = make()
    options = {"epochs": 30, "lr": 0.3, "schedule": "constant", "seed": 3}
    estimator = SimilarityEncoder(2, validation=0.25, **options).fit(x, kernel)
    losses = estimator.history_["validation/loss"]
    assert len(losses) == 30
    assert losses[estimator.best_epoch_] == min(losses)
    held_out = np.random.default_rng(3).permutation(60)[:15]
    mse = ((estimator.predict(x[held_out]) - kernel[held_out]) ** 2).mean() / estimator._scaling.similarity**2
    assert mse == pytest.approx(min(losses), rel=1e-3)
    last = SimilarityEncoder(2, validation=0.25, restore_best=False, **options).fit(x, kernel)
    assert last.best_epoch_ is None


def test_given_validation_items_are_not_trained_on():
    x, kernel = make()
    plain = SimilarityEncoder(2, epochs=2, restore_best=False).fit(x[:40], kernel[:40, :20])
    other = SimilarityEncoder(2, epochs=2, restore_best=False)
    other.fit(x[:40], kernel[:40, :20], validation=(x[40:], kernel[40:, :20]))
    assert len(other.history_["validation/loss"]) == 2
    np.testing.assert_allclose(other.transform(x), plain.transform(x), rtol=1e-5, atol=1e-6)


def test_an_encoder_of_ones_own_takes_pictures(tmp_path):
    pictures = np.random.default_rng(0).normal(size=(40, 3, 4, 4)).astype(np.float32)
    flat = pictures.reshape(40, -1)
    estimator = SimilarityEncoder(6, encoder=MLP(48, 6, (8,)), epochs=3).fit(pictures, flat @ flat.T)
    assert estimator.transform(pictures).shape == (40, 6)
    estimator.save(tmp_path / "own")
    np.testing.assert_array_equal(
        SimilarityEncoder.load(tmp_path / "own").predict(pictures), estimator.predict(pictures)
    )


def test_it_fits_into_scikit_learn():
    x, kernel = make()
    pipeline = make_pipeline(StandardScaler(), SimilarityEncoder(2, epochs=2)).fit(x, kernel)
    assert [*pipeline.get_feature_names_out()] == ["similarityencoder0", "similarityencoder1"]
    search = GridSearchCV(SimilarityEncoder(2, epochs=30), {"lr": [1e-6, 3e-2]}, cv=2).fit(x, kernel[:, :30])
    assert search.best_params_ == {"lr": 3e-2}


def test_cross_validation_leaves_a_named_gram_whole(tmp_path):
    x, kernel = make()
    grid = {"embedding_dim": np.arange(2, 4), "hidden": [(np.int64(3),)]}
    search = GridSearchCV(SimilarityEncoder(epochs=2), grid, cv=2, error_score="raise")
    search.fit(x, kernel, gram={"similarity": kernel})
    search.best_estimator_.save(tmp_path / "best")
    assert SimilarityEncoder.load(tmp_path / "best").embedding_dim == search.best_params_["embedding_dim"]
    with pytest.raises(InputError, match=r"takes it apart as it does X, give \{'similarity': gram\}"):
        search.fit(x, kernel, gram=kernel)


def test_own_similarities_are_given_by_name_or_number():
    x, kernel = make()
    named = {"one": kernel, "other": kernel[:, :7]}
    sparse_own = SimilarityEncoder(2, epochs=2).fit(x, kernel, gram=sparse.csr_array(kernel))
    assert np.array_equal(sparse_own.head_, SimilarityEncoder(2, epochs=2).fit(x, kernel, gram=kernel).head_)
    with pytest.raises(InputError, match=r"gram of \['one', 'other'\], got 'ohter': did you mean 'other'"):
        SimilarityEncoder(2).fit(x, named, gram={"ohter": kernel[:7, :7]})
    with pytest.raises(InputError, match=r"a gram for each of \['one', 'other'\], got 1"):
        SimilarityEncoder(2).fit(x, named, gram=kernel)
    with pytest.raises(InputError, match="head_start of 'other' as of the other similarities, got only"):
        SimilarityEncoder(2, head_start={"one": kernel[:, :2]}).fit(x, named)


def test_a_head_starts_at_a_view(tmp_path):
    x, kernel = make()
    start = np.linalg.eigh(kernel)[1][:, ::-1][:, :2]
    made = SimilarityEncoder(2, head_start=start, head_frozen=True, epochs=1).fit(x, kernel)
    assert np.allclose(made.head_, start, atol=1e-5)
    made.save(tmp_path / "saved")
    assert np.array_equal(SimilarityEncoder.load(tmp_path / "saved").head_start, start)


def test_batches_show_every_item_once_an_epoch_in_another_order():
    batches = TensorBatches(torch.arange(10.0)[:, None], torch.arange(2, 10), 3, seed=0)
    first, second = ([*batches], [*batches])
    assert [len(index) for _, index in first] == [3, 3, 2] == [len(index) for _, index in second]
    orders = [torch.cat([index for _, index in epoch]) for epoch in (first, second)]
    assert all(torch.equal(order.sort().values, torch.arange(2, 10)) for order in orders)
    assert not torch.equal(*orders)
    assert all(torch.equal(items[:, 0].long(), index) for items, index in first)


X, KERNEL = make(20)


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({}, X, KERNEL[:19], r"shape \(item, reference\) = \(20, at least 1\), got \(19, 20\)"),
        ({}, X, np.full((20, 3), np.nan), "every entry is NaN"),
        ({}, X, np.full((20, 3), 1e300), "got infinity"),
        ({}, X, np.zeros((20, 3, 2, 2)), r"1, 2 or 3 dimensions, got shape \(20, 3, 2, 2\)"),
        ({}, X, {"a.b": KERNEL}, "letters, digits"),
        ({"loss": "mes"}, X, KERNEL, "did you mean 'mse'"),
        ({"recipe": "kras"}, X, KERNEL, "did you mean 'keras'"),
        ({"embedding_dim": 0}, X, KERNEL, "embedding_dim as a whole number of at least 1, got 0"),
        ({"lr": -1.0}, X, KERNEL, "lr as a number of at least 0, got -1.0"),
        ({"validation": 1.0}, X, KERNEL, "got 1.0"),
        ({"precision": "bf16-true"}, X, KERNEL, "precision as one of 32-true.* got 'bf16-true'"),
        ({"loss": "bce"}, X, KERNEL, "between 0 and 1"),
        ({"loss": "bce", "gram_penalty": 1.0}, X, np.eye(20), "gram_penalty 0 beside the loss bce"),
        ({"gram_penalty": 1.0}, X, KERNEL[::-1, :5], "give them as gram"),
        ({"head_start": "eigen"}, X, KERNEL[::-1, :5], "give them as gram"),
        ({"head_start": np.zeros((2, 20))}, X, KERNEL, r"= \(20, 2\), got \(2, 20\)"),
        ({"head_frozen": True}, X, KERNEL, "Expected head_start"),
        ({"hidden": (3, 3), "activation": ["tanh"]}, X, KERNEL, "2 hidden layers, got 1"),
        ({}, np.where(X[0] == X, np.nan, X), KERNEL, "NaN"),
    ],
)
def test_mistakes_are_told_in_a_line(options, x, y, message):
    with pytest.raises(InputError, match=message) as caught:
        SimilarityEncoder(**{"epochs": 1, **options}).fit(x, y)
    assert "\n" not in str(caught.value)


def test_half_precision_learns_the_same_with_a_gram_penalty():
    options = {"epochs": 60, "gram_penalty": 1.0, "head_start": "random"}
    full, half = (SimilarityEncoder(2, precision=p, **options).fit(X, KERNEL) for p in ("32-true", "bf16-mixed"))
    assert half.score(X, KERNEL) == pytest.approx(full.score(X, KERNEL), abs=0.02)


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_refused_when_going_on(epochs):
    with pytest.raises(InputError, match=f"at least one epoch, got {epochs}"):
        SimilarityEncoder(2).partial_fit(X, KERNEL, epochs=epochs)


def test_a_description_that_lacks_something_is_refused(tmp_path):
    SimilarityEncoder(2, epochs=1).fit(X, KERNEL).save(tmp_path / "saved")
    path = tmp_path / "saved" / "estimator.json"
    described = json.loads(path.read_text())
    del described["history"]
    path.write_text(json.dumps(described))
    with pytest.raises(InputError, match="description of a model"):
        SimilarityEncoder.load(tmp_path / "saved")


def test_the_references_own_similarities_are_made_only_where_they_count(monkeypatch):
    def never(matrix):
        raise AssertionError

    monkeypatch.setattr(fitting, "own_similarities", never)
    SimilarityEncoder(2, epochs=1, gram_penalty=0.0).fit(X, KERNEL)
    with pytest.raises(AssertionError):
        SimilarityEncoder(2, epochs=1, gram_penalty=0.0, head_start="eigen").fit(X, KERNEL)


def test_other_references_are_refused_when_going_on():
    estimator = SimilarityEncoder(2).partial_fit(X, KERNEL)
    with pytest.raises(InputError, match=r"as before, \{'similarity': 20\}, got \{'similarity': 5\}"):
        estimator.partial_fit(X, KERNEL[:, :5])
    with pytest.raises(InputError, match=r"as before, \{'similarity': 20\}, got \{'similarity': 5\}"):
        estimator.score(X, sparse.csr_array(KERNEL[:, :5]))
