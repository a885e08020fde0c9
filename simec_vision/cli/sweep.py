"""Many runs of one command: every combination of some options, several at once, each a run folder of its own."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from simec_vision.cli.runs import with_option, write_text
from simec_vision.items import InputError


def check_choices(choices: Mapping[str, Sequence[Any]], processes: int) -> None:
    """Check that there is something to run.

    Raises:
        InputError: if there is not.
    """
    if processes < 1 or not all(choices.values()):
        raise InputError(f"Expected at least one process and one value of {' and '.join(choices)}")
    for name, values in choices.items():
        if len(set(values)) < len(values):
            raise InputError(f"Expected every value of {name} once, got {list(values)}")


def plan(config: str, choices: Mapping[str, Sequence[Any]], folder: Path) -> dict[Path, str]:
    """Say which runs there are to be: run folder, such as ``labels-25-seed-11``, → its options as YAML.

    Args:
        config: Options that all share, as YAML.
        choices: Option → its values, such as ``labels`` → 25, 50.
        folder: Where the run folders are.

    Raises:
        InputError: if one was begun with other options.
    """
    planned = {}
    for values in product(*choices.values()):
        options = dict(zip(choices, values, strict=True))
        run = folder / "-".join(f"{name}-{value}" for name, value in options.items())
        planned[run] = _with(config, options)
        begun = run.with_suffix(".yaml")
        if begun.exists() and begun.read_text() != planned[run]:
            raise InputError(f"Expected the options of {begun} to go on with its run, got others: name another --out")
    return planned


def run_all(command: str, planned: Mapping[Path, str], processes: int) -> list[dict[str, Any]]:
    """Make the planned runs of a command, and give the summaries.

    A run depends on its own options and the number of threads only, so it gives what it gives alone. Runs that have
    their summary are not repeated, and an interrupted one goes on.

    Args:
        command: Which, such as ``finetune``.
        planned: Run folder → options as YAML, from :func:`plan`.
        processes: Runs at once; each has its share of the threads.

    Returns:
        What each run's ``summary.json`` holds, in the order of the plan.

    Raises:
        InputError: if a run says so.
    """
    for run, options in planned.items():
        write_text(run.with_suffix(".yaml"), options)
    _work(command, [run for run in planned if not (run / "summary.json").is_file()], processes)
    return [json.loads((run / "summary.json").read_text()) for run in planned]


def _with(config: str, options: Mapping[str, Any]) -> str:
    for name, value in options.items():
        config = with_option(config, name, value)
    return config


def _work(command: str, jobs: Sequence[Path], processes: int) -> None:
    """Make runs, by their folders, each in one of some new processes, which import once and run many.

    A run has the same number of threads however many are left to do, so that going on rounds as an undisturbed run.
    """
    threads = max(1, _cores() // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, max(1, len(jobs))), context, _prepare, (threads,)) as pool:
        running = [pool.submit(_run, command, run) for run in jobs]
        try:
            for each in running:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _run(command: str, run: Path) -> None:
    from simec_vision.cli.main import DEFAULTS, command_function
    from simec_vision.cli.parsing import run_here

    interrupted = (run / "checkpoints" / "last.ckpt").is_file()
    if run.is_dir() and not interrupted:
        shutil.rmtree(run)  # it had not got as far as its first checkpoint
    where = ["--resume", str(run)] if interrupted else ["--config", str(run.with_suffix(".yaml")), "--out", str(run)]
    run_here(command_function(command), DEFAULTS[command], where)
