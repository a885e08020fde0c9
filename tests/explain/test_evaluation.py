import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from simec_vision.explain.evaluation import (
    dilated,
    rank_correlation,
    relevance_mass,
    relevance_rank,
    relevance_share,
    white_background,
)
from simec_vision.items import InputError


def maps(count=4, height=6, width=5):
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.randn(count, height, width, generator=generator)
    return heatmaps, torch.rand(count, height, width, generator=generator) < 0.3


def slow_mass(heatmap, mask):
    inside = total = 0.0
    for row in range(heatmap.shape[0]):
        for column in range(heatmap.shape[1]):
            value = max(float(heatmap[row, column]), 0.0)
            total += value
            inside += value if mask[row, column] else 0.0
    return inside / total


def slow_rank(heatmap, mask):
    pixels = [(-float(heatmap[r, c]), r, c) for r in range(heatmap.shape[0]) for c in range(heatmap.shape[1])]
    top = sorted(pixels)[: int(mask.sum())]
    return sum(bool(mask[r, c]) for _, r, c in top) / int(mask.sum())


@pytest.mark.parametrize(("fast", "slow"), [(relevance_mass, slow_mass), (relevance_rank, slow_rank)])
def test_localisation_is_what_the_slow_twin_gives(fast, slow):
    heatmaps, masks = maps()
    heatmaps = (3 * heatmaps).round()  # with ties
    expected = [slow(heatmap, mask) for heatmap, mask in zip(heatmaps, masks, strict=True)]
    np.testing.assert_allclose(fast(heatmaps, masks), expected, rtol=1e-6)


def test_localisation_of_perfect_opposite_and_empty():
    _, masks = maps()
    for measure in (relevance_mass, relevance_rank):
        assert measure(masks.float(), masks).tolist() == [1.0] * 4
        assert measure((~masks).float(), masks).max() == 0.0
        assert measure(torch.ones(1, 6, 5), torch.zeros(1, 6, 5, dtype=torch.bool)).isnan().all()
    assert relevance_mass(-masks.float(), masks).tolist() == [0.0] * 4  # nothing is positive


def test_share_counts_both_signs():
    heatmaps = torch.tensor([[[3.0, -1.0], [0.0, 4.0]]])
    mask = torch.tensor([[[True, True], [False, False]]])
    assert relevance_share(heatmaps, mask).item() == 0.5
    assert relevance_share(-heatmaps, mask).item() == 0.5


def test_rank_correlation_is_spearmans():
    heatmaps, _ = maps()
    heatmaps = (2 * heatmaps).round()
    others = heatmaps.flip(0) + 0.5 * heatmaps
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(heatmaps, others, strict=True)]
    np.testing.assert_allclose(rank_correlation(heatmaps, others), expected, atol=1e-12)
    assert rank_correlation(heatmaps, heatmaps**3).allclose(torch.ones(4, dtype=torch.float64))
    assert rank_correlation(heatmaps, torch.zeros_like(heatmaps)).isnan().all()


def test_dilation_reaches_so_many_pixels_and_stops_at_the_edge():
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[0, 1, 5] = True
    expected = torch.zeros_like(mask)
    expected[0, 0:4, 3:7] = True
    assert torch.equal(dilated(mask, 2), expected)
    assert torch.equal(dilated(mask, 0), mask)


def test_white_inside_an_object_is_no_background():
    image = np.full((1, 6, 6, 3), 255, np.uint8)
    image[0, 1:5, 1:5] = 90
    image[0, 2:4, 2:4] = 250
    expected = np.ones((6, 6), bool)
    expected[1:5, 1:5] = False
    np.testing.assert_array_equal(white_background(image)[0], expected)
    assert not white_background(np.zeros((1, 4, 4, 3), np.uint8)).any()


def test_relevance_with_channels_is_refused():
    with pytest.raises(InputError, match=r"\(4, 3, 6, 5\) and \(4, 6, 5\): sum relevance over its channels"):
        relevance_mass(torch.zeros(4, 3, 6, 5), torch.zeros(4, 6, 5))
