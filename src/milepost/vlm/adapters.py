"""What fine-tuning changes of a loaded model: low-rank adapters of its attention (LoRA, through peft), its heads, rows of its output layer.

A folder has `adapter_config.json` and `adapter_model.safetensors` in peft's own form, and `heads.safetensors`. Only safetensors are read,
and of the adapter's config only the rank, the scale and the layers: a field of peft's that changes the network is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from milepost.core import DataError, atomic_path, load, read_bytes, read_json_object, require_plain_file, shown, write_text
from milepost.vlm.engine import Engine
from milepost.vlm.heads import FrameEngine

CONFIG, ADAPTER, HEADS = "adapter_config.json", "adapter_model.safetensors", "heads.safetensors"
ATTENTION = r"model\.language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj"
"""The projections of attention in all layers of the language model, as a regular expression. The vision tower is left as it is."""
PREFIX = "base_model.model."
"""What peft's files have before the name of a weight."""
PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
}  # fmt: skip
"""Fields of adapter_config.json that change what a LoRA computes, and the value of each that is supported."""
FILES = (CONFIG, ADAPTER, HEADS)
"""What a fine-tuned model's folder may have beside its config.json."""
PLACES = ("base_model_name_or_path", "revision")
"""Fields of adapter_config.json that say where the checkpoint is, for peft. They change no number and may be edited."""
ANSWERS, TOKENS = "answers.weight", "answers.tokens"


@dataclass(frozen=True)
class Lora:
    """An adapter: `alpha / rank` times the product of two matrices of this rank is added to each layer whose name `targets` matches."""

    rank: int = 16
    alpha: int = 32
    targets: str = ATTENTION

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise DataError(f"the rank and alpha of a LoRA should be at least 1, got {self.rank} and {self.alpha}")


def require_peft() -> Any:
    """Returns peft. DataError if it is not installed, or is a release that does not work."""
    return load("peft", purpose="LoRA adapters", install="milepost[finetune]")


def add_lora(engine: Engine, lora: Lora) -> dict[str, nn.Parameter]:
    """Puts a new adapter into a loaded model, which still computes the same, and returns its weights (float32) by name.

    DataError if no layer has such a name, or peft is missing.
    """
    peft = require_peft()
    network = engine.networks.model
    if getattr(network, "peft_config", None):
        raise DataError("this model has an adapter already")
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, lora_dropout=0.0)
    try:
        peft.inject_adapter_in_model(config, network)
    except ValueError as error:
        raise DataError(f"the adapter does not fit the model: {str(error).splitlines()[0]}") from error
    for name, module in network.named_modules():
        if ".lora_" in name and isinstance(module, nn.Linear):
            module.float().requires_grad_(True)
    return _of_adapter(network)


def head_weights(engine: FrameEngine) -> dict[str, nn.Parameter]:
    """Returns the weights of a model's heads by name, made to be learnt."""
    weights = _of_heads(engine)
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights


def answer_weights(engine: Engine, tokens: list[int]) -> dict[str, nn.Parameter]:
    """Gives a model rows of its output layer of their own for a few tokens, equal to the old ones, and returns them to be learnt."""
    rows = nn.Parameter(engine.networks.model.lm_head.weight[tokens].detach().float().clone())
    engine.networks.use_answers(tokens, rows)
    return {ANSWERS: rows}


