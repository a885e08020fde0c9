"""Captum's LRP on a chain: rules are attached for one call, and nothing of it stays behind."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, nn

from simec_vision.explain.presets import Preset, rules_for


class _ChainLRP(LRP):
    """Captum's LRP in which activations, too, follow their rule instead of a fixed backward hook."""

    def _register_forward_hooks(self) -> None:
        for layer in self.layers:
            self.forward_handles.append(layer.register_forward_hook(layer.rule.forward_hook))


@contextmanager
def _attached(layers: Sequence[nn.Module], rules: Sequence[PropagationRule]) -> Iterator[None]:
    """Plant a rule on every layer, as Captum wants it; afterwards remove it and the activations that Captum leaves."""
    try:
        for layer, rule in zip(layers, rules, strict=True):
            layer.rule = rule
        yield
    finally:
        for layer in layers:
            for planted in ("rule", "activations"):
                layer.__dict__.pop(planted, None)


def propagate(chain: nn.Sequential, images: Tensor, preset: str | Preset) -> Tensor:
    """Distribute the score of each image over its pixels.

    Args:
        chain: Layers from images ``(batch, channel, height, width)`` to scores ``(batch, 1)``.
        images: What is explained.
        preset: Which rule for which layer.

    Returns:
        Relevance, shape ``(batch, channel, height, width)``.
    """
    layers = list(chain)
    images = images.detach().clone().requires_grad_()
    with torch.no_grad(), _attached(layers, rules_for(layers, preset)):
        return _ChainLRP(chain).attribute(images, target=0).detach()
