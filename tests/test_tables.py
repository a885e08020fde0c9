"""Experiments of tables: cells are made once, resumed and reported; the first of them on its quick version."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from simec_vision.cli.main import main
from simec_vision.experiments import basics, paper
from simec_vision.experiments.cells import Cell, arrays_of, made
from simec_vision.experiments.embedding_cells import ORIGINAL, OURS, left_out, limit_original, match
from simec_vision.experiments.embedding_cells import eigen as eigen_cell
from simec_vision.experiments.figures import Map, draw_maps
from simec_vision.experiments.newsgroups import (
    GROUPS,
    frequent_pairs,
    joined,
    newsgroups,
    read_posts,
    text_features,
)
from simec_vision.experiments.nonmetric_approach import errors_of
from simec_vision.experiments.nonmetric_words import words
from simec_vision.experiments.overlaps import by_sign, decomposed, overlaps, scaled
from simec_vision.experiments.paper_kernel import filled
from simec_vision.experiments.paper_signs import decomposed_signs
from simec_vision.experiments.results import Printed, original
from simec_vision.experiments.study import open_study
from simec_vision.experiments.table_report import Found, Table, exactly, reached
from simec_vision.items import InputError
from simec_vision.kernels import eigen_factors

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]
TABLE = Table("squares", "square", "Squares", "number", 1)


def square(number, seed):
    """Leave a trace of each call, and give a number and an array."""
    with open("calls", "a") as calls:
        calls.write(f"{number} {seed}\n")
    if number == 13:
        raise InputError("Expected no 13")
    if number == 14:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory ends
    return {"square": number**2 + 0.1 * seed, "roots": np.array([number, -number])}


def cells(*numbers):
    return [Cell("squares", "ours", str(n), square, {"number": n}, seed) for n in numbers for seed in (0, 1)]


def test_cells_are_made_once_and_go_on():
    lines = made(cells(2, 3), Path("made"))
    assert [line["values"]["square"] for line in lines] == [4, 4.1, 9, 9.1]
    made(cells(3, 5), Path("made"))
    calls = Path("calls").read_text().split("\n")
    assert sorted(calls[:-1]) == sorted(["2 0", "2 1", "3 0", "3 1", "5 0", "5 1"])
    kept = [json.loads(line) for line in Path("made/cells.jsonl").read_text().splitlines()]
    assert [(line["column"], line["seed"]) for line in kept] == [(n, s) for n in "352" for s in (0, 1)]
    assert list(arrays_of(cells(3)[0], Path("made"))["roots"]) == [3, -3]
    assert arrays_of(cells(7)[0], Path("made")) == {}


def meanwhile(seed):
    made(cells(2), Path("made"))  # another run in the same folder
    return {"value": 1.0}


def test_two_runs_in_one_folder_keep_the_cells_of_both():
    made([Cell("squares", "other", "3", meanwhile)], Path("made"))
    kept = [json.loads(line) for line in Path("made/cells.jsonl").read_text().splitlines()]
    assert [(line["row"], line["seed"]) for line in kept] == [("other", 0), ("ours", 0), ("ours", 1)]


def test_a_cell_without_its_arrays_is_made_again():
    made(cells(2, 3, 5), Path("made"))
    for number in (2, 3):
        (Path("made/arrays") / f"{cells(number)[0].name}.npz").unlink()
    lines = made(cells(3), Path("made"))
    assert [line["values"]["square"] for line in lines] == [9, 9.1]
    assert Path("calls").read_text().split("\n")[6:-1] == ["3 0"]
    assert list(arrays_of(cells(3)[0], Path("made"))["roots"]) == [3, -3]
    assert len(Path("made/cells.jsonl").read_text().splitlines()) == 6


def test_cells_are_the_same_here_and_in_processes():
    without = [{**line, "seconds": 0} for line in made(cells(2, 3), Path("here"))]
    assert [{**line, "seconds": 0} for line in made(cells(2, 3), Path("there"), processes=2)] == without
    assert all((arrays_of(cell, Path("there"))["roots"] == arrays_of(cell, Path("here"))["roots"]).all()
               for cell in cells(2, 3))  # fmt: skip


def test_a_cell_that_fails_leaves_the_others():
    with pytest.raises(InputError, match="no 13"):
        made(cells(2, 13), Path("made"))
    assert len(Path("made/cells.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match=r"lack of memory.*fewer --processes"):
        made(cells(2, 14), Path("made"), processes=2)
    assert len(Path("made/cells.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match="at least one process"):
        made(cells(2), Path("made"), processes=0)


def test_another_study_gets_a_folder_of_its_own():
    assert open_study(None, "one", "quick: true\nseeds: [0]\n") == Path("runs/one")
    assert open_study(None, "one", "quick: false\n") == Path("runs/one-2")
    assert open_study(None, "one", "quick: true\nseeds: [0, 1]\n") == Path("runs/one")
    assert open_study(None, "one", "quick: false\n") == Path("runs/one-2")
    with pytest.raises(InputError, match=r"quick True, got False\. Name another --out"):
        open_study("runs/one", "one", "quick: false\n")
    Path("runs/one-3").mkdir()
    Path("runs/one-3/note").write_text("mine")
    assert open_study(None, "one", "quick: null\n") == Path("runs/one-4")


def test_numbers_are_compared_with_the_originals():
    lines = [
        {"table": "squares", "row": "ours", "column": c, "seed": s, "values": {"square": v}}
        for c, s, v in (("2", 0, 4.0), ("2", 1, 4.2), ("3", 0, 9.04))
    ]
    theirs = {"squares": {"square": {"ours": {"2": 4.0, "3": 9.0, "4": 16.0}}}}
    found = Found(lines, theirs, Path(), [])
    assert found.grid("squares", "square")["ours"]["2"] == pytest.approx((4.1, 0.1))
    assert found.cell("squares", "ours", "3", "square") == 9.04
    assert found.cell("squares", "ours", "4", "square") is None
    (exact,) = exactly(found, TABLE, ["ours", "none"])
    assert not exact.ok
    assert "4.1 against 4.0 (2)" in exact.measured
    (near,) = reached(found, TABLE, ["ours"], 0.03)
    assert near.ok
    assert [check.ok for check in reached(found, TABLE, ["ours"], 0.02)] == [False]
    assert [check.ok for check in reached(found, TABLE, ["ours"], 0.0, more=True)] == [True]


def judged(ours, theirs, **how):
    """Check deterministic numbers of one row against text as the original printed it."""
    lines = [
        {"table": "squares", "row": "ours", "column": column, "seed": 0, "values": {"square": value}}
        for column, value in ours.items()
    ]
    known = {column: Printed(text) for column, text in theirs.items()}
    found = Found(lines, {"squares": {"square": {"ours": known}}}, Path(), [])
    return list(exactly(found, TABLE, ["ours"], **how))


def test_every_column_is_judged_by_its_own_digits():
    theirs = {"2": "14.645", "3": "1739.17", "4": "0.0000022"}
    ours = {"2": 14.6454, "3": 1739.1749, "4": 2.24e-6}
    (check,) = judged(ours, theirs)
    assert check.ok
    for wrong, told in (({"2": 14.647}, "14.647 against 14.645 (2)"), ({"4": 2.3e-6}, "against 0.0000022 (4)")):
        (check,) = judged({**ours, **wrong}, theirs)
        assert not check.ok
        assert told in check.measured
    (check,) = judged({**ours, "3": math.nan}, theirs)
    assert not check.ok
    assert "nan against 1739.17 (3)" in check.measured


def test_a_large_gap_that_is_fine_hides_no_small_one_that_is_not():
    (check,) = judged({"2": 100.9, "3": 1.02}, {"2": "100.0", "3": "1.000"}, share=0.01)
    assert not check.ok
    assert "1.020 against 1.000 (3)" in check.measured
    assert [check.ok for check in judged({"2": 100.9, "3": 1.009}, {"2": "100.0", "3": "1.000"}, share=0.01)] == [True]


def test_columns_that_may_be_farther_off_are_judged_on_their_own():
    shown, rough = judged({"2": 1.0005, "3": 109.0}, {"2": "1.000", "3": "100.0"}, others={"3": 0.1, "4": 0.2})
    assert (shown.ok, rough.ok) == (True, True)
    assert ("to the digits shown" in shown.claim, "up to 10 %" in rough.claim) == (True, True)
    shown, rough = judged({"2": 1.002, "3": 111.0}, {"2": "1.000", "3": "100.0"}, others={"3": 0.1})
    assert (shown.ok, rough.ok) == (False, False)


def test_numbers_of_the_original_keep_the_digits_they_were_printed_with():
    known = original("noisy_data")["tables"]["white"]["mse"]["kernel PCA"]
    assert [(number, number.digits) for number in (known["2.5"], known["7.5"])] == [(36.68, 3), (602.6, 2)]
    assert [Printed(text).digits for text in ("3.4e-05", "0.000000", "1e3")] == [6, 6, 0]


def test_maps_are_drawn():
    points = np.random.default_rng(0).normal(size=(40, 2))
    faint = np.arange(40) > 30
    panels = [
        Map("dots", points, points[:, 0]),
        Map("digits", points, np.arange(40) % 10, [*map(str, range(40))], faint),
    ]
    draw_maps(panels, "maps.png")
    assert Path("maps.png").stat().st_size > 10_000


def test_matrix_factorization_is_what_the_original_claimed(capsys):
    command = ["matrix_factorization", "--quick", "true"]
    assert main("experiment", command) == 0
    folder = Path("runs/matrix_factorization")
    summary = json.loads((folder / "summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 15
    assert (folder / "table.csv").read_text().count("\n") == summary["cells"] + 1
    assert "|   original | 0.00009198 |" in (folder / "table.md").read_text()
    assert all((folder / f"{name}.png").stat().st_size > 10_000 for name in ("factorization", "missing"))
    lines = (folder / "cells.jsonl").read_text()
    assert not any(math.isnan(value) for line in lines.splitlines() for value in json.loads(line)["values"].values())
    os.environ.pop("SIMEC_VISION_RUN", None)
    assert main("experiment", command) == 0
    assert (folder / "cells.jsonl").read_text() == lines
    assert main("experiment", [*command, "--processes", "0"]) == 2
    assert "at least one process" in capsys.readouterr().err


def test_flowerpots_are_what_the_original_claimed():
    assert main("experiment", ["flowerpots", "--quick", "true"]) == 0
    summary = json.loads(Path("runs/flowerpots/summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 10
    assert Path("runs/flowerpots/plants.png").stat().st_size > 50_000
    assert Path("runs/flowerpots/eigenvalues.png").stat().st_size > 10_000


def test_similarities_that_are_no_inner_products_are_learned(capsys):
    command = ["nonmetric", "--quick", "true"]
    assert main("experiment", command) == 0
    summary = json.loads(Path("runs/nonmetric/summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 10
    pictures = ("points", "digits", "digits_errors", "approach")
    assert all(Path(f"runs/nonmetric/{name}.png").is_file() for name in pictures)
    assert main("experiment", ["nonmetric", "--root", "nowhere", "--out", "full"]) == 2
    assert "torchvision.datasets.MNIST" in capsys.readouterr().err
    assert main("experiment", ["nonmetric", "--parts", "[words]", "--root", "nowhere", "--out", "words"]) == 2
    assert "Project Gutenberg 2591" in capsys.readouterr().err
    assert main("experiment", [*command, "--parts", "[wrods]", "--out", "wrong"]) == 2
    assert "did you mean 'words'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "checks", "pictures"),
    [
        ("linear_nonlinear", 15, ("maps", "errors")),
        ("class_labels", 10, ("maps", "errors")),
        ("noisy_data", 12, ("errors",)),
        ("basics", 14, ("digits", "s_curve")),
        ("paper", 16, ("classes", "kernel", "signs", "digits")),
    ],
)
def test_experiments_on_arrays_are_what_the_original_claimed(name, checks, pictures):
    assert main("experiment", [name, "--quick", "true"]) == 0
    summary = json.loads(Path(f"runs/{name}/summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == checks
    assert all(Path(f"runs/{name}/{picture}.png").stat().st_size > 30_000 for picture in pictures)


@pytest.mark.parametrize("name", ["linear_nonlinear", "class_labels"])
def test_newsgroups_that_are_not_there_are_named(name, capsys):
    assert main("experiment", [name, "--parts", "[newsgroups]", "--root", "nowhere"]) == 2
    assert "20news-bydate-train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["flowerpots", "--seeds", "[]"], "at least one process and one value of seeds"),
        (["flowerpots", "--seeds", "[-1]"], "seeds from 0 on, got -1"),
        (["recommender", "--quick", "true", "--seeds", "[]"], "one value of seeds"),
        (["flowerpots", "--seeds", "[0,0]"], "every value of seeds once"),
        (["flowerpots", "--processes", "0"], "at least one process"),
        (["noisy_data", "--quick", "true", "--images", "digits", "--parts", "[white_dims]"], "leave none"),
        (["linear_nonlinear", "--quick", "true", "--parts", "[mnist]"], "leave none"),
        (["class_labels", "--quick", "true", "--parts", "[mnist]"], "leave none"),
        (["link_prediction", "--quick", "true", "--recipe.dim", "3"], "even --recipe.dim"),
        (["link_prediction", "--quick", "true", "--recipe.every", "0"], "--recipe.every from 1 on"),
    ],
)
def test_what_cannot_be_made_is_refused_before_there_is_a_folder(options, told, capsys):
    assert main("experiment", options) == 2
    assert told in capsys.readouterr().err
    assert not Path("runs").exists()


def test_words_that_no_text_has_are_named():
    Path("nonmetric/nasa").mkdir(parents=True)
    Path("nonmetric/grimm_all.txt").write_text("once there was a king")
    with pytest.raises(InputError, match="no text has the words little"):
        words(".")


@pytest.mark.parametrize(
    "options",
    [["basics"], ["paper"], ["noisy_data", "--images", "mnist"], ["linear_nonlinear", "--parts", "[circles,mnist]"]],
    ids=lambda options: options[0],
)
def test_mnist_that_is_not_there_is_named(options, capsys):
    name = options[0]
    assert main("experiment", [*options, "--root", "nowhere"]) == 2
    assert "torchvision.datasets.MNIST" in capsys.readouterr().err
    assert not Path("runs", name, "cells.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("basics", basics.planned(["mnist", "s_curve", "newsgroups"], [0], "", False)),
        ("paper", (cell for part in paper.PARTS.values() for cell in part.planned([0], "data"))),
    ],
)
def test_every_number_of_the_original_has_its_cell(name, cells):
    known = {(cell.table, cell.row, cell.column) for cell in cells}
    given = [
        (table, row, column)
        for table, values in original(name)["tables"].items()
        for rows in values.values()
        for row, columns in rows.items()
        for column in columns
    ]
    assert set(given) <= known
    assert len(given) > 50


def test_eigenvectors_of_each_sign_are_the_best_of_their_length():
    for name, part in scaled(None, 0).items():
        values, vectors = np.linalg.eigh(part)
        best = (vectors[:, -10:] * values[-10:]) @ vectors[:, -10:].T
        assert decomposed_signs(10, None, 0, 0)[f"{name}_inner"] == pytest.approx(np.mean((part - best) ** 2))
    one, two = by_sign(None)
    assert one - two == pytest.approx(overlaps(None).similarity)


def test_how_near_eigenvectors_come_follows_from_the_eigenvalues():
    given = overlaps(None).similarity
    values, vectors = np.linalg.eigh(given)
    one, two = by_sign(None)
    for target, wanted in (("S", given), ("S1", one), ("S1 + S2", one + two)):
        for order, sizes, weights in (
            ("largest", values, np.abs(values)),
            ("largest by size", np.abs(values), np.abs(values)),
            ("largest by size, signed", np.abs(values), values),
        ):
            errors = errors_of(values, order, target)
            for dim in (1, 8, len(values)):
                first = np.argsort(-sizes, kind="stable")[:dim]
                product = (vectors[:, first] * weights[first]) @ vectors[:, first].T
                assert errors[dim - 1] == pytest.approx(np.mean((wanted - product) ** 2), abs=1e-12)


def test_signed_eigenvectors_are_the_nearest_of_their_rank_also_to_held_out_digits():
    given = overlaps(None)
    embedding, head = eigen_factors(given.similarity, 6)
    found = decomposed(6, None, True, 0)
    assert found["train"] == pytest.approx(np.mean((embedding @ head.T - given.similarity) ** 2))
    projected = np.linalg.lstsq(head, given.block.T, rcond=None)[0]
    assert found["test"] == pytest.approx(np.mean((head @ projected - given.block.T) ** 2))


def test_eigenvectors_suffer_from_what_is_unknown():
    data = {"data": "digits, 1000 rows", "root": "", "seed": 0}
    best = eigen_cell(kernel="rbf", dim=10, **data)["mse"]
    assert filled(unknown=0, **data)["mse"] == pytest.approx(best)
    assert best < filled(unknown=0.2, **data)["mse"] < filled(unknown=0.9, **data)["mse"]


def test_posts_are_counted():
    train = ["space shuttle orbit", "space shuttle launch 1999", "space shuttle", "the car"]
    assert frequent_pairs([text.split() for text in train]) == {("space", "shuttle")}
    assert joined(["the", "space", "shuttle", "space"], {("space", "shuttle")}) == ["the", "space_shuttle", "space"]
    features, new = text_features(train, ["car car orbit moon", "moon"])
    # terms in order: 1111, car, launch, orbit, space_shuttle, the; four texts, so ln 4 for one and ln 4/3 for three
    rare = np.log(4 / 3) / np.log(4)
    assert features.toarray()[0] == pytest.approx([0, 0, 0, 1, rare, 0])
    assert features.toarray()[2] == pytest.approx([0, 0, 0, 0, 1, 0])
    assert new.toarray()[0] == pytest.approx([0, 1, 0, 0.5, 0, 0])
    assert not new.toarray()[1].any()


def test_posts_are_read_from_folders_less_headers_footers_and_quotes():
    for which, count in (("train", 4), ("test", 2)):
        for group in (*GROUPS, "alt.other"):
            Path("posts", f"20news-bydate-{which}", group).mkdir(parents=True)
        for group in ("rec.autos", "sci.space", "alt.other"):
            folder = Path("posts", f"20news-bydate-{which}", group)
            (folder / "short").write_text("Subject: hello\n\njust three words\n")
            # the last block is taken for a signature, before quotes are taken out: nothing of its own is left
            (folder / "signed").write_text("Subject: no\n\n> an old quotation of somebody\n\nwords of my own here\n")
            for number in range(count):
                text = f"Subject: secret\n\n> quoted before\nan engine of {group.replace('.', ' ')} number {number}\n"
                (folder / str(number)).write_text(text)
    features, groups, new, others = newsgroups("posts")
    assert (features.shape[0], new.shape) == (8, (4, features.shape[1]))
    assert sorted(groups) == [1] * 4 + [4] * 4
    assert sorted(others) == [1, 1, 4, 4]
    # an_engine and of stand in every post, so they weigh nothing; rec autos number, sci space number: 2 of a kind
    assert features.toarray().max() == 1
    Path("posts/20news-bydate-test/sci.med").rmdir()
    with pytest.raises(InputError, match=r"20news-bydate-test has no sci\.med"):
        read_posts(Path("posts"), "test")


def test_posts_come_in_the_order_of_scikit_learn(monkeypatch):
    from sklearn.datasets import _twenty_newsgroups as theirs
    from sklearn.datasets import fetch_20newsgroups, load_files

    for which in ("train", "test"):
        for group in (*GROUPS, "alt.atheism", "sci.crypt"):
            folder = Path("posts", f"20news-bydate-{which}", group)
            folder.mkdir(parents=True)
            for number in range(5):
                (folder / str(number)).write_text(f"Subject: no\n\n{which} {group} {number}\n")
    found = {w: load_files(f"posts/20news-bydate-{w}", encoding="latin1", random_state=0) for w in ("train", "test")}
    monkeypatch.setattr(theirs, "_download_20newsgroups", lambda **_: found)
    expected = fetch_20newsgroups(
        data_home="home", subset="test", categories=GROUPS, remove=("headers", "footers", "quotes"), random_state=42
    )
    texts, groups = read_posts(Path("posts"), "test")
    assert texts == list(expected.data)
    assert groups.tolist() == expected.target.tolist()


def test_what_is_unknown_among_references_is_so_both_ways():
    chosen = left_out((60, 40), 0.3)
    assert np.array_equal(chosen[:40], chosen[:40].T)
    assert chosen.mean() == pytest.approx(0.3, abs=0.05)


def test_match_is_that_of_the_whole_matrix():
    random = np.random.default_rng(0)
    embedding, target, head = random.normal(size=(700, 3)), random.normal(size=(700, 20)), random.normal(size=(20, 3))
    found = match(embedding, target, head)
    assert found["mse"] == pytest.approx(np.mean((target - embedding @ head.T) ** 2))
    assert found["r2"] == pytest.approx(np.corrcoef(target.ravel(), (embedding @ head.T).ravel())[0, 1] ** 2)


def test_the_original_recipe_is_limited_to_the_first_seeds():
    cells = [Cell("t", row, "1", eigen_cell, {}, seed) for row in (OURS, f"{ORIGINAL}, d=2") for seed in (4, 7, 9)]
    seeds = {count: [cell.seed for cell in limit_original(cells, [4, 7, 9], count)] for count in (None, 0, 1)}
    assert seeds == {None: [4, 7, 9, 4, 7, 9], 0: [4, 7, 9], 1: [4, 7, 9, 4]}
    with pytest.raises(InputError, match="original_seeds of at least 0, got -1"):
        limit_original(cells, [4], -1)
