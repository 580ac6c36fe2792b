"""What a TOPReward model is: which VLM is asked, in which words, about which frames. Plain values; its config.json is the whole model.

Names and defaults are LeRobot's; `protocol`, `contrast_answer`, `max_pixels`, `vlm_revision` and `quantization` are ours, and so is all
that says where it runs. A config.json that LeRobot wrote is read as protocol="lerobot": its numbers come out as they do there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from milepost.core import DataError, refuses_unknown_options, shown
from milepost.vlm import Prompt, Resolution

FrameProtocol = Literal["milepost", "lerobot"]
ATTENTION = (None, "sdpa", "eager")
WHERE = ("device", "pretrained_path", "max_memory", "base_url", "api_key_env", "concurrency", "price_per_million")
"""Fields that say where a model runs and is kept. They change no number beyond rounding, and are not saved."""
SECRET = ("base_url", "api_key_env")
"""Fields that decide where pictures go, and which variable of the environment goes with them. They are never read from a file."""
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
class TOPRewardConfig:
    """Zero-shot reward: log P("True" | video so far, prompt) of a VLM that was trained for something else (arXiv 2602.19313).

    >>> milepost.TOPRewardConfig(image_key="observation.images.top", fps=1.0).vlm_name
    'Qwen/Qwen3-VL-8B-Instruct'
    """

    vlm_name: str = "Qwen/Qwen3-VL-8B-Instruct"
    """A Qwen3-VL: a folder or `owner/name`; with `base_url`, the name the server has for its model."""
    vlm_revision: str | None = None
    """Commit, tag or branch of a Hub model."""
    image_key: str = "observation.images.top"
    task_key: str = "task"
    """Where a batch has its instructions. Episodes have their own."""
    default_task: str | None = None
    """Instruction of a batch or an episode without one."""
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
    max_pixels: int | None = None
    """Of one frame, milepost alone: it is shrunk to fit. None: 768 patches of 32 x 32."""
    torch_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    attn_implementation: Literal["sdpa", "eager"] | None = None
    """sdpa (None) or eager. flash_attention_2 cannot mask questions that stand side by side."""
    quantization: Literal["8bit", "4bit"] | None = None
    max_input_length: int = 32_768
    """Tokens of the longest prefix and its question, at most."""

    device: str | None = None
    max_memory: int | None = None
    """Bytes that one pass may take beside weights and KV cache; None: half of a GPU's free memory, 1 GiB on a CPU."""
    base_url: str | None = None
    """An OpenAI-compatible server to ask instead of a model here, as in "http://localhost:8000/v1"."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that has the server's key."""
    concurrency: int = 8
    """Requests under way at once."""
    price_per_million: tuple[float, float] | None = None
    """What a million prompt and completion tokens cost there."""
    pretrained_path: str | None = None

    def __post_init__(self) -> None:
        if self.attn_implementation not in ATTENTION:
            raise ValueError(
                f"attn_implementation should be sdpa or eager, got '{self.attn_implementation}': many questions are asked in one pass, "
                "side by side, and only these two can keep them apart"
            )
        for name, kind in get_type_hints(TOPRewardConfig).items():
            if not _fits(getattr(self, name), kind):
                raise ValueError(f"{name} should be {_words(kind)}, got {shown(getattr(self, name))}")
        for name in ("max_frames", "max_pixels", "max_input_length", "max_memory", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} should be at least 1, got {value}")
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps should be above 0 and finite, got {self.fps}")
        if self.price_per_million is not None and not all(0 <= price < math.inf for price in self.price_per_million):
            raise ValueError(f"price_per_million should be two prices of 0 or more, got {self.price_per_million}")
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
        """Returns the contents of config.json, with the `type` that names the model; without where it runs. No threshold is null: JSON has
        no infinity.
        """
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in WHERE}
        return {
            "type": "topreward",
            **fields,
            "success_threshold": self.success_threshold if math.isfinite(self.success_threshold) else None,
        }

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
    def from_dict(cls, values: Mapping[str, Any]) -> TOPRewardConfig:
        """Returns the config in config.json, ours or LeRobot's. DataError names unknown fields and values that do not fit.

        A file never says where it runs: `base_url` and `api_key_env` in it are refused, so that a model of somebody else's cannot send
        pictures or a key anywhere; the rest of `WHERE` is left alone.
        """
        if secrets := [name for name in SECRET if values.get(name) is not None]:
            raise DataError(
                f"the TOPReward config names {' and '.join(secrets)}: a saved config does not decide where pictures are sent or which "
                "environment variable is read. Take the field out of config.json and give it yourself, as in --base-url"
            )
        is_lerobot = "normalization_mapping" in values or "input_features" in values
        ignored = {"type", *WHERE, *((*THEIRS, "input_features", "output_features") if is_lerobot else ())}
        fields = {name: value for name, value in values.items() if name not in ignored}
        unknown = sorted(
            set(fields) - {field.name for field in dataclasses.fields(cls)} | (set(fields) & set(OWN[:-1]) if is_lerobot else set())
        )
        if unknown:
            raise DataError(f"unknown fields in the TOPReward config: {', '.join(unknown)}")
        if fields.get("success_threshold", 0) is None:
            fields["success_threshold"] = -math.inf
        if is_lerobot:
            fields["protocol"] = "lerobot"
            if str(fields.get("attn_implementation")).startswith("flash_attention"):  # a matter of speed there, of nothing here
                fields["attn_implementation"] = None
        try:
            return cls(**fields)
        except ValueError as error:
            raise DataError(f"the TOPReward config cannot be used: {error}") from error


def _fits(value: object, kind: Any) -> bool:
    options = get_args(kind) if kind not in (str, int, float, bool) else (kind,)
    for option in options:
        if option is type(None) and value is None:
            return True
        if get_args(option) and value in get_args(option):  # a Literal inside a union
            return True
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return True
        if get_origin(option) is tuple and isinstance(value, tuple) and len(value) == len(get_args(option)):
            return all(_fits(each, one) for each, one in zip(value, get_args(option), strict=True))
        if isinstance(option, type) and isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return True
        if not isinstance(option, type) and value == option:
            return True
    return False


def _words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
