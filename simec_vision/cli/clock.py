"""Training as ``pretrain`` does it, through Lightning's Trainer, with a clock inside."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import SimpleProfiler

from simec_vision.cli.building import bind_targets, build_model
from simec_vision.cli.pretrain import fit
from simec_vision.cli.runs import MetricsTable, make_trainer
from simec_vision.cli.timing import memory, now
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import Encoder
from simec_vision.items import InputError
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective, Pretraining

WAITING = "[_TrainingEpochLoop].train_dataloader_next"
"""Lightning's name for the time in which training waits for the next batch."""

BARE_TRAINER = {
    "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
}  # fmt: skip
"""Trainer options of measurements that are about something else than the Trainer."""


@dataclass
class Epoch:
    """What one epoch's training took.

    Args:
        started: Reading of the clock at its start, in seconds.
        ends: Readings at the end of every step.
        images: Images of all processes in it.
        waited: Seconds in which the training loop waited for the next batch.
        resident: Largest resident memory in MB at the end of a step, and largest part of it that no file holds.
    """

    started: float
    ends: list[float] = field(default_factory=list)
    images: int = 0
    waited: float = 0.0
    resident: tuple[float, float] = (0.0, 0.0)

    @property
    def seconds(self) -> float:
        """From the epoch's start to the end of its last step."""
        return self.ends[-1] - self.started

    @property
    def step_seconds(self) -> list[float]:
        """Seconds of every step but the first, from the end of the one before."""
        return [end - before for before, end in zip(self.ends, self.ends[1:], strict=False)]


class Clock(Callback):
    """Read the clock at every epoch's start and every step's end.

    Args:
        every_step: Wait for the GPU, and look at the memory, at every step; else only at an epoch's start and end.
        waiting: Measure how long the next batch is waited for, by Lightning's profiler, which takes time itself.
    """

    def __init__(self, every_step: bool = False, waiting: bool = False) -> None:
        self.every_step, self.epochs = every_step, list[Epoch]()
        self.profiler = SimpleProfiler() if waiting else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        self.epochs.append(Epoch(now(), waited=self._waited()))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take in a step."""
        epoch = self.epochs[-1]
        epoch.images += len(args[1][1]) * trainer.world_size
        if self.every_step:
            epoch.resident = max(epoch.resident[0], memory("VmRSS")), max(epoch.resident[1], memory("RssAnon"))
        if self.every_step or trainer.is_last_batch:
            epoch.ends.append(now())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End an epoch."""
        self.epochs[-1].waited = self._waited() - self.epochs[-1].waited

    def _waited(self) -> float:
        return sum(self.profiler.recorded_durations[WAITING]) if self.profiler else 0.0

    @property
    def steady(self) -> list[Epoch]:
        """All epochs but the first, in which everything warms up.

        Raises:
            InputError: if there was no other.
        """
        if len(self.epochs) < 2:
            raise InputError("Expected trainer.max_epochs of at least 2, as the first epoch only warms up")
        return self.epochs[1:]

    def images_per_second(self) -> float:
        """Training images a second; validation and the first epoch are not counted."""
        return sum(epoch.images for epoch in self.steady) / sum(epoch.seconds for epoch in self.steady)

    def waiting(self) -> float:
        """Share of the training time in which the next batch was waited for; needs ``waiting``."""
        return sum(epoch.waited for epoch in self.steady) / sum(epoch.seconds for epoch in self.steady)

    def step_seconds(self) -> float:
        """Median seconds of a step; needs ``every_step``."""
        return median(seconds for epoch in self.steady for seconds in epoch.step_seconds)


def train(
    data: ImageDataModule, encoder: Encoder, references: int, objective: Objective, optimisation: Optimisation,
    trainer: dict[str, Any], clock: Clock, callbacks: tuple[Callback, ...] = (),
    head_start: Literal["random", "eigen"] = "random",
) -> pl.Trainer:  # fmt: skip
    """Pretrain an encoder as the command ``pretrain`` does: the same module, Trainer, progress bar and ``metrics.csv``.

    Args:
        data: Where images come from; their batches are augmented and normalised as always.
        encoder: What is trained.
        references: How many references.
        objective: What is minimised.
        optimisation: Optimiser and schedule.
        trainer: Options of Lightning's Trainer.
        clock: Takes the time.
        callbacks: Further callbacks.
        head_start: How heads start, ``random`` or ``eigen``.

    Returns:
        The Trainer, when it is done.
    """
    pl.seed_everything(0, verbose=False)
    targets = bind_targets(data, data.similarities(), references, seed=0)
    model = build_model(data, encoder, targets, head_start, False).to(memory_format=torch.channels_last)
    with TemporaryDirectory() as folder:
        run = Path(folder)
        own = [MetricsTable(run / "metrics.csv"), clock, *callbacks]
        options = {**trainer, **({"profiler": clock.profiler} if clock.profiler else {})}
        lightning = make_trainer(options, run, "validation/loss", "min", False, own)
        fit(lightning, Pretraining(model, targets, objective, optimisation), data, run, None)
    return lightning


def limited(objective: Objective, references: int) -> Objective | None:
    """Let an objective see so many references a step; None where objectives cannot."""
    from dataclasses import replace

    known = any(part.name == "references_per_step" for part in fields(objective))
    return replace(objective, **{"references_per_step": references}) if known else None  # type: ignore[arg-type]
