"""Writing files so that each appears whole or not at all."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any

from simec_vision.items import InputError

if TYPE_CHECKING:
    from torch import Tensor


def cache_folder() -> Path:
    """Give the folder of cache files: ``$SIMEC_VISION_CACHE``, or ``simec_vision`` in the user's cache folder."""
    own = os.environ.get("SIMEC_VISION_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "simec_vision"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; it takes its place at the end, or vanishes if anything was raised.

    An error of the file system that names no file, such as a full disk while writing, names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{gethostname()}-{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """Give a folder beside ``root`` that takes its place at the end, or vanishes if anything was raised.

    Raises:
        InputError: if there is something at ``root`` that is no empty folder.
    """
    root = root if root.name else root.resolve()  # such as "."
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"Expected a folder to make or an empty one, but {root} holds something: choose another")
    unfinished = root.with_name(f".{root.name}.{gethostname()}-{os.getpid()}.partial")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        os.replace(unfinished, root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, whole or not at all; numbers that are not finite, which JSON does not know, become null."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_weights(path: str | Path, state: "Mapping[str, Tensor]") -> None:
    """Write tensors as safetensors, whole or not at all."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    with replacing(path) as partial:
        partial.write_bytes(content)


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
