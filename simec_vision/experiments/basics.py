"""The experiment ``basics``: the original's first examples, encoders that learn the maps of kernel PCA and of isomap.

After notebooks examples_torch, basic_examples_simec_with_keras and basic_examples_compact of Horn's simec (2020): MNIST
by a linear kernel and along its manifold, the S-curve by both, and 20 newsgroups. The second of these gave the head
a bias, which ours has not.
"""

from collections.abc import Iterator
from typing import Any, Literal

from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import BEST, OURS, OWN, digit_map, eigen, predicted
from simec_vision.experiments.figures import Map, draw_maps
from simec_vision.experiments.manifold import OURS as OWN_SURFACE
from simec_vision.experiments.results import Check
from simec_vision.experiments.sources import check_there
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment
from simec_vision.experiments.tasks import Data, Kernel

Part = Literal["digits", "mnist", "s_curve", "newsgroups"]
TORCH, LAYERS, KERAS = "SimEc, PyTorch recipe", "SimEc, Keras layers", "SimEc, Keras recipe"
"""Rows: as each of the three notebooks trained."""
ENCODERS = [OURS, TORCH, LAYERS, KERAS]
THEIRS: dict[str, dict[str, dict[str, Any]]] = {
    "linear": {
        TORCH: {"recipe": "torch", "gram_penalty": 500.0, "lr": 0.001, "epochs": 25},
        LAYERS: {"recipe": "keras", "gram_penalty": 0.5, "l2_embedding": 0.01, "lr": 0.005, "epochs": 25},
        KERAS: {"recipe": "keras", "gram_penalty": 0.5, "epochs": 25},
    },
    "isomap": {
        TORCH: {"recipe": "torch", "hidden": [20], "gram_penalty": 500.0, "lr": 0.01, "epochs": 25},
        LAYERS: {
            "recipe": "keras", "hidden": [20], "gram_penalty": 0.0, "l2_hidden": 0.01, "l2_embedding": 0.01,
            "lr": 0.005, "epochs": 30,
        },
        KERAS: {"recipe": "keras", "hidden": [20], "gram_penalty": 0.5, "lr": 0.01, "epochs": 25},
    },
    "S-curve, linear": {TORCH: {"recipe": "torch", "gram_penalty": 500.0, "lr": 0.1, "epochs": 25}},
    "S-curve, isomap": {
        TORCH: {"recipe": "torch", "hidden": [25, 10], "gram_penalty": 500.0, "lr": 0.01, "epochs": 25}
    },
    "newsgroups": {  # with momentum 0.9, so that a tenth of the original's learning rate goes as far
        LAYERS: {
            "recipe": "keras", "optimizer": "sgd", "lr": 5.0, "epochs": 20, "gram_penalty": 0.0, "l2_embedding": 0.0,
        },
        KERAS: {"recipe": "keras", "optimizer": "sgd", "lr": 5.0, "epochs": 25, "gram_penalty": 0.0},
    },
}  # fmt: skip
"""Example → notebook → its options."""
EXAMPLES: dict[str, tuple[Part, Kernel, dict[str, Any]]] = {
    "digits, linear": ("digits", "linear", OWN),
    "digits, isomap": ("digits", "geodesic", {**OWN, "hidden": [100]}),
    "MNIST, linear": ("mnist", "linear", OWN),
    "MNIST, isomap": ("mnist", "geodesic", {**OWN, "hidden": [200, 100], "l2_hidden": 1e-5}),
    "S-curve, linear": ("s_curve", "linear", OWN_SURFACE["linear kernel"]),
    "S-curve, isomap": ("s_curve", "geodesic", OWN_SURFACE["geodesic"]),
    "newsgroups": ("newsgroups", "linear", OWN),
}
"""Example → part, kernel and our options."""
ALL_POSTS = 3959
"""References of the newsgroups in the second notebook; all others took 1000."""
LEAST = {"digits, linear": 0.97, "digits, isomap": 0.85, "S-curve, linear": 0.995, "S-curve, isomap": 0.99}
"""Example → the r² of distances, of items and of held-out ones, that the original's pictures promise."""

SHOWN = {
    "distance": ("r² of distances with kernel PCA's or isomap's", 4),
    "held_out_distance": ("the same, held out", 4),
    "mse": ("mean squared error", 7),
    "held_out_mse": ("mean squared error, held out", 7),
    "r2": ("r² of inner products", 7),
    "held_out_r2": ("r² of inner products, held out", 7),
    "spearman": ("ρ of inner products", 5),
    "held_out_spearman": ("ρ of inner products, held out", 5),
    "predicted": ("mean squared error of predicted similarities", 4),
}
"""Value → what it is, and digits after the point."""
TABLES = {
    name: {value: Table(name, value, f"{title}: {what}", "example", digits) for value, (what, digits) in SHOWN.items()}
    for name, title in (("basics", "Two coordinates"), ("newsgroups", "Newsgroups in two coordinates"))
}
"""Table → value → how it is shown; the newsgroups have one of their own, as texts are not cut just as there."""


