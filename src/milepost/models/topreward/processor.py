"""A batch as a data loader gives it -> what `TOPRewardModel` takes: clips and instructions under `observation.topreward.*`.

No VLM is loaded and the batch given is left as it was. What is not a picture, or has no instruction, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from milepost.core import DataError, require_cameras, shown
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.zero_shot.clips import clips_of

TOPREWARD_FEATURE_PREFIX = "observation.topreward."
FRAMES, TASK = f"{TOPREWARD_FEATURE_PREFIX}frames", f"{TOPREWARD_FEATURE_PREFIX}task"


def encode_batch(batch: Mapping[str, Any], config: TOPRewardConfig) -> dict[str, Any]:
    """Returns the batch with `observation.topreward.frames`, a list of B clips (T, H, W, 3) uint8, and `.task`, B sentences, added where
    missing.

    Reads the camera (B, T, C, H, W), (B, T, H, W, C), (B, C, H, W) or a list of clips, uint8 or float in [0, 1]; and `config.task_key`, B
    sentences or one. Four dimensions and a single sentence are one clip of T frames. DataError if something is missing or does not fit.
    """
    out = dict(batch)
    if FRAMES not in out:
        require_cameras([config.image_key], batch, whose="the batch has")
        out[FRAMES] = clips_of(batch[config.image_key], alone=_one(batch.get(config.task_key, config.default_task)))
    if TASK not in out:
        out[TASK] = tasks_of(batch.get(config.task_key, config.default_task), len(out[FRAMES]), config)
    return out


def clips_and_tasks(batch: Mapping[str, Any], config: TOPRewardConfig) -> list[tuple[UInt8[np.ndarray, "T H W 3"], str]]:
    """Returns (clip, instruction) of each sample of an encoded batch. DataError if it was not encoded."""
    for key in (FRAMES, TASK):
        if key not in batch:
            raise DataError(f"the batch has no '{key}': let the preprocessor of make_reward_pre_post_processors see it first")
    clips = clips_of(batch[FRAMES], alone=_one(batch[TASK]))
    return list(zip(clips, tasks_of(batch[TASK], len(clips), config), strict=True))


def _one(task: Any) -> bool:
    """Returns whether this is the instruction of a single clip."""
    return isinstance(task, str) or (isinstance(task, Sequence) and len(task) == 1)


def tasks_of(task: Any, count: int, config: TOPRewardConfig) -> list[str]:
    """Returns the instruction of each of `count` samples; an empty one is `default_task`. DataError if there is none, or another number of
    them.
    """
    if task is None or isinstance(task, str):
        task = [task or config.default_task or ""] * count
    if not isinstance(task, Sequence) or not all(isinstance(each, str) for each in task):
        raise DataError(f"'{config.task_key}' should be a sentence or one for each sample, it is {shown(task)}")
    tasks = list(task) * count if len(task) == 1 else list(task)
    if len(tasks) != count:
        raise DataError(f"a batch of {count} clips needs {count} instructions, got {len(tasks)}")
    tasks = [each if each.strip() else config.default_task or "" for each in tasks]
    if not all(each.strip() for each in tasks):
        raise DataError(
            f"sample {[bool(each.strip()) for each in tasks].index(False)} has no instruction: '{config.task_key}' is missing or empty; "
            "give it, or a default_task"
        )
    return tasks
