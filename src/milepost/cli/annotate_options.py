"""The options of `milepost annotate` in groups, and the objects they describe: lists of stages, cameras, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from milepost import annotation, datasets, encoders, vlm
from milepost.cli.console import warn

AT_ONCE = 8
"""Default number of simultaneous requests to a server."""
TOKENS = ("prefilled", "reused", "generated")
"""Kinds of tokens that a local model counts."""


@dataclass(frozen=True)
class StageOptions:
    """The stages. Without these options: one sparse stage, "task", over the whole episode; no model is asked for it."""

    sparse_subtasks: str | None = None
    """Names of the high-level stages in their order, separated by commas."""
    dense_subtasks: str | None = None
    """Names of the fine stages."""
    sparse_file: Path | None = None
    """High-level stages from a file instead: one name or "name: description" per line, or .json (which can also mark stages as optional or
    repeatable)."""
    dense_file: Path | None = None
    """Fine stages from a file."""
    dense_only: bool = False
    """Only fine stages; the sparse head gets one stage, "task"."""

    def lists(self) -> dict[str, annotation.SubtaskList]:
        """Returns head -> its stages, for the heads with an option. ValueError for options that contradict each other."""
        by_head: dict[str, annotation.SubtaskList] = {}
        for head, names, file in (
            ("sparse", self.sparse_subtasks, self.sparse_file),
            ("dense", self.dense_subtasks, self.dense_file),
        ):
            if names is not None and file is not None:
                raise ValueError(f"give --{head}-subtasks or --{head}-file, not both")
            if names is not None or file is not None:
                by_head[head] = (
                    annotation.SubtaskList.from_file(file) if file is not None else annotation.SubtaskList.from_flag(names or "")
                )
        if self.dense_only and set(by_head) != {"dense"}:
            raise ValueError("--dense-only needs --dense-subtasks (or --dense-file), and no sparse stages")
        return by_head

    def lists_or_whole(self) -> dict[str, annotation.SubtaskList]:
        """Returns the stages of every head to annotate; without options, one stage for the sparse head."""
        return self.lists() or {"sparse": annotation.WHOLE}


@dataclass(frozen=True)
class AskOptions:
    """The input of the model and the question."""

    video_key: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--image-key"])] = ()
    """One camera, or several to show side by side; default: the first (a message names it)."""
    look: Literal["sheets", "frames"] = "sheets"
    """sheets: contact sheets of frames with numbers and times. frames: such frames one by one."""
    frames_per_second: float = annotation.RATE_HZ
    max_frames: int = annotation.BUDGET
    """Most frames per episode; the frames of a longer episode are farther apart."""
    repeats: int = 1
    """Number of questions per episode, each with other frames. Boundaries are medians, and the disagreement is reported."""
    tries: int = 3
    """Most answers per question: after a bad answer the model gets a list of its faults and is asked again."""
    temperature: float = 0.0
    """0: always the most likely token. Above 0: tokens are sampled with --seed."""
    seed: int = 0
    max_tokens: int = 2048
    """Longest answer in tokens."""
    task: str | None = None
    """Instruction for episodes without one."""

    def asking(self, dataset: datasets.LeRobotDataset) -> annotation.AskConfig:
        """Returns the question's settings. DataError for an unknown camera; the message lists the known ones."""
        cameras = dataset.cameras
        keys = dataset.choose_cameras(self.video_key, flag="--video-key", most=1)
        if not self.video_key and len(cameras) > 1:
            warn(f"looking at '{keys[0]}', the first of {len(cameras)} cameras ({', '.join(cameras[1:])}); choose with --video-key")
        return annotation.AskConfig(
            tuple(keys), self.look, self.frames_per_second, self.max_frames, self.repeats, self.tries, self.temperature, self.seed,
            self.max_tokens, self.task or "",
        )  # fmt: skip


