"""The experiment ``link_prediction``: which entity of a knowledge graph a relation leads to, by embeddings.

After notebook 06_link_prediction of Horn's simec (2020), whose data are WN18, WN18RR, FB15k and FB15k-237.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simec_vision.cli.runs import write_text
from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import limit_original
from simec_vision.experiments.figures import Curves, draw_curves
from simec_vision.experiments.link_models import (
    FINE_TUNING,
    PRETRAINING,
    VALIDATED,
    Plain,
    Recipe,
    Rounds,
    counted,
    few,
    fine_tuned,
    linked_otherwise,
    train_plain,
    train_turned,
)
from simec_vision.experiments.links import Graph, Known, Scorer, block_graph, measures, ranks, read_graph
from simec_vision.experiments.results import Check, markdown
from simec_vision.experiments.results import original as read_original
from simec_vision.experiments.table_report import Found, Table, reached, run_experiment
from simec_vision.items import InputError

DRAWN = "drawn blocks"
OURS, THEIRS = "SimEc, turned heads", "SimEc, original recipe"
RULES = {"by how often": counted, "linked otherwise": linked_otherwise}
QUICK_RECIPE = {"dim": 40, "epochs": 40, "every": 4, "batch_size": 100, "penalty": 0.02}
QUICK_ROUNDS = (Rounds(50, 250, 500, 32), Rounds(3, 25, 45, 128))
AIMS = {"mrr": 0.30, "hits_10": 0.41}
"""What ours shall reach on the test triples of WN18RR."""
FEWER = {
    "valid": f"validation, of which at most {VALIDATED} queries are drawn",
    "train": f"training, of which at most {VALIDATED} queries are drawn",
}
"""Splits beside test, of which a part is enough to see how much is learned by heart."""

TABLES = {
    value: Table("links", value, title, "graph", digits)
    for value, title, digits in (
        ("mrr", "Mean reciprocal rank of the true answer, other true ones left out, ties at their mean rank", 4),
        ("hits_1", "Share of true answers that rank first", 4),
        ("hits_3", "Share within the first 3", 4),
        ("hits_10", "Share within the first 10", 4),
        ("median", "Median rank", 1),
        ("mean_rank", "Mean rank", 1),
        *(
            (f"{split}_{value}", f"{title}: {FEWER[split]}", 4)
            for split in FEWER
            for value, title in (("mrr", "Mean reciprocal rank"), ("hits_1", "Rank first"), ("hits_10", "First 10"))
        ),
        ("pretrained", "Mean reciprocal rank before fine-tuning", 4),
    )
}


def link_prediction(
    config: str,
    root: str = "data",
    graph: str = "wn18rr",
    recipe: Recipe = Recipe(),  # noqa: B008  # frozen
    original_seeds: int = 0,
    seeds: list[int] = [0],  # noqa: B006  # never changed, and the parser shows it
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Predict links of a knowledge graph, with one head for each relation and direction on shared embeddings.

    Args:
        config: All options as YAML, for the experiment's folder.
        root: The folder above the graph's.
        graph: Folder with train.txt, valid.txt and test.txt, such as wn18rr, wn18, FB15k or FB15k-237.
        recipe: How ours is trained.
        original_seeds: With how many of the seeds to train as the original did as well, which takes hours for each.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        quick: A small drawn graph in place of a real one.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/link_prediction,
            runs/link_prediction-2, …
    """
    check(recipe)
    name = DRAWN if quick else graph
    if not quick:
        read(root, name)
    own = QUICK_RECIPE if quick else {key: getattr(recipe, key) for key in QUICK_RECIPE | {"negatives": 0, "lr": 0}}
    seeds = seeds[:1] if quick else seeds
    cells = limit_original([*planned(root, name, own, seeds)], seeds, 1 if quick else original_seeds)
    tables = [*TABLES.values()]
    run_experiment("link_prediction", cells, tables, claims, figures, config, processes, out, comparable=not quick)


