import numpy as np
from PIL import Image

from simec_vision.explain.charts import Panel, Strip, bar_panels, trap_chart
from simec_vision.explain.grids import method_grid

GENERATOR = np.random.default_rng(0)
PICTURES = GENERATOR.integers(0, 255, (3, 12, 12, 3), dtype=np.uint8)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def share(path, colour):
    """Give the share of the picture's pixels that have about a colour, such as ``#0072B2``."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (np.abs(pixels(path) - wanted).max(axis=2) < 12).mean()


def test_bars_are_as_long_as_their_values(tmp_path):
    for name, value in (("short", 0.25), ("long", 1.0)):
        values = {"a": {"heel": value, "closure": 1.0}, "b": {"heel": float("nan")}}
        bar_panels([Panel("t", "n", values, {}, {})], ["a", "b"], ["heel", "closure"], tmp_path / f"{name}.png")
    short, long = (share(tmp_path / f"{name}.png", "#0072B2") for name in ("short", "long"))
    assert 0.2 < short / long < 0.4  # a quarter, and the legend's key
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["long.png", "short.png"]


def test_trap_shows_both_models(tmp_path):
    heatmaps = GENERATOR.standard_normal((3, 12, 12))
    strips = [Strip(name, heatmaps, ["Flat"] * 3) for name in ("biased", "unbiased")]
    shares = {name: {"heel": 0.3, "surface": 0.7} for name in ("biased", "unbiased")}
    read = {"biased": [0.0, 1.0, 2.0], "unbiased": [1.0, 1.0, 1.0]}
    trap_chart(PICTURES, ["Flat", "Low", "High"], strips, read, shares, tmp_path / "trap.png")
    assert min(share(tmp_path / "trap.png", colour) for colour in ("#0072B2", "#E69F00")) > 0.01


def test_methods_stand_side_by_side_with_a_heatmap_each(tmp_path):
    maps = {"one": np.zeros((3, 12, 12)), "an_other": np.ones((3, 12, 12))}
    method_grid(PICTURES, maps, ["x", "y", "z"], tmp_path / "methods.png")
    picture = pixels(tmp_path / "methods.png")
    red = (picture[..., 0] > picture[..., 1] + 90) & (picture[..., 1] < 40)
    columns = np.flatnonzero(red[: int(0.8 * len(red))].sum(axis=0) > 0.3 * len(red))
    assert columns.min() > 0.6 * picture.shape[1]  # the third column only: images and colour bar have less red
