"""Knowledge graphs: triples of entity, relation, entity, and how high predictions rank the true answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.items import InputError

SPLITS = ("train", "valid", "test")
CHUNK = 512
"""Queries that are ranked together."""

Scorer = Callable[[Tensor, int], Tensor]
"""Sources ``(query,)`` and a direction → similarity to every entity ``(query, entity)``."""


@dataclass(frozen=True)
class Graph:
    """Entities and their relations, by number.

    A *direction* is a relation's number, or that plus the number of relations for the way back. A *query* is a source,
    a direction and its answer.

    Args:
        entities: How many there are.
        relations: Their names.
        queries: Split → queries of both directions, shape ``(query, 3)``.
    """

    entities: int
    relations: tuple[str, ...]
    queries: dict[str, NDArray[np.int64]]

    @property
    def directions(self) -> int:
        """How many directions there are: two of each relation."""
        return 2 * len(self.relations)

    def union(self) -> "Graph":
        """Give the graph of one relation that holds wherever one does, in either direction; its way back is unused."""
        merged = {split: np.unique(rows * np.array([1, 0, 1]), axis=0) for split, rows in self.queries.items()}
        return Graph(self.entities, ("all",), merged)


def both_ways(triples: NDArray[np.int64], relations: int) -> NDArray[np.int64]:
    """Turn triples ``(head, relation, tail)`` into queries for the tail, then for the head."""
    return np.concatenate([triples, triples[:, ::-1] + np.array([0, relations, 0])])


def read_graph(folder: Path) -> Graph:
    """Read ``train.txt``, ``valid.txt`` and ``test.txt``: head, relation and tail, separated by tabs, a line each.

    Raises:
        InputError: if a file is not there, naming where to get it, or if a line is not of that form.
    """
    lines = {split: _read(folder / f"{split}.txt") for split in SPLITS}
    whole = [line for part in lines.values() for line in part]
    entities, relations = (
        {name: number for number, name in enumerate(sorted(names))}
        for names in ({e for line in whole for e in (line[0], line[2])}, {line[1] for line in whole})
    )
    queries = {}
    for split, part in lines.items():
        triples = np.array([(entities[h], relations[r], entities[t]) for h, r, t in part], dtype=np.int64)
        queries[split] = both_ways(triples.reshape(-1, 3), len(relations))
    return Graph(len(entities), tuple(relations), queries)


def _read(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise InputError(
            f"Expected a knowledge graph in {path.parent} (train.txt, valid.txt, test.txt: head, relation, tail by "
            f"tabs), but {path.name} is not there: get it from https://github.com/ibalazevic/HypER (data) and "
            "name the folder above by --root"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"Expected text in UTF-8 in {path}: {error}") from error
    rows = {number: line.split("\t") for number, line in enumerate(lines, 1) if line.strip()}
    wrong = next((number for number, row in rows.items() if len(row) != 3), None)
    if wrong is not None or not rows:
        raise InputError(f"Expected lines of head, relation and tail by tabs in {path}, got none in line {wrong or 1}")
    return [*rows.values()]


def block_graph(blocks: int = 8, size: int = 12, seed: int = 0) -> Graph:
    """Draw a graph of blocks of entities: alike within a block, linked to the next block, led by its first entity.

    Half of the links that could be are there; a tenth of them is for validation, a tenth for test.
    """
    random = np.random.default_rng(seed)
    block = np.repeat(np.arange(blocks), size)
    leader = np.arange(blocks * size) % size == 0
    same, following = block[:, None] == block, (block[:, None] + 1) % blocks == block
    different = ~np.eye(len(block), dtype=bool)
    could = (same & different, following, same & different & leader[:, None])
    parts = []
    for relation, possible in enumerate(could):
        head, tail = np.nonzero(possible & (random.random(possible.shape) < 0.5))
        parts.append(np.stack([head, np.full(len(head), relation), tail], axis=1))
    triples = random.permutation(np.concatenate(parts))
    cuts = np.split(triples, [int(0.8 * len(triples)), int(0.9 * len(triples))])
    queries = {split: both_ways(part, len(could)) for split, part in zip(SPLITS, cuts, strict=True)}
    return Graph(len(block), ("alike", "next", "leads"), queries)


class Known:
    """All true answers of each source and direction, of all splits.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        whole = np.unique(np.concatenate([*graph.queries.values()]), axis=0)
        self.directions = graph.directions
        keys = whole[:, 0] * self.directions + whole[:, 1]
        order = np.argsort(keys, kind="stable")
        self.keys, self.answers = keys[order], whole[order, 2]

    def places(self, sources: NDArray[np.int64], direction: int) -> tuple[Tensor, Tensor]:
        """Give the row among the sources, and the entity, of each true answer."""
        keys = sources * self.directions + direction
        rows, found = ranges(*(np.searchsorted(self.keys, keys, side) for side in ("left", "right")))
        return torch.from_numpy(rows), torch.from_numpy(self.answers[found])


