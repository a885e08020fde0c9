"""How a rule takes part in backpropagation: what flows backward through a layer is relevance instead of a gradient.

Captum's own rules scale gradients by hooks around one changed copy of the weights, which cannot express a rule that
treats positive and negative inputs apart. Here a layer keeps its output, and its rule maps the relevance of the output
to that of the inputs; where a value is used several times, autograd adds up its relevance. Both kinds of rules may
stand in one network.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, nn

from simec_vision.explain.refusal import CannotExplain

Map = Callable[..., Tensor]
Shares = tuple[Tensor | None, ...]

ZERO_DIVISOR = 1e-7
"""Stands in for a divisor that is 0 (Keras' epsilon, as in iNNvestigate)."""
NOTHING = 1e-30
"""Divisors up to this size count as 0, as the quotient would overflow: what is left of SiLU far below 0, for one."""


class _Redirect(torch.autograd.Function):
    """Give a layer's output forward, and a rule's relevance instead of the gradient backward."""

    @staticmethod
    def forward(ctx: Any, rule: "Rule", layer: nn.Module, outputs: Callable[[], Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.rule, ctx.layer = rule, layer
        return outputs()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *ctx.rule.redirect(ctx.layer, ctx.saved_tensors, relevance[0]))


class Rule(PropagationRule, ABC):
    """Distribute the relevance of a layer's output over its inputs by a formula.

    A rule for layers of one input defines :meth:`propagate`, others :meth:`distribute`.
    """

    lost: Tensor | None = None
    """Relevance of the inputs minus that of the output at the last call, shape ``(batch,)``, if :attr:`watched`."""
    watched = False

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

    def distribute(self, layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
        """Map the relevance of a layer's output to that of each of its inputs (None = no relevance).

        Raises:
            CannotExplain: if the rule has no formula for several inputs.
        """
        if len(inputs) != 1:
            raise CannotExplain(
                f"Cannot explain {type(layer).__name__}: {type(self).__name__} has no formula for its {len(inputs)} "
                "inputs. Give it another rule, such as Epsilon"
            )
        return (self.propagate(layer, inputs[0], relevance),)

    def redirect(self, layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
        """Distribute relevance, and note what got lost if somebody wants to know."""
        shares = self.distribute(layer, inputs, relevance)
        if self.watched:
            sums = [share.flatten(1).sum(dim=1) for share in (*shares, -relevance) if share is not None]
            self.lost = torch.stack(sums).sum(dim=0)
        return shares

    def forward_hook(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
        """Let relevance flow backward through a layer (called by Captum in its second pass)."""
        return _Redirect.apply(self, module, outputs.detach, *inputs)

    def forward_hook_weights(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        """Keep the layer's inputs (called by Captum in its first pass); its weights stay as they are."""
        self._inputs = [each.data for each in inputs if isinstance(each, Tensor)]

    def forward_pre_hook_activations(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Give the layer the inputs of the first pass, as Captum's rules before it change weights in between."""
        for each, kept in zip((each for each in inputs if isinstance(each, Tensor)), self._inputs, strict=True):
            each.data = kept

    def _manipulate_weights(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        """Leave the weights as they are: a formula reads what it needs."""


def transposed(parts: Sequence[tuple[Map, Tensor]], seed: Map) -> tuple[Tensor, ...]:
    """For z = Σ_i f_i(x_i) return J_iᵀ s(z) for every part i, J_i being the Jacobian of f_i at x_i."""
    z, back = linear_parts(parts)
    return back(seed(z))


def linear_parts(parts: Sequence[tuple[Map, Tensor]]) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """Return z = Σ_i f_i(x_i), and the function that maps s to J_iᵀ s for every part i (to be called once)."""
    with torch.enable_grad():
        leaves = [inputs.detach().requires_grad_() for _, inputs in parts]
        results = [function(leaf) for (function, _), leaf in zip(parts, leaves, strict=True)]
        z = results[0] if len(results) == 1 else torch.stack(results).sum(dim=0)
    return z.detach(), lambda seed: torch.autograd.grad(z, leaves, seed)


def is_nothing(z: Tensor) -> Tensor:
    """Tell where a divisor counts as 0."""
    return z.abs() <= NOTHING


def stabilised(z: Tensor, epsilon: float = 0.0) -> Tensor:
    """Return z + ε · sign z with sign 0 = +1; for ε = 0, the smallest divisor allowed in place of 0."""
    if epsilon == 0:
        return torch.where(is_nothing(z), ZERO_DIVISOR, z)
    return torch.where(z < 0, z - epsilon, z + epsilon)
