"""The real data, where they are: ``SIMEC_SHARED_DATA`` names the folder of their archives."""

import os
import tarfile
from itertools import islice
from pathlib import Path

import pytest


def _archive(name: str) -> Path:
    folder = os.environ.get("SIMEC_SHARED_DATA")
    if not folder:
        pytest.skip(f"SIMEC_SHARED_DATA does not name the folder of {name}")
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return path


@pytest.fixture(scope="session")
def real_zappos(tmp_path_factory):
    """The real part of UT-Zappos50K, unpacked."""
    folder = tmp_path_factory.mktemp("zappos")
    with tarfile.open(_archive("zappos50k-part.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder / "zappos50k"


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory):
    """The first three hundred entries of CIFAR-10 as class folders."""
    folder = tmp_path_factory.mktemp("cifar")
    with tarfile.open(_archive("cifar10-jpeg.tar.xz"), "r|xz") as archive:
        for member in islice(archive, 300):
            archive.extract(member, folder, filter="data")
    return folder / "cifar10"