def check(recipe: Recipe) -> None:
    """Make sure that ours can be trained so.

    Raises:
        InputError: naming the option that cannot be.
    """
    for name in ("dim", "epochs", "every", "batch_size", "negatives"):
        if getattr(recipe, name) < 1:
            raise InputError(f"Expected --recipe.{name} from 1 on, got {getattr(recipe, name)}")
    if recipe.dim % 2:
        raise InputError(f"Expected an even --recipe.dim, as pairs of dimensions are turned, got {recipe.dim}")
    if not recipe.lr > 0 or not recipe.penalty >= 0:
        raise InputError(f"Expected a positive --recipe.lr and a --recipe.penalty from 0 on, got {recipe}")


def planned(root: str, name: str, recipe: dict[str, Any], seeds: list[int]) -> Iterator[Cell]:
    """List the cells."""
    own, column = {"root": root, "name": name}, spelled(name)
    for rule in RULES:
        yield Cell("links", rule, column, ruled, {**own, "rule": rule})
    for seed in seeds:
        yield Cell("links", OURS, column, turned, {**own, "recipe": recipe}, seed)
        yield Cell("links", THEIRS, column, plain, own, seed)


def spelled(name: str) -> str:
    """Give a graph's name as the original's numbers have it, whatever letters of its folder are large."""
    known = read_original("link_prediction")["tables"]["links"]["mrr"][OURS]
    return {each.lower(): each for each in known}.get(name.lower(), name)


@cache
def read(root: str, name: str) -> Graph:
    """Read a graph, or draw that of the quick version."""
    return block_graph() if name == DRAWN else read_graph(Path(root) / name)


Asked = dict[str, NDArray[np.int64]]
"""Split → queries, or their ranks."""


def asked(graph: Graph) -> Asked:
    """Give what is ranked: all test queries, and some of those for training and of those that choose epochs."""
    return {split: few(rows) if split in FEWER else rows for split, rows in graph.queries.items()}


def ranked(score: Scorer, graph: Graph, known: Known) -> Asked:
    """Rank them all by one scorer."""
    return {split: ranks(score, queries, known) for split, queries in asked(graph).items()}


def told(found: Asked, graph: Graph) -> dict[str, Any]:
    """Summarise their ranks."""
    beside = {split: measures(found[split]) for split in FEWER}
    others = {f"{s}_{value}": beside[s][value] for s in FEWER for value in ("mrr", "hits_1", "hits_10")}
    return {**measures(found["test"]), **others, "ranks": found["test"], "directions": graph.queries["test"][:, 1]}


def ruled(root: str, name: str, rule: str, seed: int) -> dict[str, Any]:
    """Measure a rule that nothing is trained for."""
    graph = read(root, name)
    return told(ranked(RULES[rule](graph), graph, Known(graph)), graph)


