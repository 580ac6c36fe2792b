"""TOPReward (arXiv 2602.19313): the log-probability that a VLM's next word is "True", after the video so far and

    The above video shows a robot manipulation trajectory that completes the following task: ... The answer is:

Nothing is trained. The VLM reads an episode once: all its prefixes are asked about over the same keys and values (`vlm/`). `progress` is
the score min-maxed over the episode, so a failure may reach 1 too; what tells them apart is `raw`, the score itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from milepost.core import Curve, DataError, Progress, Signal, Step, interpolate, spread
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.processor import clips_and_tasks
from milepost.models.topreward.sampling import looked_at, min_max
from milepost.models.zero_shot.model import Attempt, Places, ZeroShotModel
from milepost.models.zero_shot.sampling import anchors
from milepost.vlm import Clip, Engine, Prompt, RemoteEngine

Frame = Shaped[np.ndarray, "..."] | Mapping[str, Shaped[np.ndarray, "..."]]
"""A camera's image, or camera name -> image."""


class TOPRewardModel(ZeroShotModel):
    """The config and, from its first question on, the VLM it names.

    engine: an open one, to share it between models; each asks in its own words.

    `predict`: `value` is min-maxed; the signals are "logprob", log P(answer), and "logodds". A server may not list an answer: then these
    are NaN, and the signal "logprob_bound" is what log P(answer) is at most.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import tiny_vlm
    >>> model = milepost.TOPRewardModel(milepost.TOPRewardConfig(vlm_name=str(tiny_vlm("vlm"))))
    >>> progress = model.predict(milepost.open_dataset("dots")[0])
    >>> sorted(progress.main.signals)
    ['logodds', 'logprob']
    """

    config_class = TOPRewardConfig
    config: TOPRewardConfig

    def __init__(self, config: TOPRewardConfig, engine: Engine | RemoteEngine | None = None) -> None:
        super().__init__(config, engine)
        self._attempt: LiveAttempt | None = None

    @property
    def prompt(self) -> Prompt:
        return self.config.prompt

    def looked_at(self, length: int, source_fps: float) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        return looked_at(length, source_fps, self.config)

    @property
    def success_threshold(self) -> float:
        """Returns the score above which an attempt is a success; minus infinity if there is none."""
        return self.config.success_threshold

    def identity(self) -> dict[str, Any]:
        """Returns what its curves depend on: its config but for the threshold, which is no part of a curve."""
        return dataclasses.replace(self.config, success_threshold=-math.inf).to_dict()

    # Scores

    def compute_reward(self, batch: Mapping[str, Any]) -> Float[Tensor, "B"]:
        """Returns log P(answer | clip, instruction) of each sample, in nats, or 1 and 0 where `success_threshold` is finite. NaN: not
        known.

        `batch`: `observation.topreward.frames`, B clips (T, H, W, 3), of which `max_frames` are looked at, and `.task`, B sentences.
        """
        scores = []
        for frames, task in clips_and_tasks(batch, self.config):
            most, count = self.config.max_frames, len(frames)
            indices = np.arange(count)
            if most is not None and count > most:
                last = self.config.protocol == "lerobot"
                indices = indices[-most:] if last else np.unique(np.linspace(0, count - 1, most).round().astype(int))
            times = (np.arange(len(indices)) if self.config.protocol == "lerobot" else indices) / self.config.fps
            logprob, bound = self._ask(frames[indices], times, [task], [len(indices)])
            scores.append((logprob[0, 0, 0], bound[0, 0, 0]))
        reward, most_likely = torch.tensor(np.array(scores, np.float32).reshape(-1, 2), device=self.config.device or "cpu").T
        threshold = self.config.success_threshold
        if not math.isfinite(threshold):
            return reward
        unknown = reward.isnan() & (most_likely > threshold)  # a bound below the threshold is an answer
        return torch.where(unknown, reward, (reward > threshold).float())

    def predict_curves(self, batch: Mapping[str, Any], num_prefixes: int | None = None) -> dict[str, list[Float[Tensor, "T"]]]:
        """Returns, for each clip of a batch, one number a frame: "progress" in [0, 1], "raw" and "logodds" (nats; NaN where not asked).

        num_prefixes: None asks after every frame; else after so many, first and last among them, and progress is drawn straight between.
        """
        curves = []
        for frames, task in clips_and_tasks(batch, self.config):
            at = np.arange(len(frames))
            curves += self._curves(frames, (at, at / self.config.fps), [task], (0, len(frames)), num_prefixes)
        arrays_by_name = {"progress": [curve.value for curve in curves]}
        for key, name in (("raw", "logprob"), ("logodds", "logodds")):
            arrays_by_name[key] = [curve.main.signals[name].values for curve in curves]
        return {key: [torch.from_numpy(each) for each in arrays] for key, arrays in arrays_by_name.items()}

    def _curves(
        self,
        images: UInt8[np.ndarray, "N H W 3"],
        places: Places,
        tasks: Sequence[str],
        episode: tuple[int, int],
        num_prefixes: int | None,
    ) -> list[Progress]:
        """Returns a curve for each task. places: (frames, seconds) of the images. episode: its index and length."""
        (frames, times), (episode_index, length) = places, episode
        prefixes = anchors(len(frames), num_prefixes)
        at, curves = frames[prefixes - 1], []
        for logprobs, bound in zip(*self._ask(images, times, tasks, prefixes.tolist()), strict=True):
            scores = {"logprob": logprobs[:, 0], "logodds": logprobs[:, 0] - logprobs[:, 1]}
            if np.isnan(logprobs).any():
                scores["logprob_bound"] = bound[:, 0]
            value = interpolate(at, min_max(logprobs[:, 0], self.config.protocol), length)
            signals = {name: _nats(name, spread(each, at, length)) for name, each in scores.items()}
            curves.append(Progress(episode_index, Curve(value, signals=signals, score="logprob")))
        return curves

    def _ask(
        self, images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"], tasks: Sequence[str], prefixes: Sequence[int]
    ) -> tuple[Float[np.ndarray, "I P 2"], Float[np.ndarray, "I P 2"]]:
        """Returns log P of the answer and of its contrast, by instruction and prefix, NaN where a server does not say; and an upper bound
        of each.
        """
        engine, answers = self.engine, self.config.answers
        clip: Clip = engine.clip(images, times_s=times_s.tolist(), resolution=self.config.resolution)
        if isinstance(engine, RemoteEngine):
            scores = engine.ask(clip, instructions=list(tasks), answers=answers, prefixes=prefixes)
            return scores.logprob, scores.bound
        logprob = engine.score(clip, instructions=list(tasks), answers=answers, prefixes=prefixes)
        return logprob, logprob

    # While the robot moves

    def reset(self, task: str = "", *, fps: float | None = None) -> None:
        """Begins a new attempt at `task`, whose frames come at `fps`; None: at the config's rate, and every frame is used.

        DataError under protocol "lerobot" (earlier frames would change size), and on a server (every step would send the clip again).
        """
        self._attempt = self.begin(task=task, fps=fps)

    def begin(self, *, task: str = "", fps: float | None = None) -> LiveAttempt:
        """Returns a new attempt, which `advance` takes on; as `reset` otherwise."""
        if self.config.protocol == "lerobot":
            raise DataError("under protocol='lerobot' earlier frames change size as a clip grows; online it has to be protocol='milepost'")
        stream = self.engine.stream(
            instructions=[self.instruction_for(task)], answers=self.config.answers, resolution=self.config.resolution
        )
        return LiveAttempt(Attempt(stream, fps=fps, sampled_fps=self.config.fps))

    def advance(self, attempts: Sequence[LiveAttempt], frames: Sequence[Frame], states: Sequence[object]) -> list[Step | DataError]:
        """Returns what is said of the next frame of each attempt, one after the other; a DataError for one whose frame does not fit."""
        answers: list[Step | DataError] = []
        for attempt, frame in zip(attempts, frames, strict=True):
            try:
                answers.append(attempt.step(self.frame_of(frame), last=False))
            except DataError as error:
                answers.append(error)
        return answers

    def step(self, frame: Frame, state: object = None, *, last: bool = False) -> Step:
        """Returns what is said of the next frame of the attempt, (H, W, 3) or (3, H, W), or camera name -> image: signals "logprob" and
        "logodds", those of `predict`, and "logprob" between the lowest (0) and the highest (1) so far, NaN while there is one.

        Frames between two that `config.fps` asks for cost nothing. last: look at this one in any case, as `predict` does at the end.
        state: not looked at; other models take one.
        DataError before the first `reset`, or if the frame does not fit; it is then as if it had not been.
        """
        if self._attempt is None:
            raise DataError("call reset(task) before the first step")
        return self._attempt.step(self.frame_of(frame), last=last)

    # On disk

    def save_pretrained(self, folder: Path | str, *, format: Literal["milepost", "lerobot"] = "milepost") -> None:  # noqa: A002
        """Writes `config.json`, about 1 KB: the VLM is named in it, not copied, and need not be here. format="lerobot": as LeRobot 0.6.1
        reads it.

        DataError says why a config cannot be saved so.
        """
        if format not in ("milepost", "lerobot"):
            raise ValueError(f"format must be milepost or lerobot, got '{format}'")
        self._save(folder, self.config.to_lerobot() if format == "lerobot" else self.config.to_dict(), allow_nan=format == "lerobot")


