"""Which rule for which layer: a preset is a table, read from the top; the first row that fits a layer counts."""

import copy
from collections.abc import Sequence

from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, nn

from simec_vision.explain.baseline import FromBaseline
from simec_vision.explain.layers import AVERAGING, MOVING, WEIGHTED, Add, Gate, Normalisation, ScaleShift
from simec_vision.explain.refusal import CannotExplain
from simec_vision.explain.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    GradientTimesInput,
    Moves,
    PassThrough,
    SignalTakesAll,
    ZBox,
)
from simec_vision.explain.twin import Placed
from simec_vision.explain.winners import WinnersTakeAll
from simec_vision.items import InputError, nearest

POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)
INPUT_LAYER = "input layer"
"""The place of layers that see the pixels, moved or scaled at most; there is none if the network begins otherwise."""

Where = str | type[nn.Module] | tuple[type[nn.Module], ...]
Preset = Sequence[tuple[Where, PropagationRule]]

PRESETS: dict[str, Preset] = {
    "a_flat": [
        (INPUT_LAYER, Flat()), (nn.Linear, Epsilon(0.1)), (nn.Conv2d, AlphaBeta(1, 0)), (AVERAGING, Epsilon(0.0))],
    "alpha2_beta1_flat": [
        (INPUT_LAYER, Flat()), (nn.Linear, Epsilon(0.1)), (nn.Conv2d, AlphaBeta(2, 1)), (AVERAGING, Epsilon(0.0))],
    "epsilon": [(WEIGHTED, Epsilon(1e-6))],
    "epsilon_plus_flat": [
        (INPUT_LAYER, Flat()), (nn.Linear, Epsilon(1e-6, "share")), (nn.Conv2d, AlphaBeta(1, 0, "ignore"))],
    "epsilon_gamma_box": [
        (INPUT_LAYER, ZBox()), (nn.Linear, Epsilon(1e-6, "share")), (nn.Conv2d, Gamma(0.25, "share"))],
    "epsilon_gamma_baseline": [
        (INPUT_LAYER, FromBaseline(Flat())), (nn.Linear, FromBaseline(Epsilon(1e-6, "share"))),
        (nn.Conv2d, FromBaseline(Gamma(0.25, "ignore"))), (POOLS, FromBaseline(WinnersTakeAll())),
        ((*AVERAGING, Add, ScaleShift, Normalisation), FromBaseline(Epsilon(0.0, "ignore")))],
    "gradient_input": [(nn.Module, GradientTimesInput())],
}  # fmt: skip
"""The presets by name.

``a_flat``: the original's, iNNvestigate's ``lrp.sequential_preset_a_flat`` (Alber et al. 2019, JMLR 20(93); why other
    rules for other depths: Kohlbrenner et al. 2020, arXiv 1910.09840): flat for the input layer, ε = 0.1 for linear
    layers, α1β0 for convolutions, biases kept.
``alpha2_beta1_flat``: the same with α2β1, iNNvestigate's ``lrp.sequential_preset_b_flat``.
``epsilon``: ε = 1e-6 everywhere; in a network of ReLUs, max-pooling and no biases that is gradient × input. Noisy, for
    comparison.
``epsilon_plus_flat``: flat, ε = 1e-6 and z⁺ (after Kohlbrenner et al. 2020), biases take nothing: conserves relevance.
``epsilon_gamma_box``: zᴮ for the input layer, γ = 0.25 for convolutions, ε = 1e-6 for linear layers (after Montavon et
    al. 2019, section 10.3, in which γ decreases with depth), biases take nothing.
``epsilon_gamma_baseline``: flat, γ = 0.25 and ε = 1e-6 for what differs from a blank image
    (:mod:`simec_vision.explain.baseline`): relevance adds up to score − score of the blank, and a background has none
    but what flat spreads over the pixels that an output of the input layer sees.
``gradient_input``: gradient × input (Shrikumar et al. 2017), no LRP; for comparison.
"""

CONSERVING = ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_gamma_baseline")
"""Presets in which hardly anything may get lost."""

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.SiLU, nn.Hardswish, nn.Mish, nn.GELU,
    nn.Sigmoid, nn.Hardsigmoid,
)  # fmt: skip

