import math
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from simec_vision import InputError
from simec_vision.optimisation import ROWWISE, Optimisation, align, configured, cosine_factor, make_optimizer, scaled_lr
from tests import oracles

TEN_STEPS = SimpleNamespace(estimated_stepping_batches=10, precision="32-true", accumulate_grad_batches=1)


def test_a_cosine_has_an_end():
    endless = SimpleNamespace(estimated_stepping_batches=math.inf, precision="32-true")
    parameter = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(InputError, match=r"an end for the schedule cosine: give trainer\.max_epochs"):
        configured([parameter], Optimisation(), endless, "loss")
    assert "lr_scheduler" not in configured([parameter], Optimisation(schedule="constant"), endless, "loss")


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.1), (7, 0.0), (50, 0.5)])
def test_cosine_equals_twin(total, warmup):
    for step in range(total):
        assert cosine_factor(step, total, warmup) == pytest.approx(
            oracles.cosine_schedule(step, total, warmup), abs=1e-10
        )
    assert cosine_factor(total, total, warmup) == pytest.approx(0, abs=1e-10)


def test_cosine_is_what_the_optimizer_gets():
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    made = configured([parameter], Optimisation(lr=0.5, warmup=0.2), TEN_STEPS, "loss")
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
    made = configured([parameter], Optimisation(schedule="plateau", lr=1.0, patience=patience), TEN_STEPS, "train/loss")
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
    made = configured([frozen, trained], Optimisation(optimizer=name, schedule="constant"), TEN_STEPS, "loss")
    assert made["optimizer"].param_groups[0]["params"] == [trained]
    assert "lr_scheduler" not in made


def sparse_gradient(rows, values, total):
    return torch.sparse_coo_tensor(torch.tensor(rows)[None], values, (total, values.shape[1]), check_invariants=True)


@pytest.mark.parametrize("name", ROWWISE)
def test_a_row_moves_as_if_only_its_own_steps_were(name):
    """Row by row, PyTorch's dense optimiser over this row alone, which sees the steps that see the row."""
    options = Optimisation(optimizer=name, lr=0.1, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    whole = torch.nn.Parameter(start.clone())
    alone = [torch.nn.Parameter(row.clone()) for row in start]
    optimizer = make_optimizer([whole], options, row_wise=True)
    single = [make_optimizer([row], options) for row in alone]
    for seen in ([0, 1, 2], [2, 0], [0], [1, 0, 2], [0, 2], [2, 1]):
        gradient = torch.randn(len(seen), 3, dtype=torch.float64, generator=generator)
        whole.grad = sparse_gradient(seen, gradient, 4)
        for row, part in zip(seen, gradient, strict=True):
            alone[row].grad = part
            single[row].step()
        optimizer.step()
    torch.testing.assert_close(whole.detach(), torch.stack([*alone]).detach(), atol=1e-12, rtol=0)
    assert torch.equal(whole[3], start[3])


@pytest.mark.parametrize("name", ROWWISE)
def test_row_wise_optimisers_are_the_usual_ones_elsewhere_and_resume(name):
    options = Optimisation(optimizer=name, lr=0.1, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=generator)
    gradients = torch.randn(6, 4, 3, generator=generator)
    usual = torch.nn.Parameter(start.clone())
    dense, rows = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    expected, optimizer = make_optimizer([usual], options), make_optimizer([dense, rows], options, row_wise=True)
    for step, gradient in enumerate(gradients):
        usual.grad, dense.grad = gradient.clone(), gradient.clone()
        rows.grad = sparse_gradient([3, 1, 0, 2], gradient[[3, 1, 0, 2]], 4)
        expected.step()
        optimizer.step()
        assert rows.grad.is_sparse
        if step == 2:
            state = optimizer.state_dict()
            optimizer = make_optimizer([dense, rows], options, row_wise=True)
            optimizer.load_state_dict(state)
    assert torch.equal(dense, usual)
    torch.testing.assert_close(rows.detach(), usual.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "precision", "fused"),
    [("adamw", "32-true", True), ("adam", "16-mixed", None), ("adamax", "32-true", None)],
)
def test_optimiser_is_fused_where_it_can_be(name, precision, fused):
    trainer = SimpleNamespace(estimated_stepping_batches=10, precision=precision)
    made = configured([torch.nn.Parameter(torch.zeros(2))], Optimisation(optimizer=name), trainer, "loss")
    assert made["optimizer"].defaults.get("fused") is fused


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_step_on_the_processor_looks_for_no_gpu(name, monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = make_optimizer([weight], Optimisation(optimizer=name))
    weight.grad = torch.ones(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("counted GPUs"))
    optimizer.step()
    assert (weight < 0).all()


@pytest.mark.parametrize(
    ("name", "lr_batch", "batch", "expected"),
    [
        ("adamw", 256, 256, 0.1),
        ("adam", 256, 1024, 0.2),
        ("sgd", 256, 1024, 0.4),
        ("adamw", 256, 64, 0.05),
        ("sgd", 0, 64, 0.1),
    ],
)
def test_learning_rate_follows_the_batch_size(name, lr_batch, batch, expected):
    options = Optimisation(optimizer=name, lr=0.1, lr_batch=lr_batch)
    assert scaled_lr(options, batch) == pytest.approx(expected)
    data = SimpleNamespace(batches=SimpleNamespace(size=batch // 2))
    trainer = SimpleNamespace(
        estimated_stepping_batches=10, precision="32-true", accumulate_grad_batches=2, datamodule=data
    )
    made = configured([torch.nn.Parameter(torch.zeros(2))], replace(options, schedule="constant"), trainer, "loss")
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(expected)


def test_loaded_moments_lie_as_their_weights():
    """A fused optimiser reads both in the order in which they lie."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[0].to(memory_format=torch.channels_last)
    optimizers = [make_optimizer(layer.parameters(), Optimisation(lr=0.1)) for layer in layers]
    images = torch.randn(2, 3, 8, 8)
    for step in range(2):
        state = deepcopy(optimizers[0].state_dict())
        for layer, optimizer in zip(layers, optimizers, strict=True):
            optimizer.zero_grad()
            layer(images).square().mean().backward()
            if step and layer is layers[1]:
                optimizer.load_state_dict(state)
                align(optimizer)
            optimizer.step()
    torch.testing.assert_close(layers[0].weight, layers[1].weight, atol=1e-6, rtol=1e-5)


def test_batch_size_of_the_learning_rate_is_a_number_of_images():
    with pytest.raises(InputError, match="lr_batch as a batch size, or 0"):
        Optimisation(lr_batch=-1)
