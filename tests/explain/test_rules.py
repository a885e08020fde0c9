import copy

import captum.attr._utils.lrp_rules as captum_rules
import numpy as np
import pytest
import torch
from torch import nn

from simec_vision.explain import CannotExplain, canonize
from simec_vision.explain.engine import propagate
from simec_vision.explain.layers import Add, Gate, Mean, Normalisation, ScaleShift
from simec_vision.explain.presets import INPUT_LAYER, PRESETS, rules_for
from simec_vision.explain.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Moves,
    PassThrough,
    SignalTakesAll,
    WSquare,
    ZBox,
)
from simec_vision.explain.twin import layers_of
from simec_vision.explain.winners import WinnersTakeAll
from simec_vision.items import InputError
from tests.explain import oracles

LAYERS = {
    "conv": (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "strided groups": (nn.Conv2d(2, 4, (3, 2), stride=2, padding=(2, 0), groups=2), (2, 6, 5)),
    "depthwise": (nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 4, 4)),
    "dilated": (nn.Conv2d(1, 2, 2, dilation=2, bias=False), (1, 5, 5)),
    "linear": (nn.Linear(7, 4), (7,)),
    "linear along maps": (nn.Linear(3, 4), (2, 4, 3)),
    "average": (nn.AvgPool2d(3, 2, 1), (2, 6, 5)),
    "average inside": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (2, 4, 5)),
    "adaptive": (nn.AdaptiveAvgPool2d((2, 3)), (2, 5, 4)),
    "mean": (Mean((2, 3), keepdim=False), (2, 3, 4)),
}
MODES = ("keep", "positive", "ignore", "share")
RULES = {
    **{f"epsilon {mode}": (Epsilon(0.1, mode), "epsilon_with_bias", (0.1, mode)) for mode in MODES},
    **{f"z {mode}": (Epsilon(0.0, mode), "epsilon_with_bias", (0.0, mode)) for mode in MODES},
    **{
        f"alpha {alpha} {mode}": (AlphaBeta(alpha, beta, mode), "alpha_beta", (alpha, beta, mode))
        for alpha, beta in ((1, 0), (2, 1), (1.5, 0.5))
        for mode in MODES[:3]
    },
    **{f"gamma {mode}": (Gamma(0.25, mode), "gamma", (0.25, mode)) for mode in MODES},
    "gamma 0": (Gamma(0.0), "gamma", (0.0, "keep")),
}
PIXEL_RULES = {"flat": (Flat(), oracles.flat), "w_square": (WSquare(), oracles.w_square)}


def double(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


def rules(layers, preset):
    return rules_for(layers_of(canonize(nn.Sequential(*layers))), preset)


def scored(chain, x, preset):
    """Relevance of the single output of a chain."""
    return propagate(canonize(chain), x, chain(x).detach(), preset)


def inputs_for(kind, shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"signed": x, "non-negative": x.relu(), "zero": torch.zeros_like(x)}[kind]


KINDS = pytest.mark.parametrize("kind", ["signed", "non-negative", "zero"])


def assert_is(rule, layer, x, expected):
    """Compare a rule with an oracle of (w, b, x, r_out, sees), image by image."""
    r_out = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    relevance = rule.propagate(layer, x, r_out)
    (w, b), sees = oracles.matrix(layer, x.shape[1:]), oracles.seen(layer, x.shape[1:])
    for mine, image, r in zip(relevance, x, r_out, strict=True):
        told = expected(w, b, image.numpy().ravel(), r.numpy().ravel(), sees)
        np.testing.assert_allclose(mine.numpy().ravel(), told, rtol=1e-9, atol=1e-9)
        assert mine.shape == image.shape


@KINDS
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_rule_is_its_matrix_formula(layer, rule, kind):
    layer, shape = LAYERS[layer]
    rule, name, options = RULES[rule]
    layer = double(layer)
    assert getattr(layer, "bias", None) is None or (layer.bias < 0).any()
    formula = getattr(oracles, name)
    assert_is(rule, layer, inputs_for(kind, shape), lambda w, b, x, r, sees: formula(w, b, x, r, *options, sees))


@KINDS
@pytest.mark.parametrize("rule", PIXEL_RULES)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "average inside"])
def test_rule_of_weights_is_its_matrix_formula(layer, rule, kind):
    layer, shape = LAYERS[layer]
    rule, formula = PIXEL_RULES[rule]
    assert_is(rule, double(layer), inputs_for(kind, shape), lambda w, b, x, r, _: formula(w, b, x, r))


