"""The command ``benchmark estimator``: SimilarityEncoder on arrays beside the original's loop."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.comparison import Comparison
from simec_vision.cli.hardware import as_usual, usual_memory
from simec_vision.cli.loops import NAIVE_BATCH, NaiveLoop
from simec_vision.cli.runs import open_run
from simec_vision.cli.timing import check_turns, interleaved, seconds_of, threads
from simec_vision.encoders import MLP
from simec_vision.estimator import SimilarityEncoder
from simec_vision.items import InputError
from simec_vision.similarities.given import open_matrix

NAIVE_RATE, NAIVE_GRAM = 1e-3, 500.0
"""The original's settings for linear kernels of MNIST (notebook examples_torch of Horn's simec, 2020)."""

WARM_UP = 3
"""Steps of the naive loop before the clock starts."""


@dataclass(frozen=True)
class Case:
    """Items to embed.

    Args:
        items: Features, shape ``(item, feature)``, float32.
        similarities: Their centred inner products with the first items, shape ``(item, reference)``, float32.
        embedding: Length of an embedding.
        epochs: Passes over the items.
    """

    items: NDArray[np.float32]
    similarities: NDArray[np.float32]
    embedding: int
    epochs: int

    @property
    def gram(self) -> Tensor:
        """The references' own similarities, shape ``(reference, reference)``."""
        return torch.from_numpy(self.similarities[: self.similarities.shape[1]])

    def ours(self) -> tuple[float, float]:
        """Fit the estimator; give seconds and its predictions' mean squared error."""
        estimator = SimilarityEncoder(self.embedding, epochs=self.epochs, accelerator="cpu")
        with usual_memory():
            seconds = seconds_of(lambda: estimator.fit(self.items, self.similarities))
        return seconds, float(((estimator.predict(self.items) - self.similarities) ** 2).mean())

    def naive(self, steps: int) -> tuple[float, float]:
        """Take so many steps of the original's loop, 0 for all; give seconds of all of them and the error."""
        torch.manual_seed(0)
        items, targets = torch.from_numpy(self.items), torch.from_numpy(self.similarities)
        encoder = MLP(items.shape[1], self.embedding, ())
        strengths = NAIVE_GRAM, 0.0
        loop = NaiveLoop(encoder, items, targets, self.gram, torch.device("cpu"), NAIVE_RATE, strengths)
        whole = self.epochs * len(loop.loader)
        with as_usual():
            loop.run(WARM_UP if steps else 0)
            seconds = seconds_of(lambda: loop.run(steps or whole))
        return seconds * whole / (steps or whole), loop.error(items, targets)


def benchmark_estimator(
    config: str,
    inputs: str | None = None,
    items: int = 8000,
    references: int = 1000,
    embedding: int = 2,
    epochs: int = 25,
    naive_steps: int = 100,
    repeats: int = 3,
    num_threads: int = 0,
    out: str | None = None,
) -> None:
    """Compare the time that SimilarityEncoder takes for a linear kernel with that of the original's loop.

    Ours is the estimator's default recipe, start by eigendecomposition included; the naive loop is the original's
    (batches of 32, item by item, Adam, full Gram penalty at every step), of which some steps are timed and taken as
    often as all epochs have them.

    Args:
        config: All options as YAML, for the output folder.
        inputs: A .npy matrix (item, feature), such as MNIST's pixels; default: random ones with 784 features.
        items: How many of its rows are taken.
        references: How many of these are references.
        embedding: Length of an embedding.
        epochs: Passes over the items.
        naive_steps: Measured steps of the naive loop a turn; 0 runs all of them and compares errors, too.
        repeats: How often both are measured in turns.
        num_threads: Threads to compute with; 0 leaves torch's own number.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats, num_threads)
    if not 1 < references <= items or min(embedding, epochs) < 1 or naive_steps < 0:
        raise InputError(
            f"Expected 2 references or more, at most as many as items, got {references} of {items}; embedding and "
            f"epochs of at least 1 and naive_steps of at least 0, got {embedding}, {epochs} and {naive_steps}"
        )
    case = make_case(inputs, items, references, embedding, epochs)
    folder = open_run(out, "benchmark")
    with threads(num_threads):
        setting = {
            "threads": torch.get_num_threads(), "precision": "32-true", "memory_format": "contiguous",
            "batch": "by the recipe", "naive_batch": NAIVE_BATCH, "items": len(case.items),
            "features": case.items.shape[1], "references": references, "embedding": embedding, "epochs": epochs,
        }  # fmt: skip
        comparison = Comparison("estimator: seconds of a fit", setting)
        for name, turns in interleaved({"ours": case.ours, "naive": lambda: case.naive(naive_steps)}, repeats).items():
            comparison.add(f"{name}_seconds", [seconds for seconds, _ in turns], "s")
            if name == "ours" or not naive_steps:
                comparison.add(f"{name}_mse", [error for _, error in turns], "mse")
    comparison.relate("ours_over_naive", "naive_seconds", "ours_seconds")
    comparison.notes += [f"mse of the best matrix of rank {case.embedding}: {best_error(case):.6g}"]
    if naive_steps:
        comparison.notes.append(f"naive_seconds: {naive_steps} steps, taken as often as {epochs} epochs have them")
    print(comparison.write(folder, config))


def make_case(inputs: str | None, items: int, references: int, embedding: int, epochs: int) -> Case:
    """Read or draw the items, centre them, and take inner products."""
    if inputs is None:
        rng = np.random.default_rng(0)
        shrinking = np.sqrt(np.arange(1, 785, dtype=np.float32))
        features: Any = rng.standard_normal((items, 784), dtype=np.float32) / shrinking
    else:
        features = np.array(open_matrix(inputs)[:items], dtype=np.float32)
    if len(features) < items:
        raise InputError(f"Expected a matrix of at least {items} rows in {inputs}, got {len(features)}: lower --items")
    features -= features.mean(axis=0)
    similarities: NDArray[np.float32] = (features @ features[:references].T).astype(np.float32, copy=False)
    return Case(features, similarities, embedding, epochs)


def best_error(case: Case) -> float:
    """Give the error of the best matrix of rank ``embedding``, which no embeddings can fall below."""
    from scipy.sparse.linalg import svds

    whole = case.similarities.astype(np.float64)
    kept = svds(whole, case.embedding, v0=np.ones(min(whole.shape)), return_singular_vectors=False)
    return float(((whole**2).sum() - (kept**2).sum()) / whole.size)