def turned(root: str, name: str, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    """Measure ours."""
    graph = read(root, name)
    known = Known(graph)
    model, best = train_turned(graph, known, Recipe(**recipe), seed)
    return {**told(ranked(model.scores, graph, known), graph), "course": np.array(best.course)}


def plain(root: str, name: str, seed: int) -> dict[str, Any]:
    """Measure the original's: trained on all relations as one, then on each direction alone."""
    graph = read(root, name)
    known, union = Known(graph), graph.union()
    first, second = QUICK_ROUNDS if name == DRAWN else (PRETRAINING, FINE_TUNING)
    torch.manual_seed(seed)
    model, of_union = Plain(graph.entities), Known(union)
    judges = few(union.queries["valid"])
    best = train_plain(
        model, union.queries["train"], first, lambda score: measures(ranks(score, judges, of_union))["mrr"]
    )
    before = measures(ranks(model.scores, graph.queries["test"], known))["mrr"]
    queries = asked(graph)
    after = {split: np.zeros((len(rows), 2), dtype=np.int64) for split, rows in queries.items()}
    for direction, tuned in fine_tuned(model, graph, known, second):
        for split, rows in queries.items():
            chosen = rows[:, 1] == direction
            after[split][chosen] = ranks(tuned.scores, rows[chosen], known)
    return {**told(after, graph), "pretrained": before, "course": np.array(best.course)}


def claims(found: Found) -> Iterator[Check]:
    """Check what the original claimed, and what it did not ask: whether rules do as well."""
    name = next(cell.column for cell in found.cells)
    for value, more in (("mrr", True), ("hits_10", True), ("hits_1", True)):
        yield from reached(found, TABLES[value], [OURS, THEIRS], more=more)
    often, rule, ours, theirs = (
        found.cell("links", row, name, "mrr") for row in ("by how often", "linked otherwise", OURS, THEIRS)
    )
    if None not in (often, ours):
        yield from _above("embeddings rank answers higher than counts do", ours, often)
    if None not in (rule, ours):
        yield from _above("embeddings rank answers higher than what else links two entities", ours, rule)
    if theirs is not None:
        yield from _above("shared embeddings, turned for each relation, are better than the original's", ours, theirs)
        before = found.cell("links", THEIRS, name, "pretrained")
        yield from _above("the original's gains by fine-tuning on each relation", theirs, before)
    yield from _compared(found, name)
    yield from _aims(found, name)
    best, worst = (found.cell("links", OURS, name, f"mrr_{end}") for end in ("best", "worst"))
    if best is not None and worst is not None:
        claim = "ties play no part in what ours reaches: mean reciprocal rank if they fell for it or against it"
        yield Check(claim, "at most 0.001 apart", f"{best:.4f} and {worst:.4f}", best - worst <= 0.001)


def _above(claim: str, ours: float | None, other: float | None) -> Iterator[Check]:
    if ours is not None and other is not None:
        yield Check(f"{claim}: mean reciprocal rank", f"above {other:.4f}", f"{ours:.4f}", ours > other)


def _compared(found: Found, name: str) -> Iterator[Check]:
    """Say which rows have no number of the original beside them: its encoders should, rules never have."""
    theirs, rows = found.original("links", "mrr"), dict.fromkeys(cell.row for cell in found.cells)
    lacking = [row for row in rows if name not in theirs.get(row, {})]
    if found.theirs:
        told = f"none beside {', '.join(lacking)}" if lacking else "all rows"
        claim = f"the original's numbers of {name} stand beside encoders"
        yield Check(claim, "beside each", told, set(lacking) <= set(RULES))


def _aims(found: Found, name: str) -> Iterator[Check]:
    for value, least in AIMS.items() if name == "wn18rr" else ():
        ours = found.cell("links", OURS, name, value)
        if ours is not None:
            claim = f"WN18RR, {TABLES[value].title.lower()}: more than the original's"
            yield Check(claim, f"at least {least}", f"{ours:.4f}", ours >= least)


def figures(found: Found) -> None:
    """Write ``relations.md``, the mean reciprocal rank of each relation, and draw the course of training."""
    cells = [*{cell.row: cell for cell in found.cells}.values()]  # of each row the last seed
    name = cells[0].column
    graph = read(cells[0].options["root"], cells[0].options["name"])
    rows = [["relation", "queries", *(cell.row for cell in cells)]]
    kept = [arrays_of(cell, found.folder) for cell in cells]
    for relation, called in enumerate(graph.relations):
        for direction, way in ((relation, ""), (relation + len(graph.relations), ", back")):
            rows.append([called + way, *_relation(kept, direction)])
    write_text(found.folder / "relations.md", f"Mean reciprocal rank in test, {name}\n\n{markdown(rows)}")
    courses = {cell.row: arrays["course"] for cell, arrays in zip(cells, kept, strict=True) if "course" in arrays}
    ours = {row: {float(epoch): (float(mrr), 0.0) for epoch, mrr in course} for row, course in courses.items()}
    panels = [
        Curves(f"{name}: {row}", "epochs", f"mean reciprocal rank in validation{note}", {row: ours[row]})
        for row, note in ((OURS, ""), (THEIRS, "\n(all relations as one)"))
        if row in ours
    ]
    draw_curves(panels, found.folder / "training.png")


def _relation(kept: list[dict[str, NDArray[Any]]], direction: int) -> list[str]:
    chosen = [arrays["ranks"][arrays["directions"] == direction] for arrays in kept]
    return [str(len(chosen[0])), *(f"{measures(part)['mrr']:.3f}" if len(part) else "" for part in chosen)]
