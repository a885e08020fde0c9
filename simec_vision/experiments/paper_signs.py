"""Overlaps of ink in the experiment ``paper``, no inner products: both signs of eigenvalues, apart and together."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import BEST, ORIGINAL, OURS, curves
from simec_vision.experiments.figures import Curves, Map
from simec_vision.experiments.overlaps import (
    HIDDEN,
    L2,
    SIGNS,
    class_and_ink,
    decomposed,
    digits_eigenvalue,
    eigen,
    encoded_digits,
    mapped,
    overlaps,
    scaled,
)
from simec_vision.experiments.results import Check, error
from simec_vision.experiments.table_report import Found, Table, exactly, reached

MORE = 1000
"""Digits that are held out beside the original's 5000, which it learned from."""
DIMS, QUICK_DIMS = (2, 5, 10, 25, 50, 75, 100), (2, 25)
PLACES = tuple(sign * place for sign in (1, -1) for place in range(1, 11))
KERNEL_PCA, SCALING = "kernel PCA", "classical scaling"
LARGEST, SMALLEST = "two largest eigenvalues", "two smallest eigenvalues"
(FIRST, SECOND), SUM, BOTH = SIGNS, "S1 + S2", "both"
"""What an encoder learns: one sign's similarities, their sum, or both as two similarities."""
SPECTRUM = Table("digits_spectrum", "value", "Digits 0 and 7: eigenvalues of the overlap", "place", 8)
OVERLAP = Table("overlap", "train", "Digits 0 and 7: error of predicted overlaps", "embedding", 8)
NEW_OVERLAP = Table("overlap", "test", "Digits 0 and 7: the same, held out", "embedding", 8)
INNER = {
    name: Table("signs", f"{name}_inner", f"{name}: error of inner products", "embedding", 8)
    for name in (FIRST, SECOND)
}
PREDICTED = {
    name: Table("signs", f"{name}_predicted", f"{name}: error of predicted similarities", "embedding", 8)
    for name in (FIRST, SECOND)
}
TOGETHER = Table("signs", f"{SUM}_predicted", f"{SUM}: error of predicted similarities", "embedding", 4)
TABLES = (SPECTRUM, OVERLAP, NEW_OVERLAP, *INNER.values(), *PREDICTED.values(), TOGETHER)


def planned(seeds: list[int], root: str | None) -> Iterator[Cell]:
    """List the cells; without a root, of scikit-learn's digits."""
    more = {"root": root, "more": MORE if root else 0}
    for place in PLACES if root else ():
        yield Cell("digits_spectrum", "eigenvalue", str(place), digits_eigenvalue, {**more, "place": place})
    for row in (LARGEST, SMALLEST):
        yield Cell("maps", row, "2", drawn_eigenvectors, {**more, "largest": row == LARGEST})
    for dim in DIMS if root else QUICK_DIMS:
        what = {**more, "dim": dim}
        yield Cell("overlap", KERNEL_PCA, str(dim), decomposed, {**what, "signed": False})
        yield Cell("overlap", SCALING, str(dim), decomposed, {**what, "signed": True})
        yield Cell("signs", BEST, str(dim), decomposed_signs, what)
        for seed in seeds:
            for row in (OURS, ORIGINAL):
                own = {**what, "original": row == ORIGINAL}
                if root or dim > 2:
                    yield Cell("overlap", row, str(dim), encoded_digits, own, seed)
                for learned in (FIRST, SECOND, SUM, BOTH) if root or dim > 2 else (SUM,):
                    yield Cell("signs", f"{row}, {learned}", str(dim), encoded_signs, {**own, "learned": learned}, seed)


def decomposed_signs(dim: int, root: str | None, more: int, seed: int) -> dict[str, float]:
    """Measure the eigenvectors of each sign's similarities: the mean square of what further ones would add."""
    values = eigen(root, more)[0]
    found = {}
    for (name, part), own in zip(scaled(root, more).items(), (values, -values[::-1]), strict=True):
        kept = np.maximum(own, 0)[::-1]
        scale = np.trace(part) / kept.sum()  # a trace is the sum of the eigenvalues
        found[f"{name}_inner"] = float(np.sum((scale * kept[dim:]) ** 2)) / len(own) ** 2
    return found


def encoded_signs(dim: int, learned: str, root: str | None, more: int, original: bool, seed: int) -> dict[str, Any]:
    """Measure an encoder of one sign's similarities, of their sum or of both at once, against each sign's."""
    from simec_vision.estimator import SimilarityEncoder

    given, signs = overlaps(root, more), scaled(root, more)
    target = {**signs, SUM: signs[FIRST] + signs[SECOND], BOTH: np.stack([*signs.values()], axis=2)}[learned]
    epochs = 25 if root else 60
    options: dict[str, Any] = {"gram_penalty": 1.0, "epochs": epochs}
    if learned == BOTH:  # no start by eigenvectors does for both heads, so that it takes longer
        options = {"gram_penalty": 0.0, "epochs": 3 * epochs}
    if original:
        options = {"recipe": "keras", "lr": 8e-4, "epochs": 25, "gram_penalty": 1.0, **L2}
    made = SimilarityEncoder(dim, hidden=[HIDDEN], seed=seed, **options).fit(given.features, target)
    embedding, predicted = made.transform(given.features), made.predict(given.features)
    against = {learned: target} if learned in signs else {**signs, SUM: target} if learned == SUM else signs
    found: dict[str, Any] = {}
    for place, (name, part) in enumerate(against.items()):
        found[f"{name}_inner"] = error(embedding @ embedding.T, part)
        found[f"{name}_predicted"] = error(predicted[..., place] if learned == BOTH else predicted, part)
    return found | (mapped(embedding, root, more) if (learned, dim) == (SUM, 2) else {})


