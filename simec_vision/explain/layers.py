"""What each layer and function of a network becomes in its explainable twin; what is not listed has no rule."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

Maker = Callable[..., list[nn.Module]]


class UnsupportedError(Exception):
    """A known layer used in a way that has no rule; the message completes "MaxPool2d …"."""


def _conv2d(conv: nn.Conv2d) -> list[nn.Module]:
    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    twin = nn.Conv2d(*sizes, conv.groups, padding_mode=conv.padding_mode, device="meta")  # type: ignore[arg-type]
    return [_with_weights_of(conv, twin)]


def _linear(linear: nn.Linear) -> list[nn.Module]:
    return [_with_weights_of(linear, nn.Linear(linear.in_features, linear.out_features, device="meta"))]


def _with_weights_of(layer: nn.Conv2d | nn.Linear, twin: nn.Conv2d | nn.Linear) -> nn.Module:
    twin.weight = nn.Parameter(layer.weight.detach().clone())
    twin.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
    return twin


def _batchnorm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> list[nn.Module]:
    if norm.running_mean is None or norm.running_var is None:
        raise UnsupportedError("without running statistics")
    twin = type(norm)(norm.num_features, norm.eps, affine=norm.affine, device="meta")
    twin.weight, twin.bias = (None if p is None else nn.Parameter(p.detach().clone()) for p in (norm.weight, norm.bias))
    twin.running_mean, twin.running_var = norm.running_mean.clone(), norm.running_var.clone()
    return [twin]


def _relu(*_: Any, **__: Any) -> list[nn.Module]:
    return [nn.ReLU()]


def _tanh(*_: Any, **__: Any) -> list[nn.Module]:
    return [nn.Tanh()]


def _nothing(*_: Any, **__: Any) -> list[nn.Module]:
    return []


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> list[nn.Module]:
    if training:
        raise UnsupportedError("that also drops in evaluation mode; pass training=self.training")
    return []


def _flatten(start_dim: int = 0, end_dim: int = -1) -> list[nn.Module]:
    if (start_dim, end_dim) != (1, -1):
        raise UnsupportedError(f"of axes {start_dim} to {end_dim} instead of 1 to -1")
    return [nn.Flatten()]


def _reshape(*sizes: Any, shape: Any = None, size: Any = None) -> list[nn.Module]:
    given: Any = sizes or (shape or size,)  # reshape(shape=…) and view(size=…)
    sizes = tuple(given[0]) if len(given) == 1 and isinstance(given[0], tuple | list) else given
    if len(sizes) != 2 or not (isinstance(sizes[0], fx.Node) or sizes[0] == -1):
        raise UnsupportedError("to another shape than (batch, -1)")
    return [nn.Flatten()]


def _plain(arguments: tuple[Any, ...]) -> None:
    nodes: list[fx.Node] = []
    fx.node.map_arg(arguments, nodes.append)
    if nodes:
        raise UnsupportedError("whose size depends on the image")


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> list[nn.Module]:  # fmt: skip
    _plain((kernel_size, stride, padding, dilation))
    if return_indices:
        raise UnsupportedError("that returns indices")
    return [nn.MaxPool2d(kernel_size, stride or None, padding, dilation, ceil_mode=ceil_mode)]


def _avg_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> list[nn.Module]:  # fmt: skip
    _plain((kernel_size, stride, padding))
    return [nn.AvgPool2d(kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override)]


def _adaptive_avg_pool(output_size: Any) -> list[nn.Module]:
    _plain(tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,))
    return [nn.AdaptiveAvgPool2d(output_size)]


MODULES: dict[type[nn.Module], Maker] = {
    nn.Conv2d: _conv2d,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batchnorm,
    nn.BatchNorm2d: _batchnorm,
    nn.ReLU: _relu,
    nn.Tanh: _tanh,
    nn.MaxPool2d: lambda m: _max_pool(
        m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
    nn.AvgPool2d: lambda m: _avg_pool(
        m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override),
    nn.AdaptiveAvgPool2d: lambda m: _adaptive_avg_pool(m.output_size),
    nn.Flatten: lambda m: _flatten(m.start_dim, m.end_dim),
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity),
        _nothing),
}  # fmt: skip
"""Layer → what it becomes; a subclass counts as its parent unless it has another ``forward``."""

OPERATIONS: dict[Any, Maker] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_"), _relu),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), _tanh),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    F.avg_pool2d: _avg_pool,
    F.adaptive_avg_pool2d: _adaptive_avg_pool,
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("view", "reshape", torch.reshape), _reshape),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout), _dropout),
    "contiguous": _nothing,
}
"""Function, or name of a tensor's method → what it becomes."""


def maker_of(module: nn.Module) -> Maker | None:
    """Give the function that turns this layer into layers of the twin; None if it has no rule."""
    kinds = (kind for kind in MODULES if isinstance(module, kind) and type(module).forward is kind.forward)
    return next((MODULES[kind] for kind in kinds), None)
