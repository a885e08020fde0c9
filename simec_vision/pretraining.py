"""Pretraining: the LightningModule that trains a SimilarityModel on target similarities."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError, nearest
from simec_vision.losses import LOSSES, gram_penalty, gram_penalty_block, orthogonality_penalty
from simec_vision.metrics import SimilarityMatch
from simec_vision.model import SimilarityModel
from simec_vision.optimisation import Optimisation, configured, step_plateau
from simec_vision.processes import Average, from_all_processes, keep_buffers_local, share_buffers


@dataclass(frozen=True)
class Objective:
    """What pretraining minimises: Σ_heads weight · (loss + Gram penalty + orthogonality penalty).

    Args:
        loss: ``mse``, ``mae`` or ``bce`` (predicted similarities as log-odds) between predicted and target similarity.
        weights: Head name → weight of its part; 1 where none is given.
        gram_penalty: Strength of the Gram penalty (the original's ``s_ll_reg``); it makes embeddings' inner products
            similarities themselves.
        gram_block: References in the random block that estimates the Gram penalty at a step; 0 takes all of them,
            which costs reference² · embedding operations a step.
        orthogonality_penalty: Strength of the orthogonality penalty (the original's ``orth_reg``).
        orthogonality_start: Share of the epochs after which it begins (1/3 in the original's torch code).

    Raises:
        InputError: for a Gram penalty beside ``bce``, whose predicted similarities are log-odds.
    """

    loss: Literal["mse", "mae", "bce"] = "mse"
    weights: dict[str, float] = field(default_factory=dict)
    gram_penalty: float = 1.0
    gram_block: int = 512
    orthogonality_penalty: float = 0.0
    orthogonality_start: float = 0.0

    def __post_init__(self) -> None:
        if self.loss == "bce" and self.gram_penalty > 0:
            raise InputError(
                "Expected gram_penalty 0 beside the loss bce, whose predicted similarities are log-odds, "
                f"got {self.gram_penalty}"
            )


def block_of_references(num_references: int, block: int, seed: int, step: int) -> NDArray[np.int64]:
    """Draw the block of references that a step's Gram penalty sees; the same in every process.

    Args:
        num_references: How many references there are.
        block: How many to draw, without replacement.
        seed: Seed of the run.
        step: Number of the step.
    """
    return np.random.default_rng((seed, step)).choice(num_references, block, replace=False, shuffle=False)


class Pretraining(pl.LightningModule):
    """Train an encoder and its heads to predict target similarities.

    Args:
        model: What is trained.
        targets: Head name → module that gives target similarities, index ``(batch,)`` → ``(batch, reference)``, and
            the references' own, ``gram(columns)`` → ``(column, column)``.
        objective: What is minimised.
        optimisation: Optimiser and schedule.
        seed: Seed of the random blocks and of dropout.

    Raises:
        ValueError: if heads and targets do not have the same names or sizes.
    """

    def __init__(
        self,
        model: SimilarityModel,
        targets: Mapping[str, Any],
        objective: Objective | None = None,
        optimisation: Optimisation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.objective = objective or Objective()
        _check_heads(model, targets, self.objective)
        self.model = model
        self.targets = nn.ModuleDict(targets)
        keep_buffers_local(self)
        self.optimisation = optimisation or Optimisation()
        self.seed = seed
        self._matches: dict[str, SimilarityMatch] = {}
        self._losses: dict[str, Average] = {}
        self._known_counts: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict similarities: head name → ``(batch, reference)``."""
        return self.model(images)

    def configure_optimizers(self) -> Any:
        """Make optimiser and schedule."""
        return configured(
            self.model.parameters(), self.optimisation, self.trainer.estimated_stepping_batches, "train/similarity_loss"
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule; a plateau is looked for at the end of an epoch instead."""
        if metric is None:
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Look for a plateau of the training loss."""
        step_plateau(self, self.optimisation, "train/similarity_loss")

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the gradient's norm."""
        if self.optimisation.clip > 0:
            self.clip_gradients(optimizer, gradient_clip_val=self.optimisation.clip, gradient_clip_algorithm="norm")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by step and process, so that a resumed run draws as an undisturbed one."""
        torch.manual_seed(hash((self.seed, self.global_step, self.global_rank)) % 2**63)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the objective on a batch of images and their index."""
        images, index = batch
        predicted = self.model(images)
        losses = self.head_losses(predicted, index)
        similarity = self.weighted(losses)
        loss = similarity + self.penalty()
        self._log_epoch("train/similarity_loss", similarity, len(index))
        self._log_epoch("train/loss", loss, len(index), prog_bar=True)
        for head, part in losses.items():
            self._log_epoch(f"train/{head}/loss", part, len(index))
        return loss

    def _log_epoch(self, name: str, value: Tensor, count: int, prog_bar: bool = False) -> None:
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True, "prog_bar": prog_bar}
        self.log(name, value.detach(), batch_size=count, **options)

    def head_losses(self, predicted: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        """Give each head's loss of the predicted similarities of the items ``index``."""
        loss = LOSSES[self.objective.loss]
        return {head: loss(given.float(), self.targets[head](index)) for head, given in predicted.items()}

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Sum the heads' losses by their weights."""
        return torch.stack([self._weight(head) * loss for head, loss in losses.items()]).sum()

    def penalty(self) -> Tensor:
        """Sum the heads' weighted penalties at the current step; 0 for frozen heads, which they could not change."""
        total = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            for name in self.model.heads:
                if self.model.head(name).weight.requires_grad:
                    total = total + self._weight(name) * self._head_penalty(name)
        return total

    def _weight(self, name: str) -> float:
        return self.objective.weights.get(name, 1.0)

    def _head_penalty(self, name: str) -> Tensor:
        weight, objective = self.model.head(name).weight.float(), self.objective
        total = weight.new_zeros(())
        if objective.gram_penalty > 0:
            total = total + objective.gram_penalty * self._gram_penalty(name, weight)
        if objective.orthogonality_penalty > 0 and self._orthogonality_started():
            total = total + objective.orthogonality_penalty * orthogonality_penalty(weight)
        return total

    def _gram_penalty(self, name: str, weight: Tensor) -> Tensor:
        target: Any = self.targets[name]
        block = self.objective.gram_block
        if not 0 < block < len(weight):
            return gram_penalty(weight, target.gram())
        columns = torch.from_numpy(block_of_references(len(weight), block, self.seed, self.global_step))
        columns = columns.to(weight.device)
        if name not in self._known_counts:
            self._known_counts[name] = target.known_counts()
        counts = self._known_counts[name][columns]
        return gram_penalty_block(weight[columns], target.gram(columns), len(weight), counts)

    def _orthogonality_started(self) -> bool:
        start = self.objective.orthogonality_start
        return start == 0 or self.current_epoch > start * (self.trainer.max_epochs or 0)

    def on_validation_epoch_start(self) -> None:
        """Begin to compare predicted with target similarities."""
        self._start_matches("validation")

    def on_test_epoch_start(self) -> None:
        """Begin to compare predicted with target similarities."""
        self._start_matches("test")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Compare a validation batch."""
        images, index = batch
        predicted = self.model(images)
        losses = self.head_losses(predicted, index)
        for name, value in {"loss": self.weighted(losses), **{f"{h}/loss": part for h, part in losses.items()}}.items():
            self._losses.setdefault(f"validation/{name}", Average()).update(value, len(index))
        self._update_matches(predicted, index)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Compare a test batch."""
        self._update_matches(self.model(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Log loss, mse, r² and Spearman of each head on the validation images."""
        for name, average in sorted(self._losses.items()):
            self.log(name, average.compute(), prog_bar=name == "validation/loss", sync_dist=False)
        self._log_matches("validation")

    def on_test_epoch_end(self) -> None:
        """Log mse, r² and Spearman of each head on the test images."""
        self._log_matches("similarity")

    def _start_matches(self, split: str) -> None:
        share_buffers(self.model)
        self._losses = {}
        data = getattr(self.trainer, "datamodule", None)
        items = len(data.subset(split)) if data is not None else 0
        self._matches = {name: SimilarityMatch(items * head.num_references) for name, head in self._heads()}

    def _heads(self) -> list[tuple[str, SimilarityHead]]:
        return [(name, self.model.head(name)) for name in self.model.heads]

    def _update_matches(self, predicted: Mapping[str, Tensor], index: Tensor) -> None:
        for name, similarities in predicted.items():
            estimate = similarities.float().sigmoid() if self.objective.loss == "bce" else similarities.float()
            self._matches[name].update(estimate, self.targets[name](index), index)

    def _log_matches(self, prefix: str) -> None:
        for name, match in self._matches.items():
            if self.trainer.world_size > 1:
                match.merge(from_all_processes(match.state()))
            for measure, value in match.compute().items():
                self.log(f"{prefix}/{name}/{measure}", value, prog_bar=measure == "r2", sync_dist=False)


def _check_heads(model: SimilarityModel, targets: Mapping[str, Any], objective: Objective) -> None:
    for name in objective.weights:
        if name not in targets:
            raise InputError(f"Expected the weight of a head's loss, got one of {name!r}: {nearest(name, [*targets])}")
    if set(model.heads) != set(targets):
        raise ValueError(f"Expected targets for the heads {sorted(model.heads)}, got them for {sorted(targets)}")
    for name, target in targets.items():
        if len(target) != model.head(name).num_references:
            raise ValueError(
                f"Expected head {name!r} with one row a reference ({len(target)}), "
                f"got one for {model.head(name).num_references}"
            )
