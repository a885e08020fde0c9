"""Max-pooling: the winner takes all relevance, and several equal winners share it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.explain.propagation import Rule

TIE = 1e-6
"""Values this close, relative to the winner, have won as well: equal pixels give equal maps up to rounding."""

Cut = tuple[slice, slice] | None
"""Rows and columns; None = all."""


class WinnersTakeAll(Rule):
    """Give the relevance of a pooled value to the largest value of its window (as iNNvestigate and Captum do).

    R_in,i = Σ_j [i has won in window j] · R_out,j / (number of winners of j). Equal winners share: on a plain
    background all values are equal, and if only the first of them took everything, heatmaps would show a grid of dots.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return what every value has won."""
        maps, windows = _windows(layer, inputs)
        pooled = layer.forward(inputs)
        threshold = pooled - TIE * pooled.abs()
        won = [(source, target, _at(maps, source) >= _at(threshold, target)) for source, target in windows]
        count = torch.zeros_like(pooled)
        for _, target, mask in won:
            part = _at(count, target)
            part += mask if mask.shape == part.shape else mask.sum(dim=(-2, -1), keepdim=True)
        share = relevance / count
        taken = relevance.new_zeros(*relevance.shape[:-2], *maps.shape[-2:])
        for source, target, mask in won:
            part = _at(taken, source)
            part += mask * _at(share, target)
        top, left = _padding(layer)
        return _at(taken, (slice(top, top + inputs.shape[-2]), slice(left, left + inputs.shape[-1])))


def _at(maps: Tensor, cut: Cut) -> Tensor:
    """Cut maps; unlike by indexing, what is cut may be batched relevance of which all is wanted."""
    for axis, part in enumerate(cut or (), start=-2):
        maps = torch.ops.aten.slice.Tensor(maps, axis, part.start, part.stop, part.step or 1)
    return maps


def _windows(layer: nn.Module, maps: Tensor) -> tuple[Tensor, list[tuple[Cut, Cut]]]:
    """Pad maps, and say where in them, and for which outputs, the values stand that an output looks at."""
    if isinstance(layer, nn.AdaptiveMaxPool2d):
        return maps, list(_cells(layer, maps))
    assert isinstance(layer, nn.MaxPool2d)
    return _padded(layer, maps), list(_offsets(layer, maps))


def _offsets(layer: nn.MaxPool2d, maps: Tensor) -> Iterator[tuple[Cut, Cut]]:
    """Give for each offset in the window the values that stand there, for all outputs at once."""
    size, stride, dilation = (_pair(each) for each in (layer.kernel_size, layer.stride, layer.dilation))
    outputs = layer.forward(maps[:1, :1]).shape[-2:]
    for i in range(size[0]):
        for j in range(size[1]):
            starts = (i * dilation[0], j * dilation[1])
            ends = [start + stride[k] * (outputs[k] - 1) + 1 for k, start in enumerate(starts)]
            rows, columns = (slice(starts[k], ends[k], stride[k]) for k in (0, 1))
            yield (rows, columns), None


def _cells(layer: nn.AdaptiveMaxPool2d, maps: Tensor) -> Iterator[tuple[Cut, Cut]]:
    """Give for each output its window, which spans from ⌊i · n / m⌋ to ⌈(i + 1) · n / m⌉."""
    wanted = layer.forward(maps[:1, :1]).shape[-2:]
    rows, columns = (
        [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        for n, m in zip(maps.shape[-2:], wanted, strict=True)
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            yield (row, column), (slice(i, i + 1), slice(j, j + 1))


def _padded(layer: nn.MaxPool2d, maps: Tensor) -> Tensor:
    """Pad with values that never win, as far as any window reaches."""
    top, left = _padding(layer)
    size, stride, dilation = (_pair(each) for each in (layer.kernel_size, layer.stride, layer.dilation))
    outputs = layer.forward(maps[:1, :1]).shape[-2:]
    reach = [stride[k] * (outputs[k] - 1) + dilation[k] * (size[k] - 1) + 1 for k in (0, 1)]
    below, right = (max(reach[k] - maps.shape[k - 2] - before, 0) for k, before in enumerate((top, left)))
    return F.pad(maps, (left, right, top, below), value=-torch.inf)


def _padding(layer: nn.Module) -> tuple[int, int]:
    return (0, 0) if isinstance(layer, nn.AdaptiveMaxPool2d) else _pair(layer.padding)  # type: ignore[arg-type]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
