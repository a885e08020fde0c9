"""The commands ``benchmark references`` and ``benchmark images``: what training costs as they grow.

Every size is measured in a process of its own, so that memory is its own.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch

from simec_vision.cli.clock import BARE_TRAINER, Clock, limited, train
from simec_vision.cli.comparison import Comparison
from simec_vision.cli.hardware import best_precision, keep_memory, quiet
from simec_vision.cli.made_images import GivenImages, RandomImages, mapped, write_random_pixels
from simec_vision.cli.runs import open_run
from simec_vision.cli.timing import check_turns, in_own_process, interleaved, memory
from simec_vision.datamodules.image_data import Batches, ImageDataModule
from simec_vision.encoders import CifarCNN
from simec_vision.items import InputError
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective

STATE = 16
"""Bytes of each number of a head: itself, its gradient and the optimiser's two moments, float32."""

DISTINCT = 4096
"""Different images that the items of ``benchmark references`` show, so that images cost the same at every size."""


def benchmark_references(
    config: str,
    references: list[int] = [1_000, 10_000, 100_000],  # noqa: B006  # never changed, and the parser shows it
    references_per_step: int = 1000,
    batch: int = 256,
    embedding: int = 512,
    steps: int = 10,
    objective: Objective = Objective(orthogonality_penalty=1.0),
    repeats: int = 3,
    num_threads: int = 0,
    out: str | None = None,
) -> None:
    """Compare step time and peak memory as references grow, all of them at a step or a limited number.

    Args:
        config: All options as YAML, for the output folder.
        references: How many references, one measurement each; all others are compared with the first.
        references_per_step: How many of them a step sees at most in the second row of measurements.
        batch: Batch size.
        embedding: Length of an embedding.
        steps: Measured steps of each.
        objective: What is minimised.
        repeats: How often all are measured in turns.
        num_threads: Threads to compute with; 0 leaves torch's own number.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats, num_threads)
    _check_sizes("references", references, batch, steps)
    few = limited(objective, references_per_step)
    kinds = {"all": limited(objective, 0) or objective} | ({} if few is None else {"limited": few})
    contestants = {
        f"{kind}/{count}": _later(_references_once, count, each, batch, embedding, steps, num_threads)
        for count in references
        for kind, each in kinds.items()
    }
    folder = open_run(out, "benchmark")
    setting = _setting(num_threads, batch) | {"embedding": embedding, "references_per_step": references_per_step}
    comparison = Comparison("references: time and memory of a training step", setting)
    for name, turns in interleaved(contestants, repeats).items():
        comparison.add(f"step_ms/{name}", [turn["step_ms"] for turn in turns], "ms")
        comparison.add(f"first_step_ms/{name}", [turn["first_ms"] for turn in turns], "ms")
        comparison.add(f"peak_growth_mb/{name}", [turn["peak_mb"] for turn in turns], "MB")
    for kind in kinds:
        for count in references[1:]:
            for figure in ("step_ms", "peak_growth_mb"):
                first, this = f"{figure}/{kind}/{references[0]}", f"{figure}/{kind}/{count}"
                comparison.relate(f"{this}_over_{references[0]}", this, first)
        _relate_to_head(comparison, kind, references, embedding)
    heads = ", ".join(f"{STATE * count * embedding / 1e6:.0f} MB for {count}" for count in references)
    comparison.notes.append(f"head with gradient and two moments of the optimiser, float32: {heads}")
    comparison.notes.append("growth_over_head: memory beyond the first size over that which its head takes more")
    if few is None:
        comparison.notes.append("objectives of this version cannot limit the references of a step: not measured")
    print(comparison.write(folder, config))


def benchmark_images(
    config: str,
    images: list[int] = [10_000, 100_000, 1_000_000],  # noqa: B006  # never changed, and the parser shows it
    size: int = 32,
    batch: int = 256,
    references: int = 3000,
    steps: int = 60,
    repeats: int = 3,
    num_threads: int = 0,
    folder: str | None = None,
    out: str | None = None,
) -> None:
    """Compare images per second and memory as the number of images in a memory-mapped file grows.

    Args:
        config: All options as YAML, for the output folder.
        images: How many images, one measurement each; all others are compared with the first.
        size: Height and width of the images in pixels.
        batch: Batch size.
        references: How many references.
        steps: Measured steps of each.
        repeats: How often all are measured in turns.
        num_threads: Threads to compute with; 0 leaves torch's own number.
        folder: Where the files of images lie while it runs; default: the system's temporary folder.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats, num_threads)
    _check_sizes("images", images, batch, steps)
    if min(images) < 3 * batch:
        raise InputError(f"Expected images for three batches of {batch} at every size, got {images}")
    _check_room(folder, sum(images) * size * size * 3)
    run = open_run(out, "benchmark")
    comparison = Comparison("images: speed and memory of training", _setting(num_threads, batch))
    with TemporaryDirectory(dir=folder) as files:
        contestants = {
            str(count): _later(_images_once, _file(Path(files), count, size), references, batch, steps, num_threads)
            for count in images
        }
        measured = interleaved(contestants, repeats)
    units = {"images_per_second": "images/s", "epoch_start_s": "s", "anonymous_mb": "MB", "resident_mb": "MB"}
    for name, turns in measured.items():
        for figure, unit in units.items():
            comparison.add(f"{figure}/{name}", [turn[figure] for turn in turns], unit)
    for count in images[1:]:
        for figure in ("images_per_second", "anonymous_mb", "resident_mb"):
            comparison.relate(f"{figure}/{count}_over_{images[0]}", f"{figure}/{count}", f"{figure}/{images[0]}")
    comparison.notes += [
        "anonymous: the largest resident memory that no file holds; resident also counts pages of the images' file, "
        "which the system keeps as long as nobody else needs the memory",
        "the files have just been written: the system reads them from memory as far as they fit",
        "epoch_start: until the first batch of an epoch is there, the drawing of the epoch's order included; images "
        "per second are those of the steps after the first",
        ", ".join(f"{count} images: {count * size * size * 3 / 1e6:.0f} MB" for count in images),
    ]
    print(comparison.write(run, config))


