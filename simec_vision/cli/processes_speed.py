"""The command ``benchmark processes``: two processes with one thread each beside one process with one thread."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from simec_vision.cli.comparison import Comparison
from simec_vision.cli.hardware import best_precision
from simec_vision.cli.runs import CHOSEN, open_run
from simec_vision.cli.timing import check_turns, interleaved
from simec_vision.items import InputError, nearest

SIZES = {"ResidualNet": [], "CifarCNN": ["--encoder.size", "{size}"], "PlainCNN": ["--encoder.size", "{size}"]}
"""Encoder → its options that depend on the images."""


def benchmark_processes(
    config: str,
    encoder: str = "ResidualNet",
    images: int = 2048,
    size: int = 32,
    batch: int = 256,
    references: int = 1000,
    epochs: int = 3,
    processes: int = 2,
    repeats: int = 3,
    out: str | None = None,
) -> None:
    """Compare images per second of several processes with one thread each (DDP, gloo) with one such process.

    Both run the command pretrain on random images with the same global batches; the first epoch is not counted.

    Args:
        config: All options as YAML, for the output folder.
        encoder: ResidualNet, in which computing dominates, CifarCNN or PlainCNN.
        images: Training images an epoch.
        size: Height and width of the images in pixels.
        batch: Batch size over all processes together.
        references: How many references.
        epochs: Epochs of each run.
        processes: How many processes.
        repeats: How often all are measured in turns.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats)
    if encoder not in SIZES:
        raise InputError(f"Expected an encoder, got {encoder!r}: {nearest(encoder, [*SIZES])}")
    if epochs < 2 or processes < 2 or batch < 1 or batch % processes or images < max(batch, references):
        raise InputError(
            f"Expected epochs and processes of at least 2, a batch that the processes divide, and at least as many "
            f"images as batch and references, got {epochs}, {processes}, {batch}, {images} and {references}"
        )
    folder = open_run(out, "benchmark")
    command = [
        *("--data", "simec_vision.cli.made_images.RandomImages", "--data.count", images, "--data.size", size),
        *("--data.batches.size", batch, "--encoder", encoder, "--references", references, "--heatmaps", "false"),
        *(option.format(size=size) for option in SIZES[encoder]),
        *("--trainer.max_epochs", epochs, "--trainer.accelerator", "cpu", "--trainer.precision", best_precision()),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false"),
    ]
    options = [str(word) for word in command]
    several = [*options, "--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
    contestants = {"one": lambda: _rate(options), str(processes): lambda: _rate(several)}
    comparison = Comparison("processes: training images per second", {
        "threads": "1 a process", "precision": best_precision(), "memory_format": "channels last", "batch": batch,
        "encoder": encoder, "references": references, "size": size,
    })  # fmt: skip
    for name, values in interleaved(contestants, repeats).items():
        comparison.add(f"{name}_images_per_second", values, "images/s")
    comparison.relate(f"{processes}_over_one", f"{processes}_images_per_second", "one_images_per_second")
    comparison.notes.append("the same global batches on both sides: each process computes its share of every batch")
    print(comparison.write(folder, config))


def _rate(options: list[str]) -> float:
    """Pretrain in processes of their own, one thread each; give images per second after the first epoch."""
    environment = {name: value for name, value in os.environ.items() if name != CHOSEN}
    environment["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "simec_vision.cli.main", "pretrain", *options, "--out", str(run)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return steady_rate(run / "metrics.csv")


def steady_rate(path: Path) -> float:
    """Read images per second from a ``metrics.csv``, the first epoch left out."""
    with open(path, newline="") as file:
        rows = [(float(row["seconds"]), float(row["images_per_second"])) for row in csv.DictReader(file)][1:]
    return sum(seconds * rate for seconds, rate in rows) / sum(seconds for seconds, _ in rows)
