"""Tiny models with random weights: a SARM in memory, a Qwen3-VL and a CLIP as folders. Nothing is downloaded, and nothing is learnt.

They are real models of their kinds, so whatever takes a published one takes them; what they say means nothing. The same seed gives the
same weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch

from milepost.core import load
from milepost.models import SARMConfig, SARMModel, SuccessConfig, SuccessModel, ValueConfig, ValueModel
from milepost.testing.dots import NAMES

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_WORDS = ("True", "False")
"""Answers that are one token each, with a space before them or none, as in the published vocabulary."""
_TEMPLATE = """{% set images = namespace(count=0) %}{% for turn in messages %}<|im_start|>{{ turn.role }}
{% if turn.content is string %}{{ turn.content }}{% else %}{% for part in turn.content %}{% if part.type == 'text' %}{{ part.text }}\
{% else %}{% if part.type == 'image' %}{% set images.count = images.count + 1 %}{% if add_vision_id %}Picture {{ images.count }}: \
{% endif %}{% endif %}<|vision_start|><|{{ part.type }}_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


_OF_DOTS: Mapping[str, Any] = {
    "hidden_dim": 32, "image_dim": 8, "text_dim": 8, "state_mean": (15.0, 15.0), "state_std": (9.0, 9.0),
}  # fmt: skip
"""Fields of all trained models for the world of dots: small networks, and the statistics of its states."""
M = TypeVar("M", SARMModel, SuccessModel, ValueModel)


def _random(kind: Callable[[Any], M], config: Any, seed: int) -> M:
    """Returns a model with random weights, those of the built-in encoder too."""
    torch.manual_seed(seed)
    model = kind(config)
    model.encoder.basis.normal_(generator=torch.Generator().manual_seed(seed))
    return model.eval()


def tiny_sarm(seed: int = 0, **changes: Any) -> SARMModel:
    """Returns a SARM of two small layers for the world of dots: its camera, state and stages, and the built-in encoder.

    changes: other values of `SARMConfig`. ValueError for values that cannot be.

    >>> tiny_sarm().predict(dot_episodes(1)[0]).value.dtype  # doctest: +SKIP
    dtype('float32')
    """
    config = SARMConfig(
        num_layers=2,
        num_heads=4,
        gap_s=0.2,
        n_obs_steps=4,
        max_rewind_steps=2,
        encoder="pixels",
        max_state_dim=4,
        annotation_mode="sparse_only",
        sparse_subtask_names=NAMES,
        sparse_temporal_proportions=(0.5, 0.2, 0.3),
        **_OF_DOTS,
    )
    return _random(SARMModel, dataclasses.replace(config, **changes), seed)


def tiny_success(seed: int = 0, **changes: Any) -> SuccessModel:
    """Returns a success head of three small networks for the world of dots: its camera, state and first task, and the built-in encoder.

    changes: other values of `SuccessConfig`. ValueError for values that cannot be.

    >>> tiny_success().predict(dot_episodes(1)[0]).value.dtype  # doctest: +SKIP
    dtype('float32')
    """
    config = SuccessConfig(tasks=("visit the places with dot 0",), success_labels="outcome", **_OF_DOTS)
    return _random(SuccessModel, dataclasses.replace(config, **changes), seed)


def tiny_value(seed: int = 0, **changes: Any) -> ValueModel:
    """Returns a value model of three small networks for the world of dots: its camera, state and first task, and the built-in encoder.

    changes: other values of `ValueConfig`. ValueError for values that cannot be.

    >>> tiny_value().predict(dot_episodes(1)[0]).value.dtype  # doctest: +SKIP
    dtype('float32')
    """
    config = ValueConfig(
        tasks=("visit the places with dot 0",),
        scales=(40.0,),
        durations=(28.0,),
        fps=10.0,
        **_OF_DOTS,
    )
    return _random(ValueModel, dataclasses.replace(config, **changes), seed)


