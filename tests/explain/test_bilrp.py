import copy

import captum.attr._utils.lrp_rules as captum_rules
import numpy as np
import pytest
import torch
from torch import nn

from simec_vision import SimilarityHead
from simec_vision.encoders import PlainCNN, ResidualNet
from simec_vision.explain import CannotExplain, bilrp, connect, explain, explain_pair, factors, leading_directions
from simec_vision.explain.presets import PRESETS
from simec_vision.explain.readout import Readout
from simec_vision.explain.rules import Epsilon
from tests.explain.test_relevance import LOSSLESS, chain, pictures, similarity_model, snapshot


def lossless_model():
    """No biases, and no output whose relevance could find no way on."""
    encoder = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5, bias=False)),
    )
    model = similarity_model(encoder)
    encoder[3].weight.data.abs_()
    return model


def pooled(relevance, pool):
    """Sum relevance (channel, height, width) over channels and cells, pixel by pixel."""
    _, height, width = relevance.shape
    cells = np.zeros((-(-height // pool), -(-width // pool)))
    for row in range(height):
        for column in range(width):
            cells[row // pool, column // pool] += float(relevance[:, row, column].sum())
    return cells


def slow_bilrp(model, image, other, rows, pool):
    """One explanation per dimension and image, undamped at the embedding, and an outer product."""
    model, dims = copy.deepcopy(model), model.embedding_dim
    model.heads["dimensions"] = SimilarityHead(dims, dims, weight=torch.eye(dims, dtype=torch.float64))
    rows, cells = [(Readout, Epsilon(0.0)), *rows], 0
    for dimension in range(dims):
        first, second = (
            pooled(explain(model, each[None], "dimensions", dimension, preset=rows).relevance[0], pool)
            for each in (image, other)
        )
        cells = cells + np.multiply.outer(first, second)
    return cells


@pytest.mark.parametrize("preset", ["a_flat", "epsilon", "lossless"])
@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_bilrp_is_one_explanation_per_dimension_and_an_outer_product(preset, pool):
    model, images, others = similarity_model(chain(pool=pool)), pictures(2), pictures(4)[2:]
    for parameter in model.encoder.parameters():
        parameter.data.mul_(2)
    rows = LOSSLESS if preset == "lossless" else PRESETS[preset]
    cells = bilrp(model, images, others, preset=LOSSLESS if preset == "lossless" else preset, pool=3).cells()
    assert cells.shape == (2, 3, 3, 3, 3)  # 8 pixels: the last cells have 2
    for pair in range(2):
        expected = slow_bilrp(model, images[pair], others[pair], rows, 3)
        assert np.abs(expected).max() > 1e-8
        np.testing.assert_allclose(cells[pair], expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


def test_adaptive_pooling_batchnorm_and_tanh_like_one_by_one():
    encoder = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        *(nn.Linear(12, 5), nn.Tanh()),
    )
    model, images = similarity_model(encoder), pictures(2)
    cells = bilrp(model, images[:1], images[1:], pool=4).cells()
    expected = slow_bilrp(model, *images, PRESETS["a_flat"], 4)
    np.testing.assert_allclose(cells[0], expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


def test_without_biases_the_cells_sum_to_the_score_and_to_the_first_order():
    model, images, others = lossless_model(), pictures(3), pictures(6)[3:]
    told = bilrp(model, images, others, preset=LOSSLESS, pool=2)
    score = (model.embed(images) * model.embed(others)).sum(dim=1).detach()
    assert torch.allclose(told.score, score, rtol=1e-12)
    assert torch.allclose(told.cells().sum(dim=(1, 2, 3, 4)), score, rtol=1e-9)
    assert told.delta.abs().max() < 1e-9
    pairs = ((images, others, told.cells().sum(dim=(3, 4))), (others, images, told.cells().sum(dim=(1, 2))))
    for mine, theirs, marginal in pairs:
        first_order = explain_pair(model, mine, theirs, preset=LOSSLESS).relevance
        for one, all_of_it in zip(marginal, first_order, strict=True):
            assert one.abs().max() > 1e-6
            np.testing.assert_allclose(one, pooled(all_of_it, 2), rtol=1e-8, atol=1e-12)


def test_exchanging_the_images_exchanges_the_cells():
    model, images, others = similarity_model(), pictures(3), pictures(6)[3:]
    there, back = bilrp(model, images, others), bilrp(model, others, images)
    assert torch.allclose(there.cells(), back.cells().permute(0, 3, 4, 1, 2), rtol=1e-12)
    assert torch.equal(there.score, back.score)


def test_total_and_marginals_are_sums_of_the_cells_and_delta_is_what_biases_took():
    told = bilrp(similarity_model(), pictures(3), pictures(6)[3:], pool=3)
    cells = told.cells()
    assert torch.allclose(told.total(), cells.sum(dim=(1, 2, 3, 4)), rtol=1e-10)
    mine, others = told.marginals()
    assert torch.allclose(mine, cells.sum(dim=(3, 4)), rtol=1e-9, atol=1e-14)
    assert torch.allclose(others, cells.sum(dim=(1, 2)), rtol=1e-9, atol=1e-14)
    assert torch.allclose(told.delta, (told.total() - told.score) / told.score, rtol=1e-12)
    assert told.delta.abs().min() > 1e-3
    assert torch.equal(told.kept, torch.ones(3).double())


@pytest.mark.parametrize("block", [1, 40, 2**22])
def test_strongest_are_those_of_all_cells(monkeypatch, block):
    from simec_vision.explain.bilrp import _largest

    monkeypatch.setitem(_largest.__globals__, "BLOCK", block)
    told = bilrp(similarity_model(), pictures(2), pictures(4)[2:], pool=3)
    strongest, cells = told.strongest(7, pair=1), told.cells()[1]
    assert strongest.relevance.tolist() == sorted(strongest.relevance.tolist(), key=lambda value: -abs(value))
    np.testing.assert_allclose(strongest.relevance.abs(), sorted(cells.abs().flatten(), reverse=True)[:7], rtol=1e-12)
    for relevance, mine, others in zip(strongest.relevance, strongest.mine, strongest.others, strict=True):
        assert cells[(*mine, *others)] == pytest.approx(relevance.item(), rel=1e-12)
    assert len(told.strongest(1000).relevance) == 81


def test_images_of_another_size():
    encoder = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    others = torch.randn(1, 2, 6, 12, generator=torch.Generator().manual_seed(3)).double()
    told = bilrp(similarity_model(encoder), pictures(1), others, pool=3)
    assert told.cells().shape == (1, 3, 3, 2, 4)
    first = told.strongest(1)
    assert told.cells()[(0, *first.mine[0], *first.others[0])] == pytest.approx(first.relevance.item())


def test_factors_serve_all_pairs():
    model, images = similarity_model(), pictures(3)
    once = factors(model, images, pool=3)
    told = connect(once[[0, 0, 2]], once[[1, 2, 1]])
    expected = bilrp(model, images[[0, 0, 2]], images[[1, 2, 1]], pool=3)
    for name in ("mine", "others", "score", "kept"):
        assert torch.allclose(getattr(told, name), getattr(expected, name), rtol=1e-12)
    assert len(once[1]) == 1
    assert torch.equal(once[1].maps[0], once.maps[1])


@pytest.mark.parametrize("chunk", [1, 2, 5, None])
def test_chunks_do_not_matter(chunk, monkeypatch):
    from simec_vision.explain.factors import _directions_at_once

    model, images = similarity_model(), pictures(2)
    expected = factors(model, images, chunk=3)
    monkeypatch.setitem(_directions_at_once.__globals__, "MAPS", 2 * 8 * 8 * 3 * 8)  # two of the first layer's maps
    assert _directions_at_once(model.encoder, images[:1]) == 2
    assert torch.allclose(factors(model, images, chunk=chunk).maps, expected.maps, rtol=1e-12)


def test_turned_directions_do_not_matter_and_fewer_keep_their_share():
    model, images, others = similarity_model(), pictures(2), pictures(4)[2:]
    turned = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(4)).double()).Q
    whole, again = bilrp(model, images, others), bilrp(model, images, others, directions=turned)
    assert torch.allclose(whole.cells(), again.cells(), atol=1e-10 * whole.cells().abs().max())
    assert torch.allclose(again.kept, torch.ones(2).double(), rtol=1e-10)
    some = bilrp(model, images, others, directions=turned[:, :2])
    parts = [(model.embed(each) @ turned[:, :2]).detach() for each in (images, others)]
    assert torch.allclose(some.kept, (parts[0] * parts[1]).sum(dim=1) / whole.score, rtol=1e-9)
    assert torch.equal(some.score, whole.score)
    rest = bilrp(model, images, others, directions=turned[:, 2:])
    assert torch.allclose(some.cells() + rest.cells(), whole.cells(), atol=1e-10 * whole.cells().abs().max())


def test_leading_directions_of_given_embeddings_keep_all_of_their_scores():
    model, images = similarity_model(), pictures(2)
    with torch.no_grad():
        directions = leading_directions(model.embed(images), 2)
    assert bilrp(model, images[:1], images[1:], directions=directions).kept.item() == pytest.approx(1, rel=1e-9)
    rows = torch.diag(torch.tensor([1.0, 3.0, 2.0]))
    assert leading_directions(rows, 2).abs().tolist() == [[0, 0], [1, 0], [0, 1]]


def test_cosine_is_the_inner_product_over_the_lengths():
    model, images, others = similarity_model(), pictures(2), pictures(4)[2:]
    inner, cosine = bilrp(model, images, others), bilrp(model, images, others, cosine=True)
    embeddings = model.embed(images).detach(), model.embed(others).detach()
    assert torch.allclose(cosine.score, nn.functional.cosine_similarity(*embeddings), rtol=1e-10)
    lengths = (embeddings[0].norm(dim=1) * embeddings[1].norm(dim=1))[:, None, None, None, None]
    assert torch.allclose(cosine.cells() * lengths, inner.cells(), rtol=1e-9, atol=1e-14)
    assert torch.allclose(cosine.delta, inner.delta, rtol=1e-9)


def test_model_is_left_as_it_was_and_the_callers_mode_does_not_matter():
    encoder = PlainCNN(5, size=8, channels=2, widths=(3, 4), dropout=0.5)
    model, images = similarity_model(encoder, dtype=torch.float32).train(), pictures(2, dtype=torch.float32)
    modules, state = snapshot(model), copy.deepcopy(model.state_dict())
    expected = bilrp(model, images[:1], images[1:])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        again = bilrp(model, images[:1], images[1:])
    for name in ("mine", "others", "score"):
        assert torch.equal(getattr(again, name), getattr(expected, name))
        assert not getattr(expected, name).requires_grad
    assert snapshot(model) == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"others": pictures(2)}, r"as many others as images \(3\), got 2"),
        ({"others": torch.zeros(3, 1, 8, 8)}, r"shape .*got \(3, 1, 8, 8\)"),
        ({"pool": 0}, "between 1 and 8 for images of 8 × 8, got 0"),
        ({"pool": 9}, "between 1 and 8 for images of 8 × 8, got 9"),
        ({"pool": 2.5}, "between 1 and 8 .*got 2.5"),
        ({"preset": "aflat"}, "'aflat': did you mean 'a_flat'"),
        ({"preset": [((nn.Conv2d, nn.Linear), captum_rules.EpsilonRule())]}, "rules of .*got Captum's EpsilonRule"),
        ({"directions": torch.eye(4)}, r"\(embedding, direction\) = \(5, at most 5\), got \(4, 4\)"),
        ({"directions": torch.ones(5, 2)}, "Expected orthonormal directions, got columns .* off by 5"),
        ({"directions": torch.full((5, 1), torch.nan)}, "Expected orthonormal directions"),
        ({"chunk": 0}, "Expected chunk, .* at least 1, got 0"),
    ],
)
def test_mistakes_are_named(arguments, message):
    given = {"images": pictures(), "others": pictures(6)[3:], **arguments}
    with pytest.raises(ValueError, match=message):
        bilrp(similarity_model(), **given)


