"""How long training takes to the quality that the naive loop reaches in its first epoch."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from simec_vision.cli.clock import Clock
from simec_vision.cli.comparison import Comparison
from simec_vision.cli.hardware import as_usual
from simec_vision.cli.made_images import Part
from simec_vision.cli.sides import Sides
from simec_vision.cli.timing import interleaved, now
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.items import InputError

CHECKS = 8
"""Validations of ours an epoch."""
VALIDATION = 2000
"""Validation images."""


class UntilError(Callback):
    """Stop when the validation error is as small as wanted; count the seconds with and without validation.

    Args:
        wanted: Validation error, mean squared.
    """

    def __init__(self, wanted: float) -> None:
        self.wanted = wanted
        self.seconds = self.all_seconds = self.error = float("nan")
        self._started = self._validating = self._validated = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._validated = now(), 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the training clock."""
        self._validating = now()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the error."""
        if trainer.sanity_checking:
            return
        done, self.error = now(), float(trainer.callback_metrics["validation/loss"])
        self._validated += done - self._validating
        if self.error <= self.wanted:
            self.all_seconds = done - self._started
            self.seconds = self.all_seconds - self._validated
            trainer.should_stop = True


def measure_quality(
    comparison: Comparison, sides: Sides, source: ImageDataModule, images: int, repeats: int
) -> None:  # fmt: skip
    """Add to a comparison: the naive loop's error after an epoch, and the seconds of both to reach it.

    Args:
        comparison: Takes the figures and the ratio ``seconds_to_naive_quality``.
        sides: Who is compared.
        source: Where images come from.
        images: How many of them to train on.
        repeats: How often ours is measured; the naive loop, which takes long, only once.
    """
    data = Part(source, images, validation=VALIDATION)
    data.batches = sides.data.batches
    same = sides.objective, sides.optimisation, sides.trainer, sides.head_start
    own = Sides(data, sides.references, sides.embedding, *same)
    validation = data.split("validation")
    loop, pictures = own.naive_loop(data.split("train")), data.normalised(validation)
    started = now()
    with as_usual():
        loop.epoch()
    naive_seconds = now() - started
    error = loop.error(pictures, own.target(torch.from_numpy(validation)))
    measured = interleaved({"ours": lambda: _until(own, data, error)}, repeats)["ours"]
    comparison.add("naive_error_after_an_epoch", [error], "mse")
    comparison.add("naive_seconds_of_an_epoch", [naive_seconds] * repeats, "s")
    comparison.add("ours_error_reached", [stop.error for stop in measured], "mse")
    comparison.add("ours_seconds_to_naive_error", [stop.seconds for stop in measured], "s")
    comparison.add("ours_seconds_with_validation", [stop.all_seconds for stop in measured], "s")
    comparison.relate("seconds_to_naive_quality", "ours_seconds_to_naive_error", "naive_seconds_of_an_epoch")
    comparison.notes.append(
        f"{len(data.split('train'))} training and {len(validation)} validation images; ours validates {CHECKS} times "
        "an epoch, which its seconds leave out"
    )


def _until(sides: Sides, data: Part, error: float) -> UntilError:
    stop = UntilError(error)
    steps = max(1, len(data.split("train")) // data.batches.size)
    often = {"val_check_interval": max(1, steps // CHECKS), "check_val_every_n_epoch": 1}
    options = {**sides.trainer, **often, "num_sanity_val_steps": 0}
    sides.train(options, Clock(), (stop,))
    if stop.seconds != stop.seconds:
        raise InputError(
            f"Expected ours to reach the naive loop's error {error:.4g} within trainer.max_epochs "
            f"{sides.trainer['max_epochs']}, got {stop.error:.4g}: give more epochs"
        )
    return stop
