"""Both signs' similarities in the experiment ``nonmetric``: at once or as a sum, they make one map of digits."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import ORIGINAL, OURS
from simec_vision.experiments.figures import draw_maps
from simec_vision.experiments.overlaps import HIDDEN, L2, class_and_ink, mapped, overlaps, scaled
from simec_vision.experiments.results import Check, error
from simec_vision.experiments.table_report import Found, Table, reached

REFERENCES = 1000
BOTH, SUM = "both at once", "their sum"
ERRORS = Table(
    "signs",
    "mse",
    "MNIST 0 and 7 in 2 dimensions, S1 and S2: error of predictions (original: loss with penalties)",
    "similarities",
)
TOLD = {"class": "whether it is a 7", "ink": "how much ink there is"}
SHARES = {
    value: Table("signs", value, f"The same: share of variance that the map tells of {what}", "similarities", 3)
    for value, what in TOLD.items()
}
TABLES = (ERRORS, *SHARES.values())


def planned(seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells."""
    for column in (BOTH, SUM):
        for seed in seeds:
            for row in (OURS, ORIGINAL):
                options = {"summed": column == SUM, "root": root, "original": row == ORIGINAL}
                yield Cell("signs", row, column, encoded, options, seed)


def encoded(summed: bool, root: str, original: bool, seed: int) -> dict[str, Any]:
    """Measure an encoder of both signs' similarities, each over its largest eigenvalue, or of their sum."""
    from simec_vision.estimator import SimilarityEncoder

    given, signs = overlaps(root), [*scaled(root, 0).values()]
    target = signs[0] + signs[1] if summed else np.stack(signs, axis=2)
    target = (target / target.max())[:, :REFERENCES]
    options: dict[str, Any] = {"gram_penalty": 0.0, "epochs": 60, "l2_embedding": 1e-4, "l2_head": 1e-4}
    if original:
        options = {"recipe": "keras", "epochs": 25, "gram_penalty": 1.0, **L2, "l2_head": 1e-5}
    made = SimilarityEncoder(2, hidden=[HIDDEN], seed=seed, **options).fit(given.features, target)
    return {"mse": error(made.predict(given.features), target), **mapped(made.transform(given.features), root, 0)}


def claims(found: Found) -> Iterator[Check]:
    """Check that the original's loss is reached, and that one map shows both what S1 and what S2 is about."""
    yield from reached(found, ERRORS, [OURS, ORIGINAL])
    for value, what in TOLD.items():
        for column in found.grid("signs", value).get(OURS, {}):
            share = found.cell("signs", OURS, column, value)
            if share is not None:
                yield Check(f"S1 and S2, {column}: a map tells {what}", "R² at least 0.5", f"{share:.3f}", share >= 0.5)


def figures(found: Found) -> None:
    """Draw our map of each way, of the first seed, by class and by ink."""
    shown: dict[str, Cell] = {}
    for cell in found.cells:
        if (cell.table, cell.row) == ("signs", OURS):
            shown.setdefault(f"S1 and S2, {cell.column}", cell)
    maps = class_and_ink({title: arrays_of(cell, found.folder) for title, cell in shown.items()})
    if maps:
        draw_maps(maps, found.folder / "signs.png", columns=2, size=4.2)
