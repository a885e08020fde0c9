"""Kernels on pixels or on given features as similarities."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.items import InputError, Items, nearest
from simec_vision.similarities.base import Similarity, TargetSimilarity
from simec_vision.similarities.given import finite_rows, open_matrix

ROWS = 4096
"""Rows of a features file that are looked at together."""


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Give |a − b|² of rows, shape ``(batch, reference)``.

    torch computes them from inner products, here about the references' mean: far from 0, those of the rows themselves
    would leave rounding errors of the size of the distances.
    """
    centre = b.mean(dim=0)
    return torch.cdist(a - centre, b - centre).square()


KERNELS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linear": lambda a, b, gamma: a @ b.T,
    "rbf": lambda a, b, gamma: torch.exp(-gamma * squared_distances(a, b)),
    "cosine": lambda a, b, gamma: nn.functional.normalize(a) @ nn.functional.normalize(b).T,
}
"""Kernels of two feature matrices ``(batch, feature)`` and ``(reference, feature)``, in the type of these."""

FACTORS: dict[str, Callable[[Tensor], Tensor]] = {"linear": lambda a: a, "cosine": nn.functional.normalize}
"""Vectors of features ``(reference, feature)`` whose inner products are the kernel, for those that have such."""


def centred(kernel: Tensor, column_mean: Tensor) -> Tensor:
    """Centre rows of a kernel over the references: k_ij − mean_j' k_ij' − m_j + mean_j' m_j'.

    Args:
        kernel: Shape ``(batch, reference)``.
        column_mean: Mean m of each column over the references' own block, shape ``(reference,)``.
    """
    return kernel - kernel.mean(dim=1, keepdim=True) - column_mean + column_mean.mean()


