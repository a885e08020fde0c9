"""The 20 newsgroups in the experiment ``linear_nonlinear``: texts, whose kernel has no few large eigenvalues."""

from collections.abc import Iterator

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.embedding_cells import (
    BEST,
    ORIGINAL,
    OURS,
    OWN,
    OWN_MOVING,
    eigen,
    encoders,
    error_tables,
)
from simec_vision.experiments.results import Check
from simec_vision.experiments.table_report import Found, Table, reached

DIMS = (2, 4, 6, 10, 15, 25, 50, 100)
REFERENCES = (100, 250, 500, 750, 1000, 1500, 2500, 3959)
UNKNOWN = tuple(round(0.1 * tenth, 1) for tenth in range(10))
THEIRS = {"recipe": "keras", "l2_embedding": 1e-5, "l2_head": 1e-8, "gram_penalty": 0.5, "lr": 0.005, "epochs": 25}


SWEEP = error_tables("newsgroups_linear", "Newsgroups", "embedding", 6)
FEWER = error_tables("newsgroups_references", "Newsgroups, d = 10, some references", "references", 6)
LEFT_OUT = error_tables("newsgroups_unknown", "Newsgroups, d = 10, some unknown", "share unknown", 6)
DRAWN = (*SWEEP, *FEWER, *LEFT_OUT)
TABLES = (
    *DRAWN,
    Table("newsgroups_linear", "distance", "Newsgroups: r² of distances", "embedding", 3),
    Table("newsgroups_linear", "held_out_distance", "Newsgroups: r² of distances, held out", "embedding", 3),
    Table("newsgroups_references", "distance", "Newsgroups, d = 10, some references: r² of distances", "references", 3),
)


def planned(seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells."""
    what = {"data": "newsgroups", "kernel": "linear", "root": root}
    for table, column, dim in (("maps", "newsgroups", 2), *((SWEEP[0].name, str(dim), dim) for dim in DIMS)):
        yield Cell(table, BEST, column, eigen, {**what, "dim": dim})
        yield from encoders(table, column, {**what, "dim": dim}, OWN, THEIRS, seeds)
    for count in REFERENCES:
        more = {**what, "dim": 10, "references": count}
        yield from encoders("newsgroups_references", str(count), more, OWN, THEIRS, seeds)
    for share in UNKNOWN:
        more = {**what, "dim": 10, "unknown": share}
        yield from encoders("newsgroups_unknown", f"{share:g}", more, OWN_MOVING, THEIRS, seeds)


def claims(found: Found) -> Iterator[Check]:
    """Check errors against the original's; the eigenvectors', too, as texts are not cut into words just as there."""
    for table in SWEEP:
        yield from reached(found, table, [BEST])
    for table in DRAWN:
        yield from reached(found, table, [OURS, ORIGINAL])
