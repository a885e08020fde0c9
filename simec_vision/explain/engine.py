"""Captum's LRP on a twin: rules are attached for one call, and nothing of it stays behind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, fx, nn

from simec_vision.explain.baseline import FromBaseline
from simec_vision.explain.informed import informed
from simec_vision.explain.presets import Preset, rules_for
from simec_vision.explain.propagation import Rule
from simec_vision.explain.readout import Readout
from simec_vision.explain.twin import Placed, layers_of


@dataclass(frozen=True)
class Propagated:
    """What has become of scores.

    Args:
        relevance: Shape ``(batch, channel, height, width)``.
        score: The scores, shape ``(batch,)``.
        scale: Σ_d ∣embedding_id · weight_id∣, to which their rounding is relative, shape ``(batch,)``.
        baseline: Scores of the baselines that relevance was measured from, shape ``(batch,)``; 0 without.
        lost: Place of every layer → what it lost, shape ``(batch,)``, if somebody wants to know.
    """

    relevance: Tensor
    score: Tensor
    scale: Tensor
    baseline: Tensor
    lost: Mapping[str, Tensor]


def propagate(twin: fx.GraphModule, images: Tensor, start: Tensor, preset: str | Preset) -> Tensor:
    """Distribute any relevance of the embedding over the pixels.

    Args:
        twin: What :func:`~simec_vision.explain.canonize` made.
        images: Normalised images, shape ``(batch, channel, height, width)``; one image, ``(1, …)``, for all rows of
            ``start`` is the fast way to ask many questions about it: it goes forward once.
        start: Relevance of every entry of the embedding, shape ``(batch, embedding)``; for a preset that is measured
            from a baseline, of its difference from the baseline's.
        preset: Which rule for which layer.

    Returns:
        Relevance, shape ``(batch, channel, height, width)``.
    """
    layers = layers_of(twin)
    rules, _ = informed(twin, layers, rules_for(layers, preset), images[:1] if _is_one(images) else images)
    ours = all(isinstance(rule, Rule) for rule in rules)  # Captum's cannot take several relevances of one value
    images = images[:1] if ours and _is_one(images) else images.expand(len(start), *images.shape[1:])
    return _relevance(twin, layers, rules, images, lambda embedding: start.to(embedding))


def propagate_score(
    twin: fx.GraphModule, images: Tensor, readout: Readout, preset: str | Preset, watched: bool = False
) -> Propagated:
    """Distribute the scores of images, one linear readout of the embedding each, over their pixels.

    Args:
        twin: What :func:`~simec_vision.explain.canonize` made.
        images: Normalised images, shape ``(batch, channel, height, width)``.
        readout: Maps embeddings to scores ``(batch, 1)``; its rule is that of an ``nn.Linear``.
        preset: Which rule for which layer.
        watched: Also say what got lost.

    Returns:
        What has become of the scores.
    """
    layers = [*layers_of(twin), Placed("score", readout)]
    rules, embedding = informed(twin, layers, rules_for(layers, preset), images)
    base = images.new_zeros(len(images))
    if embedding is not None and isinstance(rules[-1], FromBaseline):
        base = readout.read(embedding)
    for rule in rules:
        if isinstance(rule, Rule):
            rule.watched = watched
    seen: list[Tensor] = []

    def start(score: Tensor) -> Tensor:
        seen.extend((score.squeeze(1), readout.scale))  # on the way back, rules let layers run on other inputs
        return score - base[:, None]

    relevance = _relevance(nn.Sequential(twin, readout), layers, rules, images, start)
    lost = {each.place: getattr(rule, "lost", None) for each, rule in zip(layers, rules, strict=True)}
    score, scale = seen
    known = {place: values for place, values in lost.items() if values is not None}
    return Propagated(relevance, score, scale, base, known)


def _is_one(images: Tensor) -> bool:
    """Tell whether a batch is one image, perhaps expanded."""
    return len(images) == 1 or images.stride(0) == 0


def _relevance(
    model: nn.Module,
    layers: Sequence[Placed],
    rules: Sequence[PropagationRule],
    images: Tensor,
    start: Callable[[Tensor], Tensor],
) -> Tensor:
    images = images.detach().clone().requires_grad_()
    with torch.no_grad(), _attached(layers, rules):
        return _TwinLRP(model, start).attribute(images).detach()


@contextmanager
def _attached(layers: Sequence[Placed], rules: Sequence[PropagationRule]) -> Iterator[None]:
    """Plant a rule on every layer, as Captum wants it; afterwards remove it and the activations that Captum leaves."""
    try:
        for each, rule in zip(layers, rules, strict=True):
            each.layer.rule = rule
        yield
    finally:
        for each in layers:
            for planted in ("rule", "activations"):
                each.layer.__dict__.pop(planted, None)


class _TwinLRP(LRP):
    """Captum's LRP from any relevance of the output, with activations that follow their rule, too.

    Captum's first pass, in which its own rules change weights, is left out where there are none of them.

    Args:
        model: What is explained.
        start: Gives the relevance of the output, shape ``(rows, feature)``; rows = batch, or any number for one image.
    """

    def __init__(self, model: nn.Module, start: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model)
        self.start = start
        self.gradient_func = self._backward

    def _compute_output_and_change_weights(self, inputs: tuple[Tensor, ...], target: Any, extra: Any) -> Tensor:
        if self._has_rules_of_captum():
            super()._compute_output_and_change_weights(inputs, target, extra)
        return torch.ones(1, device=inputs[0].device, dtype=inputs[0].dtype)  # Captum multiplies by the output

    def _has_rules_of_captum(self) -> bool:
        return not all(isinstance(layer.rule, Rule) for layer in self.layers)

    def _register_pre_hooks(self) -> None:
        for layer in self.layers:
            if not isinstance(layer.rule, Rule):  # its hooks on a value must not see what comes from other users of it
                apart = layer.register_forward_pre_hook(lambda _, inputs: tuple(each.clone() for each in inputs))
                self.forward_handles.append(apart)
        super()._register_pre_hooks()

    def _register_forward_hooks(self) -> None:
        for layer in self.layers:
            self.forward_handles.append(layer.register_forward_hook(layer.rule.forward_hook))

    def _restore_state(self) -> None:
        if self._has_rules_of_captum():
            super()._restore_state()

    def _backward(self, forward: Callable[..., Tensor], inputs: tuple[Tensor, ...], *_: Any) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            output = forward(*inputs)
        start = self.start(output.detach())
        if len(start) == len(output):
            return torch.autograd.grad(output, inputs, start)
        (relevance,) = torch.autograd.grad(output, inputs, start[:, None], is_grads_batched=True)
        return (relevance.squeeze(1),)
