"""GVL (arXiv 2411.04549): a VLM sees the frames of an episode in a shuffled order and says in words how far the task is in each.

It is the one zero-shot model that cannot count frames: the order says nothing. So it is a control too: where TOPReward of the same VLM
rises and GVL does not, TOPReward follows the length of the video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from milepost.core import Curve, DataError, Progress, Signal, interpolate, spread
from milepost.models.gvl.config import GVLConfig
from milepost.models.gvl.question import percentages, question, schema
from milepost.models.zero_shot.model import Places, ZeroShotModel
from milepost.vlm import ChatModel, Engine, LocalChatModel, RemoteChatModel, RemoteEngine, fit_frames, quoted

SHORT = 120
"""How much of an answer without percentages is shown."""


class GVLModel(ZeroShotModel):
    """The config and, from its first question on, the VLM it names.

    `predict`: `value` is the mean percentage over the shuffles, as a part of 1, drawn straight between the frames that are shown; it is NaN
    around a frame that no answer names. The signal "percent" is that mean, "disagreement" its standard deviation over the shuffles, and
    "answered" the part of the shuffles in which the frame got a number. The first frame is shown as the start, so its 0 is given, not
    judged.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import tiny_vlm
    >>> model = milepost.GVLModel(milepost.GVLConfig(vlm_name=str(tiny_vlm("vlm")), max_frames=3, max_answer_tokens=8))
    >>> sorted(model.predict(milepost.open_dataset("dots")[0]).main.signals)
    ['answered', 'disagreement', 'percent']
    """

    config_class = GVLConfig
    config: GVLConfig

    def __init__(self, config: GVLConfig, engine: Engine | RemoteEngine | None = None) -> None:
        super().__init__(config, engine)
        self._chat: ChatModel | None = None
        self._frames = [0, 0]
        self._without = ""
        """An answer that has no percentage at all."""

    @property
    def chat(self) -> ChatModel:
        """Returns the VLM as one that answers in words; it is opened when it is first needed."""
        if self._chat is None:
            engine = self.engine
            self._chat = (
                LocalChatModel(engine, resolution=self.config.resolution)
                if isinstance(engine, Engine)
                else RemoteChatModel(engine.config, client=engine.client)
            )
        return self._chat

    def looked_at(self, length: int, source_fps: float) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        frames, times = super().looked_at(length, source_fps)
        if len(frames) > self.config.max_frames:
            frames = np.unique(np.linspace(0, length - 1, self.config.max_frames).round().astype(int))
            times = frames / source_fps
        return frames, times

    def questions_of(self, count: int, num_prefixes: int | None) -> int:
        return self.config.shuffles

    def close(self) -> list[str]:
        """Closes the connections to a server, if there are any. Returns how many frames were answered, and what the server was like."""
        answers, total = self._frames
        such = f'; an answer without any is "{quoted(self._without, SHORT)}"' if self._without else ""
        lines = [f"frames with a percentage: {answers} of {total} shown ({answers / total:.0%}){such}"] if total else []
        return lines + super().close()

    def _curves(
        self, images: UInt8[np.ndarray, "N H W 3"], places: Places, tasks: Sequence[str], episode: tuple[int, int], num_prefixes: int | None
    ) -> list[Progress]:
        if num_prefixes is not None:
            raise DataError("num_prefixes means nothing to GVL, which sees an episode at once; use max_frames")
        (frames, _), (episode_index, length) = places, episode
        curves = []
        for task in tasks:
            answers = self._answers(images, task, episode_index)
            is_answered = ~np.isnan(answers)
            count = is_answered.sum(0)
            total = np.where(is_answered, answers, 0.0).sum(0)
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            deviation = np.sqrt(np.where(is_answered, (answers - mean) ** 2, 0.0).sum(0) / np.maximum(count, 1))
            deviation = np.where(count > 0, deviation, np.nan)
            value = interpolate(frames, np.append(0.0, mean / 100) if count.any() else np.full(len(frames), np.nan), length)
            signals = {
                "percent": Signal(_on(frames, mean, length), "percent", low=0.0, high=100.0),
                "disagreement": Signal(_on(frames, deviation, length), "percent", low=0.0, high=100.0, rises=False),
                "answered": Signal(_on(frames, count / len(answers), length), low=0.0, high=1.0),
            }
            curves.append(Progress(episode_index, Curve(value.astype(np.float32), signals=signals)))
        return curves

    def _answers(self, images: UInt8[np.ndarray, "N H W 3"], task: str, episode_index: int) -> Float[np.ndarray, "S N-1"]:
        """Returns the percentages of all frames but the first, in order of time, once a shuffle."""
        chat, later = self.chat, len(images) - 1
        if not later:
            return np.full((self.config.shuffles, 0), np.nan)  # there is nothing to compare the first frame with
        prepared = [chat.prepare_image(image) for image in fit_frames(images, self.config.resolution)]
        answers = np.full((self.config.shuffles, later), np.nan)
        for shuffle in range(self.config.shuffles):
            order = np.random.default_rng((self.config.seed, episode_index, shuffle)).permutation(later)
            message = question(task, prepared[0], [prepared[1 + number] for number in order])
            reply = chat.reply([message], json_schema=schema(later), max_tokens=self.config.max_answer_tokens)
            answers[shuffle, order] = percentages(reply.text, later)
            if np.isnan(answers[shuffle]).all() and not self._without:
                self._without = reply.text.strip() or reply.refusal or "(nothing)"
        self._frames[0] += int((~np.isnan(answers)).sum())
        self._frames[1] += answers.size
        return answers


def _on(frames: Int[np.ndarray, "N"], values: Float[np.ndarray, "N-1"], length: int) -> Float[np.ndarray, "T"]:
    """Returns numbers of all frames looked at but the first, float32, NaN for the other frames of the episode."""
    return spread(values, frames[1:], length).astype(np.float32)
