"""A batch as a data loader gives it -> what `TOPRewardModel` takes: clips and instructions under `observation.topreward.*`.

No VLM is loaded and the batch given is left as it was. What is not a picture, or has no instruction, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

from milepost.core import DataError, as_uint8, require_cameras, shown
from milepost.models.topreward.config import TOPRewardConfig

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


def clips_of(frames: Any, *, alone: bool) -> list[UInt8[np.ndarray, "T H W 3"]]:
    """Returns each sample's frames, (T, H, W, 3) uint8. alone: four dimensions are one clip and not B images. DataError if they are
    neither.
    """
    if isinstance(frames, Sequence):
        return [clip_of(each) for each in frames]
    array = _numpy(frames)
    if array.ndim == 5:
        return [clip_of(each) for each in array]
    if array.ndim == 4:
        return [clip_of(array)] if alone else [clip_of(each[None]) for each in array]
    if array.ndim == 3:
        return [clip_of(array[None])]
    raise DataError(f"frames should be (B, T, C, H, W), (B, T, H, W, C) or a list of clips, they are {array.shape}")


def clip_of(frames: Any) -> UInt8[np.ndarray, "T H W 3"]:
    """Returns one clip, channels first or last, uint8 or float in [0, 1]. DataError if it is neither, empty or without area."""
    array = _numpy(frames)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or 3 not in (array.shape[1], array.shape[-1]):
        raise DataError(f"a clip should be (T, H, W, 3) or (T, 3, H, W), it is {array.shape}")
    if not array.size:
        raise DataError(f"the clip is empty, {array.shape}; give it at least one frame with an area")
    if array.shape[-1] != 3:
        array = np.moveaxis(array, 1, -1)
    return np.ascontiguousarray(as_uint8(array, "frames"))


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


def _numpy(frames: Any) -> Shaped[np.ndarray, "..."]:
    if isinstance(frames, Tensor):
        frames = frames.detach().cpu()
        return (frames.float() if frames.is_floating_point() else frames).numpy()
    try:
        return np.asarray(frames)
    except ValueError as error:  # a list whose members differ in size
        raise DataError("the frames of a clip should have one size; these differ") from error
