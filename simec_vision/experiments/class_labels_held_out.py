"""MNIST and newsgroups in the experiment ``class_labels``: errors on held-out items by length of embeddings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.embedding_cells import (
    BEST,
    ORIGINAL,
    OURS,
    OWN,
    OWN_MOVING,
    eigen,
    encoded,
    error_tables,
    ridge,
)
from simec_vision.experiments.results import Check
from simec_vision.experiments.table_report import Found, exactly, reached

LINEAR, HIDDEN, RIDGE = "linear", "25 + 25 hidden", "eigenvectors + ridge"
KERAS = {"recipe": "keras", "epochs": 25}


@dataclass(frozen=True)
class Settings:
    """What is done on one source.

    Args:
        dims: Lengths of embeddings.
        strength: Of the ridge regression's penalty, as the original's search chose it.
        theirs: Way → the original's options.
        ours: Way → ours, beside those that all have.
        rank: Of the similarities.
        orthogonality: Way → length → the original's orthogonality penalty of longer embeddings.
    """

    dims: tuple[int, ...]
    strength: float
    theirs: dict[str, dict[str, Any]]
    ours: dict[str, dict[str, Any]]
    rank: int
    orthogonality: dict[str, dict[int, float]]


SETTINGS = {
    "mnist": Settings(
        (2, 3, 4, 5, 6, 7, 8, 9, 10, 15),
        75.0,
        {
            LINEAR: {**KERAS, "gram_penalty": 0.5, "l2_head": 1e-7, "lr": 0.001},
            HIDDEN: {
                **KERAS, "gram_penalty": 0.5, "l2_head": 1e-7, "lr": 0.001, "hidden": [25, 25], "l2_hidden": 0.0,
            },
        },
        {LINEAR: {}, HIDDEN: {"hidden": [25, 25], "l2_hidden": 1e-5}},
        9,
        {LINEAR: {8: 0.001}, HIDDEN: {7: 0.001}},
    ),
    "newsgroups": Settings(
        (2, 3, 4, 5, 6, 7, 8, 9, 10),
        2.5,
        {
            LINEAR: {**KERAS, "gram_penalty": 0.5, "l2_embedding": 1e-4, "l2_head": 1e-5, "lr": 0.01},
            HIDDEN: {
                **KERAS, "gram_penalty": 1.0, "l2_embedding": 0.01, "l2_head": 1e-5, "lr": 0.01, "hidden": [25, 25],
                "l2_hidden": 0.0,
            },
        },
        # In 6 dimensions, a fifth of the training posts errs by .0622 after 50 epochs, .0572 after 20, .0544 after 10,
        # and .0532 after 10 with this L2; what is learned by .00005, .0002, .0009 and .0011.
        {LINEAR: {}, HIDDEN: {"hidden": [25, 25], "l2_hidden": 1e-5, "l2_embedding": 0.01, "epochs": 10}},
        6,
        {LINEAR: {6: 0.1}, HIDDEN: {7: 0.1}},
    ),
}  # fmt: skip
TABLES = tuple(
    table
    for data, title in (("mnist", "MNIST"), ("newsgroups", "Newsgroups"))
    for table in error_tables(data, title, "embedding", 6)
)


def planned(data: str, seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells of a source."""
    yield from listed(data, data, SETTINGS[data], seeds, root)


def listed(table: str, data: str, settings: Settings, seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells of a table: eigenvectors, ridge regression, and encoders of all ways by both recipes."""
    for dim in settings.dims:
        what = {"data": data, "kernel": "classes", "dim": dim, "root": root}
        yield Cell(table, BEST, str(dim), eigen, what)
        yield Cell(table, RIDGE, str(dim), ridge, {**what, "strength": settings.strength})
        for way in settings.ours:
            for row, options in ((OURS, _ours(settings, way, dim)), (ORIGINAL, _theirs(settings, way, dim))):
                more = {**what, "options": options, "references": 2000}
                for seed in seeds:
                    yield Cell(table, f"{row}, {way}", str(dim), encoded, more, seed)


def _ours(settings: Settings, way: str, dim: int) -> dict[str, Any]:
    return {**(OWN_MOVING if dim < settings.rank else OWN), **settings.ours[way]}


def _theirs(settings: Settings, way: str, dim: int) -> dict[str, Any]:
    strengths = [strength for above, strength in settings.orthogonality[way].items() if dim > above]
    return {**settings.theirs[way], **({"orthogonality_penalty": strengths[-1]} if strengths else {})}


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    mnist = TABLES[:2]
    yield from exactly(found, mnist[0], [BEST])
    for table in TABLES:
        yield from reached(found, table, [RIDGE], 0.01)
        yield from reached(found, table, [f"{row}, {way}" for row in (OURS, ORIGINAL) for way in (LINEAR, HIDDEN)])
    for data, title in (("mnist", "MNIST"), ("newsgroups", "newsgroups")):
        for dim in ("2", "6", "10"):
            yield from beats_ridge(found, data, title, HIDDEN, dim)


def beats_ridge(found: Found, table: str, title: str, way: str, dim: str) -> Iterator[Check]:
    """Check that hidden layers err less on held-out items than a ridge regression to eigenvectors."""
    hidden, other = (found.cell(table, row, dim, "held_out_mse") for row in (f"{OURS}, {way}", RIDGE))
    if hidden is not None and other is not None:
        layers = "hidden layers" if way == HIDDEN else f"{way} layers"
        claim = f"{title} held out, embedding {dim}: {layers} err less than eigenvectors + ridge"
        yield Check(claim, f"below {other:.5f}", f"{hidden:.5f}", hidden < other)
