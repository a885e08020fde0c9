"""Real processes: two with gloo against one, and a run killed in the middle against an undisturbed one."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from simec_vision.processes import Average

SCRIPTS = Path(__file__).parent.parent / "scripts"
SMALL = [
    "--data.count",
    "200",
    "--data.size",
    "32",
    "--data.cache",
    "false",
    "--heatmaps",
    "false",
    "--references",
    "40",
]
PLAIN = ["--trainer.precision", "32-true", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


def start(script, *options, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *options]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(script, *options, folder):
    process = start(script, *options, folder=folder)
    output, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors[-3000:]
    return output


SUBSET = ["--objective.references_per_step", "16", "--objective.gram_block", "8"]
"""Some references a step: sparse gradients, which the processes exchange row by row."""


@pytest.mark.parametrize("subset", [[], SUBSET], ids=["all", "subset"])
def test_two_processes_end_where_one_does(tmp_path, subset):
    options = [
        *SMALL,
        *subset,
        *PLAIN,
        "--encoder",
        "CifarCNN",
        "--encoder.embedding_dim",
        "16",
        "--data.batches.size",
        "32",
    ]
    options += ["--trainer.max_steps", "20", "--trainer.max_epochs", "20", "--objective.orthogonality_penalty", "0.1"]
    run("pretrain", *options, "--out", "one", folder=tmp_path)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--out", "two"]
    run("pretrain", *options, *two, folder=tmp_path)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    gaps = {name: float((one[name] - two[name]).abs().max()) for name in one}
    assert max(gaps.values()) < 1e-5, gaps
    logs = [rows_of(tmp_path / name / "metrics.csv") for name in ("one", "two")]
    measures = [name for name in logs[0][-1] if name.startswith(("validation/", "train/similarity"))]
    assert len(measures) == 10
    for name in measures:
        tolerance = 2e-3 if name.endswith("spearman") else 1e-4  # ranks of nearly equal predictions swap by rounding
        assert float(logs[1][-1][name]) == pytest.approx(float(logs[0][-1][name]), rel=1e-3, abs=tolerance), name


def test_two_processes_count_every_item_once(tmp_path):
    """Seven test images do not divide by two, and validation leaves the second process without any."""
    options = [*SMALL, "--data.count", "66", "--references", "20", *PLAIN, "--trainer.max_epochs", "1"]
    run("pretrain", *options, "--out", "model", folder=tmp_path)
    tuning = ["--model", "model", "--labels", "20", *PLAIN, "--trainer.max_epochs", "2", "--batches.colour", "0"]
    tuning += ["--probe", "false", "--frozen", "true"]
    run("finetune", *tuning, "--out", "one", folder=tmp_path)
    run("finetune", *tuning, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--out", "two", folder=tmp_path)
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    assert two["test/accuracy"] == pytest.approx(one["test/accuracy"], abs=1e-6)
    assert two["test/accuracy"] * 7 == pytest.approx(round(two["test/accuracy"] * 7), abs=1e-5)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def wait_for_epochs(process, path, count):
    for _ in range(2400):
        if path.exists() and len(rows_of(path)) >= count:
            return
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.05)
    raise AssertionError(f"no {count} epochs within two minutes")


@pytest.mark.parametrize(
    ("schedule", "subset"), [("plateau", []), ("cosine", SUBSET)], ids=["plateau", "cosine, subset"]
)
def test_killed_run_resumes_to_the_same_weights(tmp_path, schedule, subset):
    options = [
        *SMALL,
        *subset,
        *PLAIN,
        "--data.batches.size",
        "40",
        "--trainer.max_epochs",
        "9",
        "--trainer.deterministic",
        "true",
    ]
    options += [
        "--optimisation.schedule",
        schedule,
        "--optimisation.patience",
        "0",
        "--optimisation.plateau_start",
        "1",
    ]
    run("pretrain", *options, "--out", "undisturbed", folder=tmp_path)
    process = start("pretrain", *options, "--out", "killed", folder=tmp_path)
    wait_for_epochs(process, tmp_path / "killed" / "metrics.csv", 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "summary.json").exists()
    run("pretrain", "--resume", "killed", folder=tmp_path)
    whole, resumed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rates = [[row["lr"] for row in rows_of(tmp_path / name / "metrics.csv")] for name in ("undisturbed", "killed")]
    assert rates[0] == rates[1]
    assert len(rates[0]) == 9


def test_an_average_keeps_few_means():
    means = torch.rand(2500, generator=torch.Generator().manual_seed(0))
    average = Average()
    assert math.isnan(average.compute())
    for count, mean in enumerate(means):
        average.update(mean, count)
        assert len(average.means) < Average.KEPT
    expected = np.average(means.double().numpy(), weights=np.arange(2500))
    assert average.compute() == pytest.approx(expected, rel=1e-12)
    assert average.compute() == pytest.approx(expected, rel=1e-12)
