"""Similarity Encoders for arrays, by scikit-learn's conventions: fit, transform, predict, score."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Self
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from simec_vision.arrays.checks import check_options
from simec_vision.arrays.fitting import Training, read_grams
from simec_vision.arrays.inference import determination, embed, predict
from simec_vision.arrays.targets import read_similarities
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel


class SimilarityEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn to embed items so that embeddings predict given similarities (Horn & Müller 2018, arXiv 1702.01824).

    ``predict(X) = transform(X) @ head.T``, where each row of the head belongs to a reference, an item to which
    similarity is measured. ``fit(X, y)`` minimises the loss between predicted and target similarities y of shape
    ``(item, reference)``, plus penalties. New items are embedded from their features alone. It trains on
    :class:`simec_vision.pretraining.Pretraining` with Lightning, and leaves no file, no line and the random numbers as
    they were. None means: as the recipe says.

    Args:
        embedding_dim: Length of an embedding.
        hidden: Width of each hidden layer; none makes a linear encoder.
        activation: ``tanh``, ``relu`` or ``sigmoid``, or a list of one for each hidden layer.
        embedding_activation: The same for the embedding, or ``none``.
        output_activation: ``none``, or ``sigmoid`` for similarities between 0 and 1; then no Gram penalty.
        loss: ``mse``, ``mae`` or ``bce`` (similarities between 0 and 1; predictions are probabilities), the mean over
            an item's known similarities, then over items, then over similarities.
        recipe: ``fast`` scales inputs and similarities to one size for training (learning rates, penalties and losses
            hold for these; the model itself takes and gives what it should), inputs of more than about a thousand
            features to a smaller one, and takes Adam, large batches and a cosine schedule. ``keras`` and ``torch``
            train as the original's two implementations: the first with Adamax, Glorot start, L2 1e-8 and 1e-5 of
            hidden and embedding layer and penalties from the start, the second with Adam, a plateau schedule from
            epoch 4, the orthogonality penalty after 1/3 of the epochs, and the best epoch restored.
        gram_penalty: Strength of the mean squared gap between ``head @ head.T`` and the references' own similarities,
            which makes inner products of embeddings similarities themselves (the original's ``s_ll_reg``). These are
            ``gram`` of :meth:`fit`, or else the first rows of y, where symmetric. ``fast``: 1 where there are any. In
            cross-validation the first rows of a fold are mostly others: give ``gram``, or 0 here.
        orthogonality_penalty: Strength of the mean squared off-diagonal of ``head.T @ head`` (``orth_reg``).
        orthogonality_start: Share of the epochs after which it begins.
        l2_hidden: Strength λ of λ Σ w² of the hidden layers' weights (not biases). It goes through the optimiser's
            scaling of the gradient, as in the original.
        l2_embedding: The same of the embedding layer; of all of an own ``encoder``.
        l2_head: The same of the head.
        head_start: ``random``, ``eigen`` (the best head for the references' own similarities, by eigendecomposition),
            or a matrix ``(reference, embedding)`` or a dict of them by name. ``fast``: ``eigen`` where all of those
            are known and the Gram penalty counts.
        head_frozen: Keep the head as it starts; its penalties then say nothing, the encoder's L2 stays. ``fast``:
            dimensions of embeddings that it hardly reads, such as those beyond the similarities' rank, start at 0.
        epochs: Passes over the items; default 25, and with ``fast`` as many as 800 steps take.
        batch_size: Items of a step; 32, and with ``fast`` 32 to 256 by the number of items.
        lr: Largest learning rate.
        optimizer: ``adam``, ``adamw``, ``adamax`` or ``sgd``.
        schedule: ``cosine``, ``constant`` or ``plateau``.
        restore_best: Give back the epoch with the lowest loss, that of validation items where there are any.
        validation: Share of the items that are held out to judge epochs by.
        encoder: An encoder of your own (an ``nn.Module`` that gives embeddings of ``embedding_dim``) in place of dense
            layers, for X of any shape ``(item, …)``; a copy is trained.
        seed: Seed of the start, the order of items and what is held out.
        accelerator: Lightning's name of the device: ``auto``, ``cpu``, ``gpu``.
        precision: Lightning's name: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        callbacks: Lightning callbacks.
        verbose: Show a progress bar.

    Attributes:
        model_: The :class:`simec_vision.SimilarityModel`.
        n_iter_: Epochs that it has been trained for.
        history_: Name → loss of each epoch: ``train/loss``, ``train/similarity_loss``, ``validation/loss``.
        best_epoch_: Number of the epoch whose weights were restored, None where the last one's were kept.
        n_features_in_, feature_names_in_: As in scikit-learn.
    """

    def __init__(
        self,
        embedding_dim: int = 2,
        *,
        hidden: Sequence[int] = (),
        activation: str | Sequence[str] = "tanh",
        embedding_activation: Literal["none", "tanh", "relu", "sigmoid"] = "none",
        output_activation: Literal["none", "sigmoid"] = "none",
        loss: Literal["mse", "mae", "bce"] = "mse",
        recipe: Literal["fast", "keras", "torch"] = "fast",
        gram_penalty: float | None = None,
        orthogonality_penalty: float = 0.0,
        orthogonality_start: float | None = None,
        l2_hidden: float | None = None,
        l2_embedding: float | None = None,
        l2_head: float | None = None,
        head_start: Any = None,
        head_frozen: bool = False,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        optimizer: Literal["adam", "adamw", "adamax", "sgd"] | None = None,
        schedule: Literal["cosine", "constant", "plateau"] | None = None,
        restore_best: bool | None = None,
        validation: float = 0.0,
        encoder: Any = None,
        seed: int = 0,
        accelerator: str = "auto",
        precision: str = "32-true",
        callbacks: Sequence[Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.embedding_dim = embedding_dim
        self.hidden = hidden
        self.activation = activation
        self.embedding_activation = embedding_activation
        self.output_activation = output_activation
        self.loss = loss
        self.recipe = recipe
        self.gram_penalty = gram_penalty
        self.orthogonality_penalty = orthogonality_penalty
        self.orthogonality_start = orthogonality_start
        self.l2_hidden = l2_hidden
        self.l2_embedding = l2_embedding
        self.l2_head = l2_head
        self.head_start = head_start
        self.head_frozen = head_frozen
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.schedule = schedule
        self.restore_best = restore_best
        self.validation = validation
        self.encoder = encoder
        self.seed = seed
        self.accelerator = accelerator
        self.precision = precision
        self.callbacks = callbacks
        self.verbose = verbose

    model_: SimilarityModel
    history_: dict[str, list[float]]

    def fit(self, X: Any, y: Any = None, gram: Any = None, validation: tuple[Any, Any] | None = None) -> Self:  # noqa: N803
        """Train from the start.

        Args:
            X: Features of the items, shape ``(item, feature)``, dense or scipy sparse.
            y: Target similarities S: an array ``(item, reference)``, or ``(item,)`` for one reference, or
                ``(item, reference, similarity)`` for several similarities, NaN where unknown; a scipy sparse matrix
                ``(item, reference)`` of the known ones (a stored zero is a known zero); or a dict name → matrix.
            gram: The references' own similarities ``(reference, reference)``, with a third axis or as a dict name →
                matrix for several (of one similarity, the name is ``similarity``); default: the first rows of y, as
                far as they are symmetric. Cross-validation takes a matrix apart as it does X where both have as many
                rows; a dict it leaves whole.
            validation: Held-out X and y to judge epochs by, in place of a share of the items.

        Raises:
            InputError: for anything that is not as described.
        """
        check_options(self)
        for name in ("model_", "_moments"):
            self.__dict__.pop(name, None)
        self.n_iter_, self.history_, self._moments = 0, {}, None
        return self._train(X, y, gram, validation, None)

    def partial_fit(self, X: Any, y: Any = None, gram: Any = None, epochs: int = 1) -> Self:  # noqa: N803
        """Train on, for some epochs at the constant learning rate ``lr``; the first call starts.

        Args:
            X: As in :meth:`fit`; the items may be others than before.
            y: As in :meth:`fit`, with the references of before.
            gram: As in :meth:`fit`.
            epochs: Passes over these items.

        Raises:
            InputError: for fewer than one, and as :meth:`fit`.
        """
        check_options(self)
        if epochs < 1:
            raise InputError(f"Expected at least one epoch, got {epochs}")
        if not hasattr(self, "model_"):
            self.n_iter_, self.history_, self._moments = 0, {}, None
        return self._train(X, y, gram, None, epochs)

    def _train(self, X: Any, y: Any, gram: Any, validation: Any, epochs: int | None) -> Self:  # noqa: N803
        first = not hasattr(self, "model_")
        items = self._items(X, reset=first)
        similarities, form = read_similarities(y, items.shape[0])
        eigen = isinstance(self.head_start, str) and self.head_start == "eigen"
        grams = read_grams(gram, similarities, needed=self.gram_penalty != 0 or eigen)
        held_out = self._held_out(items.shape[0], epochs)
        if validation is not None:
            items, similarities, held_out = self._with_validation(items, similarities, validation)
        training = Training(self, items, similarities, grams)
        if first:
            training.measure(~held_out)
            self._scaling, self._form = training.scaling, form
            model = training.build()
        else:
            training.scaling, model = self._scaling, deepcopy(self.model_)
            self._check_same_references(similarities)
            self._scaling.fold(model, back=True)
        course, self._moments = training.run(model, held_out, self.n_iter_, epochs, self._moments)
        self._scaling.fold(model)
        self.model_ = model.eval()
        self._take_in(course)
        return self

    def _take_in(self, course: Any) -> None:
        self.best_epoch_ = None if course.best is None else course.best[0]
        for name, losses in course.losses.items():
            self.history_[name] = [*self.history_.get(name, []), *losses]
        self.n_iter_ += len(course.losses["train/loss"])
        if not np.isfinite(self.history_["train/loss"][-1]):
            warn("The loss is not finite: lower lr, or scale the similarities", RuntimeWarning, stacklevel=4)

    def _items(self, X: Any, reset: bool = False) -> Any:  # noqa: N803
        try:
            return validate_data(
                self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32],
                allow_nd=self.encoder is not None,
            )  # fmt: skip
        except ValueError as error:
            raise InputError(" ".join(str(error).split())) from error

    def _held_out(self, items: int, epochs: int | None) -> NDArray[np.bool_]:
        held_out = np.zeros(items, dtype=bool)
        count = min(items - 1, round(self.validation * items)) if epochs is None else 0
        held_out[np.random.default_rng(self.seed).permutation(items)[:count]] = True
        return held_out

    def _with_validation(self, items: Any, similarities: dict[str, Any], validation: Any) -> tuple[Any, Any, Any]:
        from scipy import sparse

        more = self._items(validation[0])
        others, _ = read_similarities(validation[1], more.shape[0])
        if {name: part.shape[1] for name, part in others.items()} != {n: p.shape[1] for n, p in similarities.items()}:
            raise InputError("Expected validation similarities to the same references as y")
        held_out = np.arange(items.shape[0] + more.shape[0]) >= items.shape[0]

        def joined(part: Any, other: Any) -> Any:
            if hasattr(part, "tocsr") != hasattr(other, "tocsr"):
                raise InputError("Expected training and validation data both dense or both sparse")
            return sparse.vstack([part, other], "csr") if hasattr(part, "tocsr") else np.concatenate([part, other])

        return joined(items, more), {name: joined(part, others[name]) for name, part in similarities.items()}, held_out

    def _check_same_references(self, similarities: Mapping[str, Any], some: bool = False) -> None:
        before = {name: self.model_.head(name).num_references for name in self.model_.heads}
        now = {name: matrix.shape[1] for name, matrix in similarities.items()}
        if now != before and not (some and self._form == "named" and now.items() <= before.items()):
            raise InputError(f"Expected similarities to as many references as before, {before}, got {now}")

    def transform(self, X: Any) -> NDArray:  # noqa: N803
        """Embed items ``(item, feature)``: ``(item, embedding)``, in the type of X (float64 or float32)."""
        check_is_fitted(self, "model_")
        return embed(self.model_, self._items(X), self.accelerator)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Predict similarities of items ``(item, feature)``, in the form that y had in :meth:`fit`."""
        check_is_fitted(self, "model_")
        sigmoid = self.loss == "bce" or self.output_activation == "sigmoid"
        return predict(self.model_, self._items(X), self.accelerator, sigmoid, self._form)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Give r² = 1 − Σ (predicted − target)² / Σ (target − mean)² over known entries, the mean over similarities.

        Args:
            X: Features of the items, as in :meth:`fit`.
            y: Target similarities, as in :meth:`fit`, with the references of before; of a dict, some will do.

        Raises:
            InputError: for other references.
        """
        check_is_fitted(self, "model_")
        items = self._items(X)
        similarities, _ = read_similarities(y, items.shape[0])
        self._check_same_references(similarities, some=True)
        predicted = self.predict(X)
        return determination(predicted, similarities, self._form)

    @property
    def head_(self) -> Any:
        """The head ``(reference, embedding)``, or name → head where there are several similarities."""
        check_is_fitted(self, "model_")
        heads = {name: self.model_.head(name).whole().numpy() for name in self.model_.heads}
        return heads if self._form in ("stack", "named") else next(iter(heads.values()))

    @property
    def _n_features_out(self) -> int:
        return self.model_.embedding_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = False
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def save(self, folder: str | Path) -> None:
        """Write arguments, model and the optimiser's moments into a new folder, whole or not at all, without pickle.

        Callbacks are left out; an own encoder must be one of the package, or be given to :meth:`load`.

        Raises:
            InputError: if the folder holds something already.
        """
        from simec_vision.arrays.saving import save

        check_is_fitted(self, "model_")
        save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, encoder: Any = None) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            folder: Where it is.
            encoder: An encoder of the same make, where it is a class of your own. It becomes the trained one, from
                which :meth:`fit` then starts.

        Raises:
            InputError: if a file is missing or damaged.
        """
        from simec_vision.arrays.saving import load

        return load(cls, Path(folder), encoder)
