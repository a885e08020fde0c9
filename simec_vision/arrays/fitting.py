"""From an estimator's arguments to the model, the module and one call of the Trainer."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simec_vision.arrays.batches import TensorBatches
from simec_vision.arrays.recipes import Recipe, recipe, start_weights
from simec_vision.arrays.running import Course, Moments, make_trainer, silence
from simec_vision.arrays.scaling import Scaling, measure, values_of
from simec_vision.arrays.targets import bound, check_own, own_similarities
from simec_vision.encoders import MLP, dense_layers
from simec_vision.heads import SimilarityHead, head_weight
from simec_vision.items import InputError, nearest
from simec_vision.losses import refuse_outside_unit_interval
from simec_vision.model import SimilarityModel
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective, Pretraining

CALLS = 1_000_003
"""Distance of the seeds of random blocks in calls of ``partial_fit`` that begin an epoch apart."""


@dataclass
class Training:
    """What one fit works with.

    Args:
        options: The estimator.
        items: Inputs ``(item, …)``, dense or sparse.
        similarities: Head name → target similarities ``(item, reference)``.
        grams: Head name → the references' own similarities, or None.
        scaling: How both are scaled.
    """

    options: Any
    items: Any
    similarities: dict[str, Any]
    grams: dict[str, np.ndarray | None]
    scaling: Scaling = field(default_factory=Scaling)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the estimator names."""
        return recipe(self.options.recipe)

    def chosen(self, name: str) -> Any:
        """Give an argument, or what the recipe says where it was left open."""
        value = getattr(self.options, name)
        return getattr(self.recipe, name) if value is None else value

    def measure(self, chosen: np.ndarray) -> None:
        """Find the scaling by some items, as far as the recipe and the encoder let things be scaled."""
        if self.recipe.scaled and self.options.encoder is None:
            free = self._inner_products() and self.options.embedding_activation == "none"
            trained = {name: matrix[chosen] for name, matrix in self.similarities.items()}
            self.scaling = measure(self.items[chosen], trained if free else {})

    def _inner_products(self) -> bool:
        return self.options.loss != "bce" and self.options.output_activation == "none"

    def build(self) -> SimilarityModel:
        """Make the model as it starts."""
        options, dim = self.options, int(self.options.embedding_dim)  # a grid search gives NumPy's
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            encoder = self._encoder(dim)
            sizes = {name: matrix.shape[1] for name, matrix in self.similarities.items()}
            heads = {name: SimilarityHead(dim, size, frozen=options.head_frozen) for name, size in sizes.items()}
            model = SimilarityModel(encoder, heads)
            if self.recipe.weights == "glorot" or not self.recipe.scaled:
                start_weights(model, self.recipe.weights)
        for name in heads:
            weight = self._head_start(name)
            if weight is not None:
                model.head(name).weight.data.copy_(weight)
        if options.head_frozen and options.encoder is None and self.recipe.scaled:
            _start_unread_at_zero(model)
        return model

    def _encoder(self, dim: int) -> nn.Module:
        options = self.options
        if options.encoder is not None:
            return deepcopy(options.encoder)
        hidden = [int(width) for width in options.hidden]
        return MLP(self.items.shape[1], dim, hidden, options.activation, options.embedding_activation)

    def _head_start(self, name: str) -> Tensor | None:
        start, own = self.chosen("head_start"), self.grams[name]
        if start is None:
            known = own is not None and not np.isnan(own).any()
            start = "eigen" if known and self.gram_strength() > 0 else "random"
        if isinstance(start, str):
            return self._named_start(start, name)
        if isinstance(start, Mapping):
            if name not in start:
                raise InputError(f"Expected head_start of {name!r} as of the other similarities, got only {[*start]}")
            start = start[name]
        given = torch.from_numpy(np.ascontiguousarray(start, dtype=np.float32))
        shape = self.similarities[name].shape[1], self.options.embedding_dim
        if given.shape != shape:
            raise InputError(
                f"Expected head_start of shape (reference, embedding) = {shape}, got {tuple(given.shape)}. A factor of "
                "shape (embedding, reference) must be transposed first"
            )
        return given / self.scaling.similarity**0.5

    def _named_start(self, start: str, name: str) -> Tensor | None:
        if start not in ("random", "eigen"):
            raise InputError(f"Expected head_start random, eigen or a matrix (reference, embedding), got {start!r}")
        if start == "random":
            return None
        own = self.grams[name]
        if own is None or np.isnan(own).any():
            raise InputError(
                "Expected the references' own similarities, all known, for head_start eigen: give them as gram, or "
                "give y whose first rows are those of the references"
            )
        return head_weight(torch.from_numpy(own / self.scaling.similarity), self.options.embedding_dim)

    def gram_strength(self) -> float:
        """Give the strength of the Gram penalty: the recipe's where the argument was left open and it is possible."""
        lacking = [name for name, own in self.grams.items() if own is None]
        given = self.options.gram_penalty
        if given is None:
            return 0.0 if lacking or not self._inner_products() else self.recipe.gram_penalty
        if given > 0 and lacking and not self.options.head_frozen:
            raise InputError(
                f"Expected the references' own similarities for gram_penalty {given}: the first rows of y are not "
                "theirs (they are not symmetric, or there are too few); give them as gram, or gram_penalty 0"
            )
        return 0.0 if lacking else float(given)

    def objective(self, continued: bool = False) -> Objective:
        """Say what is minimised: the mean over the similarities of their losses, and the sum of all penalties."""
        options, count = self.options, len(self.similarities)
        return Objective(
            options.loss, dict.fromkeys(self.similarities, 1 / count), self.gram_strength() * count,
            self.recipe.gram_block, options.orthogonality_penalty * count,
            0.0 if continued else self.chosen("orthogonality_start"), output=options.output_activation, l2=self._l2(),
        )  # fmt: skip

    def _l2(self) -> dict[str, float]:
        last = f"encoder.layers.{2 * len(self.options.hidden) + 1}"
        hidden, embedding, head = (self.chosen(f"l2_{part}") for part in ("hidden", "embedding", "head"))
        if self.options.encoder is not None:
            last = "encoder"
        strengths = {"encoder": hidden, last: embedding, "heads": head}
        return strengths if any(strengths.values()) else {}

    def optimisation(self, constant: bool) -> Optimisation:
        """Say how it is optimised."""
        schedule: Any = "constant" if constant else self.chosen("schedule")
        rate = self.chosen("lr")
        return Optimisation(self.chosen("optimizer"), rate, 0, 0.0, schedule, clip=self.recipe.clip)

    def targets(self) -> dict[str, Any]:
        """Make the modules that give target similarities, scaled.

        Raises:
            InputError: for similarities outside [0, 1] beside ``bce``.
        """
        for matrix in self.similarities.values() if self.options.loss == "bce" else ():
            refuse_outside_unit_interval(torch.from_numpy(values_of(matrix)))
        size, strength = self.scaling.similarity, self.gram_strength()
        owns = {
            name: torch.from_numpy(own / size) if own is not None and strength > 0 else None
            for name, own in self.grams.items()
        }
        return {name: bound(matrix / size, owns[name]) for name, matrix in self.similarities.items()}

    def run(
        self, model: SimilarityModel, held_out: np.ndarray, begun: int, epochs: int | None, moments: Any
    ) -> tuple[Course, Any]:
        """Train the model in place.

        Args:
            model: On scaled inputs and similarities.
            held_out: Which items validation looks at instead of training, shape ``(item,)``.
            begun: How many epochs it has been trained for before.
            epochs: Epochs; None: as the arguments say, with their schedule.
            moments: The optimiser's, from before.

        Returns:
            The losses, and the optimiser's moments.
        """
        options, continued = self.options, epochs is not None
        train = torch.from_numpy(np.flatnonzero(~held_out))
        batch = self.recipe.batch(len(train)) if options.batch_size is None else options.batch_size
        epochs = epochs or options.epochs or self.recipe.epochs(len(train), batch)
        course = Course(self.chosen("restore_best") and not continued)
        kept = Moments(moments)
        own = [] if options.callbacks is None else [*options.callbacks]
        trainer = make_trainer(epochs, options.accelerator, options.precision, options.verbose, [*own, kept, course])
        with silence():
            seed = options.seed + CALLS * begun
            torch.manual_seed(seed)
            objective, optimisation = self.objective(continued), self.optimisation(continued)
            model.train()  # Lightning leaves modules in the mode that they are in
            module = Pretraining(model, self.targets(), objective, optimisation, seed, lean=True)
            device = trainer.strategy.root_device
            items = self._tensor()
            batches = TensorBatches(items, train, batch, options.seed, begun).to(device)
            validation = TensorBatches(items, torch.from_numpy(np.flatnonzero(held_out)), 1024).to(device)
            trainer.fit(module, batches, [validation] if held_out.any() else None)
        module.cpu()
        return course, kept.state

    def _tensor(self) -> Any:
        scaled = self.scaling.inputs(self.items)
        return scaled.tocsr() if hasattr(scaled, "tocsr") else torch.from_numpy(np.ascontiguousarray(scaled))


