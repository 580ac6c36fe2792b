"""What can be set on the command line when a model that asks a VLM is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["stages", "time"]


@dataclass(frozen=True)
class TuningOptions:
    """For --model robometer and roboreward, which are fine-tuned: give --head-only or --lora."""

    head_only: bool = False
    """Train the heads alone: the VLM stays as it is, and each clip is read once. For roboreward, the rows of the output layer of the five
    grades."""
    lora: bool = False
    """Train low-rank adapters of the language model's attention, and the heads (pip install 'milepost[finetune]')."""
    lora_rank: int | None = None
    """Rank of the adapters. Default: 16."""
    lora_alpha: int | None = None
    """Scale of the adapters: they are added times alpha / rank. Default: 32."""
    vlm_name: str | None = None
    """Checkpoint to start from: a folder or owner/name. Default: robometer/Robometer-4B or teetone/RoboReward-8B."""
    vlm_revision: str | None = None
    """Commit, tag or branch of a Hub checkpoint."""
    fps: float | None = None
    """Frames looked at a second, in training and later. Default: 2, of roboreward 1."""
    max_pixels: int | None = None
    """Of a frame: larger ones are shrunk to it, in training and later."""
    progress_from: Source | None = None
    """What progress is learnt from. stages: the sparse annotation. time: the part of the episode. Default: stages where there is an
    annotation, else time."""
    clips_per_episode: int | None = None
    """Clips of each episode that are learnt from: its beginnings, evenly spaced, up to the whole. Default: 8."""
