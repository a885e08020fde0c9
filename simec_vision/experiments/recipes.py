"""How the few-label study trains: as the original did, and as well as we can."""

from dataclasses import dataclass
from math import ceil
from typing import Any

Options = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How encoders are pretrained and tuned.

    Args:
        epochs: Of pretraining.
        batches: Of pretraining; options of :class:`simec_vision.datamodules.image_data.Batches`.
        optimisation: Of pretraining; options of :class:`simec_vision.optimisation.Optimisation`.
        own: Kind of pretraining (``labels``, ``ae``, ``simec_linear``, …) → options of its optimisation that differ.
        objective: Of pretraining on similarities; options of :class:`simec_vision.objective.Objective`.
        head_start: How heads start, an option of ``pretrain``.
        trainer: Options of Lightning's Trainer, for all runs.
        objectives: Variant → options of its objective that differ.
        tuning: Options of ``finetune``.
        tuning_epochs: Of fine-tuning; 0 leaves them to :func:`epochs_for`.
        seed: Of pretraining (28 in the original); another may start where the full auto-encoder learns slowly.
        validated: Validate after every epoch of fine-tuning, not only as often as is worth it, and tune on batches of
            one size however many labels there are.
    """

    epochs: int
    batches: Options
    optimisation: Options
    own: dict[str, Options]
    objective: Options
    head_start: str
    trainer: Options
    objectives: dict[str, Options]
    tuning: Options
    tuning_epochs: int
    validated: bool
    seed: int = 0


PLAIN = {"size": 32, "flip": False, "shift": 0, "colour": 0.0, "erase": 0}
"""The original's batches: of 32, not augmented."""

PLATEAU = {"schedule": "plateau", "patience": 0, "plateau_start": 0}
ADAM = {"optimizer": "adam", "lr_batch": 0, "weight_decay": 0.0, "clip": 0.0}

ORIGINAL = Recipe(
    epochs=50,
    batches=PLAIN,
    optimisation={**ADAM, "schedule": "plateau", "patience": 5, "plateau_start": 4, "lr": 1e-4},
    own={"labels": {**PLATEAU, "lr": 1e-3}, "ae": {**PLATEAU, "lr": 1e-3}, "simec_linear": {"lr": 1e-6}},
    objective={"gram_penalty": 100.0, "orthogonality_penalty": 0.1, "orthogonality_start": 1 / 3},
    head_start="linear",
    trainer={"precision": "32-true"},
    objectives={"simec_classes": {"orthogonality_penalty": 1.0, "gram_block": 0}},
    tuning={
        "batches": PLAIN,
        "optimisation": {**ADAM, **PLATEAU, "lr": 1e-3},
        "classifier_start": "random",
        "probe": False,
    },
    tuning_epochs=50,
    validated=True,
    seed=28,
)
"""Notebook 08 of Horn's simec (2020).

What differs: the Gram penalty is estimated from a block of references at a step, but for same class, where factors make
the whole affordable; references are a random sample, and the kernel is scaled by its extremes over these alone;
of Similarity Encoders the last epoch counts, not the one with the smallest training loss, which in the notebook fell to
the end.
"""

BEST = Recipe(
    epochs=60,
    batches={"size": 256, "flip": True, "shift": 4, "colour": 0.0},
    optimisation={"optimizer": "adamw", "lr": 2e-3, "lr_batch": 256, "weight_decay": 0.01},
    own={},
    objective={"gram_penalty": 0.0},
    head_start="random",
    trainer={},
    objectives={},
    tuning={
        "batches": {"size": 32, "flip": True, "shift": 4, "colour": 0.0},
        "optimisation": {"optimizer": "adamw", "lr": 1e-3, "lr_batch": 32, "weight_decay": 0.01, "clip": 0.0},
        "classifier_start": "scaled",
        "probe": True,
    },
    tuning_epochs=0,
    validated=False,
)

RECIPES = {"original": ORIGINAL, "best": BEST}
"""The recipes by the names that options use."""


def kind(variant: str) -> str:
    """Give what a variant's settings are looked up by: ``ae`` for both auto-encoders, else its own name."""
    return "ae" if variant.startswith("ae_") else variant


def tuning_options(recipe: Recipe, labels: int) -> Options:
    """Give the options of ``finetune`` for so many labels; many are tuned in larger batches."""
    if recipe.validated or labels < LARGE:
        return recipe.tuning
    return {**recipe.tuning, "batches": {**recipe.tuning["batches"], "size": 256}}


LARGE = 4000
"""Labels from which on the best recipe tunes in batches of 256."""


def epochs_for(recipe: Recipe, labels: int) -> int:
    """Give the epochs of fine-tuning: the recipe's, or about 1600 steps of 32 images, but 20 to 60 epochs."""
    return recipe.tuning_epochs or min(60, max(20, ceil(1600 * 32 / labels)))
