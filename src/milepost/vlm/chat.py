"""A conversation about pictures: turns of words and images, and who answers them in words, a server (here) or a local model (`generate`).

Marks that a tokenizer would read as the end of a turn or as a picture are taken out of the words: models repeat them, users paste them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from milepost.vlm.frame_parts import data_url, text_part
from milepost.vlm.server import Reply, Server
from milepost.vlm.transport import ServerConfig, Usage

SPECIAL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
"""What a tokenizer may read as the end of a turn, or a picture, and not as words."""


@dataclass(frozen=True, eq=False)
class Message:
    """What one side says. content: words, and images as the speaker's `picture` made them; the assistant has words alone."""

    role: Literal["user", "assistant"]
    content: tuple[Any, ...]


@runtime_checkable
class ChatModel(Protocol):
    """Who answers. Turns that begin like earlier ones, with the same pictures, may cost less."""

    @property
    def name(self) -> str: ...

    def prepare_image(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """An image as `reply` takes it; may be called from any thread."""
        ...

    def reply(
        self,
        messages: Sequence[Message],
        *,
        json_schema: Mapping[str, Any] | None = None,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """The next turn, the assistant's. temperature 0 is the likeliest words; above it the seed decides. json_schema: a wish."""
        ...

    def close(self) -> None: ...


def strip_special_tokens(text: str) -> str:
    """The text without marks.

    >>> plain("done<|im_end|>")
    'done '
    """
    return SPECIAL_TOKEN.sub(" ", text)


class RemoteChatModel:
    """An OpenAI-compatible server. Several threads may ask at once; `config.concurrency` bounds them together."""

    def __init__(self, config: ServerConfig, *, encoding: Literal["jpeg", "png"] = "jpeg", rng: np.random.Generator | None = None) -> None:
        self.name = config.model
        self._server, self._encoding = Server(config, rng=rng), encoding

    def prepare_image(self, image: UInt8[np.ndarray, "H W 3"]) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": data_url(image, encoding=self._encoding)}}

    def reply(
        self,
        messages: Sequence[Message],
        *,
        json_schema: Mapping[str, Any] | None = None,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """ServerError if this request is refused or no try is left: others that are under way go on."""
        conversation = [{"role": message.role, "content": _content(message)} for message in messages]
        settings: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        return self._server.complete([conversation], json_schema=json_schema, **settings)[0]

    @property
    def usage(self) -> Usage:
        """What the server was asked so far."""
        return self._server.usage

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server was found to be like, see `Server`."""
        return self._server.notes

    def close(self) -> None:
        """End what is under way and close every connection. Closing twice is fine."""
        self._server.close()


def _content(message: Message) -> Any:
    if message.role == "assistant":
        return strip_special_tokens("".join(message.content))
    return [text_part(strip_special_tokens(part)) if isinstance(part, str) else part for part in message.content]
