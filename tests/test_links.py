"""Link prediction: the evaluator on hand-made scores, the models against slow twins, the quick experiment."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from simec_vision.cli.main import main
from simec_vision.experiments.embedding_cells import limit_original
from simec_vision.experiments.link_models import (
    Best,
    Plain,
    Recipe,
    TurnedHeads,
    counted,
    cubes,
    linked_otherwise,
    plain_loss,
    turned_loss,
)
from simec_vision.experiments.link_prediction import claims, planned, spelled
from simec_vision.experiments.links import Graph, Known, block_graph, both_ways, measures, rank, ranks, read_graph
from simec_vision.experiments.results import original
from simec_vision.experiments.table_report import Found
from simec_vision.items import InputError

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]


def test_other_true_answers_are_left_out_and_ties_stay_open():
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2], [0.3, 0.1, 0.2, 0.4]])
    known = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 3, 1, 3])
    best, worst = rank(scores, torch.tensor([1, 3, 1]), known)
    assert best.tolist() == [1, 1, 3]
    assert worst.tolist() == [2, 4, 3]
    with pytest.raises(ValueError, match="NaN"):
        rank(torch.full((1, 3), torch.nan), torch.tensor([0]), (torch.tensor([0]), torch.tensor([0])))


def test_tied_answers_share_the_mean_of_their_ranks():
    found = measures(np.array([[1, 1], [2, 4], [10, 12]]))
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)
    assert found["mrr_best"] == pytest.approx((1 + 1 / 2 + 1 / 10) / 3)
    assert found["mrr_worst"] == pytest.approx((1 + 1 / 4 + 1 / 12) / 3)
    assert [found[f"hits_{k}"] for k in (1, 3, 10)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert (found["median"], found["mean_rank"]) == (3, 5)


def test_queries_are_ranked_as_one_by_one():
    graph = block_graph(3, 5)
    table = torch.randn(graph.directions, graph.entities, graph.entities, generator=torch.Generator().manual_seed(0))
    found = ranks(lambda sources, direction: table[direction, sources], graph.queries["test"], Known(graph))
    true = {tuple(query) for rows in graph.queries.values() for query in rows.tolist()}
    for (source, direction, answer), both in zip(graph.queries["test"].tolist(), found, strict=True):
        row = table[direction, source]
        rivals = [e for e in range(graph.entities) if e == answer or (source, direction, e) not in true]
        assert both.tolist() == [1 + sum(row[e] > row[answer] for e in rivals)] * 2


def test_both_ways_and_all_relations_as_one():
    queries = both_ways(np.array([[0, 1, 2], [2, 0, 0]]), 2)
    assert queries.tolist() == [[0, 1, 2], [2, 0, 0], [2, 3, 0], [0, 2, 2]]
    union = Graph(3, ("a", "b"), {"train": queries}).union()
    assert union.queries["train"].tolist() == [[0, 0, 2], [2, 0, 0]]


def test_files_are_read_and_missing_ones_named():
    Path("g").mkdir()
    with pytest.raises(InputError, match=r"train\.txt is not there: get it from https"):
        read_graph(Path("g"))
    for split, text in (("train", "b\tr\ta\nc\tq\tb\n"), ("valid", "a\tr\tc\n"), ("test", "c\tr\ta\n")):
        Path(f"g/{split}.txt").write_text(text)
    graph = read_graph(Path("g"))
    assert (graph.entities, graph.relations) == (3, ("q", "r"))
    assert graph.queries["train"].tolist() == [[1, 1, 0], [2, 0, 1], [0, 3, 1], [1, 2, 2]]
    Path("g/test.txt").write_text("c\tr\ta\n\nc r a\n")
    with pytest.raises(InputError, match="line 3"):
        read_graph(Path("g"))
    Path("g/test.txt").write_bytes("é\tr\ta\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"UTF-8 in g/test\.txt"):
        read_graph(Path("g"))
    assert main("experiment", ["link_prediction", "--root", "none"]) == 2


def test_heads_are_turned_embeddings():
    model = TurnedHeads(5, 4, 6)
    real, imaginary = (part.detach().chunk(2, dim=1) for part in (model.table.weight, model.turns.weight))
    entities, turns = (torch.complex(*part) for part in (real, imaginary))
    expected = torch.einsum("d,ed,fd->ef", turns[3], entities, entities.conj()).real
    assert torch.allclose(model.scores(torch.arange(5), 3), expected, atol=1e-6)
    assert cubes(model.table.weight).item() == pytest.approx((entities.abs() ** 3).sum().item() / 5, rel=1e-3)


def test_all_entities_as_negatives_make_the_whole_cross_entropy():
    model, queries = TurnedHeads(7, 2, 4), torch.tensor([[0, 1, 3], [6, 1, 2]])
    loss = turned_loss(model, queries, 7, Recipe(negatives=100, penalty=0.0))
    assert loss.item() == pytest.approx(cross_entropy(model.scores(queries[:, 0], 1), queries[:, 2]).item(), rel=1e-5)


def test_the_originals_loss_is_binary_cross_entropy():
    model = Plain(6, 3)
    scores, target = model(torch.tensor([4, 2])), torch.zeros(2, 6)
    target[0, [1, 5]], target[1, 0] = 1.0, 1.0
    ours = plain_loss(scores, [torch.tensor([1, 5]), torch.tensor([0])])
    assert ours.item() == pytest.approx(binary_cross_entropy_with_logits(scores, target).item(), rel=1e-5)


def test_rules_count_what_training_links():
    train = both_ways(np.array([[0, 0, 1], [1, 0, 0], [2, 0, 3], [4, 1, 3]]), 2)
    graph = Graph(5, ("alike", "other"), {"train": train})
    sources = torch.tensor([3])
    assert counted(graph)(sources, 1).tolist() == [[0, 0, 0, 1, 0]]
    scores = linked_otherwise(graph)(sources, 0)[0]
    assert scores.argmax() == 2
    assert scores[2] == pytest.approx(2 / 3)


def test_overlaps_of_directions_are_those_of_their_pairs_one_by_one():
    graph = block_graph(3, 5)
    pairs = [{(a, b) for a, d, b in graph.queries["train"].tolist() if d == one} for one in range(graph.directions)]
    sources = torch.arange(graph.entities)
    for one, own in enumerate(pairs):
        expected = 1e-3 * counted(graph)(sources, one)
        for a, b in np.ndindex(graph.entities, graph.entities):
            others = [p for other, p in enumerate(pairs) if other != one and (a, b) in p]
            expected[a, b] += max((len(own & p) / len(p) for p in others), default=0)
        assert torch.allclose(linked_otherwise(graph)(sources, one), expected)


def test_rows_that_the_original_has_no_number_of_are_named():
    theirs = original("link_prediction")["tables"]
    assert spelled("WN18RR") == "wn18rr"
    assert spelled("fb15K-237") == "FB15k-237"
    assert spelled("nations") == "nations"
    for name, ok in (("WN18RR", True), ("nations", False)):
        cells = limit_original([*planned("data", name, {}, [0])], [0], 0)
        found = Found([], theirs, Path(), cells)
        (check,) = claims(found)
        assert check.ok is ok
        assert ("SimEc" in check.measured) is not ok
        assert "by how often, linked otherwise" in check.measured


def test_the_best_epoch_is_kept():
    model = torch.nn.Linear(1, 1, bias=False)
    best = Best(model)
    for epoch, mrr in enumerate((0.2, 0.5, 0.4)):
        model.weight.data.fill_(epoch)
        best.see(epoch, mrr)
    best.restore()
    assert (model.weight.item(), best.mrr, best.course[-1]) == (1, 0.5, (2, 0.4))


def test_links_of_drawn_blocks_are_predicted():
    assert main("experiment", ["link_prediction", "--quick", "true"]) == 0
    folder = Path("runs/link_prediction")
    summary = json.loads((folder / "summary.json").read_text())
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert len(summary["checks"]) == 5
    table = (folder / "table.md").read_text()
    assert "First 10: training, of which at most 2000 queries are drawn" in table
    lines = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    assert all(line["values"]["train_mrr"] > line["values"]["mrr"] for line in lines if line["row"].startswith("SimEc"))
    told = (folder / "relations.md").read_text()
    assert "leads, back" in told
    assert "SimEc, turned heads | SimEc, original recipe" in told
    assert (folder / "training.png").stat().st_size > 10_000
