"""What a Robometer model is: which checkpoint is asked, about which frames, in which words. Its config.json is the whole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from milepost.core import refuses_unknown_options
from milepost.models.zero_shot.config import TunableConfig, require_positive
from milepost.vlm import HeadFormat, Resolution

Protocol = Literal["dense", "published", "lerobot"]
FPS = 2.0
LARGEST = 16_384 * 32**2
"""Pixels of an image, at most: Qwen's own tools shrink larger ones."""
LEROBOT_FRAMES = 4
"""How many frames LeRobot 0.6.1 shows for each frame of an episode."""
MARK = "<|prog_token|>"
FORMAT = HeadFormat(
    heads={"progress": "progress_head", "success": "success_head"},
    outputs={"progress": 10, "success": 1},
    unused=("preference_head", "frame_pool_attn"),
    tokens=("<|split_token|>", "<|reward_token|>", "<|pref_token|>", "<|sim_token|>", MARK),
    mark=MARK,
    settings={
        "use_multi_image": True,
        "use_per_frame_progress_token": True,
        "progress_loss_type": "discrete",
        "progress_discrete_bins": 10,
    },
)
"""The parts of a checkpoint. The preference head compares two attempts and the pooling is for models without marks; neither is used."""
COLUMNS = {"progress": slice(0, 10), "success": slice(10, 11)}
WIDTH = 13
"""Where the heads are in a row that a server answers with, and how many numbers a row has at least: the form that Refiner reads."""
QUESTION = (
    "The task for the robot is '{instruction}'. Given the trajectory video, predict the task progress at each frame, how far along the "
    "robot is towards completing the task, a float between 0 and 1, where 0 is the starting state and 1 is when the task is completed. "
    "If the robot is not performing the same task, predict 0 progress."
)
"""The question that the checkpoints were trained with (arXiv 2603.02115); other words are out of distribution."""


@refuses_unknown_options()
@dataclass(frozen=True)
class RobometerConfig(TunableConfig):
    """Progress and success at frames of an attempt, which is shown from its start (arXiv 2603.02115).

    >>> milepost.RobometerConfig(frame_protocol="published").vlm_name
    'robometer/Robometer-4B'
    """

    name: ClassVar[str] = "robometer"
    title: ClassVar[str] = "Robometer"

    vlm_name: str = "robometer/Robometer-4B"
    """A Robometer checkpoint: a folder or `owner/name`, as it was published or as LeRobot saves it; with `base_url`, the server's name of
    it."""
    fps: float = FPS
    """How many frames of an episode are asked about a second; only for "dense"."""
    frame_protocol: Protocol = "dense"
    """dense: asked after each frame looked at, and shown the attempt so far in at most `max_frames`. published: one pass over `max_frames`
    of the whole attempt. lerobot: what LeRobot 0.6.1 does, each frame of the episode, and the attempt so far in four."""
    max_frames: int = 8
    """The most frames that are shown at once, evenly spaced, first and last among them. The checkpoints were trained with 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("max_frames", self.max_frames)
        if self.max_frames < 2:
            raise ValueError("max_frames should be at least 2, the first frame of the attempt and the newest")
        if self.frame_protocol != "dense" and self.fps != FPS:
            raise ValueError(f"fps is for frame_protocol='dense'; '{self.frame_protocol}' chooses the frames of an episode itself")
        if self.quantization is not None:
            raise ValueError("quantization: a Robometer is loaded as published; use torch_dtype='bfloat16' to save memory")

    @property
    def resolution(self) -> Resolution:
        """Returns how large frames are made: as they are, to multiples of 32, unless `max_pixels` says less."""
        return Resolution(max_pixels=self.max_pixels or LARGEST)
