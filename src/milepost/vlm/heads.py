"""A Qwen3-VL with small heads of its own: each of several images is followed by a mark, and the heads read the hidden state at the marks.

What a mark says depends on the frames up to it and on no later one. So the sequences of frames that are asked about form a tree: those
that begin with the same frames share the tokens of these. A KV cache holds the way from the root to where the reading is. A branch that is
small enough is read in one pass: each node is a block of tokens, and a mask lets it see the nodes on its own path alone. Of a larger one
the first node is added to the cache, and taken off again after its branches. The vision tower sees each image once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from milepost.core import DataError, UnreadableError
from milepost.vlm.engine import Engine
from milepost.vlm.memory import Budget
from milepost.vlm.network import TokenBlock, positions
from milepost.vlm.patches import PAIR, Resolution, Size
from milepost.vlm.video_clip import AppendView, PrefixCache, ReadView

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
PASS = {"cpu": 384, "cuda": 8192}
"""The most tokens of frames in one pass. Masked pairs cost as much as others; small passes do not fill a GPU."""
CHAIN = 1024
"""The most tokens of a single path in one pass, where that is more: it masks little, and each pass has a price of its own."""
Path = tuple[int, ...]
"""Numbers of images, in the order in which they are shown."""


@dataclass(frozen=True)
class HeadFormat:
    """What a checkpoint has beside a Qwen3-VL.

    heads: name of a head that is used -> its name in the file, each Linear, LayerNorm, GELU, Linear. outputs: how many it has. unused:
    names in the file of what is left out. tokens: the words added to the tokenizer, in order. mark: the one that follows each image.
    settings: what the config has to say where it says anything.
    """

    heads: Mapping[str, str]
    outputs: Mapping[str, int]
    unused: tuple[str, ...]
    tokens: tuple[str, ...]
    mark: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class _Piece:
    """The tokens of the frame at one place of a sequence, of which the last is its mark, and their positions."""

    ids: list[int]
    positions: Int[np.ndarray, "3 L"]


@dataclass(frozen=True)
class _Frames:
    """What all sequences share: the pieces of each place, the features of each image, the cache with the way to where the reading is."""

    pieces: list[_Piece]
    features: tuple[Tensor, list[Tensor]]
    cache: PrefixCache

    def of(self, images: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Returns the features of these images, one after the other."""
        features, levels = self.features
        rows = torch.tensor(images, device=features.device)
        return features[rows].flatten(0, 1), [level[rows].flatten(0, 1) for level in levels]


