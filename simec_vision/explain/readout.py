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
        self.scale = torch.zeros(len(weight))

    def read(self, embedding: Tensor) -> Tensor:
        """Give the scores ``(batch,)`` of embeddings ``(batch or 1, embedding)``, and keep nothing of them."""
        return (embedding * self.weight.detach()).sum(dim=1)

    def forward(self, input: Tensor) -> Tensor:
        """Map embeddings ``(batch, embedding)`` to scores ``(batch, 1)``.

        Afterwards ``scale`` holds Σ_d ∣embedding_id · weight_id∣, to which rounding is relative, shape ``(batch,)``.
        """
        check_embedding(input, self.weight)
        parts = input * self.weight
        self.scale = parts.detach().abs().sum(dim=1)
        return parts.sum(dim=1, keepdim=True)


def check_embedding(embedding: Tensor, readouts: Tensor) -> None:
    """Check that embeddings have the shape of what reads them out, ``(batch, embedding)``.

    Raises:
        InputError: if not.
    """
    if embedding.ndim != 2 or embedding.shape != readouts.shape:
        shapes = f"{(len(embedding), *readouts.shape[1:2])}, got {tuple(embedding.shape)}"
        raise InputError(f"Expected the encoder to give embeddings of shape (batch, embedding) = {shapes}")
