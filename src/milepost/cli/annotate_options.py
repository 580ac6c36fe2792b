"""The options of `milepost annotate` in groups, and what they open: lists of stages, cameras, and who is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from milepost import annotation, datasets, encoders, vlm
from milepost.cli.console import warn
from milepost.core import DataError

AT_ONCE = 8
"""Requests to a server at once, unless told."""


@dataclass(frozen=True)
class StageOptions:
    """Which stages. Without any of these: one sparse stage, "task", from beginning to end, for which nobody is asked."""

    sparse_subtasks: str | None = None
    """Names of the high-level stages in the order in which they happen, with commas between them."""
    dense_subtasks: str | None = None
    """Names of the fine stages."""
    sparse_file: Path | None = None
    """High-level stages from a file instead: a name or "name: description" a line, or .json (also optional and repeatable stages)."""
    dense_file: Path | None = None
    """Fine stages from a file."""
    dense_only: bool = False
    """Fine stages alone; the sparse head has one stage, "task"."""

    def lists(self) -> dict[str, annotation.SubtaskList]:
        """Head -> its stages, for the heads that were given any. ValueError for options that contradict each other."""
        found: dict[str, annotation.SubtaskList] = {}
        for head, names, file in (
            ("sparse", self.sparse_subtasks, self.sparse_file),
            ("dense", self.dense_subtasks, self.dense_file),
        ):
            if names is not None and file is not None:
                raise ValueError(f"give --{head}-subtasks or --{head}-file, not both")
            if names is not None or file is not None:
                found[head] = annotation.SubtaskList.from_file(file) if file is not None else annotation.SubtaskList.from_flag(names or "")
        if self.dense_only and set(found) != {"dense"}:
            raise ValueError("--dense-only needs --dense-subtasks (or --dense-file), and no sparse stages")
        return found

    def wanted(self) -> dict[str, annotation.SubtaskList]:
        """The heads to annotate: those given; else one stage."""
        return self.lists() or {"sparse": annotation.WHOLE}


@dataclass(frozen=True)
class AskOptions:
    """What the model sees and how it is asked."""

    video_key: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--image-key"])] = ()
    """Camera to look at, or several, shown side by side; default: the first, which is said."""
    look: Literal["sheets", "frames"] = "sheets"
    """Contact sheets of numbered and timed frames, or such frames one by one."""
    frames_per_second: float = annotation.RATE_HZ
    max_frames: int = annotation.BUDGET
    """Of an episode: longer ones are shown more coarsely."""
    repeats: int = 1
    """Ask so many times, with other frames each time: borders are medians, and what the answers disagree on is said."""
    tries: int = 3
    """Answers an episode may take: after a bad one its faults are named and the model is asked again."""
    temperature: float = 0.0
    """0: the likeliest words. Above it, --seed decides."""
    seed: int = 0
    max_tokens: int = 2048
    """Of one answer."""
    task: str | None = None
    """Instruction of episodes that have none."""

    def asking(self, dataset: datasets.LeRobotDataset) -> annotation.AskConfig:
        """DataError for a camera that is not there: it names those that are."""
        cameras = dataset.cameras
        chosen = dataset.choose_cameras(self.video_key, flag="--video-key", most=1)
        if not self.video_key and len(cameras) > 1:
            warn(f"looking at '{chosen[0]}', the first of {len(cameras)} cameras ({', '.join(cameras[1:])}); choose with --video-key")
        return annotation.AskConfig(
            tuple(chosen), self.look, self.frames_per_second, self.max_frames, self.repeats, self.tries, self.temperature, self.seed,
            self.max_tokens, self.task or "",
        )  # fmt: skip


@dataclass(frozen=True)
class ModelOptions:
    """Who is asked: a Qwen3-VL here (pip install 'milepost[vlm]'), or any OpenAI-compatible server."""

    model: str = "Qwen/Qwen3-VL-30B-A3B-Instruct"
    """Folder or owner/name, dense or mixture of experts; with --base-url the server's name of its model."""
    model_revision: str | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Load the model in fewer bits (pip install 'milepost[quantization]')."""
    base_url: str | None = None
    """Ask a server instead, as in http://localhost:8000/v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with its key."""
    num_workers: int | None = None
    """Requests to the server at once; default 8. A local model answers one at a time."""
    timeout_s: float = 300.0
    """For one try of one request."""
    price_per_million: tuple[float, float] | None = None
    """What a million prompt and completion tokens cost there; the cost is then said."""

    @property
    def workers(self) -> int:
        return self.num_workers or (AT_ONCE if self.base_url else 1)

    def facts(self) -> dict[str, str]:
        """What tells this model's answers from another's, before it is opened: of a folder also its weights, of a server its name alone."""
        local = self.base_url is None and Path(self.model).expanduser().is_dir()
        where = {"pretrained_model_name_or_path": str(Path(self.model).expanduser()), "revision": None}
        weights = {"weights": vlm.fingerprint(where)} if local else {}
        return {"model": self.model, "revision": self.model_revision or "", "quantization": self.quantization or "", **weights}

    def open(self) -> vlm.ChatModel:
        """DataError if the model cannot be had."""
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"--num-workers must be at least 1, got {self.num_workers}")
        if self.base_url is not None:
            settings: dict[str, Any] = {"price_per_million": self.price_per_million, "timeout_s": self.timeout_s}
            return vlm.RemoteChatModel(
                vlm.ServerConfig(self.base_url, self.model, api_key_env=self.api_key_env, concurrency=self.workers, **settings)
            )
        if self.workers > 1:
            raise DataError(
                f"--num-workers {self.num_workers}: a local model answers one question at a time. For several GPUs serve it (as in "
                "`vllm serve MODEL`) and give --base-url, or start one process a GPU, each with its own --episodes"
            )
        device = encoders.resolve_device(self.device)
        engine = vlm.load_engine(
            self.model, revision=self.model_revision, device=device, dtype=self.precision, quantization=self.quantization
        )
        return vlm.LocalChatModel(engine)


def usage_of(chat_model: vlm.ChatModel) -> str:
    """What was asked, in one line."""
    if isinstance(chat_model, vlm.RemoteChatModel):
        return "\n".join(f"server: {line}" for line in (chat_model.usage, *chat_model.notes))
    if isinstance(chat_model, vlm.LocalChatModel):
        counts: Mapping[str, int] = chat_model.tokens
        return "tokens: " + ", ".join(f"{counts[kind]} {kind}" for kind in ("prefilled", "reused", "generated"))
    return ""
