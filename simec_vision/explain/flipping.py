"""Pixel flipping: does the score fall when what a heatmap calls relevant is taken away (Samek et al. 2017)?

Regions of ``pool`` × ``pool`` pixels are replaced one after the other, the most relevant (or the least relevant) first,
and the similarity is predicted again after each. A good heatmap makes the score fall fast in the first order and late
in the second.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.explain.canonize import computed_in
from simec_vision.explain.changing import ChangingImages, network_steps
from simec_vision.explain.evaluating import evaluating
from simec_vision.items import InputError

if TYPE_CHECKING:
    from simec_vision.model import SimilarityModel

Replacement = Literal["blur", "mean"] | float
"""What pixels are replaced by: the image blurred, its mean colour, or a constant in units of the normalised image."""
First = Literal["most", "least"]

CHUNK = 64
"""Images that are flipped at once; only memory and speed depend on it."""


def flipping_curve(
    model: "SimilarityModel",
    images: Tensor,
    heatmaps: Tensor,
    head: str,
    reference: Tensor,
    first: First = "most",
    pool: int = 8,
    replacement: Replacement = "blur",
) -> Tensor:
    """Predict a similarity again and again while regions of the image are replaced in order of their relevance.

    Args:
        model: The model whose predicted similarity is watched, in evaluation mode.
        images: Normalised images, shape ``(batch, channel, height, width)``.
        heatmaps: Relevance of each pixel, shape ``(batch, height, width)``; a region's is the sum of its pixels'.
        head: Which similarity.
        reference: Index of each image's reference in the head, shape ``(batch,)``.
        first: Begin with the ``most`` or the ``least`` relevant region; equal ones go row by row.
        pool: Height and width of a region in pixels; regions overlap at the lower and right edge if it does not divide.
        replacement: ``blur`` (Gaussian, as wide as a region), ``mean`` (the image's mean colour), or a constant.

    Returns:
        The score before, after the first, … and after the last region, shape ``(batch, region + 1)``.

    Raises:
        InputError: if heatmaps and images differ in size, or a region is larger than an image.
    """
    embeddings = _flipped_embeddings(model, images, heatmaps, first, pool, replacement)
    readout = model.head(head).weight.detach()[reference.to(embeddings.device)].to(embeddings.dtype)
    return torch.einsum("bsd,bd->bs", embeddings, readout)


def pair_flipping_curve(
    model: "SimilarityModel",
    images: Tensor,
    others: Tensor,
    heatmaps: Tensor,
    other_heatmaps: Tensor,
    first: First = "most",
    pool: int = 8,
    replacement: Replacement = "blur",
) -> Tensor:
    """Watch the similarity of pairs, embed(image) · embed(other), while regions of both images are replaced.

    At every step one region of each image is replaced.

    Args:
        model: The model whose embeddings are compared, in evaluation mode.
        images: One image of every pair, shape ``(batch, channel, height, width)``.
        others: The other one.
        heatmaps: Relevance of each pixel of ``images``, shape ``(batch, height, width)``.
        other_heatmaps: The same for ``others``.
        first: Begin with the ``most`` or the ``least`` relevant regions.
        pool: Height and width of a region in pixels.
        replacement: As in :func:`flipping_curve`.

    Returns:
        The score before, after the first, … and after the last regions, shape ``(batch, region + 1)``.

    Raises:
        InputError: if heatmaps and images differ in size, or a region is larger than an image.
    """
    mine = _flipped_embeddings(model, images, heatmaps, first, pool, replacement)
    theirs = _flipped_embeddings(model, others, other_heatmaps, first, pool, replacement)
    return torch.einsum("bsd,bsd->bs", mine, theirs)


def area_under(curves: Tensor) -> Tensor:
    """Average a curve over its steps by the trapezoid rule, ``(…, step)`` → ``(…)``, in units of the score."""
    return torch.trapezoid(curves, dim=-1) / (curves.shape[-1] - 1)


def region_order(heatmaps: Tensor, pool: int, first: First = "most") -> Tensor:
    """Sort regions, counted row by row, by the sum of their relevance; shape ``(batch, region)``."""
    top, left = region_corners(heatmaps.shape[1], heatmaps.shape[2], pool)
    sums = F.avg_pool2d(heatmaps[:, None], pool, stride=1)[:, 0, top, left]
    return sums.argsort(dim=1, descending=first == "most", stable=True)


def region_corners(height: int, width: int, pool: int) -> tuple[Tensor, Tensor]:
    """Give the first row and column of every region, row by row; shape ``(region,)`` each.

    Regions are side by side; where ``pool`` does not divide an image, the last ones overlap those before them.
    """
    top, left = (torch.arange(0, side, pool).clamp(max=side - pool) for side in (height, width))
    return top.repeat_interleave(len(left)), left.repeat(len(top))


def replaced_by(images: Tensor, replacement: Replacement, pool: int) -> Tensor:
    """Give what pixels are replaced by, in the shape of the images.

    Raises:
        InputError: if the replacement has no such name.
    """
    if isinstance(replacement, float | int):
        return torch.full_like(images, float(replacement))
    if replacement == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if replacement != "blur":
        raise InputError(f"Expected replacement as 'blur', 'mean' or a number, got {replacement!r}")
    return _blurred(images, sigma=float(pool))


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian of standard deviation ``sigma`` pixels, cut at 2 σ; the edge's pixels go on beyond it."""
    reach = round(2 * sigma)
    weight = torch.exp(-((torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2) / 2).to(images.dtype)
    kernel = (weight / weight.sum()).expand(images.shape[1], 1, -1)
    wide = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(wide, kernel[:, :, None, :], groups=images.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=images.shape[1])


def _flipped_embeddings(
    model: "SimilarityModel", images: Tensor, heatmaps: Tensor, first: First, pool: int, replacement: Replacement
) -> Tensor:
    """Embed every stage of the flipping: ``(batch, region + 1, embedding)``."""
    _check(images, heatmaps, pool)
    weight = model.head(next(iter(model.heads))).weight
    images, heatmaps = images.to(weight.device, computed_in(weight.dtype)), heatmaps.to(weight.device)
    with evaluating(model), torch.no_grad():
        network = network_steps(model.encoder, images[:2])
        order = region_order(heatmaps, pool, first)
        parts = zip(images.split(CHUNK), order.split(CHUNK), strict=True)
        stages = [
            torch.stack(list(_stages(network, part, replaced_by(part, replacement, pool), some, pool)), dim=1)
            for part, some in parts
        ]
    return torch.cat(stages)


def _stages(
    network: list[nn.Module], images: Tensor, replacements: Tensor, order: Tensor, pool: int
) -> Iterator[Tensor]:  # fmt: skip
    """Yield the output before and after each region is replaced."""
    top, left = (corner.to(order.device) for corner in region_corners(images.shape[2], images.shape[3], pool))
    tiles = replacements.unfold(2, pool, 1).unfold(3, pool, 1)[:, :, top, left].transpose(1, 2)
    tiles = tiles.contiguous()  # (batch, region, channel, row, column)
    changing, batch = ChangingImages(network, images), torch.arange(len(images), device=order.device)
    yield changing.output()
    for region in order.T:
        yield changing.change(tiles[batch, region], (top[region], left[region]))


def _check(images: Tensor, heatmaps: Tensor, pool: int) -> None:
    expected = (len(images), *images.shape[2:])
    if tuple(heatmaps.shape) != expected:
        raise InputError(
            f"Expected heatmaps of shape (batch, height, width) = {expected}, got {tuple(heatmaps.shape)}: "
            "sum relevance over its channels"
        )
    if not 0 < pool <= min(images.shape[2:]):
        raise InputError(f"Expected pool between 1 and {min(images.shape[2:])}, the images' side, got {pool}")
