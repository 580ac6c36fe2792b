"""The two networks of SARM (arXiv 2509.25358): one names the stage, the other says how far through it.

Both are a transformer over parallel streams (cameras, instruction, state, and for the second the stage), every stream one token a
frame. Padding is never seen. What else a token sees is one of two rules:
  time     every stream at its own frame and before, nothing after: no output depends on a later frame.
  lerobot  every token before it in the flattened order, stream after stream: a state token sees all images, later ones too.
Only what is asked for is computed: of a window read at one place, the tokens that place depends on, and in the last layer its own.
Parameter names are those of published checkpoints.
B batch, L window, P places of it, C cameras, Z streams, E embedding, S state, K stages, H stage hypotheses, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from milepost.core import Stages


class StreamTransformer(nn.Module):
    """Streams of frames -> `outputs[head]` numbers per frame."""

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        cameras: int,
        outputs: Mapping[str, int],
        layers: int,
        heads: int,
        dropout: float,
        sees_stage: bool,
        attention: Literal["time", "lerobot"] = "time",
    ) -> None:
        """Builds the layers. `dims` has image, text, state and hidden widths."""
        super().__init__()
        hidden = dims["hidden"]
        self.hidden, self.sees_stage, self.attention = hidden, sees_stage, attention
        self.visual_proj = nn.Linear(dims["image"], hidden)
        self.lang_proj = nn.Linear(dims["text"], hidden)
        self.state_proj = nn.Linear(dims["state"], hidden)
        self.first_pos = nn.Parameter(torch.zeros(1, hidden))
        layer = nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, dropout, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        streams = cameras + 2 + sees_stage
        self.fusion_backbone = nn.Sequential(nn.LayerNorm(streams * hidden), nn.Linear(streams * hidden, hidden), nn.ReLU())
        self.heads = nn.ModuleDict({head: nn.Linear(hidden, width) for head, width in outputs.items()})

    def forward(
        self,
        images: Float[Tensor, "B L C E"],
        text: Float[Tensor, "B M"] | Float[Tensor, "B L M"],
        state: Float[Tensor, "B L S"],
        valid: Bool[Tensor, "B L"],
        *,
        stages: Sequence[Float[Tensor, "B _ _"]] = (),
        places: slice = slice(None),
    ) -> Float[Tensor, "B H P D"]:
        """Returns the fused hidden state at these places of the window, once for each of `stages`; `heads[name]` reads it.

        `text` is the same for all frames, or one a frame. `stages`: H answers to "which stage?", (B, L, K) or up to the last of
        `places`, for the network that sees them; H is 1 for the other.
        """
        assert bool(stages) == self.sees_stage
        visual = self.visual_proj(images).permute(0, 2, 1, 3)
        first = torch.zeros_like(visual[:1, :1])
        first[:, :, 0] = self.first_pos
        length = images.shape[1]
        words = self.lang_proj(text if text.ndim == 3 else text[:, None])[:, None].expand(-1, 1, length, -1)
        common = torch.cat([visual + first, words, self.state_proj(state)[:, None]], dim=1)[:, None]
        if not stages:
            mixed = self._attend(common[:, 0], valid, places)[:, None]
        else:
            stage_tokens = torch.stack([F.pad(one, (0, self.hidden - one.shape[2], 0, length - one.shape[1])) for one in stages], dim=1)
            mixed = self._attend_hypotheses(common, stage_tokens[:, :, None], valid, places)
        return self.fusion_backbone(mixed.transpose(2, 3).flatten(3))

    def _attend_hypotheses(
        self, common: Float[Tensor, "B 1 Z L D"], stage_tokens: Float[Tensor, "B H 1 L D"], valid: Bool[Tensor, "B L"], places: slice
    ) -> Float[Tensor, "B H Y P D"]:
        """Returns the hidden states under each stage hypothesis. With attention="lerobot" the stage comes last and no other stream sees it:
        the others are computed once for all hypotheses.
        """
        count, streams = stage_tokens.shape[1], common.shape[2]
        if self.attention == "time":
            tokens = torch.cat([common.expand(-1, count, -1, -1, -1), stage_tokens], dim=2).flatten(0, 1)
            return self._attend(tokens, valid.repeat_interleave(count, 0), places).unflatten(0, (-1, count))
        mixed = self._attend(torch.cat([common[:, 0], stage_tokens[:, :, 0]], dim=1), valid, places, alternatives=count)
        common = mixed[:, None, :streams].expand(-1, count, -1, -1, -1)
        return torch.cat([common, mixed[:, streams:, None]], dim=2)

    def _attend(
        self, tokens: Float[Tensor, "B Z L D"], valid: Bool[Tensor, "B L"], places: slice, alternatives: int = 1
    ) -> Float[Tensor, "B Z P D"]:
        """Runs the transformer. The last `alternatives` streams do not see each other."""
        streams, length = tokens.shape[1:3]
        place = torch.arange(length, device=tokens.device).repeat(streams)
        stream = torch.arange(streams, device=tokens.device).repeat_interleave(length)
        order = place if self.attention == "time" else stream * length + place
        rival = stream.clamp(min=streams - alternatives)
        sees = (order[None, :] <= order[:, None]) & ((rival[None, :] == rival[:, None]) | (stream[None, :] < streams - alternatives))
        is_output = torch.isin(place, place[:length][places])
        is_needed = sees[is_output].any(0)
        hidden, is_valid = tokens.flatten(1, 2), valid.repeat(1, streams)
        if not is_needed.all():
            hidden, is_valid, is_output, sees = (
                hidden[:, is_needed],
                is_valid[:, is_needed],
                is_output[is_needed],
                sees[is_needed][:, is_needed],
            )
        mask = (sees & is_valid[:, None])[:, None]
        *layers, last = self.transformer.layers
        for layer in layers:
            hidden = _transform(layer, hidden, hidden, mask)
        if is_output.all():
            return _transform(last, hidden, hidden, mask).unflatten(1, (streams, -1))
        return _transform(last, hidden[:, is_output], hidden, mask[:, :, is_output]).unflatten(1, (streams, -1))


def _transform(
    layer: Any, queries: Float[Tensor, "B Q D"], tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B 1 Q N"]
) -> Float[Tensor, "B Q D"]:
    """Runs one nn.TransformerEncoderLayer, for some of the tokens only: the queries. `mask`: which token each query may see."""
    attention = layer.self_attn
    if queries is tokens:  # one product instead of three
        projected = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    else:
        parts = zip((queries, tokens, tokens), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        projected = tuple(F.linear(x, weight, bias) for x, weight, bias in parts)
    query, key, value = (each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for each in projected)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=attention.dropout * layer.training)
    hidden = layer.norm1(queries + layer.dropout1(attention.out_proj(attended.transpose(1, 2).flatten(2))))
    return layer.norm2(hidden + layer.dropout2(layer.linear2(layer.dropout(F.relu(layer.linear1(hidden))))))


def one_hot(logits: Float[Tensor, "B P K"]) -> Float[Tensor, "B P K"]:
    """Returns the likeliest stage of each place, one-hot."""
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()


def each_stage(logits: Float[Tensor, "B P K"], valid: Bool[Tensor, "B L"]) -> list[Float[Tensor, "B L K"]]:
    """Returns K hypotheses: all of the window is in that stage."""
    return [one.expand(*valid.shape, -1) for one in torch.eye(logits.shape[-1], device=logits.device)]


def decode(logits: Float[Tensor, "*B K"], tau: Float[Tensor, "*B N"], stages: Stages, *, expected: bool) -> dict[str, Float[Tensor, "..."]]:
    """Returns what the two networks' outputs mean, by name: logits, stage (probabilities), tau, raw (k + tau), progress in [0, 1].

    tau: of each stage (N = K) if progress is expected over them, else of the likeliest one (N = 1).
    """
    starts, shares = (torch.tensor(each, dtype=torch.float32, device=logits.device) for each in (stages.starts, stages.shares))
    probability = logits.softmax(-1)
    likeliest = probability.argmax(-1)
    likeliest_tau = tau.gather(-1, likeliest[..., None] if expected else torch.zeros_like(likeliest)[..., None]).squeeze(-1)
    value = (probability * (starts + shares * tau)).sum(-1) if expected else starts[likeliest] + shares[likeliest] * likeliest_tau
    return {"logits": logits, "stage": probability, "tau": likeliest_tau, "raw": likeliest + likeliest_tau, "progress": value.clamp(0, 1)}
