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


def run_all(
    command: str, config: str, choices: Mapping[str, Sequence[Any]], folder: Path, processes: int
) -> list[dict[str, Any]]:
    """Run a command with every combination of options, and give the summaries.

    A run depends on its own options and the number of threads only, so it gives what it gives alone. Runs that have
    their summary are not repeated, and an interrupted one goes on.

    Args:
        command: Which, such as ``finetune``.
        config: Its options as YAML.
        choices: Option → its values, such as ``labels`` → 25, 50.
        folder: Where each run gets a folder, such as ``labels-25-seed-11``.
        processes: Runs at once; each has its share of the threads.

    Returns:
        What each run's ``summary.json`` holds, in the order of the combinations.

    Raises:
        InputError: if a run says so.
    """
    combinations = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    runs = [folder / "-".join(f"{name}-{value}" for name, value in each.items()) for each in combinations]
    jobs = [
        (run, _written(config, options, run.with_suffix(".yaml")))
        for run, options in zip(runs, combinations, strict=True)
        if not (run / "summary.json").is_file()
    ]
    _work(command, jobs, processes)
    return [json.loads((run / "summary.json").read_text()) for run in runs]


def _written(config: str, options: Mapping[str, Any], path: Path) -> Path:
    for name, value in options.items():
        config = with_option(config, name, value)
    write_text(path, config)
    return path


def _work(command: str, jobs: Sequence[tuple[Path, Path]], processes: int) -> None:
    """Run jobs ``(run folder, options)``, each in one of some new processes, which import once and run many.

    A job has the same number of threads however many are left to do, so that going on rounds as an undisturbed run.
    """
    threads = max(1, _cores() // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, max(1, len(jobs))), context, _prepare, (threads,)) as pool:
        running = [pool.submit(_run, command, run, config) for run, config in jobs]
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


def _run(command: str, run: Path, config: Path) -> None:
    from simec_vision.cli.main import DEFAULTS, command_function
    from simec_vision.cli.parsing import run_here

    interrupted = (run / "checkpoints" / "last.ckpt").is_file()
    if run.is_dir() and not interrupted:
        shutil.rmtree(run)  # it had not got as far as its first checkpoint
    where = ["--resume", str(run)] if interrupted else ["--config", str(config), "--out", str(run)]
    run_here(command_function(command), DEFAULTS[command], where)
