"""The experiment ``class_labels``: similar is what has the same class, which no kernel of new items can say.

After notebook 03_embed_classlabels of Horn's simec (2020).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments import class_labels_held_out as larger
from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import (
    BEST,
    ORIGINAL,
    OURS,
    OWN_MOVING,
    compared,
    curves,
    digit_map,
    error_tables,
    fitted,
    limit_original,
)
from simec_vision.experiments.figures import draw_curves, draw_maps
from simec_vision.experiments.paper_classes import eigenvalue
from simec_vision.experiments.results import Check
from simec_vision.experiments.sources import check_there
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment
from simec_vision.experiments.tasks import Data, Items, Task, task

Part = Literal["digits", "mnist", "newsgroups"]
EPOCHS = (5, 15, 25, 35, 50, 75, 100)
KERAS = {"recipe": "keras", "l2_head": 1e-7, "gram_penalty": 0.5}
LINEAR: dict[str, Any] = {**KERAS, "lr": 0.005, "epochs": 25}
HIDDEN: dict[str, Any] = {**KERAS, "hidden": [100], "lr": 0.01}
OWN_HIDDEN: dict[str, Any] = {**OWN_MOVING, "hidden": [100]}
ALL, SOME = "all rows", "rows 0 to 999"
SOURCES: dict[str, Data] = {ALL: "digits", SOME: "digits, 1000 rows"}
"""Column → data: the original learned from all rows, those it then told the classes of, too."""
HONEST, WITH_HIDDEN = "SimEc, rows 0 to 999", "SimEc, 100 hidden"
PLACES = (1, 9, 10)
QUICK = {("digits", ALL), ("digits", SOME), ("digits_epochs", "25"), *(("digits_spectrum", str(p)) for p in PLACES)}

ACCURACY = Table("digits", "accuracy", "Digits, rows 1000 to 1796: accuracy of 10 neighbours", "learned from", 6)
ERROR, NEW_ERROR = error_tables("digits", "Digits", "learned from", 6)
LATER = Table("digits_epochs", "mse", "Digits, 100 hidden: mean squared error", "epochs", 6)
LATER_ACCURACY = Table("digits_epochs", "accuracy", "Digits, 100 hidden: accuracy of 10 neighbours", "epochs", 3)
SPECTRUM = Table("digits_spectrum", "value", "Digits: eigenvalues of the classes' similarities", "place", 1)
TABLES = (SPECTRUM, ACCURACY, ERROR, NEW_ERROR, LATER, LATER_ACCURACY, *larger.TABLES)


def class_labels(
    config: str,
    parts: list[Part] = [],  # noqa: B006  # never changed, and the parser shows it
    root: str = "data",
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    processes: int = 1,
    original_seeds: int | None = None,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Learn embeddings from which items have the same class, and ask how they do on items of unknown class.

    Args:
        config: All options as YAML, for the experiment's folder.
        parts: Which of digits, mnist and newsgroups; default: digits, and mnist where root has it.
        root: Folder of MNIST/raw and of the newsgroups.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        original_seeds: With how many of the seeds to train as the original did as well, which takes most of the time;
            default: all.
        quick: Digits only, few cells, one seed, and not the original's recipe.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/class_labels,
            runs/class_labels-2, …
    """
    chosen: list[str] = [*parts] or ["digits", *(["mnist"] if (Path(root) / "MNIST" / "raw").is_dir() else [])]
    if not quick:
        check_there(chosen, root)
    cells = [*planned(chosen, seeds[:1] if quick else seeds, root)]
    if quick:
        cells = [cell for cell in cells if (cell.table, cell.column) in QUICK]
    cells = limit_original(cells, seeds, 0 if quick else original_seeds)
    run_experiment("class_labels", cells, TABLES, claims, figures, config, processes, out)


def planned(parts: list[str], seeds: list[int], root: str) -> Iterator[Cell]:
    """List the cells."""
    if "digits" in parts:
        yield from _digits(seeds)
    for data in ("mnist", "newsgroups"):
        if data in parts:
            yield from larger.planned(data, seeds, root)


def _digits(seeds: list[int]) -> Iterator[Cell]:
    for place in PLACES:
        options = {"data": "digits", "place": place, "root": None}
        yield Cell("digits_spectrum", "eigenvalue", str(place), eigenvalue, options)
    for column, data in SOURCES.items():
        for row, representation in (("pixels", "pixels"), ("PCA", "pca"), (BEST, "eigenvectors")):
            if (row, column) != (BEST, SOME):  # of held-out items, it knows none
                yield Cell("digits", row, column, given, {"data": data, "representation": representation})
        for seed in seeds:
            for row, options in ((OURS, OWN_MOVING), (ORIGINAL, LINEAR), (WITH_HIDDEN, OWN_HIDDEN)):
                yield Cell("digits", row, column, learned, {"data": data, "options": options}, seed)
    for epochs in EPOCHS:
        ways = ((OURS, ALL, OWN_HIDDEN), (ORIGINAL, ALL, HIDDEN), (HONEST, SOME, OWN_HIDDEN))
        for row, source, options in ways:
            for seed in seeds:
                what = {"data": SOURCES[source], "options": {**options, "epochs": epochs}}
                yield Cell("digits_epochs", row, str(epochs), learned, what, seed)


