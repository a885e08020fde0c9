"""One entry for every command: its name, its function, and the defaults that make it run without arguments."""

from collections.abc import Sequence
from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"trainer.max_epochs": 25},
    "finetune": {},
    "explain": {},
}
"""Command → option → default, where it differs from the command's signature."""


def main(command: str, argv: Sequence[str] | None = None) -> int:
    """Run a command with the given (default: the process's) arguments, and give its exit code."""
    from simec_vision.cli.parsing import run_command

    return run_command(command_function(command), DEFAULTS[command], argv)


def command_function(command: str) -> Any:
    """Give the function of a command; imported only now, as it is heavy."""
    if command == "pretrain":
        from simec_vision.cli.pretrain import pretrain as function
    elif command == "finetune":
        from simec_vision.cli.finetune import finetune as function  # type: ignore[assignment]
    else:
        from simec_vision.cli.explain import explain_run as function  # type: ignore[assignment]
    return function
