"""Writing files so that each appears whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simec_vision.items import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; it takes its place at the end, or vanishes if anything was raised."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def read_description(path: str | Path, keys: set[str]) -> dict[str, Any]:
    """Read the JSON object that describes a saved model.

    Raises:
        InputError: if the file is missing, is no JSON object, or lacks one of the keys.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"Expected a saved model, but there is no {path}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"Expected the description of a model in {path}: {error}") from error
    if not isinstance(content, dict) or not keys <= set(content):
        raise InputError(f"Expected the description of a model ({', '.join(sorted(keys))}) in {path}")
    return content