def given(data: Data, representation: str, seed: int) -> dict[str, float]:
    """Measure how well neighbours in pixels, in their PCA, or in eigenvectors of the classes tell classes."""
    from sklearn.decomposition import PCA

    known = task(data, "classes", "")
    mine, new = known.items.features, known.items.held_out
    if representation == "eigenvectors":
        mine = known.eigenvectors(2)[0]
        return {"accuracy": accuracy(known.items, mine, None), **_errors(known, mine, None)}
    if representation == "pca":
        components = PCA(2, svd_solver="full").fit(mine)
        mine, new = components.transform(mine), None if new is None else components.transform(new)
    return {"accuracy": accuracy(known.items, mine, new)}


def _errors(known: Task, embedding: NDArray[Any], new: NDArray[Any] | None) -> dict[str, Any]:
    return compared(known, embedding, new, best=False)


def learned(data: Data, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Measure an encoder of two coordinates that learned from whether classes are the same."""
    known = task(data, "classes", "")
    made = fitted(known, 2, options, seed, 1000)
    new = None if known.items.held_out is None else made.transform(known.items.held_out)
    embedding = made.transform(known.items.features)
    return {"accuracy": accuracy(known.items, embedding, new), **_errors(known, embedding, new)}


def accuracy(known: Items, embedding: NDArray[Any], new: NDArray[Any] | None) -> float:
    """Give the share of items from the 1000th on whose class 10 neighbours among the first 1000 tell."""
    from sklearn.neighbors import KNeighborsClassifier

    points = embedding if new is None else np.concatenate([embedding, new])
    others = known.held_out_classes
    classes = known.classes if others is None else np.concatenate([known.classes, others])
    nearest = KNeighborsClassifier(10).fit(points[:1000], classes[:1000])
    return float(nearest.score(points[1000:], classes[1000:]))


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims, and those about rows that were not learned from."""
    yield from exactly(found, SPECTRUM, ["eigenvalue"])
    yield from exactly(found, ACCURACY, ["pixels", "PCA", BEST])
    yield from exactly(found, ERROR, [BEST])
    yield from reached(found, ERROR, [OURS, ORIGINAL])
    yield from reached(found, LATER, [OURS, ORIGINAL])
    yield from _honest(found)
    yield from larger.claims(found)


def _honest(found: Found) -> Iterator[Check]:
    """Check what holds of held-out rows.

    That neighbours tell their classes best with a hidden layer is not claimed: the nearer two coordinates come to the
    eigenvectors', the more classes lie on top of each other.
    """
    hidden, linear = (found.cell("digits", row, SOME, "held_out_mse") for row in (WITH_HIDDEN, OURS))
    if hidden is not None and linear is not None:
        claim = "digits held out: with a hidden layer the error is smaller than with none"
        yield Check(claim, f"below {linear:.5f}", f"{hidden:.5f}", hidden < linear)
    ours, pixels = (found.cell("digits", row, SOME, "accuracy") for row in (WITH_HIDDEN, "pixels"))
    if ours is not None and pixels is not None:
        claim = "digits held out: neighbours in 2 coordinates tell classes less well than in all pixels"
        yield Check(claim, f"below {pixels:.3f}", f"{ours:.3f}", ours < pixels)
    seen, unseen = (found.cell("digits", WITH_HIDDEN, column, "accuracy") for column in (ALL, SOME))
    if seen is not None and unseen is not None:
        claim = "digits: the original's accuracy was helped by having learned from the rows it was measured on"
        yield Check(claim, f"held out below {seen:.3f}", f"{unseen:.3f}", unseen < seen)


def figures(found: Found) -> None:
    """Draw maps of the digits, also by epochs, and errors by epochs and by length of embeddings."""
    shown = {(OURS, ALL), (WITH_HIDDEN, ALL), (WITH_HIDDEN, SOME), (BEST, ALL)}
    first = {(c.row, c.column): c for c in reversed(found.cells) if c.table == "digits" and (c.row, c.column) in shown}
    maps = [digit_map(", ".join(key), arrays_of(cell, found.folder)) for key, cell in reversed(first.items())]
    if maps:
        draw_maps(maps, found.folder / "maps.png", columns=2, size=4.2)
    later = {c.column: c for c in reversed(found.cells) if (c.table, c.row) == ("digits_epochs", OURS)}
    if len(later) > 1:
        shots = [digit_map(f"{n} epochs, all rows", arrays_of(later[n], found.folder)) for n in sorted(later, key=int)]
        draw_maps(shots, found.folder / "epochs.png", columns=4)
    panels = [curves(found, LATER), curves(found, LATER_ACCURACY, y="accuracy")]
    panels += [curves(found, table) for table in larger.TABLES if found.grid(table.name, table.value)]
    draw_curves([panel for panel in panels if panel.ours], found.folder / "errors.png", columns=2)
