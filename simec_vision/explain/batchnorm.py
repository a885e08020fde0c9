"""Batch normalisation in evaluation mode is a scale and a shift per channel: fold it into the layer next to it.

A layer of its own would swallow relevance through its shift (Hui & Binder 2019, "BatchNorm decomposition"); where it
has no neighbour to be folded into, it becomes a :class:`~simec_vision.explain.layers.ScaleShift`.
"""

from typing import TypeGuard

from torch import Tensor, fx, nn

from simec_vision.explain.layers import ScaleShift

Norm = nn.BatchNorm1d | nn.BatchNorm2d


def fold_batchnorm(graph: fx.Graph, layers: dict[str, nn.Module]) -> None:
    """Fold every batch normalisation into the convolution or linear layer right before it, else right after it.

    Max-pools between a convolution and its normalisation are passed where no scale is negative, as max(s · x + b) is
    then s · max(x) + b. It is not folded where others use what lies between, nor into a convolution that pads with
    zeros, which the shift would change.

    Args:
        graph: What calls the layers; calls of folded ones are taken out.
        layers: Layers by name, which may be changed.
    """
    for node in list(graph.nodes):
        norm = layers.get(str(node.target))
        if node.op == "call_module" and isinstance(norm, Norm):
            if _folds(graph, layers, node, norm):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
            else:
                layers[str(node.target)] = ScaleShift(*_in_type_of(norm, _scale_and_shift(norm)), per_channel=True)


def _folds(graph: fx.Graph, layers: dict[str, nn.Module], node: fx.Node, norm: Norm) -> bool:
    before, after = _normalised(layers, node, norm), next(iter(node.users), None)
    last, following = layers.get(str(before.target)), None if after is None else layers.get(str(after.target))
    if _same_axis(last, norm, "out") and len(before.users) == 1:
        _fold_into_previous(last, norm)
        return True
    if _same_axis(following, norm, "in") and len(node.users) == 1 and not _pads_the_shift(following, norm):
        _fold_into_next(norm, following)
        return True
    return False


def _normalised(layers: dict[str, nn.Module], node: fx.Node, norm: Norm) -> fx.Node:
    """Find what gives the values that are normalised, in front of max-pools that the normalisation may pass."""
    before = node.args[0]
    assert isinstance(before, fx.Node)
    while isinstance(layers.get(str(before.target)), nn.MaxPool2d) and len(before.users) == 1 and _keeps_order(norm):
        before = before.args[0]
        assert isinstance(before, fx.Node)
    return before


def _keeps_order(norm: Norm) -> bool:
    """Tell whether the larger of two numbers of a channel of maps is still the larger, or as large, afterwards."""
    return isinstance(norm, nn.BatchNorm2d) and bool((_scale_and_shift(norm)[0] >= 0).all())


def _same_axis(layer: nn.Module | None, norm: Norm, side: str) -> TypeGuard[nn.Conv2d | nn.Linear]:
    """Tell whether a layer works on the channels that are normalised; a linear layer on maps works along the width."""
    if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        return True
    fits = isinstance(layer, nn.Linear) and getattr(layer, f"{side}_features") == norm.num_features
    return fits and isinstance(norm, nn.BatchNorm1d)


def _scale_and_shift(norm: Norm) -> tuple[Tensor, Tensor]:
    """Write batch normalisation as scale · x + shift: scale = γ / √(σ² + ε), shift = β − μ · scale; float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _fold_into_previous(layer: nn.Conv2d | nn.Linear, norm: Norm) -> None:
    """Fold scale · (W x + b) + shift: W' = scale · W, b' = scale · b + shift, per output channel."""
    scale, shift = _scale_and_shift(norm)
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    _set(layer, weight, shift if layer.bias is None else scale * layer.bias.double() + shift)


def _fold_into_next(norm: Norm, layer: nn.Conv2d | nn.Linear) -> None:
    """Fold W (scale · x + shift) + b: W' = W · scale, b' = b + W shift, per input channel."""
    scale, shift = _scale_and_shift(norm)
    weight = layer.weight.double()
    bias = (weight * _per_input(shift, layer)).flatten(1).sum(dim=1)
    _set(layer, weight * _per_input(scale, layer), bias if layer.bias is None else bias + layer.bias.double())


def _pads_the_shift(layer: nn.Conv2d | nn.Linear, norm: Norm) -> bool:
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    padded = layer.padding == "same" if isinstance(layer.padding, str) else any(layer.padding)
    return padded and bool(_scale_and_shift(norm)[1].any())


def _per_input(channels: Tensor, layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Align one number per input channel with a weight ``(output, input / groups, …)``."""
    if isinstance(layer, nn.Linear):
        return channels
    per_group = channels.reshape(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, dim=0)
    return per_group[:, :, None, None]


def _set(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    weight, bias = _in_type_of(layer, (weight, bias))
    layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


def _in_type_of(layer: nn.Module, values: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Bring values to float64 where a layer has it, else to float32."""
    double = any(tensor.dtype == values[0].dtype for tensor in (*layer.parameters(), *layer.buffers()))
    dtype = values[0].dtype if double else values[0].float().dtype
    return values[0].to(dtype), values[1].to(dtype)