def tiny_vlm(folder: Path | str, seed: int = 0, *, hidden: int = 32, layers: int = 2) -> Path:
    """Writes a random Qwen3-VL of about 0.5 MB and returns its folder, which `TOPRewardConfig(vlm_name=...)` and `--vlm-name` take.

    hidden, layers: width, a multiple of 32, and depth of its networks, for measurements; wider ones are larger.
    Its tokens are bytes, and the words True and False. DataError if transformers is not installed.
    """
    folder, (model, tokenizer) = Path(folder), random_vlm(seed, hidden=hidden, layers=layers)
    _save(model, tokenizer, folder)
    write_looks(folder)
    return folder


def random_vlm(seed: int, *, hidden: int = 32, layers: int = 2, words: Sequence[str] = (), tied: bool = False) -> tuple[Any, Any]:
    """Returns a random Qwen3-VL and its tokenizer. words: more special tokens. tied: the output layer has the weights of the embedding."""
    transformers = load("transformers", purpose="vision-language models", install="milepost[vlm]")
    tokenizer = _tokenizer((*_SPECIAL, *words), eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=_TEMPLATE)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    text = {
        "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers, "num_attention_heads": max(hidden // 32, 2),
        "num_key_value_heads": 1, "head_dim": 32, "vocab_size": len(tokenizer),
        "max_position_embeddings": 32768, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [6, 5, 5]},
    }  # fmt: skip
    vision = {
        "hidden_size": hidden, "intermediate_size": 2 * hidden, "depth": layers, "num_heads": max(hidden // 32, 2),
        "out_hidden_size": hidden, "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 256, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=tied,
        **dict(zip(names, map(tokenizer.convert_tokens_to_ids, marks), strict=True)),
    )  # fmt: skip
    torch.manual_seed(seed)
    return _shaken(transformers.Qwen3VLForConditionalGeneration(config)), tokenizer


def write_looks(folder: Path) -> None:
    """Writes the configs of a Qwen3-VL's image and video processors."""
    sizes = {"size": {"shortest_edge": 4096, "longest_edge": 25165824}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    looks = {**sizes, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    _write_json(folder / "video_preprocessor_config.json", {**looks, "video_processor_type": "Qwen3VLVideoProcessor"})
    _write_json(
        folder / "preprocessor_config.json",
        {**looks, "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"},
    )


def tiny_clip(folder: Path | str, seed: int = 0) -> Path:
    """Writes a random CLIP of about 0.2 MB and returns its folder, which `--encoder` and `SARMConfig(encoder=...)` take.

    It makes pictures 32 x 32. An image or a sentence is 16 numbers; its tokens are bytes. DataError if transformers is not installed.
    """
    folder = Path(folder)
    transformers = load("transformers", purpose="CLIP and SigLIP encoders", install="milepost[clip]")
    tokenizer = _tokenizer(("<|startoftext|>", "<|endoftext|>"), eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=77)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    text = {**tower, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    config = transformers.CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=16)
    torch.manual_seed(seed)
    _save(_shaken(transformers.CLIPModel(config)), tokenizer, folder)
    looks = {"do_resize": True, "size": 32, "resample": 3, "do_center_crop": True, "crop_size": 32, "do_normalize": True}
    _write_json(folder / "preprocessor_config.json", {**looks, "image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    return folder


def _tokenizer(special: Sequence[str], **settings: Any) -> Any:
    """Returns a tokenizer of bytes, of the words above, and of special tokens."""
    transformers = load("transformers", purpose="tiny models", install="milepost[vlm]")
    tokenizers = import_module("tokenizers")  # transformers brings it
    vocabulary = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        merges += [(word[:end], word[end]) for end in range(1, len(word))]
    merges += [("\u0120", word) for word in _WORDS]  # how a space is written there
    vocabulary += [one + other for one, other in merges]
    model = tokenizers.models.BPE({token: number for number, token in enumerate(vocabulary)}, merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def _shaken(model: Any) -> Any:
    """Returns the model with larger weights: as they are tokenizer, its answers hardly depend on what it is shown."""
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, 0, 0.1)
    return model.float().eval()


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    load("transformers", purpose="tiny models", install="milepost[vlm]").utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
