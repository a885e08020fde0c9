"""Heads of which each process holds some rows train as whole ones, and checkpoints hold them whole."""

import os
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy
from torch import nn
from torch.multiprocessing.spawn import spawn

from simec_vision import InputError
from simec_vision.cli.building import bind_targets, build_model
from simec_vision.datamodules import DrawnShoes
from simec_vision.encoders import PlainCNN
from simec_vision.heads import SimilarityHead
from simec_vision.model import SimilarityModel
from simec_vision.pretraining import Pretraining
from simec_vision.sharding import all_processes, clip
from tests.test_nodes import CIFAR, ONE, TWO, assert_close, free_port, weights
from tests.test_processes import run

ROWS, DIM, SEEN = 7, 3, torch.tensor([0, 3, 4, 6])
pytestmark = pytest.mark.filterwarnings("ignore")


def process(rank, port):
    """Check a head of 7 references in one of two processes, of which the first has four rows and the second three."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, DIM, generator=generator)
    embeddings = torch.randn(2, 5, DIM, generator=generator)  # a share of the batch for each process
    whole, head = SimilarityHead(DIM, ROWS, weight), SimilarityHead(DIM, ROWS, weight * (rank == 0))
    head.shard(all_processes(torch.device("cpu")))
    assert head.num_references == ROWS
    assert head.weight.shape == ((4, DIM), (3, DIM))[rank]
    assert torch.equal(head.whole(), weight)
    assert torch.equal(head.part.whole(head.part.of(torch.arange(ROWS))), torch.arange(ROWS))
    for columns, sparse in ((None, False), (SEEN, True), (SEEN, False)):
        whole.weight.grad = head.weight.grad = None
        torch.stack([(each @ whole.rows(columns).T).square().mean() for each in embeddings]).mean().backward()
        (embeddings[rank] @ head.rows(columns, sparse).T).square().mean().backward()
        gradient = head.weight.grad.coalesce() if sparse else head.weight.grad
        assert not sparse or gradient.indices()[0].tolist() == [[0, 3], [0, 2]][rank]
        torch.testing.assert_close(gradient.to_dense(), head.part.of(whole.weight.grad))
    few = SimilarityHead(DIM, 1)  # the second process has no row of it
    few.shard(head.part.mesh)
    few.rows().sum().backward()
    assert few.weight.grad.shape == ((1, DIM), (0, DIM))[rank]
    with pytest.raises(ValueError, match="gather_heads"):
        SimilarityModel(nn.Identity(), {"kind": head}).save("nowhere")
    other = nn.Parameter(torch.ones(2))
    other.grad = torch.full((2,), 3.0)
    expected = torch.nn.utils.clip_grad_norm_([whole.weight, other], 0.5)
    assert expected > 0.5
    other.grad = torch.full((2,), 3.0)
    clip([other], [head.weight], 0.5)
    torch.testing.assert_close(head.weight.grad, head.part.of(whole.weight.grad), atol=1e-6, rtol=1e-5)
    head.gather()
    assert torch.equal(head.weight, weight)
    torch.distributed.destroy_process_group()


def test_a_part_gives_and_takes_what_the_whole_does():
    spawn(process, (free_port(),), nprocs=2)


@pytest.mark.parametrize(
    ("seen", "frozen"),
    [("0", False), ("40", False), ("0", True)],
    ids=["all references", "40 a step", "frozen"],
)
def test_two_processes_that_share_the_heads_end_where_one_does(seen, frozen, tmp_path):
    """81 references are not divided by two; a sharded run goes on as one process, and the other way round."""
    options = [*CIFAR, "--references", "81", "--objective.references_per_step", seen, "--optimisation.clip", "0.5"]
    options += ["--objective.gram_block", "20", "--objective.orthogonality_penalty", "1"]
    options += ["--optimisation.schedule", "constant"]
    sharded = [*TWO, "--head_sharded", "true"]
    options += ["--head_start", "eigen", "--head_frozen", "true"] if frozen else []
    run("pretrain", *options, "--trainer.max_epochs", "2", "--out", "one", folder=tmp_path)
    run("pretrain", *options, *sharded, "--trainer.max_epochs", "2", "--out", "two", folder=tmp_path)
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "two"))
    if seen == "0":
        return
    run("pretrain", *options, "--trainer.max_epochs", "1", "--out", "alone", folder=tmp_path)
    run("pretrain", "--resume", "alone", *sharded, "--trainer.max_epochs", "2", folder=tmp_path)
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "alone"))
    run("pretrain", *options, *sharded, "--trainer.max_epochs", "1", "--out", "begun", folder=tmp_path)
    state = torch.load(tmp_path / "begun/checkpoints/last.ckpt", weights_only=True)
    assert {state["state_dict"][f"model.heads.{name}.weight"].shape for name in ("heel", "closure")} == {(81, 16)}
    moments = [kept["exp_avg"].shape for kept in state["optimizer_states"][0]["state"].values()]
    assert moments.count((81, 16)) == 2
    run("pretrain", "--resume", "begun", *ONE, "--trainer.max_epochs", "2", folder=tmp_path)
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "begun"))


def test_the_trainers_own_clipping_takes_the_norm_over_all_processes(tmp_path):
    options = [*CIFAR, "--references", "81", "--optimisation.clip", "0", "--trainer.gradient_clip_val", "0.05"]
    options += ["--optimisation.optimizer", "sgd", "--optimisation.lr", "1", "--trainer.max_epochs", "1"]
    run("pretrain", *options, "--out", "one", folder=tmp_path)
    run("pretrain", *options, *TWO, "--head_sharded", "true", "--out", "two", folder=tmp_path)
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_only_ddp_shares_heads_out(monkeypatch):
    data = DrawnShoes(60, 32, cache=False)
    targets = bind_targets(data, data.similarities(), 10, seed=0)
    model = build_model(data, PlainCNN(8, size=32), targets, "random", False)
    module = Pretraining(model, targets, head_sharded=True)
    strategy = FSDPStrategy()
    monkeypatch.setattr(Pretraining, "trainer", SimpleNamespace(world_size=2, strategy=strategy))
    with pytest.raises(InputError, match=r"trainer.strategy ddp for head_sharded, got FSDPStrategy"):
        module.configure_model()
    half = SimpleNamespace(world_size=2, strategy=DDPStrategy(), precision="16-mixed")
    monkeypatch.setattr(Pretraining, "trainer", half)
    with pytest.raises(InputError, match=r"bf16-mixed or 32-true for head_sharded, got 16-mixed"):
        module.configure_model()
    monkeypatch.setattr(Pretraining, "trainer", SimpleNamespace(world_size=1, strategy=strategy))
    module.configure_model()
    assert module.model.head("heel").part is None