@KINDS
@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("layer", ["conv", "strided groups", "depthwise", "dilated", "linear"])
def test_z_box_is_its_matrix_formula(layer, mode, kind):
    layer, shape = LAYERS[layer]
    x = inputs_for(kind, shape)
    low, high = -4 - torch.rand(shape[0]).double(), 4 + torch.rand(shape[0]).double()
    each = np.repeat([low.numpy(), high.numpy()], x[0].numel() // shape[0], axis=1)
    assert_is(ZBox(low, high, mode), double(layer), x, lambda w, b, x, r, _: oracles.z_box(w, b, x, r, *each, mode))


def test_z_box_without_bounds_takes_those_of_the_images():
    layer, x = double(nn.Conv2d(2, 3, 3)), inputs_for("signed", (2, 4, 4))
    r_out = torch.randn_like(layer(x))
    bounds = x.amin(dim=(0, 2, 3)), x.amax(dim=(0, 2, 3))
    assert torch.equal(ZBox().propagate(layer, x, r_out), ZBox(*bounds).propagate(layer, x, r_out))


@KINDS
@pytest.mark.parametrize("mode", ["keep", "ignore"])
def test_addition_is_shared_in_proportion(mode, kind):
    a, b = inputs_for(kind, (2, 3)), inputs_for(kind, (2, 3)).flip(0) * 0.7
    r = torch.randn_like(a)
    shares = Epsilon(0.0, mode).distribute(Add(), (a, b), r)
    for x, share in zip((a, b), shares, strict=True):
        expected = torch.where(a + b == 0, r / 2 if mode == "ignore" else 0, x / (a + b) * r)
        torch.testing.assert_close(share, expected, rtol=1e-9, atol=1e-9)


def test_gate_takes_nothing():
    value, gate, r = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 1, 1), torch.randn(2, 3, 4, 4)
    shares = SignalTakesAll().distribute(Gate(), (value, gate), r)
    assert shares == (r, None)
    ((summed, _)) = SignalTakesAll().distribute(Gate(), (torch.rand(2, 3, 1, 1), torch.rand(2, 3, 4, 4)), r)
    torch.testing.assert_close(summed, r.sum((2, 3), keepdim=True))


@pytest.mark.parametrize("affine", [True, False])
def test_layer_normalisation_has_a_constant_scale(affine):
    layer, x = double(Normalisation(5, elementwise_affine=affine)), inputs_for("signed", (3, 5))
    r_out = torch.randn_like(x)
    relevance = Epsilon(1e-3, "keep").propagate(layer, x, r_out)
    for mine, image, r in zip(relevance.flatten(0, 1), x.flatten(0, 1), r_out.flatten(0, 1), strict=True):
        scale = 1 / (image.var(unbiased=False) + layer.eps).sqrt() * (layer.weight if affine else 1)
        w = torch.diag(scale * torch.ones(5).double()) @ (torch.eye(5).double() - 1 / 5)
        b = layer.bias if affine else torch.zeros(5).double()
        expected = oracles.epsilon(w.numpy(), b.numpy(), image.numpy(), r.numpy(), 1e-3)
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-9)


def test_scale_and_shift_is_a_linear_layer_of_one_input():
    layer, x = (
        ScaleShift(torch.randn(2).double(), torch.randn(2).double(), per_channel=True),
        inputs_for("signed", (2, 4, 4)),
    )
    r_out = torch.randn_like(x)
    torch.testing.assert_close(Epsilon(0.0, "ignore").propagate(layer, x, r_out), r_out)
    kept = x * layer.weight[:, None, None] / layer(x) * r_out
    torch.testing.assert_close(Epsilon(0.0, "keep").propagate(layer, x, r_out), kept.detach())