def write_learnt(engine: Engine, folder: Path, *, base: str, revision: str | None) -> None:
    """Writes what was learnt: the adapter as peft reads it, if there is one, and the heads or rows; the folder has no others then.

    base, revision: the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)  # of a model that this one replaces
    network = engine.networks.model
    if configs := getattr(network, "peft_config", None):
        _write(folder / ADAPTER, {f"{PREFIX}{name}": weight for name, weight in _of_adapter(network).items()})
        values = configs["default"].to_dict() | {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}
        write_text(folder / CONFIG, json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n")
    if isinstance(engine, FrameEngine):
        _write(folder / HEADS, _of_heads(engine))
    elif engine.networks.answers is not None:
        tokens, rows = engine.networks.answers
        _write(folder / HEADS, {ANSWERS: rows, TOKENS: torch.tensor(tokens)})


def read_learnt(engine: Engine, folder: Path, *, has_adapter: bool) -> None:
    """Gives a loaded model what `write_learnt` wrote. DataError names what is missing, does not fit or is not supported."""
    if has_adapter:
        _read_adapter(engine, folder)
    if isinstance(engine, FrameEngine) or not has_adapter:
        _read_heads(engine, folder)


def learnt_hashes(folder: Path) -> dict[str, str]:
    """Returns name -> hash of each file of a fine-tuned model that a folder has."""
    return {name: _hash_of(folder / name) for name in FILES if (folder / name).exists()}


def require_learnt(folder: Path, hashes: Mapping[str, str]) -> None:
    """Raises DataError, which names the file, if a folder has another file of a fine-tuned model than was saved, or lacks one."""
    there = learnt_hashes(folder)
    for name in FILES:
        if name in there and name not in hashes:
            raise DataError(f"{folder / name} is not of the model in config.json beside it; take it out, or restore the config.json")
        if name in hashes and name not in there:
            raise DataError(f"{folder / name} is missing: it has what the model learnt in fine-tuning; restore it")
        if hashes.get(name) != there.get(name):
            raise DataError(
                f"{folder / name} is not the one that this model was saved with: it was edited, or is another model's; restore it"
            )


def _hash_of(path: Path) -> str:
    """Returns a hash of a file's contents, but for the fields of an adapter's config that say where the checkpoint is."""
    if path.name == CONFIG:
        values = read_json_object(path, what="config of an adapter")
        content = json.dumps({name: value for name, value in values.items() if name not in PLACES}, sort_keys=True).encode()
    else:
        content = read_bytes(path, what="file of a fine-tuned model")
    return hashlib.sha256(content).hexdigest()[:16]


def _read_adapter(engine: Engine, folder: Path) -> None:
    """Puts the adapter in a folder into a loaded model. DataError names what is missing, does not fit or is not supported."""
    values = read_json_object(folder / CONFIG, what="config of an adapter")
    if others := [name for name, value in PLAIN.items() if values.get(name, value) != value]:
        raise DataError(f"{folder / CONFIG} has {others[0]}={shown(values[others[0]])}; only a plain LoRA can be read here")
    rank, alpha, targets = (values.get(name) for name in ("r", "lora_alpha", "target_modules"))
    if not (isinstance(rank, int) and isinstance(alpha, int) and isinstance(targets, str)):
        raise DataError(f"{folder / CONFIG} should have r and lora_alpha as whole numbers and target_modules as a text")
    content = {name.removeprefix(PREFIX): each for name, each in _read(folder / ADAPTER).items()}
    weights = _of_adapter(engine.networks.model)
    if not weights:
        with torch.random.fork_rng(devices=[]):  # its first weights are random, and replaced
            weights = add_lora(engine, Lora(rank, alpha, targets))
    _fill(folder / ADAPTER, weights, content)


def _read_heads(engine: Engine, folder: Path) -> None:
    """Gives a loaded model the heads in a folder, or the rows of its output layer. DataError if they do not fit."""
    content = _read(folder / HEADS)
    if isinstance(engine, FrameEngine):
        _fill(folder / HEADS, _of_heads(engine), content)
        return
    tokens, rows = content.get(TOKENS), content.get(ANSWERS)
    width = engine.networks.model.lm_head.weight.shape[1]
    if tokens is None or rows is None or tokens.ndim != 1 or rows.shape != (len(tokens), width):
        raise DataError(f"{folder / HEADS} should have {TOKENS} (N,) and {ANSWERS} (N, {width})")
    engine.networks.use_answers(tokens.tolist(), rows.float().to(engine.networks.device))


def _of_adapter(network: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the weights of the adapter by the names that peft's files have."""
    return {name.replace(".default.", "."): weight for name, weight in network.named_parameters() if ".lora_" in name}


def _of_heads(engine: FrameEngine) -> dict[str, nn.Parameter]:
    return {f"{name}.{part}": weight for name, head in engine.heads.items() for part, weight in head.named_parameters()}


def _fill(path: Path, weights: Mapping[str, nn.Parameter], content: Mapping[str, Tensor]) -> None:
    """Copies the contents of a file into weights. DataError if the names or shapes are others."""
    strange = [name for name in sorted({*weights, *content}) if name not in weights or name not in content]
    if strange:
        where = "lacks" if strange[0] in weights else "has, and the model has not,"
        raise DataError(f"{path} does not fit the model: it {where} {strange[0]}")
    for name, weight in weights.items():
        if weight.shape != content[name].shape:
            raise DataError(f"{path} does not fit the model: {name} is {tuple(content[name].shape)}, there {tuple(weight.shape)}")
        with torch.no_grad():
            weight.copy_(content[name])
        weight.requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    require_plain_file(path, what="weights of a fine-tuned model")
    try:
        content = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if broken := [name for name, weight in content.items() if not weight.isfinite().all()]:
        raise DataError(f"{path} has NaN or infinite weights: {', '.join(sorted(broken)[:5])}; the file is damaged, or its training failed")
    return content


def _write(path: Path, weights: Mapping[str, Tensor]) -> None:
    content = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    with atomic_path(path) as temporary:
        save_file(content, temporary, metadata={"format": "pt"})
