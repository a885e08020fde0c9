"""Your own images: a folder, and a table of what is known about each image or how similar some pairs are."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simec_vision.datamodules.decoding import FITS
from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation, known_name
from simec_vision.datamodules.image_store import MEMORY_LIMIT, find_images, open_images, some, store_name
from simec_vision.datamodules.splits import SPLITS, check_shares, said_or_drawn
from simec_vision.datamodules.tables import numbers_or_text, read_table, repeated
from simec_vision.items import InputError, Items, nearest
from simec_vision.model import is_taken
from simec_vision.similarities import AttributeDistance, PairList, SameClass, SetOverlap, Similarity
from simec_vision.similarities.pairs import Pair, read_pairs

FILE_COLUMNS = ("image", "file", "path", "filename", "name")
"""Column names that may hold the image file; the first that a table has does."""


class Listed(NamedTuple):
    """What a folder or a table says of the images, in the order of the items."""

    names: list[str]
    paths: list[Path]
    columns: dict[str, NDArray]
    splits: list[str]  # empty where nothing was said


class ImageTable(ImageDataModule):
    """Images of your own: class folders, or a CSV table with the image file and its attributes in each row.

    Without a table the images lie in ``<class>/*``, or in ``train/<class>/*`` beside ``test/<class>/*`` and
    ``validation/<class>/*`` (or ``val``, ``valid``) where those are given; the class is the attribute ``label``. In a
    table, a column whose known values are all numbers is a numeric attribute, any other is text, an empty cell is
    unknown, and ``;`` separates the members of a set.

    Args:
        root: Folder of the images.
        table: CSV file with a column ``image`` (or ``file``, ``path``, ``name``) that names each file relative to the
            root, one column an attribute, and where wanted a column ``split`` (train, validation or test).
        pairs: CSV file ``a,b,similarity`` of similarities between images, named as in the table or by their path
            relative to the root, with or without its suffix.
        size: Pixels that every image shall have, one number or height and width; default: those of the first image.
        fit: What to do with images of another size: ``error``, ``resize``, or ``pad`` with white.
        validation: Share of the training images that is held out where neither folders nor table name any.
        test: Share that is held out for the test where neither folders nor table name a split.
        split_seed: Seed of the split that these shares make.
        mean: Mean of each colour channel, for normalisation.
        std: Standard deviation of each colour channel, for normalisation.
        cache: Keep decoded images in a cache file, so that the next start is fast.
        limit: Gigabytes of decoded images up to which they are decoded once; more are decoded again in every epoch.
        batches: How batches are made.

    Raises:
        InputError: for an option that cannot be.
    """

    def __init__(
        self,
        root: str | Path = "data/images",
        table: str | None = None,
        pairs: str | None = None,
        size: int | tuple[int, int] | None = None,
        fit: Literal["error", "resize", "pad"] = "error",
        validation: float = 0.1,
        test: float = 0.1,
        split_seed: int = 15,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
        cache: bool = True,
        limit: float = MEMORY_LIMIT / 1e9,
        batches: Batches = Batches(),
    ) -> None:
        super().__init__(batches, Normalisation(mean, std))
        check_shares(validation=validation, test=test)
        known_name(fit, ["error", *FITS], "fit")
        self.root, self.table, self.pairs = root, table, pairs
        self.image_size, self.fit, self.cache, self.limit = checked_size(size), fit, cache, limit
        self.shares, self.split_seed = {"validation": validation, "test": test}, split_seed

    @property
    def folder(self) -> Path:
        """The root as an absolute path."""
        return Path(self.root).expanduser().resolve()

    def prepare_data(self) -> None:
        """Decode the images into the cache file, in one process a machine."""
        self.setup()

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        folder = existing_folder(self.folder)
        listed = _from_folders(folder) if self.table is None else _from_table(folder, _beside(folder, self.table))
        name, limit = store_name("images", folder), int(self.limit * 1e9)
        images = open_images(name, listed.paths, self.image_size, self.fit, self.cache, limit)
        splits = said_or_drawn(str(folder), listed.splits, len(listed.names), self.shares, self.split_seed)
        return Loaded(Items(np.array(listed.names), listed.columns), images, splits)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``pairs`` where there is a file of pairs, else ``class`` for a label, else one head an attribute.

        Raises:
            InputError: if nothing says how similar the images are.
        """
        if self.pairs is not None:
            return {"pairs": PairList(_named_pairs(_beside(self.folder, self.pairs), self.items))}
        return suggested_similarities(self.items, str(self.root))


def suggested_similarities(items: Items, where: str) -> dict[str, Similarity]:
    """Give ``class`` for an attribute ``label``, else one head an attribute, named after it.

    Raises:
        InputError: if there is no attribute that says how similar the images ``where`` are.
    """
    if "label" in items.columns:
        return {"class": SameClass("label")}
    suggested = {name: suggest(items, name) for name in items.columns}
    heads = _head_names([name for name, similarity in suggested.items() if similarity])
    if not heads:
        raise InputError(
            f"Expected something that says how similar the images in {where} are, got nothing: give pairs, "
            "a table with a numeric attribute or one of 2 to 50 classes, or put the images into one folder a class"
        )
    return {head: similarity for head, name in heads.items() if (similarity := suggested[name])}


def suggest(items: Items, attribute: str) -> Similarity | None:
    """Suggest a similarity for an attribute by what its values are, or none for free or constant ones."""
    values = items.columns[attribute]
    if values.dtype.kind == "f":
        return AttributeDistance(attribute) if np.nanmin(values) < np.nanmax(values) else None
    if any(";" in value for value in values.tolist()):
        return SetOverlap(attribute)
    return SameClass(attribute) if 2 <= len(items.classes(attribute)[1]) <= 50 else None


def _head_names(attributes: Sequence[str]) -> dict[str, str]:
    """Make a head's name of each attribute's: small letters, digits and ``_``, as the names of modules allow."""
    heads: dict[str, str] = {}
    for attribute in attributes:
        name = re.sub(r"\W", "_", attribute.strip().lower())
        name = f"_{name}" if not name or name[0].isdigit() else name
        name = f"{name}_" if is_taken(name) else name  # such as `type`
        if name in heads:
            raise InputError(
                f"Expected columns that differ in letters or digits, got {heads[name]!r} and {attribute!r}: rename one"
            )
        heads[name] = attribute
    return heads


# --- options ----------------------------------------------------------------------------------------------------------


def checked_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Give height and width.

    Raises:
        InputError: if they are not one or two positive numbers.
    """
    sides = [size, size] if isinstance(size, int) else size
    if sides is None:
        return None
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"Expected size as one number of pixels or as height and width, got {size}")
    return sides[0], sides[1]


def existing_folder(folder: Path) -> Path:
    """Give the folder if it is there.

    Raises:
        InputError: if it is not.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise InputError(f"Expected the folder of the images at {folder}, got {what}. Set root to where they are")
    return folder


def _beside(folder: Path, name: str) -> Path:
    """Find a file that is named relative to the images' folder or to where the program runs."""
    path = folder / Path(name).expanduser()
    return path if path.is_file() or not Path(name).is_file() else Path(name)


# --- class folders ----------------------------------------------------------------------------------------------------


def _from_folders(folder: Path) -> Listed:
    """List all images below a folder with the splits and classes that their folders say."""
    paths = find_images(folder)
    if not paths:
        raise InputError(f"Expected images in {folder}, found none: put them into one folder a class, or give a table")
    names = [path.relative_to(folder).as_posix() for path in paths]
    parts = [name.split("/")[:-1] for name in names]
    splits: list[str] = []
    tops = {part[0] if part else "" for part in parts}
    if "train" in tops or tops <= set(SPLITS):
        splits = [_folder_split(folder, name) for name in names]
        parts = [part[1:] for part in parts]
    labels = [part[0] if part else "" for part in parts]
    return Listed(names, paths, {"label": np.array(labels)} if any(labels) else {}, splits)


def _folder_split(folder: Path, name: str) -> str:
    first = name.split("/")[0]
    if first not in SPLITS:
        raise InputError(
            f"Expected every image of {folder} below train, validation or test, as there is a train, got {name}: "
            "move it, or give a table"
        )
    return SPLITS[first]


# --- tables -----------------------------------------------------------------------------------------------------------


def _from_table(folder: Path, table: Path) -> Listed:
    """List the images of a table with their attributes and splits."""
    columns = read_table(table)
    key = next((name for known in FILE_COLUMNS for name in columns if name.lower() == known), None)
    if key is None:
        raise InputError(
            f"Expected a column {' or '.join(FILE_COLUMNS)} in {table}, got the columns {', '.join(columns)}"
        )
    names = [PurePosixPath(name.replace("\\", "/")).as_posix() for name in columns.pop(key)]
    paths = _listed_files(folder, table, names)
    said = "split" if "split" in columns else next((name for name in columns if name.lower() == "split"), "split")
    splits = _said_splits(table, columns.pop(said, None))
    return Listed(names, paths, {name: numbers_or_text(values) for name, values in columns.items()}, splits)


def _listed_files(folder: Path, table: Path, names: list[str]) -> list[Path]:
    """Give each row's file, each a different one that exists."""
    if twice := repeated(names):
        rows = [row for row, name in enumerate(names, start=2) if name == twice[0]]
        raise InputError(
            f"Expected every image once in {table}, got {some(twice)} again ({twice[0]} in rows {some(rows)})"
        )
    paths = [folder / name for name in names]
    missing = [row for row, path in enumerate(paths, start=2) if not path.is_file()]
    if missing:
        raise InputError(
            f"Expected every image of {table} to exist below {folder}, but {len(missing)} of {len(names)} do not: "
            f"{some([f'{names[row - 2]!r} (row {row})' for row in missing])}. Names are relative to root"
        )
    return paths


def _said_splits(table: Path, values: list[str] | None) -> list[str]:
    """Read the column ``split``, however it is written."""
    for row, value in enumerate(values or [], start=2):
        if value.lower() not in SPLITS:
            known = nearest(value.lower(), ["train", "validation", "test"])
            raise InputError(f"Expected a split in row {row} of {table}, got {value!r}: {known}")
    return [SPLITS[value.lower()] for value in values or []]


# --- pairs ----------------------------------------------------------------------------------------------------------


def _named_pairs(path: Path, items: Items) -> list[Pair]:
    """Read pairs, their images named as the items are or without the suffix of the file."""
    known = items.names.tolist()
    stems = [str(PurePosixPath(name).with_suffix("")) for name in known]
    unclear = set(repeated(stems))
    names = {stem: name for stem, name in zip(stems, known, strict=True) if stem not in unclear}
    names |= {name: name for name in known}
    pairs = read_pairs(path)
    for pair in pairs:
        _check_pair(pair, names, known, unclear)
    return [(names[a], names[b], similarity, place) for a, b, similarity, place in pairs]


def _check_pair(pair: Pair, names: Mapping[str, str], known: list[str], unclear: set[str]) -> None:
    for name in pair[:2]:
        if name not in names:
            close = get_close_matches(name, known[:20_000], n=1, cutoff=0.5) or known[:1]
            hint = (
                "several images have this name, so give the suffix too" if name in unclear else f"one is {close[0]!r}"
            )
            raise InputError(f"Expected the name of an image in {pair[3]}, got {name!r}: {hint}")
