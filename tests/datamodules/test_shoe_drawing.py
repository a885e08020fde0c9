import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from simec_vision.datamodules import shoe_drawing
from simec_vision.datamodules.shoe_drawing import (
    BRAND_MARKS,
    CATEGORIES,
    CLOSURES,
    COLOURS,
    HEEL_HEIGHTS,
    SPURIOUS_TIES,
    TEXTURES,
    Shoe,
    draw_shoe,
    draw_shoes,
    item_seed,
    sample_shoes,
)

PLAIN = Shoe("Shoes", 3, ("Lace up",), "navy", "none")
SIZE = 64


def attributes(shoes):
    table = {
        name: [getattr(shoe, name) for shoe in shoes]
        for name in ("category", "heel", "colour", "brand_mark", "texture")
    }
    return table | {closure: [closure in shoe.closure for shoe in shoes] for closure in CLOSURES}


def p_value(first, second):
    counts = np.zeros((len(set(first)), len(set(second))))
    np.add.at(counts, (np.unique(first, return_inverse=True)[1], np.unique(second, return_inverse=True)[1]), 1)
    return chi2_contingency(counts).pvalue


@pytest.fixture(scope="module")
def shoes():
    return sample_shoes(5000, seed=0)


# --- what is drawn ---


def test_words_are_those_of_zappos50k():
    assert HEEL_HEIGHTS == (
        "Flat", "Under 1in", "1in - 1 3/4in", "2in - 2 3/4in", "3in - 3 3/4in", "4in - 4 3/4in", "5in & over",
    )  # fmt: skip
    assert CATEGORIES == ("Shoes", "Boots", "Sandals", "Slippers")
    assert CLOSURES == ("Lace up", "Buckle", "Ankle Strap", "Zipper", "Slip-On", "Pull-on", "Hook and Loop")


def test_every_attribute_takes_all_its_values_equally_often(shoes):
    for name, values in {
        "heel": range(7),
        "category": CATEGORIES,
        "colour": COLOURS,
        "brand_mark": BRAND_MARKS,
    }.items():
        counts = [sum(getattr(shoe, name) == value for shoe in shoes) for value in values]
        assert min(counts) > 0.8 * len(shoes) / len(counts)


def test_attributes_are_independent(shoes):
    table = attributes(shoes)
    pairs = [pair for pair in itertools.combinations(table, 2) if not set(pair) <= set(CLOSURES)]
    assert min(p_value(table[first], table[second]) for first, second in pairs) > 0.05 / len(pairs)


def test_a_shoe_has_one_to_three_different_closures(shoes):
    assert {len(shoe.closure) for shoe in shoes} == {1, 2, 3}
    assert all(len(set(shoe.closure)) == len(shoe.closure) for shoe in shoes)


@pytest.mark.parametrize("spurious", ["colour", "brand_mark"])
def test_spurious_tie_is_one_to_one_and_leaves_the_rest(shoes, spurious):
    tied = [SPURIOUS_TIES[spurious](shoe) for shoe in shoes]
    pairs = {(shoe.heel, getattr(shoe, spurious)) for shoe in tied}
    assert len(pairs) == len({value for _, value in pairs}) == len(HEEL_HEIGHTS)
    assert [replace(shoe, **{spurious: ""}) for shoe in tied] == [replace(shoe, **{spurious: ""}) for shoe in shoes]


def test_samples_differ_by_seed_and_repeat_by_seed():
    assert sample_shoes(20, seed=1) == sample_shoes(20, seed=1)
    assert sample_shoes(20, seed=1) != sample_shoes(20, seed=2)


# --- determinism ---


def test_same_arguments_same_pixels():
    first, again, other = draw_shoe(PLAIN, SIZE, 1), draw_shoe(PLAIN, SIZE, 1), draw_shoe(PLAIN, SIZE, 2)
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert not np.array_equal(first.heel_mask, other.heel_mask)


def test_two_processes_draw_what_one_draws(monkeypatch):
    monkeypatch.setattr(shoe_drawing, "SMALLEST_POOL", 0)
    some = sample_shoes(120, seed=3)
    alone, together = draw_shoes(some, 32, 5, processes=1), draw_shoes(some, 32, 5, processes=2)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_set_holds_single_drawings_in_order():
    some = sample_shoes(60, seed=4)
    images, heel_masks, closure_masks = draw_shoes(some, 40, 6, processes=1)
    last = draw_shoe(some[59], 40, item_seed(6, 59))
    assert images.shape == (60, 40, 40, 3)
    assert np.array_equal(images[59], last.image)
    assert np.array_equal(heel_masks[59], last.heel_mask)
    assert np.array_equal(closure_masks[59], last.closure_mask)


def test_no_shoes():
    images, heel_masks, closure_masks = draw_shoes([], 40, 0)
    assert images.shape == (0, 40, 40, 3)
    assert heel_masks.shape == closure_masks.shape == (0, 40, 40)


# --- pictures and masks ---


