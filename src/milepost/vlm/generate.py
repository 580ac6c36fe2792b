"""A local Qwen3-VL that answers in words: images and text are prefilled once, then one token follows another, by the networks of
`network.py`.

The tokens that a conversation has in common with the one before it are not computed again. So a second question about the same images, or a
second try after a first answer, costs only its own tokens. The words equal those of transformers' own `generate`. Images need no
torchvision.
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
from milepost.vlm.chat import Message, strip_special_tokens
from milepost.vlm.engine import IMAGE_BATCH, Engine
from milepost.vlm.network import TokenBlock, positions
from milepost.vlm.patches import Resolution, Size
from milepost.vlm.server import Reply
from milepost.vlm.video_clip import AppendView, PrefixCache

IMAGE = "<|image_pad|>"
SHEETS = Resolution(max_pixels=1_638_400)
"""Contact sheets are read at their own size: 1600 tokens, where a frame has at most 768. Their printed numbers and times then stay
legible.
"""


@dataclass(frozen=True, eq=False)
class LocalImage:
    """An image and the size it is resized to. key: a number below 0 that no other image has."""

    image: UInt8[np.ndarray, "H W 3"]
    size: Size
    key: int


@dataclass(frozen=True)
class _ContentTokens:
    """The ids of a text, or the placeholders of one image. keys: what tells two contents apart: the ids, or the image's key at each
    placeholder.
    """

    ids: list[int]
    image: LocalImage | None = None

    @property
    def keys(self) -> list[int]:
        return self.ids if self.image is None else [self.image.key] * len(self.ids)


class LocalChatModel:
    """One loaded model. Not for two threads at once, but for `prepare_image`. `tokens` counts tokens "prefilled", "reused" and
    "generated".
    """

    def __init__(self, engine: Engine, *, resolution: Resolution = SHEETS) -> None:
        self.engine = engine
        self.tokens: Counter[str] = Counter()
        self._resolution, self._numbers = resolution, count(1)
        self._keys: list[int] = []
        self._after: list[int] = []
        """The position that follows each token in the cache."""
        self._cache = PrefixCache(engine.networks.layers, (0, 0))  # every image has a size of its own

    @property
    def name(self) -> str:
        return self.engine.name

    def prepare_image(self, image: UInt8[np.ndarray, "H W 3"]) -> LocalImage:
        """Returns the image with the size it will be resized to: `reply` encodes it."""
        height, width = image.shape[:2]
        size = self.engine.processor.size(self._resolution, frames=2, height=height, width=width)
        return LocalImage(image, size, -next(self._numbers))

    def close(self) -> None:
        """Empties the KV cache."""
        self._keys, self._after, self._cache = [], [], PrefixCache(self.engine.networks.layers, (0, 0))

    @torch.inference_mode()
    def reply(
        self,
        messages: Sequence[Message],
        *,
        json_schema: Mapping[str, Any] | None = None,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """Returns the assistant's next message. DataError if the conversation does not fit into the model's context, or memory runs out.
        json_schema is ignored here.
        """
        logits = self._read(self._parts(messages), room=max_tokens)
        generator = torch.Generator().manual_seed(seed if seed is not None else 0)
        words: list[int] = []
        while len(words) < max_tokens:
            token = _choice(logits, temperature, generator)
            if token in self.engine.stops:
                break
            words.append(token)
            logits = self._next(token)
        self.tokens["generated"] += len(words)
        text = self.engine.tokenizer.decode(words, skip_special_tokens=True)
        return Reply(str(text), "length" if len(words) == max_tokens else "stop")

    def _parts(self, messages: Sequence[Message]) -> list[_ContentTokens]:
        """Returns the conversation in the model's chat template, as texts and images in turn."""
        images = [part for message in messages for part in message.content if isinstance(part, LocalImage)]
        conversation = [{"role": message.role, "content": _content(message)} for message in messages]
        tokenizer = self.engine.tokenizer
        rendered = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        texts = rendered.split(IMAGE)
        if len(texts) != len(images) + 1:
            raise DataError(f"this model's chat template has {len(texts) - 1} places for {len(images)} images: not Qwen3-VL's kind")
        parts = []
        for number, text in enumerate(texts):
            parts.append(_ContentTokens(list(tokenizer.encode(text, add_special_tokens=False))))
            if number < len(images):
                image = images[number]
                parts.append(_ContentTokens([self.engine.networks.image] * self.engine.processor.tokens(image.size), image))
        return parts

    def _read(self, parts: Sequence[_ContentTokens], *, room: int) -> Float[Tensor, "V"]:
        """Prefills the part of the conversation that is not in the cache. Returns the log-probabilities of the next token."""
        keys = [key for part in parts for key in part.keys]
        longest = min(self.engine.longest, self.engine.networks.config.max_position_embeddings)
        if len(keys) + room > longest:
            raise DataError(
                f"the frames and the question are {len(keys)} tokens, with the answer up to {len(keys) + room}; the model reads {longest}: "
                "show fewer frames, or allow a shorter answer"
            )
        shared = min(_common(self._keys, keys), len(keys) - 1)
        self._keys, self._after = self._keys[:shared], self._after[:shared]
        self._cache.commit([0, shared], [0, 0])
        self.tokens.update({"reused": shared, "prefilled": len(keys) - shared})
        # A template ends in words. The logits of the very last token are the answer, so it goes through `_next` alone.
        *unread, last = _without_prefix(parts, shared)
        if len(last.ids) > 1:
            unread.append(_ContentTokens(last.ids[:-1]))

        def cost(start: int, stop: int) -> tuple[int, int]:
            tokens = sum(len(part.ids) for part in unread[start:stop])
            token, patches, _ = self.engine.networks.activation_bytes(len(self._keys) + tokens)
            image_tokens = sum(len(part.ids) for part in unread[start:stop] if part.image)
            return tokens, tokens * token + image_tokens * patches

        def run(start: int, stop: int) -> None:
            blocks, at = [], self._after[-1] if self._after else 0
            for part in unread[start:stop]:
                places, at = self._places(part, at)
                blocks.append(TokenBlock(part.ids, places))
            images = [part.image for part in unread[start:stop] if part.image]
            self._append(blocks, [key for part in unread[start:stop] for key in part.keys], features=self._encode_images(images))

        self.engine.budget.steps("prefix", len(unread), cost=cost, run=run)
        return self._next(last.ids[-1])

    def _next(self, token: int) -> Float[Tensor, "V"]:
        """Appends one token of words to the cache. Returns the log-probabilities of the token after it."""
        hidden = self._append([TokenBlock([token], np.full((3, 1), self._after[-1] if self._after else 0))], [token], output_tokens=(0,))
        return self.engine.networks.log_probabilities(hidden)[0]

    def _places(self, part: _ContentTokens, start: int) -> tuple[np.ndarray, int]:
        size = part.image.size if part.image else (0, 0)
        grid = size[0] // self.engine.processor.factor, size[1] // self.engine.processor.factor
        return positions(part.ids, video=self.engine.networks.image, grid=grid, start=start)

    def _append(
        self,
        blocks: Sequence[TokenBlock],
        keys: list[int],
        *,
        features: tuple[Tensor, list[Tensor]] | None = None,
        output_tokens: Sequence[int] = (),
    ) -> Float[Tensor, "N E"]:
        """Appends tokens to the cache. Returns the last hidden states of `output_tokens`. A pass that fails leaves the cache unchanged."""
        prefix_tokens = self._cache.ends[-1]
        blocks = [TokenBlock(block.ids, block.positions, visible=prefix_tokens) for block in blocks]
        hidden = self.engine.networks.forward(
            blocks, AppendView(self._cache), features=features, prefix_tokens=prefix_tokens, output_tokens=output_tokens
        )
        for block in blocks:
            is_image = block.ids[0] == self.engine.networks.image
            last = int(block.positions.max()) + 1
            self._after += [last] * len(block.ids) if is_image else (block.positions[0] + 1).tolist()
        self._keys += keys
        self._cache.commit([0, len(self._keys)], [0, 0])
        return hidden

    def _encode_images(self, images: Sequence[LocalImage]) -> tuple[Tensor, list[Tensor]] | None:
        """Returns the features of the images' tokens, each image twice in one group; neighbours of one size are encoded a few at a time."""
        if not images:
            return None
        batches, engine = [], self.engine
        for size, same in groupby(images, key=lambda image: image.size):
            alike = [*same]
            for start in range(0, len(alike), IMAGE_BATCH):
                twice = [np.stack([image.image, image.image]) for image in alike[start : start + IMAGE_BATCH]]
                rows = torch.cat([engine.processor.rows(pair, size, device=engine.networks.device) for pair in twice])
                batches.append(engine.networks.encode_images(rows, groups=len(twice), grid=engine.processor.grid(size)))
        levels = [torch.cat(level) for level in zip(*(deep for _, deep in batches), strict=True)]
        return torch.cat([features for features, _ in batches]), levels


def _content(message: Message) -> Any:
    if message.role == "assistant":
        return strip_special_tokens("".join(message.content))
    return [
        {"type": "text", "text": strip_special_tokens(part)} if isinstance(part, str) else {"type": "image"} for part in message.content
    ]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns how many first tokens are the same."""
    return next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _without_prefix(parts: Sequence[_ContentTokens], skip: int) -> Iterator[_ContentTokens]:
    """Yields the contents without their first `skip` tokens."""
    for part in parts:
        if skip < len(part.ids):
            yield _ContentTokens(part.ids[skip:], part.image) if skip else part
        skip = max(0, skip - len(part.ids))


def _choice(logits: Float[Tensor, "V"], temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    # Drawn on the CPU, so that one seed gives the same words on every device.
    return int(torch.multinomial((logits.cpu() / temperature).softmax(-1), 1, generator=generator))
