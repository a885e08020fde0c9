"""One process, two, and two nodes end at the same weights: fine-tuning, resuming with another number, torchrun."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from simec_vision.cli import relevance_files
from simec_vision.cli.main import main
from tests.test_processes import PLAIN, SCRIPTS, SMALL, rows_of, run

CIFAR = [*SMALL, *PLAIN, "--encoder", "CifarCNN", "--encoder.embedding_dim", "16", "--data.batches.size", "32"]
pytestmark = pytest.mark.filterwarnings("ignore")
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
ONE = ["--trainer.devices", "1", "--trainer.strategy", "auto"]


def weights(run_folder, name="model"):
    return load_file(run_folder / "model" / f"{name}.safetensors")


def assert_close(ones, others):
    gaps = {name: float((ones[name] - others[name]).abs().max()) for name in ones}
    assert max(gaps.values()) < 1e-5, gaps


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    run(
        "pretrain",
        *CIFAR,
        "--trainer.max_epochs",
        "6",
        "--optimisation.schedule",
        "constant",
        "--out",
        "run",
        folder=folder,
    )
    return folder / "run"


def test_fine_tuning_with_two_processes_ends_where_one_does(pretrained, tmp_path):
    """Of 25 labels and batches of 16, neither the epoch nor its last batch divides by two."""
    options = ["--model", str(pretrained), "--labels", "25", "--probe", "false", *PLAIN, "--batches.size", "16"]
    # Adam would make large steps of gradients that are but rounding, as an encoder that is hardly trained has some.
    options += ["--from_scratch", "true", "--optimisation.optimizer", "sgd", "--optimisation.lr", "0.02"]
    options += ["--trainer.max_epochs", "4"]
    run("finetune", *options, "--out", "one", folder=tmp_path)
    run("finetune", *options, *TWO, "--out", "two", folder=tmp_path)
    ones, twos = (weights(tmp_path / name, "classifier") for name in ("one", "two"))
    assert_close(ones, twos)
    losses = [[float(row["train/loss"]) for row in rows_of(tmp_path / name / "metrics.csv")] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] != pytest.approx(losses[0][0], rel=1e-4)


@pytest.mark.parametrize(("before", "after"), [(TWO, ONE), (ONE, TWO)], ids=["2 then 1", "1 then 2"])
def test_a_run_resumes_with_another_number_of_processes(pretrained, tmp_path, before, after):
    options = [*CIFAR, "--optimisation.schedule", "constant", "--trainer.max_epochs", "3"]
    run("pretrain", *options, *before, "--out", "run", folder=tmp_path)
    run("pretrain", "--resume", "run", *after, "--trainer.max_epochs", "6", folder=tmp_path)
    assert_close(weights(pretrained), weights(tmp_path / "run"))
    assert [row["epoch"] for row in rows_of(tmp_path / "run" / "metrics.csv")] == list("012345")


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def torchrun(folder, port, rank, script, *options):
    """Start the agent of one of two nodes, with one process."""
    agent = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", "--rdzv-backend", "static"]
    agent += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    command = [sys.executable, "-m", "torch.distributed.run", *agent, str(SCRIPTS / f"{script}.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def outputs(agents):
    """Wait for all; whatever happens, none of their processes is left."""
    try:
        return [agent.communicate(timeout=240) for agent in agents]
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
                agent.communicate()


def test_two_nodes_end_where_one_process_does(pretrained, tmp_path):
    options = [*CIFAR, "--optimisation.schedule", "constant", "--trainer.max_epochs", "6"]
    options += ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    port = free_port()
    agents = [torchrun(tmp_path, port, rank, "pretrain", *options) for rank in range(2)]
    told = outputs(agents)
    assert [agent.returncode for agent in agents] == [0, 0], [errors[-2000:] for _, errors in told]
    assert_close(weights(pretrained), weights(tmp_path / "runs" / "pretrain"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pretrain"]
    left = sorted(path.name for path in (tmp_path / "runs" / "pretrain").iterdir())
    assert left == ["checkpoints", "config.yaml", "metrics.csv", "model", "summary.json"]
    assert "Saved runs/pretrain" in told[0][0]
    assert told[1][0].strip() == ""


@pytest.fixture
def damaged(tmp_path):
    """Options for images that are read from their files, of which one, in the share of a second process, is damaged."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    names = [f"{number:02d}.jpg" for number in range(40)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
    with open(tmp_path / "images" / "table.csv", "w", newline="") as file:
        rows = [[name, number % 3, "validation" if number < 8 else "train"] for number, name in enumerate(names)]
        csv.writer(file).writerows([["image", "kind", "split"], *rows])
    bad = tmp_path / "images" / names[3]
    bad.write_bytes(bad.read_bytes()[:200])
    options = ["--data", "ImageTable", "--data.root", "images", "--data.table", "table.csv", "--data.limit", "0"]
    return [*options, *PLAIN, "--references", "10", "--heatmaps", "false", "--trainer.max_epochs", "1"]


