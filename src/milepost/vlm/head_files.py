"""Opens a Qwen3-VL with heads, in the layout it was published in or in that of a wrapper that has the whole VLM as `model`.

Every key of the weights is accounted for: it is a weight of the VLM, of a head, or of a part that is left out by name. Only safetensors are
read. The output layer over the vocabulary is not loaded, because no words are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from milepost.core import DataError, load
from milepost.encoders import require_device
from milepost.vlm.heads import FrameEngine, HeadFormat
from milepost.vlm.licence import say_licence
from milepost.vlm.loading import (
    FAMILIES,
    Attention,
    Dtype,
    bar_on_terminals,
    card_of,
    config_of,
    dtype_of,
    fingerprint,
    image_config,
    in_one_precision,
    json_of,
    located,
    naming_faults,
    path_of,
    processors_template,
    require_memory,
    require_names,
    some,
)
from milepost.vlm.patches import FrameProcessor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OUTPUT, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
PARTS = ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias")
"""The weights of a head: Linear, LayerNorm, and behind GELU and dropout the last Linear."""
Where = dict[str, Any]


def load_frame_engine(
    name_or_folder: str | Path,
    *,
    layout: HeadFormat,
    revision: str | None = None,
    device: str = "cpu",
    dtype: Dtype = "auto",
    attention: Attention = "sdpa",
    max_memory: int | None = None,
) -> FrameEngine:
    """Returns an engine with the heads of `layout`. The other arguments are those of `load_engine`.

    DataError if weights are missing, unknown or of another shape, a word of the layout is not in the tokenizer, or files are missing.
    """
    where, name = located(name_or_folder, revision), str(name_or_folder)
    require_device(device)
    transformers = load("transformers", purpose="vision-language models", install="milepost[vlm]")
    with naming_faults(name):
        config, base = _config(transformers, where, layout)
        number = dtype_of(dtype, device)
        require_memory(transformers, config, device=device, each=float(number.itemsize))
        tokenizer = _tokenizer(transformers, base, layout, rows=int(config.text_config.vocab_size), grows=base is not where)
        content = _weights(where)
        weights, heads = _split(transformers, config, content, layout)
        unused = [part for part in layout.unused if any(key.split(".")[0] == part for key in content)]
        with bar_on_terminals():
            model = _class(transformers, config).from_pretrained(
                None, config=config, state_dict=weights, dtype=number, attn_implementation=attention
            )
        processor = FrameProcessor.from_config(image_config(base))
        model = in_one_precision(model.requires_grad_(False).eval(), number).to(device)
        say_licence(name, card_of(where), json_of(where, "config.json") or {})
    return FrameEngine(
        model, tokenizer, heads={part: head.to(device) for part, head in heads.items()}, mark=layout.mark, unused=unused,
        processor=processor, max_memory=max_memory, name=name,
        commit=getattr(config, "_commit_hash", None) or "", fingerprint=fingerprint(where),
    )  # fmt: skip


def _config(transformers: Any, where: Where, layout: HeadFormat) -> tuple[Any, Where]:
    """Returns the VLM's config, and where its tokenizer and processor are: here, or in the model that a wrapper names as its base."""
    content = config_of(where)
    if others := [name for name, value in layout.settings.items() if content.get(name, value) != value]:
        name = others[0]
        raise DataError(
            f"its config.json has {name}={content[name]}; only checkpoints with {name}={layout.settings[name]}, as published, can be read"
        )
    inner, base = content.get("vlm_config"), where
    if isinstance(inner, dict):
        kind, values = inner.get("model_type"), {name: value for name, value in inner.items() if name != "model_type"}
    else:
        kind, values = content.get("model_type"), {}
    if str(kind) not in FAMILIES:
        is_a = f"describes a '{kind}' model" if kind else "has no model_type, so it is not that of a vision-language model"
        raise DataError(f"its config.json {is_a}; supported are {' and '.join(FAMILIES)} (Qwen3-VL)")
    config = transformers.AutoConfig.for_model(kind, **values) if values else transformers.AutoConfig.from_pretrained(**where)
    if path_of(where, "tokenizer_config.json") is None:
        source = content.get("base_model_id")
        if not isinstance(source, str):
            raise DataError("it has no tokenizer files, and its config.json names no base_model_id that has them")
        base = located(source, None)
        with naming_faults(
            f"{source}, which its config.json names as base_model_id,"
        ):  # one file first: each of the others is tried for long
            if path_of(base, "tokenizer_config.json") is None:
                raise DataError("it has no tokenizer files")
    for part in (config, config.text_config):
        part.update({"tie_word_embeddings": True})  # no words are asked for: the output layer is neither loaded nor made
    return config, base


