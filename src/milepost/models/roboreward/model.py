"""RoboReward (arXiv 2601.00675): a Qwen3-VL that was trained to grade the final state of a video of a robot from 1 to 5.

It is asked after every prefix of an episode, and the VLM reads the episode once (`vlm/engine.py`). Progress is (grade - 1) / 4, the same
scale in every episode, so a failure stays low. The grade is, by default, the mean of 1 to 5 under the model's probabilities.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from milepost.core import Curve, DataError, Progress, Signal, Step, interpolate, spread
from milepost.models.roboreward.config import GRADES, OPENING, RoboRewardConfig
from milepost.models.zero_shot.model import Attempt, Places, ZeroShotModel
from milepost.models.zero_shot.sampling import anchors
from milepost.vlm import Engine, NoLogprobsError, Prompt, RemoteEngine, quoted

WRITTEN = re.compile(rf"{OPENING.strip()}\s*(\d+)(?![\w%]|[.,/:-]\d)")
BEFORE = re.compile(rf"{OPENING.strip()}\s*$")
"""Where an answer in words has its grade, and what stands before the grade."""
MOSTLY, SHORT = 0.5, 120
"""From this probability outside the grades on they say little; and how much of an answer without a grade is shown."""
LOW, HIGH = float(GRADES[0]), float(GRADES[-1])


@dataclass
class Answers:
    """What was answered so far: questions, those without a grade, an answer of these, and the sum of what was outside the grades."""

    questions: int = 0
    gradeless: int = 0
    example: str = ""
    outside: float = 0.0

    def count(self, answers: Sequence[Sequence[str]], graded: Sequence[Mapping[str, Float[np.ndarray, "P"]]]) -> None:
        """Adds the answers of each instruction, in words where there are any, with their grades."""
        for number, signals in enumerate(graded):
            is_unknown = np.isnan(signals["grade"])
            self.questions += len(is_unknown)
            self.gradeless += int(is_unknown.sum())
            self.outside += float(np.nansum(signals.get("outside", np.zeros(0))))
            if is_unknown.any() and answers and not self.example:
                self.example = answers[number][int(is_unknown.argmax())] or "(nothing)"

    def lines(self) -> list[str]:
        """Returns what a user should know of the answers, a line each."""
        lines = []
        if self.gradeless:
            such = f'; one of them is "{quoted(self.example, SHORT)}"' if self.example else ""
            lines.append(f"answers without a grade from 1 to 5: {self.gradeless} of {self.questions}, whose progress is unknown{such}")
        outside = self.outside / max(1, self.questions - self.gradeless)
        if outside > MOSTLY:
            lines.append(
                f"{outside:.0%} of the probability, on average, is outside the five grades (raw_outside), so the grades say little: the "
                "model does not answer in RoboReward's form. Is --vlm-name a RoboReward?"
            )
        return lines


class RoboRewardModel(ZeroShotModel):
    """The config and, from its first question on, the checkpoint it names.

    `predict`: `value` is (grade - 1) / 4; the signal "grade" is from 1 to 5. The signal "outside" is the probability of anything but a
    grade, which "expectation" leaves out; a large one says that the model does not answer in its own form. With "greedy" a grade is NaN
    where the answer has none.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import tiny_vlm
    >>> model = milepost.RoboRewardModel(milepost.RoboRewardConfig(vlm_name=str(tiny_vlm("vlm"))))
    >>> sorted(model.predict(milepost.open_dataset("dots")[0]).main.signals)
    ['grade', 'outside']
    """

    config_class = RoboRewardConfig
    config: RoboRewardConfig

    def __init__(self, config: RoboRewardConfig, engine: Engine | RemoteEngine | None = None) -> None:
        super().__init__(config, engine)
        self._attempt: Attempt | None = None
        self._answers = Answers()
        self._now = Step(math.nan, {"grade": math.nan, "outside": math.nan}, fresh=False)

    @property
    def prompt(self) -> Prompt:
        return self.config.prompt

    def _curves(
        self, images: UInt8[np.ndarray, "N H W 3"], places: Places, tasks: Sequence[str], episode: tuple[int, int], num_prefixes: int | None
    ) -> list[Progress]:
        (frames, times), (episode_index, length) = places, episode
        prefixes = anchors(len(frames), num_prefixes)
        at, curves = frames[prefixes - 1], []
        for scores in self._ask(images, times, tasks, prefixes.tolist()):
            value = interpolate(at, progress_of(scores["grade"]), length)
            signals = {name: _signal(name, spread(each, at, length)) for name, each in scores.items()}
            curves.append(Progress(episode_index, Curve(value, signals=signals)))
        return curves

    def _ask(
        self, images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"], tasks: Sequence[str], prefixes: Sequence[int]
    ) -> list[dict[str, Float[np.ndarray, "P"]]]:
        """Returns, for each instruction, the signals after each prefix."""
        engine = self.engine
        clip = engine.clip(images, times_s=times_s.tolist(), resolution=self.config.resolution)
        questions: dict[str, Any] = {"instructions": list(tasks), "prefixes": prefixes}
        most = self.config.max_answer_tokens
        if self.config.grading == "greedy":
            answers = engine.complete(clip, **questions, max_tokens=most)
            graded = [{"grade": np.array([written_grade(words) for words in row], np.float32)} for row in answers]
            self._answers.count(answers, graded)
            return graded
        answers = []
        if isinstance(engine, RemoteEngine):
            try:
                logprobs, answers = engine.choose(clip, **questions, choices=GRADES, after=BEFORE, max_tokens=most)
            except NoLogprobsError as error:
                raise NoLogprobsError(f"{error}. --grading greedy (grading='greedy') needs none: it takes the grade as written") from error
        else:
            logprobs = engine.score(clip, **questions, answers=GRADES)
        graded = [dict(zip(("grade", "outside"), expected_grade(row), strict=True)) for row in logprobs]
        self._answers.count(answers, graded)
        return graded

    def close(self) -> list[str]:
        """Closes the connections to a server, if there are any. Returns how many answers had no grade, and what a server was asked."""
        return [*self._answers.lines(), *super().close()]

    # While the robot moves

    def reset(self, task: str = "", *, fps: float | None = None) -> None:
        """Begins a new attempt at `task`, whose frames come at `fps`; None: at the config's rate, and every frame is used.

        DataError with "greedy", whose answers take many passes a frame, and on a server (every step would send the clip again).
        """
        if self.config.grading == "greedy":
            raise DataError("a written grade takes a pass for each word of each frame; online it has to be grading='expectation'")
        stream = self.engine.stream(instructions=[self.instruction_for(task)], answers=GRADES, resolution=self.config.resolution)
        self._attempt = Attempt(stream, fps=fps, sampled_fps=self.config.fps)
        self._now = Step(math.nan, {"grade": math.nan, "outside": math.nan}, fresh=False)

    def step(
        self, frame: Shaped[np.ndarray, "..."] | Mapping[str, Shaped[np.ndarray, "..."]], state: object = None, *, last: bool = False
    ) -> Step:
        """Returns what is said of the next frame of the attempt, (H, W, 3) or (3, H, W), or camera name -> image: progress and the signals
        of `predict`.

        Frames between two that `config.fps` asks for cost nothing. last: look at this one in any case, as `predict` does at the end.
        state: not looked at. DataError before the first `reset`, or if the frame does not fit; it is then as if it had not been.
        """
        if self._attempt is None:
            raise DataError("call reset(task) before the first step")
        logprobs = self._attempt.ask(self.frame_of(frame), last=last)
        if logprobs is None:
            self._now = dataclasses.replace(self._now, fresh=False)
        else:
            grade, outside = (float(each[0]) for each in expected_grade(logprobs[None]))
            self._now = Step(float(progress_of(np.array([grade]))[0]), {"grade": grade, "outside": outside})
        return self._now


def expected_grade(logprobs: Float[np.ndarray, "P 5"]) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """Returns the mean grade under the probabilities of the five grades alone, and the probability of everything else, float32.

    A grade that a server did not list is NaN here and counts as everything else; where none is listed, both are NaN.

    >>> [float(each[0]) for each in expected_grade(np.log(np.array([[0.0625, 0.0625, 0.125, 0.5, 0.0]]) + 1e-30))]
    [3.4166667461395264, 0.25]
    """
    mass = np.where(np.isnan(logprobs), 0.0, np.exp(logprobs.astype(np.float64)))
    total = mass.sum(-1)
    total = np.where(total > 0, total, np.nan)
    grade = mass @ np.array(GRADES, np.float64) / total
    return grade.astype(np.float32), np.clip(1.0 - total, 0.0, 1.0).astype(np.float32)


def written_grade(words: str) -> float:
    """Returns the grade that an answer in words gives; NaN if it gives none from 1 to 5.

    >>> written_grade("ANSWER: 4"), written_grade("ANSWER: 7"), written_grade("It is done.")
    (4.0, nan, nan)
    """
    match = WRITTEN.search(words)
    grade = float(match[1]) if match else math.nan
    return grade if LOW <= grade <= HIGH else math.nan


def progress_of(grade: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P"]:
    """Returns grades from 1 to 5 as progress from 0 to 1, float32."""
    return ((grade - LOW) / (HIGH - LOW)).astype(np.float32)


def _signal(name: str, values: Float[np.ndarray, "T"]) -> Signal:
    if name == "grade":
        return Signal(values.astype(np.float32), "grade", low=LOW, high=HIGH)
    return Signal(values.astype(np.float32), "", low=0.0, high=1.0, rises=False)