HARDLY = 3e-3
"""Length of a head's dimension, over that of its longest, up to which it hardly says anything of embeddings."""


def _start_unread_at_zero(model: SimilarityModel) -> None:
    """Start those dimensions of embeddings at 0 that frozen heads hardly read: training would leave them to chance."""
    lengths = [model.head(name).weight.norm(dim=0) for name in model.heads]
    unread = torch.stack([length <= HARDLY * length.max() for length in lengths]).all(dim=0)
    last = dense_layers(model.encoder)[-1]
    last.weight.data[unread] = 0.0
    last.bias.data[unread] = 0.0


def read_grams(given: Any, similarities: dict[str, Any], needed: bool = True) -> dict[str, np.ndarray | None]:
    """Read the references' own similarities, or find them in the first rows of the target similarities.

    Args:
        given: A matrix, an array ``(reference, reference, similarity)``, a dict name → matrix, or None.
        similarities: Head name → target similarities.
        needed: Whether they are looked for, which makes a dense ``(reference, reference)``, where they are not given.

    Raises:
        InputError: for another number of matrices, unknown names, or matrices that are not as described.
    """
    if given is None:
        return {name: own_similarities(matrix) if needed else None for name, matrix in similarities.items()}
    if not isinstance(given, Mapping):
        array = given if hasattr(given, "tocsr") else np.asarray(given)
        stacked = [array[..., k] for k in range(array.shape[-1])] if array.ndim == 3 else [array]
        if len(stacked) != len(similarities):
            raise InputError(f"Expected a gram for each of {[*similarities]}, got {len(stacked)}: give a dict")
        given = dict(zip(similarities, stacked, strict=True))
    for name in given:
        if name not in similarities:
            raise InputError(f"Expected gram of {[*similarities]}, got {name!r}: {nearest(str(name), [*similarities])}")
    return {
        name: check_own(given[name], matrix.shape[1], name) if name in given else None
        for name, matrix in similarities.items()
    }
