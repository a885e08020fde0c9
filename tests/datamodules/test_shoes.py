"""The drawn shoes as a source of images."""

from dataclasses import replace

import numpy as np
import pytest

from simec_vision import InputError
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.shoe_drawing import draw_shoe, item_seed
from simec_vision.datamodules.splits import ordered_split


def drawn(**options):
    return DrawnShoes(count=200, size=32, seed=5, cache=False, **options)


def test_a_tenth_each_is_held_out():
    splits = drawn().loaded.splits
    expected = ordered_split(np.arange(200), {"validation": 0.1, "test": 0.1}, seed=5)
    assert {name: len(index) for name, index in splits.items()} == {"train": 160, "validation": 20, "test": 20}
    assert all(np.array_equal(splits[name], expected[name]) for name in splits)


@pytest.mark.parametrize(("spurious", "column"), [("colour", "Colour"), ("brand_mark", "BrandMark")])
def test_a_trap_is_set_in_training_only(spurious, column):
    plain, tied = drawn(), drawn(spurious=spurious)
    train, test = tied.split("train"), tied.split("test")
    heels, values = tied.items.columns["HeelHeight"], tied.items.columns[column]
    assert len({*zip(heels[train], values[train], strict=True)}) == len(set(heels[train])) == 7
    assert len({*zip(heels[test], values[test], strict=True)}) > 7
    assert np.array_equal(values[test], plain.items.columns[column][test])
    assert np.array_equal(tied.images(test), plain.images(test))
    assert not np.array_equal(tied.images(train), plain.images(train))


def test_pictures_change_where_an_attribute_is_drawn_anew():
    data, index = drawn(), np.array([7, 3])
    changes, masks, shoes = data.changes(index), data.masks(index), data.shoes()
    for place, item in enumerate(index):
        seed, own = item_seed(5, int(item)), data.images(index)[place].astype(float)
        others = [replace(shoes[item], heel=heel) for heel in range(7) if heel != shoes[item].heel]
        slow = sum(abs(draw_shoe(each, 32, seed).image - own).sum(axis=2) for each in others) / 6
        np.testing.assert_allclose(changes["heel"][place], slow, rtol=1e-6)
    assert changes["closure"][masks["closure"]].mean() > 3 * changes["closure"][~masks["closure"]].mean()


def test_an_unknown_trap_is_named():
    with pytest.raises(InputError, match="spurious attribute, got 'color': did you mean 'colour'"):
        drawn(spurious="color")
