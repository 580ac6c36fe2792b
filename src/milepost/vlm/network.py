"""One pass of Qwen3-VL's networks over a sequence that is not one text: blocks of a prefix, or branches and questions after a cached
prefix.

The decoder layers are called one by one with our own KV cache, positions and masks. Image features are added after the first layers
(DeepStack). The model's own forward is not used: its positions depend on state of the module, its masks on what it assumes about the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from milepost.core import DataError
from milepost.vlm.layers import keys_and_values, multiply_patches, own_logits, require_known, rotary_embeddings, run_layer, vision_features
from milepost.vlm.patches import Size
from milepost.vlm.video_clip import AppendView, ReadView, StoredView


@dataclass(frozen=True)
class TokenBlock:
    """Consecutive tokens that see the same. positions (3, L): time, height, width. visible: how many tokens of the cached prefix they
    attend to.

    attention_group, subgroup: attention inside the sequence is causal and stays inside one attention group. Subgroup 0 is visible to every
    later token of the group; every other subgroup is visible to itself alone. also: numbers of earlier blocks of the sequence, of other
    groups, that are visible too.
    """

    ids: list[int]
    positions: Int[np.ndarray, "3 L"]
    visible: int = 0
    attention_group: int = 0
    subgroup: int = 0
    also: tuple[int, ...] = ()


def positions(ids: Sequence[int], *, video: int, grid: Size, start: int) -> tuple[Int[np.ndarray, "3 L"], int]:
    """Returns (time, height, width) of each token from `start`, and the position after them. A word counts one, an image its longer side.

    grid: language tokens a picture is high and wide; all its placeholders (id `video`) share one time.
    """
    tokens = np.asarray(ids)
    image_positions = np.flatnonzero(tokens == video)
    if not len(image_positions):
        return np.broadcast_to(np.arange(start, start + len(tokens)), (3, len(tokens))), start + len(tokens)
    first, last = int(image_positions[0]), int(image_positions[-1]) + 1
    after = start + first + max(grid)
    image_grid = start + first + np.stack([np.zeros(grid, np.int64), *np.indices(grid)]).reshape(3, -1)
    before_image, after_image = np.arange(start, start + first), np.arange(after, after + len(tokens) - last)
    token_positions = np.concatenate([np.tile(before_image, (3, 1)), image_grid, np.tile(after_image, (3, 1))], axis=1)
    return token_positions, after + len(tokens) - last


def mask(blocks: Sequence[TokenBlock], prefix_tokens: int, *, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 1 Q K"]:
    """Returns the additive attention mask of a sequence of blocks: 0 or the lowest number, over `prefix_tokens` cached tokens and then the
    sequence.
    """

    def spread(values: list[int]) -> Tensor:
        return torch.from_numpy(np.repeat(values, [len(block.ids) for block in blocks])).to(device)

    attention_group, subgroup, visible = (spread([getattr(p, name) for p in blocks]) for name in ("attention_group", "subgroup", "visible"))
    own = (attention_group[:, None] == attention_group) & ((subgroup[:, None] == subgroup) | (subgroup == 0))
    if any(block.also for block in blocks):
        seen_blocks = torch.zeros((len(blocks), len(blocks)), dtype=torch.bool)
        for number, block in enumerate(blocks):
            seen_blocks[number, list(block.also)] = True
        numbers = spread([*range(len(blocks))])
        own |= seen_blocks.to(device)[numbers[:, None], numbers]
    total, least = len(attention_group), min(block.visible for block in blocks)
    width = -(-(prefix_tokens + total) // 8) * 8  # the GPU's kernel reads rows in eights; a view of wider rows spares it a copy
    attention_mask = torch.zeros((total, width), dtype=dtype, device=device)[:, : prefix_tokens + total]
    lowest = torch.finfo(dtype).min
    attention_mask[:, least:prefix_tokens].masked_fill_(torch.arange(least, prefix_tokens, device=device) >= visible[:, None], lowest)
    attention_mask[:, prefix_tokens:].masked_fill_(~own.tril_(), lowest)
    return attention_mask[None, None]


class Networks:
    """The vision tower, the language layers and the output head of a loaded model, of which nothing else is used."""

    def __init__(self, model: nn.Module) -> None:
        whole: Any = model
        require_known(whole)
        self.model = whole
        self.text = whole.model.language_model
        self.tower = whole.model.visual
        multiply_patches(self.tower)
        self.config = whole.config.text_config
        self.video: int = whole.config.video_token_id
        self.image: int = whole.config.image_token_id
        self.layers = len(self.text.layers)
        self.answers: tuple[list[int], Tensor] | None = None
        """Tokens whose rows of the output layer are others than the model's, and these rows (N, E) in float32."""

    def use_answers(self, tokens: list[int], rows: Float[Tensor, "N E"]) -> None:
        """Takes other rows of the output layer for these tokens. The embedding, which may be the same weight, stays as it is."""
        self.answers = tokens, rows

    def answer_logits(self, hidden: Float[Tensor, "N E"], tokens: list[int]) -> Float[Tensor, "N A"]:
        """Returns the logits of a few tokens in float32, without those of the whole vocabulary."""
        if self.answers is not None and self.answers[0] == tokens:
            return hidden.float() @ self.answers[1].T
        return (hidden @ self.model.lm_head.weight[tokens].T).float()

    @property
    def device(self) -> torch.device:
        return self.text.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text.embed_tokens.weight.dtype

    @property
    def eager(self) -> bool:
        return bool(self.config._attn_implementation == "eager")

    def encode_images(self, rows: Float[Tensor, "N D"], *, groups: int, grid: Size) -> tuple[Tensor, list[Tensor]]:
        """Returns the vision tower's features of all groups' tokens, and those of each DeepStack level."""
        where = torch.tensor([[groups, *grid]], device=self.device)
        return vision_features(self.tower, rows, where)

    def forward(
        self,
        blocks: Sequence[TokenBlock],
        cache: AppendView | ReadView,
        *,
        features: tuple[Tensor, list[Tensor]] | None,
        prefix_tokens: int,
        output_tokens: Sequence[int] = (),
    ) -> Float[Tensor, "N E"]:
        """Returns the last hidden states of `output_tokens`, all of which are words. features: of the image placeholders, in order.
        DataError if they are no numbers.

        prefix_tokens: how many tokens the cache has. In the last layer only the output tokens go through attention; the others leave their
        keys and values, which cost little.
        """
        ids = torch.tensor([i for block in blocks for i in block.ids], device=self.device)[None]
        token_positions = torch.from_numpy(np.concatenate([block.positions for block in blocks], axis=1)).to(self.device)[:, None]
        hidden = self.text.embed_tokens(ids)
        is_image_token = ((ids == self.video) | (ids == self.image))[0]
        if features is not None:
            hidden[0, is_image_token] = features[0].to(hidden.dtype)
        plain_causal = isinstance(cache, AppendView) and not prefix_tokens and not self.eager  # plain causal attention, which needs no mask
        attention_mask = None if plain_causal else mask(blocks, prefix_tokens, dtype=hidden.dtype, device=self.device)
        rotary = rotary_embeddings(self.text, hidden, token_positions)
        *layers, last = self.text.layers
        for number, layer in enumerate(layers):
            hidden = run_layer(layer, hidden, mask=attention_mask, rotary=rotary, cache=cache)
            if features is not None and number < len(features[1]):
                hidden[0, is_image_token] += features[1][number].to(hidden.dtype)
        last_cache = StoredView(*cache.update(len(layers), *keys_and_values(last, hidden, rotary)))
        if not output_tokens:
            return hidden[0, :0]
        assert attention_mask is not None  # only the prefill of a new prefix goes without a mask, and it asks for no outputs
        rows = torch.tensor(output_tokens, device=self.device)
        rotary = rotary[0][:, rows], rotary[1][:, rows]
        hidden = run_layer(last, hidden[:, rows], mask=attention_mask[:, :, rows], rotary=rotary, cache=last_cache)
        return _numbers(self.text.norm(hidden)[0])

    def own(self, ids: list[int], rows: Float[Tensor, "N D"], grid: tuple[int, int, int]) -> Float[Tensor, "V"]:
        """Returns log-probabilities (float32) of the token after `ids` by the model's own forward. grid: (groups, height, width) of its
        video.
        """
        tokens, where = torch.tensor([ids], device=self.device), torch.tensor([grid], device=self.device)
        return own_logits(self.model, tokens, video=self.video, rows=rows, grid=where).float().log_softmax(-1)

    def log_probabilities(self, hidden: Float[Tensor, "N E"]) -> Float[Tensor, "N V"]:
        """Returns log-probabilities of the next token, in float32. DataError if they are no numbers."""
        logits = self.model.lm_head(hidden).float()
        if self.answers is not None:
            tokens, rows = self.answers
            logits[:, tokens] = hidden.float() @ rows.T
        logprobs = logits.log_softmax(-1)
        _numbers(logprobs[:, 0])  # one that is no number makes all of its row none
        return logprobs

    def activation_bytes(self, keys: int) -> tuple[int, int, int]:
        """Returns estimates in bytes: of a language token that attends to `keys` tokens, of the patches of an image token in the tower, of
        an answer's logits.
        """
        config, tower, size = self.config, self.model.config.vision_config, self.dtype.itemsize
        heads = config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        busy = max(
            config.intermediate_size,
            getattr(config, "moe_intermediate_size", 0) * getattr(config, "num_experts_per_tok", 0),
        )
        token = size * (6 * config.hidden_size + 3 * busy + 4 * heads * head) + 8 * config.hidden_size
        token += keys * (heads * (8 + size) if self.eager else size + 1)
        patches = tower.spatial_merge_size**2
        return (
            token,
            patches * (size * (8 * tower.hidden_size + 2 * tower.intermediate_size) + 24 * tower.patch_size**2),
            12 * config.vocab_size,
        )


def _numbers(outputs: Tensor) -> Tensor:
    """Returns what a network put out. DataError if it is NaN or infinite, which would make every score unknown without a reason."""
    if not outputs.isfinite().all():
        raise DataError(
            f"the model puts out NaN: its weights are damaged, or too large for {str(outputs.dtype).removeprefix('torch.')} "
            "(--precision bfloat16 or float32 helps then)"
        )
    return outputs
