"""What ``evaluate explanations`` writes: a table as JSON and Markdown, the curves, and two pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.cli.runs import write_text
from simec_vision.files import replacing, write_json

MEASURES = {
    "mass": "share of positive relevance on the true mask (relevance mass accuracy); higher is better",
    "rank": "share of the most relevant pixels on the true mask (relevance rank accuracy); higher is better",
    "background": "share of relevance of either sign on the white background; lower is better",
    "most": "area under the score while regions go, most relevant first (of a pair: of both images, the score before "
    "them being 1); lower is better",
    "least": "the same, least relevant first; higher is better",
    "gap": "least − most; higher is better, 0 is a random order",
    "randomised": "rank correlation with heatmaps of random weights; near 0 is better, 1 shows the image only",
    "heads": "rank correlation with the heatmaps of the other heads; low where heads look at different things",
    "seconds": "seconds to explain an image",
}
"""What is measured, and how to read it."""

PANELS = {
    "mass": ("relevance on the truth", "mass, higher is better; dotted: chance"),
    "gap": ("pixel flipping", "least − most first, higher is better"),
    "background": ("on white background", "share, lower is better"),
    "randomised": ("random weights", "rank correlation, near 0 is better"),
}

BLIND = ("random", "edges")
"""Methods that see no model; they stand at the end."""


@dataclass
class Results:
    """All that was measured, case by case.

    Args:
        models: Run folders.
        seeds: Seeds of the cases.
        images: Images of each case.
        values: Method → head → measure → a value for each case.
        curves: ``<method>/<head>/<order>`` → mean score after each flipped region, for each case.
        cascades: ``<method>/<head>`` → layer down to which all is random → rank correlation, for each case.
        chance: Head → the true mask's share of the image, for each case: the mass that a blind heatmap has on it.
        drawn: Head → the true mask's share of what changes when the attribute is drawn anew, for each case.
        failed: Method → why it cannot explain this network.
    """

    models: list[str]
    seeds: list[int]
    images: int
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    curves: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    cascades: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    chance: dict[str, list[float]] = field(default_factory=dict)
    drawn: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, method: str, head: str, values: Mapping[str, float]) -> None:
        """Take in what a method reached for a head in one case."""
        kept = self.values.setdefault(method, {}).setdefault(head, {})
        for measure, value in values.items():
            if not math.isnan(value):  # such as the rank correlation of a heatmap that is 0 everywhere
                kept.setdefault(measure, []).append(value)

    def told(self, method: str, head: str) -> str:
        """Say the newest values in a few words."""
        kept = self.values[method][head]
        return ", ".join(f"{name} {kept[name][-1]:.2f}" for name in ("mass", "gap", "background") if name in kept)

    def heads(self) -> list[str]:
        """Give the names of the heads."""
        return list(next(iter(self.values.values()), {}))

    def mean(self, method: str, head: str, measure: str) -> float:
        """Average over the cases; NaN where there is nothing."""
        values = self.values.get(method, {}).get(head, {}).get(measure, [])
        return sum(values) / len(values) if values else float("nan")

    def spread(self, method: str, head: str, measure: str) -> float:
        """Give the standard deviation over the cases; 0 for one case."""
        values = self.values.get(method, {}).get(head, {}).get(measure, [])
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def ordered(self) -> list[str]:
        """Sort methods by localisation, where there is truth, else by pixel flipping; the blind ones at the end."""
        measure = "mass" if any(not math.isnan(self._overall(name, "mass")) for name in self.values) else "gap"
        seeing = [name for name in self.values if name not in BLIND]
        blind = [name for name in self.values if name in BLIND]
        return [*sorted(seeing, key=lambda name: -self._overall(name, measure)), *blind]

    def _overall(self, method: str, measure: str) -> float:
        means = [self.mean(method, head, measure) for head in self.heads()]
        known = [mean for mean in means if not math.isnan(mean)]
        return sum(known) / len(known) if known else float("nan")


def averaged(shares: Mapping[str, list[float]]) -> dict[str, float]:
    """Average the shares of each head over the cases."""
    return {head: float(np.mean(values)) for head, values in shares.items()}


def write_report(folder: Path, results: Results, shown: Mapping[str, Any]) -> str:
    """Write ``summary.json``, ``table.md``, ``curves.npz``, ``explanations.png`` and ``methods.png``.

    Args:
        folder: Where they go.
        results: What was measured.
        shown: ``images``, ``heatmaps`` and ``labels`` of the picture of all methods.

    Returns:
        The table and the files, for the terminal.
    """
    from simec_vision.explain.grids import method_grid

    text = markdown(results)
    write_text(folder / "table.md", text)
    with replacing(folder / "curves.npz") as partial:
        np.savez_compressed(partial, **{name: np.mean(runs, axis=0) for name, runs in results.curves.items()})
    files = ["table.md", "curves.npz"]
    if results.values:
        _draw(folder / "explanations.png", results)
        maps = {name: shown["heatmaps"][name].cpu().numpy() for name in results.ordered() if name in shown["heatmaps"]}
        method_grid(shown["images"], maps, shown["labels"], folder / "methods.png")
        files += ["explanations.png", "methods.png"]
    write_json(folder / "summary.json", summary(results, files))
    return text + "\nWrote " + ", ".join(str(folder / name) for name in [*files, "summary.json"])


def summary(results: Results, files: list[str]) -> dict[str, Any]:
    """Give all results as JSON values."""
    rows = [_row(results, method, head) for method in results.ordered() for head in results.heads()]
    return {
        "models": results.models,
        "seeds": results.seeds,
        "images": results.images,
        "measures": MEASURES,
        "table": rows,
        "chance": {head: round(share, 4) for head, share in averaged(results.chance).items()},
        "drawn_anew": {head: round(share, 4) for head, share in averaged(results.drawn).items()},
        "randomisation": {name: _mean_cascade(runs) for name, runs in results.cascades.items()},
        "failed": results.failed,
        "files": files,
    }


def _row(results: Results, method: str, head: str) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "head": head}
    for measure in MEASURES:
        mean = results.mean(method, head, measure)
        row[measure] = None if math.isnan(mean) else round(mean, 4)
        if len(results.seeds) * len(results.models) > 1 and not math.isnan(mean):
            row[f"{measure}_std"] = round(results.spread(method, head, measure), 4)
    return row


def _mean_cascade(runs: list[dict[str, float]]) -> dict[str, float]:
    return {place: round(float(np.mean([run[place] for run in runs if place in run])), 4) for place in runs[0]}


def markdown(results: Results) -> str:
    """Write one table a head, the best method first, and below how to read it."""
    lines = []
    for head in results.heads():
        lines += [f"**{head}**", "", "| method | " + " | ".join(MEASURES) + " |", "|---|" + "---:|" * len(MEASURES)]
        lines += [_line(results, method, head) for method in results.ordered()]
        lines += [f"| {method} |{' failed |' * len(MEASURES)}" for method in results.failed]
        lines += [""]
    lines += [f"- chance: mass {share:.2f} for {head}" for head, share in averaged(results.chance).items()]
    lines += [
        f"- drawn anew: {share:.2f} of what changes in the picture lies on the mask for {head}"
        for head, share in averaged(results.drawn).items()
    ]
    lines += [f"- {name}: {meaning}" for name, meaning in MEASURES.items()]
    lines += [f"- {method} failed: {reason}" for method, reason in results.failed.items()]
    cases = f"{len(results.models)} models, " if len(results.models) > 1 else ""
    count = f"{cases}{len(results.seeds)} seeds" if len(results.seeds) > 1 else f"{cases}seed {results.seeds[0]}"
    return "\n".join([*lines, f"- {results.images} held-out images a case, {count}", ""])


def _line(results: Results, method: str, head: str) -> str:
    cells = []
    for measure in MEASURES:
        mean, spread = results.mean(method, head, measure), results.spread(method, head, measure)
        digits = 3 if measure == "seconds" else 2
        told = f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")
        cells.append("" if math.isnan(mean) else told)
    return f"| {method} | " + " | ".join(cells) + " |"


def _draw(path: Path, results: Results) -> None:
    from simec_vision.explain.charts import Panel, bar_panels

    rows, heads = results.ordered(), results.heads()
    panels = []
    for measure, (title, note) in PANELS.items():
        values = {row: {head: results.mean(row, head, measure) for head in heads} for row in rows}
        spread = {row: {head: results.spread(row, head, measure) for head in heads} for row in rows}
        if any(not math.isnan(value) for by_head in values.values() for value in by_head.values()):
            panels.append(Panel(title, note, values, spread, averaged(results.chance) if measure == "mass" else {}))
    bar_panels(panels, rows, heads, path)