@pytest.mark.parametrize("rule", [AlphaBeta(), Gamma(), Flat()])
def test_rule_of_signs_is_refused_for_layer_normalisation(rule):
    with pytest.raises(CannotExplain, match="Normalisation"):
        rule.propagate(Normalisation(5), torch.randn(2, 5), torch.randn(2, 5))


def test_rule_of_one_input_is_refused_for_additions():
    with pytest.raises(CannotExplain, match="Add: AlphaBeta has no formula for its 2 inputs"):
        AlphaBeta().distribute(Add(), (torch.ones(1, 2), torch.ones(1, 2)), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AlphaBeta(2, 0), "alpha − beta = 1 and beta ≥ 0, got alpha 2 and beta 0"),
        (lambda: AlphaBeta(0.5, -0.5), "beta ≥ 0"),
        (lambda: AlphaBeta(bias="share"), "bias as one of keep, positive, ignore, got 'share'"),
        (lambda: Epsilon(bias="zero"), "keep, positive, ignore, share, got 'zero'"),
        (lambda: ZBox(bias="none"), "keep, positive, ignore, got 'none'"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_alpha1_beta0_takes_a_divisor_of_exactly_zero_as_keras_epsilon():
    layer = double(nn.Linear(2, 1))
    layer.weight.data, layer.bias.data = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([-3.0]).double()
    relevance = AlphaBeta().propagate(layer, torch.ones(1, 2).double(), torch.ones(1, 1).double())
    assert relevance.tolist() == [[pytest.approx(1e7), pytest.approx(2e7)]]


def test_epsilon_counts_zero_as_positive():
    layer = double(nn.Linear(2, 1, bias=False))
    layer.weight.data = torch.tensor([[1.0, -1.0]]).double()
    relevance = Epsilon(0.1).propagate(layer, torch.ones(1, 2).double(), torch.ones(1, 1).double())
    assert relevance.tolist() == [[pytest.approx(10), pytest.approx(-10)]]


def test_alpha1_beta0_is_captums_where_captums_is_right_and_not_where_it_is_not():
    chain = nn.Sequential(double(nn.Conv2d(2, 3, 3)), nn.Flatten(), double(nn.Linear(12, 1), 2))
    rows = {rule: [(nn.Conv2d, rule), (nn.Linear, Epsilon(1e-9))] for rule in ("ours", "theirs")}
    ours = [(nn.Conv2d, AlphaBeta()), *rows["ours"][1:]]
    theirs = [(nn.Conv2d, captum_rules.Alpha1_Beta0_Rule()), *rows["theirs"][1:]]
    for kind, same in (("non-negative", True), ("signed", False)):
        x = inputs_for(kind, (2, 4, 4))
        assert torch.allclose(scored(chain, x, ours), scored(chain, x, theirs), rtol=1e-6) is same


POOLS = [
    (nn.MaxPool2d(2), (2, 5, 4)), (nn.MaxPool2d(3, 2, 1), (2, 6, 7)), (nn.MaxPool2d((2, 3), (1, 2)), (2, 5, 6)),
    (nn.MaxPool2d(3, 2, ceil_mode=True), (1, 6, 6)), (nn.MaxPool2d(2, 2, 1, dilation=2), (2, 7, 6)),
    (nn.MaxPool2d(2, ceil_mode=True), (1, 5, 5)), (nn.AdaptiveMaxPool2d(1), (2, 3, 4)),
    (nn.AdaptiveMaxPool2d((2, 3)), (2, 5, 7)),
]  # fmt: skip


@pytest.mark.parametrize(("pool", "shape"), POOLS)
@pytest.mark.parametrize("kind", ["signed", "non-negative", "zero", "steps"])
def test_winners_take_all_and_share(pool, shape, kind):
    x = inputs_for("signed", shape).round() if kind == "steps" else inputs_for(kind, shape)
    r_out = torch.randn_like(pool(x))
    relevance = WinnersTakeAll().propagate(pool, x, r_out)
    for mine, maps, r in zip(relevance, x, r_out, strict=True):
        np.testing.assert_allclose(mine, oracles.winners_take_all(pool, maps.numpy(), r.numpy()), atol=1e-12)


def test_plain_background_gets_no_grid():
    chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 1))
    chain[0].bias.data = torch.ones(2)
    chain[4].weight.data = torch.ones(1, 18)
    x = torch.ones(1, 1, 8, 8)
    inner = scored(chain, x, "epsilon_plus_flat")[0, 0, 2:-2, 2:-2]
    assert (inner - inner.mean()).abs().max() < 1e-5 * inner.mean()


