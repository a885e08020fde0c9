"""A folder and a table become items, attributes, splits and similarities; every mistake in them is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simec_vision import SimilarityHead, SimilarityModel
from simec_vision.datamodules.image_data import Batches
from simec_vision.datamodules.image_table import ImageTable
from simec_vision.datamodules.splits import grouped_split, ordered_split
from simec_vision.datamodules.tables import numbers_or_text
from simec_vision.encoders import MLP
from simec_vision.items import InputError
from simec_vision.similarities import AttributeDistance, PairList, SameClass, SetOverlap


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMEC_VISION_CACHE", str(tmp_path / "cache"))


def draw(root: Path, *names: str, size=(4, 4)) -> Path:
    """Write images, the k-th all of grey level k."""
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, level).save(root / name)
    return root


def table(root: Path, text: str) -> Path:
    """Write a table, and an image of the k-th grey level for its k-th row."""
    rows = text.split()
    draw(root, *[row.split(",")[0] for row in rows[1:]])
    (root / "table.csv").write_text("\n".join(rows))
    return root


def names_of(data: ImageTable) -> dict[str, list[str]]:
    return {split: data.items.names[index].tolist() for split, index in data.loaded.splits.items()}


# --- class folders ----------------------------------------------------------------------------------------------------


def test_class_folders_give_labels_and_a_seeded_split(tmp_path):
    draw(tmp_path, *[f"{label}/{number}.png" for label in ("cat", "dog") for number in range(10)])
    data = ImageTable(tmp_path, validation=0.2, test=0.1)
    assert data.items.columns["label"].tolist() == ["cat"] * 10 + ["dog"] * 10
    assert data.items.names[[0, 10]].tolist() == ["cat/0.png", "dog/0.png"]
    order = np.random.RandomState(15).permutation(20)
    expected = {"train": order[:14], "test": order[14:16], "validation": order[16:]}
    assert {name: index.tolist() for name, index in data.loaded.splits.items()} == {
        name: index.tolist() for name, index in expected.items()
    }
    assert data.images(np.array([3, 0]))[:, 0, 0, 0].tolist() == [3, 0]


def test_folders_may_say_the_splits(tmp_path):
    draw(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "test/dog/deeper/d.png")
    data = ImageTable(tmp_path)
    assert names_of(data) == {
        "train": ["train/cat/a.png", "train/dog/b.png"],
        "validation": ["val/cat/c.png"],
        "test": ["test/dog/deeper/d.png"],
    }
    assert dict(zip(data.items.names, data.items.columns["label"], strict=True))["test/dog/deeper/d.png"] == "dog"


def test_validation_is_drawn_from_train_beside_a_given_test(tmp_path):
    draw(tmp_path, *[f"train/a/{i}.png" for i in range(9)], "test/b/x.png")
    splits = names_of(ImageTable(tmp_path, validation=1 / 3))
    assert {name: len(names) for name, names in splits.items()} == {"train": 6, "validation": 3, "test": 1}
    assert splits["test"] == ["test/b/x.png"]


def test_the_split_of_fifty_thousand_is_the_permutation_cut_at_forty_five():
    splits = ordered_split(np.arange(50_000), {"validation": 0.1}, seed=15)
    order = np.random.RandomState(15).permutation(50_000)
    np.testing.assert_array_equal(splits["train"], order[:45_000])
    np.testing.assert_array_equal(splits["validation"], order[45_000:])


def test_batches_hold_the_images_of_their_items(tmp_path):
    draw(tmp_path, *[f"{label}/{number}.png" for label in "ab" for number in range(10)])
    data = ImageTable(tmp_path, batches=Batches(size=4, flip=False, shift=0))
    for images, index in data.train_dataloader():
        assert images.shape == (4, 3, 4, 4)
        assert torch.equal(images[:, 0, 0, 0].long(), index)


def test_mean_and_std_normalise(tmp_path):
    draw(tmp_path, "a/0.png", "b/1.png", "b/2.png")
    data = ImageTable(tmp_path, mean=(0.0, 0.0, 0.5), std=(1.0, 0.5, 1.0), test=0)
    pixel = data.normalised(np.array([2]))[0, :, 0, 0]
    torch.testing.assert_close(pixel, torch.tensor([2 / 255, 4 / 255, 2 / 255 - 0.5]))


@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_size_and_fit_bring_all_images_to_one_size(tmp_path, fit):
    draw(draw(tmp_path, "a/0.png", "a/1.png"), "b/0.png", size=(6, 3))
    assert ImageTable(tmp_path, size=8, fit=fit).size == (3, 8, 8)
    assert ImageTable(tmp_path, size=(5, 7), fit=fit).size == (3, 5, 7)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_gives_numbers_text_and_splits(tmp_path):
    text = "image,Height,Tags,Split a.png,1.5,x;y,train sub/b.png,,y,val c.png,3,,test"
    data = ImageTable(table(tmp_path, text), table="table.csv")
    np.testing.assert_array_equal(data.items.columns["Height"], [1.5, np.nan, 3.0])
    assert data.items.columns["Tags"].tolist() == ["x;y", "y", ""]
    assert names_of(data) == {"train": ["a.png"], "validation": ["sub/b.png"], "test": ["c.png"]}
    assert data.images(np.arange(3))[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_without_splits_a_table_is_split_by_shares(tmp_path):
    data = ImageTable(table(tmp_path, "path,h " + " ".join(f"{i}.png,{i}" for i in range(20))), table="table.csv")
    assert {name: len(index) for name, index in data.loaded.splits.items()} == {"train": 16, "validation": 2, "test": 2}


@pytest.mark.parametrize("column", ["image", "file", "Path", "name"])
def test_the_column_of_files_has_several_names(tmp_path, column):
    draw(tmp_path, "x.png", "y.png")
    (tmp_path / "table.csv").write_text(f"height,{column}\n1,x.png\n2,y.png")
    assert ImageTable(tmp_path, table="table.csv", test=0).items.names.tolist() == ["x.png", "y.png"]


def test_columns_called_like_parts_of_a_model_become_heads(tmp_path):
    text = "file,Training,Images,_modules a.png,1,2,3 b.png,2,3,4 c.png,4,2,1"
    heads = ImageTable(table(tmp_path, text), table="table.csv").similarities()
    assert [*heads] == ["training_", "images_", "_modules_"]
    SimilarityModel(MLP(4, 2), {name: SimilarityHead(2, 3) for name in heads})


def test_each_attribute_suggests_a_similarity(tmp_path):
    text = (
        "image,Heel.Height,Tags,Kind,type,constant,2nd a.png,1,x;y,boot,p,7,u b.png,2,y,shoe,q,7,v c.png,,x,boot,p,7,u"
    )
    heads = ImageTable(table(tmp_path, text), table="table.csv").similarities()
    kinds = {name: type(similarity) for name, similarity in heads.items()}
    assert kinds == {
        "heel_height": AttributeDistance,
        "tags": SetOverlap,
        "kind": SameClass,
        "type_": SameClass,
        "_2nd": SameClass,
    }
    torch.nn.ModuleDict({name: torch.nn.Identity() for name in heads})
    assert heads["heel_height"].attribute == "Heel.Height"


def test_free_text_suggests_nothing(tmp_path):
    data = ImageTable(table(tmp_path, "image,note " + " ".join(f"{i}.png,n{i}" for i in range(60))), table="table.csv")
    with pytest.raises(InputError, match="2 to 50 classes"):
        data.similarities()


def test_a_label_is_the_class(tmp_path):
    heads = ImageTable(table(tmp_path, "image,label,h a.png,x,1 b.png,y,2"), table="table.csv", test=0).similarities()
    assert {name: (type(s), s.attribute) for name, s in heads.items()} == {"class": (SameClass, "label")}


def test_pairs_may_leave_out_the_suffix(tmp_path):
    draw(tmp_path, "a/0.png", "a/1.png", "b/2.png")
    (tmp_path / "pairs.csv").write_text("a,b,similarity\na/0,a/1.png,0.5\nb/2,a/0,0.25\n")
    data = ImageTable(tmp_path, pairs="pairs.csv", test=0)
    heads = data.similarities()
    assert [type(heads[name]) for name in heads] == [PairList]
    target = heads["pairs"].bind(data.items, np.array([0, 2]))
    expected = torch.tensor([[torch.nan, 0.25], [0.5, torch.nan], [0.25, torch.nan]])
    torch.testing.assert_close(target(torch.arange(3)), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["1", " 2".strip(), ""], "f"), (["1", "x"], "U"), (["", "nan"], "U"), (["inf", "1"], "f"), (["1_2", "3"], "U")],
)
def test_a_column_is_numeric_if_all_known_values_are_numbers(cells, expected):
    assert numbers_or_text(cells).dtype.kind == expected


def test_an_infinite_number_is_refused_by_name(tmp_path):
    data = ImageTable(table(tmp_path, "image,h a.png,1 b.png,inf c.png,2"), table="table.csv")
    with pytest.raises(InputError, match=r"finite number for 'h' of item 'b\.png', got 'inf'"):
        data.similarities()["h"].bind(data.items, np.arange(3))


def test_groups_are_never_divided_and_only_eligible_ones_held_out():
    groups = np.repeat(np.arange(30), 3)
    eligible = groups % 2 == 0
    eligible[0] = False  # so group 0 may not be held out
    splits = grouped_split(groups, eligible, {"validation": 0.2, "test": 0.1}, seed=0)
    assert {name: len(index) for name, index in splits.items()} == {"train": 63, "validation": 18, "test": 9}
    held_out = np.concatenate([splits["validation"], splits["test"]])
    assert eligible[held_out].all()
    assert not set(groups[splits["train"]]) & set(groups[held_out])
    assert not set(groups[splits["validation"]]) & set(groups[splits["test"]])
    assert sorted(np.concatenate(list(splits.values()))) == list(range(90))


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.5}, "validation as a share between 0 and 1, got 1.5"),
        ({"validation": 0.6, "test": 0.4}, r"validation \+ test below 1, .* got 1"),
        ({"fit": "resizing"}, "Expected fit, got 'resizing': did you mean 'resize'"),
        ({"size": 0}, "size as one number .* got 0"),
        ({"size": (3, 4, 5)}, r"height and width, got \(3, 4, 5\)"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        ImageTable("anywhere", **options)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"folder of the images at .*/nowhere, got nothing"):
        ImageTable(tmp_path / "nowhere").setup()


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"Expected images in .*, found none"):
        ImageTable(tmp_path).setup()


def test_an_image_outside_the_split_folders_is_named(tmp_path):
    draw(tmp_path, "train/cat/a.png", "more/cat/b.png")
    with pytest.raises(InputError, match=r"below train, validation or test, .* got more/cat/b\.png"):
        ImageTable(tmp_path).setup()


def test_split_folders_without_train_are_no_classes(tmp_path):
    draw(tmp_path, *[f"{split}/cat/{number}.png" for split in ("test", "val") for number in range(10)])
    with pytest.raises(InputError, match=r"Expected training images .* got none of 20"):
        ImageTable(tmp_path).setup()


def test_nothing_left_for_training_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"Expected training images .* got none of 1"):
        ImageTable(table(tmp_path, "image,split a.png,test"), table="table.csv").setup()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;height\na.png;1\n", "column image or file .* got the columns image;height"),
        ("image,height\n", "header and at least one row .* got 1 lines"),
        ("image,height\na.png,1,2\n", r"Expected 2 cells as in the header of .*table\.csv, got 3 in line 2"),
        ("image,h,h\na.png,1,2\n", "every column of .* once, got h twice"),
        ("image,h\na.png,1\nb.png,2\n./a.png,3\n", r"got a\.png again \(a\.png in rows 2, 4\)"),
        ("image,h\na.png,1\nc.png,2\nd.png,3\n", r"2 of 3 do not: 'c\.png' \(row 3\), 'd\.png' \(row 4\)"),
        ("image,split\na.png,train\nb.png,tset\n", "split in row 3 of .*, got 'tset': did you mean 'test'"),
        ("image,a b,a_b\na.png,1,2\nb.png,3,4\n", "got 'a b' and 'a_b': rename one"),
        ("image,h\na.png,\udcff\n", r"Expected a CSV table in .*table\.csv: 'utf-8' codec"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, text, message):
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / "table.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        ImageTable(tmp_path, table="table.csv", test=0).similarities()


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"Expected a CSV table in .*none\.csv: .*No such file"):
        ImageTable(tmp_path, table="none.csv").setup()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("a/9.png", r"one is 'a/0\.png'"), ("c/1", "several images have this name, so give the suffix too")],
)
def test_an_unknown_or_unclear_image_in_pairs_is_named(tmp_path, name, hint):
    draw(tmp_path, "a/0.png", "c/1.png", "c/1.bmp")
    (tmp_path / "pairs.csv").write_text(f"a,b,similarity\na/0,c/1.png,1\na/0,{name},1\n")
    with pytest.raises(InputError, match=rf"image in row 3 of .*pairs\.csv, got '{name}': {hint}"):
        ImageTable(tmp_path, pairs="pairs.csv", test=0).similarities()


def test_images_of_several_sizes_are_an_error(tmp_path):
    draw(draw(tmp_path, "a/0.png", "a/1.png"), "b/0.png", "b/1.png", size=(6, 3))
    with pytest.raises(InputError, match=r"b/0\.png to be 4 x 4 .* got 6 x 3\. .*\(1 more of the 4 images"):
        ImageTable(tmp_path).setup()


# --- real images ------------------------------------------------------------------------------------------------------


def test_real_cifar10_folders_are_read(real_cifar10):
    data = ImageTable(real_cifar10 / "test")
    assert data.size == (3, 32, 32)
    assert set(data.items.columns["label"]) == {"airplane"}
    first = data.images(np.arange(1))[0]
    with Image.open(data.folder / data.items.names[0]) as image:
        np.testing.assert_array_equal(first, np.asarray(image))
