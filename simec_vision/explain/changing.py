"""A network's output while its images change, window by window: only what a change reaches is computed again.

A window of pixels reaches a window of the next map, and so on: through convolutions and pools next to each other the
work is a small share of a whole pass. From the first layer that sees everything (flatten, a linear layer) on, and in a
network that is no chain, all is computed.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.explain.canonize import canonize, computed_in
from simec_vision.explain.images import first_weight
from simec_vision.explain.refusal import CannotExplain
from simec_vision.explain.twin import chain_of

Local = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
ELEMENTWISE = (nn.ReLU, nn.Tanh)


@dataclass(frozen=True)
class _Step:
    """A local layer with what follows it element by element, for input that is padded already.

    Args:
        function: Maps ``(batch, channel, height, width)``, padded, to the next map.
        kernel: How many rows and columns an output sees.
        stride: How far apart outputs are.
        padding: What is added on each side.
        fill: What it is filled with.
    """

    function: nn.Sequential
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    fill: float


@dataclass(frozen=True)
class _Maps:
    """Maps ``(batch, height, width, channel)`` with a margin for the padding of the layer that reads them."""

    values: Tensor
    margin: tuple[int, int]

    def read(self, corner: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Give the window at a corner, counted with the margin, as ``(batch, channel, height, width)``."""
        whole = tuple(self.values.shape[1:3]) == size
        window = self.values if whole else self.pixels().index_select(0, self._places(corner, size))
        return window.reshape(len(self.values), *size, -1).permute(0, 3, 1, 2)

    def write(self, patch: Tensor, corner: Sequence[Tensor]) -> None:
        """Replace the window at a corner, counted without the margin."""
        inside = [start + margin for start, margin in zip(corner, self.margin, strict=True)]
        places = self._places(inside, (patch.shape[2], patch.shape[3]))
        self.pixels().index_copy_(0, places, patch.permute(0, 2, 3, 1).reshape(len(places), -1))

    def pixels(self) -> Tensor:
        """See all pixels of all maps in one row, ``(batch · height · width, channel)``."""
        return self.values.view(-1, self.values.shape[3])

    def _places(self, corner: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Say where in that row the pixels of the windows are, ``(batch · height · width,)``."""
        batch, height, width = self.values.shape[:3]
        device = self.values.device
        first = (torch.arange(batch, device=device) * height + corner[0]) * width + corner[1]
        offsets = torch.arange(size[0], device=device)[:, None] * width + torch.arange(size[1], device=device)
        return (first[:, None] + offsets.flatten()).flatten()


class ChangingImages:
    """Images that change a window at a time, and what a network says about them.

    Args:
        network: From images to output; its chain as :func:`network_steps` gives it.
        images: Shape ``(batch, channel, height, width)``.
    """

    def __init__(self, network: Sequence[nn.Module], images: Tensor) -> None:
        self.steps, rest = _local_steps(network)
        self.rest = nn.Sequential(*rest)
        self.maps: list[_Maps] = []
        for step in self.steps:
            self.maps.append(_padded(images, step.padding, step.fill))
            images = step.function(self.maps[-1].values.permute(0, 3, 1, 2))
        self.maps.append(_padded(images, (0, 0), 0.0))

    def output(self) -> Tensor:
        """Give the network's output on the images as they are."""
        return self.rest(self.maps[-1].values.permute(0, 3, 1, 2))

    def change(self, patch: Tensor, corner: Sequence[Tensor]) -> Tensor:
        """Replace a window of every image.

        Args:
            patch: New pixels, shape ``(batch, channel, height, width)``, smaller than the images.
            corner: First row and first column of each image's window, two tensors of shape ``(batch,)``.

        Returns:
            The network's output after the change.
        """
        self.maps[0].write(patch, corner)
        for step, before, after in zip(self.steps, self.maps, self.maps[1:], strict=False):
            outputs = [side - 2 * margin for side, margin in zip(after.values.shape[1:3], after.margin, strict=True)]
            patch, corner = _changed(step, before, outputs, patch, corner)
            after.write(patch, corner)
        return self.output()


def network_steps(encoder: nn.Module, images: Tensor) -> list[nn.Module]:
    """Give an encoder's explainable twin as a chain of layers, or the encoder itself where there is none."""
    try:
        twin = canonize(encoder, images)
    except CannotExplain:
        dtype = first_weight(encoder, images).dtype
        exact = computed_in(dtype)
        return [encoder if exact == dtype else copy.deepcopy(encoder).to(exact)]
    return chain_of(twin) or [twin]


def _changed(
    step: _Step, maps: _Maps, outputs: Sequence[int], patch: Tensor, corner: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    """Compute the part of the next map that a changed window reaches, and its corner."""
    sides = zip(corner, patch.shape[2:], step.kernel, step.stride, step.padding, outputs, strict=True)
    (top, height), (left, width) = (_reached(*side) for side in sides)
    size = (_seen(height, step, 0), _seen(width, step, 1))
    first = (top * step.stride[0], left * step.stride[1])
    return step.function(maps.read(first, size)), (top, left)


def _reached(
    start: Tensor, length: int, kernel: int, stride: int, padding: int, outputs: int
) -> tuple[Tensor, int]:  # fmt: skip
    """Give the first output that sees any of ``length`` inputs from ``start`` on, and how many do at most.

    Output o sees the inputs o · stride − padding, …, o · stride − padding + kernel − 1.
    """
    count = min((length + kernel - 2) // stride + 1, outputs)
    first = -((kernel - 1 - padding - start) // stride)
    return first.clamp(0, outputs - count), count


def _seen(count: int, step: _Step, axis: int) -> int:
    return (count - 1) * step.stride[axis] + step.kernel[axis]


def _padded(maps: Tensor, padding: tuple[int, int], fill: float) -> _Maps:
    rows, columns = padding
    wide = F.pad(maps, (columns, columns, rows, rows), value=fill)
    return _Maps(wide.permute(0, 2, 3, 1).contiguous(), padding)


def _local_steps(layers: Sequence[nn.Module]) -> tuple[list[_Step], list[nn.Module]]:
    """Split a chain into its leading local layers, each with the activations after it, and the rest."""
    steps: list[_Step] = []
    for place, layer in enumerate(layers):
        if isinstance(layer, ELEMENTWISE) and steps:
            steps[-1].function.append(layer)
        elif isinstance(layer, Local) and _is_plain(layer):
            steps.append(_step(layer))
        else:
            return steps, list(layers[place:])
    return steps, []


def _is_plain(layer: Local) -> bool:
    """Tell whether a layer is the same everywhere but for a constant padding."""
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    counted = isinstance(layer, nn.MaxPool2d) or layer.count_include_pad or not any(_pair(layer.padding))
    return counted and not layer.ceil_mode


def _step(layer: Local) -> _Step:
    dilation = (1, 1) if isinstance(layer, nn.AvgPool2d) else _pair(layer.dilation)
    kernel = _pair(layer.kernel_size)
    seen = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    unpadded = copy.copy(layer)
    unpadded.padding = (0, 0)
    fill = float("-inf") if isinstance(layer, nn.MaxPool2d) else 0.0
    return _Step(nn.Sequential(unpadded), seen, _pair(layer.stride), _pair(layer.padding), fill)


def _pair(value: object) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple | list) else (int(str(value)), int(str(value)))