def drawn_eigenvectors(largest: bool, root: str | None, more: int, seed: int) -> dict[str, Any]:
    """Place digits by the eigenvectors of the two largest or the two smallest eigenvalues."""
    values, vectors = eigen(root, more)
    chosen = slice(-1, -3, -1) if largest else slice(0, 2)
    return mapped(vectors[:, chosen] * np.sqrt(np.abs(values[chosen])), root, more)


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    yield from exactly(found, SPECTRUM, ["eigenvalue"])
    yield from exactly(found, OVERLAP, [KERNEL_PCA, SCALING])
    yield from reached(found, OVERLAP, [OURS, ORIGINAL])
    for table in INNER.values():
        yield from exactly(found, table, [BEST], 3.5e-4)  # of some only four digits are shown
    for name in (FIRST, SECOND):
        own = [f"{row}, {name}" for row in (OURS, ORIGINAL)]
        yield from reached(found, INNER[name], own)
        yield from reached(found, PREDICTED[name], [*own, *(f"{row}, {BOTH}" for row in (OURS, ORIGINAL))])
    yield from reached(found, TOGETHER, [f"{row}, {SUM}" for row in (OURS, ORIGINAL)])
    yield from _beyond_metric(found)
    yield from _together(found)
    yield from _seen(found)


def _beyond_metric(found: Found) -> Iterator[Check]:
    """Check that predictions, which may have signs, beat inner products."""
    for column in (column for column in found.grid("overlap", "train").get(OURS, {}) if int(column) >= 10):
        ours, kernel, new = (
            found.cell("overlap", row, column, value)
            for row, value in ((OURS, "train"), (KERNEL_PCA, "train"), (OURS, "test"))
        )
        if ours is not None and kernel is not None:
            claim = f"digits 0 and 7, {column} dimensions: predicted overlaps beat kernel PCA, whose are inner products"
            yield Check(claim, f"below {kernel:.6f}", f"{ours:.6f}, held-out {new:.6f}", ours < kernel)


def _together(found: Found) -> Iterator[Check]:
    """Check that an encoder of both similarities predicts each about as well as one of its own, and no sum does.

    The first holds once there are dimensions enough for both to share.
    """
    for row in (OURS, ORIGINAL):
        for name in (FIRST, SECOND):
            grid = found.grid("signs", f"{name}_predicted")
            for column in (c for c in grid.get(f"{row}, {BOTH}", {}) if int(c) >= 10):
                both, alone, summed = (grid[f"{row}, {which}"][column][0] for which in (BOTH, name, SUM))
                if int(column) >= 25:
                    claim = f"{row}, {column} dimensions: {name} is predicted with the other about as well as alone"
                    yield Check(claim, f"below {2 * alone:.3g}", f"{both:.3g}", both < 2 * alone)
                claim = f"{row}, {column} dimensions: {name} is not predicted by an encoder of {SUM}"
                yield Check(claim, f"above {2 * both:.3g}", f"{summed:.3g}", summed > 2 * both)


def _seen(found: Found) -> Iterator[Check]:
    """Check that two coordinates show the class, as the largest eigenvalues do, and the ink, as the smallest do."""
    learned = ("signs", f"{OURS}, {SUM}")
    for (table, row), value, what in (
        (("maps", LARGEST), "class", "0 from 7"), (learned, "class", "0 from 7"),
        (("maps", SMALLEST), "ink", "how much ink there is"), (learned, "ink", "how much ink there is"),
    ):  # fmt: skip
        told = found.cell(table, row, "2", value)
        if told is not None:
            yield Check(f"{row}: two coordinates tell {what}", "R² at least 0.5", f"{told:.3f}", told >= 0.5)


def panels(found: Found) -> list[Curves]:
    """Give errors by length of embeddings."""
    overlap = [curves(found, table, logarithmic="xy") for table in (OVERLAP, NEW_OVERLAP)]
    return [*overlap, *(curves(found, table, logarithmic="xy") for table in (*INNER.values(), *PREDICTED.values()))]


def maps(found: Found) -> list[Map]:
    """Give maps of two eigenvectors and of the encoder of both signs' sum, by class and by ink."""
    shown: dict[str, Cell] = {}
    for cell in found.cells:
        if cell.table == "maps" or (cell.row, cell.column) == (f"{OURS}, {SUM}", "2"):
            shown.setdefault(cell.row, cell)
    return class_and_ink({row: arrays_of(cell, found.folder) for row, cell in shown.items()})
