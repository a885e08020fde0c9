import pytest
import torch

from simec_vision.optimisation import Optimisation, configured, cosine_factor
from tests import oracles


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.1), (7, 0.0), (50, 0.5)])
def test_cosine_equals_twin(total, warmup):
    for step in range(total):
        assert cosine_factor(step, total, warmup) == pytest.approx(
            oracles.cosine_schedule(step, total, warmup), abs=1e-10
        )
    assert cosine_factor(total, total, warmup) == pytest.approx(0, abs=1e-10)


def test_cosine_is_what_the_optimizer_gets():
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    made = configured([parameter], Optimisation(lr=0.5, warmup=0.2), 10, "loss")
    rates = []
    for _ in range(10):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.5 * oracles.cosine_schedule(step, 10, 0.2) for step in range(10)], abs=1e-10)


@pytest.mark.parametrize(("patience", "start"), [(5, 4), (0, 0), (1, 2)])
def test_plateau_equals_twin(patience, start):
    losses = [5, 4, 3, 3, 3, 2.99999, 2.9, 3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    parameter = torch.nn.Parameter(torch.zeros(1))
    made = configured([parameter], Optimisation(schedule="plateau", lr=1.0, patience=patience), 10, "train/loss")
    assert made["lr_scheduler"]["monitor"] == "train/loss"
    rates = []
    for epoch, loss in enumerate(losses):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        if epoch >= start:
            made["lr_scheduler"]["scheduler"].step(loss)
    assert rates == pytest.approx(oracles.plateau_schedule(losses, 1.0, patience, start), abs=1e-10)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "sgd"])
def test_frozen_parameters_are_left_out(name):
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    trained = torch.nn.Parameter(torch.zeros(1))
    made = configured([frozen, trained], Optimisation(optimizer=name, schedule="constant"), 10, "loss")
    assert made["optimizer"].param_groups[0]["params"] == [trained]
    assert "lr_scheduler" not in made
