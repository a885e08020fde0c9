"""The experiment ``matrix_factorization``: Similarity Encoders as SVD and eigendecomposition, with unknown entries.

After notebook 00_matrix_factorization of Horn's simec (2020).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.embedding_cells import curves, limit_original, with_level
from simec_vision.experiments.figures import Curves, draw_curves
from simec_vision.experiments.results import Check, error
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment

DIMS = (2, 10, 25, 50, 75, 100, 250, 400, 500, 750, 1000)
NOTHING = 1e-6
"""Mean squared errors below which there is nothing to compare: the entries vary by .036."""
RANK = 500
"""Longest embeddings that a decomposition of the matrix has."""
EPOCHS, QUICK_EPOCHS = 200, 100
SVD_RATES = {250: 0.005, 400: 0.004, 500: 0.0034, 750: 0.0032, 1000: 0.003}
EIGEN_RATES, EIGEN_EPOCHS = {75: 0.1, 250: 0.05, 1000: 0.01}, {"S1": 100, "S2": 60}
MISSING_RATES = {49: 0.025, 500: 0.01}
"""The original's: length of an embedding, up to which → learning rate; and epochs."""
MISSING_DIMS = (2, 10, 50, 100, 250, 500)
MISSING = tuple(round(0.1 * tenth, 1) for tenth in range(10))
PLACES = (1, 2, 10, 11, 20, 21, 100, 101, 500)
"""Of the singular values that are compared: the ends of the four steps."""
QUICK: tuple[tuple[str, dict[str, Any]], ...] = (
    ("spectrum", {}),
    ("facts", {}),
    ("svd", {"dim": 100}),
    ("both_sides", {"dim": 25}),
    ("eigen_S1", {"dim": 10}),
    ("missing", {"dim": 50, "share": 0.5}),
)
"""Tables and options of the cells that the quick version has."""

SPECTRUM = Table("spectrum", "value", "Matrix 500 × 700: singular values", "place", 3)
FACTS = Table("facts", "value", "Matrix 500 × 700 and its squares S1 = A Aᵀ, S2 = Aᵀ A", "of", 3)
TABLES = (
    SPECTRUM,
    FACTS,
    Table("svd", "mse", "Matrix 500 × 700: mean squared error", "embedding", 8),
    Table("both_sides", "first", "Rows by an encoder, columns by its head", "embedding", 7),
    Table("both_sides", "product", "Rows and columns by an encoder each", "embedding", 7),
    Table("missing", "mse", "Unknown entries left out of training: error on all entries", "share unknown"),
    Table("eigen_S1", "predicted", "A Aᵀ, 500 × 500: error of predicted similarities", "embedding", 7),
    Table("eigen_S1", "embeddings", "A Aᵀ, 500 × 500: error of embeddings' inner products", "embedding", 7),
    Table("eigen_S2", "predicted", "Aᵀ A, 700 × 700: error of predicted similarities", "embedding", 7),
    Table("eigen_S2", "embeddings", "Aᵀ A, 700 × 700: error of embeddings' inner products", "embedding", 7),
)