def _tokenizer(transformers: Any, base: Where, layout: HeadFormat, *, rows: int, grows: bool) -> Any:
    """Returns the tokenizer. grows: it is the base model's, to which the layout's words are added as they were in training.

    DataError if a word is missing, or there are more words than the embedding has rows.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(**base, **processors_template(base))
    if grows:
        tokenizer.add_tokens([transformers.AddedToken(word, special=True, normalized=False) for word in layout.tokens], special_tokens=True)
    there = tokenizer.get_vocab()
    if missing := [word for word in layout.tokens if word not in there]:
        raise DataError(f"its tokenizer lacks {', '.join(missing)}, which the model was trained with: tokenizer files of another model")
    ids = [there[word] for word in layout.tokens]
    if ids != sorted(ids) or ids[-1] >= rows:
        raise DataError(
            f"its tokenizer has {', '.join(layout.tokens)} as {ids}; they should be in this order, below the {rows} rows of the embedding"
        )
    return tokenizer


def _weights(where: Where) -> dict[str, Tensor]:
    """Returns all weights by their names in the files, not yet read from disk where the system can map them. DataError: no safetensors."""
    index = json_of(where, INDEX)
    names = sorted(set(index.get("weight_map", {}).values())) if index is not None else [SINGLE]
    weights: dict[str, Tensor] = {}
    for file in map(str, names):
        if file != Path(file).name:
            raise DataError(f"its {INDEX} names a file outside the model's folder: {file}")
        path = path_of(where, file)
        if path is None:
            raise DataError(f"it has no {file}; weights are read from safetensors files alone")
        with safe_open(path, "pt") as content:
            weights |= {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (it is no dict)
    return weights


def _split(
    transformers: Any, config: Any, weights: Mapping[str, Tensor], layout: HeadFormat
) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
    """Returns the VLM's weights by its own names, and the heads by theirs. DataError names what is missing, unknown or misshapen."""
    vlm = {_own_name(key): value for key, value in weights.items() if key.startswith(("model.", "lm_head."))}
    others = {key: value for key, value in weights.items() if not key.startswith(("model.", "lm_head."))}
    output = vlm.pop(OUTPUT, None)
    if EMBEDDING not in vlm and output is not None:
        vlm[EMBEDDING] = output  # of two tied weights a file has one
    wanted_heads = [f"{head}.{part}" for head in layout.heads.values() for part in PARTS]
    unused = [key for key in others if key.split(".")[0] in layout.unused]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in _class(transformers, config)(config).state_dict().items() if key != OUTPUT}
    unknown = sorted((set(vlm) - set(shapes)) | (set(others) - set(wanted_heads) - set(unused)))
    if (absent := [name for name in wanted_heads if name not in others]) and not unknown:
        raise DataError(f"its weights lack {some(absent)}: a vision-language model without the heads, or an incomplete one")
    require_names([*absent, *(set(shapes) - set(vlm))], unknown)
    if unknown:
        raise DataError(f"its weights have {len(unknown)} names that the architecture does not have: {some(unknown)}")
    misshapen = [f"{key} {tuple(vlm[key].shape)}, by the config {tuple(shape)}" for key, shape in shapes.items() if vlm[key].shape != shape]
    if misshapen:
        raise DataError(f"{len(misshapen)} of its weights have another shape than its config says: {some(misshapen)}")
    for name, part in layout.heads.items():
        if (count := len(others[f"{part}.4.bias"])) != layout.outputs[name]:
            raise DataError(f"its {part} has {count} outputs; only checkpoints with {layout.outputs[name]}, as published, can be read")
    width = int(config.text_config.hidden_size)
    return vlm, {name: _head(part, others, width) for name, part in layout.heads.items()}


def _own_name(key: str) -> str:
    """Returns a weight's name in transformers' model: a wrapper has the whole model as its `model`."""
    return key.removeprefix("model.") if key.startswith(("model.model.", "model.lm_head.")) else key


def _head(name: str, weights: Mapping[str, Tensor], width: int) -> nn.Module:
    """Returns a head with its weights, in float32."""
    inner, out = (weights[f"{name}.{part}.bias"].shape[0] for part in ("0", "4"))
    head = nn.Sequential(nn.Linear(width, inner), nn.LayerNorm(inner), nn.GELU(), nn.Dropout(0.0), nn.Linear(inner, out))
    for part in PARTS:
        own, there = head.get_parameter(part), weights[f"{name}.{part}"]
        if own.shape != there.shape:
            raise DataError(f"its weight {name}.{part} is {tuple(there.shape)}; a head on {width} numbers has {tuple(own.shape)} there")
        if not there.isfinite().all():
            raise DataError(f"its weight {name}.{part} has NaN or infinite numbers: the file is damaged; download or save it again")
    head.load_state_dict({part: weights[f"{name}.{part}"].float() for part in PARTS})
    return head.requires_grad_(False).eval()


def _class(transformers: Any, config: Any) -> Any:
    name = "Qwen3VLMoe" if config.model_type == "qwen3_vl_moe" else "Qwen3VL"
    return getattr(transformers, f"{name}ForConditionalGeneration")