def basics(
    config: str,
    parts: list[Part] = [],  # noqa: B006  # never changed, and the parser shows it
    root: str = "data",
    seeds: list[int] = [0],  # noqa: B006
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Learn the maps of kernel PCA and of isomap: digits, the S-curve, newsgroups.

    Args:
        config: All options as YAML, for the experiment's folder.
        parts: Which of digits, mnist, s_curve and newsgroups; default: mnist (quick: digits) and s_curve.
        root: Folder of MNIST/raw and of the newsgroups.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        quick: One seed, fewer points, and not the original's recipes; by default on data that are there already.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/basics,
            runs/basics-2, …
    """
    chosen: list[Part] = parts or ["digits" if quick else "mnist", "s_curve"]
    check_there(chosen, root)
    cells = [*planned(chosen, seeds[:1] if quick else seeds, root, quick)]
    tables = [table for shown in TABLES.values() for table in shown.values()]
    run_experiment("basics", cells, tables, claims, figures, config, processes, out, comparable=not quick)


def planned(parts: list[Part], seeds: list[int], root: str, quick: bool) -> Iterator[Cell]:
    """List the cells: of each example the eigenvectors', ours and those of the notebooks that have it."""
    data: dict[Part, Data] = {
        "digits": "digits, 1000 rows", "mnist": "mnist", "newsgroups": "newsgroups",
        "s_curve": "S-curve, 400 points" if quick else "S-curve",
    }  # fmt: skip
    for example, (part, kernel, own) in EXAMPLES.items():
        if part in parts:
            what = {"data": data[part], "kernel": kernel, "dim": 2, "root": root}
            yield Cell(_table(example), BEST, example, eigen, what)
            for row, options in {OURS: own, **({} if quick else notebooks(example))}.items():
                more = {"references": ALL_POSTS} if (row, part) == (LAYERS, "newsgroups") else {}
                for seed in seeds:
                    yield Cell(_table(example), row, example, predicted, {**what, **more, "options": options}, seed)


def _table(example: str) -> str:
    return "newsgroups" if example == "newsgroups" else "basics"


def notebooks(example: str) -> dict[str, dict[str, Any]]:
    """Give the notebooks' options of an example; those of MNIST do for other digits."""
    return THEIRS.get(example) or THEIRS[example.rpartition(", ")[2]]


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    maps = TABLES["basics"]
    for value, share in (("mse", 0.0), ("r2", 0.0), ("spearman", 2e-3)):  # ranks are those of a sample of pairs
        yield from exactly(found, maps[value], [BEST], share)
    for name, rows in (("basics", ENCODERS), ("newsgroups", [BEST, *ENCODERS])):
        for value, table in TABLES[name].items():
            yield from reached(found, table, rows, more="mse" not in value and value != "predicted")
    yield from _alike(found)
    yield from _as_good(found)
    yield from _scale(found)


def _alike(found: Found) -> Iterator[Check]:
    """Check that items, also held-out ones, lie as kernel PCA and isomap place them."""
    for example, least in LEAST.items():
        for value, which in (("distance", "items"), ("held_out_distance", "held-out items")):
            ours = found.cell("basics", OURS, example, value)
            if ours is not None:
                other = "isomap" if "isomap" in example else "kernel PCA"
                claim = f"{example}: {which} lie as {other} places them"
                yield Check(claim, f"r² of distances at least {least}", f"{ours:.4f}", ours >= least)


def _as_good(found: Found) -> Iterator[Check]:
    """Check that inner products say as much of the similarities as those of eigenvectors."""
    for example in EXAMPLES:
        ours, best = (found.cell(_table(example), row, example, "r2") for row in (OURS, BEST))
        if ours is not None and best is not None:
            claim = f"{example}: inner products go with the similarities as those of the eigenvectors do"
            expected = f"r² at least {best - 0.02:.4f}"
            yield Check(claim, expected, f"{ours:.4f} against {best:.4f}", ours >= best - 0.02)
        ours, best = (found.cell("basics", row, example, "mse") for row in (OURS, BEST))
        if ours is not None and best is not None and example.endswith("linear"):
            claim = f"{example}: the error is that of the eigenvectors, up to 10 %"
            yield Check(claim, f"at most {1.1 * best:.5g}", f"{ours:.5g} against {best:.5g}", ours <= 1.1 * best)


def _scale(found: Found) -> Iterator[Check]:
    """Check what the third notebook shows: its learning rate is too low for the Gram penalty to set the scale."""
    error, best, alike = (
        found.cell("basics", row, "MNIST, linear", value)
        for row, value in ((KERAS, "mse"), (BEST, "mse"), (KERAS, "distance"))
    )
    if error is not None and best is not None and alike is not None:
        claim = "MNIST, linear: by the Keras recipe's defaults distances are kernel PCA's, but the scale is not"
        told = f"r² {alike:.3f}, error {error:.0f} against {best:.1f}"
        yield Check(claim, "r² at least 0.9, error 10 times as large", told, alike >= 0.9 and error > 10 * best)


def figures(found: Found) -> None:
    """Draw each example's maps: by eigenvectors, and by encoders of the first seed; held-out items are pale."""
    first: dict[tuple[str, str], Map] = {}
    for cell in found.cells:
        first.setdefault((cell.column, cell.row), _map(cell, found))
    for part in dict.fromkeys(part for part, _, _ in EXAMPLES.values()):
        maps = [drawn for (example, _), drawn in first.items() if EXAMPLES[example][0] == part]
        if maps:
            examples = sum(EXAMPLES[example][0] == part for example, row in first if row == BEST)
            draw_maps(maps, found.folder / f"{part}.png", columns=len(maps) // examples, size=3.6)


def _map(cell: Cell, found: Found) -> Map:
    arrays, title = arrays_of(cell, found.folder), f"{cell.column}: {cell.row}"
    if EXAMPLES[cell.column][0] in ("digits", "mnist"):
        return digit_map(title, arrays)
    return Map(title, arrays["points"], arrays["classes"], None, arrays["faint"])
