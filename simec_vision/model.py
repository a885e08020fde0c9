"""The Similarity Encoder: one encoder in front of one head per similarity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from simec_vision.encoders import Encoder, build_encoder
from simec_vision.files import read_description, write_json, write_weights
from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError, nearest

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


class SimilarityModel(nn.Module):
    """An encoder and named heads that predict similarities (Similarity Encoder; Horn & Müller 2018, arXiv 1702.01824).

    Args:
        encoder: Maps images ``(batch, channel, height, width)`` to embeddings ``(batch, embedding)``.
        heads: Similarity name → head.
        about: Anything else about the model as JSON values (how images are normalised, what the references are called);
            saved and loaded with it.

    Raises:
        ValueError: if a head expects embeddings of another length than the encoder gives.
        InputError: if a head's name is no word of letters, digits and ``_``, or one that PyTorch or this package uses.
    """

    def __init__(
        self, encoder: nn.Module, heads: Mapping[str, SimilarityHead], about: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        for name, head in heads.items():
            _check_name(name)
            dim = getattr(encoder, "embedding_dim", head.embedding_dim)
            if head.embedding_dim != dim:
                raise ValueError(
                    f"Expected head {name!r} for embeddings of length {dim}, which the encoder gives, "
                    f"got one for {head.embedding_dim}"
                )
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)
        self.about = dict(about or {})

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        own = getattr(self.encoder, "embedding_dim", None)
        return int(own) if own is not None else self.head(next(iter(self.heads))).embedding_dim

    def embed(self, images: Tensor) -> Tensor:
        """Embed images ``(batch, channel, height, width)``: ``(batch, embedding)``."""
        return self.encoder(images)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict similarities: head name → ``(batch, reference)``."""
        embedding = self.embed(images)
        return {name: head(embedding) for name, head in self.heads.items()}

    def head(self, name: str) -> SimilarityHead:
        """Give a head by name.

        Raises:
            InputError: if there is no such head, naming the nearest.
        """
        if name not in self.heads:
            raise InputError(f"Expected the name of a head, got {name!r}: {nearest(name, list(self.heads))}")
        head = self.heads[name]
        assert isinstance(head, SimilarityHead)
        return head

    def branch(self, name: str) -> nn.Sequential:
        """Give the encoder followed by one head, sharing their weights: images → ``(batch, reference)``."""
        return nn.Sequential(self.encoder, self.head(name))

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into a folder; each appears whole or not at all.

        Raises:
            ValueError: while heads are sharded.
        """
        if any(self.head(name).part is not None for name in self.heads):
            raise ValueError("Expected whole heads to save, got sharded ones: call Pretraining.gather_heads first")
        write_weights(Path(folder) / WEIGHTS, self.state_dict())
        write_json(Path(folder) / DESCRIPTION, self.description())

    def description(self) -> dict[str, Any]:
        """Say as JSON values what rebuilds the model, weights apart."""
        return {
            "format": 1,
            "encoder": {"kind": type(self.encoder).__name__, "options": getattr(self.encoder, "options", {})},
            "heads": {name: self._head_sizes(name) for name in self.heads},
            "about": self.about,
        }

    def _head_sizes(self, name: str) -> dict[str, Any]:
        head = self.head(name)
        frozen = not head.weight.requires_grad
        return {"embedding_dim": head.embedding_dim, "num_references": head.num_references, "frozen": frozen}

    @classmethod
    def load(cls, folder: str | Path, encoder: nn.Module | None = None) -> "SimilarityModel":
        """Read what :meth:`save` wrote.

        Args:
            folder: Where ``model.safetensors`` and ``model.json`` are.
            encoder: An encoder of the same make, for a model whose encoder is the user's own class.

        Raises:
            InputError: if a file is missing or damaged, or the weights belong to another model.
        """
        description = read_description(Path(folder) / DESCRIPTION, {"encoder", "heads"})
        if encoder is None:
            encoder = _described_encoder(description, folder)
        heads = {
            name: SimilarityHead(sizes["embedding_dim"], sizes["num_references"], frozen=sizes.get("frozen", False))
            for name, sizes in description["heads"].items()
        }
        model = cls(encoder, heads, description.get("about"))
        load_weights(model, Path(folder) / WEIGHTS)
        return model


TAKEN = ("images", "all_pairs", "bilrp")
"""Names that stand beside those of the heads where explanations are written."""


def is_taken(name: str) -> bool:
    """Say whether a name that a head might have means something else already."""
    return name in TAKEN or hasattr(nn.ModuleDict(), name)


def _check_name(name: str) -> None:
    if not name.isidentifier() or is_taken(name):
        raise InputError(
            f"Expected the name of a head made of letters, digits and _, got {name!r}"
            f"{', which has another meaning' if name.isidentifier() else ''}: choose another"
        )


def _described_encoder(description: dict[str, Any], folder: str | Path) -> Encoder:
    try:
        return build_encoder(description["encoder"]["kind"], description["encoder"]["options"])
    except InputError as error:
        raise InputError(
            f"{error}. For an encoder of your own call SimilarityModel.load({str(folder)!r}, encoder=…)"
        ) from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a module.

    Raises:
        InputError: if the file is missing or damaged, or belongs to another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"Expected the weights of a model in {path}: {error}") from error
    except RuntimeError as error:
        mismatch = " ".join(str(error).split())
        raise InputError(
            f"Expected weights that fit the model, but {path} belongs to another one: {mismatch}"
        ) from error
