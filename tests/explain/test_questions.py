"""Differences, cosines, class scores, bounds of the pixels, and warnings of lost relevance."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simec_vision import SimilarityHead
from simec_vision.encoders import MLP, ResidualNet
from simec_vision.explain import (
    CannotExplain,
    LostRelevanceWarning,
    explain,
    explain_class,
    explain_difference,
    explain_pair,
)
from simec_vision.explain.answering import pixel_bounds
from simec_vision.explain.presets import CONSERVING, INPUT_LAYER, PRESETS
from simec_vision.explain.rules import AlphaBeta, Epsilon, Flat, ZBox
from simec_vision.finetuning import Classifier
from simec_vision.items import InputError
from tests.explain.test_relevance import chain, pictures, same, similarity_model

LINEAR_IN_SCORE = [(nn.Linear, Epsilon(0.0)), (nn.Conv2d, AlphaBeta(2, 1))]
"""Rules under which relevance is linear in the readout: without ε."""


def test_difference_is_the_difference_of_two_explanations():
    model, images, a, b = similarity_model(), pictures(), torch.tensor([3, 0, 2]), 1
    told = explain_difference(model, images, "heel", a, b, LINEAR_IN_SCORE)
    apart = [explain(model, images, "heel", each, LINEAR_IN_SCORE) for each in (a, b)]
    torch.testing.assert_close(told.score, apart[0].score - apart[1].score)
    torch.testing.assert_close(told.relevance, apart[0].relevance - apart[1].relevance, rtol=1e-9, atol=1e-12)
    back = explain_difference(model, images, "heel", b, a, LINEAR_IN_SCORE)
    torch.testing.assert_close(back.relevance, -told.relevance)


def test_cosine_is_the_pair_at_unit_length():
    model, images, others = similarity_model(), pictures(), pictures(6)[3:]
    dot = explain_pair(model, images, others, LINEAR_IN_SCORE)
    cosine = explain_pair(model, images, others, LINEAR_IN_SCORE, similarity="cosine")
    embeddings = [model.embed(each).detach() for each in (images, others)]
    torch.testing.assert_close(cosine.score, F.cosine_similarity(*embeddings))
    norms = embeddings[0].norm(dim=1) * embeddings[1].norm(dim=1)
    torch.testing.assert_close(cosine.relevance * norms[:, None, None, None], dot.relevance, rtol=1e-9, atol=1e-12)


def classifier(bias=True):
    torch.manual_seed(0)
    model = Classifier(chain(), 5, ["boot", "shoe", "sandal"], scale=3.0).double()
    model.linear.weight.data.normal_()
    if bias:
        model.linear.bias.data.normal_()
    return model


@pytest.mark.parametrize("preset", ["a_flat", "epsilon_plus_flat"])
def test_class_score_is_explained_without_the_bias(preset):
    model, images = classifier(), pictures()
    told = explain_class(model, images, "sandal", preset, largest_delta=torch.inf)
    torch.testing.assert_close(told.score, (model(images)[:, 2] - model.linear.bias[2]).detach())
    assert same(told, explain_class(model, images, torch.tensor([2, 2, 2]), preset, largest_delta=torch.inf))
    similar = similarity_model()
    similar.encoder = model.encoder
    similar.heads["classes"] = SimilarityHead(5, 3, weight=3 * model.linear.weight)
    as_head = explain(similar, images, "classes", 2, preset, largest_delta=torch.inf)
    torch.testing.assert_close(told.relevance, as_head.relevance)


def test_what_classifiers_do_beside_is_noticed():
    model = classifier()
    model.linear.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(CannotExplain, match="more than its layers say"):
        explain_class(model, pictures(), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain_class(classifier(), pictures(), "bot"), "name of a class, got 'bot': did you mean 'boot'"),
        (lambda: explain_class(classifier(), pictures(), 3), "label between 0 and 2, the classifier has no 3"),
        (lambda: explain_difference(similarity_model(), pictures(), "heel", 0, 4), "head 'heel' has no 4"),
        (lambda: explain_pair(similarity_model(), pictures(), pictures(), similarity="cos"), "did you mean 'cosine'"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_explains_a_residual_net_and_chunks_do_not_matter(preset):
    model = similarity_model(ResidualNet(5, width=2, channels=2))
    told = [explain(model, pictures(5), "heel", 1, preset, chunk=n, largest_delta=torch.inf) for n in (2, 5)]
    torch.testing.assert_close(told[0].relevance, told[1].relevance, rtol=1e-8, atol=1e-10)
    assert told[0].relevance.isfinite().all()
    assert told[0].relevance.abs().sum() > 0


@pytest.mark.parametrize("preset", CONSERVING)
def test_presets_that_conserve_conserve_in_spite_of_biases(preset):
    model = similarity_model(nn.Sequential(ResidualNet(6, width=2, channels=2), nn.SiLU(), nn.Linear(6, 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert explain(model, pictures(), "heel", 1, preset).delta.abs().max() < 1e-3


def test_bounds_follow_the_normalisation():
    images = pictures()
    low, high = pixel_bounds({"normalisation": {"mean": [0.5, 0.2], "std": [0.5, 0.1]}}, images)
    torch.testing.assert_close(low, torch.tensor([-1.0, -2.0]).double())
    torch.testing.assert_close(high, torch.tensor([1.0, 8.0]).double())
    low, high = pixel_bounds({}, images)
    torch.testing.assert_close((low, high), (images.amin((0, 2, 3)), images.amax((0, 2, 3))))
    model = similarity_model()
    model.about = {"normalisation": {"mean": [0.5, 0.5], "std": [0.1, 0.1]}}
    rows = [(INPUT_LAYER, ZBox(torch.full((2,), -5.0), torch.full((2,), 5.0))), *PRESETS["epsilon_gamma_box"][1:]]
    told = explain(model, images, "heel", 1, "epsilon_gamma_box")
    torch.testing.assert_close(told.relevance, explain(model, images, "heel", 1, rows).relevance, rtol=1e-5, atol=1e-12)
    model.about = {}
    unknown = explain(model, images, "heel", 1, "epsilon_gamma_box").relevance
    assert (told.relevance - unknown).abs().max() > 1e-3 * unknown.abs().max()


class Rescaled(nn.Module):
    """A convolution of images that the network scales and shifts itself."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, images):
        return self.layers((images - 0.5) * 4)


