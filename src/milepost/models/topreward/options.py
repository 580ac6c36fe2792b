"""What can be set on the command line of a TOPReward model beside the options of every model that asks a VLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from milepost.models.zero_shot.options import VLMOptions


@dataclass(frozen=True)
class TOPRewardOnly:
    """For --model topreward, or a folder with one. Defaults are those of docs/topreward.md, or of the folder."""

    protocol: Literal["milepost", "lerobot"] | None = None
    """milepost (default): --fps frames a second with their true times, one size. lerobot: every frame, stamped as if taken at --fps."""
    add_chat_template: bool = False
    """Close the user's turn and let the assistant answer: far worse in the paper, but some servers can do nothing else."""
    success_threshold: float | None = None
    """Count the episodes whose last scores are above it; milepost evaluate fits one."""


@dataclass(frozen=True)
class TOPRewardOptions(TOPRewardOnly, VLMOptions):
    """All options of a TOPReward model."""
