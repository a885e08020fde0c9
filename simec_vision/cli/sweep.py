"""Many runs of one command: every combination of some options, several at once, each a run folder of its own."""

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, ProcessPoolExecutor, wait
from contextlib import contextmanager
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
    check_begun(planned)
    return planned


def check_begun(planned: Mapping[Path, str]) -> None:
    """Make sure that runs that were begun had the same options.

    Args:
        planned: Run folder → options as YAML.

    Raises:
        InputError: if one had others.
    """
    import yaml

    for run, options in planned.items():
        begun = options_file(run)
        if begun.exists() and settled(yaml.safe_load(begun.read_text())) != settled(yaml.safe_load(options)):
            raise InputError(f"Expected the options of {begun} to go on with its run, got others: name another --out")


LATER = {"per_class": False, "erase": 0, "label_smoothing": 0.0}
"""Options that came later → what runs begun before them did."""


def settled(options: Any) -> Any:
    """Leave out of options those that came later where they say what runs begun before them did."""
    if not isinstance(options, dict):
        return options
    kept = {name: value for name, value in options.items() if name not in LATER or value != LATER[name]}
    return {name: settled(value) for name, value in kept.items()}


def options_file(run: Path) -> Path:
    """Say where the options of a run lie: beside its folder, as they are there before it is."""
    return run.with_name(f"{run.name}.yaml")


@contextmanager
def workers(processes: int) -> Iterator[Executor]:
    """Start new processes, which import and load images once and make many runs, each with its share of the threads.

    A run has the same number of threads however many are left to do, so that going on rounds as an undisturbed run.

    Raises:
        InputError: if one ended before its run was done, as where the system kills it for lack of memory.
    """
    context, threads = multiprocessing.get_context("spawn"), max(1, _cores() // processes)
    with ProcessPoolExecutor(processes, context, _prepare, (threads, os.getpid())) as pool:
        try:
            yield pool
        except BrokenExecutor as error:
            raise InputError(
                "A process ended before its run was done, most likely for lack of memory: go on with fewer --processes "
                "or more memory"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_all(
    planned: Mapping[Path, str],
    commands: Mapping[Path, str],
    pool: Executor,
    done: Callable[[], None] = lambda: None,
    after: Mapping[Path, Path] | None = None,
) -> list[dict[str, Any]]:
    """Make the planned runs, and give their summaries.

    A run depends on its own options and the number of threads only, so it gives what it gives alone. Runs that have
    their summary are not repeated, and an interrupted one goes on.

    Args:
        planned: Run folder → options as YAML, from :func:`plan`.
        commands: Run folder → which command, such as ``finetune``.
        pool: Makes them, from :func:`workers`.
        done: Called after a run has ended.
        after: Run folder → that of the run which must have ended before it begins, where there is one.

    Returns:
        What each run's ``summary.json`` holds, in the order of the plan.

    Raises:
        InputError: if a run says so.
    """
    for run, options in planned.items():
        run.parent.mkdir(parents=True, exist_ok=True)
        write_text(options_file(run), options)
    todo = [run for run in planned if not (run / "summary.json").is_file()]
    waiting = {run: first for run, first in (after or {}).items() if run in todo and first in todo}
    running = {pool.submit(_run, commands[run], run): run for run in todo if run not in waiting}
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            future.result()
            ended = running.pop(future)
            running |= {pool.submit(_run, commands[run], run): run for run in waiting if waiting[run] == ended}
            done()
    return [json.loads((run / "summary.json").read_text()) for run in planned]


def _with(config: str, options: Mapping[str, Any]) -> str:
    for name, value in options.items():
        config = with_option(config, name, value)
    return config


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(threads: int, parent: int) -> None:
    import torch

    from simec_vision.datamodules.image_data import remember

    torch.set_num_threads(threads)
    remember()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, which a killed one cannot tell it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(command: str, run: Path) -> None:
    from simec_vision.cli.main import DEFAULTS, command_function
    from simec_vision.cli.parsing import run_here

    interrupted = (run / "checkpoints" / "last.ckpt").is_file()
    if run.is_dir() and not interrupted:
        shutil.rmtree(run)  # it had not got as far as its first checkpoint
    where = ["--resume", str(run)] if interrupted else ["--config", str(options_file(run)), "--out", str(run)]
    # On several GPUs Lightning would start this program anew, the whole sweep, for each of them.
    run_here(command_function(command), DEFAULTS[command], [*where, "--trainer.devices", "1"])
