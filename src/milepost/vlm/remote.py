"""The same questions as the engine's, put to a model that runs elsewhere: log p(answer | first n frames, instruction) from a server's list.

    with RemoteEngine(ServerConfig("http://localhost:8000/v1", "Qwen/Qwen3-VL-8B-Instruct")) as engine:
        clip = engine.clip(frames, fps=2.0)
        scores = engine.ask(clip, instructions=["open the drawer"])

A prompt is the frames, each an image behind its own time, and the question; it stops before the answer, and the next token is read. No
number is invented: an answer the server does not list is NaN, with a bound. What differs from a local engine: frames are images, not a
video, so the numbers are those of a clip that shows each frame twice; and every prefix is sent whole (a prefix cache may share it).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Float, UInt8

from milepost.core import DataError, Tick
from milepost.encoders import Preprocessing
from milepost.vlm.chat import SPECIAL_TOKEN
from milepost.vlm.frame_parts import ContentPart, frame_parts, text_part
from milepost.vlm.patches import PAIR, FrameProcessor, Resolution
from milepost.vlm.prompt import Prompt, require_lists
from milepost.vlm.server import ChatClient, MessageDict, OverServer
from milepost.vlm.transport import ServerConfig
from milepost.vlm.video_clip import Clip, make_clip

STAMP = "<{time_s:.1f} seconds>"
"""Qwen3-VL's own words for the time of a frame."""
SIZES = FrameProcessor()
"""Frames are sent in the sizes that a local Qwen3-VL would use. The server's own processor may resize them again."""


@dataclass(frozen=True)
class RemoteScores:
    """logprob: nats, NaN where the server did not list the answer. bound: log p is at most this; equal to logprob where that is known."""

    logprob: Float[np.ndarray, "I P A"]
    bound: Float[np.ndarray, "I P A"]

    @property
    def unlisted(self) -> int:
        """Returns how many answers have a bound and no number."""
        return int(np.isnan(self.logprob).sum())


