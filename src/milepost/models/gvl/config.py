"""What a GVL model is: which VLM is asked, about how many frames, in how many orders. Plain values; its config.json is the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from milepost.core import refuses_unknown_options
from milepost.models.zero_shot.config import VLMConfig, require_positive
from milepost.vlm import Resolution


@refuses_unknown_options()
@dataclass(frozen=True)
class GVLConfig(VLMConfig):
    """Generative value learning (arXiv 2411.04549): a percentage for every frame, in shuffled order, from a VLM in words.

    >>> milepost.GVLConfig(shuffles=4).max_frames
    30
    """

    name: ClassVar[str] = "gvl"
    title: ClassVar[str] = "GVL"

    fps: float = 1.0
    """How many frames of an episode are shown a second, as long as they are no more than `max_frames`."""
    max_frames: int = 30
    """The most frames of an episode: a longer one is shown more coarsely. The first and the last are always among them."""
    max_pixels: int | None = 65_536
    """Of one frame: it is shrunk to fit, about 256 x 256. None: 768 patches of 32 x 32."""
    shuffles: int = 1
    """How often an episode is asked about, each time in another order; the percentages are averaged."""
    seed: int = 0
    """Of the orders."""
    max_answer_tokens: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shuffles", "max_answer_tokens"):
            require_positive(name, getattr(self, name))
        if self.max_frames < 2:
            raise ValueError(f"max_frames should be at least 2, the first and the last frame; got {self.max_frames}")

    @property
    def resolution(self) -> Resolution:
        return Resolution(max_pixels=self.max_pixels)
