"""One entry for every command: its name, its function, and the defaults that make it run without arguments."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"trainer.max_epochs": 30},
    "pretrain autoencoder": {"trainer.max_epochs": 30},
    "finetune": {"trainer.check_val_every_n_epoch": None},
    "explain": {},
    "evaluate explanations": {},
    "evaluate trap": {},
    "evaluate embedding": {},
    "evaluate line": {},
    "benchmark pretraining": {"trainer.max_epochs": 3, "trainer.devices": 1},
    "benchmark references": {},
    "benchmark images": {},
    "benchmark processes": {},
    "benchmark explanation": {},
    "benchmark loading": {},
    "benchmark estimator": {},
    "experiment list": {},
    "experiment few_labels": {"trainer.enable_progress_bar": False, "trainer.check_val_every_n_epoch": None},
    "experiment matrix_factorization": {},
    "experiment basics": {},
    "experiment paper": {},
    "experiment flowerpots": {},
    "experiment nonmetric": {},
    "experiment manifold": {},
    "experiment link_prediction": {},
    "experiment recommender": {},
    "experiment linear_nonlinear": {},
    "experiment class_labels": {},
    "experiment noisy_data": {},
    "experiment transfer_tasks": {"trainer.enable_progress_bar": False},
}
"""Command → option → default, where it differs from the command's signature."""

FUNCTIONS = {
    "pretrain": ("cli.pretrain", "pretrain"),
    "pretrain autoencoder": ("cli.autoencoder", "autoencode"),
    "finetune": ("cli.finetune", "finetune"),
    "explain": ("cli.explain", "explain_run"),
    "evaluate explanations": ("cli.evaluate", "evaluate_explanations"),
    "evaluate trap": ("cli.trap", "evaluate_trap"),
    "evaluate embedding": ("cli.embedding", "evaluate_embedding"),
    "evaluate line": ("cli.line", "evaluate_line"),
    "benchmark pretraining": ("cli.benchmark", "benchmark_pretraining"),
    "benchmark references": ("cli.growth", "benchmark_references"),
    "benchmark images": ("cli.growth", "benchmark_images"),
    "benchmark processes": ("cli.processes_speed", "benchmark_processes"),
    "benchmark explanation": ("cli.explanation_speed", "benchmark_explanation"),
    "benchmark loading": ("cli.loading_speed", "benchmark_loading"),
    "benchmark estimator": ("cli.estimator_speed", "benchmark_estimator"),
    "experiment list": ("experiments.listing", "list_experiments"),
    "experiment few_labels": ("experiments.few_labels", "few_labels"),
    "experiment matrix_factorization": ("experiments.matrix_factorization", "matrix_factorization"),
    "experiment basics": ("experiments.basics", "basics"),
    "experiment paper": ("experiments.paper", "paper"),
    "experiment flowerpots": ("experiments.flowerpots", "flowerpots"),
    "experiment nonmetric": ("experiments.nonmetric", "nonmetric"),
    "experiment manifold": ("experiments.manifold", "manifold"),
    "experiment link_prediction": ("experiments.link_prediction", "link_prediction"),
    "experiment recommender": ("experiments.recommender", "recommender"),
    "experiment linear_nonlinear": ("experiments.linear_nonlinear", "linear_nonlinear"),
    "experiment class_labels": ("experiments.class_labels", "class_labels"),
    "experiment noisy_data": ("experiments.noisy_data", "noisy_data"),
    "experiment transfer_tasks": ("experiments.transfer_tasks", "transfer_tasks"),
}
"""Command → file and function."""

TASKS = {
    "pretrain": ("", "autoencoder"),
    "evaluate": ("explanations", "trap", "embedding", "line"),
    "experiment": (
        "list", "few_labels", "transfer_tasks", "basics", "paper", "matrix_factorization", "flowerpots",
        "linear_nonlinear", "nonmetric", "class_labels", "noisy_data", "manifold", "link_prediction", "recommender",
    ),
    "benchmark": ("pretraining", "references", "images", "processes", "explanation", "loading", "estimator"),
}  # fmt: skip
"""Script → what it can do, its first argument; the first of these where there is none (pretraining on similarities)."""


def main(command: str, argv: Sequence[str] | None = None) -> int:
    """Run a command with the given (default: the process's) arguments, and give its exit code."""
    from simec_vision.cli.help import ASKED, help_of

    given = list(sys.argv[1:] if argv is None else argv)
    others = _other_tasks(command) if given in ASKED else ""
    command, argv = with_task(command, given)
    if command not in DEFAULTS:
        print(f"error: {_unknown(command)}", file=sys.stderr)
        return 2
    if argv in ASKED:
        print(help_of(command, lambda: _help(command)), end=others)
        return 0
    from simec_vision.cli.parsing import run_command

    return run_command(command_function(command), DEFAULTS[command], argv)


def _help(command: str) -> str:
    from simec_vision.cli.parsing import make_parser

    return make_parser(command_function(command), DEFAULTS[command]).format_help()


def with_task(command: str, argv: list[str]) -> tuple[str, list[str]]:
    """Move what a script shall do from the arguments to the command: ``evaluate`` becomes ``evaluate trap``."""
    if command not in TASKS:
        return command, argv
    given = bool(argv) and not argv[0].startswith("-")
    return f"{command} {argv[0] if given else TASKS[command][0]}".strip(), argv[given:]


def _other_tasks(script: str) -> str:
    """Say what else a script does than that whose help is asked for without naming a task."""
    others = TASKS.get(script, ())[1:]
    return f"\nNamed as the first argument, each with its own --help: {', '.join(others)}\n" if others else ""


def _unknown(command: str) -> str:
    from simec_vision.items import nearest

    script, task = command.split(" ", 1)
    known = [name for name in TASKS[script] if name]
    return f"Expected what to {script} as the first argument, got {task!r}: {nearest(task, known)}"


def command_function(command: str) -> Any:
    """Give the function of a command; imported only now, as it is heavy."""
    module, name = FUNCTIONS[command]
    return getattr(import_module(f"simec_vision.{module}"), name)


if __name__ == "__main__":  # python -m simec_vision.cli.main pretrain …, which several processes can be started with
    sys.exit(main(sys.argv[1], sys.argv[2:]))
