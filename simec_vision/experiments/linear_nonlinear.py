"""The experiment ``linear_nonlinear``: encoders learn what linear and radial kernel PCA and isomap compute.

After notebook 01_embed_linear_nonlinear of Horn's simec (2020).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from simec_vision.experiments import linear_nonlinear_mnist as on_mnist
from simec_vision.experiments import linear_nonlinear_newsgroups as on_newsgroups
from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import (
    BEST,
    ORIGINAL,
    OURS,
    OWN,
    curves,
    digit_map,
    eigen,
    encoders,
    limit_original,
)
from simec_vision.experiments.figures import Map, draw_curves, draw_maps
from simec_vision.experiments.results import Check
from simec_vision.experiments.sources import check_there
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment
from simec_vision.experiments.tasks import gamma, items

Part = Literal["circles", "digits", "mnist", "newsgroups"]
DIMS = (2, 4, 6, 10, 15, 25, 35, 64)
LINEAR = {"recipe": "keras", "l2_embedding": 1e-4, "l2_head": 1e-7, "gram_penalty": 0.5, "lr": 0.01, "epochs": 25}
HIDDEN: dict[str, Any] = {**LINEAR, "hidden": [100], "epochs": 15}
GEODESIC: dict[str, Any] = {"recipe": "keras", "hidden": [100], "gram_penalty": 10.0, "lr": 0.01, "epochs": 25}
MAPS_2D: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "circles": (
        "circles", "linear", OWN,
        {"recipe": "keras", "l2_embedding": 0.01, "gram_penalty": 0.5, "lr": 0.01, "epochs": 25},
    ),
    "digits": ("digits", "linear", OWN, {**LINEAR, "epochs": 15}),
    "digits, radial": ("digits", "rbf", {**OWN, "hidden": [100]}, HIDDEN),
    "digits, geodesic": ("digits", "geodesic", {**OWN, "hidden": [100]}, GEODESIC),
    "digits, geodesic, 2 hidden": (
        "digits", "geodesic", {**OWN, "hidden": [200, 100]}, {**GEODESIC, "hidden": [200, 100]},
    ),
}  # fmt: skip
"""Map → data, kernel, our options, the original's."""
QUICK = {("maps", "circles"), ("maps", "digits, radial"), ("digits", "2"), ("digits", "10"), ("digits", "64"),
         ("digits_kernel", "digits")}  # fmt: skip
ROUGH = {
    **dict.fromkeys(("digits, geodesic", "digits, geodesic, 2 hidden", "mnist, geodesic"), 0.01),
    "newsgroups": 0.1,
}
"""Maps whose eigenvectors are not the original's to the digits shown → how far off they may be: scikit-learn's isomap
has changed since, and texts are not cut into words just as there."""
SAMPLED = {
    **dict.fromkeys(("digits", "digits, radial"), 1e-6),
    **dict.fromkeys((name for name, (kernel, *_) in on_mnist.MAPS_2D.items() if kernel != "geodesic"), 1e-3),
    **ROUGH,
}
"""The same of the ranks of training items: beyond four million pairs those of a sample, and digits have near ties."""
MAPS = {
    value: Table("maps", value, f"Maps of two coordinates: {title}", "data", digits)
    for value, title, digits in (
        ("mse", "mean squared error", 7),
        ("r2", "r² of inner products", 5),
        ("spearman", "ρ of inner products", 5),
        ("held_out_mse", "mean squared error, held out", 7),
        ("held_out_r2", "r² of inner products, held out", 5),
        ("held_out_spearman", "ρ of inner products, held out", 5),
        ("distance", "r² of distances with the eigenvectors' map", 4),
        ("held_out_distance", "r² of distances with the eigenvectors' map, held out", 4),
    )
}
DIGITS = Table("digits", "mse", "Digits, linear kernel: mean squared error", "embedding", 6)
DISTANCE = Table("digits", "distance", "Digits, linear kernel: r² of distances", "embedding", 3)
BANDWIDTH = "1 / median² of distances"
WIDTH = Table("digits_kernel", "gamma", "Digits: γ of the radial kernel", "data", 6)
TABLES = (WIDTH, *MAPS.values(), DIGITS, DISTANCE, *on_mnist.TABLES, *on_newsgroups.TABLES)


