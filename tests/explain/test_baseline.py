"""Relevance measured from a baseline: the difference of scores, nothing where an image is like its baseline."""

import copy
import warnings

import pytest
import torch
from captum.attr import DeepLift
from torch import nn

from simec_vision.encoders import ResidualNet
from simec_vision.explain import bilrp, explain, explain_pair
from simec_vision.explain.baseline import FromBaseline, baseline_images
from simec_vision.explain.presets import PRESETS, measured_from
from simec_vision.explain.rules import Epsilon, ZBox
from simec_vision.explain.winners import WinnersTakeAll
from simec_vision.items import InputError
from tests.explain.test_relevance import chain, pictures, similarity_model

PRESET = "epsilon_gamma_baseline"


def framed(count=3, inside=slice(2, 6)):
    """Pictures in a frame of one colour each, which is their background."""
    images = pictures(count)
    colours = torch.linspace(-1, 1, 2 * count, dtype=images.dtype).reshape(count, 2, 1, 1)
    frame = torch.ones(8, 8, dtype=torch.bool)
    frame[inside, inside] = False
    return torch.where(frame, colours, images), colours.expand_as(images)


@pytest.mark.parametrize("encoder", [chain, lambda: ResidualNet(5, width=2, channels=2)])
def test_relevance_is_what_the_score_gains_over_the_blank(encoder):
    model, (images, blank) = similarity_model(encoder()).eval(), framed()
    told = explain(model, images, "heel", 1, PRESET, largest_delta=torch.inf)
    with torch.no_grad():
        expected = model(images)["heel"][:, 1], model(blank)["heel"][:, 1]
    torch.testing.assert_close((told.score, told.baseline), expected)
    torch.testing.assert_close(told.relevance.sum(dim=(1, 2, 3)), expected[0] - expected[1], rtol=1e-4, atol=1e-5)
    assert told.delta.abs().max() < 1e-3


@pytest.mark.parametrize(("rows", "inside"), [(PRESETS[PRESET], slice(1, 7)), (PRESETS[PRESET][1:], slice(3, 5))])
def test_pixels_like_the_blank_get_nothing(rows, inside):
    images, _ = framed(inside=slice(3, 5))
    relevance = explain(similarity_model(), images, "heel", 1, rows, largest_delta=torch.inf).relevance
    assert relevance[:, :, inside, inside].flatten(1).any(dim=1).all()
    relevance[:, :, inside, inside] = 0  # flat reaches from pixel to pixel of a 3 × 3 kernel
    assert not relevance.any()


@pytest.mark.parametrize("colour", [None, torch.tensor([0.3, -0.2]).double().reshape(2, 1, 1)])
def test_epsilon_rule_is_deeplifts_rescale_rule(colour):
    encoder = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 5)),
    )
    model, (images, blank) = similarity_model(encoder), framed()
    rows = [((nn.Conv2d, nn.Linear, nn.AvgPool2d), FromBaseline(Epsilon(0.0, "ignore"), colour))]
    baselines = blank if colour is None else colour.expand_as(images)
    with warnings.catch_warnings(action="ignore"):  # DeepLift tells of its hooks
        expected = DeepLift(copy.deepcopy(model.branch("heel"))).attribute(images, baselines, target=1)
    torch.testing.assert_close(explain(model, images, "heel", 1, rows).relevance, expected.detach())


def test_pooled_values_go_to_the_winner_of_what_is_larger():
    rule = FromBaseline(WinnersTakeAll()).noting((torch.tensor([[[[0.0, 3.0], [0.0, 0.0]]]]),))
    pool, relevance = nn.MaxPool2d(2), torch.ones(1, 1, 1, 1)
    grown = rule.propagate(pool, torch.tensor([[[[5.0, 0.0], [0.0, 0.0]]]]), relevance)
    shrunk = rule.propagate(pool, torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), relevance)
    assert grown.flatten().tolist() == [1, 0, 0, 0]
    assert shrunk.flatten().tolist() == [0, 1, 0, 0]


def test_cells_sum_to_what_both_images_gain_together():
    model, (images, blank) = similarity_model(), framed(4)
    told = bilrp(model, images[:2], images[2:], PRESET, pool=3)
    with torch.no_grad():
        first, second = (model.embed(images[part]) - model.embed(blank[part]) for part in (slice(2), slice(2, 4)))
    expected = (first * second).sum(dim=1)
    torch.testing.assert_close(told.total(), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(told.score - told.baseline, expected)
    assert told.delta.abs().max() < 1e-3


def test_given_baseline_takes_the_place_of_the_background():
    model, (images, _) = similarity_model(), framed()
    for baseline in (images[0], images[0].mean(dim=(1, 2), keepdim=True)):
        told = explain_pair(model, images, images.flip(0), measured_from(baseline), largest_delta=torch.inf)
        with torch.no_grad():
            blank = model.embed(baseline.expand(1, *images.shape[1:]))
            expected = (blank * model.embed(images.flip(0))).sum(dim=1)
        torch.testing.assert_close(told.baseline, expected)
    assert not explain(model, images[:1], "heel", 0, measured_from(images[0]), largest_delta=9e9).relevance.any()


def test_one_baseline_serves_all_images_of_one_background():
    images, blank = framed()
    assert baseline_images(images, None).shape == images.shape
    torch.testing.assert_close(baseline_images(images, None), blank)
    assert baseline_images(images[:1].repeat(3, 1, 1, 1), None).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            lambda: measured_from(torch.zeros(3, 1, 1).double()),
            r"\(2, 8, 8\), or \(2, 1, 1\) for a colour, got \(3, 1, 1\)",
        ),
        (lambda: measured_from(torch.zeros(2, 4, 4).double()), r"\(2, 8, 8\).*got \(2, 4, 4\)"),
        (lambda: measured_from(torch.zeros(2, 1, 1), "a_flat"), "measured from a baseline, got 'a_flat'"),
        (
            lambda: [
                (nn.Conv2d, FromBaseline(Epsilon(), torch.zeros(2, 1, 1).double())),
                (nn.Linear, FromBaseline(Epsilon(), torch.ones(2, 1, 1).double())),
            ],
            "one baseline for all rules",
        ),
    ],
)
def test_mistakes_in_baselines_are_named(rows, message):
    with pytest.raises(InputError, match=message):
        explain(similarity_model(), pictures(), "heel", 1, rows())


def test_image_like_its_blank_keeps_all_of_nothing():
    model, (images, blank) = similarity_model(), framed(2)
    told = bilrp(model, blank, images, PRESET, pool=4)
    assert told.kept.tolist() == [1, 1]
    assert not told.cells().any()


def test_rule_without_a_meaning_for_differences_is_refused():
    with pytest.raises(InputError, match=r"measured from a baseline \(Epsilon, Gamma, AlphaBeta, Flat, WSquare"):
        FromBaseline(ZBox())
