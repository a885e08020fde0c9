"""LRP rules as Captum ``PropagationRule``: how the relevance of a layer's output is distributed over its input.

Captum's own rules scale gradients by hooks around one changed copy of the weights, which cannot express a rule that
treats positive and negative inputs apart. Here a layer keeps its output, but what flows backward through it is the
relevance itself, mapped by the rule's formula. Both kinds may stand in one network.

In every formula x is the layer's input, R_out the relevance of its output, W and b its weight and bias, Wᵀ the
transposed layer without bias, ⊙ and / are elementwise.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]

ZERO_DIVISOR = 1e-7
"""Stands in for a divisor that is exactly 0 (Keras' epsilon, as in iNNvestigate)."""


class _Redirect(torch.autograd.Function):
    """Give a layer's output forward, and a rule's relevance instead of the gradient backward."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, outputs: Tensor, propagate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.propagate = propagate
        return outputs.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        return ctx.propagate(inputs, relevance[0]), None, None


class Rule(PropagationRule, ABC):
    """Distribute the relevance of a layer's output over its input by a formula."""

    @abstractmethod
    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Map the relevance of a layer's output to the relevance of its input.

        Args:
            layer: Layer of one input.
            inputs: What it got.
            relevance: Relevance of its output, in the output's shape.

        Returns:
            Relevance in the shape of ``inputs``.
        """

    def forward_hook(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        """Let relevance flow backward through a layer (called by Captum in its second pass)."""
        return _Redirect.apply(
            inputs[0], outputs.detach(), lambda values, relevance: self.propagate(module, values, relevance)
        )

    def _manipulate_weights(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        """Leave the weights as they are: a formula reads what it needs."""


class PassThrough(Rule):
    """Hand relevance on unchanged, for activations: R_in = R_out."""

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance as it is."""
        return relevance


class Gradient(Rule):
    """Propagate relevance like a gradient: R_in = Jᵀ R_out with J the layer's Jacobian.

    Conserves relevance where every output depends on its inputs with weights that sum to 1: max-pooling (the winner
    takes all) and reshaping.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return Jᵀ R_out."""
        (share,) = _transposed([(layer.forward, inputs)], lambda _: relevance)
        return share


class Epsilon(Rule):
    """Distribute relevance in proportion to each input's contribution, damped by ε (Bach et al. 2015, eq. 58).

    R_in = x ⊙ Wᵀ (R_out / (z + ε · sign z)) with z = W x + b and sign 0 = +1. What b and ε take is lost. ε = 0 is the
    z-rule, in which a z of exactly 0 counts as 1e-7.

    Args:
        epsilon: ε ≥ 0, in units of the layer's output.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        self.epsilon = epsilon

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return x ⊙ Wᵀ (R_out / (z + ε · sign z))."""
        (share,) = _transposed([(layer.forward, inputs)], lambda z: relevance / _stabilised(z, self.epsilon))
        return inputs * share


class Flat(Rule):
    """Distribute relevance evenly over all inputs that an output sees (Lapuschkin et al. 2019, "flat").

    R_in = 1ᵀ (R_out / (1 1)): both times the layer with every weight 1 and no bias, so pixel values play no role, and
    at the border only pixels inside the image get relevance.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return 1ᵀ (R_out / (1 1))."""
        even = _with_weight(layer, torch.ones_like(_weight(layer)), None)
        (share,) = _transposed([(even, torch.ones_like(inputs))], lambda z: relevance / _stabilised(z))
        return share


class Alpha1Beta0(Rule):
    """Distribute relevance over the positive contributions only (Bach et al. 2015, eq. 60 with α = 1, β = 0).

    R_in = x⁺ ⊙ W⁺ᵀ r + x⁻ ⊙ W⁻ᵀ r with r = R_out / z and z = W⁺ x⁺ + W⁻ x⁻ + b, where ⁺ and ⁻ keep the positive and the
    negative entries and 0 elsewhere. This is iNNvestigate's Alpha1Beta0Rule (Alber et al. 2019), in which the whole
    bias takes part: what it takes is lost, and a negative bias can make z small or negative. A z of exactly 0 counts
    as 1e-7. Unlike in Captum's rule, inputs may have both signs.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return x⁺ ⊙ W⁺ᵀ r + x⁻ ⊙ W⁻ᵀ r."""
        weight = _weight(layer)
        parts = [(_with_weight(layer, weight.clamp(min=0), _bias(layer)), inputs.clamp(min=0))]
        if (inputs < 0).any():  # never after a ReLU, which saves half of the work
            parts.append((_with_weight(layer, weight.clamp(max=0), None), inputs.clamp(max=0)))
        shares = _transposed(parts, lambda z: relevance / _stabilised(z))
        return sum((signed * share for (_, signed), share in zip(parts, shares, strict=True)), torch.zeros(()))


def _stabilised(z: Tensor, epsilon: float = 0.0) -> Tensor:
    """Return z + ε · sign z with sign 0 = +1; for ε = 0, the smallest divisor allowed in place of exactly 0."""
    if epsilon == 0:
        return torch.where(z == 0, ZERO_DIVISOR, z)
    return torch.where(z < 0, z - epsilon, z + epsilon)


def _transposed(parts: Sequence[tuple[Map, Tensor]], seed: Map) -> tuple[Tensor, ...]:
    """For z = Σ_i f_i(x_i) return J_iᵀ s(z) for every part i, J_i being the Jacobian of f_i at x_i."""
    with torch.enable_grad():
        leaves = [inputs.detach().requires_grad_() for _, inputs in parts]
        z = sum((function(leaf) for (function, _), leaf in zip(parts, leaves, strict=True)), start=torch.zeros(()))
    return torch.autograd.grad(z, leaves, seed(z.detach()))


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


def _bias(layer: nn.Module) -> Tensor | None:
    return layer.bias.detach() if isinstance(layer.bias, Tensor) else None


def _with_weight(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> Map:
    """Give the function of a layer with another weight and bias; its hooks, which propagate relevance, are not run."""
    other = copy.copy(layer)
    other._parameters = {"weight": weight, "bias": bias}  # type: ignore[dict-item]
    return other.forward
