"""How weights are optimised: optimiser and learning-rate schedule as options, shared by all training."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import cos, inf, pi, sqrt
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from simec_vision.items import InputError
from simec_vision.rowwise import RowwiseAdam, RowwiseAdamW

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "sgd": torch.optim.SGD,
}
"""The optimisers by the names that options use."""

ROWWISE: dict[str, type[Optimizer]] = {"adam": RowwiseAdam, "adamw": RowwiseAdamW}
"""Those that can update only the rows of a head that a step has seen."""


@dataclass(frozen=True)
class Optimisation:
    """Optimiser and learning-rate schedule.

    Args:
        optimizer: Which optimiser; ``sgd`` runs with Nesterov momentum 0.9.
        lr: Largest learning rate, for batches of ``lr_batch`` images.
        lr_batch: Batch size that ``lr`` is meant for. Where k times as many images are asked for, the learning rate is
            √k times as large, with ``sgd`` k times (Malladi et al. 2022, arXiv 2205.10287; Goyal et al. 2017, arXiv
            1706.02677); 0 takes ``lr`` as it is.
        weight_decay: Weight decay of the optimiser. Where a step sees some rows of a head only (the objective's
            ``references_per_step``), ``adam`` and ``adamw`` decay these alone, as often as their gradient moves them.
        schedule: ``cosine`` rises linearly and falls as a cosine to 0, ``constant`` stays, ``plateau`` divides by 10
            when an epoch's training loss has not fallen for ``patience`` epochs (the original's schedule).
        warmup: Share of all steps in which ``cosine`` rises.
        patience: Epochs that ``plateau`` waits for a lower loss.
        plateau_start: First epoch, counted from 0, whose loss ``plateau`` looks at (4 in the original).
        clip: Largest norm of the gradient, that of all heads and the encoder together; 0 does not clip.
    """

    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adamw"
    lr: float = 4e-3
    lr_batch: int = 0
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warmup: float = 0.1
    patience: int = 5
    plateau_start: int = 4
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.lr_batch < 0:
            raise InputError(f"Expected lr_batch as a batch size, or 0 for lr as it is, got {self.lr_batch}")


def scaled_lr(options: Optimisation, batch: int) -> float:
    """Give the largest learning rate for batches of a size, those of all processes and accumulated steps together."""
    ratio = batch / options.lr_batch if options.lr_batch else 1.0
    return options.lr * (ratio if options.optimizer == "sgd" else sqrt(ratio))


def batch_of(data: Any, trainer: Any) -> int | None:
    """Give how many of the data's images a Trainer's optimiser step is asked to see; None where they do not say so."""
    batches = getattr(data, "batches", None)
    return None if batches is None else int(batches.size * trainer.accumulate_grad_batches)


def cosine_factor(step: int, total: int, warmup: float) -> float:
    """Learning rate at a step over the largest: a linear rise in ``warmup · total`` steps, then a cosine to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + cos(pi * min(1.0, (step - rise) / max(1.0, total - rise))))


NO_END = "Expected an end for the schedule cosine: give trainer.max_epochs, or the schedule constant"

FUSED = ("adam", "adamw", "sgd")
"""Those that update all weights in one pass, in a third of the time (measured on a processor with AdamW)."""


GRAPH_CHECKS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
"""What Adam asks at every step, by torch's newer and older name: whether a GPU records a graph. Beside Lightning, which
has torch count GPUs through their driver's library, the answer costs as much as the step of a small model (measured:
.27 against .09 ms), and is always no on the processor."""


def _nothing() -> None:
    pass


def make_optimizer(
    parameters: Iterable[nn.Parameter], options: Optimisation, row_wise: bool = False, fused: bool = True
) -> Optimizer:
    """Make the optimiser over the parameters that are trained.

    Args:
        parameters: The parameters, of which those that need a gradient are trained.
        options: Which optimiser.
        row_wise: Take it from :data:`ROWWISE`, for parameters with sparse gradients.
        fused: Update all weights in one pass where the optimiser can.
    """
    kinds = ROWWISE if row_wise else OPTIMIZERS
    extra: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if options.optimizer == "sgd" else {}
    if fused and options.optimizer in FUSED:
        extra["fused"] = True
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    made = kinds[options.optimizer](trained, lr=options.lr, weight_decay=options.weight_decay, **extra)  # type: ignore[call-arg]
    if all(parameter.device.type == "cpu" for parameter in trained):
        for name in GRAPH_CHECKS:
            setattr(made, name, _nothing)
    return made


def make_schedule(optimizer: Optimizer, options: Optimisation, total_steps: int, monitor: str) -> dict[str, Any] | None:
    """Make the schedule as Lightning's ``lr_scheduler`` entry; ``monitor`` is the logged training loss of an epoch."""
    if options.schedule == "cosine":
        schedule = LambdaLR(optimizer, lambda step: cosine_factor(step, total_steps, options.warmup))
        return {"scheduler": schedule, "interval": "step"}
    if options.schedule == "plateau":
        plateau = ReduceLROnPlateau(optimizer, patience=options.patience, eps=0)
        return {"scheduler": plateau, "interval": "epoch", "monitor": monitor, "name": "plateau"}
    return None


def configured(
    parameters: Iterable[nn.Parameter], options: Optimisation, trainer: Any, monitor: str, row_wise: bool = False
) -> dict[str, Any]:
    """Make what a LightningModule's ``configure_optimizers`` returns.

    Lightning does not clip the gradient of an optimiser that undoes float16's scaling itself, as fused ones do. Under
    float16 it is therefore not fused; under bfloat16, where nothing is scaled, it only says that it does not.

    Raises:
        InputError: for the schedule ``cosine`` in a training without end.
    """
    steps = trainer.estimated_stepping_batches
    if options.schedule == "cosine" and steps == inf:
        raise InputError(NO_END)
    batch = batch_of(getattr(trainer, "datamodule", None), trainer)
    options = replace(options, lr=scaled_lr(options, batch or options.lr_batch))
    optimizer = make_optimizer(parameters, options, row_wise, fused=trainer.precision != "16-mixed")
    if trainer.precision == "bf16-mixed":
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    schedule = make_schedule(optimizer, options, max(1, int(min(steps, 2**62))), monitor)
    return {"optimizer": optimizer} | ({"lr_scheduler": schedule} if schedule else {})


def align(optimizer: Any) -> None:
    """Lay an optimiser's moments out as their weights are, which a run that is resumed may do in another way.

    A fused optimiser reads both in the order in which they lie.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def step_plateau(module: Any, options: Optimisation, monitor: str) -> None:
    """Show an epoch's training loss to a plateau schedule.

    Called at the end of an epoch by the LightningModule itself, because Lightning would do it only after the epoch's
    checkpoint has been written, and a resumed run would lose the step.
    """
    if options.schedule == "plateau" and module.current_epoch >= options.plateau_start:
        module.lr_schedulers().step(module.trainer.callback_metrics[monitor])
