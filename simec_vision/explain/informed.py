"""What rules must know of the images that they refer to, before relevance is propagated: bounds and baselines."""

from collections.abc import Sequence

import torch
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, fx

from simec_vision.explain.baseline import inputs_of, with_baseline
from simec_vision.explain.rules import ZBox
from simec_vision.explain.twin import Placed
from simec_vision.items import InputError


def informed(
    twin: fx.GraphModule, layers: Sequence[Placed], rules: Sequence[PropagationRule], images: Tensor
) -> tuple[list[PropagationRule], Tensor | None]:
    """Tell rules what their layers get from the images that they refer to: of bounds, and of baselines.

    The arguments and results are those of :func:`~simec_vision.explain.baseline.with_baseline`.

    Raises:
        InputError: as there, or if there are not as many bounds as channels.
    """
    return with_baseline(twin, layers, _with_box(twin, layers, rules, images), images)


def _with_box(
    twin: fx.GraphModule, layers: Sequence[Placed], rules: Sequence[PropagationRule], images: Tensor
) -> list[PropagationRule]:
    """Turn the zᴮ-rule's bounds of pixels into bounds of what layers that see the pixels get.

    Between the pixels and such a layer, values are only moved, scaled and shifted, each by itself. So the images of the
    lowest and of the highest values go the same way, and at each place the lower one is the lower bound. A rule without
    bounds stays as it is, and takes the lowest and highest value that the layer gets.
    """
    found = list(rules)
    for place, (each, rule) in enumerate(zip(layers, rules, strict=True)):
        if each.sees_pixels and isinstance(rule, ZBox) and rule.low is not None and rule.high is not None:
            ends = torch.cat([_image(bound, images) for bound in (rule.low, rule.high)])
            with inputs_of(layers) as seen, torch.no_grad():
                twin(ends)
            (got,) = seen[place]
            found[place] = ZBox(got.amin(dim=0), got.amax(dim=0), rule.bias)
    return found


def _image(bound: Tensor, images: Tensor) -> Tensor:
    """Give the image ``(1, channel, height, width)`` of a value per channel, or of each pixel's."""
    channels = images.shape[1]
    if bound.shape == images.shape[1:]:
        return bound.to(images)[None]
    if bound.shape != (channels,):
        raise InputError(f"Expected a bound for each of {channels} channels in ZBox, got shape {tuple(bound.shape)}")
    return bound.to(images).reshape(1, -1, 1, 1).expand(1, *images.shape[1:])
