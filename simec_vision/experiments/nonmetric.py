"""The experiment ``nonmetric``: similarities that are no inner products, and two similarities at once.

After notebook 02_embed_nonmetric of Horn's simec (2020): eight points of two tables of distances (Laub & Müller 2004),
MNIST's digits 0 and 7 by the overlap of their ink, and words by the documents that they share.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments import nonmetric_approach, nonmetric_signs, nonmetric_words
from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import ORIGINAL, OURS, curves
from simec_vision.experiments.figures import Map, draw_curves, draw_maps
from simec_vision.experiments.nonmetric_words import words
from simec_vision.experiments.overlaps import HIDDEN, L2, by_sign, decomposed, eigen, encoded_digits, overlaps
from simec_vision.experiments.results import Check, error
from simec_vision.experiments.sources import documents, mnist
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment
from simec_vision.items import InputError, nearest
from simec_vision.kernels import centre, eigen_factors

FIRST = """2.36 2.59 1.78 4.74 4.82 4.98 4.72 2.39 1.60 4.98 5.06 5.22 4.96 2.09
5.29 5.37 5.53 5.27 5.08 5.16 5.32 5.06 1.20 1.82 1.62 2.98 1.78 2.02"""
SECOND = """4.15 2.03 4.14 1.26 4.33 .69 4.85 4.70 .57 4.37 1.82 4.24 2.02 4.69
1.85 4.88 1.68 5.40 4.36 1.83 4.23 2.67 4.55 .73 5.07 4.42 2.14 4.94"""
"""Distances of eight points, the upper triangle by rows: 1 to 4 and 5 to 8 are near, or odd and even ones."""

DIMS, QUICK_DIMS = (2, 4, 6, 10, 15, 25, 50, 100), (2, 6, 10)

SPECTRA = {
    "points": (1, 2, 3, 4, 5, 6, 7, 8),
    "digits 0 and 7": (*range(1, 11), *range(-10, 0)),
    "words": (1, 2, 3, 4, 5, -5, -4, -3, -2, -1),
}
"""Similarity → the eigenvalues that are compared, by their place from the largest (1) or the smallest (−1)."""

DIGITS = {"points": 6, "digits 0 and 7": 2, "words": 8}
"""Of the eigenvalues that the original shows, after the point."""

EMBEDDINGS = {"kernel_pca": "kernel PCA", "scaling": "the eigenvectors largest by |λ|"}
"""What ten dimensions' distances are compared with."""
MATCHES = tuple(
    Table("ten", f"{name}_{value}", f"The same: {what} of distances, to those of {other}", "images", digits)
    for name, other in EMBEDDINGS.items()
    for value, what, digits in (("mse", "mean squared error", 6), ("r2", "r²", 4), ("spearman", "rank correlation", 4))
)

TABLES = (
    *(Table(f"spectrum of {name}", "value", f"Eigenvalues of the similarities of {name}", "place", digits)
      for name, digits in DIGITS.items()),
    Table("points", "mse", "Eight points in 2 dimensions: error of predicted similarities", "similarities"),
    Table("sweep", "train", "MNIST 0 and 7: error of predicted similarities, training images", "embedding", 6),
    Table("sweep", "test", "MNIST 0 and 7: the same, held-out images", "embedding", 6),
    Table("small sweep", "train", "Digits 0 and 7 of 8×8: error of predicted similarities, training", "embedding", 6),
    Table("small sweep", "test", "Digits 0 and 7 of 8×8: the same, held-out images", "embedding", 6),
    Table("ten", "mse", "MNIST 0 and 7 in 10 dimensions: error of inner products, without signs", "images", 6),
    Table("small ten", "mse", "Digits 0 and 7 of 8×8 in 10 dimensions: the same", "images", 6),
    *MATCHES,
    *nonmetric_approach.TABLES,
    *nonmetric_signs.TABLES,
    Table("words", "mse", "Words in 2 dimensions: error of predicted similarities", "similarities"),
)  # fmt: skip


