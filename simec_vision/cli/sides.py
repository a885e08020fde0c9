"""The three sides of ``benchmark pretraining``: training through the Trainer, the bare loop, the naive loop."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback

from simec_vision.cli.building import bind_targets
from simec_vision.cli.clock import Clock, train
from simec_vision.cli.hardware import as_usual
from simec_vision.cli.loops import NAIVE_BATCH, BareLoop, NaiveLoop
from simec_vision.cli.made_images import in_memory
from simec_vision.cli.timing import seconds_of
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import CifarCNN
from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective

WARM_UP = 3
"""Steps of the bare and the naive loop before the clock starts."""


class Sides:
    """The three that are compared, each measured once when called.

    Args:
        data: Where images come from, with the one similarity ``class``.
        references: How many references.
        embedding: Length of an embedding.
        objective: What ours and the bare loop minimise.
        optimisation: Their optimiser.
        trainer: Options of Lightning's Trainer.
        head_start: How the head of ours starts, ``random`` or ``eigen``.
    """

    def __init__(
        self, data: ImageDataModule, references: int, embedding: int, objective: Objective, optimisation: Optimisation,
        trainer: dict[str, Any], head_start: Literal["random", "eigen"] = "random",
    ) -> None:  # fmt: skip
        self.head_start = head_start
        self.data, self.references, self.embedding = data, references, embedding
        self.objective, self.optimisation, self.trainer = objective, optimisation, trainer
        if trainer.get("devices") not in (1, "1"):
            raise InputError(f"Expected trainer.devices 1, got {trainer.get('devices')}: see benchmark.py processes")
        if (trainer.get("max_epochs") or 0) < 2:
            raise InputError("Expected trainer.max_epochs of at least 2, as the first epoch only warms up")
        self.target = bind_targets(data, data.similarities(), references, seed=0)["class"]
        self.codes = torch.from_numpy(data.items.classes(data.label)[0])

    @property
    def precision(self) -> str:
        """Lightning's name of the precision of ours and of the bare loop."""
        return str(self.trainer.get("precision") or "32-true")

    def encoder(self) -> CifarCNN:
        """Make a new encoder."""
        channels, *size = self.data.size
        return CifarCNN(self.embedding, (size[0], size[1]), channels)

    def setting(self) -> dict[str, Any]:
        """Say how it is measured."""
        return {
            "threads": torch.get_num_threads(), "precision": self.precision,
            "memory_format": "channels last", "batch": self.data.batches.size, "naive_batch": NAIVE_BATCH,
            "naive_precision": "32-true", "naive_memory_format": "contiguous", "references": self.references,
            "embedding": self.embedding, "encoder": "CifarCNN", "gram_block": self.objective.gram_block,
            "references_per_step": self.objective.references_per_step, "head_start": self.head_start,
            "gram_penalty": self.objective.gram_penalty, "orthogonality_penalty": self.objective.orthogonality_penalty,
        }  # fmt: skip

    def ours(self) -> float:
        """Measure training through the Trainer, in images per second."""
        clock = Clock()
        self.train(self.trainer, clock)
        return clock.images_per_second()

    def train(self, trainer: dict[str, Any], clock: Clock, callbacks: tuple[Callback, ...] = ()) -> None:
        """Train ours with some options of the Trainer and callbacks."""
        options = self.encoder(), self.references, self.objective, self.optimisation, trainer, clock, callbacks
        train(self.data, *options, head_start=self.head_start)

    def bare(self) -> float:
        """Measure the bare loop, in images per second, over as many steps as ours."""
        index, batch = self.data.split("train"), self.data.batches.size
        loop = self.bare_loop()
        steps = max(1, len(index) // batch) * (self.trainer["max_epochs"] - 1)
        return _rate(loop.run, steps, loop.batch)

    def bare_loop(self) -> BareLoop:
        """Make the bare loop."""
        index = self.data.split("train")
        model = SimilarityModel(self.encoder(), {"class": SimilarityHead(self.embedding, self.references)})
        strengths = self.objective.gram_penalty, self.objective.orthogonality_penalty
        block = min(self.objective.gram_block, self.references)
        images, classes = in_memory(self.data, index).to(device(self.trainer)), self.codes[self.target.references]
        return BareLoop(
            model, images, self.codes[index], classes, min(self.data.batches.size, len(index)), block, strengths,
            self.optimisation, self.precision,
        )  # fmt: skip

    def naive(self, steps: int) -> float:
        """Measure the naive loop, in images per second."""
        few = self.data.split("train")[: max(1, min(steps * NAIVE_BATCH, len(self.data.split("train"))))]
        loop = self.naive_loop(few)
        with as_usual():
            return _rate(loop.run, steps, min(NAIVE_BATCH, len(few)))

    def naive_loop(self, index: NDArray[np.int64]) -> NaiveLoop:
        """Make the naive loop on some items."""
        gram = self.target.gram()
        images, targets = self.data.normalised(index), self.target(torch.from_numpy(index))
        return NaiveLoop(self.encoder(), images, targets, gram, device(self.trainer))


def _rate(run: Callable[[int], Any], steps: int, batch: int) -> float:
    run(WARM_UP)
    return steps * batch / seconds_of(lambda: run(steps))


def device(trainer: dict[str, Any]) -> torch.device:
    """Give the device that everything is measured on: the GPU where there is one, unless the Trainer is told not to."""
    gpu = torch.cuda.is_available() and trainer.get("accelerator") != "cpu"
    return torch.device("cuda" if gpu else "cpu")
