"""What the few-label study found: table, figure, and the original's claims checked."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from simec_vision.cli.runs import write_text
from simec_vision.experiments.results import (
    Check,
    Means,
    accuracy_rows,
    learning_curves,
    markdown,
    means,
    original,
    original_means,
    repeats,
    write_csv,
)
from simec_vision.experiments.study import Line
from simec_vision.files import write_json

MIXTURES = ("simec_mix_0.95", "simec_mix_0.9", "simec_mix_0.7", "simec_mix_0.5", "simec_classes")
"""Target similarities in the order of how much of them is same class."""


def write_report(folder: Path, lines: Sequence[Line], comparable: bool) -> str:
    """Write ``summary.json``, ``table.md``, ``table.csv`` and ``few_labels.png``, and give what is to be said.

    Args:
        folder: Where they go.
        lines: The study's results.
        comparable: Whether the original's numbers are those of the same task.
    """
    ours = means(lines, "pretraining", "labels", "test/accuracy", 100)
    table = original("few_labels")
    theirs = original_means(table["labels"], table["accuracy"]) if comparable else {}
    checks = [*claims(ours, comparable and lines[0]["recipe"] == "original")]
    checks += repeats(ours, theirs) if lines[0]["recipe"] == "original" else improves(ours, theirs)
    rows = markdown(accuracy_rows(ours, theirs, sorted({line["labels"] for line in lines})))
    each = ", labels of each class" if lines[0].get("per_class") else ""
    words = f"{lines[0]['recipe']} recipe, {lines[0]['protocol']}{each}"
    title = f"Test accuracy in %, {words}; mean ± standard deviation, seeds {sorted({line['seed'] for line in lines})}"
    spent = sum(line["seconds"] for line in lines)
    write_text(folder / "table.md", f"{title}\n\n{rows}")
    write_csv(folder / "table.csv", lines)
    learning_curves(ours, theirs, folder / "few_labels.png", _titled(words, theirs))
    summary = {"checks": [check.told() for check in checks], "tuning_seconds": round(spent, 1), "runs": len(lines)}
    write_json(folder / "summary.json", summary | {"accuracies": _listed(ours)})
    return "\n".join([title, rows, *(check.verdict() for check in checks), f"Saved {folder}"])


def _titled(words: str, theirs: Means) -> str:
    return f"Pretrained, then tuned on few labels ({words})" + ("; thin: the original" if theirs else "")


def _listed(ours: Means) -> list[dict[str, object]]:
    return [
        {"pretraining": name, "labels": count, "mean": round(mean, 3), "std": round(std, 3)}
        for name, cells in ours.items()
        for count, (mean, std) in cells.items()
    ]


def claims(ours: Means, same: bool) -> Iterator[Check]:
    """Check the original's claims, as far as the variants and numbers of labels that they are about are there.

    Args:
        ours: Way to pretrain → number of labels → mean and standard deviation.
        same: Whether task and recipe are the original's; what holds of these alone (that pixels teach nothing, that
            labels beat similarities) is left out otherwise.
    """
    few = min(count for cells in ours.values() for count in cells)
    many = max(count for cells in ours.values() for count in cells)
    for name in ("labels", "simec_classes", "simec_own"):
        yield from _better(ours, name, "none", few, 2.0)
    for name in ("simec_linear", "ae_full") if same else ():
        yield from _alike(ours, name, few)
    if same:
        yield from _better(ours, "labels", "simec_classes", few, -1.0)
    for less, more in pairwise(MIXTURES):
        yield from _better(ours, more, less, 250, -2.0)
    if many > few:
        yield from _shrinks(ours, few, many)


def _better(ours: Means, name: str, other: str, count: int, least: float) -> Iterator[Check]:
    """Claim that one way is better than another one with so many labels, by at least some points."""
    if count in ours.get(name, {}) and count in ours.get(other, {}):
        gain = ours[name][count][0] - ours[other][count][0]
        claim = f"with {count} labels {name} beats {other}" + (f", up to {-least:g} points" if least < 0 else "")
        yield Check(claim, f"at least {least:+g} points", f"{gain:+.2f}", gain >= least)


def _alike(ours: Means, name: str, count: int) -> Iterator[Check]:
    """Claim that pretraining without knowledge does not help with few labels."""
    if count in ours.get(name, {}) and count in ours.get("none", {}):
        gain = ours[name][count][0] - ours["none"][count][0]
        claim = f"with {count} labels {name}, which knows the pixels alone, is like none"
        yield Check(claim, "at most 3 points apart", f"{gain:+.2f}", abs(gain) <= 3)


def _shrinks(ours: Means, few: int, many: int) -> Iterator[Check]:
    """Claim that what pretraining gains shrinks with more labels."""
    for name in ("labels", "simec_classes", "simec_own"):
        cells, none = ours.get(name, {}), ours.get("none", {})
        if {few, many} <= set(cells) and {few, many} <= set(none):
            gains = [cells[count][0] - none[count][0] for count in (few, many)]
            claim = f"the gain of {name} over none is smaller with {many} labels than with {few}"
            yield Check(claim, "smaller", f"{gains[0]:+.2f}, then {gains[1]:+.2f}", gains[1] < gains[0])


def improves(ours: Means, theirs: Means) -> Iterator[Check]:
    """Check that similarities of classes teach as much as labels do, and more than anything the original tried.

    On other data, of which few images may test, chance moves accuracies by more than the half point allowed there.
    """
    least = -0.5 if theirs else -5.0
    for count, (mean, _) in ours.get("simec_classes", {}).items():
        if count in ours.get("labels", {}):
            gain = mean - ours["labels"][count][0]
            claim = f"with {count} labels simec_classes is level with labels"
            yield Check(claim, f"at least {least:g} points", f"{gain:+.2f}", gain >= least)
        best = max((row[count][0] for row in theirs.values() if count in row), default=None)
        if best is not None:
            claim = f"with {count} labels simec_classes beats the best of the original's ten"
            yield Check(claim, f"more than {best:.2f}", f"{mean:.2f}", mean > best)
