"""Similarity Encoders of knowledge graphs: ours, whose heads are turned embeddings, and the original's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from simec_vision.experiments.links import Graph, Known, Scorer, measures, ranges, ranks

VALIDATED = 2000
"""At most so many queries choose an epoch."""


class TurnedHeads(nn.Module):
    """Free embeddings of entities, and for each direction a head whose rows are these embeddings, turned and stretched.

    The similarity of entity a to entity b in direction r is a R_r bᵀ, where R_r turns and stretches each pair of
    dimensions by a learned complex number: inner products of embeddings, as in a Similarity Encoder for several
    similarities, none of which need be symmetric. Known as ComplEx (Trouillon et al. 2016).

    Args:
        entities: How many.
        directions: How many.
        dim: Length of an embedding; even.
    """

    def __init__(self, entities: int, directions: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(entities, dim, sparse=True)
        self.turns = nn.Embedding(directions, dim, sparse=True)
        for part in (self.table, self.turns):
            nn.init.normal_(part.weight, std=1e-2)

    def turned(self, embedding: Tensor, turn: Tensor) -> Tensor:
        """Turn embeddings ``(query, embedding)``: complex products, the first half real, the second imaginary."""
        (a, b), (c, d) = embedding.chunk(2, dim=1), turn.chunk(2, dim=1)
        return torch.cat([a * c - b * d, a * d + b * c], dim=1)

    def scores(self, sources: Tensor, direction: int) -> Tensor:
        """Give similarities to all entities, shape ``(query, entity)``."""
        turn = self.turns.weight[direction].expand(len(sources), -1)
        return self.turned(self.table.weight[sources], turn) @ self.table.weight.T


def cubes(*parts: Tensor) -> Tensor:
    """Give the mean over queries of the sum of |z|³ of complex embeddings, a penalty that thins them out (N3).

    Lacroix, Usunier & Obozinski 2018, "Canonical tensor decomposition for knowledge base completion".
    """
    total = torch.zeros(())
    for part in parts:
        real, imaginary = part.chunk(2, dim=1)
        total = total + ((real**2 + imaginary**2 + 1e-12) ** 1.5).sum() / len(part)
    return total


@dataclass(frozen=True)
class Recipe:
    """How ours is trained.

    Args:
        dim: Length of an embedding.
        epochs: Passes over the training queries at most.
        every: Epochs after which validation is asked.
        batch_size: Queries of a step.
        negatives: Entities drawn for each step, among which its answers shall be first; all where there are fewer.
        lr: Of Adagrad.
        penalty: Strength of :func:`cubes`.
    """

    dim: int = 200
    epochs: int = 60
    every: int = 5
    batch_size: int = 1000
    negatives: int = 4000
    lr: float = 0.1
    penalty: float = 0.1


@dataclass
class Best:
    """The weights of the epoch that validation likes best.

    Args:
        module: Whose.
        mrr: What it reached; 0 before the first.
        course: Epoch and what validation said of it.
    """

    module: nn.Module
    mrr: float = 0.0
    course: list[tuple[int, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, epoch: int, mrr: float) -> bool:
        """Take note of an epoch; whether it is not worse than the best before."""
        self.course.append((epoch, mrr))
        if mrr >= self.mrr or not self.weights:
            self.mrr, self.weights = mrr, {k: v.clone() for k, v in self.module.state_dict().items()}
            return True
        return False

    def restore(self) -> None:
        """Give the module the best weights."""
        self.module.load_state_dict(self.weights)


def few(queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw the queries that choose an epoch, always the same."""
    if len(queries) <= VALIDATED:
        return queries
    return queries[np.sort(np.random.default_rng(0).permutation(len(queries))[:VALIDATED])]


def train_turned(graph: Graph, known: Known, recipe: Recipe, seed: int) -> tuple[TurnedHeads, Best]:
    """Train ours, each answer against entities drawn for the step; the best epoch by validation is kept."""
    torch.manual_seed(seed)
    model = TurnedHeads(graph.entities, graph.directions, recipe.dim)
    optimizer = torch.optim.Adagrad(model.parameters(), recipe.lr)
    train, asked, best = torch.from_numpy(graph.queries["train"]), few(graph.queries["valid"]), Best(model)
    for epoch in range(1, recipe.epochs + 1):
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # which PyTorch would warn of
            for batch in torch.randperm(len(train)).split(recipe.batch_size):
                optimizer.zero_grad()
                turned_loss(model, train[batch], graph.entities, recipe).backward()
                optimizer.step()
        if epoch % recipe.every == 0 or epoch == recipe.epochs:
            best.see(epoch, measures(ranks(model.scores, asked, known))["mrr"])
    best.restore()
    return model, best


def turned_loss(model: TurnedHeads, queries: Tensor, entities: int, recipe: Recipe) -> Tensor:
    """Give the cross-entropy of the answers among drawn entities, corrected for how few were drawn, and the penalty.

    Args:
        model: Ours.
        queries: Shape ``(query, 3)``.
        entities: How many there are.
        recipe: How it is trained.
    """
    source, turn, answer = model.table(queries[:, 0]), model.turns(queries[:, 1]), model.table(queries[:, 2])
    drawn = torch.randperm(entities)[: recipe.negatives]
    turned = model.turned(source, turn)
    others = turned @ model.table(drawn).T + np.log(entities / len(drawn))
    others = others.masked_fill(queries[:, 2, None] == drawn, -torch.inf)
    scores = torch.cat([(turned * answer).sum(dim=1, keepdim=True), others], dim=1)
    first = torch.zeros(len(queries), dtype=torch.int64)
    return cross_entropy(scores, first) + recipe.penalty * cubes(source, turn, answer)


