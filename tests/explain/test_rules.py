import copy

import captum.attr._utils.lrp_rules as captum_rules
import numpy as np
import pytest
import torch
from torch import nn

from simec_vision.explain.engine import propagate
from simec_vision.explain.presets import INPUT_LAYER, PRESETS, rules_for
from simec_vision.explain.rules import Alpha1Beta0, Epsilon, Flat, Gradient, PassThrough
from tests.explain import oracles

LAYERS = [
    (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    (nn.Conv2d(2, 4, (3, 2), stride=2, padding=(2, 0), groups=2), (2, 6, 5)),
    (nn.Conv2d(1, 2, 2, dilation=2, bias=False), (1, 5, 5)),
    (nn.Linear(7, 4), (7,)),
]
RULES = [
    (Epsilon(0.1), lambda *a: oracles.epsilon(*a, 0.1)),
    (Epsilon(0.0), oracles.z_rule),
    (Flat(), oracles.flat),
    (Alpha1Beta0(), oracles.alpha1_beta0),
]


def double(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


def inputs_for(kind, shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"signed": x, "non-negative": x.relu(), "zero": torch.zeros_like(x)}[kind]


@pytest.mark.parametrize("kind", ["signed", "non-negative", "zero"])
@pytest.mark.parametrize(("rule", "twin"), RULES, ids=["epsilon", "z", "flat", "alpha1_beta0"])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=["conv", "strided", "dilated", "linear"])
def test_rule_is_its_matrix_formula(layer, shape, rule, twin, kind):
    layer, x = double(layer), inputs_for(kind, shape)
    r_out = torch.randn_like(layer(x))
    relevance = rule.propagate(layer, x, r_out)
    w, b = oracles.matrix(layer, shape)
    assert layer.bias is None or (b < 0).any()
    for mine, image, r in zip(relevance, x, r_out, strict=True):
        expected = twin(w, b, image.numpy().ravel(), r.numpy().ravel())
        np.testing.assert_allclose(mine.numpy().ravel(), expected, rtol=1e-10, atol=1e-10)


def test_alpha1_beta0_takes_a_divisor_of_exactly_zero_as_keras_epsilon():
    layer = double(nn.Linear(2, 1))
    layer.weight.data, layer.bias.data = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([-3.0]).double()
    relevance = Alpha1Beta0().propagate(layer, torch.ones(1, 2).double(), torch.ones(1, 1).double())
    assert relevance.tolist() == [[pytest.approx(1e7), pytest.approx(2e7)]]


def test_epsilon_counts_zero_as_positive():
    layer = double(nn.Linear(2, 1, bias=False))
    layer.weight.data = torch.tensor([[1.0, -1.0]]).double()
    relevance = Epsilon(0.1).propagate(layer, torch.ones(1, 2).double(), torch.ones(1, 1).double())
    assert relevance.tolist() == [[pytest.approx(10), pytest.approx(-10)]]


def test_alpha1_beta0_is_captums_where_captums_is_right_and_not_where_it_is_not():
    chain = nn.Sequential(double(nn.Conv2d(2, 3, 3)), nn.Flatten(), double(nn.Linear(12, 1), 2))
    rows = {rule: [(nn.Conv2d, rule), (nn.Linear, Epsilon(1e-9))] for rule in ("ours", "theirs")}
    ours = [(nn.Conv2d, Alpha1Beta0()), *rows["ours"][1:]]
    theirs = [(nn.Conv2d, captum_rules.Alpha1_Beta0_Rule()), *rows["theirs"][1:]]
    for kind, same in (("non-negative", True), ("signed", False)):
        x = inputs_for(kind, (2, 4, 4))
        assert torch.allclose(propagate(chain, x, ours), propagate(chain, x, theirs), rtol=1e-6) is same


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(2)],
)
@pytest.mark.parametrize("kind", ["signed", "non-negative", "zero"])
def test_average_pooling_is_the_z_rule(pool, kind):
    (rule,), x = rules_for([pool], "a_flat"), inputs_for(kind, (2, 6, 5))
    r_out = torch.randn_like(pool(x))
    w, b = oracles.matrix(pool, (2, 6, 5))
    for mine, image, r in zip(rule.propagate(pool, x, r_out), x, r_out, strict=True):
        expected = oracles.z_rule(w, b, image.numpy().ravel(), r.numpy().ravel())
        np.testing.assert_allclose(mine.numpy().ravel(), expected, rtol=1e-10, atol=1e-10)