@pytest.mark.parametrize(("workers", "processes"), [("0", ONE), ("1", ONE), ("0", TWO)])
def test_a_bad_file_met_in_training_is_named_in_one_line(damaged, tmp_path, workers, processes):
    command = [sys.executable, str(SCRIPTS / "pretrain.py"), *damaged, *processes, "--data.batches.workers", workers]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: Expected an image in ")]
    assert len(lines) == 1, ended.stderr[-3000:]
    assert "03.jpg: " in lines[0]
    assert not (tmp_path / "runs" / "pretrain" / "summary.json").exists()
    if processes is ONE:
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
    else:  # Lightning ends the first process when another one fails
        assert ended.returncode != 0


def test_two_processes_share_the_explanation_of_a_split(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(relevance_files, "IMAGES_A_FILE", 8)
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(pretrained), "--split", "test", "--references", "2", "--head", "heel", "--out"]
    assert main("explain", [*options, "one"]) == 0
    for rank, files in ((1, [1]), (0, [0, 1, 2])):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main("explain", [*options, "two"]) == 0
        assert sorted(tmp_path.glob("two/*.npz")) == [tmp_path / "two" / f"relevance-{n:06d}.npz" for n in files]
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["images"] == 20
    names = []
    for path in sorted(tmp_path.glob("two/*.npz")):
        with np.load(path) as mine, np.load(tmp_path / "one" / path.name) as whole:
            assert set(mine) == {
                "images",
                "heel.references",
                "heel.relevance",
                "heel.score",
                "heel.baseline",
                "heel.delta",
            }
            np.testing.assert_array_equal(mine["heel.relevance"], whole["heel.relevance"])
            assert mine["heel.relevance"].shape == (2, len(mine["images"]), 3, 32, 32)
            names += mine["images"].tolist()
    assert len(set(names)) == len(names) == 20


def test_relevance_goes_on_where_it_was_and_refuses_other_options(pretrained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(pretrained), "--split", "test", "--head", "heel"]
    assert main("explain", options) == 2
    assert "Expected --out beside --split" in capsys.readouterr().err
    for wrong, told in ((["--preset", "a_flut"], "'a_flat'"), (["--references", "noshoe"], "noshoe")):
        assert main("explain", [*options, *wrong, "--out", "told"]) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "told").exists()
    assert main("explain", [*options, "--references", "1", "--out", "told"]) == 0
    first = (tmp_path / "told" / "relevance-000000.npz").stat().st_mtime_ns
    assert main("explain", [*options, "--references", "1", "--out", "told"]) == 0
    assert (tmp_path / "told" / "relevance-000000.npz").stat().st_mtime_ns == first
    assert main("explain", [*options, "--references", "2", "--out", "told"]) == 2
    assert "Expected the options of told/config.yaml" in capsys.readouterr().err
