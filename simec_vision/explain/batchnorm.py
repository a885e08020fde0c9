"""Batch normalisation in evaluation mode is a scale and a shift per channel: fold it into the layer next to it.

A layer of its own would swallow relevance through its shift (Hui & Binder 2019, "BatchNorm decomposition").
"""

from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from simec_vision.explain.refusal import refusal

Norm = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Step:
    """A layer of a chain and its place in the network, such as ``layers.3``."""

    place: str
    layer: nn.Module


def fold_batchnorm(steps: list[Step]) -> list[Step]:
    """Fold every batch normalisation into the convolution or linear layer right before it, else right after it.

    Args:
        steps: A chain whose layers may be changed.

    Returns:
        The same function without batch normalisation.

    Raises:
        CannotExplain: if it has no such neighbour, or the one after it pads with zeros, which the shift would change.
    """
    folded: list[Step] = []
    for step in steps:
        last = folded[-1] if folded else None
        if last and _same_axis(last.layer, step.layer) and isinstance(step.layer, Norm):
            _fold_into_previous(last.layer, step.layer)
            continue
        if last and _same_axis(step.layer, last.layer) and isinstance(last.layer, Norm):
            _fold_into_next(folded.pop(), step.layer)
        folded.append(step)
    _check_none_left(folded)
    return folded


def _same_axis(layer: nn.Module, norm: nn.Module) -> TypeGuard[nn.Conv2d | nn.Linear]:
    """Tell whether a layer works on the channels that are normalised; a linear layer on maps works along the width."""
    kinds = ((nn.Conv2d, nn.BatchNorm2d), (nn.Linear, nn.BatchNorm1d))
    return any(isinstance(layer, weighted) and isinstance(norm, kind) for weighted, kind in kinds)


def _check_none_left(steps: list[Step]) -> None:
    for step in steps:
        if isinstance(step.layer, Norm):
            raise refusal(
                step.place,
                f"{type(step.layer).__name__} neither right after nor right before a convolution or linear layer",
            )


def _scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Write batch normalisation as scale · x + shift: scale = γ / √(σ² + ε), shift = β − μ · scale; float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _fold_into_previous(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Fold scale · (W x + b) + shift: W' = scale · W, b' = scale · b + shift, per output channel."""
    scale, shift = _scale_and_shift(norm)
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    _set(layer, weight, shift if layer.bias is None else scale * layer.bias.double() + shift)


def _fold_into_next(step: Step, layer: nn.Conv2d | nn.Linear) -> None:
    """Fold W (scale · x + shift) + b: W' = W · scale, b' = b + W shift, per input channel."""
    assert isinstance(step.layer, Norm)
    scale, shift = _scale_and_shift(step.layer)
    if isinstance(layer, nn.Conv2d) and _pads_with_zeros(layer) and shift.any():
        raise refusal(step.place, f"{type(step.layer).__name__} before a convolution that pads with zeros")
    weight = layer.weight.double()
    bias = (weight * _per_input(shift, layer)).flatten(1).sum(dim=1)
    _set(layer, weight * _per_input(scale, layer), bias if layer.bias is None else bias + layer.bias.double())


def _pads_with_zeros(layer: nn.Conv2d) -> bool:
    padded = layer.padding == "same" if isinstance(layer.padding, str) else any(layer.padding)
    return padded and layer.padding_mode == "zeros"


def _per_input(channels: Tensor, layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Align one number per input channel with a weight ``(output, input / groups, …)``."""
    if isinstance(layer, nn.Linear):
        return channels
    per_group = channels.reshape(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, dim=0)
    return per_group[:, :, None, None]


def _set(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    dtype = layer.weight.dtype if layer.weight.dtype is torch.float64 else torch.float32
    layer.weight, layer.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))
