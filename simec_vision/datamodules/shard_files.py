"""Where shards lie: in a folder, or at an address from which they are downloaded into the cache folder when needed."""

from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from filelock import FileLock

from simec_vision.files import cache_folder
from simec_vision.items import InputError

SCHEMES = ("http", "https", "gs")
"""Addresses that the library downloads from."""


def webdataset() -> Any:
    """Give the library.

    Raises:
        InputError: saying how to install it.
    """
    try:
        import webdataset.cache
    except ModuleNotFoundError as error:
        raise InputError(
            f"Expected the package {error.name} to write shards or to read them from an address: "
            "pip install 'simec-vision[stream]'"
        ) from None
    return webdataset


class ShardFiles:
    """The files below a folder or an address.

    Args:
        root: The folder or address.
        keep: Gigabytes that are kept of an address.

    Raises:
        InputError: if there is no such folder, or the address is of another kind.
    """

    def __init__(self, root: str, keep: float = 100.0) -> None:
        self.remote = "://" in root
        self.root, self.keep = root.rstrip("/") if self.remote else str(Path(root).expanduser().resolve()), keep
        if self.remote and urlparse(root).scheme not in SCHEMES:
            raise InputError(f"Expected an address that begins with one of {', '.join(SCHEMES)}, got {root}")
        if not self.remote and not Path(self.root).is_dir():
            raise InputError(f"Expected the folder of the shards at {self.root}, got none. Set root to where they are")

    def local(self, name: str) -> Path:
        """Give the path of a file, downloaded first where it is not here.

        Raises:
            InputError: naming the address that cannot be downloaded.
        """
        return self._downloaded(name) if self.remote else Path(self.root) / name

    def _downloaded(self, name: str) -> Path:
        folder = cache_folder() / f"shards-{sha256(self.root.encode()).hexdigest()[:16]}"
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                self._download(f"{self.root}/{name}", path)
        return path

    def _download(self, address: str, path: Path) -> None:
        # The index stays; of the shards, those that came first go first.
        limit = int(self.keep * 1e9) if path.suffix == ".tar" else -1
        cache = webdataset().cache.FileCache(
            str(path.parent), url_to_name=lambda _: path.name, validator=None, cache_size=limit
        )
        try:
            cache.get_file(address)
        except (OSError, ValueError) as error:
            raise InputError(f"Expected to download {address}: {' '.join(str(error).split())[:200]}") from error
