import copy
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from simec_vision import InputError, Items, SimilarityHead, SimilarityModel
from simec_vision.datamodules.image_data import Batches, ImageDataModule, Loaded, Normalisation
from simec_vision.datamodules.image_store import ImageStore
from simec_vision.encoders import MLP
from simec_vision.finetuning import Classifier, FineTuning, embed_all
from simec_vision.losses import gram_penalty, gram_penalty_block, masked_mse, orthogonality_penalty
from simec_vision.metrics import similarity_match
from simec_vision.objective import block_of_references, factors_pay, gram_estimate, see
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective, Pretraining
from simec_vision.similarities import AttributeDistance, SameClass, Similarity
from tests import oracles

COUNT = 60


class Colours(ImageDataModule):
    """Plain 4×4 images whose red says their number, and whose green says their class."""

    def __init__(self, batches=Batches(size=10, flip=True, shift=1, seed=3)):
        super().__init__(batches, Normalisation())

    def similarities(self) -> dict[str, Similarity]:
        return {"red": AttributeDistance("red"), "class": SameClass("label")}

    def load(self) -> Loaded:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
        images[..., 0] = generator.integers(0, 256, (COUNT, 1, 1))
        images[..., 1] = generator.integers(0, 3, (COUNT, 1, 1)) * 100
        columns = {"red": images[:, 0, 0, 0].astype(float), "label": images[:, 0, 0, 1].astype(str)}
        columns["red"][5] = math.nan
        splits = {"train": np.arange(40), "validation": np.arange(40, 50), "test": np.arange(50, 60)}
        return Loaded(Items(np.array([f"i{i}" for i in range(COUNT)]), columns), ImageStore(images), splits)


REFERENCES = np.arange(6, 18)


def make_module(data, objective=None, optimisation=None):
    torch.manual_seed(0)
    targets = {name: similarity.bind(data.items, REFERENCES) for name, similarity in data.similarities().items()}
    heads = {name: SimilarityHead(5, len(REFERENCES)) for name in targets}
    return Pretraining(SimilarityModel(MLP(48, 5, (16,)), heads), targets, objective, optimisation, seed=1)


def make_trainer(**options):
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(**{"enable_checkpointing": False, "max_epochs": 2, **silent, **options})


def weights_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.filterwarnings("ignore")
def test_a_step_follows_the_objective():
    data = Colours(Batches(size=40, flip=False, shift=0))
    objective = Objective(weights={"red": 2.0}, gram_penalty=0.7, gram_block=0, orthogonality_penalty=0.3)
    module = make_module(data, objective, Optimisation("sgd", lr=0.1, weight_decay=0, schedule="constant", clip=0))
    expected = copy.deepcopy(module.model)
    loss = torch.zeros(())
    index = torch.arange(40)
    predicted = expected(data.normalised(index.numpy()))
    for name, weight in (("red", 2.0), ("class", 1.0)):
        target, head = module.targets[name], expected.head(name).weight
        penalty = 0.7 * gram_penalty(head, target.gram()) + 0.3 * orthogonality_penalty(head)
        loss = loss + weight * (masked_mse(predicted[name], target(index)) + penalty)
    loss.backward()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    for (name, parameter), trained in zip(expected.named_parameters(), module.model.parameters(), strict=True):
        step = parameter.grad * (1 + 0.9)  # Nesterov's first step is (1 + momentum) · gradient
        torch.testing.assert_close(trained, parameter - 0.1 * step, atol=1e-6, rtol=0, msg=name)