def test_mistakes_in_factors_are_named():
    model, images = similarity_model(), pictures()
    some = factors(model, images)
    for other, message in [
        (some[:2], r"as many others as images \(3\), got 2"),
        (factors(model, images, pool=2), "cells of 4 pixels, got 2"),
        (factors(model, images, directions=torch.eye(5)[:, :4]), "along the same directions"),
    ]:
        with pytest.raises(ValueError, match=message):
            connect(some, other)
    with pytest.raises(ValueError, match="count at least 1 and pair between 0 and 2, got 0 and 0"):
        connect(some, some).strongest(0)
    with pytest.raises(ValueError, match="got 5 and 3"):
        connect(some, some).strongest(5, pair=3)
    with pytest.raises(ValueError, match=r"at least 6 of both.*got \(9, 5\)"):
        leading_directions(torch.ones(9, 5), 6)


def test_model_that_embeds_one_of_the_images_differently_is_refused():
    model, images = similarity_model(), pictures(6)
    model.encoder.register_forward_hook(lambda module, inputs, out: out + (inputs[0] == images[5]).all())
    with pytest.raises(CannotExplain, match="more than its layers say"):
        factors(model, images)


def test_what_cannot_be_explained_is_refused():
    softmax = nn.Sequential(nn.Flatten(), nn.Linear(128, 5), nn.Softmax(dim=1))
    with pytest.raises(CannotExplain, match="Softmax"):
        bilrp(similarity_model(softmax), pictures(), pictures())


def test_sums_of_branches_are_explained():
    model, images = similarity_model(ResidualNet(5, width=2, channels=2)), pictures(2)
    told = bilrp(model, images[:1], images[1:], preset="epsilon_plus_flat", pool=2)
    assert abs(float(told.delta[0])) < 1e-3
    first, _ = told.marginals()
    pair = explain_pair(model, images[:1], images[1:], preset="epsilon_plus_flat")
    np.testing.assert_allclose(first[0], pooled(pair.relevance[0], 2), atol=1e-3 * float(first.abs().max()))


def test_encoders_of_maps_are_refused():
    with pytest.raises(ValueError, match=r"\(batch, embedding\) = \(1, 2\), got \(1, 2, 6, 6\)"):
        bilrp(similarity_model(nn.Sequential(nn.Conv2d(2, 2, 3))), pictures(), pictures())
