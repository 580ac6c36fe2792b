"""A Qwen3-VL with heads that runs on a vLLM server: what its heads say behind each of several images, from the server's `/pooling`.

A request is one conversation and `"task": "token_classify"`. The answer is a list of rows, one for each image: the outputs of all heads at
the mark behind it, side by side. What is sent and read is what Refiner sends and reads (macrodata-refiner 0.3.9); the form of the answer is
that of vLLM's documentation, `data[0].data`. Rows that may be of other tokens are refused, and so are rows of probabilities.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from milepost.core import DataError
from milepost.vlm.chat import SPECIAL_TOKEN
from milepost.vlm.frame_parts import ContentPart, data_url, text_part
from milepost.vlm.patches import Resolution
from milepost.vlm.remote import RemoteEngine, fit_frames
from milepost.vlm.replies import quoted
from milepost.vlm.server import ChatClient, MessageDict
from milepost.vlm.transport import MalformedError, RefusedError, ServerConfig

Path = tuple[int, ...]
"""Numbers of images, in the order in which they are shown."""
REQUEST: Mapping[str, Any] = {
    "task": "token_classify",
    "use_activation": False,
    "chat_template_kwargs": {"add_vision_id": True, "enable_thinking": False, "fps": 1},
    "mm_processor_kwargs": {"do_resize": False},
}
"""The fields beside model and messages: the heads' own numbers and no probabilities, images that are numbered and keep their size."""
NO_POOLING = re.compile(r"pooling|token_classify|\btask\b", re.IGNORECASE)
ADVICE = "a model with heads is asked by vLLM's pooling (vllm serve CHECKPOINT --runner pooling): a server that only chats cannot answer"
Columns = Mapping[str, slice]
"""Name of a head -> where its outputs are in a row."""


class PoolingClient(ChatClient):
    """An open connection to the `/pooling` of a vLLM server. It shares retries, limits and counters with `ChatClient`; it does not chat."""

    def __init__(self, config: ServerConfig, *, rng: np.random.Generator | None = None) -> None:
        super().__init__(config, rng=rng, addresses=config.pooling_urls)

    def rows(self, prompts: Sequence[Sequence[MessageDict]], counts: Sequence[int], *, width: int) -> list[Float[np.ndarray, "N C"]]:
        """Returns, for each conversation, the last rows of the answer, as many as `counts` has for it, float32.

        width: the fewest numbers that a row should have. ServerError, MalformedError among them, ends the whole call.
        """

        async def ask(messages: list[MessageDict], rng: np.random.Generator) -> tuple[list[list[float]], int]:
            try:
                reply = await self._post({"messages": messages, **REQUEST}, rng)
            except RefusedError as error:
                if error.elsewhere or NO_POOLING.search(error.words):
                    error.amend(f"{error}; {ADVICE}")
                raise
            return self._rows(reply, width), _prompt_tokens(reply)

        answers = self._all(prompts, ask, None)
        return [self._last(rows, count, tokens) for (rows, tokens), count in zip(answers, counts, strict=True)]

    def _rows(self, reply: Mapping[str, Any], width: int) -> list[list[float]]:
        """Returns the rows of an answer. MalformedError if there are none, or they are not numbers of that width."""
        url, data = self._transport.url, reply.get("data")
        rows = data[0].get("data") if isinstance(data, list) and data and isinstance(data[0], Mapping) else None
        if not isinstance(rows, list) or not rows:
            fields = quoted(", ".join(sorted(map(str, reply))) or "none", 200)
            raise MalformedError(f"{url} answered without rows of numbers in data[0].data; its fields are: {fields}. {ADVICE}")
        for row in rows:
            if not isinstance(row, list) or len(row) < width:
                there = f"{len(row)} numbers" if isinstance(row, list) else "no list"
                raise MalformedError(f"{url} answered with a row of {there}, {width} at least were expected: it has another model's heads")
            if not all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in row):
                raise MalformedError(f"{url} answered with a row in which not everything is a finite number, such as NaN")
        if all(0 <= each <= 1 for row in rows for each in row):  # outputs before the activation are on both sides of 0
            raise MalformedError(f"{url} answered with probabilities, all from 0 to 1: it ignores use_activation=false. Use a newer vLLM")
        return rows

    def _last(self, rows: list[list[float]], count: int, tokens: int) -> Float[np.ndarray, "N C"]:
        """Returns the last `count` rows. tokens: how many the prompt has, 0 if the server did not say. MalformedError if they may be of
        other tokens than the marks.
        """
        url = self._transport.url
        if len(rows) < count:
            raise MalformedError(f"{url} answered with {len(rows)} rows about {count} images; one at least for each was expected")
        if len(rows) > count and (not tokens or len(rows) >= tokens):
            what = "a row for each token" if tokens else f"{len(rows)} rows about {count} images and no count of tokens"
            raise MalformedError(
                f"{url} answered with {what}, so which of them are of the marks cannot be known; serve the model so that it answers with a "
                "row for each mark alone (in vLLM a pooler of type STEP with the mark as its step_tag_id)"
            )
        return np.array([row[: min(map(len, rows))] for row in rows[-count:]], np.float32)