def step_of_a_subset(optimisation, block=0):
    """Train one step that sees 8 of 12 references, 4 of them in the Gram penalty's block or all."""
    data = Colours(Batches(size=40, flip=False, shift=0))
    options = {"gram_penalty": 0.7, "gram_block": block, "orthogonality_penalty": 0.3}
    module = make_module(data, Objective(weights={"red": 2.0}, references_per_step=8, **options), optimisation)
    twin = copy.deepcopy(module.model)
    columns = torch.from_numpy(np.sort(block_of_references(12, 8, 1, 0)))
    index = torch.arange(40)
    embedding, loss = twin.embed(data.normalised(index.numpy())), torch.zeros(())
    for name, weight in (("red", 2.0), ("class", 1.0)):
        target, rows = module.targets[name], twin.head(name).weight[columns]
        inner = torch.from_numpy(block_of_references(8, block, 1, 0, draw=1)) if block else torch.arange(8)
        gram = gram_penalty_block(rows[inner], target.gram()[columns][:, columns][inner][:, inner], 12)
        penalty = 0.7 * gram + 0.3 * orthogonality_penalty(rows, 12)
        loss = loss + weight * (masked_mse(embedding @ rows.T, target(index)[:, columns]) + penalty)
    loss.backward()
    make_trainer(max_epochs=1).fit(module, data)
    return module.model, twin, columns


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", [0, 4])
def test_a_step_over_a_subset_of_references_follows_the_objective(block):
    trained, twin, _ = step_of_a_subset(Optimisation("sgd", lr=0.1, weight_decay=0, schedule="constant", clip=0), block)
    for (name, parameter), new in zip(twin.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(new, parameter - 0.1 * 1.9 * parameter.grad, atol=1e-6, rtol=0, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_a_row_wise_step_is_the_dense_one_on_the_rows_seen_and_none_elsewhere():
    trained, twin, columns = step_of_a_subset(
        Optimisation("adamw", lr=0.1, schedule="constant", clip=0.3)
    )  # the norm is 0.4
    before = copy.deepcopy(twin)
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.3)
    torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=1e-4).step()
    unseen = torch.ones(12, dtype=torch.bool)
    unseen[columns] = False
    for name in trained.heads:
        twin.head(name).weight.data[unseen] = before.head(name).weight.data[unseen]
    for (name, parameter), new in zip(twin.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(new, parameter, atol=1e-4, rtol=0, msg=name)  # Adam blows up the smallest ones
    assert torch.equal(trained.head("red").weight[unseen], before.head("red").weight[unseen])


@pytest.mark.filterwarnings("ignore")
def test_training_on_subsets_of_references_lowers_the_loss_to_all():
    data = Colours()
    module = make_module(data, Objective(references_per_step=4), Optimisation(lr=1e-2))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    first = trainer.callback_metrics["validation/loss"]
    trainer = make_trainer(max_epochs=25)
    trainer.fit(module, data)
    assert trainer.callback_metrics["validation/loss"] < 0.6 * first


def test_subsets_of_references_are_random_and_of_more_than_one():
    seen = np.concatenate([block_of_references(12, 8, 0, step) for step in range(300)])
    assert np.bincount(seen, minlength=12) == pytest.approx(200, abs=40)
    assert Objective(references_per_step=8).samples(9)
    assert not Objective(references_per_step=8).samples(8)
    with pytest.raises(ValueError, match="at least 2 references, or 0 for all, got 1"):
        Objective(references_per_step=1)


@pytest.mark.filterwarnings("ignore")
def test_held_out_images_meet_all_references_some_at_a_time(monkeypatch):
    measured = []
    for pairs in (10**6, 50):  # all 12 at once; 5, 5 and 2
        monkeypatch.setattr("simec_vision.pretraining.EVALUATED_PAIRS", pairs)
        module, trainer = make_module(data := Colours(), Objective(references_per_step=4)), make_trainer()
        validated, tested = (run(module, data, verbose=False)[0] for run in (trainer.validate, trainer.test))
        measured.append({**validated, **tested})
    assert measured[1] == pytest.approx(measured[0], abs=1e-6, nan_ok=True)
    index = data.split("validation")
    expected = masked_mse(module.model(data.normalised(index))["red"], module.targets["red"](torch.from_numpy(index)))
    assert measured[1]["validation/red/loss"] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("case", ["factors", "block", "dense", "subset"])
def test_the_gram_penalty_takes_the_cheapest_way_to_one_expectation(monkeypatch, case):
    module = make_module(Colours())
    target, head = module.targets["class"], module.model.head("class")
    objective = Objective(references_per_step=7 if case == "subset" else 0)
    monkeypatch.setattr("simec_vision.objective.factors_pay", lambda *sizes: case == "factors")
    block = {"factors": 9, "block": 9, "dense": 0, "subset": 5}[case]
    values = [
        gram_estimate(see(head, objective, 0, step, False), target, block, 0, step, None).item() for step in range(400)
    ]
    full = gram_penalty(head.weight, target.gram()).item()
    spread = np.std(values) / 20
    assert np.mean(values) == pytest.approx(full, abs=1e-6 + 4 * spread)
    assert (spread < 1e-7) == (case in ("factors", "dense"))


@pytest.mark.parametrize(
    ("sizes", "pays"),
    [
        ((1000, 64, 512, 10), True),
        ((1000, 64, 512, 0), False),
        ((100_000, 64, 512, 10), False),
        ((3000, 32, 3000, 3072), False),
    ],
)
def test_factors_pay_where_they_take_fewer_operations(sizes, pays):
    assert factors_pay(*sizes) == pays


@pytest.mark.filterwarnings("ignore")
def test_training_lowers_the_loss_and_logs_every_head():
    data = Colours()
    module = make_module(data)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    first = trainer.callback_metrics["train/similarity_loss"]
    trainer = make_trainer(max_epochs=40)
    trainer.fit(module, data)
    assert trainer.callback_metrics["train/similarity_loss"] < 0.5 * first
    names = {f"validation/{head}/{m}" for head in ("red", "class") for m in ("mse", "r2", "spearman")}
    assert names <= set(trainer.callback_metrics)
    measured = trainer.test(module, data, verbose=False)[0]
    test = data.split("test")
    predicted = module.eval()(data.normalised(test))["red"]
    expected = similarity_match(predicted.detach(), module.targets["red"](torch.from_numpy(test)))
    assert {m: measured[f"similarity/red/{m}"] for m in expected} == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_seed_gives_the_same_run():
    runs = []
    for _ in range(2):
        module = make_module(data := Colours())
        make_trainer().fit(module, data)
        runs.append(weights_of(module))
    assert torch.equal(*runs)


@pytest.mark.filterwarnings("ignore")
def test_plateau_and_orthogonality_begin_when_told():
    data = Colours()
    optimisation = Optimisation("adam", lr=1e-3, weight_decay=0, schedule="plateau", patience=0, plateau_start=2)
    module = make_module(data, Objective(orthogonality_penalty=1.0, orthogonality_start=1 / 3), optimisation)
    rates, losses, started = [], [], []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            started.append(pl_module._orthogonality_started())

        def on_train_epoch_end(self, trainer, pl_module):
            losses.append(float(trainer.callback_metrics["train/similarity_loss"]))

    make_trainer(max_epochs=9, callbacks=[Watch()]).fit(module, data)
    assert rates == pytest.approx(oracles.plateau_schedule(losses, 1e-3, 0, 2), rel=1e-10)
    assert started == [epoch > 3 for epoch in range(9)]


@pytest.mark.filterwarnings("ignore")
def test_frozen_heads_stay_and_get_no_penalty():
    data = Colours()
    module = make_module(data)
    for name in module.model.heads:
        module.model.head(name).weight.requires_grad_(False)
    before = module.model.head("red").weight.clone()
    make_trainer().fit(module, data)
    assert torch.equal(module.model.head("red").weight, before)
    assert module.penalty() == 0.0


def test_heads_and_targets_must_agree():
    data = Colours()
    target = data.similarities()["red"].bind(data.items, REFERENCES)
    with pytest.raises(ValueError, match=r"heads \['red'\], got them for \['blue'\]"):
        Pretraining(SimilarityModel(MLP(48, 5), {"red": SimilarityHead(5, 12)}), {"blue": target})
    with pytest.raises(ValueError, match=r"'red' with one row a reference \(12\), got one for 9"):
        Pretraining(SimilarityModel(MLP(48, 5), {"red": SimilarityHead(5, 9)}), {"red": target})


class Normed(torch.nn.Module):
    """An encoder with everything that a careless freezing would let move."""

    embedding_dim = 5

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(48, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5)
        )

    def forward(self, images):
        return self.layers(images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frozen", [False, True])
def test_freezing_keeps_weights_and_statistics(frozen):
    data = Colours()
    classes = data.use_labels("label", 24, seed=1)
    encoder = Normed()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    module = FineTuning(Classifier(encoder, 5, classes), Optimisation(lr=0.05), frozen=frozen)
    make_trainer(max_epochs=3).fit(module, data)
    same = [torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items()]
    assert all(same) if frozen else not any(same)


@pytest.mark.filterwarnings("ignore")
def test_finetuning_learns_and_is_saved(tmp_path):
    data = Colours(Batches(size=10, flip=False, shift=0))
    classes = data.use_labels("label")
    module = FineTuning(Classifier(MLP(48, 5, (16,)), 5, classes), Optimisation(lr=0.02))
    trainer = make_trainer(max_epochs=30)
    trainer.fit(module, data)
    accuracy = trainer.test(module, data, verbose=False)[0]["test/accuracy"]
    assert accuracy >= 0.8
    module.classifier.save(tmp_path)
    loaded = Classifier.load(tmp_path).eval()
    assert loaded.classes == classes
    test = data.split("test")
    correct = (loaded(data.normalised(test)).argmax(dim=1) == data.labels[test]).float().mean()
    assert float(correct) == pytest.approx(accuracy)


@pytest.mark.filterwarnings("ignore")
def test_smoothed_labels_leave_doubt():
    def trained(smoothing):
        torch.manual_seed(0)
        data = Colours(Batches(size=10, flip=False, shift=0))
        classes = data.use_labels("label")
        module = FineTuning(Classifier(MLP(48, 5, (16,)), 5, classes), Optimisation(lr=0.02), label_smoothing=smoothing)
        make_trainer(max_epochs=30).fit(module, data)
        items = data.split("train")
        return module.classifier.eval()(data.normalised(items)).softmax(dim=1).max(dim=1).values.mean()

    assert trained(0.0) > 0.97
    assert trained(0.3) < 0.85
    with pytest.raises(InputError, match="label_smoothing of at least 0 and below 1, got 2"):
        FineTuning(Classifier(MLP(48, 5), 5, ["a", "b"]), label_smoothing=2)


def test_labels_are_nested_and_seeded():
    data = Colours()
    subsets = []
    for count in (5, 10, 40):
        data.use_labels("label", count, seed=4)
        subsets.append(data.subset("train").tolist())
    assert subsets[2][:10] == subsets[1]
    assert subsets[1][:5] == subsets[0]
    data.use_labels("label", 5, seed=5)
    assert data.subset("train").tolist() != subsets[0]
    with pytest.raises(ValueError, match=r"\(40\), got 41"):
        data.use_labels("label", 41)


def test_labels_of_each_class_are_nested_and_as_many_as_there_are():
    data, subsets = Colours(), []
    classes = data.items.classes("label")[0]
    there = np.bincount(classes[data.split("train")])
    most = int(there.max())
    for count in (2, 5, most):
        data.use_labels("label", count, seed=4, per_class=True)
        subsets.append(data.subset("train"))
        assert np.bincount(classes[subsets[-1]]).tolist() == np.minimum(there, count).tolist()
    assert set(subsets[0]) < set(subsets[1]) < set(subsets[2])
    data.use_labels("label", 40, seed=4)
    assert subsets[2].tolist() == data.subset("train").tolist()
    with pytest.raises(ValueError, match=rf"largest class \({most}\), got {most + 1}"):
        data.use_labels("label", most + 1, per_class=True)


def test_one_process_and_two_see_the_same_global_batches():
    def batches(processes):
        data = Colours(Batches(size=10, flip=True, shift=1, seed=3))
        seen = []
        for rank in range(processes):
            data._processes = lambda rank=rank: (processes, rank)
            loader = data.train_dataloader()
            loader.sampler.set_epoch(2)
            seen.append([(index.tolist(), data.augmented(images, index, 2)) for images, index in loader])
        return seen

    one, two = batches(1)[0], batches(2)
    assert len(one) == len(two[0]) == 4
    for step, (index, images) in enumerate(one):
        both = {i: image for process in two for i, image in zip(*process[step], strict=True)}
        assert sorted(both) == sorted(index)
        assert all(torch.equal(both[i], image) for i, image in zip(index, images, strict=True))


def test_held_out_items_come_once_over_all_processes():
    data = Colours()
    seen = []
    for rank in range(3):
        data._processes = lambda rank=rank: (3, rank)
        seen += [i for _, index in data.val_dataloader() for i in index.tolist()]
    assert sorted(seen) == list(range(40, 50))


def test_every_process_needs_a_share():
    data = Colours(Batches(size=64))
    data.check_for_processes(1, "train", "validation", "test")
    data.check_for_processes(8, "train", "validation", "test")
    with pytest.raises(InputError, match="at least 11 items of the split test, one for each process, got 10"):
        data.check_for_processes(11, "test")
    with pytest.raises(InputError, match=r"divide by 3 processes, or a batch of them, got 40: take batches\.size 39"):
        data.check_for_processes(3, "train")
    data._processes = lambda: (11, 10)
    with pytest.raises(InputError, match="the split validation"):
        data.val_dataloader()
    data.use_labels("label", 2)
    data.check_for_processes(3, "train")


@pytest.mark.filterwarnings("ignore")
def test_a_data_module_of_another_make_will_do():
    class Plain(pl.LightningDataModule):
        def train_dataloader(self):
            return torch.utils.data.DataLoader([(torch.randn(8, 3, 4, 4), torch.arange(8))], batch_size=None)

        val_dataloader = test_dataloader = train_dataloader

    module, trainer = make_module(Colours()), make_trainer()
    trainer.fit(module, datamodule=Plain())
    assert 0 < trainer.test(module, datamodule=Plain(), verbose=False)[0]["similarity/red/mse"] < math.inf


@pytest.mark.filterwarnings("ignore")
def test_accumulated_batches_drop_other_units():
    drawn = []

    class Drawing(Pretraining):
        def training_step(self, batch, batch_idx):
            drawn.append(float(torch.rand(())))
            return super().training_step(batch, batch_idx)

    whole = make_module(Colours())
    module = Drawing(whole.model, dict(whole.targets), seed=1)
    make_trainer(max_epochs=1, accumulate_grad_batches=2).fit(module, datamodule=Colours())
    assert len(set(drawn)) == len(drawn) == 4


def test_a_block_of_the_gram_penalty_has_two_references():
    for wrong in (1, -3):
        with pytest.raises(InputError, match=f"gram_block as at least 2 references, or 0 for all, got {wrong}"):
            Objective(gram_block=wrong)


def test_embedding_leaves_the_mode_alone():
    data = Colours()
    encoder = Normed().train()
    embeddings, index = embed_all(encoder, (data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()))
    assert encoder.training
    assert index.tolist() == list(range(40, 50))
    assert torch.allclose(embeddings, encoder.eval()(data.normalised(index.numpy())), atol=1e-6)
