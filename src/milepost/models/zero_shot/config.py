"""The fields that every model which asks a VLM has: which VLM, which frames of which camera, and where it runs. Plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from milepost.core import DataError, shown
from milepost.models.model_config import JudgedConfig
from milepost.vlm import Resolution

ATTENTION = (None, "sdpa", "eager")
WHERE = ("device", "pretrained_path", "max_memory", "base_url", "api_key_env", "concurrency", "price_per_million")
"""Fields that say where a model runs and is kept. They change no number beyond rounding, and are not saved."""
SECRET = ("base_url", "api_key_env")
"""Fields that decide where pictures go, and which variable of the environment goes with them. They are never read from a file."""

Config = TypeVar("Config", bound="VLMConfig")


@dataclass(frozen=True)
class VLMConfig(JudgedConfig):
    """A model's config but for what it asks. `name` is its `type` in config.json, `title` in messages."""

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""

    vlm_name: str = "Qwen/Qwen3-VL-8B-Instruct"
    """A Qwen3-VL: a folder or `owner/name`; with `base_url`, the name the server has for its model."""
    vlm_revision: str | None = None
    """Commit, tag or branch of a Hub model."""
    image_key: str = "observation.images.top"
    default_task: str | None = None
    """Instruction of a batch or an episode without one."""
    fps: float = 2.0
    """How many frames of an episode are looked at a second."""
    max_pixels: int | None = None
    """Of one frame: it is shrunk to fit. None: 768 patches of 32 x 32."""
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
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is not ClassVar and not _fits(getattr(self, name), kind):
                raise ValueError(f"{name} should be {_words(kind)}, got {shown(getattr(self, name))}")
        for name in ("max_pixels", "max_input_length", "max_memory", "concurrency"):
            require_positive(name, getattr(self, name))
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps should be above 0 and finite, got {self.fps}")
        if self.price_per_million is not None and not all(0 <= price < math.inf for price in self.price_per_million):
            raise ValueError(f"price_per_million should be two prices of 0 or more, got {self.price_per_million}")

    @property
    def TYPE(self) -> str:  # noqa: N802 (the name that configs of trained models have)
        return self.name

    @property
    def cameras(self) -> tuple[str, ...]:
        return (self.image_key,)

    @property
    def resolution(self) -> Resolution:
        """Returns how large frames are made."""
        return Resolution(max_pixels=self.max_pixels)

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of config.json, with the `type` that names the model; without where it runs."""
        return {"type": self.name, **{name: value for name, value in dataclasses.asdict(self).items() if name not in WHERE}}

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Returns the config in config.json. DataError names unknown fields and values that do not fit.

        A file never says where it runs: `base_url` and `api_key_env` in it are refused, so that a model of somebody else's cannot send
        pictures or a key anywhere; the rest of `WHERE` is left alone.
        """
        if secrets := [name for name in SECRET if values.get(name) is not None]:
            raise DataError(
                f"the {cls.title} config names {' and '.join(secrets)}: a saved config does not decide where pictures are sent or which "
                "environment variable is read. Take the field out of config.json and give it yourself, as in --base-url"
            )
        fields = cls._own({name: value for name, value in values.items() if name not in ("type", *WHERE)})
        if unknown := sorted(set(fields) - {field.name for field in dataclasses.fields(cls)}):
            raise DataError(f"unknown fields in the {cls.title} config: {', '.join(unknown)}")
        try:
            return cls(**fields)
        except ValueError as error:
            raise DataError(f"the {cls.title} config cannot be used: {error}") from error

    @classmethod
    def _own(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields that a config.json has, in this class's names."""
        return values


@dataclass(frozen=True)
class TunableConfig(VLMConfig):
    """The config of a model that `milepost train` can adapt; what it learnt is beside config.json."""

    tuned: Literal["heads", "lora"] | None = None
    """What was learnt in fine-tuning; None: the checkpoint as it is. Training sets it."""
    tuned_on: str | None = None
    """The fingerprint of the checkpoint that was fine-tuned. What was learnt fits no other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tuned is not None and self.base_url is not None:
            raise ValueError("base_url: a server does not have what was learnt in fine-tuning; load the fine-tuned model here")
        if self.tuned is not None and self.quantization is not None:
            raise ValueError("quantization: a fine-tuned model is loaded in the precision it was tuned in")

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        return values if self.tuned is not None else {name: each for name, each in values.items() if name not in ("tuned", "tuned_on")}


def require_positive(name: str, value: int | None) -> None:
    """Raises ValueError if a number is below 1; None passes."""
    if value is not None and value < 1:
        raise ValueError(f"{name} should be at least 1, got {value}")


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
