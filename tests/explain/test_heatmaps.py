from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from simec_vision.explain.bilrp import Strongest
from simec_vision.explain.connections import connection_grid
from simec_vision.explain.grids import pair_grid, rather_grid, reference_grid
from simec_vision.explain.heatmaps import DPI, colour_map, draw_heatmap, overlay
from simec_vision.items import InputError

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


def test_weak_relevance_on_a_shared_scale_stays_faint():
    image, maps = np.zeros((1, 2, 3), np.uint8), np.array([[[0.02, 0.0]]])
    faint, none = overlay(image, maps, largest=1.0)[0]
    assert np.abs(faint - none).max() < 0.05
    assert overlay(image, maps)[0, 0].tolist() == [0.5, 0, 0]


SEEN = {  # linear RGB as seen with one kind of cone missing (Machado et al. 2009, table of severity 1)
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colours, seen_as=None):
    """CIELAB of sRGB colours (colour, 3)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    linear = linear if seen_as is None else np.clip(linear @ np.array(SEEN[seen_as]).T, 0, 1)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    x, y, z = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (xyz / [0.9505, 1, 1.089]).T)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("seen_as", SEEN)
def test_balanced_colours_differ_for_everybody_the_more_the_stronger(seen_as):
    strength, colours = np.linspace(0, 1, 11), colour_map("balanced")
    red, blue = (lab(colours((1 + sign * strength) / 2)[:, :3], seen_as) for sign in (1, -1))
    difference = np.linalg.norm(red - blue, axis=1)
    assert (np.diff(difference) > 0).all()
    assert difference[-1] > 90  # ends of seismic: 67 for protanopia, less than half way there


def test_balanced_colours_are_white_at_zero_and_equally_light():
    colours = colour_map("balanced")(np.linspace(0, 1, 256))[:, :3]
    lightness = lab(colours)[:, 0]
    assert abs(lightness[0] - lightness[-1]) < 3
    assert colours[127:129].min() > 0.99
    assert (np.diff(lightness[:128]) > 0).all()
    assert (np.diff(lightness[128:]) < 0).all()


def drawn_reds(monkeypatch, scale, tmp_path):
    """Largest relevance that counts as 1 in each cell."""
    from simec_vision.explain import grids

    seen = []
    monkeypatch.setattr(grids, "overlay", lambda image, maps, largest, colours: seen.append(largest) or image)
    maps = np.zeros((2, 2, 3, 12, 16))
    maps[:, :, 1, 3, 4] = [[1, -2], [3, 0]]
    reference_grid(IMAGES[:2], IMAGES[:2], maps, np.eye(2), None, tmp_path / "a.png", scale=scale)
    return seen


@pytest.mark.parametrize(("scale", "ones"), [("image", [1, 2, 3, 0]), ("row", [2, 2, 3, 3]), ("all", [3, 3, 3, 3])])
def test_scale_is_shared_by_a_row_or_all_or_not_at_all(monkeypatch, tmp_path, scale, ones):
    assert drawn_reds(monkeypatch, scale, tmp_path) == ones


@pytest.mark.parametrize("scale", ["row", "image", "all"])
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
    from simec_vision.explain import grids

    framed = []
    monkeypatch.setattr(grids, "_frame", lambda axis: framed.append(axis.get_subplotspec().num1))
    pair_grid(IMAGES[:3], relevance(3, 3), np.eye(3), tmp_path / "pairs.png", labels=list("abc"))
    assert framed == [5, 10, 15]  # of 4 × 4 cells, read row by row
    assert pixels(tmp_path / "pairs.png").std() > 20


def test_single_heatmap_of_a_grey_image(tmp_path):
    draw_heatmap(IMAGES[0, :, :, :1], relevance()[:1], tmp_path / "one.png", "heel")
    assert pixels(tmp_path / "one.png").std() > 20


def test_rather_grid_shows_both_references_and_both_similarities(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles, shown = [], []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    imshow = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, image, **options: shown.append(image) or imshow(self, image))
    arguments = (relevance(1, 2), [[0.8, 0.1]], [[0.3, -0.2]], tmp_path / "rather.png", "heel")
    rather_grid(IMAGES[:2], IMAGES[2:3], IMAGES[3:], *arguments)
    assert titles[-2:] == ["0.80 − 0.30", "0.10 + 0.20"]
    for place, image in enumerate(IMAGES):  # images across, then A and B
        np.testing.assert_array_equal(shown[place], image)
    with pytest.raises(InputError, match=r"others of shape .* = \(1, 2\), got \(2, 1\)"):
        rather_grid(IMAGES[:2], IMAGES[2:3], IMAGES[3:], relevance(1, 2), [[1, 0]], [[1], [0]], tmp_path / "a.png")


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


def test_pdf_by_the_ending_and_the_same_file_again(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        pair_grid(IMAGES[:2], relevance(2, 2), np.eye(2), tmp_path / name, colours="balanced")
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content == (tmp_path / "b.pdf").read_bytes()


def strongest(relevance, mine, others, pool=4):
    return Strongest(*map(torch.tensor, (relevance, mine, others)), pool)


CONNECTED = strongest([2.0, -1.0], [[0, 0], [2, 3]], [[2, 3], [0, 1]])


@pytest.fixture
def curves(monkeypatch):
    """The curves of every pair that is drawn."""
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection

    drawn = []
    keep = lambda self, new, **_: drawn.append(new) if isinstance(new, LineCollection) else None  # noqa: E731
    monkeypatch.setattr(Axes, "add_collection", keep)
    return drawn


def test_connections_run_between_the_middles_of_cells_the_strongest_on_top(tmp_path, curves):
    connection_grid(IMAGES[:1], IMAGES[1:2], [CONNECTED], tmp_path / "a.png")
    (lines,) = curves
    weak, strong = lines.get_segments()
    start = round(16 * 1.35)  # where the other image begins
    np.testing.assert_allclose(strong[[0, -1]], [[2, 2], [start + 14, 10]])  # cells of 4: the middle of the first is 2
    np.testing.assert_allclose(weak[[0, -1]], [[14, 10], [start + 6, 2]])
    blue, red = lines.get_colors()
    assert red[0] > 0.7 > 0.1 > red[2]
    assert blue[2] > 0.6 > 0.1 > blue[0]
    np.testing.assert_allclose([blue[3], red[3]], [0.7 / 4, 0.7])
    assert lines.get_linewidths()[1] > lines.get_linewidths()[0]


@pytest.mark.parametrize(("scale", "opacity"), [("image", 0.7), ("all", 0.7 / 4)])
def test_strength_of_connections_is_relative_to_the_pair_or_all(tmp_path, curves, scale, opacity):
    weaker = strongest([1.0], [[0, 0]], [[0, 0]])
    connection_grid(IMAGES[:2], IMAGES[2:], [CONNECTED, weaker], tmp_path / "a.png", scale=scale)
    assert curves[1].get_colors()[0, 3] == pytest.approx(opacity)


@pytest.mark.parametrize("colours", ["seismic", "balanced"])
@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_connection_grid(tmp_path, colours, ending):
    path, tall = tmp_path / f"a.{ending}", np.zeros((20, 6, 1), np.uint8)
    nothing = strongest([0.0], [[0, 0]], [[4, 1]])
    connection_grid(
        [*IMAGES[:2], IMAGES[2]],
        [*IMAGES[1:3], tall],
        [CONNECTED, CONNECTED, nothing],
        path,
        list("abc"),
        "all",
        colours,
    )
    assert path.stat().st_size > 2000
    if ending == "png":
        drawn = pixels(path)
        assert drawn.shape[1] == pytest.approx(9 * DPI, abs=1)
        assert ((drawn[..., 0] - drawn[..., 2]) > 100).sum() > 50
        assert ((drawn[..., 2] - drawn[..., 0]) > 100).sum() > 20


BAD_CONNECTIONS = {
    "outside": (
        {"strongest": [strongest([1.0], [[3, 0]], [[0, 0]])]},
        r"4 pixels in an image of 12 × 16, got cell \[3, 0\]",
    ),
    "others": ({"others": IMAGES[:2]}, "at least one, got 1, 2, 1, 1"),
    "none": ({"images": [], "others": [], "strongest": []}, "at least one, got 0, 0, 0, 0"),
    "ending": ({"path": "a.svg"}, "ending of the path to be one of png, pdf, got 'svg'"),
    "colours": ({"colours": "jet"}, "colours to be one of seismic, balanced, got 'jet'"),
    "scale": ({"scale": "column"}, "scale to be one of row, image, all, got 'column'"),
}


@pytest.mark.parametrize("case", BAD_CONNECTIONS)
def test_mistakes_in_connections_are_named(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    given, message = BAD_CONNECTIONS[case]
    right = {"images": IMAGES[:1], "others": IMAGES[1:2], "strongest": [CONNECTED], "path": "a.png"}
    with pytest.raises(ValueError, match=message):
        connection_grid(**{**right, **given})
    assert list(tmp_path.iterdir()) == []


def test_endings_colours_and_scales_that_there_are_not(tmp_path):
    with pytest.raises(ValueError, match="one of png, pdf, got ''"):
        pair_grid(IMAGES[:2], relevance(2, 2), np.eye(2), tmp_path / "a")
    with pytest.raises(ValueError, match="one of seismic, balanced, got 'viridis'"):
        draw_heatmap(IMAGES[0], relevance(), tmp_path / "a.png", colours="viridis")
    with pytest.raises(ValueError, match="one of row, image, all, got 'column'"):
        reference_grid(IMAGES[:1], IMAGES[:1], relevance(1, 1), [[0.5]], None, tmp_path / "a.png", scale="column")
    assert list(tmp_path.iterdir()) == []


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


def test_titles_fit_above_their_pictures(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    many = np.concatenate([IMAGES] * 4)[:12]
    true = np.full((1, 12), np.nan)
    reference_grid(
        many, IMAGES[:1], np.ones((1, 12, 3, 12, 16)), np.full((1, 12), -0.001), true, tmp_path / "a.png", "a_long_name"
    )
    (figure,) = figures
    boxes = [axis.title.get_window_extent() for axis in figure.axes[14:26]]
    assert [axis.title.get_text() for axis in figure.axes[14:16]] == ["unknown / 0.00"] * 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_relevance_that_is_not_finite_is_not_drawn(tmp_path):
    maps = np.ones((3, 12, 16))
    maps[0, 0, 0] = np.inf
    with pytest.raises(InputError, match="NaN or infinity"):
        draw_heatmap(IMAGES[0], maps, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
