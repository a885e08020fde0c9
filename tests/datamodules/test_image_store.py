"""Images are decoded once, kept under a key that says when they are stale, and always come out the same."""

import errno
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simec_vision.datamodules import decoding, image_store
from simec_vision.datamodules.decoding import opened
from simec_vision.datamodules.image_store import (
    ImageFiles,
    ImageStore,
    content_key,
    decode_image,
    find_images,
    open_images,
    some,
    store_name,
)
from simec_vision.items import InputError

ALL = np.arange(5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SIMEC_VISION_CACHE", str(folder))
    return folder


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)


@pytest.fixture
def paths(tmp_path, pixels):
    return write(tmp_path / "images", pixels)


def write(folder: Path, images) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def cached(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("options", [{}, {"cache": False}, {"limit": 0}], ids=["memory-mapped", "memory", "streamed"])
def test_every_way_of_opening_gives_the_pixels_of_the_files(paths, pixels, options):
    source = open_images("test", paths, **options)
    assert isinstance(source, ImageFiles if "limit" in options else ImageStore)
    index = np.array([3, 0, 3])
    np.testing.assert_array_equal(source.fetch(index).permute(0, 2, 3, 1).numpy(), pixels[index])
    assert len(source) == 5
    assert source.fetch(index).permute(0, 2, 3, 1).is_contiguous()


def test_a_second_opening_reads_the_cache_and_no_image(paths, pixels, monkeypatch):
    open_images("test", paths, (6, 8))
    monkeypatch.setattr(image_store, "decode_image", partial(pytest.fail, "decoded again"))
    np.testing.assert_array_equal(open_images("test", paths, (6, 8)).images, pixels)


def test_another_size_leaves_the_images_in_use(paths, pixels):
    first = open_images("test", paths)
    assert open_images("test", paths, (4, 4), "resize").images.shape[1:3] == (4, 4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).images, pixels)


def test_a_changed_image_makes_the_cache_stale_and_only_the_new_one_stays(paths, cache):
    open_images("test", paths)
    before = cached(cache)
    Image.new("RGB", (8, 6), "red").save(paths[2])
    os.utime(paths[2], ns=(0, 0))  # another time even where the clock is coarse
    assert open_images("test", paths).images[2, 0, 0].tolist() == [255, 0, 0]
    assert len(cached(cache)) == 1
    assert cached(cache) != before


def test_the_key_follows_options_order_and_files(paths):
    keys = {
        content_key({"fit": "pad"}, paths),
        content_key({"fit": "resize"}, paths),
        content_key({"fit": "pad"}, paths[::-1]),
        content_key({"fit": "pad"}, paths[1:]),
    }
    assert len(keys) == 4
    assert content_key({"fit": "pad"}, paths) in keys


def test_two_folders_keep_their_own_caches(tmp_path, paths, cache):
    others = write(tmp_path / "others", np.zeros((2, 6, 8, 3), dtype=np.uint8))
    for _ in range(2):
        open_images(store_name("images", paths[0].parent), paths)
        open_images(store_name("images", others[0].parent), others)
    assert len(cached(cache)) == 2


def test_a_failed_decoding_leaves_the_old_cache_and_nothing_unfinished(paths, cache):
    open_images("test", paths)
    before = cached(cache)
    paths[1].write_bytes(b"no image")
    paths[4].write_bytes(paths[0].read_bytes()[:60])
    with pytest.raises(InputError, match=r"1\.png: no image format is recognised \(1 more of the 5 images"):
        open_images("test", paths, (6, 8))
    assert cached(cache) == before


def test_a_full_disk_is_said_before_anything_is_written(paths, cache, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"Expected 720 free bytes .*, got 100\. Set SIMEC_VISION_CACHE"):
        open_images("test", paths)
    assert cached(cache) == []


def test_a_cache_folder_that_cannot_be_made_is_named(paths, cache):
    cache.write_text("a file")
    with pytest.raises(InputError, match=rf"decoded images in .*cache: \[Errno {errno.EEXIST}\].*SIMEC_VISION_CACHE"):
        open_images("test", paths)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # 0.2 of black on white
        ("I;16", 200 * 256, (200, 200, 200)),
    ],
)
def test_grey_and_transparent_images_become_rgb_on_white(tmp_path, mode, colour, expected):
    Image.new(mode, (4, 3), colour).save(tmp_path / "image.png")
    decoded = decode_image(tmp_path / "image.png", None)
    assert decoded.shape == (3, 4, 3)
    assert (decoded == expected).all()


