"""What all training has in common: optimiser, schedule, clipping, and randomness that a resumed run repeats."""

from abc import ABC
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from simec_vision.optimisation import Optimisation, align, step_plateau
from simec_vision.processes import Average


class Training(pl.LightningModule, ABC):
    """A LightningModule that is optimised as its options say.

    Args:
        optimisation: Optimiser and schedule; default: those of :class:`Optimisation`.
        seed: Seed of dropout.
        lean: Keep small steps short: log a training epoch's means once, at its end, and draw nothing anew at a step.
            For networks without dropout, whose epochs are not interrupted (measured on a step of 0.6 ms: logging took
            40 % of it, seeding 15 %).
    """

    monitor = "train/loss"
    """The logged training loss that a plateau schedule looks at."""

    def __init__(self, optimisation: Optimisation | None, seed: int, lean: bool = False) -> None:
        super().__init__()
        self.optimisation = optimisation or Optimisation()
        self.seed, self.lean = seed, lean
        self._means: dict[str, Average] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, without :class:`torch.nn.Module`'s look for parameters where none can be.

        Lightning notes the name of the hook that runs 46 times a step.
        """
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule; a plateau is looked for at the end of an epoch instead."""
        if metric is None:
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Log what the epoch's steps have summed up, then look for a plateau of the training loss."""
        for name, mean in self._means.items():
            self.log(name, mean.compute(), prog_bar=name == "train/loss")
        self._means = {}
        step_plateau(self, self.optimisation, self.monitor)

    def on_train_start(self) -> None:
        """Lay a loaded optimiser's moments out as the weights are."""
        align(self.optimizers(use_pl_optimizer=False))

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Drop the gradients, in a tenth of the time that ``optimizer.zero_grad`` takes."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient's norm as the optimisation says, or else as the Trainer does."""
        if self.optimisation.clip > 0:
            gradient_clip_val, gradient_clip_algorithm = self.optimisation.clip, "norm"
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by step and process, so that a resumed run draws as an undisturbed one."""
        if not self.lean:
            batch_of_step = batch_idx % self.trainer.accumulate_grad_batches
            torch.manual_seed(hash((self.seed, self.global_step, batch_of_step, self.global_rank)) % 2**63)

    def log_epoch(self, name: str, value: Tensor, count: int, prog_bar: bool = False) -> None:
        """Log the mean of a training step's value over the epoch and all processes.

        Args:
            name: What it is called.
            value: The mean over some items.
            count: How many items.
            prog_bar: Show it in the progress bar.
        """
        if self.lean:
            self._means.setdefault(name, Average()).update(value, count)
            return
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True, "prog_bar": prog_bar}
        self.log(name, value.detach(), batch_size=count, **options)