class RemoteFrameEngine(RemoteEngine):
    """The twin of `FrameEngine` for a model on a server: `read` has the same numbers as the local one. Close it, or use `with`.

    mark: the words that follow each image. columns: where the heads are in a row. width: the fewest numbers of a row.
    """

    def __init__(self, config: ServerConfig, *, mark: str, columns: Columns, width: int, rng: np.random.Generator | None = None) -> None:
        super().__init__(config, encoding="png", client=PoolingClient(config, rng=rng))
        self.mark, self.columns, self.width = mark, dict(columns), width

    def read(
        self, images: UInt8[np.ndarray, "N H W 3"], *, text: str, paths: Sequence[Path], resolution: Resolution | None = None
    ) -> dict[str, Float[np.ndarray, "P O"]]:
        """Returns, for each head, its outputs (float32) at the mark of the last image of each path. text: stands before the images.

        One request for each path that is the beginning of no other. DataError if there is no path, an empty one, or marks in the text;
        ServerError if a request is refused, or is answered in another form.
        """
        if not paths or not all(paths):
            raise DataError("there should be at least one sequence of images to read, and an image at least in each")
        if mark := SPECIAL_TOKEN.search(text):
            raise DataError(f"the text holds {mark[0]}, which models read as a mark and not as words; take it out")
        client, fitted = self.client, fit_frames(images, resolution or Resolution())
        if not isinstance(client, PoolingClient):
            raise DataError("a model with heads needs a connection to a pooling server")
        questions = longest(paths)
        parts: dict[int, list[ContentPart]] = {
            number: [{"type": "image_url", "image_url": {"url": data_url(fitted[number], encoding="png")}}, text_part(self.mark)]
            for number in sorted({number for path in questions for number in path})
        }
        prompts = [
            [{"role": "user", "content": [text_part(text), *(part for number in path for part in parts[number])]}] for path in questions
        ]
        rows = dict(zip(questions, client.rows(prompts, [len(path) for path in questions], width=self.width), strict=True))
        behind = {path[:end]: rows[path][end - 1] for path in questions for end in range(1, len(path) + 1)}
        return {name: np.stack([behind[path][place] for path in paths]) for name, place in self.columns.items()}


def longest(paths: Sequence[Path]) -> list[Path]:
    """Returns the paths that are the beginning of no other, each once: an answer about one tells what is said of its beginnings.

    >>> longest([(0,), (0, 1), (0, 1, 2), (0, 2)])
    [(0, 1, 2), (0, 2)]
    """
    beginnings = {path[:end] for path in paths for end in range(1, len(path))}
    return [path for path in dict.fromkeys(paths) if path not in beginnings]


def _prompt_tokens(reply: Mapping[str, Any]) -> int:
    usage = reply.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else 0
