"""A local Qwen3-VL that answers in words: images and text prefilled once, then token after token, by the networks of `network.py`.

What a conversation has in common with the one before it is not read again: a second question about the same pictures, or a second try
after a first answer, costs its own tokens. The words are those of transformers' own `generate`; images need no torchvision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from milepost.core import DataError
from milepost.vlm.chat import Turn, plain
from milepost.vlm.engine import LOOK, Engine
from milepost.vlm.network import Piece, positions
from milepost.vlm.patches import Resolution, Size
from milepost.vlm.server import Reply
from milepost.vlm.video_clip import Appending, Trunk

IMAGE = "<|image_pad|>"
SHEETS = Resolution(max_pixels=1_638_400)
"""Contact sheets as they are: 1600 tokens, where a frame has at most 768; their numbers and times stay legible."""


@dataclass(frozen=True, eq=False)
class LocalPicture:
    """An image and the size it is read at. key: below 0, of this picture alone."""

    image: UInt8[np.ndarray, "H W 3"]
    size: Size
    key: int


@dataclass(frozen=True)
class _Part:
    """Text as ids, or one picture's placeholders. keys: what tells two texts apart, the ids, or the picture's key at each placeholder."""

    ids: list[int]
    picture: LocalPicture | None = None

    @property
    def keys(self) -> list[int]:
        return self.ids if self.picture is None else [self.picture.key] * len(self.ids)


class LocalSpeaker:
    """One loaded model. Not for two threads at once, but for `picture`. `tokens` counts "prefilled", "reused" and "generated" ones."""

    def __init__(self, engine: Engine, *, resolution: Resolution = SHEETS) -> None:
        self.engine = engine
        self.tokens: Counter[str] = Counter()
        self._resolution, self._numbers = resolution, count(1)
        self._keys: list[int] = []
        self._after: list[int] = []
        """The position that follows each token read so far."""
        self._trunk = Trunk(engine.networks.layers, (0, 0))
        self._stops = {engine.tokenizer.eos_token_id}
        told = getattr(getattr(engine.networks.model, "generation_config", None), "eos_token_id", None)
        self._stops |= set(told if isinstance(told, list) else [told])

    @property
    def name(self) -> str:
        return self.engine.name

    def picture(self, image: UInt8[np.ndarray, "H W 3"]) -> LocalPicture:
        height, width = image.shape[:2]
        size = self.engine.pictures.size(self._resolution, frames=2, height=height, width=width)
        return LocalPicture(image, size, -next(self._numbers))

    def close(self) -> None:
        """Forget what was read."""
        self._keys, self._after, self._trunk = [], [], Trunk(self.engine.networks.layers, (0, 0))

    @torch.inference_mode()
    def reply(
        self,
        turns: Sequence[Turn],
        *,
        json_schema: Mapping[str, Any] | None = None,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """DataError if it does not fit into the model's context, or memory runs out. json_schema is not held to here."""
        logits = self._read(self._parts(turns), room=max_tokens)
        generator = torch.Generator().manual_seed(seed if seed is not None else 0)
        words: list[int] = []
        while len(words) < max_tokens:
            token = _choice(logits, temperature, generator)
            if token in self._stops:
                break
            words.append(token)
            logits = self._next(token)
        self.tokens["generated"] += len(words)
        text = self.engine.tokenizer.decode(words, skip_special_tokens=True)
        return Reply(str(text), "length" if len(words) == max_tokens else "stop")

    def _parts(self, turns: Sequence[Turn]) -> list[_Part]:
        """The conversation in the model's chat template, as texts and pictures in turn."""
        pictures = [part for turn in turns for part in turn.content if isinstance(part, LocalPicture)]
        messages = [{"role": turn.role, "content": _content(turn)} for turn in turns]
        tokenizer = self.engine.tokenizer
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        texts = rendered.split(IMAGE)
        if len(texts) != len(pictures) + 1:
            raise DataError(f"this model's chat template has {len(texts) - 1} places for {len(pictures)} images: not Qwen3-VL's kind")
        parts = []
        for number, text in enumerate(texts):
            parts.append(_Part(list(tokenizer.encode(text, add_special_tokens=False))))
            if number < len(pictures):
                picture = pictures[number]
                parts.append(_Part([self.engine.networks.image] * self.engine.pictures.tokens(picture.size), picture))
        return parts

    def _read(self, parts: Sequence[_Part], *, room: int) -> Float[Tensor, "V"]:
        """Prefill what is new of the conversation; returns what is said of the next token."""
        keys = [key for part in parts for key in part.keys]
        longest = min(self.engine.longest, self.engine.networks.config.max_position_embeddings)
        if len(keys) + room > longest:
            raise DataError(
                f"the frames and the question are {len(keys)} tokens, with the answer up to {len(keys) + room}; the model reads {longest}: "
                "show fewer frames, or allow a shorter answer"
            )
        kept = min(_common(self._keys, keys), len(keys) - 1)
        self._keys, self._after = self._keys[:kept], self._after[:kept]
        self._trunk.grow([0, kept], [0, 0])
        self.tokens.update({"reused": kept, "prefilled": len(keys) - kept})
        *todo, last = _behind(parts, kept)  # a template ends in words; of them the very last token is asked, the others are read
        if len(last.ids) > 1:
            todo.append(_Part(last.ids[:-1]))

        def cost(start: int, stop: int) -> tuple[int, int]:
            tokens = sum(len(part.ids) for part in todo[start:stop])
            token, patches, _ = self.engine.networks.activation_bytes(len(self._keys) + tokens)
            pictured = sum(len(part.ids) for part in todo[start:stop] if part.picture)
            return tokens, tokens * token + pictured * patches

        def run(start: int, stop: int) -> None:
            pieces, at = [], self._after[-1] if self._after else 0
            for part in todo[start:stop]:
                places, at = self._places(part, at)
                pieces.append(Piece(part.ids, places))
            pictures = [part.picture for part in todo[start:stop] if part.picture]
            self._append(pieces, [key for part in todo[start:stop] for key in part.keys], features=self._look(pictures))

        self.engine.budget.steps("trunk", len(todo), cost=cost, run=run)
        return self._next(last.ids[-1])

    def _next(self, token: int) -> Float[Tensor, "V"]:
        """Put one token of words behind those read so far; returns the log-probabilities of the one after it."""
        hidden = self._append([Piece([token], np.full((3, 1), self._after[-1] if self._after else 0))], [token], wanted=(0,))
        return self.engine.networks.log_probabilities(hidden)[0]

    def _places(self, part: _Part, start: int) -> tuple[np.ndarray, int]:
        size = part.picture.size if part.picture else (0, 0)
        grid = size[0] // self.engine.pictures.factor, size[1] // self.engine.pictures.factor
        return positions(part.ids, video=self.engine.networks.image, grid=grid, start=start)

    def _append(
        self,
        pieces: Sequence[Piece],
        keys: list[int],
        *,
        features: tuple[Tensor, list[Tensor]] | None = None,
        wanted: Sequence[int] = (),
    ) -> Float[Tensor, "N E"]:
        """Put tokens behind those read so far; returns the last hidden states of those wanted. A pass that fails leaves nothing."""
        seen = self._trunk.ends[-1]
        pieces = [Piece(piece.ids, piece.positions, sees=seen) for piece in pieces]
        hidden = self.engine.networks.forward(pieces, Appending(self._trunk), features=features, seen=seen, wanted=wanted)
        for piece in pieces:
            pictured = piece.ids[0] == self.engine.networks.image
            last = int(piece.positions.max()) + 1
            self._after += [last] * len(piece.ids) if pictured else (piece.positions[0] + 1).tolist()
        self._keys += keys
        self._trunk.grow([0, len(self._keys)], [0, 0])
        return hidden

    def _look(self, pictures: Sequence[LocalPicture]) -> tuple[Tensor, list[Tensor]] | None:
        """Features of the pictures' tokens, each picture twice in one group; neighbours of one size a few at a time."""
        if not pictures:
            return None
        found, engine = [], self.engine
        for size, same in groupby(pictures, key=lambda picture: picture.size):
            alike = [*same]
            for start in range(0, len(alike), LOOK):
                twice = [np.stack([picture.image, picture.image]) for picture in alike[start : start + LOOK]]
                rows = torch.cat([engine.pictures.rows(pair, size, device=engine.networks.device) for pair in twice])
                found.append(engine.networks.look(rows, groups=len(twice), grid=engine.pictures.grid(size)))
        levels = [torch.cat(level) for level in zip(*(deep for _, deep in found), strict=True)]
        return torch.cat([features for features, _ in found]), levels


def _content(turn: Turn) -> Any:
    if turn.role == "assistant":
        return plain("".join(turn.content))
    return [{"type": "text", "text": plain(part)} if isinstance(part, str) else {"type": "image"} for part in turn.content]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens are the same."""
    return next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _behind(parts: Sequence[_Part], kept: int) -> Iterator[_Part]:
    """What is left of the parts without their first `kept` tokens."""
    for part in parts:
        if kept < len(part.ids):
            yield _Part(part.ids[kept:], part.picture) if kept else part
        kept = max(0, kept - len(part.ids))


def _choice(logits: Float[Tensor, "V"], temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    return int(torch.multinomial((logits.cpu() / temperature).softmax(-1), 1, generator=generator))
