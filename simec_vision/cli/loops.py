"""What training is compared with: the bare loop, which is the practical limit, and the naive loop of the original.

Both train the same network to predict similarities, with a Gram and an orthogonality penalty, without Lightning.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from simec_vision.encoders import Encoder
from simec_vision.losses import gram_penalty_block, orthogonality_penalty
from simec_vision.model import SimilarityModel
from simec_vision.optimisation import Optimisation, make_optimizer

NAIVE_BATCH = 32
NAIVE_RATE = 1e-4
NAIVE_GRAM = 100.0
NAIVE_ORTHOGONALITY = 1.0
"""The original's settings for same-class similarities on CIFAR-10 (notebook 08 of Horn's simec, 2020)."""

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names of mixed precisions → the type that they compute in."""


class BareLoop:
    """Training stripped to what must be computed: the practical limit.

    Normalised images lie in memory (on the device), channels last, in the order in which they come: nothing is loaded,
    shuffled, normalised or augmented, nothing logged. Everything is known, so losses look for no NaN; the Gram
    penalty's block is a slice of shuffled references; the optimiser is fused.

    Args:
        model: What is trained, with one head.
        images: Normalised, shape ``(item, channel, height, width)``; each step takes the next ``batch`` of them.
        labels: Class of each image, shape ``(item,)``.
        references: Class of each reference, shape ``(reference,)``.
        batch: Images of a step.
        block: References in a step's block of the Gram penalty; 0 takes all.
        strengths: Of the Gram penalty and of the orthogonality penalty.
        optimisation: Optimiser, learning rate and clipping; the schedule is left out.
        precision: Lightning's name: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
    """

    def __init__(
        self, model: SimilarityModel, images: Tensor, labels: Tensor, references: Tensor, batch: int, block: int,
        strengths: tuple[float, float], optimisation: Optimisation, precision: str,
    ) -> None:  # fmt: skip
        device = images.device
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        self.images, self.labels, self.references = images, labels.to(device), references.to(device)
        self.batch, self.block, self.strengths = batch, block or len(references), strengths
        self.optimizer = make_optimizer(self.model.parameters(), optimisation)
        self.clip, self.type = optimisation.clip, AUTOCAST.get(precision)
        self.done = 0

    def run(self, steps: int) -> None:
        """Train for so many steps."""
        for _ in range(steps):
            rows, block = self._next(self.batch, len(self.images)), self._next(self.block, len(self.references))
            with torch.autocast(self.images.device.type, dtype=self.type, enabled=self.type is not None):
                loss = self.loss(rows, block)
            self.optimizer.zero_grad()
            loss.backward()
            if self.clip > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.done += 1

    def _next(self, count: int, total: int) -> slice:
        start = self.done * count % max(1, total - count + 1)
        return slice(start, start + count)

    def loss(self, rows: slice, block: slice) -> Tensor:
        """Compute the objective of the images ``rows``, with the references ``block`` in the Gram penalty."""
        (head,) = self.model.heads
        predicted, weight = self.model(self.images[rows])[head], self.model.head(head).weight
        loss = F.mse_loss(predicted.float(), (self.labels[rows, None] == self.references).float())
        if self.strengths[0] > 0:
            classes = self.references[block]
            gram = (classes[:, None] == classes).float()
            loss = loss + self.strengths[0] * gram_penalty_block(weight[block], gram, len(weight), complete=True)
        return loss + self.strengths[1] * orthogonality_penalty(weight) if self.strengths[1] > 0 else loss


class NaiveLoop:
    """The original's recipe, written from its description (Horn's simec, 2020: torch class, notebook 08).

    Batches of 32, images and target similarities in float32, loaded item by item and shuffled, default memory format;
    mean squared error, at every step the Gram penalty over all references and the orthogonality penalty (which the
    original begins after a third of the epochs); Adam; the loss is read at every step.

    Args:
        encoder: What is trained, with a head of its own.
        images: Normalised, shape ``(item, channel, height, width)``.
        targets: Target similarities, shape ``(item, reference)``.
        gram: The references' own similarities, shape ``(reference, reference)``.
        device: Where it is trained.
        rate: Learning rate.
        strengths: Of the Gram penalty and of the orthogonality penalty.
        batch: Images of a step.
    """

    def __init__(
        self, encoder: Encoder, images: Tensor, targets: Tensor, gram: Tensor,
        device: torch.device, rate: float = NAIVE_RATE,
        strengths: tuple[float, float] = (NAIVE_GRAM, NAIVE_ORTHOGONALITY), batch: int = NAIVE_BATCH,
    ) -> None:  # fmt: skip
        self.device = device
        self.encoder = encoder.to(self.device).train()
        self.head = nn.Linear(encoder.embedding_dim, len(gram), bias=False, device=self.device)
        self.gram, self.strengths = gram.to(self.device), strengths
        self.loader = DataLoader(TensorDataset(images.contiguous(), targets), batch, shuffle=True)
        self.optimizer = torch.optim.Adam([*self.encoder.parameters(), *self.head.parameters()], lr=rate)
        self.batch, self._batches = batch, self._endless()

    def _endless(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.loader

    def epoch(self) -> float:
        """Train for one epoch; give the mean loss."""
        return self.run(len(self.loader))

    def run(self, steps: int) -> float:
        """Train for so many steps; give the mean loss of the similarities."""
        total = 0.0
        for _ in range(steps):
            images, target = (part.to(self.device) for part in next(self._batches))
            self.optimizer.zero_grad()
            predicted = self.head(self.encoder(images))
            loss = F.mse_loss(predicted, target)
            total += loss.item()
            (loss + naive_penalties(self.head.weight, self.gram, *self.strengths)).backward()
            self.optimizer.step()
        return total / max(steps, 1)

    @torch.no_grad()
    def error(self, images: Tensor, targets: Tensor) -> float:
        """Give the mean squared error of predicted similarities, ``(item, reference)``, in evaluation mode."""
        self.encoder.eval()
        sums = [
            ((self.head(self.encoder(part.to(self.device))) - target.to(self.device)) ** 2).sum().double()
            for part, target in zip(images.split(256), targets.split(256), strict=True)
        ]
        self.encoder.train()
        return float(torch.stack(sums).sum() / targets.numel())


def naive_penalties(weight: Tensor, gram: Tensor, gram_strength: float, orthogonality_strength: float) -> Tensor:
    """Give the original's ``s_ll_reg`` and ``orth_reg`` terms: means over reference² and embedding² entries.

    Args:
        weight: The head's weight, shape ``(reference, embedding)``.
        gram: The references' own similarities, shape ``(reference, reference)``.
        gram_strength: Of mean (W Wᵀ − gram)².
        orthogonality_strength: Of the mean squared off-diagonal of Wᵀ W, whose zeroed diagonal is counted.
    """
    correlation = weight.T @ weight
    off_diagonal = (1 - torch.eye(len(correlation), device=weight.device)) * correlation
    gap = ((weight @ weight.T - gram) ** 2).mean()
    return gram_strength * gap + orthogonality_strength * (off_diagonal**2).mean()
