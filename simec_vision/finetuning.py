"""Fine-tuning: the LightningModule that trains a classifier on an encoder."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.encoders import build_encoder
from simec_vision.files import write_json, write_weights
from simec_vision.items import InputError
from simec_vision.optimisation import Optimisation, configured
from simec_vision.processes import Average, keep_local, share_buffers, share_of_mean
from simec_vision.training import Training

WEIGHTS = "classifier.safetensors"
DESCRIPTION = "classifier.json"


class Classifier(nn.Module):
    """An encoder and a linear layer to the classes.

    Args:
        encoder: Maps images to embeddings ``(batch, embedding)``.
        embedding_dim: Length of an embedding.
        classes: Names of the classes.
        about: Anything else as JSON values, saved and loaded with it.
        scale: What embeddings are multiplied by, such as :func:`unit_scale`.
        start: Start the linear layer from ``zero``, or from PyTorch's ``random`` weights, as the original did.
    """

    scale: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int,
        classes: list[str],
        about: dict[str, Any] | None = None,
        scale: float = 1.0,
        start: Literal["zero", "random"] = "zero",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("scale", torch.tensor(scale))
        self.linear = nn.Linear(embedding_dim, len(classes))
        if start == "zero":
            # The first steps move it towards the classes' mean embeddings; a random start would instead bend the
            # encoder to fit it, which few labels cannot undo.
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        self.classes = list(classes)
        self.about = dict(about or {})

    def forward(self, images: Tensor) -> Tensor:
        """Give class scores (log-odds up to a constant) ``(batch, class)`` of images."""
        return self.linear(self.encoder(images) * self.scale)

    def save(self, folder: str | Path) -> None:
        """Write ``classifier.safetensors`` and ``classifier.json`` into a folder; each whole or not at all."""
        write_weights(Path(folder) / WEIGHTS, self.state_dict())
        options = getattr(self.encoder, "options", {})
        encoder = {"kind": type(self.encoder).__name__, "options": options}
        sizes = {"embedding_dim": self.linear.in_features, "classes": self.classes}
        write_json(Path(folder) / DESCRIPTION, {"format": 1, "encoder": encoder, **sizes, "about": self.about})

    @classmethod
    def load(cls, folder: str | Path, encoder: nn.Module | None = None) -> "Classifier":
        """Read what :meth:`save` wrote; ``encoder`` is needed where it is the user's own class.

        Raises:
            InputError: if a file is missing or damaged, or the weights belong to another classifier.
        """
        from simec_vision.files import read_description
        from simec_vision.model import load_weights

        about = read_description(Path(folder) / DESCRIPTION, {"encoder", "classes", "embedding_dim"})
        if encoder is None:
            encoder = build_encoder(about["encoder"]["kind"], about["encoder"]["options"])
        classifier = cls(encoder, about["embedding_dim"], about["classes"], about.get("about"))
        load_weights(classifier, Path(folder) / WEIGHTS)
        return classifier


def check_smoothing(label_smoothing: float) -> None:
    """Make sure that a share of a label can be spread.

    Raises:
        InputError: if it is below 0, or 1 and more, which would leave nothing to learn.
    """
    if not 0 <= label_smoothing < 1:
        raise InputError(f"Expected a label_smoothing of at least 0 and below 1, got {label_smoothing}")


class FineTuning(Training):
    """Train a classifier with cross-entropy, all layers or only the linear one.

    Args:
        classifier: What is trained.
        optimisation: Optimiser and schedule.
        frozen: Leave the encoder as it is: no gradient, no dropout, and no change of batch-normalisation statistics.
        seed: Seed of dropout.
        label_smoothing: Share of a label that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567,
            section 7).

    Raises:
        InputError: for a label smoothing below 0, or 1 and more.
    """

    def __init__(
        self,
        classifier: Classifier,
        optimisation: Optimisation | None = None,
        frozen: bool = False,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        check_smoothing(label_smoothing)
        super().__init__(optimisation, seed)
        self.label_smoothing = label_smoothing
        self.classifier = classifier
        self.frozen = frozen
        classifier.encoder.requires_grad_(not frozen)
        keep_local(self)
        self._accuracy = Average()

    def train(self, mode: bool = True) -> "FineTuning":
        """Switch training behaviour on or off; a frozen encoder stays in evaluation, or its statistics would move."""
        super().train(mode)
        if self.frozen:
            self.classifier.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Give class scores ``(batch, class)``."""
        return self.classifier(images)

    def configure_optimizers(self) -> Any:
        """Make optimiser and schedule."""
        return configured(self.classifier.parameters(), self.optimisation, self.trainer, self.monitor)

    def on_train_epoch_start(self) -> None:
        """Keep a frozen encoder in evaluation, however the trainer switched modes."""
        self.train(self.training)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the mean cross-entropy of a batch of images and labels; the label −1 does not count."""
        images, labels = batch
        known = labels >= 0
        share, count = share_of_mean(known)
        loss = F.cross_entropy(
            self(images).float(), labels, ignore_index=-1, reduction="sum", label_smoothing=self.label_smoothing
        )
        loss = loss / known.sum().clamp(min=1) * share
        self.log_epoch("train/loss", loss, count, prog_bar=True)  # the count that all processes share
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        share_buffers(self.classifier)
        self._accuracy = Average()

    def on_test_epoch_start(self) -> None:
        """Begin to count."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count correct validation images."""
        images, labels = batch
        self._accuracy.update((self(images).argmax(dim=1) == labels).float().mean(), len(labels))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count correct test images."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy on the validation images."""
        self.log("validation/accuracy", self._accuracy.compute(), prog_bar=True, sync_dist=False)

    def on_test_epoch_end(self) -> None:
        """Log the accuracy on the test images."""
        self.log("test/accuracy", self._accuracy.compute(), sync_dist=False)


class Mirrored(nn.Module):
    """Embed an image as the mean of its own embedding and its mirror image's, where left and right mean nothing.

    Args:
        encoder: Maps images ``(batch, channel, height, width)`` to embeddings ``(batch, embedding)``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.train(encoder.training)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images and their mirror images: ``(batch, embedding)``."""
        return (self.encoder(images) + self.encoder(images.flip(3))) / 2


@torch.no_grad()
def embed_all(encoder: nn.Module, batches: Any, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Embed all images that a loader gives.

    Args:
        encoder: Maps images to embeddings; put into evaluation for the time being.
        batches: Gives normalised images ``(batch, …)`` and their labels or index ``(batch,)``.
        device: Where to compute.

    Returns:
        Embeddings ``(item, embedding)``, float32 on the CPU, and the labels or index ``(item,)``.

    Raises:
        InputError: if there is no batch.
    """
    was_training = encoder.training
    encoder.eval()
    try:
        pairs = [(encoder(images.to(device)).float().cpu(), labels.cpu()) for images, labels in batches]
    finally:
        encoder.train(was_training)
    if not pairs:
        raise InputError("Expected images to embed, got none")
    embeddings, labels = zip(*pairs, strict=True)
    return torch.cat(embeddings), torch.cat(labels)


def unit_scale(embeddings: Tensor) -> float:
    """Give the factor that brings embeddings ``(item, embedding)`` to standard deviation 1 over all dimensions.

    The scale of a Similarity Encoder's embeddings follows from the size of the similarities and of its heads. Left
    small, a new linear layer needs many steps to say anything, in which few labels spoil the encoder (measured on
    CIFAR-10 with 250 labels).
    """
    spread = float((embeddings - embeddings.mean(dim=0)).std()) if len(embeddings) > 1 else 0.0
    return 1 / spread if spread > 0 else 1.0