@dataclass(frozen=True)
class ModelOptions:
    """The model: a local Qwen3-VL (pip install 'milepost[vlm]'), or any OpenAI-compatible server."""

    model: str = "Qwen/Qwen3-VL-30B-A3B-Instruct"
    """Folder or owner/name, dense or mixture of experts; with --base-url, the server's name of its model."""
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
    """Simultaneous requests to the server; default 8. A local model answers one at a time."""
    timeout_s: float = 300.0
    """Longest time of one try of one request, in seconds."""
    price_per_million: tuple[float, float] | None = None
    """Price of a million prompt tokens and of a million completion tokens; with it, the cost is reported."""

    @property
    def workers(self) -> int:
        """Returns the number of simultaneous requests. ValueError if it cannot be meant."""
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"--num-workers must be at least 1, got {self.num_workers}")
        return (self.num_workers or AT_ONCE) if self.base_url else 1

    def facts(self) -> dict[str, str]:
        """Returns what identifies this model's answers, before it is opened: for a folder also its weights, for a server only the model's
        name."""
        local = self.base_url is None and Path(self.model).expanduser().is_dir()
        where = {"pretrained_model_name_or_path": str(Path(self.model).expanduser()), "revision": None}
        weights = {"weights": vlm.fingerprint(where)} if local else {}
        return {"model": self.model, "revision": self.model_revision or "", "quantization": self.quantization or "", **weights}

    def server(self) -> vlm.ServerConfig | None:
        """Returns the server that is asked, None for a local model. DataError if its address cannot be one."""
        if self.base_url is None:
            return None
        settings: dict[str, Any] = {"price_per_million": self.price_per_million, "timeout_s": self.timeout_s}
        return vlm.ServerConfig(self.base_url, self.model, api_key_env=self.api_key_env, concurrency=self.workers, **settings)

    def open(self) -> vlm.ChatModel:
        """Opens the model. DataError if this is not possible."""
        workers, server = self.workers, self.server()
        if server is not None:
            return vlm.RemoteChatModel(server)
        if (self.num_workers or workers) > 1:
            warn(
                f"--num-workers {self.num_workers}: a local model answers one question at a time. For several GPUs serve it (as in "
                "`vllm serve MODEL`) and give --base-url, or start one process a GPU, each with its own --episodes"
            )
        device = encoders.resolve_device(self.device)
        engine = vlm.load_engine(
            self.model, revision=self.model_revision, device=device, dtype=self.precision, quantization=self.quantization
        )
        return vlm.LocalChatModel(engine)


@dataclass(frozen=True)
class Spent:
    """What a model was asked: a server's counters and peculiarities, or the tokens of a local model by kind."""

    usage: vlm.Usage | None = None
    notes: tuple[str, ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns the number of requests or tokens, in a line or several; empty if nothing is known."""
        if self.usage is not None:
            return "\n".join(f"server: {line}" for line in (self.usage, *self.notes))
        return f"tokens: {', '.join(f'{self.tokens[kind]} {kind}' for kind in TOKENS)}" if self.tokens else ""


def spent_on(speaker: vlm.ChatModel) -> Spent:
    """Returns what a model was asked so far."""
    if isinstance(speaker, vlm.RemoteChatModel):
        return Spent(speaker.usage, speaker.notes)
    if isinstance(speaker, vlm.LocalChatModel):
        return Spent(tokens={kind: speaker.tokens[kind] for kind in TOKENS})
    return Spent()


def spent_together(parts: Sequence[Spent], *, seconds: float) -> Spent:
    """Returns what the processes of a job spent, as one. seconds: that the job took."""
    usages = [each.usage for each in parts if each.usage is not None]
    tokens = {kind: sum(each.tokens.get(kind, 0) for each in parts) for kind in TOKENS} if any(each.tokens for each in parts) else {}
    notes = tuple(dict.fromkeys(note for each in parts for note in each.notes))
    return Spent(vlm.total_usage(usages, seconds=seconds) if usages else None, notes, tokens)
