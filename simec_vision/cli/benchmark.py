"""The command ``benchmark pretraining``: training through the Trainer beside a bare loop and the original's recipe."""

from dataclasses import replace
from typing import Any, Literal

from simec_vision.cli.comparison import Comparison
from simec_vision.cli.made_images import Part, RandomImages
from simec_vision.cli.quality import measure_quality
from simec_vision.cli.runs import open_run
from simec_vision.cli.sides import Sides
from simec_vision.cli.timing import check_turns, interleaved, threads
from simec_vision.datamodules.image_data import Batches, ImageDataModule
from simec_vision.items import InputError
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective


def benchmark_pretraining(
    config: str,
    trainer: dict[str, Any],
    data: ImageDataModule | None = None,
    images: int = 10_240,
    batch: int = 256,
    references: int = 3000,
    embedding: int = 512,
    objective: Objective = Objective(orthogonality_penalty=1.0),
    optimisation: Optimisation = Optimisation(lr=2e-3),
    head_start: Literal["random", "eigen"] = "random",
    naive_steps: int = 8,
    quality: bool = False,
    quality_images: int = 10_000,
    repeats: int = 3,
    num_threads: int = 0,
    out: str | None = None,
) -> None:
    """Compare images per second of pretraining (CifarCNN, same-class similarity) with a bare loop and the original's.

    Ours is what pretrain does: order, augmentation and normalisation of uint8 batches, Trainer, progress bar, logging
    and validation (not counted) included. The bare loop has the same network, losses, penalties and optimiser on
    normalised tensors in memory, the naive loop the original's recipe: batch 32, full Gram penalty, item by item,
    the C library's memory as it is by default (ours and the bare loop let it keep freed memory).

    Args:
        config: All options as YAML, for the output folder.
        trainer: Options of Lightning's Trainer.
        data: Where images come from; default: random ones, 32×32 pixels in 10 classes.
        images: Training images an epoch.
        batch: Batch size of ours and of the bare loop.
        references: How many references.
        embedding: Length of an embedding.
        objective: What ours and the bare loop minimise.
        optimisation: Optimiser and schedule of ours; the bare loop has no schedule.
        head_start: How the head of ours starts, as in pretrain.
        naive_steps: Measured steps of the naive loop a turn.
        quality: Measure too how long it takes to the naive loop's validation error after its first epoch (needs data).
        quality_images: Training images of that comparison.
        repeats: How often all are measured in turns.
        num_threads: Threads to compute with; 0 leaves torch's own number.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats, num_threads)
    if quality and data is None:
        raise InputError("Expected --data with images that can be learned for --quality true, got none (random images)")
    if min(naive_steps, batch, references, embedding) < 1:
        raise InputError(
            f"Expected naive_steps, batch, references and embedding of at least 1, got {naive_steps}, {batch}, "
            f"{references} and {embedding}"
        )
    sides = Sides(source(data, images, batch), references, embedding, objective, optimisation, trainer, head_start)
    folder = open_run(out, "benchmark")
    with threads(num_threads):
        comparison = Comparison("pretraining: training images per second", sides.setting())
        contestants = {"ours": sides.ours, "bare": sides.bare, "naive": lambda: sides.naive(naive_steps)}
        for name, values in interleaved(contestants, repeats).items():
            comparison.add(f"{name}_images_per_second", values, "images/s")
        for other in ("bare", "naive"):
            comparison.relate(f"ours_over_{other}", "ours_images_per_second", f"{other}_images_per_second")
        if quality and data is not None:
            measure_quality(comparison, sides, data, quality_images, repeats)
    print(comparison.write(folder, config))


def source(data: ImageDataModule | None, images: int, batch: int) -> ImageDataModule:
    """Give the images of a benchmark: random ones, or some of the given ones, in batches of the given size."""
    if data is None:
        return RandomImages(images, batches=Batches(size=batch))
    part = Part(data, images, validation=256)
    part.prepare_data()
    part.batches = replace(data.batches, size=batch)
    return part
