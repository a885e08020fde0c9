"""The same batches whatever the number of workers and processes, one fetch each, and bad files named in one line."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from simec_vision.datamodules import batching
from simec_vision.datamodules.batching import EveryItem, TrainingOrder, ahead, batch_loader
from simec_vision.datamodules.image_data import Batches
from simec_vision.datamodules.image_store import ImageFiles, ImageStore, open_images
from simec_vision.datamodules.image_table import ImageTable
from simec_vision.items import InputError


class Turn:
    """What the data module asks its trainer."""

    def __init__(self, epoch=1, processes=1, rank=0):
        self.current_epoch, self.world_size, self.global_rank, self.training = epoch, processes, rank, True


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMEC_VISION_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(60):
        image = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.save(tmp_path / "images" / f"{number:02d}.jpg")
    return tmp_path / "images"


def batches_of(folder, workers, images=None, epochs=(1, 2), **turn):
    data = ImageTable(folder, test=0, batches=Batches(size=8, workers=workers, colour=0.5, shift=2, seed=3))
    if images is not None:
        data.loaded  # noqa: B018
        data._loaded = data._loaded._replace(images=images)
    data.trainer = Turn(**turn)
    given, loader = [], data.train_dataloader()
    for epoch in epochs:
        data.trainer = Turn(epoch, **turn)
        loader.sampler.set_epoch(epoch)
        given += [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return given


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for (images, index), (other_images, other_index) in zip(batches, others, strict=True):
        assert torch.equal(index, other_index)
        assert torch.equal(images, other_images)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("streamed", [False, True], ids=["mapped", "files"])
def test_batches_are_bit_identical_on_any_number_of_workers(folder, workers, streamed):
    paths = sorted(folder.iterdir())
    images = open_images("test", paths, limit=0 if streamed else 2**20)
    assert isinstance(images, ImageFiles if streamed else ImageStore)
    alone = batches_of(folder, 0, images)
    assert not torch.equal(alone[0][1], alone[6][1])  # another order in the second epoch
    assert_same(alone, batches_of(folder, workers, images))


def test_two_processes_share_out_the_batches_of_one(folder):
    alone = batches_of(folder, 0)
    shares = [batches_of(folder, 0, processes=2, rank=rank) for rank in range(2)]
    for (images, index), *parts in zip(alone, *shares, strict=True):
        assert torch.equal(index.view(-1, 2).T, torch.stack([part[1] for part in parts]))
        assert torch.equal(images[0::2], parts[0][0])
        assert torch.equal(images[1::2], parts[1][0])


def test_the_order_is_the_one_of_a_distributed_sampler():
    items = np.arange(100, 123)
    for processes in (1, 2, 3):
        for drop in (False, True):
            for rank in range(processes):
                ours = TrainingOrder(items, processes, rank, ImageStore(np.zeros((1, 1, 1, 1), np.uint8)), 5, drop)
                theirs = torch.utils.data.DistributedSampler(
                    range(23), processes, rank, shuffle=True, seed=5, drop_last=drop
                )
                for sampler in (ours, theirs):
                    sampler.set_epoch(7)
                assert [-1 - i if i < 0 else i for i in ours] == [100 + i for i in theirs]
                assert len(ours) == len(theirs)


def test_repeated_items_are_marked_and_nothing_else_is():
    shares = [list(TrainingOrder(np.arange(23), 4, rank, None, 0, drop=False)) for rank in range(4)]
    together = [item for turn in zip(*shares, strict=True) for item in turn]
    assert sorted(together[:23]) == list(range(23))
    assert together[23:] == [-1 - together[0]]


def test_each_item_is_evaluated_once_and_a_long_order_comes_in_chunks(monkeypatch):
    monkeypatch.setattr(batching, "CHUNK", 2)
    shares = [list(EveryItem(np.arange(7), 3, rank)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def wait_until(done):
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:
        time.sleep(0.01)


def test_the_next_batch_is_prepared_before_this_one_is_used_up():
    asked = []

    def batches():
        for number in range(3):
            asked.append(number)
            yield number

    given = ahead(batches())
    assert next(given) == 0
    wait_until(lambda: len(asked) == 2)
    assert asked == [0, 1]
    assert list(given) == [1, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_named_in_one_line(folder, workers):
    paths = sorted(folder.iterdir())
    images = open_images("test", paths, limit=0)
    paths[5].write_bytes(paths[5].read_bytes()[:200])
    loader = batch_loader(images, EveryItem(np.arange(60), 1, 0), 8, False, workers)
    with pytest.raises(InputError, match=r"^Expected an image in \S*05\.jpg: [^\n]*$"):
        list(loader)