def scaled(kernel: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bring [low, high] to [0, 1]: (k − low) / (high − low)."""
    return (kernel - low) / (high - low)


class Kernel(Similarity):
    """A kernel on pixels or on the rows of a features file.

    Centring and scaling take their statistics over the references' own block, so that training and held-out items are
    treated alike: centred k̃_ij = k_ij − mean_j' k_ij' − mean_i' k_i'j + mean k, scaled (k − min) / (max − min).

    Args:
        kind: ``linear`` a·b, ``rbf`` exp(−gamma |a − b|²) or ``cosine`` a·b / (|a| |b|).
        features: ``pixels``, or a ``.npy`` file of shape ``(item, feature)``, which is read row by row; an item
            with a NaN among its features has unknown similarities and cannot be a reference.
        gamma: Width of the RBF kernel; default: 1 / number of features.
        centre: Centre the kernel over the references.
        scale: Scale the kernel to [0, 1] over the references.
    """

    def __init__(
        self,
        kind: Literal["linear", "rbf", "cosine"] = "linear",
        features: str = "pixels",
        gamma: float | None = None,
        centre: bool = False,
        scale: bool = False,
    ) -> None:
        if kind not in KERNELS:
            raise InputError(f"Expected a kernel, got {kind!r}: {nearest(kind, [*KERNELS])}")
        self.kind, self.features, self.gamma, self.centre, self.scale = kind, features, gamma, centre, scale

    def known(self, items: Items) -> NDArray[np.bool_]:
        """Say which items have finite features, shape ``(item,)``; see :meth:`Similarity.known`."""
        if self.features == "pixels":
            return super().known(items)
        matrix = open_matrix(self.features)
        parts = (matrix[start : start + ROWS] for start in range(0, len(matrix), ROWS))
        finite = [np.isfinite(part).all(axis=1) for part in parts]
        return np.concatenate(finite) if len(matrix) == len(items) else super().known(items)  # which bind refuses

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """Prepare the target similarities of these items to these references; see :meth:`Similarity.bind`.

        Raises:
            InputError: for features of another shape or that are not finite, or a constant kernel that is to be scaled.
        """
        features = _feature_rows(self.features, items)
        target = _Kernel(references, features, self.kind, self.gamma)
        target.complete = self.features == "pixels"
        unknown = ~torch.isfinite(target.reference_features).all(dim=1).numpy()
        if unknown.any():
            raise InputError(
                f"Expected finite features of every reference in {self.features}, got NaN or infinity for "
                f"{str(items.names[references[unknown][0]])!r}: correct it or choose other references"
            )
        if self.centre:
            target.centre()
        if self.scale:
            target.scale()
        return target


def _feature_rows(features: str, items: Items) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Give a function from item indices to their features."""
    if features == "pixels":
        if items.pixels is None:
            raise InputError("Expected items with pixels for a kernel on pixels; give a features file instead")
        return items.pixels
    matrix = open_matrix(features)
    if len(matrix) != len(items):
        raise InputError(
            f"Expected {features} of shape (item, feature) = ({len(items)}, …), got {matrix.shape}. "
            "Its rows follow the items' order"
        )
    return lambda index: finite_rows(matrix[index], items.names[index], f"features in {features}")


class _Kernel(TargetSimilarity):
    reference_features: Tensor
    column_mean: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        references: NDArray[np.int64],
        features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        kind: str,
        gamma: float | None,
    ) -> None:
        super().__init__(references)
        self.features, self.kind, self.centred, self.scaled = features, kind, False, False
        self._fixed("reference_features", torch.from_numpy(features(references)))
        self.gamma = gamma if gamma is not None else 1 / self.reference_features.shape[1]
        self._fixed("column_mean", torch.zeros(len(references)))
        self._fixed("low", torch.zeros(()))
        self._fixed("high", torch.ones(()))

    def _kernel(self, index: Tensor, references: Tensor) -> Tensor:
        features = torch.from_numpy(self.features(index.cpu().numpy())).to(self.reference_features)
        with torch.autocast(features.device.type, enabled=False):
            return KERNELS[self.kind](features, references, self.gamma)

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        """Compute some columns alone, unless the kernel is centred: then a row's mean over all references is needed."""
        whole = len(columns) == len(self)
        if self.centred:
            rows = centred(self._kernel(index, self.reference_features), self.column_mean)
            rows = rows if whole else rows[:, columns]
        else:
            rows = self._kernel(index, self.reference_features if whole else self.reference_features[columns])
        return scaled(rows, self.low, self.high)

    def known_counts(self) -> Tensor:
        """See :meth:`TargetSimilarity.known_counts`: the references' features are finite, so all are known."""
        return torch.full_like(self.references, len(self))

    @property
    def num_factors(self) -> int:
        """How many features there are; 0 for a kernel that is no inner product of them, or scaled."""
        return self.reference_features.shape[1] if self.kind in FACTORS and not self.scaled else 0

    def factors(self, columns: Tensor | None = None) -> Tensor:
        """Give the references' features, normalised for ``cosine``, less their mean where centred."""
        features = self.reference_features if self.centred or columns is None else self.reference_features[columns]
        factors = FACTORS[self.kind](features)
        if not self.centred:
            return factors
        factors = factors - factors.mean(dim=0)
        return factors if columns is None else factors[columns]

    def centre(self) -> None:
        """Take the column means over the references' own block; from now on rows are centred."""
        sums = [rows.double().sum(dim=0) for rows in self.gram_chunks()]
        self.column_mean = (torch.stack(sums).sum(dim=0) / len(self)).float()
        self.centred = True

    def scale(self) -> None:
        """Take the extremes over the references' own block; from now on that block spans [0, 1]."""
        extremes = torch.stack([torch.stack(rows.aminmax()) for rows in self.gram_chunks()])
        low, high = extremes[:, 0].min(), extremes[:, 1].max()
        if not 0 < high - low < torch.inf:
            raise InputError(
                f"Expected a kernel that differs between the references to scale it to [0, 1], got values from {low:g} "
                f"to {high:g}: leave out scale, or choose other features, kernel or references"
            )
        self.low, self.high, self.scaled = low, high, True