class RemoteEngine(OverServer):
    """An open connection and a prompt. Close it, or use `with`. Several threads may ask at once; `config.concurrency` bounds them together.

    encoding: "png" keeps every pixel at several times the bytes of "jpeg" with this quality. rng: of the jitter of retries. client: an open
    connection to use instead of a new one.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        prompt: Prompt | None = None,
        encoding: Literal["jpeg", "png"] = "jpeg",
        quality: int = 90,
        rng: np.random.Generator | None = None,
        client: ChatClient | None = None,
    ) -> None:
        self.config = config
        self.prompt = prompt or Prompt()
        self.name, self.commit = config.model, ""
        """A server does not say which commit it runs."""
        self._encoding, self._quality = encoding, quality
        self._server = client or ChatClient(config, rng=rng)

    @property
    def client(self) -> ChatClient:
        """Returns the open connection."""
        return self._server

    def __repr__(self) -> str:
        return f"RemoteEngine({self.config!r})"

    def __enter__(self) -> RemoteEngine:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def with_prompt(self, prompt: Prompt) -> RemoteEngine:
        """Returns an engine on the same connection with another prompt; this one is not changed."""
        other = copy.copy(self)
        other.prompt = prompt
        return other

    def clip(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        *,
        times_s: Sequence[float] | None = None,
        fps: float | None = None,
        resolution: Resolution | None = None,
    ) -> Clip:
        """Returns a clip of these frames, stamped with `times_s` or i / `fps`.

        resolution: one size for the whole clip; `Resolution(max_pixels=...)` caps a frame, and so the bytes of a request.
        """
        resolution = resolution or Resolution()
        if resolution.rule != "milepost":
            raise DataError(f"a server is sent frames of one size; the rule '{resolution.rule}' has many. Use rule='milepost'")
        return make_clip(frames, times_s=times_s, fps=fps, resolution=resolution)

    def score(
        self,
        clip: Clip,
        *,
        instructions: Sequence[str],
        answers: Sequence[str] = ("True", "False"),
        prefixes: Sequence[int] | None = None,
        on_progress: Tick | None = None,
    ) -> Float[np.ndarray, "I P A"]:
        """Returns `ask` without the bounds: the numbers of a local engine's `score`, but NaN where the server did not list the answer."""
        return self.ask(clip, instructions=instructions, answers=answers, prefixes=prefixes, on_progress=on_progress).logprob

    def ask(
        self,
        clip: Clip,
        *,
        instructions: Sequence[str],
        answers: Sequence[str] = ("True", "False"),
        prefixes: Sequence[int] | None = None,
        on_progress: Tick | None = None,
    ) -> RemoteScores:
        """Returns log p(answer | the first n frames, instruction), in nats, for each n of `prefixes` (default: all), with one request for
        each.

        answers: single tokens; one of several tokens is never listed. on_progress: (done, total), called from the connection's own thread.
        ServerError when a request is refused or no try is left: it ends the whole call. UnfinishedTurnError, before anything is asked, if
        the prompt leaves the turn open and the server would close it.
        """
        lengths = clip.prefixes(prefixes)
        require_lists(instructions, answers)
        tokens = self._spelled(answers)
        shape = len(instructions), len(lengths), len(tokens)
        logprob, bound = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        cells, prompts = self._prompts(clip, instructions, lengths)
        results = self._server.next_token(prompts, answers=tokens, unfinished_turn=not self.prompt.chat_template, on_progress=on_progress)
        for cell, scores in zip(cells, results, strict=True):
            for number, answer in enumerate(tokens):
                score = scores[answer]
                logprob[*cell, number] = score.logprob
                up = np.nextafter(np.float32(score.bound), np.float32(0))  # rounded to float32 it must stay a bound
                bound[*cell, number] = up if score.is_bound else score.logprob
        return RemoteScores(logprob, bound)

    def complete(
        self, clip: Clip, *, instructions: Sequence[str], prefixes: Sequence[int] | None = None, max_tokens: int = 128
    ) -> list[list[str]]:
        """Returns, for each instruction and prefix, the server's greedy answer in words. ServerError as `ask`."""
        lengths = clip.prefixes(prefixes)
        cells, prompts = self._prompts(clip, instructions, lengths)
        words = [[""] * len(lengths) for _ in instructions]
        for (i, place), reply in zip(cells, self._server.complete(prompts, max_tokens=max_tokens), strict=True):
            words[i][place] = reply.text
        return words

    def choose(
        self,
        clip: Clip,
        *,
        instructions: Sequence[str],
        choices: Sequence[str],
        after: re.Pattern[str],
        prefixes: Sequence[int] | None = None,
        max_tokens: int = 128,
    ) -> tuple[Float[np.ndarray, "I P C"], list[list[str]]]:
        """Returns, for each instruction and prefix, log p of each choice where one stands in the answer, behind the words `after`; and the
        answers.

        NaN where a choice is not listed there, or where the answer has no such place. ServerError as `ask`.
        """
        lengths = clip.prefixes(prefixes)
        require_lists(instructions, choices)
        cells, prompts = self._prompts(clip, instructions, lengths)
        logprob = np.full((len(instructions), len(lengths), len(choices)), np.nan, np.float32)
        words = [[""] * len(lengths) for _ in instructions]
        replies = self._server.choose(prompts, choices=choices, after=after, max_tokens=max_tokens)
        for (i, place), (scores, answer) in zip(cells, replies, strict=True):
            logprob[i, place] = [scores[choice].logprob for choice in choices]
            words[i][place] = answer
        return logprob, words

    def _prompts(
        self, clip: Clip, instructions: Sequence[str], lengths: Sequence[int]
    ) -> tuple[list[tuple[int, int]], list[list[MessageDict]]]:
        """Returns the cells of the table (instruction, prefix), short prefixes first, and the conversation of each.

        What a server's prefix cache keeps of one is then the beginning of the next.
        """
        questions = [self._question(instruction) for instruction in instructions]
        frame_messages = self._shown(clip, max(lengths, default=0))
        cells = [(i, place) for place in np.argsort(lengths, kind="stable").tolist() for i in range(len(questions))]
        return cells, [[{"role": "user", "content": [*frame_messages[: 2 * lengths[p]], text_part(questions[i])]}] for i, p in cells]

    def stream(self, **settings: object) -> NoReturn:
        """Raises DataError: each step would send the whole clip again."""
        raise DataError("a server cannot be streamed to: every step would send the whole clip again. Use a local engine, or score prefixes")

    def _spelled(self, answers: Sequence[str]) -> list[str]:
        """Returns the token of each answer: " True" in an open message, where it continues "is:"; "True" at the start of the assistant's
        message.

        The space is part of the answer's token and cannot end the prompt: a tokenizer would make it a token of its own, after which "True"
        has another probability, and chat templates cut trailing spaces.
        """
        if wrong := [answer for answer in answers if not answer or answer != answer.strip()]:
            raise DataError(f"an answer is a word without spaces around it, not '{wrong[0]}': whether one precedes it, the prompt decides")
        if len(set(answers)) != len(answers):
            raise DataError(f"answers should be distinct, they are {list(answers)}")
        return list(answers) if self.prompt.chat_template else [f" {answer}" for answer in answers]

    def _question(self, instruction: str) -> str:
        """Returns the text after the frames. DataError if there is no instruction, or the text cannot be sent unchanged."""
        text = self.prompt.prefix + self.prompt.words(instruction)
        if mark := SPECIAL_TOKEN.search(text):
            raise DataError(f"the text holds {mark[0]}, which models read as a mark and not as words; take it out")
        words = text.rstrip()
        if not self.prompt.chat_template and text not in (words, words + " "):
            ending = text[len(words) :].encode("unicode_escape").decode()  # white space, made visible
            raise DataError(f"the template ends in '{ending}', which servers cut off; end it with the last word")
        return words

    def _shown(self, clip: Clip, frames: int) -> list[ContentPart]:
        """Returns a time and an image for each of the first frames, in order."""
        images, times = fit_frames(clip.frames[:frames], clip.resolution), clip.times_s[:frames].tolist()
        return frame_parts(images, times_s=times, caption=STAMP, encoding=self._encoding, quality=self._quality) if frames else []


def fit_frames(frames: UInt8[np.ndarray, "T H W 3"], resolution: Resolution) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Returns frames in the size that a local Qwen3-VL would give them."""
    height, width = frames.shape[1:3]
    resize = Preprocessing(resize=SIZES.size(resolution, frames=PAIR, height=height, width=width), mode="bicubic")
    return [resize.images(frames[number : number + 1]).permute(0, 2, 3, 1).numpy()[0] for number in range(len(frames))]
