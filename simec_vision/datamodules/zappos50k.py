"""UT-Zappos50K: shoes with a heel height and closures, in two notions of similarity (Yu & Grauman, CVPR 2014)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation, known_name
from simec_vision.datamodules.image_store import find_images, open_images, some, store_name
from simec_vision.datamodules.splits import check_shares, grouped_split
from simec_vision.datamodules.tables import numbers_or_text, read_table, repeated
from simec_vision.datamodules.zappos_layout import COLUMNS, DATA, HEEL_LEVELS, IMAGES, SQUARE_IMAGES, cid_of
from simec_vision.datamodules.zappos_layout import write_zappos_layout as write_zappos_layout
from simec_vision.items import UNKNOWN, InputError, Items, nearest
from simec_vision.similarities import AttributeDistance, SetOverlap, Similarity


class Zappos50K(ImageDataModule):
    """UT-Zappos50K shoes, square; similar by heel height (1 − |a − b| / 6) and by closures (Simpson overlap).

    An item is called by its CID. ``HeelHeight`` is a level from 0 (flat) to 6, NaN where unknown; ``Closure`` and the
    other attributes are text, ``;`` between the members of a set; ``Brand`` is the folder an image lies in. All
    colours of a product are in the same split, so that no shoe is tested on its twin.

    Args:
        root: Folder with ``ut-zap50k-data/meta-data.csv`` and ``ut-zap50k-images-square`` or ``ut-zap50k-images``.
        drop_unknown: Leave out items whose heel height or closure is unknown (29,276 of the 50,025 stay).
        size: Height and width of the images; wider ones are padded with white to a square, then resized to it.
        report_on: Where a ``provenance.csv`` lies beside the meta-data, hold out only items whose attributes are
            ``verbatim`` as published, or ``all``.
        validation: Share of the items that is held out for validation.
        test: Share of the items that is held out for the test.
        split_seed: Seed of the split.
        mean: Mean of each colour channel, for normalisation.
        std: Standard deviation of each colour channel, for normalisation.
        cache: Keep decoded images in a cache file, so that the next start is fast.
        batches: How batches are made.

    Raises:
        InputError: for an option that cannot be.
    """

    label = "Category"

    def __init__(
        self,
        root: str | Path = "data/zappos50k",
        drop_unknown: bool = True,
        size: int = 136,
        report_on: Literal["verbatim", "all"] = "verbatim",
        validation: float = 0.1,
        test: float = 0.1,
        split_seed: int = 15,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
        cache: bool = True,
        batches: Batches = Batches(),
    ) -> None:
        super().__init__(batches, Normalisation(mean, std))
        check_shares(validation=validation, test=test)
        known_name(report_on, ["verbatim", "all"], "report_on")
        if size < 1:
            raise InputError(f"Expected size as a positive number of pixels, got {size}")
        self.root, self.drop_unknown, self.image_size, self.cache = root, drop_unknown, size, cache
        self.report_on, self.split_seed = report_on, split_seed
        self.shares = {"validation": validation, "test": test}

    @property
    def folder(self) -> Path:
        """The root as an absolute path."""
        return Path(self.root).expanduser().resolve()

    def prepare_data(self) -> None:
        """Decode the images into the cache file, in one process a machine."""
        self.setup()

    def load(self) -> Loaded:
        """See :meth:`ImageDataModule.load`."""
        items, paths = read_zappos(self.folder)
        if self.drop_unknown:
            kept = self._known(items)
            columns = {name: values[kept] for name, values in items.columns.items()}
            items, paths = Items(items.names[kept], columns), [paths[i] for i in kept]
        size = (self.image_size, self.image_size)
        images = open_images(store_name("zappos50k", self.folder), paths, size, "square", self.cache)
        return Loaded(items, images, self._splits(items))

    def _known(self, items: Items) -> NDArray[np.int64]:
        kept = np.flatnonzero(np.logical_and.reduce([rule.known(items) for rule in self.similarities().values()]))
        if not len(kept):
            raise InputError(f"Expected items with heel height and closure in {self.root}, got none of {len(items)}")
        return kept

    def _splits(self, items: Items) -> dict[str, NDArray[np.int64]]:
        source = items.columns.get("source")
        eligible = np.ones(len(items), dtype=bool)
        if source is not None and self.report_on == "verbatim":
            eligible = source == "verbatim"
        products = np.unique([product(name) for name in items.names.tolist()], return_inverse=True)[1]
        return grouped_split(products, eligible, self.shares, self.split_seed)

    def similarities(self) -> dict[str, Similarity]:
        """Give ``heel`` (heel height) and ``closure`` (overlap of closures)."""
        return {"heel": AttributeDistance("HeelHeight", range=len(HEEL_LEVELS) - 1), "closure": SetOverlap("Closure")}


def product(cid: str) -> str:
    """Give the product of a CID such as ``100627-72``: its first number; the second is a colour."""
    return cid.split("-")[0] if re.fullmatch(r"\d+-\d+", cid) else cid


# --- reading ----------------------------------------------------------------------------------------------------------


def read_zappos(folder: Path) -> tuple[Items, list[Path]]:
    """Read the meta-data and find the image of every item.

    Args:
        folder: The folder of the data set.

    Returns:
        All items with their attributes, in the order of the meta-data, and the image file of each.

    Raises:
        InputError: naming the file, and the rows or items that are wrong.
    """
    table = _meta_data(folder)
    columns = read_table(table)
    if missing := {"CID", "HeelHeight", "Closure"} - set(columns):
        raise InputError(
            f"Expected the columns {', '.join(COLUMNS)} in {table}, which lacks {', '.join(sorted(missing))}"
        )
    names = columns.pop("CID")
    if twice := repeated(names):
        raise InputError(f"Expected every CID once in {table}, got more than one row for {some(twice)}")
    values = {name: _values(table, name, cells) for name, cells in columns.items()}
    paths, brands = _image_files(folder, names)
    values = {"Brand": np.array(brands), **values} | _sources(table.with_name("provenance.csv"), names)
    return Items(np.array(names), values), paths


def _meta_data(folder: Path) -> Path:
    tables = [folder / DATA / "meta-data.csv", folder / "meta-data.csv"]
    found = [table for table in tables if table.is_file()]
    if not found:
        raise InputError(
            f"Expected UT-Zappos50K in {folder} ({DATA}/meta-data.csv, {IMAGES}/Category/SubCategory/Brand/*.jpg), "
            "got no meta-data.csv. Set root to where both archives of the data set were unpacked"
        )
    return found[0]


def _values(table: Path, name: str, cells: Sequence[str]) -> NDArray:
    """Turn a column into heel levels, text (the official columns) or what its cells are (any other)."""
    if name == "HeelHeight":
        return np.array([_level(table, row, cell) for row, cell in enumerate(cells, start=2)])
    if name in COLUMNS:
        return np.array(["" if cell in UNKNOWN else cell for cell in cells])
    return numbers_or_text(cells)


def _level(table: Path, row: int, cell: str) -> float:
    if cell in UNKNOWN:
        return np.nan
    if cell not in HEEL_LEVELS:
        raise InputError(f"Expected a heel height in row {row} of {table}, got {cell!r}: {nearest(cell, HEEL_LEVELS)}")
    return float(HEEL_LEVELS.index(cell))


def _image_files(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Find the file of each item, and the brand that its folder says."""
    below = next((folder / part for part in (SQUARE_IMAGES, IMAGES) if (folder / part).is_dir()), folder)
    files: dict[str, list[Path]] = {}
    for path in find_images(below):
        files.setdefault(cid_of(path.stem), []).append(path)
    if missing := [name for name in names if name not in files]:
        raise InputError(
            f"Expected an image for every row of the meta-data below {below}, but {len(missing)} of {len(names)} have "
            f"none: {some(missing)}. The image of 100627-72 is called 100627.72.jpg"
        )
    if twice := [name for name in names if len(files[name]) > 1]:
        raise InputError(
            f"Expected one image for every CID below {below}, but {len(twice)} have several: {twice[0]} has "
            f"{some(files[twice[0]])}. Remove all but one"
        )
    return [files[name][0] for name in names], [_brand(files[name][0], below) for name in names]


def _brand(path: Path, below: Path) -> str:
    folders = path.parts[len(below.parts) : -1]
    return folders[2] if len(folders) == 3 else ""


def _sources(table: Path, names: Sequence[str]) -> dict[str, NDArray]:
    """Read where the attributes of each item come from, if that is known."""
    if not table.is_file():
        return {}
    columns = read_table(table)
    if not {"CID", "source"} <= set(columns):
        raise InputError(f"Expected the columns CID and source in {table}, got {', '.join(columns)}")
    sources = dict(zip(columns["CID"], columns["source"], strict=True))
    if missing := [name for name in names if name not in sources]:
        raise InputError(f"Expected a row for every CID in {table}, but {len(missing)} have none: {some(missing)}")
    return {"source": np.array([sources[name] for name in names])}
