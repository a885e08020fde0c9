import numpy as np
import pytest
from PIL import Image

from simec_vision.explain.heatmaps import DPI, draw_heatmap, overlay, pair_grid, reference_grid, save_sheet

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 255, (4, 12, 16, 3), dtype=np.uint8)


def relevance(*leading):
    return np.random.default_rng(1).standard_normal((*leading, 3, 12, 16))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_overlay_without_relevance_is_the_faint_grey_image():
    image = np.stack([np.full((2, 2), value, np.uint8) for value in (0, 51, 204)], axis=2)  # mean 85 = 255 / 3
    np.testing.assert_allclose(overlay(image, np.zeros((3, 2, 2))), 1 - 0.75 * (1 - 1 / 3))


def test_overlay_colours_by_sign_and_fades_with_strength():
    maps = np.zeros((1, 1, 4))
    maps[0, 0] = [2.0, -2.0, 0.5, 0.0]
    red, blue, weak, none = overlay(np.zeros((1, 4, 3), np.uint8), maps)[0]
    assert red.tolist() == [0.5, 0, 0]  # the ends of seismic
    assert blue[2] > 0.25 > blue[0] == blue[1] == 0
    from matplotlib import colormaps

    a, colour = 0.25, np.array(colormaps["seismic"](0.625)[:3])  # opacity 1.5 · 0.25, image opacity 0.75 · 0.75
    np.testing.assert_allclose(weak, 1.5 * a * colour + (1 - 1.5 * a) * (1 - 0.75 * (1 - a)))
    np.testing.assert_allclose(none, 0.25)


def test_overlay_sums_channels_and_scales_by_the_largest_given():
    maps = np.array([1.0, -3.0, 1.0]).reshape(3, 1, 1)
    image = np.zeros((1, 1, 1), np.uint8)
    np.testing.assert_allclose(overlay(image, maps), overlay(image, maps.sum(axis=0, keepdims=True)))
    paler = overlay(image, maps, largest=4.0)[0, 0]
    assert paler[2] > paler[0] == paler[1] > 0


@pytest.mark.parametrize("scale", ["row", "image"])
def test_reference_grid(tmp_path, scale):
    true = np.array([[0.5, np.nan, 1.0, 0.0]] * 2)
    path = tmp_path / "new" / "heel.png"
    options = {"title": "heel", "image_labels": list("abcd"), "reference_labels": ["x", "y"], "scale": scale}
    reference_grid(IMAGES, IMAGES[:2], relevance(2, 4), true + 0.1, true, path, **options)
    assert pixels(path).shape[1] == pytest.approx(9 * DPI, abs=1)
    assert pixels(path).std() > 20
    assert [file.name for file in path.parent.iterdir()] == ["heel.png"]


def test_every_cell_has_its_own_heatmap(tmp_path):
    maps = np.zeros((2, 2, 3, 12, 16))
    maps[0, 1] = 1.0
    reference_grid(
        np.zeros_like(IMAGES[:2]), np.zeros_like(IMAGES[:2]), maps, np.ones((2, 2)), None, tmp_path / "a.png"
    )
    drawn = pixels(tmp_path / "a.png")
    # The largest relevance of all is dark red (0.5, 0, 0): only in the first row's second cell.
    height, width = drawn.shape[:2]
    dark = np.argwhere((np.abs(drawn - [127.5, 0, 0]) < 2).all(axis=2))
    dark = dark[dark[:, 0] < 0.85 * height]  # not the colour bar
    assert dark[:, 1].min() > 0.6 * width
    assert dark[:, 0].min() > 0.25 * height
    assert dark[:, 0].max() < 0.65 * height


def test_titles_say_true_and_predicted_and_unknown(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    true = [[0.25, np.nan]]
    reference_grid(IMAGES[:2], IMAGES[:1], relevance(1, 2), [[-0.5, 1.0]], true, tmp_path / "a.png")
    assert titles[-2:] == ["0.25 / −0.50", "unknown / 1.00"]
    reference_grid(IMAGES[:2], IMAGES[:1], relevance(1, 2), [[-0.5, 1.0]], None, tmp_path / "a.png")
    assert titles[-2:] == ["−0.50", "1.00"]


def test_pair_grid_frames_the_diagonal(tmp_path, monkeypatch):
    from simec_vision.explain import heatmaps

    framed = []
    monkeypatch.setattr(heatmaps, "_frame", lambda axis: framed.append(axis.get_subplotspec().num1))
    pair_grid(IMAGES[:3], relevance(3, 3), np.eye(3), tmp_path / "pairs.png", labels=list("abc"))
    assert framed == [5, 10, 15]  # of 4 × 4 cells, read row by row
    assert pixels(tmp_path / "pairs.png").std() > 20


def test_single_heatmap_of_a_grey_image_and_a_sheet(tmp_path):
    draw_heatmap(IMAGES[0, :, :, :1], relevance()[:1], tmp_path / "one.png", "heel")
    save_sheet(list(IMAGES[:3]), 2, tmp_path / "sheet.png")
    for name in ("one.png", "sheet.png"):
        assert pixels(tmp_path / name).std() > 20


def test_relevance_that_is_zero_everywhere_is_drawn(tmp_path):
    reference_grid(IMAGES[:1], IMAGES[:1], np.zeros((1, 1, 3, 12, 16)), [[0.0]], None, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_grids_show_red_and_blue_for_known_and_unknown_similarities(tmp_path):
    maps = np.zeros((2, 2, 3, 12, 16))
    maps[0, 0], maps[1, 1] = 1.0, -1.0
    true = np.full((2, 2), np.nan)
    reference_grid(IMAGES[:2], IMAGES[:2], maps, np.eye(2), true, tmp_path / "references.png")
    pair_grid(IMAGES[:2], maps, np.eye(2), tmp_path / "pairs.png")
    for name in ("references.png", "pairs.png"):
        drawn = pixels(tmp_path / name)
        cells = drawn[: int(0.85 * len(drawn))]  # not the colour bar
        for end in ([127.5, 0, 0], [0, 0, 76.5]):
            assert (np.abs(cells - end) < 2).all(axis=2).sum() > 1000
        assert 0.5 < drawn.shape[0] / drawn.shape[1] < 2
        assert 2_000 < (tmp_path / name).stat().st_size < 1_000_000


def test_folder_that_is_a_file_is_left_alone(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OSError, match="taken"):
        pair_grid(IMAGES[:2], relevance(2, 2), np.eye(2), tmp_path / "taken" / "pairs.png")
    with pytest.raises(OSError, match="taken"):
        reference_grid(IMAGES[:1], IMAGES[:1], relevance(1, 1), [[0.5]], None, tmp_path / "taken" / "new" / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").read_text() == "mine"


def test_wrong_shapes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 4, channel, 12, 16\).*got \(2, 3, 3, 12, 16\)"):
        reference_grid(IMAGES, IMAGES[:2], relevance(2, 3), np.ones((2, 4)), None, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"true of shape \(row, column\) = \(2, 4\), got \(4, 2\)"):
        reference_grid(IMAGES, IMAGES[:2], relevance(2, 4), np.ones((2, 4)), np.ones((4, 2)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_and_no_global_backend(tmp_path, monkeypatch):
    import matplotlib
    from matplotlib.figure import Figure

    before = dict.__getitem__(matplotlib.rcParams, "backend")

    def fails(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises(OSError, match="disk full"):
        pair_grid(IMAGES[:2], relevance(2, 2), np.eye(2), tmp_path / "pairs.png")
    assert list(tmp_path.iterdir()) == []
    assert dict.__getitem__(matplotlib.rcParams, "backend") is before