class FrameEngine(Engine):
    """A loaded model with its heads. `tokens` counts the language tokens computed: "prefix" and "frames"."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, heads: Mapping[str, nn.Module], mark: str, unused: Sequence[str] = (),
        max_memory: int | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        """Takes a loaded model with its heads. unused: the parts of the checkpoint that were left out."""
        super().__init__(model, tokenizer, max_memory=max_memory, **settings)
        self.heads, self.mark, self.unused = dict(heads), mark, tuple(unused)
        device = self.networks.device
        self.chain = CHAIN
        self.budget = Budget(max_memory, device=device, limits={"paths": PASS["cpu" if device.type == "cpu" else "cuda"]})

    @torch.inference_mode()
    def read(
        self, images: UInt8[np.ndarray, "N H W 3"], *, text: str, paths: Sequence[Path], resolution: Resolution | None = None
    ) -> dict[str, Float[np.ndarray, "P O"]]:
        """Returns, for each head, its outputs (float32) at the mark of the last image of each path. text: stands before the images.

        DataError if there is no path, or an empty one; UnreadableError if the longest is longer than the model's context.
        """
        if not paths or not all(paths):
            raise DataError("there should be at least one sequence of images to read, and an image at least in each")
        height, width = images.shape[1:3]
        size = self.processor.size(resolution or Resolution(), frames=PAIR, height=height, width=width)
        lead, pieces = self.pieces(text, longest=max(map(len, paths)), size=size)
        frames = _Frames(pieces, self.features(images, size), PrefixCache(self.networks.layers, size))
        places, _ = positions(lead, video=self.networks.image, grid=(0, 0), start=0)
        self.networks.forward([TokenBlock(lead, places)], AppendView(frames.cache), features=None, prefix_tokens=0)
        frames.cache.commit([0, len(lead)], [0, 0])
        self.tokens["prefix"] += len(lead)
        rows: dict[Path, Tensor] = {}
        self._walk(frames, 0, sorted(set(paths)), rows)
        hidden = torch.stack([rows[path] for path in paths]).float()
        return {name: head(hidden).cpu().numpy() for name, head in self.heads.items()}

    def _walk(self, frames: _Frames, depth: int, paths: Sequence[Path], rows: dict[Path, Tensor]) -> None:
        """Adds the hidden state at the last mark of each path to `rows`. The cache has their first `depth` images, then too."""
        branches = [[*same] for _, same in groupby(paths, key=lambda path: path[: depth + 1])]

        def cost(start: int, stop: int) -> tuple[int, int]:
            nodes = _nodes([path for branch in branches[start:stop] for path in branch], depth)
            tokens = sum(len(frames.pieces[len(node) - 1].ids) for node in nodes)
            token, _, _ = self.networks.activation_bytes(frames.cache.ends[-1] + tokens)
            return tokens, tokens * token

        def run(start: int, stop: int) -> None:
            here = [path for branch in branches[start:stop] for path in branch]
            tokens, size = cost(start, stop)
            nodes, limit = _nodes(here, depth), self.budget.limits["paths"]
            most = max(limit, self.chain) if len(nodes) == max(map(len, nodes)) - depth else limit
            if len(nodes) > 1 and (tokens > most or size > self.budget.free()):
                self._descend(frames, depth, here, rows)
            else:
                rows.update(zip(here, self._pass(frames, depth, here), strict=True))

        self.budget.steps("paths", len(branches), cost=cost, run=run)

    def _descend(self, frames: _Frames, depth: int, paths: Sequence[Path], rows: dict[Path, Tensor]) -> None:
        """Walks paths that have at least one more image in common; what they have in common is in the cache meanwhile."""
        cache, before = frames.cache, list(frames.cache.ends)
        common, most = self._common(paths), max(self.budget.limits["paths"], self.chain)
        end, tokens = depth + 1, len(frames.pieces[depth].ids)
        while end < len(common) and self._fits(before[-1], tokens + len(frames.pieces[end].ids), most):
            tokens += len(frames.pieces[end].ids)
            end += 1
        nodes = [common[:stop] for stop in range(depth + 1, end + 1)]
        hidden = dict(zip(nodes, self._pass(frames, depth, nodes, into=AppendView(cache)), strict=True))
        cache.commit([*before, before[-1] + tokens], [0] * (len(before) + 1))
        try:
            rows.update({node: each for node, each in hidden.items() if node in paths})
            self._walk(frames, end, [path for path in paths if path not in hidden], rows)
        finally:
            cache.commit(before, [0] * len(before))

    def _common(self, paths: Sequence[Path]) -> Path:
        """Returns the images with which all these paths begin."""
        first, last = min(paths), max(paths)
        return first[: next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))]

    def _fits(self, cached: int, tokens: int, most: int) -> bool:
        """Returns whether a pass over so many tokens is within the limits."""
        token, _, _ = self.networks.activation_bytes(cached + tokens)
        return tokens <= most and tokens * token <= self.budget.free()

    def _pass(self, frames: _Frames, depth: int, paths: Sequence[Path], into: AppendView | None = None) -> Float[Tensor, "P E"]:
        """Runs one pass over the nodes of these paths after their first `depth` images. Returns the hidden state at the last mark of each.

        into: where the keys and values go; None: nowhere.
        """
        nodes = _nodes(paths, depth)
        numbers = {node: number for number, node in enumerate(nodes)}
        cached = frames.cache.ends[-1]
        blocks, ends, total = [], [], 0
        for number, node in enumerate(nodes):
            piece = frames.pieces[len(node) - 1]
            before = tuple(numbers[node[:end]] for end in range(depth + 1, len(node)))
            blocks.append(TokenBlock(piece.ids, piece.positions, visible=cached, attention_group=number, also=before))
            total += len(piece.ids)
            ends.append(total - 1)
        self.tokens["frames"] += total
        return self.networks.forward(
            blocks,
            into or ReadView(frames.cache, cached),
            features=frames.of([node[-1] for node in nodes]),
            prefix_tokens=cached,
            output_tokens=[ends[numbers[path]] for path in paths],
        )

    def features(self, images: UInt8[np.ndarray, "N H W 3"], size: Size) -> tuple[Float[Tensor, "N L E"], list[Tensor]]:
        """Returns the vision tower's features of each image, which fills a group of its own."""
        features, levels = self.encode_images([np.stack([image, image]) for image in images], size)
        each = self.processor.tokens(size)
        return features.unflatten(0, (len(images), each)), [level.unflatten(0, (len(images), each)) for level in levels]

    def pieces(self, text: str, *, longest: int, size: Size) -> tuple[list[int], list[_Piece]]:
        """Returns the ids of the text before the first image, and the pieces of as many places as the longest path has."""
        encode, name = self.tokenizer.encode, self.tokenizer.convert_tokens_to_ids
        lead, *others = [list(encode(words, add_special_tokens=False)) for words in self._words(text, longest)]
        grid = size[0] // self.processor.factor, size[1] // self.processor.factor
        image = [name("<|vision_start|>"), *[self.networks.image] * self.processor.tokens(size), name("<|vision_end|>"), name(self.mark)]
        pieces, after, tokens = [], len(lead), len(lead)
        for words in [[], *others]:
            places, after = positions(words + image, video=self.networks.image, grid=grid, start=after)
            pieces.append(_Piece(words + image, places))
            tokens += len(places[0])
        limit = min(self.longest, int(self.networks.config.max_position_embeddings))
        if tokens > limit:
            raise UnreadableError(
                f"{longest} frames at {size[0]} x {size[1]} and the question are {tokens} tokens, {limit} are allowed; use fewer frames, "
                "or smaller ones (max_pixels)"
            )
        return lead, pieces

    def _words(self, text: str, longest: int) -> list[str]:
        """Returns the words before each image, in the model's chat template, which numbers the images.

        DataError if the template has no images or no numbers, or the text holds marks of the model.
        """
        if marks := [token for token in sorted(self.tokenizer.get_added_vocab()) if token in text]:
            raise DataError(f"the task holds {marks[0]}, which is a mark to this model and no words; take it out")
        if not self.tokenizer.chat_template:
            raise DataError("this tokenizer has no chat template (chat_template.json or .jinja); the model's folder is incomplete")
        content: list[dict[str, str]] = [{"type": "image"}, {"type": "text", "text": self.mark}] * max(longest, 2)
        turn = [{"role": "user", "content": [{"type": "text", "text": text}, *content]}]
        rendered = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=False, add_vision_id=True)
        parts = rendered.split(IMAGE + self.mark)[:-1]
        if len(parts) != max(longest, 2):
            raise DataError(f"this model's chat template renders no {IMAGE} for an image: it is not of the Qwen3-VL kind")
        if not parts[1]:
            raise DataError("this model's chat template does not number the images (add_vision_id), as Qwen3-VL's does")
        return parts[:longest]


def _nodes(paths: Sequence[Path], depth: int) -> list[Path]:
    """Returns the beginnings of these paths that have more than `depth` images, each once and after its own beginning.

    >>> _nodes([(0, 1), (0, 1, 2), (0, 1, 3)], 1)
    [(0, 1), (0, 1, 2), (0, 1, 3)]
    """
    return list(dict.fromkeys(path[:end] for path in paths for end in range(depth + 1, len(path) + 1)))