def nonmetric(
    config: str,
    seeds: list[int] = [0, 1, 2],  # noqa: B006  # never changed, and the parser shows it
    parts: list[str] | None = None,
    root: str = "data",
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Learn similarities that are no inner products, of points, digits and words, and two similarities at once.

    Args:
        config: All options as YAML, for the experiment's folder.
        seeds: Seeds of training.
        parts: points, digits and words, or some of them; default: all, with --quick the points and other digits.
        root: The folder that holds MNIST/raw and nonmetric/ (the words' texts).
        processes: Cells at once; each has its share of the processor's threads.
        quick: One seed, and scikit-learn's digits in place of MNIST, in few dimensions; it needs no data.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/nonmetric,
            runs/nonmetric-2, …
    """
    known = {"points": points_cells, "digits": digits_cells, "words": words_cells}
    parts = parts or (["points", "digits"] if quick else [*known])
    for part in parts:
        if part not in known:
            raise InputError(f"Expected parts of nonmetric, got {part!r}: {nearest(part, [*known])}")
    seeds = seeds[:1] if quick else seeds
    cells = [cell for part in parts for cell in known[part](seeds, None if quick else root)]
    if not quick and "digits" in parts:
        mnist(root)  # here the user learns what is missing
    if "words" in parts:
        documents(root)
    run_experiment("nonmetric", cells, TABLES, claims, figures, config, processes, out)


def spectrum_cells(name: str, options: dict[str, Any]) -> Iterator[Cell]:
    """List the cells of the eigenvalues of a similarity."""
    for place in SPECTRA[name]:
        yield Cell(f"spectrum of {name}", "eigenvalue", str(place), eigenvalue, {**options, "place": place})


def points_cells(seeds: list[int], root: str | None) -> Iterator[Cell]:
    """List the cells of the eight points."""
    yield from spectrum_cells("points", {"of": "points"})
    yield Cell("points", "eigendecomposition", "one", best_points)
    for which in TWO:
        yield Cell("points", f"{which} eigenvalues", "one", two_points, {"which": which})
    for seed in seeds:
        for column in ("one", "two"):
            for row in ("SimEc", "SimEc, original recipe"):
                options = {"stacked": column == "two", "original": row != "SimEc"}
                yield Cell("points", row, column, encoded_points, options, seed)


def digits_cells(seeds: list[int], root: str | None) -> Iterator[Cell]:
    """List the cells of the digits 0 and 7."""
    if root is not None:
        yield from spectrum_cells("digits 0 and 7", {"of": "digits", "root": root})
    which = "" if root else "small "
    for dim in DIMS if root else QUICK_DIMS:
        own = {"dim": dim, "root": root}
        yield Cell(f"{which}sweep", "kernel PCA", str(dim), decomposed, {**own, "signed": False})
        yield Cell(f"{which}sweep", "classical scaling", str(dim), decomposed, {**own, "signed": True})
        for seed in seeds:
            for row in ("SimEc", "SimEc, original recipe") if root else ("SimEc",):
                yield Cell(f"{which}sweep", row, str(dim), encoded_digits, {**own, "original": row != "SimEc"}, seed)
    yield from nonmetric_approach.planned(root)
    if root is not None:
        yield from nonmetric_signs.planned(seeds, root)
    yield Cell(f"{which}ten", "ridge", "training", embedded_digits, {"root": root, "ridge": True})
    for seed in seeds:
        yield Cell(f"{which}ten", ORIGINAL, "training", embedded_digits, {"root": root, "ridge": False}, seed)


def words_cells(seeds: list[int], root: str | None) -> Iterator[Cell]:
    """List the cells of the words."""
    yield from spectrum_cells("words", {"of": "words", "root": root})
    yield from nonmetric_words.planned(seeds, root)


@cache
def distances() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the two tables of distances of the eight points, each of shape ``(8, 8)``."""
    tables = []
    for text in (FIRST, SECOND):
        table = np.zeros((8, 8))
        table[np.triu_indices(8, 1)] = [float(word) for word in text.split()]
        tables.append(table + table.T)
    return tables[0], tables[1]


def points() -> NDArray[np.float64]:
    """Give the similarities of the eight points: −(D1 − D2) / 2, centred."""
    one, two = distances()
    return centre(-0.5 * (one - two))


@cache
def spectrum(of: str, root: str | None) -> NDArray[np.float64]:
    """Give the eigenvalues of a similarity, the largest first."""
    if of == "digits":
        return eigen(root)[0][::-1]
    matrix = points() if of == "points" else words(str(root))[1]
    values: NDArray[np.float64] = np.linalg.eigvalsh(matrix).astype(np.float64)
    return values[::-1]


def eigenvalue(of: str, place: int, seed: int, root: str | None = None) -> dict[str, float]:
    """Give one eigenvalue."""
    return {"value": spectrum(of, root)[place - 1 if place > 0 else place]}


def best_points(seed: int) -> dict[str, Any]:
    """Measure the best approximation of the points' similarities in two dimensions, signs included."""
    embedding, head = eigen_factors(points(), 2)
    return {"mse": error(embedding @ head.T, points()), "embedding": embedding}


TWO = ("two largest", "two smallest")


def two_points(which: str, seed: int) -> dict[str, Any]:
    """Measure two eigenvectors of the points' similarities, signs included."""
    values, vectors = np.linalg.eigh(points())
    chosen = [-1, -2] if which == TWO[0] else [0, 1]
    embedding = vectors[:, chosen] * np.sqrt(np.abs(values[chosen]))
    return {"mse": error((embedding * np.sign(values[chosen])) @ embedding.T, points()), "embedding": embedding}


def mates(embedding: NDArray[Any]) -> float:
    """Give the share of the points whose nearest is the one that both distances call near, 1 and 3, 2 and 4."""
    gaps = np.linalg.norm(embedding[:, None] - embedding, axis=2) + np.diag(np.full(8, np.inf))
    return float(np.mean(gaps.argmin(axis=1) == np.array([2, 3, 0, 1, 6, 7, 4, 5])))


def encoded_points(stacked: bool, original: bool, seed: int) -> dict[str, Any]:
    """Measure an encoder of one-hot vectors: of the difference of both distances, or of both similarities at once."""
    from simec_vision.estimator import SimilarityEncoder

    target = points()
    if stacked:
        target = np.stack([centre(1 - table / table.max()) for table in distances()], axis=2)
    options: dict[str, Any] = {"gram_penalty": 0.0, "epochs": 300, "batch_size": 8}
    if original:
        options = {"recipe": "keras", "lr": 0.05, "epochs": 70}
    made = SimilarityEncoder(2, seed=seed, **options).fit(np.eye(8), target)
    embedding = made.transform(np.eye(8))
    return {"mse": error(made.predict(np.eye(8)), target), "mates": mates(embedding), "embedding": embedding}


def embedded_digits(root: str | None, ridge: bool, seed: int) -> dict[str, Any]:
    """Measure ten dimensions whose inner products shall be the similarities without signs, S1 + S2."""
    import torch
    from sklearn.linear_model import Ridge

    from simec_vision.estimator import SimilarityEncoder
    from simec_vision.metrics import embedding_match

    given, (one, two) = overlaps(root), by_sign(root)
    features, unsigned = given.features, one + two
    if ridge:
        embedding = Ridge(alpha=1.0).fit(features, _eigenvectors(root)["scaling"]).predict(features)
    else:
        count = min(1000, len(features) // 2)
        made = SimilarityEncoder(
            10, hidden=[HIDDEN], recipe="keras", lr=8e-4, epochs=25 if root else 300, gram_penalty=0.5, seed=seed, **L2
        )
        gram = unsigned[:count, :count]
        embedding = made.fit(features, given.similarity[:, :count], gram=gram).transform(features)
    matches: dict[str, float] = {}
    for name, other in _eigenvectors(root).items():
        found = embedding_match(torch.from_numpy(embedding), torch.from_numpy(other))
        matches |= {f"{name}_{value}": number for value, number in found.items()}
    own = {"embedding": embedding, "classes": given.classes}
    return {"mse": error(embedding @ embedding.T, unsigned), **matches, **own}


def _eigenvectors(root: str | None) -> dict[str, NDArray[np.float64]]:
    """Give the digits' places by ten eigenvectors, the largest by λ (kernel PCA) or by |λ|."""
    values, vectors = eigen(root)
    orders = [np.argsort(-size, kind="stable")[:10] for size in (values, np.abs(values))]
    places = [vectors[:, order] * np.sqrt(np.abs(values[order])) for order in orders]
    return dict(zip(EMBEDDINGS, places, strict=True))


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    named = {(table.name, table.value): table for table in TABLES}
    for name in SPECTRA:
        yield from exactly(found, named[f"spectrum of {name}", "value"], ["eigenvalue"])
    yield from exactly(found, named["points", "mse"], ["eigendecomposition"])
    for table, value in (("points", "mse"), ("sweep", "train"), ("ten", "mse"), ("words", "mse")):
        yield from reached(found, named[table, value], [OURS, ORIGINAL])
    yield from exactly(found, named["sweep", "train"], ["kernel PCA", "classical scaling"])
    for ten in (named["ten", "mse"], *MATCHES):
        yield from exactly(found, ten, ["ridge"])
    for ten in MATCHES:
        less = ten.value.endswith("mse")
        yield from reached(found, ten, [ORIGINAL], 0.1 if less else 0.02, more=not less)
    yield from nonmetric_approach.claims(found)
    yield from nonmetric_signs.claims(found)
    yield from _mates(found)
    yield from _beyond_metric(found)


def _mates(found: Found) -> Iterator[Check]:
    grid = found.grid("points", "mates")
    for column in ("one", "two") if grid else ():
        share = grid["SimEc"][column][0]
        claim = f"two dimensions from {column} matri{'x' if column == 'one' else 'ces'} give the four pairs"
        yield Check(claim, "every point's nearest is its mate", f"{share:.0%}", share == 1)


def _beyond_metric(found: Found) -> Iterator[Check]:
    for which in ("", "small "):
        train, test = (found.grid(f"{which}sweep", value) for value in ("train", "test"))
        for column in (c for c in train.get("SimEc", {}) if int(c) >= 6):
            ours, kernel = train["SimEc"][column][0], train["kernel PCA"][column][0]
            claim = f"{column} dimensions: predicted similarities beat kernel PCA, whose are inner products"
            told = f"{ours:.6f}, held-out {test['SimEc'][column][0]:.6f}"
            yield Check(claim, f"below {kernel:.6f}", told, ours < kernel)
        errors = {row: cells["training"][0] for row, cells in found.grid(f"{which}ten", "mse").items()}
        if errors:
            claim = "ten dimensions that a Similarity Encoder learns beat ridge regression to eigenvectors"
            told = f"{errors[ORIGINAL]:.6f} against {errors['ridge']:.6f}"
            yield Check(claim, "below", told, errors[ORIGINAL] < errors["ridge"])


def figures(found: Found) -> None:
    """Draw the points, errors by length of embeddings, the digits and the words."""
    from sklearn.decomposition import PCA

    _draw_points(found)
    nonmetric_approach.figures(found)
    nonmetric_signs.figures(found)
    first = min((cell.seed for cell in found.cells if cell.row in (OURS, ORIGINAL)), default=0)
    for cell in found.cells:
        arrays = arrays_of(cell, found.folder) if cell.row in (OURS, ORIGINAL) and cell.seed == first else {}
        if cell.table.endswith("ten") and arrays:
            axes = PCA().fit_transform(arrays["embedding"])
            components = [
                Map(f"components 1 and {k}", axes[:, [0, k - 1]], arrays["classes"], names="07") for k in (2, 6)
            ]
            draw_maps(components, found.folder / "digits.png", size=4.2)
        if (cell.table, cell.row) == ("words", OURS) and arrays:
            nonmetric_words.draw(arrays["embedding"], *words(str(cell.options["root"]))[1:], found.folder)
    for name in ("sweep", "small sweep"):
        if found.grid(name, "train"):
            titles = {"train": "training images", "test": "held-out images"}
            tables = [table for table in TABLES if table.name == name]
            panels = [replace(curves(found, t, logarithmic="xy"), title=titles[t.value]) for t in tables]
            draw_curves(panels, found.folder / "digits_errors.png")


def _draw_points(found: Found) -> None:
    """Draw each method's map of the points, of the first seed."""
    maps: dict[str, Map] = {}
    for cell in found.cells:
        if cell.table == "points":
            name = f"{cell.row}, {cell.column} matri{'x' if cell.column == 'one' else 'ces'}"
            arrays = arrays_of(cell, found.folder)
            maps.setdefault(name, Map(name, arrays["embedding"], np.arange(8) // 4, [*"12345678"]))
    if maps:
        draw_maps([*maps.values()], found.folder / "points.png", columns=3)
