"""The score as a layer after the embedding."""

import torch
from torch import Tensor, nn

from simec_vision.items import InputError


class Readout(nn.Linear):
    """One linear output per image, each image with its own weight: score_i = Σ_d embedding_id · weight_id.

    Args:
        weight: Shape ``(batch, embedding)``.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[-1], 1, bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scores = self.scale = torch.zeros(len(weight))

    def forward(self, input: Tensor) -> Tensor:
        """Map embeddings ``(batch, embedding)`` to scores ``(batch, 1)``.

        Afterwards ``scores`` holds them, and ``scale`` holds Σ_d ∣embedding_id · weight_id∣, to which rounding is
        relative; both of shape ``(batch,)``.
        """
        check_embedding(input, self.weight)
        parts = input * self.weight
        scores = parts.sum(dim=1, keepdim=True)
        self.scores, self.scale = scores.detach().squeeze(1), parts.detach().abs().sum(dim=1)
        return scores


def check_embedding(embedding: Tensor, readouts: Tensor) -> None:
    """Check that embeddings have the shape of what reads them out, ``(batch, embedding)``.

    Raises:
        InputError: if not.
    """
    if embedding.ndim != 2 or embedding.shape != readouts.shape:
        shapes = f"{(len(embedding), *readouts.shape[1:2])}, got {tuple(embedding.shape)}"
        raise InputError(f"Expected the encoder to give embeddings of shape (batch, embedding) = {shapes}")
