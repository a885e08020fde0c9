"""What each layer and function of a network becomes in its explainable twin; what is not listed has no rule."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from simec_vision.explain.layers import Mean, Normalisation

Maker = Callable[..., nn.Module | None]
"""Makes a layer of the twin; None where the operation does nothing in evaluation mode."""


class UnsupportedError(Exception):
    """A known layer used in a way that has no rule; the message completes "MaxPool2d …"."""


def _conv2d(conv: nn.Conv2d) -> nn.Module:
    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    twin = nn.Conv2d(*sizes, conv.groups, padding_mode=conv.padding_mode, device="meta")  # type: ignore[arg-type]
    return _with_weights_of(conv, twin)


def _linear(linear: nn.Linear) -> nn.Module:
    return _with_weights_of(linear, nn.Linear(linear.in_features, linear.out_features, device="meta"))


def _with_weights_of(layer: nn.Conv2d | nn.Linear, twin: nn.Conv2d | nn.Linear) -> nn.Module:
    twin.weight = _copied(layer.weight)  # type: ignore[assignment]
    twin.bias = _copied(layer.bias)
    return twin


def _copied(values: Tensor | None) -> nn.Parameter | None:
    return None if values is None else nn.Parameter(values.detach().clone(), requires_grad=False)


def _batchnorm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    if norm.running_mean is None or norm.running_var is None:
        raise UnsupportedError("without running statistics")
    twin = type(norm)(norm.num_features, norm.eps, affine=norm.affine, device="meta")
    twin.weight, twin.bias = _copied(norm.weight), _copied(norm.bias)  # type: ignore[assignment]
    twin.running_mean, twin.running_var = norm.running_mean.clone(), norm.running_var.clone()
    return twin


def _layer_norm(
    normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> nn.Module:
    _plain((normalized_shape, weight, bias))
    twin = Normalisation(normalized_shape, eps, device="meta")
    twin.weight, twin.bias = _copied(weight), _copied(bias)  # type: ignore[assignment]
    return twin


def _as(kind: type[nn.Module]) -> Maker:
    """Give the maker of an activation without options, as a module or a function."""
    return lambda *_, **__: kind()


def _leaky(negative_slope: float = 0.01, inplace: bool = False) -> nn.Module:
    return nn.LeakyReLU(negative_slope)


def _elu(alpha: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.ELU(alpha)


def _gelu(approximate: str = "none") -> nn.Module:
    return nn.GELU(approximate)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
    if training:
        raise UnsupportedError("that also drops in evaluation mode; pass training=self.training")


def _stochastic_depth(p: float, mode: str, training: bool = True) -> None:
    _dropout(p, training)


def _plain(arguments: tuple[Any, ...]) -> None:
    """Refuse sizes that are known only with the image."""
    nodes: list[fx.Node] = []
    fx.node.map_arg(arguments, nodes.append)
    if nodes:
        raise UnsupportedError("whose size depends on the image")


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:  # fmt: skip
    _plain((kernel_size, stride, padding, dilation))
    if return_indices:
        raise UnsupportedError("that returns indices")
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, ceil_mode=ceil_mode)


def _avg_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> nn.Module:  # fmt: skip
    _plain((kernel_size, stride, padding))
    return nn.AvgPool2d(kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override)


def _adaptive_avg_pool(output_size: Any) -> nn.Module:
    _plain((output_size,))
    return nn.AdaptiveAvgPool2d(output_size)


def _adaptive_max_pool(output_size: Any, return_indices: bool = False) -> nn.Module:
    _plain((output_size,))
    if return_indices:
        raise UnsupportedError("that returns indices")
    return nn.AdaptiveMaxPool2d(output_size)


def _mean(dim: Any = None, keepdim: bool = False, dtype: Any = None, axis: Any = None) -> nn.Module:
    _plain((dim, axis))
    axes = dim if axis is None else axis
    axes = (axes,) if isinstance(axes, int) else axes
    if axes is None or dtype is not None or 0 in axes:
        raise UnsupportedError("over the images of a batch, or as another type")
    return Mean(tuple(axes), keepdim)


MODULES: dict[type[nn.Module], Maker] = {
    nn.Conv2d: _conv2d,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batchnorm,
    nn.BatchNorm2d: _batchnorm,
    nn.LayerNorm: lambda m: _layer_norm(m.normalized_shape, m.weight, m.bias, m.eps),
    **{
        kind: _as(kind)
        for kind in (
            nn.ReLU, nn.ReLU6, nn.Tanh, nn.SiLU, nn.Hardswish, nn.Mish, nn.Sigmoid, nn.Hardsigmoid)},
    nn.LeakyReLU: lambda m: _leaky(m.negative_slope),
    nn.ELU: lambda m: _elu(m.alpha),
    nn.GELU: lambda m: _gelu(m.approximate),
    nn.MaxPool2d: lambda m: _max_pool(
        m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
    nn.AvgPool2d: lambda m: _avg_pool(
        m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override),
    nn.AdaptiveAvgPool2d: lambda m: _adaptive_avg_pool(m.output_size),
    nn.AdaptiveMaxPool2d: lambda m: _adaptive_max_pool(m.output_size, m.return_indices),
    nn.Flatten: lambda m: nn.Flatten(m.start_dim, m.end_dim),
    nn.Unflatten: lambda m: nn.Unflatten(m.dim, m.unflattened_size),
    nn.ChannelShuffle: lambda m: nn.ChannelShuffle(m.groups),
    nn.PixelShuffle: lambda m: nn.PixelShuffle(m.upscale_factor),
    nn.PixelUnshuffle: lambda m: nn.PixelUnshuffle(m.downscale_factor),
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity),
        _nothing),
}  # fmt: skip
"""Layer → what it becomes; a subclass counts as its parent unless it has another ``forward``."""

OPERATIONS: dict[Any, Maker] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_"), _as(nn.ReLU)),
    **dict.fromkeys((F.relu6,), _as(nn.ReLU6)),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), _as(nn.Tanh)),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), _as(nn.Sigmoid)),
    F.hardsigmoid: _as(nn.Hardsigmoid),
    F.silu: _as(nn.SiLU),
    F.hardswish: _as(nn.Hardswish),
    F.mish: _as(nn.Mish),
    F.gelu: _gelu,
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky),
    **dict.fromkeys((F.elu, F.elu_), _elu),
    F.layer_norm: _layer_norm,
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    F.avg_pool2d: _avg_pool,
    F.adaptive_avg_pool2d: _adaptive_avg_pool,
    F.adaptive_max_pool2d: _adaptive_max_pool,
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout), _dropout),
    **dict.fromkeys(("contiguous", "clone", torch.clone), _nothing),
}
"""Function, or name of a tensor's method → what it becomes."""