@pytest.mark.parametrize("size", [32, 57, 136, 200])
def test_sizes(size):
    drawing = draw_shoe(PLAIN, size)
    assert drawing.image.shape == (size, size, 3)
    assert drawing.image.dtype == np.uint8
    assert drawing.heel_mask.shape == drawing.closure_mask.shape == (size, size)
    assert drawing.heel_mask.any()
    assert drawing.closure_mask.mean() > 0.01


def test_too_small():
    with pytest.raises(ValueError, match="at least 32 pixels, got 31"):
        draw_shoe(PLAIN, 31)


def test_masks_of_all_categories_heels_and_closures():
    for i, (category, heel, closure) in enumerate(itertools.product(CATEGORIES, range(7), CLOSURES)):
        drawing = draw_shoe(Shoe(category, heel, (closure,), "navy", "none"), SIZE, i)
        inside = drawing.image.mean(axis=-1) < 250
        assert drawing.heel_mask.sum() >= 5, (category, heel)
        assert drawing.closure_mask.mean() > 0.012, (category, heel, closure)
        assert not (drawing.heel_mask & drawing.closure_mask).any()
        assert inside[drawing.heel_mask].mean() > 0.9
        assert inside[drawing.closure_mask].mean() > 0.9, (category, heel, closure)


def test_closures_leave_most_of_each_other_visible():
    for i, closures in enumerate(itertools.combinations(CLOSURES, 3)):
        for category in CATEGORIES:
            shoe = Shoe(category, i % 7, closures, "navy", "none")
            pairs = [tuple(name for name in closures if name != left_out) for left_out in closures]
            drawn, *without = (
                draw_shoe(replace(shoe, closure=some), SIZE, i).closure_mask for some in (closures, *pairs)
            )
            assert min(drawn.sum() - mask.sum() for mask in without) > 0.006 * drawn.size, (category, closures)


def test_nothing_touches_the_border_of_the_picture(shoes):
    for i, shoe in enumerate(shoes[:300]):
        drawing = draw_shoe(shoe, SIZE, i)
        drawn = drawing.heel_mask | drawing.closure_mask
        assert not np.delete(drawn, np.s_[1:-1], axis=0).any(), shoe
        assert not np.delete(drawn, np.s_[1:-1], axis=1).any(), shoe


def test_background_is_white_up_to_noise(shoes):
    for i, shoe in enumerate(shoes[:50]):
        image = draw_shoe(shoe, 136, i).image.astype(float)
        corners = np.concatenate([image[:4, :4].reshape(-1), image[:4, -4:].reshape(-1)])
        assert corners.mean() > 251
        assert corners.min() > 230
        assert (image.min(axis=-1) > 235).mean() > 0.4


def test_heel_grows_with_its_level():
    def height(category, level, seed):
        rows = np.flatnonzero(
            draw_shoe(Shoe(category, level, ("Lace up",), "red", "none"), 136, seed).heel_mask.any(axis=1)
        )
        return rows[-1] - rows[0]

    heights = np.array([[height("Shoes", level, seed) for seed in range(20)] for level in range(7)])
    assert (np.diff(heights.mean(axis=1)) > 2).all()


def test_heel_is_at_the_bottom_and_closures_above():
    for seed in range(10):
        drawing = draw_shoe(replace(PLAIN, heel=4), SIZE, seed)
        rows = np.arange(SIZE)
        assert np.average(rows, weights=drawing.heel_mask.sum(1)) > np.average(
            rows, weights=drawing.closure_mask.sum(1)
        )


@pytest.mark.parametrize("category", CATEGORIES)
def test_closures_change_their_own_pixels_only(category):
    for seed, (first, second) in enumerate(itertools.combinations(CLOSURES, 2)):
        one, two = (draw_shoe(Shoe(category, 2, (name,), "green", "dot"), 136, seed) for name in (first, second))
        change = np.abs(one.image.astype(float) - two.image).sum(axis=-1)
        assert change[one.closure_mask | two.closure_mask].sum() > 0.8 * change.sum(), (first, second)
        assert np.array_equal(one.heel_mask & ~two.closure_mask, two.heel_mask & ~one.closure_mask)


@pytest.mark.parametrize("change", [{"colour": "pink"}, {"brand_mark": "star"}, {"texture": "quilted"}])
def test_other_features_leave_the_masks(change):
    first, second = draw_shoe(PLAIN, SIZE, 3), draw_shoe(replace(PLAIN, **change), SIZE, 3)
    assert np.array_equal(first.heel_mask, second.heel_mask)
    assert np.array_equal(first.closure_mask, second.closure_mask)
    assert not np.array_equal(first.image, second.image)


def test_toes_point_left_and_right():
    columns = [np.flatnonzero(draw_shoe(PLAIN, SIZE, seed).heel_mask.any(axis=0)).mean() for seed in range(60)]
    assert 0.3 < np.mean(np.array(columns) < SIZE / 2) < 0.7


def test_textures_differ():
    images = [draw_shoe(replace(PLAIN, texture=texture), SIZE, 0).image for texture in TEXTURES]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(images, 2))
