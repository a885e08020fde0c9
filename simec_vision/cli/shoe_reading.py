"""Held-out shoes drawn again in another colour or with another heel, and what heel height a model reads off them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.building import check_images, targets_of
from simec_vision.cli.saved import run_options
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.shoe_drawing import COLOURS, HEEL_HEIGHTS, Shoe, draw_shoe, item_seed
from simec_vision.explain.methods import Method
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel
from simec_vision.similarities import TargetSimilarity

HEIGHTS = len(HEEL_HEIGHTS)


@dataclass(frozen=True)
class Shoes:
    """Held-out shoes that can be drawn again in another colour or with another heel, from the same view.

    Args:
        data: Where they come from.
        shoes: What is drawn.
        seeds: What each shoe leaves open.
        items: Index of each among the data's items, shape ``(shoe,)``.
    """

    data: DrawnShoes
    shoes: Sequence[Shoe]
    seeds: Sequence[int]
    items: NDArray[np.int64]

    def drawn(self, change: Callable[[Shoe], Shoe]) -> tuple[NDArray[np.uint8], Tensor]:
        """Draw all after a change: uint8 ``(shoe, height, width, channel)``, and heels ``(shoe, height, width)``."""
        drawings = [
            draw_shoe(change(shoe), self.data.edge, seed) for shoe, seed in zip(self.shoes, self.seeds, strict=True)
        ]
        heels = np.stack([drawing.heel_mask for drawing in drawings])
        return np.stack([drawing.image for drawing in drawings]), torch.from_numpy(heels)

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """Normalise images ``(shoe, height, width, channel)``: ``(shoe, channel, height, width)``."""
        return self.data.normalisation(torch.from_numpy(images).permute(0, 3, 1, 2))


def held_out(data: DrawnShoes, count: int, seed: int) -> Shoes:
    """Choose held-out shoes, which are not tied to a colour.

    Raises:
        InputError: if there are fewer.
    """
    test = data.split("test")
    if not 0 < count <= len(test):
        raise InputError(f"Expected images between 1 and {len(test)}, the held-out ones, got {count}")
    items = np.random.default_rng(seed).permutation(test)[:count]
    shoes = data.shoes()
    return Shoes(data, [shoes[item] for item in items], [item_seed(data.seed, int(item)) for item in items], items)


def middle_shoe(shoes: Shoes) -> Shoes:
    """Give the first shoe of the middle heel height, alone."""
    place = next((i for i, shoe in enumerate(shoes.shoes) if shoe.heel == HEIGHTS // 2), 0)
    return Shoes(shoes.data, [shoes.shoes[place]], [shoes.seeds[place]], shoes.items[place : place + 1])


def recoloured(shoe: Shoe, height: int) -> Shoe:
    """Give a shoe the colour that stood for a heel height."""
    return replace(shoe, colour=tuple(COLOURS)[height])


def with_heel(shoe: Shoe, height: int) -> Shoe:
    """Give a shoe another heel and leave all else."""
    return replace(shoe, heel=height)


@dataclass(frozen=True)
class Reader:
    """A model's heel head, and how to read a heel height off its predicted similarities.

    Args:
        model: The model.
        target: Target similarities to its references.
        rows: What the similarities of each heel height to the references should be, shape ``(height, reference)``.
        method: What makes its heatmaps.
    """

    model: SimilarityModel
    target: TargetSimilarity
    rows: Tensor
    method: Method

    def predict(self, images: Tensor) -> Tensor:
        """Predict heel similarities, shape ``(batch, reference)``."""
        with torch.no_grad():
            return torch.cat([self.model(some)["heel"] for some in images.split(64)])

    def read(self, images: Tensor) -> Tensor:
        """Read heel heights, shape ``(batch,)``: of all heights, the one whose similarities are nearest (Euclid)."""
        return torch.cdist(self.predict(images), self.rows).argmin(dim=1)

    def explain(self, images: Tensor) -> Tensor:
        """Give heatmaps ``(batch, height, width)``, each of the similarity to the reference predicted most similar."""
        return self.method(self.model, images, "heel", self.predict(images).argmax(dim=1))


def reader_of(run: Path, data: DrawnShoes, method: Method) -> Reader:
    """Load the model of a run, for images of this source.

    Raises:
        InputError: if the model is for images of another size.
    """
    model, options = SimilarityModel.load(run / "model").eval(), run_options(run)
    check_images(model, data)
    target = targets_of(model, options, data, ["heel"])["heel"]
    heights = data.items.numbers("HeelHeight")
    examples = [int(np.flatnonzero(heights == height)[0]) for height in range(HEIGHTS)]
    return Reader(model, target, target(torch.tensor(examples)), method)


def sweep(reader: Reader, shoes: Shoes, change: Callable[..., Shoe]) -> Tensor:
    """Draw every shoe in each of the changes, and read its heel: ``(shoe, height)``."""
    drawn = [shoes.drawn(partial(change, height=height))[0] for height in range(HEIGHTS)]
    return torch.stack([reader.read(shoes.normalised(images)) for images in drawn], dim=1)


def slope(heights: Tensor) -> float:
    """Give the slope of a straight line through read heights ``(shoe, step)`` over the steps 0, 1, 2, …."""
    steps = torch.arange(heights.shape[1], dtype=torch.float64)
    steps -= steps.mean()
    return float((heights.double().mean(dim=0) @ steps) / (steps @ steps))
