"""Recipes: what the estimator's arguments are where the user leaves them open."""

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

import torch
from torch import nn

from simec_vision.encoders import dense_layers
from simec_vision.items import InputError, nearest
from simec_vision.model import SimilarityModel

Start = Literal["random", "eigen"]


@dataclass(frozen=True)
class Recipe:
    """Defaults of training.

    Args:
        optimizer, lr, schedule, clip: See :class:`simec_vision.optimisation.Optimisation`.
        batch_size: Items of a step; 0 chooses by how many there are.
        steps: At least so many steps are taken, by more epochs.
        weights: How layers start: ``glorot`` (uniform, biases 0) or as ``torch`` starts linear layers.
        head_start: How heads start; None: ``eigen`` where that is possible and the Gram penalty counts.
        l2_hidden, l2_embedding, l2_head: Strengths of L2 penalties.
        gram_penalty: Strength of the Gram penalty where the references' own similarities are given or found.
        gram_block: References of a step's Gram penalty; 0 takes all.
        orthogonality_start: Share of the epochs after which the orthogonality penalty begins.
        scaled: Train on inputs and similarities of one size.
        restore_best: Keep the best epoch's weights.
    """

    optimizer: Literal["adam", "adamw", "adamax", "sgd"]
    lr: float
    schedule: Literal["cosine", "constant", "plateau"]
    batch_size: int = 32
    steps: int = 0
    clip: float = 0.0
    weights: Literal["glorot", "torch"] = "torch"
    head_start: Start | None = "random"
    l2_hidden: float = 0.0
    l2_embedding: float = 0.0
    l2_head: float = 0.0
    gram_penalty: float = 0.0
    gram_block: int = 0
    orthogonality_start: float = 0.0
    scaled: bool = False
    restore_best: bool = True

    def batch(self, items: int) -> int:
        """Give the batch size for so many items: about 32 steps an epoch, but batches of 32 to 256."""
        return self.batch_size or min(256, max(32, 2 ** round(log2(max(items, 1) / 32))))

    def epochs(self, items: int, batch: int) -> int:
        """Give the number of epochs for so many items: 25, or as many as the least number of steps takes."""
        return max(25, ceil(self.steps / ceil(items / batch)))


RECIPES = {
    "fast": Recipe(
        "adam", 1e-2, "cosine", batch_size=0, steps=800, clip=1.0, head_start=None, gram_penalty=1.0, gram_block=256,
        scaled=True,
    ),
    "keras": Recipe(
        "adamax", 5e-4, "constant", weights="glorot", l2_hidden=1e-8, l2_embedding=1e-5, restore_best=False
    ),
    "torch": Recipe("adam", 5e-4, "plateau", orthogonality_start=1 / 3),
}  # fmt: skip
"""The recipes by the names that options use."""


def recipe(name: str) -> Recipe:
    """Give a recipe by name.

    Raises:
        InputError: if there is none, naming the nearest.
    """
    if name not in RECIPES:
        raise InputError(f"Expected a recipe, got {name!r}: {nearest(str(name), [*RECIPES])}")
    return RECIPES[name]


def start_weights(model: SimilarityModel, how: str) -> None:
    """Start an encoder's dense layers and the heads as Keras or PyTorch start dense layers."""
    if how == "glorot":
        for layer in dense_layers(model.encoder):
            _start(layer.weight, how)
            nn.init.zeros_(layer.bias)
    for name in model.heads:
        _start(model.head(name).weight, how)


def _start(weight: torch.Tensor, how: str) -> None:
    bound = (6 / sum(weight.shape)) ** 0.5 if how == "glorot" else weight.shape[1] ** -0.5
    nn.init.uniform_(weight, -bound, bound)
