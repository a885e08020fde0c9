"""The drawn shoes as a source of images."""

import numpy as np
import pytest

from simec_vision import InputError
from simec_vision.datamodules import DrawnShoes
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


def test_an_unknown_trap_is_named():
    with pytest.raises(InputError, match="spurious attribute, got 'color': did you mean 'colour'"):
        drawn(spurious="color")