class Plain(nn.Module):
    """The original's encoder on one-hot vectors, two linear layers, and one head.

    Args:
        entities: How many.
        dim: Length of an embedding.
    """

    def __init__(self, entities: int, dim: int = 100) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Embedding(entities, dim), nn.Linear(dim, dim), nn.Linear(dim, entities)
        self.bias = nn.Parameter(torch.zeros(dim))
        self.head.register_parameter("bias", None)
        for weight in (self.first.weight, self.second.weight, self.head.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, sources: Tensor) -> Tensor:
        """Give similarities before the sigmoid, shape ``(source, entity)``."""
        return self.head(self.second(self.first(sources) + self.bias))

    def scores(self, sources: Tensor, direction: int) -> Tensor:
        """Give similarities, whatever the direction."""
        return self(sources)


@dataclass(frozen=True)
class Rounds:
    """How the original trains: rounds of epochs, each judged by validation.

    Args:
        epochs: Of a round.
        least: After how many epochs a round that is worse ends training.
        most: Epochs at most.
        batch_size: Entities of a step.
    """

    epochs: int
    least: int
    most: int
    batch_size: int


PRETRAINING, FINE_TUNING = Rounds(50, 250, 49 * 50, 32), Rounds(3, 25, 150, 128)


def train_plain(model: Plain, queries: NDArray[np.int64], rounds: Rounds, validate: Callable[[Scorer], float]) -> Best:
    """Train on all entities that have an answer, by binary cross-entropy with every entity; the best round is kept."""
    optimizer, best = torch.optim.Adamax(model.parameters(), 1e-3, eps=1e-7), Best(model)
    best.see(0, validate(model.scores))
    ordered = queries[np.argsort(queries[:, 0], kind="stable")]
    sources, starts = np.unique(ordered[:, 0], return_index=True)
    parts = [torch.from_numpy(part) for part in np.split(ordered[:, 2], starts[1:])]
    for epoch in range(1, rounds.most + 1):
        for batch in torch.randperm(len(sources)).split(rounds.batch_size):
            optimizer.zero_grad()
            plain_loss(model(torch.from_numpy(sources)[batch]), [parts[row] for row in batch.tolist()]).backward()
            optimizer.step()
        if epoch % rounds.epochs == 0 and not best.see(epoch, validate(model.scores)) and epoch > rounds.least:
            break
    best.restore()
    return best


def plain_loss(scores: Tensor, answers: list[Tensor]) -> Tensor:
    """Give the mean binary cross-entropy of scores ``(source, entity)`` whose targets are 1 at the answers, else 0."""
    rows = torch.repeat_interleave(torch.arange(len(answers)), torch.tensor([len(part) for part in answers]))
    known = scores[rows, torch.cat(answers)].sum()
    return (nn.functional.softplus(scores).sum() - known) / scores.numel()


def fine_tuned(model: Plain, graph: Graph, known: Known, rounds: Rounds) -> Iterator[tuple[int, Plain]]:
    """Fine-tune on each direction from the same start; one without validation queries stays as it is."""
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    for direction in range(graph.directions):
        model.load_state_dict(start)
        train, valid = (rows[rows[:, 1] == direction] for rows in (graph.queries["train"], graph.queries["valid"]))
        if len(valid) and len(train):

            def judged(score: Scorer, asked: NDArray[np.int64] = valid) -> float:
                return measures(ranks(score, asked, known))["mrr"]

            train_plain(model, train, rounds, judged)
        yield direction, model


def linked_otherwise(graph: Graph) -> Scorer:
    """Rank by what else links two entities in training, then by how often an entity is an answer.

    A direction d' speaks for d as far as its pairs are also pairs of d: |d ∩ d'| / |d'|.
    """
    train, n = np.unique(graph.queries["train"], axis=0), graph.entities
    often, speaks = counted(graph), _overlaps(train, graph)
    starts = np.searchsorted(train[:, 0], np.arange(n + 1))

    def score(sources: Tensor, direction: int) -> Tensor:
        rows, links = ranges(starts[sources.numpy()], starts[sources.numpy() + 1])
        best = np.zeros((len(sources), n), dtype=np.float32)
        np.maximum.at(best, (rows, train[links, 2]), speaks[direction, train[links, 1]])
        return torch.from_numpy(best) + 1e-3 * often(sources, direction)

    return score


def _overlaps(train: NDArray[np.int64], graph: Graph) -> NDArray[np.float32]:
    """Give |d ∩ d'| / |d'| of the pairs of two directions, shape ``(d, d')``; 0 of a direction with itself."""
    from scipy import sparse

    pairs, number = np.unique(train[:, 0] * graph.entities + train[:, 2], return_inverse=True)
    shape = graph.directions, len(pairs)
    has = sparse.csr_array((np.ones(len(train), np.float32), (train[:, 1], number)), shape=shape)
    shared = (has @ has.T).toarray()
    speaks = shared / np.maximum(shared.diagonal(), 1)
    np.fill_diagonal(speaks, 0)
    return speaks


def counted(graph: Graph) -> Scorer:
    """Rank by how often an entity is an answer of the direction in training, 0 to 1, whatever the source."""
    train = graph.queries["train"]
    table = np.zeros((graph.directions, graph.entities), dtype=np.float32)
    np.add.at(table, (train[:, 1], train[:, 2]), 1)
    shares = torch.from_numpy(table / np.maximum(table.max(axis=1, keepdims=True), 1))
    return lambda sources, direction: shares[direction].expand(len(sources), -1)
