"""Which rule for which layer: a preset is a table, read from the top; the first row that fits a layer counts."""

import copy
from collections.abc import Sequence

from captum.attr._utils.lrp_rules import PropagationRule
from torch import nn

from simec_vision.explain.refusal import CannotExplain
from simec_vision.explain.rules import Alpha1Beta0, Epsilon, Flat, Gradient, PassThrough
from simec_vision.items import InputError, nearest

INPUT_LAYER = "input layer"
"""The place of the layer that sees the pixels, flattened or not; there is none if the network begins otherwise."""

Where = str | type[nn.Module] | tuple[type[nn.Module], ...]
Preset = Sequence[tuple[Where, PropagationRule]]

PRESETS: dict[str, Preset] = {
    "a_flat": [(INPUT_LAYER, Flat()), (nn.Linear, Epsilon(0.1)), (nn.Conv2d, Alpha1Beta0())],
    "epsilon": [((nn.Linear, nn.Conv2d), Epsilon(1e-6))],
}
"""The presets by name.

``a_flat``: the original's, iNNvestigate's ``lrp.sequential_preset_a_flat`` (Alber et al. 2019, JMLR 20(93); why other
    rules for other depths: Kohlbrenner et al. 2020, arXiv 1910.09840): flat for the input layer, ε = 0.1 for linear
    layers, α1β0 for convolutions.
``epsilon``: ε = 1e-6 everywhere; in a network of ReLUs, max-pooling and no biases that is gradient × input. Noisy, for
    comparison.
"""

WEIGHTLESS: Preset = [
    ((nn.ReLU, nn.Tanh), PassThrough()),
    ((nn.MaxPool2d, nn.Flatten), Gradient()),
    ((nn.AvgPool2d, nn.AdaptiveAvgPool2d), Epsilon(0.0)),
]
"""What every preset ends with: the rules of layers without weights, as in iNNvestigate."""


def rules_for(layers: Sequence[nn.Module], preset: str | Preset) -> list[PropagationRule]:
    """Choose a rule for every layer.

    Args:
        layers: The layers of a chain, in order.
        preset: Name of a preset, or rows (layer type, types, or ``"input layer"``; rule) of your own, which may use
            Captum's rules, too. Layers without weights need no row; the score counts as an ``nn.Linear``.

    Returns:
        One rule per layer, each a copy of its own, as Captum's rules keep what they see.

    Raises:
        InputError: if there is no such preset, naming the nearest, or no such place.
        CannotExplain: if no row fits a layer.
    """
    rows = [*_rows(preset), *WEIGHTLESS]
    first = _input_layer(layers)
    return [copy.copy(_rule(layer, layer is first, rows)) for layer in layers]


def _rows(preset: str | Preset) -> Preset:
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise InputError(f"Expected the name of a preset, got {preset!r}: {nearest(preset, list(PRESETS))}")
        return PRESETS[preset]
    for where, _ in preset:
        if isinstance(where, str) and where != INPUT_LAYER:
            raise InputError(f"Expected a layer type or {INPUT_LAYER!r} in a preset's row, got {where!r}")
    return preset


def _input_layer(layers: Sequence[nn.Module]) -> nn.Module | None:
    first = next((layer for layer in layers if not isinstance(layer, nn.Flatten)), None)
    return first if isinstance(first, nn.Linear | nn.Conv2d) else None


def _rule(layer: nn.Module, is_input: bool, rows: Preset) -> PropagationRule:
    for where, rule in rows:
        if is_input if isinstance(where, str) else isinstance(layer, where):
            return rule
    raise CannotExplain(f"Cannot explain {type(layer).__name__}: no row of the preset fits it. Add (its type, a rule)")
