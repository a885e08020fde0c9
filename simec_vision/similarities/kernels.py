"""Kernels on pixels or on given features as similarities."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.items import InputError, Items, nearest
from simec_vision.similarities.base import Similarity, TargetSimilarity
from simec_vision.similarities.given import open_matrix

CHUNK = 1024
"""Rows of references that are looked at together when statistics over the references are taken."""

KERNELS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linear": lambda a, b, gamma: a @ b.T,
    "rbf": lambda a, b, gamma: torch.exp(-gamma * torch.cdist(a, b) ** 2),
    "cosine": lambda a, b, gamma: nn.functional.normalize(a) @ nn.functional.normalize(b).T,
}
"""Kernels of two feature matrices ``(batch, feature)`` and ``(reference, feature)``."""


class Kernel(Similarity):
    """A kernel on pixels or on the rows of a features file.

    Centring and scaling take their statistics over the references' own block, so that training and held-out items are
    treated alike: centred k̃_ij = k_ij − mean_j' k_ij' − mean_i' k_i'j + mean k, scaled (k − min) / (max − min).

    Args:
        kind: ``linear`` a·b, ``rbf`` exp(−gamma |a − b|²) or ``cosine`` a·b / (|a| |b|).
        features: ``pixels``, or a ``.npy`` file of shape ``(item, feature)``, which is read row by row.
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

    def bind(self, items: Items, references: NDArray[np.int64]) -> TargetSimilarity:
        """See :meth:`Similarity.bind`."""
        target = _Kernel(references, _feature_rows(self.features, items), KERNELS[self.kind], self.gamma)
        if self.centre:
            target.centre()
        if self.scale:
            target.scale()
        return target


def _feature_rows(features: str, items: Items) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Give a function from item indices to their features."""
    if features != "pixels":
        matrix = open_matrix(features, len(items))
        return lambda index: np.asarray(matrix[index], dtype=np.float32)
    if items.pixels is None:
        raise InputError("Expected items with pixels for a kernel on pixels; give a features file instead")
    return items.pixels


class _Kernel(TargetSimilarity):
    reference_features: Tensor
    column_mean: Tensor
    offset: Tensor
    factor: Tensor

    def __init__(
        self,
        references: NDArray[np.int64],
        features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        kernel: Callable[[Tensor, Tensor, float], Tensor],
        gamma: float | None,
    ) -> None:
        super().__init__(references)
        self.features, self.kernel, self.centred = features, kernel, False
        self._fixed("reference_features", torch.from_numpy(features(references)))
        self.gamma = gamma if gamma is not None else 1 / self.reference_features.shape[1]
        self._fixed("column_mean", torch.zeros(len(references)))
        self._fixed("offset", torch.zeros(()))
        self._fixed("factor", torch.ones(()))

    def _all_rows(self, index: Tensor) -> Tensor:
        features = torch.from_numpy(self.features(index.cpu().numpy())).to(self.reference_features)
        with torch.autocast(features.device.type, enabled=False):
            kernel = self.kernel(features, self.reference_features, self.gamma)
        if self.centred:
            kernel = kernel - kernel.mean(dim=1, keepdim=True) - self.column_mean + self.column_mean.mean()
        return (kernel - self.offset) * self.factor

    def rows(self, index: Tensor, columns: Tensor) -> Tensor:
        rows = self._all_rows(index)
        return rows if len(columns) == len(self) else rows[:, columns]

    def centre(self) -> None:
        """Take the column means over the references' own block; from now on rows are centred."""
        sums = [self._all_rows(chunk).double().sum(dim=0) for chunk in self.references.split(CHUNK)]
        self.column_mean = (torch.stack(sums).sum(dim=0) / len(self)).float()
        self.centred = True

    def scale(self) -> None:
        """Take the extremes over the references' own block; from now on that block spans [0, 1]."""
        extremes = [torch.stack(self._all_rows(chunk).aminmax()) for chunk in self.references.split(CHUNK)]
        low, high = torch.stack(extremes)[:, 0].min(), torch.stack(extremes)[:, 1].max()
        self.offset, self.factor = low, 1 / (high - low)