def ranges(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the numbers from each first to below each last, beside the number of the range that each is of."""
    counts = last - first
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) + np.repeat(first - np.cumsum(counts) + counts, counts)


def rank(scores: Tensor, answers: Tensor, known: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Rank each answer among the entities that are no other true answer.

    Args:
        scores: Similarity of each query to every entity, shape ``(query, entity)``; changed in place.
        answers: Shape ``(query,)``.
        known: Row and entity of each true answer, the one asked for among them.

    Returns:
        The best rank (1 is first) that ties leave open, and the worst, each of shape ``(query,)``.

    Raises:
        ValueError: for scores that are not numbers, which would rank first.
    """
    if torch.isnan(scores).any():
        raise ValueError("Expected scores that are numbers, got NaN")
    own = scores.gather(1, answers[:, None])
    scores[known] = -torch.inf
    scores.scatter_(1, answers[:, None], own)
    above, equal = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
    return above + 1, above + equal


def ranks(score: Scorer, queries: NDArray[np.int64], known: Known) -> NDArray[np.int64]:
    """Rank the answers of queries.

    Args:
        score: Gives similarities.
        queries: Shape ``(query, 3)``.
        known: True answers.

    Returns:
        Best and worst rank of each, shape ``(query, 2)``.
    """
    found = np.zeros((len(queries), 2), dtype=np.int64)
    for direction, chosen in _by_direction(queries):
        part = queries[chosen]
        with torch.no_grad():
            scores = score(torch.from_numpy(part[:, 0]), direction).clone()
        both = rank(scores, torch.from_numpy(part[:, 2]), known.places(part[:, 0], direction))
        found[chosen] = torch.stack(both, dim=1).numpy()
    return found


def _by_direction(queries: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for direction in np.unique(queries[:, 1]):
        chosen = np.flatnonzero(queries[:, 1] == direction)
        for start in range(0, len(chosen), CHUNK):
            yield int(direction), chosen[start : start + CHUNK]


def measures(found: NDArray[np.int64]) -> dict[str, float]:
    """Summarise ranks ``(query, 2)``; tied entities share the mean of their ranks.

    Returns:
        ``mrr``, the mean of 1 / rank, with ``mrr_best`` and ``mrr_worst`` if ties fell as they might; ``hits_1``,
        ``hits_3`` and ``hits_10``, the share of ranks up to that; ``median`` and ``mean_rank``.
    """
    best, worst = found.astype(np.float64).T
    mean = (best + worst) / 2
    hits = {f"hits_{k}": float(np.mean(mean <= k)) for k in (1, 3, 10)}
    reciprocal = {"mrr": mean, "mrr_best": best, "mrr_worst": worst}
    inverse = {name: float(np.mean(1 / values)) for name, values in reciprocal.items()}
    return {**inverse, **hits, "median": float(np.median(mean)), "mean_rank": float(mean.mean())}