def test_a_palette_with_a_transparent_colour_becomes_rgb_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "image.png", transparency=1)
    assert decode_image(tmp_path / "image.png", None).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_padding_centres_an_image_in_white(tmp_path):
    Image.new("RGB", (136, 102), "black").save(tmp_path / "shoe.png")
    for fit in ("pad", "square"):
        padded = decode_image(tmp_path / "shoe.png", (136, 136), fit)
        assert (padded[:17] == 255).all()
        assert (padded[17:119] == 0).all()
        assert (padded[119:] == 255).all()


def test_padding_shrinks_what_is_too_large_and_keeps_its_proportions(tmp_path):
    Image.new("RGB", (40, 20), "black").save(tmp_path / "wide.png")
    padded = decode_image(tmp_path / "wide.png", (20, 20), "pad")
    assert (padded == 0).all(axis=(1, 2)).tolist() == [False] * 5 + [True] * 10 + [False] * 5


def test_a_square_is_padded_before_it_is_resized(tmp_path):
    Image.new("RGB", (40, 20), "black").save(tmp_path / "wide.png")
    square = decode_image(tmp_path / "wide.png", (20, 20), "square")
    assert (square[:4] == 255).all()
    assert (square[6:14] == 0).all()


def test_resizing_keeps_a_plain_colour_and_gives_height_before_width(tmp_path):
    Image.new("RGB", (40, 20), (10, 200, 30)).save(tmp_path / "wide.png")
    resized = decode_image(tmp_path / "wide.png", (7, 9), "resize")
    assert resized.shape == (7, 9, 3)
    assert (resized == (10, 200, 30)).all()


def test_another_size_is_an_error_with_both_sizes(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png to be 10 x 9 pixels .*, got 8 x 6\. .*fit=resize or fit=pad"):
        decode_image(tmp_path / "small.png", (9, 10))


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "missing"])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"Expected an image in .*x\.jpg: "):
        decode_image(path, None)


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"x\.jpg: image file is truncated"):
        decode_image(path, None)


def test_images_are_found_below_a_folder_in_order_without_hidden_ones(tmp_path):
    for name in ("b/2.JPG", "b/10.png", "a/notes.txt", "c.webp", ".hidden/1.png", "b/._2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["b/10.png", "b/2.JPG", "c.webp"]


def test_long_lists_are_shortened_and_counted():
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


# --- loaders and workers ----------------------------------------------------------------------------------------------


def test_a_view_of_a_mapped_file_is_pickled_as_a_place_in_it(tmp_path):
    whole = np.random.default_rng(0).integers(0, 256, (40, 4 * 25), dtype=np.uint8)
    np.save(tmp_path / "images.npy", whole)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    view = mapped[10:, 5 : 3 * 25 + 5].reshape(-1, 5, 5, 3)
    sent = pickle.dumps(ImageStore(view))
    assert len(sent) < 600 < view.size
    np.testing.assert_array_equal(pickle.loads(sent).images, whole[10:, 5:80].reshape(-1, 5, 5, 3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ImageStore(np.array(view)))).images, view)


def test_large_jpegs_are_decoded_smaller_and_look_the_same(tmp_path):
    ramp = np.linspace(0, 1, 800)
    waves = np.stack([np.add.outer(np.sin(9 * ramp), np.cos(7 * ramp)), np.outer(ramp, ramp), np.outer(ramp, 1 - ramp)])
    image = Image.fromarray((waves * 60 + 120).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    image.save(tmp_path / "x.jpg", quality=95)
    image.save(tmp_path / "x.png")
    for fit in ("resize", "pad", "square"):
        jpeg, png = (decode_image(tmp_path / name, (100, 100), fit).astype(int) for name in ("x.jpg", "x.png"))
        assert abs(jpeg - png).mean() < 1.0, fit
    assert opened(tmp_path / "x.jpg", (100, 100)).size == (200, 200)
    assert opened(tmp_path / "x.jpg", (250, 100)).size == (800, 800)
    assert opened(tmp_path / "x.jpg").size == (800, 800)


def test_threads_decode_each_image_into_its_own_row(monkeypatch):
    monkeypatch.setattr(decoding, "decoding_threads", lambda: 3)
    images = np.zeros((50, 1, 1, 1), dtype=np.uint8)
    decoding.decode_into(images, list(range(50)), lambda source: np.full((1, 1, 1), source, dtype=np.uint8))
    assert images.ravel().tolist() == list(range(50))


def test_of_several_bad_images_the_first_in_order_is_named(monkeypatch):
    def decode(source):
        if source in (4, 30):
            raise InputError(f"bad {source}")
        return np.zeros((1, 1, 1), dtype=np.uint8)

    for threads in (1, 3):
        monkeypatch.setattr(decoding, "decoding_threads", lambda threads=threads: threads)
        with pytest.raises(InputError, match=r"^bad 4 \(1 more of the 50 images"):
            decoding.decode_into(np.zeros((50, 1, 1, 1), dtype=np.uint8), list(range(50)), decode)