def _nats(name: str, values: Float[np.ndarray, "T"]) -> Signal:
    """Returns a score as a signal: a log-probability is at most 0, log-odds have no bound."""
    return Signal(values.astype(np.float32), "nats", high=math.inf if name == "logodds" else 0.0)


class LiveAttempt:
    """One attempt, and its lowest and highest score so far."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, self._missing = attempt, 0
        self.low, self.high = math.inf, -math.inf
        self.now = Step(math.nan, {"logprob": math.nan, "logodds": math.nan}, fresh=False)

    def hold(self, frames: int) -> None:
        """Says that so many frames before the next one never came; of several calls before one frame the last counts."""
        self._missing = frames

    def snapshot(self) -> tuple[Any, ...]:
        """Returns what `restore` needs."""
        return self.attempt.snapshot(), self._missing, self.low, self.high, self.now

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Makes the attempt what it was at this snapshot."""
        attempt, self._missing, self.low, self.high, self.now = snapshot
        self.attempt.restore(attempt)

    def step(self, image: UInt8[np.ndarray, "H W 3"], *, last: bool) -> Step:
        before, is_whole = self.snapshot(), False
        try:
            logprobs = self.attempt.ask(image, last=last, missing=self._missing)
            is_whole = True
        finally:
            if not is_whole:
                self.restore(before)
        self._missing = 0
        if logprobs is None:
            self.now = dataclasses.replace(self.now, fresh=False)
            return self.now
        raw, other = (float(each) for each in logprobs)
        self.low, self.high = min(self.low, raw), max(self.high, raw)
        progress = (raw - self.low) / (self.high - self.low) if self.high > self.low else math.nan
        self.now = Step(progress, {"logprob": raw, "logodds": raw - other})
        return self.now
