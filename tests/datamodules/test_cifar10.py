"""CIFAR-10 is read from both official formats, split as in the original, and no pickle can run anything."""

import codecs
import hashlib
import os
import pickle
import struct
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
import torchvision

from simec_vision.datamodules.cifar10 import CIFAR10, CLASSES, read_plain_pickle
from simec_vision.items import InputError

BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
SIZE = 8


@pytest.fixture
def records():
    """Labels ``(batch, item)`` and pixels ``(batch, item, channel · row · column)`` of a small archive."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 10, (6, SIZE)), rng.integers(0, 256, (6, SIZE, 3072), dtype=np.uint8)


def write_binary(root: Path, records) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, labels, pixels in zip(BATCHES, *records, strict=True):
        (folder / f"{name}.bin").write_bytes(np.hstack([labels[:, None].astype(np.uint8), pixels]).tobytes())
    return root


def write_python(root: Path, records) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, labels, pixels in zip(BATCHES, *records, strict=True):
        (folder / name).write_bytes(pickled_by_python_2(pixels, labels.tolist()))
    return root


def pickled_by_python_2(pixels, labels) -> bytes:
    """Pickle a batch as the official files are, byte by byte: Python 2 text, and NumPy's former module names."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    shape = b"(M" + struct.pack("<H", pixels.shape[0]) + b"M" + struct.pack("<H", pixels.shape[1]) + b"t"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = array + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    label_list = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + data + b"U\x06labels" + label_list + b"u."


@pytest.mark.parametrize("write", [write_binary, write_python])
def test_both_formats_give_the_images_and_labels(tmp_path, records, write):
    labels, pixels = records
    data = CIFAR10(write(tmp_path, records))
    expected = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(data.images(np.arange(6 * SIZE)), expected)
    assert data.items.columns["label"].tolist() == [CLASSES[label] for label in labels.ravel()]
    assert data.items.names[[0, 39, 40, 47]].tolist() == ["train/00000", "train/00039", "test/00000", "test/00007"]
    assert data.size == (3, 32, 32)


def test_the_images_are_those_that_torchvision_reads(tmp_path, records, monkeypatch):
    root = write_python(tmp_path, records)
    official = torchvision.datasets.CIFAR10
    (root / official.base_folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    monkeypatch.setattr(official, "_check_integrity", lambda self: True)
    monkeypatch.setitem(official.meta, "md5", None)
    theirs, ours = official(str(root), train=True), CIFAR10(root)
    np.testing.assert_array_equal(ours.images(np.arange(40)), theirs.data)
    assert ours.items.classes("label")[0][:40].tolist() == theirs.targets


def test_the_split_is_the_originals_permutation(tmp_path, records):
    splits = CIFAR10(write_binary(tmp_path, records)).loaded.splits
    order = np.random.RandomState(15).permutation(40)
    assert splits["train"].tolist() == order[:36].tolist()
    assert splits["validation"].tolist() == order[36:].tolist()
    assert splits["test"].tolist() == list(range(40, 48))


def test_images_are_normalised_as_in_the_original(tmp_path, records):
    data = CIFAR10(write_binary(tmp_path, records))
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    pixel = torch.from_numpy(data.images(np.array([5]))[0, 3, 4]) / 255
    torch.testing.assert_close(data.normalised(np.array([5]))[0, :, 3, 4], (pixel - mean) / std)


def test_similar_means_of_the_same_class(tmp_path, records):
    data = CIFAR10(write_binary(tmp_path, records))
    target = data.similarities()["class"].bind(data.items, np.arange(10))
    labels = records[0].ravel()
    expected = (labels[:, None] == labels[None, :10]).astype(np.float32)
    np.testing.assert_array_equal(target(torch.arange(48)).numpy(), expected)


def test_the_binary_archive_is_preferred_and_the_root_may_be_the_archive_itself(tmp_path, records):
    write_python(write_binary(tmp_path, records), records)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"damaged")
    assert len(CIFAR10(tmp_path).items) == 48
    assert len(CIFAR10(tmp_path / "cifar-10-batches-bin").items) == 48


def test_pickles_of_today_are_read_too(tmp_path):
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "batch_label": b"1 of 5"}
    for protocol in range(5):
        (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol))
        read = read_plain_pickle(tmp_path / "batch")
        np.testing.assert_array_equal(read.pop("data"), content["data"])
        assert read == {"labels": [1, 2], "batch_label": b"1 of 5"}


# --- mistakes and attacks ---------------------------------------------------------------------------------------------


