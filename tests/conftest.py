"""What the tests of commands share."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, tests share out the processor's cores
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Run a test in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMEC_VISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIMEC_VISION_RUN", raising=False)
