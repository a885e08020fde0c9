"""Shards give what the source gave that they were written from, in an order that reads few of them at a time."""

import copy
import io
import json
import pickle
import shutil
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from simec_vision.cli.main import main
from simec_vision.datamodules import Batches, DrawnShoes, Shards
from simec_vision.datamodules.shards import order_by_shards
from simec_vision.items import InputError, Items


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMEC_VISION_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def shoes():
    return DrawnShoes(count=50, size=32, cache=False)


@pytest.fixture(scope="module")
def written(shoes, tmp_path_factory):
    pytest.importorskip("webdataset")
    from simec_vision.datamodules.shard_writing import write_shards

    root = tmp_path_factory.mktemp("written") / "100 % shoes"
    write_shards(shoes, root, per_shard=7)
    return root


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def png(level, size=(4, 4)):
    content = io.BytesIO()
    Image.new("L", size, level).save(content, "png")
    return content.getvalue()


def assert_like(shards, shoes):
    place = {name: item for item, name in enumerate(shoes.items.names.tolist())}
    same = np.array([place[name] for name in shards.items.names.tolist()])
    assert sorted(same.tolist()) == list(range(50)) != same.tolist()
    np.testing.assert_array_equal(shards.images(np.arange(50)), shoes.images(same))
    for name, values in shoes.items.columns.items():
        np.testing.assert_array_equal(shards.items.columns[name], values[same])
    for split in ("train", "validation", "test"):
        assert sorted(same[shards.split(split)].tolist()) == sorted(shoes.split(split).tolist())


def test_a_source_comes_back_as_it_was_written(written, shoes):
    assert len(list(written.glob("*.tar"))) == 8
    shards = Shards(written)
    assert_like(shards, shoes)
    assert isinstance(shards.items.columns["HeelHeight"], np.memmap)
    assert set(shards.items.columns) == set(shoes.items.columns)