class Runs:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (lambda marker: Runs(os.system, f"touch {marker}"), r"posix\.system"),
        (lambda marker: Runs(eval, f"open({str(marker)!r}, 'w')"), r"__builtin__\.eval"),
        (lambda marker: Runs(Path.touch, marker), r"__builtin__\.getattr"),
        (lambda marker: np.array([Runs(os.mkdir, str(marker))], dtype=object), r"posix\.mkdir"),
        (lambda marker: Runs(codecs.encode, "x", "rot13"), "'rot13'"),
    ],
    ids=["system", "eval", "method", "inside-an-array", "codec"],
)
def test_a_pickle_that_would_run_something_is_refused(tmp_path, records, attack, named):
    root, marker = write_python(tmp_path, records), tmp_path / "it-ran"
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps({"data": attack(marker)}, protocol=2))
    with pytest.raises(InputError, match=rf"got {named} in .*data_batch_2: this is not the official archive"):
        CIFAR10(root).setup()
    assert not marker.exists()


def test_without_an_archive_the_expected_tree_is_said(tmp_path):
    with pytest.raises(InputError, match=r"cifar-10-batches-bin/data_batch_1\.bin … or cifar-10-batches-py.*download$"):
        CIFAR10(tmp_path).setup()
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="use ImageTable"):
        CIFAR10(tmp_path).setup()


@pytest.mark.parametrize(("write", "suffix"), [(write_binary, ".bin"), (write_python, "")])
def test_missing_batches_are_named(tmp_path, records, write, suffix):
    write(tmp_path, records)
    for name in ("data_batch_1", "test_batch"):
        next(tmp_path.glob(f"*/{name}{suffix}")).unlink()
    with pytest.raises(InputError, match=rf"which lacks data_batch_1{suffix}, test_batch{suffix}: unpack"):
        CIFAR10(tmp_path).setup()


def test_a_cut_binary_batch_is_named_with_its_length(tmp_path, records):
    file = write_binary(tmp_path, records) / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"records of 3073 bytes in .*data_batch_3\.bin, got 24583 bytes"):
        CIFAR10(tmp_path).setup()


def test_a_label_beyond_the_classes_is_named(tmp_path, records):
    records[0][1, 4] = 17
    with pytest.raises(InputError, match=r"data_batch_2\.bin, got 17 for image 4"):
        CIFAR10(write_binary(tmp_path, records)).setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected a batch of CIFAR-10 in .*data_batch_4, which is damaged"),
        (b"no pickle", "Expected a batch of CIFAR-10 in .*data_batch_4, which is damaged"),
        (pickle.dumps([1, 2]), r"data of shape \(item, pixel\) = \(…, 3072\) in .*data_batch_4"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8)}, 2), r"\(…, 3072\) in .*data_batch_4"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, 2), "a list of 2 labels"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["a"]}, 2), "a list of 1 labels"),
    ],
)
def test_a_damaged_python_batch_is_named(tmp_path, records, content, message):
    (write_python(tmp_path, records) / "cifar-10-batches-py" / "data_batch_4").write_bytes(content)
    with pytest.raises(InputError, match=message):
        CIFAR10(tmp_path).setup()


# --- downloading ------------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def served(tmp_path, records, monkeypatch):
    """Let torchvision's official address and checksum be those of a small archive that this machine serves."""
    source, path = write_python(tmp_path / "source", records), tmp_path / "served" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    official = torchvision.datasets.CIFAR10
    monkeypatch.setattr(official, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(path.parent))) as server:
        monkeypatch.setattr(official, "url", f"http://127.0.0.1:{server.server_port}/{path.name}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_a_download_is_verified_unpacked_and_read(tmp_path, served):
    new = tmp_path / "new"
    assert len(CIFAR10(new, download=True).items) == 48
    assert sorted(path.name for path in new.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]
    served.unlink()
    (new / served.name).unlink()
    assert len(CIFAR10(new, download=True).items) == 48  # what is there is not fetched again


def test_a_download_with_another_checksum_is_refused(tmp_path, served, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(
        InputError, match=r"download CIFAR-10 from http://.* to .*new, got: File not found or corrupted"
    ):
        CIFAR10(tmp_path / "new", download=True).setup()
    assert not (tmp_path / "new" / "cifar-10-batches-py").exists()


def test_a_download_that_fails_says_why(tmp_path, served):
    served.unlink()
    with pytest.raises(InputError, match=r"download CIFAR-10 from http://.* to .*new, got: HTTP Error 404"):
        CIFAR10(tmp_path / "new", download=True).setup()
