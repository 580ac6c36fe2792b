"""What a RoboReward model is: which checkpoint is asked, how its grade is read, about which frames. Its config.json is the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from milepost.core import refuses_unknown_options
from milepost.models.zero_shot.config import TunableConfig, require_positive
from milepost.vlm import Prompt

GRADES = ("1", "2", "3", "4", "5")
OPENING = "ANSWER: "
RUBRIC = """Given the task, assign a discrete progress score reward (1,2,3,4,5) for the robot in the video in the format: ANSWER: <score>
Rubric for end-of-episode progress (judge only the final state without time limits):
1 - No Success: Final state shows no goal-relevant change for the command.
2 - Minimal Progress: Final state shows a small but insufficient change toward the goal.
3 - Partial Completion: The final state shows good progress toward the goal but violates more than one requirement or a major requirement.
4 - Near Completion: Final state is correct in region and intent but misses a single minor requirement.
5 - Perfect Completion: Final state satisfies all requirements.

Task: {instruction}"""
"""The question that the checkpoints were trained with, as their model card gives it (teetone/RoboReward-4B); other words are out of
distribution."""


@refuses_unknown_options()
@dataclass(frozen=True)
class RoboRewardConfig(TunableConfig):
    """A grade from 1 to 5 for the final state of each prefix of a video (arXiv 2601.00675); progress is (grade - 1) / 4.

    >>> milepost.RoboRewardConfig(grading="greedy").vlm_name
    'teetone/RoboReward-8B'
    """

    name: ClassVar[str] = "roboreward"
    title: ClassVar[str] = "RoboReward"

    vlm_name: str = "teetone/RoboReward-8B"
    """A RoboReward checkpoint, which is a Qwen3-VL: a folder or `owner/name`; with `base_url`, the name the server has for its model."""
    fps: float = 1.0
    """How many frames of an episode are looked at a second. The checkpoints were trained with one."""
    grading: Literal["expectation", "greedy"] = "expectation"
    """expectation: the mean grade under the probabilities of the five grades behind "ANSWER: ". greedy: the grade that the model writes."""
    max_answer_tokens: int = 128
    """Tokens of a written answer, at most; only for "greedy", and on a server."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("max_answer_tokens", self.max_answer_tokens)

    @property
    def prompt(self) -> Prompt:
        """Returns the words up to the grade."""
        return Prompt("", RUBRIC, chat_template=True, opening=OPENING)
