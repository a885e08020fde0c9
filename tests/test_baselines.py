"""Predictors that see no image, against loops over pairs."""

import math

import numpy as np
import pytest
import torch

from simec_vision import InputError
from simec_vision.baselines import blind_match, class_means

GENERATOR = np.random.default_rng(3)
SIMILARITIES = GENERATOR.random((50, 6))
SIMILARITIES[GENERATOR.random((50, 6)) < 0.2] = math.nan
CODES = GENERATOR.integers(-1, 3, 50)
CODES[:30][CODES[:30] == 2] = 1  # no training item of class 2
TRAIN, HELD_OUT = np.arange(30), np.arange(30, 50)


def target(index):
    return torch.from_numpy(SIMILARITIES)[index].float()


def mean_of(items, reference):
    known = [SIMILARITIES[i, reference] for i in items if not math.isnan(SIMILARITIES[i, reference])]
    return sum(known) / len(known) if known else math.nan


def test_class_means_are_means_of_known_similarities(monkeypatch):
    monkeypatch.setattr("simec_vision.baselines.CHUNK", 7)
    means = class_means(target, TRAIN, CODES, 3)
    for code in (0, 1, 2):
        for reference in range(6):
            expected = mean_of([i for i in TRAIN if CODES[i] == code], reference)
            assert means[code, reference].item() == pytest.approx(expected, nan_ok=True)
    assert means[3].tolist() == pytest.approx([mean_of(TRAIN, reference) for reference in range(6)])


def test_held_out_items_are_predicted_from_training_items_only():
    constant, by_class = blind_match(target, TRAIN, HELD_OUT, CODES, 3)
    overall = np.mean([mean_of(TRAIN, reference) for reference in range(6)])
    pairs = []
    for i in HELD_OUT:
        for reference in range(6):
            members = [j for j in TRAIN if CODES[j] == CODES[i]] if CODES[i] >= 0 else TRAIN
            predicted = mean_of(members, reference)
            pairs.append((overall if math.isnan(predicted) else predicted, SIMILARITIES[i, reference]))
    known = np.array([pair for pair in pairs if not math.isnan(pair[1])])
    assert constant == {"mse": pytest.approx(np.mean((overall - known[:, 1]) ** 2))}
    assert by_class["mse"] == pytest.approx(np.mean((known[:, 0] - known[:, 1]) ** 2))
    assert by_class["r2"] == pytest.approx(np.corrcoef(known.T)[0, 1] ** 2, abs=1e-5)


@pytest.mark.parametrize("empty", ["training", "held-out"])
def test_predictors_need_items_of_both_kinds(empty):
    splits = [TRAIN, HELD_OUT]
    splits[empty == "held-out"] = np.arange(0)
    with pytest.raises(InputError, match=f"at least one {empty} item .*, got none"):
        blind_match(target, *splits, CODES, 3)
