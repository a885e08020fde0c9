"""How near eigenvectors come to similarities that are no inner products, in the experiment ``nonmetric``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.figures import Curves, draw_curves
from simec_vision.experiments.overlaps import eigen
from simec_vision.experiments.results import Check
from simec_vision.experiments.table_report import Found, Table, exactly

LARGEST, ABSOLUTE, SIGNED = "largest", "largest by size", "largest by size, signed"
ORDERS = (LARGEST, ABSOLUTE, SIGNED)
"""Which eigenvalues' vectors are first, and whether negative ones keep their sign, as imaginary coordinates would."""
TARGETS = ("S", "S1", "S1 + S2")
"""S = S1 − S2, where S1 is of the positive eigenvalues."""
POINTS = 30
"""Lengths of embeddings along a curve, at most."""
READ_OFF = 0.02
"""How far off relative to the original's numbers is fine, which were read off its figure."""
TABLES = tuple(
    Table(f"{which}approach", value, f"{images}: mean squared error of eigenvectors' inner products, {words}", "of", 5)
    for which, images in (("", "MNIST 0 and 7"), ("small ", "Digits 0 and 7 of 8×8"))
    for value, words in (("least", "the least of any number"), ("all", "all of them"))
)


def planned(root: str | None) -> Iterator[Cell]:
    """List the cells; without a root, of scikit-learn's digits."""
    for order in ORDERS:
        for target in TARGETS:
            options = {"order": order, "target": target, "root": root}
            yield Cell(f"{'' if root else 'small '}approach", order, target, approached, options)


def approached(order: str, target: str, root: str | None, seed: int) -> dict[str, Any]:
    """Measure how near ever more eigenvectors come to similarities."""
    values = eigen(root)[0]
    errors = errors_of(values, order, target)
    dims = np.geomspace(1, len(values), POINTS).round().astype(int)
    dims = np.union1d(dims, len(values) + 1 - dims[dims <= len(values) // 2])  # the negative ones come in at the end
    return {"least": errors.min(), "all": errors[-1], "dims": dims, "errors": errors[dims - 1]}


def errors_of(values: NDArray[np.float64], order: str, target: str) -> NDArray[np.float64]:
    """Give the mean squared error of the inner products of 1, 2, … eigenvectors, shape ``(eigenvalue,)``.

    It follows from the eigenvalues λ alone, as eigenvectors are orthonormal: Σ (t − w)² of those chosen and Σ t² of the
    others, over all entries, where t is λ in the target and w in the inner products.

    Args:
        values: All eigenvalues of S.
        order: One of :data:`ORDERS`.
        target: One of :data:`TARGETS`.
    """
    kept = values[np.argsort(-(values if order == LARGEST else np.abs(values)), kind="stable")]
    wanted = {"S": kept, "S1": np.maximum(kept, 0), "S1 + S2": np.abs(kept)}[target]
    given = kept if order == SIGNED else np.abs(kept)
    gaps = np.cumsum((wanted - given) ** 2 - wanted**2) + np.sum(wanted**2)
    return np.maximum(gaps, 0) / len(values) ** 2


def claims(found: Found) -> Iterator[Check]:
    """Check what the original's figure shows."""
    for table in TABLES:
        yield from exactly(found, table, ORDERS, READ_OFF)
    for which in ("", "small "):
        least = found.grid(f"{which}approach", "least")
        if least:
            ours, theirs = (least[order]["S"][0] for order in (SIGNED, LARGEST))
            claim = "eigenvectors without signs never come as near to S as with them"
            yield Check(claim, f"below {theirs:.5f}", f"{ours:.5f}", ours < theirs)


def figures(found: Found) -> None:
    """Draw errors by the number of eigenvectors, for each target."""
    curves: dict[str, dict[str, dict[float, tuple[float, float]]]] = {target: {} for target in TARGETS}
    for cell in found.cells:
        if cell.table.endswith("approach"):
            arrays = arrays_of(cell, found.folder)
            points = zip(arrays["dims"].tolist(), arrays["errors"].tolist(), strict=True)
            curves[cell.column][cell.row] = {float(dim): (error, 0.0) for dim, error in points}
    panels = [
        Curves(f"approaching {target}", "embedding", "mean squared error", ours, logarithmic="x")
        for target, ours in curves.items()
        if ours
    ]
    if panels:
        draw_curves(panels, found.folder / "approach.png")
