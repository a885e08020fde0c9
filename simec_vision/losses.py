"""Losses with unknown targets, and the two penalties of a head: pure functions of tensors.

Formulas follow Horn & Müller 2018 (arXiv 1702.01824) and its code; unknown targets are NaN instead of a mask value.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from simec_vision.items import InputError

ROUNDING = 1e-4
"""How far rounding may take a similarity out of [0, 1]."""


def _masked_mean(elementwise: Tensor, known: Tensor) -> Tensor:
    """Average the known entries of each row, then the rows; a row without any known entry gives 0."""
    per_row = torch.where(known, elementwise, 0.0).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)
    return per_row.mean()


def _check(predicted: Tensor, target: Tensor) -> None:
    if predicted.shape != target.shape:
        raise ValueError(
            f"Expected target similarities of the predictions' shape (batch, reference) = {tuple(predicted.shape)}, "
            f"got {tuple(target.shape)}. The head and the similarity have different references"
        )


def masked_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the known targets: mean over rows i of Σ_j M_ij (t_ij − p_ij)² / max(Σ_j M_ij, 1).

    Args:
        predicted: Predicted similarities, shape ``(batch, reference)``.
        target: Target similarities, same shape, NaN where unknown (M_ij = 0).

    Returns:
        A scalar; every row counts the same however many of its entries are known.
    """
    _check(predicted, target)
    known = ~torch.isnan(target)
    return _masked_mean((predicted - torch.where(known, target, 0.0)) ** 2, known)


def masked_mae(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over the known targets, reduced as in :func:`masked_mse`."""
    _check(predicted, target)
    known = ~torch.isnan(target)
    return _masked_mean((predicted - torch.where(known, target, 0.0)).abs(), known)


def masked_bce(predicted: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy over the known targets in [0, 1], reduced as in :func:`masked_mse`.

    The predicted similarities are taken as log-odds: −t·log σ(p) − (1−t)·log(1−σ(p)), element by element.

    Raises:
        InputError: naming targets outside [0, 1], for tensors on the CPU only; elsewhere a look at the values would
            make every step wait for the device, so check what comes there beforehand.
    """
    _check(predicted, target)
    if target.device.type == "cpu":
        refuse_outside_unit_interval(target)
    known = ~torch.isnan(target)
    target = torch.where(known, target, 0.0).to(predicted.dtype)
    return _masked_mean(F.binary_cross_entropy_with_logits(predicted, target, reduction="none"), known)


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


def gram_penalty(weight: Tensor, gram: Tensor) -> Tensor:
    """Mean squared gap between ``weight @ weight.T`` and the references' own similarities.

    Where some of those are unknown (NaN), the mean is the masked one of :func:`masked_mse`.

    Args:
        weight: A head's weight, shape ``(reference, embedding)``.
        gram: The references' own similarities, shape ``(reference, reference)``.

    Returns:
        A scalar, the mean over all reference × reference entries.
    """
    return masked_mse(weight @ weight.T, gram)


def gram_penalty_block(weight: Tensor, gram: Tensor, num_references: int, known_counts: Tensor | None = None) -> Tensor:
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

    Returns:
        A scalar.
    """
    known = ~torch.isnan(gram)
    squared = torch.where(known, weight @ weight.T - torch.where(known, gram, 0.0), 0.0) ** 2
    inverse = torch.full_like(squared, (num_references - 1) / max(len(gram) - 1, 1)).fill_diagonal_(1)
    sums = (squared * inverse).sum(dim=1)
    if known_counts is not None:
        return (sums / known_counts.clamp(min=1)).mean()
    counts = (known * inverse).sum(dim=1)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def orthogonality_penalty(weight: Tensor) -> Tensor:
    """Mean squared off-diagonal entry of ``weight.T @ weight``; the mean counts the zeroed diagonal (divides by d²).

    Args:
        weight: A head's weight, shape ``(reference, embedding)``.

    Returns:
        A scalar.
    """
    correlation = weight.T @ weight
    off_diagonal = correlation - torch.diag(correlation.diagonal())
    return (off_diagonal**2).mean()
