"""Inputs and similarities brought to one size for training, and back: learning rates then suit any data."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from simec_vision.encoders import dense_layers
from simec_vision.model import SimilarityModel


@dataclass(frozen=True)
class Scaling:
    """How inputs and similarities are scaled: (x − shift) / size, and s / similarity.

    Args:
        shift: Mean of each feature, shape ``(feature,)``; None leaves inputs where they are (sparse ones).
        size: Root mean variance of the features, or more where an item has very many (:data:`REACH`), or rare ones.
        similarity: Root mean square of the known similarities.
    """

    shift: NDArray[np.float64] | None = None
    size: float = 1.0
    similarity: float = 1.0

    def inputs(self, items: Any) -> Any:
        """Scale inputs ``(item, feature)``, dense or sparse, in float32."""
        if self.shift is None:
            return (items if self.size == 1 else items / self.size).astype(np.float32, copy=False)
        scaled = np.empty(items.shape, dtype=np.float32)
        for part, out in zip(_parts(items), _parts(scaled), strict=True):
            out[...] = (part - self.shift) / self.size
        return scaled

    def fold(self, model: SimilarityModel, back: bool = False) -> None:
        """Let a model that was trained on scaled inputs and similarities take and give unscaled ones.

        Args:
            model: The model, with dense layers; changed in place.
            back: Do the reverse, to go on with training.
        """
        dense = dense_layers(model.encoder)
        if self.size != 1 or self.shift is not None:
            self._fold_inputs(dense[0], back)
        if self.similarity != 1:
            factor = (1 / self.similarity if back else self.similarity) ** 0.5
            heads = [model.head(name).weight for name in model.heads]
            for part in (dense[-1].weight, dense[-1].bias, *heads):
                part.data.mul_(factor)

    def _fold_inputs(self, layer: nn.Linear, back: bool) -> None:
        weight = layer.weight.data.double()
        outer = weight if back else weight / self.size
        if self.shift is not None:
            moved = outer @ outer.new_tensor(self.shift)
            layer.bias.data.copy_(layer.bias.data.double() + (moved if back else -moved))
        layer.weight.data.copy_(weight * self.size if back else outer)


REACH = 700.0
"""Sum of the absolute values of an item's scaled features, on average, up to which a step of Adam is small enough.

Adam moves all weights of a layer by about as much, so that an item's output moves by the learning rate times this sum.
For the same change whatever the width, learning rates fall as 1 / width (Yang et al. 2021, arXiv 2203.03466). Smaller
inputs do that, start embeddings nearer to 0 and make the L2 penalty count for more. Images of 28 × 28 stay just below.
"""
RARE, SELDOM = 32, 10
"""Where one in k ≥ 10 entries is not 0 and an item reaches more than half of REACH, it may reach REACH / min(k, 32).

Dense inputs are looked at as they come: such as were centred before have no zeros and are not recognised. After a first
gradient that no other follows, Adam goes on to move a weight by 1 / √(1 − β₂) ≈ 32 learning rates in all, which is what
happens to features that few items have. Without this, 3959 posts of 43,601 terms (20 newsgroups) had embeddings of
classes whose inner products erred by 622 in place of .08, and those of a linear kernel in 10 dimensions by .138 on new
posts in place of .038. Of reaches of 5, 11, 22, 45 and 90, a fifth of the training posts prefers 11 or 22, which is
REACH / 32.
"""


def measure(items: Any, similarities: dict[str, Any]) -> Scaling:
    """Find the scaling of inputs ``(item, feature)`` and, unless there are none, of all similarities together.

    Sizes are rounded to powers that multiply and divide without rounding: of 2, and of 4 where their root is taken.
    """
    if hasattr(items, "tocsr"):
        shift, size, total = None, np.sqrt(items.multiply(items).mean()), abs(items).sum()
        stored = items.count_nonzero()
    else:
        shift, squares, total = items.mean(axis=0, dtype=np.float64), 0.0, 0.0
        for part in _parts(items):
            moved = part - shift
            squares, total = squares + np.vdot(moved, moved), total + np.abs(moved, out=moved).sum()
        size, stored = np.sqrt(squares / items.size), np.count_nonzero(items)
    size = _power(float(size), 2.0)
    reach = float(total) / items.shape[0] / size
    rarity = items.shape[0] * items.shape[1] / max(1, stored)
    if rarity >= SELDOM and reach > REACH / 2:
        reach *= min(RARE, rarity)
    return Scaling(shift, size * _power(max(1.0, reach / REACH), 2.0), _power(root_mean_square(similarities), 4.0))


def _power(size: float, base: float) -> float:
    """Give the nearest power, 1 for no size at all."""
    return base ** round(log(size, base)) if size > 0 and np.isfinite(size) else 1.0


def root_mean_square(similarities: dict[str, Any]) -> float:
    """Give the root mean square of the known entries of matrices, dense (NaN = unknown) or sparse; 1 where it is 0."""
    sums = [(0.0, 0), *(known_square_sum(matrix) for matrix in similarities.values())]
    total, count = (sum(part) for part in zip(*sums, strict=True))
    return float(np.sqrt(total / count)) if total > 0 else 1.0


def known_square_sum(matrix: Any) -> tuple[float, int]:
    """Give the sum of squares of a matrix's known entries and how many they are."""
    squares, count = 0.0, 0
    for part in _parts(matrix.data if hasattr(matrix, "tocsr") else matrix):
        unknown = np.isnan(part)
        known = np.where(unknown, 0.0, part).astype(np.float64, copy=False)
        squares, count = squares + float(np.vdot(known, known)), count + int(np.count_nonzero(~unknown))
    return squares, count


AT_ONCE = 2**17
"""About so many numbers are looked at together, few enough to stay near the processor."""


def _parts(rows: NDArray) -> Iterator[NDArray]:
    """Give an array some rows at a time."""
    count = max(1, AT_ONCE * len(rows) // max(1, rows.size))
    return (rows[start : start + count] for start in range(0, len(rows), count))


def values_of(matrix: Any) -> NDArray:
    """Give the known entries of a matrix, dense (NaN = unknown) or sparse (what is stored is known)."""
    values = matrix.data if hasattr(matrix, "tocsr") else matrix
    return values[~np.isnan(values)]
