"""What inputs contribute to a linear layer's outputs, by sign, and what its bias does: the parts rules are made of.

Symbols are those of :mod:`simec_vision.explain.rules`.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from simec_vision.explain.layers import AVERAGING, WEIGHTED, Normalisation, aligned_bias, bias_of, weight_of
from simec_vision.explain.propagation import Map, is_nothing, linear_parts, stabilised, transposed
from simec_vision.explain.refusal import CannotExplain
from simec_vision.items import InputError

Bias = Literal["keep", "positive", "ignore", "share"]


def check_bias(bias: str, modes: tuple[str, ...] = ("keep", "positive", "ignore")) -> Bias:
    """Check that a bias mode is one.

    Raises:
        InputError: if it is none.
    """
    if bias not in modes:
        raise InputError(f"Expected bias as one of {', '.join(modes)}, got {bias!r}")
    return bias  # type: ignore[return-value]


def signed(layer: nn.Module, inputs: Tensor, sign: int) -> tuple[Tensor, Map]:
    """Sum the contributions of one sign, and give the function that maps r to what each input contributes times r.

    Positive ones are z⁺ = W⁺ x⁺ + W⁻ x⁻, negative ones z⁻ = W⁻ x⁺ + W⁺ x⁻.
    """
    parts = _signed_parts(layer, inputs, sign)
    z, back = linear_parts(parts)

    def share(seed: Tensor) -> Tensor:
        shares = [values * part for (_, values), part in zip(parts, back(seed), strict=True)]
        return shares[0] if len(shares) == 1 else shares[0] + shares[1]

    return z, share


def _signed_parts(layer: nn.Module, inputs: Tensor, sign: int) -> list[tuple[Map, Tensor]]:
    """Write z⁺ or z⁻ as functions of the positive and of the negative inputs."""
    if isinstance(layer, AVERAGING):
        return [(layer.forward, inputs.clamp(min=0) if sign > 0 else inputs.clamp(max=0))]
    weight = weight_of(layer)
    same, other = (weight.clamp(min=0), weight.clamp(max=0))[::sign]
    parts = [(with_weight(layer, same), inputs.clamp(min=0))]
    if (inputs < 0).any():  # never after a ReLU, which saves half of the work
        parts.append((with_weight(layer, other), inputs.clamp(max=0)))
    return parts


def plus_spread(layer: nn.Module, inputs: Tensor, relevance: Tensor, z: Tensor, share: Tensor) -> Tensor:
    """Add to what an input has got its part of what is spread evenly."""
    more = spread(layer, (inputs,), relevance, z)
    return share + more[0] if more else share


def spread(layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Spread the relevance of outputs to which no input contributes (z is 0) evenly over what they see."""
    none = is_nothing(z)
    if not none.any() or isinstance(layer, Normalisation):
        return ()
    function = with_weight(layer, torch.ones_like(weight_of(layer))) if isinstance(layer, WEIGHTED) else layer.forward
    with torch.enable_grad():
        ones = [torch.ones_like(each).requires_grad_() for each in inputs]
        seen = function(*ones)
    return torch.autograd.grad(seen, ones, torch.where(none, relevance, 0) / stabilised(seen.detach()))


def by_weight(layer: nn.Module, change: Map, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Return Vᵀ (R_out / (V 1)) for a changed weight V; averages weigh all that they see alike, whatever the change."""
    function = layer.forward if isinstance(layer, AVERAGING) else with_weight(layer, change(weight_of(layer)))
    (share,) = transposed([(function, torch.ones_like(inputs))], lambda z: relevance / stabilised(z))
    return share


def bias_part(layer: nn.Module, z: Tensor, mode: Bias, sign: int) -> Tensor | float:
    """Give what of a bias takes part in a sum of positive (sign 1) or negative (−1) contributions z."""
    bias = bias_of(layer)
    if bias is None or mode == "ignore":
        return 0.0
    if mode == "positive":
        bias = bias.clamp(min=0) if sign > 0 else bias.clamp(max=0)
    return aligned_bias(layer, bias, z)


def with_bias(layer: nn.Module, mode: Bias) -> nn.Module:
    """Give a layer whose bias takes part as a mode says; the layer itself is left as it is."""
    bias = bias_of(layer)
    if bias is None or mode == "keep":
        return layer
    other = copy.copy(layer)
    other._parameters = {**layer._parameters, "bias": bias.clamp(min=0) if mode == "positive" else None}  # type: ignore[dict-item]
    return other


def with_weight(layer: nn.Module, weight: Tensor) -> Map:
    """Give the function of a layer with another weight and no bias; hooks, which propagate relevance, are not run."""
    if isinstance(layer, Normalisation):
        raise CannotExplain(
            "Cannot explain Normalisation by the sign of its weights: give it another rule, such as Epsilon"
        )
    other = copy.copy(layer)
    other._parameters = {"weight": weight, "bias": None}  # type: ignore[dict-item]
    return other.forward