def linear_nonlinear(
    config: str,
    parts: list[Part] = [],  # noqa: B006  # never changed, and the parser shows it
    root: str = "data",
    seeds: list[int] = [0],  # noqa: B006
    processes: int = 1,
    original_seeds: int | None = None,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Learn the embeddings of linear and radial kernel PCA and of isomap, from some or not all similarities.

    Args:
        config: All options as YAML, for the experiment's folder.
        parts: Which of circles, digits, mnist and newsgroups; default: the first two, and mnist where root has it.
        root: Folder of MNIST/raw and of the newsgroups.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        original_seeds: With how many of the seeds to train as the original did as well, which takes most of the time;
            default: all.
        quick: Circles and digits, few cells, one seed.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/linear_nonlinear,
            runs/linear_nonlinear-2, …
    """
    chosen: list[str] = [*parts] or [
        "circles",
        "digits",
        *(["mnist"] if (Path(root) / "MNIST" / "raw").is_dir() else []),
    ]
    if not quick:
        check_there(chosen, root)
    cells = [*planned(chosen, seeds[:1] if quick else seeds, root)]
    if quick:
        cells = [cell for cell in cells if (cell.table, cell.column) in QUICK and not _slow(cell)]
    cells = limit_original(cells, seeds, original_seeds)
    run_experiment("linear_nonlinear", cells, TABLES, claims, figures, config, processes, out)


def _slow(cell: Cell) -> bool:
    return cell.row == ORIGINAL and cell.column != "circles"


def planned(parts: list[str], seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells."""
    if "digits" in parts:
        yield Cell("digits_kernel", BANDWIDTH, "digits", width)
    for name, (data, kernel, ours, theirs) in MAPS_2D.items():
        if data in parts:
            yield from trio("maps", name, {"data": data, "kernel": kernel, "dim": 2, "root": root}, ours, theirs, seeds)
    if "digits" in parts:
        for dim in DIMS:
            what = {"data": "digits", "kernel": "linear", "dim": dim, "root": root}
            yield from trio("digits", str(dim), what, OWN, LINEAR, seeds)
    if "mnist" in parts:
        yield from on_mnist.planned(seeds, root)
    if "newsgroups" in parts:
        yield from on_newsgroups.planned(seeds, root)


def trio(
    table: str, column: str, what: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], seeds: list[int]
) -> Iterator[Cell]:
    """List the eigenvectors' cell and those of encoders by both recipes."""
    yield Cell(table, BEST, column, eigen, what)
    yield from encoders(table, column, what, ours, theirs, seeds)


def width(seed: int) -> dict[str, float]:
    """Give γ of the digits' radial kernel."""
    return {"gamma": gamma(items("digits", ""), 1.0)}


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    for value in ("mse", "r2", "spearman"):
        for prefix in ("", "held_out_"):
            others = SAMPLED if prefix + value == "spearman" else ROUGH
            yield from exactly(found, MAPS[prefix + value], [BEST], others=others)
    yield from exactly(found, WIDTH, [BANDWIDTH])
    yield from exactly(found, DIGITS, [BEST])
    for table in (MAPS["mse"], MAPS["held_out_mse"], DIGITS):
        yield from reached(found, table, [OURS, ORIGINAL])
    yield from _alike(found)
    yield from on_mnist.claims(found)
    yield from on_newsgroups.claims(found)


def _alike(found: Found) -> Iterator[Check]:
    """Check that from 10 dimensions on, an embedding is that of kernel PCA but for a rotation."""
    ours = found.grid("digits", "distance").get(OURS, {})
    shown = {column: value[0] for column, value in ours.items() if int(column) >= 10}
    if shown:
        worst = min(shown, key=lambda column: shown[column])
        claim = "digits: from 10 dimensions on, distances are those of kernel PCA"
        yield Check(claim, "r² at least 0.97", f"{shown[worst]:.3f} ({worst})", shown[worst] >= 0.97)


def figures(found: Found) -> None:
    """Draw the maps, and errors by length of embeddings, by references and by what is unknown."""
    shown = [cell for cell in found.cells if cell.table == "maps" and cell.row != ORIGINAL]
    first = {(cell.column, cell.row): cell for cell in reversed(shown)}
    maps = [_map(cell, found) for cell in reversed(first.values())]
    if maps:
        draw_maps(maps, found.folder / "maps.png", columns=4, size=3.6)
    tables = [DIGITS, *on_mnist.DRAWN, *on_newsgroups.DRAWN]
    drawn = [table for table in tables if found.grid(table.name, table.value)]
    panels = [curves(found, table, logarithmic=_logarithmic(table)) for table in drawn]
    if panels:
        draw_curves(panels, found.folder / "errors.png")


def _logarithmic(table: Table) -> str:
    return "y" if "unknown" in table.columns else "xy"


def _map(cell: Cell, found: Found) -> Map:
    arrays, title = arrays_of(cell, found.folder), f"{cell.column}: {cell.row}"
    if cell.column == "circles":
        return Map(title, arrays["points"], arrays["classes"], None, arrays["faint"])
    return digit_map(title, arrays)
