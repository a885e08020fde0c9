import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from simec_vision import metrics
from simec_vision.metrics import (
    SimilarityMatch,
    embedding_match,
    linear_probe_accuracy,
    nearest_neighbour_accuracy,
    retrieval,
    similarity_match,
)


def similarities(rows=40, columns=30, unknown=0.2):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(rows, columns, generator=generator).mul(6).round() / 6  # ties, as heel heights have
    predicted = target + 0.3 * torch.randn(rows, columns, generator=generator)
    target[torch.rand(rows, columns, generator=generator) < unknown] = math.nan
    return predicted, target


def test_similarity_match_equals_scipy():
    predicted, target = similarities()
    known = ~torch.isnan(target)
    p, t = predicted[known].double().numpy(), target[known].double().numpy()
    match = similarity_match(predicted, target)
    assert match["mse"] == pytest.approx(((p - t) ** 2).mean(), abs=1e-10)
    assert match["r2"] == pytest.approx(pearsonr(p, t)[0] ** 2, abs=1e-10)
    assert match["spearman"] == pytest.approx(spearmanr(p, t)[0], abs=1e-10)


def test_batches_and_processes_do_not_matter(monkeypatch):
    monkeypatch.setattr(metrics, "SPEARMAN_PAIRS", 200)
    predicted, target = similarities()
    index = torch.arange(40)
    whole, first, second = (SimilarityMatch(expected=40 * 30) for _ in range(3))
    whole.update(predicted, target, index)
    for match, rows in ((first, index[::2]), (second, index[1::2])):
        for part in rows.split(7):
            match.update(predicted[part], target[part], part)
    first.merge([first.state(), second.state()])
    assert whole.stride == 6
    assert whole.state()[1].shape[1] < 250
    assert first.compute() == pytest.approx(whole.compute(), abs=1e-12)


def test_constant_or_nothing_known_gives_nan():
    assert math.isnan(similarity_match(torch.ones(3, 3), torch.rand(3, 3))["r2"])
    assert math.isnan(similarity_match(torch.full((300, 70), 0.1), torch.rand(300, 70))["r2"])  # which rounds
    assert all(math.isnan(v) for v in similarity_match(torch.rand(2, 2), torch.full((2, 2), math.nan)).values())


def clusters(count, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    return centres[labels] + spread * torch.randn(count, 3, generator=generator), labels


def test_classifiers_separate_clusters_and_not_noise():
    train, test = clusters(60, 0, 0.1), clusters(90, 1, 0.1)
    assert nearest_neighbour_accuracy(*train, *test, neighbours=5) == 1.0
    assert linear_probe_accuracy(train, train, test)["accuracy"] == 1.0
    assert linear_probe_accuracy(train, None, test, (1.0,)) == {"accuracy": 1.0, "strength": 1.0}
    with pytest.raises(ValueError, match="one strength without validation items, got 5"):
        linear_probe_accuracy(train, None, test)
    noise = (torch.randn(60, 3, generator=torch.Generator().manual_seed(2)), train[1])
    assert nearest_neighbour_accuracy(*noise, *test, neighbours=5) < 0.7
    few = (train[0][:3], train[1][:3])
    assert nearest_neighbour_accuracy(*few, *test, neighbours=20) == pytest.approx(1 / 3)  # all three vote: a tie


def test_nearest_neighbours_equal_a_loop():
    train, test = clusters(30, 0, 0.6), clusters(20, 1, 0.6)
    correct = 0
    for image, label in zip(*test, strict=True):
        cosine = torch.nn.functional.cosine_similarity(image[None], train[0])
        nearest = cosine.topk(3).indices
        correct += int(np.bincount(train[1][nearest].numpy(), minlength=3).argmax() == label)
    assert nearest_neighbour_accuracy(*train, *test, neighbours=3) == pytest.approx(correct / 20)


def test_embedding_match_equals_scipy_and_ignores_turning_moving_and_scaling():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 4, generator=generator), torch.randn(30, 6, generator=generator)
    mine, theirs = (torch.pdist(part.double()) / torch.pdist(part.double()).max() for part in (a, b))
    match = embedding_match(a, b)
    assert match["mse"] == pytest.approx(float(((mine - theirs) ** 2).mean()))
    assert match["r2"] == pytest.approx(pearsonr(mine, theirs)[0] ** 2)
    assert match["spearman"] == pytest.approx(spearmanr(mine, theirs)[0])
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    assert embedding_match(a.numpy(), b.numpy()) == match
    assert embedding_match(a, 3 * a @ turn + 7) == pytest.approx({"mse": 0, "r2": 1, "spearman": 1}, abs=1e-5)
    with pytest.raises(ValueError, match="got 30 and 29"):
        embedding_match(a, b[:-1])


def test_retrieval_equals_scikit_learn_and_a_loop():
    from sklearn.metrics import average_precision_score

    embeddings, labels = clusters(40, 0, 0.7)
    labels[5] = -1
    found = retrieval(embeddings, labels, at=(1, 3, 100), chunk=7)
    known = labels >= 0
    unit, labels = torch.nn.functional.normalize(embeddings[known]), labels[known]
    similar = unit @ unit.T
    averages, first = [], []
    for item in range(len(labels)):
        others = torch.arange(len(labels)) != item
        same = labels[others] == labels[item]
        averages.append(average_precision_score(same.numpy(), similar[item][others].numpy()))
        first.append(float(same[similar[item][others].topk(3).indices].double().mean()))
    assert found["map"] == pytest.approx(np.mean(averages))
    assert found["precision@3"] == pytest.approx(np.mean(first))
    assert "precision@100" not in found  # there are not so many
    assert retrieval(*clusters(40, 0, 0.01))["map"] == 1.0
    with pytest.raises(ValueError, match="got 1"):
        retrieval(embeddings[:2], torch.tensor([0, -1]))
