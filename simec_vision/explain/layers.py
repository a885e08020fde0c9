"""The layers that only twins have: what networks do by operators and functions, as modules that rules are given to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn


class Add(nn.Module):
    """Add maps: first + second, of the same shape or broadcast."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the sum."""
        return first + second


class Gate(nn.Module):
    """Multiply maps by a gate that the network computed from them, such as squeeze-and-excitation's."""

    def forward(self, value: Tensor, gate: Tensor) -> Tensor:
        """Return value ⊙ gate."""
        return value * gate


class ScaleShift(nn.Module):
    """Scale and shift by constants: weight ⊙ x + bias.

    Batch normalisation that has no neighbour to be folded into, layer scale, arithmetic with numbers and buffers.

    Args:
        weight: Scale; one number, or one per channel, or anything that broadcasts.
        bias: Shift, likewise; None = 0.
        per_channel: Align both with axis 1, whatever follows it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, per_channel: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.per_channel = per_channel

    def forward(self, maps: Tensor) -> Tensor:
        """Return weight ⊙ x + bias."""
        scaled = maps * self.aligned(self.weight, maps)
        return scaled if self.bias is None else scaled + self.aligned(self.bias, maps)

    def aligned(self, values: Tensor, maps: Tensor) -> Tensor:
        """Shape values so that they broadcast with maps."""
        return values.reshape(-1, *[1] * (maps.ndim - 2)) if self.per_channel else values


class Normalisation(nn.LayerNorm):
    """Layer normalisation over the last axes: (x − mean) / √(variance + ε) ⊙ weight + bias."""

    def linear(self, maps: Tensor) -> Tensor:
        """Do the same with the standard deviation as a constant, which makes it linear in x up to the bias."""
        axes = tuple(range(-len(self.normalized_shape), 0))
        centred = maps - maps.mean(axes, keepdim=True)
        scaled = centred * (centred.detach().square().mean(axes, keepdim=True) + self.eps).rsqrt()
        scaled = scaled if self.weight is None else scaled * self.weight
        return scaled if self.bias is None else scaled + self.bias


class Mean(nn.Module):
    """Average over some axes.

    Args:
        axes: Which.
        keepdim: Keep them, with length 1.
    """

    def __init__(self, axes: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.axes, self.keepdim = axes, keepdim

    def forward(self, maps: Tensor) -> Tensor:
        """Return the mean."""
        return maps.mean(self.axes, self.keepdim)


@dataclass(frozen=True)
class _Slot:
    """Stands for what a layer is called with, among its fixed arguments."""

    index: int


class Rearrange(nn.Module):
    """Move values without changing any: reshape, permute, concatenate, cut.

    Args:
        function: What moves them, such as ``torch.permute``.
        arguments: Its arguments; every ``fx.Node`` among them is what the layer is called with.
        options: Its named arguments, likewise.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        self.nodes: list[fx.Node] = []
        self.arguments, self.options = fx.node.map_arg((arguments, options), self._slot)
        del self.nodes

    def _slot(self, node: fx.Node) -> Any:
        if node not in self.nodes:
            self.nodes.append(node)
        return _Slot(self.nodes.index(node))

    def forward(self, *values: Any) -> Any:
        """Call the function; values are tensors, and sizes where these depend on the image."""
        arguments, options = fx.node.map_aggregate(
            (self.arguments, self.options), lambda part: values[part.index] if isinstance(part, _Slot) else part
        )
        return self.function(*arguments, **options)

    def extra_repr(self) -> str:
        """Say which function."""
        return self.function.__name__


MOVING = (Rearrange, nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle)
"""Layers that only move values."""
AVERAGING = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, Mean)
"""Layers that average, with one weight for all that an output sees."""
WEIGHTED = (nn.Linear, nn.Conv2d, ScaleShift, Normalisation)
"""Linear layers with weights of their own."""


def weight_of(layer: nn.Module) -> Tensor:
    """Give a layer's weight."""
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


def bias_of(layer: nn.Module) -> Tensor | None:
    """Give a layer's bias; None if it has none."""
    bias = getattr(layer, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


def aligned_bias(layer: nn.Module, bias: Tensor, outputs: Tensor) -> Tensor:
    """Shape a layer's bias so that it broadcasts with its outputs."""
    if isinstance(layer, ScaleShift):
        return layer.aligned(bias, outputs)
    return bias[:, None, None] if isinstance(layer, nn.Conv2d) else bias


def linearised(layer: nn.Module) -> Callable[..., Tensor]:
    """Give the function of a layer in which what counts as constant has no derivative."""
    return layer.linear if isinstance(layer, Normalisation) else layer.forward
