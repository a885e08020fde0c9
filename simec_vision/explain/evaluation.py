"""Is a heatmap right? Where its relevance lies, and what it depends on.

A heatmap here is relevance summed over channels, shape ``(batch, height, width)``; every measure gives one number an
image. Whether the score depends on what a heatmap shows: :mod:`~simec_vision.explain.flipping`; whether the heatmap
depends on the weights: :mod:`~simec_vision.explain.randomisation`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simec_vision.items import InputError

WHITE = 240
"""From which value on, of 255, every channel of a white background's pixel is."""


def relevance_mass(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Measure which share of the positive relevance lies on a mask: mass accuracy (Arras et al. 2022).

    Σ_{p in mask} R⁺_p / Σ_p R⁺_p with R⁺ = max(R, 0); 0 where nothing is positive.

    Args:
        heatmaps: Shape ``(batch, height, width)``.
        masks: bool of the same shape: where the relevance should be.

    Returns:
        Shape ``(batch,)``, in [0, 1]; NaN where the mask is empty.

    Raises:
        InputError: if the shapes differ.
    """
    _check(heatmaps, masks)
    positive = heatmaps.double().clamp(min=0)
    share = _sum(positive * masks) / _sum(positive).clamp(min=1e-300)
    return share.where(masks.flatten(1).any(dim=1), torch.nan)


def relevance_rank(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Measure which share of the most relevant pixels lies on a mask: rank accuracy (Arras et al. 2022).

    |top K ∩ mask| / K, where K is the number of the mask's pixels and top K are the K pixels of highest relevance;
    among equal ones those that come first, row by row.

    Args:
        heatmaps: Shape ``(batch, height, width)``.
        masks: bool of the same shape: where the relevance should be.

    Returns:
        Shape ``(batch,)``, in [0, 1]; NaN where the mask is empty.

    Raises:
        InputError: if the shapes differ.
    """
    _check(heatmaps, masks)
    order = heatmaps.flatten(1).argsort(dim=1, descending=True, stable=True)
    sizes = masks.flatten(1).sum(dim=1)
    top = torch.arange(order.shape[1], device=order.device) < sizes[:, None]
    return (masks.flatten(1).gather(1, order) & top).sum(dim=1) / sizes  # 0 / 0 = NaN


def relevance_share(heatmaps: Tensor, masks: Tensor) -> Tensor:
    """Measure which share of all relevance, of either sign, lies on a mask: Σ_{p in mask} |R_p| / Σ_p |R_p|.

    On a white background it should be near 0: nothing is there that could make images similar.

    Args:
        heatmaps: Shape ``(batch, height, width)``.
        masks: bool of the same shape.

    Returns:
        Shape ``(batch,)``, in [0, 1].

    Raises:
        InputError: if the shapes differ.
    """
    _check(heatmaps, masks)
    magnitude = heatmaps.double().abs()
    return _sum(magnitude * masks) / _sum(magnitude).clamp(min=1e-300)


def rank_correlation(heatmaps: Tensor, others: Tensor) -> Tensor:
    """Correlate the ranks of the pixels of two heatmaps (Spearman's ρ), as in Adebayo et al. 2018.

    Two heads of one model should get different heatmaps for the same image, as should a model with other weights.

    Args:
        heatmaps: Shape ``(batch, height, width)``.
        others: Same shape.

    Returns:
        Shape ``(batch,)``, in [−1, 1]; NaN where a heatmap is constant.

    Raises:
        InputError: if the shapes differ.
    """
    from scipy.stats import rankdata

    _check(heatmaps, others)
    flat = (maps.detach().cpu().flatten(1).double().numpy() for maps in (heatmaps, others))
    ranks, theirs = (torch.from_numpy(rankdata(maps, axis=1)) for maps in flat)
    centred, other = ranks - ranks.mean(dim=1, keepdim=True), theirs - theirs.mean(dim=1, keepdim=True)
    return (centred * other).sum(dim=1) / (centred.norm(dim=1) * other.norm(dim=1))


def dilated(masks: Tensor, radius: int) -> Tensor:
    """Widen masks ``(batch, height, width)`` by a square of so many pixels on every side."""
    if radius == 0:
        return masks
    return F.max_pool2d(masks[:, None].float(), 2 * radius + 1, stride=1, padding=radius)[:, 0] > 0


def white_background(images: NDArray[np.uint8]) -> Tensor:
    """Find the white around an object: near-white pixels that are connected with the edge of the image.

    Args:
        images: uint8 of shape ``(batch, height, width, channel)``.

    Returns:
        bool of shape ``(batch, height, width)``.
    """
    from scipy.ndimage import label

    masks = np.zeros(images.shape[:3], dtype=bool)
    for mask, white in zip(masks, np.all(images >= WHITE, axis=3), strict=True):
        parts, _ = label(white)
        edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        mask[:] = np.isin(parts, edge[edge > 0])
    return torch.from_numpy(masks)


def _sum(maps: Tensor) -> Tensor:
    return maps.sum(dim=(1, 2))


def _check(heatmaps: Tensor, others: Tensor) -> None:
    if heatmaps.ndim != 3 or heatmaps.shape != others.shape:
        raise InputError(
            f"Expected two of shape (batch, height, width), got {tuple(heatmaps.shape)} and {tuple(others.shape)}: "
            "sum relevance over its channels"
        )
