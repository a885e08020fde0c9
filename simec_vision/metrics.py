"""How good predicted similarities and embeddings are: similarity match, nearest neighbours, linear probe."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SPEARMAN_PAIRS = 1_000_000
"""At most about this many pairs enter a rank correlation; more are sampled."""


def similarity_match(predicted: Tensor | NDArray, target: Tensor | NDArray) -> dict[str, float]:
    """Compare predicted with target similarities over all known entries.

    As the original's ``check_similarity_match``: mean squared error, squared Pearson correlation r², Spearman's ρ.

    Args:
        predicted: Predicted similarities, any shape, a tensor or an array.
        target: Target similarities, same shape, NaN where unknown.

    Returns:
        ``mse``, ``r2`` and ``spearman``; NaN where undefined (nothing known, or a constant).
    """
    match = SimilarityMatch()
    match.update(torch.as_tensor(predicted).reshape(1, -1), torch.as_tensor(target).reshape(1, -1))
    return match.compute()


class SimilarityMatch:
    """:func:`similarity_match` of predictions that come batch by batch, some columns at a time, in constant memory.

    The error and the correlation are exact sums over all items × references. The rank correlation, which has to keep
    and to sort its pairs, is taken over a fixed sample of about :data:`SPEARMAN_PAIRS` of them where there are more:
    every ``stride``-th reference of each item, shifted by the item's index, whatever batches, chunks and processes are.

    Args:
        expected: How many pairs will come, which sets the stride of that sample.
    """

    def __init__(self, expected: int = 0) -> None:
        self.stride = max(1, -(-expected // SPEARMAN_PAIRS))
        self.moments = torch.zeros(7, dtype=torch.float64)
        self.sample: list[Tensor] = []

    def update(
        self, predicted: Tensor, target: Tensor, index: Tensor | None = None, columns: Tensor | None = None
    ) -> None:
        """Take in a batch, or some columns of one.

        Args:
            predicted: Predicted similarities, shape ``(batch, reference)``.
            target: Target similarities, same shape, NaN where unknown.
            index: Which items these are, shape ``(batch,)``; only needed for a sample.
            columns: Positions among the references, shape ``(column,)``; default: all. Only needed for a sample.
        """
        known = ~torch.isnan(target)
        p, t = (_exact(part[known]) for part in (predicted, target))
        count = torch.tensor(float(len(p)), dtype=torch.float64, device=p.device)
        moments = torch.stack([count, p.sum(), t.sum(), p @ p, t @ t, p @ t, ((p - t) ** 2).sum()])
        self.moments += moments.cpu()
        chosen = known & self._sampled(target, index, columns)
        self.sample.append(torch.stack([predicted[chosen], target[chosen]]).cpu())

    def _sampled(self, target: Tensor, index: Tensor | None, columns: Tensor | None) -> Tensor:
        rows = torch.arange(len(target), device=target.device) if index is None else index
        places = torch.arange(target.shape[1], device=target.device) if columns is None else columns
        return (rows[:, None] + places) % self.stride == 0

    def state(self) -> tuple[Tensor, Tensor]:
        """Give what has been seen, to :meth:`merge` it with that of other processes."""
        return self.moments, torch.cat(self.sample, dim=1) if self.sample else torch.zeros(2, 0)

    def merge(self, states: list[tuple[Tensor, Tensor]]) -> None:
        """Take what all processes have seen, this one's included, in place of what this one has."""
        self.moments = torch.stack([moments for moments, _ in states]).sum(dim=0)
        self.sample = [sample for _, sample in states]

    def compute(self) -> dict[str, float]:
        """Give ``mse``, ``r2`` and ``spearman`` of all pairs seen."""
        from scipy.stats import rankdata

        n, p, t, pp, tt, pt, gap = self.moments.tolist()
        if n == 0:
            return {"mse": float("nan"), "r2": float("nan"), "spearman": float("nan")}
        ranks = torch.from_numpy(rankdata(torch.cat(self.sample, dim=1).double().numpy(), axis=1))
        return {
            "mse": gap / n,
            "r2": _squared_correlation(n, p, t, pp, tt, pt),
            "spearman": _correlation(ranks[0], ranks[1]),
        }


def _exact(values: Tensor) -> Tensor:
    """Give values as float64, from a device that lacks it (Apple's) on the processor."""
    return (values.cpu() if values.device.type == "mps" else values).double()


ROUNDING = 1e-13
"""Variance, as a share of the mean square, that is nothing but rounding of a constant."""


def _squared_correlation(n: float, p: float, t: float, pp: float, tt: float, pt: float) -> float:
    mine, theirs = pp - p * p / n, tt - t * t / n
    if mine <= ROUNDING * pp or theirs <= ROUNDING * tt:
        return float("nan")
    return (pt - p * t / n) ** 2 / (mine * theirs)


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float((a @ a).sqrt() * (b @ b).sqrt())
    return float(a @ b) / norm if norm > 0 else float("nan")


