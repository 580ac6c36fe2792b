"""What can be set on the command line of every model that asks a VLM; only what is given changes a saved config."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

SERVER = ("api_key_env", "concurrency", "price_per_million")
HERE = ("quantization", "attn_implementation", "max_memory", "max_input_length", "vlm_revision")
"""Options for a model on a server, and for one here."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class PrefixOptions:
    """For the models that ask a VLM after each part of an episode from its start: --model topreward, roboreward or robometer."""

    num_prefixes: int | None = None
    """Ask after so many prefixes an episode and draw straight between them (TOPReward: 15); default: after every frame looked at."""


@dataclass(frozen=True)
class VLMOptions:
    """For the models that ask a VLM, --model topreward, roboreward, robometer or gvl, or a folder with one. Defaults are those of the
    model's page, or of the folder.
    """

    vlm_name: str | None = None
    """Qwen3-VL: a folder or owner/name; with --base-url, the name the server has for its model. Default: Qwen/Qwen3-VL-8B-Instruct, of
    roboreward teetone/RoboReward-8B, of robometer robometer/Robometer-4B."""
    vlm_revision: str | None = None
    """Commit, tag or branch of a Hub model."""
    image_key: str | None = None
    """Camera to look at; default: observation.images.top, or the only one there is."""
    fps: float | None = None
    """Frames looked at a second. Default: 2, of roboreward and gvl 1."""
    max_pixels: int | None = None
    """Of a frame: larger ones are shrunk to it. Default: 786432, of gvl 65536."""
    attn_implementation: Literal["sdpa", "eager"] | None = None
    """How attention is computed. Default: sdpa."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Load the VLM in fewer bits (pip install 'milepost[quantization]')."""
    max_input_length: int | None = None
    """Tokens of an episode and its question, at most; longer episodes are left unknown. Default: 32768."""
    max_memory: str | None = None
    """What one pass may take beside weights and the clip's keys and values, such as 6GB; default: half of what is free."""
    base_url: str | None = None
    """Ask an OpenAI-compatible server instead, as in http://localhost:8000/v1."""
    api_key_env: str | None = None
    """Environment variable with its key. Default: OPENAI_API_KEY."""
    concurrency: int | None = None
    """Requests to it at once. Default: 8."""
    price_per_million: tuple[float, float] | None = None
    """What a million prompt and completion tokens cost there; the cost is then said."""

    def changed(self) -> dict[str, Any]:
        """Returns option -> value, of what was given."""
        return {name: value for name, value in vars(self).items() if value is not None and value is not False}

    def given(self) -> dict[str, Any]:
        """Returns field of the model's config -> value, of what was given. ValueError if --max-memory is no size."""
        fields = self.changed()
        fields.pop("num_prefixes", None)
        alone = SERVER if "base_url" not in fields else HERE
        if strangers := [name for name in alone if name in fields]:
            where = "with" if "base_url" in fields else "without"
            raise ValueError(f"--{strangers[0].replace('_', '-')} means nothing {where} --base-url")
        if "max_memory" in fields:
            fields["max_memory"] = size_in_bytes(fields["max_memory"])
        return fields


def size_in_bytes(text: str) -> int:
    """Returns 6000000000 for "6GB", 536870912 for "512MiB". ValueError shows the right form."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if match is None or match[2] not in UNITS or float(match[1]) <= 0:
        raise ValueError(f"--max-memory takes a size such as 6GB or 512MiB; got '{text}'")
    return int(float(match[1]) * UNITS[match[2]])