def test_winner_takes_all():
    pool, x = nn.MaxPool2d(2, 1), inputs_for("signed", (2, 4, 3))
    r_out = torch.randn_like(pool(x))
    relevance = Gradient().propagate(pool, x, r_out)
    for mine, maps, r in zip(relevance, x, r_out, strict=True):
        np.testing.assert_allclose(mine, oracles.winner_takes_all(pool, maps.numpy(), r.numpy()), atol=1e-12)


def test_pass_through_keeps_relevance():
    relevance = torch.randn(2, 3)
    assert PassThrough().propagate(nn.Tanh(), torch.randn(2, 3), relevance) is relevance


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
def test_activations_hand_relevance_on(activation, preset):
    (rule,), r_out = rules_for([activation], preset), torch.randn(2, 3)
    assert torch.equal(rule.propagate(activation, torch.randn(2, 3), r_out), r_out)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=["conv", "strided", "dilated", "linear"])
def test_rules_conserve_what_biases_do_not_take(layer, shape):
    layer, x = copy.deepcopy(double(layer)), inputs_for("non-negative", shape) + 0.1
    layer.bias, layer.weight.data = None, layer.weight.abs()
    r_out = torch.randn_like(layer(x))
    r_out[layer(x) == 0] = 0  # outputs that see padding only
    for rule in (Epsilon(0.0), Alpha1Beta0(), Flat()):
        relevance = rule.propagate(layer, x, r_out)
        assert torch.allclose(relevance.flatten(1).sum(1), r_out.flatten(1).sum(1), atol=1e-10)


def test_flat_does_not_see_pixels():
    layer, r_out = double(nn.Conv2d(2, 3, 3)), torch.randn(3, 3, 2, 2).double()
    first, second = (Flat().propagate(layer, inputs_for(kind, (2, 4, 4)), r_out) for kind in ("signed", "zero"))
    assert torch.equal(first, second)
    assert first.sum() == pytest.approx(r_out.sum().item())


def test_captums_epsilon_and_ours_mix_and_agree():
    chain = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)]
    chain = nn.Sequential(*map(double, chain))
    x = inputs_for("signed", (2, 4, 4))
    ours, theirs = Epsilon(1e-3), captum_rules.EpsilonRule(1e-3)
    expected = propagate(chain, x, [((nn.Conv2d, nn.Linear), ours)])
    for rows in ([(nn.Conv2d, ours), (nn.Linear, theirs)], [(nn.Conv2d, theirs), (nn.Linear, ours)]):
        assert torch.allclose(propagate(chain, x, rows), expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().sum() > 0


def test_nothing_is_left_on_the_layers_even_after_an_error():
    chain = nn.Sequential(double(nn.Linear(4, 1)), nn.Tanh())
    before = [set(layer.__dict__) for layer in chain]
    propagate(chain, torch.randn(2, 4).double(), "a_flat")
    with pytest.raises(RuntimeError):
        propagate(chain, torch.randn(2, 5).double(), "a_flat")
    assert [set(layer.__dict__) for layer in chain] == before
    assert not any(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks for layer in chain)


def test_a_flat_is_flat_then_alpha_beta_then_epsilon():
    layers = [nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1, 1)]
    kinds = [type(rule) for rule in rules_for(layers, "a_flat")]
    assert kinds == [Flat, PassThrough, Alpha1Beta0, Epsilon, Gradient, Epsilon]
    assert [rule.epsilon for rule in rules_for(layers, "a_flat") if isinstance(rule, Epsilon)] == [0.0, 0.1]


def test_input_layer_may_be_flattened_but_not_pooled():
    assert type(rules_for([nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 2)], "a_flat")[1]) is Flat
    assert type(rules_for([nn.AvgPool2d(2), nn.Conv2d(1, 1, 1)], "a_flat")[1]) is Alpha1Beta0


def test_rules_are_copies():
    rule = Epsilon(0.3)
    chosen = rules_for([nn.Linear(1, 1), nn.Linear(1, 1)], [(nn.Linear, rule)])
    assert len({id(each) for each in (rule, *chosen)}) == 3


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("a_flatt", "did you mean 'a_flat'.*Known: a_flat, epsilon"),
        ([("output layer", Flat())], f"{INPUT_LAYER!r}.*'output layer'"),
        ([(nn.Conv2d, Flat())], "Linear: no row of the preset"),
    ],
)
def test_unknown_preset_place_or_layer(preset, message):
    with pytest.raises(ValueError, match=message):
        rules_for([nn.Linear(1, 1)], preset)


def test_every_preset_has_a_row_for_every_weighted_layer():
    for name in PRESETS:
        assert len(rules_for([nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)], name)) == 3
