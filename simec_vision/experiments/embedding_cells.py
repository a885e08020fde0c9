"""Cells of experiments on arrays: eigenvectors, ridge regression and encoders, compared with given similarities."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.figures import Curves, Map
from simec_vision.experiments.table_report import Found, Table
from simec_vision.experiments.tasks import Data, Items, Kernel, Task, task
from simec_vision.items import InputError

OURS, ORIGINAL, BEST = "SimEc", "SimEc, original recipe", "eigenvectors"
"""Rows: encoders trained by our recipe and as the original did, and the best that any embedding can do."""
OWN: dict[str, Any] = {"head_start": "eigen", "head_frozen": True, "l2_embedding": 1e-4}
"""Our options: the best head stays as it is, and dimensions beyond the similarities' rank go to 0. A head that moves
lets these live, and fills inner products of embeddings with them."""
OWN_MOVING: dict[str, Any] = {"l2_embedding": 1e-4}
"""Ours where the best head is unknown, as some similarities are, or where encoders can reach others better, as with
fewer dimensions than classes, whose eigenvalues are all alike."""
COMPARED = 2000
"""Items whose distances are compared, at most."""
NOTHING = 1e-9
"""An error that a logarithmic axis leaves out, as it is none."""
SHOWN = 500
"""Items of a map, at most, and half as many held-out ones."""


def error_tables(name: str, title: str, columns: str, digits: int) -> tuple[Table, Table]:
    """Make the tables of errors of inner products, of items and of held-out ones."""
    return (
        Table(name, "mse", f"{title}: mean squared error", columns, digits),
        Table(name, "held_out_mse", f"{title}: mean squared error, held out", columns, digits),
    )


def encoders(
    table: str,
    column: str,
    what: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    seeds: Sequence[int],
) -> Iterator[Cell]:
    """List a column's encoders, trained with our options and with the original's.

    Args:
        table: Of which table.
        column: Of which column.
        what: Options of :func:`encoded` but for the estimator's.
        ours: Our options of the estimator.
        theirs: The original's.
        seeds: Seeds of training.
    """
    for seed in seeds:
        for row, options in ((OURS, ours), (ORIGINAL, theirs)):
            yield Cell(table, row, column, encoded, {**what, "options": options}, seed)


def limit_original(cells: Sequence[Cell], seeds: Sequence[int], count: int | None) -> list[Cell]:
    """Leave out what is trained as the original did, which takes most of the time, but for the first seeds.

    Args:
        cells: The cells.
        seeds: Their seeds.
        count: Of how many seeds; None: of all.

    Raises:
        InputError: for a negative number.
    """
    if count is not None and count < 0:
        raise InputError(f"Expected original_seeds of at least 0, got {count}")
    return [cell for cell in cells if ORIGINAL not in cell.row or cell.seed in seeds[:count]]


RANKED = 2**22
"""Up to so many pairs, a rank correlation is that of all."""


def match(embedding: NDArray[Any], target: NDArray[Any], head: NDArray[Any] | None = None) -> dict[str, float]:
    """Compare inner products of embeddings (or of embeddings and a head) with similarities, some rows at a time.

    Returns:
        ``mse``, ``r2`` and ``spearman``, as :func:`simec_vision.metrics.similarity_match`, but ranks of all pairs up to
        :data:`RANKED`.
    """
    import torch

    from simec_vision.metrics import SimilarityMatch

    found = SimilarityMatch(target.size if target.size > RANKED else 0)
    other = embedding if head is None else head
    for start in range(0, len(target), 500):
        rows = np.arange(start, min(start + 500, len(target)))
        product = torch.from_numpy(np.asarray(embedding[rows] @ other.T, dtype=np.float64))
        found.update(product, torch.from_numpy(target[rows]), torch.from_numpy(rows))
    return found.compute()


def distances(embedding: NDArray[Any], other: NDArray[Any]) -> float:
    """Give r² of the distances of the first items in two embeddings."""
    import torch

    from simec_vision.metrics import embedding_match

    both = (torch.from_numpy(np.ascontiguousarray(part[:COMPARED])) for part in (embedding, other))
    return embedding_match(*both)["r2"]


def compared(given: Task, embedding: NDArray[Any], held_out: NDArray[Any] | None, best: bool = True) -> dict[str, Any]:
    """Measure an embedding of a task's items, and of those held out.

    Args:
        given: The task.
        embedding: Of the items.
        held_out: Of those held out, if any.
        best: Whether distances are compared with those of the eigenvectors' embedding.

    Returns:
        ``mse``, ``r2``, ``spearman``, ``distance``; the same with ``held_out_`` before; a map of two coordinates.
    """
    dim = embedding.shape[1]
    others = given.eigenvectors(dim) if best else (None, None)
    targets = (given.target, given.held_out_target)
    found: dict[str, Any] = {}
    for prefix, mine, target, other in zip(
        ("", "held_out_"), (embedding, held_out), targets, others, strict=True
    ):  # fmt: skip
        if mine is not None and target is not None:
            found |= {prefix + name: value for name, value in match(mine, target).items()}
        if mine is not None and other is not None:
            found[prefix + "distance"] = distances(mine, other)
    return found | (mapped(given.items, embedding, held_out) if dim == 2 else {})


def mapped(given: Items, embedding: NDArray[Any], held_out: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """Keep some items of a map of two coordinates: ``points``, ``classes``, ``faint``."""
    few = min(SHOWN, len(embedding))
    if held_out is None or given.held_out_classes is None:
        return {"points": embedding[:few], "classes": given.classes[:few], "faint": np.zeros(few, dtype=bool)}
    more = min(SHOWN // 2, len(held_out))
    points = np.concatenate([embedding[:few], held_out[:more]])
    classes = np.concatenate([given.classes[:few], given.held_out_classes[:more]])
    return {"points": points, "classes": classes, "faint": np.arange(few + more) >= few}


def eigen(data: Data, kernel: Kernel, dim: int, root: str, seed: int) -> dict[str, Any]:
    """Measure the eigenvectors' embedding, and of held-out items what kernel PCA gives."""
    given = task(data, kernel, root)
    embedding, held_out = given.eigenvectors(dim)
    return compared(given, embedding, None if kernel == "classes" else held_out, best=False)


