"""The part of the command ``explain`` that connects the cells of images (BiLRP)."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from simec_vision.cli.figures import Picture
from simec_vision.cli.questions import Explained
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.explain import connect, factors, leading_directions
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel

EMBEDDED = 512
"""Held-out images whose embeddings say which directions are leading."""
DRAWN = 100
"""Connections drawn for each two images."""


@dataclass(frozen=True)
class Cells:
    """How finely cells are connected.

    Args:
        along: Cells along the longer side of an image.
        directions: How many leading directions of the embeddings are explained; default: all of the embedding.
    """

    along: int
    directions: int | None = None

    def checked(self, model: SimilarityModel, data: ImageDataModule, images: int) -> "Cells":
        """Give the same back.

        Raises:
            InputError: if there is no pair of images, a cell would be smaller than a pixel, or there are fewer
                directions.
        """
        longer, most = max(data.size[1:]), min(model.embedding_dim, len(data.split("test")[:EMBEDDED]))
        if images < 2:
            raise InputError(f"Expected --images to be at least 2 for --bilrp, got {images}")
        if not 1 <= self.along <= longer:
            raise InputError(f"Expected --cells between 1 and {longer}, the images' longer side, got {self.along}")
        if self.directions is not None and not 1 <= self.directions <= most:
            raise InputError(f"Expected --directions between 1 and {most}, got {self.directions}")
        return self


def about_bilrp(asked: Explained, cells: Cells) -> Picture:
    """Explain what connects each two of the images.

    Returns:
        A row for each two: their names, ``score``, ``baseline``, ``kept`` share and ``delta``; and the factors, from
        which the relevance between any cells follows: ``np.einsum("dij,dkl->ijkl", bilrp[a], bilrp[b])``.
    """
    from simec_vision.explain.connections import connection_grid

    model, data, items = asked.model, asked.data, asked.items
    pool = min(-(-max(data.size[1:]) // cells.along), *data.size[1:])
    every = factors(model, asked.images(), asked.preset, pool, _directions(model, data, cells.directions))
    first, second = (list(places) for places in zip(*combinations(range(len(items)), 2), strict=True))
    told, names, pictures = connect(every[first], every[second]), asked.names(items), asked.pictures()
    numbers = {part: getattr(told, part).tolist() for part in ("score", "baseline", "kept", "delta")}
    rows = [
        {"image": names[a], "other": names[b], **{part: values[place] for part, values in numbers.items()}}
        for place, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    strongest = [told.strongest(DRAWN, pair) for pair in range(len(rows))]

    def draw(path: Path) -> None:
        pairs = [*pictures[first]], [*pictures[second]], strongest
        connection_grid(*pairs, path, [_title(row) for row in rows], colours=asked.look.colours)

    return Picture("bilrp", rows, every.maps.numpy(), draw)


def _title(row: dict[str, Any]) -> str:
    return f"{row['image']}  ·  {row['other']}  =  " + f"{row['score']:.2f}".replace("-", "−")


def _directions(model: SimilarityModel, data: ImageDataModule, count: int | None) -> torch.Tensor | None:
    if count is None:
        return None
    with torch.no_grad():
        return leading_directions(model.embed(data.normalised(data.split("test")[:EMBEDDED])), count)