def test_pass_through_keeps_relevance():
    relevance = torch.randn(2, 3)
    assert PassThrough().propagate(nn.Tanh(), torch.randn(2, 3), relevance) is relevance


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "gradient_input"])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.Hardswish(), nn.SiLU()])
def test_activations_hand_relevance_on(activation, preset):
    (rule,), r_out = rules([activation], preset), torch.randn(2, 3)
    assert torch.equal(rule.propagate(activation, torch.randn(2, 3), r_out), r_out)


@pytest.mark.parametrize("layer", LAYERS)
def test_rules_conserve_what_biases_do_not_take(layer):
    layer, shape = LAYERS[layer]
    layer, x = copy.deepcopy(double(layer)), inputs_for("signed", shape)
    r_out = torch.randn_like(layer(x))
    r_out[:, (oracles.seen(layer, shape).sum(axis=1) == 0).reshape(r_out.shape[1:])] = 0  # they see padding only
    conserving = [Epsilon(0.0, "ignore"), Epsilon(0.1, "share"), AlphaBeta(2, 1, "ignore"), AlphaBeta(bias="ignore")]
    for rule in (*conserving, Gamma(0.5, "ignore"), Gamma(0.5, "share"), Flat(), WSquare()):
        for values in (x, x.relu(), 0 * x):
            relevance = rule.propagate(layer, values, r_out)
            torch.testing.assert_close(relevance.flatten(1).sum(1), r_out.flatten(1).sum(1), rtol=1e-8, atol=1e-8)


def test_flat_does_not_see_pixels():
    layer, r_out = double(nn.Conv2d(2, 3, 3)), torch.randn(3, 3, 2, 2).double()
    first, second = (Flat().propagate(layer, inputs_for(kind, (2, 4, 4)), r_out) for kind in ("signed", "zero"))
    assert torch.equal(first, second)
    assert first.sum() == pytest.approx(r_out.sum().item())


def test_lost_relevance_is_noted_if_watched():
    rule, layer, x = Epsilon(0.5), double(nn.Linear(3, 2)), inputs_for("signed", (3,))
    r_out = torch.randn(3, 2).double()
    rule.redirect(layer, (x,), r_out)
    assert rule.lost is None
    rule.watched = True
    (share,) = rule.redirect(layer, (x,), r_out)
    torch.testing.assert_close(rule.lost, share.sum(1) - r_out.sum(1))


def test_captums_epsilon_and_ours_mix_and_agree():
    chain = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)]
    chain = nn.Sequential(*map(double, chain))
    x = inputs_for("signed", (2, 4, 4))
    ours, theirs = Epsilon(1e-3), captum_rules.EpsilonRule(1e-3)
    expected = scored(chain, x, [((nn.Conv2d, nn.Linear), ours)])
    for rows in ([(nn.Conv2d, ours), (nn.Linear, theirs)], [(nn.Conv2d, theirs), (nn.Linear, ours)]):
        assert torch.allclose(scored(chain, x, rows), expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().sum() > 0


def test_nothing_is_left_on_the_layers_even_after_an_error():
    chain = nn.Sequential(double(nn.Linear(4, 1)), nn.Tanh())
    twin = canonize(chain)
    chain = [each.layer for each in layers_of(twin)]
    before = [set(layer.__dict__) for layer in chain]
    for preset in ("a_flat", [(nn.Linear, captum_rules.EpsilonRule())]):
        propagate(twin, torch.randn(2, 4).double(), torch.ones(2, 1).double(), preset)
        with pytest.raises(RuntimeError):
            propagate(twin, torch.randn(2, 5).double(), torch.ones(2, 1).double(), preset)
        assert [set(layer.__dict__) for layer in chain] == before
        assert not any(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks for layer in chain)


def test_a_flat_is_flat_then_alpha_beta_then_epsilon():
    layers = [nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1, 1)]
    chosen = rules(layers, "a_flat")
    assert [type(rule) for rule in chosen] == [Flat, PassThrough, AlphaBeta, Epsilon, Moves, Epsilon]
    assert [(rule.epsilon, rule.bias) for rule in chosen if isinstance(rule, Epsilon)] == [(0.0, "keep"), (0.1, "keep")]
    assert [(rule.alpha, rule.beta, rule.bias) for rule in chosen if isinstance(rule, AlphaBeta)] == [(1, 0, "keep")]


