"""The 20 newsgroups in the experiment ``linear_nonlinear``: texts, whose kernel has no few large eigenvalues."""

from collections.abc import Iterator
from typing import Any

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.embedding_cells import BEST, ORIGINAL, OURS, OWN, OWN_MOVING, eigen, encoded
from simec_vision.experiments.results import Check
from simec_vision.experiments.table_report import Found, Table, reached

DIMS = (2, 4, 6, 10, 15, 25, 50, 100)
REFERENCES = (100, 250, 500, 750, 1000, 1500, 2500, 3959)
UNKNOWN = tuple(round(0.1 * tenth, 1) for tenth in range(10))
THEIRS = {"recipe": "keras", "l2_embedding": 1e-5, "l2_head": 1e-8, "gram_penalty": 0.5, "lr": 0.005, "epochs": 25}


def _tables(name: str, title: str, columns: str) -> tuple[Table, Table]:
    return (
        Table(name, "mse", f"{title}: mean squared error", columns, 6),
        Table(name, "held_out_mse", f"{title}: mean squared error, held out", columns, 6),
    )


SWEEP = _tables("newsgroups_linear", "Newsgroups", "embedding")
FEWER = _tables("newsgroups_references", "Newsgroups, 10 dimensions", "references")
LEFT_OUT = _tables("newsgroups_unknown", "Newsgroups, 10 dimensions", "share unknown")
DRAWN = (*SWEEP, *FEWER, *LEFT_OUT)
TABLES = (
    *DRAWN,
    Table("newsgroups_linear", "distance", "Newsgroups: r² of distances", "embedding", 3),
    Table("newsgroups_linear", "held_out_distance", "Newsgroups: r² of distances, held out", "embedding", 3),
    Table("newsgroups_references", "distance", "Newsgroups, 10 dimensions: r² of distances", "references", 3),
)


def planned(seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells."""
    what = {"data": "newsgroups", "kernel": "linear", "root": root}
    for table, column, dim in (("maps", "newsgroups", 2), *((SWEEP[0].name, str(dim), dim) for dim in DIMS)):
        yield Cell(table, BEST, column, eigen, {**what, "dim": dim})
        yield from _encoders(table, column, {**what, "dim": dim}, seeds)
    for count in REFERENCES:
        yield from _encoders("newsgroups_references", str(count), {**what, "dim": 10, "references": count}, seeds)
    for share in UNKNOWN:
        more = {**what, "dim": 10, "unknown": share}
        yield from _encoders("newsgroups_unknown", f"{share:g}", more, seeds, OWN_MOVING)


def _encoders(
    table: str, column: str, what: dict[str, Any], seeds: list[int], own: dict[str, Any] = OWN
) -> Iterator[Cell]:
    for seed in seeds:
        for row, options in ((OURS, own), (ORIGINAL, THEIRS)):
            yield Cell(table, row, column, encoded, {**what, "options": options}, seed)


def claims(found: Found) -> Iterator[Check]:
    """Check errors against the original's; the eigenvectors', too, as texts are not cut into words just as there."""
    for table in SWEEP:
        yield from reached(found, table, [BEST])
    for table in DRAWN:
        yield from reached(found, table, [OURS, ORIGINAL])
