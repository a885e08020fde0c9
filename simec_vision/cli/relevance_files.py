"""The relevance of many images: a file for each few, shared out among processes; what is there is not made again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.cli.questions import Explained
from simec_vision.cli.runs import first_process, write_text
from simec_vision.explain import explain
from simec_vision.explain.answering import PARTS
from simec_vision.files import replacing, write_json
from simec_vision.items import InputError
from simec_vision.processes import place_among_processes

IMAGES_A_FILE = 64


def open_files(out: str | None, config: str) -> Path:
    """Give the folder that all processes write to; it may hold files of the same options, which are not made again.

    Raises:
        InputError: if there is no ``out``, or its files were made with other options.
    """
    if out is None:
        raise InputError("Expected --out beside --split, as all processes write there and an interrupted run goes on")
    told = Path(out) / "config.yaml"
    if told.exists() and told.read_text() != config:
        raise InputError(f"Expected the options of {told} to go on in {out}, got others: name another folder")
    if first_process():
        write_text(told, config)
    return Path(out)


def write_relevance(asked: Explained, references: Mapping[str, NDArray[np.int64]], folder: Path) -> list[Path]:
    """Explain this process's share of images towards references of each head, and write a file for each 64 images.

    A file ``relevance-<number>.npz`` holds the names of its ``images``, and for each head ``<head>.references`` (their
    positions), ``<head>.relevance`` ``(reference, image, channel, height, width)``, ``<head>.score``,
    ``<head>.baseline`` and ``<head>.delta`` ``(reference, image)``. The process that finds all files there writes
    ``summary.json``.

    Args:
        asked: Which images, and how they are explained.
        references: Head → positions of its references.
        folder: Where to.

    Returns:
        The files of all processes.
    """
    starts = range(0, len(asked.items), IMAGES_A_FILE)
    paths = [folder / f"relevance-{number:06d}.npz" for number in range(len(starts))]
    process, processes = place_among_processes()
    for number in range(process, len(paths), processes):
        if not paths[number].exists():
            items = asked.items[starts[number] : starts[number] + IMAGES_A_FILE]
            _write(paths[number], _explained(asked, items, references))
    if all(path.exists() for path in paths):
        write_json(folder / "summary.json", {"images": len(asked.items), "files": [path.name for path in paths]})
    return paths


def _explained(
    asked: Explained, items: NDArray[np.int64], references: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[Any]]:
    images = asked.data.normalised(items)
    arrays: dict[str, NDArray[Any]] = {"images": np.array(asked.data.items.names[items])}
    for head, positions in references.items():
        told = [explain(asked.model, images, head, int(position), asked.preset) for position in positions]
        arrays[f"{head}.references"] = positions
        for name in PARTS:
            arrays[f"{head}.{name}"] = np.stack([getattr(each, name).cpu().numpy() for each in told])
    return arrays


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with replacing(path) as partial:
        np.savez(partial, **arrays)  # type: ignore[arg-type]
