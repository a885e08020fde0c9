"""A study: encoders pretrained in several ways, each tuned with several numbers of labels and seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simec_vision.cli.runs import numbered, open_run, write_text
from simec_vision.cli.sweep import check_begun, run_all, settled, workers
from simec_vision.items import InputError

Options = dict[str, Any]
Line = dict[str, Any]


@dataclass(frozen=True)
class Pretrained:
    """One way to pretrain.

    Args:
        name: What it is called in tables.
        command: Which command does it, such as ``pretrain``; empty where the encoder starts from random weights.
        options: Options of that command.
    """

    name: str
    command: str
    options: Options


@dataclass(frozen=True)
class Tuned:
    """One run of fine-tuning.

    Args:
        pretraining: The name of the pretraining that it starts from.
        labels: How many labels.
        seed: Which of them.
        options: Further options of ``finetune``.
    """

    pretraining: str
    labels: int
    seed: int
    options: Options

    @property
    def name(self) -> str:
        """Where its run folder is, below the study's."""
        return f"tuning/{self.pretraining}/labels-{self.labels}-seed-{self.seed}"


@dataclass(frozen=True)
class Study:
    """All runs of a study.

    Args:
        folder: Where the run folders are: ``pretraining/<name>`` and :attr:`Tuned.name`.
        pretrainings: How encoders are pretrained.
        tunings: What they are tuned on.
        line: Turns a tuning, its ``summary.json`` and its pretraining's (empty if there is none) into a line.
    """

    folder: Path
    pretrainings: Sequence[Pretrained]
    tunings: Sequence[Tuned]
    line: Callable[[Tuned, Mapping[str, Any], Mapping[str, Any]], Line]

    def run(self, processes: int, lines: Path) -> list[Line]:
        """Make all runs that are not yet made, and write a line of JSON for each tuning as soon as it is done.

        Tuning begins as soon as the pretraining that it starts from has ended.

        Args:
            processes: Runs at once.
            lines: The file of lines, in the order of the tunings.

        Returns:
            The lines.

        Raises:
            InputError: if a run was begun with other options.
        """
        todo = planned({self.folder / each.name: self._options(each) for each in self.tunings})
        before = {self._made(each.name): each for each in self.pretrainings if each.command}
        first = planned({run: each.options for run, each in before.items()})
        commands = {run: each.command for run, each in before.items()} | dict.fromkeys(todo, "finetune")
        after = {self.folder / each.name: self._made(each.pretraining) for each in self.tunings}
        with workers(processes) as pool:
            run_all(first | todo, commands, pool, lambda: write_lines(lines, self.lines()), after)
        write_lines(lines, self.lines())
        return self.lines()

    def _made(self, pretraining: str) -> Path:
        return self.folder / "pretraining" / pretraining

    def _options(self, tuning: Tuned) -> Options:
        trained = [each.name for each in self.pretrainings if each.command]
        start = {"model": str(self._made(tuning.pretraining)), "encoder": None}
        own = {"labels": tuning.labels, "seed": tuning.seed}
        return {**tuning.options, **(start if tuning.pretraining in trained else {}), **own}

    def lines(self) -> list[Line]:
        """Give the lines of all tunings that are done, those of earlier calls with other labels or seeds included."""
        named = {each.name: each for each in [*self.tunings, *begun(self.folder)]}
        place = {name: number for number, name in enumerate(dict.fromkeys(e.pretraining for e in named.values()))}
        ordered = sorted(named.values(), key=lambda each: (place[each.pretraining], each.labels, each.seed))
        summaries = [(each, read_summary(self.folder / each.name)) for each in ordered]
        return [self.line(each, own, read_summary(self._made(each.pretraining))) for each, own in summaries if own]


def begun(folder: Path) -> list[Tuned]:
    """Find the tunings that a study's folder holds."""
    found = []
    for run in sorted(folder.glob("tuning/*/labels-*-seed-*/")):
        _, labels, _, seed = run.name.split("-")
        found.append(Tuned(run.parent.name, int(labels), int(seed), {}))
    return found


def read_summary(run: Path) -> dict[str, Any]:
    """Read a run's summary; empty if it has none."""
    file = run / "summary.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def planned(options: Mapping[Path, Options]) -> dict[Path, str]:
    """Give run folder → options as YAML.

    Raises:
        InputError: if a run was begun with other options.
    """
    import yaml

    plan = {run: yaml.safe_dump(_given(each), sort_keys=False) for run, each in options.items()}
    check_begun(plan)
    return plan


def _given(options: Options) -> Options:
    return {name: value for name, value in options.items() if value is not None or name == "labels"}


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Write lines of JSON; the file appears whole or not at all."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


GROWS = ("labels", "seeds", "variants", "widths", "processes", "original_seeds", "original_recipe")
"""Options that only say which runs there are, not what they are; the last is that of earlier versions."""


def open_study(out: str | None, name: str, config: str) -> Path:
    """Make the folder of a study, or open that of the same one, and write its ``config.yaml``.

    Args:
        out: The folder that the user named; default: the first of ``runs/<name>``, ``runs/<name>-2``, … that is new,
            empty or of the same study.
        name: The experiment.
        config: All options as YAML.

    Raises:
        InputError: if the folder holds something else, naming an option that differs if it is another study.
    """
    if out and (told := _taken(Path(out), config)):
        raise InputError(told)
    folder = Path(out) if out else next(folder for folder in numbered(name) if not _taken(folder, config))
    open_run(str(folder), name, resume=True)
    write_text(folder / "config.yaml", config)
    return folder


def _taken(folder: Path, config: str) -> str:
    """Say what else a folder holds, if it is neither new nor empty nor of the same study."""
    import yaml

    path = folder / "config.yaml"
    if folder.exists() and not folder.is_dir():
        return f"Expected --out to name a folder, but {folder} is a file"
    if folder.is_dir() and any(folder.iterdir()) and not path.is_file():
        return f"Expected a new or empty folder or a study's for --out, but {folder} holds other files"
    before, given = (settled(yaml.safe_load(t)) for t in (path.read_text() if path.is_file() else config, config))
    for option in {**before, **given}:
        if option not in GROWS and before.get(option) != given.get(option):
            told = f"{option} {before.get(option)}, got {given.get(option)}"
            return f"Expected the options of {path} to go on with its study: {told}. Name another --out"
    return ""
