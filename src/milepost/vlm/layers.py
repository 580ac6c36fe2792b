"""All of transformers' Qwen3-VL that is driven by hand: decoder layers with caches of ours, rotary embeddings, the vision tower, its own
forward.

Keywords are chosen by reading the installed signatures: 5.24 renamed a layer's `past_key_values` to `cache`, and passes a cache more
arguments than before. If no known name is there, the model is refused when it is opened, in one line: a layer's **kwargs would otherwise
swallow the cache silently.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from milepost.core import DataError

CACHE = ("cache", "past_key_values")
"""Names that a decoder layer has had for its cache, newest first."""
TESTED = ">=5.4,<5.25"
"""Releases of transformers whose internals were tested."""
_UPDATE = ("key_states", "value_states", "layer_idx")
_FORWARD = ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values_videos", "video_grid_thw")


@runtime_checkable
class CacheView(Protocol):
    """Stores the keys and values of new tokens, and returns those that the new tokens attend to."""

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of all tokens that the new ones attend to, themselves among them."""
        ...


@dataclass(frozen=True)
class _TransformersCache:
    """A `CacheView` with the interface of transformers' `Cache`, as far as a decoder layer calls it. Other arguments are ignored."""

    cache: CacheView

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self.cache.update(layer_idx, key_states, value_states)


def run_layer(
    layer: nn.Module, hidden: Float[Tensor, "1 Q E"], *, mask: Tensor | None, rotary: tuple[Tensor, Tensor], cache: CacheView
) -> Float[Tensor, "1 Q E"]:
    """Returns the output of a decoder layer. mask: additive attention mask, None for causal attention. rotary: the result of
    `rotary_embeddings`.

    Where gradients are computed, what the layer computes inside is computed again on the way back, and not kept: memory for one layer.
    """
    words: dict[str, Any] = {
        "attention_mask": mask,
        "position_embeddings": rotary,
        str(cache_keyword(layer.forward)): _TransformersCache(cache),
    }
    out = checkpoint(layer, hidden, use_reentrant=False, **words) if torch.is_grad_enabled() else layer(hidden, **words)
    return out if isinstance(out, Tensor) else out[0]  # a tuple before transformers 5


def cache_keyword(forward: Callable[..., Any]) -> str | None:
    """Returns the name of a decoder layer's cache argument: a known name, else the one annotated as a `Cache`; None if it takes none."""
    names = inspect.signature(forward).parameters
    by_type = [name for name, each in names.items() if "Cache" in str(each.annotation)]
    return next((name for name in (*CACHE, *by_type) if name in names), None)


def rotary_embeddings(text: Any, hidden: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines (1, L, D) of positions (3, 1, L), which rotate queries and keys."""
    return text.rotary_emb(hidden, places)


def keys_and_values(layer: Any, hidden: Float[Tensor, "1 Q E"], rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the keys and values (1, heads, Q, D) that a decoder layer computes of its input, without running the layer."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    keys = attention.k_norm(attention.k_proj(normed).view(shape)).transpose(1, 2)
    first, second = keys.chunk(2, dim=-1)
    keys = keys * rotary[0][:, None] + torch.cat([-second, first], dim=-1) * rotary[1][:, None]
    return keys, attention.v_proj(normed).view(shape).transpose(1, 2)


class PatchProduct(nn.Module):
    """The vision tower's convolution, whose windows are the patches, as the matrix product that it is: the same weights in less time."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, patches: Float[Tensor, "N C T P Q"]) -> Float[Tensor, "N E"]:
        return nn.functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def multiply_patches(tower: Any) -> None:
    """Makes the tower compute its patches by a `PatchProduct`, if it has the convolution that is one; else leaves it as it is."""
    embedding: Any = getattr(tower, "patch_embed", None)
    convolution = getattr(embedding, "proj", None)
    if isinstance(convolution, nn.Conv3d) and convolution.kernel_size == convolution.stride and convolution.groups == 1:
        embedding.register_module("proj", PatchProduct(convolution))


def vision_features(tower: Any, rows: Float[Tensor, "N D"], grid: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the vision tower's features of all tokens, and those of each DeepStack level. grid: (groups, height, width) in patches of
    each video.
    """
    output = tower(rows.to(tower.dtype), grid_thw=grid)
    return output.pooler_output, output.deepstack_features


def own_logits(model: Any, tokens: Tensor, *, video: int, rows: Tensor, grid: Tensor) -> Float[Tensor, "V"]:
    """Returns the model's own logits, with its own positions, of the token after `tokens` (1, L), which hold one video."""
    words: dict[str, Any] = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": 2 * (tokens == video).int(),
        "pixel_values_videos": rows,
        "video_grid_thw": grid,
        "logits_to_keep": 1,
        "use_cache": False,
    }
    return model(**words).logits[0, -1]


def changes(model: Any) -> list[str]:
    """Returns, a few words each, what the installed transformers has changed of what is driven here; empty if nothing."""
    text, tower = model.model.language_model, model.model.visual
    layer = text.layers[0]
    kind = type(layer).__name__
    messages = _lacking(layer.forward, ("hidden_states", "attention_mask", "position_embeddings"), kind)
    if cache_keyword(layer.forward) is None:
        messages.append(f"{kind}.forward takes no cache ({' or '.join(CACHE)})")
    messages += _lacking(text.rotary_emb.forward, ("x", "position_ids"), type(text.rotary_emb).__name__)
    messages += _lacking(tower.forward, ("hidden_states", "grid_thw"), type(tower).__name__)
    messages += _lacking(model.forward, _FORWARD, type(model).__name__)
    parts = {
        kind: (layer, ("input_layernorm", "self_attn")),
        "its attention": (layer.self_attn, ("head_dim", "k_proj", "k_norm", "v_proj")),
    }
    parts |= {type(text).__name__: (text, ("embed_tokens", "norm")), type(model).__name__: (model, ("lm_head",))}
    messages += [f"{name} has no {part}" for name, (owner, names) in parts.items() for part in names if not hasattr(owner, part)]
    update = tuple(inspect.signature(importlib.import_module("transformers").Cache.update).parameters)[1:4]
    return messages + ([f"Cache.update takes {', '.join(update)} in place of {', '.join(_UPDATE)}"] if update != _UPDATE else [])


def require_known(model: Any) -> None:
    """Raises DataError if the installed transformers has changed what is driven here."""
    if messages := changes(model):
        version = importlib.import_module("transformers").__version__
        raise DataError(
            f"transformers {version} has changed inside since it was tested ({'; '.join(messages)}): pip install 'transformers{TESTED}'"
        )


def _lacking(function: Callable[..., Any], names: tuple[str, ...], owner: str) -> list[str]:
    """Returns, in words, which of the names are no parameters of the function."""
    parameters = inspect.signature(function).parameters
    return [f"{owner}.forward takes no {name}" for name in names if name not in parameters]
