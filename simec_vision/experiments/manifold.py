"""The experiment ``manifold``: the view from outside and the view from within, of the same points.

After notebook 05_manifold_s-curve of Horn's simec (2020). It prints no errors; those that stand beside ours come from a
re-implementation.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import limit_original
from simec_vision.experiments.figures import Map, draw_maps
from simec_vision.experiments.manifold_data import METHODS, SLOW, bandwidth, surface, view
from simec_vision.experiments.results import Check, error
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment

COUNTS = {"S-curve": 3000, "cut sphere": 5000}
QUICK_COUNTS = {"S-curve": 400, "cut sphere": 400}
REFERENCES = 1000
SPHERE_METHODS = ("as they are", "PCA", "isomap")
PICTURE_POINTS = 1500
ORIGINAL: dict[tuple[str, str], dict[str, Any]] = {
    ("S-curve", "linear kernel"): {"l2_embedding": 0.01, "gram_penalty": 1.0, "lr": 0.1, "epochs": 25},
    ("S-curve", "geodesic"): {
        "hidden": (25,), "l2_embedding": 0.01, "orthogonality_penalty": 0.01, "gram_penalty": 1.0, "lr": 0.01,
        "epochs": 40,
    },
    ("cut sphere", "linear kernel"): {"l2_embedding": 0.01, "gram_penalty": 0.5, "lr": 0.1, "epochs": 25},
    ("cut sphere", "geodesic"): {
        "hidden": (25, 10), "l2_embedding": 0.01, "orthogonality_penalty": 1.0, "gram_penalty": 1.0, "lr": 0.02,
        "epochs": 40,
    },
}  # fmt: skip
"""The original's arguments: surface and similarity → options."""
OURS: dict[str, dict[str, Any]] = {
    "linear kernel": {"head_start": "eigen", "head_frozen": True},
    "geodesic": {"hidden": (64, 64), "epochs": 100},
}
ALL_ARE_REFERENCES = {("cut sphere", "linear kernel")}
"""Where ours measures similarity to every point: the sphere is nearly as long across as along (variances .278, .334 and
.384), so that PCA of 1000 of its points lies in another plane than that of all (r² of distances .979)."""

DISTANCES = {
    name: Table(name, "distance_r2", f"{name}: r² of distances to those of PCA and of isomap", "similarity", 4)
    for name in COUNTS
}
NEW = {
    name: Table(
        name, "new_r2", f"{name}: the same of new points, which isomap places between the others", "similarity", 4
    )
    for name in COUNTS
}
ERRORS = {name: Table(name, "mse", f"{name}: mean squared error of inner products", "similarity", 4) for name in COUNTS}
MATCHES = {name: Table(name, "r2", f"{name}: r² of inner products", "similarity", 4) for name in COUNTS}
BANDWIDTH = "1 / median² of distances"
GAMMA = Table("bandwidth", "gamma", "γ of the Gaussian kernel", "surface", 6)


