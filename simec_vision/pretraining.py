"""Pretraining: the LightningModule that trains a SimilarityModel on target similarities."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError, nearest
from simec_vision.losses import (
    COMPLETE,
    ELEMENTWISE,
    LOSSES,
    inner_product_mse,
    known_mean,
    known_sums,
    orthogonality_penalty,
    times,
)
from simec_vision.metrics import SimilarityMatch
from simec_vision.model import SimilarityModel
from simec_vision.objective import Objective as Objective
from simec_vision.objective import Seen, gram_estimate, see
from simec_vision.optimisation import ROWWISE, Optimisation, configured
from simec_vision.processes import Average, average_rows, from_all_processes, keep_local, share, share_buffers
from simec_vision.sharding import Part, all_processes, clip
from simec_vision.training import Training

EVALUATED_PAIRS = 2**22
"""At most about this many similarities are predicted together in validation and test."""


FULL = (torch.float32, torch.float64)
"""Types of embeddings in which losses are computed as they are."""


class Pretraining(Training):
    """Train an encoder and its heads to predict target similarities.

    Args:
        model: What is trained.
        targets: Head name → :class:`TargetSimilarity`, which gives target similarities, index ``(batch,)`` and columns
            ``(column,)`` → ``(batch, column)``, and the references' own, ``gram(columns)`` → ``(column, column)``.
        objective: What is minimised.
        optimisation: Optimiser and schedule.
        seed: Seed of the random blocks and subsets of references and of dropout.
        head_sharded: Let each of several processes hold only some rows of the heads, with their gradient and the
            optimiser's moments (under DDP), until :meth:`gather_heads`. With one process it changes nothing.
        lean: Keep small steps short, see :class:`Training`; validation then only gives losses.

    Raises:
        ValueError: if heads and targets do not have the same names or sizes.
    """

    monitor = "train/similarity_loss"

    def __init__(
        self,
        model: SimilarityModel,
        targets: Mapping[str, Any],
        objective: Objective | None = None,
        optimisation: Optimisation | None = None,
        seed: int = 0,
        head_sharded: bool = False,
        lean: bool = False,
    ) -> None:
        super().__init__(optimisation, seed, lean)
        self.head_sharded = head_sharded
        self.objective = objective or Objective()
        _check_heads(model, targets, self.objective)
        self.model = model
        self.targets = nn.ModuleDict(targets)
        apart = [name for name in model.heads if head_sharded or self._row_wise(name)]
        keep_local(self, [f"model.heads.{name}.weight" for name in apart])
        self._matches: dict[str, SimilarityMatch] = {}
        self._losses: dict[str, Average] = {}
        self._known_counts: dict[str, Tensor | None] = {}
        self._weights: dict[str, Tensor] = {}

    def configure_model(self) -> None:
        """Share the heads out over the processes, once, where that is wanted.

        Raises:
            InputError: for another strategy than DDP, or float16.
        """
        if not self.head_sharded or self.trainer.world_size == 1 or self._parts():
            return
        strategy = self.trainer.strategy
        if type(strategy) is not DDPStrategy:  # DeepSpeed's is a kind of it
            raise InputError(f"Expected trainer.strategy ddp for head_sharded, got {type(strategy).__name__}")
        if self.trainer.precision == "16-mixed":  # a part that overflows would make one process alone leave out a step
            raise InputError("Expected trainer.precision bf16-mixed or 32-true for head_sharded, got 16-mixed")
        mesh = all_processes(strategy.root_device)
        for _, head in self._heads():
            head.shard(mesh)

    def gather_heads(self) -> None:
        """Make sharded heads whole again, in the processor's memory; all processes must ask."""
        for _, head in self._heads():
            head.gather()

    def _parts(self) -> dict[str, Part]:
        """Give name of the weight → its part, of sharded heads."""
        return {f"model.heads.{name}.weight": head.part for name, head in self._heads() if head.part is not None}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write whole tensors, so that any number of processes can go on; the first process writes."""

        def whole(part: Part, tensor: Tensor) -> Tensor:
            tensor = part.whole(tensor)
            return tensor if self.global_rank == 0 else tensor[:0].clone()

        self._each_part(checkpoint, whole, lambda part: len(part.positions))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's rows of whole tensors."""
        self._each_part(checkpoint, lambda part, tensor: part.of(tensor), lambda part: part.total)

    def _each_part(
        self, checkpoint: dict[str, Any], change: Callable[[Part, Tensor], Tensor], rows: Callable[[Part], int]
    ) -> None:
        """Change, in a checkpoint, the weights of sharded heads and what the optimiser keeps of each of their rows."""
        parts = self._parts()
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        for name, part in parts.items():
            checkpoint["state_dict"][name] = change(part, checkpoint["state_dict"][name])
            for state in checkpoint.get("optimizer_states", ()) if name in trained else ():
                kept = state["state"].get(trained.index(name), {})
                state["state"][trained.index(name)] = {
                    key: change(part, value) if _has_rows(value, rows(part)) else value for key, value in kept.items()
                }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict similarities: head name → ``(batch, reference)``."""
        return self.model(images)

    def configure_optimizers(self) -> Any:
        """Make optimiser and schedule."""
        row_wise = any(map(self._row_wise, self.model.heads))
        return configured(self.model.parameters(), self.optimisation, self.trainer, self.monitor, row_wise)

    def _row_wise(self, name: str) -> bool:
        """Say whether a step updates only the rows of a head that it sees, and exchanges their gradient itself."""
        samples = self.objective.samples(self.model.head(name).num_references)
        return samples and self.optimisation.optimizer in ROWWISE

    def on_fit_start(self) -> None:
        """Give every process the first one's heads, where DDP leaves them alone."""
        share(head.weight.data for name, head in self._heads() if self._row_wise(name) and head.part is None)

    def on_after_backward(self) -> None:
        """Average the seen rows' gradients over all processes."""
        average_rows(head.weight for _, head in self._heads() if head.part is None)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient's norm, that of sharded heads over all processes."""
        most = self.optimisation.clip or (gradient_clip_val if gradient_clip_algorithm != "value" else None)
        if most and (parts := self._parts()):
            named = dict(self.named_parameters())
            clip((p for n, p in named.items() if n not in parts), (named[n] for n in parts), most)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the objective on a batch of images and their index."""
        images, index = batch
        seen, embedding = self.seen(), self.model.embed(images)
        losses = {head: self._step_loss(head, embedding, index, part) for head, part in seen.items()}
        similarity = self.weighted(losses)
        loss = similarity + self.penalty(seen)
        self.log_epoch("train/similarity_loss", similarity, len(index))
        self.log_epoch("train/loss", loss, len(index), prog_bar=True)
        for head, part in losses.items() if not self.lean else ():
            self.log_epoch(f"train/{head}/loss", part, len(index))
        return loss

    def seen(self) -> dict[str, Seen]:
        """Give what the current step sees of each head."""
        step, seed = self.global_step, self.seed
        return {name: see(head, self.objective, seed, step, self._row_wise(name)) for name, head in self._heads()}

    def head_losses(
        self, predicted: Mapping[str, Tensor], index: Tensor, seen: Mapping[str, Seen] | None = None
    ) -> dict[str, Tensor]:
        """Give each head's loss of the predicted similarities of the items ``index`` to the references seen, or all."""
        columns = {name: part.columns for name, part in (seen or {}).items()}
        return {
            head: self._loss(head)(self.predicted(given), self.targets[head](index, columns.get(head)))
            for head, given in predicted.items()
        }

    def _step_loss(self, head: str, embedding: Tensor, index: Tensor, seen: Seen) -> Tensor:
        """Give a head's loss of the items ``index`` to the references seen."""
        full = embedding.dtype == seen.weight.dtype in FULL and not torch.is_autocast_enabled(embedding.device.type)
        if full and self._loss(head) is COMPLETE["mse"] and self.objective.output == "none":
            return inner_product_mse(embedding, seen.weight, self.targets[head](index, seen.columns))
        return self.head_losses({head: F.linear(embedding, seen.weight)}, index, {head: seen})[head]

    def predicted(self, product: Tensor) -> Tensor:
        """Turn ``embedding @ head.weight.T`` into what the loss compares, as the objective says."""
        full = product.float() if product.dtype in (torch.float16, torch.bfloat16) else product
        return full.sigmoid() if self.objective.output == "sigmoid" else full

    def _loss(self, head: str) -> Any:
        target: Any = self.targets[head]
        return (COMPLETE if target.complete else LOSSES)[self.objective.loss]

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Sum the heads' losses by their weights."""
        parts = [times(self._weight(head), loss) for head, loss in losses.items()]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def penalty(self, seen: Mapping[str, Seen] | None = None) -> Tensor:
        """Sum the heads' weighted penalties at the current step; 0 for frozen heads, which they could not change."""
        seen = seen or self.seen()
        total = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            for part in self._penalties(seen):
                total = total + part
        return total

    def _penalties(self, seen: Mapping[str, Seen]) -> Iterator[Tensor]:
        """Give the weighted penalties that count."""
        for name in self.model.heads:
            if self.model.head(name).weight.requires_grad:
                for part in self._head_penalties(name, seen[name]):
                    yield times(self._weight(name), part)
                yield from self._l2(f"heads.{name}.weight", seen[name].weight, seen[name].total)
        for name, parameter in self.model.encoder.named_parameters() if self.objective.l2 else ():
            yield from self._l2(f"encoder.{name}", parameter, len(parameter))

    def _l2(self, name: str, weight: Tensor, rows: int) -> Iterator[Tensor]:
        """Give λ Σ w² of a weight of so many rows, estimated from those that are given, where it counts."""
        strength = self.objective.l2_of(name) if weight.requires_grad else 0.0
        if strength > 0:
            flat = weight.flatten()
            yield strength * rows / len(weight) * (flat @ flat)

    def _weight(self, name: str) -> float:
        return self.objective.weights.get(name, 1.0)

    def _head_penalties(self, name: str, seen: Seen) -> Iterator[Tensor]:
        weight, objective = seen.weight.float(), self.objective
        if objective.gram_penalty > 0:
            yield times(objective.gram_penalty, self._gram_penalty(name, seen))
        if objective.orthogonality_penalty > 0 and self._orthogonality_started():
            yield objective.orthogonality_penalty * orthogonality_penalty(weight, seen.total, seen.product)

    def _gram_penalty(self, name: str, seen: Seen) -> Tensor:
        target: Any = self.targets[name]
        if name not in self._known_counts:
            self._known_counts[name] = None if target.complete else target.known_counts()
        block, counts = self.objective.gram_block, self._known_counts[name]
        return gram_estimate(seen, target, block, self.seed, self.global_step, counts)

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
        losses = self._compare(*batch)
        for name, value in {"loss": self.weighted(losses), **{f"{h}/loss": part for h, part in losses.items()}}.items():
            self._losses.setdefault(f"validation/{name}", Average()).update(value, len(batch[1]))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Compare a test batch."""
        self._compare(*batch)

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
        subset = getattr(data, "subset", None)  # a data module of another make has none
        items = 0 if subset is None else len(subset(split))
        measured = [] if self.lean else self._heads()
        self._matches = {name: SimilarityMatch(items * head.num_references) for name, head in measured}
        # Whole from the start, as processes may have different numbers of held-out batches, and could not meet later.
        self._weights = {name: head.whole() for name, head in self._heads()}

    def _heads(self) -> list[tuple[str, SimilarityHead]]:
        return [(name, self.model.head(name)) for name in self.model.heads]

    def _compare(self, images: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Compare held-out images with all references of each head; give its loss."""
        embedding = self.model.embed(images)
        return {name: known_mean(*self._compare_head(name, embedding, index)) for name in self.model.heads}

    def _compare_head(self, name: str, embedding: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Compare with some references at a time, so that memory is bounded; sum loss and known targets a row."""
        weight, sums = self._weights[name], []
        for chunk in _chunks(len(weight), EVALUATED_PAIRS // max(1, len(index))):
            columns = torch.arange(chunk.start, chunk.stop, device=embedding.device)
            rows = weight[chunk].to(embedding.device)
            predicted, target = self.predicted(F.linear(embedding, rows)), self.targets[name](index, columns)
            if name in self._matches:
                estimate = predicted.sigmoid() if self.objective.loss == "bce" else predicted
                self._matches[name].update(estimate, target, index, columns)
            sums.append(known_sums(ELEMENTWISE[self.objective.loss], predicted, target))
        losses, counts = zip(*sums, strict=True)
        return torch.stack(losses).sum(dim=0), torch.stack(counts).sum(dim=0)

    def _log_matches(self, prefix: str) -> None:
        self._weights = {}
        for name, match in self._matches.items():
            if self.trainer.world_size > 1:
                match.merge(from_all_processes(match.state()))
            for measure, value in match.compute().items():
                self.log(f"{prefix}/{name}/{measure}", value, prog_bar=measure == "r2", sync_dist=False)


def _has_rows(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


def _chunks(num_references: int, size: int) -> Iterator[slice]:
    """Give the positions of all references, some at a time."""
    size = max(1, size)
    return (slice(start, min(start + size, num_references)) for start in range(0, num_references, size))


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
