"""Losses with unknown targets, and the two penalties of a head: pure functions of tensors.

Formulas follow Horn & Müller 2018 (arXiv 1702.01824) and its code; unknown targets are NaN instead of a mask value.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """
    _check(predicted, target)
    known = ~torch.isnan(target)
    target = torch.where(known, target, 0.0).to(predicted.dtype)
    return _masked_mean(F.binary_cross_entropy_with_logits(predicted, target, reduction="none"), known)


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


def gram_penalty_block(weight: Tensor, gram: Tensor, num_references: int) -> Tensor:
    """Estimate :func:`gram_penalty` from a random block of references, without bias.

    For a block of k of the r references, drawn without replacement, a diagonal entry of the r × r matrix is seen with
    probability k/r and an off-diagonal one with k(k−1)/(r(r−1)); dividing by these makes the expectation the full mean.

    Args:
        weight: The block's rows of the weight, shape ``(block, embedding)``.
        gram: The block's own similarities, shape ``(block, block)``; unknown ones (NaN) count as met.
        num_references: How many references there are in all (r).

    Returns:
        A scalar.
    """
    block = len(gram)
    squared = (weight @ weight.T - gram) ** 2
    squared = torch.where(torch.isnan(gram), 0.0, squared)
    diagonal = squared.diagonal().sum()
    off_diagonal = squared.sum() - diagonal
    pairs = num_references * (num_references - 1) / max(block * (block - 1), 1)
    return (diagonal * num_references / block + off_diagonal * pairs) / num_references**2


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