def manifold(
    config: str,
    seeds: list[int] = [0, 1, 2],  # noqa: B006  # never changed, and the parser shows it
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Embed a rolled and a cut surface, as PCA sees them from outside and as isomap does from within.

    Args:
        config: All options as YAML, for the experiment's folder.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        quick: Fewer points, one seed, no slow methods beside, and not the original's recipe.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/manifold,
            runs/manifold-2, …
    """
    cells = [*planned(QUICK_COUNTS if quick else COUNTS, seeds[:1] if quick else seeds, not quick)]
    if quick:
        cells = limit_original(cells, seeds, 0)
    tables = [GAMMA, *(table for kind in (DISTANCES, NEW, ERRORS, MATCHES) for table in kind.values())]
    run_experiment("manifold", cells, tables, claims, figures, config, processes, out, comparable=not quick)


def planned(counts: dict[str, int], seeds: list[int], slow: bool) -> Iterator[Cell]:
    """List the cells."""
    yield Cell("bandwidth", BANDWIDTH, "S-curve", widths, {"name": "S-curve", "count": counts["S-curve"]})
    for name, count in counts.items():
        own = {"name": name, "count": count}
        for method in METHODS if name == "S-curve" else SPHERE_METHODS:
            if slow or method not in SLOW:
                yield Cell(f"{name}, methods", method, "points", embedded, {**own, "method": method})
        for similarity in OURS:
            which = {**own, "similarity": similarity}
            yield Cell(name, "eigenvectors", similarity, spectral, which)
            for seed in seeds:
                yield Cell(name, "SimEc", similarity, encoded, which, seed)
                yield Cell(name, "SimEc, original recipe", similarity, encoded, {**which, "original": True}, seed)


def embedded(name: str, count: int, method: str, seed: int) -> dict[str, Any]:
    """Embed the points by another method."""
    return {"embedding": METHODS[method](surface(name, count)[0]).astype(np.float32)}


def matches(embedding: NDArray[Any], target: NDArray[np.float64]) -> dict[str, float]:
    """Compare inner products of embeddings with similarities: mean squared error and r²."""
    product = embedding.astype(np.float64) @ embedding.astype(np.float64).T
    return {"mse": error(product, target), "r2": squared_correlation(product, target)}


def distance_match(embedding: NDArray[Any], other: NDArray[Any]) -> float:
    """Give r² of the distances in two embeddings."""
    from scipy.spatial.distance import pdist

    return squared_correlation(pdist(embedding), pdist(other))


def squared_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Give r² of all entries of two arrays of the same shape, without the ranks that would take gigabytes to sort."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    return float((a @ b) ** 2 / ((a @ a) * (b @ b)))


def widths(name: str, count: int, seed: int) -> dict[str, float]:
    """Give γ, from which both Gaussian kernels take theirs."""
    return {"gamma": bandwidth(surface(name, count)[0])}


def spectral(name: str, count: int, similarity: str, seed: int) -> dict[str, Any]:
    """Measure PCA or isomap, the eigenvectors of these similarities."""
    seen = view(name, count, similarity)
    return matches(seen.embedding, seen.similarities)


def encoded(name: str, count: int, similarity: str, seed: int, original: bool = False) -> dict[str, Any]:
    """Measure an encoder of points, and its embeddings of new ones."""
    from simec_vision.estimator import SimilarityEncoder

    points, new = surface(name, count)[0], surface(name, count // 3, True)[0]
    seen = view(name, count, similarity)
    options = {"recipe": "keras", **ORIGINAL[name, similarity]} if original else OURS[similarity]
    references = count if (name, similarity) in ALL_ARE_REFERENCES and not original else REFERENCES
    made = SimilarityEncoder(2, seed=seed, **options).fit(points, seen.similarities[:, :references])
    embedding = made.transform(points)
    return {
        "distance_r2": distance_match(embedding, seen.embedding),
        "new_r2": distance_match(made.transform(new), seen.place(new)),
        **matches(embedding, seen.similarities),
        "embedding": embedding.astype(np.float32),
    }


def claims(found: Found) -> Iterator[Check]:
    """Check that encoders see what PCA and isomap see."""
    yield from exactly(found, GAMMA, [BANDWIDTH])
    for table in (ERRORS["S-curve"], MATCHES["S-curve"]):
        yield from exactly(found, table, ["eigenvectors"])
    for name in COUNTS:
        yield from reached(found, DISTANCES[name], ["SimEc", "SimEc, original recipe"], 0.01, more=True)
        yield from reached(found, ERRORS[name], ["SimEc", "SimEc, original recipe"])
        for similarity, other in (("linear kernel", "PCA"), ("geodesic", "isomap")):
            yield from _as_placed(found, name, similarity, other)
    yield from _along(found)


def _as_placed(found: Found, name: str, similarity: str, other: str) -> Iterator[Check]:
    """Check that points lie as another method places them, and new ones nearly so, which the original did not ask."""
    for value, which, least in (("distance_r2", "points", 0.995), ("new_r2", "new points", LEAST_NEW[name])):
        ours = found.cell(name, "SimEc", similarity, value)
        if ours is not None:
            claim = f"{name}, {similarity}: {which} lie as {other} places them"
            yield Check(claim, f"r² of distances at least {least}", f"{ours:.4f}", ours >= least)


LEAST_NEW = {"S-curve": 0.995, "cut sphere": 0.98}
"""The r² of distances of new points that an encoder shall reach; our own bounds, as the original embeds no new ones."""


def _along(found: Found) -> Iterator[Check]:
    """Check that the S-curve is unrolled: one coordinate goes with the place along it."""
    for row, what in (("linear kernel", "is still rolled"), ("geodesic", "is unrolled")):
        chosen = [c for c in found.cells if (c.table, c.row, c.column) == ("S-curve", "SimEc", row)]
        ours = [_monotone(arrays_of(cell, found.folder)["embedding"], cell) for cell in chosen]
        if ours:
            low = float(np.mean(ours))
            expected, ok = ("at least 0.99", low >= 0.99) if row == "geodesic" else ("below 0.99", low < 0.99)
            claim = f"S-curve, {row}: it {what}: rank correlation of its best direction with the place"
            yield Check(claim, expected, f"{low:.4f}", ok)


def _monotone(embedding: NDArray[Any], cell: Cell) -> float:
    from scipy.stats import spearmanr

    place = surface("S-curve", cell.options["count"])[1]
    centred = embedding.astype(np.float64) - embedding.mean(axis=0)
    direction = np.linalg.lstsq(centred, place - place.mean(), rcond=None)[0]
    return float(spearmanr(centred @ direction, place).statistic)


def figures(found: Found) -> None:
    """Draw where points are placed, coloured by where they are along the surface."""
    for name in COUNTS:
        shown: dict[str, Cell] = {}
        for cell in found.cells:
            if cell.table.startswith(name) and cell.row != "eigenvectors":
                title = cell.row if "methods" in cell.table else f"{cell.row},\n{cell.column}"
                shown.setdefault(title, cell)
        panels = []
        for title, cell in shown.items():
            embedding, place = arrays_of(cell, found.folder)["embedding"], surface(name, cell.options["count"])[1]
            panels.append(Map(title, embedding[:PICTURE_POINTS], place[:PICTURE_POINTS]))
        draw_maps(panels, found.folder / f"{name.replace(' ', '_')}.png", columns=4 if len(panels) <= 12 else 6)
