"""What pretraining minimises, and which references a step sees of it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError
from simec_vision.losses import (
    gram_penalty,
    gram_penalty_block,
    gram_penalty_expanded,
    gram_penalty_factored,
    self_product,
)


@dataclass(frozen=True)
class Objective:
    """What pretraining minimises: Σ_heads weight · (loss + Gram penalty + orthogonality penalty).

    Args:
        loss: ``mse``, ``mae`` or ``bce`` (predicted similarities as log-odds) between predicted and target similarity.
        weights: Head name → weight of its part; 1 where none is given.
        gram_penalty: Strength of the Gram penalty (the original's ``s_ll_reg``); it makes embeddings' inner products
            similarities themselves.
        gram_block: References in the random block that estimates the Gram penalty at a step; 0 takes all that the step
            sees. Same-class, linear and cosine similarities, which are inner products themselves, are taken of all
            that the step sees where that is cheaper than the block.
        orthogonality_penalty: Strength of the orthogonality penalty (the original's ``orth_reg``).
        orthogonality_start: Share of the epochs after which it begins (1/3 in the original's torch code).
        references_per_step: How many of a head's references a step sees, a random subset that estimates loss and
            penalties without bias where all similarities are known (docs of losses.masked_mse say what holds where
            not); 0 sees all. With ``adam`` and ``adamw``, a step's cost then no longer grows with the references.
        output: What turns ``embedding @ head.weight.T`` into the predicted similarity that the loss sees: ``none``, or
            ``sigmoid`` for similarities between 0 and 1 (``bce`` has it in itself).
        l2: Start of a weight's name in the model, such as ``encoder``, ``encoder.layers.1`` or ``heads`` → strength λ
            of its penalty λ Σ w²; the longest start counts, biases are left alone. As a part of the gradient it goes
            through the optimiser's own scaling, as in the original (unlike the decay of ``adamw``).

    Raises:
        InputError: for a Gram penalty where predicted similarities are no inner products (``bce`` or ``sigmoid``), or
            a subset of fewer than 2 references.
    """

    loss: Literal["mse", "mae", "bce"] = "mse"
    weights: dict[str, float] = field(default_factory=dict)
    gram_penalty: float = 1.0
    gram_block: int = 512
    orthogonality_penalty: float = 0.0
    orthogonality_start: float = 0.0
    references_per_step: int = 0
    output: Literal["none", "sigmoid"] = "none"
    l2: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loss == "bce" and self.gram_penalty > 0:
            raise InputError(
                "Expected gram_penalty 0 beside the loss bce, whose predicted similarities are log-odds, "
                f"got {self.gram_penalty}"
            )
        if self.output == "sigmoid" and (self.loss == "bce" or self.gram_penalty > 0):
            raise InputError(
                "Expected the loss mse or mae and gram_penalty 0 beside the output sigmoid, got "
                f"{self.loss} and {self.gram_penalty}"
            )
        if self.gram_block < 0 or self.gram_block == 1:
            raise InputError(f"Expected gram_block as at least 2 references, or 0 for all, got {self.gram_block}")
        if self.references_per_step < 0 or self.references_per_step == 1:
            raise InputError(
                f"Expected references_per_step as at least 2 references, or 0 for all, got {self.references_per_step}"
            )

    def samples(self, num_references: int) -> bool:
        """Say whether a step sees only some of so many references."""
        return 0 < self.references_per_step < num_references

    def l2_of(self, name: str) -> float:
        """Give the strength of the L2 penalty of a weight by its name in the model, such as ``heads.heel.weight``."""
        starts = [start for start in self.l2 if name == start or name.startswith(f"{start}.")]
        return self.l2[max(starts, key=len)] if starts and name.endswith("weight") else 0.0


def block_of_references(num_references: int, block: int, seed: int, step: int, draw: int = 0) -> NDArray[np.int64]:
    """Draw some references for a step; the same in every process.

    Args:
        num_references: How many references there are.
        block: How many to draw, without replacement.
        seed: Seed of the run.
        step: Number of the step.
        draw: Which of the step's draws, independent of each other.
    """
    return np.random.default_rng((seed, step, draw)).choice(num_references, block, replace=False, shuffle=False)


@dataclass(frozen=True)
class Seen:
    """What a step sees of a head.

    Args:
        weight: The seen references' rows of its weight, shape ``(column, embedding)``.
        columns: Their positions among the references, shape ``(column,)``; None: all.
        total: How many references the head has.
    """

    weight: Tensor
    columns: Tensor | None
    total: int

    @cached_property
    def product(self) -> Tensor:
        """``weight.T @ weight`` in float32, shape ``(embedding, embedding)``, which two penalties share."""
        return self_product(self.weight.float())


def see(head: SimilarityHead, objective: Objective, seed: int, step: int, row_wise: bool) -> Seen:
    """Take the references that a step sees: all, or a random subset.

    Args:
        head: The head.
        objective: How many are seen.
        seed: Seed of the run.
        step: Number of the step.
        row_wise: Let a subset give a sparse gradient, of its rows alone.
    """
    total = head.num_references
    if not objective.samples(total):
        return Seen(head.rows(), None, total)
    drawn = block_of_references(total, objective.references_per_step, seed, step)
    columns = torch.from_numpy(np.sort(drawn)).to(head.weight.device)
    return Seen(head.rows(columns, sparse=row_wise), columns, total)


def gram_estimate(seen: Seen, target: Any, block: int, seed: int, step: int, known_counts: Tensor | None) -> Tensor:
    """Take the Gram penalty of a step the cheapest way: from factors, exactly, or from a random block.

    Args:
        seen: What the step sees of the head.
        target: The head's :class:`TargetSimilarity`.
        block: Size of the block; 0 takes all that the step sees.
        seed: Seed of the run.
        step: Number of the step.
        known_counts: How many similarities are known of each reference, shape ``(reference,)``, or None.

    Returns:
        A scalar.
    """
    weight, total = seen.weight.float(), seen.total
    size = min(block, len(weight)) or len(weight)
    if factors_pay(len(weight), weight.shape[1], size, target.num_factors):
        return gram_penalty_factored(weight, target.factors(seen.columns), total, seen.product)
    target.keep_gram()
    if size == total:
        if target.complete:
            return gram_penalty_expanded(weight, target.gram(), seen.product)
        return gram_penalty(weight, target.gram())
    rows, columns = weight, seen.columns
    if size < len(weight):
        # A draw of its own, or the block would be no random part of a random subset.
        drawn = block_of_references(len(weight), size, seed, step, draw=int(len(weight) < total))
        chosen = torch.from_numpy(drawn).to(weight.device)
        rows = weight.index_select(0, chosen)
        columns = chosen if columns is None else columns[chosen]
    counts = None if known_counts is None else known_counts[columns]
    return gram_penalty_block(rows, target.gram(columns), total, counts, target.complete)


def factors_pay(references: int, embedding: int, block: int, factors: int) -> bool:
    """Say whether the Gram penalty from factors takes fewer operations than from a block.

    Args:
        references: How many references the factors are taken of (k): k (d + c)² operations.
        embedding: Length of an embedding (d).
        block: How many references a block has (b): b² d operations.
        factors: Length of the factors (c), 0 where there are none.
    """
    return factors > 0 and references * (embedding + factors) ** 2 < block**2 * embedding
