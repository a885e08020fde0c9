"""Losses with unknown targets, and the two penalties of a head: pure functions of tensors.

Formulas follow Horn & Müller 2018 (arXiv 1702.01824) and its code; unknown targets are NaN instead of a mask value.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from simec_vision.items import InputError

ROUNDING = 1e-4
"""How far rounding may take a similarity out of [0, 1]."""


def squared(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error, element by element."""
    return (predicted - target) ** 2


def absolute(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error, element by element."""
    return (predicted - target).abs()


def cross_entropy(predicted: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of predicted log-odds, element by element: −t·log σ(p) − (1−t)·log(1−σ(p)).

    Raises:
        InputError: naming targets outside [0, 1], for tensors on the CPU only; elsewhere a look at the values would
            make every step wait for the device, so check what comes there beforehand.
    """
    if target.device.type == "cpu":
        refuse_outside_unit_interval(target)
    return F.binary_cross_entropy_with_logits(predicted, target.to(predicted.dtype), reduction="none")


Elementwise = Callable[[Tensor, Tensor], Tensor]
"""A loss of two tensors of one shape, element by element."""

ELEMENTWISE: dict[str, Elementwise] = {"mse": squared, "mae": absolute, "bce": cross_entropy}
"""The losses of single entries by the names that options use."""


def known_sums(elementwise: Elementwise, predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sum a loss over the known targets of each row, so that the references can come some columns at a time.

    Args:
        elementwise: One of :data:`ELEMENTWISE`.
        predicted: Predicted similarities, shape ``(batch, reference)``.
        target: Target similarities, same shape, NaN where unknown (M_ij = 0).

    Returns:
        Σ_j M_ij · loss_ij and Σ_j M_ij, each of shape ``(batch,)``.
    """
    _check_shapes(predicted.shape, target)
    known = ~torch.isnan(target)
    losses = elementwise(predicted, torch.where(known, target, 0.0))
    return torch.where(known, losses, 0.0).sum(dim=-1), known.sum(dim=-1)


def _check_shapes(predicted: tuple[int, ...], target: Tensor) -> None:
    if predicted != target.shape:
        raise ValueError(
            f"Expected target similarities of the predictions' shape (batch, reference) = {tuple(predicted)}, "
            f"got {tuple(target.shape)}. The head and the similarity have different references"
        )


def times(strength: float, value: Tensor) -> Tensor:
    """Give ``strength · value``, at no cost for a strength of 1."""
    return value if strength == 1 else strength * value


def known_mean(sums: Tensor, counts: Tensor) -> Tensor:
    """Average the known entries of each row, then the rows; a row without any known entry gives 0."""
    return (sums / counts.clamp(min=1)).mean()


def masked_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the known targets: mean over rows i of Σ_j M_ij (t_ij − p_ij)² / max(Σ_j M_ij, 1).

    Over a random subset of the references, the expectation is the value over all of them where every target is known.
    Where some are not, a row's known targets in the subset are a random sample of its known ones, so that its mean is
    right whenever the subset shows any; it shows none with probability C(r − n, k) / C(r, k), for n known ones of r
    references and a subset of k, and then the row counts 0. So each row's expected part is its part of the full
    loss times one minus that: exactly the full loss where fewer than k of its r targets are unknown, less for rows of
    which little is known.

    Args:
        predicted: Predicted similarities, shape ``(batch, reference)``.
        target: Target similarities, same shape, NaN where unknown (M_ij = 0).

    Returns:
        A scalar; every row counts the same however many of its entries are known.
    """
    return known_mean(*known_sums(squared, predicted, target))


def masked_mae(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over the known targets, reduced as in :func:`masked_mse`."""
    return known_mean(*known_sums(absolute, predicted, target))


def masked_bce(predicted: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (:func:`cross_entropy`) over the known targets, reduced as in :func:`masked_mse`."""
    return known_mean(*known_sums(cross_entropy, predicted, target))


def refuse_outside_unit_interval(target: Tensor) -> None:
    """Make sure that known target similarities lie in [0, 1], but for rounding; it waits for the device.

    Args:
        target: Target similarities of any shape, NaN where unknown.

    Raises:
        InputError: naming the smallest and the largest value outside.
    """
    outside = target[(target < -ROUNDING) | (target > 1 + ROUNDING)]
    if len(outside):
        raise InputError(
            f"Expected target similarities between 0 and 1 for the loss bce, got {len(outside)} of {target.numel()} "
            f"outside, from {outside.min():g} to {outside.max():g}: choose mse or mae, or scale the similarity"
        )


LOSSES = {"mse": masked_mse, "mae": masked_mae, "bce": masked_bce}
"""The losses by the names that options use."""


def mean_of(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Take the mean of a loss where every target is known, of tensors of one shape ``(batch, reference)``."""

    def mean(predicted: Tensor, target: Tensor) -> Tensor:
        _check_shapes(predicted.shape, target)
        return loss(predicted, target).mean()

    return mean


COMPLETE = {"mse": mean_of(F.mse_loss), "mae": mean_of(F.l1_loss), "bce": mean_of(cross_entropy)}
"""The losses of :data:`LOSSES` where every target is known: the same values from a fifth of the passes over memory."""


def _square_sum(matrix: Tensor) -> Tensor:
    """Sum squares without a copy of them, row by row, as one long sum in float32 would be inexact."""
    return torch.linalg.vector_norm(matrix, dim=-1).square().sum()


class _InnerProductError(torch.autograd.Function):
    """Mean of (E Wᵀ − T)², whose gradient takes two thin products of the gaps and no other matrix of their size."""

    @staticmethod
    def forward(ctx: Any, embedding: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        gaps = (embedding @ weight.T).sub_(target)
        ctx.save_for_backward(embedding, weight, gaps)
        return _square_sum(gaps) / max(gaps.numel(), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        embedding, weight, gaps = ctx.saved_tensors
        factor = gradient * (2 / max(gaps.numel(), 1))
        # A product with few columns is several times faster from a matrix that lies along them (measured).
        thin = weight.T.contiguous().T
        of_embedding = (gaps @ thin).mul_(factor) if ctx.needs_input_grad[0] else None
        of_weight = (embedding.T @ gaps).mul_(factor).T if ctx.needs_input_grad[1] else None
        return of_embedding, of_weight, None


def inner_product_mse(embedding: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the inner products with references where every target is known.

    The value of ``F.mse_loss(embedding @ weight.T, target)``, in .4 of its time for embeddings of length 2, .75 for
    100 (256 items, 1000 references). It has a first derivative only.

    Args:
        embedding: Shape ``(batch, embedding)``.
        weight: A head's weight, shape ``(reference, embedding)``, of the same type.
        target: Target similarities, shape ``(batch, reference)``, all known; it gets no gradient.

    Returns:
        A scalar.
    """
    _check_shapes((len(embedding), len(weight)), target)
    error: Tensor = _InnerProductError.apply(embedding, weight, target)
    return error


class _SelfProduct(torch.autograd.Function):
    """Aᵀ A, whose gradient A (G + Gᵀ) takes one product; autograd alone would take two."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(matrix)
        return matrix.T @ matrix

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (matrix,) = ctx.saved_tensors
        return (matrix @ (gradient + gradient.T).to(matrix.dtype)).to(matrix.dtype)  # autocast's are not the matrix's


def self_product(matrix: Tensor) -> Tensor:
    """Give ``matrix.T @ matrix``, shape ``(column, column)``, of a matrix of shape ``(row, column)``."""
    product: Tensor = _SelfProduct.apply(matrix)
    return product


def _product(weight: Tensor, known: Tensor | None) -> Tensor:
    return self_product(weight) if known is None else known


class _GramGaps(torch.autograd.Function):
    """Weighed sum of (W Wᵀ − S)², entries outside the diagonal ``other`` times, over a count.

    Under autocast, products are made in its type, forwards and backwards, and all else in that of the weight.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gram: Tensor, other: float, count: int) -> Tensor:
        product = weight @ weight.T
        ctx.type = product.dtype  # under autocast not the weight's
        gaps = product.to(weight.dtype).sub_(gram)
        own = gaps.diagonal().clone()
        value = (other * _square_sum(gaps) + (1 - other) * _square_sum(own)) / count
        if other != 1:
            gaps.mul_(other).diagonal().copy_(own)
        ctx.save_for_backward(weight, gaps.to(ctx.type))
        ctx.factor = 2 / count
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weight, gaps = ctx.saved_tensors
        thin = weight.T.to(ctx.type).contiguous()
        both = (thin @ gaps).to(weight.dtype).add_(thin @ gaps.T)
        return both.mul_(gradient * ctx.factor).T, None, None, None


def gram_penalty(weight: Tensor, gram: Tensor) -> Tensor:
    """Mean squared gap between ``weight @ weight.T`` and the references' own similarities.

    Where some of those are unknown (NaN), the mean is the masked one of :func:`masked_mse`.

    Args:
        weight: A head's weight, shape ``(reference, embedding)``.
        gram: The references' own similarities, shape ``(reference, reference)``.

    Returns:
        A scalar, the mean over all reference × reference entries.
    """
    return masked_mse(self_product(weight.T), gram)


def gram_penalty_block(
    weight: Tensor, gram: Tensor, num_references: int, known_counts: Tensor | None = None, complete: bool = False
) -> Tensor:
    """Estimate :func:`gram_penalty` from a random block of references.

    Of a reference's r similarities, a block of k references that holds it always shows its own, and each other one
    with probability (k−1)/(r−1); so weighed by the inverse, the sum over the block's known entries estimates the sum
    over all known ones, which is divided by their number.

    With ``known_counts``, or where everything is known, the expectation over blocks is exactly the full penalty.
    Otherwise the number is estimated from the block, too, and references that show nothing known are left out: a
    ratio estimate, near the full penalty where most references have some known similarities in a block.

    Args:
        weight: The block's rows of the weight, shape ``(block, embedding)``.
        gram: The block's own similarities, shape ``(block, block)``, NaN where unknown.
        num_references: How many references there are in all (r).
        known_counts: How many of each one's similarities to all r references are known, shape ``(block,)``.
        complete: Whether everything is known, so that nobody need look. The value then has a first derivative only,
            and ``gram`` no gradient.

    Returns:
        A scalar.
    """
    other = (num_references - 1) / max(len(gram) - 1, 1)
    if complete:
        penalty: Tensor = _GramGaps.apply(weight, gram, other, len(gram) * num_references)
        return penalty
    product, known = self_product(weight.T), ~torch.isnan(gram)
    squared = torch.where(known, product - torch.where(known, gram, 0.0), 0.0) ** 2
    inverse = torch.full_like(squared, other).fill_diagonal_(1)
    sums = (squared * inverse).sum(dim=1)
    if known_counts is not None:
        return (sums / known_counts.clamp(min=1)).mean()
    counts = (known * inverse).sum(dim=1)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def inverse_probabilities(seen: int, total: int) -> tuple[float, float]:
    """Weigh what a uniformly random subset shows, so that sums over it are unbiased.

    Args:
        seen: Size k of the subset, at least 2 where it is not all.
        total: How many there are in all (r).

    Returns:
        One over the probability that the subset shows one given entry, r / k, and one given pair of different
        entries, r (r − 1) / (k (k − 1)).
    """
    if seen == total:
        return 1.0, 1.0
    return total / seen, total * (total - 1) / (seen * (seen - 1))


def gram_penalty_factored(
    weight: Tensor, factors: Tensor, num_references: int | None = None, product: Tensor | None = None
) -> Tensor:
    """:func:`gram_penalty` of similarities that are inner products F Fᵀ, without the reference × reference matrix.

    ‖W Wᵀ − F Fᵀ‖² = ‖Wᵀ W‖² − 2 ‖Wᵀ F‖² + ‖Fᵀ F‖², divided by r². It is a difference of large numbers: in float32
    the value is exact to about 1e-7 of the mean squared similarity, and may fall as far below 0.

    Where ``weight`` and ``factors`` are only a uniformly random subset of k references' rows, the pairs of two
    different references are weighed by r (r − 1) / (k (k − 1)), and each one with itself by r / k; then the
    expectation over subsets is exactly the full penalty.

    Args:
        weight: A head's weight W, shape ``(reference, embedding)``, or some of its rows.
        factors: The references' factors F, shape ``(reference, factor)``, all known.
        num_references: How many references there are in all (r), where not all are given.
        product: ``weight.T @ weight`` where it is known already, shape ``(embedding, embedding)``.

    Returns:
        A scalar.
    """
    total = num_references or len(weight)
    single, pair = inverse_probabilities(len(weight), total)
    mine, both, theirs = _product(weight, product), weight.T @ factors, factors.T @ factors
    every = (mine**2).sum() - 2 * (both**2).sum() + (theirs**2).sum()
    own = (((weight**2).sum(dim=1) - (factors**2).sum(dim=1)) ** 2).sum()
    return (pair * every + (single - pair) * own) / total**2


def gram_penalty_expanded(weight: Tensor, gram: Tensor, product: Tensor | None = None) -> Tensor:
    """:func:`gram_penalty` where everything is known, without a matrix of its size beside the similarities S.

    ‖W Wᵀ − S‖² = ‖Wᵀ W‖² − 2 Σ W ∘ (S W) + ‖S‖², divided by r², as exact as :func:`gram_penalty_factored`.

    Args:
        weight: A head's weight W, shape ``(reference, embedding)``.
        gram: The references' own similarities S, shape ``(reference, reference)``, all known.
        product: ``weight.T @ weight`` where it is known already, shape ``(embedding, embedding)``.

    Returns:
        A scalar.
    """
    both = (weight * (gram @ weight)).sum()
    every = (_product(weight, product) ** 2).sum() - 2 * both + torch.linalg.vector_norm(gram) ** 2
    return every / len(weight) ** 2


def orthogonality_penalty(
    weight: Tensor, num_references: int | None = None, product: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Mean squared off-diagonal entry of ``weight.T @ weight``; the mean counts the zeroed diagonal (divides by d²).

    Where ``weight`` is only a uniformly random subset of k of the r rows, an entry's square Σ_rs w_ri w_rj w_si w_sj
    has its terms r ≠ s weighed by r (r − 1) / (k (k − 1)) and r = s by r / k; then the expectation over subsets is
    exactly the full penalty. Such an estimate may be negative.

    Args:
        weight: A head's weight, shape ``(reference, embedding)``, or some of its rows.
        num_references: How many references there are in all (r), where not all are given.
        product: ``weight.T @ weight`` where it is known already, shape ``(embedding, embedding)``.

    Returns:
        A scalar.
    """
    single, pair = inverse_probabilities(len(weight), num_references or len(weight))
    correlation = _product(weight, product)
    off_diagonal = correlation - torch.diag(correlation.diagonal())
    if pair == 1:
        return (off_diagonal**2).mean()
    own = (weight**2).T @ weight**2
    return (pair * off_diagonal**2 + (single - pair) * (own - torch.diag(own.diagonal()))).mean()
