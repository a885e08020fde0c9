"""The estimator in a folder: JSON and safetensors, no pickle."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from simec_vision.arrays.scaling import Scaling
from simec_vision.files import new_folder, read_description, write_json, write_weights
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel

DESCRIPTION, TENSORS, MODEL = "estimator.json", "estimator.safetensors", "model"
LEFT_OUT = ("callbacks", "encoder", "head_start")
"""Arguments that JSON cannot hold."""


def save(estimator: Any, folder: Path) -> None:
    """Write a fitted estimator into a new folder."""
    start, scaling = estimator.head_start, estimator._scaling
    description = {
        "format": 1,
        "arguments": {k: _plain(v) for k, v in estimator.get_params(deep=False).items() if k not in LEFT_OUT},
        "head_start": start if start is None or isinstance(start, str) else "given",
        "own_encoder": estimator.encoder is not None,
        "form": estimator._form,
        "epochs": estimator.n_iter_,
        "best_epoch": estimator.best_epoch_,
        "history": estimator.history_,
        "features": estimator.n_features_in_,
        "names": _plain(getattr(estimator, "feature_names_in_", None)),
        "size": scaling.size,
        "similarity": scaling.similarity,
    }
    with new_folder(folder) as unfinished:
        estimator.model_.save(unfinished / MODEL)
        write_weights(unfinished / TENSORS, _tensors(estimator))
        write_json(unfinished / DESCRIPTION, description)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [*map(_plain, value)] if isinstance(value, list | tuple) else value


def _tensors(estimator: Any) -> dict[str, torch.Tensor]:
    moments = {f"moments/{n}/{k}": v for n, state in (estimator._moments or {}).items() for k, v in state.items()}
    start, shift = estimator.head_start, estimator._scaling.shift
    given = {} if start is None or isinstance(start, str) else start if isinstance(start, dict) else {"": start}
    heads = {f"head_start/{name}": torch.from_numpy(np.ascontiguousarray(weight)) for name, weight in given.items()}
    return {**moments, **heads, **({} if shift is None else {"shift": torch.from_numpy(shift)})}


def load(kind: Any, folder: Path, encoder: Any) -> Any:
    """Read a fitted estimator."""
    keys = {"arguments", "form", "epochs", "best_epoch", "history", "features", "names", "size", "similarity"}
    keys |= {"head_start", "own_encoder"}
    told = read_description(folder / DESCRIPTION, keys)
    tensors = _read(folder / TENSORS)
    model = SimilarityModel.load(folder / MODEL, encoder).eval()
    try:
        estimator = kind(**told["arguments"])
    except TypeError as error:
        raise InputError(f"Expected arguments of {kind.__name__} in {folder / DESCRIPTION}: {error}") from error
    estimator.head_start = _head_start(told["head_start"], tensors)
    estimator.encoder = model.encoder if told["own_encoder"] else None
    estimator.model_, estimator._form = model, told["form"]
    estimator.n_iter_, estimator.best_epoch_ = told["epochs"], told["best_epoch"]
    estimator.history_, estimator.n_features_in_ = told["history"], told["features"]
    if told["names"] is not None:
        estimator.feature_names_in_ = np.array(told["names"], dtype=object)
    shift = tensors["shift"].numpy() if "shift" in tensors else None
    estimator._scaling = Scaling(shift, told["size"], told["similarity"])
    estimator._moments = _moments(tensors)
    return estimator


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"Expected the tensors of an estimator in {path}: {error}") from error


def _head_start(told: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if told != "given":
        return told
    given = {k.split("/", 1)[1]: v.numpy() for k, v in tensors.items() if k.startswith("head_start/")}
    return given.get("", given)


def _moments(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]] | None:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("moments/"):
            _, number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = tensor
    return moments or None