def nearest_neighbour_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, neighbours: int = 20
) -> float:
    """Classify by majority among the nearest training embeddings by cosine similarity.

    Args:
        train: Embeddings with known class, shape ``(item, embedding)``.
        train_labels: Their classes, shape ``(item,)``.
        test: Embeddings to classify, shape ``(batch, embedding)``.
        test_labels: Their true classes, shape ``(batch,)``.
        neighbours: How many neighbours vote (at most as many as there are training items).

    Returns:
        The share classified correctly.
    """
    from sklearn.neighbors import KNeighborsClassifier

    k = min(neighbours, len(train))
    classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    classifier.fit(train.float().numpy(), train_labels.numpy())
    return float(classifier.score(test.float().numpy(), test_labels.numpy()))


def embedding_match(embedding: Tensor | NDArray, other: Tensor | NDArray) -> dict[str, float]:
    """Compare two embeddings of the same items by their pairwise Euclidean distances, each over its largest.

    As the original's ``check_embed_match``: it does not change when an embedding is turned, moved or scaled as a whole.

    Args:
        embedding: Shape ``(item, embedding)``, a tensor or an array.
        other: Shape ``(item, other embedding)``, the same.

    Returns:
        ``mse``, ``r2`` (squared Pearson correlation) and ``spearman`` over all pairs of items.

    Raises:
        ValueError: for other than the same items, or fewer than 3.
    """
    if len(embedding) != len(other) or len(other) < 3:
        raise ValueError(f"Expected two embeddings of the same 3 or more items, got {len(embedding)} and {len(other)}")
    distances = [torch.pdist(torch.as_tensor(part).double()) for part in (embedding, other)]
    scaled = [part / part.max() for part in distances]
    return similarity_match(*scaled)


def retrieval(
    embeddings: Tensor, labels: Tensor, at: Sequence[int] = (1, 10, 100), chunk: int = 512
) -> dict[str, float]:
    """Rank all other items by cosine similarity to each, and ask how many of the first have its class.

    Args:
        embeddings: Shape ``(item, embedding)``.
        labels: Classes, shape ``(item,)``; −1 is unknown, and such an item is left out.
        at: How many of the first.
        chunk: Items that are ranked together.

    Returns:
        ``precision@k`` for each k that is smaller than the number of items, and ``map``: the mean over items of the
        average precision, the mean of precision@k over the places k at which an item of the same class stands.

    Raises:
        ValueError: for fewer than 2 items of known class.
    """
    embeddings, labels = embeddings[labels >= 0], labels[labels >= 0]
    if len(labels) < 2:
        raise ValueError(f"Expected at least 2 items of known class to retrieve, got {len(labels)}")
    at = [k for k in at if k < len(labels)]
    unit = torch.nn.functional.normalize(embeddings.float())
    places = torch.arange(1, len(labels), dtype=torch.float64)
    averages, hits = [], []
    for start in range(0, len(unit), chunk):
        similar = unit[start : start + chunk] @ unit.T
        own = torch.arange(start, start + len(similar))
        similar[torch.arange(len(similar)), own] = -torch.inf  # last: the item itself
        order = similar.argsort(dim=1, descending=True, stable=True)[:, :-1]
        same = (labels[order] == labels[own, None]).double()
        precision = same.cumsum(dim=1) / places
        averages.append((precision * same).sum(dim=1) / same.sum(dim=1).clamp(min=1))
        hits.append(precision[:, [k - 1 for k in at]])
    means = torch.cat(hits).mean(dim=0).tolist()
    named = {f"precision@{k}": mean for k, mean in zip(at, means, strict=True)}
    return {**named, "map": float(torch.cat(averages).mean())}


PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse L2 strengths that a linear probe chooses from on validation images."""
UNCHOSEN = (0.01,)
"""That of a probe that cannot choose."""


def linear_probe_accuracy(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor] | None,
    test: tuple[Tensor, Tensor],
    strengths: Sequence[float] = PROBE_STRENGTHS,
) -> Mapping[str, float]:
    """Fit a logistic regression on centred, scaled embeddings; validation chooses its L2 strength.

    One scale serves all dimensions: to standardise each would blow up those in which a pretrained encoder says little,
    and cost 7 to 15 points of accuracy with few labels.

    Args:
        train: Embeddings ``(item, embedding)`` and classes ``(item,)`` to fit.
        validation: The same to choose the strength; None where there is but one.
        test: The same to report on.
        strengths: Inverse L2 strengths to choose from.

    Returns:
        ``accuracy`` on the test items, ``validation`` accuracy (without it, none) and the chosen ``strength``.

    Raises:
        ValueError: if there are strengths to choose from and nothing to choose by.
    """
    if validation is None and len(strengths) != 1:
        raise ValueError(f"Expected one strength without validation items, got {len(strengths)}")
    centre = train[0].float().mean(dim=0)
    scale = (train[0].float() - centre).std().clamp(min=1e-12)

    def scaled(part: tuple[Tensor, Tensor]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return ((part[0].float() - centre) / scale).numpy(), part[1].numpy()

    known, asked = scaled(train), {"accuracy": scaled(test)}
    probes = [(_fit_probe(known, strength), strength) for strength in strengths]
    best, strength = probes[0]
    if validation is not None:
        asked["validation"] = scaled(validation)
        best, strength = max(probes, key=lambda pair: pair[0].score(*asked["validation"]))
    return {**{name: float(best.score(*part)) for name, part in asked.items()}, "strength": strength}


def _fit_probe(train: tuple[NDArray[np.float32], NDArray[np.int64]], strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(*train)
