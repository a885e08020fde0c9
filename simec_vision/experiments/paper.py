"""The experiment ``paper``: the tables of Horn & Müller (2018, arXiv 1702.01824), training and held-out items.

After notebook experiments_paper of Horn's simec (2020): similarities of classes, of a radial kernel, and of the ink of
digits, which are no inner products. What its other experiments have already is done by the same cells.
"""

from collections.abc import Iterator
from typing import Literal

from simec_vision.experiments import paper_classes, paper_kernel, paper_signs
from simec_vision.experiments.embedding_cells import limit_original
from simec_vision.experiments.figures import draw_curves, draw_maps
from simec_vision.experiments.results import Check
from simec_vision.experiments.sources import mnist
from simec_vision.experiments.table_report import Found, run_experiment

Part = Literal["classes", "kernel", "signs"]
PARTS = {"classes": paper_classes, "kernel": paper_kernel, "signs": paper_signs}
"""Part → what lists its cells, claims and figures."""


def paper(
    config: str,
    parts: list[Part] = [],  # noqa: B006  # never changed, and the parser shows it
    root: str = "data",
    seeds: list[int] = [0],  # noqa: B006
    processes: int = 1,
    original_seeds: int | None = None,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Repeat the paper's tables: similarities of classes, of a radial kernel and of digits' ink.

    Args:
        config: All options as YAML, for the experiment's folder.
        parts: Which of classes, kernel and signs; default: all.
        root: Folder of MNIST/raw.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        original_seeds: With how many of the seeds to train as the original did as well, which takes most of the time;
            default: all.
        quick: Few cells of scikit-learn's digits, one seed, and not the original's recipe; it needs no data.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/paper,
            runs/paper-2, …
    """
    chosen: list[str] = [*parts] or [*PARTS]
    if not quick:
        mnist(root)  # here the user learns what is missing
    seeds = seeds[:1] if quick else seeds
    cells = [cell for part in chosen for cell in PARTS[part].planned(seeds, None if quick else root)]
    cells = limit_original(cells, seeds, 0 if quick else original_seeds)
    tables = [table for part in chosen for table in PARTS[part].TABLES]
    run_experiment("paper", cells, tables, claims, figures, config, processes, out, comparable=not quick)


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    for part in PARTS.values():
        yield from part.claims(found)


def figures(found: Found) -> None:
    """Draw errors of each part, and the digits by their ink."""
    for name, part in PARTS.items():
        panels = [panel for panel in part.panels(found) if panel.ours]
        if panels:
            draw_curves(panels, found.folder / f"{name}.png", columns=2)
    maps = paper_signs.maps(found)
    if maps:
        draw_maps(maps, found.folder / "digits.png", columns=3, size=3.6)
