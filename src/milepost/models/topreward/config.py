"""What a TOPReward model is: which VLM is asked, in which words, about which frames. Plain values; its config.json is the whole model.

Names and defaults are LeRobot's; `protocol`, `contrast_answer`, `max_pixels`, `vlm_revision` and `quantization` are ours, and so is all
that says where it runs. A config.json that LeRobot wrote is read as protocol="lerobot": its numbers come out as they do there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from milepost.core import DataError, refuses_unknown_options
from milepost.models.zero_shot.config import VLMConfig, require_positive
from milepost.vlm import Prompt, Resolution

FrameProtocol = Literal["milepost", "lerobot"]
OWN = ("protocol", "contrast_answer", "max_pixels", "vlm_revision", "quantization", "reduction")
"""Saved fields that LeRobot 0.6.1 does not know."""
THEIRS: Mapping[str, Any] = {
    "device": "cpu", "pretrained_path": None, "pretrained_revision": None, "push_to_hub": False, "repo_id": None, "license": "mit",
    "tags": ["reward-model", "vision-language", "zero-shot"], "private": None,
    "normalization_mapping": {"VISUAL": "IDENTITY", "REWARD": "IDENTITY"},
}  # fmt: skip
"""What else LeRobot 0.6.1 writes, which changes no number; read and left alone."""


@refuses_unknown_options()
@dataclass(frozen=True)
class TOPRewardConfig(VLMConfig):
    """Zero-shot reward: log P("True" | video so far, prompt) of a VLM that was trained for something else (arXiv 2602.19313).

    >>> milepost.TOPRewardConfig(image_key="observation.images.top", fps=1.0).vlm_name
    'Qwen/Qwen3-VL-8B-Instruct'
    """

    name: ClassVar[str] = "topreward"
    title: ClassVar[str] = "TOPReward"

    task_key: str = "task"
    """Where a batch has its instructions. Episodes have their own."""
    max_frames: int | None = 16
    """Frames `compute_reward` looks at, at most: evenly spread over the clip, under "lerobot" its last ones. None, and in curves: all."""
    fps: float = 2.0
    """milepost: how many frames of an episode are looked at a second. lerobot: what its frames are stamped with. In a batch, the rate of
    the frames given, all of which are looked at."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the tokens of the answer. It is one token: both are the same."""
    success_threshold: float = -math.inf
    """Finite: `compute_reward` says 1 above it and 0 below."""
    prompt_prefix: str = Prompt.prefix
    prompt_suffix_template: str = Prompt.template + " True"
    """Follows the prefix, has {instruction}, and ends in the answer whose log-probability is the reward: one token of the VLM."""
    contrast_answer: str = "False"
    """What the answer is weighed against: log-odds are log P(answer) - log P(contrast_answer)."""
    add_chat_template: bool = False
    """False: the user's turn stays unfinished, the answer is its next word. True: the assistant answers; far worse in the paper."""
    protocol: FrameProtocol = "milepost"
    """Which frames, times and sizes. milepost: a fixed stride at `fps`, true times, one size; the prefixes of an episode are prefixes of
    one text. lerobot: every frame, stamped i / fps whatever its time, at a size that shrinks as the clip grows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("max_frames", self.max_frames)
        if math.isnan(self.success_threshold):
            raise ValueError("success_threshold should be a log-probability, or -inf for none, got nan")
        if self.contrast_answer == self.answer:
            raise ValueError(f"contrast_answer should be another word than the answer, '{self.answer}'")
        if self.base_url is not None and self.protocol == "lerobot":
            raise ValueError("a server is sent frames of one size: base_url needs protocol='milepost', not 'lerobot'")
        _ = self.prompt  # refuses a template without {instruction}

    @property
    def answer(self) -> str:
        """Returns the last word of the template: what is scored. ValueError if that is the instruction."""
        return self._divided()[1]

    @property
    def prompt(self) -> Prompt:
        """Returns the words up to the answer."""
        return Prompt(self.prompt_prefix, self._divided()[0], self.add_chat_template)

    @property
    def answers(self) -> tuple[str, str]:
        """Returns the answer, and the word it is compared with."""
        return self.answer, self.contrast_answer

    @property
    def resolution(self) -> Resolution:
        """Returns how large frames are made."""
        return Resolution("lerobot") if self.protocol == "lerobot" else Resolution(max_pixels=self.max_pixels)

    def _divided(self) -> tuple[str, str]:
        words = self.prompt_suffix_template.split()
        if not words or "{" in words[-1] or "}" in words[-1]:
            raise ValueError(
                "prompt_suffix_template should have {instruction} and end in the word to be scored, as in '{instruction} ... The answer "
                f"is: True'; it is '{self.prompt_suffix_template}'"
            )
        text = self.prompt_suffix_template.rstrip()
        return text.removesuffix(words[-1]), words[-1]

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of config.json. No threshold is null: JSON has no infinity."""
        threshold = self.success_threshold if math.isfinite(self.success_threshold) else None
        return {**super().to_dict(), "success_threshold": threshold}

    def to_lerobot(self) -> dict[str, Any]:
        """Returns config.json as LeRobot 0.6.1 reads it. DataError if LeRobot would compute something else from it."""
        if self.protocol != "lerobot" or self.quantization or self.vlm_revision:
            wrong = "protocol='milepost'" if self.protocol != "lerobot" else "quantization" if self.quantization else "vlm_revision"
            raise DataError(f"LeRobot knows no {wrong}, its numbers would be others; make a config with protocol='lerobot' for it")
        if self.answer != "True" and self.add_chat_template:
            raise DataError(f"with its chat template LeRobot always scores 'True', this config '{self.answer}'")
        shape = {"type": "VISUAL", "shape": [3, 224, 224]}
        features = {"input_features": {self.image_key: shape}, "output_features": {"reward": {"type": "REWARD", "shape": [1]}}}
        fields = {name: value for name, value in self.to_dict().items() if name not in OWN}
        return {**fields, "success_threshold": self.success_threshold, **features, **THEIRS}

    @classmethod
    def _own(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields of a config.json, ours or LeRobot's. DataError names a field that LeRobot does not write beside its own."""
        is_lerobot = "normalization_mapping" in values or "input_features" in values
        fields = dict(values)
        if is_lerobot:
            fields = {name: value for name, value in values.items() if name not in (*THEIRS, "input_features", "output_features")}
            if strangers := sorted(set(fields) & set(OWN[:-1])):
                raise DataError(f"unknown fields in the TOPReward config: {', '.join(strangers)}")
            fields["protocol"] = "lerobot"
            if str(fields.get("attn_implementation")).startswith("flash_attention"):  # a matter of speed there, of nothing here
                fields["attn_implementation"] = None
        if fields.get("success_threshold", 0) is None:
            fields["success_threshold"] = -math.inf
        return fields
