import math

import pytest
import torch

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


def test_penalties_equal_loops():
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gram = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
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


def test_block_estimate_is_unbiased():
    """The average over every possible block is the full penalty."""
    from itertools import combinations

    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gram = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for size in (1, 2, 3, 5):
        blocks = [torch.tensor(block) for block in combinations(range(6), size)]
        estimates = [gram_penalty_block(weight[b], gram[b][:, b], 6).item() for b in blocks]
        full = gram_penalty(weight, gram).item()
        if size == 1:  # a single reference has no pair: only the diagonal can be seen
            full = ((weight @ weight.T - gram).diagonal() ** 2).sum().item() / 36
        assert sum(estimates) / len(estimates) == pytest.approx(full, abs=1e-10)


def test_orthogonality_counts_the_diagonal_as_zero():
    assert orthogonality_penalty(3 * torch.eye(4)).item() == 0.0
    assert orthogonality_penalty(torch.ones(1, 2)).item() == pytest.approx(2 / 4)
