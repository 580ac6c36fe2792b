"""A conversation about images: messages of words and images, and the model that answers them, on a server (here) or locally (`generate`).

Special tokens are removed from the words, because a tokenizer would read them as the end of a message or as an image. Models repeat them
and users paste them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from milepost.vlm.frame_parts import data_url, text_part
from milepost.vlm.server import ChatClient, OverServer, Reply
from milepost.vlm.transport import ServerConfig

SPECIAL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
"""What a tokenizer may read as the end of a message, or as an image, and not as words."""


@dataclass(frozen=True, eq=False)
class Message:
    """One message. content: words, and images as the chat model's `prepare_image` made them. The assistant's messages have words alone."""

    role: Literal["user", "assistant"]
    content: tuple[Any, ...]


@runtime_checkable
class ChatModel(Protocol):
    """A model that answers in words. Messages that begin like earlier ones, with the same images, may cost less."""

    @property
    def name(self) -> str: ...

    def prepare_image(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """Returns an image in the form that `reply` takes. It may be called from any thread."""
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
        """Returns the assistant's next message. temperature 0 is greedy; above 0 the seed decides. json_schema: a wish, which the model may
        ignore.
        """
        ...

    def close(self) -> None: ...


def strip_special_tokens(text: str) -> str:
    """Returns the text with a space in place of every special token.

    >>> strip_special_tokens("done<|im_end|>")
    'done '
    """
    return SPECIAL_TOKEN.sub(" ", text)


class RemoteChatModel(OverServer):
    """A model behind an OpenAI-compatible server. Several threads may ask at once; `config.concurrency` bounds all their requests
    together.

    >>> from milepost.testing import chat_server
    >>> with chat_server() as server:
    ...     model = milepost.RemoteChatModel(milepost.ServerConfig(server.url, "tiny"))
    ...     model.name
    ...     model.close()
    'tiny'
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        encoding: Literal["jpeg", "png"] = "jpeg",
        rng: np.random.Generator | None = None,
        client: ChatClient | None = None,
    ) -> None:
        """Opens a connection; client: an open one to use instead, which `close` ends too."""
        self.name = config.model
        self._server, self._encoding = client or ChatClient(config, rng=rng), encoding

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
        """Returns the assistant's next message. ServerError if this request is refused or no retry is left; other requests go on."""
        conversation = [{"role": message.role, "content": _content(message)} for message in messages]
        settings: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        return self._server.complete([conversation], json_schema=json_schema, **settings)[0]


def _content(message: Message) -> Any:
    if message.role == "assistant":
        return strip_special_tokens("".join(message.content))
    return [text_part(strip_special_tokens(part)) if isinstance(part, str) else part for part in message.content]