def view(maps: Tensor, *shape: Any, size: Any = None) -> Tensor:
    """Do what ``Tensor.view`` does to a tensor of any layout in memory."""
    return maps.reshape(*shape) if size is None else maps.reshape(size)


MOVES: dict[Any, Callable[..., Any]] = {
    name: getattr(torch.Tensor, name) if isinstance(name, str) else name
    for name in (
        torch.flatten, "flatten", torch.reshape, "reshape", torch.unflatten, "unflatten",
        torch.permute, "permute", torch.transpose, "transpose", torch.movedim, "movedim",
        torch.squeeze, "squeeze", torch.unsqueeze, "unsqueeze", torch.channel_shuffle, F.pixel_shuffle,
        torch.chunk, "chunk", torch.split, "split", torch.narrow, "narrow", operator.getitem,
        torch.cat, torch.concat, torch.stack)
} | {"view": view}  # fmt: skip
"""Functions, and names of a tensor's methods, that move values without changing any."""

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
SUBTRACTIONS = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
QUOTIENTS = (operator.truediv, operator.itruediv, torch.div, "div", "div_")

IN_PLACE = (torch.relu_, F.relu_, torch.tanh_, torch.sigmoid_, F.leaky_relu_, F.elu_)


def maker_of(module: nn.Module) -> Maker | None:
    """Give the function that turns this layer into one of the twin; None if it has no rule."""
    kinds = (kind for kind in MODULES if isinstance(module, kind) and type(module).forward is kind.forward)
    return next((MODULES[kind] for kind in kinds), None)


def maker_for(target: Any) -> Maker | None:
    """Give the function that turns a function, or a tensor's method by name, into a layer; None if it has no rule."""
    if getattr(target, "__module__", None) == "torchvision.ops.stochastic_depth":  # importing it takes seconds
        return _stochastic_depth
    return OPERATIONS.get(target)


def works_in_place(target: Any, called: nn.Module | None, options: dict[str, Any]) -> bool:
    """Tell whether an operation overwrites its input."""
    if called is not None:
        return bool(getattr(called, "inplace", False))
    named = isinstance(target, str) and target.endswith("_")
    return named or target in IN_PLACE or bool(options.get("inplace"))
