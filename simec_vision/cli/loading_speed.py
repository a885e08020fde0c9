"""The command ``benchmark loading``: streaming JPEG files beside decoding them bare, and whether training waits."""

from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from simec_vision.cli.clock import BARE_TRAINER, Clock, train
from simec_vision.cli.comparison import Comparison
from simec_vision.cli.hardware import best_precision
from simec_vision.cli.made_images import GivenImages
from simec_vision.cli.runs import open_run
from simec_vision.cli.timing import check_turns, interleaved, seconds_of, threads
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.image_data import Batches
from simec_vision.datamodules.image_store import ImageFiles, decode_image
from simec_vision.encoders import PlainCNN
from simec_vision.items import InputError
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective

QUALITY = 90
"""Of the JPEG files."""


def benchmark_loading(
    config: str,
    images: int = 2048,
    distinct: int = 256,
    size: int = 136,
    batch: int = 256,
    workers: int = 2,
    repeats: int = 3,
    num_threads: int = 0,
    out: str | None = None,
) -> None:
    """Compare streaming JPEG files with decoding them bare, with the same workers, and see how long training waits.

    Args:
        config: All options as YAML, for the output folder.
        images: How many files.
        distinct: How many different shoes are drawn for them.
        size: Height and width of the images in pixels.
        batch: Batch size.
        workers: Processes that decode.
        repeats: How often all are measured in turns.
        num_threads: Threads to train with; 0 leaves torch's own number.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats, num_threads)
    if min(workers, distinct, batch) < 1 or images < 2 * batch:
        raise InputError(
            f"Expected workers, distinct and batch of at least 1 and images for two batches, got {workers}, "
            f"{distinct}, {batch} and {images}"
        )
    folder = open_run(out, "benchmark")
    with TemporaryDirectory() as files, threads(num_threads):
        paths = write_jpegs(Path(files), images + 1, distinct, size)
        comparison = Comparison("loading: decoded images per second", {
            "threads": torch.get_num_threads(), "precision": best_precision(), "memory_format": "channels last",
            "batch": batch, "workers": workers, "size": size, "encoder": "PlainCNN",
        })  # fmt: skip
        _compare(comparison, paths, size, batch, workers, repeats)
    comparison.notes.append(
        "bare: the same files opened, decoded and dropped by as many processes; training: through the Trainer from the "
        "same stream; waiting: share of its time in which the next batch was not there"
    )
    print(comparison.write(folder, config))


def _compare(
    comparison: Comparison, paths: list[Path], size: int, batch: int, workers: int, repeats: int
) -> None:  # fmt: skip
    def data() -> GivenImages:
        files = ImageFiles(paths, (size, size, 3), partial(decode_image, size=(size, size)))
        return GivenImages(files, held_out=1, batches=Batches(size=batch, workers=workers))

    contestants = {
        "streamed": lambda: {"rate": streamed(data())},
        "bare": lambda: {"rate": decoded_bare(paths[:-1], batch, workers)},
        "training": lambda: _training(data(), size),
    }
    turns = interleaved(contestants, repeats)
    for name in contestants:
        comparison.add(f"{name}_images_per_second", [turn["rate"] for turn in turns[name]], "images/s")
    comparison.add("waiting", [turn["waiting"] for turn in turns["training"]], "share of training time")
    for name, other in (("streamed", "bare"), ("streamed", "training")):
        comparison.relate(f"{name}_over_{other}", f"{name}_images_per_second", f"{other}_images_per_second")


def write_jpegs(folder: Path, count: int, distinct: int, size: int) -> list[Path]:
    """Write drawn shoes as JPEG files, the same ones over and over again; give their paths."""
    shoes = DrawnShoes(max(distinct, 10), size, cache=False)
    pictures = shoes.images(np.arange(min(distinct, count)))
    paths = [folder / f"{number:07d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(pictures[number % len(pictures)]).save(path, quality=QUALITY)
    return paths


def streamed(data: GivenImages) -> float:
    """Go through a source's training batches without training; images per second of the second epoch."""
    loader = data.train_dataloader()
    seconds, count = 0.0, 0

    def epoch() -> None:
        nonlocal count
        count = sum(len(index) for _, index in loader)

    for _ in range(2):  # workers start in the first
        seconds = seconds_of(epoch)
    return count / seconds


def decoded_bare(paths: Sequence[Path], batch: int, workers: int) -> float:
    """Decode files by plain Pillow in processes that give nothing back; images per second once all are there."""
    parts = [paths[start : start + batch] for start in range(0, len(paths) - batch + 1, batch)]
    context = get_context("spawn")
    ready = context.Barrier(workers + 1)
    with context.Pool(workers, _wait, (ready,)) as pool:
        ready.wait()
        seconds = seconds_of(lambda: sum(pool.imap_unordered(_decode, parts)))
    return sum(len(part) for part in parts) / seconds


def _wait(ready: Barrier) -> None:
    ready.wait()


def _decode(paths: Sequence[Path]) -> int:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB"))
    return len(paths)


def _training(data: GivenImages, size: int) -> dict[str, float]:
    clock = Clock(waiting=True)
    trainer: dict[str, Any] = {**BARE_TRAINER, "max_epochs": 2, "devices": 1, "precision": best_precision()}
    references = min(1000, len(data.split("train")))
    train(data, PlainCNN(size=size), references, Objective(), Optimisation(), trainer, clock)
    return {"rate": clock.images_per_second(), "waiting": clock.waiting()}
