"""Second order: which cell of one image goes with which cell of another (BiLRP, Eberle et al. 2020, arXiv 2003.05431).

A similarity score = Σ_k embedding_k(A) · embedding_k(B) is distributed over pairs of cells by

    relevance[a, b] = Σ_k LRP(embedding_k, A)[a] · LRP(embedding_k, B)[b]

so each image needs one LRP map per dimension k, its factors, and a pair of images only their product.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from simec_vision.explain.factors import Factors, factors
from simec_vision.items import InputError

if TYPE_CHECKING:
    from simec_vision.explain.presets import Preset
    from simec_vision.model import SimilarityModel

BLOCK = 2**22
"""Pairs of cells among which the strongest are looked for at once."""


@dataclass(frozen=True)
class Strongest:
    """The connections of a pair with the largest magnitude, strongest first.

    Args:
        relevance: Shape ``(connection,)``, in units of the score.
        mine: Row and column of the cell in the image, shape ``(connection, 2)``.
        others: The same in the other image.
        pool: Height and width of a cell in pixels.
    """

    relevance: Tensor
    mine: Tensor
    others: Tensor
    pool: int


@dataclass(frozen=True)
class Connections:
    """Scores of pairs of images and their distribution over pairs of cells, kept as a product.

    Args:
        mine: Factors of each pair's image, shape ``(pair, direction, row, column)``.
        others: Factors of its other image; rows and columns may be others.
        score: What is explained, shape ``(pair,)``.
        baseline: What of the score does not come from how both images differ from their baselines, shape ``(pair,)``;
            0 for presets without a baseline.
        kept: What the projected embeddings give of the rest, as a share of it, shape ``(pair,)``; 1 without projection.
        pool: Height and width of a cell in pixels.
    """

    mine: Tensor
    others: Tensor
    score: Tensor
    baseline: Tensor
    kept: Tensor
    pool: int

    def total(self) -> Tensor:
        """Sum the relevance of all pairs of cells: ``(pair,)``, the score but for the baseline and what was lost."""
        return (self.mine.sum(dim=(2, 3)) * self.others.sum(dim=(2, 3))).sum(dim=1)

    @property
    def delta(self) -> Tensor:
        """(total + baseline − score) / score, shape ``(pair,)``: what biases, ε and projection took."""
        return (self.total() + self.baseline - self.score) / self.score

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Sum over the cells of the other image, then over those of the image: ``(pair, row, column)`` each.

        What conserves relevance makes them the first-order explanations of both images, summed over cells; measured
        from a baseline, those of what differs from it in the other image's embedding, too.
        """
        mine, others = (maps.sum(dim=(2, 3), keepdim=True) for maps in (self.mine, self.others))
        return (self.mine * others).sum(dim=1), (self.others * mine).sum(dim=1)

    def cells(self) -> Tensor:
        """Write out all pairs of cells: ``(pair, row, column, row, column)``; rows · columns of both images large."""
        return torch.einsum("pdij,pdkl->pijkl", self.mine, self.others)

    def strongest(self, count: int = 100, pair: int = 0) -> Strongest:
        """Find the connections of one pair that are strongest, positive or negative, without writing all out.

        Raises:
            InputError: if there is no such pair, or fewer than one connection is asked for.
        """
        if count < 1 or not 0 <= pair < len(self.mine):
            raise InputError(
                f"Expected count at least 1 and pair between 0 and {len(self.mine) - 1}, got {count} and {pair}"
            )
        relevance, index = _largest(self.mine[pair].flatten(1), self.others[pair].flatten(1), count)
        widths = self.mine.shape[3], self.others.shape[3]
        rows = self.others.shape[2] * widths[1]
        mine, others = _places(index // rows, widths[0]), _places(index % rows, widths[1])
        return Strongest(relevance, mine, others, self.pool)


def _largest(mine: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Give the entries of ``mine.T @ others`` of largest magnitude and their flat places, a block of rows at a time."""
    best, places = mine.new_empty(0), torch.empty(0, dtype=torch.long, device=mine.device)
    step = max(1, BLOCK // others.shape[1])
    for start in range(0, mine.shape[1], step):
        block = (mine[:, start : start + step].T @ others).flatten()
        values = torch.cat([best, block])
        index = torch.cat([places, torch.arange(len(block), device=mine.device) + start * others.shape[1]])
        top = values.abs().topk(min(count, len(values))).indices
        best, places = values[top], index[top]
    return best, places


def _places(index: Tensor, width: int) -> Tensor:
    return torch.stack([index // width, index % width], dim=1)


def bilrp(
    model: "SimilarityModel",
    images: Tensor,
    others: Tensor,
    preset: "str | Preset" = "a_flat",
    pool: int = 4,
    directions: Tensor | None = None,
    cosine: bool = False,
    chunk: int | None = None,
) -> Connections:
    """Explain which cell of an image goes with which cell of the other one of its pair (BiLRP, Eberle et al. 2020).

    score = embed(image) · embed(other), or their cosine. For many pairs of few images take
    :func:`~simec_vision.explain.factors` of the images once and :func:`connect` any pairs.

    Args:
        model: A model with an encoder that :func:`~simec_vision.explain.canonize` understands.
        images: Normalised images, shape ``(pair, channel, height, width)``.
        others: The other image of every pair; height and width may differ where the encoder takes it.
        preset: Which rule for which layer: a name, or rows of your own (:mod:`simec_vision.explain.presets`).
        pool: Height and width of a cell in pixels.
        directions: Explain only the part of the score along these, see
            :func:`~simec_vision.explain.leading_directions`; default: all of it.
        cosine: Explain the cosine of the angle between the embeddings instead of their inner product. Their lengths
            count as constants, so it is the same relevance, divided by them.
        chunk: How many directions are propagated at once; default: what is fast.

    Returns:
        The relevance between cells of both images, without gradients, on the model's device.

    Raises:
        InputError: if there is no such preset, or images, pool or directions do not fit.
        CannotExplain: if the encoder does something that has no rule.
    """
    if len(images) != len(others):
        raise InputError(f"Expected as many others as images ({len(images)}), got {len(others)}")
    first = factors(model, images, preset, pool, directions, chunk)
    return connect(first, factors(model, others, preset, pool, directions, chunk), cosine)


def connect(mine: Factors, others: Factors, cosine: bool = False) -> Connections:
    """Connect the cells of images that form pairs: image i of ``mine`` with image i of ``others``.

    Args:
        mine: Factors of one image of each pair.
        others: Factors of the other image.
        cosine: Explain the cosine instead of the inner product; see :func:`bilrp`.

    Raises:
        InputError: if there are more of one than of the other, or their directions or cells differ.
    """
    _check_fit(mine, others)
    score, explained = (
        (one * other).sum(dim=1)
        for one, other in ((mine.embedding, others.embedding), (mine.changed(), others.changed()))
    )
    projected = (mine.projected() * others.projected()).sum(dim=1)
    lengths = [part.embedding.norm(dim=1) if cosine else torch.ones_like(score) for part in (mine, others)]
    first, second = (
        part.maps / length[:, None, None, None] for part, length in zip((mine, others), lengths, strict=True)
    )
    scale, kept = lengths[0] * lengths[1], torch.where(projected == explained, 1.0, projected / explained)
    return Connections(first, second, score / scale, (score - explained) / scale, kept, mine.pool)


def _check_fit(mine: Factors, others: Factors) -> None:
    if len(mine) != len(others):
        raise InputError(f"Expected factors of as many others as images ({len(mine)}), got {len(others)}")
    if mine.pool != others.pool:
        raise InputError(f"Expected factors with cells of {mine.pool} pixels, got {others.pool}: give both one pool")
    if mine.directions.shape != others.directions.shape or not torch.equal(mine.directions, others.directions):
        raise InputError("Expected factors along the same directions, got others: compute both with the same ones")
