"""A radial kernel in the experiment ``paper``: strength of the Gram penalty, fewer references, unknown similarities."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.embedding_cells import (
    BEST,
    ORIGINAL,
    OURS,
    OWN,
    OWN_MOVING,
    curves,
    eigen,
    encoders,
    error_tables,
    match,
    predicted,
)
from simec_vision.experiments.figures import Curves
from simec_vision.experiments.linear_nonlinear_mnist import L2_UNKNOWN, RADIAL_HIDDEN
from simec_vision.experiments.results import Check
from simec_vision.experiments.table_report import Found, Table, exactly, reached
from simec_vision.experiments.tasks import WIDTHS, Data, gamma, items, task

DIM = 10
THEIRS: dict[str, Any] = {**RADIAL_HIDDEN, "lr": 0.0005}
STRENGTHS, QUICK_STRENGTHS = (0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1), (0, 0.5)
REFERENCES, QUICK_REFERENCES = (100, 250, 500, 750, 1000, 1500, 2500, 5000, 8000), (250,)
OURS_UNKNOWN: dict[str, Any] = {**OWN_MOVING, "gram_penalty": 5.0, "l2_hidden": L2_UNKNOWN}
"""Ours where similarities are unknown: of few known ones a weaker Gram penalty does not set the scale."""
UNKNOWN = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
QUICK_UNKNOWN = (0.9,)
SOME = 1500
"""References whose similarities are unknown in part."""
FILLED = "eigenvectors, unknown ones at the mean"
WIDTH = Table("kernel", "gamma", "Radial kernel: γ", "of", 5)
LARGEST = Table("kernel", "largest", "Radial kernel: largest absolute similarity", "of", 12)


PENALTY = error_tables("strengths", "Radial kernel, all references", "Gram penalty", 8)
BLOCK = Table("strengths", "block", "Radial kernel: the same, held-out items with the others", "Gram penalty", 8)
PREDICTED = Table("strengths", "predicted", "Radial kernel: error of predicted similarities", "Gram penalty", 8)
NEW_PREDICTED = Table("strengths", "held_out_predicted", "Radial kernel: the same, held out", "Gram penalty", 8)
FEWER = error_tables("references", "Radial kernel, some references", "references", 9)
LEFT_OUT = error_tables("unknown", "Radial kernel, 1500 references", "share unknown", 8)
TABLES = (WIDTH, LARGEST, *PENALTY, BLOCK, PREDICTED, NEW_PREDICTED, *FEWER, *LEFT_OUT)


def planned(seeds: list[int], root: str | None) -> Iterator[Cell]:
    """List the cells; without a root, of scikit-learn's digits."""
    data: Data = "mnist" if root else "digits, 1000 rows"
    what: dict[str, Any] = {"data": data, "kernel": "rbf", "dim": DIM, "root": root or ""}
    own: dict[str, Any]
    count, own = (8000, {"hidden": [1000]}) if root else (1000, {"hidden": [100], "epochs": 15})
    yield Cell("kernel", "kernel", "training items", facts, {"data": data, "root": root or ""})
    for strength in STRENGTHS if root else QUICK_STRENGTHS:
        for row, options in ((OURS, OWN_MOVING), (ORIGINAL, THEIRS)):
            for seed in seeds:
                more = {**what, "options": {**options, **own, "gram_penalty": strength}, "references": count}
                yield Cell("strengths", row, f"{strength:g}", predicted, more, seed)
    yield Cell("references", BEST, str(count), eigen, what)
    for references in REFERENCES if root else QUICK_REFERENCES:
        more = {**what, "references": references}
        yield from encoders("references", str(references), more, {**OWN, **own}, THEIRS, seeds)
    for share in UNKNOWN if root else QUICK_UNKNOWN:
        yield Cell("unknown", FILLED, f"{share:g}", filled, {"data": data, "unknown": share, "root": root or ""})
        more = {**what, "references": min(SOME, count), "unknown": share}
        yield from encoders("unknown", f"{share:g}", more, {**OURS_UNKNOWN, **own}, THEIRS, seeds)


def facts(data: Data, root: str, seed: int) -> dict[str, float]:
    """Give γ of the kernel, and the largest absolute similarity once it is centred."""
    largest = np.abs(task(data, "rbf", root).target).max()
    return {"gamma": gamma(items(data, root), WIDTHS.get(data, 1.0)), "largest": largest}


def filled(data: Data, unknown: float, root: str, seed: int) -> dict[str, float]:
    """Measure the eigenvectors of all similarities, of which unknown ones are set to the mean.

    The largest eigenvalues' vectors of that matrix, which is not symmetric; their real parts.
    """
    from scipy.sparse.linalg import eigs

    target = task(data, "rbf", root).target
    random = np.random.RandomState(15)
    known = np.where(random.rand(*target.shape) <= unknown, target.mean(), target)
    values, vectors = eigs(known, DIM, which="LR", v0=np.ones(len(known)) + random.rand(len(known)))
    embedding = vectors.real * np.sqrt(np.abs(values.real))
    return {"mse": match(embedding, target)["mse"]}


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    for table in (WIDTH, LARGEST):
        yield from exactly(found, table, ["kernel"])
    for table in FEWER:
        yield from exactly(found, table, [BEST])
    yield from exactly(found, LEFT_OUT[0], [FILLED], SHARE)
    for table in (*PENALTY, BLOCK, PREDICTED, NEW_PREDICTED, *FEWER, *LEFT_OUT):
        yield from reached(found, table, [OURS, ORIGINAL])
    for row in (OURS, ORIGINAL):
        yield from _penalty(found, row)
    yield from _unknown(found)


SHARE = 2e-3
"""How far off relative to the original's number the error of a matrix may be of which others are unknown than there."""


def _penalty(found: Found, row: str) -> Iterator[Check]:
    """Check that the Gram penalty makes inner products similarities, and leaves predictions as they are."""
    none, strong = (found.cell("strengths", row, column, "mse") for column in ("0", "0.5"))
    if none is not None and strong is not None:
        claim = f"{row}: inner products are similarities with the Gram penalty only"
        yield Check(claim, f"without it above {5 * strong:.2g}", f"{none:.4g} against {strong:.4g}", none > 5 * strong)
    for value, which in (("predicted", "training"), ("held_out_predicted", "held out")):
        errors = [mean for mean, _ in found.grid("strengths", value).get(row, {}).values()]
        if errors:
            told = f"{min(errors):.4g} to {max(errors):.4g}"
            claim = f"{row}: predicted similarities are as good with any Gram penalty, {which}"
            yield Check(claim, "within 10 %", told, max(errors) <= 1.1 * min(errors))


def _unknown(found: Found) -> Iterator[Check]:
    """Check that unknown similarities do less harm than to eigenvectors."""
    for column in found.grid("unknown", "mse").get(FILLED, {}):
        ours, theirs = (found.cell("unknown", row, column, "mse") for row in (OURS, FILLED))
        if ours is not None and theirs is not None and float(column) >= 0.5:
            claim = f"radial kernel, share {column} unknown: the error is below that of eigenvectors"
            yield Check(claim, f"below {theirs:.5f}", f"{ours:.5f}", ours < theirs)


def panels(found: Found) -> list[Curves]:
    """Give errors by the strength of the Gram penalty, by references and by what is unknown."""
    by_strength = [curves(found, table, logarithmic="y") for table in (PENALTY[0], PREDICTED)]
    fewer = [curves(found, table, logarithmic="xy") for table in FEWER]
    return [*by_strength, *fewer, *(curves(found, table, logarithmic="y") for table in LEFT_OUT)]