def encoded(
    data: Data,
    kernel: Kernel,
    dim: int,
    options: Mapping[str, Any],
    root: str,
    seed: int,
    references: int = 1000,
    unknown: float = 0.0,
) -> dict[str, Any]:
    """Measure an encoder.

    Args:
        data: What is embedded.
        kernel: By which similarities.
        dim: Length of an embedding.
        options: Of the estimator.
        root: Folder of files.
        seed: Of training.
        references: The first items, similarities to which are learned.
        unknown: Share of these that is left out.
    """
    given = task(data, kernel, root)
    return compared(given, *embedded(given, fitted(given, dim, options, seed, references, unknown)))


def predicted(
    data: Data, kernel: Kernel, dim: int, options: Mapping[str, Any], root: str, seed: int, references: int = 1000
) -> dict[str, Any]:
    """Measure an encoder as :func:`encoded` does, and the similarities that it predicts.

    Args:
        data: What is embedded.
        kernel: By which similarities.
        dim: Length of an embedding.
        options: Of the estimator.
        root: Folder of files.
        seed: Of training.
        references: The first items, similarities to which are learned.

    Returns:
        The same, and ``predicted``, the error of similarities to the references. Where those of held-out items to the
        others are known, also ``held_out_predicted`` and ``block``, the error of inner products with all items.
    """
    given = task(data, kernel, root)
    made = fitted(given, dim, options, seed, references)
    embedding, held_out = embedded(given, made)
    found = compared(given, embedding, held_out)
    found["predicted"] = match(embedding, given.target[:, :references], made.head_)["mse"]
    if held_out is not None and given.block is not None:
        found["held_out_predicted"] = match(held_out, given.block[:, :references], made.head_)["mse"]
        found["block"] = match(held_out, given.block, embedding)["mse"]
    return found


def fitted(given: Task, dim: int, options: Mapping[str, Any], seed: int, references: int, unknown: float = 0.0) -> Any:
    """Fit an encoder to similarities to the first items, some of them unknown."""
    from simec_vision.estimator import SimilarityEncoder

    target = given.target[:, :references]
    if unknown:
        target = np.where(left_out(target.shape, unknown), np.nan, target)
    return SimilarityEncoder(dim, seed=seed, **options).fit(given.items.features, target)


def embedded(given: Task, made: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Embed a task's items, and those held out, if any, by an encoder."""
    new = given.items.held_out
    return made.transform(given.items.features), None if new is None else made.transform(new)


def left_out(shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Draw which similarities are unknown; among the references, those of both directions."""
    chosen = np.random.RandomState(15).rand(*shape) <= share
    lower = np.tril(chosen[: shape[1]])
    chosen[: shape[1]] = lower | lower.T
    return chosen


def ridge(data: Data, kernel: Kernel, dim: int, strength: float, root: str, seed: int) -> dict[str, Any]:
    """Measure a ridge regression of features on the eigenvectors' embedding."""
    given = task(data, kernel, root)
    return compared(given, *regressed(given, dim, strength), best=False)


def regressed(given: Task, dim: int, strength: float | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Regress the eigenvectors' embedding on features, and apply that to items and held-out ones.

    Args:
        given: The task.
        dim: Length of the embedding.
        strength: Of the L2 penalty; None chooses it by a fifth of the items.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, ShuffleSplit

    model: Any = Ridge(strength or 1.0)
    if strength is None:
        strengths = {"alpha": [10.0**power for power in range(0, 7)]}
        model = GridSearchCV(Ridge(), strengths, cv=ShuffleSplit(1, test_size=0.2, random_state=0))
    model.fit(given.items.features, given.eigenvectors(dim)[0])
    new = given.items.held_out
    both = (model.predict(given.items.features), None if new is None else model.predict(new))
    return both[0].reshape(len(both[0]), -1), None if both[1] is None else both[1].reshape(len(both[1]), -1)


def curves(found: Found, table: Table, rows: tuple[str, ...] = (), logarithmic: str = "", y: str = "") -> Curves:
    """Give a table, or some of its rows, as curves."""
    grid = {row: cells for row, cells in found.grid(table.name, table.value).items() if not rows or row in rows}
    theirs = found.original(table.name, table.value)
    least = NOTHING if "y" in logarithmic else -np.inf
    return Curves(
        re.sub(r": (mean squared error|accuracy)( of (inner products|10 neighbours))?", "", table.title),
        table.columns,
        y or "mean squared error",
        {row: {float(at): value for at, value in cells.items() if value[0] >= least} for row, cells in grid.items()},
        {row: {float(at): value for at, value in theirs.get(row, {}).items() if value >= least} for row in grid},
        logarithmic,
    )


def with_level(panel: Curves, name: str, level: float) -> Curves:
    """Add a line of one height, over all that a panel shows."""
    places = sorted({at for cells in panel.ours.values() for at in cells})
    return replace(panel, ours={**panel.ours, name: {at: (level, 0.0) for at in places}})


def digit_map(title: str, arrays: Mapping[str, NDArray[Any]]) -> Map:
    """Give a map whose items are written as the number of their class."""
    classes = arrays["classes"]
    return Map(title, arrays["points"], classes, [str(one) for one in classes], arrays["faint"])