def _relate_to_head(comparison: Comparison, kind: str, references: list[int], embedding: int) -> None:
    """Compare how much memory grows with how much head, gradient and optimiser's moments do."""
    first, before = references[0], comparison.figures[f"peak_growth_mb/{kind}/{references[0]}"]
    for count in references[1:]:
        head = STATE * (count - first) * embedding / 1e6
        peaks = comparison.figures[f"peak_growth_mb/{kind}/{count}"]
        grown = [(peak - other) / head for peak, other in zip(peaks, before, strict=True)]
        comparison.ratios[f"growth_over_head/{kind}/{count}"] = grown


def _check_room(folder: str | None, needed: int) -> None:
    """Check before files are written: a memory-mapped file on a full disk ends the process without a word."""
    place = folder or gettempdir()
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(f"Expected {needed:,} free bytes for images in {place}, got {free:,}: give another --folder")


def _check_sizes(name: str, sizes: list[int], batch: int, steps: int) -> None:
    if not sizes or min(sizes) < 1 or batch < 1 or steps < 2:
        raise InputError(
            f"Expected {name} as a list of numbers of at least 1, batch of at least 1 and steps of at least 2, got "
            f"{sizes}, {batch} and {steps}"
        )


def _setting(num_threads: int, batch: int) -> dict[str, Any]:
    return {
        "threads": num_threads or torch.get_num_threads(), "precision": best_precision(),
        "memory_format": "channels last", "batch": batch, "encoder": "CifarCNN",
    }  # fmt: skip


def _later(function: Any, *arguments: Any) -> Any:
    return lambda: in_own_process(function, *arguments)


def _file(folder: Path, count: int, size: int) -> Path:
    path = folder / f"{count}.npy"
    write_random_pixels(path, count, size)
    return path


def _references_once(
    count: int, objective: Objective, batch: int, embedding: int, steps: int, num_threads: int
) -> dict[str, float]:
    data = RandomImages(max(count, batch * steps), distinct=DISTINCT, held_out=1, batches=Batches(size=batch))
    data.setup()
    before = memory("VmRSS")
    clock = _trained(data, CifarCNN(embedding), count, objective, steps, num_threads)
    first = clock.epochs[0]
    peak = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else memory("VmHWM") - before
    return {
        "step_ms": clock.step_seconds() * 1000,
        "first_ms": (first.ends[0] - first.started) * 1000,
        "peak_mb": peak,
    }


def _images_once(path: Path, references: int, batch: int, steps: int, num_threads: int) -> dict[str, float]:
    store = mapped(path)
    data = GivenImages(store, held_out=max(1, len(store) // 100), batches=Batches(size=batch))
    references = min(references, len(data.split("train")))
    clock = _trained(
        data, CifarCNN(size=data.size[1]), references, Objective(orthogonality_penalty=1.0), steps, num_threads
    )
    (epoch,) = clock.steady
    return {
        "images_per_second": (epoch.images - batch) / (epoch.ends[-1] - epoch.ends[0]),
        "epoch_start_s": epoch.ends[0] - epoch.started - clock.step_seconds(),
        "anonymous_mb": max(each.resident[1] for each in clock.epochs),
        "resident_mb": max(each.resident[0] for each in clock.epochs),
    }


def _trained(
    data: ImageDataModule, encoder: CifarCNN, references: int, objective: Objective, steps: int, num_threads: int
) -> Clock:
    """Train for two epochs of so many steps; the first one warms up."""
    quiet()
    keep_memory()
    torch.set_num_threads(num_threads or torch.get_num_threads())
    clock = Clock(every_step=True)
    options = {"max_epochs": 2, "limit_train_batches": steps, "precision": best_precision(), "devices": 1}
    train(data, encoder, references, objective, Optimisation(), {**BARE_TRAINER, **options}, clock)
    return clock
