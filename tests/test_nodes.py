"""One process, two, and two nodes end at the same weights: fine-tuning, resuming with another number, torchrun."""

import csv
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.test_processes import PLAIN, SCRIPTS, SMALL, rows_of, run

CIFAR = [*SMALL, *PLAIN, "--encoder", "CifarCNN", "--encoder.embedding_dim", "16", "--data.batches.size", "32"]
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
    options += ["--trainer.max_epochs", "4"]
    run("finetune", *options, "--out", "one", folder=tmp_path)
    run("finetune", *options, *TWO, "--out", "two", folder=tmp_path)
    ones, twos = (weights(tmp_path / name, "classifier") for name in ("one", "two"))
    assert_close(ones, twos)
    start = weights(pretrained)
    assert max(float((ones[name] - start[name]).abs().max()) for name in start if name in ones) > 1e-3
    losses = [[float(row["train/loss"]) for row in rows_of(tmp_path / name / "metrics.csv")] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


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


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("processes", [ONE, TWO], ids=["1 process", "2 processes"])
def test_a_bad_file_met_in_training_ends_in_one_line(tmp_path, processes, workers):
    """The file is in the share of the second process."""
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
    options += [*PLAIN, "--references", "10", "--heatmaps", "false", "--data.batches.workers", workers]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(SCRIPTS / "pretrain.py"), *options, *processes, "--trainer.max_epochs", "1"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    lines = [line for line in ended.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: Expected an image in ")
    assert "03.jpg: " in lines[0]
    assert not (tmp_path / "runs" / "pretrain" / "summary.json").exists()
