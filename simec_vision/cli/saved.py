"""Coming back to a pretraining run: its model and its images."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import build_encoder
from simec_vision.files import read_description
from simec_vision.finetuning import DESCRIPTION, Classifier
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel


@dataclass(frozen=True)
class Pretrained:
    """An encoder that a classifier starts from.

    Args:
        encoder: Maps images to embeddings ``(batch, embedding)``.
        embedding_dim: Length of an embedding.
        about: What a model knows besides: how images are normalised, among others.
        name: What it was pretrained on: ``simec_<heads>``, ``labels``, ``simec_<heads>_labels`` (first on similarities,
            then on labels), ``ae_full``, ``ae_linear`` or ``none``.
    """

    encoder: nn.Module
    embedding_dim: int
    about: dict[str, Any] = field(default_factory=dict)
    name: str = "none"

    def forgotten(self) -> "Pretrained":
        """Give the same encoder with new random weights."""
        encoder = build_encoder(type(self.encoder).__name__, getattr(self.encoder, "options", {}))
        return Pretrained(encoder, self.embedding_dim, self.about)


def load_pretrained(run: Path) -> Pretrained:
    """Read the encoder of a run: of a pretraining, an auto-encoder, or a fine-tuning.

    Raises:
        InputError: if a file is missing or damaged.
    """
    if (run / "model" / DESCRIPTION).is_file():
        classifier = Classifier.load(run / "model")
        about = {name: value for name, value in classifier.about.items() if name not in ("label", "pretraining")}
        before = classifier.about.get("pretraining", "none")
        name = "labels" if before == "none" else f"{before}_labels"
        return Pretrained(classifier.encoder, classifier.linear.in_features, about, name)
    model = SimilarityModel.load(run / "model")
    name = model.about.get("pretraining", "simec_" + "_".join(model.heads))
    return Pretrained(model.encoder, model.embedding_dim, model.about, name)


def pretrained_run(model: str | None, or_classifier: bool = False) -> Path:
    """Find the run folder of a pretraining: the given one, the newest, or a first one that is made now.

    Args:
        model: The folder that the user named.
        or_classifier: Whether it may be that of a fine-tuning, too.

    Raises:
        InputError: if the given folder is no finished pretraining run.
    """
    if model is not None:
        return _checked(Path(model), or_classifier)
    run = _newest_pretraining()
    if run is None:
        print("No pretraining run under runs/ yet: pretraining one first, with the defaults", flush=True)
        pretrain_apart(
            ["--heatmaps", "false"], "Expected a pretraining to start from, but that with the defaults failed; name one"
        )
        run = _newest_pretraining()
    assert run is not None
    print(f"Using {run}")
    return run


def _newest_pretraining() -> Path | None:
    """Find the pretraining on similarities that finished last among the folders in ``runs/``."""
    done = [path.parent for path in Path("runs").glob("*/summary.json") if _has_heads(path.parent / "model")]
    return max(done, key=lambda run: (run / "summary.json").stat().st_mtime, default=None)


def _has_heads(model: Path) -> bool:
    try:
        return bool(read_description(model / "model.json", {"heads"})["heads"])
    except InputError:
        return False


def pretrain_apart(options: Sequence[str], failed: str) -> None:
    """Pretrain in a process of its own, which keeps this one's random numbers and settings as they are.

    Args:
        options: Those of the command ``pretrain``.
        failed: What to say where it fails, besides what it has said itself.

    Raises:
        InputError: if it fails.
    """
    command = [sys.executable, "-m", "simec_vision.cli.main", "pretrain", *options]
    if subprocess.run(command, check=False).returncode:
        raise InputError(failed)


def _checked(run: Path, or_classifier: bool) -> Path:
    if not any((run / "model" / name).is_file() for name in ("model.json", DESCRIPTION)[: 1 + or_classifier]):
        raise InputError(
            f"Expected --model to name the run folder of a finished pretraining, "
            f"but there is no {run / 'model' / 'model.json'}"
        )
    if not or_classifier and not read_description(run / "model" / "model.json", {"heads"})["heads"]:
        raise InputError(f"Expected --model to name a pretraining on similarities, but {run} is an auto-encoder's")
    return run


def run_options(run: Path) -> Any:
    """Build the options of a pretraining run again from its ``config.yaml``; ``data`` and ``similarities`` among them.

    Raises:
        InputError: if that file is missing or is no configuration of a pretraining.
    """
    from simec_vision.cli.main import DEFAULTS, command_function
    from simec_vision.cli.parsing import explained, instantiate, make_parser

    config = run / "config.yaml"
    if not config.is_file():
        raise InputError(f"Expected the options of the run in {config}, which is missing")
    command = command_of(run)
    parser = make_parser(command_function(command), DEFAULTS[command])
    try:
        options = parser.parse_args(["--config", str(config)])
        options.encoder = None  # it lies in model/; to build it here could mean to download its weights again
        return instantiate(parser, options)
    except Exception as error:
        raise explained(error, parser) from error


def command_of(run: Path) -> str:
    """Say which command made a run folder, by what it saved."""
    if (run / "model" / DESCRIPTION).is_file():
        return "finetune"
    about = read_description(run / "model" / "model.json", {"encoder"}).get("about") or {}
    return "pretrain autoencoder" if "pretraining" in about else "pretrain"


def data_of(options: Any) -> ImageDataModule:
    """Give the source of images of a run by its options; that of a fine-tuning may be the one of its pretraining.

    Args:
        options: From :func:`run_options`.

    Raises:
        InputError: if the options of the pretraining are missing.
    """
    return options.data or data_of(run_options(Path(options.model)))


def images_of(options: Any, data: ImageDataModule | None = None) -> ImageDataModule:
    """Give the source of images of a run, or another one, and of its items those that the run was told to keep.

    Args:
        options: From :func:`run_options`.
        data: A source that takes the place of the run's own.

    Raises:
        InputError: as :func:`data_of`, or if there is nothing of what is to be kept.
    """
    data = data or data_of(options)
    data.use_only(options.keep or {})
    return data
