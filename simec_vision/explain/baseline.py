"""Relevance measured from a baseline: an image in which nothing is there to explain, such as a blank background.

LRP as such asks what a layer's inputs contribute, and a white background contributes: its pixels are not 0, and layers
have biases. Measured from a baseline x̃, inputs contribute by their difference x − x̃ to the difference of a layer's
outputs, in which biases cancel. So relevance adds up to score − score of the baseline, and where an image is like its
baseline there is none. That is deep Taylor decomposition with the baseline's activations as root points (Montavon et
al. 2017); with the ε-rule it is DeepLIFT's rescale rule (Shrikumar et al. 2017, arXiv 1704.02685). Letzgus et al. 2022
(arXiv 2112.11407) ask for such a reference value wherever a number rather than a class is explained.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, fx, nn

from simec_vision.explain.contributions import with_bias
from simec_vision.explain.images import background_colour
from simec_vision.explain.propagation import Rule, Shares
from simec_vision.explain.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare
from simec_vision.explain.twin import Placed
from simec_vision.explain.winners import WinnersTakeAll
from simec_vision.items import InputError

APPLICABLE = (Epsilon, Gamma, AlphaBeta, Flat, WSquare, WinnersTakeAll)
"""Rules that mean something for differences."""


class FromBaseline(Rule):
    """Apply a rule to what differs from a baseline: to x − x̃ instead of x, and to no bias.

    Args:
        rule: One of :data:`APPLICABLE`.
        image: The baseline, normalised, shape ``(channel, height, width)``, or ``(channel, 1, 1)`` for a colour;
                default: each image's own background colour (:func:`~simec_vision.explain.images.background_colour`).

    Raises:
        InputError: if the rule is another.
    """

    def __init__(self, rule: Rule, image: Tensor | None = None) -> None:
        if not isinstance(rule, APPLICABLE):
            names = ", ".join(kind.__name__ for kind in APPLICABLE)
            raise InputError(f"Expected a rule that can be measured from a baseline ({names}), got {rule!r}")
        self.rule, self.image = rule, image
        self.at: tuple[Tensor, ...] = ()

    def noting(self, inputs: tuple[Tensor, ...]) -> "FromBaseline":
        """Give the same rule for a layer that gets these inputs from the baseline."""
        other = copy.copy(self)
        other.at = inputs
        return other

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the rule's shares of the difference."""
        (share,) = self.distribute(layer, (inputs,), relevance)
        assert share is not None
        return share

    def distribute(self, layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
        """Return the same for every input."""
        if isinstance(self.rule, WinnersTakeAll):
            return (self._of_winners(layer, inputs[0], relevance),)
        changed = tuple(each - base for each, base in zip(inputs, self.at, strict=True))
        return self.rule.distribute(with_bias(layer, "ignore"), changed, relevance)

    def _of_winners(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Let a pooled value that has grown go to the image's winner, and one that has shrunk to the baseline's.

        Then no input gets more than its own change accounts for.
        """
        base = self.at[0].expand_as(inputs)
        grown = layer.forward(inputs) >= layer.forward(base)
        parts = ((inputs, torch.where(grown, relevance, 0)), (base, torch.where(grown, 0, relevance)))
        return torch.stack([self.rule.propagate(layer, values, part) for values, part in parts]).sum(dim=0)


def with_baseline(
    twin: fx.GraphModule, layers: Sequence[Placed], rules: Sequence[PropagationRule], images: Tensor
) -> tuple[list[PropagationRule], Tensor | None]:
    """Run a twin on the baselines of images, and give every rule that is measured from one what its layer gets there.

    Args:
        twin: What :func:`~simec_vision.explain.canonize` made.
        layers: Its layers; one more, at the end, may read out the embedding.
        rules: One for each.
        images: Normalised images, shape ``(batch, channel, height, width)``.

    Returns:
        The rules, and the baselines' embedding, shape ``(batch or 1, embedding)``; None if no rule has a baseline.

    Raises:
        InputError: if rules name different baselines, or one of another shape than the images.
    """
    baselines = [rule.image for rule in rules if isinstance(rule, FromBaseline)]
    if not baselines:
        return list(rules), None
    if any(not _same(each, baselines[0]) for each in baselines):
        raise InputError("Expected one baseline for all rules of a preset, got different ones: use measured_from")
    with inputs_of(layers) as seen, torch.no_grad():
        embedding = twin(baseline_images(images, baselines[0]))
    at = [seen.get(place, (embedding,)) for place in range(len(layers))]
    noted = [
        rule.noting(inputs) if isinstance(rule, FromBaseline) else rule for rule, inputs in zip(rules, at, strict=True)
    ]
    return noted, embedding


def baseline_images(images: Tensor, image: Tensor | None) -> Tensor:
    """Give the baseline of every image ``(batch, channel, height, width)``; ``(1, …)`` if all have the same.

    Raises:
        InputError: if the given one has another shape.
    """
    whole = tuple(images.shape[1:])
    if image is not None and tuple(image.shape) not in (whole, (whole[0], 1, 1)):
        raise InputError(
            f"Expected a baseline of shape (channel, height, width) = {whole}, or {(whole[0], 1, 1)} for a colour, "
            f"got {tuple(image.shape)}"
        )
    base = background_colour(images) if image is None else image.detach().to(images)[None]
    one = base[:1] if bool((base == base[:1]).all()) else base
    return one.expand(len(one), *images.shape[1:])


def _same(image: Tensor | None, other: Tensor | None) -> bool:
    return image is other or (image is not None and other is not None and torch.equal(image, other))


@contextmanager
def inputs_of(layers: Sequence[Placed]) -> Iterator[dict[int, tuple[Tensor, ...]]]:
    """Note what layers get, by their place in the list, while a network runs."""
    seen: dict[int, tuple[Tensor, ...]] = {}

    def note(place: int, inputs: tuple[Tensor, ...]) -> None:
        seen[place] = tuple(each for each in inputs if isinstance(each, Tensor))

    handles = [
        each.layer.register_forward_pre_hook(lambda _, inputs, place=place: note(place, inputs))
        for place, each in enumerate(layers)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
