"""A Trainer that leaves nothing behind: no line, no warning, no file, no changed random numbers."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.environments import LightningEnvironment

LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")


@contextmanager
def silence() -> Iterator[None]:
    """Leave Lightning's tips and warnings unsaid for a while, and the user's random numbers as they were."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    threads = torch.get_num_threads()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch)\.")
            yield
    finally:
        torch.set_num_threads(threads)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def make_trainer(
    epochs: int, accelerator: str, precision: str, verbose: bool, callbacks: Sequence[pl.Callback]
) -> pl.Trainer:
    """Make a Trainer on one device that writes no files."""
    with silence():
        return pl.Trainer(
            max_epochs=epochs, accelerator=accelerator, devices=1, precision=precision, callbacks=[*callbacks],  # type: ignore[arg-type]
            plugins=[LightningEnvironment()], logger=False, enable_checkpointing=any(
                isinstance(callback, Checkpoint) for callback in callbacks
            ), enable_progress_bar=verbose, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip


class Course(Checkpoint):
    """Keep an epoch's losses and, where wanted, the best epoch's weights, in memory.

    A kind of Checkpoint only for its turn: after the module has logged the epoch.

    Args:
        restore: Give the module the best epoch's weights back at the end.
    """

    def __init__(self, restore: bool) -> None:
        self.restore = restore
        self.losses: dict[str, list[float]] = {}
        self.best: tuple[int, float, dict[str, Any]] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take in an epoch, behind its validation."""
        for name in ("train/loss", "train/similarity_loss", "validation/loss"):
            if name in trainer.callback_metrics:
                self.losses.setdefault(name, []).append(float(trainer.callback_metrics[name]))
        judge = self.losses.get("validation/loss") or self.losses["train/similarity_loss"]
        if self.restore and (self.best is None or judge[-1] <= self.best[1]):
            weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
            self.best = len(judge) - 1, judge[-1], weights

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the best weights back."""
        if self.best is not None:
            pl_module.load_state_dict(self.best[2])


class Moments(pl.Callback):
    """Carry the optimiser's moments from one call of ``partial_fit`` to the next.

    Args:
        state: What the call before kept; None at the first.
    """

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state = state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the optimiser its moments."""
        if self.state is not None:
            own = trainer.optimizers[0].state_dict()
            trainer.optimizers[0].load_state_dict({**own, "state": self.state})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep them, in the processor's memory."""
        kept = trainer.optimizers[0].state_dict()["state"]
        self.state = {
            number: {name: torch.as_tensor(value).cpu().clone() for name, value in state.items()}
            for number, state in kept.items()
        }
