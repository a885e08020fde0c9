"""What all training has in common: optimiser, schedule, clipping, and randomness that a resumed run repeats."""

from abc import ABC
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from simec_vision.optimisation import Optimisation, align, step_plateau


class Training(pl.LightningModule, ABC):
    """A LightningModule that is optimised as its options say.

    Args:
        optimisation: Optimiser and schedule; default: those of :class:`Optimisation`.
        seed: Seed of dropout.
    """

    monitor = "train/loss"
    """The logged training loss that a plateau schedule looks at."""

    def __init__(self, optimisation: Optimisation | None, seed: int) -> None:
        super().__init__()
        self.optimisation = optimisation or Optimisation()
        self.seed = seed

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule; a plateau is looked for at the end of an epoch instead."""
        if metric is None:
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Look for a plateau of the training loss."""
        step_plateau(self, self.optimisation, self.monitor)

    def on_train_start(self) -> None:
        """Lay a loaded optimiser's moments out as the weights are."""
        align(self.optimizers(use_pl_optimizer=False))

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient's norm as the optimisation says, or else as the Trainer does."""
        if self.optimisation.clip > 0:
            gradient_clip_val, gradient_clip_algorithm = self.optimisation.clip, "norm"
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by step and process, so that a resumed run draws as an undisturbed one."""
        torch.manual_seed(hash((self.seed, self.global_step, self.global_rank)) % 2**63)

    def log_epoch(self, name: str, value: Tensor, count: int, prog_bar: bool = False) -> None:
        """Log the mean of a training step's value over the epoch and all processes.

        Args:
            name: What it is called.
            value: The mean over some items.
            count: How many items.
            prog_bar: Show it in the progress bar.
        """
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True, "prog_bar": prog_bar}
        self.log(name, value.detach(), batch_size=count, **options)