def test_input_layer_may_be_moved_or_scaled_but_not_pooled():
    assert type(rules([nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 2)], "a_flat")[1]) is Flat
    assert type(rules([nn.AvgPool2d(2), nn.Conv2d(1, 1, 1)], "a_flat")[1]) is AlphaBeta
    normalised = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.Conv2d(1, 1, 1))
    normalised[1] = nn.Identity()
    assert type(rules([nn.PixelUnshuffle(1), *normalised], "a_flat")[-1]) is Flat


def test_every_branch_that_sees_pixels_is_an_input_layer():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(2, 2, 1) for _ in range(3))

        def forward(self, x):
            return self.c(self.a(x) + self.b(x))

    layers = layers_of(canonize(Branches()))
    assert [each.place for each in layers if each.sees_pixels] == ["a", "b"]


def test_rows_may_name_places():
    layers = [nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)), nn.Conv2d(1, 1, 1)]
    chosen = rules(layers, [("2.1", Epsilon(0.3)), ("2", Gamma()), ("1", Flat()), (nn.Conv2d, AlphaBeta())])
    assert [type(rule) for rule in chosen] == [AlphaBeta, Flat, Gamma, Epsilon, AlphaBeta]


def test_rules_are_copies():
    rule = Epsilon(0.3)
    chosen = rules([nn.Linear(1, 1), nn.Linear(1, 1)], [(nn.Linear, rule)])
    assert len({id(each) for each in (rule, *chosen)}) == 3


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("a_flatt", "did you mean 'a_flat'.*Known: a_flat, alpha2_beta1_flat, epsilon"),
        ([("output layer", Flat())], f"{INPUT_LAYER!r}.*'output layer'"),
        ([("00", Flat())], "a place in a preset's row, got '00'.*Known: 0"),
        ([(nn.Conv2d, Flat())], "0: Linear, which no row of the preset fits"),
    ],
)
def test_unknown_preset_place_or_layer(preset, message):
    with pytest.raises(ValueError, match=message):
        rules([nn.Linear(1, 1)], preset)


def test_every_preset_has_a_row_for_every_weighted_layer():
    for name in PRESETS:
        assert len(rules([nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)], name)) == 3


def test_start_may_be_any_relevance_and_one_image_may_have_many():
    twin = canonize(
        double(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4)))
    )
    image, start = inputs_for("signed", (2, 4, 4))[:1], torch.randn(5, 4).double()
    for preset in (*PRESETS, [(nn.Conv2d, captum_rules.EpsilonRule()), (nn.Linear, Epsilon(0.1))]):
        together = propagate(twin, image, start, preset)
        repeated = propagate(twin, image.repeat(5, 1, 1, 1), start, preset)
        expanded = propagate(twin, image.expand(5, -1, -1, -1), start, preset)
        for other in (repeated, expanded):
            torch.testing.assert_close(other, together, rtol=1e-9, atol=1e-12)
        alone = [propagate(twin, image, row[None], preset) for row in start]
        torch.testing.assert_close(torch.cat(alone), together, rtol=1e-9, atol=1e-12)
        doubled = propagate(twin, image, 2 * start, preset)
        torch.testing.assert_close(doubled, 2 * together, rtol=1e-9, atol=1e-12)


def test_contributions_that_are_next_to_nothing_do_not_overflow():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.ones(2, 2)
    x, r = torch.tensor([[1e-41, 2e-42]]), torch.ones(1, 2)
    for rule in (AlphaBeta(bias="ignore"), Epsilon(0.0, "ignore"), Gamma(0.25, "share"), Epsilon(0.0, "share")):
        torch.testing.assert_close(rule.propagate(layer, x, r), torch.ones(1, 2))