def test_bounds_of_pixels_go_the_way_of_the_pixels():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    folded = copy.deepcopy(layers)
    folded[0].bias.data -= 2 * folded[0].weight.sum(dim=(1, 2, 3))
    folded[0].weight.data *= 4
    images = pictures()[..., :8, :8]
    told, expected = (
        explain(similarity_model(net), images, "heel", 1, "epsilon_gamma_box") for net in (Rescaled(layers), folded)
    )
    torch.testing.assert_close(told.score, expected.score)
    torch.testing.assert_close(told.relevance, expected.relevance, rtol=1e-6, atol=1e-9)


def test_bounds_reach_a_linear_input_layer():
    images = pictures()[..., :4, :4]
    told = explain(similarity_model(MLP(32, 5, (6,), "relu")), images, "heel", 1, "epsilon_gamma_box")
    assert told.delta.abs().max() < 1e-3
    rows = [(INPUT_LAYER, ZBox(torch.zeros(3), torch.ones(3)))]
    with pytest.raises(InputError, match="a bound for each of 2 channels in ZBox"):
        explain(similarity_model(), pictures(), "heel", 1, [*rows, *PRESETS["epsilon_gamma_box"][1:]])


def test_lost_relevance_warns_with_the_layers_that_lost_it():
    model, images = similarity_model(), pictures()
    with pytest.warns(
        LostRelevanceWarning, match=r"In 3 of 3 explanations .*by more than 0.2 of it .*Most was changed by"
    ):
        told = explain(model, images, "heel", 1, largest_delta=0.2)
    assert same(told, explain(model, images, "heel", 1))
    greedy = [
        (INPUT_LAYER, Flat()),
        ("9", Epsilon(1e3)),
        (nn.Conv2d, AlphaBeta(bias="ignore")),
        (nn.Linear, Epsilon(0.0, "share")),
    ]
    with pytest.warns(LostRelevanceWarning, match=r"Most was changed by 9 \("):
        explain(model, images, "heel", 1, greedy, largest_delta=0.1)


def test_score_of_zero_warns_of_nothing():
    model = similarity_model()
    model.head("heel").weight.data.zero_()
    told = explain(model, pictures(), "heel", 1, "epsilon_plus_flat")
    assert not told.delta.isfinite().any()
    assert (told.relevance == 0).all()


def test_relevance_that_explodes_is_refused():
    model, preset = similarity_model(dtype=torch.float32), [((nn.Conv2d, nn.Linear), Epsilon(0.0, "ignore"))]
    model.encoder[-1].weight.data[:, 0], model.encoder[9].weight.data[0] = 1e25, 1e-28
    model.encoder[9].bias.data[0] = 1
    with pytest.raises(CannotExplain, match=r'NaN or infinite.*bias="share"'):
        explain(model, pictures(dtype=torch.float32), "heel", 1, preset)
