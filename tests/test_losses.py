import math
from itertools import combinations

import pytest
import torch

from simec_vision import InputError
from simec_vision.losses import (
    COMPLETE,
    LOSSES,
    gram_penalty,
    gram_penalty_block,
    gram_penalty_expanded,
    gram_penalty_factored,
    inner_product_mse,
    masked_bce,
    masked_mae,
    masked_mse,
    orthogonality_penalty,
    self_product,
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


@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_complete_targets_is_the_same(name):
    predicted, target = random_similarities(unknown=0.0)
    target[3] = 0.5
    expected = LOSSES[name](predicted, target)
    torch.testing.assert_close(COMPLETE[name](predicted, target), expected, rtol=1e-12, atol=0)


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


# --- many references: what a random subset of them says about all -----------------------------------------------------


def all_subsets(total, size):
    return [torch.tensor(subset) for subset in combinations(range(total), size)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_loss_of_a_subset_is_unbiased_where_all_is_known(name, size):
    predicted, target = random_similarities(unknown=0.0)
    predicted, target = predicted[:3], target[:3]
    losses = [LOSSES[name](predicted[:, c], target[:, c]) for c in all_subsets(5, size)]
    assert torch.stack(losses).mean().item() == pytest.approx(LOSSES[name](predicted, target).item(), abs=1e-10)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_loss_of_a_subset_counts_a_row_as_often_as_it_shows_something(name, size):
    """What the docstring says: the full loss of each row, times the chance that the subset shows a known target."""
    predicted, target = random_similarities(unknown=0.5)
    losses = [LOSSES[name](predicted[:, c], target[:, c]) for c in all_subsets(5, size)]
    rows = torch.stack([LOSSES[name](p[None], t[None]) for p, t in zip(predicted, target, strict=True)])
    known = [int((~row.isnan()).sum()) for row in target]
    shown = [1 - math.comb(5 - n, size) / math.comb(5, size) for n in known]
    assert min(shown) == 0
    assert any(0 < chance < 1 for chance in shown)
    assert torch.stack(losses).mean().item() == pytest.approx(
        (rows * torch.tensor(shown, dtype=torch.float64)).mean().item(), abs=1e-10
    )


def weight_and_factors():
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return weight, torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_factored_and_expanded_gram_penalty_equal_the_dense_one_with_its_gradient():
    weight, factors = weight_and_factors()
    gradients = []
    gram = factors @ factors.T
    for penalty, given in ((gram_penalty, gram), (gram_penalty_factored, factors), (gram_penalty_expanded, gram)):
        value = penalty(w := weight.clone().requires_grad_(), given)
        value.backward()
        gradients.append((value.item(), w.grad))
    for value, gradient in gradients[1:]:
        assert value == pytest.approx(gradients[0][0], abs=1e-10)
        torch.testing.assert_close(gradient, gradients[0][1], atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_penalties_of_a_subset_are_unbiased(size):
    weight, factors = weight_and_factors()
    grams = [gram_penalty_factored(weight[c], factors[c], 6) for c in all_subsets(6, size)]
    full = gram_penalty(weight, factors @ factors.T).item()
    assert torch.stack(grams).mean().item() == pytest.approx(full, abs=1e-10)
    blocks = [gram_penalty_block(weight[c], factors[c] @ factors[c].T, 6) for c in all_subsets(6, size)]
    torch.testing.assert_close(torch.stack(grams), torch.stack(blocks), atol=1e-10, rtol=0)
    orthogonality = [orthogonality_penalty(weight[c], 6) for c in all_subsets(6, size)]
    full = orthogonality_penalty(weight).item()
    assert torch.stack(orthogonality).mean().item() == pytest.approx(full, abs=1e-10)


def test_gradient_of_a_product_with_itself():
    matrix = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(self_product, (matrix,))
    assert torch.equal(self_product(matrix), matrix.T @ matrix)
    single = torch.randn(4, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = self_product(single).square().mean()
    loss.backward()
    assert single.grad.dtype == torch.float32


@pytest.mark.parametrize("loss", COMPLETE.values())
def test_other_shape_of_complete_targets_is_refused(loss):
    with pytest.raises(ValueError, match=r"\(batch, reference\) = \(4, 3\), got \(4, 1\)"):
        loss(torch.zeros(4, 3), torch.zeros(4, 1))


def with_gradients(function, *inputs):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = function(*leaves)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("references", [1, 5, 9])
def test_block_of_complete_similarities_is_the_same_with_its_gradient(references):
    size = min(references, 5)
    weight, gram = torch.randn(size, 3, dtype=torch.float64), torch.rand(size, size, dtype=torch.float64)
    counts = torch.full((size,), references)
    expected = with_gradients(lambda w: gram_penalty_block(w, gram, references, counts), weight)
    complete = with_gradients(lambda w: gram_penalty_block(w, gram, references, complete=True), weight)
    torch.testing.assert_close(complete, expected, rtol=1e-12, atol=1e-12)


def test_error_of_inner_products_is_the_usual_one_with_its_gradients():
    embedding, weight = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    target = torch.rand(4, 5, dtype=torch.float64)
    expected = with_gradients(lambda e, w: masked_mse(e @ w.T, target), embedding, weight)
    found = with_gradients(lambda e, w: inner_product_mse(e, w, target), embedding, weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inner_product_mse(embedding.requires_grad_(), weight, target).backward()  # a frozen head
    torch.testing.assert_close(embedding.grad, expected[1], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"\(batch, reference\) = \(4, 5\), got \(5, 4\)"):
        inner_product_mse(embedding, weight, target.T)


def test_many_squares_are_summed_exactly_enough():
    embedding, weight = torch.full((2048, 1), 0.1), torch.ones(4096, 1)
    error = inner_product_mse(embedding, weight, torch.zeros(2048, 4096))
    assert float(error) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("references", [9, 40])
def test_the_gram_penalty_goes_backwards_under_autocast(references):
    weight = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    gram = weight.detach() @ weight.detach().T + 0.3

    def value(w):
        return gram_penalty_block(w, gram, references, complete=True)

    exact, exact_slope = with_gradients(value, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lean = value(weight.requires_grad_())
    (slope,) = torch.autograd.grad(lean, weight)
    assert lean.dtype == slope.dtype == torch.float32
    assert float(lean.detach()) == pytest.approx(float(exact), rel=0.02)
    assert torch.cosine_similarity(slope.flatten(), exact_slope.flatten(), dim=0) > 0.99