ALWAYS: Preset = [(MOVING, Moves())]
"""What every preset begins with: values that only move take their relevance along."""

OTHERWISE: Preset = [
    (ACTIVATIONS, PassThrough()),
    (POOLS, WinnersTakeAll()),
    ((*AVERAGING, Add), Epsilon(0.0, "ignore")),
    (Gate, SignalTakesAll()),
    ((ScaleShift, Normalisation), Epsilon(0.0, "ignore")),
]
"""What every preset ends with: pools and additions as in iNNvestigate; a shift is no input, so it gets nothing."""


def rules_for(layers: Sequence[Placed], preset: str | Preset) -> list[PropagationRule]:
    """Choose a rule for every layer.

    Args:
        layers: The layers of a twin (:func:`~simec_vision.explain.twin.layers_of`).
        preset: Name of a preset, or rows (where, rule) of your own, which may use Captum's rules, too. Where is a layer
            type, types, ``"input layer"``, or the place of a layer or of the module around it, such as ``layer1.0``.
            Only ``Linear`` and ``Conv2d`` layers need a row; the score counts as an ``nn.Linear``.

    Returns:
        One rule per layer, each a copy of its own, as rules keep what they see.

    Raises:
        InputError: if there is no such preset, naming the nearest, or no such place.
        CannotExplain: if no row fits a layer.
    """
    rows = rows_of(preset)
    _check_places(rows, layers)
    return [copy.copy(_rule(each, [*ALWAYS, *rows, *OTHERWISE])) for each in layers]


def rows_of(preset: str | Preset) -> Preset:
    """Give the rows of a preset.

    Raises:
        InputError: if there is none of that name, naming the nearest.
    """
    if not isinstance(preset, str):
        return preset
    if preset not in PRESETS:
        raise InputError(f"Expected the name of a preset, got {preset!r}: {nearest(preset, list(PRESETS))}")
    return PRESETS[preset]


def bounded(preset: str | Preset, low: Tensor, high: Tensor) -> Preset:
    """Give a preset's rows, in which zᴮ-rules without bounds have these, shape ``(channel,)``."""
    return [(where, _bounded(rule, low, high)) for where, rule in rows_of(preset)]


def _bounded(rule: PropagationRule, low: Tensor, high: Tensor) -> PropagationRule:
    if not isinstance(rule, ZBox):
        return rule
    return ZBox(low if rule.low is None else rule.low, high if rule.high is None else rule.high, rule.bias)


def measured_from(baseline: Tensor, preset: str | Preset = "epsilon_gamma_baseline") -> Preset:
    """Give a preset's rows, in which rules that are measured from a baseline have this one.

    Args:
        baseline: Normalised, an image ``(channel, height, width)`` or a colour ``(channel, 1, 1)``.
        preset: A preset with such rules.

    Raises:
        InputError: if it has none.
    """
    if not any(isinstance(rule, FromBaseline) for _, rule in rows_of(preset)):
        raise InputError(f"Expected a preset with rules that are measured from a baseline, got {preset!r}")
    return [
        (where, FromBaseline(rule.rule, baseline) if isinstance(rule, FromBaseline) else rule)
        for where, rule in rows_of(preset)
    ]


def _check_places(rows: Preset, layers: Sequence[Placed]) -> None:
    known = {each.place for each in layers}
    for where, _ in rows:
        if isinstance(where, str) and where != INPUT_LAYER and not any(_within(place, where) for place in known):
            places = nearest(where, [INPUT_LAYER, *known])
            raise InputError(
                f"Expected a layer type, {INPUT_LAYER!r} or a place in a preset's row, got {where!r}: {places}"
            )


def _within(place: str, where: str) -> bool:
    return place == where or place.startswith(where + ".")


def _rule(placed: Placed, rows: Preset) -> PropagationRule:
    for where, rule in rows:
        if _fits(placed, where):
            return rule
    kind = type(placed.layer).__name__
    raise CannotExplain(
        f"Cannot explain {placed.place}: {kind}, which no row of the preset fits. Add (its type, a rule)"
    )


def _fits(placed: Placed, where: Where) -> bool:
    if isinstance(where, str):
        return placed.sees_pixels if where == INPUT_LAYER else _within(placed.place, where)
    return isinstance(placed.layer, where)
