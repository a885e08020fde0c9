"""How UT-Zappos50K lies in its folder: names, columns and levels, and a writer of the same layout."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simec_vision.datamodules.image_store import some
from simec_vision.datamodules.tables import repeated
from simec_vision.files import new_folder
from simec_vision.items import InputError, Items

HEEL_LEVELS = (
    "Flat", "Under 1in", "1in - 1 3/4in", "2in - 2 3/4in", "3in - 3 3/4in", "4in - 4 3/4in", "5in & over",
)  # fmt: skip
"""Heel heights as the meta-data spell them; the position is the level."""

COLUMNS = ("CID", "Category", "SubCategory", "HeelHeight", "Insole", "Closure", "Gender", "Material", "ToeStyle")
"""The columns of the official meta-data.csv."""

DATA, SQUARE_IMAGES, IMAGES = "ut-zap50k-data", "ut-zap50k-images-square", "ut-zap50k-images"


def cid_of(stem: str) -> str:
    """Give the CID of an image file, whose name has a dot where the CID has its first hyphen."""
    return stem.replace(".", "-", 1)


def write_zappos_layout(
    root: str | Path,
    items: Items,
    images: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    suffix: Literal[".png", ".jpg"] = ".png",
) -> None:
    """Write items and images as UT-Zappos50K lays them out, for ``Zappos50K`` to read; all or nothing.

    Args:
        root: The folder to make; it must not exist or be empty.
        items: The items, called by names without dots and slashes. They have an attribute ``Category``; ``HeelHeight``
            is a level from 0 to 6, NaN where unknown; ``SubCategory`` and ``Brand`` name folders where there are any.
        images: Index of items → uint8 images ``(batch, height, width, 3)``, such as a data module's ``images``.
        suffix: ``.png`` keeps every pixel; ``.jpg`` is what the official files are.

    Raises:
        InputError: if the folder holds anything, or a name or a value is wrong.
    """
    cells = _cells(items)
    stems = _image_stems(cells)
    with new_folder(Path(root)) as unfinished:
        _write_meta_data(unfinished / DATA / "meta-data.csv", cells)
        for number, stem in enumerate(stems):
            path = unfinished / IMAGES / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images(np.array([number]))[0]).save(path, quality=95)  # PNG has no use for the quality


def _cells(items: Items) -> dict[str, list[str]]:
    """Check all values and turn them into text, with the official columns first."""
    names = items.names.tolist()
    wrong = [name for name in names if not name or set("./\\") & set(name)] or repeated(names)
    if wrong:
        raise InputError(f"Expected different names of items without dots and slashes, got {some(wrong)}")
    unknown = np.full(len(items), "")
    official = {"CID": items.names} | {name: items.columns.get(name, unknown) for name in COLUMNS[1:]}
    columns = {**official, **items.columns, "Category": items.column("Category")}
    return {name: [_cell(name, value) for value in values.tolist()] for name, values in columns.items()}


def _cell(column: str, value: object) -> str:
    """Write a value as the meta-data do."""
    if value is None or value != value or value == "":
        return ""
    return _heel_name(value) if column == "HeelHeight" else str(value)


def _heel_name(level: object) -> str:
    levels = dict[object, str](enumerate(HEEL_LEVELS))  # 2.0 finds 2
    if level not in levels:
        raise InputError(f"Expected HeelHeight as a level from 0 to {len(HEEL_LEVELS) - 1}, got {level!r}")
    return levels[level]


def _write_meta_data(path: Path, cells: Mapping[str, list[str]]) -> None:
    written = {name: values for name, values in cells.items() if name != "Brand"}
    path.parent.mkdir()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(written)
        writer.writerows(zip(*written.values(), strict=True))


def _image_stems(cells: Mapping[str, list[str]]) -> list[str]:
    """Make each item's path ``Category/SubCategory/Brand/CID``, without its suffix, a dot for the first hyphen."""
    columns = [cells["Category"], cells["SubCategory"], cells.get("Brand", [""] * len(cells["CID"]))]
    folders = [[part or "Unknown" for part in parts] for parts in zip(*columns, strict=True)]
    for part in sorted({part for parts in folders for part in parts}):
        if part in (".", "..") or set("/\\") & set(part):
            raise InputError(f"Expected Category, SubCategory and Brand that can name a folder, got {part!r}")
    stems = [name.replace("-", ".", 1) for name in cells["CID"]]
    return ["/".join([*parts, stem]) for parts, stem in zip(folders, stems, strict=True)]
