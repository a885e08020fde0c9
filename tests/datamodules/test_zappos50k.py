"""UT-Zappos50K is read as published, and what is written in its layout is read back the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simec_vision.datamodules.zappos50k import HEEL_LEVELS, Zappos50K, product, read_zappos, write_zappos_layout
from simec_vision.items import InputError, Items

HEADER = "CID,Category,SubCategory,HeelHeight,Insole,Closure,Gender,Material,ToeStyle"
ROWS = (
    "100-1,Boots,Ankle,Flat,,Zipper,Women,,",
    "100-2,Boots,Ankle,5in & over,,Buckle;Zipper,Women,Suede,",
    "7-1,Shoes,Heels,1in - 1 3/4in,,,Girls,,Round Toe",
    "8-1,Shoes,Heels,,Leather,Buckle,Girls,,",
    "9-1,Shoes,Heels,Under 1in,,Buckle,Girls,,",
)
FILES = (
    "Boots/Ankle/Frye/100.1.jpg",
    "Boots/Ankle/Frye/100.2.jpg",
    "Shoes/Heels/Nina Kids/7.1.jpg",
    "Shoes/Heels/Nina Kids/8.1.jpg",
    "Shoes/Heels/Bär/9.1.jpg",
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMEC_VISION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return release(tmp_path / "zappos")


def release(root: Path, rows=ROWS, files=FILES, size=(136, 102)) -> Path:
    """Write a small release: the k-th image is all of grey level 10 k."""
    (root / "ut-zap50k-data").mkdir(parents=True)
    (root / "ut-zap50k-data" / "meta-data.csv").write_text("\n".join([HEADER, *rows]))
    for level, file in enumerate(files):
        path = root / "ut-zap50k-images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10 * level,) * 3).save(path, quality=100)
    return root


def rewrite(root: Path, rows) -> None:
    (root / "ut-zap50k-data" / "meta-data.csv").write_text("\n".join([HEADER, *rows]))


def provenance(root: Path, text: str) -> None:
    (root / "ut-zap50k-data" / "provenance.csv").write_text("\n".join(["CID,source", *text.split()]))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_attributes_are_read_as_published(root):
    items, paths = read_zappos(root)
    assert items.names.tolist() == ["100-1", "100-2", "7-1", "8-1", "9-1"]
    np.testing.assert_array_equal(items.columns["HeelHeight"], [0, 6, 2, np.nan, 1])
    assert items.columns["Closure"].tolist() == ["Zipper", "Buckle;Zipper", "", "Buckle", "Buckle"]
    assert items.columns["Brand"].tolist() == ["Frye", "Frye", "Nina Kids", "Nina Kids", "Bär"]
    assert items.columns["Insole"].tolist() == ["", "", "", "Leather", ""]
    assert [path.name for path in paths] == ["100.1.jpg", "100.2.jpg", "7.1.jpg", "8.1.jpg", "9.1.jpg"]


def test_items_without_heel_height_or_closure_are_dropped_unless_wanted(root):
    assert Zappos50K(root, test=0, validation=0).items.names.tolist() == ["100-1", "100-2", "9-1"]
    data = Zappos50K(root, drop_unknown=False, test=0, validation=0)
    assert len(data.items) == 5
    assert data.images(np.arange(5))[:, 68, 68, 0].tolist() == [0, 10, 20, 30, 40]


def test_the_wide_release_is_padded_with_seventeen_white_rows(root):
    image = Zappos50K(root, test=0, validation=0).images(np.array([1]))[0]
    assert image.shape == (136, 136, 3)
    assert (image == 10).all(axis=(1, 2)).nonzero()[0].tolist() == list(range(17, 119))
    assert (image[:17] == 255).all()
    assert (image[119:] == 255).all()


def test_the_square_release_is_preferred_and_taken_as_it_is(root):
    square = release(root / "other", size=(136, 136))
    shutil.copytree(square / "ut-zap50k-images", root / "ut-zap50k-images-square")
    assert (Zappos50K(root, test=0, validation=0).images(np.array([1])) == 10).all()


def test_another_size_is_resized_after_padding(root):
    image = Zappos50K(root, size=34, test=0, validation=0).images(np.array([0]))[0]
    assert image.shape == (34, 34, 3)
    assert (image[:3] == 255).all()
    assert (image[6:28] == 0).all()


@pytest.mark.parametrize("name", ["100-1.jpg", "100.1.jpg"])
def test_one_flat_folder_is_read_too(root, name):
    flat = root / "flat"
    flat.mkdir()
    shutil.copy(root / "ut-zap50k-data" / "meta-data.csv", flat)
    for file in FILES:
        shutil.copy(root / "ut-zap50k-images" / file, flat / Path(file).name)
    (flat / "100.1.jpg").rename(flat / name)
    items, paths = read_zappos(flat)
    assert items.columns["Brand"].tolist() == [""] * 5
    assert paths[0] == flat / name


def test_similarities_are_the_originals(root):
    data = Zappos50K(root, test=0, validation=0)
    targets = {name: rule.bind(data.items, np.arange(3)) for name, rule in data.similarities().items()}
    heel, closure = (targets[name](torch.arange(3)) for name in ("heel", "closure"))
    torch.testing.assert_close(heel, torch.tensor([[1, 0, 5 / 6], [0, 1, 1 / 6], [5 / 6, 1 / 6, 1]]))
    torch.testing.assert_close(closure, torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]))


def test_all_colours_of_a_product_are_in_one_split(tmp_path):
    rows = [f"{number}-{colour},Boots,Ankle,Flat,,Zipper,,," for number in range(20) for colour in range(3)]
    root = release(tmp_path / "zappos", rows, [f"{row.split(',')[0].replace('-', '.')}.jpg" for row in rows], (4, 3))
    data = Zappos50K(root, size=4, validation=0.2, test=0.15)
    splits = {name: data.items.names[index].tolist() for name, index in data.loaded.splits.items()}
    assert {name: len(names) for name, names in splits.items()} == {"train": 39, "validation": 12, "test": 9}
    products = [{product(name) for name in names} for names in splits.values()]
    assert len(set().union(*products)) == sum(len(part) for part in products) == 20


def test_only_verbatim_rows_are_held_out(tmp_path):
    rows = [f"{number}-1,Boots,Ankle,Flat,,Zipper,,," for number in range(20)]
    root = release(tmp_path / "zappos", rows, [f"{number}.1.jpg" for number in range(20)], (4, 3))
    provenance(root, " ".join(f"{number}-1,{'verbatim' if number < 6 else 'code50'}" for number in range(20)))
    data = Zappos50K(root, size=4, validation=0.2, test=0.1)
    held_out = np.concatenate([data.split("validation"), data.split("test")])
    assert sorted(held_out) == [0, 1, 2, 3, 4, 5]
    assert data.items.columns["source"][held_out].tolist() == ["verbatim"] * 6
    assert max(Zappos50K(root, size=4, report_on="all", validation=0.5).split("validation")) > 5
    with pytest.raises(InputError, match=r"at least 8 items that may be held out .* of 20\), got 6"):
        Zappos50K(root, size=4, validation=0.3, test=0.1).setup()


@pytest.mark.parametrize(("name", "expected"), [("100627-72", "100627"), ("shoe-00012", "shoe-00012")])
def test_only_real_cids_belong_to_products(name, expected):
    assert product(name) == expected


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_folder_without_the_data_set_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"ut-zap50k-data/meta-data\.csv, .* got no meta-data\.csv"):
        Zappos50K(tmp_path).setup()


def test_an_unknown_heel_height_is_named_with_the_nearest(root):
    rewrite(root, [*ROWS[:2], "7-1,Shoes,Heels,1in - 1 3/4,,,Girls,,"])
    with pytest.raises(InputError, match=r"row 4 of .*meta-data\.csv, got '1in - 1 3/4': did you mean '1in - 1 3/4in'"):
        read_zappos(root)


def test_a_cid_that_comes_twice_is_named(root):
    rewrite(root, [*ROWS, ROWS[2]])
    with pytest.raises(InputError, match=r"every CID once in .*, got more than one row for 7-1"):
        read_zappos(root)


def test_missing_images_are_named_and_counted(root):
    rewrite(root, [*ROWS, *[f"55-{number},Shoes,Heels,Flat,,Buckle,,," for number in range(5)]])
    with pytest.raises(InputError, match=r"but 5 of 10 have none: 55-0, 55-1, 55-2 and 2 more"):
        read_zappos(root)


def test_two_images_of_one_cid_are_named(root):
    shutil.copy(root / "ut-zap50k-images" / FILES[2], root / "ut-zap50k-images" / "Shoes" / "7-1.jpg")
    with pytest.raises(InputError, match=r"but 1 have several: 7-1 has .*/7-1\.jpg, .*/7\.1\.jpg"):
        read_zappos(root)


def test_an_unreadable_image_is_named(root):
    (root / "ut-zap50k-images" / FILES[1]).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"Expected an image in .*100\.2\.jpg"):
        Zappos50K(root, test=0, validation=0).setup()


def test_a_missing_column_is_named(root):
    table = root / "ut-zap50k-data" / "meta-data.csv"
    table.write_text(table.read_text().replace("Closure", "Fastening"))
    with pytest.raises(InputError, match=r"meta-data\.csv, which lacks Closure"):
        read_zappos(root)


def test_an_item_without_provenance_is_named(root):
    provenance(root, "100-1,verbatim 100-2,verbatim 7-1,code50 9-1,code50")
    with pytest.raises(InputError, match=r"provenance\.csv, but 1 have none: 8-1"):
        read_zappos(root)


def test_a_data_set_without_known_items_is_an_error(root):
    rewrite(root, [ROWS[2], ROWS[3]])
    with pytest.raises(InputError, match=r"heel height and closure in .*, got none of 2"):
        Zappos50K(root).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "pixels, got 0"),
        ({"test": -1}, "test as a share between 0 and 1, got -1"),
        ({"report_on": "verbatm"}, "Expected report_on, got 'verbatm': did you mean 'verbatim'"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Zappos50K("anywhere", **options)


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    columns = {
        "Category": np.array(["Boots", "Shoes", "Boots"]),
        "HeelHeight": np.array([0.0, np.nan, 6.0]),
        "Closure": np.array(["Lace up", "", "Buckle;Ankle Strap"]),
        "Colour": np.array(["red", "dark, blue", "red"]),
        "Width": np.array([0.1, 1 / 3, np.nan]),
    }
    return Items(np.array(["shoe-00000", "shoe-00001", "12-7"]), columns)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def test_what_is_written_is_read_back_the_same(tmp_path, drawn, pixels):
    write_zappos_layout(tmp_path / "new", drawn, pixels.__getitem__)
    data = Zappos50K(tmp_path / "new", drop_unknown=False, size=16, test=0, validation=0)
    assert data.items.names.tolist() == drawn.names.tolist()
    for name, values in drawn.columns.items():
        np.testing.assert_array_equal(data.items.columns[name], values)
    np.testing.assert_array_equal(data.images(np.arange(3)), pixels)
    assert (tmp_path / "new" / "ut-zap50k-data" / "meta-data.csv").read_text().startswith(f"{HEADER},Colour,Width\n")
    assert (tmp_path / "new" / "ut-zap50k-images" / "Boots" / "Unknown" / "Unknown" / "12.7.png").is_file()


def test_jpeg_is_written_on_demand(tmp_path, drawn):
    grey = np.full((3, 16, 16, 3), 99, dtype=np.uint8)
    write_zappos_layout(tmp_path / "new", drawn, grey.__getitem__, ".jpg")
    data = Zappos50K(tmp_path / "new", size=16, test=0, validation=0)
    assert data.items.names.tolist() == ["shoe-00000", "12-7"]
    assert (data.images(np.arange(2)) == 99).all()


def test_every_heel_level_survives(tmp_path):
    columns = {"Category": np.full(7, "Boots"), "HeelHeight": np.arange(7), "Closure": np.full(7, "Zipper")}
    items = Items(np.array([f"s{level}" for level in range(7)]), columns)
    write_zappos_layout(tmp_path / "new", items, np.zeros((7, 4, 4, 3), dtype=np.uint8).__getitem__)
    assert read_zappos(tmp_path / "new")[0].columns["HeelHeight"].tolist() == list(range(len(HEEL_LEVELS)))


def test_a_folder_that_holds_anything_is_left_alone(tmp_path, drawn, pixels):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"or an empty one, but .* holds something"):
        write_zappos_layout(tmp_path, drawn, pixels.__getitem__)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_nothing(tmp_path, drawn, pixels):
    (tmp_path / "new").mkdir()
    with pytest.raises(IndexError, match="index 2 is out of bounds"):
        write_zappos_layout(tmp_path / "new", drawn, pixels[:2].__getitem__)
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    ("names", "changed", "message"),
    [
        (["a", "b", "a"], {}, "without dots and slashes, got a"),
        (["a", "b.c", "d"], {}, r"without dots and slashes, got b\.c"),
        (["a", "b", "c"], {"HeelHeight": np.array([0, 1, 7])}, "level from 0 to 6, got 7"),
        (["a", "b", "c"], {"Category": np.array(["x", "y/z", ""])}, "name a folder, got 'y/z'"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, drawn, pixels, names, changed, message):
    items = Items(np.array(names), {**drawn.columns, **changed})
    with pytest.raises(InputError, match=message):
        write_zappos_layout(tmp_path / "new", items, pixels.__getitem__)
    assert not list(tmp_path.iterdir())


# --- real shoes -------------------------------------------------------------------------------------------------------


def test_the_real_part_has_the_published_counts(real_zappos):
    items, _ = read_zappos(real_zappos)
    assert len(items) == 6997
    data = Zappos50K(real_zappos)
    assert len(data.items) == 4655
    assert {name: len(index) for name, index in data.loaded.splits.items()} == {
        "train": 3724,
        "validation": 466,
        "test": 465,
    }
    assert set(np.unique(data.items.columns["HeelHeight"])) == set(range(7))
    held_out = np.concatenate([data.split("validation"), data.split("test")])
    assert set(data.items.columns["source"][held_out]) == {"verbatim"}
    shoes = data.images(held_out[:20])
    assert (shoes[:, :17] == 255).all()
    assert (shoes[:, 17:119] < 250).any(axis=(1, 2, 3)).all()
