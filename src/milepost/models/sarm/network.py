"""The two networks of SARM (arXiv 2509.25358): one names the stage, the other says how far through it.

Both are a transformer over parallel streams (cameras, instruction, state, and for the second the stage), every stream one token a
frame. Padding is never seen. What else a token sees is one of two rules:
  time     every stream at its own frame and before, nothing after: no output depends on a later frame.
  lerobot  every token before it in the flattened order, stream after stream: a state token sees all images, later ones too.
Parameter names are those of published checkpoints. B batch, L window, C cameras, E embedding, S state, K stages, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


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
        """`dims` has image, text, state and hidden widths."""
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
        stage: Float[Tensor, "B L K"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The fused hidden state of every frame; `heads[name]` reads it. `text` is the same for all frames, or one a frame."""
        visual = self.visual_proj(images).permute(0, 2, 1, 3)
        first = torch.zeros_like(visual[:1, :1])
        first[:, :, 0] = self.first_pos
        words = self.lang_proj(text if text.ndim == 3 else text[:, None])
        streams = [visual + first, words[:, None].expand(-1, 1, images.shape[1], -1)]
        streams.append(self.state_proj(state)[:, None])
        if self.sees_stage:
            assert stage is not None
            streams.append(F.pad(stage, (0, self.hidden - stage.shape[-1]))[:, None])
        tokens = torch.cat(streams, dim=1)
        mixed = self._attend(tokens, valid)
        return self.fusion_backbone(mixed.permute(0, 2, 1, 3).flatten(2))

    def _attend(self, tokens: Float[Tensor, "B Z L D"], valid: Bool[Tensor, "B L"]) -> Float[Tensor, "B Z L D"]:
        batch, streams, length, hidden = tokens.shape
        place = torch.arange(streams * length, device=tokens.device)
        order = place % length if self.attention == "time" else place
        future = order[None, :] > order[:, None]
        padding = ~valid.repeat(1, streams)
        mixed = self.transformer(tokens.flatten(1, 2), mask=future, src_key_padding_mask=padding)
        return mixed.view(batch, streams, length, hidden)
