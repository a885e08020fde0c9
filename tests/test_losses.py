import math
from itertools import combinations

import pytest
import torch

from simec_vision import InputError
from simec_vision.losses import (
    LOSSES,
    gram_penalty,
    gram_penalty_block,
    masked_bce,
    masked_mae,
    masked_mse,
    orthogonality_penalty,
)
from tests import oracles

ELEMENTS = {"mse": oracles.squared, "mae": oracles.absolute, "bce": oracles.cross_entropy}


def random_similarities(seed=0, unknown=0.3):
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    target = torch.rand(7, 5, generator=generator, dtype=torch.float64)
    target[torch.rand(7, 5, generator=generator) < unknown] = math.nan
    target[3] = math.nan
    return predicted, target


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("unknown", [0.0, 0.3, 1.1])
def test_loss_equals_loop(name, unknown):
    predicted, target = random_similarities(unknown=unknown)
    expected = oracles.masked_loss(predicted.tolist(), target.tolist(), ELEMENTS[name])
    assert float(LOSSES[name](predicted, target)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("loss", [masked_mse, masked_mae, masked_bce])
def test_all_unknown_gives_zero_with_zero_gradient(loss):
    predicted = torch.randn(4, 3, requires_grad=True)
    value = loss(predicted, torch.full((4, 3), math.nan))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(predicted.grad, torch.zeros(4, 3))


def test_unknown_entries_get_no_gradient():
    predicted, target = random_similarities()
    predicted.requires_grad_()
    masked_mse(predicted, target).backward()
    assert torch.equal(predicted.grad != 0, ~torch.isnan(target))


@pytest.mark.parametrize("loss", [masked_mse, masked_mae, masked_bce])
def test_other_shape_is_refused(loss):
    with pytest.raises(ValueError, match=r"\(batch, reference\) = \(4, 3\), got \(4, 1\)"):
        loss(torch.zeros(4, 3), torch.zeros(4, 1))


@pytest.mark.parametrize("unknown", [0.0, 0.5])
def test_penalties_equal_loops(unknown):
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gram = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gram[torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < unknown] = math.nan
    assert gram_penalty(weight, gram).item() == pytest.approx(
        oracles.gram_penalty(weight.tolist(), gram.tolist()), abs=1e-10
    )
    assert orthogonality_penalty(weight).item() == pytest.approx(
        oracles.orthogonality_penalty(weight.tolist()), abs=1e-10
    )


def test_gram_penalty_vanishes_only_at_the_factor():
    weight = torch.randn(5, 3, dtype=torch.float64)
    assert gram_penalty(weight, weight @ weight.T).item() == 0.0
    assert gram_penalty(weight, 2 * weight @ weight.T).item() > 0.0


def average_over_blocks(weight, gram, size, known_counts):
    blocks = [torch.tensor(block) for block in combinations(range(len(gram)), size)]
    counts = [None if known_counts is None else known_counts[b] for b in blocks]
    estimates = [
        gram_penalty_block(weight[b], gram[b][:, b], len(gram), c) for b, c in zip(blocks, counts, strict=True)
    ]
    return torch.stack(estimates).mean().item()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize(("unknown", "counted"), [(0.0, False), (0.0, True), (0.6, True)])
def test_block_estimate_is_unbiased(size, unknown, counted):
    """The average over every possible block is the full penalty, if all is known or its amount is."""
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gram = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gram[torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < unknown] = math.nan
    gram[4] = math.nan if unknown else gram[4]
    average = average_over_blocks(weight, gram, size, (~gram.isnan()).sum(dim=1) if counted else None)
    assert average == pytest.approx(gram_penalty(weight, gram).item(), abs=1e-10)


@pytest.mark.parametrize("block", [100, 300])
@pytest.mark.parametrize("counted", [True, False])
def test_block_estimate_is_near_where_little_is_known(block, counted):
    """5 % of the similarities are known, and of some references ten times as much as of others."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(600, 8, dtype=torch.float64, generator=generator)
    gram = torch.randn(600, 600, dtype=torch.float64, generator=generator)
    share = torch.linspace(0.01, 0.09, 600)[:, None]
    gram[torch.rand(600, 600, generator=generator) > share] = math.nan
    counts = (~gram.isnan()).sum(dim=1) if counted else None
    estimates = []
    for _ in range(60):
        b = torch.randperm(600, generator=generator)[:block]
        estimates.append(gram_penalty_block(weight[b], gram[b][:, b], 600, None if counts is None else counts[b]))
    assert torch.stack(estimates).mean().item() == pytest.approx(gram_penalty(weight, gram).item(), rel=0.03)


@pytest.mark.parametrize("wrong", [-0.5, 1.25])
def test_cross_entropy_refuses_targets_outside_its_interval(wrong):
    target = torch.tensor([[0.0, 1.00001, math.nan], [wrong, 0.5, 1.0]])
    with pytest.raises(
        InputError, match=rf"between 0 and 1 .* got 1 of 6 outside, from {wrong} to {wrong}: choose mse"
    ):
        masked_bce(torch.zeros(2, 3), target)
    masked_bce(torch.zeros(3), target[0])


def test_orthogonality_counts_the_diagonal_as_zero():
    assert orthogonality_penalty(3 * torch.eye(4)).item() == 0.0
    assert orthogonality_penalty(torch.ones(1, 2)).item() == pytest.approx(2 / 4)