def test_other_tar_files_are_indexed_on_first_use(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(5):
                key = f"{shard}/{number}"
                add(tar, f"{key}.png", png(10 * shard + number))
                add(tar, f"{key}.cls", b"cat" if number % 2 else b"dog")
                add(tar, f"{key}.json", json.dumps({"price": number if shard else None, "tags": ["a", "b"]}).encode())
                add(tar, f"{key}.txt", b"not needed")
    data = Shards(tmp_path, test=0.2)
    assert data.items.names[[1, 7]].tolist() == ["0/1", "1/2"]
    assert data.images(np.array([7, 0]))[:, 0, 0, 0].tolist() == [12, 0]
    assert data.items.columns["label"].tolist() == ["dog", "cat", "dog", "cat", "dog"] * 2
    np.testing.assert_array_equal(data.items.columns["price"], [np.nan] * 5 + [0, 1, 2, 3, 4])
    assert data.items.columns["tags"].tolist() == ["a;b"] * 10
    assert {name: len(items) for name, items in data.loaded.splits.items()} == {"train": 7, "test": 2, "validation": 1}
    assert list(data.similarities()) == ["class"]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_on_any_number_of_workers(written, workers):
    def epoch(workers):
        loader = Shards(written, batches=Batches(size=8, workers=workers)).train_dataloader()
        loader.sampler.set_epoch(3)
        return list(loader)

    for (images, index), (other_images, other_index) in zip(epoch(0), epoch(workers), strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(index, other_index)


def test_a_worker_gets_no_copy_of_the_places(written):
    images = Shards(written).loaded.images
    images.places = np.repeat(images.places, 1000, axis=0)
    sent = pickle.dumps(images)
    assert len(sent) < 1000
    index = np.array([3, 40])
    assert torch.equal(pickle.loads(sent).fetch(index), Shards(written).loaded.images.fetch(index))


def test_the_order_reads_few_shards_at_a_time_and_every_item_once():
    shards = np.repeat(np.arange(60), 20)
    orders = [order_by_shards(shards, np.random.default_rng((0, epoch)), lanes=2, together=3) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(1200))
        for start in range(0, 1200, 120):  # 2 lanes of 3 shards of 20 items
            assert len(np.unique(shards[order[start : start + 120]])) == 6
    assert (orders[0] != orders[1]).any()


def test_each_of_two_processes_reads_half_of_the_shards():
    shards = np.repeat(np.arange(64), 10)
    order = order_by_shards(shards, np.random.default_rng(0), lanes=8, together=2)
    first, second = (set(shards[order[rank::2]].tolist()) for rank in range(2))
    assert len(first) == len(second) == 32
    assert not first & second


def test_few_shards_are_mixed_all_together():
    order = order_by_shards(np.repeat(np.arange(4), 500), np.random.default_rng(0), lanes=2, together=2)
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.1


def test_a_shard_that_changed_or_is_missing_is_named(written, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(written, root)
    shard = root / "shard-000003.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:9000])
    with pytest.raises(InputError, match=rf"shard-000003\.tar of {len(content)} bytes, got 9000: .*index"):
        Shards(root).setup()
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-000003\.tar of .* got none"):
        Shards(root).setup()


def test_a_damaged_image_is_named_with_its_shard(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "a.png", png(1))
        add(tar, "b.png", b"hello")
    data = Shards(tmp_path, validation=0, test=0)
    with pytest.raises(InputError, match=r"0\.tar/byte \d+: no image format is recognised"):
        data.images(np.arange(2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"Expected uncompressed tar files .* got none"),
        ({"0.tar": b"x" * 2000}, r"Expected an uncompressed tar file in \S*0\.tar"),
    ],
)
def test_a_folder_without_shards_is_named(tmp_path, content, message):
    for name, value in content.items():
        (tmp_path / name).write_bytes(value)
    with pytest.raises(InputError, match=message):
        Shards(tmp_path).setup()
    assert not (tmp_path / "index").exists()


def test_bad_attributes_and_names_that_come_twice_are_named(tmp_path):
    for shard, said in enumerate((b"{}", b"[1]")):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            add(tar, "a.png", png(1))
            add(tar, "a.json", said)
    with pytest.raises(InputError, match=r"JSON object of attributes in a\.json of \S*1\.tar, got '\[1\]'"):
        Shards(tmp_path).setup()
    (tmp_path / "1.tar").write_bytes((tmp_path / "0.tar").read_bytes())
    with pytest.raises(InputError, match=r"different names .* got 2 of 1 names"):
        Shards(tmp_path).setup()


def test_shards_of_other_kinds_of_numbers_or_without_images_are_joined(tmp_path):
    for name, kinds in (("a", range(1_000_000, 1_000_003)), ("b", ["x"]), ("empty", [])):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for number, kind in enumerate(kinds):
                add(tar, f"{name}{number}.png", png(1))
                add(tar, f"{name}{number}.json", json.dumps({"kind": kind}).encode())
    shards = Shards(tmp_path, validation=0.25, test=0.25)
    assert shards.items.classes("kind")[1] == ["1000000", "1000001", "1000002", "x"]
    assert shards.images(np.arange(4)).shape == (4, 4, 4, 3)


def test_names_that_shards_cannot_have_are_told_before_anything_is_written(shoes, tmp_path):
    pytest.importorskip("webdataset")
    from simec_vision.datamodules.shard_writing import write_shards

    named = copy.copy(shoes)
    items = Items(shoes.items.names, {**shoes.items.columns, "name": shoes.items.names})
    named._loaded = shoes.loaded._replace(items=items)
    with pytest.raises(InputError, match="no attribute 'name'"):
        write_shards(named, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    with tarfile.open(tmp_path / "a b.tar", "w") as tar:
        add(tar, "a.png", png(1))
    with pytest.raises(InputError, match=r"of letters, digits, _, \. and - and without folders, got 'a b\.tar'"):
        Shards(tmp_path).setup()
    assert not (tmp_path / "index").exists()


def test_without_the_library_the_extra_is_named(shoes, tmp_path, monkeypatch):
    from simec_vision.datamodules.shard_writing import write_shards

    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(InputError, match=r"pip install 'simec-vision\[stream\]'"):
        write_shards(shoes, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_shards_are_downloaded_when_they_are_needed(written, shoes, tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(written)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        data = Shards(f"http://127.0.0.1:{server.server_port}")
        data.normalised(np.array([0]))
        assert len(list((tmp_path / "cache").rglob("*.tar"))) == 1
        assert_like(data, shoes)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == 8


@pytest.mark.filterwarnings("ignore")
def test_pretraining_on_shards(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIMEC_VISION_RUN", raising=False)
    options = ["--data", "Shards", "--data.root", str(written), "--references", "20", "--heatmaps", "false"]
    options += ["--similarities.heel=AttributeDistance", "--similarities.heel.attribute=HeelHeight"]
    options += ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    assert main("pretrain", [*options, "--out", "run"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 1
