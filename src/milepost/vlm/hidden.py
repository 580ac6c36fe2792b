"""Hidden states of one clip in one pass, through which gradients can flow: what fine-tuning learns from.

Nothing is shared between questions here and nothing is cached, because a weight that changes makes every cache wrong. The vision tower is
frozen. The numbers are those that `FrameEngine.read` and `Engine.score` compute from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from milepost.vlm.engine import Engine
from milepost.vlm.heads import FrameEngine
from milepost.vlm.network import TokenBlock, positions
from milepost.vlm.patches import PAIR, Resolution
from milepost.vlm.video_clip import Clip, PrefixCache, ReadView


def marks_hidden(
    engine: FrameEngine, images: UInt8[np.ndarray, "N H W 3"], *, text: str, resolution: Resolution | None = None
) -> Float[Tensor, "N E"]:
    """Returns the hidden states at the mark behind each image, which are shown in this order after the text. UnreadableError as `read`."""
    height, width = images.shape[1:3]
    size = engine.processor.size(resolution or Resolution(), frames=PAIR, height=height, width=width)
    lead, pieces = engine.pieces(text, longest=len(images), size=size)
    with torch.no_grad():
        features, levels = engine.features(images, size)
    lead_positions, _ = positions(lead, video=engine.networks.image, grid=(0, 0), start=0)
    blocks = [TokenBlock(lead, lead_positions), *(TokenBlock(piece.ids, piece.positions) for piece in pieces)]
    marks = (np.cumsum([len(block.ids) for block in blocks])[1:] - 1).tolist()
    return engine.networks.forward(
        blocks,
        ReadView(PrefixCache(engine.networks.layers, size), 0),
        features=(features.flatten(0, 1), [level.flatten(0, 1) for level in levels]),
        prefix_tokens=0,
        output_tokens=marks,
    )


def answer_hidden(engine: Engine, clip: Clip, *, instruction: str, answers: Sequence[str]) -> tuple[Float[Tensor, "1 E"], list[int]]:
    """Returns the hidden state from which the answer about a whole clip is computed, and the token of each answer. Errors as `score`."""
    height, width = clip.frames.shape[1:3]
    size = engine.processor.size(clip.resolution, frames=len(clip), height=height, width=width)
    ids, answer_ids = engine.suffixes([instruction], answers)[0]
    pairs = [clip.pair(group) for group in range(len(clip) // PAIR)]
    if (branch := clip.odd(len(clip))) is not None:
        pairs.append(branch)
    engine.require_context(PrefixCache(engine.networks.layers, size), groups=len(pairs), question=len(ids))
    with torch.no_grad():
        features = engine.encode_images([frames for frames, _ in pairs], size)
    blocks, after = [], 0
    for group, (_, time_s) in enumerate(pairs):
        block, after = engine.block(engine.stamp(group, time_s, size), size, start=after)
        blocks.append(block)
    block, _ = engine.block(ids, size, start=after)
    blocks.append(block)
    last = sum(len(each.ids) for each in blocks) - 1
    view = ReadView(PrefixCache(engine.networks.layers, size), 0)
    hidden = engine.networks.forward(blocks, view, features=features, prefix_tokens=0, output_tokens=[last])
    return hidden, answer_ids
