"""How speed is measured: contestants in turns, medians and spread, each in a process of its own where memory counts."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from simec_vision.items import InputError

Result = TypeVar("Result")


def check_turns(repeats: int, num_threads: int = 0) -> None:
    """Make sure that there is something to measure, before anything is written.

    Raises:
        InputError: for fewer than one turn or a negative number of threads.
    """
    if repeats < 1 or num_threads < 0:
        raise InputError(f"Expected repeats of at least 1 and num_threads of at least 0, got {repeats}, {num_threads}")


def interleaved(contestants: Mapping[str, Callable[[], Result]], repeats: int) -> dict[str, list[Result]]:
    """Run contestants in turns, A B C A B C …, so that what else the machine does hits all of them alike.

    Args:
        contestants: Name → what measures it once.
        repeats: How many turns.

    Returns:
        Name → what each turn gave.
    """
    results: dict[str, list[Result]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, measure in contestants.items():
            results[name].append(measure())
    return results


def spread(values: list[float]) -> dict[str, float]:
    """Give ``median``, ``min`` and ``max``."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(values: list[float], others: list[float]) -> list[float]:
    """Divide turn by turn: both sides of each ratio were measured right after each other."""
    return [value / other for value, other in zip(values, others, strict=True)]


def synchronise() -> None:
    """Wait for a GPU, which computes behind the program's back; nothing to do on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def now() -> float:
    """Read the clock in seconds, when everything asked for before is done."""
    synchronise()
    return time.perf_counter()


def seconds_of(work: Callable[[], Any]) -> float:
    """Give the seconds that some work takes."""
    started = now()
    work()
    return now() - started


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads for a while; 0 leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a function in a new process, whose memory nobody used before, and give what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory(name: str) -> float:
    """Read this process's memory in MB from Linux's ``/proc/self/status``; NaN where there is none.

    Args:
        name: ``VmRSS`` (resident), ``VmHWM`` (its peak), ``RssAnon`` (the part that no file holds).
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1000 * 1.024 for line in lines if line.startswith(f"{name}:")), float("nan"))
