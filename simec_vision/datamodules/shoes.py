"""Drawn shoes: images of which everything is known, made by the program; the embedded default."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation, known_name
from simec_vision.datamodules.image_store import ImageStore, cached_array, content_key
from simec_vision.datamodules.shoe_drawing import (
    CLOSURES,
    HEEL_HEIGHTS,
    SPURIOUS_TIES,
    Shoe,
    draw_shoe,
    draw_shoes,
    item_seed,
    sample_shoes,
)
from simec_vision.datamodules.splits import ordered_split
from simec_vision.files import cache_folder
from simec_vision.items import InputError, Items
from simec_vision.similarities import AttributeDistance, SetOverlap, Similarity

DRAWING = 2
"""Version of the drawing; part of the cache file's key, so raise it whenever a pixel or the split changes."""

SHARES = {"validation": 0.1, "test": 0.1}


class DrawnShoes(ImageDataModule):
    """Side views of shoes drawn with Pillow: heel height and closure vary independently of everything else.

    Every image has ground-truth masks of its heel and its closure (:meth:`masks`), which make explanations measurable.

    Args:
        count: How many shoes; a tenth each is kept out for validation and test.
        size: Height and width in pixels.
        seed: Seed of the shoes.
        spurious: ``colour`` or ``brand_mark`` ties that feature to heel height, in the training split only: a trap
            that an explanation must reveal.
        cache: Keep the drawings in a cache file.
        batches: How batches are made.
    """

    label = "Category"

    def __init__(
        self,
        count: int = 8000,
        size: int = 136,
        seed: int = 0,
        spurious: str | None = None,
        cache: bool = True,
        batches: Batches = Batches(),
    ) -> None:
        super().__init__(batches, Normalisation())
        if count < 10 or size < 32:
            raise InputError(f"Expected at least 10 shoes of at least 32 pixels, got count {count} and size {size}")
        if spurious is not None:
            known_name(spurious, list(SPURIOUS_TIES), "a spurious attribute")
        self.count, self.edge, self.seed, self.spurious, self.cache = count, size, seed, spurious, cache
        self._masks: NDArray[np.uint8] | None = None

    def similarities(self) -> dict[str, Similarity]:
        """Heel height by distance (1 − |a − b| / 6), closure by Simpson's overlap, as in the original."""
        return {"heel": AttributeDistance("HeelHeight", range=6.0), "closure": SetOverlap("Closure")}

    def prepare_data(self) -> None:
        """Draw the shoes into the cache, in the first process."""
        self.setup()

    def load(self) -> Loaded:
        """Draw the shoes, or open them from the cache."""
        shoes = self.shoes()
        images, self._masks = self._parts(self._drawn(shoes))
        return Loaded(shoe_items(shoes), ImageStore(images), self._splits())

    def shoes(self) -> list[Shoe]:
        """Say what each item is a drawing of; item i is ``draw_shoe(shoes()[i], size, item_seed(seed, i))``."""
        shoes = sample_shoes(self.count, self.seed)
        if self.spurious:
            for index in self._splits()["train"].tolist():
                shoes[index] = SPURIOUS_TIES[self.spurious](shoes[index])
        return shoes

    def _splits(self) -> dict[str, NDArray[np.int64]]:
        return ordered_split(np.arange(self.count), SHARES, self.seed)

    def _drawn(self, shoes: Sequence[Shoe]) -> NDArray[np.uint8]:
        """Give a row of bytes for each shoe: its image, then a bit mask (1 heel, 2 closure) a pixel."""
        shape = (self.count, 4 * self.edge**2)
        if not self.cache:
            array = np.empty(shape, dtype=np.uint8)
            self._draw_into(array, shoes)
            return array
        key = content_key({"drawing": DRAWING, "shape": shape, "seed": self.seed, "spurious": self.spurious})
        return cached_array(f"shoes-{key}", key, shape, lambda array: self._draw_into(array, shoes), cache_folder())

    def _draw_into(self, array: NDArray[np.uint8], shoes: Sequence[Shoe]) -> None:
        images, heels, closures = draw_shoes(shoes, self.edge, self.seed)
        drawn, masks = self._parts(array)
        drawn[:] = images
        masks[:] = heels + 2 * closures.astype(np.uint8)

    def _parts(self, array: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """See images ``(item, height, width, channel)`` and masks ``(item, height, width)`` in rows of bytes."""
        pixels = self.edge**2
        images, masks = array[:, : 3 * pixels], array[:, 3 * pixels :]
        return images.reshape(-1, self.edge, self.edge, 3), masks.reshape(-1, self.edge, self.edge)

    def masks(self, index: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
        """Give the ground truth: ``heel`` and ``closure``, each of shape ``(batch, height, width)``."""
        if self._masks is None:
            self.load()
        assert self._masks is not None
        bits = self._masks[index]
        return {"heel": (bits & 1) > 0, "closure": (bits & 2) > 0}

    def changes(self, index: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Say where pictures change when only an attribute is drawn anew, each of its other values equally often.

        A higher heel tilts the whole shoe, so the evidence of a heel's height is not on the heel alone. The other
        closures are those of one kind.

        Returns:
            ``heel`` and ``closure``: mean absolute change of a pixel, summed over channels, shape
            ``(batch, height, width)``.
        """
        shoes = self.shoes()
        return {
            name: np.stack([self._change(shoes[item], int(item), variants) for item in index.tolist()])
            for name, variants in VARIANTS.items()
        }

    def _change(self, shoe: Shoe, item: int, variants: Callable[[Shoe], list[Shoe]]) -> NDArray[np.float32]:
        image, *others = (
            draw_shoe(each, self.edge, item_seed(self.seed, item)).image.astype(np.float32)
            for each in (shoe, *variants(shoe))
        )
        return np.mean([np.abs(other - image).sum(axis=2) for other in others], axis=0)


VARIANTS: dict[str, Callable[[Shoe], list[Shoe]]] = {
    "heel": lambda shoe: [replace(shoe, heel=heel) for heel in range(len(HEEL_HEIGHTS)) if heel != shoe.heel],
    "closure": lambda shoe: [replace(shoe, closure=(name,)) for name in CLOSURES if (name,) != shoe.closure],
}
"""Attribute → the shoes that differ from a shoe in it alone."""


def shoe_items(shoes: Sequence[Shoe]) -> Items:
    """Give the attributes of drawn shoes in the words of UT-Zappos50K."""
    columns = {
        "Category": np.array([shoe.category for shoe in shoes]),
        "HeelHeight": np.array([shoe.heel for shoe in shoes], dtype=np.float64),
        "Closure": np.array([";".join(shoe.closure) for shoe in shoes]),
        "Colour": np.array([shoe.colour for shoe in shoes]),
        "BrandMark": np.array([shoe.brand_mark for shoe in shoes]),
        "Texture": np.array([shoe.texture for shoe in shoes]),
    }
    return Items(np.array([f"shoe-{index:05d}" for index in range(len(shoes))]), columns)


def write_shoes(data: DrawnShoes, root: str | Path) -> None:
    """Write drawn shoes to disk in UT-Zappos50K's own layout, which ``Zappos50K`` reads back the same."""
    from simec_vision.datamodules.zappos50k import write_zappos_layout

    write_zappos_layout(root, data.items, data.images)
