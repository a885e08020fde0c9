"""One entry for every command: its name, its function, and the defaults that make it run without arguments."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"trainer.max_epochs": 30},
    "finetune": {"trainer.check_val_every_n_epoch": None},
    "explain": {},
    "evaluate explanations": {},
    "evaluate trap": {},
    "benchmark pretraining": {"trainer.max_epochs": 3, "trainer.devices": 1},
    "benchmark references": {},
    "benchmark images": {},
    "benchmark processes": {},
    "benchmark explanation": {},
    "benchmark loading": {},
}
"""Command → option → default, where it differs from the command's signature."""

FUNCTIONS = {
    "pretrain": ("pretrain", "pretrain"),
    "finetune": ("finetune", "finetune"),
    "explain": ("explain", "explain_run"),
    "evaluate explanations": ("evaluate", "evaluate_explanations"),
    "evaluate trap": ("trap", "evaluate_trap"),
    "benchmark pretraining": ("benchmark", "benchmark_pretraining"),
    "benchmark references": ("growth", "benchmark_references"),
    "benchmark images": ("growth", "benchmark_images"),
    "benchmark processes": ("processes_speed", "benchmark_processes"),
    "benchmark explanation": ("explanation_speed", "benchmark_explanation"),
    "benchmark loading": ("loading_speed", "benchmark_loading"),
}
"""Command → file and function."""

TASKS = {
    "evaluate": ("explanations", "trap"),
    "benchmark": ("pretraining", "references", "images", "processes", "explanation", "loading"),
}
"""Script → what it can do, its first argument; the first of these where there is none."""


def main(command: str, argv: Sequence[str] | None = None) -> int:
    """Run a command with the given (default: the process's) arguments, and give its exit code."""
    from simec_vision.cli.parsing import run_command

    command, argv = with_task(command, list(sys.argv[1:] if argv is None else argv))
    if command not in DEFAULTS:
        print(f"error: {_unknown(command)}", file=sys.stderr)
        return 2
    return run_command(command_function(command), DEFAULTS[command], argv)


def with_task(command: str, argv: list[str]) -> tuple[str, list[str]]:
    """Move what a script shall do from the arguments to the command: ``evaluate`` becomes ``evaluate trap``."""
    if command not in TASKS:
        return command, argv
    given = bool(argv) and not argv[0].startswith("-")
    return f"{command} {argv[0] if given else TASKS[command][0]}", argv[given:]


def _unknown(command: str) -> str:
    from simec_vision.items import nearest

    script, task = command.split(" ", 1)
    return f"Expected what to {script} as the first argument, got {task!r}: {nearest(task, TASKS[script])}"


def command_function(command: str) -> Any:
    """Give the function of a command; imported only now, as it is heavy."""
    module, name = FUNCTIONS[command]
    return getattr(import_module(f"simec_vision.cli.{module}"), name)


if __name__ == "__main__":  # python -m simec_vision.cli.main pretrain …, which several processes can be started with
    sys.exit(main(sys.argv[1], sys.argv[2:]))
