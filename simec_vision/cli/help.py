"""What ``--help`` says, kept in a file, as it takes seconds to import everything that has options."""

import os
import platform
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from simec_vision.files import cache_folder, replacing

ASKED = (["--help"], ["-h"])
"""The arguments that ask for the options of a command and for nothing else."""


def help_of(command: str, make: Callable[[], str]) -> str:
    """Give the help of a command from the cache, made first if it is not there or of another version.

    Args:
        command: Such as ``pretrain``.
        make: Makes it.
    """
    path, key = cache_folder() / f"help-{command.replace(' ', '-')}.txt", help_key()
    try:
        told, text = path.read_text(encoding="utf-8").split("\n", 1)
    except (OSError, ValueError):
        told = text = ""
    if told != key:
        text = make()
        _keep(path, f"{key}\n{text}")
    return text


def _keep(path: Path, content: str) -> None:
    """Write the file, unless the folder cannot be written to."""
    try:
        with replacing(path) as partial:
            partial.write_text(content, encoding="utf-8")
    except OSError:
        return


def help_key() -> str:
    """Say what the help depends on: versions, this package's files, the machine, and how wide the terminal is."""
    package = Path(__file__).parent.parent
    files = [(str(path), path.stat().st_mtime_ns) for path in sorted(package.rglob("*.py"))]
    libraries = [version(name) for name in ("torch", "pytorch-lightning", "jsonargparse")]
    seen = [os.environ.get(name) for name in ("COLUMNS", "CUDA_VISIBLE_DEVICES")]
    width = os.get_terminal_size(1).columns if os.isatty(1) else 0
    return sha256(repr((files, libraries, seen, width, platform.node())).encode()).hexdigest()
