"""What is where in tar files of images: names, attributes and places, as arrays that are memory-mapped."""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from simec_vision.datamodules.image_store import SUFFIXES
from simec_vision.datamodules.shard_files import ShardFiles
from simec_vision.files import new_folder, read_description, write_json
from simec_vision.items import InputError, class_name

FOLDER, DESCRIPTION = "index", "index/index.json"
LABEL, SPLIT, NAME = "label", "split", "name"


class ShardIndex(NamedTuple):
    """What is where.

    Args:
        shards: Names of the tar files.
        names: What each item is called, shape ``(item,)``.
        places: Shard, first byte and length of each image, shape ``(item, 3)``, int64.
        columns: Attribute → values, shape ``(item,)``.
    """

    shards: list[str]
    names: NDArray[np.str_]
    places: NDArray[np.int64]
    columns: dict[str, NDArray]


def read_or_make_index(files: ShardFiles) -> ShardIndex:
    """Read the index beside the shards, made first if they are in a folder without one.

    Raises:
        InputError: if there are no shards, one cannot be read, or they have changed since.
    """
    if not files.remote and not files.local(DESCRIPTION).exists():
        with FileLock(Path(files.root) / ".index.lock"):
            if not files.local(DESCRIPTION).exists():
                make_index(Path(files.root))
    return read_index(files)


def read_index(files: ShardFiles) -> ShardIndex:
    """Read an index.

    Raises:
        InputError: if it is damaged, or a shard in a folder has another size than when it was made.
    """
    about = read_description(files.local(DESCRIPTION), {"shards", "bytes", "columns"})
    for shard, size in zip(about["shards"], about["bytes"], strict=True):
        _check_shard(files, str(shard), size)
    names, places, *columns = (_read_array(files, number) for number in range(len(about["columns"]) + 2))
    return ShardIndex(about["shards"], names, places, dict(zip(about["columns"], columns, strict=True)))


def _check_shard(files: ShardFiles, shard: str, size: int) -> None:
    _check_name(f"{files.root}/{DESCRIPTION}", shard)
    if not files.remote:
        path = files.local(shard)
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise InputError(
                f"Expected the shard {path} of {size} bytes, got {'none' if found is None else found}: get it again, "
                f"or delete {path.parent / FOLDER}, which is made anew then"
            )


def _check_name(where: object, shard: str) -> None:
    if not re.fullmatch(r"[\w.-]+\.tar", shard):
        raise InputError(
            f"Expected names of tar files in {where} of letters, digits, _, . and - and without folders, got {shard!r}"
        )


def _read_array(files: ShardFiles, number: int) -> NDArray:
    path = files.local(f"{FOLDER}/{number}.npy")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected an array in {path}: {error}. Delete {path.parent} to make it anew") from error


def make_index(root: Path) -> None:
    """Read through all tar files of a folder and write the folder ``index`` beside them, whole or not at all.

    Raises:
        InputError: naming the tar file or the item that is wrong.
    """
    shards = sorted(root.glob("*.tar"))
    if not shards:
        raise InputError(f"Expected uncompressed tar files of images in {root}, got none")
    for path in shards:
        _check_name(root, path.name)
    read = [_read_shard(path, number) for number, path in enumerate(shards)]
    names = np.concatenate([part.names for part in read])
    if len(names) == 0 or len(np.unique(names)) < len(names):
        raise InputError(
            f"Expected images of different names in the shards of {root}, got {len(names)} "
            f"of {len(np.unique(names))} names"
        )
    columns = {name: _joined(read, name) for name in dict.fromkeys(name for part in read for name in part.columns)}
    about = {"format": 1, "shards": [path.name for path in shards], "bytes": [path.stat().st_size for path in shards]}
    with new_folder(root / FOLDER) as folder:
        for number, values in enumerate([names, np.concatenate([part.places for part in read]), *columns.values()]):
            np.save(folder / f"{number}.npy", values, allow_pickle=False)
        write_json(folder / Path(DESCRIPTION).name, {**about, "columns": list(columns)})


def _joined(parts: Sequence[ShardIndex], name: str) -> NDArray:
    """Join a column of all shards, unknown in those that lack it; text if it is text in any."""
    given = [part.columns.get(name) for part in parts]
    numeric = all(values.dtype.kind == "f" for values in given if values is not None)
    unknown = np.nan if numeric else ""
    filled = [
        np.full(len(part.names), unknown) if values is None else values if numeric else _as_text(values)
        for part, values in zip(parts, given, strict=True)
    ]
    return np.concatenate(filled)


def _as_text(values: NDArray) -> NDArray[np.str_]:
    return values if values.dtype.kind == "U" else np.array(["" if v != v else class_name(v) for v in values.tolist()])


def _read_shard(path: Path, number: int) -> ShardIndex:
    places: dict[str, tuple[int, int, int]] = {}
    said: dict[str, dict[str, Any]] = {}
    for key, suffix, member, content in _members(path):
        if f".{suffix}" in SUFFIXES:
            places[key] = (number, member.offset_data, member.size)
        elif content is not None:
            said[key] = {**said.get(key, {}), **_attributes(path, member.name, suffix, content)}
    rows = [said.get(key, {}) for key in places]
    names = [str(row.pop(NAME, key)) for key, row in zip(places, rows, strict=True)]
    columns = {name: _column([row.get(name) for row in rows]) for name in dict.fromkeys(n for row in rows for n in row)}
    where = np.array([*places.values()], dtype=np.int64).reshape(-1, 3)
    return ShardIndex([], np.array(names, dtype=np.str_), where, columns)


def _members(path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, bytes | None]]:
    """Give key, suffix and place of each member of a tar file, and the content of those that hold attributes."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                key, _, suffix = base.partition(".")
                said = tar.extractfile(member) if member.isfile() and suffix in ("json", "cls") else None
                if member.isfile() and key:
                    yield f"{folder}/{key}" if folder else key, suffix.lower(), member, said.read() if said else None
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"Expected an uncompressed tar file in {path}: {error}") from error


def _attributes(path: Path, name: str, suffix: str, content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content) if suffix == "json" else {LABEL: content.decode().strip()}
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"Expected attributes in {name} of {path}: {error}") from error
    if not isinstance(said, dict):
        raise InputError(f"Expected a JSON object of attributes in {name} of {path}, got {str(said)!r:.60}")
    return {name: value for name, value in said.items() if not isinstance(value, dict)}


def _column(values: Sequence[Any]) -> NDArray:
    """Make numbers of numbers, text of anything else; a list becomes a set with ``;`` between its members."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array([_text(value) for value in values], dtype=np.str_)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(map(str, value))
    return "" if value is None else str(value)
