"""Heads: the bias-free linear map from an embedding to the predicted similarities to every reference."""

from typing import Any

import torch
from torch import Tensor, nn

from simec_vision.sharding import Part


class SimilarityHead(nn.Module):
    """Predict similarities to references: ``embedding @ weight.T`` (Horn & Müller 2018, arXiv 1702.01824, eq. 2).

    The map has no bias, so row r of the weight is itself the embedding that reference r should have.

    Args:
        embedding_dim: Length of an embedding.
        num_references: How many references the similarity is measured to.
        weight: Start from this weight of shape ``(reference, embedding)``, such as :func:`head_weight` or another
            encoder's embeddings of the references; default: small normal numbers, standard deviation 0.1 / √embedding.
            Small, because embeddings grow as the weight shrinks, and the larger an embedding is, the less an
            optimiser's step of a given size disturbs it (measured on CIFAR-10: 4 points of accuracy after 5 epochs).
        frozen: Keep the weight as it is during training.

    Raises:
        ValueError: if the given weight has another shape.
    """

    def __init__(
        self, embedding_dim: int, num_references: int, weight: Tensor | None = None, frozen: bool = False
    ) -> None:
        super().__init__()
        if weight is None:
            weight = torch.randn(num_references, embedding_dim) * (0.1 / embedding_dim**0.5)
        if tuple(weight.shape) != (num_references, embedding_dim):
            raise ValueError(
                f"Expected weight of shape (reference, embedding) = ({num_references}, {embedding_dim}), "
                f"got {tuple(weight.shape)}. A factor of shape (embedding, reference) must be transposed first"
            )
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=not frozen)
        self.part: Part | None = None

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return self.weight.shape[1]

    @property
    def num_references(self) -> int:
        """How many references the similarity is measured to."""
        return self.weight.shape[0] if self.part is None else self.part.total

    def rows(self, columns: Tensor | None = None, sparse: bool = False) -> Tensor:
        """Give the weight's rows of some references; training uses the weight in no other way.

        Args:
            columns: Positions of the references, shape ``(column,)``; default: all.
            sparse: Let the gradient be sparse, of these rows alone.

        Returns:
            Shape ``(column, embedding)``. Where the head is sharded, all processes must ask for the same rows.
        """
        if self.part is not None:
            return self.part.rows(self.weight, columns, sparse)
        return self.weight if columns is None else nn.functional.embedding(columns, self.weight, sparse=sparse)

    def whole(self) -> Tensor:
        """Give the whole weight ``(reference, embedding)``, in the processor's memory where the head is sharded."""
        return self.weight.detach() if self.part is None else self.part.whole(self.weight)

    def shard(self, mesh: Any) -> None:
        """Keep only this process's rows of the first process's weight, until :meth:`gather`; all must ask.

        Args:
            mesh: All processes, a one-dimensional ``DeviceMesh``.
        """
        self.part = Part(mesh, self.num_references)
        self.weight = nn.Parameter(self.part.from_first(self.weight.detach()), requires_grad=self.weight.requires_grad)

    def gather(self) -> None:
        """Put the whole weight together again, in the processor's memory; all processes must ask."""
        if self.part is not None:
            self.weight = nn.Parameter(self.whole(), requires_grad=self.weight.requires_grad)
            self.part = None

    def forward(self, embedding: Tensor) -> Tensor:
        """Map an embedding of shape ``(batch, embedding)`` to predicted similarities ``(batch, reference)``."""
        return nn.functional.linear(embedding, self.rows())

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"embedding_dim={self.embedding_dim}, num_references={self.num_references}"


def head_weight(gram: Tensor, embedding_dim: int) -> Tensor:
    """Find the best weight for the references' own similarities by eigendecomposition.

    With ``gram = V diag(λ) V.T``, the weight ``V_d diag(√λ_d)`` over the d largest eigenvalues makes
    ``weight @ weight.T`` the nearest positive semi-definite matrix of that rank (Eckart & Young 1936). Negative
    eigenvalues, which an indefinite similarity has, cannot be part of a real inner product and count as 0.

    Args:
        gram: The references' own similarities, shape ``(reference, reference)``, symmetric, no NaN.
        embedding_dim: Length of an embedding; columns beyond the number of references are 0.

    Returns:
        The weight, shape ``(reference, embedding)``, in the type (float32 for integers) and on the device of ``gram``;
        computed on the processor, without a gradient.

    Raises:
        ValueError: if ``gram`` is not a square matrix of finite numbers.
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"Expected gram of shape (reference, reference), got {tuple(gram.shape)}")
    if not torch.isfinite(gram).all():
        raise ValueError("Expected gram without NaN or infinity: unknown similarities cannot be eigendecomposed")
    from simec_vision.kernels import largest_eigenvectors

    kept = min(embedding_dim, len(gram))
    symmetric = ((gram + gram.T).detach().cpu().double() / 2).numpy()
    eigenvalues, eigenvectors = (torch.from_numpy(part.copy()) for part in largest_eigenvectors(symmetric, kept))
    weight = eigenvectors * eigenvalues.clamp(min=0).sqrt()
    return nn.functional.pad(weight, (0, embedding_dim - kept)).to(
        gram.device, gram.dtype if gram.is_floating_point() else torch.float32
    )
