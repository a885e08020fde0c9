"""The questions of the command ``explain``: why similar to a reference, why rather than to another, why to an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.figures import Look, Picture
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.explain import Explanation, explain, explain_difference, explain_pair
from simec_vision.explain.evaluation import relevance_mass
from simec_vision.model import SimilarityModel
from simec_vision.similarities import TargetSimilarity

TOLD = ("score", "baseline", "delta")
"""What a row says of an explanation."""


@dataclass(frozen=True)
class Explained:
    """What is explained, and how.

    Args:
        model: The model.
        data: Where the images come from.
        items: Index of the images among the data's items, shape ``(image,)``.
        preset: Which rule for which layer.
        look: What the figures look like.
    """

    model: SimilarityModel
    data: ImageDataModule
    items: NDArray[np.int64]
    preset: str
    look: Look

    def images(self) -> Tensor:
        """Normalise the images: ``(image, channel, height, width)``."""
        return self.data.normalised(self.items)

    def pictures(self) -> NDArray[np.uint8]:
        """Give the images as they are: uint8 ``(image, height, width, channel)``."""
        return self.data.images(self.items)

    def names(self, items: NDArray[np.int64]) -> list[str]:
        """Give the names of items."""
        return [str(name) for name in self.data.items.names[items]]


def about_head(asked: Explained, head: str, target: TargetSimilarity, references: NDArray[np.int64]) -> Picture:
    """Explain why every image is similar to every reference, given by its position in the head."""
    from simec_vision.explain.grids import reference_grid

    images, places, look = asked.images(), torch.from_numpy(references), asked.look
    every, reference = _crossed(images, places)
    told = explain(asked.model, every, head=head, reference=reference, preset=asked.preset)
    relevance, score = _by_row(told, len(places))
    true = target(torch.from_numpy(asked.items), places).T
    items = target.references.numpy()[references]
    labels = [{"head": head, "reference": name} for name in asked.names(items)]
    rows = _rows(asked, told, labels, true.flatten())
    pictures = asked.pictures(), asked.data.images(items)

    def draw(path: Path) -> None:
        reference_grid(*pictures, relevance, score, true, path, title=head, scale=look.scale, colours=look.colours)

    return Picture(head, rows, relevance, draw)


def about_rather(asked: Explained, head: str, target: TargetSimilarity, references: NDArray[np.int64]) -> Picture:
    """Explain why every image is more similar to one reference than to another, for each two of the references."""
    from simec_vision.explain.grids import rather_grid

    images, look = asked.images(), asked.look
    first, second = (torch.from_numpy(references[list(each)]) for each in zip(*_twos(references), strict=True))
    every, a = _crossed(images, first)
    _, b = _crossed(images, second)
    told = explain_difference(asked.model, every, head, a, b, preset=asked.preset)
    relevance, _ = _by_row(told, len(first))
    items, others = (target.references.numpy()[each] for each in (first, second))
    both = zip(asked.names(items), asked.names(others), strict=True)
    rows = _rows(asked, told, [{"head": head, "reference": one, "rather_than": other} for one, other in both])
    pictures = asked.pictures(), asked.data.images(items), asked.data.images(others)
    with torch.no_grad():
        predicted = asked.model(images)[head].T

    def draw(path: Path) -> None:
        similar = predicted[first], predicted[second]
        rather_grid(*pictures, relevance, *similar, path, title=head, scale=look.scale, colours=look.colours)

    return Picture(f"{head}_rather", rows, relevance, draw)


def about_pairs(asked: Explained) -> Picture:
    """Explain why every image is similar to every other one, by the inner product of their embeddings."""
    from simec_vision.explain.grids import pair_grid

    images, look = asked.images(), asked.look
    every, others = _crossed(images, images)
    told = explain_pair(asked.model, every, others, preset=asked.preset)
    relevance, score = _by_row(told, len(images))
    rows = _rows(asked, told, [{"head": None, "reference": name} for name in asked.names(asked.items)])
    pictures = asked.pictures()

    def draw(path: Path) -> None:
        pair_grid(pictures, relevance, score, path, scale=look.scale, colours=look.colours)

    return Picture("all_pairs", rows, relevance, draw)


def localisation(
    model: SimilarityModel, data: ImageDataModule, heads: Sequence[str], preset: str, count: int = 32
) -> dict[str, Any]:
    """Measure how much relevance lies where the truth is, on data that know it (``masks``).

    Every held-out image is explained towards the reference that it is predicted to be most similar to.

    Returns:
        ``<head>``: for each mask, over the images in which it is not empty, the mean share of positive relevance
        ``mass`` inside (:func:`~simec_vision.explain.evaluation.relevance_mass`), the mask's share ``area`` of the
        image, and their ratio ``gain``; empty where the data have no masks.
    """
    masks_of = getattr(data, "masks", None)
    if masks_of is None:
        return {}
    items = data.split("test")[:count]
    images, masks = data.normalised(items), masks_of(items)
    with torch.no_grad():
        nearest = {head: model(images)[head].argmax(dim=1) for head in heads}
    told = {head: explain(model, images, head=head, reference=nearest[head], preset=preset) for head in heads}
    return {head: mask_shares(told[head].relevance.sum(dim=1), masks) for head in heads}


def mask_shares(heatmaps: Tensor, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
    """Give ``mass``, ``area`` and ``gain`` of each mask that is anywhere; see :func:`localisation`."""
    shares = {}
    for name, mask in ((name, torch.from_numpy(mask)) for name, mask in masks.items() if mask.any()):
        mass = float(relevance_mass(heatmaps, mask).nanmean())
        area = float(mask[mask.flatten(1).any(dim=1)].float().mean())
        shares[name] = {"mass": round(mass, 4), "area": round(area, 4), "gain": round(mass / area, 2)}
    return shares


def _twos(references: NDArray[np.int64]) -> list[tuple[int, int]]:
    return list(combinations(range(len(references)), 2))


def _crossed(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Pair every image with every other thing: row after row of the images, the same thing along a row."""
    every = images.repeat(len(others), *[1] * (images.ndim - 1))
    return every, others.repeat_interleave(len(images), dim=0)


def _by_row(told: Explanation, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give relevance ``(row, image, channel, height, width)`` and score ``(row, image)`` of crossed images."""
    return told.relevance.unflatten(0, (count, -1)).numpy(), told.score.unflatten(0, (count, -1)).numpy()


def _rows(
    asked: Explained, told: Explanation, labels: Sequence[dict[str, Any]], true: Tensor | None = None
) -> list[dict[str, Any]]:
    """Say in a row what is known of every heatmap; ``labels`` begin the rows of a row of the figure."""
    known = torch.full(told.score.shape, torch.nan) if true is None else true
    names = [(label, name) for label in labels for name in asked.names(asked.items)]
    values = zip(names, known.tolist(), zip(*(getattr(told, part).tolist() for part in TOLD), strict=True), strict=True)
    return [
        {**label, "image": name, "true": None if np.isnan(true) else true, **dict(zip(TOLD, numbers, strict=True))}
        for (label, name), true, numbers in values
    ]
