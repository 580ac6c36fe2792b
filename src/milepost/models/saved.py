"""A saved model on disk: `config.json` and `model.safetensors`. What does not fit is refused by name, never guessed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from milepost.core import DataError, atomic_path, read_json_object, require_plain_file
from milepost.models.plugin_format import own_values


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the contents of config.json and the weights of a saved model. DataError if a file is missing or broken."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).exists():
            raise DataError(f"{folder} is not a saved model: {folder / name} is missing")
    return own_values(read_json_object(folder / "config.json", what="model config")), read_tensors(folder / "model.safetensors")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name. DataError if it cannot be read."""
    require_plain_file(path, what="weights")
    try:
        return safetensors.torch.load(path.read_bytes())
    except SafetensorError as error:
        raise DataError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes `config.json` and `model.safetensors`: both or, if the disk is full, neither."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "config.json") as about:
        about.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        write_tensors(folder / "model.safetensors", weights)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as a safetensors file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()}))


def require_fit(folder: Path, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raises DataError if weights do not fit the model of their config, or are not finite; it names the parameters."""
    if wrong := misfits(expected, weights):
        raise DataError(f"the model in {folder} cannot be loaded, its weights do not fit its config: {'; '.join(wrong)}")
    if broken := [name for name, weight in weights.items() if not torch.isfinite(weight).all()]:
        raise DataError(f"the model in {folder} has NaN or infinite weights: {', '.join(sorted(broken)[:5])}")


def misfits(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Returns what keeps these weights from being loaded: parameters missing, unknown or of another shape, by name."""
    messages = []
    for words, names in (("missing", expected.keys() - weights.keys()), ("unknown", weights.keys() - expected.keys())):
        if names:
            messages.append(f"{len(names)} {words} ({', '.join(sorted(names))})")
    for name in sorted(expected.keys() & weights.keys()):
        if expected[name].shape != weights[name].shape:
            messages.append(f"'{name}' should be {tuple(expected[name].shape)} and is {tuple(weights[name].shape)}")
    return messages


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of tensors with their names, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