def matrix_factorization(
    config: str,
    seeds: list[int] = [0, 1, 2],  # noqa: B006  # never changed, and the parser shows it
    processes: int = 1,
    original_seeds: int | None = None,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Factorise a matrix as SVD and eigendecomposition do, and where entries are unknown, from one side and from both.

    Args:
        config: All options as YAML, for the experiment's folder.
        seeds: Seeds of training; the matrix and what of it is unknown stay the same.
        processes: Cells at once; each has its share of the processor's threads.
        original_seeds: With how many of the seeds to train as the original did as well, which takes most of the time;
            default: all.
        quick: One length of embeddings in each table, half of the entries unknown, one seed, half the epochs, and not
            the original's recipe.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/matrix_factorization,
            runs/matrix_factorization-2, …
    """
    cells = [*planned(seeds[:1] if quick else seeds)]
    cells = limit_original(cells, seeds, 0 if quick else original_seeds)
    if quick:
        cells = [*_quick(cells)]
    run_experiment("matrix_factorization", cells, TABLES, claims, figures, config, processes, out)


def _quick(cells: list[Cell]) -> Iterator[Cell]:
    """Choose the cells of the quick version, with half the epochs."""
    for cell in cells:
        if any(cell.table == table and own.items() <= cell.options.items() for table, own in QUICK):
            fewer = {"epochs": QUICK_EPOCHS} if cell.make in (encoded, both_sides, similar) else {}
            yield replace(cell, options={**cell.options, **fewer})


def planned(seeds: list[int]) -> Iterator[Cell]:
    """List the cells."""
    yield from (Cell("spectrum", "singular value", str(p), singular_value, {"place": p}) for p in PLACES)
    yield from (Cell("facts", "value", name, fact, {"name": name}) for name in FACT)
    for dim in DIMS:
        own: dict[str, Any] = {"dim": dim}
        if dim <= RANK:
            yield Cell("svd", "SVD", str(dim), svd, own)
        for seed in seeds:
            yield from _two_recipes("svd", str(dim), encoded, own, seed)
            yield from _two_recipes("both_sides", str(dim), both_sides, own, seed)
        for name in ("S1", "S2"):
            which = {**own, "matrix": name}
            if dim <= RANK:
                yield Cell(f"eigen_{name}", "eigendecomposition", str(dim), eigen, which)
            for seed in seeds:
                yield from _two_recipes(f"eigen_{name}", str(dim), similar, which, seed)
    for dim in MISSING_DIMS:
        for share in MISSING:
            own = {"dim": dim, "share": share}
            yield Cell("missing", f"mean-filled SVD, d={dim}", f"{share:g}", filled_svd, own)
            for seed in seeds:
                yield from _two_recipes("missing", f"{share:g}", completed, own, seed, f", d={dim}")


def _two_recipes(
    table: str, column: str, make: Callable[..., Mapping[str, Any]], own: dict[str, Any], seed: int, ending: str = ""
) -> Iterator[Cell]:
    yield Cell(table, f"SimEc{ending}", column, make, own, seed)
    yield Cell(table, f"SimEc, original recipe{ending}", column, make, {**own, "original": True}, seed)


@cache
def matrix() -> NDArray[np.float64]:
    """Make the matrix A, shape ``(500, 700)``, whose singular values go down in four steps."""
    u, s, v = np.linalg.svd(np.random.RandomState(28).rand(500, 700), full_matrices=False)
    s[0] = s[1] + 1
    s[:10] *= 50
    s[10:20] *= 20
    s[20:100] *= 10
    product = (u * s) @ v
    return product / np.abs(product).max()


@cache
def unknown() -> dict[float, NDArray[np.bool_]]:
    """Draw for each share of unknown entries which are."""
    random = np.random.RandomState(15)
    return {share: random.rand(*matrix().shape) <= share for share in MISSING}


def square(name: str) -> NDArray[np.float64]:
    """Make the symmetric matrices S1 = A Aᵀ and S2 = Aᵀ A."""
    return matrix() @ matrix().T if name == "S1" else matrix().T @ matrix()


def truncated(given: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """Give the best approximation of a rank."""
    u, s, v = np.linalg.svd(given, full_matrices=False)
    return (u[:, :dim] * s[:dim]) @ v[:dim]


@cache
def singular_values() -> NDArray[np.floating]:
    """Give the singular values of the matrix, the largest first."""
    return np.linalg.svd(matrix(), compute_uv=False)


def singular_value(place: int, seed: int) -> dict[str, float]:
    """Give one singular value by its place from the largest, 1."""
    return {"value": float(singular_values()[place - 1])}


FACT: dict[str, Callable[[], float]] = {
    "mean": lambda: matrix().mean(),
    "variance": lambda: matrix().var(),
    "largest of S1": lambda: square("S1").max(),
    "smallest of S1": lambda: square("S1").min(),
    "largest of S2": lambda: square("S2").max(),
    "smallest of S2": lambda: square("S2").min(),
}


def fact(name: str, seed: int) -> dict[str, float]:
    """Say one thing of the matrix and its squares."""
    return {"value": float(FACT[name]())}


def svd(dim: int, seed: int) -> dict[str, float]:
    """Measure the truncated singular value decomposition."""
    return {"mse": error(truncated(matrix(), dim), matrix())}


def eigen(dim: int, matrix: str, seed: int) -> dict[str, float]:
    """Measure the truncated eigendecomposition."""
    given = square(matrix)
    found = error(truncated(given, dim), given)
    return {"predicted": found, "embeddings": found}


def filled_svd(dim: int, share: float, seed: int) -> dict[str, float]:
    """Measure the truncated decomposition with unknown entries at the mean of the whole matrix, which helps it."""
    filled = np.where(unknown()[share], matrix().mean(), matrix())
    return {"mse": error(truncated(filled, dim), matrix())}


def encoder(dim: int, seed: int, epochs: int, **options: Any) -> Any:
    """Make a linear encoder of one-hot vectors, from a random start."""
    from simec_vision.estimator import SimilarityEncoder

    none = {"l2_embedding": 0.0, "l2_head": 0.0, "gram_penalty": 0.0}
    return SimilarityEncoder(dim, seed=seed, epochs=epochs, **{**none, "head_start": "random", "lr": 1e-2, **options})


def original_encoder(dim: int, seed: int, rates: Mapping[int, float], epochs: int, **options: Any) -> Any:
    """Make an encoder as the original did; the learning rate is that of the smallest length that is not exceeded."""
    from simec_vision.estimator import SimilarityEncoder

    lr = rates[min(most for most in rates if dim <= most)]
    return SimilarityEncoder(dim, recipe="keras", lr=lr, epochs=epochs, seed=seed, **options)


def encoded(dim: int, seed: int, original: bool = False, epochs: int = EPOCHS) -> dict[str, float]:
    """Measure an encoder and its head."""
    rows = np.eye(len(matrix()), dtype=np.float32)
    made = encoder(dim, seed, epochs)
    if original:
        penalty = 1e-3 if dim > RANK else 0.0
        made = original_encoder(dim, seed, SVD_RATES, 50, orthogonality_penalty=penalty)
    return {"mse": error(made.fit(rows, matrix()).predict(rows), matrix())}


def both_sides(dim: int, seed: int, original: bool = False, epochs: int = EPOCHS) -> dict[str, float]:
    """Measure an encoder of rows, and the product of its embeddings with those of an encoder of columns.

    Ours gives the second encoder the first's embeddings in an orthonormal basis: another linear encoder of the rows,
    that spans the same, and along whose dimensions all columns' embeddings are learned at one pace.
    """
    rows, columns = (np.eye(size, dtype=np.float32) for size in matrix().shape)
    make = partial(original_encoder, dim, seed, SVD_RATES, 50) if original else partial(encoder, dim, seed, epochs)
    first = make().fit(rows, matrix())
    embedding = first.transform(rows)
    if not original:
        embedding = orthonormal(embedding)
    second = make(head_start=embedding, head_frozen=True).fit(columns, matrix().T)
    product = embedding @ second.transform(columns).T
    return {"first": error(first.predict(rows), matrix()), "product": error(product, matrix())}


def orthonormal(embedding: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give an orthonormal basis of what embeddings span, shape ``(item, embedding)``; dimensions too many are 0."""
    basis = np.linalg.qr(embedding)[0]
    return np.pad(basis, ((0, 0), (0, embedding.shape[1] - basis.shape[1])))


def similar(dim: int, matrix: str, seed: int, original: bool = False, epochs: int = EPOCHS) -> dict[str, float]:
    """Measure an encoder whose embeddings' inner products shall be a symmetric matrix.

    Ours keeps the best head, from the eigendecomposition of the references' own similarities; the original's learns
    its head from a random start under the Gram penalty.
    """
    given = square(matrix)
    rows = np.eye(len(given), dtype=np.float32)
    made = encoder(dim, seed, epochs // 2, head_start="eigen", head_frozen=True)
    if original:
        made = original_encoder(dim, seed, EIGEN_RATES, EIGEN_EPOCHS[matrix], gram_penalty=1.0)
    embedding = made.fit(rows, given).transform(rows)
    return {"predicted": error(made.predict(rows), given), "embeddings": error(embedding @ embedding.T, given)}


def completed(dim: int, share: float, seed: int, original: bool = False) -> dict[str, float]:
    """Measure the factors of the known entries on all of them."""
    from simec_vision.factorisation import factorise

    given = np.where(unknown()[share], np.nan, matrix())
    if original:
        rows = np.eye(len(given), dtype=np.float32)
        made = original_encoder(dim, seed, MISSING_RATES, 60, l2_head=1e-5 if share >= 0.7 else 0.0)
        return {"mse": error(made.fit(rows, given).predict(rows), matrix())}
    return {"mse": error(factorise(given, dim, seed=seed).reconstruction(), matrix())}


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    named = {(table.name, table.value): table for table in TABLES}
    yield from exactly(found, SPECTRUM, ["singular value"])
    yield from exactly(found, FACTS, ["value"])
    yield from exactly(found, named["svd", "mse"], ["SVD"])
    yield from reached(found, named["svd", "mse"], ["SimEc", "SimEc, original recipe"])
    yield from reached(found, named["both_sides", "first"], ["SimEc", "SimEc, original recipe"])
    yield from reached(found, named["both_sides", "product"], ["SimEc", "SimEc, original recipe"])
    for name in ("eigen_S1", "eigen_S2"):
        for value in ("predicted", "embeddings"):
            yield from exactly(found, named[name, value], ["eigendecomposition"])
            yield from reached(found, named[name, value], ["SimEc", "SimEc, original recipe"])
    yield from exactly(found, named["missing", "mse"], [f"mean-filled SVD, d={dim}" for dim in MISSING_DIMS])
    for row in ("SimEc", "SimEc, original recipe"):
        yield from reached(found, named["missing", "mse"], [f"{row}, d={dim}" for dim in MISSING_DIMS])
    yield from _aims(found)


def _aims(found: Found) -> Iterator[Check]:
    """Check what this package adds: it comes near the SVD, from both sides as from one, and with unknown entries."""
    best, ours = (found.cell("svd", row, "100", "mse") for row in ("SVD", "SimEc"))
    if best is not None and ours is not None:
        yield Check("embedding 100: within 3 times the SVD's error", f"{3 * best:.6f}", f"{ours:.6f}", ours <= 3 * best)
    first, product = (found.grid("both_sides", value).get("SimEc", {}) for value in ("first", "product"))
    for dim, (one, _) in first.items():
        both = product[dim][0]
        claim = f"embedding {dim}: both sides as good as one, up to 5 % or {NOTHING:g}"
        limit = max(1.05 * one, NOTHING)
        yield Check(claim, f"at most {limit:.3g}", f"{both:.3g}", both <= limit)
    half, filled = (found.cell("missing", f"{row}, d=50", "0.5", "mse") for row in ("SimEc", "mean-filled SVD"))
    if half is not None and filled is not None:
        claim = "embedding 50, half unknown: better than the original and the mean-filled SVD"
        yield Check(claim, f"at most 0.0051, below {filled:.4f}", f"{half:.5f}", half <= min(0.0051, filled))


def figures(found: Found) -> None:
    """Draw singular values, and errors by length of embeddings and by share of unknown entries."""
    panels = [curves(found, SPECTRUM, (), "y", "singular value")]
    panels += [_panel(found, table, "xy") for table in TABLES if table.name in ("svd", "eigen_S1")]
    draw_curves(panels, found.folder / "factorization.png")
    missing = next(table for table in TABLES if table.name == "missing")
    dims = dict.fromkeys(row.rpartition("=")[2] for row in found.grid("missing", "mse"))
    draw_curves([_missing(found, missing, int(dim)) for dim in dims], found.folder / "missing.png")


def _missing(found: Found, table: Table, dim: int) -> Curves:
    """Give errors by share of unknown entries, beside the decomposition that knows all."""
    panel = _panel(found, table, "", f", d={dim}")
    level = float(np.sum(singular_values()[dim:] ** 2) / matrix().size)
    return with_level(panel, "SVD, nothing unknown", level)


def _panel(found: Found, table: Table, logarithmic: str, ending: str = "") -> Curves:
    """Give a table, or its rows with an ending, as curves."""
    short = {row: row.removesuffix(ending) for row in found.grid(table.name, table.value) if row.endswith(ending)}
    whole = curves(found, table, tuple(short), logarithmic)
    title = f"embedding {ending.rpartition('=')[2]}" if ending else table.title.partition(":")[0]
    ours = {short[row]: cells for row, cells in whole.ours.items()}
    theirs = {short[row]: cells for row, cells in whole.theirs.items()}
    return replace(whole, title=title, ours=ours, theirs=theirs)
